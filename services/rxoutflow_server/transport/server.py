"""The gRPC server: built from services, served until told to stop.

:func:`build_server` puts mutual TLS, the interceptor with the contract's policy, health and limits
around the services given, and opens the address. It refuses to build when a method has no policy,
when the certificate cannot be used or when the address is taken. There is no way to build a server
without TLS.

The TLS handshake admits whoever any region's transport anchor vouches for; whether that caller may
call is decided per call. Certificate, key and anchors are read anew for new connections when they
change, so a renewal needs no restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import grpc
import structlog
import uvloop
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health

from rxoutflow.trust import RegionNotTrusted, TrustStore
from rxoutflow_server.transport.channels import MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES
from rxoutflow_server.transport.identity import Authenticator, Clock
from rxoutflow_server.transport.interceptor import RECHECK_SECONDS, CallInterceptor, CallLimits
from rxoutflow_server.transport.policy import Gate, Place, policies_of
from rxoutflow_server.transport.tls import KeyFileError, KeyFiles, Stamp, load_key_pair, to_pem

MAX_METADATA_BYTES: Final = 8 * 1024
"""What a call's metadata may weigh; gRPC turns away what weighs twice as much, or less."""

GRACE_SECONDS: Final = 10.0
"""How long calls under way may take to finish when the server stops."""

_T = TypeVar("_T")

log = structlog.get_logger()


class ListenError(Exception):
    """The server's address cannot be opened; the message says why and which key to change."""


@dataclass(frozen=True, slots=True)
class Service:
    """One gRPC service of a server."""

    add: Callable[[Any, grpc.aio.Server], None]
    """The generated ``add_...Servicer_to_server``."""
    servicer: object
    descriptor: ServiceDescriptor
    """``<module>_pb2.DESCRIPTOR.services_by_name[...]``, with the policies of its methods."""


class Server:
    """A server whose address is open. Made by :func:`build_server`."""

    def __init__(
        self,
        server: grpc.aio.Server,
        interceptor: CallInterceptor,
        names: Sequence[str],
        address: str,
    ) -> None:
        self._server = server
        self._interceptor = interceptor
        self._names = names
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        self._watching: asyncio.Task[None] | None = None
        self.address = address
        """Where the server listens, ``host:port`` with the port that was really opened."""

    async def start(self) -> None:
        """Begin to answer calls, and say so to health checks."""
        await self._server.start()
        for name in self._names:
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        self._watching = asyncio.create_task(self._interceptor.watch_streams())

    async def stop(self, grace_seconds: float = GRACE_SECONDS) -> None:
        """Say NOT_SERVING, end streams, take no more calls, let those under way finish."""
        await self._health.enter_graceful_shutdown()
        self._interceptor.end_streams()
        await self._server.stop(grace_seconds)
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching


def build_server(
    services: Sequence[Service],
    *,
    listen: str,
    tls: KeyFiles,
    trust: TrustStore,
    place: Place,
    clock: Clock,
    limits: CallLimits | None = None,
    recheck_seconds: float = RECHECK_SECONDS,
    share_port: bool = False,
) -> Server:
    """Build a server and open its address. Call it inside a running event loop.

    Args:
        services: what the server offers, apart from health.
        listen: ``host:port``; port 0 opens any free one.
        tls: the server's own certificate and key.
        trust: whose callers to admit; lists that it accepts later count at once.
        place: the region or institution for which the server stands.
        clock: present time, aware.
        limits: how much to take on at once.
        recheck_seconds: how often callers of streams are checked.
        share_port: whether other processes may listen there too; the kernel spreads connections.

    Raises:
        PolicyError: the contract does not say who may call a method.
        KeyFileError: certificate or key cannot be used.
        ListenError: the address cannot be opened.
    """
    limits = limits or CallLimits()
    gate = Gate(place, policies_of(service.descriptor for service in services))
    interceptor = CallInterceptor(Authenticator(trust, clock), gate, limits, recheck_seconds)
    credentials = _Credentials(tls, trust, clock).dynamic()
    server = grpc.aio.server(
        interceptors=[interceptor],
        options=[*_OPTIONS, ("grpc.so_reuseport", int(share_port))],
        maximum_concurrent_rpcs=limits.hard,
    )
    for service in services:
        service.add(service.servicer, server)
    address = _open(server, listen, credentials, share_port)
    names = [service.descriptor.full_name for service in services]
    return Server(server, interceptor, names, address)


