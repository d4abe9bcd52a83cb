"""What an operator of the sandbox sees and does: waiting events, the commands for clearing.

Looks into the platforms' files and runs commands of ``rxoutflow-server``, as an operator may; they
run in this process, which saves starting ten. What is planted here is planted into the file of a
platform that is down, and taken out again.
"""

from __future__ import annotations

import csv
import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import closing, redirect_stderr, redirect_stdout
from datetime import datetime
from io import StringIO
from pathlib import Path

from demonstration.report import Filled, Pair
from demonstration.stage import CITIES, Stage
from rxoutflow.documents import CHINA
from rxoutflow_server.cli_clearing import clearing_group

PLANTED_FEN = 100
_PAYER, _OTHER = CITIES["nantong"], CITIES["quanzhou"]


def used_before(stage: Stage) -> bool:
    """Whether anything was settled in this sandbox, so that the figures cannot be those of it."""
    return any(_count(store, "settlements") for store in _stores(stage, "platforms/*/platform.db"))


def undelivered(stage: Stage) -> int:
    """How many facts wait in the outboxes of platforms and edges, or were set aside there."""
    edges = _stores(stage, "edges/*/edge.db")
    return (
        sum(_count(store, "outbox") for store in _stores(stage, "platforms/*/platform.db"))
        + sum(_count(store, "handovers", "delivered = 0") for store in edges)
        + sum(_count(store, "issued_prescriptions", "registration = 'queued'") for store in edges)
    )


def plant_and_find(stage: Stage, filled: Filled) -> None:
    """Change a figure in the book of the payer that is down; the comparison of the day names it."""
    settlement_id, report = filled.committed.settlement_id, stage.report
    day = _now().date().isoformat()
    told = {}
    for change in (PLANTED_FEN, -PLANTED_FEN):
        _edit(stage, settlement_id, change)
        command = ("reconcile", "--day", day, "--region", _OTHER)
        status, said = _clearing(stage, _PAYER, *command)
        told[change] = said
        scene = report.scene("the daily comparison of 南通 with 泉州")
        found = re.findall(rf"{settlement_id}: ([^;]+)", said)
        planted = change > 0
        scene.note(
            "with 1.00 yuan added by hand in the book of 南通" if planted else "put back",
            f"exit status {status}; {found[0] if found else 'books agree'}",
        )
        name = "the planted difference is found and named" if planted else "no difference is left"
        report.check(name, (status == 1 and bool(found)) == planted, said)


def cleared(stage: Stage) -> list[Pair]:
    """What every region owes every other one this month, from the lists that all of them write."""
    period = f"{_now():%Y-%m}"
    for code in CITIES.values():
        folder = stage.folder / "lists" / code
        status, said = _clearing(stage, code, "export", "--period", period, "--csv", str(folder))
        stage.report.check(f"region {code} writes its lists", status in (0, 1), said)
    files = {path.name for path in (stage.folder / "lists").rglob("*.csv")}
    return [_pair(stage, name) for name in sorted(files)]


def nets(pairs: Iterable[Pair]) -> Mapping[str, int]:
    """What each region receives in all, in fen; negative if it pays."""
    net: Counter[str] = Counter(dict.fromkeys(CITIES.values(), 0))
    for each in pairs:
        net[each.dispensing] += each.owed_fen
        net[each.payer] -= each.owed_fen
    return net


def month_is_open(stage: Stage) -> str:
    """What a payer is told that wants to state a month which is not over."""
    status, said = _clearing(stage, _PAYER, "propose", "--period", f"{_now():%Y-%m}")
    return said.removeprefix("Error: ") if status == 2 else ""


def _pair(stage: Stage, name: str) -> Pair:
    payer, dispensing = name.removesuffix(".csv").split("-")[-2:]
    lists = [stage.folder / "lists" / code / name for code in (payer, dispensing)]
    books = [file.read_bytes() if file.exists() else b"" for file in lists]
    rows = list(csv.DictReader(books[0].decode().splitlines()))
    owed = 0
    for row in rows:
        sign = -1 if row["movement"] == "reversal" else 1
        owed += sign * sum(int(row[f"{part}_fen"]) for part in ("pool", "account", "family"))
    reversals = sum(row["movement"] == "reversal" for row in rows)
    same = books[0] == books[1]
    return Pair(payer, dispensing, len(rows) - reversals, reversals, owed, same)


def _clearing(stage: Stage, region: str, verb: str, *arguments: str) -> tuple[int, str]:
    """An operator's command; its exit status and what it said, on one line."""
    config = stage.sandbox.directory / "platforms" / region / "platform.toml"
    said, status = StringIO(), 0
    with redirect_stdout(said), redirect_stderr(said):
        try:
            clearing_group([verb, "--config", str(config), *arguments])
        except SystemExit as ended:
            status = int(ended.code or 0)
    return status, " ".join(said.getvalue().split())


def _edit(stage: Stage, settlement_id: str, fen: int) -> None:
    store = stage.sandbox.directory / "platforms" / _PAYER / "platform.db"
    with closing(sqlite3.connect(store)) as connection, connection:
        connection.execute(
            "UPDATE ledger_entries SET pool_fen = pool_fen + ?, total_fen = total_fen + ? "
            "WHERE book = 'payable' AND settlement_id = ?",
            (fen, fen, settlement_id),
        )


def _stores(stage: Stage, pattern: str) -> list[Path]:
    return sorted(stage.sandbox.directory.glob(pattern))


def _count(store: Path, table: str, condition: str = "1") -> int:
    with closing(sqlite3.connect(f"{store.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        query = f"SELECT count(*) FROM {table} WHERE {condition}"  # noqa: S608 - no input
        (count,) = connection.execute(query).fetchone()
    return int(count)


def _now() -> datetime:
    return datetime.now(CHINA)
