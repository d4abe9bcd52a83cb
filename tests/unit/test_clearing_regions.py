"""Reconciling and clearing over three regions, without a network: real books, real statements."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from rxoutflow.statements import StatementError, statement_sha256
from rxoutflow.v1 import clearing_pb2, settlement_pb2
from rxoutflow.v1.attempt_pb2 import Commitment
from rxoutflow.v1.clearing_pb2 import ClearingAcceptance, ClearingStatement, DayDifference
from rxoutflow.v1.clearing_service_pb2 import (
    ClearingServiceReconcileDayRequest,
    ClearPeriodRequest,
    ClearPeriodResponse,
    ProposeClearingRequest,
)
from rxoutflow.v1.pharmacy_service_pb2 import (
    PharmacyServiceReconcileDayRequest,
    PharmacyServiceReconcileDayResponse,
)
from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow_server.application.clearing import books, reconciling
from rxoutflow_server.application.clearing.books import local_day, posting_time
from rxoutflow_server.application.clearing.messages import entry_message, totals_message
from rxoutflow_server.application.clearing.reconciling import Pair, Reconciliation
from rxoutflow_server.application.clearing.reports import Standing, positions
from rxoutflow_server.application.clearing.stating import clear_period
from rxoutflow_server.application.ports import RegionRole, Transaction
from rxoutflow_server.domain.clearing import Period, net_positions
from rxoutflow_server.domain.errors import Reason, Refusal, Unavailable
from rxoutflow_server.domain.ledger import AMOUNTS, Book, Entry, totals
from support.ledgers import DAY, PERIOD, posting, reversal
from support.pki import NOW
from support.world import World, content_of

HOME, DISPENSING, PAYER = "350200", "350500", "320600"
TODAY = local_day(NOW)
PAIR = Pair.owed_by(PAYER, DISPENSING)
Kind = DayDifference.Kind


@pytest.fixture
def world() -> World:
    return World.create(HOME, DISPENSING, PAYER)


@pytest.fixture
async def sold(world: World) -> AsyncIterator[str]:
    """A settlement that was posted today and heard of; its id."""
    _, code = await world.issue(HOME, PAYER)
    settlement_id = await world.dispense(DISPENSING, code)
    await world.settle()
    yield settlement_id
    for region in world.platforms:
        assert await world.dead_events(region) == []


async def entries(world: World, region: str, book: Book, other: str) -> list[Entry]:
    return await world.platforms[region].store.read(
        lambda tx: list(books.entries_between(tx, book, other, date(2026, 1, 1), date(2027, 1, 1)))
    )


async def add(world: World, region: str, book: Book, other: str, *added: Entry) -> None:
    def command(tx: Transaction) -> None:
        for entry in added:
            tx.clearing.add_entry(book, other, entry)

    await world.platforms[region].store.transact(command)


async def both(world: World, *added: Entry, payer: str = PAYER, owed: str = DISPENSING) -> None:
    """Entries that payer and dispensing region have both booked."""
    await add(world, payer, Book.PAYABLE, owed, *added)
    await add(world, owed, Book.RECEIVABLE, payer, *added)


def change(world: World, region: str, sql: str) -> None:
    """Somebody edits a region's database."""
    world.platforms[region].store.connection.execute(sql)


async def ask(world: World, pair: Pair = PAIR, day: date = TODAY) -> Reconciliation:
    region = pair.payer if pair.book is Book.PAYABLE else pair.dispensing
    exchange = world.platforms[region].exchange
    gateway = exchange.peers.region(pair.counterpart)
    return await reconciling.ask(exchange.store, gateway, pair, day)


def kinds(differences: Any) -> list[tuple[str, str]]:
    return [(each.settlement_id, Kind.Name(each.kind)) for each in differences]


async def clear(
    world: World, period: Period = PERIOD, payer: str = PAYER, owed: str = DISPENSING
) -> ClearPeriodResponse:
    request = ClearPeriodRequest(period=str(period), dispensing_region_code=owed)
    return await clear_period(world.platforms[payer].exchange, request)


async def propose(world: World, statement: SignedStatement, caller: str = PAYER) -> Any:
    peers = world.platforms[caller].exchange.peers
    request = ProposeClearingRequest(statement=statement)
    return await peers.region(DISPENSING).propose_clearing(request)


