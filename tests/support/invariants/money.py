"""I4 settle once, I5 money, I6 reversal, I13 accumulators: what the payer region alone decides.

Sums are taken from the settlements and the signed statements themselves. I13 does not ask the
benefit formula: it replays holds and voids in an order in which they can have happened, keeps the
person's year like a cash book, and wants each figure to be what that book allowed at that moment.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from rxoutflow.v1 import attempt_pb2, dispense_pb2, settlement_pb2
from rxoutflow_server.application.messages import amounts as amounts_of
from rxoutflow_server.application.messages import instant
from rxoutflow_server.domain.benefit import SchemeShare
from rxoutflow_server.domain.ledger import Book, Entry, Movement
from rxoutflow_server.domain.settlement import (
    NOTHING,
    Amounts,
    InsuredPerson,
    Settlement,
    SettlementState,
)
from rxoutflow_server.domain.tariff import PersonType, Tariff
from support.invariants.records import RegionRecords
from support.invariants.violation import Violation, hold

_CONSUMING = (SettlementState.HELD, SettlementState.POSTED)
_PAID = (SettlementState.POSTED, SettlementState.REVERSED)
_STEPS = {
    SettlementState.HELD: (SettlementState.POSTED, SettlementState.VOIDED),
    SettlementState.POSTED: (SettlementState.REVERSED,),
    SettlementState.VOIDED: (),
    SettlementState.REVERSED: (),
}
_WHOLE_BP = 10_000

Tier = Callable[[Settlement], int]
"""The tier of the hospital that issued what a settlement pays for."""


# --- I4 settle once ---------------------------------------------------------------------------


def check_settled_once(before: SettlementState | None, after: SettlementState) -> None:
    """I4: a settlement begins held, is posted or voided but never both, and nothing after that."""
    known = after in _STEPS[before] if before is not None else after is SettlementState.HELD
    hold("I4", before is after or known, f"a settlement that was {before} became {after}")


def check_stated_once(payer: RegionRecords) -> None:
    """I4, of what a payer signed: per settlement one posting or one void, and one of each reversal.

    A statement that was kept is never forgotten, so what was done twice shows here for ever. Who
    asks again hears the same content signed anew, which is no second time.
    """
    ended: Counter[tuple[str, str]] = Counter()
    contents = {
        each.SerializeToString(deterministic=True): each
        for each in payer.stated(settlement_pb2.Settlement)
    }
    for settlement in contents.values():
        if settlement.payer_region_code == payer.code:
            state = settlement_pb2.Settlement.State.Name(settlement.state)
            ended[settlement.settlement_id, state] += 1
    for (settlement_id, state), times in ended.items():
        once = times == 1 or (state == "STATE_POSTED" and _was_reversed(payer, settlement_id))
        hold("I4", once, f"settlement {settlement_id} became {state} {times} times")
        both = state == "STATE_POSTED" and (settlement_id, "STATE_VOIDED") in ended
        hold("I4", not both, f"settlement {settlement_id} was posted and voided")
    for reversal_id, times in _reversals(payer).items():
        hold("I4", times == 1, f"reversal {reversal_id} was made {times} times")


def check_one_payment(payer: RegionRecords) -> None:
    """I4: one attempt is paid by one settlement; no second one holds or pays for it."""
    held = Counter(each.attempt_id for each in payer.settlements if each.state in _CONSUMING)
    for attempt_id, times in held.items():
        hold("I4", times == 1, f"{times} settlements hold or pay for attempt {attempt_id}")


def check_ended(settlements: Iterable[Settlement], live_attempts: Iterable[str]) -> None:
    """I4, when nothing is under way: money is held for live attempts only."""
    live = set(live_attempts)
    for settlement in settlements:
        ended = settlement.state is not SettlementState.HELD or settlement.attempt_id in live
        what = f"settlement {settlement.settlement_id} is still held, its attempt has ended"
        hold("I4", ended, what)


# --- I5 money ---------------------------------------------------------------------------------


def check_amounts(amounts: Amounts) -> None:
    """I5: the identities of a settlement's figures."""
    figures = [getattr(amounts, name) for name in Amounts.__slots__]
    hold("I5", all(type(fen) is int and fen >= 0 for fen in figures), "a figure below zero")
    outside = amounts.own_fen + amounts.excess_fen + amounts.first_self_pay_fen
    covered = amounts.deductible_fen + amounts.pool_fen + amounts.ratio_self_fen
    paid = amounts.account_fen + amounts.family_fen + amounts.cash_fen
    hold("I5", amounts.total_fen == outside + amounts.inscope_fen, "total is not its four parts")
    hold("I5", amounts.inscope_fen == covered, "inscope is not deductible, pool, self-pay")
    hold("I5", amounts.total_fen == amounts.pool_fen + amounts.person_fen, "total, pool, person")
    hold("I5", amounts.person_fen == paid, "person is not account, family and cash")


