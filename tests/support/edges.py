"""Edges at work in tests: a real store, real signatures, and a platform that does as it is told.

The platform keeps no rules. It counts what arrives, remembers what it registered, and can be away,
lose its answers on the way back, refuse, be too busy, or be slow.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from itertools import count
from pathlib import Path
from uuid import UUID

from google.protobuf.message import Message

from rxoutflow.identity import CallerName
from rxoutflow.numbers import new_prescription_number
from rxoutflow.statements import Verifier, add_signature, new_statement
from rxoutflow.v1 import pharmacy_service_pb2 as desk
from rxoutflow.v1.attempt_pb2 import (
    CORRECTION_OUTCOME_NOTHING_TO_UNDO,
    CORRECTION_OUTCOME_RELEASED,
    Attempt,
    Claim,
    ClaimRelease,
    Commitment,
)
from rxoutflow.v1.clearing_pb2 import DayComparison
from rxoutflow.v1.dispense_pb2 import (
    DispenseProgress,
    DispenseRecord,
    DispenseReturn,
    ReturnProgress,
)
from rxoutflow.v1.hospital_service_pb2 import (
    GetPrescriptionRequest,
    GetPrescriptionResponse,
    HospitalServiceListStatementsRequest,
    HospitalServiceListStatementsResponse,
    PrecheckPrescriptionRequest,
    PrecheckPrescriptionResponse,
    RegisterPrescriptionRequest,
    RegisterPrescriptionResponse,
    RevokePrescriptionRequest,
    RevokePrescriptionResponse,
)
from rxoutflow.v1.notice_pb2 import Notice
from rxoutflow.v1.prescription_pb2 import Encounter, Prescription
from rxoutflow.v1.prescription_status_pb2 import (
    REVOCATION_OUTCOME_NEVER_REGISTERED,
    REVOCATION_OUTCOME_REVOKED,
    PrescriptionStatus,
    Revocation,
)
from rxoutflow.v1.settlement_pb2 import Settlement
from rxoutflow.v1.statement_pb2 import SIGNER_ROLE_PLATFORM, SignedStatement
from rxoutflow_server.application.edge.platform import out_of_reach
from rxoutflow_server.application.edge.surroundings import Edge
from rxoutflow_server.domain.errors import Reason, Refusal
from rxoutflow_server.storage.sqlite import SqliteStore
from support.pki import NOW, Credential
from support.sheets import Cast

ISSUED, EXPIRES = NOW - timedelta(minutes=5), NOW + timedelta(days=2)

_ids = count(1)


def request_id() -> str:
    """A fresh request id."""
    return str(UUID(int=next(_ids) | 7 << 76 | 2 << 62))


def bytes_of(statement: Message) -> bytes:
    return statement.SerializeToString(deterministic=True)


@dataclass
class Pauses:
    """Pauses that are noted and not slept; ``stop_after`` ends the loop that pauses."""

    taken: list[int] = field(default_factory=list)
    stop_after: int | None = None

    async def __call__(self, tries: int) -> None:
        self.taken.append(tries)
        if self.stop_after is not None and len(self.taken) >= self.stop_after:
            raise asyncio.CancelledError
        await asyncio.sleep(0)


class Rounds:
    """Counts the rounds of a delivery loop; what it says of the last one can be waited for."""

    def __init__(self, deliver: Callable[[], Awaitable[bool]]) -> None:
        self._deliver = deliver
        self.made = 0
        self.done = False

    async def __call__(self) -> bool:
        self.done = await self._deliver()
        self.made += 1
        return self.done

    async def until(self, made: int) -> None:
        async with asyncio.timeout(10):
            while self.made < made:
                await asyncio.sleep(0)

    async def until_done(self) -> None:
        async with asyncio.timeout(10):
            while not self.done:
                await asyncio.sleep(0)


@dataclass
class Line:
    """The line to the platform: up or down, and what happens to the calls on it."""

    region_code: str
    up: bool = True
    loses_answers: bool = False
    refuses: Refusal | None = None
    hold: asyncio.Event | None = None
    """While set but not released, calls wait after they have arrived."""
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    calls: list[Message] = field(default_factory=list)

    async def carry(self, request: Message, act: Callable[[], Message]) -> Message:
        if not self.up:
            raise out_of_reach(self.region_code, "is away")
        self.calls.append(request)
        self.arrived.set()
        if self.hold is not None:
            await self.hold.wait()
        if self.refuses is not None:
            raise self.refuses
        answer = act()
        if self.loses_answers:
            raise out_of_reach(self.region_code, "did not answer")
        return answer

    def of(self, kind: type[Message]) -> list[Message]:
        """The calls of a kind that have arrived."""
        return [call for call in self.calls if isinstance(call, kind)]


class Notices:
    """A stream of notices; each run of the stream ends after those that are there."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self.all: list[Notice] = []
        self.tokens: list[str] = []

    def add(
        self, kind: Notice.Kind.ValueType, number: str, evidence: SignedStatement | None = None
    ) -> None:
        notice = Notice(
            resume_token=f"t{len(self.all) + 1}",
            kind=kind,
            prescription_number=number,
            evidence=evidence,
            summary="something happened",
        )
        notice.event_time.FromDatetime(NOW)
        self.all.append(notice)

    async def watch(self, resume_token: str) -> AsyncGenerator[Notice, None]:
        self.tokens.append(resume_token)
        if not self._line.up:
            raise out_of_reach(self._line.region_code, "is away")
        after = int(resume_token.removeprefix("t") or 0)
        for notice in self.all[after:]:
            yield notice