# --- books ----------------------------------------------------------------------------------------


async def test_both_regions_book_a_settlement_alike(world: World, sold: str) -> None:
    (owed,) = await entries(world, PAYER, Book.PAYABLE, DISPENSING)
    (claimed,) = await entries(world, DISPENSING, Book.RECEIVABLE, PAYER)
    assert owed == claimed
    assert (owed.settlement_id, owed.day, owed.owed_fen) == (sold, TODAY, 1200 + 500 + 300)
    (sale,) = await entries(world, DISPENSING, Book.SALES, owed.pharmacy_code)
    assert sale == owed
    assert await entries(world, HOME, Book.PAYABLE, DISPENSING) == []


async def test_a_voided_hold_is_in_no_book(world: World) -> None:
    _, code = await world.issue(HOME, PAYER)
    attempt = await world.claim(DISPENSING, code)
    request = world.commit_request(DISPENSING, attempt, await world.quote(DISPENSING, attempt))
    await world.commit(DISPENSING, request)
    await world.release(DISPENSING, attempt)
    await world.settle()
    assert await entries(world, PAYER, Book.PAYABLE, DISPENSING) == []
    assert await entries(world, DISPENSING, Book.RECEIVABLE, PAYER) == []


async def test_the_day_is_the_local_one(world: World) -> None:
    world.clock.now = datetime(2026, 3, 2, 15, 59, 59, tzinfo=UTC)
    late = await world.issue(HOME, PAYER)
    await world.dispense(DISPENSING, late[1])
    await world.settle()
    world.clock.now += timedelta(seconds=1)  # midnight in Shanghai
    early = await world.issue(HOME, PAYER)
    await world.dispense(DISPENSING, early[1])
    await world.settle()
    booked = await entries(world, PAYER, Book.PAYABLE, DISPENSING)
    assert [(each.prescription_number, each.day) for each in booked] == [
        (late[0], date(2026, 3, 2)),
        (early[0], date(2026, 3, 3)),
    ]


async def test_a_reversal_is_booked_with_the_day_of_its_posting(world: World, sold: str) -> None:
    (posted,) = await entries(world, PAYER, Book.PAYABLE, DISPENSING)
    content = reversal_statement(posted, NOW + timedelta(days=40))
    for _ in range(2):  # told twice, booked once
        await book_reversal(world, content)
    _, reversed_ = await entries(world, PAYER, Book.PAYABLE, DISPENSING)
    day = local_day(NOW + timedelta(days=40))
    assert reversed_ == replace(reversal(posted, day), reversal_id="R")


async def test_a_reversal_waits_for_the_posting_that_it_takes_back(world: World) -> None:
    content = reversal_statement(posting(), NOW)
    with pytest.raises(Refusal) as refused:
        await book_reversal(world, content)
    assert refused.value.reason is Reason.EARLIER_FACT_MISSING


async def test_a_reversal_before_its_posting_is_refused(world: World, sold: str) -> None:
    (posted,) = await entries(world, PAYER, Book.PAYABLE, DISPENSING)
    with pytest.raises(Refusal) as refused:
        await book_reversal(world, reversal_statement(posted, NOW - timedelta(days=1)))
    assert refused.value.detail == {"field": "reverse_time"}


async def test_a_settlement_that_says_it_is_reversed_moves_nothing_by_itself(
    world: World, sold: str
) -> None:
    before = await entries(world, PAYER, Book.PAYABLE, DISPENSING)
    content = settlement_pb2.Settlement(
        settlement_id=sold, state=settlement_pb2.Settlement.STATE_REVERSED
    )
    await world.platforms[PAYER].store.transact(
        lambda tx: books.book_settlement(tx, Book.PAYABLE, DISPENSING, content)
    )
    assert await entries(world, PAYER, Book.PAYABLE, DISPENSING) == before


async def book_reversal(world: World, content: settlement_pb2.Reversal) -> None:
    await world.platforms[PAYER].store.transact(
        lambda tx: books.book_reversal(tx, Book.PAYABLE, DISPENSING, content)
    )


def reversal_statement(posted: Entry, at: datetime) -> settlement_pb2.Reversal:
    """A reversal of the whole of a posting."""
    content = settlement_pb2.Reversal(
        reversal_id="R",
        settlement_id=posted.settlement_id,
        prescription_number=posted.prescription_number,
    )
    content.reverse_time.FromDatetime(at)
    for name in AMOUNTS:
        setattr(content.amounts, name, getattr(posted, name))
    return content


