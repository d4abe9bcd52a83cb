"""What the clients of a run asked and heard, for the history checker.

``recorded`` puts a recorder beside every client for as long as the context lasts. A request counts
from the moment when its client first sent it until a definite answer came, however often it was
sent and whatever crashed in between. Clocks of regions differ, so nothing is known of when a lease
ends but that it does not end before it begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from rxoutflow.v1 import (
    administration_service_pb2,
    attempt_pb2,
    dispense_pb2,
    hospital_service_pb2,
    pharmacy_service_pb2,
    prescription_pb2,
    prescription_status_pb2,
)
from rxoutflow.v1.attempt_pb2 import Attempt
from rxoutflow.v1.prescription_status_pb2 import RevocationOutcome
from simulation.clients import Work
from support.history import Call, Kind, Recorder, Revocation

Begin = Callable[[Recorder, str, bytes], Call]
Heard = Callable[[Call, bytes], None]

_OK = "OK"
_REVOCATIONS = {
    prescription_status_pb2.REVOCATION_OUTCOME_REVOKED: Revocation.REVOKED,
    prescription_status_pb2.REVOCATION_OUTCOME_MARKED: Revocation.MARKED,
    prescription_status_pb2.REVOCATION_OUTCOME_ALREADY_DISPENSED: Revocation.ALREADY_DISPENSED,
    prescription_status_pb2.REVOCATION_OUTCOME_REST_REVOKED: Revocation.REST_REVOKED,
    prescription_status_pb2.REVOCATION_OUTCOME_EXPIRED: Revocation.EXPIRED,
    prescription_status_pb2.REVOCATION_OUTCOME_ALREADY_REVOKED: Revocation.ALREADY_REVOKED,
}
"""What else a revocation can come to says that there was never anything to be revoked."""


@contextmanager
def recorded() -> Iterator[Recorder]:
    """Record every client that is started in this context."""
    clock = _Clock()
    recorder = Recorder(clock.now)
    honest = Work._answer

    async def answer(self: Work, path: str, data: bytes, tries: int | None) -> tuple[str, bytes]:
        clock.loop = self.world.loop
        method = path.rpartition("/")[2]
        if method == "RegisterPrescription":
            _registered(recorder, data)
        begin, heard = _METHODS.get(method, (None, None))
        call = begin(recorder, self.client.name, data) if begin is not None else None
        result, response = await honest(self, path, data, tries)
        if call is not None and heard is not None and result == _OK:
            heard(call, response)
        elif call is not None and result not in (_OK, "gave up"):
            call.refused(result)
        return result, response

    with patch.object(Work, "_answer", answer):
        yield recorder


class _Clock:
    """The virtual time of whatever run is under way."""

    loop: Any = None

    def now(self) -> float:
        return float(self.loop.now)


def _registered(recorder: Recorder, data: bytes) -> None:
    request = hospital_service_pb2.RegisterPrescriptionRequest.FromString(data)
    content = prescription_pb2.Prescription.FromString(request.prescription.payload)
    authorised = {line.line_id: line.quantity for line in content.lines}
    recorder.registered(content.prescription_number, authorised)


def _claim(recorder: Recorder, client: str, data: bytes) -> Call:
    request = pharmacy_service_pb2.ClaimPrescriptionRequest.FromString(data)
    content = attempt_pb2.Claim.FromString(request.claim.payload)
    lines = {line.line_id: line.quantity for line in content.lines}
    number, request_id = content.prescription_number, request.request_id
    return recorder.begin(Kind.CLAIM, number, client, request_id, lines=lines)


def _claimed(call: Call, data: bytes) -> None:
    response = pharmacy_service_pb2.ClaimPrescriptionResponse.FromString(data)
    attempt = Attempt.FromString(response.attempt.payload)
    lines = {line.line_id: line.quantity for line in attempt.lines}
    call.ok(attempt=attempt.attempt_id, fence=attempt.fence, lines=lines)


def _commit(recorder: Recorder, client: str, data: bytes) -> Call:
    request = pharmacy_service_pb2.CommitClaimRequest.FromString(data)
    content = attempt_pb2.Commitment.FromString(request.commitment.payload)
    return recorder.begin(
        Kind.COMMIT,
        content.prescription_number,
        client,
        request.request_id,
        attempt=content.attempt_id,
        lines={line.line_id: line.quantity for line in content.lines},
        settlement=content.settlement_id,
    )


def _release(recorder: Recorder, client: str, data: bytes) -> Call:
    request = pharmacy_service_pb2.ReleaseClaimRequest.FromString(data)
    content = attempt_pb2.ClaimRelease.FromString(request.release.payload)
    number, attempt_id = content.prescription_number, content.attempt_id
    return recorder.begin(Kind.RELEASE, number, client, request.request_id, attempt=attempt_id)


def _dispense(recorder: Recorder, client: str, data: bytes) -> Call:
    request = pharmacy_service_pb2.RecordDispenseRequest.FromString(data)
    content = dispense_pb2.DispenseRecord.FromString(request.dispense_record.payload)
    number, attempt_id = content.prescription_number, content.attempt_id
    return recorder.begin(Kind.DISPENSE, number, client, request.request_id, attempt=attempt_id)


def _return(recorder: Recorder, client: str, data: bytes) -> Call:
    request = pharmacy_service_pb2.ReturnDispenseRequest.FromString(data)
    content = dispense_pb2.DispenseReturn.FromString(request.dispense_return.payload)
    return recorder.begin(
        Kind.RETURN,
        content.prescription_number,
        client,
        request.request_id,
        attempt=content.attempt_id,
        lines={line.line_id: line.quantity for line in content.lines},
        again=content.cause != dispense_pb2.DispenseReturn.CAUSE_PATIENT,
    )


def _revoke(recorder: Recorder, client: str, data: bytes) -> Call:
    request = hospital_service_pb2.RevokePrescriptionRequest.FromString(data)
    content = prescription_status_pb2.Revocation.FromString(request.revocation.payload)
    return recorder.begin(Kind.REVOKE, content.prescription_number, client, request.request_id)


def _revoked(call: Call, data: bytes) -> None:
    outcome = hospital_service_pb2.RevokePrescriptionResponse.FromString(data).outcome
    if outcome in _REVOCATIONS:
        call.ok(revocation=_REVOCATIONS[outcome])
    else:
        call.refused(RevocationOutcome.Name(outcome))


def _correct(recorder: Recorder, client: str, data: bytes) -> Call:
    request = pharmacy_service_pb2.CorrectCallRequest.FromString(data)
    content = attempt_pb2.Correction.FromString(request.correction.payload)
    return recorder.begin(Kind.CORRECT, content.prescription_number, client, request.request_id)


def _corrected(call: Call, data: bytes) -> None:
    response = pharmacy_service_pb2.CorrectCallResponse.FromString(data)
    if response.outcome == attempt_pb2.CORRECTION_OUTCOME_RELEASED:
        call.ok(attempt=Attempt.FromString(response.attempt.payload).attempt_id)
    else:
        call.refused(attempt_pb2.CorrectionOutcome.Name(response.outcome))


def _adjudicate(recorder: Recorder, client: str, data: bytes) -> Call:
    request = administration_service_pb2.AdjudicateAttemptRequest.FromString(data)
    content = attempt_pb2.Adjudication.FromString(request.adjudication.payload)
    return recorder.begin(
        Kind.ADJUDICATE,
        content.prescription_number,
        client,
        request.request_id,
        attempt=content.attempt_id,
        handed_over=content.finding == attempt_pb2.Adjudication.FINDING_HANDED_OVER,
    )


def _done(call: Call, _: bytes) -> None:
    call.ok()


_METHODS: dict[str, tuple[Begin, Heard]] = {
    "ClaimPrescription": (_claim, _claimed),
    "CommitClaim": (_commit, _done),
    "ReleaseClaim": (_release, _done),
    "RecordDispense": (_dispense, _done),
    "ReturnDispense": (_return, _done),
    "RevokePrescription": (_revoke, _revoked),
    "CorrectCall": (_correct, _corrected),
    "AdjudicateAttempt": (_adjudicate, _done),
}
