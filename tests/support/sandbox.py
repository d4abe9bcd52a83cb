"""The sandbox as tests use it: real server processes over real mutual TLS, and the client library.

``run_sandbox`` makes a sandbox, starts its eight servers as the command ``sandbox`` does, and hands
out clients. Tests drive it through the client library only; beyond that they may kill, freeze and
restart servers, and look at what must not be in a log. When the sandbox ends, every line that any
of its servers ever logged must have been a proper one: no traceback, no defect.

Nothing here waits by the clock: ``eventually`` asks until it is so, or fails.
"""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import TypeVar

from rxoutflow.client import (
    HospitalClient,
    NoticeStream,
    Patience,
    PharmacyClient,
    RegulatorClient,
)
from rxoutflow.documents import Draft, read_draft
from rxoutflow.errors import NotFound
from rxoutflow.numbers import PrescriptionNumber
from rxoutflow.plain import short_name
from rxoutflow.profile import Sandbox, load_sandbox
from rxoutflow.v1.notice_pb2 import Notice
from rxoutflow.v1.trace_pb2 import TraceEvent
from rxoutflow_server.sandbox.constellation import DATA
from rxoutflow_server.sandbox.layout import Layout
from support import sandbox_keeper

PRESCRIPTIONS = Path(__file__).parents[2] / "clients/prescriptions"

REGIONS = {"xiamen": "350200", "quanzhou": "350500", "nantong": "320600"}
SERVERS = (
    *(f"platform-{code}" for code in REGIONS.values()),
    *("xiamen-hospital", "quanzhou-hospital"),
    *("xiamen-pharmacy", "quanzhou-pharmacy", "nantong-pharmacy"),
)

SECONDS = 30.0
"""How long ``eventually`` asks before it gives up."""

PERSISTENT = Patience(attempts=200, call_timeout=6.0, first_pause=0.05, longest_pause=0.4)
"""Outlasts every restart: repeats the very same request until a definite answer comes."""

HASTY = Patience(attempts=1, call_timeout=3.0)
"""Asks once and does not wait long."""

_POLL_SECONDS = 0.03
_ESCAPED = re.compile(r"\\u([0-9a-f]{4})")

T = TypeVar("T")


def eventually(seen: Callable[[], T], what: str = "", seconds: float = SECONDS) -> T:
    """What ``seen`` returns once that is true; it is asked again and again."""
    deadline = time.monotonic() + seconds
    while not (value := seen()):
        assert time.monotonic() < deadline, f"not so after {seconds:g} s: {what or seen}"
        time.sleep(_POLL_SECONDS)
    return value


def draft(file: str) -> Draft:
    """A prescription of the demonstration folder."""
    return read_draft(PRESCRIPTIONS / f"{file}.json")


class Servers:
    """The servers of a sandbox, to which a test can be cruel."""

    def __init__(self, keeper: Connection) -> None:
        self._keeper = keeper

    def kill(self, *names: str) -> None:
        """End servers as a power cut does, and keep their logs."""
        self._ask("kill", names)

    def restart(self, *names: str) -> None:
        """Start killed servers again, with the same command, configuration and port."""
        self._ask("restart", names)

    @contextmanager
    def killed(self, *names: str) -> Iterator[None]:
        """Servers are dead for as long as the context lasts."""
        self.kill(*names)
        try:
            yield
        finally:
            self.restart(*names)

    @contextmanager
    def frozen(self, name: str) -> Iterator[None]:
        """A server does nothing for as long as the context lasts; its sockets stay open."""
        self._ask("freeze", (name,))
        try:
            yield
        finally:
            self._ask("thaw", (name,))

    def _ask(self, what: str, names: tuple[str, ...]) -> None:
        self._keeper.send((what, names))
        problem = self._keeper.recv()
        assert problem is None, problem


class Ear:
    """Listens to a stream of notices in the background, for as long as the context lasts."""

    def __init__(self, stream: NoticeStream) -> None:
        self._stream = stream
        self._heard: list[Notice] = []
        self._error: BaseException | None = None
        self._thread = Thread(target=self._listen, daemon=True)
        self._thread.start()

    def kinds(self, number: object) -> list[str]:
        """What was heard about a prescription, each notice once, in order."""
        assert self._error is None, f"the stream ended: {self._error!r}"
        tokens = [int(notice.resume_token) for notice in self._heard]
        assert tokens == sorted(tokens), "notices came out of order"
        once = {notice.resume_token: notice for notice in self._heard}
        mine = [each for each in once.values() if each.prescription_number == str(number)]
        return [short_name(notice, "kind") for notice in mine]

    def close(self) -> None:
        """Stop listening."""
        self._stream.close()
        self._thread.join(SECONDS)

    def _listen(self) -> None:
        try:
            for notice in self._stream:
                self._heard.append(notice)
        except Exception as error:
            self._error = error


