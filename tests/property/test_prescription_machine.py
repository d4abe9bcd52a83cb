"""Random lives of a prescription and of an insured person's money, checked after every step.

Pharmacies here may name any attempt that ever was, at any time, in any order: late, twice, or not
theirs. Whatever they try is answered or refused, and the invariants hold either way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta

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
from support.home_book import LEASE, MICROSECOND, VALID_FOR, Book, new_prescription
from support.invariants import (
    check_amounts,
    check_handed_over,
    check_home,
    check_not_overdrawn,
    check_nothing_lost,
    check_settled_once,
)
from support.settlements import HELD, PERSON, YEAR

letters = st.sampled_from("ABC")
wanted = st.none() | st.dictionaries(st.integers(1, 3), st.integers(1, 4), min_size=1, max_size=3)
pauses = st.sampled_from(
    [MICROSECOND, LEASE / 2, LEASE - MICROSECOND, LEASE, VALID_FOR / 2, VALID_FOR]
)
CLAIM_REFUSALS = {
    Reason.PRESCRIPTION_HELD,
    Reason.PRESCRIPTION_REVOKED,
    Reason.PRESCRIPTION_EXPIRED,
    Reason.PRESCRIPTION_USED_UP,
    Reason.LINE_UNKNOWN,
    Reason.QUANTITY_EXCEEDED,
}
STEP_REFUSALS = {
    Reason.ATTEMPT_NOT_FOUND,
    Reason.ATTEMPT_ENDED,
    Reason.ATTEMPT_NOT_COMMITTED,
    Reason.ATTEMPT_ALREADY_COMMITTED,
    Reason.FENCE_STALE,
    Reason.LINE_UNKNOWN,
    Reason.QUANTITY_EXCEEDED,
    Reason.DISPENSE_MISMATCH,
}


class HomeMachine(RuleBasedStateMachine):
    """I1, I2 and I3 of one prescription, several pharmacies and one clock."""

    @initialize(authorised=st.lists(st.integers(1, 4), min_size=1, max_size=2))
    def register(self, authorised: list[int]) -> None:
        self.book = Book(new_prescription(*authorised))
        self.handed_over: Counter[str] = Counter()

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
            self.handed_over[live.attempt_id] = sum(line.quantity for line in live.lines)
            self.book.dispense(_letter(live), cause=live.attempt_id.encode())

    @precondition(lambda self: self.book.attempts)
    @rule(letter=letters, wanted=wanted, data=st.data(), cause=st.sampled_from([b"r", b"s"]))
    def record(
        self, letter: str, wanted: dict[int, int] | None, data: st.DataObject, cause: bytes
    ) -> None:
        """A record of whatever kind; if it is booked, its attempt was committed with just that."""
        attempt = self._any(data)
        before = attempt.state
        booked = self._answered(
            lambda: self.book.dispense(letter, wanted, attempt=attempt, cause=cause),
            STEP_REFUSALS,
        )
        if booked:
            assert _letter(attempt) == letter
            assert before in (AttemptState.COMMITTED, AttemptState.DISPENSED)
            self.handed_over[attempt.attempt_id] = sum(line.quantity for line in attempt.lines)

    @precondition(lambda self: self.book.attempts)
    @rule(letter=letters, data=st.data(), cause=st.sampled_from([b"r", b"s"]))
    def release(self, letter: str, data: st.DataObject, cause: bytes) -> None:
        attempt = self._any(data)
        released = self._answered(
            lambda: self.book.release(letter, attempt=attempt, cause=cause), STEP_REFUSALS
        )
        assert not released or _letter(attempt) == letter

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
