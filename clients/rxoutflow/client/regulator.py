"""For supervision: what a region's platform stored about a prescription.

Speaks SupervisionService at the platform of the regulator's own region. Each region tells what it
stored itself; the traces of home, dispensing and payer region together are the whole life of a
prescription. Every statement of a trace is verified here before it is handed out.
"""

from __future__ import annotations

from rxoutflow.client.base import Client
from rxoutflow.client.history import read_event
from rxoutflow.errors import AnswerUntrusted
from rxoutflow.identity import CallerKind
from rxoutflow.log import ProofWrong, verify_consistency
from rxoutflow.numbers import PrescriptionNumber
from rxoutflow.v1.evidence_pb2 import EvidenceBundle
from rxoutflow.v1.statement_pb2 import Checkpoint
from rxoutflow.v1.supervision_service_pb2 import (
    ExportEvidenceRequest,
    GetConsistencyProofRequest,
    SupervisionServiceGetCheckpointRequest,
    SupervisionServiceGetCheckpointResponse,
    TracePrescriptionRequest,
)
from rxoutflow.v1.supervision_service_pb2_grpc import SupervisionServiceStub
from rxoutflow.v1.trace_pb2 import TraceEvent


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
        events = self.connection.call(stub.TracePrescription, request).events
        return tuple(read_event(self.evidence, event, str(number)) for event in events)

    def export(self, number: PrescriptionNumber) -> EvidenceBundle:
        """Everything that the region keeps about a prescription, as a bundle that proves itself.

        It is not judged here: :func:`rxoutflow.bundle.verify_bundle` does that, now or later.

        Raises:
            NotFound: this region keeps nothing about the prescription.
            Unavailable: the newest statements are under no signed checkpoint yet.
        """
        request = ExportEvidenceRequest(prescription_number=str(number))
        return self.connection.call(self._stub.ExportEvidence, request).bundle

    def checkpoint(self) -> SupervisionServiceGetCheckpointResponse:
        """The newest checkpoint of the region's log, and those that its platform saw of others.

        Hold on to the checkpoint, and have the next one proven with ``require_consistent``.
        """
        request = SupervisionServiceGetCheckpointRequest()
        return self.connection.call(self._stub.GetCheckpoint, request)

    def require_consistent(self, earlier: Checkpoint, later: Checkpoint) -> None:
        """Check that the region's log at a later checkpoint contains the log at an earlier one.

        Raises:
            AnswerUntrusted: it does not, or one of them is not signed by the region's platform.
        """
        first, second = self.evidence.head(earlier), self.evidence.head(later)
        request = GetConsistencyProofRequest(first_size=first.size, second_size=second.size)
        answer = self.connection.call(self._stub.GetConsistencyProof, request)
        path = answer.consistency_path
        try:
            verify_consistency(first.size, second.size, first.root, second.root, path)
        except ProofWrong as error:
            raise AnswerUntrusted(f"the region's log was rewritten: {error}") from None

    @property
    def _stub(self) -> SupervisionServiceStub:
        return self.connection.stub(SupervisionServiceStub)
