"""Filling a prescription, step by step: find, claim, quote, commit, hand over, record."""

from __future__ import annotations

from collections.abc import Sequence

from demonstration import refusals
from demonstration.cases import MAIN, Case, Figures
from demonstration.report import Filled
from demonstration.stage import Stage, draft
from rxoutflow.amounts import broken_identities
from rxoutflow.client import Committed, IssuedPrescription, PharmacyClient
from rxoutflow.plain import short_name
from rxoutflow.sandbox_goods import invented_boxes
from rxoutflow.v1.attempt_pb2 import Attempt
from rxoutflow.v1.dispense_pb2 import Delivery, DispenseProgress
from rxoutflow.v1.prescription_pb2 import Prescription
from rxoutflow.v1.settlement_pb2 import Amounts, PricedLine


def fill(stage: Stage, case: Case) -> None:
    """Issue, find, claim, quote, commit, hand over, record."""
    client, issued = stage.pharmacies[case.pharmacy], stage.issue(case.file, case.hospital)
    attempt = claimed(stage, case, issued)
    if case is MAIN:
        again = client.claim(issued.pickup_code).content.attempt_id
        stage.report.check("claiming again gives the same attempt", again == attempt.attempt_id)
        refusals.claimed_by_another(stage, issued, client)
    lines = priced(client, case, issued, attempt)
    committed = client.commit(attempt, lines, quoted(stage, case, attempt, lines))
    hand_over(stage, case, issued, committed)


def claimed(stage: Stage, case: Case, issued: IssuedPrescription) -> Attempt:
    """Find it with its pickup code, and claim it."""
    client = stage.pharmacies[case.pharmacy]
    client.find(issued.pickup_code)
    return client.claim(issued.pickup_code).content


def priced(
    client: PharmacyClient, case: Case, issued: IssuedPrescription, attempt: Attempt
) -> Sequence[PricedLine]:
    """The goods at the prices of the list, or of the case."""
    lines = client.price(issued.prescription.content, attempt.lines)
    for line, price in zip(lines, case.prices, strict=False):
        line.unit_price_micro_yuan = price
    if case.substitute:
        for line in lines:
            line.drug_code = case.substitute
            line.unit_price_micro_yuan = client.profile.prices[case.substitute]
    return lines


def quoted(
    stage: Stage, case: Case, attempt: Attempt, lines: Sequence[PricedLine]
) -> Amounts | None:
    """The amounts that the patient accepts; None where the payer refuses, as it has to."""
    client = stage.pharmacies[case.pharmacy]
    if not case.refusal:
        return client.quote(attempt, lines).content.amounts
    title = f"{case.file}: the payer does not pay, so the patient pays alone"
    stage.report.refused(title, case.refusal, lambda: client.quote(attempt, lines))
    return None


def hand_over(
    stage: Stage, case: Case, issued: IssuedPrescription, committed: Committed
) -> tuple[Filled, DispenseProgress | None]:
    """Check the amounts, hand over, record, and put it into the pharmacy's book."""
    client = stage.pharmacies[case.pharmacy]
    check_amounts(stage, case, committed)
    herbal = issued.prescription.content.type == Prescription.TYPE_HERBAL
    boxes = invented_boxes(committed.lines, herbal, client.surroundings.random_bytes)
    attempt, settlement_id = committed.attempt.content, committed.settlement_id
    request = client.dispense_request(attempt, settlement_id, boxes, _delivery(case))
    progress = client.send_dispense(request)
    stage.sold(case.pharmacy, committed, request)
    filled = Filled(case, draft(case.file).about, issued, committed)
    stage.report.filled.append(filled)
    return filled, progress


def progress_of(stage: Stage, filled: Filled) -> DispenseProgress:
    """How far the dispensing region has brought it; noted in the report."""
    client = stage.pharmacies[filled.case.pharmacy]
    progress = client.progress(filled.committed.attempt.content).progress
    filled.state = short_name(progress, "state")
    return progress


def completed(stage: Stage, filled: Filled) -> bool:
    """Whether home has booked it and the payer has posted."""
    return progress_of(stage, filled).state == DispenseProgress.STATE_COMPLETED


def check_amounts(stage: Stage, case: Case, committed: Committed) -> None:
    """Hold the settlement against the figures of the table, the identities and the prices."""
    check, settlement, lines = stage.report.check, committed.settlement, committed.lines
    paid = case.figures is not None
    check(f"{case.file}: paid as meant, by insurance or alone", (settlement is not None) == paid)
    if settlement is None or case.figures is None:
        return
    amounts = settlement.content.amounts
    found = Figures.of(amounts)
    as_worked_out = found == case.figures
    name = f"{case.file}: every amount is the one worked out by hand"
    check(name, as_worked_out, f"{found}, by hand {case.figures}")
    broken = broken_identities(amounts)
    check(f"{case.file}: the amounts add up", not broken, "; ".join(broken))
    total = sum((line.quantity * line.unit_price_micro_yuan + 5000) // 10000 for line in lines)
    name = f"{case.file}: the total is that of the prices, without delivery"
    check(name, amounts.total_fen == total, f"{amounts.total_fen} and {total} fen")


def _delivery(case: Case) -> Delivery | None:
    """Packed for the courier, where the case says so; the fee is never paid by insurance."""
    if not case.delivery_fee_fen:
        return None
    return Delivery(state=Delivery.STATE_READY, fee_fen=case.delivery_fee_fen)
