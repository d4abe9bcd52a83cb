"""The stage: a client for every actor of the sandbox, an ear for notices, books, the report."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import date
from pathlib import Path
from queue import Empty, Queue
from tempfile import TemporaryDirectory
from threading import Thread

from rich.console import Console

from demonstration.report import Report
from rxoutflow.client import (
    Committed,
    HospitalClient,
    IssuedPrescription,
    NoticeStream,
    OperatorClient,
    Patience,
    PharmacyClient,
    RegulatorClient,
    sale,
)
from rxoutflow.documents import CHINA, Draft, read_draft
from rxoutflow.errors import NotFound, RxoutflowError
from rxoutflow.numbers import PrescriptionNumber
from rxoutflow.profile import Sandbox
from rxoutflow.v1.clearing_pb2 import LedgerEntry
from rxoutflow.v1.dispense_pb2 import DispenseRecord
from rxoutflow.v1.notice_pb2 import Notice
from rxoutflow.v1.pos_service_pb2 import PosServiceRecordDispenseRequest
from rxoutflow.v1.trace_pb2 import TraceEvent

PRESCRIPTIONS = Path(__file__).parent.parent / "prescriptions"

PATIENCE_SECONDS = 60.0
"""How long the demo waits for what has to come by itself."""

PERSISTENT = Patience(attempts=40, first_pause=0.1, longest_pause=1.0)
"""Repeats the very same request for as long as a region may take to come back."""

_POLL_SECONDS = 0.1

CITIES = {
    "xiamen": "350200",
    "quanzhou": "350500",
    "nantong": "320600",
    "hengyang": "430400",
    "ankang": "610900",
}
_HOSPITALS = ("xiamen", "quanzhou")
_PHARMACIES = ("xiamen", "quanzhou", "nantong")


def draft(file: str) -> Draft:
    """A prescription of the demonstration folder."""
    return read_draft(PRESCRIPTIONS / f"{file}.json")


class Stage:
    """Clients by city. The context closes them."""

    def __init__(self, sandbox: Sandbox, console: Console, context: ExitStack) -> None:
        self.sandbox = sandbox
        self.console = console
        self.report = Report(sandbox.region_names)
        self.books: dict[tuple[str, date], list[LedgerEntry]] = defaultdict(list)
        """What each city's pharmacy sold and took back, by day: its own book."""
        enter = context.enter_context
        self.folder = Path(enter(TemporaryDirectory(prefix="rxoutflow-demo-")))
        self.receipts = self.folder / "receipts"
        profile, kept = sandbox.profile, self.receipts
        self.hospitals = {
            city: enter(
                HospitalClient(profile(f"{city}-hospital"), patience=PERSISTENT, receipts=kept)
            )
            for city in _HOSPITALS
        }
        self.pharmacies = {
            city: enter(
                PharmacyClient(profile(f"{city}-pharmacy"), patience=PERSISTENT, receipts=kept)
            )
            for city in _PHARMACIES
        }
        self.regulators = {
            city: enter(RegulatorClient(profile(f"{city}-regulator"))) for city in CITIES
        }
        self.operator = enter(OperatorClient(profile("xiamen-operator")))

    @contextmanager
    def act(self, title: str) -> Iterator[None]:
        """A part of the demo: shown while it runs, with what came of its checks."""
        began, before = time.monotonic(), len(self.report.checks)
        with self.console.status(f"{title} ..."):
            yield
        done = self.report.checks[before:]
        held = sum(check["ok"] is True for check in done)
        seconds = time.monotonic() - began
        self.console.print(f"{title:.<66} {held:3}/{len(done)} checks {seconds:5.1f} s")

    def issue(self, file: str, hospital: str) -> IssuedPrescription:
        """Issue a prescription of the demonstration folder, and wait until home knows it.

        The hospital's edge accepts it at once, and delivers it later if its platform was away.
        """
        client = self.hospitals[hospital]
        issued = client.issue(client.complete(draft(file)))
        until(lambda: "registered" in self.actions(issued.number))
        self.report.issued += 1
        return issued

    def sold(
        self, city: str, committed: Committed, request: PosServiceRecordDispenseRequest
    ) -> None:
        """Put a handover into the book of a city's pharmacy."""
        record = DispenseRecord.FromString(request.dispense_record.payload)
        day = record.dispense_time.ToDatetime(CHINA).date()
        self.books[city, day].append(sale(committed))

    def trace(self, number: PrescriptionNumber) -> list[TraceEvent]:
        """What all regions that have a part in it stored, in order of time."""
        events: list[TraceEvent] = []
        for regulator in self.regulators.values():
            try:
                events += regulator.trace(number)
            except NotFound:
                continue
        return sorted(events, key=lambda event: event.event_time.ToNanoseconds())

    def actions(self, number: PrescriptionNumber) -> set[str]:
        """What happened to a prescription, anywhere."""
        return {event.action for event in self.trace(number)}


def until(seen: Callable[[], bool]) -> bool:
    """Ask until it is so, at a civil pace; whether it became so in time."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (so := seen()) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    return so


class Ear:
    """Listens to a stream of notices in the background."""

    def __init__(self, stream: NoticeStream) -> None:
        self._heard: Queue[Notice | None] = Queue()
        self._stream = stream
        Thread(target=self._listen, daemon=True).start()

    def heard_of(self, number: str, until: Notice.Kind.ValueType) -> list[Notice]:
        """The notices about a prescription, up to one of this kind, or what came in time."""
        heard: list[Notice] = []
        deadline = time.monotonic() + PATIENCE_SECONDS
        while until not in [notice.kind for notice in heard]:
            try:
                notice = self._heard.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                break
            if notice is None:
                break
            if notice.prescription_number == number:
                heard.append(notice)
        return heard

    def _listen(self) -> None:
        try:
            for notice in self._stream:
                self._heard.put(notice)
        except RxoutflowError:
            self._heard.put(None)
