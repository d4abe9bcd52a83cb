"""One regional platform as a process of its own, and patient customers over mutual TLS.

The platform is started with the command of production, and killed without a word. Its region plays
all roles: hospital, pharmacy and payer are its own. Customers prepare and sign what they ask before
they ask it, and send the very same request again until an answer comes; what was answered with OK
is kept, byte for byte, to be asked for again.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, Self, TypeVar

import grpc
from google.protobuf.message import Message

from rxoutflow.documents import Draft, read_draft
from rxoutflow.identity import CallerName
from rxoutflow.numbers import SECRET_ALPHABET, SECRET_LENGTH, PrescriptionNumber, new_id
from rxoutflow.statements import Signer, add_signature, new_statement
from rxoutflow.statements.signers import FileSigner
from rxoutflow.v1 import (
    attempt_pb2,
    dispense_pb2,
    hospital_service_pb2,
    pharmacy_service_pb2,
    settlement_pb2,
)
from rxoutflow.v1.prescription_pb2 import Prescription
from rxoutflow.v1.statement_pb2 import (
    SIGNER_ROLE_CHECKER,
    SIGNER_ROLE_DISPENSER,
    SIGNER_ROLE_HOSPITAL_SEAL,
    SIGNER_ROLE_PHARMACY_SEAL,
    SIGNER_ROLE_PRESCRIBER,
    SIGNER_ROLE_REVIEWING_PHARMACIST,
    SignedStatement,
    SignerRole,
)
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

M = TypeVar("M", bound=Message)

REGION, HOSPITAL, PHARMACY = "350500", "quanzhou-hospital", "quanzhou-pharmacy"
DRAFT = Path(__file__).parents[2] / "clients/prescriptions/one-region.json"
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

    def signers(self, actor: str) -> dict[str, Signer]:
        """Everybody who signs at an institution, by capacity."""
        institution, pki = self.institution(actor), self.layout.pki(self.region)
        pairs = {"seal": pki.seal(institution)}
        pairs |= {each.capacity: pki.person(each) for each in institution.people}
        return {name: FileSigner.load(each.certificate, each.key) for name, each in pairs.items()}


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
        self._counter, self._random = counter, random
        platform = counter.platform
        self._draft: Draft = read_draft(DRAFT)
        self._hospital, self._pharmacy = map(platform.institution, (HOSPITAL, PHARMACY))
        self._doctors, self._pharmacists = map(platform.signers, (HOSPITAL, PHARMACY))
        prices = platform.layout.prices(self._pharmacy).read_text("utf-8")
        self._prices: dict[str, int] = json.loads(prices)
        self._people = count()

    async def exchange(self) -> None:
        """One prescription from its registration to the record of its handover."""
        content = self.prescription()
        number, secret = content.prescription_number, self._secret()
        await self.register(content, secret)
        attempt = await self._claim(number, f"{number}.{secret}")
        lines = self._priced(content)
        amounts = await self._quote(attempt, lines)
        settlement_id = self._id()
        await self._commit(attempt, lines, amounts, settlement_id)
        await self._record(attempt, lines, settlement_id)

    async def register(self, content: Prescription, secret: str = "") -> None:
        """Register a prescription."""
        sheet = self._signed(
            self._doctors,
            content,
            ("prescriber", SIGNER_ROLE_PRESCRIBER),
            ("reviewing_pharmacist", SIGNER_ROLE_REVIEWING_PHARMACIST),
            ("seal", SIGNER_ROLE_HOSPITAL_SEAL),
        )
        request = hospital_service_pb2.RegisterPrescriptionRequest(
            request_id=self._id(), prescription=sheet, pickup_secret=secret or self._secret()
        )
        await self._counter.ask(
            HOSPITAL,
            "/rxoutflow.v1.HospitalService/RegisterPrescription",
            content.prescription_number,
            request,
            hospital_service_pb2.RegisterPrescriptionResponse,
        )

    def prescription(self) -> Prescription:
        """A new prescription."""
        now, content = datetime.now(UTC), Prescription()
        content.CopyFrom(self._draft.content)
        issue, expire = self._draft.times(now)
        number = PrescriptionNumber(
            REGION,
            int(now.timestamp() * 1000),
            self._hospital.code[-5:],
            f"{self._random.randrange(10**5):05}",
        )
        content.prescription_number = str(number)
        content.hospital_prescription_number = f"LONE-{self._id()}"[:36]
        content.issue_time.FromDatetime(issue)
        content.expire_time.FromDatetime(max(expire, now + timedelta(hours=1)))
        content.issuer.institution_code = self._hospital.code
        content.issuer.institution_name = self._hospital.name
        for capacity in ("prescriber", "reviewing_pharmacist"):
            person = next(each for each in self._hospital.people if each.capacity == capacity)
            named = getattr(content.issuer, capacity)
            named.person_code, named.name = person.code, person.name
        content.patient.insured_person_id = _person_id(next(self._people) % PEOPLE)
        content.patient.payer_region_code = REGION
        return content

    async def _claim(self, number: str, code: str) -> attempt_pb2.Attempt:
        content = attempt_pb2.Claim(prescription_number=number, pharmacy_code=self._pharmacy.code)
        content.collector.kind = attempt_pb2.Collector.KIND_PATIENT
        sheet = self._by_pharmacy(content, ("dispenser", SIGNER_ROLE_DISPENSER))
        request = pharmacy_service_pb2.ClaimPrescriptionRequest(
            request_id=self._id(), claim=sheet, pickup_code=code
        )
        kind = pharmacy_service_pb2.ClaimPrescriptionResponse
        response = await self._at_the_pharmacy("ClaimPrescription", number, request, kind)
        return attempt_pb2.Attempt.FromString(response.attempt.payload)

    async def _quote(
        self, attempt: attempt_pb2.Attempt, lines: list[settlement_pb2.PricedLine]
    ) -> settlement_pb2.Amounts:
        request = pharmacy_service_pb2.QuoteSettlementRequest(
            prescription_number=attempt.prescription_number,
            attempt_id=attempt.attempt_id,
            lines=lines,
        )
        number, kind = attempt.prescription_number, pharmacy_service_pb2.QuoteSettlementResponse
        response = await self._at_the_pharmacy("QuoteSettlement", number, request, kind)
        return settlement_pb2.Quote.FromString(response.quote.payload).amounts

    async def _commit(
        self,
        attempt: attempt_pb2.Attempt,
        lines: list[settlement_pb2.PricedLine],
        amounts: settlement_pb2.Amounts,
        settlement_id: str,
    ) -> None:
        content = attempt_pb2.Commitment(
            prescription_number=attempt.prescription_number,
            attempt_id=attempt.attempt_id,
            fence=attempt.fence,
            pharmacy_code=self._pharmacy.code,
            settlement_id=settlement_id,
            mode=settlement_pb2.SETTLEMENT_MODE_INSURANCE,
            lines=lines,
            accepted_amounts=amounts,
        )
        reviewer = ("reviewing_pharmacist", SIGNER_ROLE_REVIEWING_PHARMACIST)
        request = pharmacy_service_pb2.CommitClaimRequest(
            request_id=self._id(), commitment=self._by_pharmacy(content, reviewer)
        )
        number, kind = attempt.prescription_number, pharmacy_service_pb2.CommitClaimResponse
        await self._at_the_pharmacy("CommitClaim", number, request, kind)

    async def _record(
        self,
        attempt: attempt_pb2.Attempt,
        lines: list[settlement_pb2.PricedLine],
        settlement_id: str,
    ) -> None:
        content = dispense_pb2.DispenseRecord(
            prescription_number=attempt.prescription_number,
            attempt_id=attempt.attempt_id,
            fence=attempt.fence,
            pharmacy_code=self._pharmacy.code,
            settlement_id=settlement_id,
            lines=[self._box(line) for line in lines],
        )
        content.dispense_time.FromDatetime(datetime.now(UTC))
        sheet = self._by_pharmacy(
            content,
            ("reviewing_pharmacist", SIGNER_ROLE_REVIEWING_PHARMACIST),
            ("dispenser", SIGNER_ROLE_DISPENSER),
            ("checker", SIGNER_ROLE_CHECKER),
        )
        request = pharmacy_service_pb2.RecordDispenseRequest(
            request_id=self._id(), dispense_record=sheet
        )
        number, kind = attempt.prescription_number, pharmacy_service_pb2.RecordDispenseResponse
        await self._at_the_pharmacy("RecordDispense", number, request, kind)

    def _box(self, line: settlement_pb2.PricedLine) -> dispense_pb2.DispensedLine:
        return dispense_pb2.DispensedLine(
            line_id=line.line_id,
            drug_code=line.drug_code,
            quantity=line.quantity,
            batch_numbers=["B1"],
            trace_codes=[dispense_pb2.TraceCode(code=f"{self._random.randrange(10**20):020}")],
        )

    def _priced(self, content: Prescription) -> list[settlement_pb2.PricedLine]:
        return [
            settlement_pb2.PricedLine(
                line_id=line.line_id,
                drug_code=line.drug_code,
                quantity=line.quantity,
                unit_price_micro_yuan=self._prices[line.drug_code],
            )
            for line in content.lines
        ]

    async def _at_the_pharmacy(
        self, method: str, number: str, request: Message, kind: type[M]
    ) -> M:
        path = f"/rxoutflow.v1.PharmacyService/{method}"
        return await self._counter.ask(PHARMACY, path, number, request, kind)

    def _by_pharmacy(
        self, content: Message, *people: tuple[str, SignerRole.ValueType]
    ) -> SignedStatement:
        return self._signed(
            self._pharmacists, content, *people, ("seal", SIGNER_ROLE_PHARMACY_SEAL)
        )

    def _signed(
        self,
        keys: dict[str, Signer],
        content: Message,
        *signers: tuple[str, SignerRole.ValueType],
    ) -> SignedStatement:
        now = datetime.now(UTC)
        (first, role), *others = signers
        sheet = new_statement(content, keys[first], role, now)
        for name, role in others:
            sheet = add_signature(sheet, keys[name], role, now)
        return sheet

    def _id(self) -> str:
        return new_id(datetime.now(UTC), self._random.randbytes)

    def _secret(self) -> str:
        return "".join(self._random.choices(SECRET_ALPHABET, k=SECRET_LENGTH))


def _person_id(index: int) -> str:
    return f"LONE{index:07}"


def _alone(service: Service, postgres: str) -> None:
    """Configure a platform that needs no other, and that may be asked very often."""
    text = service.config.read_text("utf-8")
    text = re.sub(r"registrars = \[[^]]*\]", f'registrars = ["{REGION}"]', text)
    if postgres:
        text = text.replace('path = "platform.db"', f'postgres = "{postgres}"\nschema = "lone"')
    service.config.write_text(text + "\n[limits]\ncalls_per_second = 100000\n", "utf-8")