class FakeHospitalPlatform:
    """The port ``HospitalPlatform``."""

    def __init__(self, cast: Cast, line: Line) -> None:
        self._cast = cast
        self._line = line
        self.notices = Notices(line)
        self.seal: Credential = cast.platform_seal
        self.registered: dict[str, SignedStatement] = {}
        self.revoked: set[str] = set()
        self.barred: set[str] = set()
        self.version = 1

    async def reachable(self) -> bool:
        return self._line.up

    def watch_notices(self, resume_token: str) -> AsyncGenerator[Notice, None]:
        return self.notices.watch(resume_token)

    async def precheck_prescription(
        self, request: PrecheckPrescriptionRequest
    ) -> PrecheckPrescriptionResponse:
        answer = await self._line.carry(request, PrecheckPrescriptionResponse)
        assert isinstance(answer, PrecheckPrescriptionResponse)
        return answer

    async def register_prescription(
        self, request: RegisterPrescriptionRequest
    ) -> RegisterPrescriptionResponse:
        answer = await self._line.carry(request, lambda: self._register(request))
        assert isinstance(answer, RegisterPrescriptionResponse)
        return answer

    async def revoke_prescription(
        self, request: RevokePrescriptionRequest
    ) -> RevokePrescriptionResponse:
        answer = await self._line.carry(request, lambda: self._revoke(request))
        assert isinstance(answer, RevokePrescriptionResponse)
        return answer

    async def get_prescription(self, request: GetPrescriptionRequest) -> GetPrescriptionResponse:
        answer = await self._line.carry(request, lambda: self._get(request.prescription_number))
        assert isinstance(answer, GetPrescriptionResponse)
        return answer

    async def list_statements(
        self, request: HospitalServiceListStatementsRequest
    ) -> HospitalServiceListStatementsResponse:
        answer = await self._line.carry(request, HospitalServiceListStatementsResponse)
        assert isinstance(answer, HospitalServiceListStatementsResponse)
        return answer

    def status(self, number: str, version: int | None = None) -> SignedStatement:
        statuses = PrescriptionStatus
        revoked = number in self.revoked | self.barred
        content = statuses(
            prescription_number=number,
            version=version or self.version,
            validity=statuses.VALIDITY_REVOKED if revoked else statuses.VALIDITY_ACTIVE,
        )
        return new_statement(content, self.seal.signer, SIGNER_ROLE_PLATFORM, NOW)

    def _register(self, request: RegisterPrescriptionRequest) -> RegisterPrescriptionResponse:
        number = Prescription.FromString(request.prescription.payload).prescription_number
        if number in self.barred:
            raise Refusal(Reason.PRESCRIPTION_REVOKED, "it was taken back before")
        self.registered[number] = request.prescription
        return RegisterPrescriptionResponse(status=self.status(number))

    def _revoke(self, request: RevokePrescriptionRequest) -> RevokePrescriptionResponse:
        number = Revocation.FromString(request.revocation.payload).prescription_number
        if number not in self.registered:
            self.barred.add(number)
            return RevokePrescriptionResponse(
                outcome=REVOCATION_OUTCOME_NEVER_REGISTERED, status=self.status(number)
            )
        self.revoked.add(number)
        self.version += 1
        return RevokePrescriptionResponse(
            outcome=REVOCATION_OUTCOME_REVOKED, status=self.status(number)
        )

    def _get(self, number: str) -> GetPrescriptionResponse:
        return GetPrescriptionResponse(
            prescription=self.registered[number], status=self.status(number)
        )