# --- reconciliation -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pair", [PAIR, Pair.owed_to(DISPENSING, PAYER)], ids=["asked by payer", "by dispensing"]
)
async def test_books_that_agree_need_no_details(world: World, sold: str, pair: Pair) -> None:
    found = await ask(world, pair)
    assert found.agreed
    assert found.here == found.there
    assert [each.count for each in found.here] == [1]
    assert found.differences == ()


async def test_a_region_that_pays_its_own_pharmacies_reconciles_with_itself(world: World) -> None:
    _, code = await world.issue(HOME, HOME)
    await world.dispense(HOME, code)
    await world.settle()
    found = await ask(world, Pair.owed_by(HOME, HOME))
    assert found.agreed
    assert [each.count for each in found.here] == [1]


PLANTED = {
    "amount": (
        DISPENSING,
        "UPDATE ledger_entries SET pool_fen = pool_fen - 1, total_fen = total_fen - 1"
        " WHERE book = 'receivable'",
        "KIND_AMOUNT_DIFFERS",
    ),
    "lost there": (
        DISPENSING,
        "DELETE FROM ledger_entries WHERE book = 'receivable'",
        "KIND_STATE_DIFFERS",
    ),
    "lost there, dispense and all": (
        DISPENSING,
        "DELETE FROM ledger_entries; DELETE FROM dispenses",
        "KIND_MISSING_THERE",
    ),
    "lost here": (
        PAYER,
        "DELETE FROM ledger_entries WHERE book = 'payable'",
        "KIND_MISSING_HERE",
    ),
    "another day": (
        DISPENSING,
        "UPDATE ledger_entries SET day = '2026-03-03', posted_day = '2026-03-03'",
        "KIND_DAY_DIFFERS",
    ),
}


@pytest.mark.parametrize(("region", "sql", "kind"), PLANTED.values(), ids=PLANTED.keys())
async def test_a_planted_difference_is_found_and_named(
    world: World, sold: str, region: str, sql: str, kind: str
) -> None:
    for statement in sql.split(";"):
        change(world, region, statement)
    found = await ask(world)
    assert not found.agreed
    assert kinds(found.differences) == [(sold, kind)]


async def test_the_payer_names_the_state_of_what_it_never_posted(world: World) -> None:
    """The dispensing region has a receivable; the payer's own evidence says that it only holds."""
    number, code = await world.issue(HOME, PAYER)
    attempt = await world.claim(DISPENSING, code)
    request = world.commit_request(DISPENSING, attempt, await world.quote(DISPENSING, attempt))
    await world.commit(DISPENSING, request)
    settlement_id = content_of(request.commitment, Commitment).settlement_id
    invented = replace(posting(settlement_id, TODAY), prescription_number=number)
    await add(world, DISPENSING, Book.RECEIVABLE, PAYER, invented)
    (found,) = (await ask(world, Pair.owed_to(DISPENSING, PAYER))).differences
    assert found.kind == DayDifference.KIND_STATE_DIFFERS
    assert found.here_state == settlement_pb2.Settlement.STATE_POSTED
    assert found.there_state == settlement_pb2.Settlement.STATE_HELD


@pytest.mark.parametrize(
    ("pair", "here", "there"),
    [
        (PAIR, "STATE_REVERSED", "STATE_POSTED"),
        (Pair.owed_to(DISPENSING, PAYER), "STATE_POSTED", "STATE_REVERSED"),
    ],
    ids=["seen by the payer", "seen by the dispensing region"],
)
async def test_a_reversal_that_one_side_has_not_heard_of_is_named(
    world: World, sold: str, pair: Pair, here: str, there: str
) -> None:
    (posted,) = await entries(world, PAYER, Book.PAYABLE, DISPENSING)
    tomorrow = TODAY + timedelta(days=1)
    await add(world, PAYER, Book.PAYABLE, DISPENSING, reversal(posted, tomorrow))
    (found,) = (await ask(world, pair, tomorrow)).differences
    states = settlement_pb2.Settlement.State
    assert (found.settlement_id, found.kind) == (sold, DayDifference.KIND_STATE_DIFFERS)
    assert (states.Name(found.here_state), states.Name(found.there_state)) == (here, there)
    assert (await ask(world, pair)).agreed


