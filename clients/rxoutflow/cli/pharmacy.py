"""Commands of a pharmacy: find, claim, quote, commit, dispense, return, release, correct, forget.

After ``claim`` the others work on the current claim, which the session remembers.
"""

from __future__ import annotations

import click

from rxoutflow.cli import show
from rxoutflow.cli.desk import Desk
from rxoutflow.cli.options import (
    answers_json,
    dispensed_line,
    line_quantities,
    returned_line,
    substitute,
)
from rxoutflow.client.collecting import Proof, number_of
from rxoutflow.errors import InvalidInput
from rxoutflow.numbers import NUMBER_LENGTH, PickupCode, PrescriptionNumber
from rxoutflow.plain import plain
from rxoutflow.sandbox_goods import invented_boxes
from rxoutflow.v1.attempt_pb2 import (
    Attempt,
    Claim,
    Collector,
    Commitment,
    Correction,
    CorrectionOutcome,
)
from rxoutflow.v1.credential_pb2 import ECredentialProof
from rxoutflow.v1.dispense_pb2 import Delivery, DispensedLine, DispenseReturn, ReturnedLine
from rxoutflow.v1.pos_service_pb2 import (
    PosServiceClaimPrescriptionRequest,
    PosServiceCommitClaimRequest,
    PosServiceCorrectCallRequest,
    PosServiceRecordDispenseRequest,
    PosServiceReleaseClaimRequest,
    PosServiceReturnDispenseRequest,
)
from rxoutflow.v1.prescription_pb2 import Prescription, PrescriptionLine
from rxoutflow.v1.settlement_pb2 import PricedLine

_COLLECTORS = {
    "patient": Collector.KIND_PATIENT,
    "representative": Collector.KIND_REPRESENTATIVE,
    "courier": Collector.KIND_COURIER,
}
_RETURN_CAUSES = {
    "quality": DispenseReturn.CAUSE_QUALITY,
    "dispensing-error": DispenseReturn.CAUSE_DISPENSING_ERROR,
    "not-delivered": DispenseReturn.CAUSE_NOT_DELIVERED,
    "patient": DispenseReturn.CAUSE_PATIENT,
}
_MAKES_CALL = ("claim ", "commit ")
"""Steps whose call can be corrected while it has no answer."""


@click.command()
@click.argument("credential_code")
@answers_json
def present(desk: Desk, credential_code: str) -> None:
    """Present the e-credential code on the patient's app; lists the patient's prescriptions."""
    presented = desk.pharmacy.present(credential_code.strip())
    desk.session.token.CopyFrom(presented.token.statement)
    desk.session.save()
    statuses = [each.content for each in presented.prescriptions]

    def tell() -> None:
        for status in statuses:
            line = f"{status.prescription_number}  {show.status_line(status)}"
            desk.console.print(line, markup=False)
        desk.console.print("next: rxoutflow claim NUMBER, as the patient chooses", markup=False)

    desk.say([plain(status) for status in statuses], tell)


@click.command()
@click.argument("code")
@answers_json
def find(desk: Desk, code: str) -> None:
    """Open the prescription of pickup code CODE, or, after present, of number CODE."""
    found = desk.pharmacy.find(_proof(desk, code))
    prescription, status = found.prescription.content, found.status.content

    def tell() -> None:
        desk.console.print(show.prescription_table(prescription, status))
        desk.console.print(show.status_line(status), markup=False)

    desk.say({"prescription": plain(prescription), "status": plain(status)}, tell)


@click.command()
@click.argument("code")
@click.option("--line", "lines", multiple=True, metavar="LINE:QUANTITY", help="Only this much.")
@click.option("--collector", type=click.Choice(list(_COLLECTORS)), default="patient")
@click.option("--identity-proof", default="", help="What a representative showed; no numbers.")
@answers_json
def claim(
    desk: Desk, code: str, lines: tuple[str, ...], collector: str, identity_proof: str
) -> None:
    """Claim the prescription of pickup code CODE, or, after present, of number CODE.

    From then on no other pharmacy can.
    """
    proof, quantities = _proof(desk, code), line_quantities(lines)
    client, session = desk.pharmacy, desk.session
    who = Collector(kind=_COLLECTORS[collector], identity_proof=identity_proof)
    found = client.find(proof)
    attempt = desk.send(
        f"claim {number_of(proof)}",
        lambda: client.claim_request(proof, quantities, who),
        PosServiceClaimPrescriptionRequest,
        client.send_claim,
    ).content
    session.forget_claim()
    session.attempt.CopyFrom(attempt)
    session.goods.CopyFrom(_goods(found.prescription.content))
    session.save()

    def tell() -> None:
        desk.console.print(show.attempt_line(attempt), markup=False)
        desk.console.print("next: rxoutflow quote", markup=False)

    desk.say(plain(attempt), tell)


