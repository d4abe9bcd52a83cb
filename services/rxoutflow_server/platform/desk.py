"""The desk at which platforms are served, over the network or from inside this process.

One class runs the home, payer and exchange commands for a platform that calls. The gRPC servicers
put other regions through to it; ``LocalPeer`` puts this region itself through, so that the case in
which one region plays several roles takes the same path. ``RolesHere`` takes the same commands as
parts of a transaction that begins with another one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from rxoutflow.identity import CallerKind, CallerName
from rxoutflow.statements import StatementError
from rxoutflow.v1.clearing_service_pb2 import (
    ClearingServiceReconcileDayRequest,
    ClearingServiceReconcileDayResponse,
    ProposeClearingRequest,
    ProposeClearingResponse,
)
from rxoutflow.v1.home_service_pb2 import (
    CommitAttemptRequest,
    CommitAttemptResponse,
    CorrectAttemptRequest,
    CorrectAttemptResponse,
    GetAttemptRequest,
    GetAttemptResponse,
    GrantClaimRequest,
    GrantClaimResponse,
    OpenPrescriptionRequest,
    OpenPrescriptionResponse,
    ReleaseAttemptRequest,
    ReleaseAttemptResponse,
)
from rxoutflow.v1.payer_service_pb2 import (
    GetSettlementRequest,
    GetSettlementResponse,
    HoldBenefitRequest,
    HoldBenefitResponse,
    IssueECredentialRequest,
    IssueECredentialResponse,
    QuoteBenefitRequest,
    QuoteBenefitResponse,
)
from rxoutflow.v1.peer_service_pb2 import (
    DeliverEventsRequest,
    DeliverEventsResponse,
    GetCheckpointRequest,
    GetCheckpointResponse,
    PeerEvent,
    SellTraceCodesRequest,
    SellTraceCodesResponse,
    TakeBackTraceCodesRequest,
    TakeBackTraceCodesResponse,
)
from rxoutflow_server.application import trace_codes
from rxoutflow_server.application.clearing import reconciling, stating
from rxoutflow_server.application.dispensing.exchange import RefusedHere
from rxoutflow_server.application.exchange import inbox
from rxoutflow_server.application.exchange.outbox import BATCH
from rxoutflow_server.application.home import attempts, collecting, corrections
from rxoutflow_server.application.log import showing
from rxoutflow_server.application.payer import benefits, credentials
from rxoutflow_server.application.ports import Store, Transaction
from rxoutflow_server.application.region import Region, receipted
from rxoutflow_server.application.validation import invalid
from rxoutflow_server.domain.errors import Reason, Refusal, Unavailable
from rxoutflow_server.transport.errors import reason_of, status_of

log = structlog.get_logger()

Request = TypeVar("Request")
Response = TypeVar("Response")
Command = Callable[[Transaction, Region, CallerName, Request], Response]


class Desk:
    """Runs the commands that platforms may give, each in one transaction."""

    def __init__(self, region: Region, store: Store) -> None:
        self._region = region
        self._store = store

    async def open_prescription(
        self, caller: CallerName, request: OpenPrescriptionRequest
    ) -> OpenPrescriptionResponse:
        """See HomeService.OpenPrescription."""
        answer = self._query(attempts.open_prescription, caller, request)
        return await self._counting_tries(request.pickup_code, answer)

    async def grant_claim(
        self, caller: CallerName, request: GrantClaimRequest
    ) -> GrantClaimResponse:
        """See HomeService.GrantClaim."""
        answer = self._command(attempts.grant_claim, caller, request)
        granted = await self._counting_tries(request.pickup_code, answer)
        return await receipted(self._region, self._store, granted, request.claim)

    async def commit_attempt(
        self, caller: CallerName, request: CommitAttemptRequest
    ) -> CommitAttemptResponse:
        """See HomeService.CommitAttempt."""
        return await self._command(attempts.commit_attempt, caller, request)

    async def release_attempt(
        self, caller: CallerName, request: ReleaseAttemptRequest
    ) -> ReleaseAttemptResponse:
        """See HomeService.ReleaseAttempt."""
        released = await self._command(attempts.release_attempt, caller, request)
        return await receipted(self._region, self._store, released, request.release)

    async def correct_attempt(
        self, caller: CallerName, request: CorrectAttemptRequest
    ) -> CorrectAttemptResponse:
        """See HomeService.CorrectAttempt."""
        return await self._command(corrections.correct_attempt, caller, request)

    async def get_attempt(
        self, caller: CallerName, request: GetAttemptRequest
    ) -> GetAttemptResponse:
        """See HomeService.GetAttempt."""
        return await self._query(attempts.get_attempt, caller, request)

    async def issue_e_credential(
        self, caller: CallerName, request: IssueECredentialRequest
    ) -> IssueECredentialResponse:
        """See PayerService.IssueECredential."""
        return await self._command(credentials.issue_e_credential, caller, request)

    async def quote_benefit(
        self, caller: CallerName, request: QuoteBenefitRequest
    ) -> QuoteBenefitResponse:
        """See PayerService.QuoteBenefit."""
        return await self._query(benefits.quote_benefit, caller, request)

    async def hold_benefit(
        self, caller: CallerName, request: HoldBenefitRequest
    ) -> HoldBenefitResponse:
        """See PayerService.HoldBenefit."""
        return await self._command(benefits.hold_benefit, caller, request)

    async def get_settlement(
        self, caller: CallerName, request: GetSettlementRequest
    ) -> GetSettlementResponse:
        """See PayerService.GetSettlement."""
        return await self._query(benefits.get_settlement, caller, request)

    async def deliver_events(
        self, caller: CallerName, request: DeliverEventsRequest
    ) -> DeliverEventsResponse:
        """See PeerService.DeliverEvents. Each event takes effect, or is refused, by itself."""
        if not 1 <= len(request.events) <= BATCH:
            raise invalid("events", f"must be 1 to {BATCH}")
        decided = await asyncio.gather(*(self._receive(caller, event) for event in request.events))
        return DeliverEventsResponse(acknowledgements=[each for each in decided if each])

    async def sell_trace_codes(
        self, caller: CallerName, request: SellTraceCodesRequest
    ) -> SellTraceCodesResponse:
        """See PeerService.SellTraceCodes."""
        return await self._command(trace_codes.sell, caller, request)

    async def take_back_trace_codes(
        self, caller: CallerName, request: TakeBackTraceCodesRequest
    ) -> TakeBackTraceCodesResponse:
        """See PeerService.TakeBackTraceCodes."""
        return await self._command(trace_codes.take_back, caller, request)

    async def reconcile_day(
        self, caller: CallerName, request: ClearingServiceReconcileDayRequest
    ) -> ClearingServiceReconcileDayResponse:
        """See ClearingService.ReconcileDay."""
        return await self._query(reconciling.answer_region, caller, request)

    async def propose_clearing(
        self, caller: CallerName, request: ProposeClearingRequest
    ) -> ProposeClearingResponse:
        """See ClearingService.ProposeClearing."""
        return await stating.consider(self._region, self._store, caller, request)

    async def get_checkpoint(
        self, caller: CallerName, request: GetCheckpointRequest
    ) -> GetCheckpointResponse:
        """See PeerService.GetCheckpoint."""
        return await self._query(showing.checkpoint_for_platform, caller, request)

    async def _receive(
        self, caller: CallerName, event: PeerEvent
    ) -> DeliverEventsResponse.Acknowledgement | None:
        """The acknowledgement of one event; none if it could not be decided now."""
        acknowledgement = DeliverEventsResponse.Acknowledgement(event_id=event.event_id)
        try:
            await self._command(inbox.take_effect, caller, event)
        except (Refusal, StatementError) as error:
            if error.reason == Reason.OVERLOADED:
                return None
            acknowledgement.error.CopyFrom(status_of(error))
        except Unavailable:
            return None
        except Exception as error:  # a defect that one event meets must not hold up the others
            log.warning("event_not_decided", reason=reason_of(error))
            return None
        return acknowledgement

    async def _counting_tries(self, pickup_code: str, answer: Awaitable[Response]) -> Response:
        """The answer; a refusal for a wrong code is counted after it was undone."""
        try:
            return await answer
        except Refusal as refusal:
            if refusal.reason is Reason.PICKUP_CODE_INVALID:
                await self._store.transact(
                    lambda tx: collecting.count_wrong_try(tx, self._region, pickup_code)
                )
            raise

    async def _command(
        self, command: Command[Request, Response], caller: CallerName, request: Request
    ) -> Response:
        return await self._store.transact(lambda tx: command(tx, self._region, caller, request))

    async def _query(
        self, query: Command[Request, Response], caller: CallerName, request: Request
    ) -> Response:
        return await self._store.read(lambda tx: query(tx, self._region, caller, request))


class RolesHere:
    """The port ``OwnRoles``: home and payer of this region, within a transaction."""

    def __init__(self, region: Region) -> None:
        self._region = region
        self._itself = CallerName(region.code, CallerKind.PLATFORM, region.code)

    def grant_claim(self, tx: Transaction, request: GrantClaimRequest) -> GrantClaimResponse:
        """See the port."""
        return self._part(attempts.grant_claim, tx, request)

    def commit_attempt(
        self, tx: Transaction, request: CommitAttemptRequest
    ) -> CommitAttemptResponse:
        """See the port."""
        return self._part(attempts.commit_attempt, tx, request)

    def hold_benefit(self, tx: Transaction, request: HoldBenefitRequest) -> HoldBenefitResponse:
        """See the port."""
        return self._part(benefits.hold_benefit, tx, request)

    def _part(
        self, command: Command[Request, Response], tx: Transaction, request: Request
    ) -> Response:
        try:
            return command(tx, self._region, self._itself, request)
        except (Refusal, StatementError) as error:
            raise RefusedHere from error


class LocalPeer:
    """This region as a peer of itself: the port ``PeerGateway`` without a network."""

    def __init__(self, desk: Desk, caller: CallerName) -> None:
        self._desk = desk
        self._caller = caller

    async def open_prescription(self, request: OpenPrescriptionRequest) -> OpenPrescriptionResponse:
        """See HomeService.OpenPrescription."""
        return await self._desk.open_prescription(self._caller, request)

    async def grant_claim(self, request: GrantClaimRequest) -> GrantClaimResponse:
        """See HomeService.GrantClaim."""
        return await self._desk.grant_claim(self._caller, request)

    async def commit_attempt(self, request: CommitAttemptRequest) -> CommitAttemptResponse:
        """See HomeService.CommitAttempt."""
        return await self._desk.commit_attempt(self._caller, request)

    async def release_attempt(self, request: ReleaseAttemptRequest) -> ReleaseAttemptResponse:
        """See HomeService.ReleaseAttempt."""
        return await self._desk.release_attempt(self._caller, request)

    async def correct_attempt(self, request: CorrectAttemptRequest) -> CorrectAttemptResponse:
        """See HomeService.CorrectAttempt."""
        return await self._desk.correct_attempt(self._caller, request)

    async def get_attempt(self, request: GetAttemptRequest) -> GetAttemptResponse:
        """See HomeService.GetAttempt."""
        return await self._desk.get_attempt(self._caller, request)

    async def issue_e_credential(
        self, request: IssueECredentialRequest
    ) -> IssueECredentialResponse:
        """See PayerService.IssueECredential."""
        return await self._desk.issue_e_credential(self._caller, request)

    async def quote_benefit(self, request: QuoteBenefitRequest) -> QuoteBenefitResponse:
        """See PayerService.QuoteBenefit."""
        return await self._desk.quote_benefit(self._caller, request)

    async def hold_benefit(self, request: HoldBenefitRequest) -> HoldBenefitResponse:
        """See PayerService.HoldBenefit."""
        return await self._desk.hold_benefit(self._caller, request)

    async def deliver_events(self, request: DeliverEventsRequest) -> DeliverEventsResponse:
        """See PeerService.DeliverEvents."""
        return await self._desk.deliver_events(self._caller, request)

    async def get_checkpoint(self, request: GetCheckpointRequest) -> GetCheckpointResponse:
        """See PeerService.GetCheckpoint."""
        return await self._desk.get_checkpoint(self._caller, request)

    async def sell_trace_codes(self, request: SellTraceCodesRequest) -> SellTraceCodesResponse:
        """See PeerService.SellTraceCodes."""
        return await self._desk.sell_trace_codes(self._caller, request)

    async def take_back_trace_codes(
        self, request: TakeBackTraceCodesRequest
    ) -> TakeBackTraceCodesResponse:
        """See PeerService.TakeBackTraceCodes."""
        return await self._desk.take_back_trace_codes(self._caller, request)

    async def reconcile_day(
        self, request: ClearingServiceReconcileDayRequest
    ) -> ClearingServiceReconcileDayResponse:
        """See ClearingService.ReconcileDay."""
        return await self._desk.reconcile_day(self._caller, request)

    async def propose_clearing(self, request: ProposeClearingRequest) -> ProposeClearingResponse:
        """See ClearingService.ProposeClearing."""
        return await self._desk.propose_clearing(self._caller, request)