async def test_a_large_day_is_compared_page_by_page(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(books, "PAGE", 7)
    monkeypatch.setattr(reconciling, "PAGE", 7)
    whole = [posting(f"S{index:03}") for index in range(100)]
    await both(world, *[each for each in whole if each.settlement_id not in ("S000", "S050")])
    await add(world, PAYER, Book.PAYABLE, DISPENSING, whole[0])
    await add(world, DISPENSING, Book.RECEIVABLE, PAYER, whole[50])
    change(
        world,
        DISPENSING,
        "UPDATE ledger_entries SET cash_fen = 501, total_fen = 1501 WHERE settlement_id = 'S099'",
    )
    found = await ask(world, day=DAY)
    assert kinds(found.differences) == [
        ("S000", "KIND_MISSING_THERE"),
        ("S050", "KIND_MISSING_HERE"),
        ("S099", "KIND_AMOUNT_DIFFERS"),
    ]


async def test_errors_that_offset_each_other_are_found_in_the_details(world: World) -> None:
    await add(world, PAYER, Book.PAYABLE, DISPENSING, posting("S1"))
    await add(world, DISPENSING, Book.RECEIVABLE, PAYER, posting("S2"))
    exchange = world.platforms[PAYER].exchange
    gateway = exchange.peers.region(DISPENSING)
    assert (await reconciling.ask(exchange.store, gateway, PAIR, DAY)).agreed
    found = await reconciling.details(exchange.store, gateway, PAIR, DAY)
    assert len(found.differences) == 2


async def test_only_the_two_regions_of_a_pair_may_compare_it(world: World, sold: str) -> None:
    book = clearing_pb2.DayBook(day=TODAY.isoformat())
    for payer, dispensing, asked in (
        (PAYER, DISPENSING, DISPENSING),
        (PAYER, DISPENSING, PAYER),
        (HOME, PAYER, DISPENSING),
    ):
        request = ClearingServiceReconcileDayRequest(
            payer_region_code=payer, dispensing_region_code=dispensing, book=book
        )
        with pytest.raises(Refusal) as refused:
            await world.platforms[HOME].exchange.peers.region(asked).reconcile_day(request)
        assert refused.value.reason in (Reason.CALLER_REGION_NOT_ALLOWED, Reason.FIELD_INVALID)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda book: setattr(book, "day", "2026-13-01"),
        lambda book: setattr(book, "day", "20260302"),
        lambda book: book.page.entries[0].ClearField("movement"),
        lambda book: setattr(book.page.entries[0], "mode", 99),
        lambda book: setattr(book.page.entries[0], "cash_fen", -1),
        lambda book: setattr(book.page, "after_settlement_id", "S9"),
        lambda book: book.page.entries.extend([book.page.entries[0]] * 2),
        lambda book: book.page.entries.extend([book.page.entries[0]] * 2000),
    ],
    ids=["no day", "compact", "no movement", "mode", "amounts", "before", "twice", "too many"],
)
async def test_a_malformed_book_is_refused_with_its_field(world: World, spoil: Any) -> None:
    book = clearing_pb2.DayBook(day=DAY.isoformat())
    book.page.last = True
    book.page.entries.append(entry_message(posting()))
    spoil(book)
    request = ClearingServiceReconcileDayRequest(
        payer_region_code=PAYER, dispensing_region_code=DISPENSING, book=book
    )
    with pytest.raises(Refusal) as refused:
        await world.platforms[PAYER].exchange.peers.region(DISPENSING).reconcile_day(request)
    assert refused.value.reason is Reason.FIELD_INVALID
    assert refused.value.detail["field"]


# --- a pharmacy's day -----------------------------------------------------------------------------


async def pharmacy_asks(
    world: World, book: clearing_pb2.DayBook
) -> PharmacyServiceReconcileDayResponse:
    platform = world.platforms[DISPENSING]
    request = PharmacyServiceReconcileDayRequest(book=book)
    return await platform.store.read(
        lambda tx: reconciling.answer_pharmacy(tx, platform.pharmacy, request)
    )


