"""What hospitals and pharmacies do: a table of scripts.

A script is a function of its work; its steps are named, and done once each (see ``clients``). To
add a behaviour, write one and put it in the table. What a script returns is how it ended; a
``Definite`` or ``GaveUp`` that it lets through ends it as well. Silence is an end that leaves an
attempt behind: :data:`SILENT` ends say so, and the checks at the end of a run go by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from math import ceil
from typing import Any, TypeVar

from google.protobuf.message import Message

from rxoutflow.numbers import SECRET_ALPHABET, PrescriptionNumber
from rxoutflow.v1 import (
    administration_service_pb2,
    attempt_pb2,
    credential_pb2,
    dispense_pb2,
    hospital_service_pb2,
    pharmacy_service_pb2,
    prescription_pb2,
    prescription_status_pb2,
    settlement_pb2,
    statement_pb2,
)
from rxoutflow.v1.attempt_pb2 import Attempt
from rxoutflow.v1.statement_pb2 import SignedStatement
from simulation import federation
from simulation.clients import Definite, GaveUp, Work
from support.invariants import Violation

HOSPITAL = "/rxoutflow.v1.HospitalService"
PHARMACY = "/rxoutflow.v1.PharmacyService"
ADMINISTRATION = "/rxoutflow.v1.AdministrationService"

SILENT = "silent"
"""How a script ends that leaves its attempt committed and says nothing more."""

_PASSING = frozenset(
    {
        "SIGNER_UNTRUSTED",
        "SIGNED_CONTENT_MISMATCH",
        "REGION_UNKNOWN",
        "TARIFF_NOT_IN_FORCE",
        "INSTITUTION_NOT_ACTIVE",
        "E_CREDENTIAL_NOT_ACCEPTED",
    }
)
"""Refusals that pass by themselves when lists arrive and clocks are set."""

_HELD = frozenset({"PRESCRIPTION_HELD", "FIELD_INVALID", *_PASSING})
"""Refusals after which a claim is made anew: a claim that was signed by a wrong clock is one."""

_REQUOTE = frozenset({"QUOTE_CHANGED", "SETTLEMENT_ENDED", "REQUEST_CORRECTED", *_PASSING})

M = TypeVar("M", bound=Message)


# pharmacies


async def collect(work: Work) -> str:
    """Claim, quote, commit, hand over, record."""
    attempt = await claimed(work)
    commitment = await committed(work, attempt)
    if commitment is None:
        return await released(work, attempt)
    await handed_over(work, commitment)
    return await recorded(work, commitment)


async def look_first(work: Work) -> str:
    """Find the prescription, then as everybody does."""
    await found(work)
    return await collect(work)


async def let_go(work: Work) -> str:
    """Claim, and release the claim."""
    return await released(work, await claimed(work))


async def forget(work: Work) -> str:
    """Claim, and do nothing more: the lease runs out."""
    await claimed(work)
    return "forgotten"


async def change_mind(work: Work) -> str:
    """Commit, hand nothing over, release."""
    attempt = await claimed(work)
    await committed(work, attempt)
    return await released(work, attempt)


async def fall_silent(work: Work) -> str:
    """Commit, and never be heard of again."""
    attempt = await claimed(work)
    commitment = await committed(work, attempt)
    return SILENT if commitment is not None else await released(work, attempt)


async def hand_over_and_fall_silent(work: Work) -> str:
    """Commit, hand over, and never record it."""
    attempt = await claimed(work)
    commitment = await committed(work, attempt)
    if commitment is None:
        return await released(work, attempt)
    await handed_over(work, commitment)
    return SILENT


async def lose_patience(work: Work) -> str:
    """Commit, but release if that takes too long to be answered."""
    attempt = await claimed(work)
    try:
        commitment = await committed(work, attempt, tries=work.facts["patience"])
    except GaveUp:
        return await released(work, attempt)
    if commitment is None:
        return await released(work, attempt)
    await handed_over(work, commitment)
    return await recorded(work, commitment)


async def correct(work: Work) -> str:
    """Do as everybody does, but have a claim or commit corrected that is not answered soon."""
    patience = work.facts["patience"]
    try:
        attempt = await claimed(work, tries=patience)
    except GaveUp as unanswered:
        return await corrected(work, str(unanswered))
    try:
        commitment = await committed(work, attempt, tries=patience)
    except GaveUp as unanswered:
        outcome = await corrected(work, str(unanswered), attempt)
        return f"{outcome}, {await released(work, attempt)}"
    if commitment is None:
        return await released(work, attempt)
    await handed_over(work, commitment)
    return await recorded(work, commitment)


async def bring_back(work: Work) -> str:
    """Collect, and bring some of it back, or all."""
    attempt = await claimed(work)
    commitment = await committed(work, attempt)
    if commitment is None:
        return await released(work, attempt)
    await handed_over(work, commitment)
    await recorded(work, commitment)
    await work.pause(work.client.random.choice((0.0, 0.5, 20.0)))
    return await taken_back(work, commitment)


async def come_again(work: Work) -> str:
    """Collect a part, and then the rest."""
    first = await collect(work)
    work.round = " again"
    return f"{first}, then {await collect(work)}"


PHARMACIES = {
    "collect": (14, collect),
    "look first": (2, look_first),
    "let go": (2, let_go),
    "forget": (2, forget),
    "change mind": (2, change_mind),
    "fall silent": (2, fall_silent),
    "hand over and fall silent": (2, hand_over_and_fall_silent),
    "lose patience": (4, lose_patience),
    "come again": (3, come_again),
    "correct": (5, correct),
    "bring back": (4, bring_back),
}
"""Behaviours of pharmacies by name, with their weights."""


# hospitals


async def issue(work: Work) -> str:
    """Register a prescription; give its pickup code to the patient."""
    await work.ask("register", f"{HOSPITAL}/RegisterPrescription", lambda: _registration(work))
    work.world.registered(work.facts["index"], work.facts["number"], work.facts["secret"])
    if work.facts["revoked_after"] is None:
        return "issued"
    await work.pause(work.facts["revoked_after"])
    outcome = await revoked(work)
    if work.facts["revoked_again"] is None:
        return outcome
    await work.pause(work.facts["revoked_again"])
    return f"{outcome}, {await revoked(work, ' again')}"


async def revoked(work: Work, once: str = "") -> str:
    """Take a prescription back; what that came to."""
    for attempt in range(20):
        try:
            response = await work.ask(
                f"revoke{once} {attempt}",
                f"{HOSPITAL}/RevokePrescription",
                lambda: hospital_service_pb2.RevokePrescriptionRequest(
                    request_id=work.client.new_id(), revocation=_revocation(work)
                ),
            )
        except Definite as refusal:
            _require_passing(work, refusal)
            await work.pause(5.0)
            continue
        return f"revocation {response.outcome}"
    raise Violation("I14", "a revocation is refused for ever")


HOSPITALS = {"issue": issue}


# operators


async def decide(work: Work) -> str:
    """Send again what was set aside, and decide on attempts whose pharmacy is silent."""
    while not work.world.over:
        await _retried(work)
        await _adjudicated(work)
        await work.pause(10.0)
    return "done"


async def _retried(work: Work) -> None:
    letters = await work.look(
        f"{ADMINISTRATION}/ListDeadLetters", administration_service_pb2.ListDeadLettersRequest()
    )
    for letter in letters.dead_letters if letters else ():
        work.world.set_aside(letter)
        await work.look(
            f"{ADMINISTRATION}/RetryDeadLetter",
            administration_service_pb2.RetryDeadLetterRequest(
                prescription_number=letter.prescription_number,
                peer_region_code=letter.peer_region_code,
                event_id=letter.event_id,
            ),
        )


async def _adjudicated(work: Work) -> None:
    overdue = await work.look(
        f"{ADMINISTRATION}/ListOverdueAttempts",
        administration_service_pb2.ListOverdueAttemptsRequest(),
    )
    for each in overdue.attempts if overdue else ():
        attempt = Attempt.FromString(each.attempt.payload)
        step = f"adjudicate {attempt.attempt_id}"
        finding = None if step in work.case.requests else work.world.truth.finding(attempt)
        if finding is None and step not in work.case.requests:
            continue
        await work.pause(work.client.random.choice((0.0, 5.0)))
        try:
            await work.ask(
                step,
                f"{ADMINISTRATION}/AdjudicateAttempt",
                lambda: _adjudicate_request(work, attempt, finding),  # noqa: B023 - called at once
            )
        except Definite as refusal:
            # Its pharmacy was heard of in the meantime, or a clock was set.
            if refusal.reason not in {"ATTEMPT_ENDED", "ATTEMPT_NOT_OVERDUE", *_PASSING}:
                raise
            work.forget(step)


OPERATORS = {"decide": decide}


# steps of pharmacies


async def found(work: Work) -> None:
    """Look at a prescription."""
    request = pharmacy_service_pb2.FindPrescriptionRequest()
    await work.ask(
        "find", f"{PHARMACY}/FindPrescription", lambda: _proven(work, request, "find"), tries=3
    )


async def claimed(work: Work, *, tries: int | None = None) -> Attempt:
    """Claim; again and again while somebody else holds it or a list is late."""
    for attempt in range(8):
        step = f"claim{work.round} {attempt}"
        try:
            response = await work.ask(
                step,
                f"{PHARMACY}/ClaimPrescription",
                lambda: _claim_request(work, step),  # noqa: B023 - called at once
                tries=tries,
            )
        except Definite as refusal:
            if refusal.reason not in _HELD:
                raise
            await work.pause(work.client.random.uniform(2, 12))
            continue
        granted = Attempt.FromString(response.attempt.payload)
        if granted.state == Attempt.STATE_RESERVED:
            return granted
        # It is one of an earlier visit, and not yet booked or never to be heard of again.
        await work.pause(work.client.random.uniform(2, 12))
    raise Definite("PRESCRIPTION_HELD")


async def committed(
    work: Work, attempt: Attempt, *, tries: int | None = None
) -> attempt_pb2.Commitment | None:
    """Quote and commit; None if the claim cannot be committed, and nothing may be handed over."""
    await work.pause(work.facts["pause"])
    lines = _priced(_part(attempt.lines, work.share("committed")))
    for number in range(5):
        step = f"{work.round} {number}"
        try:
            amounts = await _quoted(work, attempt, lines, step)
            response = await work.ask(
                f"commit{step}",
                f"{PHARMACY}/CommitClaim",
                lambda: _commit_request(work, attempt, lines, amounts),  # noqa: B023 - called at once
                tries=tries,
            )
        except Definite as refusal:
            if refusal.reason not in _REQUOTE:
                return None
            await work.pause(work.client.random.uniform(0.5, 8))
            continue
        decided = Attempt.FromString(response.attempt.payload)
        assert decided.state in (Attempt.STATE_COMMITTED, Attempt.STATE_DISPENSED), decided.state
        request = pharmacy_service_pb2.CommitClaimRequest.FromString(
            work.case.requests[f"commit{step}"]
        )
        return attempt_pb2.Commitment.FromString(request.commitment.payload)
    return None


async def handed_over(work: Work, commitment: attempt_pb2.Commitment) -> None:
    """Give the medicine to the patient: once, whatever happens to the computer."""
    work.world.truth.hand_over(work.client.name, work.case.case_id, commitment)
    await work.save("handed over")


async def recorded(work: Work, commitment: attempt_pb2.Commitment) -> str:
    """Record a handover: it must be taken, sooner or later."""
    for attempt in range(40):
        step = f"record{work.round} {attempt}"
        try:
            await work.ask(
                step, f"{PHARMACY}/RecordDispense", lambda: _record_request(work, commitment)
            )
        except Definite as refusal:
            _require_passing(work, refusal)
            await work.pause(5.0)
            continue
        work.world.truth.recorded(commitment)
        return "dispensed"
    raise Violation("I14", "a handover that was permitted is refused for ever")


async def released(work: Work, attempt: Attempt) -> str:
    """Let go: nothing was handed over, and nothing will be."""
    work.world.truth.let_go(attempt.attempt_id)
    for number in range(40):
        step = f"release{work.round} {number}"
        try:
            await work.ask(
                step, f"{PHARMACY}/ReleaseClaim", lambda: _release_request(work, attempt)
            )
        except Definite as refusal:
            if refusal.reason == "ATTEMPT_ENDED":
                return "ended before it was released"
            _require_passing(work, refusal)
            await work.pause(5.0)
            continue
        return "released"
    raise Violation("I14", "a release is refused for ever")


async def corrected(work: Work, step: str, attempt: Attempt | None = None) -> str:
    """Have a call undone of which nothing was heard; nothing was handed over for it."""
    if attempt is not None:
        work.world.truth.let_go(attempt.attempt_id)
    request_id = _request_id(work.case.requests[step])
    for number in range(40):
        try:
            response = await work.ask(
                f"correct {step} {number}",
                f"{PHARMACY}/CorrectCall",
                lambda: _correct_request(work, request_id),
            )
        except Definite as refusal:
            if attempt is None and refusal.reason == "ATTEMPT_ALREADY_COMMITTED":
                return "not corrected: it was given the attempt of an earlier visit"
            _require_passing(work, refusal)
            await work.pause(5.0)
            continue
        outcome = response.outcome
        if outcome == attempt_pb2.CORRECTION_OUTCOME_ALREADY_DISPENSED:
            # A claim may have been given the attempt of an earlier visit; a commit is our own.
            assert attempt is None, "a commit of which nothing was handed over is dispensed"
        return f"corrected {outcome}"
    raise Violation("I14", "a correction is refused for ever")


async def taken_back(work: Work, commitment: attempt_pb2.Commitment) -> str:
    """Take medicine back: it must be taken note of, sooner or later."""
    for number in range(40):
        try:
            await work.ask(
                f"return {number}",
                f"{PHARMACY}/ReturnDispense",
                lambda: _return_request(work, commitment),
            )
        except Definite as refusal:
            _require_passing(work, refusal)
            await work.pause(5.0)
            continue
        return "dispensed and brought back"
    raise Violation("I14", "a return is refused for ever")


def _require_passing(work: Work, refusal: Definite) -> None:
    """A refusal that does not pass, where the contract promises none, is a violation."""
    if refusal.reason not in _PASSING:
        what = f"{work.case.case_id} was refused in spite of an earlier OK: {refusal.reason}"
        raise Violation("I7", what) from refusal


async def _quoted(
    work: Work, attempt: Attempt, lines: Sequence[settlement_pb2.PricedLine], step: str
) -> settlement_pb2.Amounts | None:
    if not work.facts["insured"]:
        return None
    response = await work.ask(
        f"quote{step}",
        f"{PHARMACY}/QuoteSettlement",
        lambda: pharmacy_service_pb2.QuoteSettlementRequest(
            prescription_number=attempt.prescription_number,
            attempt_id=attempt.attempt_id,
            lines=lines,
        ),
    )
    return settlement_pb2.Quote.FromString(response.quote.payload).amounts


async def _claim_request(work: Work, step: str) -> Message:
    request = pharmacy_service_pb2.ClaimPrescriptionRequest(
        request_id=work.client.new_id(), claim=_claim(work)
    )
    return await _proven(work, request, step)


async def _proven(work: Work, request: Any, step: str) -> Message:
    """The request with the pickup code, or with a token for the insured's e-credential."""
    if not work.facts["by_card"]:
        request.pickup_code = f"{work.facts['number']}.{work.facts['secret']}"
        return request  # type: ignore[no-any-return]
    response = await work.ask(
        f"card for {step}",
        f"{PHARMACY}/PresentECredential",
        lambda: pharmacy_service_pb2.PresentECredentialRequest(
            credential_code=work.world.credential_code(work.facts["payer"], work.facts["person"])
        ),
    )
    request.e_credential.CopyFrom(
        credential_pb2.ECredentialProof(
            prescription_number=work.facts["number"], token=response.token
        )
    )
    return request  # type: ignore[no-any-return]