@dataclass
class LiveSandbox:
    """A sandbox whose servers run."""

    layout: Layout
    profiles: Sandbox
    servers: Servers
    stack: ExitStack
    _hospitals: dict[str, HospitalClient] = field(default_factory=dict)
    _pharmacies: dict[str, PharmacyClient] = field(default_factory=dict)
    _regulators: dict[str, RegulatorClient] = field(default_factory=dict)

    def hospital(self, city: str) -> HospitalClient:
        """The patient client of a city's hospital."""
        if city not in self._hospitals:
            client = HospitalClient(self.profiles.profile(f"{city}-hospital"), patience=PERSISTENT)
            self._hospitals[city] = self.stack.enter_context(client)
        return self._hospitals[city]

    def pharmacy(self, city: str) -> PharmacyClient:
        """The patient client of a city's pharmacy."""
        if city not in self._pharmacies:
            client = PharmacyClient(self.profiles.profile(f"{city}-pharmacy"), patience=PERSISTENT)
            self._pharmacies[city] = self.stack.enter_context(client)
        return self._pharmacies[city]

    def regulator(self, city: str) -> RegulatorClient:
        """The patient client of a city's regulator."""
        if city not in self._regulators:
            profile = self.profiles.profile(f"{city}-regulator")
            client = RegulatorClient(profile, patience=PERSISTENT)
            self._regulators[city] = self.stack.enter_context(client)
        return self._regulators[city]

    @contextmanager
    def listening(self, client: HospitalClient | PharmacyClient) -> Iterator[Ear]:
        """An ear at a stream of an institution's notices."""
        ear = Ear(client.watch())
        try:
            yield ear
        finally:
            ear.close()

    def trace(self, number: PrescriptionNumber) -> list[TraceEvent]:
        """What all regions together stored about a prescription."""
        events: list[TraceEvent] = []
        for city in REGIONS:
            try:
                events += self.regulator(city).trace(number)
            except NotFound:
                continue  # a region that has no part in it
        return events

    def undelivered(self) -> int:
        """How many facts wait in all outboxes of platforms and edges, or were set aside there."""
        platforms = [folder / "platform.db" for folder in self.layout.directory.glob("platforms/*")]
        edges = [folder / "edge.db" for folder in self.layout.directory.glob("edges/*")]
        waiting = [_count(store, "outbox") for store in platforms]
        waiting += [_count(store, "handovers", "delivered = 0") for store in edges]
        waiting += [
            _count(store, "issued_prescriptions", "registration = 'queued'") for store in edges
        ]
        return sum(waiting)

    def said(self) -> str:
        """Everything that any server ever logged: as it stands there, and in plain letters."""
        files = sorted(self.layout.logs.glob("*.log"))
        raw = "\n".join(file.read_text(encoding="utf-8") for file in files)
        return raw + _ESCAPED.sub(lambda found: chr(int(found[1], 16)), raw)


@contextmanager
def run_sandbox(folder: Path, data: Path = DATA) -> Iterator[LiveSandbox]:
    """A fresh sandbox in this folder, made from this data, up for as long as the context lasts."""
    with sandbox_keeper.kept(folder / "sandbox", data) as keeper, ExitStack() as stack:
        layout = Layout(folder / "sandbox")
        profiles = load_sandbox(layout.announcement)
        yield LiveSandbox(layout, profiles, Servers(keeper), stack)
    require_proper(layout.logs)


def require_proper(logs: Path) -> None:
    """Every line of every log is one JSON object, and none tells of a defect."""
    for file in logs.glob("*.log"):
        *complete, _cut = file.read_text(encoding="utf-8").split("\n")
        assert complete, f"{file.name} is empty"
        for line in complete:
            assert line.startswith("{"), f"{file.name}: {line}"
            entry = json.loads(line)
            assert entry["level"] in ("debug", "info", "warning"), f"{file.name}: {line}"


def run_program(program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command of this package, as it is installed beside this interpreter, to its end."""
    command = [Path(sys.executable).with_name(program), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)


def _count(store: Path, table: str, condition: str = "1") -> int:
    # Read beside the running server, as an operator's own tools may.
    with closing(sqlite3.connect(f"{store.as_uri()}?mode=ro", uri=True)) as connection:
        query = f"SELECT count(*) FROM {table} WHERE {condition}"  # noqa: S608 - no input
        (count,) = connection.execute(query).fetchone()
    return int(count)
