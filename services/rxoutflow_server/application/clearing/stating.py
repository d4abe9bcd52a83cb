"""Clearing a period: the payer states what it owes; the dispensing region accepts or says why not.

Each region writes the list of the period from its own book. The dispensing region accepts only a
statement that it could have written itself, figures and list digest; otherwise it names the days
that differ, and the payer compares their entries. Until a statement is accepted the payer may state
the period anew; what is accepted is final.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timedelta

from rxoutflow.identity import CallerName
from rxoutflow.statements import statement_sha256
from rxoutflow.v1.clearing_pb2 import ClearingAcceptance, ClearingStatement, DayTotals
from rxoutflow.v1.clearing_service_pb2 import (
    ClearPeriodRequest,
    ClearPeriodResponse,
    ProposeClearingRequest,
    ProposeClearingResponse,
)
from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow_server.application.clearing import reconciling
from rxoutflow_server.application.clearing.books import begin_of
from rxoutflow_server.application.clearing.lists import Listed, listed_book
from rxoutflow_server.application.clearing.messages import day_of, totals_message
from rxoutflow_server.application.clearing.reconciling import Pair
from rxoutflow_server.application.dispensing.exchange import Exchange
from rxoutflow_server.application.messages import timestamp
from rxoutflow_server.application.ports import (
    Clearing,
    ClearingGateway,
    Reader,
    RegionRole,
    Store,
    Transaction,
)
from rxoutflow_server.application.region import Region, require_own_region
from rxoutflow_server.application.validation import check_required, invalid, mismatch
from rxoutflow_server.domain.clearing import Period
from rxoutflow_server.domain.ledger import Book, Mode, Totals

GRACE = timedelta(hours=1)
"""How long after its end a period may be stated: clocks differ, and events are on their way."""

_NOTHING = totals_message(Totals(Mode.INSURANCE))


async def clear_period(exchange: Exchange, request: ClearPeriodRequest) -> ClearPeriodResponse:
    """State what this region owes another one for a period, and propose it there.

    Raises:
        Refusal: FIELD_INVALID, REGION_UNKNOWN, or what the other region refuses.
        Unavailable: the other region cannot be reached; repeat.
    """
    check_required(request)
    region, peer = exchange.region, request.dispensing_region_code
    period = Period.parse(request.period)
    require_over(period, region.now())
    if peer == region.code:
        raise invalid("dispensing_region_code", "a region owes itself nothing")
    gateway = exchange.peers.region(peer)
    clearing = await _stated(exchange, peer, period)
    if clearing.acceptance is not None:
        return ClearPeriodResponse(statement=clearing.statement, acceptance=clearing.acceptance)
    proposed = await gateway.propose_clearing(ProposeClearingRequest(statement=clearing.statement))
    if proposed.HasField("acceptance"):
        acceptance = proposed.acceptance
        await exchange.store.transact(lambda tx: _keep_acceptance(tx, region, clearing, acceptance))
        return ClearPeriodResponse(statement=clearing.statement, acceptance=acceptance)
    days = [day_of(each.day, "days.day") for each in proposed.days]
    return ClearPeriodResponse(
        statement=clearing.statement,
        days=[await _differences(exchange.store, gateway, region, peer, day) for day in days],
    )


async def consider(
    region: Region, store: Store, caller: CallerName, request: ProposeClearingRequest
) -> ProposeClearingResponse:
    """Accept what a payer states, if our own books say the same; otherwise say on which days not.

    Raises:
        StatementError: the statement does not verify.
        Refusal: see ClearingService.ProposeClearing.
    """
    check_required(request)
    now = region.now()
    verified = region.verified(request.statement, ClearingStatement, now)
    content = verified.content
    check_required(content)
    if content.revision < 1:
        raise invalid("revision", "must be at least 1")
    require_own_region(caller, content.payer_region_code)
    if content.dispensing_region_code != region.code:
        raise mismatch("dispensing_region_code", "the statement is for another region")
    period = Period.parse(content.period)
    require_over(period, now)
    payer = content.payer_region_code
    before = await store.read(lambda tx: _accepted(tx, payer, period))
    if before is not None:
        return _again(before, verified.sha256)
    own = await store.read(lambda tx: listed_book(tx, Book.RECEIVABLE, payer, period))
    if own.list_sha256 != content.list_sha256:
        return ProposeClearingResponse(days=_differing(content, own))
    if _content(payer, region.code, period, own, content) != content:
        raise mismatch("owed_fen", "the figures are not those of the list, which is right")
    return await store.transact(lambda tx: _accept(tx, region, request.statement, content, now))


def require_over(period: Period, now: datetime) -> None:
    """A period is stated after its end, never before.

    Raises:
        Refusal: FIELD_INVALID, with when it may be.
    """
    possible = begin_of(period.next) + GRACE
    if now < possible:
        raise invalid("period", f"is not over: clear it after {possible:%Y-%m-%d %H:%M %z}")


async def _stated(exchange: Exchange, peer: str, period: Period) -> Clearing:
    """The newest statement of a period, made anew if books have been put right since."""
    accepted = await exchange.store.read(
        lambda tx: tx.clearing.clearing(RegionRole.PAYER, peer, period)
    )
    if accepted is not None and accepted.acceptance is not None:
        return accepted
    own = await exchange.store.read(lambda tx: listed_book(tx, Book.PAYABLE, peer, period))
    return await exchange.store.transact(lambda tx: _state(tx, exchange.region, peer, period, own))


def _state(tx: Transaction, region: Region, peer: str, period: Period, own: Listed) -> Clearing:
    now = region.now()
    before = tx.clearing.clearing(RegionRole.PAYER, peer, period)
    if before is not None:
        stated = ClearingStatement.FromString(before.statement.payload)
        same = _content(region.code, peer, period, own, stated) == stated
        if same or before.acceptance is not None:
            return before
    revision = 1 if before is None else before.revision + 1
    frame = ClearingStatement(revision=revision, create_time=timestamp(now))
    statement = region.seal(_content(region.code, peer, period, own, frame), now=now)
    clearing = Clearing(RegionRole.PAYER, peer, period, revision, statement, None, now)
    tx.clearing.add_clearing(clearing)
    return clearing


def _keep_acceptance(
    tx: Transaction, region: Region, clearing: Clearing, acceptance: SignedStatement
) -> None:
    content = region.verified(acceptance, ClearingAcceptance, region.now()).content
    stated = ClearingStatement.FromString(clearing.statement.payload)
    expected = _yes(stated, statement_sha256(clearing.statement), content)
    if content != expected:
        raise mismatch("acceptance", "it does not accept this statement; nothing was cleared")
    stored = tx.clearing.clearing(RegionRole.PAYER, clearing.peer_region_code, clearing.period)
    if stored is None or stored.acceptance is None:
        tx.clearing.accept_clearing(replace(clearing, acceptance=acceptance))


def _accept(
    tx: Transaction,
    region: Region,
    statement: SignedStatement,
    content: ClearingStatement,
    now: datetime,
) -> ProposeClearingResponse:
    payer, period = content.payer_region_code, Period.parse(content.period)
    digest = statement_sha256(statement)
    before = _accepted(tx, payer, period)
    if before is not None:
        return _again(before, digest)
    frame = ClearingAcceptance(create_time=timestamp(now))
    acceptance = region.seal(_yes(content, digest, frame), now=now)
    revision = content.revision
    tx.clearing.add_clearing(
        Clearing(RegionRole.DISPENSING, payer, period, revision, statement, acceptance, now)
    )
    return ProposeClearingResponse(acceptance=acceptance)


def _accepted(tx: Transaction, payer: str, period: Period) -> Clearing | None:
    return tx.clearing.clearing(RegionRole.DISPENSING, payer, period)


def _again(before: Clearing, digest: bytes) -> ProposeClearingResponse:
    if statement_sha256(before.statement) != digest:
        raise mismatch("statement", "another statement was accepted for this period; it is final")
    return ProposeClearingResponse(acceptance=before.acceptance)


def _content(
    payer: str, dispensing: str, period: Period, own: Listed, frame: ClearingStatement
) -> ClearingStatement:
    """The statement of a list, with the revision and time of another one."""
    figures = own.tally.figures
    return ClearingStatement(
        payer_region_code=payer,
        dispensing_region_code=dispensing,
        period=str(period),
        revision=frame.revision,
        totals=totals_message(figures.totals),
        posting_count=figures.posting_count,
        reversal_count=figures.reversal_count,
        adjustment_count=figures.adjustment_count,
        adjustment_fen=figures.adjustment_fen,
        owed_fen=figures.owed_fen,
        days=[_day(day, totals_message(totals)) for day, totals in own.tally.days.items()],
        list_sha256=own.list_sha256,
        create_time=frame.create_time,
    )


def _yes(
    stated: ClearingStatement, statement_digest: bytes, frame: ClearingAcceptance
) -> ClearingAcceptance:
    """The acceptance of a statement, with the time of another one."""
    return ClearingAcceptance(
        statement_sha256=statement_digest,
        payer_region_code=stated.payer_region_code,
        dispensing_region_code=stated.dispensing_region_code,
        period=stated.period,
        owed_fen=stated.owed_fen,
        create_time=frame.create_time,
    )


def _day(day: date, totals: DayTotals) -> ClearingStatement.Day:
    return ClearingStatement.Day(day=day.isoformat(), totals=totals)


def _differing(content: ClearingStatement, own: Listed) -> list[ClearingStatement.Day]:
    """The days whose sums differ, as we have them; all days if only the lists differ."""
    theirs = {each.day: each.totals for each in content.days}
    ours = {day.isoformat(): totals_message(totals) for day, totals in own.tally.days.items()}
    every = sorted({*theirs, *ours})
    differing = [day for day in every if theirs.get(day) != ours.get(day)]
    return [
        ClearingStatement.Day(day=day, totals=ours.get(day, _NOTHING)) for day in differing or every
    ]


async def _differences(
    store: Reader, gateway: ClearingGateway, region: Region, peer: str, day: date
) -> ClearPeriodResponse.Day:
    found = await reconciling.details(store, gateway, Pair.owed_by(region.code, peer), day)
    return ClearPeriodResponse.Day(
        day=day.isoformat(), differences=found.differences, more=found.more
    )
