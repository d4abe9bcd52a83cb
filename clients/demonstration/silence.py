"""Pharmacies that committed and fell silent: two people of home's operator decide, by evidence.

No timer does. In the sandbox a commitment is overdue at once, so that nobody has to wait.
"""

from __future__ import annotations

from demonstration.report import Scene
from demonstration.stage import Stage, until
from rxoutflow.client import IssuedPrescription, Overdue
from rxoutflow.errors import InvalidInput
from rxoutflow.v1.attempt_pb2 import Adjudication, Attempt
from rxoutflow.v1.dispense_pb2 import DispenseProgress

FILE = "to-be-revoked"


def play(stage: Stage) -> None:
    """One that had not handed over, one that had."""
    scene = stage.report.scene("pharmacies that fell silent after the commit")
    _not_handed_over(stage, scene)
    _handed_over(stage, scene)


def _not_handed_over(stage: Stage, scene: Scene) -> None:
    issued, attempt = _silent(stage)
    overdue = _on_the_list(stage, attempt)
    scene.note("泉州's pharmacy is on the list", f"telephone {overdue.pharmacy_phone}")
    ended = _adjudicated(stage, overdue, Adjudication.FINDING_NOT_HANDED_OVER)
    released = ended.state == Attempt.STATE_RELEASED
    stage.report.check("not handed over, by two people: released", released)
    free = until(lambda: "voided" in stage.actions(issued.number))
    stage.report.check("the money that was held for it is set free", free)
    other = stage.pharmacies["nantong"]
    again = other.claim(issued.pickup_code).content
    stage.report.check("another pharmacy can serve the patient", again.fence == 2)
    other.release(again, "演示结束（合成）")
    scene.note("found not handed over, signed by two", "money free; 南通's pharmacy can claim it")


def _handed_over(stage: Stage, scene: Scene) -> None:
    issued, attempt = _silent(stage)
    ended = _adjudicated(stage, _on_the_list(stage, attempt), Adjudication.FINDING_HANDED_OVER)
    dispensed = ended.state == Attempt.STATE_DISPENSED
    stage.report.check("handed over, by two people: dispensed", dispensed)
    client = stage.pharmacies["quanzhou"]
    paid = until(
        lambda: client.progress(attempt).progress.state == DispenseProgress.STATE_COMPLETED
    )
    stage.report.check("and paid, without a record of the pharmacy", paid)
    steps = [event.action for event in stage.trace(issued.number)]
    once = steps.count("adjudicated") == steps.count("posted") == 1
    stage.report.check("adjudicated once, paid once", once, str(steps))
    scene.note("another one, found handed over", "booked and paid")


def _silent(stage: Stage) -> tuple[IssuedPrescription, Attempt]:
    """Committed, and nothing more is heard of it."""
    client, issued = stage.pharmacies["quanzhou"], stage.issue(FILE, "xiamen")
    attempt = client.claim(issued.pickup_code).content
    lines = client.price(issued.prescription.content, attempt.lines)
    accepted = client.quote(attempt, lines).content.amounts
    return issued, client.commit(attempt, lines, accepted).attempt.content


def _on_the_list(stage: Stage, attempt: Attempt) -> Overdue:
    overdue = stage.operator.find_overdue(attempt.attempt_id)
    told = overdue.settlement is not None and overdue.pharmacy_phone != ""
    stage.report.check("the list has the hold, and the pharmacy's telephone", told)
    return overdue


def _adjudicated(
    stage: Stage, overdue: Overdue, finding: Adjudication.Finding.ValueType
) -> Attempt:
    """Decided by one person, tried by the same one again, signed by another."""
    operator = stage.operator
    signed = operator.decide(overdue, finding, "两人核对库存账（合成）", "first_adjudicator")
    decision = operator.read_decision(signed)
    try:
        operator.adjudicate_request(decision, "first_adjudicator")
        alone = "one person was enough"
    except InvalidInput as error:
        alone = str(error)
    stage.report.check("one person alone cannot adjudicate", "second person" in alone, alone)
    request = operator.adjudicate_request(decision, "second_adjudicator")
    return operator.send_adjudicate(request).content
