"""The way to the platform of one's own region, as the use cases of an edge see it.

Calls raise a Refusal if the platform refused, and Unavailable if it may or may not have acted. An
answer is a claim: what is signed in it still has to be verified.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable
from typing import Protocol, TypeVar

from rxoutflow.v1.hospital_service_pb2 import (
    GetPrescriptionRequest,
    GetPrescriptionResponse,
    HospitalServiceListStatementsRequest,
    HospitalServiceListStatementsResponse,
    PrecheckPrescriptionRequest,
    PrecheckPrescriptionResponse,
    RegisterPrescriptionRequest,
    RegisterPrescriptionResponse,
    RevokePrescriptionRequest,
    RevokePrescriptionResponse,
)
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
from rxoutflow_server.domain.errors import Reason, Refusal, Unavailable

T = TypeVar("T")


class Platform(Protocol):
    """What the platform is to every edge."""

    async def reachable(self) -> bool:
        """Whether a connection stands. Sends no request of the contract."""

    def watch_notices(self, resume_token: str) -> AsyncGenerator[Notice, None]:
        """Notices after a token, oldest first, until the stream ends."""


class HospitalPlatform(Platform, Protocol):
    """What the platform is to a hospital's edge."""

    async def precheck_prescription(
        self, request: PrecheckPrescriptionRequest
    ) -> PrecheckPrescriptionResponse:
        """See HospitalService.PrecheckPrescription."""

    async def register_prescription(
        self, request: RegisterPrescriptionRequest
    ) -> RegisterPrescriptionResponse:
        """See HospitalService.RegisterPrescription."""

    async def revoke_prescription(
        self, request: RevokePrescriptionRequest
    ) -> RevokePrescriptionResponse:
        """See HospitalService.RevokePrescription."""

    async def get_prescription(self, request: GetPrescriptionRequest) -> GetPrescriptionResponse:
        """See HospitalService.GetPrescription."""

    async def list_statements(
        self, request: HospitalServiceListStatementsRequest
    ) -> HospitalServiceListStatementsResponse:
        """See HospitalService.ListStatements."""


class PharmacyPlatform(Platform, Protocol):
    """What the platform is to a pharmacy's edge."""

    async def present_e_credential(
        self, request: PresentECredentialRequest
    ) -> PresentECredentialResponse:
        """See PharmacyService.PresentECredential."""

    async def find_prescription(self, request: FindPrescriptionRequest) -> FindPrescriptionResponse:
        """See PharmacyService.FindPrescription."""

    async def claim_prescription(
        self, request: ClaimPrescriptionRequest
    ) -> ClaimPrescriptionResponse:
        """See PharmacyService.ClaimPrescription."""

    async def release_claim(self, request: ReleaseClaimRequest) -> ReleaseClaimResponse:
        """See PharmacyService.ReleaseClaim."""

    async def quote_settlement(self, request: QuoteSettlementRequest) -> QuoteSettlementResponse:
        """See PharmacyService.QuoteSettlement."""

    async def commit_claim(self, request: CommitClaimRequest) -> CommitClaimResponse:
        """See PharmacyService.CommitClaim."""

    async def record_dispense(self, request: RecordDispenseRequest) -> RecordDispenseResponse:
        """See PharmacyService.RecordDispense."""

    async def return_dispense(self, request: ReturnDispenseRequest) -> ReturnDispenseResponse:
        """See PharmacyService.ReturnDispense."""

    async def correct_call(self, request: CorrectCallRequest) -> CorrectCallResponse:
        """See PharmacyService.CorrectCall."""

    async def update_delivery(self, request: UpdateDeliveryRequest) -> UpdateDeliveryResponse:
        """See PharmacyService.UpdateDelivery."""

    async def get_dispense(self, request: GetDispenseRequest) -> GetDispenseResponse:
        """See PharmacyService.GetDispense."""

    async def list_statements(
        self, request: PharmacyServiceListStatementsRequest
    ) -> PharmacyServiceListStatementsResponse:
        """See PharmacyService.ListStatements."""

    async def reconcile_day(
        self, request: PharmacyServiceReconcileDayRequest
    ) -> PharmacyServiceReconcileDayResponse:
        """See PharmacyService.ReconcileDay."""


def out_of_reach(region_code: str, problem: str) -> Unavailable:
    """Nobody who could decide has answered; ``problem`` says what happened."""
    return Unavailable(
        Reason.PEER_UNAVAILABLE,
        f"the platform of region {region_code} {problem}; repeat with the same request_id",
        region=region_code,
    )


async def decided(answer: Awaitable[T], region_code: str) -> T:
    """The platform's answer to something that must not get lost.

    A platform that is too busy has decided nothing: its refusal must not stand as the last word.

    Raises:
        Refusal: the platform's, about the request itself.
        Unavailable: it did not decide.
    """
    try:
        return await answer
    except Refusal as refusal:
        if refusal.reason is Reason.OVERLOADED:
            raise out_of_reach(region_code, "has too much to do") from None
        raise