@click.command()
@click.option("--substitute", "others", multiple=True, metavar="LINE:DRUG_CODE",
              help="Hand out this product of the same generic group instead.")  # fmt: skip
@answers_json
def quote(desk: Desk, others: tuple[str, ...]) -> None:
    """Ask the payer region what patient and fund would pay for the current claim."""
    client, session = desk.pharmacy, desk.session
    attempt = session.current()
    lines = _priced(desk, attempt, others)
    quoted = client.quote(attempt, lines).content
    session.commitment.Clear()
    session.commitment.lines.extend(lines)
    session.accepted.CopyFrom(quoted.amounts)
    session.save()

    def tell() -> None:
        desk.console.print(show.priced_table(lines, session.goods))
        desk.console.print(f"payer {quoted.payer_region_code}, tariff {quoted.tariff_version}")
        desk.console.print(show.amounts_table(quoted.amounts))
        desk.console.print("next: rxoutflow commit, if the patient agrees", markup=False)

    desk.say(plain(quoted), tell)


@click.command()
@click.option("--self-pay", is_flag=True, help="The patient pays everything.")
@click.option("--substitute", "others", multiple=True, metavar="LINE:DRUG_CODE",
              help="With --self-pay: hand out this product instead.")  # fmt: skip
@answers_json
def commit(desk: Desk, self_pay: bool, others: tuple[str, ...]) -> None:
    """Commit to the handover at the quoted amounts. Hand over only after this succeeded."""
    client, session = desk.pharmacy, desk.session
    attempt = session.current()
    if self_pay:
        lines = _priced(desk, attempt, others)
    elif others or not session.accepted.ListFields():
        raise InvalidInput("quote first (substitutes go there), or commit with --self-pay")
    else:
        lines = list(session.commitment.lines)
    committed = desk.send(
        f"commit {attempt.attempt_id}",
        lambda: client.commit_request(attempt, lines, None if self_pay else session.accepted),
        PosServiceCommitClaimRequest,
        client.send_commit,
    )
    session.attempt.CopyFrom(committed.attempt.content)
    session.commitment.Clear()
    session.commitment.settlement_id = committed.settlement_id
    session.commitment.lines.extend(committed.lines)
    session.save()
    settlement = committed.settlement.content if committed.settlement else None

    def tell() -> None:
        desk.console.print("committed: hand over, then rxoutflow dispense", markup=False)
        if settlement is not None:
            desk.console.print(show.settlement_line(settlement), markup=False)
            desk.console.print(show.amounts_table(settlement.amounts))

    desk.say(
        {
            "attempt": plain(session.attempt),
            "settlement_id": committed.settlement_id,
            "settlement": plain(settlement) if settlement is not None else None,
        },
        tell,
    )


@click.command()
@click.option("--line", "lines", multiple=True, metavar="LINE:BATCH,...:TRACE,...",
              help="Batches and trace codes of a line; TRACE~ for a part of a box.")  # fmt: skip
@click.option("--invent-boxes", is_flag=True, help="Sandbox only: make batches and codes up.")
@click.option("--carrier", default="", help="Sent, not handed over: the courier.")
@click.option("--parcel", default="", help="The courier's number of the parcel.")
@click.option("--fee-fen", type=click.IntRange(0), default=0, help="Delivery fee, all cash.")
@answers_json
def dispense(
    desk: Desk, lines: tuple[str, ...], invent_boxes: bool, carrier: str, parcel: str, fee_fen: int
) -> None:
    """Record what was handed over for the current claim."""
    client, session = desk.pharmacy, desk.session
    attempt = session.current()
    if attempt.state != Attempt.STATE_COMMITTED:
        raise InvalidInput("the current claim is not committed: rxoutflow commit first")
    goods = _handed_over(desk, lines, invent_boxes)
    delivery = None
    if carrier or parcel or fee_fen:
        state = Delivery.STATE_DISPATCHED
        delivery = Delivery(state=state, carrier=carrier, parcel_number=parcel, fee_fen=fee_fen)
    progress = desk.send(
        f"dispense {attempt.attempt_id}",
        lambda: client.dispense_request(attempt, session.commitment.settlement_id, goods, delivery),
        PosServiceRecordDispenseRequest,
        client.send_dispense,
    )

    def tell() -> None:
        home = "booked" if progress and progress.booked_by_home else "on its way"
        payer = "posted" if progress and progress.posted_by_payer else "on its way"
        desk.console.print(f"recorded; home: {home}; payer: {payer}. See rxoutflow status")

    desk.say(plain(progress) if progress else {}, tell)


