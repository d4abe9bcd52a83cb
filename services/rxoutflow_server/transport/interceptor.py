"""What happens around every call: who, whether, how long, what came of it.

One interceptor stands before all services. For each call it authenticates the caller, applies the
contract's policy, refuses what is too much, gives unary calls an end, runs the handler, maps errors
to the catalogue and writes one log line. Handlers find the caller by :func:`current_caller` and the
time that is left by :func:`remaining_seconds`, which they pass on to calls of their own, because
gRPC for Python does not.

Streams live long, so their callers are checked again before every message and, by
:meth:`CallInterceptor.watch_streams`, every few seconds: a certificate that is denied or expires
loses its streams, too. Each request of a stream is let in as a call is, but that it waits where a
call would be refused for coming too fast; :func:`decided` gives it the end, the error map and the
log line of a call.

A log line has the method, the caller's institution, the outcome and the request id. It never has
anything of what was sent or answered.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Iterator,
    Mapping,
)
from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Final, Self, TypeAlias, TypeVar, cast

import grpc
import structlog
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from rxoutflow_server.domain.errors import Reason, Refusal, Unavailable
from rxoutflow_server.transport.errors import status_of
from rxoutflow_server.transport.identity import AuthContext, Authenticator, Caller
from rxoutflow_server.transport.policy import Gate
from rxoutflow_server.transport.rates import INSTITUTION_RATE, PLATFORM_RATE, CallRates, Rate

DEFAULT_SECONDS: Final = 30.0
"""How long a unary call may take when its caller does not say."""

RECHECK_SECONDS: Final = 15.0
"""How often the callers of live streams are checked; a minute is what operators are promised."""

_CODES: Mapping[int, str] = {code.value[0]: code.name for code in grpc.StatusCode}

_caller: ContextVar[Caller] = ContextVar("caller")
_method: ContextVar[str] = ContextVar("method")
_deadline: ContextVar[float] = ContextVar("deadline")
_rates: ContextVar[CallRates] = ContextVar("rates")

log = structlog.get_logger()

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Unary = Callable[[Any, "_Context"], Awaitable[Any]]
_Stream = Callable[[Any, "_Context"], AsyncGenerator[Any, None] | Awaitable[None]]
_Read = Callable[[Any], object]


def current_caller() -> Caller:
    """Who made the call that is being handled.

    Raises:
        LookupError: no call is being handled.
    """
    return _caller.get()


def remaining_seconds(default: float = DEFAULT_SECONDS) -> float:
    """How long a call of one's own may take: what is left of the call that is being handled.

    ``default`` holds where no call is being handled, or one without an end.
    """
    deadline = _deadline.get(None)
    return default if deadline is None else max(0.0, deadline - time.monotonic())


def count_as(calls: int) -> None:
    """Count the call that is being handled as so many, at its caller's rate, for what it holds.

    It is handled all the same: what its caller calls next is refused, and told when to come back.

    Raises:
        LookupError: no call is being handled.
    """
    _rates.get().charge(_caller.get(), calls - 1)


@dataclass(frozen=True, slots=True)
class CallLimits:
    """How much a server takes on at once, together and from one institution, and how fast."""

    unary: int = 1024
    unary_per_caller: int = 512
    streams: int = 8192
    streams_per_caller: int = 16
    institution_rate: Rate = INSTITUTION_RATE
    platform_rate: Rate = PLATFORM_RATE

    @property
    def hard(self) -> int:
        """Where gRPC itself turns calls away, before anybody knows whose they are."""
        return 2 * self.unary + self.streams


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Authentication, policy, limits, errors and logs, around every call of a server."""

    def __init__(
        self,
        authenticator: Authenticator,
        gate: Gate,
        limits: CallLimits | None = None,
        recheck_seconds: float = RECHECK_SECONDS,
    ) -> None:
        limits = limits or CallLimits()
        self._authenticator = authenticator
        self._gate = gate
        self._rates = CallRates(limits.institution_rate, limits.platform_rate, time.monotonic)
        self._unary_load = _Load(limits.unary, limits.unary_per_caller)
        self._stream_load = _Load(limits.streams, limits.streams_per_caller)
        self._recheck_seconds = recheck_seconds
        self._streams: set[_LiveStream] = set()
        self._wrapped: dict[str, _Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[_Request, _Response] | None]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[_Request, _Response] | None:
        """Give gRPC the method's handler with everything around it; none for unknown methods."""
        method = handler_call_details.method
        if method not in self._wrapped:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None
            self._wrapped[method] = self._wrap(method, handler)
        return self._wrapped[method]

    async def watch_streams(self) -> None:
        """Check the callers of all live streams, again and again, until cancelled."""
        while True:
            await asyncio.sleep(self._recheck_seconds)
            for stream in tuple(self._streams):
                stream.recheck()
                await asyncio.sleep(0)

    def end_streams(self) -> None:
        """End all live streams, because the server stops. Their clients resume elsewhere."""
        for stream in tuple(self._streams):
            stream.stop()

    def _wrap(self, method: str, handler: _Handler) -> _Handler:
        make, inner = _parts(handler)
        serve = self._serving(handler)
        read = partial(_read, handler.request_deserializer)

        async def behaviour(data: Any, context: _Context) -> Any:  # noqa: ANN401 - of any method
            return await serve(method, inner, read, data, context)

        # gRPC hands over bytes: nobody's request is parsed before its caller has been let in.
        wrapped: _Handler = make(behaviour, None, handler.response_serializer)
        return wrapped

    def _serving(self, handler: _Handler) -> Callable[..., Awaitable[object]]:
        if handler.request_streaming:
            return self._serve_requests
        return self._serve_stream if handler.response_streaming else self._serve_unary

    async def _serve_unary(
        self, method: str, handler: _Unary, read: _Read, data: bytes, context: _Context
    ) -> object:
        async with _Call(method, context) as call:
            caller = self._admit(call, context.auth_context())
            with self._unary_load.slot(caller):
                request = call.read(read, data)
                return await _within(_own_limit(context), handler(request, context))

    async def _serve_stream(
        self, method: str, handler: _Stream, read: _Read, data: bytes, context: _Context
    ) -> None:
        async with _Call(method, context) as call:
            connection = context.auth_context()
            caller = self._admit(call, connection)
            stream = _LiveStream(lambda: self._check(method, connection))
            with self._stream_load.slot(caller), self._living(stream):
                await stream.run(handler(call.read(read, data), context), context)

    async def _serve_requests(
        self,
        method: str,
        handler: _Stream,
        read: _Read,
        messages: AsyncIterable[bytes],
        context: _Context,
    ) -> None:
        async with _Call(method, context) as call:
            connection = context.auth_context()
            caller = self._admit(call, connection)
            stream = _LiveRequests(lambda: self._check(method, connection))
            with self._stream_load.slot(caller), self._living(stream):
                requests = self._requests(stream, caller, read, messages)
                await stream.run(handler(requests, context), context)

    async def _requests(
        self, stream: _LiveRequests, caller: Caller, read: _Read, messages: AsyncIterable[bytes]
    ) -> AsyncGenerator[object, None]:
        """The requests of a stream, each let in as a call is, at the caller's rate.

        Raises:
            Refusal: the caller may not call any longer, or the bytes are no message of the type.
        """
        async with aclosing(stream.messages(messages)) as received:
            async for message in received:
                while (wait := self._rates.take_streamed(caller)) > 0:
                    await asyncio.sleep(wait)
                yield read(message)

    def _admit(self, call: _Call, connection: AuthContext) -> Caller:
        caller = call.caller = self._authenticator.authenticate(connection)
        self._rates.take(caller)
        self._gate.check(call.method, caller)
        _method.set(call.method)
        _caller.set(caller)
        _rates.set(self._rates)
        return caller

    def _check(self, method: str, connection: AuthContext) -> None:
        self._gate.check(method, self._authenticator.authenticate(connection))

    @contextmanager
    def _living(self, stream: _LiveStream) -> Iterator[None]:
        self._streams.add(stream)
        try:
            yield
        finally:
            self._streams.discard(stream)


