"""Connections to other servers: mutual TLS, one region's anchors, a fixed server name.

A server is known by the name on its certificate, not by its address: any address may be dialled,
and the answer must come from ``platform.<region>.rxoutflow`` or
``<institution code>.<region>.rxoutflow``, vouched for by an anchor of that region and of no other.

:class:`PeerChannels` keeps one connection a region and makes it anew when the region's endpoint or
anchors, or this platform's own certificate, change; calls that are under way finish on the old one.
Deadlines are for the caller of a method: pass ``timeout=`` on every call.
"""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple

import grpc
import structlog
from cryptography import x509

from rxoutflow.trust import RegionTrust, TrustStore
from rxoutflow_server.domain.errors import Reason, Refusal
from rxoutflow_server.transport.identity import Clock
from rxoutflow_server.transport.tls import (
    KeyFileError,
    KeyFiles,
    KeyPair,
    Stamp,
    load_key_pair,
    to_pem,
)

MAX_REQUEST_BYTES: Final = 1024 * 1024
"""Largest request that a server takes: a batch of 100 signed prescriptions fits."""

MAX_RESPONSE_BYTES: Final = 16 * 1024 * 1024
"""Largest response that a client takes: the trust list of a large region fits."""

CLOSE_SECONDS: Final = 30.0
"""How long calls under way may take to finish on a connection that was replaced."""

KEEPALIVE_MS: Final = 30_000

log = structlog.get_logger()


def platform_server_name(region_code: str) -> str:
    """The DNS name on the TLS certificate of a region's platform."""
    return f"platform.{region_code}.rxoutflow"


def edge_server_name(region_code: str, institution_code: str) -> str:
    """The DNS name on the TLS certificate of an institution's edge service."""
    return f"{institution_code.lower()}.{region_code}.rxoutflow"


def open_channel(target: str, server_name: str, own: KeyPair, roots_pem: bytes) -> grpc.aio.Channel:
    """A connection to the server of this name. Connects when it is first used.

    Args:
        target: address to dial, ``host:port``.
        server_name: DNS name that the server's certificate must have.
        own: certificate and key to show.
        roots_pem: anchors of the transport PKI of the server's region.
    """
    credentials = grpc.ssl_channel_credentials(roots_pem, own.key_pem, own.certificate_pem)
    return grpc.aio.secure_channel(target, credentials, options=_options(server_name))


class PeerChannels:
    """One connection to the platform of each region."""

    def __init__(self, trust: TrustStore, own: KeyFiles, clock: Clock) -> None:
        self._trust = trust
        self._own = own
        self._clock = clock
        self._open: dict[str, _Open] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def channel(self, region_code: str) -> grpc.aio.Channel:
        """The connection to a region's platform, as of its present trust list.

        Raises:
            RegionNotTrusted: no trust list of the region is in force here.
            Refusal: REGION_UNKNOWN, because the list names no endpoint.
            KeyFileError: this platform's own certificate cannot be read.
        """
        return self.channel_of(self._trust.region(region_code, self._clock()))

    def channel_of(self, region: RegionTrust) -> grpc.aio.Channel:
        """The connection to the platform of the region that a list describes.

        Raises:
            Refusal: REGION_UNKNOWN, because the list names no endpoint.
            KeyFileError: this platform's own certificate cannot be read.
        """
        region_code = region.region_code
        known = self._open.get(region_code)
        made_for = _MadeFor(region.endpoints, region.transport_anchors, self._stamp(known))
        if known is None or known.made_for != made_for:
            self._retire(region_code)
            self._open[region_code] = known = _Open(self._connect(region), made_for)
        return known.channel

    async def close(self) -> None:
        """Close all connections; calls under way are cancelled."""
        for task in tuple(self._closing):
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        await asyncio.gather(*(known.channel.close() for known in self._open.values()))
        self._open.clear()

    def _connect(self, region: RegionTrust) -> grpc.aio.Channel:
        if not region.endpoints:
            raise Refusal(
                Reason.REGION_UNKNOWN,
                f"the trust list of region {region.region_code} names no endpoint",
                region=region.region_code,
            )
        return open_channel(
            region.endpoints[0],
            platform_server_name(region.region_code),
            load_key_pair(self._own),
            to_pem(region.transport_anchors),
        )

    def _stamp(self, known: _Open | None) -> Stamp:
        """The state of the own files; while they are being replaced, the one that is in use."""
        try:
            stamp = self._own.stamp()
            if known is not None and stamp != known.made_for.stamp:
                load_key_pair(self._own)
        except KeyFileError:
            if known is None:
                raise
            log.warning("certificate_not_usable", file=str(self._own.certificate))
            return known.made_for.stamp
        return stamp

    def _retire(self, region_code: str) -> None:
        known = self._open.pop(region_code, None)
        if known is not None:
            task = asyncio.create_task(known.channel.close(CLOSE_SECONDS))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


class _MadeFor(NamedTuple):
    endpoints: tuple[str, ...]
    anchors: tuple[x509.Certificate, ...]
    stamp: Stamp


class _Open(NamedTuple):
    channel: grpc.aio.Channel
    made_for: _MadeFor


def _options(server_name: str) -> list[tuple[str, str | int]]:
    return [
        ("grpc.ssl_target_name_override", server_name),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.max_send_message_length", MAX_REQUEST_BYTES),
        ("grpc.max_receive_message_length", MAX_RESPONSE_BYTES),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 10_000),
        ("grpc.service_config_disable_resolution", 1),
    ]
