"""Every reachable state of a small exchange: nothing is handed over or paid twice.

The right protocol breaks no invariant in any state; each wrong one, made by wrapping the right
functions, is found out by the same search. A search that visits fewer states than its floor fails:
it would be looking at less than it says.

``SMALL_SCOPE=long`` adds larger scopes: minutes, and gigabytes of memory.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from rxoutflow_server.domain import prescription as transitions
from rxoutflow_server.domain.attempt import Attempt, AttemptState
from rxoutflow_server.domain.prescription import AttemptReference, Change
from rxoutflow_server.domain.settlement import Settlement, SettlementState
from support.small_world import (
    PHARMACIES,
    Home,
    Move,
    Payer,
    Scope,
    World,
    search,
    time_at,
)

GATE = [
    pytest.param(Scope(1, 3, ticks=3, valid_ticks=2), 27_000, id="1 pack, 3 attempts"),
    pytest.param(Scope(2, 2, ticks=3, valid_ticks=2), 49_000, id="2 packs, 2 attempts"),
    pytest.param(Scope(2, 3, ticks=1, valid_ticks=1), 270_000, id="2 packs, 3 attempts"),
    pytest.param(
        Scope(1, 3, ticks=1, valid_ticks=1, insured=True), 56_000, id="insured, 1 pack, 3 attempts"
    ),
    pytest.param(
        Scope(2, 2, ticks=1, valid_ticks=1, insured=True),
        140_000,
        id="insured, 2 packs, 2 attempts",
    ),
    pytest.param(
        Scope(2, 2, ticks=2, valid_ticks=3, fills=2), 10_700, id="2 fills, 2 attempts, 2 days"
    ),
    pytest.param(Scope(2, 3, ticks=1, valid_ticks=2, fills=2), 82_000, id="2 fills, 3 attempts"),
    pytest.param(
        Scope(1, 3, ticks=1, valid_ticks=1, returns=True), 8_900, id="returns, 3 attempts"
    ),
    pytest.param(Scope(2, 2, ticks=1, valid_ticks=1, returns=True), 26_400, id="2 packs, returns"),
    pytest.param(
        Scope(2, 1, ticks=1, valid_ticks=1, insured=True, returns=True),
        3_400,
        id="insured, 2 packs, returns",
    ),
    pytest.param(
        Scope(1, 2, ticks=1, valid_ticks=1, insured=True, returns=True),
        9_100,
        id="insured, 2 attempts, returns",
    ),
]
LONG = [
    pytest.param(
        Scope(2, 2, ticks=0, valid_ticks=1, insured=True, returns=True),
        375_000,
        id="insured, 2 packs, 2 attempts, returns",
    ),
    pytest.param(
        Scope(2, 3, ticks=2, valid_ticks=3, fills=2), 226_000, id="2 fills, 3 attempts, 2 days"
    ),
    pytest.param(Scope(2, 3, ticks=3, valid_ticks=2), 1_790_000, id="2 packs, 3 attempts, 3 ticks"),
    pytest.param(
        Scope(2, 2, ticks=3, valid_ticks=2, insured=True), 660_000, id="insured, 2 packs, 3 ticks"
    ),
]
SCOPES = GATE + LONG if os.environ.get("SMALL_SCOPE") == "long" else GATE


class LeaseOnly(World):
    """Pharmacies hand over what they reserved, without a commit."""

    checks_everything = False

    def may_hand_over(self, attempt: Attempt, slot: int, packs: int) -> tuple[int, int]:
        """The grant is enough for what was granted."""
        needs, unless = super().may_hand_over(attempt, slot, packs)
        return (0 if packs == attempt.lines[0].quantity else needs), unless


class ReusedAttemptId(World):
    """A pharmacy that claims again gets its old attempt id and fence again."""

    checks_everything = False

    def claim(self, home: Home, letter: str, lines: dict[int, int], clock: int) -> Change:
        """The real claim, under a name that may have been used before."""
        change = super().claim(home, letter, lines, clock)
        name = PHARMACIES.index(letter) + 1
        again = replace(change.attempt, attempt_id=f"attempt-{name}", fence=name)
        prescription = replace(change.prescription, live_attempt=again, fence=0)
        return Change(prescription, (*change.attempts[:-1], again))


class TimerAfterCommit(World):
    """The home region frees what was committed when its pharmacy stays silent."""

    checks_everything = False

    def lease_timer(self, home: Home, clock: int) -> Change:
        """A real release that nobody signed."""
        live = home.prescription.live_attempt
        if live is None or live.state is not AttemptState.COMMITTED:
            return super().lease_timer(home, clock)
        timer = AttemptReference(live.attempt_id, live.fence, live.pharmacy_code, b"timer")
        return transitions.release(home.prescription, live, timer, now=time_at(clock))


class ForgottenRelease(World):
    """Pharmacies that released take a late answer to their commit for good."""

    checks_everything = False

    def may_hand_over(self, attempt: Attempt, slot: int, packs: int) -> tuple[int, int]:
        """The answer is enough, whatever was released since."""
        needs, _ = super().may_hand_over(attempt, slot, packs)
        return needs, 0


class ImpatientPayer(World):
    """The payer sets old holds free without asking the home region."""

    def payments(self, home: int, number: int) -> Iterator[Move]:
        """The real ones, and a timer that voids."""
        yield from super().payments(home, number)
        yield from self.voids_by_timer(number)


class EagerFills(World):
    """The home region lets pharmacies claim fills before their day."""

    checks_everything = False

    def claim(self, home: Home, letter: str, lines: dict[int, int], clock: int) -> Change:
        """The real claim, of a prescription whose fills are all open."""
        eager = replace(home.prescription, opened_fills=self.scope.fills, fill_begin_day=None)
        return super().claim(replace(home, prescription=eager), letter, lines, clock)


class DroppingPayer(World):
    """The payer takes note of a return that comes before the money is paid, and forgets it."""

    def reversal(
        self, payer: Payer, settlement: Settlement, slot: int, packs: int, nth: int
    ) -> Iterator[Move]:
        """The real one, but nothing is told again."""
        if settlement.state is SettlementState.HELD:
            yield self.decided(payer, payer, settlement, slot, packs, nth)
        yield from super().reversal(payer, settlement, slot, packs, nth)


class ForgetfulPayer(World):
    """The payer reverses a return again that it is told again."""

    def reversals(self, payer: Payer, slot: int, packs: int) -> Iterator[Move]:
        """All returns, also those that were decided."""
        for settlement in payer.settlements:
            if settlement.settlement_id == f"settlement-{slot + 1}-{packs}":
                for nth in range(1, packs + 1):
                    yield from self.reversal(payer, settlement, slot, packs, nth)


class ForgetfulHome(World):
    """The home region books a return again that it is told again."""

    checks_everything = False

    def already_booked(self, home: Home, name: str, nth: int) -> bool:
        """It keeps no list."""
        return False


WRONG = [
    pytest.param(LeaseOnly, "I1", False, id="lease only"),
    pytest.param(ReusedAttemptId, "I1", False, id="re-used attempt id"),
    pytest.param(TimerAfterCommit, "I1", False, id="timer after commit"),
    pytest.param(ForgottenRelease, "I1", False, id="forgotten release"),
    pytest.param(ImpatientPayer, "I3", True, id="hold voided by a timer"),
]


@pytest.mark.parametrize(("scope", "floor"), SCOPES)
@pytest.mark.timeout(3_600 if SCOPES is not GATE else 120)
def test_no_reachable_state_breaks_an_invariant(
    scope: Scope, floor: int, capsys: pytest.CaptureFixture[str]
) -> None:
    found = search(World(scope))
    with capsys.disabled():
        sys.stdout.write(f"\n{scope}: {found}\n")
    assert found.violation is None, "\n".join((str(found.violation), *found.story))
    assert found.states >= floor


@pytest.mark.parametrize(("wrong", "invariant", "insured"), WRONG)
def test_the_search_finds_out_a_wrong_protocol(
    wrong: type[World], invariant: str, insured: bool
) -> None:
    found = search(wrong(Scope(1, 2, ticks=2, valid_ticks=2, insured=insured)))
    assert found.violation is not None
    assert found.violation.invariant == invariant
    assert any("HANDED OVER" in step for step in found.story)


def test_the_search_finds_out_fills_that_open_before_their_day() -> None:
    found = search(EagerFills(Scope(2, 2, ticks=1, valid_ticks=2, fills=2)))
    assert found.violation is not None
    assert found.violation.invariant == "I1"
    assert "time passes" not in found.story


@pytest.mark.parametrize(
    ("wrong", "invariant"),
    [
        pytest.param(DroppingPayer, "I6", id="reversal before settlement dropped"),
        pytest.param(ForgetfulPayer, "I6", id="reversed twice"),
        pytest.param(ForgetfulHome, "I1", id="return booked twice"),
    ],
)
def test_the_search_finds_out_wrong_returns(wrong: type[World], invariant: str) -> None:
    scope = Scope(2, 2, ticks=0, valid_ticks=1, insured=invariant == "I6", returns=True)
    found = search(wrong(scope))
    assert found.violation is not None
    assert found.violation.invariant == invariant
    assert any("TAKEN BACK" in step for step in found.story)


@pytest.mark.parametrize("insured", [False, True])
def test_the_same_scope_of_the_right_protocol_has_nothing_to_find(insured: bool) -> None:
    assert search(World(Scope(1, 2, ticks=2, valid_ticks=2, insured=insured))).violation is None