@dataclass(slots=True)
class _Call:
    """A call while it is handled: what its log line is made of, and the status of its failure.

    A class and no generator, which would cost more for each call.
    """

    method: str
    context: _Context
    request_id: str | None = None
    caller: Caller | None = None
    code: str = grpc.StatusCode.OK.name
    reason: str | None = None
    started: float = 0.0

    def __post_init__(self) -> None:
        self.started = time.perf_counter()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Turn what the call raised into its status, and log what came of it."""
        try:
            if exc is not None:
                await self._end(exc)
        finally:
            self._log()

    def read(self, read: _Read, data: bytes) -> object:
        """The request, once its caller has been let in.

        Raises:
            Refusal: FIELD_INVALID, because the bytes are no message of the method's type.
        """
        request = read(data)
        self.request_id = getattr(request, "request_id", None)
        return request

    async def _end(self, error: BaseException) -> None:
        """End the call with a status, unless what it raised has one and is to be raised further."""
        match error:
            case asyncio.CancelledError():
                self.code = grpc.StatusCode.CANCELLED.name
            case grpc.aio.BaseError():
                self.code = _code_of(self.context)
            case _End():
                self.code = error.code.name
                await self.context.abort(error.code, error.advice)
            case Exception():
                await self._fail(status_of(error))

    async def _fail(self, status: status_pb2.Status) -> None:
        self.code, self.reason = _code_and_reason(status)
        rich = rpc_status.to_status(status)
        await self.context.abort(rich.code, rich.details, rich.trailing_metadata)

    def _log(self) -> None:
        """Write the line."""
        _log_call(
            self.method, self.caller, self.code, self.reason, self.started, self.request_id or None
        )


async def decided(request_id: str, response: Awaitable[_Response]) -> _Response | status_pb2.Status:
    """What one of many requests of a call comes to: its response, or the status of its refusal.

    It has a line in the log as a call has, and the time of its call; that of a call of its own in a
    stream, which has no end. Whatever goes wrong with it is told to its caller, and the others go
    on.
    """
    code, reason, started = grpc.StatusCode.OK.name, None, time.perf_counter()
    seconds = None
    if _deadline.get(None) is None:
        seconds = DEFAULT_SECONDS
        _deadline.set(time.monotonic() + seconds)
    try:
        return await _within(seconds, response)
    except asyncio.CancelledError:
        code = grpc.StatusCode.CANCELLED.name
        raise
    except Exception as error:
        status = status_of(_in_the_catalogue(error))
        code, reason = _code_and_reason(status)
        return status
    finally:
        _log_call(_method.get(), _caller.get(), code, reason, started, request_id or None)


def _in_the_catalogue(error: Exception) -> Exception:
    """The error itself, or what stands for one that has a status but no reason."""
    if isinstance(error, _OutOfTime):
        return Unavailable(Reason.STORE_UNAVAILABLE, error.advice)
    return error


def _code_and_reason(status: status_pb2.Status) -> tuple[str, str]:
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    return _CODES[status.code], str(info.reason)


def _log_call(
    method: str,
    caller: Caller | None,
    code: str,
    reason: str | None,
    started: float,
    request_id: str | None,
) -> None:
    log.info(
        "call",
        method=method,
        caller=caller.institution_code if caller else None,
        region=caller.region_code if caller else None,
        kind=caller.kind.value if caller else None,
        code=code,
        reason=reason,
        duration_ms=round((time.perf_counter() - started) * 1000, 3),
        request_id=request_id,
    )


class _End(Exception):
    """Why a call ends that is outside the catalogue: transport, not rules."""

    code: grpc.StatusCode
    advice: str


class _OutOfTime(_End):
    code = grpc.StatusCode.DEADLINE_EXCEEDED
    advice = f"no answer within {DEFAULT_SECONDS:.0f} seconds: repeat with the same request_id"


class _Stopping(_End):
    code = grpc.StatusCode.UNAVAILABLE
    advice = (
        "the server is stopping: open the stream again, with the last resume token "
        "or with what was not answered"
    )


class _LiveStream:
    """A stream of responses that can be ended from outside."""

    def __init__(self, check: Callable[[], None]) -> None:
        self.check = check
        self._scope = asyncio.timeout(None)
        self._end: Exception | None = None

    async def run(
        self, responses: AsyncGenerator[Any, None] | Awaitable[None], context: _Context
    ) -> None:
        """Send the responses, checking the caller before each."""
        try:
            async with self._scope:
                if isinstance(responses, Awaitable):
                    await responses
                    return
                async with aclosing(responses):
                    async for response in responses:
                        self.check()
                        await context.write(response)
        except TimeoutError:
            if self._end is None or not self._scope.expired():
                raise
            raise self._end from None

    def recheck(self) -> None:
        """End the stream if its caller may no longer call."""
        try:
            self.check()
        except Refusal as refusal:
            self.end(refusal)

    def stop(self) -> None:
        """End the stream because the server stops."""
        self.end(_Stopping())

    def end(self, reason: Exception) -> None:
        """Make :meth:`run` raise the reason, wherever it waits."""
        if self._end is None:
            self._end = reason
            self._scope.reschedule(asyncio.get_running_loop().time())


class _LiveRequests(_LiveStream):
    """A stream of requests, too. Stopped, it takes no more of them, and answers those it took."""

    def __init__(self, check: Callable[[], None]) -> None:
        super().__init__(check)
        self._receiving: asyncio.Timeout | None = None
        self._stopped = False

    async def messages(self, messages: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
        """What the caller sends, until it has sent all; the caller is checked at each message.

        Raises:
            Refusal: the caller may not call any longer.
        """
        received = aiter(messages)
        while not self._stopped:
            try:
                async with asyncio.timeout(None) as self._receiving:
                    message = await anext(received)
            except StopAsyncIteration:
                return
            except TimeoutError:
                break
            finally:
                self._receiving = None
            self.check()
            yield message
        raise _Stopping

    def stop(self) -> None:
        """Take no more requests."""
        self._stopped = True
        if self._receiving is not None:
            self._receiving.reschedule(asyncio.get_running_loop().time())


class _Load:
    """Counts what is under way, and refuses what is too much."""

    def __init__(self, most: int, most_per_caller: int) -> None:
        self._most = most
        self._most_per_caller = most_per_caller
        self._total = 0
        self._by_caller: Counter[str] = Counter()

    def slot(self, caller: Caller) -> _Slot:
        """Hold a place for as long as a call takes.

        Raises:
            Refusal: OVERLOADED.
        """
        code = caller.institution_code
        if self._total >= self._most or self._by_caller[code] >= self._most_per_caller:
            raise Refusal(Reason.OVERLOADED, "too many calls at once: wait, then repeat")
        self._total += 1
        self._by_caller[code] += 1
        return _Slot(self, code)

    def leave(self, code: str) -> None:
        """Give a place back."""
        self._total -= 1
        self._by_caller[code] -= 1
        if not self._by_caller[code]:
            del self._by_caller[code]


class _Slot:
    """A place among the calls under way. A class, because generators cost more for each call."""

    def __init__(self, load: _Load, code: str) -> None:
        self._load = load
        self._code = code

    def __enter__(self) -> None:
        """It was taken when it was given."""

    def __exit__(self, *error: object) -> None:
        self._load.leave(self._code)


def _read(deserialize: Callable[[bytes], object] | None, data: bytes) -> object:
    try:
        return deserialize(data) if deserialize is not None else data
    except DecodeError:
        raise Refusal(
            Reason.FIELD_INVALID,
            "the request is no message of this method's type: use stubs of the published contract",
            field="request",
        ) from None


def _own_limit(context: _Context) -> float | None:
    """Seconds after which to end a call whose caller set no deadline; gRPC ends the others."""
    remaining = cast("float | None", context.time_remaining())
    _deadline.set(time.monotonic() + (DEFAULT_SECONDS if remaining is None else remaining))
    return DEFAULT_SECONDS if remaining is None else None


async def _within(seconds: float | None, response: Awaitable[_Response]) -> _Response:
    if seconds is None:
        return await response
    scope = asyncio.timeout(seconds)
    try:
        async with scope:
            return await response
    except TimeoutError:
        if not scope.expired():
            raise
        raise _OutOfTime from None


def _code_of(context: _Context) -> str:
    """The status that a handler set by itself; gRPC for asyncio gives it as a number.

    There is none if the caller went away while it was being answered.
    """
    code = cast("grpc.StatusCode | int | None", context.code())
    if code is None:
        return grpc.StatusCode.CANCELLED.name
    return _CODES.get(code, "UNKNOWN") if isinstance(code, int) else code.name


def _parts(handler: _Handler) -> tuple[Any, Any]:
    """How to make a handler of the same kind, and the function in this one."""
    match handler.request_streaming, handler.response_streaming:
        case False, False:
            return grpc.unary_unary_rpc_method_handler, handler.unary_unary
        case False, True:
            return grpc.unary_stream_rpc_method_handler, handler.unary_stream
        case True, True:
            return grpc.stream_stream_rpc_method_handler, handler.stream_stream
        case _:
            raise NotImplementedError("a stream of requests is answered by a stream here")