async def test_a_pharmacy_reconciles_its_day_whoever_paid(world: World, sold: str) -> None:
    _, code = await world.issue(HOME, PAYER)
    attempt = await world.claim(DISPENSING, code)
    request = world.commit_request(DISPENSING, attempt, None)
    await world.commit(DISPENSING, request)
    await world.record(DISPENSING, world.record_request(DISPENSING, request.commitment))
    alone = content_of(request.commitment, Commitment).settlement_id

    pharmacy = world.platforms[DISPENSING].pharmacy.institution_code
    sales = await entries(world, DISPENSING, Book.SALES, pharmacy)
    assert {each.settlement_id: (each.total_fen, each.cash_fen) for each in sales} == {
        sold: (3000, 1000),
        alone: (3000, 3000),
    }
    book = clearing_pb2.DayBook(day=TODAY.isoformat(), totals=map(totals_message, totals(sales)))
    assert (await pharmacy_asks(world, book)).comparison.agree

    book.totals[0].cash_fen += 1
    assert not (await pharmacy_asks(world, book)).comparison.agree
    book.page.last = True
    book.page.entries.extend(map(entry_message, sales[1:]))
    comparison = (await pharmacy_asks(world, book)).comparison
    assert kinds(comparison.differences) == [(sales[0].settlement_id, "KIND_MISSING_HERE")]


async def test_a_pharmacy_learns_that_a_sale_was_never_recorded(world: World) -> None:
    number, code = await world.issue(HOME, PAYER)
    attempt = await world.claim(DISPENSING, code)
    request = world.commit_request(DISPENSING, attempt, await world.quote(DISPENSING, attempt))
    await world.commit(DISPENSING, request)
    settlement_id = content_of(request.commitment, Commitment).settlement_id
    unknown = replace(posting("SX", TODAY), prescription_number=number)
    committed = replace(posting(settlement_id, TODAY), prescription_number=number)
    book = clearing_pb2.DayBook(day=TODAY.isoformat())
    book.page.last = True
    book.page.entries.extend(map(entry_message, [committed, unknown]))
    found = (await pharmacy_asks(world, book)).comparison.differences
    assert kinds(found) == [(settlement_id, "KIND_STATE_DIFFERS"), ("SX", "KIND_MISSING_THERE")]
    assert found[0].there_state == settlement_pb2.Settlement.STATE_HELD


# --- clearing -------------------------------------------------------------------------------------


async def test_a_period_is_stated_accepted_and_final(world: World) -> None:
    await both(world, posting("S1"), posting("S2", pool=10, account=0, family=0, cash=0))
    cleared = await clear(world)
    stated = content_of(cleared.statement, ClearingStatement)
    assert (stated.owed_fen, stated.posting_count, stated.revision) == (1010, 2, 1)
    assert [(each.day, each.totals.count) for each in stated.days] == [(DAY.isoformat(), 2)]
    accepted = content_of(cleared.acceptance, ClearingAcceptance)
    assert accepted.statement_sha256 == statement_sha256(cleared.statement)
    assert accepted.owed_fen == 1010
    assert await clear(world) == cleared
    for region, role, peer in (
        (PAYER, RegionRole.PAYER, DISPENSING),
        (DISPENSING, RegionRole.DISPENSING, PAYER),
    ):
        kept = await world.platforms[region].store.read(
            lambda tx, role=role, peer=peer: tx.clearing.clearing(role, peer, PERIOD)  # type: ignore[misc] # mypy cannot infer a lambda with defaults
        )
        assert kept is not None
        assert (kept.statement, kept.acceptance) == (cleared.statement, cleared.acceptance)


async def test_an_answer_that_was_lost_is_the_same_when_it_is_asked_for_again(world: World) -> None:
    await both(world, posting())
    world.lost_answers = 1
    with pytest.raises(Unavailable):
        await clear(world)
    cleared = await clear(world)
    assert cleared.HasField("acceptance")
    assert content_of(cleared.statement, ClearingStatement).revision == 1


async def test_a_statement_is_not_accepted_on_a_difference_which_is_named(world: World) -> None:
    await both(world, posting("S1"), posting("S3", DAY - timedelta(days=1)))
    await add(world, PAYER, Book.PAYABLE, DISPENSING, posting("S2"))
    refused = await clear(world)
    assert not refused.HasField("acceptance")
    (day,) = refused.days
    assert day.day == DAY.isoformat()
    assert kinds(day.differences) == [("S2", "KIND_MISSING_THERE")]
    assert await world.platforms[DISPENSING].store.read(
        lambda tx: not tx.clearing.clearings(PERIOD)
    )

    await add(world, DISPENSING, Book.RECEIVABLE, PAYER, posting("S2"))
    cleared = await clear(world)
    assert cleared.HasField("acceptance")
    assert cleared.statement == refused.statement


