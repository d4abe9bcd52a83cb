"""Runs a sandbox in a process of its own, which kills, freezes and restarts servers when asked.

A test's own process is full of gRPC's threads and must not fork; this one has none. It speaks with
the test over a pipe: a request is a verb and the servers it is about, an answer is None or what
went wrong. When the pipe ends, because the test has ended in whatever way, everything is stopped.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from rxoutflow_server.sandbox.constellation import DATA
from rxoutflow_server.sandbox.layout import SandboxError, prepare
from rxoutflow_server.sandbox.running import running
from rxoutflow_server.sandbox.supervisor import ProcessError, Supervisor


@contextmanager
def kept(directory: Path, data: Path = DATA) -> Iterator[Connection]:
    """The pipe to a keeper whose sandbox in this directory, made from this data, is up."""
    ours, theirs = get_context("spawn").Pipe()
    keeper = get_context("spawn").Process(target=_keep, args=(theirs, directory, data), daemon=True)
    keeper.start()
    theirs.close()
    try:
        problem = ours.recv()
        assert problem is None, problem
        yield ours
    finally:
        ours.close()
        keeper.join()
    assert keeper.exitcode == 0


class CruelSupervisor(Supervisor):
    """Does to single servers what a supervisor should not."""

    def freeze(self, names: Iterable[str]) -> None:
        """Stop servers without ending them."""
        for name in names:
            self._process(name).send_signal(signal.SIGSTOP)

    def thaw(self, names: Iterable[str]) -> None:
        """Let frozen servers go on."""
        for name in names:
            self._process(name).send_signal(signal.SIGCONT)

    def _process(self, name: str) -> subprocess.Popen[bytes]:
        (process,) = (each.process for each in self._children if each.name == name)
        return process


def _keep(pipe: Connection, directory: Path, data: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the test's: it will close the pipe
    try:
        prepared = prepare(directory, _now(), data=data)
        cruel = CruelSupervisor(prepared.layout.logs)
        with running(prepared, _now, tell=lambda _: None, supervise=lambda _: cruel):
            pipe.send(None)
            _obey(pipe, cruel)
    except (SandboxError, ProcessError) as error:
        pipe.send(str(error))


def _obey(pipe: Connection, cruel: CruelSupervisor) -> None:
    verbs: Mapping[str, Callable[[Iterable[str]], None]] = {
        "kill": cruel.kill,
        "restart": cruel.restart,
        "freeze": cruel.freeze,
        "thaw": cruel.thaw,
    }
    while True:
        try:
            verb, names = pipe.recv()
        except EOFError:
            return
        try:
            cruel.check()
            verbs[verb](names)
        except ProcessError as error:
            pipe.send(str(error))
        else:
            pipe.send(None)


def _now() -> datetime:
    return datetime.now(UTC)
