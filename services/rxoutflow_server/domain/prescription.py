"""A prescription as its home region keeps it, and every transition it can make.

The home region is the only writer of these facts. Three axes are independent: validity, review, and
use, which is a ledger per line:

    authorised = available + claimed + committed + dispensed − returned

Each transition returns a ``Change``: the new prescription and the attempts that changed with it.
Validity and lease are half-open intervals judged by the home region's clock alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from rxoutflow_server.domain.attempt import Attempt, AttemptState, LineQuantity
from rxoutflow_server.domain.errors import InvariantBroken, Reason, Refusal


class Validity(StrEnum):
    """Whether a prescription may be filled at all. Expiry follows from time: ``validity_at``."""

    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"
    MARKED_FOR_REVOCATION = "marked_for_revocation"


class RevocationOutcome(StrEnum):
    """What a revocation came to."""

    REVOKED = "revoked"
    MARKED = "marked"
    ALREADY_DISPENSED = "already_dispensed"
    REST_REVOKED = "rest_revoked"
    EXPIRED = "expired"
    ALREADY_REVOKED = "already_revoked"


@dataclass(frozen=True, slots=True)
class LineUse:
    """The ledger of one line, in its smallest dispensable unit."""

    line_id: int
    authorised: int
    claimed: int = 0
    committed: int = 0
    dispensed: int = 0
    returned: int = 0

    def __post_init__(self) -> None:
        if min(self.claimed, self.committed, self.dispensed, self.returned, self.available) < 0:
            raise InvariantBroken(f"line {self.line_id}: a quantity would be negative")

    @property
    def available(self) -> int:
        """What can still be claimed."""
        return self.authorised - self.claimed - self.committed - self.dispensed + self.returned


@dataclass(frozen=True, slots=True)
class Prescription:
    """A registered prescription: who, for whom, until when, and what has become of it."""

    number: str
    issuer_code: str
    hospital_prescription_number: str
    payer_region_code: str
    insured_person_id: str
    issue_time: datetime
    expire_time: datetime
    register_time: datetime
    update_time: datetime
    statement_sha256: bytes
    pickup_hash: bytes
    lines: tuple[LineUse, ...]
    validity: Validity = Validity.ACTIVE
    live_attempt: Attempt | None = None
    pharmacy_reviewed: bool = False
    fence: int = 0
    version: int = 1

    def validity_at(self, now: datetime) -> Validity:
        """Validity including expiry. A live attempt keeps what it holds beyond the expiry."""
        if self.validity is Validity.ACTIVE and now >= self.expire_time:
            return Validity.EXPIRED
        return self.validity

    @property
    def available(self) -> tuple[LineQuantity, ...]:
        """The lines of which something can still be claimed."""
        return tuple(
            LineQuantity(line.line_id, line.available) for line in self.lines if line.available
        )

    @property
    def has_dispensed(self) -> bool:
        """Whether anything was handed over."""
        return any(line.dispensed for line in self.lines)


@dataclass(frozen=True, slots=True)
class ClaimTerms:
    """A pharmacy's claim: who wants what. Empty ``lines`` means everything that is available."""

    pharmacy_code: str
    dispensing_region_code: str
    lines: tuple[LineQuantity, ...]
    cause_sha256: bytes


@dataclass(frozen=True, slots=True)
class AttemptReference:
    """How a pharmacy names its attempt in every later step."""

    attempt_id: str
    fence: int
    pharmacy_code: str
    cause_sha256: bytes


@dataclass(frozen=True, slots=True)
class Change:
    """The outcome of a transition: the new state, and the attempts that are new or different."""

    prescription: Prescription
    attempts: tuple[Attempt, ...] = ()

    @property
    def attempt(self) -> Attempt:
        """The attempt that the transition was about: the last one that changed."""
        return self.attempts[-1]


