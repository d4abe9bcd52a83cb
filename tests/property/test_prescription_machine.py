"""Random lives of a prescription and of an insured person's money, checked after every step.

Pharmacies here may name any attempt that ever was, at any time, in any order: late, twice, or not
theirs. Whatever they try is answered or refused, and the invariants hold either way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from fractions import Fraction

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
)

from rxoutflow_server.domain.attempt import Attempt, AttemptState
from rxoutflow_server.domain.benefit import Case, Category, Line, benefit
from rxoutflow_server.domain.errors import Reason, Refusal
from rxoutflow_server.domain.local_time import local_day
from rxoutflow_server.domain.plan import ONCE, Plan
from rxoutflow_server.domain.prescription import Change, Validity
from rxoutflow_server.domain.settlement import (
    Amounts,
    InsuredPerson,
    Settlement,
    SettlementState,
    consume,
    give_back,
    post,
    void,
)
from rxoutflow_server.domain.tariff import (
    AnnualDeductible,
    ByAreaStatus,
    ByPerson,
    ByTier,
    Tariff,
)
from support.home_book import (
    END,
    LEASE,
    MICROSECOND,
    OVERDUE,
    START,
    VALID_FOR,
    Book,
    new_prescription,
)
from support.invariants import (
    check_amounts,
    check_handed_over,
    check_home,
    check_not_overdrawn,
    check_nothing_lost,
    check_settled_once,
)
from support.settlements import HELD, PERSON, YEAR

TO_MIDNIGHT = timedelta(hours=8)
"""From START, 16 o'clock at home, to the end of the local day."""

letters = st.sampled_from("ABC")
wanted = st.none() | st.dictionaries(st.integers(1, 3), st.integers(1, 4), min_size=1, max_size=3)
plans = st.sampled_from(
    [ONCE, ONCE, Plan(2, 1), Plan(3, 2), Plan(dose_count=2), Plan(2, 1, dose_count=3)]
)
pauses = st.sampled_from(
    [MICROSECOND, LEASE / 2, LEASE - MICROSECOND, LEASE, TO_MIDNIGHT, VALID_FOR / 2, VALID_FOR]
)
CLAIM_REFUSALS = {
    Reason.PRESCRIPTION_HELD,
    Reason.PRESCRIPTION_REVOKED,
    Reason.PRESCRIPTION_EXPIRED,
    Reason.PRESCRIPTION_USED_UP,
    Reason.LINE_UNKNOWN,
    Reason.QUANTITY_EXCEEDED,
    Reason.FILL_TOO_EARLY,
    Reason.DOSES_INCOMPLETE,
}
STEP_REFUSALS = {
    Reason.ATTEMPT_NOT_FOUND,
    Reason.ATTEMPT_ENDED,
    Reason.ATTEMPT_NOT_COMMITTED,
    Reason.ATTEMPT_ALREADY_COMMITTED,
    Reason.FENCE_STALE,
    Reason.LINE_UNKNOWN,
    Reason.QUANTITY_EXCEEDED,
    Reason.DOSES_INCOMPLETE,
    Reason.DISPENSE_MISMATCH,
}


