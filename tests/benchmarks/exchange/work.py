"""The calls of the main job, prepared outside the measured time: signed and ready to be sent."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count, cycle
from random import SystemRandom
from typing import Any

import grpc
from google.protobuf.message import Message

from benchmarks.exchange.load import Call
from benchmarks.exchange.site import CHANNELS, Site, person_id
from rxoutflow.v1 import (
    attempt_pb2,
    hospital_service_pb2,
    hospital_service_pb2_grpc,
    pharmacy_service_pb2,
    pharmacy_service_pb2_grpc,
    settlement_pb2,
)
from support.paperwork import Paperwork

SECONDS = 60.0
ECHO = "/rxoutflow.benchmark.Echo/Echo"


@dataclass
class Case:
    """One prescription on its way, and what is known of it so far."""

    number: str
    pickup_code: str
    registration: hospital_service_pb2.RegisterPrescriptionRequest
    lines: Sequence[settlement_pb2.PricedLine]
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
        payer: the region that pays.
    """

    def __init__(self, site: Site, hospital: str, pharmacy: str, payer: str) -> None:
        self._papers = Paperwork.at(
            site.layout,
            site.institution(hospital),
            site.institution(pharmacy),
            SystemRandom(),
            count().__next__,  # not random: a load makes several numbers in a millisecond
        )
        self._payer = payer
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
        content = self._papers.prescription(person_id(person), self._payer)
        number, request = content.prescription_number, self._papers.registration(content)
        pickup_code = f"{number}.{request.pickup_secret}"
        return Case(number, pickup_code, request, self._papers.priced(content))

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
        request = self._papers.claim(case.number, case.pickup_code)
        stub = next(self._pharmacy_stubs)
        return lambda: stub.ClaimPrescription(request, timeout=SECONDS)

    def claimed(self, case: Case, answer: pharmacy_service_pb2.ClaimPrescriptionResponse) -> None:
        """Note the attempt that came of a claim."""
        case.attempt = attempt_pb2.Attempt.FromString(answer.attempt.payload)

    def quote(self, case: Case) -> Call:
        """Ask what it costs."""
        request = self._papers.quote(case.attempt, case.lines)
        stub = next(self._pharmacy_stubs)
        return lambda: stub.QuoteSettlement(request, timeout=SECONDS)

    def commit(self, case: Case, quoted: settlement_pb2.Amounts) -> Call:
        """Commit it with the quoted amounts."""
        case.settlement_id = self._papers.new_id()
        request = self._papers.commitment(case.attempt, case.lines, quoted, case.settlement_id)
        stub = next(self._pharmacy_stubs)
        return lambda: stub.CommitClaim(request, timeout=SECONDS)

    def record(self, case: Case) -> Call:
        """Record the handover."""
        request = self._papers.record(case.attempt, case.lines, case.settlement_id)
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


def amounts_of(answer: pharmacy_service_pb2.QuoteSettlementResponse) -> settlement_pb2.Amounts:
    """The amounts of a quote."""
    return settlement_pb2.Quote.FromString(answer.quote.payload).amounts


__all__ = ["Case", "Job", "amounts_of"]
