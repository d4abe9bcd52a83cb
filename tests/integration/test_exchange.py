"""Whole exchanges between real servers: filled within and across regions, and what is refused.

Eight server processes, mutual TLS, the public client library: what a vendor's system would see.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rxoutflow.client import HospitalClient, PharmacyClient, RegulatorClient
from rxoutflow.errors import (
    CallerRefused,
    InsuranceUnavailable,
    NotFound,
    PrescriptionClosed,
    PrescriptionHeld,
    ProofRefused,
    QuoteChanged,
    Refused,
    RuleViolated,
    SignatureRefused,
    StepRefused,
)
from rxoutflow.numbers import PickupCode, new_pickup_secret
from rxoutflow.v1.attempt_pb2 import (
    CORRECTION_OUTCOME_NOTHING_TO_UNDO,
    CORRECTION_OUTCOME_RELEASED,
    Attempt,
    LineQuantity,
)
from rxoutflow.v1.dispense_pb2 import DispenseProgress, DispenseRecord
from rxoutflow.v1.his_service_pb2 import IssuePrescriptionRequest
from rxoutflow.v1.prescription_pb2 import Prescription
from rxoutflow.v1.prescription_status_pb2 import (
    REVOCATION_OUTCOME_ALREADY_DISPENSED,
    REVOCATION_OUTCOME_MARKED,
    REVOCATION_OUTCOME_REVOKED,
    PrescriptionStatus,
)
from support.exchanges import (
    THREE_REGIONS,
    Exchange,
    Route,
    heard_all,
    heard_of_money,
    require_agreement,
)
from support.sandbox import (
    PRESCRIPTIONS,
    REGIONS,
    SERVERS,
    LiveSandbox,
    draft,
    eventually,
    run_program,
    run_sandbox,
)


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveSandbox]:
    with run_sandbox(tmp_path_factory.mktemp("exchange")) as sandbox:
        yield sandbox


# --- filled --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "route",
    [
        pytest.param(THREE_REGIONS, id="three regions"),
        pytest.param(Route("diabetes", "xiamen", "xiamen"), id="home dispenses"),
        pytest.param(Route("long-twelve-weeks", "xiamen", "nantong"), id="payer dispenses"),
        pytest.param(Route("one-region", "quanzhou", "xiamen"), id="home pays"),
        pytest.param(Route("one-region", "quanzhou", "quanzhou"), id="one region"),
        pytest.param(Route("herbal-formula", "xiamen", "quanzhou"), id="herbs"),
    ],
)
def test_a_prescription_is_filled_and_all_regions_agree(sandbox: LiveSandbox, route: Route) -> None:
    exchange = Exchange(sandbox, route)
    with (
        sandbox.listening(exchange.hospital) as hospital,
        sandbox.listening(exchange.pharmacy) as pharmacy,
    ):
        exchange.up_to(4)
        require_agreement(exchange)
        eventually(lambda: heard_all(hospital, exchange), "the hospital hears of every step")
        eventually(lambda: heard_of_money(pharmacy, exchange), "the pharmacy hears of its money")


def test_whoever_pays_alone_involves_no_payer(sandbox: LiveSandbox) -> None:
    exchange = Exchange(sandbox, Route("suspended-person", "quanzhou", "quanzhou")).up_to(2)
    with pytest.raises(InsuranceUnavailable) as caught:
        exchange.quote()
    assert caught.value.reason == "DIRECT_SETTLEMENT_SUSPENDED"
    exchange.commit_request = exchange.pharmacy.commit_request(
        exchange.attempt.content, exchange.lines, None
    )
    exchange.send_commit().record()
    eventually(exchange.completed, "completed")
    assert exchange.committed.settlement is None
    assert {event.region_code for event in sandbox.trace(exchange.number)} == {"350500"}


def test_a_part_is_left_for_another_pharmacy(sandbox: LiveSandbox) -> None:
    exchange = Exchange(sandbox, Route("one-region", "quanzhou", "quanzhou")).up_to(1)
    first, *rest = exchange.issued.prescription.content.lines
    quantity = LineQuantity(line_id=first.line_id, quantity=first.quantity)
    exchange.claim_request = exchange.pharmacy.claim_request(
        exchange.issued.pickup_code, [quantity]
    )
    exchange.attempt = exchange.pharmacy.send_claim(exchange.claim_request)
    exchange.commit().record()
    eventually(exchange.completed, "the part is completed")
    other = Exchange(sandbox, Route("one-region", "quanzhou", "nantong"))
    other.issued = exchange.issued
    other.claim()
    assert {line.line_id for line in other.attempt.content.lines} == {line.line_id for line in rest}
    other.commit().record()
    eventually(other.completed, "the rest is completed")
    refused(lambda: exchange.pharmacy.claim(exchange.issued.pickup_code), "PRESCRIPTION_USED_UP")


# --- refused -------------------------------------------------------------------------------------


def refused(call: Callable[[], object], reason: str) -> Refused:
    """The refusal that a call must meet."""
    with pytest.raises(Refused) as caught:
        call()
    assert caught.value.reason == reason, caught.value
    return caught.value


def test_a_second_pharmacy_is_told_who_holds_it_and_their_telephone(sandbox: LiveSandbox) -> None:
    exchange = Exchange(sandbox).up_to(2)
    other = sandbox.pharmacy("nantong")
    error = refused(lambda: other.claim(exchange.issued.pickup_code), "PRESCRIPTION_HELD")
    assert isinstance(error, PrescriptionHeld)
    assert error.holder_code == "P35050000001"
    assert error.holder_name == exchange.pharmacy.profile.institution_name
    assert error.holder_phone == "0595-5550101"
    exchange.pharmacy.release(exchange.attempt.content, "缺货")
    assert other.claim(exchange.issued.pickup_code).content.state == Attempt.STATE_RESERVED


def test_claiming_again_gives_the_attempt_that_one_has(sandbox: LiveSandbox) -> None:
    exchange = Exchange(sandbox).up_to(2)
    again = exchange.pharmacy.claim(exchange.issued.pickup_code)
    assert again.content.attempt_id == exchange.attempt.content.attempt_id


def test_a_commit_of_which_nobody_knows_what_became_is_corrected(sandbox: LiveSandbox) -> None:
    exchange = Exchange(sandbox).up_to(3)
    pharmacy, number = exchange.pharmacy, str(exchange.number)
    request = pharmacy.correction_request(number, exchange.commit_request.request_id, "应答丢失")
    corrected = pharmacy.send_correction(request)
    assert corrected.outcome == CORRECTION_OUTCOME_RELEASED
    assert corrected.attempt is not None
    assert corrected.attempt.content.state == Attempt.STATE_RELEASED
    assert pharmacy.send_correction(request) == corrected
    exchange.prepare_record()
    refused(lambda: pharmacy.send_dispense(exchange.record_request), "ATTEMPT_ENDED")
    lost = exchange.pharmacy.claim_request(exchange.issued.pickup_code)
    nothing = pharmacy.correct_call(number, lost.request_id, "应答丢失")
    assert (nothing.outcome, nothing.attempt) == (CORRECTION_OUTCOME_NOTHING_TO_UNDO, None)
    refused(lambda: pharmacy.send_claim(lost), "REQUEST_CORRECTED")
    refused(lambda: pharmacy.outcome(number, lost.request_id), "REQUEST_CORRECTED")
    other = Exchange(sandbox, Route(THREE_REGIONS.file, THREE_REGIONS.hospital, "nantong"))
    other.issued = exchange.issued
    other.claim().commit().record()
    eventually(other.completed, "the other pharmacy has filled it")


@pytest.mark.parametrize("registrar", list(REGIONS.values()))
def test_one_box_is_sold_in_one_region_only(sandbox: LiveSandbox, registrar: str) -> None:
    first = Exchange(sandbox).up_to(3).record(registrar)
    second = Exchange(sandbox, Route("one-region", "quanzhou", "xiamen")).up_to(3).prepare_record()
    record = DispenseRecord.FromString(first.record_request.dispense_record.payload)
    sold = DispenseRecord.FromString(second.record_request.dispense_record.payload)
    sold.lines[0].trace_codes[0].CopyFrom(record.lines[0].trace_codes[0])
    request = second.pharmacy.dispense_request(
        second.committed.attempt.content, second.committed.settlement_id, sold.lines
    )
    error = refused(lambda: second.pharmacy.send_dispense(request), "TRACE_CODE_ALREADY_SOLD")
    assert error.metadata["line_id"] == str(sold.lines[0].line_id)
    second.record()
    for exchange in (first, second):
        require_agreement(exchange)


def test_the_same_request_gets_the_same_answer_byte_for_byte(sandbox: LiveSandbox) -> None:
    exchange = Exchange(sandbox)
    exchange.up_to(1)
    again = exchange.hospital.send_issue(exchange.issue_request)
    assert again.response.SerializeToString() == exchange.issued.response.SerializeToString()
    exchange.up_to(4).require_kept()
    stored = exchange.pharmacy.outcome(str(exchange.number), exchange.claim_request.request_id)
    assert exchange.attempt.statement.SerializeToString() in stored.response.value
    require_agreement(exchange)


def test_a_request_id_with_other_content_is_refused(sandbox: LiveSandbox) -> None:
    exchange = Exchange(sandbox).up_to(1)
    hospital, pharmacy = exchange.hospital, exchange.pharmacy
    other = exchange.issued.prescription.content
    other.note = "另一内容（合成）"
    issue = hospital.issue_request(other)
    issue.request_id = exchange.issue_request.request_id
    refused(lambda: hospital.send_issue(issue), "REQUEST_ID_REUSED")
    exchange.claim()
    line = exchange.attempt.content.lines[0]
    claim = pharmacy.claim_request(exchange.issued.pickup_code, [line])
    claim.request_id = exchange.claim_request.request_id
    refused(lambda: pharmacy.send_claim(claim), "REQUEST_ID_REUSED")


def test_an_expired_prescription_can_be_neither_issued_nor_claimed(sandbox: LiveSandbox) -> None:
    hospital, pharmacy = sandbox.hospital("quanzhou"), sandbox.pharmacy("quanzhou")
    late = hospital.complete(draft("expired"))
    with pytest.raises(PrescriptionClosed):
        hospital.issue(late)
    soon = hospital.complete(draft("acute-infection"))
    soon.expire_time.FromDatetime(hospital.surroundings.now() + timedelta(seconds=2))
    code = hospital.issue(soon).pickup_code
    expired = PrescriptionStatus.VALIDITY_EXPIRED
    eventually(lambda: pharmacy.find(code).status.content.validity == expired, "expired")
    refused(lambda: pharmacy.claim(code), "PRESCRIPTION_EXPIRED")


def test_a_prescription_revoked_before_the_claim_is_refused(sandbox: LiveSandbox) -> None:
    exchange = Exchange(sandbox).up_to(1)
    revoked = exchange.hospital.revoke(exchange.number, "开错药（合成）")
    assert revoked.outcome == REVOCATION_OUTCOME_REVOKED
    refused(exchange.claim, "PRESCRIPTION_REVOKED")


def test_revoking_what_is_held_takes_effect_when_it_is_let_go(sandbox: LiveSandbox) -> None:
    exchange = Exchange(sandbox).up_to(2)
    with sandbox.listening(exchange.pharmacy) as pharmacy:
        revoked = exchange.hospital.revoke(exchange.number, "开错药（合成）")
        assert revoked.outcome == REVOCATION_OUTCOME_MARKED
        assert revoked.status is not None
        assert revoked.status.content.holder_name == exchange.pharmacy.profile.institution_name
        eventually(
            lambda: "MARKED_FOR_REVOCATION" in pharmacy.kinds(exchange.number),
            "the holder is asked to let go",
        )
    other = sandbox.pharmacy("nantong")
    refused(lambda: other.claim(exchange.issued.pickup_code), "PRESCRIPTION_HELD")
    exchange.pharmacy.release(exchange.attempt.content, "医院撤销")
    known = exchange.hospital.get(exchange.number)
    assert known.status is not None
    assert known.status.content.validity == PrescriptionStatus.VALIDITY_REVOKED
    for pharmacy_client in (other, exchange.pharmacy):
        claim = partial(pharmacy_client.claim, exchange.issued.pickup_code)
        refused(claim, "PRESCRIPTION_REVOKED")


def test_revoking_what_is_committed_does_not_stop_the_handover(sandbox: LiveSandbox) -> None:
    exchange = Exchange(sandbox).up_to(3)
    marked = exchange.hospital.revoke(exchange.number, "开错药（合成）")
    assert marked.outcome == REVOCATION_OUTCOME_MARKED
    exchange.record()
    require_agreement(exchange)
    late = exchange.hospital.revoke(exchange.number, "开错药（合成）")
    assert late.outcome == REVOCATION_OUTCOME_ALREADY_DISPENSED


def test_a_commitment_that_is_released_gives_the_money_back(sandbox: LiveSandbox) -> None:
    route = Route("diabetes", "xiamen", "xiamen")
    exchange = Exchange(sandbox, route).up_to(3)
    exchange.pharmacy.release(exchange.attempt.content, "患者未取药（合成）")
    eventually(lambda: "voided" in actions(sandbox, exchange), "the payer voids")
    assert "posted" not in actions(sandbox, exchange)
    again = Exchange(sandbox, route)
    again.issued = exchange.issued
    again.claim().commit()
    assert again.amounts == exchange.amounts
    again.record()
    eventually(again.completed, "completed")


def actions(sandbox: LiveSandbox, exchange: Exchange) -> list[str]:
    return [event.action for event in sandbox.trace(exchange.number)]


def without_reviewer(request: IssuePrescriptionRequest) -> None:
    del request.prescription.signatures[1:]


def tampered_signature(request: IssuePrescriptionRequest) -> None:
    signature = request.prescription.signatures[0]
    signature.value = signature.value[:-1] + bytes([signature.value[-1] ^ 1])


def tampered_content(request: IssuePrescriptionRequest) -> None:
    content = Prescription.FromString(request.prescription.payload)
    content.lines[0].quantity += 1
    request.prescription.payload = content.SerializeToString(deterministic=True)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (without_reviewer, "SIGNATURE_MISSING"),
        (tampered_signature, "SIGNATURE_INVALID"),
        (tampered_content, "SIGNATURE_INVALID"),
    ],
)
def test_a_prescription_without_right_signatures_is_refused(
    sandbox: LiveSandbox, spoil: Callable[[IssuePrescriptionRequest], None], reason: str
) -> None:
    hospital = sandbox.hospital("xiamen")
    request = hospital.issue_request(hospital.complete(draft("one-region")))
    before = request.SerializeToString()
    spoil(request)
    assert request.SerializeToString() != before
    error = refused(lambda: hospital.send_issue(request), reason)
    assert isinstance(error, SignatureRefused)


def test_a_claim_signed_by_people_of_another_pharmacy_is_refused(sandbox: LiveSandbox) -> None:
    exchange = Exchange(sandbox).up_to(1)
    pharmacy = sandbox.pharmacy("xiamen")
    people = sandbox.profiles.profile("quanzhou-pharmacy").people
    with PharmacyClient(replace(pharmacy.profile, people=people)) as borrowed:
        request = borrowed.claim_request(exchange.issued.pickup_code)
        error = refused(lambda: borrowed.send_claim(request), "SIGNED_CONTENT_MISMATCH")
    assert isinstance(error, SignatureRefused)


def test_a_caller_of_the_wrong_kind_is_refused(sandbox: LiveSandbox) -> None:
    exchange = Exchange(sandbox).up_to(1)
    tls = sandbox.profiles.profile("xiamen-pharmacy").tls
    profile = replace(sandbox.profiles.profile("xiamen-hospital"), tls=tls)
    with HospitalClient(profile) as pharmacy:
        error = refused(lambda: pharmacy.get(exchange.number), "CALLER_KIND_NOT_ALLOWED")
    assert isinstance(error, CallerRefused)


def test_callers_of_another_region_are_refused(sandbox: LiveSandbox) -> None:
    exchange = Exchange(sandbox).up_to(1)
    own = sandbox.profiles.profile("xiamen-regulator")
    foreign = replace(sandbox.profiles.profile("quanzhou-regulator").tls, roots=own.tls.roots)
    with RegulatorClient(replace(own, tls=foreign)) as regulator:
        refused(lambda: regulator.trace(exchange.number), "CALLER_REGION_NOT_ALLOWED")
    own = sandbox.profiles.profile("xiamen-hospital")
    foreign = replace(sandbox.profiles.profile("quanzhou-hospital").tls, roots=own.tls.roots)
    with HospitalClient(replace(own, tls=foreign)) as hospital:
        refused(lambda: hospital.get(exchange.number), "CALLER_REGION_NOT_ALLOWED")


def test_another_hospital_learns_nothing_of_a_prescription(sandbox: LiveSandbox) -> None:
    exchange = Exchange(sandbox).up_to(1)
    with pytest.raises(NotFound):
        sandbox.hospital("quanzhou").get(exchange.number)


def test_wrong_pickup_codes_lock_it_and_the_hospital_is_told(sandbox: LiveSandbox) -> None:
    exchange = Exchange(sandbox).up_to(1)
    pharmacy = sandbox.pharmacy("nantong")
    wrong = PickupCode(exchange.number, new_pickup_secret(pharmacy.surroundings.random_bytes))
    with sandbox.listening(exchange.hospital) as hospital:
        for call in (pharmacy.find, pharmacy.claim, pharmacy.find, pharmacy.claim):
            refused(partial(call, wrong), "PICKUP_CODE_INVALID")
        assert pharmacy.find(exchange.issued.pickup_code).status, "four tries lock nothing"
        refused(partial(pharmacy.find, wrong), "PICKUP_CODE_INVALID")
        for client in (pharmacy, exchange.pharmacy):
            claim = partial(client.claim, exchange.issued.pickup_code)
            error = refused(claim, "PICKUP_CODE_LOCKED")
            assert isinstance(error, ProofRefused)
            assert error.metadata["locked_until"]
        kinds = eventually(lambda: hospital.kinds(exchange.number)[1:], "the hospital is told")
    assert kinds == ["PICKUP_CODE_LOCKED"]


def test_a_price_above_the_catalogues_is_refused(sandbox: LiveSandbox) -> None:
    exchange = Exchange(sandbox).up_to(2).prepare_commit()
    exchange.lines[0].unit_price_micro_yuan *= 2
    attempt, lines = exchange.attempt.content, exchange.lines
    error = refused(lambda: exchange.pharmacy.quote(attempt, lines), "PRICE_ABOVE_CATALOGUE")
    assert error.metadata["drug_code"] == exchange.lines[0].drug_code
    request = exchange.pharmacy.commit_request(attempt, lines, None)
    error = refused(lambda: exchange.pharmacy.send_commit(request), "PRICE_ABOVE_CATALOGUE")
    assert isinstance(error, StepRefused)
    exchange.commit().record()
    require_agreement(exchange)


def test_amounts_that_the_payer_never_quoted_are_refused(sandbox: LiveSandbox) -> None:
    exchange = Exchange(sandbox).up_to(2)
    wished = exchange.quote()
    wished.pool_fen += 100
    wished.ratio_self_fen -= 100
    wished.person_fen -= 100
    wished.cash_fen -= 100
    attempt = exchange.attempt.content
    request = exchange.pharmacy.commit_request(attempt, exchange.lines, wished)
    error = refused(lambda: exchange.pharmacy.send_commit(request), "QUOTE_CHANGED")
    assert isinstance(error, QuoteChanged)
    assert error.pool_fen == wished.pool_fen - 100
    assert exchange.state == DispenseProgress.STATE_REFUSED
    exchange.commit().record()
    require_agreement(exchange)


def test_a_box_that_was_sold_is_not_sold_again(sandbox: LiveSandbox) -> None:
    first, second = Exchange(sandbox).up_to(4), Exchange(sandbox).up_to(3)
    sold = first.record_request
    lines = DispenseRecord.FromString(sold.dispense_record.payload).lines
    attempt, settlement_id = second.committed.attempt.content, second.committed.settlement_id
    request = second.pharmacy.dispense_request(attempt, settlement_id, lines)
    refused(lambda: second.pharmacy.send_dispense(request), "TRACE_CODE_ALREADY_SOLD")
    second.record()
    require_agreement(second)


def test_nothing_can_be_recorded_before_it_is_committed(sandbox: LiveSandbox) -> None:
    exchange = Exchange(sandbox).up_to(2).prepare_commit()
    other = Exchange(sandbox).up_to(4)
    lines = DispenseRecord.FromString(other.record_request.dispense_record.payload).lines
    settlement_id = exchange.pharmacy.new_id()
    request = exchange.pharmacy.dispense_request(exchange.attempt.content, settlement_id, lines)
    refused(lambda: exchange.pharmacy.send_dispense(request), "ATTEMPT_NOT_COMMITTED")


def test_six_drugs_on_one_sheet_are_refused_by_rule(sandbox: LiveSandbox) -> None:
    hospital = sandbox.hospital("xiamen")
    prescription = hospital.complete(draft("six-drugs"))
    assert [finding.rule_id for finding in hospital.precheck(prescription)] == ["R3"]
    with pytest.raises(RuleViolated) as caught:
        hospital.issue(prescription)
    assert caught.value.rules == ("R3",)


# --- the command line ----------------------------------------------------------------------------


def test_the_parts_can_be_played_at_a_terminal(sandbox: LiveSandbox) -> None:
    issued = played(sandbox, "xiamen-hospital", "issue", PRESCRIPTIONS / "diabetes.json")
    number, code = issued["prescription_number"], issued["pickup_code"]
    assert issued["registration"] == "REGISTERED"
    pharmacy = partial(played, sandbox, "quanzhou-pharmacy")
    assert pharmacy("find", code)["status"]["validity"] == "ACTIVE"
    assert pharmacy("claim", code)["state"] == "RESERVED"
    amounts = pharmacy("quote")["amounts"]
    committed = pharmacy("commit")
    assert committed["settlement"]["amounts"] == amounts
    assert committed["attempt"]["state"] == "COMMITTED"
    pharmacy("dispense", "--invent-boxes")
    eventually(lambda: pharmacy("status")["progress"]["state"] == "COMPLETED", "completed")
    known = played(sandbox, "xiamen-hospital", "status", number)
    assert known["status"]["lines"][0]["dispensed"] == known["status"]["lines"][0]["authorised"]
    events = played(sandbox, "xiamen-regulator", "trace", number)
    assert [event["action"] for event in events if event["flow"] == "GOODS"] == ["dispense booked"]


def test_a_refusal_at_a_terminal_is_one_line_and_exit_status_one(sandbox: LiveSandbox) -> None:
    exchange = Exchange(sandbox).up_to(2)
    done = at_terminal(sandbox, "nantong-pharmacy", "claim", str(exchange.issued.pickup_code))
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert "PRESCRIPTION_HELD" in line
    assert "0595-5550101" in line


def played(sandbox: LiveSandbox, actor: str, *arguments: str | Path) -> Any:
    """What a command that succeeds answers in JSON."""
    done = at_terminal(sandbox, actor, *arguments, "--json")
    assert (done.returncode, done.stderr) == (0, ""), done
    return json.loads(done.stdout)


def at_terminal(
    sandbox: LiveSandbox, actor: str, *arguments: str | Path
) -> subprocess.CompletedProcess[str]:
    folder = sandbox.layout.directory
    return run_program("rxoutflow", "--sandbox", folder, "--as", actor, *arguments)


# --- what is written down ------------------------------------------------------------------------


def test_no_log_of_any_server_tells_who_the_patients_are(sandbox: LiveSandbox) -> None:
    """Comes last, so that the logs of everything above are looked at too."""
    exchange = Exchange(sandbox).up_to(4)
    require_agreement(exchange)
    sandbox.hospital("xiamen").precheck(exchange.issued.prescription.content)
    secrets = personal() | {exchange.issued.pickup_code.secret}
    assert len(secrets) > len(SERVERS)
    logs = sandbox.said()
    assert logs.count('"ready"') == 2 * len(SERVERS), "each server, in both forms"
    assert [secret for secret in secrets if secret in logs] == []


def personal() -> set[str]:
    """Whatever of the demonstration's patients must not be in a log."""
    found: set[str] = set()
    for file in PRESCRIPTIONS.glob("*.json"):
        patient = draft(file.stem).content.patient
        texts = {field.name: text for field, text in patient.ListFields() if isinstance(text, str)}
        del texts["payer_region_code"]
        found |= set(texts.values())
    return found
