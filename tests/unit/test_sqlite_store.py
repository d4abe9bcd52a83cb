"""What is special about the store in a SQLite file: disk, process, writer and query plans."""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database, Migrations

from rxoutflow_server.application.ports import Transaction
from rxoutflow_server.domain.errors import InvariantBroken, Reason, Refusal, Unavailable
from rxoutflow_server.storage import tables
from rxoutflow_server.storage.errors import StoreError
from rxoutflow_server.storage.sqlite import SqliteStore, connection, store
from rxoutflow_server.storage.sqlite.connection import open_reader, open_writer
from rxoutflow_server.storage.sqlite.schema import migrate
from support.records import HOSPITAL, NOW, NUMBER, prescription, statement

PATIENCE = 20  # seconds until a hand-over between threads that does not come is a failure


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "region.db"


@pytest.fixture
async def platform(path: Path) -> AsyncIterator[SqliteStore[Transaction]]:
    async with SqliteStore.open(path, "platform") as opened:
        yield opened


def adding(number: str) -> Callable[[Transaction], bool]:
    return lambda tx: tx.home.add_prescription(prescription(number))


async def numbers(opened: SqliteStore[Transaction]) -> set[str]:
    found = await opened.read(lambda tx: tx.home.prescriptions_of(HOSPITAL, "", 100_000))
    return {each.number for each in found}


class Hold:
    """A command that keeps the writer busy until it is let go."""

    def __init__(self, opened: SqliteStore[Transaction]) -> None:
        self._running, self._go = threading.Event(), threading.Event()
        self._answer = asyncio.ensure_future(opened.transact(self._wait))

    async def __aenter__(self) -> None:
        assert await asyncio.to_thread(self._running.wait, PATIENCE)

    async def __aexit__(self, *_error: object) -> None:
        await asyncio.sleep(0)  # everything that was begun meanwhile reaches the queue
        self._go.set()
        assert await self._answer

    def _wait(self, tx: Transaction) -> bool:
        self._running.set()
        return self._go.wait(PATIENCE)


# --- the file -------------------------------------------------------------------------------------


def test_the_writer_has_what_durability_rests_on(path: Path) -> None:
    with closing(open_writer(path)) as writer:
        found = {
            name: writer.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_a_reader_neither_writes_nor_checkpoints(path: Path) -> None:
    with closing(open_writer(path)) as writer, closing(open_reader(path)) as reader:
        writer.execute("CREATE TABLE t (x)")
        assert reader.execute("PRAGMA wal_autocheckpoint").fetchone() == (0,)
        with pytest.raises(sqlite3.OperationalError):
            reader.execute("INSERT INTO t VALUES (1)")
        with pytest.raises(sqlite3.OperationalError):
            reader.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()


def test_a_place_without_a_write_ahead_log_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_memory(_path: Path, _mode: str) -> sqlite3.Connection:
        return sqlite3.connect(":memory:", isolation_level=None)

    monkeypatch.setattr(connection, "_connected", in_memory)
    with pytest.raises(StoreError, match=r"region\.db: journal_mode is 'memory'.*local disk"):
        SqliteStore.open(path, "platform")


async def test_only_the_service_may_read_the_files(
    path: Path, platform: SqliteStore[Transaction]
) -> None:
    await platform.transact(adding("350200-1"))
    files = {each.name: each.stat().st_mode & 0o777 for each in path.parent.iterdir()}
    assert set(files) == {"region.db", "region.db-wal", "region.db-shm", "region.db.lock"}
    assert set(files.values()) == {0o600}


async def test_a_closed_store_is_one_file_and_its_lock(path: Path) -> None:
    async with SqliteStore.open(path, "platform") as opened:
        await opened.transact(adding("350200-1"))
    assert {each.name for each in path.parent.iterdir()} == {"region.db", "region.db.lock"}


async def test_a_file_is_open_in_one_process_only(
    path: Path, platform: SqliteStore[Transaction]
) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from rxoutflow_server.storage.sqlite import SqliteStore\n"
        "SqliteStore.open(Path(sys.argv[1]), 'platform')\n"
    )
    second = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", program, str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert second.returncode != 0
    assert f"{path} is open in another process" in second.stderr
    with pytest.raises(StoreError, match="open in another process"):
        SqliteStore.open(path, "platform")