class FakePharmacyPlatform:
    """The port ``PharmacyPlatform``, but for credentials, quotes and deliveries.

    Tests of those have a platform behind the edge; asked here, it fails the test.
    """

    def __init__(self, cast: Cast, line: Line) -> None:
        self._cast = cast
        self._line = line
        self.notices = Notices(line)
        self.seal: Credential = cast.platform_seal
        self.opened = desk.FindPrescriptionResponse()
        self.attempt = Attempt(
            attempt_id=request_id(),
            pharmacy_code=cast.pharmacy.institution_code,
            state=Attempt.STATE_RESERVED,
        )
        self.settlement = Settlement(payer_region_code=cast.region.code)

    async def reachable(self) -> bool:
        return self._line.up

    def watch_notices(self, resume_token: str) -> AsyncGenerator[Notice, None]:
        return self.notices.watch(resume_token)

    def signed(self, content: Message) -> SignedStatement:
        return new_statement(content, self.seal.signer, SIGNER_ROLE_PLATFORM, NOW)

    async def present_e_credential(
        self, request: desk.PresentECredentialRequest
    ) -> desk.PresentECredentialResponse:
        raise AssertionError("a test of present_e_credential needs a platform behind the edge")

    async def find_prescription(
        self, request: desk.FindPrescriptionRequest
    ) -> desk.FindPrescriptionResponse:
        answer = await self._line.carry(request, lambda: self.opened)
        assert isinstance(answer, desk.FindPrescriptionResponse)
        return answer

    async def claim_prescription(
        self, request: desk.ClaimPrescriptionRequest
    ) -> desk.ClaimPrescriptionResponse:
        self.attempt.prescription_number = Claim.FromString(
            request.claim.payload
        ).prescription_number
        make = partial(desk.ClaimPrescriptionResponse, attempt=self.signed(self.attempt))
        answer = await self._line.carry(request, make)
        assert isinstance(answer, desk.ClaimPrescriptionResponse)
        return answer

    async def release_claim(self, request: desk.ReleaseClaimRequest) -> desk.ReleaseClaimResponse:
        released = ClaimRelease.FromString(request.release.payload)
        self.attempt.prescription_number = released.prescription_number
        self.attempt.state = Attempt.STATE_RELEASED
        make = partial(desk.ReleaseClaimResponse, attempt=self.signed(self.attempt))
        answer = await self._line.carry(request, make)
        assert isinstance(answer, desk.ReleaseClaimResponse)
        return answer

    async def update_delivery(
        self, request: desk.UpdateDeliveryRequest
    ) -> desk.UpdateDeliveryResponse:
        raise AssertionError("a test of update_delivery needs a platform behind the edge")

    async def correct_call(self, request: desk.CorrectCallRequest) -> desk.CorrectCallResponse:
        answer = await self._line.carry(request, self.corrected)
        assert isinstance(answer, desk.CorrectCallResponse)
        return answer

    def corrected(self) -> desk.CorrectCallResponse:
        """What a correction is answered: the attempt as it stands, if there is one."""
        if not self.attempt.prescription_number:
            return desk.CorrectCallResponse(outcome=CORRECTION_OUTCOME_NOTHING_TO_UNDO)
        self.attempt.state = Attempt.STATE_RELEASED
        return desk.CorrectCallResponse(
            outcome=CORRECTION_OUTCOME_RELEASED, attempt=self.signed(self.attempt)
        )

    async def quote_settlement(
        self, request: desk.QuoteSettlementRequest
    ) -> desk.QuoteSettlementResponse:
        raise AssertionError("a test of quote_settlement needs a platform behind the edge")

    async def commit_claim(self, request: desk.CommitClaimRequest) -> desk.CommitClaimResponse:
        commitment = Commitment.FromString(request.commitment.payload)
        self.attempt.prescription_number = commitment.prescription_number
        make = partial(
            desk.CommitClaimResponse,
            attempt=self.signed(self.attempt),
            settlement=self.signed(self.settlement),
        )
        answer = await self._line.carry(request, make)
        assert isinstance(answer, desk.CommitClaimResponse)
        return answer

    async def record_dispense(
        self, request: desk.RecordDispenseRequest
    ) -> desk.RecordDispenseResponse:
        record = DispenseRecord.FromString(request.dispense_record.payload)
        progress = DispenseProgress(
            attempt_id=record.attempt_id, state=DispenseProgress.STATE_DISPENSED
        )
        answer = await self._line.carry(
            request, lambda: desk.RecordDispenseResponse(progress=progress)
        )
        assert isinstance(answer, desk.RecordDispenseResponse)
        return answer

    async def return_dispense(
        self, request: desk.ReturnDispenseRequest
    ) -> desk.ReturnDispenseResponse:
        content = DispenseReturn.FromString(request.dispense_return.payload)
        progress = ReturnProgress(reversal_id=content.reversal_id)
        answer = await self._line.carry(
            request, lambda: desk.ReturnDispenseResponse(progress=progress)
        )
        assert isinstance(answer, desk.ReturnDispenseResponse)
        return answer

    async def list_statements(
        self, request: desk.PharmacyServiceListStatementsRequest
    ) -> desk.PharmacyServiceListStatementsResponse:
        answer = await self._line.carry(request, desk.PharmacyServiceListStatementsResponse)
        assert isinstance(answer, desk.PharmacyServiceListStatementsResponse)
        return answer

    async def reconcile_day(
        self, request: desk.PharmacyServiceReconcileDayRequest
    ) -> desk.PharmacyServiceReconcileDayResponse:
        answer = await self._line.carry(
            request,
            lambda: desk.PharmacyServiceReconcileDayResponse(
                comparison=DayComparison(agree=bool(request.book.totals))
            ),
        )
        assert isinstance(answer, desk.PharmacyServiceReconcileDayResponse)
        return answer

    async def get_dispense(self, request: desk.GetDispenseRequest) -> desk.GetDispenseResponse:
        make = partial(desk.GetDispenseResponse, attempt=self.signed(self.attempt))
        answer = await self._line.carry(request, make)
        assert isinstance(answer, desk.GetDispenseResponse)
        return answer