@click.command()
@click.argument("state", type=click.Choice(["dispatched", "signed-for"]))
@click.argument("number")
@click.argument("settlement_id")
@click.option("--carrier", default="", help="The courier.")
@click.option("--parcel", default="", help="The courier's number of the parcel.")
@answers_json
def deliver(
    desk: Desk, state: str, number: str, settlement_id: str, carrier: str, parcel: str
) -> None:
    """Say that the delivery of a dispense is now dispatched, or signed for."""
    about = str(PrescriptionNumber.parse(number))
    reached = Delivery.State.Value(f"STATE_{state.upper().replace('-', '_')}")
    progress = desk.pharmacy.update_delivery(about, settlement_id, reached, carrier, parcel)
    delivery = progress.delivery
    by = f" with {delivery.carrier} {delivery.parcel_number}".rstrip()
    desk.say(plain(progress), lambda: desk.console.print(f"delivery {state}{by}", markup=False))


@click.command("return")
@click.argument("number", required=False)
@click.argument("attempt_id", required=False)
@click.option("--line", "lines", multiple=True, metavar="LINE:QUANTITY[:TRACE,...]",
              help="What comes back, with trace codes of whole boxes. Default: all.")  # fmt: skip
@click.option("--cause", type=click.Choice(sorted(_RETURN_CAUSES)), required=True)
@click.option("--reason", required=True, help="Why, for people.")
@answers_json
def take_back(
    desk: Desk,
    number: str | None,
    attempt_id: str | None,
    lines: tuple[str, ...],
    cause: str,
    reason: str,
) -> None:
    """Take medicine back: of the current claim, or of ATTEMPT_ID of prescription NUMBER.

    Boxes may be sold again only if they are named and the patient never had them: after a
    dispensing error, or if they were not delivered.
    """
    client = desk.pharmacy
    progress = client.progress(_dispensed(desk, number, attempt_id))
    attempt, settlement_id = progress.attempt.content, progress.progress.settlement_id
    goods = [returned_line(text) for text in lines] or [
        ReturnedLine(line_id=line.line_id, quantity=line.quantity) for line in attempt.lines
    ]
    returned = desk.send(
        f"return {attempt.attempt_id}",
        lambda: client.return_request(attempt, settlement_id, goods, _RETURN_CAUSES[cause], reason),
        PosServiceReturnDispenseRequest,
        client.send_return,
    )

    def tell() -> None:
        home = "booked" if returned and returned.booked_by_home else "on its way"
        payer = "reversed" if returned and returned.reversed_by_payer else "on its way"
        desk.console.print(f"taken back; home: {home}; payer: {payer}. See rxoutflow status")
        if returned is not None and returned.HasField("amounts"):
            desk.console.print(show.amounts_table(returned.amounts))

    desk.say(plain(returned) if returned else {}, tell)


def _dispensed(desk: Desk, number: str | None, attempt_id: str | None) -> Attempt:
    """The attempt that was named, or the current one."""
    if number is None:
        return desk.session.current()
    if attempt_id is None:
        raise InvalidInput("return: give number and attempt id, or neither for the current claim")
    about = str(PrescriptionNumber.parse(number))
    return Attempt(prescription_number=about, attempt_id=attempt_id)


@click.command()
@click.option("--reason", required=True, help="Why, for people. Says that nothing was handed over.")
@answers_json
def release(desk: Desk, reason: str) -> None:
    """Let go of the current claim: nothing was handed over."""
    client, session = desk.pharmacy, desk.session
    current = session.current()
    attempt = desk.send(
        f"release {current.attempt_id}",
        lambda: client.release_request(current, reason),
        PosServiceReleaseClaimRequest,
        client.send_release,
    ).content
    session.forget_claim()
    session.save()
    desk.say(plain(attempt), lambda: desk.console.print(show.attempt_line(attempt)))