def claim(
    prescription: Prescription,
    terms: ClaimTerms,
    *,
    attempt_id: str,
    now: datetime,
    lease: timedelta,
) -> Change:
    """Reserve the prescription for a pharmacy.

    The pharmacy that already holds it gets its live attempt back (after a lost answer). An attempt
    whose lease is over is expired on the way.

    Raises:
        Refusal: PRESCRIPTION_HELD, PRESCRIPTION_REVOKED, PRESCRIPTION_EXPIRED,
            PRESCRIPTION_USED_UP, LINE_UNKNOWN or QUANTITY_EXCEEDED.
    """
    expired = expire_lease(prescription, now=now)
    current = expired.prescription
    if current.live_attempt is not None:
        return Change(current, (*expired.attempts, _held_by(current.live_attempt, terms)))
    _require_claimable(current, now)
    lines = terms.lines or current.available
    if not lines:
        raise Refusal(
            Reason.PRESCRIPTION_USED_UP, "everything on this prescription has been dispensed"
        )
    attempt = Attempt(
        attempt_id=attempt_id,
        prescription_number=current.number,
        fence=current.fence + 1,
        state=AttemptState.RESERVED,
        pharmacy_code=terms.pharmacy_code,
        dispensing_region_code=terms.dispensing_region_code,
        lines=lines,
        create_time=now,
        lease_expire_time=now + lease,
        update_time=now,
        cause_sha256=terms.cause_sha256,
    )
    claimed = _move(current, lines, _reserved)
    reserved = replace(claimed, live_attempt=attempt, fence=attempt.fence)
    return Change(_touched(reserved, now), (*expired.attempts, attempt))


def commit(
    prescription: Prescription,
    attempt: Attempt,
    reference: AttemptReference,
    lines: tuple[LineQuantity, ...],
    *,
    settlement_id: str,
    now: datetime,
) -> Change:
    """Let the pharmacy hand over. From here no timer moves the attempt.

    Quantities that the attempt holds and the commit does not name become available again. Asking
    again with the same settlement and lines changes nothing.

    Raises:
        Refusal: ATTEMPT_NOT_FOUND, FENCE_STALE, ATTEMPT_ENDED, ATTEMPT_ALREADY_COMMITTED,
            LINE_UNKNOWN, QUANTITY_EXCEEDED, or FIELD_INVALID if it names nothing.
    """
    _require_reference(attempt, reference)
    if attempt.state is AttemptState.COMMITTED:
        if (attempt.settlement_id, attempt.lines) != (settlement_id, lines):
            raise Refusal(
                Reason.ATTEMPT_ALREADY_COMMITTED,
                "the attempt is committed with another settlement or other quantities;"
                " record the dispense of that one, or release it",
                settlement_id=attempt.settlement_id,
            )
        return Change(prescription, (attempt,))
    _require_live(attempt, now)
    _require_within(lines, attempt.lines)
    held = _move(
        prescription, attempt.lines, lambda line, n: replace(line, claimed=line.claimed - n)
    )
    taken = _move(held, lines, lambda line, n: replace(line, committed=line.committed + n))
    committed = replace(
        attempt,
        state=AttemptState.COMMITTED,
        lines=lines,
        lease_expire_time=None,
        settlement_id=settlement_id,
        update_time=now,
        cause_sha256=reference.cause_sha256,
    )
    moved = replace(taken, live_attempt=committed, pharmacy_reviewed=True)
    return Change(_touched(moved, now), (committed,))


def dispense(
    prescription: Prescription,
    attempt: Attempt,
    reference: AttemptReference,
    lines: tuple[LineQuantity, ...],
    *,
    now: datetime,
) -> Change:
    """Book what was handed over: exactly what was committed.

    Raises:
        Refusal: ATTEMPT_NOT_FOUND, FENCE_STALE, ATTEMPT_ENDED, ATTEMPT_NOT_COMMITTED or
            DISPENSE_MISMATCH.
    """
    _require_reference(attempt, reference)
    if attempt.state is AttemptState.DISPENSED and attempt.cause_sha256 == reference.cause_sha256:
        return Change(prescription, (attempt,))
    if attempt.state is AttemptState.RESERVED:
        raise Refusal(Reason.ATTEMPT_NOT_COMMITTED, "commit the claim before handing anything over")
    _require_live(attempt, now)
    if lines != attempt.lines:
        raise Refusal(
            Reason.DISPENSE_MISMATCH,
            "lines and quantities must be those of the commitment; if less was handed over,"
            " release the attempt and commit again",
            field="lines",
        )
    booked = _move(
        prescription,
        lines,
        lambda line, n: replace(line, committed=line.committed - n, dispensed=line.dispensed + n),
    )
    return _ended(booked, attempt, AttemptState.DISPENSED, reference.cause_sha256, now)