# what is signed


def _pharmacy(work: Work) -> federation.Pharmacy:
    home = federation.home(work.client.platform)
    (pharmacy,) = (each for each in home.pharmacies if each.name == work.client.holder)
    return pharmacy


def _review(work: Work, content: Message) -> SignedStatement:
    pharmacy = _pharmacy(work)
    return federation.signed(
        content,
        [
            (statement_pb2.SIGNER_ROLE_REVIEWING_PHARMACIST, pharmacy.pharmacist),
            _seal(work, pharmacy),
        ],
        work.client.now(),
    )


def _seal(work: Work, pharmacy: federation.Pharmacy) -> tuple[Any, Any]:
    return statement_pb2.SIGNER_ROLE_PHARMACY_SEAL, pharmacy.seals[work.client.seal_index]


def _claim(work: Work) -> SignedStatement:
    facts, pharmacy = work.facts, _pharmacy(work)
    content = attempt_pb2.Claim(prescription_number=facts["number"], pharmacy_code=work.client.name)
    content.collector.kind = attempt_pb2.Collector.KIND_PATIENT
    share = work.share("claimed")
    if share < 1.0:
        content.lines.extend(
            attempt_pb2.LineQuantity(line_id=line_id, quantity=max(1, ceil(quantity * share)))
            for line_id, quantity in enumerate(facts["lines"], 1)
        )
    return federation.signed(
        content,
        [(statement_pb2.SIGNER_ROLE_DISPENSER, pharmacy.dispenser), _seal(work, pharmacy)],
        work.client.now(),
    )


