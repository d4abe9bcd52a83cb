"""Comparing books of a day: answering another party, and asking another region.

The party that answers compares, because it alone knows what became of a settlement that is not in
its book. The party that asks sends totals, and entries only once the totals turned out to differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

from rxoutflow.identity import CallerName
from rxoutflow.statements.payloads import rule_for
from rxoutflow.v1 import clearing_pb2, settlement_pb2
from rxoutflow.v1.clearing_service_pb2 import (
    ClearingServiceReconcileDayRequest,
    ClearingServiceReconcileDayResponse,
)
from rxoutflow.v1.pharmacy_service_pb2 import (
    PharmacyServiceReconcileDayRequest,
    PharmacyServiceReconcileDayResponse,
)
from rxoutflow_server.application.clearing.books import PAGE, entries_of_day
from rxoutflow_server.application.clearing.messages import (
    day_of,
    difference_message,
    entries_of,
    entry_message,
    totals_message,
    totals_of,
)
from rxoutflow_server.application.messages import SETTLEMENT_STATES
from rxoutflow_server.application.ports import (
    ClearingGateway,
    Flow,
    Reader,
    RegionRole,
    TraceStep,
    Transaction,
)
from rxoutflow_server.application.region import Region, require_own_region
from rxoutflow_server.application.validation import check_required, invalid
from rxoutflow_server.domain.dispense import DispenseState
from rxoutflow_server.domain.errors import InvariantBroken
from rxoutflow_server.domain.ledger import (
    Book,
    Entry,
    Movement,
    Totals,
    after_settlement,
    totals,
)
from rxoutflow_server.domain.reconciliation import (
    Knowledge,
    Known,
    agree,
    compare,
    through,
    window,
    within,
)
from rxoutflow_server.domain.settlement import SettlementState

MOST_DIFFERENCES = 1000
"""Differences that are asked for at once: who has more has another problem."""

_ONE_DAY = timedelta(days=1)
_STATE_OF = {value: key for key, value in SETTLEMENT_STATES.items()}
_ENDED = (DispenseState.REFUSED, DispenseState.RELEASED)
_SETTLEMENT_TYPE = rule_for(settlement_pb2.Settlement).payload_type


@dataclass(frozen=True, slots=True)
class Pair:
    """A payer and a dispensing region, and which of the two we are."""

    payer: str
    dispensing: str
    book: Book

    @classmethod
    def owed_by(cls, region_code: str, dispensing: str) -> Pair:
        """What this region owes another one."""
        return cls(region_code, dispensing, Book.PAYABLE)

    @classmethod
    def owed_to(cls, region_code: str, payer: str) -> Pair:
        """What another region owes this one."""
        return cls(payer, region_code, Book.RECEIVABLE)

    @property
    def counterpart(self) -> str:
        """The other region."""
        return self.dispensing if self.book is Book.PAYABLE else self.payer


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What came of asking. ``more`` says that there are more differences than are listed."""

    here: tuple[Totals, ...]
    there: tuple[Totals, ...]
    differences: tuple[clearing_pb2.DayDifference, ...] = ()
    more: bool = False

    @property
    def agreed(self) -> bool:
        """Whether both books say the same."""
        return not self.differences and agree(self.here, self.there)


def answer_region(
    tx: Transaction,
    region: Region,
    caller: CallerName,
    request: ClearingServiceReconcileDayRequest,
) -> ClearingServiceReconcileDayResponse:
    """Compare another region's book of a day with ours.

    Raises:
        Refusal: FIELD_INVALID, or CALLER_REGION_NOT_ALLOWED if the two regions are not caller and
            answerer.
    """
    return compare_region(tx, region.code, caller, request)


