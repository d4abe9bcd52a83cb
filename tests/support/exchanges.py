"""Prescriptions on their way through a sandbox, and what must be true of them at their end.

An ``Exchange`` is one prescription that is issued, claimed, committed and recorded, step by step.
It keeps each request as it was sent and each answer as it was first given, so that a test can send
any of them again. ``require_agreement`` is what every region must say when all is over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from rxoutflow.amounts import broken_identities
from rxoutflow.client import Committed, Evidence, HospitalClient, IssuedPrescription, PharmacyClient
from rxoutflow.errors import QuoteChanged
from rxoutflow.numbers import PrescriptionNumber
from rxoutflow.sandbox_goods import invented_boxes
from rxoutflow.v1.attempt_pb2 import Attempt
from rxoutflow.v1.dispense_pb2 import DispensedLine, DispenseProgress
from rxoutflow.v1.his_service_pb2 import (
    REGISTRATION_REGISTERED,
    IssuePrescriptionRequest,
)
from rxoutflow.v1.pos_service_pb2 import (
    PosServiceClaimPrescriptionRequest,
    PosServiceCommitClaimRequest,
    PosServiceRecordDispenseRequest,
)
from rxoutflow.v1.prescription_pb2 import Prescription
from rxoutflow.v1.prescription_status_pb2 import LineUse
from rxoutflow.v1.settlement_pb2 import Amounts
from rxoutflow.v1.trace_pb2 import TraceEvent
from rxoutflow_server.domain.trace_codes import registrar_of
from support.sandbox import REGIONS, Ear, LiveSandbox, draft, eventually


@dataclass(frozen=True)
class Route:
    """Which prescription is issued and filled where; its file says who pays."""

    file: str
    hospital: str
    pharmacy: str

    @property
    def home(self) -> str:
        """The region where it is issued."""
        return REGIONS[self.hospital]

    @property
    def dispensing(self) -> str:
        """The region where it is filled."""
        return REGIONS[self.pharmacy]

    @property
    def payer(self) -> str:
        """The region where the person is insured."""
        return draft(self.file).content.patient.payer_region_code

    def __str__(self) -> str:
        return f"{self.file} from {self.hospital} to {self.pharmacy}"


THREE_REGIONS = Route("hypertension-chronic", "xiamen", "quanzhou")


class Exchange:
    """One prescription on its way. ``acknowledged`` is called at each answer that counts."""

    issue_request: IssuePrescriptionRequest
    issued: IssuedPrescription
    claim_request: PosServiceClaimPrescriptionRequest
    attempt: Evidence[Attempt]
    commit_request: PosServiceCommitClaimRequest
    committed: Committed
    record_request: PosServiceRecordDispenseRequest
    recorded: DispenseProgress | None

    def __init__(
        self,
        sandbox: LiveSandbox,
        route: Route = THREE_REGIONS,
        acknowledged: Callable[[], None] = lambda: None,
    ) -> None:
        self.sandbox, self.route = sandbox, route
        self.hospital: HospitalClient = sandbox.hospital(route.hospital)
        self.pharmacy: PharmacyClient = sandbox.pharmacy(route.pharmacy)
        self.steps = 0
        self._acknowledged = acknowledged

    @property
    def number(self) -> PrescriptionNumber:
        """Of the prescription."""
        return self.issued.number

    @property
    def amounts(self) -> Amounts:
        """What was settled."""
        assert self.committed.settlement is not None
        return self.committed.settlement.content.amounts

    @property
    def state(self) -> DispenseProgress.State.ValueType:
        """How far the dispensing region has brought it."""
        return self.progress().state

    def issue(self) -> Self:
        """As the hospital."""
        prescription = self.hospital.complete(draft(self.route.file))
        self.issue_request = self.hospital.issue_request(prescription)
        self.issued = self.hospital.send_issue(self.issue_request)
        return self._done()

    def claim(self) -> Self:
        """As the pharmacy, with the pickup code."""
        self.claim_request = self.pharmacy.claim_request(self.issued.pickup_code)
        self.attempt = self.pharmacy.send_claim(self.claim_request)
        return self._done()

    def quote(self) -> Amounts:
        """What patient and fund would pay, for what the commit request will say."""
        prescription, attempt = self.issued.prescription.content, self.attempt.content
        self.lines = self.pharmacy.price(prescription, attempt.lines)
        return self.pharmacy.quote(attempt, self.lines).content.amounts

    def prepare_commit(self) -> Self:
        """Quote, and sign that the amounts are accepted."""
        accepted = self.quote()
        content = self.attempt.content
        self.commit_request = self.pharmacy.commit_request(content, self.lines, accepted)
        return self

    def commit(self) -> Self:
        """At the quoted amounts, quoted again where they changed in between."""
        while True:
            self.prepare_commit()
            try:
                return self.send_commit()
            except QuoteChanged:
                continue

    def send_commit(self) -> Self:
        """Send what ``prepare_commit`` signed."""
        self.committed = self.pharmacy.send_commit(self.commit_request)
        return self._done()

    def record(self, registrar: str = "") -> Self:
        """What was handed over, with boxes that nobody else has, of this region's register."""
        self.prepare_record(registrar)
        self.recorded = self.pharmacy.send_dispense(self.record_request)
        return self._done()

    def prepare_record(self, registrar: str = "") -> Self:
        """Sign the record; of boxes of any register, if none is named."""
        committed = self.committed
        boxes = self._boxes()
        while registrar and any(
            registrar_of(box.code, REGIONS.values()) != registrar
            for line in boxes
            for box in line.trace_codes
        ):
            boxes = self._boxes()
        self.record_request = self.pharmacy.dispense_request(
            committed.attempt.content, committed.settlement_id, boxes
        )
        return self

    def _boxes(self) -> list[DispensedLine]:
        herbal = self.issued.prescription.content.type == Prescription.TYPE_HERBAL
        random_bytes = self.pharmacy.surroundings.random_bytes
        return invented_boxes(self.committed.lines, herbal, random_bytes)

    def up_to(self, steps: int) -> Self:
        """Take the steps that are missing: 1 issues, 2 claims too, 3 commits, 4 records."""
        while self.steps < steps:
            if self.steps == 1:
                self.await_registration()
            (self.issue, self.claim, self.commit, self.record)[self.steps]()
        return self if steps > 1 else self.await_registration()

    def await_registration(self) -> Self:
        """Until a pharmacy can find it; at once, unless the edge did not reach its platform."""
        eventually(self.registered, f"{self.route} registered")
        return self

    def registered(self) -> bool:
        """Whether the hospital's edge has brought it to the platform."""
        return self.hospital.get(self.number).registration == REGISTRATION_REGISTERED

    def progress(self) -> DispenseProgress:
        """How far the dispensing region says it has come."""
        return self.pharmacy.progress(self.attempt.content).progress

    def completed(self) -> bool:
        """Whether home has booked it and the payer has posted."""
        return self.state == DispenseProgress.STATE_COMPLETED

    def require_kept(self) -> None:
        """Whatever was acknowledged is still there: the same requests get the same answers."""
        if self.steps >= 1:
            again = self.hospital.send_issue(self.issue_request)
            assert again.pickup_code == self.issued.pickup_code
            assert again.response.prescription == self.issued.response.prescription
        if self.steps >= 2:
            attempt = self.pharmacy.send_claim(self.claim_request)
            assert attempt.statement == self.attempt.statement
        if self.steps >= 3:
            committed = self.pharmacy.send_commit(self.commit_request)
            assert committed == self.committed
        if self.steps >= 4:
            recorded = self.pharmacy.send_dispense(self.record_request)
            assert self.recorded in (None, recorded)

    def _done(self) -> Self:
        self.steps += 1
        self._acknowledged()
        return self


