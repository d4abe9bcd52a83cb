"""Commands that a store is to carry out together."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from rxoutflow_server.application.ports import Transaction

PATIENCE = 20
"""Seconds until a hand-over between threads that does not come is a failure."""


class Store(Protocol):
    """A store with one thread that writes."""

    async def transact(self, command: Callable[[Transaction], bool], /) -> bool: ...


async def in_one_batch(store: Store, begin: Callable[[], list[Awaitable[Any]]]) -> list[Any]:
    """What becomes of commands that are begun while another one holds the store."""
    running, go = threading.Event(), threading.Event()

    def hold(_tx: Transaction) -> bool:
        running.set()
        return go.wait(PATIENCE)

    holding = asyncio.ensure_future(store.transact(hold))
    assert await asyncio.to_thread(running.wait, PATIENCE)
    waiting = [asyncio.ensure_future(each) for each in begin()]
    await asyncio.sleep(0)  # now they are in the queue
    go.set()
    assert await holding
    return await asyncio.gather(*waiting, return_exceptions=True)