class HomeMachine(RuleBasedStateMachine):
    """I1, I2 and I3 of one prescription, several pharmacies and one clock."""

    @initialize(shares=st.lists(st.integers(0, 3), min_size=1, max_size=2), plan=plans)
    def register(self, shares: list[int], plan: Plan) -> None:
        """What the rules let pass: something of every line in every fill, and whole doses."""
        least, of = (1, plan.dose_count) if plan.dose_count else (plan.fill_count, 1)
        authorised = [(least + share) * of for share in shares]
        end = END if plan.fill_count == 1 else START + 3 * VALID_FOR
        self.book = Book(new_prescription(*authorised, expire_time=end, plan=plan))
        self.handed_over: Counter[str] = Counter()
        self.first_day: date | None = None

    @rule(letter=letters, wanted=wanted)
    def claim(self, letter: str, wanted: dict[int, int] | None) -> None:
        self._answered(lambda: self.book.claim(letter, wanted), CLAIM_REFUSALS)

    @precondition(lambda self: self.book.attempts)
    @rule(letter=letters, wanted=wanted, data=st.data(), settlement_id=st.sampled_from("st"))
    def commit(
        self, letter: str, wanted: dict[int, int] | None, data: st.DataObject, settlement_id: str
    ) -> None:
        attempt = self._any(data)
        committed = self._answered(
            lambda: self.book.commit(letter, wanted, attempt=attempt, settlement_id=settlement_id),
            STEP_REFUSALS,
        )
        assert not committed or _letter(attempt) == letter

    @precondition(lambda self: self._own(AttemptState.RESERVED))
    @rule()
    def commit_own(self) -> None:
        live = self._own(AttemptState.RESERVED)
        if live is not None and not live.lease_is_over(self.book.now):
            self.book.commit(_letter(live))

    @precondition(lambda self: self._own(AttemptState.COMMITTED))
    @rule()
    def hand_over_and_record(self) -> None:
        """What was handed over after a commit can always be booked, however late."""
        live = self._own(AttemptState.COMMITTED)
        if live is not None:
            self._hand_over(live, local_day(self.book.now))
            cause = live.attempt_id.encode()
            self.book.dispense(_letter(live), cause=cause, handover_time=self.book.now)

    @precondition(lambda self: self.book.attempts)
    @rule(letter=letters, wanted=wanted, data=st.data(), cause=st.sampled_from([b"r", b"s"]))
    def record(
        self, letter: str, wanted: dict[int, int] | None, data: st.DataObject, cause: bytes
    ) -> None:
        """A record of whatever kind; if it is booked, its attempt was committed with just that."""
        attempt = self._any(data)
        before, committed = attempt.state, local_day(attempt.update_time)
        booked = self._answered(
            lambda: self.book.dispense(letter, wanted, attempt=attempt, cause=cause),
            STEP_REFUSALS,
        )
        if booked:
            assert _letter(attempt) == letter
            assert before in (AttemptState.COMMITTED, AttemptState.DISPENSED)
            self._hand_over(attempt, committed)

    @precondition(lambda self: self.book.attempts)
    @rule(letter=letters, data=st.data(), cause=st.sampled_from([b"r", b"s"]))
    def release(self, letter: str, data: st.DataObject, cause: bytes) -> None:
        attempt = self._any(data)
        released = self._answered(
            lambda: self.book.release(letter, attempt=attempt, cause=cause), STEP_REFUSALS
        )
        assert not released or _letter(attempt) == letter

    @precondition(lambda self: self.book.attempts)
    @rule(handed_over=st.booleans(), data=st.data(), cause=st.sampled_from([b"j", b"k"]))
    def adjudicate(self, handed_over: bool, data: st.DataObject, cause: bytes) -> None:
        """Two people decide; it ends a commitment that is overdue, and nothing else."""
        attempt = self._any(data)
        before, committed = attempt, attempt.update_time
        ended = self._answered(
            lambda: self.book.adjudicate(handed_over=handed_over, attempt=attempt, cause=cause),
            STEP_REFUSALS | {Reason.ATTEMPT_NOT_OVERDUE},
        )
        again = self.book.attempts[attempt.attempt_id] == before
        if ended and not again:
            assert before.state is AttemptState.COMMITTED
            assert self.book.now >= committed + OVERDUE
            if handed_over:
                self._hand_over(attempt, local_day(committed))

    @rule()
    def lease_timer(self) -> None:
        self.book.expire_lease()
        live = self.book.prescription.live_attempt
        assert live is None or not live.lease_is_over(self.book.now)

    @rule()
    def revoke(self) -> None:
        self.book.revoke()
        live = self.book.prescription.live_attempt
        if self.book.prescription.validity is Validity.ACTIVE:
            assert live is None, "a revocation that changes nothing leaves no holder"

    @rule(pause=pauses)
    def wait(self, pause: timedelta) -> None:
        self.book.now += pause

    @invariant()
    def the_home_invariants_hold(self) -> None:
        check_home(self.book.prescription, self.book.attempts.values())

    @invariant()
    def no_more_is_handed_over_than_was_authorised(self) -> None:
        authorised = sum(line.authorised for line in self.book.prescription.lines)
        check_handed_over(authorised, sum(self.handed_over.values()))

    @invariant()
    def no_more_is_handed_over_than_the_fills_open_by_today(self) -> None:
        prescription, today = self.book.prescription, local_day(self.book.now)
        plan, fills = prescription.plan, 1
        if self.first_day is not None and plan.fill_interval_days:
            fills += (today - self.first_day).days // plan.fill_interval_days
        opened = sum(plan.opened(line.authorised, fills) for line in prescription.lines)
        check_handed_over(opened, sum(self.handed_over.values()))

    @invariant()
    def herbs_are_held_and_handed_over_in_whole_doses(self) -> None:
        prescription = self.book.prescription
        count = prescription.plan.dose_count
        for term in ("claimed", "committed", "dispensed") if count else ():
            doses = {
                Fraction(getattr(line, term) * count, line.authorised)
                for line in prescription.lines
            }
            assert len(doses) == 1, f"{term}: not the same of every herb"
            assert doses.pop().denominator == 1, f"{term}: part of a dose"

    def _hand_over(self, attempt: Attempt, day: date) -> None:
        self.handed_over[attempt.attempt_id] = sum(line.quantity for line in attempt.lines)
        self.first_day = min(day, self.first_day or day)

    def _own(self, state: AttemptState) -> Attempt | None:
        live = self.book.prescription.live_attempt
        return live if live is not None and live.state is state else None

    def _any(self, data: st.DataObject) -> Attempt:
        return data.draw(st.sampled_from(list(self.book.attempts.values())))

    def _answered(self, step: Callable[[], Change], refusals: set[Reason]) -> bool:
        """Whether it was carried out; a refusal is one of those that the step documents."""
        try:
            step()
        except Refusal as refusal:
            if refusal.reason not in refusals:
                raise
            return False
        return True