def check_nothing_lost(
    opening: InsuredPerson,
    person: InsuredPerson,
    settlements: Iterable[Settlement],
    reversed_by: Mapping[str, Amounts] | None = None,
) -> None:
    """I5: every fen of an opening balance is still there, set aside, or paid.

    ``opening`` is the person before any of the settlements, in the same benefit year.
    ``reversed_by`` is what reversals gave back of a settlement; without it the settlements say so
    themselves. Deductible and cap are those of ordinary care, so a settlement that falls to schemes
    must not be reversed in part.
    """
    spent = [_Left.of(each, reversed_by) for each in settlements if each.state in _CONSUMING]
    account = sum(each.amounts.account_fen - each.back.account_fen for each in spent)
    _balance("own account", opening.own_account_fen, person.own_account_fen + account)
    drawn = sum(sum(each.family) - each.back.family_fen for each in spent)
    granted = sum(opening.family_accounts_fen)
    _balance("family accounts", granted, sum(person.family_accounts_fen) + drawn)
    if not any(each.back.family_fen for each in spent):
        for index, balance in enumerate(opening.family_accounts_fen):
            part = sum(each.family[index] for each in spent)
            _balance(f"family account {index}", balance, person.family_accounts_fen[index] + part)
    this_year = [each for each in spent if each.year == person.year]
    deductible = sum(each.ordinary("deductible_fen") for each in this_year)
    _balance("deductible", opening.used_deductible_fen + deductible, person.used_deductible_fen)
    pool = sum(each.ordinary("pool_fen") for each in this_year)
    _balance("cap", opening.used_cap_fen + pool, person.used_cap_fen)


def check_not_overdrawn(person: InsuredPerson) -> None:
    """I5: no account and no accumulator of a person is below zero."""
    balances = (
        person.own_account_fen,
        *person.family_accounts_fen,
        person.used_deductible_fen,
        person.used_cap_fen,
    )
    hold("I5", min(balances) >= 0, "a person's balance is below zero")


def check_paid_on_evidence(payer: RegionRecords) -> None:
    """I5: what was paid was handed over: the pharmacy's record says so, and home has booked it."""
    records = dict(payer.stated_with_digests(dispense_pb2.DispenseRecord))
    booked = {
        (each.settlement_id, each.cause_sha256)
        for each in payer.stated(attempt_pb2.Attempt)
        if each.state == attempt_pb2.Attempt.STATE_DISPENSED
    }
    decided = {
        each.attempt_id
        for each in payer.stated(attempt_pb2.Adjudication)
        if each.finding == attempt_pb2.Adjudication.FINDING_HANDED_OVER
    }
    for each in payer.settlements:
        if each.state not in _PAID or each.attempt_id in decided:
            continue
        record = records.get(each.record_sha256)
        recorded = record is not None and record.settlement_id == each.settlement_id
        what = f"settlement {each.settlement_id} was paid"
        hold("I5", recorded, f"{what} without a record of the handover")
        hold(
            "I5", (each.settlement_id, each.record_sha256) in booked, f"{what}, home had not booked"
        )


