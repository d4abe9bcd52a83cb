"""An event loop in which time passes only when nobody has anything to do.

Everything runs in one thread, in an order that follows from what was scheduled and from nothing
else. When no callback is ready the clock jumps to the next timer, so an hour of waiting costs
nothing. A loop that has neither callbacks nor timers left cannot go on and says so.

Tasks belong to the process of the simulation in whose context they were started: when that
process crashes, all of them are cancelled, in the order in which they were started.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeVarTuple

Ts = TypeVarTuple("Ts")

_OWNER: ContextVar[Process | None] = ContextVar("owner", default=None)
_PRUNE_AT = 64


class Stalled(RuntimeError):
    """Somebody waits for something that can never happen."""


class Process:
    """One run of a node, from its start to its end: what dies together."""

    def __init__(self) -> None:
        self.alive = True
        self.context = Context()
        self.context.run(_OWNER.set, self)
        self._tasks: dict[asyncio.Task[Any], None] = {}

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """Let a task die with this process."""
        if len(self._tasks) > _PRUNE_AT:
            self._tasks = {each: None for each in self._tasks if not each.done()}
        self._tasks[task] = None

    def end(self) -> None:
        """Cancel everything. What still runs has no effect: whoever serves it asks ``alive``."""
        self.alive = False
        for task in self._tasks:
            task.cancel()


class VirtualLoop(asyncio.BaseEventLoop):
    """The loop. ``time()`` is virtual seconds since its beginning."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self._selector = _Idle(self)
        self._clock_resolution = 1e-9

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self.now

    _ready: deque[asyncio.Handle]  # asyncio's own, which its stubs leave out

    def call_soon(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.Handle:
        """As in asyncio, but for the checks of its debug mode: this is called most of all."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def create_task(
        self, coro: Any, *, name: object = None, context: Context | None = None
    ) -> asyncio.Task[Any]:
        """Start a task, in the process whose context it gets."""
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, name="task", context=context)
        owner = _OWNER.get() if context is None else context.get(_OWNER)
        if owner is not None:
            owner.adopt(task)
            if not owner.alive:
                task.cancel()
        return task

    def spawn(self, process: Process, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start a task in a process, with a context of its own."""
        return self.create_task(work, context=process.context.run(copy_context))

    def _process_events(self, event_list: object) -> None:
        """There is no outside from which events could come."""

    def _write_to_self(self) -> None:
        """Nobody else has to be woken: there is one thread."""


class _Idle:
    """Stands where the loop expects its selector: waiting moves the clock."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> tuple[()]:
        if timeout is None:
            raise Stalled("nothing is scheduled any more, but somebody still waits")
        self._loop.now += timeout
        return ()