def _commit_request(
    work: Work,
    attempt: Attempt,
    lines: Sequence[settlement_pb2.PricedLine],
    amounts: settlement_pb2.Amounts | None,
) -> pharmacy_service_pb2.CommitClaimRequest:
    content = attempt_pb2.Commitment(
        prescription_number=attempt.prescription_number,
        attempt_id=attempt.attempt_id,
        fence=attempt.fence,
        pharmacy_code=attempt.pharmacy_code,
        settlement_id=work.client.new_id(),
        mode=(
            settlement_pb2.SETTLEMENT_MODE_SELF_PAY
            if amounts is None
            else settlement_pb2.SETTLEMENT_MODE_INSURANCE
        ),
        lines=lines,
        accepted_amounts=amounts,
    )
    return pharmacy_service_pb2.CommitClaimRequest(
        request_id=work.client.new_id(), commitment=_review(work, content)
    )


def _record_request(
    work: Work, commitment: attempt_pb2.Commitment
) -> pharmacy_service_pb2.RecordDispenseRequest:
    pharmacy, random = _pharmacy(work), work.client.random
    content = dispense_pb2.DispenseRecord(
        prescription_number=commitment.prescription_number,
        attempt_id=commitment.attempt_id,
        fence=commitment.fence,
        pharmacy_code=commitment.pharmacy_code,
        settlement_id=commitment.settlement_id,
        lines=[
            dispense_pb2.DispensedLine(
                line_id=line.line_id,
                drug_code=line.drug_code,
                quantity=line.quantity,
                batch_numbers=["B1"],
                trace_codes=[dispense_pb2.TraceCode(code=f"{random.randrange(10**20):020}")],
            )
            for line in commitment.lines
        ],
    )
    content.dispense_time.FromDatetime(work.client.now())
    record = federation.signed(
        content,
        [
            (statement_pb2.SIGNER_ROLE_REVIEWING_PHARMACIST, pharmacy.pharmacist),
            (statement_pb2.SIGNER_ROLE_DISPENSER, pharmacy.dispenser),
            (statement_pb2.SIGNER_ROLE_CHECKER, pharmacy.checker),
            _seal(work, pharmacy),
        ],
        work.client.now(),
    )
    return pharmacy_service_pb2.RecordDispenseRequest(
        request_id=work.client.new_id(), dispense_record=record
    )