async def test_a_file_can_be_opened_again_after_closing_or_a_failed_opening(path: Path) -> None:
    await SqliteStore.open(path, "platform").close()
    with pytest.raises(StoreError):
        SqliteStore.open(path, "edge")
    async with SqliteStore.open(path, "platform") as again:
        assert await again.transact(adding("350200-1"))


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"nowhere/region\.db\.lock: .*create the directory"):
        SqliteStore.open(tmp_path / "nowhere" / "region.db", "platform")


def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path) -> None:
    path.write_text("a list of patients, and no database " * 100)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"region\.db cannot be opened as a store"):
        SqliteStore.open(path, "platform")
    assert path.read_bytes() == before


async def test_the_store_of_another_kind_is_refused(path: Path) -> None:
    await SqliteStore.open(path, "edge").close()
    with pytest.raises(StoreError, match="kind edge"):
        SqliteStore.open(path, "platform")


async def test_the_store_of_a_newer_release_is_refused(path: Path) -> None:
    await SqliteStore.open(path, "platform").close()
    with closing(sqlite3.connect(path)) as raw:
        newer = Migrations("platform")
        newer(name="9999_from_the_future")(lambda database: None)
        newer.apply(Database(raw))
    with pytest.raises(StoreError, match=r"newer release \(9999_from_the_future\)"):
        SqliteStore.open(path, "platform")


# --- the writer -----------------------------------------------------------------------------------


async def test_commands_that_wait_together_are_committed_together(path: Path) -> None:
    commits: list[int] = []
    async with SqliteStore.open(path, "platform", on_commit=commits.append) as opened:
        async with Hold(opened):
            waiting = [asyncio.ensure_future(opened.transact(adding(f"{i}"))) for i in range(100)]
        assert all(await asyncio.gather(*waiting))
    assert commits == [1, 100]


async def test_a_commit_is_bounded(path: Path) -> None:
    commits: list[int] = []
    async with SqliteStore.open(path, "platform", on_commit=commits.append) as opened:
        async with Hold(opened):
            waiting = [asyncio.ensure_future(opened.transact(adding(f"{i}"))) for i in range(300)]
        assert all(await asyncio.gather(*waiting))
    assert commits == [1, 256, 44]


async def test_commands_run_in_the_order_in_which_they_came(
    platform: SqliteStore[Transaction],
) -> None:
    ran: list[int] = []
    async with Hold(platform):
        waiting = [
            asyncio.ensure_future(platform.transact(partial(append, ran, i))) for i in range(50)
        ]
    await asyncio.gather(*waiting)
    assert ran == list(range(50))


def append(ran: list[int], number: int, tx: Transaction) -> None:
    ran.append(number)


