"""The composition root that both kinds of edge share: from a checked configuration to a service.

The store stands before anything is answered and outlasts every call; the tasks that bring what
waits to the platform, and notices from it, run beside the server and end with it.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import grpc

from rxoutflow.identity import CallerKind, CallerName
from rxoutflow.statements import Verifier
from rxoutflow.trust import TrustStore
from rxoutflow_server.application.edge.delivery import pauses
from rxoutflow_server.application.edge.surroundings import Edge
from rxoutflow_server.application.edge_ports import EdgeStore
from rxoutflow_server.config import EdgeConfig
from rxoutflow_server.edge.uplink import Uplink
from rxoutflow_server.registry.fetching import keep_trust, own_platform
from rxoutflow_server.storage.sqlite import SqliteStore
from rxoutflow_server.transport.server import Service, build_server, serve
from rxoutflow_server.wiring import StoreFailure, load_signer, load_trust, running, utc_now

Stub = TypeVar("Stub")
Work = Coroutine[Any, Any, None]


@dataclass(frozen=True, slots=True)
class Kind(Generic[Stub]):
    """What a hospital's and a pharmacy's edge do not share."""

    caller_kind: CallerKind
    make_stub: Callable[[grpc.aio.Channel], Stub]
    service: Callable[[Edge, Uplink[Stub]], Service]
    """What the edge offers to its institution."""
    work: Callable[[Edge, Uplink[Stub]], tuple[Work, ...]]
    """What it does by itself."""


async def serve_edge(config: EdgeConfig, kind: Kind[Stub]) -> None:
    """Run an edge until it is told to stop, or its store fails.

    Raises:
        StoreError: the store cannot be opened.
        ListenError: the address cannot be opened.
        SignerUnusable: the seal cannot be used.
    """
    async with AsyncExitStack() as stack:
        trust, failure = load_trust(config), StoreFailure()
        disk = SqliteStore.open(config.store, "edge", on_failure=failure)
        edge = build_edge(config, kind.caller_kind, trust, await stack.enter_async_context(disk))
        uplink = Uplink(config, trust, utc_now, kind.make_stub)
        stack.push_async_callback(uplink.close)
        server = build_server(
            [kind.service(edge, uplink)],
            listen=config.listen,
            tls=config.tls,
            trust=trust,
            place=config.place,
            clock=utc_now,
        )
        lists = keep_trust(config, trust, own_platform(config, trust, uplink.channels), utc_now)
        async with running(*kind.work(edge, uplink), lists):
            await serve(server, failure.happened)
        failure.raise_if_happened()


def build_edge(config: EdgeConfig, kind: CallerKind, trust: TrustStore, store: EdgeStore) -> Edge:
    """The edge of a checked configuration.

    Raises:
        SignerUnusable: the seal cannot be used.
    """
    return Edge(
        institution=CallerName(config.region_code, kind, config.institution_code),
        trust=trust,
        verifier=Verifier(trust),
        seal=load_signer(config.signing),
        store=store,
        now=utc_now,
        random_bytes=secrets.token_bytes,
        pause=pauses(asyncio.sleep, _jitter),
    )


def _jitter() -> float:
    return random.uniform(0.5, 1.5)  # noqa: S311 - spreads retries, keeps no secret
