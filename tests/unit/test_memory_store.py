"""What is special about the store in memory; what it has in common is in ``tests/contract``."""

from __future__ import annotations

import ast
import asyncio
from pathlib import Path

import pytest

import rxoutflow_server
from rxoutflow_server.application.ports import Transaction
from rxoutflow_server.domain.errors import Reason, Refusal, Unavailable
from rxoutflow_server.storage.memory import MemoryStore
from rxoutflow_server.storage.waiting import MAX_WAITING
from support.records import NUMBER, prescription


async def test_nothing_survives_it() -> None:
    async with MemoryStore.open("platform") as store:
        await store.transact(lambda tx: tx.home.add_prescription(prescription()))
    with pytest.raises(Unavailable):
        await store.read(lambda tx: tx.home.prescription(NUMBER))
    async with MemoryStore.open("platform") as another:
        assert await another.read(lambda tx: tx.home.prescription(NUMBER)) is None


async def test_what_a_commit_brings_with_it_is_written_with_the_command() -> None:
    commits: list[int] = []

    def grow(tx: Transaction) -> None:
        tx.home.add_prescription(prescription())

    async with MemoryStore.open("platform", before_commit=grow, on_commit=commits.append) as store:
        await store.transact(lambda tx: None)
        assert await store.read(lambda tx: tx.home.prescription(NUMBER)) == prescription()
    assert commits == [1]


async def test_it_writes_nothing_more_after_a_commit_that_failed() -> None:
    def broken(tx: Transaction) -> None:
        raise OSError("no space is left")

    store = MemoryStore.open("platform", before_commit=broken)
    for _ in range(2):
        with pytest.raises(Unavailable):
            await store.transact(lambda tx: tx.home.add_prescription(prescription()))
    rows = store.connection.execute("SELECT COUNT(*) FROM prescriptions").fetchall()
    assert rows == [(0,)]


async def test_it_refuses_work_while_too_much_waits() -> None:
    async with MemoryStore.open("platform") as store:
        waiting = [
            asyncio.ensure_future(store.transact(lambda tx: None)) for _ in range(MAX_WAITING + 1)
        ]
        ended = await asyncio.gather(*waiting, return_exceptions=True)
    refused = [each for each in ended if each is not None]
    assert [each.reason for each in refused if isinstance(each, Refusal)] == [Reason.OVERLOADED]
    assert len(refused) == 1


async def test_a_command_whose_caller_has_gone_is_not_run() -> None:
    async with MemoryStore.open("platform") as store:
        going = asyncio.ensure_future(
            store.transact(lambda tx: tx.home.add_prescription(prescription()))
        )
        await asyncio.sleep(0)
        going.cancel()
        await asyncio.gather(going, return_exceptions=True)
        assert await store.read(lambda tx: tx.home.prescription(NUMBER)) is None


def test_no_service_can_be_configured_to_forget() -> None:
    root = Path(rxoutflow_server.__path__[0])
    users = [
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if "rxoutflow_server.storage.memory" in imported(path)
    ]
    assert users == ["storage/scratch.py"]  # computes state beside a store, and keeps none


def imported(path: Path) -> set[str]:
    """The modules from which a file imports, and the names in them as modules."""
    found = set[str]()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found