async def test_too_many_waiting_commands_are_refused_without_being_run(
    path: Path, platform: SqliteStore[Transaction], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rxoutflow_server.storage.waiting.MAX_WAITING", 3)
    async with Hold(platform):
        waiting = [asyncio.ensure_future(platform.transact(adding(f"{i}"))) for i in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Refusal) as refused:
            await platform.transact(adding("refused"))
        assert refused.value.reason is Reason.OVERLOADED
    await asyncio.gather(*waiting)
    assert await numbers(platform) == {"0", "1"}
    assert await platform.transact(adding("after"))


async def test_too_many_waiting_queries_are_refused(
    platform: SqliteStore[Transaction], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rxoutflow_server.storage.waiting.MAX_WAITING", 1)
    go = threading.Event()
    reading = asyncio.ensure_future(platform.read(lambda tx: go.wait(PATIENCE)))
    await asyncio.sleep(0)
    with pytest.raises(Refusal) as refused:
        await numbers(platform)
    assert refused.value.reason is Reason.OVERLOADED
    go.set()
    assert await reading
    assert await numbers(platform) == set()


async def test_a_command_whose_caller_has_gone_is_not_run(
    platform: SqliteStore[Transaction],
) -> None:
    async with Hold(platform):
        gone = asyncio.ensure_future(platform.transact(adding("gone")))
        stays = asyncio.ensure_future(platform.transact(adding("stays")))
        await asyncio.sleep(0)
        gone.cancel()
    assert await stays
    assert await numbers(platform) == {"stays"}


async def test_a_command_that_raises_stop_iteration_leaves_nobody_waiting(
    platform: SqliteStore[Transaction],
) -> None:
    empty: list[bool] = []
    async with Hold(platform):
        broken = asyncio.ensure_future(platform.transact(lambda tx: next(iter(empty))))
        behind = asyncio.ensure_future(platform.transact(adding("behind")))
    with pytest.raises(InvariantBroken):
        await broken
    assert await behind


async def test_the_driver_s_own_errors_never_leave_the_store(
    platform: SqliteStore[Transaction],
) -> None:
    def unbindable(tx: Transaction) -> None:
        tx.journal.keep_statement("350200-1", b"too short", statement(), NOW)

    with pytest.raises(InvariantBroken):
        await platform.transact(unbindable)


async def test_a_closed_store_answers_unavailable(path: Path) -> None:
    opened = SqliteStore.open(path, "platform")
    await opened.close()
    await opened.close()
    for call in (opened.transact, opened.read):
        with pytest.raises(Unavailable) as unavailable:
            await call(lambda tx: None)
        assert unavailable.value.reason is Reason.STORE_UNAVAILABLE


# --- when the disk fails --------------------------------------------------------------------------


class FailingDisk:
    """A connection on whose disk COMMIT fails once ``broken`` is set."""

    def __init__(self, real: sqlite3.Connection) -> None:
        self._real = real
        self.broken = False

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if self.broken and sql == "COMMIT":
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR
            error.sqlite_errorname = "SQLITE_IOERR_FSYNC"
            raise error
        return self._real.execute(sql, *parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


async def test_when_a_commit_fails_everybody_hears_it_and_the_store_stops(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disks: list[FailingDisk] = []

    def on_a_failing_disk(at: Path) -> FailingDisk:
        disks.append(FailingDisk(open_writer(at)))
        return disks[0]

    monkeypatch.setattr(store, "open_writer", on_a_failing_disk)
    told: list[StoreError] = []
    opened = SqliteStore.open(path, "platform", on_failure=told.append)
    assert await opened.transact(adding("before"))

    def break_it(tx: Transaction) -> bool:
        disks[0].broken = True
        return True

    async with Hold(opened):
        waiting = [asyncio.ensure_future(opened.transact(break_it))]
        waiting += [asyncio.ensure_future(opened.transact(adding(f"{i}"))) for i in range(300)]
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    late = await asyncio.gather(
        opened.transact(adding("after")), numbers(opened), return_exceptions=True
    )
    assert {type(each) for each in [*answers, *late]} == {Unavailable}
    assert len({id(each) for each in answers}) == len(answers)  # nobody shares a traceback
    (stopped,) = told
    assert str(path) in str(stopped)
    assert "SQLITE_IOERR_FSYNC" in str(stopped)
    await opened.close()
    monkeypatch.undo()
    async with SqliteStore.open(path, "platform") as again:
        assert await numbers(again) == {"before"}


async def test_when_the_disk_is_full_nothing_that_was_answered_is_lost(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_a_small_disk(at: Path) -> sqlite3.Connection:
        writer = open_writer(at)
        writer.execute("PRAGMA max_page_count = 120")
        return writer

    monkeypatch.setattr(store, "open_writer", on_a_small_disk)
    told: list[StoreError] = []
    names = [f"350200-{i:05}" for i in range(2_000)]
    opened = SqliteStore.open(path, "platform", on_failure=told.append)
    answers = await asyncio.gather(
        *(opened.transact(adding(name)) for name in names), return_exceptions=True
    )
    await opened.close()
    monkeypatch.undo()
    acknowledged = {name for name, answer in zip(names, answers, strict=True) if answer is True}
    assert 0 < len(acknowledged) < len(names)
    assert {type(answer) for answer in answers} == {bool, Unavailable}
    assert [("SQLITE_FULL" in str(error)) for error in told] == [True]
    async with SqliteStore.open(path, "platform") as again:
        assert await numbers(again) == acknowledged


async def test_a_damaged_file_found_by_a_query_stops_the_store(path: Path) -> None:
    async with SqliteStore.open(path, "platform") as opened:
        for i in range(300):
            await opened.transact(adding(f"350200-{i:05}"))
    size = path.stat().st_size
    with closing(sqlite3.connect(path)) as raw:
        ((roots,),) = raw.execute("SELECT max(rootpage) FROM sqlite_schema").fetchall()
    with path.open("r+b") as file:  # all but the schema and the roots is overwritten
        file.seek(4096 * roots)
        file.write(b"\xff" * (size - 4096 * roots))
    told: list[StoreError] = []
    opened = SqliteStore.open(path, "platform", on_failure=told.append)
    with pytest.raises(Unavailable):
        await numbers(opened)
    with pytest.raises(Unavailable):
        await opened.transact(adding("after"))
    assert len(told) == 1
    assert "SQLITE_CORRUPT" in str(told[0])
    await opened.close()


WORKER = """
import asyncio, sys
from pathlib import Path
from rxoutflow_server.storage.sqlite import SqliteStore
from support.records import prescription

async def client(store, name):
    for i in range(1_000_000):
        number = f"{name}-{i}"
        await store.transact(lambda tx: tx.home.add_prescription(prescription(number)))
        print(number, flush=True)

async def main():
    store = SqliteStore.open(Path(sys.argv[1]), "platform")
    await asyncio.gather(*(client(store, name) for name in range(16)))

asyncio.run(main())
"""


async def test_what_was_answered_survives_a_killed_process(
    path: Path, pytestconfig: pytest.Config
) -> None:
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(pytestconfig.rootpath / "tests")},
    )
    assert worker.stdout is not None
    answered = [worker.stdout.readline().strip() for _ in range(500)]
    worker.send_signal(signal.SIGKILL)
    # The last line may have been cut off in the middle.
    answered += [line.strip() for line in worker.stdout if line.endswith("\n")]
    worker.wait()
    worker.stdout.close()
    async with SqliteStore.open(path, "platform") as again:
        assert set(answered) <= await numbers(again)
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        (orphans,) = raw.execute(
            "SELECT COUNT(*) FROM prescriptions WHERE prescription_number NOT IN"
            " (SELECT prescription_number FROM prescription_lines)"
        ).fetchone()
        assert orphans == 0


# --- backup ---------------------------------------------------------------------------------------


async def test_a_backup_is_a_store_with_everything_that_was_answered(
    tmp_path: Path, platform: SqliteStore[Transaction]
) -> None:
    await platform.transact(adding("before"))
    copy = tmp_path / "backup.db"
    await platform.backup(copy)
    await platform.transact(adding("after"))
    assert copy.stat().st_mode & 0o777 == 0o600
    async with SqliteStore.open(copy, "platform") as restored:
        assert await numbers(restored) == {"before"}


async def test_a_backup_overwrites_nothing_and_leaves_no_part_behind(
    tmp_path: Path, platform: SqliteStore[Transaction]
) -> None:
    existing = tmp_path / "backup.db"
    existing.write_text("yesterday's")
    with pytest.raises(StoreError, match=r"backup\.db exists"):
        await platform.backup(existing)
    assert existing.read_text() == "yesterday's"
    with pytest.raises(StoreError, match="no backup"):
        await platform.backup(tmp_path / "nowhere" / "backup.db")
    assert not list(tmp_path.glob("*.partial"))


# --- the statements -------------------------------------------------------------------------------

STATEMENT = r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH)\b"
SHARD_KEYS = (
    "prescription_number", "insured_person_id", "institution_code", "region_code", "code", "stream",
)  # fmt: skip
OF_THE_REGION = {
    "certificates._CERTIFICATE",
    "certificates.KEEP_CERTIFICATE",
    "log._ADD_CHECKPOINT",
    "log._ADD_SIGNER",
}
"""Once for a commit, not for a command: there is one log for the region. Or once for a signer."""


def statements() -> dict[str, str]:
    """Every SQL statement of the tables by its name."""
    found: dict[str, str] = {}
    for module in pkgutil.iter_modules(tables.__path__, f"{tables.__name__}."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, str) and re.match(STATEMENT, value):
                found[f"{module.name.rpartition('.')[2]}.{name}"] = value
    return found


HOT = {
    name: sql
    for name, sql in statements().items()
    if "._SWEEP_" not in name and name not in OF_THE_REGION
}


def test_the_statements_are_found() -> None:
    assert len(HOT) > 40
    assert len(statements()) - len(HOT) >= 8


@pytest.mark.parametrize("name", HOT)
def test_a_statement_of_a_command_names_the_shard_key(name: str) -> None:
    sql = HOT[name]
    if sql.strip().startswith("INSERT"):
        columns = sql[sql.index("(") + 1 : sql.index(")")].replace("\n", " ").split(",")
        named = {column.strip() for column in columns}
        assert named & {*SHARD_KEYS, "issuer_code"}
        return
    wheres = [each for each in re.split(r"\bWHERE\b", sql)[1:] if each]
    assert wheres
    keys = "|".join(SHARD_KEYS)
    assert all(re.search(rf"\b({keys}) = \?", where) for where in wheres)


@pytest.mark.parametrize("name", statements())
def test_no_statement_looks_at_a_whole_table_or_sorts_one(name: str, path: Path) -> None:
    sql = statements()[name]
    with closing(open_writer(path)) as raw:
        migrate(raw, path, "edge" if name.startswith("edge.") else "platform")
        steps = raw.execute(f"EXPLAIN QUERY PLAN {sql}", (0,) * sql.count("?")).fetchall()
    plan = [detail for *_, detail in steps]
    scans = [each for each in plan if each.startswith("SCAN") and each != "SCAN peers"]
    assert not [each for each in scans if "USING" not in each]  # partial indexes are short
    if "_SWEEP_" in name:
        assert not [each for each in plan if "TEMP B-TREE" in each]
    # What holds an event up is looked for on its own prescription only.
    looked_up = [each for each in plan if each.startswith("SEARCH earlier")]
    assert all("prescription_number=?" in each for each in looked_up)


@pytest.mark.parametrize("name", statements())
def test_statements_are_portable(name: str) -> None:
    sql = statements()[name].upper()
    engine_s_own = r"\b(OR REPLACE|OR IGNORE|ROWID|LAST_INSERT|JSON_|DATETIME|STRFTIME|PRAGMA)"
    assert not re.search(engine_s_own, sql)
    # Other drivers write placeholders as %s or $1: ours must be told from the text by sight.
    assert "%" not in sql
    assert not [text for text in re.findall(r"'[^']*'", sql) if "?" in text]


async def test_a_command_sees_what_an_earlier_one_of_its_batch_did(path: Path) -> None:
    async with SqliteStore.open(path, "platform") as opened:
        added, found = await asyncio.gather(
            opened.transact(lambda tx: tx.home.add_prescription(prescription())),
            opened.transact(lambda tx: tx.home.prescription(NUMBER)),
        )

    assert (added, found) == (True, prescription())
