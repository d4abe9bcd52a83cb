"""PosService: each method checks that its request is complete and hands it to one use case.

The caller is the institution itself: the contract's policy lets nobody else in. Errors pass through
to the interceptor, which alone turns them into statuses.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, TypeAlias

import grpc

from rxoutflow.v1 import pos_service_pb2, pos_service_pb2_grpc
from rxoutflow_server.application.edge import goods_returns, handovers, notices, pharmacy
from rxoutflow_server.application.edge.platform import PharmacyPlatform
from rxoutflow_server.application.edge.surroundings import Edge
from rxoutflow_server.application.validation import check_required

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class PosServicer(pos_service_pb2_grpc.PosServiceServicer):
    """PosService."""

    def __init__(self, edge: Edge, platform: PharmacyPlatform) -> None:
        self._edge = edge
        self._platform = platform

    async def PresentECredential(
        self, request: pos_service_pb2.PosServicePresentECredentialRequest, context: Context
    ) -> pos_service_pb2.PosServicePresentECredentialResponse:
        """See the contract."""
        check_required(request)
        return await pharmacy.present_e_credential(self._edge, self._platform, request)

    async def FindPrescription(
        self, request: pos_service_pb2.PosServiceFindPrescriptionRequest, context: Context
    ) -> pos_service_pb2.PosServiceFindPrescriptionResponse:
        """See the contract."""
        check_required(request)
        return await pharmacy.find(self._edge, self._platform, request)

    async def ClaimPrescription(
        self, request: pos_service_pb2.PosServiceClaimPrescriptionRequest, context: Context
    ) -> pos_service_pb2.PosServiceClaimPrescriptionResponse:
        """See the contract."""
        check_required(request)
        return await pharmacy.claim(self._edge, self._platform, request)

    async def ReleaseClaim(
        self, request: pos_service_pb2.PosServiceReleaseClaimRequest, context: Context
    ) -> pos_service_pb2.PosServiceReleaseClaimResponse:
        """See the contract."""
        check_required(request)
        return await pharmacy.release(self._edge, self._platform, request)

    async def QuoteSettlement(
        self, request: pos_service_pb2.PosServiceQuoteSettlementRequest, context: Context
    ) -> pos_service_pb2.PosServiceQuoteSettlementResponse:
        """See the contract."""
        check_required(request)
        return await pharmacy.quote(self._edge, self._platform, request)

    async def CommitClaim(
        self, request: pos_service_pb2.PosServiceCommitClaimRequest, context: Context
    ) -> pos_service_pb2.PosServiceCommitClaimResponse:
        """See the contract."""
        check_required(request)
        return await pharmacy.commit(self._edge, self._platform, request)

    async def RecordDispense(
        self, request: pos_service_pb2.PosServiceRecordDispenseRequest, context: Context
    ) -> pos_service_pb2.PosServiceRecordDispenseResponse:
        """See the contract."""
        check_required(request)
        return await handovers.record(self._edge, self._platform, request)

    async def CorrectCall(
        self, request: pos_service_pb2.PosServiceCorrectCallRequest, context: Context
    ) -> pos_service_pb2.PosServiceCorrectCallResponse:
        """See the contract."""
        check_required(request)
        return await pharmacy.correct(self._edge, self._platform, request)

    async def UpdateDelivery(
        self, request: pos_service_pb2.PosServiceUpdateDeliveryRequest, context: Context
    ) -> pos_service_pb2.PosServiceUpdateDeliveryResponse:
        """See the contract."""
        check_required(request)
        return await pharmacy.update_delivery(self._edge, self._platform, request)

    async def ReturnDispense(
        self, request: pos_service_pb2.PosServiceReturnDispenseRequest, context: Context
    ) -> pos_service_pb2.PosServiceReturnDispenseResponse:
        """See the contract."""
        check_required(request)
        return await goods_returns.take_back(self._edge, self._platform, request)

    async def GetDispense(
        self, request: pos_service_pb2.PosServiceGetDispenseRequest, context: Context
    ) -> pos_service_pb2.PosServiceGetDispenseResponse:
        """See the contract."""
        check_required(request)
        return await pharmacy.get_dispense(self._edge, self._platform, request)

    async def ListStatements(
        self, request: pos_service_pb2.PosServiceListStatementsRequest, context: Context
    ) -> pos_service_pb2.PosServiceListStatementsResponse:
        """See the contract."""
        check_required(request)
        return await pharmacy.list_statements(self._platform, request)

    async def ReconcileDay(
        self, request: pos_service_pb2.PosServiceReconcileDayRequest, context: Context
    ) -> pos_service_pb2.PosServiceReconcileDayResponse:
        """See the contract."""
        check_required(request)
        return await pharmacy.reconcile_day(self._platform, request)

    async def GetOutcome(
        self, request: pos_service_pb2.PosServiceGetOutcomeRequest, context: Context
    ) -> pos_service_pb2.PosServiceGetOutcomeResponse:
        """See the contract."""
        check_required(request)
        return await self._edge.store.read(lambda tx: pharmacy.get_outcome(tx, self._edge, request))

    async def WatchNotices(
        self, request: pos_service_pb2.PosServiceWatchNoticesRequest, context: Context
    ) -> AsyncGenerator[pos_service_pb2.PosServiceWatchNoticesResponse, None]:
        """See the contract."""
        async with aclosing(notices.watch(self._edge, request.resume_token)) as stored:
            async for notice in stored:
                yield pos_service_pb2.PosServiceWatchNoticesResponse(notice=notice)
