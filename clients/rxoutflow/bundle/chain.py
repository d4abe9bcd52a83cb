"""Whether the statements of a bundle fit together: the rules of the chain.

prescription → claim → attempt → commitment → hold → dispense record → booking → payment → return →
reversal. Each step names the one before by digest or id; nothing exceeds what the step before
allows; all amounts add up and are those that were accepted. The statements verified already, so
each is said by whom the contract wants to say it; here only their contents meet.

A region does not keep everything: the payer sees no claim, and home no pricing. A step may be
missing only where that region never had it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import Protocol, TypeVar

from google.protobuf.message import Message

from rxoutflow.amounts import broken_identities
from rxoutflow.bundle.model import BundleReason, BundleRefused, LoggedContent, VerifiedBundle
from rxoutflow.v1.attempt_pb2 import (
    Adjudication,
    Attempt,
    Claim,
    ClaimRelease,
    Commitment,
    Correction,
)
from rxoutflow.v1.dispense_pb2 import DispenseRecord, DispenseReturn
from rxoutflow.v1.prescription_pb2 import Prescription
from rxoutflow.v1.prescription_status_pb2 import PrescriptionStatus
from rxoutflow.v1.settlement_pb2 import (
    SETTLEMENT_MODE_INSURANCE,
    Amounts,
    PricedLine,
    Pricing,
    Reversal,
    Settlement,
)

M = TypeVar("M", bound=Message)

_CAUSES: dict[int, tuple[type[Message], ...]] = {
    Attempt.STATE_RESERVED: (Claim,),
    Attempt.STATE_COMMITTED: (Commitment,),
    Attempt.STATE_DISPENSED: (DispenseRecord, Adjudication),
    Attempt.STATE_RELEASED: (ClaimRelease, Correction, Adjudication),
}
_PAID_BY = (DispenseRecord, Adjudication)
_AMOUNTS = tuple(field.name for field in Amounts.DESCRIPTOR.fields)


class _Line(Protocol):
    """A quantity of a line, in whatever message."""

    @property
    def line_id(self) -> int:
        """The line."""

    @property
    def quantity(self) -> int:
        """How much."""


def check_chain(bundle: VerifiedBundle) -> None:
    """Check every rule of the chain.

    Raises:
        BundleRefused: OTHER_PRESCRIPTION, CHAIN_BROKEN, QUANTITY_EXCEEDED or AMOUNTS_BROKEN.
    """
    for each in bundle.statements:
        _check_number(bundle, each)
    chain = _Chain(bundle)
    chain.check_statuses()
    chain.check_attempts()
    chain.check_commitments()
    chain.check_settlements()
    chain.check_records()
    chain.check_returns()


class _Chain:
    """The statements of a bundle, by what they are found by."""

    def __init__(self, bundle: VerifiedBundle) -> None:
        self._bundle = bundle
        self._by_digest = {each.sha256: each for each in bundle.statements}
        self._sheet, self._prescription = self._the_prescription()
        self._prescribed = {line.line_id: line for line in self._prescription.lines}
        self._authorised = _quantities(self._prescription.lines)
        self._commitments = {each.settlement_id: each for _, each in bundle.of(Commitment)}
        regions = {each.pharmacy_code[1:7] for each in self._all(Attempt)}
        home = bundle.prescription_number[:6]
        self._is_home = bundle.head.region_code == home
        self._is_dispensing = bundle.head.region_code in regions
        self._is_payer = bundle.head.region_code == self._prescription.patient.payer_region_code

    def check_statuses(self) -> None:
        """The home region speaks of this very sheet."""
        for status in self._all(PrescriptionStatus):
            _require(
                status.prescription_sha256 == self._sheet.sha256,
                "a status is about another sheet than the prescription",
            )

    def check_attempts(self) -> None:
        """Each attempt is of one pharmacy, in bounds, and caused by a statement that is here."""
        first: dict[str, Attempt] = {}
        for logged, attempt in self._bundle.of(Attempt):
            known = first.setdefault(attempt.attempt_id, attempt)
            _require(
                _same(known, attempt, "fence", "pharmacy_code", "dispensing_region_code")
                and attempt.dispensing_region_code == attempt.pharmacy_code[1:7]
                and attempt.payer_region_code == self._prescription.patient.payer_region_code,
                "the states of an attempt contradict each other or the prescription",
            )
            _require_within(_quantities(attempt.lines), self._authorised, logged.name)
            self._check_cause_of_attempt(attempt)
        for claim in self._all(Claim):
            _require_within(_quantities(claim.lines), self._authorised, "claim")
        fences = [attempt.fence for attempt in first.values()]
        _require(len(fences) == len(set(fences)), "two attempts have one fence")

    def check_commitments(self) -> None:
        """What is committed is of the attempt and of the prescription, no more than it holds."""
        for commitment in self._all(Commitment):
            attempt = self._attempt_of(commitment)
            committed = _quantities(commitment.lines)
            if attempt is not None:
                _require_within(committed, _quantities(attempt.lines), "commitment")
            _require_within(committed, self._authorised, "commitment")
            for line in commitment.lines:
                self._check_product(line)

    def _check_product(self, line: PricedLine) -> None:
        prescribed = self._prescribed.get(line.line_id)
        _require(
            prescribed is not None
            and (line.drug_code == prescribed.drug_code or prescribed.substitution_allowed),
            f"line {line.line_id} is committed with a product that was not prescribed",
        )

    def check_settlements(self) -> None:
        """The payer's word adds up, is what the patient accepted, and rests on what is here."""
        for settlement in self._all(Settlement):
            broken = broken_identities(settlement.amounts)
            _require_amounts(not broken, f"a settlement does not add up: {'; '.join(broken)}")
            commitment = self._commitments.get(settlement.settlement_id)
            _require(
                commitment is not None
                and commitment.mode == SETTLEMENT_MODE_INSURANCE
                and _same(commitment, settlement, "attempt_id", "pharmacy_code")
                and settlement.dispensing_region_code == settlement.pharmacy_code[1:7]
                and settlement.payer_region_code == self._prescription.patient.payer_region_code,
                "a settlement has no commitment here, or contradicts it",
            )
            _require_amounts(
                commitment is not None and settlement.amounts == commitment.accepted_amounts,
                "the amounts of a settlement are not those that were accepted",
            )
            self._check_cause_of_settlement(settlement)
        for pricing in self._all(Pricing):
            self._check_pricing(pricing)

    def check_records(self) -> None:
        """What was handed over is what was committed, and all of it within the prescription."""
        handed_over: Counter[int] = Counter()
        for record in self._all(DispenseRecord):
            commitment = self._commitments.get(record.settlement_id)
            _require(
                commitment is not None
                and _same(commitment, record, "attempt_id", "fence", "pharmacy_code"),
                "a dispense record has no commitment here, or contradicts it",
            )
            committed = commitment.lines if commitment is not None else ()
            if _goods(record.lines) != _goods(committed):
                raise BundleRefused(
                    BundleReason.QUANTITY_EXCEEDED,
                    "other lines, products or quantities were handed over than were committed",
                )
            handed_over += _quantities(record.lines)
        _require_within(handed_over - self._returned(), self._authorised, "sum of dispense records")

    def check_returns(self) -> None:
        """What came back had been handed over; what was given back had been paid."""
        records = {each.settlement_id: each for each in self._all(DispenseRecord)}
        returned: dict[str, Counter[int]] = {}
        for came_back in self._all(DispenseReturn):
            record = records.get(came_back.settlement_id)
            _require(record is not None, "a return has no dispense record here")
            total = returned.setdefault(came_back.settlement_id, Counter())
            total += _quantities(came_back.lines)
            lines = record.lines if record is not None else ()
            _require_within(total, _quantities(lines), "returns")
        self._check_reversals()

    def _check_reversals(self) -> None:
        given_back: dict[str, Counter[str]] = {}
        settled = {each.settlement_id: each.amounts for each in self._all(Settlement)}
        for reversal in self._all(Reversal):
            broken = broken_identities(reversal.amounts)
            _require_amounts(not broken, f"a reversal does not add up: {'; '.join(broken)}")
            self._require_cause(reversal.cause_sha256, (DispenseReturn,), "reversal")
            paid = settled.get(reversal.settlement_id)
            _require(paid is not None, "a reversal has no settlement here")
            total = given_back.setdefault(reversal.settlement_id, Counter())
            for name in _AMOUNTS:
                total[name] += getattr(reversal.amounts, name)
                _require_amounts(
                    total[name] <= getattr(paid, name), f"more {name} was given back than was paid"
                )

    def _check_cause_of_attempt(self, attempt: Attempt) -> None:
        """The payer hears of the ends of attempts only, not of what led to them."""
        if attempt.state == Attempt.STATE_EXPIRED:
            _require(not attempt.cause_sha256, "an attempt expired, and yet has a cause")
            return
        cause = None
        if self._is_home or self._is_dispensing or attempt.cause_sha256 in self._by_digest:
            kinds = _CAUSES.get(attempt.state, ())
            cause = self._require_cause(attempt.cause_sha256, kinds, "attempt")
        if isinstance(cause, Commitment | DispenseRecord | ClaimRelease):
            _require(_same(cause, attempt, "attempt_id", "fence"), "an attempt has a strange cause")
        if attempt.state == Attempt.STATE_COMMITTED and attempt.settlement_id:
            held = {each.settlement_id for each in self._all(Settlement)}
            _require(attempt.settlement_id in held, "the settlement of a commit is missing")

    def _check_cause_of_settlement(self, settlement: Settlement) -> None:
        """Home keeps holds without their pricing."""
        state, digest = settlement.state, settlement.cause_sha256
        if state == Settlement.STATE_HELD:
            if self._is_payer or self._is_dispensing or digest in self._by_digest:
                self._require_cause(digest, (Pricing,), "hold")
        elif state == Settlement.STATE_POSTED:
            self._require_cause(digest, _PAID_BY, "payment")
        elif state == Settlement.STATE_VOIDED and (self._is_payer or digest in self._by_digest):
            self._require_cause(digest, (Attempt,), "voided settlement")

    def _check_pricing(self, pricing: Pricing) -> None:
        commitment = self._commitments.get(pricing.settlement_id)
        _require(
            commitment is not None
            and list(commitment.lines) == [line.line for line in pricing.lines],
            "a pricing is not of the lines that were committed",
        )

    def _require_cause(
        self, digest: bytes, kinds: tuple[type[Message], ...], effect: str
    ) -> Message:
        """The statement that led to another."""
        cause = self._by_digest.get(digest)
        if cause is None or not isinstance(cause.content, kinds):
            wanted = " or ".join(kind.DESCRIPTOR.name for kind in kinds)
            raise BundleRefused(
                BundleReason.CHAIN_BROKEN, f"the {wanted} that led to the {effect} is not here"
            )
        return cause.content

    def _attempt_of(self, commitment: Commitment) -> Attempt | None:
        """The attempt of a commitment. Home may have refused a commitment of any other."""
        attempts = [each for each in self._all(Attempt) if each.attempt_id == commitment.attempt_id]
        _require(bool(attempts), "a commitment has no attempt here")
        return attempts[0]

    def _returned(self) -> Counter[int]:
        return sum((_quantities(each.lines) for each in self._all(DispenseReturn)), Counter[int]())

    def _the_prescription(self) -> tuple[LoggedContent, Prescription]:
        found = list(self._bundle.of(Prescription))
        if len(found) != 1:
            raise BundleRefused(
                BundleReason.CHAIN_BROKEN, f"one prescription is needed, here are {len(found)}"
            )
        return found[0]

    def _all(self, kind: type[M]) -> Iterator[M]:
        return (content for _, content in self._bundle.of(kind))