def release(
    prescription: Prescription, attempt: Attempt, reference: AttemptReference, *, now: datetime
) -> Change:
    """Let go of an attempt of which nothing was handed over; its quantities are available again.

    Raises:
        Refusal: ATTEMPT_NOT_FOUND, FENCE_STALE or ATTEMPT_ENDED.
    """
    _require_reference(attempt, reference)
    if attempt.state is AttemptState.RELEASED and attempt.cause_sha256 == reference.cause_sha256:
        return Change(prescription, (attempt,))
    _require_live(attempt, now)
    freed = _give_back(prescription, attempt)
    return _ended(freed, attempt, AttemptState.RELEASED, reference.cause_sha256, now)


def expire_lease(prescription: Prescription, *, now: datetime) -> Change:
    """End the live attempt if its lease is over; otherwise change nothing."""
    attempt = prescription.live_attempt
    if attempt is None or not attempt.lease_is_over(now):
        return Change(prescription)
    freed = _give_back(prescription, attempt)
    return _ended(freed, attempt, AttemptState.EXPIRED, b"", now)


def revoke(prescription: Prescription, *, now: datetime) -> tuple[Change, RevocationOutcome]:
    """Take a prescription back, as far as that is still possible."""
    expired = expire_lease(prescription, now=now)
    current = expired.prescription
    outcome = _revocation_outcome(current, now)
    validity = {
        RevocationOutcome.REVOKED: Validity.REVOKED,
        RevocationOutcome.REST_REVOKED: Validity.REVOKED,
        RevocationOutcome.MARKED: Validity.MARKED_FOR_REVOCATION,
    }.get(outcome, current.validity)
    if validity is not current.validity:
        current = _touched(replace(current, validity=validity), now)
    return Change(current, expired.attempts), outcome


def _revocation_outcome(prescription: Prescription, now: datetime) -> RevocationOutcome:
    if prescription.validity is Validity.REVOKED:
        return RevocationOutcome.ALREADY_REVOKED
    if prescription.live_attempt is not None:
        return RevocationOutcome.MARKED
    if not prescription.available:
        return RevocationOutcome.ALREADY_DISPENSED
    if prescription.validity_at(now) is Validity.EXPIRED:
        return RevocationOutcome.EXPIRED
    if prescription.has_dispensed:
        return RevocationOutcome.REST_REVOKED
    return RevocationOutcome.REVOKED


def _held_by(live: Attempt, terms: ClaimTerms) -> Attempt:
    """The live attempt, if it is the claimant's own."""
    if (live.pharmacy_code, live.dispensing_region_code) != (
        terms.pharmacy_code,
        terms.dispensing_region_code,
    ):
        lease = live.lease_expire_time
        raise Refusal(
            Reason.PRESCRIPTION_HELD,
            "another pharmacy holds this prescription; ask it to release, or wait",
            holder_code=live.pharmacy_code,
            holder_region=live.dispensing_region_code,
            lease_expire_time=lease.isoformat() if lease else "",
        )
    return live


def _require_claimable(prescription: Prescription, now: datetime) -> None:
    validity = prescription.validity_at(now)
    if validity is Validity.EXPIRED:
        raise Refusal(
            Reason.PRESCRIPTION_EXPIRED,
            "the prescription is no longer valid; the patient needs a new one",
            expire_time=prescription.expire_time.isoformat(),
        )
    if validity is not Validity.ACTIVE:
        raise Refusal(
            Reason.PRESCRIPTION_REVOKED,
            "the hospital took this prescription back; the patient should ask there",
        )


def unknown_attempt() -> Refusal:
    """What strangers hear, whether the attempt exists or not."""
    return Refusal(Reason.ATTEMPT_NOT_FOUND, "there is no such attempt, or it is not yours")