def check_books(records: RegionRecords) -> None:
    """I5: what a payer posted it owes, entry by entry, with the figures that it signed."""
    owed = {
        entry.settlement_id: entry
        for book, _, entry in records.entries
        if book is Book.PAYABLE and entry.movement is Movement.POSTING
    }
    posted = {each.settlement_id: each for each in records.settlements if each.state in _PAID}
    what = "the payable book is not the list of posted settlements"
    hold("I5", owed.keys() == posted.keys(), what)
    for settlement_id, entry in owed.items():
        amounts = posted[settlement_id].amounts
        figures = (entry.total_fen, entry.pool_fen, entry.account_fen, entry.family_fen)
        stated = (amounts.total_fen, amounts.pool_fen, amounts.account_fen, amounts.family_fen)
        hold("I5", figures == stated, f"settlement {settlement_id} is booked with other figures")


def check_nothing_in_flight(regions: Mapping[str, RegionRecords]) -> None:
    """I5, when nothing is under way: what one region owes another, the other one claims."""
    for payer in regions.values():
        for other in regions.values():
            owed = _owed(payer, Book.PAYABLE, other.code)
            claimed = _owed(other, Book.RECEIVABLE, payer.code)
            what = f"{payer.code} owes {other.code} {owed} fen, which claims {claimed}"
            hold("I5", owed == claimed, what)


# --- I6 reversal ------------------------------------------------------------------------------


def check_reversed(posted: Amounts, reversals: Iterable[Amounts], *, whole: bool = False) -> None:
    """I6: reversals take no source below zero; if everything came back, they leave nothing."""
    reversals = list(reversals)
    for name in Amounts.__slots__:
        taken = sum(getattr(each, name) for each in reversals)
        given = getattr(posted, name)
        hold("I6", taken <= given, f"{name}: {taken} fen were reversed of {given}")
        hold("I6", taken == given or not whole, f"{name}: {taken} of {given} fen are reversed")
    for each in reversals:
        hold("I6", min(getattr(each, name) for name in Amounts.__slots__) >= 0, "below zero")


def check_returned(handed_over: Mapping[int, int], returns: Iterable[Mapping[int, int]]) -> None:
    """I6, of the goods: of no line comes more back than was handed over. By line id."""
    back: Counter[int] = Counter()
    for each in returns:
        back.update(each)
    for line_id, quantity in back.items():
        given = handed_over.get(line_id, 0)
        hold("I6", quantity <= given, f"line {line_id}: {quantity} came back of {given}")


def check_reversals(regions: Mapping[str, RegionRecords], *, quiescent: bool) -> None:
    """I6, of what regions signed: returns within the handover, reversals within the settlement.

    When nothing is under way, every return that was accepted for an insured handover is reversed
    by the payer exactly once; a reversal without a return is never right.
    """
    returns = {
        each.reversal_id: each
        for records in regions.values()
        for each in records.stated(dispense_pb2.DispenseReturn)
    }
    _check_goods_back(regions, returns.values())
    for payer in regions.values():
        _check_money_back(payer, returns)
    if quiescent:
        _check_all_reversed(regions, returns)


# --- I13 accumulators -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Year:
    """What a person has used of a year, and what the accounts hold."""

    deductible: int
    cap: int
    account: int
    family: int

    def after(self, amounts: Amounts, sign: int) -> _Year:
        """After taking, or with -1 after giving back."""
        return _Year(
            self.deductible + sign * amounts.deductible_fen,
            self.cap + sign * amounts.pool_fen,
            self.account - sign * amounts.account_fen,
            self.family - sign * amounts.family_fen,
        )


@dataclass(frozen=True, slots=True)
class _Event:
    """At a moment a settlement took its amounts, or they came back; ``taken`` is None for that."""

    time: datetime
    amounts: Amounts
    taken: Settlement | None = None


def check_accumulators(
    opening: InsuredPerson,
    settlements: Iterable[Settlement],
    tariff: Tariff,
    tier: Tier,
    reversals: Iterable[settlement_pb2.Reversal] = (),
) -> None:
    """I13: the fund paid within the cap, the deductible was taken once, in some serial order.

    ``opening`` is the person before any of the settlements; all of them are of one benefit year and
    under one tariff. Each hold must have taken exactly what was left when its turn came. What came
    about in the same moment may have come in any order.
    """
    mine = [each for each in settlements if each.insured_person_id == opening.insured_person_id]
    back = [(each, amounts_of(each.amounts)) for each in reversals]
    paid = opening.used_cap_fen - sum(amounts.pool_fen for _, amounts in back)
    paid += sum(each.amounts.pool_fen for each in mine if each.state is not SettlementState.VOIDED)
    cap = max(tariff.cap_fen.of(opening.person_type), opening.used_cap_fen)
    hold("I13", paid <= cap, f"the fund paid {paid} fen of a cap of {cap}")
    events = [_Event(each.create_time, each.amounts, each) for each in mine]
    events += [
        _Event(each.update_time, each.amounts)
        for each in mine
        if each.state is SettlementState.VOIDED
    ]
    events += [_Event(instant(each.reverse_time), amounts) for each, amounts in back]
    _Replay(opening, tariff, tier).require_some_order(sorted(events, key=lambda each: each.time))


