"""For supervision: what a region's platform stored about a prescription.

Speaks SupervisionService at the platform of the regulator's own region. Each region tells what it
stored itself; the traces of home, dispensing and payer region together are the whole life of a
prescription. Every statement of a trace is verified here before it is handed out.
"""

from __future__ import annotations

from datetime import UTC

from rxoutflow.client.base import Client
from rxoutflow.client.evidence import require
from rxoutflow.identity import CallerKind
from rxoutflow.numbers import PrescriptionNumber
from rxoutflow.statements import statement_sha256
from rxoutflow.v1.supervision_service_pb2 import TraceEvent, TracePrescriptionRequest
from rxoutflow.v1.supervision_service_pb2_grpc import SupervisionServiceStub


class RegulatorClient(Client):
    """A supervising authority at its region's platform."""

    kind = CallerKind.REGULATOR

    def trace(self, number: PrescriptionNumber) -> tuple[TraceEvent, ...]:
        """The events of a prescription in this region, in the order in which it stored them.

        Raises:
            NotFound: this region knows nothing of the prescription.
            AnswerUntrusted: a statement of the trace does not verify, or is not the one named.
        """
        stub = self.connection.stub(SupervisionServiceStub)
        request = TracePrescriptionRequest(prescription_number=str(number))
        events = tuple(self.connection.call(stub.TracePrescription, request).events)
        for event in events:
            self._verify(event)
        return events

    def _verify(self, event: TraceEvent) -> None:
        if not event.HasField("statement"):
            return
        self.evidence.read_any(event.statement, at=event.event_time.ToDatetime(UTC))
        require(
            event.statement_sha256 == statement_sha256(event.statement),
            f"the statement of `{event.action}` is not the one whose digest the trace names",
        )
