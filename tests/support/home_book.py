"""A home region on paper: one prescription, all its attempts, and the real transitions.

A ``Book`` applies transitions as the home region's commands do, keeps every attempt that came of
them, and checks the invariants after each. The clock is the caller's: ``book.now`` is a plain
attribute. Pharmacies are letters; each is in a region of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from rxoutflow_server.domain import prescription as transitions
from rxoutflow_server.domain.attempt import Attempt, LineQuantity
from rxoutflow_server.domain.plan import ONCE, Plan
from rxoutflow_server.domain.prescription import (
    AttemptReference,
    Change,
    ClaimTerms,
    LineUse,
    Prescription,
    RevocationOutcome,
    Ruling,
)
from support.invariants import check_home, check_step

START = datetime(2024, 5, 1, 8, tzinfo=UTC)
LEASE = timedelta(minutes=30)
VALID_FOR = timedelta(days=3)
END = START + VALID_FOR
MICROSECOND = timedelta(microseconds=1)

CLAIM, COMMITMENT, RECORD, RELEASE = b"claim", b"commitment", b"record", b"release"
ADJUDICATION = b"adjudication"
OVERDUE = timedelta(hours=48)


def new_prescription(
    *authorised: int, expire_time: datetime = END, plan: Plan = ONCE
) -> Prescription:
    """A prescription with lines 1, 2, … of these quantities, valid from START."""
    return Prescription(
        number="350500000000000017",
        issuer_code="H35050000001",
        hospital_prescription_number="RX-1",
        payer_region_code="350200",
        insured_person_id="3502000001",
        issue_time=START,
        expire_time=expire_time,
        register_time=START,
        update_time=START,
        statement_sha256=b"statement",
        pickup_hash=b"hash",
        lines=tuple(LineUse(line_id, each) for line_id, each in enumerate(authorised, start=1)),
        plan=plan,
    )


def quantities(wanted: Mapping[int, int]) -> tuple[LineQuantity, ...]:
    """Quantities by line."""
    return tuple(LineQuantity(line_id, quantity) for line_id, quantity in wanted.items())


def pharmacy_code(letter: str) -> str:
    """The code of a pharmacy."""
    return f"P{region_code(letter)}00001"


def region_code(letter: str) -> str:
    """The region of a pharmacy."""
    return f"35{ord(letter):02}00"


def claim_terms(
    letter: str, wanted: Mapping[int, int] | None = None, cause: bytes = CLAIM
) -> ClaimTerms:
    """A claim of a pharmacy; of everything, unless it says what is wanted."""
    return ClaimTerms(pharmacy_code(letter), region_code(letter), quantities(wanted or {}), cause)


@dataclass(slots=True)
class Book:
    """The home region's records of one prescription."""

    prescription: Prescription
    now: datetime = START
    lease: timedelta = LEASE
    attempts: dict[str, Attempt] = field(default_factory=dict)

    @property
    def newest(self) -> Attempt:
        """The attempt that was made last."""
        return max(self.attempts.values(), key=lambda attempt: attempt.fence)

    def reference(
        self, letter: str, cause: bytes, attempt: Attempt | None = None
    ) -> AttemptReference:
        """How a pharmacy names an attempt, the newest unless told."""
        named = attempt or self.newest
        return AttemptReference(named.attempt_id, named.fence, pharmacy_code(letter), cause)

    def claim(
        self, letter: str, wanted: Mapping[int, int] | None = None, cause: bytes = CLAIM
    ) -> Change:
        """A pharmacy claims."""
        return self._keep(
            transitions.claim(
                self.prescription,
                claim_terms(letter, wanted, cause),
                attempt_id=f"attempt-{len(self.attempts) + 1}",
                now=self.now,
                lease=self.lease,
            )
        )

    def commit(
        self,
        letter: str,
        wanted: Mapping[int, int] | None = None,
        *,
        attempt: Attempt | None = None,
        settlement_id: str = "settlement",
        cause: bytes = COMMITMENT,
    ) -> Change:
        """A pharmacy commits an attempt; all that it holds, unless it says what."""
        named = attempt or self.newest
        lines = named.lines if wanted is None else quantities(wanted)
        return self._keep(
            transitions.commit(
                self.prescription,
                named,
                self.reference(letter, cause, named),
                lines,
                settlement_id=settlement_id,
                now=self.now,
            )
        )

    def dispense(
        self,
        letter: str,
        wanted: Mapping[int, int] | None = None,
        *,
        attempt: Attempt | None = None,
        cause: bytes = RECORD,
        handover_time: datetime | None = None,
    ) -> Change:
        """A pharmacy's record arrives; of all that its attempt holds, unless it says what."""
        named = attempt or self.newest
        lines = named.lines if wanted is None else quantities(wanted)
        return self._keep(
            transitions.dispense(
                self.prescription,
                named,
                self.reference(letter, cause, named),
                lines,
                now=self.now,
                handover_time=handover_time,
            )
        )

    def release(
        self, letter: str, *, attempt: Attempt | None = None, cause: bytes = RELEASE
    ) -> Change:
        """A pharmacy lets go."""
        named = attempt or self.newest
        return self._keep(
            transitions.release(
                self.prescription, named, self.reference(letter, cause, named), now=self.now
            )
        )

    def adjudicate(
        self,
        *,
        handed_over: bool,
        attempt: Attempt | None = None,
        cause: bytes = ADJUDICATION,
        overdue: timedelta = OVERDUE,
        fence: int | None = None,
    ) -> Change:
        """Two people of the home region decide."""
        named = attempt or self.newest
        ruling = Ruling(named.attempt_id, fence or named.fence, handed_over, cause)
        return self._keep(
            transitions.adjudicate(self.prescription, named, ruling, now=self.now, overdue=overdue)
        )

    def expire_lease(self) -> Change:
        """The home region's timer."""
        return self._keep(transitions.expire_lease(self.prescription, now=self.now), signed=False)

    def revoke(self) -> RevocationOutcome:
        """The hospital wants it back. No pharmacy signs that, so it may end leases only."""
        change, outcome = transitions.revoke(self.prescription, now=self.now)
        self._keep(change, signed=False)
        return outcome

    def _keep(self, change: Change, *, signed: bool = True) -> Change:
        after = {**self.attempts, **{each.attempt_id: each for each in change.attempts}}
        check_step(self.attempts, after, signed=signed)
        check_home(change.prescription, after.values())
        self.prescription, self.attempts = change.prescription, after
        return change
