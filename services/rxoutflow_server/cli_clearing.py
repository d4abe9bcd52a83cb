"""``clearing``: daily reconciliation and monthly clearing, for operators and auditors.

``reconcile``, ``prepare``, ``show`` and ``export`` only read: the store file beside the running
platform, and other regions under the platform's own certificate. ``propose`` asks the running
platform, which alone signs and writes. Exit status 0: all agrees; 1: something differs or is open;
2: it could not be done.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TypeAlias, TypeVar

import click
import grpc
from rich.console import Console
from rich.table import Table

from rxoutflow.identity import CallerKind, CallerName
from rxoutflow.statements import StatementError, Verifier
from rxoutflow.trust import RegionNotTrusted, TrustStore
from rxoutflow.v1 import clearing_pb2, settlement_pb2
from rxoutflow.v1.clearing_pb2 import ClearingStatement, DayDifference
from rxoutflow.v1.clearing_service_pb2 import (
    ClearingServiceReconcileDayRequest,
    ClearingServiceReconcileDayResponse,
    ClearPeriodRequest,
    ClearPeriodResponse,
    ProposeClearingRequest,
    ProposeClearingResponse,
)
from rxoutflow.v1.clearing_service_pb2_grpc import ClearingServiceStub
from rxoutflow_server.application.clearing.books import entries_between
from rxoutflow_server.application.clearing.lists import lines
from rxoutflow_server.application.clearing.messages import day_of
from rxoutflow_server.application.clearing.reconciling import (
    Pair,
    Reconciliation,
    ask,
    compare_region,
)
from rxoutflow_server.application.clearing.reports import Position, Standing, positions
from rxoutflow_server.application.clearing.stating import require_over
from rxoutflow_server.application.ports import ClearingGateway, Reader, RegionRole, Transaction
from rxoutflow_server.clearing_report import (
    ACCEPTANCE_SUFFIX,
    STATEMENT_SUFFIX,
    collect,
    page,
    stem,
    yuan_of,
)
from rxoutflow_server.config import ConfigError, PlatformConfig, load_platform
from rxoutflow_server.domain.clearing import Period
from rxoutflow_server.domain.errors import Refusal, Unavailable
from rxoutflow_server.domain.ledger import Totals
from rxoutflow_server.platform.peers import RemotePeer
from rxoutflow_server.storage.errors import StoreError
from rxoutflow_server.storage.platform_stores import reading_platform
from rxoutflow_server.transport.channels import PeerChannels
from rxoutflow_server.transport.errors import refusal_of
from rxoutflow_server.transport.tls import KeyFileError
from rxoutflow_server.wiring import load_trust, utc_now

DIFFERENT = 1
CLEARING_SECONDS = 600.0
"""A platform reads a month of its books, asks the other region, and compares what differs."""

T = TypeVar("T")
_Work: TypeAlias = "Callable[[_Office], Awaitable[T]]"

_config = click.option(
    "--config",
    "file",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Configuration of the region's platform.",
)
_period = click.option("--period", "month", required=True, help="The month, as YYYY-MM.")
_region = click.option("--region", default="", help="Only this other region; default: all.")


class ClearingProblem(click.ClickException):
    """It could not be done; the message says what to do."""

    exit_code = 2


@dataclass(frozen=True)
class _Office:
    """What the commands work with: configuration, trust, books to read, and the way to regions."""

    config: PlatformConfig
    trust: TrustStore
    books: Reader
    channels: PeerChannels
    console: Console

    @property
    def region(self) -> str:
        return self.config.region_code

    def gateway(self, region_code: str) -> ClearingGateway:
        if region_code == self.region:
            return _Here(self.region, self.books)
        return RemotePeer(self.channels.channel(region_code), region_code)


@click.group("clearing")
def clearing_group() -> None:
    """Compare books with other regions day by day, and clear them month by month."""


@clearing_group.command()
@_config
@click.option("--day", "text", required=True, help="The local day, as YYYY-MM-DD.")
@_region
def reconcile(file: Path, text: str, region: str) -> None:
    """Compare a day's books with other regions: totals, then details where they differ."""

    async def work(office: _Office) -> bool:
        day = day_of(text, "--day")
        others = [region] if region else sorted(office.config.trust.registry_roots)
        return all([await _reconcile_region(office, other, day) for other in others])

    _run(file, work)


