"""The network between nodes: delays, losses, duplicates, cuts; and gRPC's errors at its ends.

A call is a request and an answer, each a message of its own: each may be late, lost, doubled or cut
off, so an effect may happen without its caller hearing of it. Messages overtake each other whenever
their delays say so. Cuts are one-way and hold for pairs of nodes. What is sent is bytes, as on the
wire; an error travels as a ``google.rpc.Status`` in the trailers and arrives as what gRPC raises.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol
from zlib import crc32

import grpc
from google.rpc import status_pb2

from simulation.loop import Process, VirtualLoop
from simulation.trace import Trace

_STATUS = "grpc-status-details-bin"
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class WireError(grpc.aio.AioRpcError, grpc.Call):  # type: ignore[misc] # both ends read it
    """A failed call, as both the synchronous and the asynchronous gRPC would show it."""

    def __init__(self, code: grpc.StatusCode, details: str, status: bytes = b"") -> None:
        trailers = ((_STATUS, status),) if status else ()
        super().__init__(code, (), trailers, details)  # type: ignore[arg-type]

    def is_active(self) -> bool:
        return False

    def time_remaining(self) -> float:
        return 0.0

    def cancel(self) -> bool:
        return False

    def add_callback(self, callback: Callable[[], None]) -> bool:
        return False


@dataclass(frozen=True)
class Answer:
    """What a server sends back."""

    response: bytes = b""
    status: status_pb2.Status | None = None

    def error(self) -> WireError | None:
        if self.status is None:
            return None
        code = _CODES[self.status.code]
        return WireError(code, self.status.message, _bytes(self.status))


class Node(Protocol):
    """An end of the network."""

    name: str

    @property
    def process(self) -> Process | None:
        """What runs there now, if anything."""

    def serve(
        self, caller: str, method: str, request: bytes, deadline: float, reply: Reply
    ) -> Callable[[], None]:
        """Handle a request; what is returned cancels it, as gRPC does when its caller is gone."""

    def stepped(self) -> None:
        """Something happened here: a crash that waits for it may come now."""


Reply = Callable[[Answer], None]


@dataclass
class Weather:
    """How the network is at present. Probabilities, and delays in seconds."""

    fastest: float = 0.001
    slowest: float = 0.03
    straggler: float = 0.0
    straggles: float = 2.0
    lose_request: float = 0.0
    lose_answer: float = 0.0
    double: float = 0.0


class Network:
    """Carries calls between nodes."""

    def __init__(self, loop: VirtualLoop, random: Random, trace: Trace) -> None:
        self.nodes: dict[str, Node] = {}
        self.cuts: dict[tuple[str, str], None] = {}
        self.clogged: dict[str, float] = {}
        """Nodes to and from which everything takes longer, and by how many seconds."""
        self.weather = Weather()
        self._loop = loop
        self._random = random
        self._trace = trace
        self._calls = 0

    async def call(
        self, caller: Node, callee: str, method: str, request: bytes, seconds: float
    ) -> bytes:
        """The answer to a call.

        Raises:
            WireError: the error that was answered, or that no answer came.
        """
        process = caller.process
        if process is None or not process.alive:
            raise asyncio.CancelledError
        self._calls += 1
        call = _Call(self, process, caller, callee, method, self._calls, seconds)
        try:
            return await call.made(request)
        finally:
            call.end()

    def is_cut(self, one: str, other: str) -> bool:
        return (one, other) in self.cuts

    def send(self, sender: str, receiver: str, what: str, data: bytes, deliver: Deliver) -> None:
        """Let a message arrive some time, once, twice or never."""
        lost = self.weather.lose_request if what[0] == ">" else self.weather.lose_answer
        label = f"{sender}->{receiver} {what} {crc32(data):08x}"
        self._note("sent", sender, label)
        if self.is_cut(sender, receiver) or self._random.random() < lost:
            self._note("dropped", sender, label)
            deliver(False)
            return
        copies = 1
        if self._random.random() < self.weather.double:
            copies = 2
            self._note("doubled", sender, label)
        for _ in range(copies):
            delay = self._delay(sender, receiver)
            self._loop.call_later(delay, self._arrive, sender, receiver, label, deliver)

    def _arrive(self, sender: str, receiver: str, label: str, deliver: Deliver) -> None:
        if self.is_cut(sender, receiver):
            self._note("dropped", receiver, label)
            deliver(False)
            return
        self._note("delivered", receiver, label)
        deliver(True)

    def _note(self, kind: str, node: str, label: str) -> None:
        self._trace.add(self._loop.now, node, kind, label)
        if node in self.nodes:
            self.nodes[node].stepped()

    def _delay(self, sender: str, receiver: str) -> float:
        weather = self.weather
        delay = self._random.uniform(weather.fastest, weather.slowest)
        if self._random.random() < weather.straggler:
            delay += self._random.random() * weather.straggles
        return delay + self.clogged.get(sender, 0.0) + self.clogged.get(receiver, 0.0)

    def notices(self) -> bool:
        """Whether the loss of a message is noticed at once, as a connection reset is."""
        return self._random.random() < 0.6

    def after(self, seconds: float, callback: Callable[..., Any], *args: Any) -> Any:
        return self._loop.call_later(seconds, callback, *args)

    def future(self) -> asyncio.Future[bytes]:
        return self._loop.create_future()

    @property
    def now(self) -> float:
        return self._loop.now


def _bytes(status: status_pb2.Status) -> bytes:
    """The same bytes in every process: what is in a map has no order of its own."""
    return bytes(status.SerializeToString(deterministic=True))


Deliver = Callable[[bool], None]
"""Called when a message arrives, or, with false, when it is lost."""


class _Call:
    """One call, from its caller's point of view."""

    def __init__(
        self,
        network: Network,
        process: Process,
        caller: Node,
        callee: str,
        method: str,
        number: int,
        seconds: float,
    ) -> None:
        self._network = network
        self._process = process
        self._caller = caller
        self._callee = callee
        self._method = method
        self._label = f"#{number} {method.rpartition('/')[2]}"
        self._seconds = seconds
        self._deadline = network.now + seconds
        self._answer = network.future()
        self._cancels: list[Callable[[], None]] = []

    async def made(self, request: bytes) -> bytes:
        network, caller = self._network, self._caller.name
        expiry = network.after(self._seconds, self._fail, "DEADLINE_EXCEEDED", "too late")

        def deliver(arrived: bool) -> None:
            self._request_arrived(request) if arrived else self._lost()

        network.send(caller, self._callee, f"> {self._label}", request, deliver)
        try:
            return await self._answer
        finally:
            expiry.cancel()

    def end(self) -> None:
        """The caller stops waiting: the server hears of it if it works on the call still."""
        if not self._answer.done():
            self._answer.cancel()
        if self._cancels and not self._network.is_cut(self._caller.name, self._callee):
            self._network.after(0.01, self._cancel)

    def _cancel(self) -> None:
        for cancel in self._cancels:
            cancel()

    def _request_arrived(self, request: bytes) -> None:
        node = self._network.nodes[self._callee]
        if node.process is None or not node.process.alive:
            self._fail_soon("connection refused")
            return
        cancel = node.serve(
            self._caller.name, self._method, request, self._deadline, self._reply(node.process)
        )
        self._cancels.append(cancel)

    def _reply(self, server: Process) -> Reply:
        def reply(answer: Answer) -> None:
            if not server.alive:
                return
            status = answer.status
            sent = _bytes(status) if status is not None else answer.response
            result = "OK" if status is None else _CODES[status.code].name

            def deliver(arrived: bool) -> None:
                self._answered(answer) if arrived else self._lost()

            what = f"< {self._label} {result}"
            self._network.send(self._callee, self._caller.name, what, sent, deliver)

        return reply

    def _answered(self, answer: Answer) -> None:
        if self._answer.done() or not self._process.alive:
            return
        error = answer.error()
        if error is not None:
            self._answer.set_exception(error)
        else:
            self._answer.set_result(answer.response)

    def _lost(self) -> None:
        if self._network.notices():
            self._fail_soon("connection reset")

    def _fail_soon(self, details: str) -> None:
        self._network.after(0.05, self._fail, "UNAVAILABLE", details)

    def _fail(self, code: str, details: str) -> None:
        if not self._answer.done() and self._process.alive:
            self._answer.set_exception(WireError(grpc.StatusCode[code], details))
