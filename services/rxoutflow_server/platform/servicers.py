"""The gRPC services of a regional platform: each method hands its request to one command.

Who is calling has been established before a method runs; see ``transport``. Errors pass through to
the interceptor, which alone turns them into statuses.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from functools import partial
from typing import Any, TypeAlias, TypeVar

import grpc
from google.rpc.status_pb2 import Status

from rxoutflow.identity import CallerName
from rxoutflow.v1 import (
    administration_service_pb2,
    administration_service_pb2_grpc,
    clearing_service_pb2,
    clearing_service_pb2_grpc,
    home_service_pb2,
    home_service_pb2_grpc,
    hospital_service_pb2,
    hospital_service_pb2_grpc,
    payer_service_pb2,
    payer_service_pb2_grpc,
    peer_service_pb2,
    peer_service_pb2_grpc,
    pharmacy_service_pb2,
    pharmacy_service_pb2_grpc,
    supervision_service_pb2,
    supervision_service_pb2_grpc,
)
from rxoutflow_server.application import administration, supervision
from rxoutflow_server.application.clearing import reconciling, stating
from rxoutflow_server.application.dispensing import (
    claims,
    corrections,
    deliveries,
    records,
    returns,
    settling,
)
from rxoutflow_server.application.dispensing import (
    history as dispensing_history,
)
from rxoutflow_server.application.dispensing.exchange import Exchange
from rxoutflow_server.application.exchange import trust_lists
from rxoutflow_server.application.home import history as home_history
from rxoutflow_server.application.home import registration
from rxoutflow_server.application.log import showing
from rxoutflow_server.application.ports import Store
from rxoutflow_server.application.region import Region, receipted
from rxoutflow_server.application.validation import invalid
from rxoutflow_server.platform import notices
from rxoutflow_server.platform.changes import Changes
from rxoutflow_server.platform.desk import Desk
from rxoutflow_server.transport.interceptor import count_as, current_caller, decided
from rxoutflow_server.transport.pipelining import in_order

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

_OfBatch: TypeAlias = hospital_service_pb2.BatchRegisterPrescriptionsResponse.Result
_OfStream: TypeAlias = hospital_service_pb2.StreamRegisterPrescriptionsResponse
_Answer = TypeVar("_Answer", _OfBatch, _OfStream)

MAX_REGISTRATIONS = 100
"""In one call."""

MAX_STREAMED = 64
"""Registrations of one stream that are decided or wait to be heard; see the contract."""

MAX_STREAMED_TOGETHER = 512
"""Registrations of all streams that are decided at a time; the others wait for their turn."""

UUID_LENGTH = 36
"""A request id that is longer is refused, and is not sent back whole."""


def _caller() -> CallerName:
    caller = current_caller()
    return CallerName(caller.region_code, caller.kind, caller.institution_code)


class HospitalServicer(hospital_service_pb2_grpc.HospitalServiceServicer):
    """HospitalService."""

    def __init__(self, region: Region, store: Store, changes: Changes) -> None:
        self._region = region
        self._store = store
        self._changes = changes
        self._streamed = asyncio.Semaphore(MAX_STREAMED_TOGETHER)

    async def PrecheckPrescription(
        self, request: hospital_service_pb2.PrecheckPrescriptionRequest, context: Context
    ) -> hospital_service_pb2.PrecheckPrescriptionResponse:
        """See the contract."""
        return registration.precheck(self._region, request)

    async def RegisterPrescription(
        self, request: hospital_service_pb2.RegisterPrescriptionRequest, context: Context
    ) -> hospital_service_pb2.RegisterPrescriptionResponse:
        """See the contract."""
        return await self._registered(_caller(), request)

    async def BatchRegisterPrescriptions(
        self, request: hospital_service_pb2.BatchRegisterPrescriptionsRequest, context: Context
    ) -> hospital_service_pb2.BatchRegisterPrescriptionsResponse:
        """See the contract."""
        if not 1 <= len(request.requests) <= MAX_REGISTRATIONS:
            raise invalid("requests", f"must be 1 to {MAX_REGISTRATIONS}")
        count_as(len(request.requests))
        results = await asyncio.gather(
            *(self._told(_OfBatch(), _caller(), each) for each in request.requests)
        )
        return hospital_service_pb2.BatchRegisterPrescriptionsResponse(results=results)

    async def StreamRegisterPrescriptions(
        self,
        requests: AsyncIterator[hospital_service_pb2.StreamRegisterPrescriptionsRequest],
        context: Context,
    ) -> AsyncGenerator[hospital_service_pb2.StreamRegisterPrescriptionsResponse, None]:
        """See the contract."""
        answer = partial(self._register_streamed, _caller())
        async with aclosing(in_order(requests, answer, MAX_STREAMED)) as answers:
            async for each in answers:
                yield each

    async def _register_streamed(
        self,
        caller: CallerName,
        request: hospital_service_pb2.StreamRegisterPrescriptionsRequest,
    ) -> hospital_service_pb2.StreamRegisterPrescriptionsResponse:
        async with self._streamed:
            answer = await self._told(_OfStream(), caller, request.registration)
        answer.request_id = request.registration.request_id[:UUID_LENGTH]
        return answer

    async def _told(
        self,
        answer: _Answer,
        caller: CallerName,
        request: hospital_service_pb2.RegisterPrescriptionRequest,
    ) -> _Answer:
        """The answer to one of many registrations: its response, or why it was refused."""
        request_id = request.request_id[:UUID_LENGTH]
        decision = await decided(request_id, self._registered(caller, request))
        if isinstance(decision, Status):
            answer.error.CopyFrom(decision)
        else:
            answer.response.CopyFrom(decision)
        return answer

    async def _registered(
        self, caller: CallerName, request: hospital_service_pb2.RegisterPrescriptionRequest
    ) -> hospital_service_pb2.RegisterPrescriptionResponse:
        response = await self._store.transact(
            lambda tx: registration.register(tx, self._region, caller, request)
        )
        return await receipted(self._region, self._store, response, request.prescription)

    async def RevokePrescription(
        self, request: hospital_service_pb2.RevokePrescriptionRequest, context: Context
    ) -> hospital_service_pb2.RevokePrescriptionResponse:
        """See the contract."""
        caller = _caller()
        response = await self._store.transact(
            lambda tx: registration.revoke(tx, self._region, caller, request)
        )
        return await receipted(self._region, self._store, response, request.revocation)

    async def GetPrescription(
        self, request: hospital_service_pb2.GetPrescriptionRequest, context: Context
    ) -> hospital_service_pb2.GetPrescriptionResponse:
        """See the contract."""
        caller = _caller()
        return await self._store.read(
            lambda tx: registration.get(tx, self._region, caller, request)
        )

    async def ListStatements(
        self, request: hospital_service_pb2.HospitalServiceListStatementsRequest, context: Context
    ) -> hospital_service_pb2.HospitalServiceListStatementsResponse:
        """See the contract."""
        caller = _caller()
        return await self._store.read(
            lambda tx: home_history.list_statements(tx, self._region, caller, request)
        )

    async def ListPrescriptions(
        self, request: hospital_service_pb2.ListPrescriptionsRequest, context: Context
    ) -> hospital_service_pb2.ListPrescriptionsResponse:
        """See the contract."""
        caller = _caller()
        return await self._store.read(
            lambda tx: registration.list_own(tx, self._region, caller, request)
        )

    async def WatchNotices(
        self, request: hospital_service_pb2.HospitalServiceWatchNoticesRequest, context: Context
    ) -> AsyncGenerator[hospital_service_pb2.HospitalServiceWatchNoticesResponse, None]:
        """See the contract."""
        institution, token = _caller().institution_code, request.resume_token
        async for notice in notices.watch(
            self._region, self._store, self._changes, institution, token
        ):
            yield hospital_service_pb2.HospitalServiceWatchNoticesResponse(notice=notice)

    async def GetOutcome(
        self, request: hospital_service_pb2.HospitalServiceGetOutcomeRequest, context: Context
    ) -> hospital_service_pb2.HospitalServiceGetOutcomeResponse:
        """See the contract."""
        caller = _caller()
        return await self._store.read(lambda tx: registration.get_outcome(tx, caller, request))


class PharmacyServicer(pharmacy_service_pb2_grpc.PharmacyServiceServicer):
    """PharmacyService."""

    def __init__(self, exchange: Exchange, changes: Changes) -> None:
        self._exchange = exchange
        self._region = exchange.region
        self._store = exchange.store
        self._changes = changes

    async def PresentECredential(
        self, request: pharmacy_service_pb2.PresentECredentialRequest, context: Context
    ) -> pharmacy_service_pb2.PresentECredentialResponse:
        """See the contract."""
        return await claims.present_e_credential(self._exchange, _caller(), request)

    async def FindPrescription(
        self, request: pharmacy_service_pb2.FindPrescriptionRequest, context: Context
    ) -> pharmacy_service_pb2.FindPrescriptionResponse:
        """See the contract."""
        return await claims.find(self._exchange, _caller(), request)

    async def ClaimPrescription(
        self, request: pharmacy_service_pb2.ClaimPrescriptionRequest, context: Context
    ) -> pharmacy_service_pb2.ClaimPrescriptionResponse:
        """See the contract."""
        return await claims.claim(self._exchange, _caller(), request)

    async def ReleaseClaim(
        self, request: pharmacy_service_pb2.ReleaseClaimRequest, context: Context
    ) -> pharmacy_service_pb2.ReleaseClaimResponse:
        """See the contract."""
        return await claims.release(self._exchange, _caller(), request)

    async def QuoteSettlement(
        self, request: pharmacy_service_pb2.QuoteSettlementRequest, context: Context
    ) -> pharmacy_service_pb2.QuoteSettlementResponse:
        """See the contract."""
        return await settling.quote(self._exchange, _caller(), request)

    async def CommitClaim(
        self, request: pharmacy_service_pb2.CommitClaimRequest, context: Context
    ) -> pharmacy_service_pb2.CommitClaimResponse:
        """See the contract."""
        return await settling.commit(self._exchange, _caller(), request)

    async def RecordDispense(
        self, request: pharmacy_service_pb2.RecordDispenseRequest, context: Context
    ) -> pharmacy_service_pb2.RecordDispenseResponse:
        """See the contract."""
        response = await records.record_dispense(self._exchange, _caller(), request)
        return await receipted(self._region, self._store, response, request.dispense_record)

    async def CorrectCall(
        self, request: pharmacy_service_pb2.CorrectCallRequest, context: Context
    ) -> pharmacy_service_pb2.CorrectCallResponse:
        """See the contract."""
        return await corrections.correct(self._exchange, _caller(), request)

    async def ReturnDispense(
        self, request: pharmacy_service_pb2.ReturnDispenseRequest, context: Context
    ) -> pharmacy_service_pb2.ReturnDispenseResponse:
        """See the contract."""
        caller = _caller()
        response = await self._store.transact(
            lambda tx: returns.take_back(tx, self._region, caller, request)
        )
        return await receipted(self._region, self._store, response, request.dispense_return)

    async def UpdateDelivery(
        self, request: pharmacy_service_pb2.UpdateDeliveryRequest, context: Context
    ) -> pharmacy_service_pb2.UpdateDeliveryResponse:
        """See the contract."""
        caller = _caller()
        return await self._store.transact(
            lambda tx: deliveries.update(tx, self._region, caller, request)
        )

    async def GetDispense(
        self, request: pharmacy_service_pb2.GetDispenseRequest, context: Context
    ) -> pharmacy_service_pb2.GetDispenseResponse:
        """See the contract."""
        caller = _caller()
        return await self._store.read(lambda tx: records.get(tx, caller, request))

    async def ListStatements(
        self, request: pharmacy_service_pb2.PharmacyServiceListStatementsRequest, context: Context
    ) -> pharmacy_service_pb2.PharmacyServiceListStatementsResponse:
        """See the contract."""
        caller = _caller()
        return await self._store.read(
            lambda tx: dispensing_history.list_statements(tx, self._region, caller, request)
        )

    async def ListDispenses(
        self, request: pharmacy_service_pb2.ListDispensesRequest, context: Context
    ) -> pharmacy_service_pb2.ListDispensesResponse:
        """See the contract."""
        caller = _caller()
        return await self._store.read(lambda tx: records.list_own(tx, caller, request))

    async def ReconcileDay(
        self, request: pharmacy_service_pb2.PharmacyServiceReconcileDayRequest, context: Context
    ) -> pharmacy_service_pb2.PharmacyServiceReconcileDayResponse:
        """See the contract."""
        caller = _caller()
        return await self._store.read(lambda tx: reconciling.answer_pharmacy(tx, caller, request))

    async def WatchNotices(
        self, request: pharmacy_service_pb2.PharmacyServiceWatchNoticesRequest, context: Context
    ) -> AsyncGenerator[pharmacy_service_pb2.PharmacyServiceWatchNoticesResponse, None]:
        """See the contract."""
        institution, token = _caller().institution_code, request.resume_token
        async for notice in notices.watch(
            self._region, self._store, self._changes, institution, token
        ):
            yield pharmacy_service_pb2.PharmacyServiceWatchNoticesResponse(notice=notice)

    async def GetOutcome(
        self, request: pharmacy_service_pb2.PharmacyServiceGetOutcomeRequest, context: Context
    ) -> pharmacy_service_pb2.PharmacyServiceGetOutcomeResponse:
        """See the contract."""
        caller = _caller()
        return await self._store.read(lambda tx: claims.get_outcome(tx, caller, request))


class HomeServicer(home_service_pb2_grpc.HomeServiceServicer):
    """HomeService."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def OpenPrescription(
        self, request: home_service_pb2.OpenPrescriptionRequest, context: Context
    ) -> home_service_pb2.OpenPrescriptionResponse:
        """See the contract."""
        return await self._desk.open_prescription(_caller(), request)

    async def GrantClaim(
        self, request: home_service_pb2.GrantClaimRequest, context: Context
    ) -> home_service_pb2.GrantClaimResponse:
        """See the contract."""
        return await self._desk.grant_claim(_caller(), request)

    async def CommitAttempt(
        self, request: home_service_pb2.CommitAttemptRequest, context: Context
    ) -> home_service_pb2.CommitAttemptResponse:
        """See the contract."""
        return await self._desk.commit_attempt(_caller(), request)

    async def ReleaseAttempt(
        self, request: home_service_pb2.ReleaseAttemptRequest, context: Context
    ) -> home_service_pb2.ReleaseAttemptResponse:
        """See the contract."""
        return await self._desk.release_attempt(_caller(), request)

    async def CorrectAttempt(
        self, request: home_service_pb2.CorrectAttemptRequest, context: Context
    ) -> home_service_pb2.CorrectAttemptResponse:
        """See the contract."""
        return await self._desk.correct_attempt(_caller(), request)

    async def GetAttempt(
        self, request: home_service_pb2.GetAttemptRequest, context: Context
    ) -> home_service_pb2.GetAttemptResponse:
        """See the contract."""
        return await self._desk.get_attempt(_caller(), request)


