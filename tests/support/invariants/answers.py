"""I7 durability, I8 idempotency, I10 authority: what regions answered, and what they stored of it.

An ``Answer`` is an OK that a client got, kept by the client. A region must be able to show it for
as long as the prescription lives: under the same caller and request id, bound to the digest of that
request, with the same bytes, and with every statement that came in the request kept verbatim.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Self

from google.protobuf.message import Message

from rxoutflow.identity import CallerKind, CallerName
from rxoutflow.statements import statement_sha256
from rxoutflow.v1.attempt_pb2 import Attempt
from rxoutflow.v1.settlement_pb2 import Settlement
from rxoutflow.v1.statement_pb2 import ProtectedHeader, SignedStatement
from support.invariants.records import RegionRecords, payload_type
from support.invariants.violation import hold

_LATER = ("receipt",)
"""Fields that are filled in after the outcome is stored: they prove it, and are no part of it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An OK that ``caller`` got from a region's platform."""

    region: str
    prescription_number: str
    caller: CallerName
    method: str
    request: Message
    response: Message

    @classmethod
    def of(
        cls,
        region: str,
        number: str,
        caller: CallerName,
        method: str,
        request: Message,
        response: Message,
    ) -> Self:
        """Keep copies of what was sent and of what came back."""
        kept_request, kept_response = type(request)(), type(response)()
        kept_request.CopyFrom(request)
        kept_response.CopyFrom(response)
        return cls(region, number, caller, method, kept_request, kept_response)

    @property
    def request_id(self) -> str:
        """The client's id of the request."""
        return str(getattr(self.request, "request_id"))  # noqa: B009 - the requests share no base

    @property
    def request_sha256(self) -> bytes:
        """What a stored outcome is bound to."""
        return sha256(self.request.SerializeToString(deterministic=True)).digest()

    def statements(self) -> Iterator[SignedStatement]:
        """The statements that came in the request."""
        for descriptor, value in self.request.ListFields():
            if descriptor.message_type is SignedStatement.DESCRIPTOR:
                yield value


def check_durable(answers: Iterable[Answer], records: RegionRecords) -> None:
    """I7: everything that a region answered is there, unaltered, whatever happened since."""
    for answer in answers:
        if answer.region != records.code:
            continue
        _check_outcome(answer, records)
        for statement in answer.statements():
            _check_kept(answer.prescription_number, statement, records)


def check_unaltered(records: RegionRecords) -> None:
    """I7: every statement is still the one whose digest it is kept under."""
    for (number, digest), statement in records.statements.items():
        same = statement_sha256(statement) == digest
        hold("I7", same, f"a {statement.payload_type} of {number} was altered in {records.code}")


def check_same_answers(answers: Iterable[Answer]) -> None:
    """I8: one request has one answer, and its id stands for nothing else."""
    first: dict[tuple[str, str, str, str], Answer] = {}
    for answer in answers:
        key = (answer.region, answer.prescription_number, str(answer.caller), answer.request_id)
        before = first.setdefault(key, answer)
        what = f"request {answer.request_id} of {answer.method}"
        same_request = (before.method, before.request_sha256) == (
            answer.method,
            answer.request_sha256,
        )
        hold("I8", same_request, f"{what} was accepted with other content too")
        same_answer = _bytes(before.response) == _bytes(answer.response)
        hold("I8", same_answer, f"{what} was answered in two ways")


def check_no_second_effect(records: RegionRecords) -> None:
    """I8: nothing that happens once stands twice among the steps of a prescription.

    Steps name statements; two statements of the same state of the same attempt or settlement by
    the region that decides it are the same thing done twice.
    """
    for number, steps in records.steps.items():
        seen: set[tuple[str, str, str, bytes]] = set()
        for step in steps:
            about = _about(records, number, step.statement_sha256)
            what = (step.role, step.action, step.actor_code, about)
            hold("I8", what not in seen, f"{number}: {step.action} twice in {records.code}")
            seen.add(what)


def check_authority(answers: Iterable[Answer]) -> None:
    """I10: who was answered is who signed what was asked, or brings it for the signer's region.

    A platform that forwards, and an operator who brings what people of the platform signed, is the
    caller of record, so the relay can be told from the signer.
    """
    for answer in answers:
        for statement in answer.statements():
            header = last_header(statement)
            own = header.institution_code == answer.caller.institution_code
            of_platform = header.institution_code == header.region_code
            relays = answer.caller.kind is CallerKind.PLATFORM
            brings = answer.caller.kind is CallerKind.OPERATOR and of_platform
            same_region = header.region_code == answer.caller.region_code
            forwarded = (relays or brings) and same_region
            what = f"{answer.caller} was answered for what {header.institution_code} signed"
            hold("I10", own or forwarded, what)


def check_actors(records: RegionRecords) -> None:
    """I10: the actor of every step is the institution that sealed the statement it rests on."""
    for number, steps in records.steps.items():
        for step in steps:
            statement = records.statements.get((number, step.statement_sha256))
            if statement is None:
                hold("I10", False, f"{number}: {step.action} rests on nothing that is kept")
                continue
            sealed_by = last_header(statement).institution_code
            what = f"{number}: {step.action} is put down to {step.actor_code}, not {sealed_by}"
            hold("I10", step.actor_code == sealed_by, what)


def last_header(statement: SignedStatement) -> ProtectedHeader:
    """What the outermost signature says of itself: the seal, or the platform's signature."""
    return ProtectedHeader.FromString(statement.signatures[-1].protected)


def _check_outcome(answer: Answer, records: RegionRecords) -> None:
    what = f"{answer.method} {answer.request_id} was answered OK by {answer.region}"
    stored = records.outcomes.get(
        (answer.prescription_number, str(answer.caller), answer.request_id)
    )
    if stored is None:
        hold("I7", False, f"{what}, which has forgotten it")
        return
    bound = (stored.method, stored.request_sha256) == (answer.method, answer.request_sha256)
    hold("I7", bound, f"{what}, which stored another request")
    kept = type(answer.response).FromString(stored.response)
    same = _bytes(kept) == _bytes(answer.response)
    hold("I7", same, f"{what}, which stored another answer")


def _check_kept(number: str, statement: SignedStatement, records: RegionRecords) -> None:
    kept = records.statements.get((number, statement_sha256(statement)))
    what = f"a {statement.payload_type} of {number} that {records.code} accepted is not kept"
    hold("I7", kept == statement, what)


def _about(records: RegionRecords, number: str, digest: bytes) -> bytes:
    """What a statement is about: its digest, or which attempt or settlement is in which state."""
    statement = records.statements.get((number, digest))
    if statement is None:
        return digest
    if statement.payload_type == payload_type(Attempt):
        attempt = Attempt.FromString(statement.payload)
        return f"{attempt.attempt_id} {attempt.state}".encode()
    if statement.payload_type == payload_type(Settlement):
        settlement = Settlement.FromString(statement.payload)
        returned = settlement.reversed_amounts.total_fen
        return f"{settlement.settlement_id} {settlement.state} {returned}".encode()
    return digest


def _bytes(message: Message) -> bytes:
    copy = type(message)()
    copy.CopyFrom(message)
    for name in _LATER:
        if name in message.DESCRIPTOR.fields_by_name:
            copy.ClearField(name)
    return copy.SerializeToString(deterministic=True)
