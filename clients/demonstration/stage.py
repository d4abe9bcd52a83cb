"""The stage: a client for every actor of the sandbox, an ear for notices, the report."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from queue import Empty, Queue
from threading import Thread

from demonstration.report import Report
from rxoutflow.client import (
    HospitalClient,
    IssuedPrescription,
    NoticeStream,
    PharmacyClient,
    RegulatorClient,
)
from rxoutflow.documents import Draft, read_draft
from rxoutflow.errors import RxoutflowError
from rxoutflow.profile import Sandbox
from rxoutflow.v1.notice_pb2 import Notice

PRESCRIPTIONS = Path(__file__).parent.parent / "prescriptions"


def draft(file: str) -> Draft:
    """A prescription of the demonstration folder."""
    return read_draft(PRESCRIPTIONS / f"{file}.json")


class Stage:
    """Clients by city. The context closes them."""

    def __init__(self, sandbox: Sandbox, context: ExitStack) -> None:
        self.sandbox = sandbox
        self.report = Report(sandbox.region_names)
        enter = context.enter_context
        cities = ("xiamen", "quanzhou", "nantong")
        self.hospitals = {
            city: enter(HospitalClient(sandbox.profile(f"{city}-hospital"))) for city in cities[:2]
        }
        self.pharmacies = {
            city: enter(PharmacyClient(sandbox.profile(f"{city}-pharmacy"))) for city in cities
        }
        self.regulators = {
            city: enter(RegulatorClient(sandbox.profile(f"{city}-regulator"))) for city in cities
        }

    def issue(self, file: str, hospital: str) -> IssuedPrescription:
        """Issue a prescription of the demonstration folder."""
        client = self.hospitals[hospital]
        issued = client.issue(client.complete(draft(file)))
        self.report.issued += 1
        return issued


class Ear:
    """Listens to a stream of notices in the background."""

    def __init__(self, stream: NoticeStream) -> None:
        self._heard: Queue[Notice | None] = Queue()
        self._stream = stream
        Thread(target=self._listen, daemon=True).start()

    def heard_of(self, number: str, until: Notice.Kind.ValueType, seconds: float) -> list[Notice]:
        """The notices about a prescription, up to one of this kind, or what came in time."""
        heard: list[Notice] = []
        deadline = time.monotonic() + seconds
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