class _Replay:
    """Looks for an order of events in which every hold is what the book then allowed."""

    def __init__(self, opening: InsuredPerson, tariff: Tariff, tier: Tier) -> None:
        self._person = opening
        self._tariff = tariff
        self._tier = tier
        self._stuck = ""

    def require_some_order(self, events: list[_Event]) -> None:
        person = self._person
        year = _Year(
            person.used_deductible_fen,
            person.used_cap_fen,
            person.own_account_fen,
            sum(person.family_accounts_fen),
        )
        if not self._ordered(year, events):
            raise Violation("I13", f"no serial order gives these settlements: {self._stuck}")

    def _ordered(self, year: _Year, events: list[_Event]) -> bool:
        if not events:
            return True
        together = [index for index, each in enumerate(events) if each.time == events[0].time]
        return any(
            self._ordered(
                year.after(events[index].amounts, -1 if events[index].taken is None else 1),
                events[:index] + events[index + 1 :],
            )
            for index in together
            if self._was_its_turn(year, events[index])
        )

    def _was_its_turn(self, year: _Year, event: _Event) -> bool:
        if event.taken is None:
            return True
        wrong = self._wrong(year, event.taken)
        self._stuck = wrong or self._stuck
        return not wrong

    def _wrong(self, year: _Year, settlement: Settlement) -> str:
        """The first figure that is not what was left for it."""
        amounts, tier, person_type = settlement.amounts, self._tier(settlement), self._person_type
        left = self._tariff.deductible.left_fen(person_type, tier, year.deductible)
        cap_left = max(0, self._tariff.cap_fen.of(person_type) - year.cap)
        unpaid = amounts.person_fen - amounts.account_fen
        expected = {
            "deductible": (min(amounts.inscope_fen, left), amounts.deductible_fen),
            "pool": (min(self._share(settlement, tier), cap_left), amounts.pool_fen),
            "account": (min(year.account, amounts.person_fen), amounts.account_fen),
            "family": (min(year.family, unpaid), amounts.family_fen),
        }
        for name, (right, found) in expected.items():
            if right != found:
                return f"{settlement.settlement_id} took {name} {found} fen where {right} was right"
        return ""

    @property
    def _person_type(self) -> PersonType:
        return self._person.person_type

    def _share(self, settlement: Settlement, tier: int) -> int:
        """The fund's share without a cap, half up to the fen."""
        away = settlement.dispensing_region_code != self._tariff.region_code
        factor = self._tariff.area_factor_bp.of(self._person.area_status if away else None)
        ratio = self._tariff.ratio_for(self._person_type, tier)
        base = settlement.amounts.inscope_fen - settlement.amounts.deductible_fen
        whole = _WHOLE_BP * _WHOLE_BP
        return (2 * base * ratio * factor + whole) // (2 * whole)


# --- what they share --------------------------------------------------------------------------


def reversed_amounts(payer: RegionRecords) -> dict[str, Amounts]:
    """What reversals gave back, all together, by settlement."""
    sums: dict[str, Amounts] = {}
    for reversal in own_reversals(payer):
        back = amounts_of(reversal.amounts)
        before = sums.get(reversal.settlement_id)
        sums[reversal.settlement_id] = back if before is None else _plus(before, back)
    return sums


def _plus(one: Amounts, other: Amounts) -> Amounts:
    return Amounts(
        **{name: getattr(one, name) + getattr(other, name) for name in Amounts.__slots__}
    )


