"""Child processes that start together, are watched, and never outlive their parent.

Each child writes to a log file of its own; it is ready when its log has a JSON line whose ``event``
is ``ready``. A child that ends early, or is not ready in time, is reported with the end of its log.
Leaving the context stops every child, whatever the reason: SIGTERM first, SIGKILL after a grace.
Children have sessions of their own, so that Ctrl-C reaches only the parent, which then stops them
in order. On Linux the kernel kills them if the parent dies without a word; elsewhere nothing can.

Restarts nothing unless it is told to, and knows nothing of what the processes do.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

READY_SECONDS = 60.0
GRACE_SECONDS = 10.0

_POLL_SECONDS = 0.02
_TAIL_LINES = 15
_PR_SET_PDEATHSIG = 1


class ProcessError(Exception):
    """A child ended or did not get ready; the message has the end of its log."""

    def __init__(self, name: str, problem: str, log: Path) -> None:
        """Keep the child's name and the file of its whole log."""
        super().__init__(f"{name} {problem}; its log {log} ends:\n{_tail(log)}")
        self.name = name
        self.log = log


@dataclass(frozen=True, slots=True)
class Program:
    """A process to start: its name, which its log bears, and its command."""

    name: str
    command: Sequence[str]


class Supervisor:
    """Starts programs and stops them when the context is left.

    ``logs`` is the folder of the log files; ``ready_seconds`` is how long all of the programs
    together may take to get ready, ``grace_seconds`` how long they may take to stop.
    """

    def __init__(
        self,
        logs: Path,
        *,
        ready_seconds: float = READY_SECONDS,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        self._logs = logs
        self._ready_seconds = ready_seconds
        self._grace_seconds = grace_seconds
        self._children: list[_Child] = []
        self._programs: dict[str, Program] = {}
        self._kills = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self, programs: Iterable[Program]) -> None:
        """Start all programs at once and wait until each is ready.

        Raises:
            ProcessError: one ended or was not ready in time. The others run on until the context
                is left.
        """
        deadline = time.monotonic() + self._ready_seconds
        for program in programs:
            self._programs[program.name] = program
            self._children.append(_Child.start(program, self._logs))
        for child in self._children:
            self._await_ready(child, deadline)

    def pids(self) -> dict[str, int]:
        """The process of each child by its name."""
        return {child.name: child.process.pid for child in self._children}

    def kill(self, names: Iterable[str]) -> None:
        """End children at once, as a power cut does, and put their logs aside."""
        for name in names:
            (child,) = (each for each in self._children if each.name == name)
            child.process.kill()
            child.process.wait()
            self._children.remove(child)
            self._kills += 1
            child.log.rename(self._logs / f"{name}.{self._kills}.log")

    def restart(self, names: Iterable[str]) -> None:
        """Start killed children again, and wait until each is ready.

        Raises:
            ProcessError: as from ``start``.
        """
        self.start([self._programs[name] for name in names])

    def check(self) -> None:
        """Notice children that have ended.

        Raises:
            ProcessError: one has.
        """
        for child in self._children:
            child.require_running()

    def stop(self) -> None:
        """Stop every child and wait for its end; a second call does nothing."""
        children, self._children = self._children, []
        deadline = time.monotonic() + self._grace_seconds
        try:
            for child in children:
                child.process.terminate()
            for child in children:
                _wait_until(deadline, child.process)
        finally:
            for child in children:
                child.process.kill()
                child.process.wait()

    def _await_ready(self, child: _Child, deadline: float) -> None:
        while not child.is_ready():
            self.check()
            if time.monotonic() > deadline:
                problem = f"was not ready after {self._ready_seconds:g} seconds"
                raise ProcessError(child.name, problem, child.log)
            time.sleep(_POLL_SECONDS)


def leash() -> Callable[[], None] | None:
    """What a child does before its program runs so that it dies with its parent; Linux only."""
    if sys.platform != "linux":
        return None
    prctl, parent = ctypes.CDLL(None, use_errno=True).prctl, os.getpid()

    def bind() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before it could be asked for a signal
            os.kill(os.getpid(), signal.SIGKILL)

    return bind


@dataclass(frozen=True, slots=True)
class _Child:
    name: str
    log: Path
    process: subprocess.Popen[bytes]

    @classmethod
    def start(cls, program: Program, logs: Path) -> Self:
        log = logs / f"{program.name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 - commands come from our own code only
                program.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=leash(),
            )
        return cls(program.name, log, process)

    def is_ready(self) -> bool:
        return any(_says_ready(line) for line in _complete_lines(self.log))

    def require_running(self) -> None:
        code = self.process.poll()
        if code is not None:
            raise ProcessError(self.name, f"ended {_how(code)}", self.log)


def _complete_lines(log: Path) -> Iterator[bytes]:
    with log.open("rb") as stream:
        yield from (line for line in stream if line.endswith(b"\n"))


def _says_ready(line: bytes) -> bool:
    if b"ready" not in line:
        return False
    try:
        entry = json.loads(line)
    except ValueError:
        return False
    return isinstance(entry, dict) and entry.get("event") == "ready"


def _wait_until(deadline: float, process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return  # its time is over: stop() kills it


def _how(code: int) -> str:
    if code < 0:
        return f"by {signal.Signals(-code).name}"
    return f"with exit status {code}"


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:]
    return "\n".join(f"  {line}" for line in lines) or "  (it is empty)"
