"""Commands that wait for a thread to carry them out: how many may, and which go together.

There is no timer: whoever is free takes all that waits, so what comes meanwhile gathers for the
next turn, and a slow disk costs latency and not rate.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from rxoutflow_server.domain.errors import Reason, Refusal

X = TypeVar("X")

MAX_WAITING = 4096
"""Most commands, and most queries, that may wait before new ones are refused."""


@dataclass(slots=True)
class Job(Generic[X]):
    """A command, the future of its caller, and what became of it."""

    command: Callable[[X], Any]
    future: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None

    def resolve(self) -> None:
        """Answer the caller, on the caller's event loop."""
        if self.future.done():  # the caller has gone away
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


def require_room(waiting: int) -> None:
    """Refuse one more where so many wait already.

    Raises:
        Refusal: OVERLOADED.
    """
    if waiting >= MAX_WAITING:
        raise Refusal(
            Reason.OVERLOADED,
            "too many requests wait for the records; nothing was done, try again later",
        )


def take(queue: SimpleQueue[Job[X] | None], most: int) -> tuple[list[Job[X]], bool]:
    """All jobs that wait, at least one and at most so many, and whether None said it is the end."""
    jobs: list[Job[X]] = []
    item = queue.get()
    while item is not None:
        jobs.append(item)
        if len(jobs) == most:
            return jobs, False
        try:
            item = queue.get_nowait()
        except Empty:
            return jobs, False
    return jobs, True