@dataclass(frozen=True, slots=True)
class _Left:
    """What a settlement took, and what came back of it."""

    year: int
    amounts: Amounts
    back: Amounts
    family: tuple[int, ...]
    schemes: tuple[SchemeShare, ...]

    @classmethod
    def of(cls, settlement: Settlement, reversed_by: Mapping[str, Amounts] | None) -> _Left:
        """By what is said to be reversed, or else by its own word."""
        if reversed_by is None:
            back = settlement.reversed
        else:
            back = reversed_by.get(settlement.settlement_id, NOTHING)
        family, schemes = settlement.family_accounts_fen, settlement.schemes
        return cls(settlement.year, settlement.amounts, back, family, schemes)

    def ordinary(self, name: str) -> int:
        """What is left of a figure, without what falls to schemes."""
        shares = sum(int(getattr(each, name)) for each in self.schemes)
        return int(getattr(self.amounts, name)) - int(getattr(self.back, name)) - shares


def _owed(records: RegionRecords, wanted: Book, counterpart: str) -> int:
    entries: list[Entry] = [
        entry for book, about, entry in records.entries if (book, about) == (wanted, counterpart)
    ]
    return sum(entry.owed_fen for entry in entries)


def own_reversals(payer: RegionRecords) -> list[settlement_pb2.Reversal]:
    """What a payer signed of reversals."""
    stated = payer.stated(settlement_pb2.Reversal)
    return [each for each in stated if each.payer_region_code == payer.code]


def _reversals(payer: RegionRecords) -> Counter[str]:
    return Counter(each.reversal_id for each in own_reversals(payer))


def _was_reversed(payer: RegionRecords, settlement_id: str) -> bool:
    """A settlement that was reversed in part is stated as posted again, with what came back."""
    return any(each.settlement_id == settlement_id for each in own_reversals(payer))


def _check_goods_back(
    regions: Mapping[str, RegionRecords], returns: Iterable[dispense_pb2.DispenseReturn]
) -> None:
    handed_over = {
        record.attempt_id: {line.line_id: line.quantity for line in record.lines}
        for records in regions.values()
        for record in records.stated(dispense_pb2.DispenseRecord)
    }
    back: dict[str, list[dict[int, int]]] = {}
    for each in returns:
        quantities: Counter[int] = Counter()
        for line in each.lines:
            quantities[line.line_id] += line.quantity
        back.setdefault(each.attempt_id, []).append(dict(quantities))
    for attempt_id, quantities_back in back.items():
        check_returned(handed_over.get(attempt_id, {}), quantities_back)


def _check_money_back(
    payer: RegionRecords, returns: Mapping[str, dispense_pb2.DispenseReturn]
) -> None:
    by_settlement: dict[str, list[Amounts]] = {}
    for reversal in own_reversals(payer):
        asked = returns.get(reversal.reversal_id)
        known = asked is not None and asked.settlement_id == reversal.settlement_id
        hold("I6", known, f"reversal {reversal.reversal_id} is of no return")
        by_settlement.setdefault(reversal.settlement_id, []).append(amounts_of(reversal.amounts))
    for settlement in payer.settlements:
        amounts = by_settlement.get(settlement.settlement_id, [])
        whole = settlement.state is SettlementState.REVERSED
        check_reversed(settlement.amounts, amounts, whole=whole)
        same = settlement.reversed == functools.reduce(_plus, amounts, NOTHING)
        what = f"settlement {settlement.settlement_id} is not reversed by what its reversals say"
        hold("I6", same, what)


def _check_all_reversed(
    regions: Mapping[str, RegionRecords], returns: Mapping[str, dispense_pb2.DispenseReturn]
) -> None:
    insured = {
        each.settlement_id: each.payer_region_code
        for records in regions.values()
        for each in records.dispenses
        if each.insured
    }
    for reversal_id, each in returns.items():
        payer = insured.get(each.settlement_id)
        if payer is not None:
            times = _reversals(regions[payer])[reversal_id]
            hold("I6", times == 1, f"return {reversal_id} was reversed {times} times, not once")


def _balance(name: str, expected: int, found: int) -> None:
    hold("I5", expected == found, f"{name}: {expected} fen expected, {found} found")