def _release_request(work: Work, attempt: Attempt) -> pharmacy_service_pb2.ReleaseClaimRequest:
    content = attempt_pb2.ClaimRelease(
        prescription_number=attempt.prescription_number,
        attempt_id=attempt.attempt_id,
        fence=attempt.fence,
        pharmacy_code=attempt.pharmacy_code,
        reason="the patient went away",
    )
    return pharmacy_service_pb2.ReleaseClaimRequest(
        request_id=work.client.new_id(), release=_review(work, content)
    )


def _request_id(data: bytes) -> str:
    """The id in a stored claim or commit; both have it in their first field."""
    return pharmacy_service_pb2.CommitClaimRequest.FromString(data).request_id


def _correct_request(work: Work, request_id: str) -> pharmacy_service_pb2.CorrectCallRequest:
    content = attempt_pb2.Correction(
        prescription_number=work.facts["number"],
        corrected_request_id=request_id,
        pharmacy_code=work.client.name,
        reason="the answer was lost",
    )
    return pharmacy_service_pb2.CorrectCallRequest(
        request_id=work.client.new_id(), correction=_review(work, content)
    )


def _return_request(
    work: Work, commitment: attempt_pb2.Commitment
) -> pharmacy_service_pb2.ReturnDispenseRequest:
    """The same return whenever it is asked for, signed anew."""
    record = _recorded(work)
    share = work.facts["returned"]
    content = dispense_pb2.DispenseReturn(
        reversal_id=_reversal_id(work),
        prescription_number=commitment.prescription_number,
        attempt_id=commitment.attempt_id,
        pharmacy_code=commitment.pharmacy_code,
        settlement_id=commitment.settlement_id,
        cause=work.facts["cause"],
        reason="the wrong strength",
        lines=[
            dispense_pb2.ReturnedLine(
                line_id=line.line_id,
                quantity=max(1, ceil(line.quantity * share)),
                trace_codes=[each.code for each in line.trace_codes] if share == 1.0 else [],
            )
            for line in record.lines
        ],
    )
    content.return_time.FromDatetime(max(work.client.now(), record.dispense_time.ToDatetime(UTC)))
    work.world.truth.bring_back(work.client.name, content)
    return pharmacy_service_pb2.ReturnDispenseRequest(
        request_id=work.client.new_id(), dispense_return=_review(work, content)
    )


