"""One regional platform as a process of its own, and patient customers over mutual TLS.

The platform is started with the command of production, and killed without a word. Its region plays
all roles: hospital, pharmacy and payer are its own. Customers prepare and sign what they ask before
they ask it, and send the very same request again until an answer comes; what was answered with OK
is kept, byte for byte, to be asked for again.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, Self, TypeVar

import grpc
from google.protobuf.message import Message

from rxoutflow.identity import CallerName
from rxoutflow.v1 import pharmacy_service_pb2 as desk
from rxoutflow.v1.attempt_pb2 import Attempt
from rxoutflow.v1.hospital_service_pb2 import (
    RegisterPrescriptionRequest,
    RegisterPrescriptionResponse,
)
from rxoutflow.v1.prescription_pb2 import Prescription
from rxoutflow.v1.settlement_pb2 import Quote
from rxoutflow_server.sandbox.constellation import Institution
from rxoutflow_server.sandbox.layout import Layout, Prepared, prepare
from rxoutflow_server.sandbox.running import server_command
from rxoutflow_server.sandbox.wiring import (
    Service,
    Wiring,
    choose_ports,
    platform_service,
    services,
)
from support.insured import admit
from support.invariants import Answer
from support.paperwork import Paperwork

M = TypeVar("M", bound=Message)

REGION, HOSPITAL, PHARMACY = "350500", "quanzhou-hospital", "quanzhou-pharmacy"
PEOPLE = 400
READY_SECONDS = 60.0
CALL_SECONDS = 3.0
_PAUSE_SECONDS = 0.02
_CHANNELS = 3
_AGAIN = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.ABORTED,
)


def with_largest_file(size: int) -> list[str]:
    """What is put in front of a command so that it can write no file beyond this size, in bytes."""
    limit = f"(resource.RLIMIT_FSIZE, ({size}, {size}))"
    code = (
        f"import os, resource, sys; resource.setrlimit{limit}; os.execv(sys.argv[1], sys.argv[1:])"
    )
    return [sys.executable, "-c", code]


class Platform:
    """The process. It can be killed and started again, on the same port and the same records."""

    def __init__(self, folder: Path, postgres: str = "") -> None:
        """Prepare everything; ``postgres`` is the address of a database for the records."""
        self.prepared: Prepared = prepare(folder, datetime.now(UTC))
        layout, constellation = self.prepared.layout, self.prepared.constellation
        self.region = next(each for each in constellation.regions if each.code == REGION)
        admit(layout.insured(self.region), map(_person_id, range(PEOPLE)))
        names = [each.name for each in services(layout, constellation)]
        self.wiring = Wiring(layout, constellation, choose_ports(names))
        self.wiring.write(datetime.now(UTC))
        (self._service,) = (
            each
            for each in services(layout, constellation)
            if each.name == platform_service(self.region)
        )
        _alone(self._service, postgres)
        self._logs = count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self.log = layout.logs / "none"

    @property
    def layout(self) -> Layout:
        """Where everything is."""
        return self.prepared.layout

    @property
    def store(self) -> Path:
        """The database, if it is a file."""
        return self.layout.platform(self.region) / "platform.db"

    def start(self, before: Sequence[str] = ()) -> None:
        """Start it and wait until it is ready. ``before`` is put in front of the command."""
        self.log = self.layout.logs / f"lone-{next(self._logs)}.log"
        with self.log.open("wb") as output:
            self._process = subprocess.Popen(
                [*before, *server_command(self._service)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + READY_SECONDS
        while b'"ready"' not in self.log.read_bytes():
            assert self._process.poll() is None, self.said()
            assert time.monotonic() < deadline, f"not ready: {self.said()}"
            time.sleep(_PAUSE_SECONDS)

    def kill(self) -> None:
        """End it as a power cut ends a process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> int:
        """Ask it to end, and wait; its exit status."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(READY_SECONDS)

    def wait(self) -> int:
        """Wait for its end; its exit status."""
        assert self._process is not None
        return self._process.wait(READY_SECONDS)

    def said(self) -> str:
        """Its log since the last start."""
        return self.log.read_text("utf-8", errors="replace")

    def institution(self, actor: str) -> Institution:
        """One of its institutions."""
        return next(each for each in self.region.institutions if each.actor == actor)

    def channel(self, actor: str, index: int) -> grpc.aio.Channel:
        """A connection of an institution."""
        pki = self.layout.pki(self.region)
        pair = pki.client_tls(self.institution(actor))
        credentials = grpc.ssl_channel_credentials(
            pki.transport_authority.certificate.read_bytes(),
            pair.key.read_bytes(),
            pair.certificate.read_bytes(),
        )
        options = [
            ("grpc.ssl_target_name_override", self.region.host_name),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.initial_reconnect_backoff_ms", 50),
            ("grpc.max_reconnect_backoff_ms", 200),
            ("rxoutflow.channel", index),
        ]
        target = self.wiring.target(platform_service(self.region))
        return grpc.aio.secure_channel(target, credentials, options=options)

    def paperwork(self, random: Random, serials: Callable[[], int]) -> Paperwork:
        """What its hospital and its pharmacy sign."""
        hospital, pharmacy = (
            (self.region, self.institution(each)) for each in (HOSPITAL, PHARMACY)
        )
        return Paperwork.at(self.layout, hospital, pharmacy, random, serials)


@contextmanager
def lone_platform(folder: Path, postgres: str = "") -> Iterator[Platform]:
    """A platform that ends with the context at the latest; it is not started yet."""
    platform = Platform(folder, postgres)
    try:
        yield platform
    finally:
        platform.kill()


@dataclass(frozen=True)
class Acknowledged:
    """A request that was answered with OK, and what was answered."""

    actor: str
    path: str
    number: str
    request: Any
    response: Any

    def answer(self, platform: Platform) -> Answer:
        """The same in the terms of the invariants."""
        institution = platform.institution(self.actor)
        caller = CallerName(REGION, institution.kind, institution.code)
        return Answer.of(REGION, self.number, caller, self.path, self.request, self.response)


@dataclass
class Counter:
    """Where customers ask: their connections, and everything that they were told."""

    platform: Platform
    acknowledged: list[Acknowledged] = field(default_factory=list)
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    repeats: int = 0
    call_seconds: float = CALL_SECONDS
    _channels: dict[str, list[grpc.aio.Channel]] = field(default_factory=dict)
    _turn: Iterator[int] = field(default_factory=count)

    async def __aenter__(self) -> Self:
        self.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.hang_up()

    def connect(self) -> None:
        """Make connections."""
        for actor in (HOSPITAL, PHARMACY):
            self._channels[actor] = [self.platform.channel(actor, i) for i in range(_CHANNELS)]

    async def hang_up(self) -> None:
        """Close the connections."""
        channels, self._channels = self._channels, {}
        for each in channels.values():
            await asyncio.gather(*(channel.close() for channel in each))

    async def ask(self, actor: str, path: str, number: str, request: Message, kind: type[M]) -> M:
        """Ask until there is an answer; with OK it is kept.

        Raises:
            grpc.aio.AioRpcError: a definite refusal.
        """
        response = await self.insist(actor, path, request, kind)
        if "request_id" in request.DESCRIPTOR.fields_by_name:
            self.acknowledged.append(Acknowledged(actor, path, number, request, response))
            self.heard.set()
        return response

    async def insist(self, actor: str, path: str, request: Message, kind: type[M]) -> M:
        """Ask until there is an answer."""
        while True:
            channel = self._channels[actor][next(self._turn) % _CHANNELS]
            method: Any = channel.unary_unary(
                path,
                request_serializer=type(request).SerializeToString,
                response_deserializer=kind.FromString,
            )
            try:
                response: M = await method(request, timeout=self.call_seconds)
            except grpc.aio.AioRpcError as error:
                if error.code() not in _AGAIN:
                    raise
                self.repeats += 1
                await asyncio.sleep(_PAUSE_SECONDS)  # patience, as a client of the contract has it
            else:
                return response

    async def require_kept(self, told: Sequence[Acknowledged]) -> None:
        """Ask all of this once more; each must be answered as before."""
        waiting = iter(told)

        async def work() -> None:
            for each in waiting:
                again = await self.insist(each.actor, each.path, each.request, type(each.response))
                assert proper(again) == proper(each.response), f"{each.path} of {each.number}"

        await asyncio.gather(*(work() for _ in range(16)))


def proper(response: Message) -> bytes:
    """An answer without its receipt, which is made anew each time."""
    copy = type(response)()
    copy.CopyFrom(response)
    if "receipt" in copy.DESCRIPTOR.fields_by_name:
        copy.ClearField("receipt")
    return copy.SerializeToString(deterministic=True)


class Customer:
    """A hospital and a pharmacy at work, with everything they sign."""

    def __init__(self, counter: Counter, random: Random) -> None:
        self._counter = counter
        self._papers = counter.platform.paperwork(random, lambda: random.randrange(10**5))
        self._people = count()

    async def exchange(self) -> None:
        """One prescription from its registration to the record of its handover."""
        papers, content = self._papers, self._prescription()
        number, lines = content.prescription_number, papers.priced(content)
        registration = papers.registration(content)
        await self._register(number, registration)
        claim = papers.claim(number, f"{number}.{registration.pickup_secret}")
        claimed = await self._at_the_pharmacy(
            "ClaimPrescription", number, claim, desk.ClaimPrescriptionResponse
        )
        attempt = Attempt.FromString(claimed.attempt.payload)
        quoted = await self._at_the_pharmacy(
            "QuoteSettlement", number, papers.quote(attempt, lines), desk.QuoteSettlementResponse
        )
        amounts, settlement_id = Quote.FromString(quoted.quote.payload).amounts, papers.new_id()
        commitment = papers.commitment(attempt, lines, amounts, settlement_id)
        await self._at_the_pharmacy("CommitClaim", number, commitment, desk.CommitClaimResponse)
        record = papers.record(attempt, lines, settlement_id)
        await self._at_the_pharmacy("RecordDispense", number, record, desk.RecordDispenseResponse)

    def _prescription(self) -> Prescription:
        return self._papers.prescription(_person_id(next(self._people) % PEOPLE), REGION)

    async def _register(self, number: str, request: RegisterPrescriptionRequest) -> None:
        path = "/rxoutflow.v1.HospitalService/RegisterPrescription"
        await self._counter.ask(HOSPITAL, path, number, request, RegisterPrescriptionResponse)

    async def _at_the_pharmacy(
        self, method: str, number: str, request: Message, kind: type[M]
    ) -> M:
        path = f"/rxoutflow.v1.PharmacyService/{method}"
        return await self._counter.ask(PHARMACY, path, number, request, kind)


def _person_id(index: int) -> str:
    return f"LONE{index:07}"


def _alone(service: Service, postgres: str) -> None:
    """Configure a platform that needs no other, and that may be asked very often."""
    text = service.config.read_text("utf-8")
    text = re.sub(r"registrars = \[[^]]*\]", f'registrars = ["{REGION}"]', text)
    if postgres:
        text = text.replace('path = "platform.db"', f'postgres = "{postgres}"\nschema = "lone"')
    service.config.write_text(text + "\n[limits]\ncalls_per_second = 100000\n", "utf-8")
