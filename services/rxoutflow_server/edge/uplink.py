"""The way from an edge to the platform of its region: one connection over mutual TLS.

The connection is made anew when the region's anchors or the edge's own certificate change. Every
call has an end: its own, or earlier if the call that is being answered ends earlier, so that the
institution's systems still get a precise answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, Generic, Protocol, TypeVar

import grpc

from rxoutflow.trust import RegionNotTrusted, RegionTrust, TrustStore
from rxoutflow.v1.notice_pb2 import Notice
from rxoutflow_server.application.edge.platform import out_of_reach
from rxoutflow_server.config import EdgeConfig
from rxoutflow_server.transport.channels import PeerChannels, open_channel, platform_server_name
from rxoutflow_server.transport.errors import refusal_of
from rxoutflow_server.transport.identity import Clock
from rxoutflow_server.transport.interceptor import remaining_seconds
from rxoutflow_server.transport.tls import KeyFileError, load_key_pair, to_pem

CALL_SECONDS: Final = 20.0
"""A platform may have to ask two other regions before it can answer."""

SOON_SECONDS: Final = 4.0
"""For calls that need not be answered now, because the edge can go on without."""

CONNECT_SECONDS: Final = 2.0
MARGIN_SECONDS: Final = 0.5
"""What is kept of the time of the call that is being answered, to answer it."""

STREAM_SECONDS: Final = 1800.0
"""A stream of notices is opened anew after that, in case one end forgot it."""

_TRYING = (grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.CONNECTING)

Stub = TypeVar("Stub")
Request = TypeVar("Request")
Response = TypeVar("Response")


class NoticeResponse(Protocol):
    """What the services' WatchNotices methods stream."""

    @property
    def notice(self) -> Notice:
        """The notice."""


class Uplink(Generic[Stub]):
    """The platform's service for one kind of institution, by its generated stub."""

    def __init__(
        self,
        config: EdgeConfig,
        trust: TrustStore,
        clock: Clock,
        make_stub: Callable[[grpc.aio.Channel], Stub],
    ) -> None:
        self._region_code = config.region_code
        self._channels = _OwnPlatform(config, trust, clock)
        self._make_stub = make_stub
        self._made: tuple[grpc.aio.Channel, Stub] | None = None

    @property
    def channels(self) -> PeerChannels:
        """The connection to the platform, for what the platform offers beside this service."""
        return self._channels

    @property
    def stub(self) -> Stub:
        """The stub on the present connection.

        Raises:
            Unavailable: there can be no connection, for want of a trust list or a certificate.
        """
        channel = self._channel()
        if self._made is None or self._made[0] is not channel:
            self._made = (channel, self._make_stub(channel))
        return self._made[1]

    async def reachable(self) -> bool:
        """Whether a connection stands, or comes to stand in a moment."""
        channel = self._channel()
        state = channel.get_state(try_to_connect=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(_allowed(CONNECT_SECONDS)):
                while state in _TRYING:
                    await channel.wait_for_state_change(state)
                    state = channel.get_state(try_to_connect=True)
        return state is grpc.ChannelConnectivity.READY

    async def call(
        self,
        method: Callable[..., Awaitable[Response]],
        request: Any,  # noqa: ANN401 - any request of the contract
        seconds: float = CALL_SECONDS,
    ) -> Response:
        """Call a method of the stub.

        Raises:
            Refusal: the platform refused.
            Unavailable: it may or may not have acted.
        """
        try:
            return await method(request, timeout=_allowed(seconds))
        except grpc.aio.AioRpcError as error:
            raise refusal_of(error, self._region_code) from error

    async def notices(
        self,
        method: Callable[..., AsyncIterable[NoticeResponse]],
        request: Any,  # noqa: ANN401 - any request of the contract
    ) -> AsyncGenerator[Notice, None]:
        """The notices of a stream, until it ends.

        Raises:
            Refusal: the platform does not let this institution listen.
            Unavailable: the stream broke.
        """
        try:
            async for response in method(request, timeout=STREAM_SECONDS):
                yield response.notice
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                raise refusal_of(error, self._region_code) from error

    async def close(self) -> None:
        """Close the connection; calls under way are cancelled."""
        await self._channels.close()

    def _channel(self) -> grpc.aio.Channel:
        try:
            return self._channels.channel(self._region_code)
        except (RegionNotTrusted, KeyFileError) as error:
            raise out_of_reach(self._region_code, f"cannot be reached ({error})") from None


class _OwnPlatform(PeerChannels):
    """The connection to the address that the edge's configuration names."""

    def __init__(self, config: EdgeConfig, trust: TrustStore, clock: Clock) -> None:
        super().__init__(trust, config.tls, clock)
        self._target = config.platform_target

    def _connect(self, region: RegionTrust) -> grpc.aio.Channel:
        return open_channel(
            self._target,
            platform_server_name(region.region_code),
            load_key_pair(self._own),
            to_pem(region.transport_anchors),
        )


def _allowed(seconds: float) -> float:
    """How long a call may take, beside the call that is being answered, if one is."""
    return max(0.1, min(seconds, remaining_seconds(seconds + MARGIN_SECONDS) - MARGIN_SECONDS))