def _recorded(work: Work) -> dispense_pb2.DispenseRecord:
    """The record that was accepted."""
    (step,) = (
        step
        for step, (result, _) in work.case.answers.items()
        if step.startswith("record") and result == "OK"
    )
    request = pharmacy_service_pb2.RecordDispenseRequest.FromString(work.case.requests[step])
    return dispense_pb2.DispenseRecord.FromString(request.dispense_record.payload)


def _reversal_id(work: Work) -> str:
    """The id of this return: one, however often it is signed."""
    for step, data in work.case.requests.items():
        if step.startswith("return"):
            request = pharmacy_service_pb2.ReturnDispenseRequest.FromString(data)
            content = dispense_pb2.DispenseReturn.FromString(request.dispense_return.payload)
            return content.reversal_id
    return work.client.new_id()


def _adjudicate_request(
    work: Work, attempt: Attempt, finding: Any
) -> administration_service_pb2.AdjudicateAttemptRequest:
    one, other = federation.home(work.client.platform).adjudicators
    content = attempt_pb2.Adjudication(
        adjudication_id=work.client.new_id(),
        prescription_number=attempt.prescription_number,
        attempt_id=attempt.attempt_id,
        fence=attempt.fence,
        finding=finding,
        evidence="the shelf was counted, and the pharmacy asked by telephone",
    )
    role = statement_pb2.SIGNER_ROLE_ADJUDICATOR
    return administration_service_pb2.AdjudicateAttemptRequest(
        request_id=work.client.new_id(),
        adjudication=federation.signed(content, [(role, one), (role, other)], work.client.now()),
    )