def _letter(attempt: Attempt) -> str:
    return chr(int(attempt.dispensing_region_code[2:4]))


TARIFF = Tariff(
    version_id="350200-2024",
    region_code="350200",
    document="none: for tests",
    unverified=True,
    valid_from=date(YEAR, 1, 1),
    valid_until=None,
    deductible=AnnualDeductible(ByPerson(active=3_000, retired=3_000)),
    ratio_bp=ByTier(7_000, 6_500, 6_000),
    retired_bonus_bp=500,
    cap_fen=ByPerson(active=9_000, retired=9_000),
    area_factor_bp=ByAreaStatus(unfiled=9_000),
)
bills = st.lists(
    st.builds(
        Line,
        quantity=st.integers(1, 30),
        unit_price_micro_yuan=st.integers(0, 2_000_000),
        category=st.sampled_from(Category),
        first_self_pay_bp=st.sampled_from([0, 1_000, 3_333]),
    ),
    min_size=1,
    max_size=3,
).map(tuple)
balances = st.integers(0, 5_000)


class PayerMachine(RuleBasedStateMachine):
    """I4 and I5 of one insured person: holds, payments, returns, and years that end."""

    held: Bundle[str] = Bundle("held")
    posted: Bundle[str] = Bundle("posted")

    @initialize(own=balances, family=st.lists(balances, max_size=2).map(tuple))
    def insure(self, own: int, family: tuple[int, ...]) -> None:
        self.opening: InsuredPerson = replace(
            PERSON,
            own_account_fen=own,
            family_accounts_fen=family,
            used_deductible_fen=0,
            used_cap_fen=0,
        )
        self.person = self.opening
        self.settlements: dict[str, Settlement] = {}

    @rule(target=held, lines=bills, tier=st.integers(1, 3))
    def hold(self, lines: tuple[Line, ...], tier: int) -> str:
        case = Case(lines, self.person.standing(tier, away=True), self.person.funding)
        computed = benefit(TARIFF, case)
        settlement = replace(
            HELD,
            settlement_id=f"settlement-{len(self.settlements) + 1}",
            amounts=Amounts.of(computed),
            family_accounts_fen=computed.family_accounts_fen,
            year=self.person.year,
        )
        self.person = consume(self.person, settlement)
        self._keep(settlement)
        return settlement.settlement_id

    @rule(target=posted, settlement_id=consumes(held))
    def post(self, settlement_id: str) -> str:
        before = self.settlements[settlement_id]
        self._keep(post(before, cause_sha256=b"record", now=before.create_time))
        return settlement_id

    @rule(settlement_id=consumes(held))
    def void(self, settlement_id: str) -> None:
        before = self.settlements[settlement_id]
        self.person = give_back(self.person, before)
        self._keep(void(before, cause_sha256=b"attempt ended", now=before.create_time))

    @rule(settlement_id=posted)
    def post_again(self, settlement_id: str) -> None:
        before = self.settlements[settlement_id]
        assert post(before, cause_sha256=b"again", now=before.create_time) is before

    @rule(settlement_id=consumes(posted))
    def reverse(self, settlement_id: str) -> None:
        """A whole return, as ``give_back`` promises it."""
        before = self.settlements[settlement_id]
        self.person = give_back(self.person, before)
        self._keep(replace(before, state=SettlementState.REVERSED))

    @precondition(lambda self: self.settlements)
    @rule()
    def next_year(self) -> None:
        """The year ends, whatever is held or posted in it."""
        year = self.person.year + 1
        self.person, self.opening = self.person.in_year(year), self.opening.in_year(year)

    @invariant()
    def every_fen_is_on_an_account_or_set_aside_or_paid(self) -> None:
        check_nothing_lost(self.opening, self.person, self.settlements.values())

    @invariant()
    def nothing_is_overdrawn_and_the_cap_is_kept(self) -> None:
        check_not_overdrawn(self.person)
        assert self.person.used_cap_fen <= TARIFF.cap_fen.active
        assert self.person.used_deductible_fen <= 3_000

    def _keep(self, settlement: Settlement) -> None:
        check_amounts(settlement.amounts)
        before = self.settlements.get(settlement.settlement_id)
        check_settled_once(before.state if before else None, settlement.state)
        self.settlements[settlement.settlement_id] = settlement


HomeMachine.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
PayerMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
TestHomeMachine = HomeMachine.TestCase
TestPayerMachine = PayerMachine.TestCase
