"""Calls whose answers were lost: corrected (冲正), they have no effect and will have none."""

from __future__ import annotations

from demonstration.stage import Stage, until
from rxoutflow.client import PharmacyClient
from rxoutflow.numbers import PickupCode
from rxoutflow.sandbox_goods import invented_boxes
from rxoutflow.v1.attempt_pb2 import (
    CORRECTION_OUTCOME_NOTHING_TO_UNDO,
    CORRECTION_OUTCOME_RELEASED,
    Attempt,
    CorrectionOutcome,
)
from rxoutflow.v1.pos_service_pb2 import PosServiceCommitClaimRequest

FILE, REASON = "to-be-revoked", "病人已离开（合成）"


def play(stage: Stage) -> None:
    """A commit whose answer is lost, and a claim that never arrives."""
    client, issued = stage.pharmacies["quanzhou"], stage.issue(FILE, "xiamen")
    scene, number = stage.report.scene("calls whose answers were lost"), issued.number
    request = _commit_request(client, issued.pickup_code)
    committed = client.send_commit(request)
    scene.note(
        "commit; its answer is lost", "南通 holds the money, 泉州 does not know it may hand over"
    )
    corrected = client.correct_call(str(number), request.request_id, REASON)
    _check(stage, "a commit without an answer", corrected.outcome, CORRECTION_OUTCOME_RELEASED)
    free = until(lambda: "voided" in stage.actions(number))
    stage.report.check("the money that was held is set free", free)
    scene.note("corrected", "released, and the money is set free")
    boxes = invented_boxes(committed.lines, False, client.surroundings.random_bytes)
    stage.report.refused(
        "a handover after its commit was corrected",
        "ATTEMPT_ENDED",
        lambda: client.dispense(committed, boxes),
    )
    _never_arrived(stage, client, issued.pickup_code)
    scene.note("another claim never arrives; corrected", "nothing to undo, and it never will be")
    again = client.claim(issued.pickup_code).content
    claimed = again.state == Attempt.STATE_RESERVED
    stage.report.check("afterwards the patient can be served", claimed)
    client.release(again, REASON)


def _commit_request(client: PharmacyClient, code: PickupCode) -> PosServiceCommitClaimRequest:
    attempt = client.claim(code).content
    prescription = client.find(code).prescription.content
    lines = client.price(prescription, attempt.lines)
    accepted = client.quote(attempt, lines).content.amounts
    return client.commit_request(attempt, lines, accepted)


def _never_arrived(stage: Stage, client: PharmacyClient, code: PickupCode) -> None:
    request = client.claim_request(code)
    corrected = client.correct_call(str(code.number), request.request_id, REASON)
    outcome = corrected.outcome
    _check(stage, "a claim that never arrived", outcome, CORRECTION_OUTCOME_NOTHING_TO_UNDO)
    stage.report.refused(
        "a corrected claim arrives late", "REQUEST_CORRECTED", lambda: client.send_claim(request)
    )


def _check(
    stage: Stage,
    what: str,
    outcome: CorrectionOutcome.ValueType,
    expected: CorrectionOutcome.ValueType,
) -> None:
    name = CorrectionOutcome.Name(outcome)
    stage.report.check(f"{what} is corrected", outcome == expected, name)
