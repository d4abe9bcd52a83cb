"""HisService: each method checks that its request is complete and hands it to one use case.

The caller is the institution itself: the contract's policy lets nobody else in. Errors pass through
to the interceptor, which alone turns them into statuses.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, TypeAlias

import grpc

from rxoutflow.v1 import his_service_pb2, his_service_pb2_grpc
from rxoutflow_server.application.edge import hospital, notices
from rxoutflow_server.application.edge.platform import HospitalPlatform
from rxoutflow_server.application.edge.surroundings import Edge
from rxoutflow_server.application.validation import check_required

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class HisServicer(his_service_pb2_grpc.HisServiceServicer):
    """HisService."""

    def __init__(self, edge: Edge, platform: HospitalPlatform) -> None:
        self._edge = edge
        self._platform = platform

    async def PrecheckPrescription(
        self, request: his_service_pb2.HisServicePrecheckPrescriptionRequest, context: Context
    ) -> his_service_pb2.HisServicePrecheckPrescriptionResponse:
        """See the contract."""
        check_required(request)
        return await hospital.precheck(self._platform, request)

    async def IssuePrescription(
        self, request: his_service_pb2.IssuePrescriptionRequest, context: Context
    ) -> his_service_pb2.IssuePrescriptionResponse:
        """See the contract."""
        check_required(request)
        return await hospital.issue(self._edge, self._platform, request)

    async def RevokePrescription(
        self, request: his_service_pb2.HisServiceRevokePrescriptionRequest, context: Context
    ) -> his_service_pb2.HisServiceRevokePrescriptionResponse:
        """See the contract."""
        check_required(request)
        return await hospital.revoke(self._edge, self._platform, request)

    async def GetPrescription(
        self, request: his_service_pb2.HisServiceGetPrescriptionRequest, context: Context
    ) -> his_service_pb2.HisServiceGetPrescriptionResponse:
        """See the contract."""
        check_required(request)
        return await hospital.get(self._edge, self._platform, request)

    async def ListStatements(
        self, request: his_service_pb2.HisServiceListStatementsRequest, context: Context
    ) -> his_service_pb2.HisServiceListStatementsResponse:
        """See the contract."""
        check_required(request)
        return await hospital.list_statements(self._platform, request)

    async def GetOutcome(
        self, request: his_service_pb2.HisServiceGetOutcomeRequest, context: Context
    ) -> his_service_pb2.HisServiceGetOutcomeResponse:
        """See the contract."""
        check_required(request)
        return await self._edge.store.read(lambda tx: hospital.get_outcome(tx, self._edge, request))

    async def WatchNotices(
        self, request: his_service_pb2.HisServiceWatchNoticesRequest, context: Context
    ) -> AsyncGenerator[his_service_pb2.HisServiceWatchNoticesResponse, None]:
        """See the contract."""
        async with aclosing(notices.watch(self._edge, request.resume_token)) as stored:
            async for notice in stored:
                yield his_service_pb2.HisServiceWatchNoticesResponse(notice=notice)
