"""What is special about PostgreSQL: several processes, row locks, conflicts, and lost answers.

Sixteen writers on the same prescriptions, at READ COMMITTED as in production and at SERIALIZABLE:
safety must hold at both. ``RXOUTFLOW_RACES`` makes the races longer.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import TypeAlias, TypeVar

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL, Identifier

from rxoutflow.v1.outcome_pb2 import Outcome
from rxoutflow_server.application.exchange.idempotency import RequestKey, once
from rxoutflow_server.application.ports import Transaction
from rxoutflow_server.domain import prescription as transitions
from rxoutflow_server.domain.attempt import Attempt, AttemptState
from rxoutflow_server.domain.errors import InvariantBroken, Reason, Refusal, Unavailable
from rxoutflow_server.domain.prescription import AttemptReference, ClaimTerms, Prescription
from rxoutflow_server.storage.errors import StoreError
from rxoutflow_server.storage.postgres import Options, PostgresStore
from rxoutflow_server.storage.postgres import store as implementation
from rxoutflow_server.storage.postgres.schema import in_postgres
from rxoutflow_server.storage.tables.schema import MIGRATIONS
from support.invariants import check_home
from support.postgres import Server, fresh_schema
from support.records import (
    LEASE,
    NOW,
    NUMBER,
    PERSON,
    digest,
    event,
    outcome,
    person,
    prescription,
    terms,
)

T = TypeVar("T")
Platform: TypeAlias = PostgresStore[Transaction]
SCHEMA = "special"
REQUEST = "0195e9a0-0000-7000-8000-000000000001"
WRITERS = 16
RACES = int(os.environ.get("RXOUTFLOW_RACES", "1"))
"""How many times longer the races are than in the gate; 30 take about ten minutes."""
PATIENCE = 20  # seconds until a hand-over between threads that does not come is a failure


@pytest.fixture
def address() -> str:
    return fresh_schema(SCHEMA)


@pytest.fixture
async def store(address: str) -> AsyncIterator[Platform]:
    async with PostgresStore.open(
        address, "platform", schema=SCHEMA, options=Options(WRITERS)
    ) as opened:
        yield opened


@pytest.fixture(params=["READ COMMITTED", "SERIALIZABLE"])
def isolation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    level: str = request.param
    monkeypatch.setattr(implementation, "ISOLATION", level)
    return level


async def insist(store: Platform, command: Callable[[Transaction], T]) -> T:
    """Repeat a command as a caller would that hears Unavailable."""
    while True:
        with suppress(Unavailable):
            return await store.transact(command)


def claim(tx: Transaction, number: str, pharmacy: int) -> bool:
    """One pharmacy's claim; false if another one holds the prescription."""
    stored = tx.home.prescription(number)
    assert stored is not None
    terms = ClaimTerms(f"P3505000000{pharmacy:02}", "350500", (), digest(f"claim {pharmacy}"))
    try:
        change = transitions.claim(
            stored, terms, attempt_id=f"{number}-{pharmacy}", now=NOW, lease=LEASE
        )
    except Refusal:
        return False
    tx.home.save(change)
    return True