async def test_books_put_right_by_the_payer_are_stated_anew(world: World) -> None:
    await both(world, posting("S1"))
    await add(world, DISPENSING, Book.RECEIVABLE, PAYER, posting("S2"))
    refused = await clear(world)
    assert kinds(refused.days[0].differences) == [("S2", "KIND_MISSING_HERE")]
    await add(world, PAYER, Book.PAYABLE, DISPENSING, posting("S2"))
    cleared = await clear(world)
    assert cleared.HasField("acceptance")
    stated = content_of(cleared.statement, ClearingStatement)
    assert (stated.revision, stated.owed_fen) == (2, 2000)


async def test_lists_that_differ_with_the_same_sums_are_not_accepted(world: World) -> None:
    await add(world, PAYER, Book.PAYABLE, DISPENSING, posting("S1"))
    await add(world, DISPENSING, Book.RECEIVABLE, PAYER, posting("S2"))
    refused = await clear(world)
    assert not refused.HasField("acceptance")
    assert kinds(refused.days[0].differences) == [
        ("S1", "KIND_MISSING_THERE"),
        ("S2", "KIND_MISSING_HERE"),
    ]


async def test_a_reversal_after_the_cut_off_adjusts_the_next_period(world: World) -> None:
    posted = posting("S1", date(2026, 1, 31))
    await both(world, posted, posting("S2"), reversal(posted, DAY))
    january = await clear(world, Period(2026, 1))
    february = await clear(world)
    assert january.HasField("acceptance")
    assert february.HasField("acceptance")
    first, second = (content_of(each.statement, ClearingStatement) for each in (january, february))
    assert (first.owed_fen, first.adjustment_fen) == (1000, 0)
    assert (second.posting_count, second.reversal_count, second.adjustment_count) == (1, 1, 1)
    assert (second.owed_fen, second.adjustment_fen) == (0, -1000)


async def test_a_period_can_end_with_the_payer_getting_money_back(world: World) -> None:
    posted = posting("S1", date(2026, 1, 31))
    await both(world, posted, reversal(posted, DAY))
    stated = content_of((await clear(world)).statement, ClearingStatement)
    assert stated.owed_fen == stated.adjustment_fen == -1000


async def test_a_period_that_is_not_over_cannot_be_cleared(world: World) -> None:
    end = datetime(2026, 2, 28, 16, tzinfo=UTC)  # midnight in Shanghai
    world.clock.now = end + timedelta(minutes=59)
    with pytest.raises(Refusal) as refused:
        await clear(world)
    assert refused.value.detail["field"] == "period"
    assert "clear it after 2026-03-01 01:00" in refused.value.message


@pytest.mark.parametrize(
    ("period", "owed"), [("2026-2", DISPENSING), ("2026-02", PAYER), ("2026-02", "999999")]
)
async def test_nonsense_is_refused(world: World, period: str, owed: str) -> None:
    request = ClearPeriodRequest(period=period, dispensing_region_code=owed)
    with pytest.raises(Refusal) as refused:
        await clear_period(world.platforms[PAYER].exchange, request)
    assert refused.value.reason in (Reason.FIELD_INVALID, Reason.REGION_UNKNOWN)


async def test_a_region_cannot_state_what_another_one_owes(world: World) -> None:
    await both(world, posting())
    statement = (await clear(world)).statement
    with pytest.raises(Refusal) as refused:
        await propose(world, statement, caller=HOME)
    assert refused.value.reason is Reason.CALLER_REGION_NOT_ALLOWED


async def test_a_statement_that_was_changed_on_the_way_does_not_verify(world: World) -> None:
    await both(world, posting())
    statement = (await clear(world)).statement
    content = content_of(statement, ClearingStatement)
    content.owed_fen -= 1
    statement.payload = content.SerializeToString()
    with pytest.raises(StatementError):
        await propose(world, statement)


