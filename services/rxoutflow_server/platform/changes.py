"""Waking whoever waits for something to be stored: the outbox, and streams of notices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from rxoutflow_server.application.ports import Store, Transaction

T = TypeVar("T")


class Changes:
    """Tells waiters that something was stored since they looked."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def announce(self) -> None:
        """Wake everyone who waits."""
        self._next.set()
        self._next = asyncio.Event()

    def expected(self) -> asyncio.Event:
        """Set at the next change. Take it before looking, so that nothing is missed between."""
        return self._next


async def wait(expected: asyncio.Event, seconds: float) -> None:
    """Wait for a change, no longer than that."""
    with suppress(TimeoutError):
        await asyncio.wait_for(expected.wait(), seconds)


class AnnouncingStore:
    """A store that announces every command it has committed."""

    def __init__(self, store: Store, changes: Changes) -> None:
        self._store = store
        self._changes = changes

    async def transact(self, command: Callable[[Transaction], T]) -> T:
        """See the port ``Store``."""
        result = await self._store.transact(command)
        self._changes.announce()
        return result

    async def read(self, query: Callable[[Transaction], T]) -> T:
        """See the port ``Store``."""
        return await self._store.read(query)