@pytest.mark.usefixtures("isolation")
async def test_of_sixteen_claimers_in_two_processes_worth_of_connections_one_wins(
    address: str,
) -> None:
    numbers = [f"{NUMBER[:-2]}{index:02}" for index in range(40)]
    async with AsyncExitStack() as stack:
        stores = [
            await stack.enter_async_context(
                PostgresStore.open(
                    address, "platform", schema=SCHEMA, options=Options(WRITERS // 2)
                )
            )
            for _ in range(2)
        ]
        for number in numbers:
            fresh = replace(prescription(), number=number, hospital_prescription_number=number)
            await stores[0].transact(lambda tx, fresh=fresh: tx.home.add_prescription(fresh))  # type: ignore[misc] # mypy cannot infer a lambda with a default

        async def contend(number: str, pharmacy: int) -> tuple[str, bool]:
            chosen = stores[pharmacy % 2]
            return number, await insist(chosen, lambda tx: claim(tx, number, pharmacy))

        results = await asyncio.gather(
            *(contend(number, pharmacy) for pharmacy in range(WRITERS) for number in numbers)
        )
        wins = Counter(number for number, won in results if won)
        assert wins == dict.fromkeys(numbers, 1)
        for number in numbers:
            held = await stores[0].read(lambda tx, number=number: tx.home.prescription(number))  # type: ignore[misc] # as above
            assert held is not None
            assert held.live_attempt is not None
            check_home(held, [held.live_attempt])


@pytest.mark.usefixtures("isolation")
async def test_no_update_of_a_balance_is_lost(store: Platform) -> None:
    await store.transact(lambda tx: tx.payer.add_person(person()))
    before = person().own_account_fen

    def spend(tx: Transaction) -> None:
        found = tx.payer.person(PERSON)
        assert found is not None
        tx.payer.save_person(replace(found, own_account_fen=found.own_account_fen - 1))

    await asyncio.gather(*(insist(store, spend) for _ in range(WRITERS * 4)))

    after = await store.read(lambda tx: tx.payer.person(PERSON))
    assert after is not None
    assert before - after.own_account_fen == WRITERS * 4


@pytest.mark.usefixtures("isolation")
async def test_the_same_request_at_once_has_one_effect_and_one_outcome(store: Platform) -> None:
    effects = count()

    def request(tx: Transaction) -> bytes:
        stored = tx.journal.outcome(NUMBER, "caller", "request")
        if stored is not None:
            return stored.response
        mine = replace(outcome(), response=threading.current_thread().name.encode())
        tx.journal.keep_outcome(NUMBER, "caller", "request", mine)
        tx.journal.add_event(event(f"event {next(effects)}"))
        return mine.response

    answers = await asyncio.gather(*(insist(store, request) for _ in range(WRITERS)))

    assert len(set(answers)) == 1
    due = await store.read(
        lambda tx: tx.journal.due_events(event("any").peer_region_code, NOW + timedelta(days=1), 99)
    )
    assert len(due) == 1


@pytest.mark.usefixtures("isolation")
@pytest.mark.timeout(60 + 60 * RACES)
async def test_sixteen_writers_claim_and_release_the_same_prescriptions_again_and_again(
    address: str,
) -> None:
    """On two stores at once: one commits in batches, one each command for itself."""
    numbers = [f"{NUMBER[:-2]}{index:02}" for index in range(4)]
    acknowledged: dict[str, list[str]] = {number: [] for number in numbers}
    async with AsyncExitStack() as stack:
        stores = [
            await stack.enter_async_context(
                PostgresStore.open(
                    address, "platform", schema=SCHEMA, options=Options(WRITERS // 2, alone)
                )
            )
            for alone in (False, True)
        ]
        for number in numbers:
            fresh = replace(prescription(), number=number, hospital_prescription_number=number)
            await stores[0].transact(lambda tx, fresh=fresh: tx.home.add_prescription(fresh))  # type: ignore[misc] # mypy cannot infer a lambda with a default

        async def contend(writer: int) -> None:
            store = stores[writer % 2]
            for turn in range(20 * RACES):
                number = numbers[(writer + turn) % len(numbers)]
                mine = f"{number}-{writer}-{turn}"
                if await insist(store, partial(_claims, number, mine, writer)):
                    acknowledged[number].append(mine)
                    await insist(store, partial(_releases, number, mine, writer))

        await asyncio.gather(*map(contend, range(WRITERS)))

        for number, claimed in acknowledged.items():
            stored = await stores[0].read(partial(_stored, number))
            found = [await stores[0].read(partial(_attempt, number, each)) for each in claimed]
            check_home(stored, found)
            assert claimed
            assert stored.fence == len(claimed)  # whatever was claimed was answered, and once
            assert stored.live_attempt is None


def _stored(number: str, tx: Transaction) -> Prescription:
    stored = tx.home.prescription(number)
    assert stored is not None
    return stored


def _attempt(number: str, attempt_id: str, tx: Transaction) -> Attempt:
    attempt = tx.home.attempt(number, attempt_id)
    assert attempt is not None
    return attempt


def _claims(number: str, mine: str, writer: int, tx: Transaction) -> bool:
    stored = _stored(number, tx)
    if tx.home.attempt(number, mine) is not None:  # as the stored outcome of a request says
        return True
    wanted = ClaimTerms(f"P3505000000{writer:02}", "350500", (), digest(mine))
    try:
        tx.home.save(transitions.claim(stored, wanted, attempt_id=mine, now=NOW, lease=LEASE))
    except Refusal:
        return False
    return True


def _releases(number: str, mine: str, writer: int, tx: Transaction) -> None:
    stored, attempt = _stored(number, tx), _attempt(number, mine, tx)
    if attempt.state is AttemptState.RELEASED:
        return
    held = AttemptReference(mine, attempt.fence, attempt.pharmacy_code, digest("release"))
    tx.home.save(transitions.release(stored, attempt, held, now=NOW))


async def test_a_constraint_that_is_broken_again_at_every_try_is_a_defect(store: Platform) -> None:
    await store.transact(lambda tx: tx.journal.keep_outcome(NUMBER, "c", "r", outcome()))

    with pytest.raises(InvariantBroken):
        await store.transact(lambda tx: tx.journal.keep_outcome(NUMBER, "c", "r", outcome()))


class Cutting:
    """A way to the server that cuts one connection when it sees certain bytes, and then no more."""

    def __init__(self, address: str, *, asked: bytes = b"", answered: bytes = b"") -> None:
        parts = conninfo_to_dict(address)
        self._host, self._port = str(parts["host"]), int(str(parts.get("port", 5432)))
        self._wanted = {"asked": asked, "answered": answered}
        self.armed = False
        self.cuts = 0

    @asynccontextmanager
    async def open(self, address: str, folder: Path) -> AsyncIterator[str]:
        path = folder / ".s.PGSQL.5432"
        async with await asyncio.start_unix_server(self._pass_on, path):
            yield make_conninfo(address, host=str(folder), port=5432)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._host.startswith("/"):
            there = await asyncio.open_unix_connection(f"{self._host}/.s.PGSQL.{self._port}")
        else:
            there = await asyncio.open_connection(self._host, self._port)
        ways = [
            asyncio.ensure_future(self._one_way(reader, there[1], "asked")),
            asyncio.ensure_future(self._one_way(there[0], writer, "answered")),
        ]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        for each in (writer, there[1]):
            each.close()

    async def _one_way(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str
    ) -> None:
        wanted = self._wanted[way]
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                if self.armed and wanted and wanted in data:
                    self.armed = False
                    self.cuts += 1
                    return
                writer.write(data)
                await writer.drain()


@pytest.mark.parametrize(
    "where", [{"asked": b"COMMIT\0"}, {"answered": b"COMMIT\0"}], ids=["before", "after"]
)
async def test_whether_a_commit_took_effect_whose_connection_was_cut_is_found_out(
    store: Platform, address: str, tmp_path: Path, where: dict[str, bytes]
) -> None:
    cutting, runs = Cutting(address, **where), count()

    def request(tx: Transaction) -> bytes:
        run = next(runs)
        stored = tx.journal.outcome(NUMBER, "caller", "request")
        if stored is None:
            stored = replace(outcome(), response=b"effect of run %d" % run)
            tx.journal.keep_outcome(NUMBER, "caller", "request", stored)
            tx.journal.add_event(event("the effect"))
        return stored.response

    async with cutting.open(address, tmp_path) as way:
        options = Options(workers=1)
        cut = await asyncio.to_thread(
            PostgresStore.open, way, "platform", schema=SCHEMA, options=options
        )
        cutting.armed = True  # the commits of the migration passed
        async with cut:
            answer = await cut.transact(request)

    assert cutting.cuts == 1
    assert next(runs) == 2  # it was run, and once more to find out
    kept = await store.read(lambda tx: tx.journal.outcome(NUMBER, "caller", "request"))
    assert kept is not None
    assert kept.response == answer
    assert answer == (b"effect of run 0" if "answered" in where else b"effect of run 1")


async def test_what_stays_unknown_is_said_so(address: str, tmp_path: Path) -> None:
    cutting = Cutting(address)
    async with cutting.open(address, tmp_path) as way:
        opened = await asyncio.to_thread(
            PostgresStore.open, way, "platform", schema=SCHEMA, options=Options(workers=1)
        )
    async with opened:
        with pytest.raises(Unavailable) as unknown:
            await opened.transact(lambda tx: tx.home.add_prescription(prescription()))
    assert unknown.value.reason is Reason.STORE_UNAVAILABLE


async def test_a_command_whose_connection_is_cut_is_run_again_on_another_one(
    store: Platform, address: str
) -> None:
    begun, go, runs = threading.Event(), threading.Event(), count(1)

    def command(tx: Transaction) -> tuple[bool, int]:
        added = tx.home.add_prescription(prescription())
        begun.set()
        assert go.wait(PATIENCE)
        assert tx.home.prescription(NUMBER) is not None
        return added, next(runs)

    answer = asyncio.ensure_future(store.transact(command))
    assert await asyncio.to_thread(begun.wait, PATIENCE)
    with psycopg.connect(address, autocommit=True) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'rxoutflow'"
        )
    go.set()

    assert await answer == (True, 1)
    assert await store.read(lambda tx: tx.home.prescription(NUMBER)) == prescription()


async def test_a_request_that_waited_for_itself_gets_its_own_answer(
    store: Platform, address: str
) -> None:
    """At READ COMMITTED a duplicate sees the effect of the first one, and must not be refused."""
    await store.transact(lambda tx: tx.home.add_prescription(prescription()))
    request, key = Outcome(method="the request"), RequestKey(NUMBER, "caller", REQUEST, "/a/Claim")
    locked, go = threading.Event(), threading.Event()

    def carry_out(tx: Transaction, first: bool) -> Outcome:
        stored = tx.home.prescription(NUMBER)
        assert stored is not None
        change = transitions.claim(
            stored, terms(), attempt_id=f"by the first: {first}", now=NOW, lease=LEASE
        )
        tx.home.save(change)
        if first:
            locked.set()
            assert go.wait(PATIENCE)
        return Outcome(method=change.attempt.attempt_id)

    def command(tx: Transaction, first: bool) -> Outcome:
        return once(tx.journal, key, request, Outcome, NOW, lambda: carry_out(tx, first))

    async with PostgresStore.open(address, "platform", schema=SCHEMA) as other:
        one = asyncio.ensure_future(store.transact(lambda tx: command(tx, True)))
        assert await asyncio.to_thread(locked.wait, PATIENCE)
        two = asyncio.ensure_future(other.transact(lambda tx: command(tx, False)))
        with psycopg.connect(address, autocommit=True) as watching:
            while not _waits_for_a_lock(watching):
                await asyncio.sleep(0.01)
        go.set()
        assert await two == await one == Outcome(method="by the first: True")


def _waits_for_a_lock(connection: psycopg.Connection) -> bool:
    row = connection.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    ).fetchone()
    return row is not None and row[0] > 0


