"""The calls of the main job, prepared outside the measured time: signed and ready to be sent."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count, cycle
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from benchmarks.exchange.load import Call
from benchmarks.exchange.site import CHANNELS, Site, person_id
from rxoutflow.documents import read_draft
from rxoutflow.numbers import SECRET_ALPHABET, SECRET_LENGTH, PrescriptionNumber, new_id
from rxoutflow.statements import Signer, add_signature, new_statement
from rxoutflow.v1 import (
    attempt_pb2,
    dispense_pb2,
    hospital_service_pb2,
    hospital_service_pb2_grpc,
    pharmacy_service_pb2,
    pharmacy_service_pb2_grpc,
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

M = TypeVar("M", bound=Message)
SECONDS = 60.0
ECHO = "/rxoutflow.benchmark.Echo/Echo"


@dataclass
class Case:
    """One prescription on its way, and what is known of it so far."""

    number: str
    pickup_code: str
    registration: hospital_service_pb2.RegisterPrescriptionRequest
    lines: list[settlement_pb2.PricedLine]
    attempt: attempt_pb2.Attempt = field(default_factory=attempt_pb2.Attempt)
    settlement_id: str = ""


class RegistrationStream:
    """A stream of registrations, on which many are under way; answers come in their order."""

    def __init__(self, stub: Any) -> None:
        self._stream: grpc.aio.StreamStreamCall[Any, Any] = stub.StreamRegisterPrescriptions()
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._sending = asyncio.Lock()
        self._reading = asyncio.create_task(self._read())

    async def register(self, request: Message) -> Any:
        """Send a registration and wait for its answer.

        Raises:
            RuntimeError: it was refused.
        """
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        async with self._sending:
            self._waiting.append(answer)
            await self._stream.write(request)
        result = await answer
        if result.HasField("error"):
            raise RuntimeError(result.error.message)
        return result

    async def close(self) -> None:
        """Say that no more come, and wait for the end."""
        await self._stream.done_writing()
        await self._reading

    async def _read(self) -> None:
        try:
            async for answer in self._stream:
                self._waiting.popleft().set_result(answer)
        except grpc.aio.AioRpcError as error:
            for each in self._waiting:
                each.set_exception(error)


class Job:
    """A hospital and a pharmacy, and every call that they make for a prescription.

    Args:
        site: the platforms.
        hospital: who issues, by name.
        pharmacy: who dispenses, by name.
        draft: the prescription that all of them are copies of.
        prices: of the drugs, in 10⁻⁶ yuan a unit.
        payer: the region that pays.
    """

    def __init__(
        self,
        site: Site,
        hospital: str,
        pharmacy: str,
        draft: Any,
        prices: dict[str, int],
        payer: str,
    ) -> None:
        self._site, self._draft, self._prices, self._payer = site, draft, prices, payer
        self._index = count()  # not random: a load makes several numbers in a millisecond
        self._home, self._hospital = site.institution(hospital)
        self._dispensing, self._pharmacy = site.institution(pharmacy)
        self._keys = {
            **self._people(hospital),
            **{f"P{name}": key for name, key in self._people(pharmacy).items()},
        }
        self._hospital_stubs = cycle(
            hospital_service_pb2_grpc.HospitalServiceStub(each) for each in site.channels(hospital)
        )
        self._pharmacy_stubs = cycle(
            pharmacy_service_pb2_grpc.PharmacyServiceStub(each) for each in site.channels(pharmacy)
        )
        self._echo: cycle[Any] = cycle(
            each.unary_unary(ECHO) for each in site.echo_channels(hospital)
        )

    def echo(self, payload: bytes) -> Call:
        """Have the echo give back as many bytes as a registration has."""
        method = next(self._echo)
        return lambda: method(payload, timeout=SECONDS)

    def case(self, person: int = 0) -> Case:
        """A new prescription for a person, signed by prescriber, reviewer and hospital."""
        now = datetime.now(UTC)
        content = self._content(now)
        content.patient.insured_person_id = person_id(person)
        content.patient.payer_region_code = self._payer
        number = content.prescription_number
        secret = "".join(secrets.choice(SECRET_ALPHABET) for _ in range(SECRET_LENGTH))
        sheet = self._signed(
            content,
            now,
            ("prescriber", SIGNER_ROLE_PRESCRIBER),
            ("reviewing_pharmacist", SIGNER_ROLE_REVIEWING_PHARMACIST),
            ("seal", SIGNER_ROLE_HOSPITAL_SEAL),
        )
        request = hospital_service_pb2.RegisterPrescriptionRequest(
            request_id=_id(), prescription=sheet, pickup_secret=secret
        )
        lines = [
            settlement_pb2.PricedLine(
                line_id=line.line_id,
                drug_code=line.drug_code,
                quantity=line.quantity,
                unit_price_micro_yuan=self._prices[line.drug_code],
            )
            for line in content.lines
        ]
        return Case(number, f"{number}.{secret}", request, lines)

    def register(self, case: Case) -> Call:
        """Register it."""
        stub = next(self._hospital_stubs)
        return lambda: stub.RegisterPrescription(case.registration, timeout=SECONDS)

    def register_batch(self, cases: list[Case]) -> Call:
        """Register many in one call."""
        stub = next(self._hospital_stubs)
        request = hospital_service_pb2.BatchRegisterPrescriptionsRequest(
            requests=[case.registration for case in cases]
        )
        return lambda: stub.BatchRegisterPrescriptions(request, timeout=SECONDS)

    @asynccontextmanager
    async def streams(self) -> AsyncIterator[list[RegistrationStream]]:
        """A stream of registrations on each connection."""
        stubs = [next(self._hospital_stubs) for _ in range(CHANNELS)]
        streams = [RegistrationStream(each) for each in stubs]
        yield streams
        for each in streams:
            await each.close()

    def register_streamed(self, case: Case, stream: RegistrationStream) -> Call:
        """Register it over a stream."""
        request = hospital_service_pb2.StreamRegisterPrescriptionsRequest(
            registration=case.registration
        )
        return lambda: stream.register(request)

    def claim(self, case: Case) -> Call:
        """Claim all of it."""
        content = attempt_pb2.Claim(
            prescription_number=case.number, pharmacy_code=self._pharmacy.code
        )
        content.collector.kind = attempt_pb2.Collector.KIND_PATIENT
        sheet = self._by_pharmacy(content, ("Pdispenser", SIGNER_ROLE_DISPENSER))
        request = pharmacy_service_pb2.ClaimPrescriptionRequest(
            request_id=_id(), claim=sheet, pickup_code=case.pickup_code
        )
        stub = next(self._pharmacy_stubs)
        return lambda: stub.ClaimPrescription(request, timeout=SECONDS)

    def claimed(self, case: Case, answer: pharmacy_service_pb2.ClaimPrescriptionResponse) -> None:
        """Note the attempt that came of a claim."""
        case.attempt = attempt_pb2.Attempt.FromString(answer.attempt.payload)

    def quote(self, case: Case) -> Call:
        """Ask what it costs."""
        request = pharmacy_service_pb2.QuoteSettlementRequest(
            prescription_number=case.number, attempt_id=case.attempt.attempt_id, lines=case.lines
        )
        stub = next(self._pharmacy_stubs)
        return lambda: stub.QuoteSettlement(request, timeout=SECONDS)

    def commit(self, case: Case, quoted: settlement_pb2.Amounts) -> Call:
        """Commit it with the quoted amounts."""
        case.settlement_id = _id()
        content = attempt_pb2.Commitment(
            prescription_number=case.number,
            attempt_id=case.attempt.attempt_id,
            fence=case.attempt.fence,
            pharmacy_code=self._pharmacy.code,
            settlement_id=case.settlement_id,
            mode=settlement_pb2.SETTLEMENT_MODE_INSURANCE,
            lines=case.lines,
            accepted_amounts=quoted,
        )
        reviewer = ("Previewing_pharmacist", SIGNER_ROLE_REVIEWING_PHARMACIST)
        request = pharmacy_service_pb2.CommitClaimRequest(
            request_id=_id(), commitment=self._by_pharmacy(content, reviewer)
        )
        stub = next(self._pharmacy_stubs)
        return lambda: stub.CommitClaim(request, timeout=SECONDS)

    def record(self, case: Case) -> Call:
        """Record the handover."""
        content = dispense_pb2.DispenseRecord(
            prescription_number=case.number,
            attempt_id=case.attempt.attempt_id,
            fence=case.attempt.fence,
            pharmacy_code=self._pharmacy.code,
            settlement_id=case.settlement_id,
            lines=[
                dispense_pb2.DispensedLine(
                    line_id=line.line_id,
                    drug_code=line.drug_code,
                    quantity=line.quantity,
                    batch_numbers=["B1"],
                    trace_codes=[dispense_pb2.TraceCode(code=f"{secrets.randbelow(10**20):020}")],
                )
                for line in case.lines
            ],
        )
        content.dispense_time.FromDatetime(datetime.now(UTC))
        sheet = self._by_pharmacy(
            content,
            ("Previewing_pharmacist", SIGNER_ROLE_REVIEWING_PHARMACIST),
            ("Pdispenser", SIGNER_ROLE_DISPENSER),
            ("Pchecker", SIGNER_ROLE_CHECKER),
        )
        request = pharmacy_service_pb2.RecordDispenseRequest(
            request_id=_id(), dispense_record=sheet
        )
        stub = next(self._pharmacy_stubs)
        return lambda: stub.RecordDispense(request, timeout=SECONDS)

    def exchange(self, case: Case) -> Call:
        """The whole way of a prescription, one call after the other, signed on the way."""

        async def run() -> None:
            await self.register(case)()
            self.claimed(case, await self.claim(case)())
            await self.commit(case, amounts_of(await self.quote(case)()))()
            await self.record(case)()

        return run

    def _content(self, now: datetime) -> Prescription:
        content = Prescription()
        content.CopyFrom(self._draft.content)
        issue, expire = self._draft.times(now)
        serial, digits = self._hospital.code[-5:], f"{next(self._index) % 10**5:05}"
        milliseconds = int(now.timestamp() * 1000)
        number = PrescriptionNumber(self._home.code, milliseconds, serial, digits)
        content.prescription_number = str(number)
        content.hospital_prescription_number = f"BENCH-{_id()[:32]}"
        content.issue_time.FromDatetime(issue)
        content.expire_time.FromDatetime(max(expire, now + timedelta(hours=1)))
        content.issuer.institution_code = self._hospital.code
        content.issuer.institution_name = self._hospital.name
        for capacity in ("prescriber", "reviewing_pharmacist"):
            person = next(each for each in self._hospital.people if each.capacity == capacity)
            named = getattr(content.issuer, capacity)
            named.person_code, named.name = person.code, person.name
        return content

    def _by_pharmacy(
        self, content: Message, *people: tuple[str, SignerRole.ValueType]
    ) -> SignedStatement:
        seal = ("Pseal", SIGNER_ROLE_PHARMACY_SEAL)
        return self._signed(content, datetime.now(UTC), *people, seal)

    def _signed(
        self, content: Message, now: datetime, *signers: tuple[str, SignerRole.ValueType]
    ) -> SignedStatement:
        (first, role), *others = signers
        sheet = new_statement(content, self._keys[first], role, now)
        for name, role in others:
            sheet = add_signature(sheet, self._keys[name], role, now)
        return sheet

    def _people(self, actor: str) -> dict[str, Signer]:
        region, institution = self._site.institution(actor)
        pki = self._site.layout.pki(region)
        keys: dict[str, Signer] = {"seal": self._site.signer(pki.seal(institution))}
        for person in institution.people:
            keys[person.capacity] = self._site.signer(pki.person(person))
        return keys


def amounts_of(answer: pharmacy_service_pb2.QuoteSettlementResponse) -> settlement_pb2.Amounts:
    """The amounts of a quote."""
    return settlement_pb2.Quote.FromString(answer.quote.payload).amounts


def warm_up(channels: list[grpc.aio.Channel]) -> list[Any]:
    """What connects channels before anything is measured."""
    return [each.channel_ready() for each in channels]


def _id() -> str:
    return new_id(datetime.now(UTC), secrets.token_bytes)


__all__ = ["Case", "Job", "amounts_of", "read_draft", "warm_up"]