@asynccontextmanager
async def edge_of(
    cast: Cast, institution: CallerName, seal: Credential, folder: Path
) -> AsyncIterator[Edge]:
    """The edge of an institution on a store in a folder; open it again to restart it."""
    trust = cast.trust()
    async with SqliteStore.open(folder / "edge.db", "edge") as store:
        yield Edge(
            institution=institution,
            trust=trust,
            verifier=Verifier(trust),
            seal=seal.signer,
            store=store,
            now=lambda: NOW,
            random_bytes=lambda length: bytes(range(length)),
            pause=Pauses(),
        )


def fresh_number(cast: Cast, at: datetime = NOW) -> str:
    serial = next(_ids).to_bytes(8)
    code = cast.hospital.institution_code
    return str(new_prescription_number(cast.region.code, code, at, lambda _: serial))


def prescription(cast: Cast, number: str = "") -> Prescription:
    """A prescription that can be issued."""
    message = cast.prescription()
    message.prescription_number = number or fresh_number(cast)
    message.issue_time.FromDatetime(ISSUED)
    message.expire_time.FromDatetime(EXPIRES)
    message.patient.birth_date.year = 1960
    message.patient.birth_date.month = message.patient.birth_date.day = 2
    message.patient.weight_grams = 0
    message.encounter.encounter_number = "V1"
    message.encounter.kind = Encounter.KIND_VISIT
    return message


def by_people(cast: Cast, message: Message) -> SignedStatement:
    """A statement with everybody's signature but the seal."""
    (role, first), *others = cast.sheet(type(message))[:-1]
    statement = new_statement(message, first.signer, role, NOW)
    for role, credential in others:
        statement = add_signature(statement, credential.signer, role, NOW)
    return statement


def with_seal(cast: Cast, message: Message) -> SignedStatement:
    role, seal = cast.sheet(type(message))[-1]
    return add_signature(by_people(cast, message), seal.signer, role, NOW)
