"""I1 entitlement, I2 one live attempt with rising fences, I3 no timer after commit.

What the home region alone decides: a prescription with all attempts that were ever made on it. The
checks recompute the ledger from the attempts and take its word for nothing but what was authorised
and what came back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rxoutflow_server.domain.attempt import Attempt, AttemptState
from rxoutflow_server.domain.prescription import LineUse, Prescription
from support.invariants.violation import hold

_FINAL = (AttemptState.DISPENSED, AttemptState.RELEASED, AttemptState.EXPIRED)


def check_home(prescription: Prescription, attempts: Iterable[Attempt]) -> None:
    """I1 and I2 of one prescription with all attempts that were ever made on it."""
    attempts = list(attempts)
    check_entitlement(prescription, attempts)
    check_one_live_attempt(prescription, attempts)


def check_entitlement(prescription: Prescription, attempts: Iterable[Attempt]) -> None:
    """I1: the ledger says what the attempts hold, and they never hold more than authorised."""
    attempts = list(attempts)
    for line in prescription.lines:
        _check_line(line, attempts)


def check_one_live_attempt(prescription: Prescription, attempts: Iterable[Attempt]) -> None:
    """I2, of a state: one attempt at most is live, and no id or fence was used twice."""
    attempts = list(attempts)
    live = [attempt for attempt in attempts if attempt.state.is_live]
    expected = [] if prescription.live_attempt is None else [prescription.live_attempt]
    hold("I2", live == expected, f"{len(live)} live attempts, {len(expected)} known as such")
    fences = [attempt.fence for attempt in attempts]
    hold("I2", len(set(fences)) == len(fences), "a fence was used twice")
    hold("I2", max(fences, default=0) == prescription.fence, "the fence is not the newest one")
    ids = {attempt.attempt_id for attempt in attempts}
    hold("I2", len(ids) == len(fences), "an attempt id was used twice")


def check_step(
    before: Mapping[str, Attempt], after: Mapping[str, Attempt], *, signed: bool
) -> None:
    """I2 and I3, of a step: attempts by id, before and after.

    ``signed`` tells whether a pharmacy's signature or an adjudication moved it; without one it was
    a timer, and timers end reserved attempts only.
    """
    newest = max((attempt.fence for attempt in before.values()), default=0)
    for attempt_id, attempt in after.items():
        earlier = before.get(attempt_id)
        if earlier is None:
            hold("I2", attempt.fence > newest, "the fence of a new attempt did not rise")
        elif earlier != attempt:
            hold("I2", earlier.fence == attempt.fence, "the fence of an attempt changed")
            hold("I2", earlier.state not in _FINAL, f"an attempt moved that was {earlier.state}")
            _check_mover(earlier, attempt, signed=signed)
    hold("I2", before.keys() <= after.keys(), "an attempt vanished")


def check_handed_over(authorised: int, handed_over: int) -> None:
    """I1, at the counter: what patients carried home is what was authorised, or less."""
    what = f"{handed_over} were handed over of {authorised} that were authorised"
    hold("I1", 0 <= handed_over <= authorised, what)


def _check_line(line: LineUse, attempts: list[Attempt]) -> None:
    claimed = _sum(line, attempts, AttemptState.RESERVED)
    committed = _sum(line, attempts, AttemptState.COMMITTED)
    dispensed = _sum(line, attempts, AttemptState.DISPENSED)
    terms = (line.authorised, line.claimed, line.committed, line.dispensed, line.returned)
    hold("I1", min(terms) >= 0, f"line {line.line_id} has a quantity below zero")
    held = claimed + committed + dispensed - line.returned
    hold("I1", held <= line.authorised, f"line {line.line_id} holds {held} of {line.authorised}")
    hold(
        "I1",
        (line.claimed, line.committed, line.dispensed) == (claimed, committed, dispensed),
        f"line {line.line_id}: its ledger is not what its attempts hold",
    )
    rest = line.authorised - held
    hold("I1", line.available == rest, f"line {line.line_id}: {line.available} is not {rest}")


def _sum(line: LineUse, attempts: list[Attempt], state: AttemptState) -> int:
    return sum(
        held.quantity
        for attempt in attempts
        if attempt.state is state
        for held in attempt.lines
        if held.line_id == line.line_id
    )


def _check_mover(before: Attempt, after: Attempt, *, signed: bool) -> None:
    if signed and after.state is not AttemptState.EXPIRED:
        return
    hold("I3", before.state is AttemptState.RESERVED, f"a timer moved what was {before.state}")
    hold("I3", after.state is AttemptState.EXPIRED, f"a timer made it {after.state}")