def heard_all(ear: Ear, exchange: Exchange) -> bool:
    """Whether a hospital has heard of every step, each once and in order.

    Home hears of handover and payment from two regions, in whichever order.
    """
    kinds = ear.kinds(exchange.number)
    steps, end = kinds[:3], sorted(kinds[3:])
    return steps == ["REGISTERED", "CLAIMED", "COMMITTED"] and end == ["DISPENSED", "SETTLED"]


def heard_of_money(ear: Ear, exchange: Exchange) -> bool:
    """Whether a pharmacy has heard that its money was posted."""
    return "SETTLED" in ear.kinds(exchange.number)


def require_agreement(exchange: Exchange) -> list[TraceEvent]:
    """Home, dispensing and payer region tell the same end, each thing once; all their events."""
    eventually(exchange.completed, f"{exchange.route} completed")
    events = eventually(lambda: _all_known(exchange), f"{exchange.route} known in every region")
    route = exchange.route
    once = Counter((event.region_code, event.action) for event in events)
    for step in (
        (route.home, "registered"),
        (route.home, "claimed"),
        (route.home, "committed"),
        (route.home, "dispense booked"),
        (route.dispensing, "handed over"),
        (route.dispensing, "booking known"),
        (route.payer, "held"),
        (route.payer, "posted"),
    ):
        assert once[step] == 1, f"{route}: {step} {once[step]} times"
    assert not once[(route.payer, "voided")]
    _require_same_money(exchange, events)
    _require_same_goods(exchange, events)
    _require_used_up(exchange)
    return events


def _all_known(exchange: Exchange) -> list[TraceEvent]:
    """The events of all regions, once the payer's posting is known in each of them."""
    events = exchange.sandbox.trace(exchange.number)
    seen = {event.action for event in events}
    return events if {"posted", "settlement known", "payment known"} <= seen else []


def _require_same_money(exchange: Exchange, events: list[TraceEvent]) -> None:
    assert broken_identities(exchange.amounts) == ()
    accepted = exchange.amounts.SerializeToString(deterministic=True)
    for action in ("held", "posted", "settlement known", "hold confirmed", "payment known"):
        told = {_bytes(event.amounts) for event in events if event.action == action}
        assert told == {accepted}, f"{exchange.route}: {action} with other amounts"


def _require_same_goods(exchange: Exchange, events: list[TraceEvent]) -> None:
    for about in (("dispense booked", "booking known"), ("posted", "payment known")):
        told = {event.statement_sha256 for event in events if event.action in about}
        assert len(told) == 1, f"{exchange.route}: {about} tell of different statements"


def _require_used_up(exchange: Exchange) -> None:
    known = exchange.hospital.get(exchange.number)
    assert known.prescription.statement == exchange.issued.prescription.statement
    # Its edge tells what it heard last for as long as it does not reach the platform again.
    lines = eventually(lambda: _used_lines(exchange), f"{exchange.route} used up")
    for line in lines:
        assert line.dispensed == line.authorised - line.available > 0
        # Fills of a repeat prescription are still to open; nothing of the present one is left.
        assert (line.open, line.claimed, line.committed) == (0, 0, 0)


def _used_lines(exchange: Exchange) -> list[LineUse]:
    status = exchange.hospital.get(exchange.number).status
    assert status is not None
    lines = list(status.content.lines)
    return lines if any(line.dispensed for line in lines) else []


def _bytes(amounts: Amounts) -> bytes:
    return amounts.SerializeToString(deterministic=True)