async def test_a_commit_that_no_replica_confirmed_is_unknown_until_one_does(
    server: Server,
) -> None:
    options = Options(workers=1)
    with psycopg.connect(server.address, autocommit=True) as operator:
        async with PostgresStore.open(
            server.address, "platform", schema=SCHEMA, options=options
        ) as opened:
            await opened.transact(lambda tx: tx.home.add_prescription(prescription()))
            operator.execute("ALTER SYSTEM SET synchronous_standby_names = 'replica'")
            operator.execute("SELECT pg_reload_conf()")
            for request in map(str, count()):  # until the server has heard of the replica
                keep = asyncio.ensure_future(
                    opened.transact(
                        lambda tx, request=request: tx.journal.keep_outcome(  # type: ignore[misc] # mypy cannot infer a lambda with a default
                            NUMBER, "c", request, outcome()
                        )
                    )
                )
                while not keep.done():
                    operator.execute(
                        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity"
                        " WHERE wait_event = 'SyncRep'"
                    )
                    await asyncio.sleep(0.01)
                if keep.exception() is not None:
                    break
            with pytest.raises(Unavailable):
                await keep

            operator.execute("ALTER SYSTEM RESET synchronous_standby_names")
            operator.execute("SELECT pg_reload_conf()")
            kept = await opened.read(lambda tx: tx.journal.outcome(NUMBER, "c", request))
            assert kept == outcome()


