"""What is special about PostgreSQL: several processes, row locks, conflicts, and lost answers.

Sixteen writers on the same prescriptions, at READ COMMITTED as in production and at SERIALIZABLE:
safety must hold at both.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from datetime import timedelta
from itertools import count
from typing import TypeAlias, TypeVar

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from rxoutflow_server.application.ports import Transaction
from rxoutflow_server.domain import prescription as transitions
from rxoutflow_server.domain.errors import InvariantBroken, Reason, Refusal, Unavailable
from rxoutflow_server.domain.prescription import ClaimTerms
from rxoutflow_server.storage.errors import StoreError
from rxoutflow_server.storage.postgres import PostgresStore
from rxoutflow_server.storage.postgres import store as implementation
from rxoutflow_server.storage.postgres.schema import in_postgres
from rxoutflow_server.storage.sqlite.schema import MIGRATIONS
from support.invariants import check_home
from support.postgres import PostgresMissing, Server, fresh_schema
from support.records import LEASE, NOW, NUMBER, PERSON, digest, event, outcome, person, prescription

T = TypeVar("T")
Platform: TypeAlias = PostgresStore[Transaction]
SCHEMA = "special"
WRITERS = 16
PATIENCE = 20  # seconds until a hand-over between threads that does not come is a failure


@pytest.fixture
def address() -> str:
    try:
        return fresh_schema(SCHEMA)
    except PostgresMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture
async def store(address: str) -> AsyncIterator[Platform]:
    async with PostgresStore.open(address, "platform", schema=SCHEMA, workers=WRITERS) as opened:
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
                PostgresStore.open(address, "platform", schema=SCHEMA, workers=WRITERS // 2)
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


async def test_a_constraint_that_is_broken_again_at_every_try_is_a_defect(store: Platform) -> None:
    await store.transact(lambda tx: tx.journal.keep_outcome(NUMBER, "c", "r", outcome()))

    with pytest.raises(InvariantBroken):
        await store.transact(lambda tx: tx.journal.keep_outcome(NUMBER, "c", "r", outcome()))


async def test_a_commit_of_which_the_answer_is_lost_is_unknown_and_the_store_goes_on(
    store: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, lost = psycopg.Connection.execute, []

    def losing(connection: psycopg.Connection, query: object, *rest: object) -> object:
        answer = real(connection, query, *rest)  # type: ignore[arg-type] # passed on as it came
        if query == "COMMIT" and not lost:
            lost.append(answer)
            connection.close()
            raise psycopg.OperationalError("the answer was lost")
        return answer

    monkeypatch.setattr(psycopg.Connection, "execute", losing)

    with pytest.raises(Unavailable) as unknown:
        await store.transact(lambda tx: tx.home.add_prescription(prescription()))

    assert unknown.value.reason is Reason.STORE_UNAVAILABLE
    assert await store.read(lambda tx: tx.home.prescription(NUMBER)) == prescription()


async def test_a_command_whose_connection_is_cut_says_so_and_the_next_one_works(
    store: Platform, address: str
) -> None:
    begun, go = threading.Event(), threading.Event()

    def command(tx: Transaction) -> bool:
        added = tx.home.add_prescription(prescription())
        begun.set()
        assert go.wait(PATIENCE)
        tx.home.prescription(NUMBER)
        return added

    answer = asyncio.ensure_future(store.transact(command))
    assert await asyncio.to_thread(begun.wait, PATIENCE)
    with psycopg.connect(address, autocommit=True) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'rxoutflow'"
        )
    go.set()

    with pytest.raises(Unavailable):
        await answer
    assert await store.read(lambda tx: tx.home.prescription(NUMBER)) is None
    assert await store.transact(lambda tx: tx.home.add_prescription(prescription()))


@pytest.fixture
def server() -> Iterator[Server]:
    try:
        started = Server.start()
    except PostgresMissing as missing:
        pytest.skip(str(missing))
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
