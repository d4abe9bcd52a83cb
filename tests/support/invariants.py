"""What must never happen, as code: every layer of tests asks the same questions.

Each function takes plain domain objects, from whatever store or model they come, and raises
``Violation`` with the number of the invariant that does not hold:

    I1 entitlement       I2 one live attempt, fences only rise      I3 no timer after commit
    I4 settle once       I5 money

They recompute what they check from the attempts and settlements themselves, and take no ledger's
word for it. They change nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rxoutflow_server.domain.attempt import Attempt, AttemptState
from rxoutflow_server.domain.prescription import LineUse, Prescription
from rxoutflow_server.domain.settlement import (
    Amounts,
    InsuredPerson,
    Settlement,
    SettlementState,
)

_FINAL = (AttemptState.DISPENSED, AttemptState.RELEASED, AttemptState.EXPIRED)
_CONSUMING = (SettlementState.HELD, SettlementState.POSTED)
_STEPS = {
    SettlementState.HELD: (SettlementState.POSTED, SettlementState.VOIDED),
    SettlementState.POSTED: (SettlementState.REVERSED,),
    SettlementState.VOIDED: (),
    SettlementState.REVERSED: (),
}


class Violation(AssertionError):
    """An invariant does not hold."""

    def __init__(self, invariant: str, what: str) -> None:
        super().__init__(f"{invariant}: {what}")
        self.invariant = invariant


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
    _hold("I2", live == expected, f"{len(live)} live attempts, {len(expected)} known as such")
    fences = [attempt.fence for attempt in attempts]
    _hold("I2", len(set(fences)) == len(fences), "a fence was used twice")
    _hold("I2", max(fences, default=0) == prescription.fence, "the fence is not the newest one")
    ids = {attempt.attempt_id for attempt in attempts}
    _hold("I2", len(ids) == len(fences), "an attempt id was used twice")


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
            _hold("I2", attempt.fence > newest, "the fence of a new attempt did not rise")
        elif earlier != attempt:
            _hold("I2", earlier.fence == attempt.fence, "the fence of an attempt changed")
            _hold("I2", earlier.state not in _FINAL, f"an attempt moved that was {earlier.state}")
            _check_mover(earlier, attempt, signed=signed)
    _hold("I2", before.keys() <= after.keys(), "an attempt vanished")


def check_handed_over(authorised: int, handed_over: int) -> None:
    """I1, at the counter: what patients carried home is what was authorised, or less."""
    what = f"{handed_over} were handed over of {authorised} that were authorised"
    _hold("I1", 0 <= handed_over <= authorised, what)


def check_settled_once(before: SettlementState | None, after: SettlementState) -> None:
    """I4: a settlement begins held, is posted or voided but never both, and nothing after that."""
    known = after in _STEPS[before] if before is not None else after is SettlementState.HELD
    _hold("I4", before is after or known, f"a settlement that was {before} became {after}")


def check_amounts(amounts: Amounts) -> None:
    """I5: the identities of a settlement's figures."""
    figures = [getattr(amounts, name) for name in Amounts.__slots__]
    _hold("I5", all(type(fen) is int and fen >= 0 for fen in figures), "a figure below zero")
    outside = amounts.own_fen + amounts.excess_fen + amounts.first_self_pay_fen
    covered = amounts.deductible_fen + amounts.pool_fen + amounts.ratio_self_fen
    paid = amounts.account_fen + amounts.family_fen + amounts.cash_fen
    _hold("I5", amounts.total_fen == outside + amounts.inscope_fen, "total is not its four parts")
    _hold("I5", amounts.inscope_fen == covered, "inscope is not deductible, pool, self-pay")
    _hold("I5", amounts.total_fen == amounts.pool_fen + amounts.person_fen, "total, pool, person")
    _hold("I5", amounts.person_fen == paid, "person is not account, family and cash")


def check_nothing_lost(
    opening: InsuredPerson, person: InsuredPerson, settlements: Iterable[Settlement]
) -> None:
    """I5: every fen of an opening balance is still there, set aside, or paid.

    ``opening`` is the person before any of the settlements, in the same benefit year.
    """
    spent = [each for each in settlements if each.state in _CONSUMING]
    account = sum(each.amounts.account_fen for each in spent)
    _balance("own account", opening.own_account_fen, person.own_account_fen + account)
    for index, balance in enumerate(opening.family_accounts_fen):
        drawn = sum(each.family_accounts_fen[index] for each in spent)
        _balance(f"family account {index}", balance, person.family_accounts_fen[index] + drawn)
    this_year = [each for each in spent if each.year == person.year]
    deductible = sum(each.amounts.deductible_fen for each in this_year)
    _balance("deductible", opening.used_deductible_fen + deductible, person.used_deductible_fen)
    pool = sum(each.amounts.pool_fen for each in this_year)
    _balance("cap", opening.used_cap_fen + pool, person.used_cap_fen)


def check_not_overdrawn(person: InsuredPerson) -> None:
    """I5: no account and no accumulator of a person is below zero."""
    balances = (
        person.own_account_fen,
        *person.family_accounts_fen,
        person.used_deductible_fen,
        person.used_cap_fen,
    )
    _hold("I5", min(balances) >= 0, "a person's balance is below zero")


def _check_line(line: LineUse, attempts: list[Attempt]) -> None:
    claimed = _sum(line, attempts, AttemptState.RESERVED)
    committed = _sum(line, attempts, AttemptState.COMMITTED)
    dispensed = _sum(line, attempts, AttemptState.DISPENSED)
    terms = (line.authorised, line.claimed, line.committed, line.dispensed, line.returned)
    _hold("I1", min(terms) >= 0, f"line {line.line_id} has a quantity below zero")
    held = claimed + committed + dispensed - line.returned
    _hold("I1", held <= line.authorised, f"line {line.line_id} holds {held} of {line.authorised}")
    _hold(
        "I1",
        (line.claimed, line.committed, line.dispensed) == (claimed, committed, dispensed),
        f"line {line.line_id}: its ledger is not what its attempts hold",
    )
    rest = line.authorised - held
    _hold("I1", line.available == rest, f"line {line.line_id}: {line.available} is not {rest}")


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
    _hold("I3", before.state is AttemptState.RESERVED, f"a timer moved what was {before.state}")
    _hold("I3", after.state is AttemptState.EXPIRED, f"a timer made it {after.state}")


def _balance(name: str, expected: int, found: int) -> None:
    _hold("I5", expected == found, f"{name}: {expected} fen expected, {found} found")


def _hold(invariant: str, holds: bool, what: str) -> None:
    if not holds:
        raise Violation(invariant, what)
