"""A prescription as its home region keeps it, and every transition it can make.

The home region is the only writer of these facts. Three axes are independent: validity, review, and
use, which is a ledger per line:

    authorised = available + claimed + committed + dispensed − returned

Of what is available a repeat prescription has only so much open as its plan says (``plan.py``).

Each transition returns a ``Change``: the new prescription and the attempts that changed with it.
Validity and lease are half-open intervals judged by the home region's clock alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from enum import StrEnum

from rxoutflow_server.domain.attempt import Attempt, AttemptState, LineQuantity
from rxoutflow_server.domain.errors import InvariantBroken, Reason, Refusal
from rxoutflow_server.domain.local_time import local_day
from rxoutflow_server.domain.plan import ONCE, Plan
from rxoutflow_server.domain.returns import Cause, require_returnable


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
    NEVER_REGISTERED = "never_registered"


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
    """A registered prescription: who, for whom, until when, and what has become of it.

    ``opened_fills`` and ``fill_begin_day`` are of its plan: how many fills have been open to a
    claim, and the local day on which the last of these was first handed over. The latter stays None
    without a repeat plan.
    """

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
    plan: Plan = ONCE
    opened_fills: int = 1
    fill_begin_day: date | None = None

    def validity_at(self, now: datetime) -> Validity:
        """Validity including expiry. A live attempt keeps what it holds beyond the expiry."""
        if self.validity is Validity.ACTIVE and now >= self.expire_time:
            return Validity.EXPIRED
        return self.validity

    @property
    def available(self) -> tuple[LineQuantity, ...]:
        """The lines of which something can still be claimed, now or in a later fill."""
        return tuple(
            LineQuantity(line.line_id, line.available) for line in self.lines if line.available
        )

    @property
    def open_lines(self) -> tuple[LineQuantity, ...]:
        """The lines of which something can be claimed in the fills that are opened."""
        lines = (LineQuantity(line.line_id, self.open_of(line)) for line in self.lines)
        return tuple(line for line in lines if line.quantity)

    def open_of(self, line: LineUse) -> int:
        """What can be claimed of a line in the fills that are opened."""
        return (
            line.available - line.authorised + self.plan.opened(line.authorised, self.opened_fills)
        )

    @property
    def next_fill_day(self) -> date | None:
        """The local day on which the fill after those that are opened opens, if it is known."""
        return self.plan.next_fill_day(self.opened_fills, self.fill_begin_day)

    def with_fills_of(self, now: datetime) -> Prescription:
        """The prescription with the fill opened whose day has come, if there is one."""
        day = self.next_fill_day
        if day is None or local_day(now) < day:
            return self
        return replace(self, opened_fills=self.opened_fills + 1, fill_begin_day=None)

    @property
    def has_dispensed(self) -> bool:
        """Whether anything was handed over."""
        return any(line.dispensed for line in self.lines)


@dataclass(frozen=True, slots=True)
class ClaimTerms:
    """A pharmacy's claim: who wants what. Empty ``lines`` means everything that is open now."""

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
class Ruling:
    """What two people of the home region found about an attempt whose pharmacy stays silent."""

    attempt_id: str
    fence: int
    handed_over: bool
    cause_sha256: bytes