@clearing_group.command()
@_config
@_period
def prepare(file: Path, month: str) -> None:
    """Show what this region will state for a month, from its own books; changes nothing."""

    async def work(office: _Office) -> bool:
        period = Period.parse(month)
        owing = [each for each in await _positions(office, period) if each.role is RegionRole.PAYER]
        _show_positions(office, period, owing)
        require_over(period, utc_now())
        return True

    _run(file, work)


@clearing_group.command()
@_config
@_period
@_region
def propose(file: Path, month: str, region: str) -> None:
    """Let the running platform state what it owes for a month, and propose it where it is owed."""

    async def work(office: _Office) -> bool:
        period = Period.parse(month)
        found = await _positions(office, period)
        owed = [each.dispensing for each in found if each.role is RegionRole.PAYER]
        return all(
            [await _propose(office, period, each) for each in ([region] if region else owed)]
        )

    _run(file, work)


@clearing_group.command()
@_config
@_period
def show(file: Path, month: str) -> None:
    """Show what this region owes and is owed for a month, and how far that is cleared."""

    async def work(office: _Office) -> bool:
        period = Period.parse(month)
        found = await _positions(office, period)
        _show_positions(office, period, found)
        return all(each.standing is Standing.ACCEPTED for each in found)

    _run(file, work)


@clearing_group.command()
@_config
@_period
@click.option(
    "--csv",
    "folder",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for lists, statements and acceptances; may hold those of other regions.",
)
@click.option(
    "--report",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a page in Markdown about all statements in the folder.",
)
def export(file: Path, month: str, folder: Path, report: Path | None) -> None:
    """Write a month's lists, statements and acceptances, and a report on them."""

    async def work(office: _Office) -> bool:
        period = Period.parse(month)
        folder.mkdir(parents=True, exist_ok=True)
        found = await _positions(office, period)
        for each in found:
            await office.books.read(lambda tx, each=each: _export(tx, folder, period, each))  # type: ignore[misc] # mypy cannot infer a lambda with a default
        if report is not None:
            known = collect(folder, period, Verifier(office.trust), utc_now())
            report.write_text(page(period, office.region, *known), "utf-8")
        office.console.print(f"{len(found)} lists written to {folder}")
        return all(each.standing is Standing.ACCEPTED for each in found)

    _run(file, work)


def _run(file: Path, work: _Work[bool]) -> None:
    """Do the work in the office of a configuration, and end with its exit status."""
    with _problems():
        agreed = asyncio.run(_in_office(file, work))
    if not agreed:
        sys.exit(DIFFERENT)


@contextmanager
def _problems() -> Iterator[None]:
    try:
        yield
    except (Refusal, Unavailable) as error:
        raise ClearingProblem(error.message) from error
    except (
        ConfigError,
        StoreError,
        KeyFileError,
        RegionNotTrusted,
        StatementError,
        OSError,
    ) as error:
        raise ClearingProblem(str(error)) from error


async def _in_office(file: Path, work: _Work[T]) -> T:
    config = load_platform(file, utc_now())
    trust = load_trust(config)
    channels = PeerChannels(trust, config.tls, utc_now)
    try:
        with reading_platform(config.records) as books:
            return await work(_Office(config, trust, books, channels, Console()))
    finally:
        await channels.close()


class _Here:
    """This region as the other party: what it owes itself is reconciled too."""

    def __init__(self, region_code: str, books: Reader) -> None:
        self._region_code = region_code
        self._books = books

    async def reconcile_day(
        self, request: ClearingServiceReconcileDayRequest
    ) -> ClearingServiceReconcileDayResponse:
        code = self._region_code
        itself = CallerName(code, CallerKind.PLATFORM, code)
        return await self._books.read(lambda tx: compare_region(tx, code, itself, request))

    async def propose_clearing(self, request: ProposeClearingRequest) -> ProposeClearingResponse:
        raise NotImplementedError  # a region owes itself nothing


async def _positions(office: _Office, period: Period) -> list[Position]:
    return await office.books.read(lambda tx: positions(tx, office.region, period))


async def _reconcile_region(office: _Office, other: str, day: date) -> bool:
    """Compare both books that we have about a region; what it owes us and what we owe it."""
    pairs = [Pair.owed_by(office.region, other)]
    if other != office.region:
        pairs.append(Pair.owed_to(office.region, other))
    gateway, agreed = office.gateway(other), True
    for pair in pairs:
        found = await ask(office.books, gateway, pair, day)
        _show_reconciliation(office, pair, day, found)
        agreed = agreed and found.agreed
    return agreed


