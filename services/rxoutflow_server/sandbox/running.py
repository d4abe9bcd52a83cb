"""A sandbox while it runs: all of its servers up, announced in ``sandbox.json``, then down again.

The announcement is written after the last server is ready and removed before the first is stopped,
so whoever finds it finds a constellation that works. If another program takes one of the chosen
ports in between, everything is stopped and started again on other ports.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from rxoutflow.identity import CallerKind
from rxoutflow_server.sandbox.layout import Layout, Prepared, locked, write_atomically
from rxoutflow_server.sandbox.supervisor import ProcessError, Program, Supervisor
from rxoutflow_server.sandbox.wiring import Service, Wiring, choose_ports, is_free, services

_ATTEMPTS = 3

Command = Callable[[Service], Sequence[str]]
"""How a service is run."""


@dataclass(frozen=True, slots=True)
class Running:
    """A sandbox whose servers are up."""

    wiring: Wiring
    supervisor: Supervisor

    @property
    def layout(self) -> Layout:
        """Where everything is."""
        return self.wiring.layout


def server_command(service: Service) -> Sequence[str]:
    """Run a service with this very interpreter."""
    return (
        sys.executable,
        "-m",
        "rxoutflow_server",
        service.role,
        "--config",
        str(service.config),
    )


@contextmanager
def running(
    prepared: Prepared,
    clock: Callable[[], datetime],
    *,
    tell: Callable[[str], None],
    supervise: Callable[[Layout], Supervisor] = lambda layout: Supervisor(layout.logs),
    command: Command = server_command,
) -> Iterator[Running]:
    """Run the sandbox for as long as the context lasts.

    Args:
        prepared: a complete sandbox.
        clock: gives the time (aware).
        tell: shows a line to whoever started it.
        supervise: makes the supervisor of one start.
        command: how a service is run.

    Raises:
        SandboxError: the sandbox runs already.
        ProcessError: a server did not come up, and not because its port was taken.
    """
    layout = prepared.layout
    with locked(layout.directory):
        layout.announcement.unlink(missing_ok=True)
        for attempt in range(1, _ATTEMPTS + 1):
            wiring = _wire(prepared, clock())
            with supervise(layout) as supervisor:
                try:
                    for programs in _rounds(prepared, command):
                        supervisor.start(programs)
                except ProcessError as error:
                    supervisor.stop()
                    taken = [port for port in wiring.ports.values() if not is_free(port)]
                    if not taken or attempt == _ATTEMPTS:
                        raise
                    tell(f"port {taken[0]} was taken: {error.name} tries another")
                    continue
                with _announced(wiring):
                    yield Running(wiring, supervisor)
                return


def _wire(prepared: Prepared, now: datetime) -> Wiring:
    names = [each.name for each in services(prepared.layout, prepared.constellation)]
    wiring = Wiring(prepared.layout, prepared.constellation, choose_ports(names))
    wiring.write(now)
    return wiring


def _rounds(prepared: Prepared, command: Command) -> tuple[list[Program], list[Program]]:
    """Platforms, then edges: an edge that finds no platform waits a while before it looks again."""
    platforms: list[Program] = []
    edges: list[Program] = []
    for each in services(prepared.layout, prepared.constellation):
        started_with = platforms if each.role == CallerKind.PLATFORM else edges
        started_with.append(Program(each.name, command(each)))
    return platforms, edges


@contextmanager
def _announced(wiring: Wiring) -> Iterator[None]:
    file = wiring.layout.announcement
    content = json.dumps(wiring.announcement(), indent=2, ensure_ascii=False)
    write_atomically(file, content.encode())
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