@click.command()
@click.argument("request_id", required=False)
@click.option("--number", default="", help="The prescription, unless this terminal knows it.")
@click.option("--reason", required=True, help="Why, for people. Says that nothing was handed over.")
@answers_json
def correct(desk: Desk, request_id: str | None, number: str, reason: str) -> None:
    """Undo the claim or commit REQUEST_ID, of which nobody knows what became (冲正).

    Without REQUEST_ID, the one of this terminal that has no answer yet. While the patient waits,
    give that command again instead.
    """
    client, session, waiting = desk.pharmacy, desk.session, _waiting_call(desk)
    corrected_id = request_id or waiting.corrected_request_id
    known = waiting.prescription_number or session.attempt.prescription_number
    if not corrected_id or not (number or known):
        raise InvalidInput("say which: rxoutflow correct REQUEST_ID --number NUMBER --reason TEXT")
    about = str(PrescriptionNumber.parse(number or known))
    unanswered = session.pending_step.startswith(_MAKES_CALL)
    if unanswered and corrected_id == waiting.corrected_request_id:
        session.pending_step = ""  # the correction takes its place
    corrected = desk.send(
        f"correct {corrected_id}",
        lambda: client.correction_request(about, corrected_id, reason),
        PosServiceCorrectCallRequest,
        client.send_correction,
    )
    attempt = corrected.attempt.content if corrected.attempt else None
    if attempt is not None and attempt.attempt_id == session.attempt.attempt_id:
        session.forget_claim()
        session.save()
    outcome = CorrectionOutcome.Name(corrected.outcome).removeprefix("CORRECTION_OUTCOME_")

    def tell() -> None:
        desk.console.print(outcome.lower().replace("_", " "), markup=False)
        if attempt is not None:
            desk.console.print(show.attempt_line(attempt), markup=False)

    desk.say({"outcome": outcome, "attempt": plain(attempt) if attempt else None}, tell)


@click.command()
@answers_json
def forget(desk: Desk) -> None:
    """Forget the current claim and a request without an answer, at this terminal only."""
    desk.session.path.unlink(missing_ok=True)
    desk.say({}, lambda: desk.console.print("forgotten here; releases nothing at the platform"))


def _waiting_call(desk: Desk) -> Correction:
    """Which call of this terminal waits for its answer, or for that of its correction."""
    step, data = desk.session.pending_step, desk.session.pending_request
    if step.startswith("claim "):
        claiming = PosServiceClaimPrescriptionRequest.FromString(data)
        number = Claim.FromString(claiming.claim.payload).prescription_number
        return Correction(prescription_number=number, corrected_request_id=claiming.request_id)
    if step.startswith("commit "):
        committing = PosServiceCommitClaimRequest.FromString(data)
        number = Commitment.FromString(committing.commitment.payload).prescription_number
        return Correction(prescription_number=number, corrected_request_id=committing.request_id)
    if step.startswith("correct "):
        request = PosServiceCorrectCallRequest.FromString(data)
        return Correction.FromString(request.correction.payload)
    return Correction()


def _proof(desk: Desk, code: str) -> Proof:
    """A pickup code, or a number with the e-credential that was presented."""
    if len(code.strip()) != NUMBER_LENGTH:
        return PickupCode.parse(code)
    number, token = PrescriptionNumber.parse(code), desk.session.token
    if not token.signatures:
        raise InvalidInput(
            "a number alone opens nothing: give the whole pickup code, or present the patient's "
            "e-credential first"
        )
    return ECredentialProof(prescription_number=str(number), token=token)


def _priced(desk: Desk, attempt: Attempt, others: tuple[str, ...]) -> list[PricedLine]:
    if attempt.state == Attempt.STATE_COMMITTED:
        raise InvalidInput("the current claim is committed: rxoutflow dispense, or release it")
    priced = desk.pharmacy.price(desk.session.goods, attempt.lines)
    return substitute(priced, others, desk.profile.prices)


def _goods(prescription: Prescription) -> Prescription:
    """What of a prescription a session may keep: nothing personal."""
    return Prescription(
        type=prescription.type,
        lines=[
            PrescriptionLine(
                line_id=line.line_id,
                drug_code=line.drug_code,
                generic_name=line.generic_name,
                unit=line.unit,
            )
            for line in prescription.lines
        ],
    )


def _handed_over(desk: Desk, texts: tuple[str, ...], invent: bool) -> list[DispensedLine]:
    session, committed = desk.session, desk.session.commitment.lines
    if invent:
        if texts or desk.selection.sandbox is None:
            raise InvalidInput("--invent-boxes: only with --sandbox, and not beside --line")
        herbal = session.goods.type == Prescription.TYPE_HERBAL
        return invented_boxes(committed, herbal, desk.pharmacy.surroundings.random_bytes)
    lines = [dispensed_line(text, committed) for text in texts]
    missing = {line.line_id for line in committed} - {line.line_id for line in lines}
    if missing or len(lines) != len(committed):
        raise InvalidInput("--line: give each committed line once, with batches and trace codes")
    return lines