def _require_reference(attempt: Attempt, reference: AttemptReference) -> None:
    if (attempt.attempt_id, attempt.pharmacy_code) != (
        reference.attempt_id,
        reference.pharmacy_code,
    ):
        raise unknown_attempt()
    if attempt.fence != reference.fence:
        raise Refusal(
            Reason.FENCE_STALE, f"the attempt's fence is {attempt.fence}, not {reference.fence}"
        )


def _require_live(attempt: Attempt, now: datetime) -> None:
    if attempt.lease_is_over(now) or not attempt.state.is_live:
        state = attempt.state if not attempt.state.is_live else AttemptState.EXPIRED
        raise Refusal(
            Reason.ATTEMPT_ENDED,
            f"the attempt is {state}; hand nothing over for it; claim again if needed",
            state=state,
        )


def _require_within(wanted: tuple[LineQuantity, ...], held: Iterable[LineQuantity]) -> None:
    if not wanted:
        raise Refusal(Reason.FIELD_INVALID, "lines: name what will be handed over", field="lines")
    holding = {line.line_id: line.quantity for line in held}
    for line in _distinct(wanted):
        if line.line_id not in holding:
            raise _unknown_line(line.line_id, "the attempt does not hold it")
        if line.quantity > holding[line.line_id]:
            raise _too_much(line, holding[line.line_id])


def _distinct(lines: Iterable[LineQuantity]) -> Iterable[LineQuantity]:
    seen: set[int] = set()
    for line in lines:
        if line.line_id in seen:
            raise _unknown_line(line.line_id, "it is named twice")
        seen.add(line.line_id)
        yield line


def _move(
    prescription: Prescription,
    lines: Iterable[LineQuantity],
    change: Callable[[LineUse, int], LineUse],
) -> Prescription:
    """Apply ``change`` to the ledger of each named line; nothing becomes negative."""
    ledger = {line.line_id: line for line in prescription.lines}
    for moved in _distinct(lines):
        line = ledger.get(moved.line_id)
        if line is None:
            raise _unknown_line(moved.line_id, "the prescription does not have it")
        if moved.quantity < 1:
            raise Refusal(
                Reason.FIELD_INVALID, "a quantity must be at least 1", field="lines.quantity"
            )
        ledger[moved.line_id] = change(line, moved.quantity)
    return replace(prescription, lines=tuple(ledger.values()))


def _reserved(line: LineUse, quantity: int) -> LineUse:
    if quantity > line.available:
        raise _too_much(LineQuantity(line.line_id, quantity), line.available)
    return replace(line, claimed=line.claimed + quantity)


def _give_back(prescription: Prescription, attempt: Attempt) -> Prescription:
    if attempt.state is AttemptState.COMMITTED:
        return _move(
            prescription, attempt.lines, lambda line, n: replace(line, committed=line.committed - n)
        )
    return _move(
        prescription, attempt.lines, lambda line, n: replace(line, claimed=line.claimed - n)
    )


def _ended(
    prescription: Prescription,
    attempt: Attempt,
    state: AttemptState,
    cause_sha256: bytes,
    now: datetime,
) -> Change:
    """End the live attempt. A mark for revocation takes effect on whatever is left."""
    ended = replace(
        attempt,
        state=state,
        lease_expire_time=None,
        update_time=now,
        cause_sha256=cause_sha256,
    )
    free = replace(prescription, live_attempt=None)
    if free.validity is Validity.MARKED_FOR_REVOCATION:
        free = replace(free, validity=Validity.REVOKED if free.available else Validity.ACTIVE)
    return Change(_touched(free, now), (ended,))


def _touched(prescription: Prescription, now: datetime) -> Prescription:
    return replace(prescription, version=prescription.version + 1, update_time=now)


def _unknown_line(line_id: int, why: str) -> Refusal:
    return Refusal(Reason.LINE_UNKNOWN, f"line {line_id}: {why}", line_id=str(line_id))


def _too_much(line: LineQuantity, available: int) -> Refusal:
    return Refusal(
        Reason.QUANTITY_EXCEEDED,
        f"line {line.line_id}: {line.quantity} wanted, at most {available} possible",
        line_id=str(line.line_id),
        available=str(available),
    )