class PayerServicer(payer_service_pb2_grpc.PayerServiceServicer):
    """PayerService."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def IssueECredential(
        self, request: payer_service_pb2.IssueECredentialRequest, context: Context
    ) -> payer_service_pb2.IssueECredentialResponse:
        """See the contract."""
        return await self._desk.issue_e_credential(_caller(), request)

    async def QuoteBenefit(
        self, request: payer_service_pb2.QuoteBenefitRequest, context: Context
    ) -> payer_service_pb2.QuoteBenefitResponse:
        """See the contract."""
        return await self._desk.quote_benefit(_caller(), request)

    async def HoldBenefit(
        self, request: payer_service_pb2.HoldBenefitRequest, context: Context
    ) -> payer_service_pb2.HoldBenefitResponse:
        """See the contract."""
        return await self._desk.hold_benefit(_caller(), request)

    async def GetSettlement(
        self, request: payer_service_pb2.GetSettlementRequest, context: Context
    ) -> payer_service_pb2.GetSettlementResponse:
        """See the contract."""
        return await self._desk.get_settlement(_caller(), request)


class PeerServicer(peer_service_pb2_grpc.PeerServiceServicer):
    """PeerService."""

    def __init__(self, region: Region, desk: Desk) -> None:
        self._region = region
        self._desk = desk

    async def DeliverEvents(
        self, request: peer_service_pb2.DeliverEventsRequest, context: Context
    ) -> peer_service_pb2.DeliverEventsResponse:
        """See the contract."""
        return await self._desk.deliver_events(_caller(), request)

    async def GetCheckpoint(
        self, request: peer_service_pb2.GetCheckpointRequest, context: Context
    ) -> peer_service_pb2.GetCheckpointResponse:
        """See the contract."""
        return await self._desk.get_checkpoint(_caller(), request)

    async def SellTraceCodes(
        self, request: peer_service_pb2.SellTraceCodesRequest, context: Context
    ) -> peer_service_pb2.SellTraceCodesResponse:
        """See the contract."""
        return await self._desk.sell_trace_codes(_caller(), request)

    async def TakeBackTraceCodes(
        self, request: peer_service_pb2.TakeBackTraceCodesRequest, context: Context
    ) -> peer_service_pb2.TakeBackTraceCodesResponse:
        """See the contract."""
        return await self._desk.take_back_trace_codes(_caller(), request)

    async def GetTrustList(
        self, request: peer_service_pb2.GetTrustListRequest, context: Context
    ) -> peer_service_pb2.GetTrustListResponse:
        """See the contract."""
        return trust_lists.answer(self._region.trust, self._region.code, request)


class ClearingServicer(clearing_service_pb2_grpc.ClearingServiceServicer):
    """ClearingService."""

    def __init__(self, exchange: Exchange, desk: Desk) -> None:
        self._exchange = exchange
        self._desk = desk

    async def ReconcileDay(
        self, request: clearing_service_pb2.ClearingServiceReconcileDayRequest, context: Context
    ) -> clearing_service_pb2.ClearingServiceReconcileDayResponse:
        """See the contract."""
        return await self._desk.reconcile_day(_caller(), request)

    async def ProposeClearing(
        self, request: clearing_service_pb2.ProposeClearingRequest, context: Context
    ) -> clearing_service_pb2.ProposeClearingResponse:
        """See the contract."""
        return await self._desk.propose_clearing(_caller(), request)

    async def ClearPeriod(
        self, request: clearing_service_pb2.ClearPeriodRequest, context: Context
    ) -> clearing_service_pb2.ClearPeriodResponse:
        """See the contract."""
        return await stating.clear_period(self._exchange, request)


class SupervisionServicer(supervision_service_pb2_grpc.SupervisionServiceServicer):
    """SupervisionService."""

    def __init__(self, region: Region, store: Store) -> None:
        self._region = region
        self._store = store

    async def TracePrescription(
        self, request: supervision_service_pb2.TracePrescriptionRequest, context: Context
    ) -> supervision_service_pb2.TracePrescriptionResponse:
        """See the contract."""
        return await self._store.read(lambda tx: supervision.trace(tx, self._region, request))

    async def ExportEvidence(
        self, request: supervision_service_pb2.ExportEvidenceRequest, context: Context
    ) -> supervision_service_pb2.ExportEvidenceResponse:
        """See the contract."""
        return await self._store.read(lambda tx: showing.export(tx, self._region, request))

    async def GetCheckpoint(
        self,
        request: supervision_service_pb2.SupervisionServiceGetCheckpointRequest,
        context: Context,
    ) -> supervision_service_pb2.SupervisionServiceGetCheckpointResponse:
        """See the contract."""
        return await self._store.read(lambda tx: showing.checkpoint(tx, self._region, request))

    async def GetConsistencyProof(
        self, request: supervision_service_pb2.GetConsistencyProofRequest, context: Context
    ) -> supervision_service_pb2.GetConsistencyProofResponse:
        """See the contract."""
        return await self._store.read(
            lambda tx: showing.consistency_proof(tx, self._region, request)
        )

    async def GetInclusionProof(
        self, request: supervision_service_pb2.GetInclusionProofRequest, context: Context
    ) -> supervision_service_pb2.GetInclusionProofResponse:
        """See the contract."""
        return await self._store.read(lambda tx: showing.inclusion_proof(tx, self._region, request))

    async def ListLogEntries(
        self, request: supervision_service_pb2.ListLogEntriesRequest, context: Context
    ) -> supervision_service_pb2.ListLogEntriesResponse:
        """See the contract."""
        return await self._store.read(lambda tx: showing.list_entries(tx, self._region, request))


class AdministrationServicer(administration_service_pb2_grpc.AdministrationServiceServicer):
    """AdministrationService."""

    def __init__(self, region: Region, store: Store) -> None:
        self._region = region
        self._store = store

    async def ListOverdueAttempts(
        self, request: administration_service_pb2.ListOverdueAttemptsRequest, context: Context
    ) -> administration_service_pb2.ListOverdueAttemptsResponse:
        """See the contract."""
        return await self._store.read(
            lambda tx: administration.list_overdue(tx, self._region, request)
        )

    async def AdjudicateAttempt(
        self, request: administration_service_pb2.AdjudicateAttemptRequest, context: Context
    ) -> administration_service_pb2.AdjudicateAttemptResponse:
        """See the contract."""
        caller = _caller()
        return await self._store.transact(
            lambda tx: administration.adjudicate(tx, self._region, caller, request)
        )

    async def ListDeadLetters(
        self, request: administration_service_pb2.ListDeadLettersRequest, context: Context
    ) -> administration_service_pb2.ListDeadLettersResponse:
        """See the contract."""
        return await self._store.read(lambda tx: administration.list_dead_letters(tx, request))

    async def RetryDeadLetter(
        self, request: administration_service_pb2.RetryDeadLetterRequest, context: Context
    ) -> administration_service_pb2.RetryDeadLetterResponse:
        """See the contract."""
        caller = _caller()
        return await self._store.transact(
            lambda tx: administration.retry(tx, self._region, caller, request)
        )

    async def DiscardDeadLetter(
        self, request: administration_service_pb2.DiscardDeadLetterRequest, context: Context
    ) -> administration_service_pb2.DiscardDeadLetterResponse:
        """See the contract."""
        caller = _caller()
        return await self._store.transact(
            lambda tx: administration.discard(tx, self._region, caller, request)
        )
