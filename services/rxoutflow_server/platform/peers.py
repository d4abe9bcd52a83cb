"""The way to every region: other platforms over gRPC, this one without a network."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc

from rxoutflow.trust import RegionNotTrusted
from rxoutflow.v1.clearing_service_pb2 import (
    ClearingServiceReconcileDayRequest,
    ClearingServiceReconcileDayResponse,
    ProposeClearingRequest,
    ProposeClearingResponse,
)
from rxoutflow.v1.clearing_service_pb2_grpc import ClearingServiceStub
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
from rxoutflow.v1.home_service_pb2_grpc import HomeServiceStub
from rxoutflow.v1.payer_service_pb2 import (
    HoldBenefitRequest,
    HoldBenefitResponse,
    IssueECredentialRequest,
    IssueECredentialResponse,
    QuoteBenefitRequest,
    QuoteBenefitResponse,
)
from rxoutflow.v1.payer_service_pb2_grpc import PayerServiceStub
from rxoutflow.v1.peer_service_pb2 import (
    DeliverEventsRequest,
    DeliverEventsResponse,
    GetCheckpointRequest,
    GetCheckpointResponse,
    SellTraceCodesRequest,
    SellTraceCodesResponse,
    TakeBackTraceCodesRequest,
    TakeBackTraceCodesResponse,
)
from rxoutflow.v1.peer_service_pb2_grpc import PeerServiceStub
from rxoutflow_server.application.ports import PeerGateway
from rxoutflow_server.domain.errors import Reason, Refusal
from rxoutflow_server.transport.channels import PeerChannels
from rxoutflow_server.transport.errors import refusal_of
from rxoutflow_server.transport.interceptor import remaining_seconds

CALL_SECONDS = 8.0
"""A call to another region takes no longer, so that the caller here still gets a precise answer."""

CLEARING_SECONDS = 120.0
"""A call to which the other region reads a month of its books."""

Response = TypeVar("Response")


class RemotePeer:
    """Another region's platform over mTLS: the port ``PeerGateway``."""

    def __init__(self, channel: grpc.aio.Channel, region_code: str) -> None:
        self._region_code = region_code
        self._home = HomeServiceStub(channel)
        self._payer = PayerServiceStub(channel)
        self._peer = PeerServiceStub(channel)
        self._clearing = ClearingServiceStub(channel)

    async def open_prescription(self, request: OpenPrescriptionRequest) -> OpenPrescriptionResponse:
        """See HomeService.OpenPrescription."""
        return await self._call(self._home.OpenPrescription, request)

    async def grant_claim(self, request: GrantClaimRequest) -> GrantClaimResponse:
        """See HomeService.GrantClaim."""
        return await self._call(self._home.GrantClaim, request)

    async def commit_attempt(self, request: CommitAttemptRequest) -> CommitAttemptResponse:
        """See HomeService.CommitAttempt."""
        return await self._call(self._home.CommitAttempt, request)

    async def release_attempt(self, request: ReleaseAttemptRequest) -> ReleaseAttemptResponse:
        """See HomeService.ReleaseAttempt."""
        return await self._call(self._home.ReleaseAttempt, request)

    async def correct_attempt(self, request: CorrectAttemptRequest) -> CorrectAttemptResponse:
        """See HomeService.CorrectAttempt."""
        return await self._call(self._home.CorrectAttempt, request)

    async def get_attempt(self, request: GetAttemptRequest) -> GetAttemptResponse:
        """See HomeService.GetAttempt."""
        return await self._call(self._home.GetAttempt, request)

    async def issue_e_credential(
        self, request: IssueECredentialRequest
    ) -> IssueECredentialResponse:
        """See PayerService.IssueECredential."""
        return await self._call(self._payer.IssueECredential, request)

    async def quote_benefit(self, request: QuoteBenefitRequest) -> QuoteBenefitResponse:
        """See PayerService.QuoteBenefit."""
        return await self._call(self._payer.QuoteBenefit, request)

    async def hold_benefit(self, request: HoldBenefitRequest) -> HoldBenefitResponse:
        """See PayerService.HoldBenefit."""
        return await self._call(self._payer.HoldBenefit, request)

    async def deliver_events(self, request: DeliverEventsRequest) -> DeliverEventsResponse:
        """See PeerService.DeliverEvents."""
        return await self._call(self._peer.DeliverEvents, request)

    async def get_checkpoint(self, request: GetCheckpointRequest) -> GetCheckpointResponse:
        """See PeerService.GetCheckpoint."""
        return await self._call(self._peer.GetCheckpoint, request)

    async def sell_trace_codes(self, request: SellTraceCodesRequest) -> SellTraceCodesResponse:
        """See PeerService.SellTraceCodes."""
        return await self._call(self._peer.SellTraceCodes, request)

    async def take_back_trace_codes(
        self, request: TakeBackTraceCodesRequest
    ) -> TakeBackTraceCodesResponse:
        """See PeerService.TakeBackTraceCodes."""
        return await self._call(self._peer.TakeBackTraceCodes, request)

    async def reconcile_day(
        self, request: ClearingServiceReconcileDayRequest
    ) -> ClearingServiceReconcileDayResponse:
        """See ClearingService.ReconcileDay."""
        return await self._call(self._clearing.ReconcileDay, request, CLEARING_SECONDS)

    async def propose_clearing(self, request: ProposeClearingRequest) -> ProposeClearingResponse:
        """See ClearingService.ProposeClearing."""
        return await self._call(self._clearing.ProposeClearing, request, CLEARING_SECONDS)

    async def _call(
        self,
        method: Callable[..., Awaitable[Response]],
        request: Any,  # noqa: ANN401 - any request of the contract
        seconds: float = CALL_SECONDS,
    ) -> Response:
        timeout = min(seconds, remaining_seconds(seconds))
        try:
            return await method(request, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            raise refusal_of(error, self._region_code) from error


class RegionalPeers:
    """The port ``Peers``: this region by itself, others by the channel of their trust list."""

    def __init__(self, region_code: str, local: PeerGateway, channels: PeerChannels) -> None:
        self._region_code = region_code
        self._local = local
        self._channels = channels

    def region(self, region_code: str) -> PeerGateway:
        """The platform of a region.

        Raises:
            Refusal: REGION_UNKNOWN if no trust list of it is in force here.
        """
        if region_code == self._region_code:
            return self._local
        try:
            return RemotePeer(self._channels.channel(region_code), region_code)
        except RegionNotTrusted:
            raise Refusal(
                Reason.REGION_UNKNOWN,
                f"no trust list of region {region_code} is in force here; ask your operator",
                region=region_code,
            ) from None