@pytest.fixture
def server() -> Iterator[Server]:
    started = Server.start()
    yield started
    started.stop()


async def test_what_was_acknowledged_survives_a_crash_of_the_database(server: Server) -> None:
    async with PostgresStore.open(server.address, "platform", schema=SCHEMA) as opened:
        acknowledged = []
        for index in range(20):
            number = f"{NUMBER[:-2]}{index:02}"
            fresh = replace(prescription(), number=number, hospital_prescription_number=number)
            await opened.transact(lambda tx, fresh=fresh: tx.home.add_prescription(fresh))  # type: ignore[misc] # mypy cannot infer a lambda with a default
            acknowledged.append(fresh)
        server.kill()
        with pytest.raises(Unavailable):
            await opened.read(lambda tx: tx.home.prescription(NUMBER))
        server.begin()
        for each in acknowledged:
            stored = await opened.read(lambda tx, each=each: tx.home.prescription(each.number))  # type: ignore[misc] # as above
            assert stored == each


def test_a_server_that_acknowledges_too_early_is_refused(address: str) -> None:
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("ALTER ROLE CURRENT_USER SET synchronous_commit = off")
    try:
        with pytest.raises(StoreError, match="synchronous_commit = off"):
            PostgresStore.open(address, "platform", schema=SCHEMA)
    finally:
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute("ALTER ROLE CURRENT_USER RESET synchronous_commit")


