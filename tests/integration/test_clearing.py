"""A day reconciled and a month cleared between real servers, as operators and pharmacies do it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest

from rxoutflow.client import sale
from rxoutflow.errors import InvalidInput
from rxoutflow.v1.clearing_pb2 import DayDifference
from rxoutflow.v1.dispense_pb2 import DispenseProgress, DispenseRecord
from rxoutflow_server.application.clearing.books import local_day
from rxoutflow_server.domain.clearing import Period
from support.exchanges import THREE_REGIONS, Exchange
from support.sandbox import LiveSandbox, eventually, run_program, run_sandbox

PAYER, DISPENSING = THREE_REGIONS.payer, THREE_REGIONS.dispensing
LAST_MONTH = local_day(datetime.now(UTC)).replace(day=1) - timedelta(days=1)
PERIOD = str(Period.of(LAST_MONTH))


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveSandbox]:
    with run_sandbox(tmp_path_factory.mktemp("clearing")) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def done(sandbox: LiveSandbox) -> Exchange:
    """A prescription that was filled, paid, and told to everybody."""
    exchange = Exchange(sandbox).issue().claim().commit().record()
    eventually(lambda: exchange.state == DispenseProgress.STATE_COMPLETED)
    eventually(lambda: not sandbox.undelivered())
    return exchange


def config(sandbox: LiveSandbox, region: str) -> Path:
    return sandbox.layout.directory / "platforms" / region / "platform.toml"


def clearing(
    sandbox: LiveSandbox, command: str, *more: str | Path, region: str = PAYER
) -> tuple[int, str]:
    """An operator's command; its exit status and what it said, on one line."""
    at = ("--config", config(sandbox, region))
    result = run_program("rxoutflow-server", "clearing", command, *at, *more)
    assert "Traceback" not in result.stderr
    return result.returncode, " ".join((result.stdout + result.stderr).split())


def edit(sandbox: LiveSandbox, region: str, *statements: str) -> None:
    """Somebody edits a platform's database while the platform is down."""
    server = f"platform-{region}"
    with sandbox.servers.killed(server):
        store = config(sandbox, region).with_name("platform.db")
        with closing(sqlite3.connect(store)) as connection, connection:
            for statement in statements:
                connection.execute(statement)


def sold_on(exchange: Exchange) -> date:
    """The day on which the pharmacy sold."""
    record = DispenseRecord.FromString(exchange.record_request.dispense_record.payload)
    return local_day(record.dispense_time.ToDatetime(UTC))


def posted_on(exchange: Exchange) -> date:
    """The day on which the payer posted."""
    settlement = exchange.pharmacy.progress(exchange.attempt.content).settlement
    assert settlement is not None
    return local_day(settlement.content.update_time.ToDatetime(UTC))


def test_a_pharmacy_reconciles_its_day(done: Exchange) -> None:
    sold = sale(done.committed)
    found = done.pharmacy.reconcile(sold_on(done), [sold])
    assert found.agreed
    assert found.here == found.there
    wrong = sale(done.committed)
    wrong.cash_fen += 1
    wrong.total_fen += 1
    (difference,) = done.pharmacy.reconcile(sold_on(done), [wrong]).differences
    assert difference.kind == DayDifference.KIND_AMOUNT_DIFFERS
    assert [each.field for each in difference.amounts] == ["total_fen", "cash_fen"]
    with pytest.raises(InvalidInput, match="twice"):
        done.pharmacy.reconcile(sold_on(done), [sold, sold])


def test_regions_reconcile_a_day_and_name_a_planted_difference(
    sandbox: LiveSandbox, done: Exchange
) -> None:
    day = ("--day", posted_on(done).isoformat())
    for region in (PAYER, DISPENSING):
        status, said = clearing(sandbox, "reconcile", *day, region=region)
        assert (status, "DIFFER" in said) == (0, False), said
        assert f"{PAYER} owes {DISPENSING}: books agree; here 1 entries" in said
    plant = "UPDATE ledger_entries SET pool_fen = pool_fen {} 1, total_fen = total_fen {} 1"
    edit(sandbox, DISPENSING, plant.format("+", "+") + " WHERE book = 'receivable'")
    status, said = clearing(sandbox, "reconcile", *day, "--region", DISPENSING)
    assert status == 1
    assert f"{done.committed.settlement_id}: posting amount differs: total" in said
    edit(sandbox, DISPENSING, plant.format("-", "-") + " WHERE book = 'receivable'")
    assert clearing(sandbox, "reconcile", *day)[0] == 0


def test_a_month_is_proposed_accepted_shown_and_exported(
    sandbox: LiveSandbox, done: Exchange, tmp_path: Path
) -> None:
    month = ("--period", PERIOD)
    moved = f"UPDATE ledger_entries SET day = '{LAST_MONTH}', posted_day = '{LAST_MONTH}'"  # noqa: S608 - no input
    edit(sandbox, PAYER, moved)
    status, said = clearing(sandbox, "propose", *month)
    assert status == 1
    assert f"NOT ACCEPTED, the books differ {LAST_MONTH} {done.committed.settlement_id}" in said
    assert clearing(sandbox, "show", *month)[0] == 1

    edit(sandbox, DISPENSING, moved)
    assert clearing(sandbox, "prepare", *month)[0] == 0
    status, said = clearing(sandbox, "propose", *month)
    amounts = done.amounts
    owed = amounts.pool_fen + amounts.account_fen + amounts.family_fen
    assert (status, f"owes {DISPENSING} {owed / 100:.2f} yuan: accepted" in said) == (0, True), said
    for region in (PAYER, DISPENSING):
        status, said = clearing(sandbox, "show", *month, region=region)
        assert (status, "accepted" in said) == (0, True), said

    report = tmp_path / "report.md"
    for region in (PAYER, DISPENSING):
        out = ("--csv", tmp_path / "cleared", "--report", report)
        assert clearing(sandbox, "export", *month, *out, region=region)[0] == 0
        page = report.read_text("utf-8")
        listed = (tmp_path / "cleared" / f"{PERIOD}-{PAYER}-{DISPENSING}.csv").read_bytes()
        assert done.committed.settlement_id in listed.decode()
        assert sha256(listed).hexdigest() in page
        assert f"| {DISPENSING} | {owed / 100:.2f} | 0.00 |" in page
        assert "The positions sum to 0.00." in page


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("reconcile", "--day", "yesterday"), "must be a day as YYYY-MM-DD"),
        (("prepare", "--period", "2026-13"), "must be a month as YYYY-MM"),
        (("propose", "--period", "2099-01", "--region", DISPENSING), "is not over"),
        (("propose", "--period", "2026-01", "--region", "999999"), "999999"),
        (("reconcile", "--day", "2026-01-01", "--region", "999999"), "999999"),
    ],
)
def test_what_cannot_be_done_says_so(
    sandbox: LiveSandbox, command: tuple[str, ...], words: str
) -> None:
    status, said = clearing(sandbox, *command)
    assert (status, words in said) == (2, True), said
