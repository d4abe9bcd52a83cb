"""The composition root of a hospital's edge service."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from rxoutflow.identity import CallerKind
from rxoutflow.v1 import his_service_pb2, his_service_pb2_grpc
from rxoutflow.v1.hospital_service_pb2_grpc import HospitalServiceStub
from rxoutflow_server.application.edge import delivery, notices
from rxoutflow_server.application.edge.surroundings import Edge
from rxoutflow_server.config import HospitalConfig
from rxoutflow_server.edge.running import Kind, Work, serve_edge
from rxoutflow_server.edge.uplink import Uplink
from rxoutflow_server.hospital.platform import RemoteHospitalPlatform
from rxoutflow_server.hospital.servicer import HisServicer
from rxoutflow_server.transport.server import Service

if TYPE_CHECKING:
    from rxoutflow.v1.hospital_service_pb2_grpc import HospitalServiceAsyncStub


async def serve_hospital(config: HospitalConfig) -> None:
    """Run the edge service of a hospital until it is told to stop, or its store fails.

    Raises:
        StoreError: the store cannot be opened.
        ListenError: the address cannot be opened.
        SignerUnusable: the seal cannot be used.
    """
    await serve_edge(config, Kind(CallerKind.HOSPITAL, _stub, _service, _work))


def _stub(channel: grpc.aio.Channel) -> HospitalServiceAsyncStub:
    return HospitalServiceStub(channel)


def _service(edge: Edge, uplink: Uplink[HospitalServiceAsyncStub]) -> Service:
    return Service(
        his_service_pb2_grpc.add_HisServiceServicer_to_server,
        HisServicer(edge, RemoteHospitalPlatform(uplink)),
        his_service_pb2.DESCRIPTOR.services_by_name["HisService"],
    )


def _work(edge: Edge, uplink: Uplink[HospitalServiceAsyncStub]) -> tuple[Work, ...]:
    platform = RemoteHospitalPlatform(uplink)
    return (
        delivery.keep_delivering(edge, lambda: delivery.prescriptions(edge, platform)),
        notices.keep_following(edge, platform),
    )
