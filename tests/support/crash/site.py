"""Servers whose stores are files that somebody watches.

The servers, people and requests are those of ``support.premises``. Their stores in memory are
replaced by stores of production on files, one folder each, and every call goes through the servers'
own doors: authority, checks, commands, tables, group commits, log, receipts.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from rxoutflow_server.storage.errors import StoreError
from rxoutflow_server.storage.sqlite import SqliteStore, writer
from support.crash.recording import DATABASE, Recorder
from support.crash.vfs import Kind, Operation, Watch, watching
from support.doors import Answer as Reply
from support.invariants import Answer
from support.premises import HOME, Call, Premises
from support.ready import _registration

CHECKPOINT_ROWS = 60
"""The log is brought into the database much more often than in production."""


@dataclass
class Site:
    """Servers while their stores are files."""

    premises: Premises
    recorders: dict[str, Recorder]
    stores: dict[str, SqliteStore[Any]] = field(default_factory=dict)

    async def make(self, call: Call) -> Reply:
        """Make a call; if it is answered with OK, that is on record."""
        reply = await self.premises.make(call)
        recorder = self.recorders.get(call.door)
        if recorder is not None and call.door in self.premises.world.platforms:
            for answer in answers_of(recorder.path, call, reply):
                recorder.heard(answer)
        return reply

    async def make_together(self, calls: Sequence[Call]) -> list[Reply]:
        """Make calls at one server at once, so that their commands wait for one commit."""
        door = calls[0].door
        gate, recorder = Event(), self.recorders[door]
        holding = asyncio.ensure_future(self.stores[door].transact(lambda _tx: gate.wait()))
        making = [asyncio.ensure_future(self.make(call)) for call in calls]
        while recorder.waiting < len(calls):
            await asyncio.sleep(0)
        gate.set()
        await holding
        return await asyncio.gather(*making)


class Several:
    """A watch of several folders."""

    def __init__(self, recorders: Iterable[Recorder]) -> None:
        self._recorders = tuple(recorders)

    def before(self, _kind: Kind, _path: Path) -> int:
        return 0

    def after(self, operation: Operation) -> None:
        for each in self._recorders:
            each.after(operation)


def answers_of(path: Path, call: Call, reply: Reply) -> list[Answer]:
    """What the client may count on: the outcome of a request with an id. None of other calls."""
    request_id = getattr(call.request, "request_id", "")
    if reply.response is None or not request_id:
        return []
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&vfs=unix", uri=True)) as reader:
        found = reader.execute(
            "SELECT prescription_number, method FROM outcomes WHERE caller = ? AND request_id = ?",
            (str(call.caller), request_id),
        )
        return [
            Answer.of(call.door, number, call.caller, method, call.request, reply.response)
            for number, method in found
        ]


def seen(watch: Watch, fsync: Callable[[int], None]) -> Callable[[int], None]:
    """Syncs that the store asks for itself, without SQLite."""

    def wrapped(descriptor: int) -> None:
        fsync(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        watch.after(Operation(Kind.SYNC_DIRECTORY if path.is_dir() else Kind.SYNC, path))

    return wrapped


def fill(folder: Path, connection: sqlite3.Connection) -> Path:
    """A folder whose database has everything that this one has, as a clean stop leaves it."""
    folder.mkdir(parents=True)
    with closing(sqlite3.connect(folder / DATABASE)) as target:
        connection.backup(target)
        target.execute("PRAGMA journal_mode = wal")
    return folder


def empty(folder: Path) -> Path:
    """The folder, with nothing in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def registrations(premises: Premises, number: int) -> dict[str, Call]:
    """So many registrations that would succeed, by their request ids."""
    made, method = dict[str, Call](), "/rxoutflow.v1.HospitalService/RegisterPrescription"
    for _ in range(number):
        request = _registration(premises.world)
        made[request.request_id] = Call(HOME, premises.cast(HOME).hospital, method, request)
    return made


@asynccontextmanager
async def recorded(
    premises: Premises, recorders: dict[str, Recorder], *, checkpoint: int = CHECKPOINT_ROWS
) -> AsyncIterator[Site]:
    """The servers on the recorders' files; the stores are closed at the end, on record too."""
    site = Site(premises, recorders)
    async with AsyncExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(writer, "CHECKPOINT_ROWS", checkpoint)
        watch = Several(recorders.values())
        patch.setattr(os, "fsync", seen(watch, os.fsync))
        stack.enter_context(watching(watch))
        for name, recorder in recorders.items():
            store = await stack.enter_async_context(opened(premises, name, recorder))
            recorder.opened()
            site.stores[name] = store
            patch.setattr(premises.stores[name], "transact", recorder.transacting(store))
            patch.setattr(premises.stores[name], "read", recorder.reading(store))
        yield site


def opened(premises: Premises, name: str, recorder: Recorder) -> SqliteStore[Any]:
    """The store of a server, as its service opens it."""
    return open_store(premises, name, recorder.path, on_commit=recorder.committed)


def open_store(premises: Premises, name: str, path: Path, **more: Any) -> SqliteStore[Any]:
    """The store of a server in this file.

    Raises:
        StoreError: it cannot be opened.
    """
    if name not in premises.world.platforms:
        return SqliteStore.open(path, "edge", **more)
    premises._forget_log(name)
    log = premises.world.platforms[name].region.log
    assert log is not None
    return SqliteStore.open(path, "platform", before_commit=log.grow_now, **more)


__all__ = ["Several", "Site", "StoreError", "answers_of", "fill", "open_store", "recorded"]
