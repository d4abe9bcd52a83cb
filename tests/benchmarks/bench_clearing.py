"""Clear 1,000,000 settlements between 30 regions; prints time and memory. Run it by hand:

    .venv/bin/python tests/benchmarks/bench_clearing.py [SETTLEMENTS]

Two measurements, each in a process of its own so that their memory does not add up. *Sums* makes
every statement of every pair from entries that are generated on the way, with the digest of each
list, and nets them. *Store* books the entries of one payer with 29 regions in a SQLite store first,
which is the most that one region's platform ever has to do, and then makes its 29 statements.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from itertools import permutations
from pathlib import Path
from random import Random

import click

from rxoutflow_server.application.clearing.lists import Listed, listed, listed_book
from rxoutflow_server.domain.clearing import Obligation, Period, bilateral_nets, net_positions
from rxoutflow_server.domain.ledger import Book, Entry, Mode, Movement
from rxoutflow_server.storage.sqlite.connection import open_writer
from rxoutflow_server.storage.sqlite.schema import migrate
from rxoutflow_server.storage.tables.transaction import PlatformTables

PERIOD = Period(2026, 11)
REGIONS = [f"{code:06}" for code in range(110000, 140000, 1000)]
SETTLEMENTS = 1_000_000
REVERSED_IN_HUNDRED = 3
BATCH = 5_000


def entries(count: int, random: Random, prefix: str) -> Iterator[Entry]:
    """A pair's entries in the order of a book: postings, and some reversals of earlier ones."""
    before = PERIOD.first_day - timedelta(days=1)
    days = (PERIOD.end_day - PERIOD.first_day).days
    for index in range(count):
        day = PERIOD.first_day + timedelta(days=index * days // count)
        reversal = random.randrange(100) < REVERSED_IN_HUNDRED
        parts = [random.randrange(50_000) for _ in range(4)]
        yield entry(f"{prefix}-{index:08}", day, parts, before if reversal else day)


def entry(settlement_id: str, day: date, parts: list[int], posted_day: date) -> Entry:
    """One entry; a reversal if it was posted on another day."""
    return Entry(
        day=day,
        settlement_id=settlement_id,
        movement=Movement.POSTING if day == posted_day else Movement.REVERSAL,
        prescription_number=f"350200{settlement_id:>24}",
        pharmacy_code="P35050000001",
        mode=Mode.INSURANCE,
        total_fen=sum(parts),
        pool_fen=parts[0],
        account_fen=parts[1],
        family_fen=parts[2],
        cash_fen=parts[3],
        posted_day=posted_day,
    )


def measure_sums(settlements: int) -> None:
    """All statements of all pairs, and the nets."""
    pairs = list(permutations(REGIONS, 2))
    random = Random(1)
    owed, done = [], 0
    for index, (payer, dispensing) in enumerate(pairs):
        count = (index + 1) * settlements // len(pairs) - done
        done += count
        made = listed(PERIOD, entries(count, random, f"{payer}{dispensing}"))
        owed.append(Obligation(payer, dispensing, made.tally.figures.owed_fen))
    positions, nets = net_positions(owed), bilateral_nets(owed)
    assert done == settlements
    assert sum(positions.values()) == 0
    click.echo(f"  {done:,} entries, {len(pairs)} statements, {len(nets)} nets; positions sum to 0")


def measure_store(settlements: int) -> None:
    """The statements of one payer that has all the settlements in its books."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "platform.db"
        connection = open_writer(path)
        migrate(connection, path, "platform")
        tables = PlatformTables(connection)
        started = time.perf_counter()
        others = REGIONS[1:]
        for index, other in enumerate(others):
            count = (index + 1) * settlements // len(others) - index * settlements // len(others)
            _book(connection.execute, tables, other, entries(count, Random(index), other))
        click.echo(f"  booked in {time.perf_counter() - started:.1f} s (not part of the clearing)")
        started = time.perf_counter()
        connection.execute("BEGIN")
        made = [listed_book(tables, Book.PAYABLE, other, PERIOD) for other in others]
        connection.execute("ROLLBACK")
        seconds = time.perf_counter() - started
        click.echo(f"  {_entries(made):,} entries, {len(made)} statements in {seconds:.1f} s")
        assert _entries(made) == settlements
        connection.close()


def _book(
    execute: Callable[[str], object], tables: PlatformTables, other: str, book: Iterator[Entry]
) -> None:
    execute("BEGIN")
    for index, each in enumerate(book):
        if index % BATCH == BATCH - 1:
            execute("COMMIT")
            execute("BEGIN")
        tables.clearing.add_entry(Book.PAYABLE, other, each)
    execute("COMMIT")


def _entries(made: list[Listed]) -> int:
    return sum(each.tally.figures.totals.count for each in made)


def _measured(name: str, work: Callable[[int], None], settlements: int) -> None:
    click.echo(f"{name}:")
    started = time.perf_counter()
    work(settlements)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    click.echo(f"  {seconds:.1f} s in all, at most {peak:.0f} MiB")


def main() -> None:
    """Run both measurements."""
    settlements = int(sys.argv[1]) if len(sys.argv) > 1 else SETTLEMENTS
    for name, work in (("sums", measure_sums), ("store", measure_store)):
        process = multiprocessing.get_context("spawn").Process(
            target=_measured, args=(name, work, settlements)
        )
        process.start()
        process.join()
        if process.exitcode:
            sys.exit(process.exitcode)


if __name__ == "__main__":
    main()