async def test_figures_that_are_not_the_sum_of_the_right_list_are_refused(world: World) -> None:
    await both(world, posting())
    content = content_of(await stated_only(world), ClearingStatement)
    content.owed_fen -= 1
    with pytest.raises(Refusal) as refused:
        await propose(world, world.signed(PAYER, content))
    assert refused.value.reason is Reason.SIGNED_CONTENT_MISMATCH
    assert refused.value.detail["field"] == "owed_fen"


async def test_a_second_statement_for_a_period_that_was_accepted_is_refused(world: World) -> None:
    await both(world, posting())
    content = content_of((await clear(world)).statement, ClearingStatement)
    content.revision += 1
    with pytest.raises(Refusal, match="it is final"):
        await propose(world, world.signed(PAYER, content))


async def test_a_statement_for_another_region_is_refused(world: World) -> None:
    await both(world, posting(), owed=HOME)
    statement = (await clear(world, owed=HOME)).statement
    with pytest.raises(Refusal) as refused:
        await propose(world, statement)
    assert refused.value.detail["field"] == "dispensing_region_code"


async def stated_only(world: World) -> SignedStatement:
    """A statement of the payer that has reached nobody."""
    world.unreachable.add(DISPENSING)
    with pytest.raises(Unavailable):
        await clear(world)
    world.unreachable.clear()
    stored = await world.platforms[PAYER].store.read(
        lambda tx: tx.clearing.clearing(RegionRole.PAYER, DISPENSING, PERIOD)
    )
    assert stored is not None
    assert stored.acceptance is None
    return stored.statement


async def test_nothing_is_posted_into_a_period_that_was_stated(world: World) -> None:
    await both(world, posting())
    await clear(world)
    last_moment = datetime(2026, 2, 28, 15, 59, tzinfo=UTC)

    def at(now: datetime, peer: str = DISPENSING) -> datetime:
        store: Any = world.platforms[PAYER].store
        return posting_time(store._tables, peer, now)

    assert at(NOW) == NOW
    assert at(last_moment) == datetime(2026, 2, 28, 16, tzinfo=UTC)
    assert at(last_moment, HOME) == last_moment


async def test_all_regions_clear_and_their_positions_sum_to_zero(world: World) -> None:
    amounts = {
        (PAYER, DISPENSING): 700,
        (PAYER, HOME): 30,
        (DISPENSING, PAYER): 250,
        (HOME, DISPENSING): 5,
    }
    for (payer, owed), pool in amounts.items():
        entry = posting(f"{payer}{owed}", pool=pool, account=0, family=0)
        await both(world, entry, payer=payer, owed=owed)
        assert (await clear(world, payer=payer, owed=owed)).HasField("acceptance")
    seen = []
    for code, platform in world.platforms.items():
        found = await platform.store.read(
            lambda tx, code=code: positions(tx, code, PERIOD)  # type: ignore[misc] # mypy cannot infer a lambda with defaults
        )
        assert {each.standing for each in found} == {Standing.ACCEPTED}
        seen.extend(found)
    both_sides = {(each.payer, each.dispensing): each.obligation.owed_fen for each in seen}
    assert both_sides == amounts
    assert len(seen) == 2 * len(amounts)  # each pair in both regions' books
    nets = net_positions(each.obligation for each in seen if each.role is RegionRole.PAYER)
    assert nets == {PAYER: -480, HOME: 25, DISPENSING: 455}
    assert sum(nets.values()) == 0


async def test_a_report_shows_books_that_were_changed_after_the_statement(world: World) -> None:
    await both(world, posting("S1"), posting("S2"))
    await clear(world)
    change(world, DISPENSING, "DELETE FROM ledger_entries WHERE settlement_id = 'S2'")
    (found,) = await world.platforms[DISPENSING].store.read(
        lambda tx: positions(tx, DISPENSING, PERIOD)
    )
    assert found.standing is Standing.BOOKS_CHANGED
    (fine,) = await world.platforms[PAYER].store.read(lambda tx: positions(tx, PAYER, PERIOD))
    assert fine.standing is Standing.ACCEPTED


async def test_a_report_shows_what_the_payer_has_not_stated(world: World) -> None:
    await both(world, posting())
    (found,) = await world.platforms[DISPENSING].store.read(
        lambda tx: positions(tx, DISPENSING, PERIOD)
    )
    assert found.standing is Standing.NOT_STATED
    assert found.obligation.owed_fen == 1000
