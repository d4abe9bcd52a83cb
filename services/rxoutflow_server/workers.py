"""Several processes of one service on one port: started, watched, replaced one by one, stopped.

The kernel spreads connections over the processes (SO_REUSEPORT). On SIGHUP each process is replaced
by a new one, which is ready before the old one is told to finish what it has begun; so a new
release or configuration takes effect without a moment in which nobody answers. A process that ends
by itself is started again, after a growing pause. On SIGTERM or SIGINT all finish and stop.

Each process has a line to this one: it says on it that it is ready, and when the line breaks,
because this one is no longer there, it finishes too.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

READY_SECONDS: Final = 60.0
"""How long a process may take to get ready."""

STOP_SECONDS: Final = 20.0
"""How long a process may take to finish what it has begun; then it is killed."""

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 30.0
"""Seconds before a process that ended by itself is started again; doubled each time in a row."""

LINE_VARIABLE: Final = "RXOUTFLOW_WORKER_LINE"
"""Where a worker finds the number of its line. Set by this module alone."""

log = structlog.get_logger()


class WorkerError(Exception):
    """A worker ended before it was ready; its own output says why."""

    def __init__(self, code: int) -> None:
        """Keep its exit code."""
        super().__init__("a worker ended before it was ready; see its message above")
        self.code = code


class Line:
    """A worker's line to the process that watches it."""

    def __init__(self, descriptor: int) -> None:
        """Take over the descriptor."""
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(False)

    @classmethod
    def of_this_process(cls) -> Line | None:
        """This process's line, if it is a worker."""
        number = os.environ.pop(LINE_VARIABLE, None)
        return cls(int(number)) if number else None

    def say_ready(self) -> None:
        """Say that calls are answered now."""
        with contextlib.suppress(OSError):
            self._socket.send(b"r")

    def when_broken(self, stop: Callable[[], None]) -> None:
        """Call ``stop`` on the event loop when nobody watches any more."""
        loop = asyncio.get_running_loop()

        def heard() -> None:
            loop.remove_reader(self._socket)
            stop()

        loop.add_reader(self._socket, heard)


@dataclass(slots=True)
class _Worker:
    process: asyncio.subprocess.Process
    line: socket.socket
    watching: asyncio.Task[None] | None = None

    async def ready(self) -> None:
        """Wait until it is.

        Raises:
            WorkerError: it ended first, or took too long.
        """
        loop = asyncio.get_running_loop()
        said = b""
        with contextlib.suppress(TimeoutError, OSError):
            said = await asyncio.wait_for(loop.sock_recv(self.line, 1), READY_SECONDS)
        if said:
            return
        await self.stop()
        raise WorkerError(self.process.returncode or 1)

    async def stop(self) -> None:
        """Tell it to finish, and wait until it has ended."""
        if self.watching is not None:
            self.watching.cancel()
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        try:
            await asyncio.wait_for(self.process.wait(), STOP_SECONDS)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()
        self.line.close()


class Workers:
    """Runs ``command`` so many times at once."""

    def __init__(self, command: Sequence[str], count: int) -> None:
        """Nothing is started yet."""
        self._command = command
        self._count = count
        self._workers: list[_Worker] = []
        self._told = asyncio.Event()
        self._stopping = False
        self._replace = False

    async def run(self) -> None:
        """Run until told to stop.

        Raises:
            WorkerError: the first ones could not be started; none is left.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._tell_to_stop)
        loop.add_signal_handler(signal.SIGHUP, self._tell_to_replace)
        try:
            await self._start_all()
            log.info("workers_ready", count=len(self._workers))
            while not self._stopping:
                await self._told.wait()
                self._told.clear()
                if self._replace and not self._stopping:
                    self._replace = False
                    await self._replace_all()
        finally:
            await asyncio.gather(*(each.stop() for each in self._workers))

    def _tell_to_stop(self) -> None:
        self._stopping = True
        self._told.set()

    def _tell_to_replace(self) -> None:
        self._replace = True
        self._told.set()

    async def _start_all(self) -> None:
        started = [await self._started() for _ in range(self._count)]
        self._workers += started
        await asyncio.gather(*(each.ready() for each in started))
        for each in started:
            self._watch(each)

    async def _replace_all(self) -> None:
        """One after the other; if a new one does not get ready, the rest stay as they are."""
        for old in list(self._workers):
            if self._stopping:
                return
            try:
                await self._add()
            except WorkerError as error:
                log.warning("worker_not_replaced", exit_code=error.code)
                return
            if old in self._workers:
                self._workers.remove(old)
                await old.stop()
        log.info("workers_replaced", count=len(self._workers))

    async def _add(self) -> None:
        new = await self._started()
        await new.ready()
        self._workers.append(new)
        self._watch(new)

    async def _started(self) -> _Worker:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                pass_fds=(theirs.fileno(),),
                env={**os.environ, LINE_VARIABLE: str(theirs.fileno())},
                start_new_session=True,
            )
        return _Worker(process, ours)

    def _watch(self, worker: _Worker) -> None:
        worker.watching = asyncio.create_task(self._watched(worker))

    async def _watched(self, worker: _Worker) -> None:
        """Start another one when this one has ended by itself."""
        code = await worker.process.wait()
        pause = FIRST_PAUSE
        self._workers.remove(worker)
        worker.line.close()
        log.error("worker_ended", exit_code=code)
        while not self._stopping:
            try:
                await self._add()
            except WorkerError as error:
                log.warning("worker_not_started", exit_code=error.code)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                return