def _part(
    lines: Sequence[attempt_pb2.LineQuantity], share: float
) -> list[attempt_pb2.LineQuantity]:
    return [
        attempt_pb2.LineQuantity(line_id=line.line_id, quantity=max(1, ceil(line.quantity * share)))
        for line in lines
    ]


def _priced(lines: Sequence[attempt_pb2.LineQuantity]) -> list[settlement_pb2.PricedLine]:
    return [
        settlement_pb2.PricedLine(
            line_id=line.line_id,
            drug_code=federation.DRUGS[line.line_id - 1],
            quantity=line.quantity,
            unit_price_micro_yuan=federation.PRICE,
        )
        for line in lines
    ]


def _registration(work: Work) -> hospital_service_pb2.RegisterPrescriptionRequest:
    hospital, random = federation.home(work.client.platform).hospital, work.client.random
    now = work.client.now()
    digits = f"{random.randrange(10**5):05}"
    serial = work.client.name[-5:]
    milliseconds = int(now.timestamp() * 1000)
    facts = work.facts
    number = PrescriptionNumber(work.client.platform, milliseconds, serial, digits)
    facts["number"] = str(number)
    facts["secret"] = "".join(random.choices(SECRET_ALPHABET, k=16))
    content = _prescription(work, now)
    sheet = federation.signed(
        content,
        [
            (statement_pb2.SIGNER_ROLE_PRESCRIBER, hospital.prescriber),
            (statement_pb2.SIGNER_ROLE_REVIEWING_PHARMACIST, hospital.pharmacist),
            (statement_pb2.SIGNER_ROLE_HOSPITAL_SEAL, hospital.seal),
        ],
        now,
    )
    return hospital_service_pb2.RegisterPrescriptionRequest(
        request_id=work.client.new_id(), prescription=sheet, pickup_secret=facts["secret"]
    )