def _check_number(bundle: VerifiedBundle, logged: LoggedContent) -> None:
    stated = getattr(logged.content, "prescription_number", None)
    if stated != bundle.prescription_number:
        raise BundleRefused(
            BundleReason.OTHER_PRESCRIPTION,
            f"the {logged.name} at leaf {logged.leaf_index} is about another prescription",
        )


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise BundleRefused(BundleReason.CHAIN_BROKEN, otherwise)


def _require_amounts(holds: bool, otherwise: str) -> None:
    if not holds:
        raise BundleRefused(BundleReason.AMOUNTS_BROKEN, otherwise)


def _require_within(wanted: Counter[int], allowed: Counter[int], what: str) -> None:
    if any(quantity > allowed[line_id] for line_id, quantity in wanted.items()):
        raise BundleRefused(
            BundleReason.QUANTITY_EXCEEDED, f"the {what} exceeds what the step before allows"
        )


def _quantities(lines: Iterable[_Line]) -> Counter[int]:
    quantities: Counter[int] = Counter()
    for line in lines:
        quantities[line.line_id] += line.quantity
    return quantities


class _Goods(_Line, Protocol):
    """A quantity of a product of a line."""

    @property
    def drug_code(self) -> str:
        """The product."""


def _goods(lines: Iterable[_Goods]) -> list[tuple[int, str, int]]:
    return sorted((line.line_id, line.drug_code, line.quantity) for line in lines)


def _same(one: Message, other: Message, *fields: str) -> bool:
    return all(attrgetter(field)(one) == attrgetter(field)(other) for field in fields)
