"""Servers behind their real interceptor, called with bytes but without a socket.

A :class:`Door` runs what gRPC would run: authentication, policy, limits, the reading of the
request, handler, error map, serialiser. Only the connection is made up, from a certificate, so that
thousands of calls take seconds. What a socket adds is tested over real TLS.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import grpc
import structlog
from cryptography.hazmat.primitives.serialization import Encoding
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from rxoutflow.trust import TrustStore
from rxoutflow_server.transport.identity import AuthContext, Authenticator
from rxoutflow_server.transport.interceptor import CallInterceptor, CallLimits
from rxoutflow_server.transport.policy import Gate, Place, policies_of
from rxoutflow_server.transport.rates import Rate
from rxoutflow_server.transport.server import Service
from support.pki import Credential

LIMITS = CallLimits(institution_rate=Rate(1e9, 10**9), platform_rate=Rate(1e9, 10**9))
"""Limits that tests which call all the time do not meet."""

_TURNS = 60
"""How often a stream is let run; on a store in memory, it has come to rest long before."""

defects: list[dict[str, Any]] = []
"""What the servers logged as defects: exception and place."""


@dataclass(frozen=True)
class Answer:
    """What came of a call: the status that a client would see, and the response."""

    status: status_pb2.Status | None = None
    response: Message | None = None
    written: tuple[Message, ...] = ()

    @property
    def reason(self) -> str:
        """The reason of the catalogue, or OK."""
        return "OK" if self.status is None else reason_in(self.status)

    @property
    def message(self) -> str:
        """The sentence for people."""
        return self.status.message if self.status is not None else ""


def reason_in(status: status_pb2.Status) -> str:
    """The one reason that a status carries, or none if it is gRPC's own."""
    if not status.details:
        return ""
    infos = [error_details_pb2.ErrorInfo() for _ in status.details]
    unpacked = [
        info.reason
        for info, detail in zip(infos, status.details, strict=True)
        if detail.Unpack(info)
    ]
    (reason,) = unpacked
    return str(reason)


def connection(credential: Credential, tls: bytes = b"TLSv1.3") -> AuthContext:
    """What gRPC says of a connection with this certificate."""
    chain = b"".join(
        each.public_bytes(Encoding.PEM)
        for each in (credential.certificate, *credential.intermediates)
    )
    return {
        "ssl_tls_version": (tls,),
        "x509_pem_cert": (credential.certificate.public_bytes(Encoding.PEM),),
        "x509_pem_cert_chain": (chain,),
    }


@dataclass
class _Details:
    method: str
    invocation_metadata: tuple[tuple[str, str | bytes], ...] = ()


@dataclass
class _Context:
    """The part of a servicer's context that servers here use."""

    seen: AuthContext
    aborted: status_pb2.Status | None = None
    written: list[Message] = field(default_factory=list)

    def auth_context(self) -> AuthContext:
        return self.seen

    def time_remaining(self) -> float:
        return 30.0

    def code(self) -> int:
        return 0

    async def write(self, message: Message) -> None:
        self.written.append(message)

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()
    ) -> None:
        status = status_pb2.Status(code=code.value[0], message=details)
        for key, value in trailing_metadata:
            if key == "grpc-status-details-bin":
                status = status_pb2.Status.FromString(value)
        self.aborted = status
        raise grpc.aio.AbortError


class _Handlers:
    """Takes the handlers of services as a gRPC server does."""

    def __init__(self) -> None:
        self._generic: list[Any] = []

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        self._generic.extend(handlers)

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """The same handlers once more, under another form."""

    async def find(self, details: Any) -> Any:
        found = (handler.service(details) for handler in self._generic)
        return next((handler for handler in found if handler is not None), None)


class Door:
    """A server without its socket."""

    def __init__(
        self,
        services: Sequence[Service],
        trust: TrustStore,
        place: Place,
        clock: Callable[[], datetime],
    ) -> None:
        gate = Gate(place, policies_of(service.descriptor for service in services))
        self._interceptor = CallInterceptor(Authenticator(trust, clock), gate, LIMITS)
        self._handlers = _Handlers()
        for service in services:
            service.add(service.servicer, self._handlers)  # type: ignore[arg-type] # all it needs
        self.services = services
        self.place = place

    async def call(self, method: str, request: bytes, seen: AuthContext) -> Answer:
        """Make a call in a task of its own, as gRPC does; of a stream of requests, with one."""
        return await asyncio.create_task(self._call(method, request, seen))

    async def _call(self, method: str, request: bytes, seen: AuthContext) -> Answer:
        handler: Any = await self._interceptor.intercept_service(
            self._handlers.find, _Details(method)
        )
        context = _Context(seen)
        message: Any = request
        if handler.request_deserializer is not None:  # gRPC would read it before anybody is known
            try:
                message = handler.request_deserializer(request)
            except DecodeError:
                return Answer(status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0]))
        if handler.request_streaming:
            return await _answered(handler.stream_stream(_sent(message), context), context)
        if handler.response_streaming:
            return await _streamed(handler.unary_stream(message, context), context)
        try:
            response = await handler.unary_unary(message, context)
        except grpc.aio.AbortError:
            return Answer(context.aborted)
        handler.response_serializer(response)
        return Answer(response=response)


async def _sent(message: Any) -> AsyncIterator[Any]:
    """A stream of one request, which the caller closes."""
    yield message


async def _answered(stream: Awaitable[None], context: _Context) -> Answer:
    """The answer to the one request, or how the stream ended."""
    try:
        await stream
    except grpc.aio.AbortError:
        return Answer(context.aborted, written=tuple(context.written))
    (response,) = context.written
    return Answer(response=response, written=tuple(context.written))


async def _streamed(stream: Awaitable[None], context: _Context) -> Answer:
    """What a stream has sent when it has come to rest, or how it ended."""
    task = asyncio.ensure_future(stream)
    for _ in range(_TURNS):
        await asyncio.sleep(0)
        if task.done():
            break
    task.cancel()
    (outcome,) = await asyncio.gather(task, return_exceptions=True)
    if isinstance(outcome, grpc.aio.AbortError):
        return Answer(context.aborted, written=tuple(context.written))
    assert outcome is None or isinstance(outcome, asyncio.CancelledError), outcome
    return Answer(written=tuple(context.written))


def keep_quiet() -> None:
    """Let servers log nothing but defects, and those into :data:`defects`."""
    defects.clear()
    structlog.configure(processors=[_note_defect])


def _note_defect(_logger: object, _name: str, event: Mapping[str, Any]) -> str:
    if event["event"] == "defect":
        defects.append(dict(event))
    raise structlog.DropEvent