def compare_region(
    tx: Transaction,
    region_code: str,
    caller: CallerName,
    request: ClearingServiceReconcileDayRequest,
) -> ClearingServiceReconcileDayResponse:
    """Compare another region's book of a day with that of the region of this store.

    Raises:
        Refusal: see ``answer_region``.
    """
    check_required(request)
    payer, dispensing = request.payer_region_code, request.dispensing_region_code
    if region_code == dispensing:
        require_own_region(caller, payer)
        pair, knowledge = Pair.owed_to(region_code, payer), _known_dispense(tx, payer)
    elif region_code == payer:
        require_own_region(caller, dispensing)
        pair, knowledge = Pair.owed_by(region_code, dispensing), _known_settlement(tx, dispensing)
    else:
        raise invalid("payer_region_code", "neither region is this one")
    comparison = _compared(tx, pair.book, pair.counterpart, request.book, knowledge)
    return ClearingServiceReconcileDayResponse(comparison=comparison)


def answer_pharmacy(
    tx: Transaction, caller: CallerName, request: PharmacyServiceReconcileDayRequest
) -> PharmacyServiceReconcileDayResponse:
    """Compare a pharmacy's book of a day with ours.

    Raises:
        Refusal: FIELD_INVALID.
    """
    check_required(request)
    code = caller.institution_code
    comparison = _compared(tx, Book.SALES, code, request.book, _known_sale(tx, code))
    return PharmacyServiceReconcileDayResponse(comparison=comparison)


async def ask(store: Reader, gateway: ClearingGateway, pair: Pair, day: date) -> Reconciliation:
    """Compare our book of a day with the other region's.

    Raises:
        Refusal: the region refused.
        Unavailable: it cannot be reached.
    """
    here = await store.read(lambda tx: _totals(tx, pair.book, pair.counterpart, day))
    request = _request(pair, day, here)
    comparison = (await gateway.reconcile_day(request)).comparison
    there = totals_of(comparison.totals, "totals")
    if comparison.agree:
        return Reconciliation(here, there)
    return await details(store, gateway, pair, day, here=here, there=there)


async def details(
    store: Reader,
    gateway: ClearingGateway,
    pair: Pair,
    day: date,
    *,
    here: tuple[Totals, ...] = (),
    there: tuple[Totals, ...] = (),
) -> Reconciliation:
    """Compare the entries of a day, whatever the totals say.

    Raises:
        Refusal: the region refused.
        Unavailable: it cannot be reached.
        InvariantBroken: its answers lead nowhere.
    """
    found: list[clearing_pb2.DayDifference] = []
    after, more = "", True
    while more and len(found) < MOST_DIFFERENCES:
        request = _request(pair, day, here)
        page = await store.read(lambda tx, after=after: _page(tx, pair, day, after))  # type: ignore[misc] # mypy cannot infer a lambda with a default
        request.book.page.CopyFrom(page)
        comparison = (await gateway.reconcile_day(request)).comparison
        found.extend(comparison.differences)
        more = bool(comparison.compared_through)
        if more and comparison.compared_through <= after:
            raise InvariantBroken(f"region {pair.counterpart} compares without getting anywhere")
        after = comparison.compared_through
    return Reconciliation(here, there, tuple(found[:MOST_DIFFERENCES]), more)


def _request(pair: Pair, day: date, here: tuple[Totals, ...]) -> ClearingServiceReconcileDayRequest:
    book = clearing_pb2.DayBook(day=day.isoformat(), totals=map(totals_message, here))
    return ClearingServiceReconcileDayRequest(
        payer_region_code=pair.payer, dispensing_region_code=pair.dispensing, book=book
    )


def _page(tx: Transaction, pair: Pair, day: date, after: str) -> clearing_pb2.EntryPage:
    entries = _next(tx, pair.book, pair.counterpart, day, after)
    return clearing_pb2.EntryPage(
        after_settlement_id=after,
        entries=map(entry_message, entries),
        last=len(entries) < PAGE,
    )


def _totals(tx: Transaction, book: Book, counterpart: str, day: date) -> tuple[Totals, ...]:
    return totals(entries_of_day(tx, book, counterpart, day))


def _next(tx: Transaction, book: Book, counterpart: str, day: date, after: str) -> list[Entry]:
    place = after_settlement(after)
    return list(tx.clearing.entries(book, counterpart, day, day + _ONE_DAY, place, PAGE))