async def serve(
    server: Server,
    stop: asyncio.Event | None = None,
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Start, log that the server is ready, and stop with grace on SIGTERM or SIGINT.

    ``stop`` is another way to be told to stop, for a service whose store has failed. ``on_ready``
    is called once, when calls are answered.
    """
    loop = asyncio.get_running_loop()
    told_to_stop = stop or asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told_to_stop.set)
    await server.start()
    gc.freeze()  # code, trust and reference data stay: no collection need look at them again
    log.info("ready", address=server.address)
    on_ready()
    try:
        await told_to_stop.wait()
    finally:
        log.info("stopping", address=server.address)
        await server.stop()


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """Run an entry point's coroutine to its end on uvloop."""
    # Messages come and go by the thousand and hold no cycles: looking for some at the usual rate
    # takes several per cent of a busy server's time.
    gc.set_threshold(*_GC_THRESHOLDS)
    # The event loop and the thread that writes hand the interpreter to each other thousands of
    # times a second anyway, whenever one waits; forcing it more often cost a tenth of the rate.
    sys.setswitchinterval(_SWITCH_SECONDS)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


class _Credentials:
    """Gives gRPC the certificate, key and anchors for each new connection."""

    def __init__(self, files: KeyFiles, trust: TrustStore, clock: Clock) -> None:
        self._files = files
        self._trust = trust
        self._clock = clock
        self._seen: tuple[Stamp, int] | None = None

    def dynamic(self) -> grpc.ServerCredentials:
        """Credentials that follow files and trust lists."""
        first = self._configuration()
        return grpc.dynamic_ssl_server_credentials(
            first,
            self._fetch,  # type: ignore[arg-type] # the stubs forget that None means no change
            require_client_authentication=True,
        )

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC, on a thread of its own, before each handshake; none means no change."""
        try:
            if (self._files.stamp(), self._trust.version) == self._seen:
                return None
            return self._configuration()
        except KeyFileError:
            log.warning("certificate_not_usable", file=str(self._files.certificate))
            return None

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        seen = (self._files.stamp(), self._trust.version)
        pair = load_key_pair(self._files)
        configuration = grpc.ssl_server_certificate_configuration(
            [(pair.key_pem, pair.certificate_pem)], root_certificates=self._roots()
        )
        self._seen = seen
        return configuration

    def _roots(self) -> bytes:
        """Transport anchors of all regions: enough for a handshake, and for nothing else."""
        roots = b""
        for region_code in self._trust.regions():
            with contextlib.suppress(RegionNotTrusted):
                roots += to_pem(self._trust.region(region_code, self._clock()).transport_anchors)
        return roots


def _open(
    server: grpc.aio.Server, listen: str, credentials: grpc.ServerCredentials, share_port: bool
) -> str:
    """Open the address and return it with the port that it got."""
    host, _, _ = listen.rpartition(":")
    _probe(listen, share_port)
    try:
        port = server.add_secure_port(listen, credentials)
    except RuntimeError:
        raise _cannot_listen(listen, "it was taken at this moment") from None
    return f"{host}:{port}"


def _probe(listen: str, share_port: bool) -> None:
    """Try the address with a plain socket first, because gRPC does not say what is wrong."""
    host, _, port = listen.rpartition(":")
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if share_port:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                probe.bind(address)
                if not share_port:  # a shared port would give it connections, and lose them
                    probe.listen(1)
    except OSError as error:
        raise _cannot_listen(listen, error.strerror or "unknown host") from None


def _cannot_listen(listen: str, problem: str) -> ListenError:
    return ListenError(
        f"{listen} cannot be opened ({problem}): stop whoever listens there, "
        "or change `listen` in the configuration"
    )


_GC_THRESHOLDS: Final = (50_000, 20, 50)
_SWITCH_SECONDS: Final = 0.02

_OPTIONS: Final = [
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    ("grpc.max_send_message_length", MAX_RESPONSE_BYTES),
    ("grpc.max_concurrent_streams", 1024),
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", 2 * MAX_METADATA_BYTES),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 3),
    ("grpc.max_connection_idle_ms", 15 * 60_000),
    ("grpc.max_connection_age_ms", 60 * 60_000),
    ("grpc.max_connection_age_grace_ms", 60_000),
]
"""No message without bound; dead, idle and old connections are closed."""
