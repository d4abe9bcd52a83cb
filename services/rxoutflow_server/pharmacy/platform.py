"""The platform as a pharmacy's edge calls it: the port ``PharmacyPlatform`` over gRPC."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from rxoutflow.v1.notice_pb2 import Notice
from rxoutflow.v1.pharmacy_service_pb2 import (
    ClaimPrescriptionRequest,
    ClaimPrescriptionResponse,
    CommitClaimRequest,
    CommitClaimResponse,
    CorrectCallRequest,
    CorrectCallResponse,
    FindPrescriptionRequest,
    FindPrescriptionResponse,
    GetDispenseRequest,
    GetDispenseResponse,
    PharmacyServiceListStatementsRequest,
    PharmacyServiceListStatementsResponse,
    PharmacyServiceReconcileDayRequest,
    PharmacyServiceReconcileDayResponse,
    PharmacyServiceWatchNoticesRequest,
    PresentECredentialRequest,
    PresentECredentialResponse,
    QuoteSettlementRequest,
    QuoteSettlementResponse,
    RecordDispenseRequest,
    RecordDispenseResponse,
    ReleaseClaimRequest,
    ReleaseClaimResponse,
    ReturnDispenseRequest,
    ReturnDispenseResponse,
    UpdateDeliveryRequest,
    UpdateDeliveryResponse,
)
from rxoutflow_server.edge.uplink import SOON_SECONDS, Uplink

if TYPE_CHECKING:
    from rxoutflow.v1.pharmacy_service_pb2_grpc import PharmacyServiceAsyncStub


class RemotePharmacyPlatform:
    """PharmacyService of the region's platform."""

    def __init__(self, uplink: Uplink[PharmacyServiceAsyncStub]) -> None:
        self._uplink = uplink

    async def reachable(self) -> bool:
        """Whether a connection stands."""
        return await self._uplink.reachable()

    async def present_e_credential(
        self, request: PresentECredentialRequest
    ) -> PresentECredentialResponse:
        """See PharmacyService.PresentECredential."""
        return await self._uplink.call(self._uplink.stub.PresentECredential, request)

    async def find_prescription(self, request: FindPrescriptionRequest) -> FindPrescriptionResponse:
        """See PharmacyService.FindPrescription."""
        return await self._uplink.call(self._uplink.stub.FindPrescription, request)

    async def claim_prescription(
        self, request: ClaimPrescriptionRequest
    ) -> ClaimPrescriptionResponse:
        """See PharmacyService.ClaimPrescription."""
        return await self._uplink.call(self._uplink.stub.ClaimPrescription, request)

    async def release_claim(self, request: ReleaseClaimRequest) -> ReleaseClaimResponse:
        """See PharmacyService.ReleaseClaim."""
        return await self._uplink.call(self._uplink.stub.ReleaseClaim, request)

    async def quote_settlement(self, request: QuoteSettlementRequest) -> QuoteSettlementResponse:
        """See PharmacyService.QuoteSettlement."""
        return await self._uplink.call(self._uplink.stub.QuoteSettlement, request)

    async def commit_claim(self, request: CommitClaimRequest) -> CommitClaimResponse:
        """See PharmacyService.CommitClaim."""
        return await self._uplink.call(self._uplink.stub.CommitClaim, request)

    async def record_dispense(self, request: RecordDispenseRequest) -> RecordDispenseResponse:
        """See PharmacyService.RecordDispense."""
        return await self._uplink.call(self._uplink.stub.RecordDispense, request, SOON_SECONDS)

    async def correct_call(self, request: CorrectCallRequest) -> CorrectCallResponse:
        """See PharmacyService.CorrectCall."""
        return await self._uplink.call(self._uplink.stub.CorrectCall, request)

    async def update_delivery(self, request: UpdateDeliveryRequest) -> UpdateDeliveryResponse:
        """See PharmacyService.UpdateDelivery."""
        return await self._uplink.call(self._uplink.stub.UpdateDelivery, request)

    async def return_dispense(self, request: ReturnDispenseRequest) -> ReturnDispenseResponse:
        """See PharmacyService.ReturnDispense."""
        return await self._uplink.call(self._uplink.stub.ReturnDispense, request, SOON_SECONDS)

    async def get_dispense(self, request: GetDispenseRequest) -> GetDispenseResponse:
        """See PharmacyService.GetDispense."""
        return await self._uplink.call(self._uplink.stub.GetDispense, request)

    async def list_statements(
        self, request: PharmacyServiceListStatementsRequest
    ) -> PharmacyServiceListStatementsResponse:
        """See PharmacyService.ListStatements."""
        return await self._uplink.call(self._uplink.stub.ListStatements, request)

    async def reconcile_day(
        self, request: PharmacyServiceReconcileDayRequest
    ) -> PharmacyServiceReconcileDayResponse:
        """See PharmacyService.ReconcileDay."""
        return await self._uplink.call(self._uplink.stub.ReconcileDay, request)

    def watch_notices(self, resume_token: str) -> AsyncGenerator[Notice, None]:
        """See PharmacyService.WatchNotices."""
        request = PharmacyServiceWatchNoticesRequest(resume_token=resume_token)
        return self._uplink.notices(self._uplink.stub.WatchNotices, request)
