"""What holds for every settlement and every sequence of returns of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rxoutflow_server.domain.attempt import LineQuantity
from rxoutflow_server.domain.benefit import LineShare
from rxoutflow_server.domain.errors import Reason, Refusal
from rxoutflow_server.domain.reversal import restored, reverse
from rxoutflow_server.domain.settlement import (
    Amounts,
    InsuredPerson,
    SettledLine,
    Settlement,
    SettlementState,
    consume,
)
from support.invariants import check_amounts, check_not_overdrawn, check_reversed
from support.settlements import HELD, NOW, PERSON

# Small amounts on purpose: rounding shows most where fen are few.
fen = st.one_of(st.integers(0, 30), st.integers(0, 300_000))
RICH = replace(PERSON, own_account_fen=10**9, family_accounts_fen=(10**9, 10**9))


@st.composite
def shares(draw: st.DrawFn) -> LineShare:
    """What a line took: the person's parts are what the person's sources paid."""
    own, excess, first, deductible, ratio, pool = (draw(fen) for _ in range(6))
    person = own + excess + first + deductible + ratio
    cuts = sorted(draw(st.lists(st.integers(0, person), min_size=3, max_size=3)))
    account, one, other, cash = [b - a for a, b in pairwise([0, *cuts, person])]
    return LineShare(
        amount_fen=person + pool,
        deductible_fen=deductible,
        pool_fen=pool,
        account_fen=account,
        family_accounts_fen=(one, other),
        cash_fen=cash,
        own_fen=own,
        excess_fen=excess,
        first_self_pay_fen=first,
    )


@dataclass(frozen=True)
class Story:
    """A settlement that was paid, and the returns that follow, each of one line."""

    posted: Settlement
    returns: list[LineQuantity]

    @property
    def is_whole(self) -> bool:
        """Whether everything came back."""
        back = {line.line_id: 0 for line in self.posted.lines}
        for each in self.returns:
            back[each.line_id] += each.quantity
        return all(back[line.line_id] == line.quantity for line in self.posted.lines)


@st.composite
def stories(draw: st.DrawFn) -> Story:
    """Any portions of any lines, in any order, often up to the last unit."""
    lines, returns = [], []
    for line_id, share in enumerate(draw(st.lists(shares(), min_size=1, max_size=4)), start=1):
        portions = draw(st.lists(st.integers(1, 12), min_size=1, max_size=5))
        lines.append(SettledLine(line_id, sum(portions), share))
        came = portions if draw(st.booleans()) else portions[: draw(st.integers(0, len(portions)))]
        returns += [LineQuantity(line_id, portion) for portion in came]
    posted = replace(
        HELD,
        state=SettlementState.POSTED,
        amounts=Amounts.of_lines([line.share for line in lines]),
        family_accounts_fen=tuple(
            sum(line.share.family_accounts_fen[index] for line in lines) for index in (0, 1)
        ),
        lines=tuple(lines),
    )
    return Story(posted, draw(st.permutations(returns)))


def told(story: Story) -> tuple[Settlement, InsuredPerson, list[Amounts]]:
    """All returns, one by one."""
    settlement, person = story.posted, consume(RICH, story.posted)
    back: list[Amounts] = []
    before: dict[int, int] = {}
    for each in story.returns:
        settlement, parts = reverse(settlement, before, [each], cause_sha256=b"", now=NOW)
        person = restored(person, settlement, parts)
        before[each.line_id] = before.get(each.line_id, 0) + each.quantity
        back.append(Amounts.of_lines(parts))
    return settlement, person, back


@given(stories())
def test_reversals_never_exceed_the_settlement_and_all_of_them_are_it(story: Story) -> None:
    settlement, _, back = told(story)
    check_reversed(story.posted.amounts, back, whole=story.is_whole)
    whole = settlement.state is SettlementState.REVERSED
    assert whole == (story.is_whole and bool(story.returns))


@given(stories())
def test_every_reversal_keeps_the_identities_of_a_settlement(story: Story) -> None:
    for each in told(story)[2]:
        check_amounts(each)


@given(stories())
def test_the_person_gets_back_exactly_what_reversals_say(story: Story) -> None:
    settlement, person, _ = told(story)
    paid, back = consume(RICH, story.posted), settlement.reversed
    assert person.own_account_fen == paid.own_account_fen + back.account_fen
    assert sum(person.family_accounts_fen) == sum(paid.family_accounts_fen) + back.family_fen
    assert person.used_deductible_fen == paid.used_deductible_fen - back.deductible_fen
    assert person.used_cap_fen == paid.used_cap_fen - back.pool_fen
    if story.is_whole:
        assert person == RICH
    check_not_overdrawn(person)


@given(stories())
def test_the_order_of_lines_does_not_matter_and_nothing_comes_back_twice(story: Story) -> None:
    by_line = sorted(story.returns, key=lambda each: each.line_id)
    assert told(replace(story, returns=by_line))[0].reversed == told(story)[0].reversed
    if story.is_whole and story.returns:
        before = {line.line_id: line.quantity for line in story.posted.lines}
        with pytest.raises(Refusal) as refused:
            reverse(told(story)[0], before, story.returns[:1], cause_sha256=b"", now=NOW)
        assert refused.value.reason is Reason.RETURN_EXCEEDED
