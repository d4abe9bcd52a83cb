"""The platform as a hospital's edge calls it: the port ``HospitalPlatform`` over gRPC."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from rxoutflow.v1.hospital_service_pb2 import (
    GetPrescriptionRequest,
    GetPrescriptionResponse,
    HospitalServiceListStatementsRequest,
    HospitalServiceListStatementsResponse,
    HospitalServiceWatchNoticesRequest,
    PrecheckPrescriptionRequest,
    PrecheckPrescriptionResponse,
    RegisterPrescriptionRequest,
    RegisterPrescriptionResponse,
    RevokePrescriptionRequest,
    RevokePrescriptionResponse,
)
from rxoutflow.v1.notice_pb2 import Notice
from rxoutflow_server.edge.uplink import SOON_SECONDS, Uplink

if TYPE_CHECKING:
    from rxoutflow.v1.hospital_service_pb2_grpc import HospitalServiceAsyncStub


class RemoteHospitalPlatform:
    """HospitalService of the region's platform."""

    def __init__(self, uplink: Uplink[HospitalServiceAsyncStub]) -> None:
        self._uplink = uplink

    async def reachable(self) -> bool:
        """Whether a connection stands."""
        return await self._uplink.reachable()

    async def precheck_prescription(
        self, request: PrecheckPrescriptionRequest
    ) -> PrecheckPrescriptionResponse:
        """See HospitalService.PrecheckPrescription."""
        return await self._uplink.call(self._uplink.stub.PrecheckPrescription, request)

    async def register_prescription(
        self, request: RegisterPrescriptionRequest
    ) -> RegisterPrescriptionResponse:
        """See HospitalService.RegisterPrescription."""
        method = self._uplink.stub.RegisterPrescription
        return await self._uplink.call(method, request, SOON_SECONDS)

    async def revoke_prescription(
        self, request: RevokePrescriptionRequest
    ) -> RevokePrescriptionResponse:
        """See HospitalService.RevokePrescription."""
        return await self._uplink.call(self._uplink.stub.RevokePrescription, request)

    async def get_prescription(self, request: GetPrescriptionRequest) -> GetPrescriptionResponse:
        """See HospitalService.GetPrescription."""
        return await self._uplink.call(self._uplink.stub.GetPrescription, request, SOON_SECONDS)

    async def list_statements(
        self, request: HospitalServiceListStatementsRequest
    ) -> HospitalServiceListStatementsResponse:
        """See HospitalService.ListStatements."""
        return await self._uplink.call(self._uplink.stub.ListStatements, request)

    def watch_notices(self, resume_token: str) -> AsyncGenerator[Notice, None]:
        """See HospitalService.WatchNotices."""
        request = HospitalServiceWatchNoticesRequest(resume_token=resume_token)
        return self._uplink.notices(self._uplink.stub.WatchNotices, request)
