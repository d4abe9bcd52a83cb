"""Whatever happens to settlements: debits are credits, and balances are their entries."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rxoutflow_server.domain import accounts
from rxoutflow_server.domain import settlement as transitions
from rxoutflow_server.domain.accounts import AccountEntry, OpeningBalances, balances, differences
from rxoutflow_server.domain.attempt import LineQuantity
from rxoutflow_server.domain.benefit import LineShare
from rxoutflow_server.domain.errors import InvariantBroken
from rxoutflow_server.domain.reversal import restored, reverse
from rxoutflow_server.domain.settlement import (
    Amounts,
    SettledLine,
    Settlement,
    SettlementState,
)
from support.invariants import check_entries
from support.settlements import HELD, NOW, PERSON

RICH = replace(PERSON, own_account_fen=10**9, family_accounts_fen=(10**9, 10**9))
REGIONS = ("350100", "350200")
fen = st.one_of(st.integers(0, 30), st.integers(0, 300_000))


@st.composite
def shares(draw: st.DrawFn) -> LineShare:
    """What a line took, often nothing of some sources."""
    person, pool = draw(fen), draw(fen)
    cuts = sorted(draw(st.lists(st.integers(0, person), min_size=3, max_size=3)))
    account, one, other, cash = [b - a for a, b in pairwise([0, *cuts, person])]
    return LineShare(
        amount_fen=person + pool,
        deductible_fen=0,
        pool_fen=pool,
        account_fen=account,
        family_accounts_fen=(one, other),
        cash_fen=cash,
        own_fen=person,
    )


@dataclass
class Payer:
    """The payer's records of one person: the row, the settlements and the entries."""

    person: transitions.InsuredPerson = RICH
    settlements: dict[str, Settlement] = field(default_factory=dict)
    entries: list[AccountEntry] = field(default_factory=list)
    returned: dict[tuple[str, int], int] = field(default_factory=dict)

    def hold(self, taken: list[SettledLine], region: str) -> None:
        name = f"settlement-{len(self.settlements)}"
        lines = tuple(taken)
        family = [sum(line.share.family_accounts_fen[i] for line in lines) for i in (0, 1)]
        held = replace(
            HELD,
            settlement_id=name,
            dispensing_region_code=region,
            amounts=Amounts.of_lines([line.share for line in lines]),
            family_accounts_fen=tuple(family),
            lines=lines,
        )
        self.settlements[name] = held
        self.person = transitions.consume(self.person, held)
        self.entries += accounts.held(held)

    def post(self, name: str) -> None:
        posted = transitions.post(self.settlements[name], cause_sha256=b"", now=NOW)
        self.settlements[name] = posted
        self.entries += accounts.posted(posted)

    def void(self, name: str) -> None:
        self.person = transitions.give_back(self.person, self.settlements[name])
        voided = transitions.void(self.settlements[name], cause_sha256=b"", now=NOW)
        self.settlements[name] = voided
        self.entries += accounts.voided(voided)

    def reverse(self, name: str, line: SettledLine, quantity: int) -> None:
        paid = self.settlements[name]
        before = {each.line_id: self.returned.get((name, each.line_id), 0) for each in paid.lines}
        back = [LineQuantity(line.line_id, quantity)]
        after, parts = reverse(paid, before, back, cause_sha256=b"", now=NOW)
        self.person = restored(self.person, paid, parts)
        self.settlements[name] = after
        self.returned[name, line.line_id] = before[line.line_id] + quantity
        reversal_id = f"R{name}-{line.line_id}-{before[line.line_id]}"
        self.entries += accounts.reversed_by(paid, reversal_id, parts, NOW)


def live(payer: Payer, data: st.DataObject) -> None:
    """One thing that can happen now."""
    held = [n for n, s in payer.settlements.items() if s.state is SettlementState.HELD]
    paid = [
        (name, line, line.quantity - payer.returned.get((name, line.line_id), 0))
        for name, each in payer.settlements.items()
        if each.state is SettlementState.POSTED
        for line in each.lines
    ]
    open_lines = [each for each in paid if each[2]]
    choices = ["hold", *["post", "void"] * bool(held), *["reverse"] * 2 * bool(open_lines)]
    kind = data.draw(st.sampled_from(choices))
    if kind == "hold":
        drawn = data.draw(st.lists(shares(), min_size=1, max_size=3))
        lines = [SettledLine(i, data.draw(st.integers(1, 9)), each) for i, each in enumerate(drawn)]
        payer.hold(lines, data.draw(st.sampled_from(REGIONS)))
    elif kind == "reverse":
        name, line, left = data.draw(st.sampled_from(open_lines))
        payer.reverse(name, line, data.draw(st.integers(1, left)))
    else:
        name = data.draw(st.sampled_from(held))
        payer.post(name) if kind == "post" else payer.void(name)


OPENING = OpeningBalances(RICH.own_account_fen, RICH.family_accounts_fen)


@given(st.data(), st.integers(1, 15))
def test_after_any_history_entries_balance_and_are_the_person_s_balances(
    data: st.DataObject, steps: int
) -> None:
    payer = Payer()
    for _ in range(steps):
        live(payer, data)
        found = differences(payer.person, payer.settlements.values(), OPENING, payer.entries)
        assert found == ()
    check_entries(tuple(payer.entries))
    before, after = balances(OPENING, []), balances(OPENING, payer.entries)
    assert sum(after.values()) == sum(before.values())
    keys = [replace(each, fen=1, time=NOW) for each in payer.entries]
    assert len(set(keys)) == len(keys), "no movement is written twice"


@given(st.data(), st.integers(1, 10))
def test_a_forgotten_repeated_or_altered_entry_shows(data: st.DataObject, steps: int) -> None:
    payer = Payer()
    for _ in range(steps):
        live(payer, data)
    if not payer.entries:
        return
    index = data.draw(st.integers(0, len(payer.entries) - 1))
    entry = payer.entries[index]
    others = payer.entries[:index] + payer.entries[index + 1 :]
    for wrong in ([], [entry, entry], [replace(entry, fen=entry.fen + 1)]):
        settlements = payer.settlements.values()
        assert differences(payer.person, settlements, OPENING, [*others, *wrong])


def test_a_balance_that_somebody_changed_by_hand_shows() -> None:
    richer = replace(RICH, own_account_fen=RICH.own_account_fen + 1)
    (found,) = differences(richer, [], OPENING, [])
    assert (found.account, found.found_fen - found.expected_fen) == ("own", 1)


@pytest.mark.parametrize(
    "wrong", [{"fen": 0}, {"fen": -1}, {"credit_account": "own"}, {"reversal_id": "R1"}], ids=str
)
def test_an_entry_that_moves_nothing_cannot_be_made(wrong: dict[str, object]) -> None:
    entry = accounts.held(HELD)[0]
    with pytest.raises(InvariantBroken):
        replace(entry, **wrong)  # type: ignore[arg-type] # any field, by name


@pytest.mark.parametrize(
    ("since", "drawn"), [(timedelta(0), 500), (timedelta(microseconds=1), 0)], ids=str
)
def test_what_was_drawn_counts_from_the_moment_of_the_hold(since: timedelta, drawn: int) -> None:
    assert accounts.drawn_since(accounts.held(HELD), 1, HELD.create_time + since) == drawn
    given_back = (*accounts.held(HELD), *accounts.voided(HELD))
    assert accounts.drawn_since(given_back, 1, HELD.create_time + since) == 0