async def _propose(office: _Office, period: Period, dispensing: str) -> bool:
    stub = ClearingServiceStub(office.channels.channel(office.region))
    request = ClearPeriodRequest(period=str(period), dispensing_region_code=dispensing)
    try:
        response: ClearPeriodResponse = await stub.ClearPeriod(request, timeout=CLEARING_SECONDS)
    except grpc.aio.AioRpcError as error:
        raise refusal_of(error, office.region) from error
    stated = ClearingStatement.FromString(response.statement.payload)
    accepted = response.HasField("acceptance")
    office.console.print(
        f"{period} {office.region} owes {dispensing} {yuan_of(stated.owed_fen)} yuan:"
        f" {'accepted' if accepted else 'NOT ACCEPTED, the books differ'}"
    )
    for each in response.days:
        _show_differences(office, each.day, list(each.differences), more=each.more)
    return accepted


def _export(tx: Transaction, folder: Path, period: Period, position: Position) -> None:
    base = folder / stem(period, position.payer, position.dispensing)
    begin, end = period.first_day, period.end_day
    with base.with_suffix(".csv").open("w", encoding="utf-8", newline="") as file:
        file.writelines(lines(entries_between(tx, position.book, position.counterpart, begin, end)))
    if position.clearing is None:
        return
    signed = {
        STATEMENT_SUFFIX: position.clearing.statement,
        ACCEPTANCE_SUFFIX: position.clearing.acceptance,
    }
    for suffix, statement in signed.items():
        if statement is not None:
            base.with_suffix(suffix).write_bytes(statement.SerializeToString())


def _show_positions(office: _Office, period: Period, found: list[Position]) -> None:
    table = Table(title=f"Clearing {period}, region {office.region}")
    for column in ("payer", "dispensing", "posted", "reversed", "adjustments", "owed", "state"):
        table.add_column(column, justify="left" if column == "state" else "right")
    for each in found:
        figures = each.listed.tally.figures
        table.add_row(
            each.payer,
            each.dispensing,
            str(figures.posting_count),
            str(figures.reversal_count),
            yuan_of(figures.adjustment_fen),
            yuan_of(figures.owed_fen),
            each.standing,
        )
    office.console.print(table)


def _show_reconciliation(office: _Office, pair: Pair, day: date, found: Reconciliation) -> None:
    words = "agree" if found.agreed else "DIFFER"
    office.console.print(
        f"{day} {pair.payer} owes {pair.dispensing}: books {words};"
        f" here {_sums(found.here)}; there {_sums(found.there)}"
    )
    _show_differences(office, day.isoformat(), list(found.differences), more=found.more)


def _show_differences(
    office: _Office, day: str, differences: list[DayDifference], *, more: bool
) -> None:
    for each in differences:
        office.console.print(f"  {day} {each.settlement_id}: {_words(each)}")
    if more:
        office.console.print("  and more")


def _sums(totals: tuple[Totals, ...]) -> str:
    return "nothing" if not totals else " and ".join(_sum(each) for each in totals)


def _sum(totals: Totals) -> str:
    owed = totals.pool_fen + totals.account_fen + totals.family_fen
    return f"{totals.count} entries, {yuan_of(owed)} of {yuan_of(totals.total_fen)}"


def _words(difference: DayDifference) -> str:
    """A difference as one sentence; here is this region, there the other."""
    kind = DayDifference.Kind.Name(difference.kind).removeprefix("KIND_").replace("_", " ").lower()
    movement = clearing_pb2.LedgerEntry.Movement.Name(difference.movement)
    parts = [
        f"{each.field.removesuffix('_fen')} {yuan_of(each.here_fen)} here,"
        f" {yuan_of(each.there_fen)} there"
        for each in difference.amounts
    ]
    if difference.here_state or difference.there_state:
        parts.append(
            f"{_state(difference.here_state)} here, {_state(difference.there_state)} there"
        )
    if difference.there_day:
        parts.append(f"{difference.there_day} there")
    head = f"{movement.removeprefix('MOVEMENT_').lower()} {kind}"
    return ": ".join([head, "; ".join(parts)]) if parts else head


def _state(state: settlement_pb2.Settlement.State.ValueType) -> str:
    return settlement_pb2.Settlement.State.Name(state).removeprefix("STATE_").lower()