@dataclass(frozen=True, slots=True)
class Change:
    """The outcome of a transition: the new state, and the attempts that are new or different.

    ``mark_took_effect`` tells that a mark for revocation revoked what was left.
    """

    prescription: Prescription
    attempts: tuple[Attempt, ...] = ()
    mark_took_effect: bool = False

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
            PRESCRIPTION_USED_UP, LINE_UNKNOWN, QUANTITY_EXCEEDED, FILL_TOO_EARLY or
            DOSES_INCOMPLETE.
    """
    expired = expire_lease(prescription, now=now)
    current = expired.prescription
    if current.live_attempt is not None:
        return Change(current, (*expired.attempts, _held_by(current.live_attempt, terms)))
    _require_claimable(current, now)
    current = current.with_fills_of(now)
    lines = terms.lines or _everything_open(current)
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
    claimed = _move(current, lines, lambda line, n: _reserved(current, line, n))
    _require_whole_doses(current, lines)
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
    again with the same settlement and lines changes nothing. A patient who pays alone has no
    settlement here; there the commitment itself must be the same one.

    Raises:
        Refusal: ATTEMPT_NOT_FOUND, FENCE_STALE, ATTEMPT_ENDED, ATTEMPT_ALREADY_COMMITTED,
            LINE_UNKNOWN, QUANTITY_EXCEEDED, DOSES_INCOMPLETE, or FIELD_INVALID if it names nothing.
    """
    _require_reference(attempt, reference)
    if attempt.state is AttemptState.COMMITTED:
        alone_again = not settlement_id and attempt.cause_sha256 != reference.cause_sha256
        if alone_again or (attempt.settlement_id, attempt.lines) != (settlement_id, lines):
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
    _require_whole_doses(prescription, lines)
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
    handover_time: datetime | None = None,
) -> Change:
    """Book what was handed over: exactly what was committed.

    A fill of a repeat prescription begins with the handover, so the next one is counted from there
    however late the record arrives. Nobody hands over before the commit or after now.

    Args:
        prescription: as it stands.
        attempt: the committed attempt.
        reference: how the pharmacy names it.
        lines: what was handed over.
        now: the home region's time.
        handover_time: when the pharmacy says it was; None counts as the time of the commit.

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
    _require_committed_lines(attempt, lines)
    commit_time = attempt.update_time
    handed_over = min(max(handover_time or commit_time, commit_time), now)
    booked = _booked(prescription, attempt, handed_over)
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


def adjudicate(
    prescription: Prescription,
    attempt: Attempt,
    ruling: Ruling,
    *,
    now: datetime,
    overdue: timedelta,
) -> Change:
    """End a committed attempt by the decision of two people, once it is overdue.

    What was handed over is what was committed: nobody can find more, or less.

    Raises:
        Refusal: ATTEMPT_NOT_FOUND, FENCE_STALE, ATTEMPT_ENDED, ATTEMPT_NOT_COMMITTED or
            ATTEMPT_NOT_OVERDUE.
    """
    _require_named(attempt, ruling.attempt_id, ruling.fence)
    ended_so = AttemptState.DISPENSED if ruling.handed_over else AttemptState.RELEASED
    if (attempt.state, attempt.cause_sha256) == (ended_so, ruling.cause_sha256):
        return Change(prescription, (attempt,))
    _require_live(attempt, now)
    if attempt.state is AttemptState.RESERVED:
        raise Refusal(
            Reason.ATTEMPT_NOT_COMMITTED, "the attempt is not committed; its lease will end it"
        )
    _require_overdue(attempt, now, overdue)
    if ruling.handed_over:
        after = _booked(prescription, attempt, attempt.update_time)
    else:
        after = _give_back(prescription, attempt)
    return _ended(after, attempt, ended_so, ruling.cause_sha256, now)


def require_as_found(
    attempt: Attempt, reference: AttemptReference, lines: tuple[LineQuantity, ...]
) -> None:
    """A record that comes after people found the handover says what they found: what was committed.

    It is kept as evidence and moves nothing.

    Raises:
        Refusal: ATTEMPT_NOT_FOUND, FENCE_STALE or DISPENSE_MISMATCH.
    """
    _require_reference(attempt, reference)
    _require_committed_lines(attempt, lines)


def take_back(
    prescription: Prescription,
    attempt: Attempt,
    returning: tuple[LineQuantity, ...],
    before: Mapping[int, int],
    cause: Cause,
    *,
    now: datetime,
    wanted_back: bool = False,
) -> tuple[Change, bool]:
    """Book what came back of a dispense, and whether it is available again.

    It is if the cause says so, the prescription is valid now and its issuer never wanted it back
    (``wanted_back``): a revocation that came too late must not be undone by the medicine that it
    brought back. Nothing comes back before its handover is booked. ``before`` is what earlier
    returns took back of this attempt, by line.

    Raises:
        Refusal: EARLIER_FACT_MISSING while the attempt is live, ATTEMPT_ENDED if nothing was handed
            over for it, LINE_UNKNOWN, RETURN_EXCEEDED, or DOSES_INCOMPLETE if it could be filled
            again and is not in whole doses.
    """
    if attempt.state.is_live:
        raise Refusal(
            Reason.EARLIER_FACT_MISSING, "the handover is not booked yet; its record is on its way"
        )
    if attempt.state is not AttemptState.DISPENSED:
        raise Refusal(
            Reason.ATTEMPT_ENDED,
            f"the attempt is {attempt.state}: nothing was handed over that could come back",
            state=attempt.state,
        )
    require_returnable(attempt.lines, before, returning)
    if cause.re_entitles:
        _require_whole_doses(prescription, returning)
    valid = prescription.validity_at(now) is Validity.ACTIVE
    again = cause.re_entitles and valid and not wanted_back
    after = _move(prescription, returning, _returned) if again else prescription
    return Change(_touched(after, now)), again


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


def _everything_open(prescription: Prescription) -> tuple[LineQuantity, ...]:
    if not prescription.available:
        raise Refusal(
            Reason.PRESCRIPTION_USED_UP, "everything on this prescription has been dispensed"
        )
    lines = prescription.open_lines
    if not lines:
        raise _too_early(prescription, prescription.available[0].line_id)
    return lines


def require_whole_doses(
    plan: Plan, authorised: Iterable[LineQuantity], lines: Iterable[LineQuantity]
) -> None:
    """A formula leaves, and comes back to be filled again, by whole doses of all its herbs.

    Raises:
        Refusal: DOSES_INCOMPLETE.
    """
    herb = plan.line_out_of_dose(authorised, lines)
    if herb is not None:
        raise Refusal(
            Reason.DOSES_INCOMPLETE,
            "a herbal formula goes by whole doses, the same number of every herb;"
            f" one dose of line {herb.line_id} is {herb.quantity}",
            line_id=str(herb.line_id),
        )


def _require_whole_doses(prescription: Prescription, lines: Iterable[LineQuantity]) -> None:
    authorised = [LineQuantity(line.line_id, line.authorised) for line in prescription.lines]
    require_whole_doses(prescription.plan, authorised, lines)


def _begun(prescription: Prescription, handover_time: datetime) -> Prescription:
    """The present fill has begun once more is out than the fills before it opened."""
    plan = prescription.plan
    if plan.fill_count == 1 or prescription.fill_begin_day is not None:
        return prescription
    before = prescription.opened_fills - 1
    if all(
        line.dispensed - line.returned <= plan.opened(line.authorised, before)
        for line in prescription.lines
    ):
        return prescription  # a rest of earlier fills
    return replace(prescription, fill_begin_day=local_day(handover_time))


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
    _require_named(attempt, reference.attempt_id, reference.fence)


def _require_named(attempt: Attempt, attempt_id: str, fence: int) -> None:
    if attempt.attempt_id != attempt_id:
        raise unknown_attempt()
    if attempt.fence != fence:
        raise Refusal(Reason.FENCE_STALE, f"the attempt's fence is {attempt.fence}, not {fence}")


def _require_overdue(attempt: Attempt, now: datetime, overdue: timedelta) -> None:
    """A committed attempt was last touched when it was committed."""
    overdue_time = attempt.update_time + overdue
    if now < overdue_time:
        raise Refusal(
            Reason.ATTEMPT_NOT_OVERDUE,
            f"its pharmacy may still finish the attempt; decide after {overdue_time.isoformat()}",
            overdue_time=overdue_time.isoformat(),
        )


def _require_committed_lines(attempt: Attempt, lines: tuple[LineQuantity, ...]) -> None:
    if lines != attempt.lines:
        raise Refusal(
            Reason.DISPENSE_MISMATCH,
            "lines and quantities must be those of the commitment; if less was handed over,"
            " release the attempt and commit again",
            field="lines",
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


def _reserved(prescription: Prescription, line: LineUse, quantity: int) -> LineUse:
    if quantity > line.available:
        raise _too_much(LineQuantity(line.line_id, quantity), line.available)
    if quantity > prescription.open_of(line):
        raise _too_early(prescription, line.line_id)
    return replace(line, claimed=line.claimed + quantity)


def _returned(line: LineUse, quantity: int) -> LineUse:
    return replace(line, returned=line.returned + quantity)


def _booked(prescription: Prescription, attempt: Attempt, handover_time: datetime) -> Prescription:
    """The ledger with all that was committed handed over, and the fill that this begins."""
    booked = _move(
        prescription,
        attempt.lines,
        lambda line, n: replace(line, committed=line.committed - n, dispensed=line.dispensed + n),
    )
    return _begun(booked, handover_time)


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
    marked = free.validity is Validity.MARKED_FOR_REVOCATION
    if marked:
        free = replace(free, validity=Validity.REVOKED if free.available else Validity.ACTIVE)
    took_effect = marked and free.validity is Validity.REVOKED
    return Change(_touched(free, now), (ended,), took_effect)


def _touched(prescription: Prescription, now: datetime) -> Prescription:
    return replace(prescription, version=prescription.version + 1, update_time=now)


def _unknown_line(line_id: int, why: str) -> Refusal:
    return Refusal(Reason.LINE_UNKNOWN, f"line {line_id}: {why}", line_id=str(line_id))


def _too_early(prescription: Prescription, line_id: int) -> Refusal:
    day, days = prescription.next_fill_day, prescription.plan.fill_interval_days
    detail = {"open_day": day.isoformat()} if day else {}
    opens = f"opens on {day}" if day else f"opens {days} days after the present one was begun"
    return Refusal(
        Reason.FILL_TOO_EARLY,
        f"line {line_id}: no more is open now; the next fill of this repeat prescription {opens}",
        **detail,
        line_id=str(line_id),
    )


def _too_much(line: LineQuantity, available: int) -> Refusal:
    return Refusal(
        Reason.QUANTITY_EXCEEDED,
        f"line {line.line_id}: {line.quantity} wanted, at most {available} possible",
        line_id=str(line.line_id),
        available=str(available),
    )