def _compared(
    tx: Transaction,
    book: Book,
    counterpart: str,
    theirs: clearing_pb2.DayBook,
    knowledge: Knowledge,
) -> clearing_pb2.DayComparison:
    day = day_of(theirs.day, "book.day")
    if theirs.HasField("page"):
        return _compared_page(tx, book, counterpart, day, theirs.page, knowledge)
    there = _totals(tx, book, counterpart, day)
    return clearing_pb2.DayComparison(
        agree=agree(totals_of(theirs.totals, "book.totals"), there),
        totals=map(totals_message, there),
    )


def _compared_page(
    tx: Transaction,
    book: Book,
    counterpart: str,
    day: date,
    page: clearing_pb2.EntryPage,
    knowledge: Knowledge,
) -> clearing_pb2.DayComparison:
    after = page.after_settlement_id
    here = entries_of(page.entries, day, "book.page.entries")
    if len(here) > PAGE:
        raise invalid("book.page.entries", f"must be at most {PAGE}")
    if any(entry.settlement_id <= after for entry in here):
        raise invalid("book.page.entries", "must come after after_settlement_id")
    there = _next(tx, book, counterpart, day, after)
    end = window((through(here, last=page.last), through(there, last=len(there) < PAGE)))
    differences = compare(within(here, end), within(there, end), knowledge)
    return clearing_pb2.DayComparison(
        differences=map(difference_message, differences), compared_through=end or ""
    )


def _known_dispense(tx: Transaction, payer: str) -> Knowledge:
    """What the dispensing region knows of a payable that it has not in its book of the day."""

    def known(entry: Entry) -> Known | None:
        dispense = tx.dispensing.dispense(entry.prescription_number, entry.settlement_id)
        if dispense is None or not dispense.insured or dispense.payer_region_code != payer:
            return None
        ended = dispense.state in _ENDED
        state = SettlementState.VOIDED if ended else SettlementState.HELD
        return _elsewhere(tx, Book.RECEIVABLE, entry) or Known(state)

    return known


def _known_sale(tx: Transaction, pharmacy_code: str) -> Knowledge:
    """What the platform knows of a sale that it has not in its book of the day."""

    def known(entry: Entry) -> Known | None:
        dispense = tx.dispensing.dispense(entry.prescription_number, entry.settlement_id)
        if dispense is None or dispense.pharmacy_code != pharmacy_code:
            return None
        ended = dispense.state in _ENDED
        state = SettlementState.VOIDED if ended else SettlementState.HELD
        return _elsewhere(tx, Book.SALES, entry) or Known(state)

    return known


def _known_settlement(tx: Transaction, dispensing: str) -> Knowledge:
    """What the payer knows of a receivable that it has not in its book of the day."""

    def known(entry: Entry) -> Known | None:
        number = entry.prescription_number
        stated = [_stated(tx, number, step) for step in tx.journal.steps(number)]
        found = [each for each in stated if each and each.settlement_id == entry.settlement_id]
        if not found or found[-1].dispensing_region_code != dispensing:
            return None
        return _elsewhere(tx, Book.PAYABLE, entry) or Known(_STATE_OF[found[-1].state])

    return known


def _stated(tx: Transaction, number: str, step: TraceStep) -> settlement_pb2.Settlement | None:
    """The settlement that this region, as the payer, stated in a step."""
    if (step.role, step.flow) != (RegionRole.PAYER, Flow.MONEY):
        return None
    statement = tx.journal.statement(number, step.statement_sha256)
    if statement.payload_type != _SETTLEMENT_TYPE:
        return None
    return settlement_pb2.Settlement.FromString(statement.payload)


def _elsewhere(tx: Transaction, book: Book, entry: Entry) -> Known | None:
    """The entry on another day; or, for a reversal, that only its posting is known."""
    number = entry.prescription_number
    found = tx.clearing.entry(book, number, entry.key)
    if found is not None:
        return Known(SettlementState.POSTED, found.day)
    posting = tx.clearing.entry(book, number, (entry.settlement_id, Movement.POSTING, ""))
    return Known(SettlementState.POSTED) if posting is not None else None