def test_an_address_that_answers_nothing_is_a_clear_error_without_the_password() -> None:
    with pytest.raises(StoreError) as refused:
        PostgresStore.open("host=/nowhere password=CANARY", "platform")

    assert "CANARY" not in str(refused.value)
    assert "check its address" in str(refused.value)


def test_a_schema_of_another_kind_is_refused(address: str) -> None:
    asyncio.run(PostgresStore.open(address, "platform", schema=SCHEMA).close())

    with pytest.raises(StoreError, match="give each service its own"):
        PostgresStore.open(address, "edge", schema=SCHEMA)


async def test_processes_that_start_together_migrate_once(address: str) -> None:
    opened = await asyncio.gather(
        *(
            asyncio.to_thread(PostgresStore.open, address, "platform", schema=SCHEMA)
            for _ in range(4)
        )
    )
    for each in opened:
        await each.close()
    with psycopg.connect(address) as connection:
        connection.execute(SQL("SET search_path TO {}").format(Identifier(SCHEMA)))
        row = connection.execute("SELECT count(*) FROM migrations").fetchone()
    assert row == (len(MIGRATIONS["platform"]),)


def test_no_word_of_another_engine_is_left_in_the_schema() -> None:
    for migrations in MIGRATIONS.values():
        for statements in migrations.values():
            for statement in statements:
                words = in_postgres(statement)
                assert "STRICT" not in words
                assert "ROWID" not in words
                assert "BLOB" not in words
