"""The composition root of a pharmacy's edge service."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from rxoutflow.identity import CallerKind
from rxoutflow.v1 import pos_service_pb2, pos_service_pb2_grpc
from rxoutflow.v1.pharmacy_service_pb2_grpc import PharmacyServiceStub
from rxoutflow_server.application.edge import delivery, notices
from rxoutflow_server.application.edge.surroundings import Edge
from rxoutflow_server.config import PharmacyConfig
from rxoutflow_server.edge.running import Kind, Work, serve_edge
from rxoutflow_server.edge.uplink import Uplink
from rxoutflow_server.pharmacy.platform import RemotePharmacyPlatform
from rxoutflow_server.pharmacy.servicer import PosServicer
from rxoutflow_server.transport.server import Service

if TYPE_CHECKING:
    from rxoutflow.v1.pharmacy_service_pb2_grpc import PharmacyServiceAsyncStub


async def serve_pharmacy(config: PharmacyConfig) -> None:
    """Run the edge service of a pharmacy until it is told to stop, or its store fails.

    Raises:
        StoreError: the store cannot be opened.
        ListenError: the address cannot be opened.
        SignerUnusable: the seal cannot be used.
    """
    await serve_edge(config, Kind(CallerKind.PHARMACY, _stub, _service, _work))


def _stub(channel: grpc.aio.Channel) -> PharmacyServiceAsyncStub:
    return PharmacyServiceStub(channel)


def _service(edge: Edge, uplink: Uplink[PharmacyServiceAsyncStub]) -> Service:
    return Service(
        pos_service_pb2_grpc.add_PosServiceServicer_to_server,
        PosServicer(edge, RemotePharmacyPlatform(uplink)),
        pos_service_pb2.DESCRIPTOR.services_by_name["PosService"],
    )


def _work(edge: Edge, uplink: Uplink[PharmacyServiceAsyncStub]) -> tuple[Work, ...]:
    platform = RemotePharmacyPlatform(uplink)
    return (
        delivery.keep_delivering(edge, lambda: delivery.records(edge, platform)),
        notices.keep_following(edge, platform),
    )