def _prescription(work: Work, now: Any) -> prescription_pb2.Prescription:
    facts = work.facts
    content = prescription_pb2.Prescription(
        prescription_number=facts["number"],
        hospital_prescription_number=f"RX-{facts['index']}",
        type=prescription_pb2.Prescription.TYPE_WESTERN,
        outflow_basis=prescription_pb2.Prescription.OUTFLOW_BASIS_OUTPATIENT_POOL,
    )
    content.issue_time.FromDatetime(now)
    content.expire_time.FromDatetime(now)
    content.expire_time.seconds += int(facts["valid"])
    issuer, patient, encounter = content.issuer, content.patient, content.encounter
    issuer.institution_code = work.client.name
    issuer.institution_name, issuer.department_name = "测试医院", "心内科"
    issuer.prescriber.person_code, issuer.prescriber.name = "D001", "测试医师"
    issuer.reviewing_pharmacist.person_code = "R001"
    issuer.reviewing_pharmacist.name = "测试药师"
    patient.insured_person_id, patient.payer_region_code = facts["person"], facts["payer"]
    patient.name, patient.sex = "测试患者", patient.SEX_FEMALE
    birth = patient.birth_date
    birth.year, birth.month, birth.day = 1970, 1, 2
    encounter.kind, encounter.encounter_number = encounter.KIND_VISIT, "V1"
    encounter.diagnoses.add(system=1, code="I10.x00", name="高血压病")
    for line_id, quantity in enumerate(facts["lines"], 1):
        line = content.lines.add(
            line_id=line_id,
            drug_code=federation.DRUGS[line_id - 1],
            generic_name=f"试验药{line_id}",
            dosage_form="片剂",
            specification="1mg",
            quantity=quantity,
            unit="片",
            route="口服",
            frequency="qd",
            supply_days=7,
        )
        line.single_dose.value_milli, line.single_dose.unit = 1000, "片"
    return content


def _revocation(work: Work) -> SignedStatement:
    hospital = federation.home(work.client.platform).hospital
    content = prescription_status_pb2.Revocation(
        prescription_number=work.facts["number"],
        institution_code=work.client.name,
        reason="wrong dose",
    )
    return federation.signed(
        content,
        [
            (statement_pb2.SIGNER_ROLE_PRESCRIBER, hospital.prescriber),
            (statement_pb2.SIGNER_ROLE_HOSPITAL_SEAL, hospital.seal),
        ],
        work.client.now(),
    )
