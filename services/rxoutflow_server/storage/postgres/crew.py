"""Worker threads with a session each, and the commands that wait for them.

A worker takes every command that waits and runs them in one transaction, one after the other: one
BEGIN, one COMMIT and one write to the disk for all of them, and rows that many of them touch are
touched by one transaction. There is no timer: while a commit is on its way the next batch gathers.

Nothing rests on the batch. A command that is refused before it changed anything has no part in it;
whatever else goes wrong in a command, the batch is undone, the others are run together again, from
the start, and this one in a transaction of its own, which is safe because decisions are functions
of what is loaded. So an exception reaches its own caller alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from threading import Thread
from typing import Generic, TypeVar

from rxoutflow_server.storage.postgres.session import Session
from rxoutflow_server.storage.postgres.worker import BeforeCommit, Worker
from rxoutflow_server.storage.waiting import Job, require_room, take

X = TypeVar("X")
T = TypeVar("T")

MAX_BATCH = 64
"""Most commands in one transaction: bounds how long the first of them waits for the last."""


class Crew(Generic[X]):
    """Workers that share one queue. ``session`` opens one more session, on a worker's thread."""

    def __init__(
        self,
        session: Callable[[], Session[X]],
        workers: int,
        name: str,
        *,
        max_batch: int = MAX_BATCH,
        before_commit: BeforeCommit[X] | None = None,
    ) -> None:
        """Start the threads; sessions are opened when there is something to do."""
        self._max_batch = max_batch
        self._before_commit = before_commit
        self._queue: SimpleQueue[Job[X] | None] = SimpleQueue()
        self._waiting = 0
        # Daemons, so that a process can end without closing: what was answered is on the disk.
        self._threads = [
            Thread(target=self._run, args=(session,), name=f"{name}-{each}", daemon=True)
            for each in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    async def carry_out(self, command: Callable[[X], T]) -> T:
        """Have a worker do it; what it raises is what the caller may hear.

        Raises:
            Refusal: OVERLOADED; nothing was done.
        """
        require_room(self._waiting)
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting += 1
        self._queue.put(Job(command, future))
        return await future

    async def close(self) -> None:
        """Finish what waits and close the sessions."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            await asyncio.get_running_loop().run_in_executor(None, thread.join)

    def _run(self, session: Callable[[], Session[X]]) -> None:
        worker = Worker(session, self._before_commit)
        closing = False
        while not closing:
            jobs, closing = take(self._queue, self._max_batch)
            done = worker.carry_out([job for job in jobs if not job.future.cancelled()])
            self._answer(jobs, done)
        worker.close()

    def _answer(self, jobs: Sequence[Job[X]], done: Sequence[Callable[[], None]]) -> None:
        if not jobs:
            return
        try:
            jobs[0].future.get_loop().call_soon_threadsafe(self._resolve, jobs, done)
        except RuntimeError:  # the event loop is closed: nobody listens any more
            return

    def _resolve(self, jobs: Sequence[Job[X]], done: Sequence[Callable[[], None]]) -> None:
        self._waiting -= len(jobs)
        for each in done:
            each()
        for job in jobs:
            job.resolve()
