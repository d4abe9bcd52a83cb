"""The command line against an edge: a handover step by step, refusals, answers that were lost."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import zxingcpp
from click.testing import CliRunner, Result

from rxoutflow.cli import cli
from rxoutflow.cli.desk import Desk
from rxoutflow.cli.session import Session
from rxoutflow.documents import CHINA, read_draft
from rxoutflow.numbers import PickupCode
from rxoutflow.statements import add_signature, statement_sha256
from rxoutflow.v1 import his_service_pb2 as his
from rxoutflow.v1 import pos_service_pb2 as pos
from rxoutflow.v1.attempt_pb2 import (
    CORRECTION_OUTCOME_RELEASED,
    Attempt,
    ClaimRelease,
    Commitment,
    Correction,
    LineQuantity,
)
from rxoutflow.v1.credential_pb2 import ECredential
from rxoutflow.v1.dispense_pb2 import (
    DispenseProgress,
    DispenseRecord,
    DispenseReturn,
    ReturnProgress,
)
from rxoutflow.v1.finding_pb2 import RuleFinding
from rxoutflow.v1.prescription_pb2 import Prescription
from rxoutflow.v1.prescription_status_pb2 import LineUse, PrescriptionStatus
from rxoutflow.v1.settlement_pb2 import Amounts, Quote, Settlement
from rxoutflow.v1.statement_pb2 import (
    SIGNER_ROLE_HOSPITAL_SEAL,
    SIGNER_ROLE_PLATFORM,
    SignedStatement,
)
from rxoutflow.v1.trace_pb2 import TraceEvent
from support.fake_edge import FakeEdge, Refusal, Untyped, in_turn, texts
from support.pki import NOW

SHEET = Path(__file__).parents[2] / "clients/prescriptions/one-region.json"
SECRET = "0123456789ABCDEF"
Correcting = pos.PosServiceCorrectCallRequest
LOST = [Refusal(grpc.StatusCode.DEADLINE_EXCEEDED)] * 4
AMOUNTS = Amounts(
    total_fen=1000, inscope_fen=1000, pool_fen=600, ratio_self_fen=400, person_fen=400, cash_fen=400
)


class Counter:
    """An edge with one prescription on it, and a terminal of the hospital and the pharmacy."""

    def __init__(self, edge: FakeEdge) -> None:
        self.edge = edge
        self.state = Attempt.STATE_RESERVED
        with edge.hospital() as client:
            request = client.issue_request(client.complete(read_draft(SHEET)))
        signer = edge.cast.hospital_seal.signer
        self.sealed = add_signature(request.prescription, signer, SIGNER_ROLE_HOSPITAL_SEAL, NOW)
        self.prescription = Prescription.FromString(self.sealed.payload)
        self.number = self.prescription.prescription_number
        self.code = f"{self.number}.{SECRET}"
        edge.answers |= {
            "FindPrescription": self.find,
            "ClaimPrescription": self.claim,
            "QuoteSettlement": self.quote,
            "CommitClaim": self.commit,
            "RecordDispense": self.dispense,
            "ReleaseClaim": self.release,
            "GetDispense": self.progress,
            "ReturnDispense": self.take_back,
            "CorrectCall": self.correct,
        }

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(cli, list(arguments))

    def answer(self, *arguments: str) -> Untyped:
        """What a command that succeeds says in JSON."""
        result = self.run(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def attempt(self) -> SignedStatement:
        content = Attempt(
            attempt_id="0198",
            prescription_number=self.number,
            fence=1,
            state=self.state,
            pharmacy_code=self.edge.cast.pharmacy.institution_code,
            lines=[LineQuantity(line_id=1, quantity=7)],
        )
        return self.edge.stated(content)

    def find(self, _: Untyped) -> pos.PosServiceFindPrescriptionResponse:
        status = PrescriptionStatus(
            prescription_number=self.number,
            validity=PrescriptionStatus.VALIDITY_ACTIVE,
            lines=[LineUse(line_id=1, available=7)],
        )
        return pos.PosServiceFindPrescriptionResponse(
            prescription=self.sealed, status=self.edge.stated(status)
        )

    def claim(self, _: Untyped) -> pos.PosServiceClaimPrescriptionResponse:
        return pos.PosServiceClaimPrescriptionResponse(attempt=self.attempt())

    def quote(self, _: Untyped) -> pos.PosServiceQuoteSettlementResponse:
        quote = Quote(prescription_number=self.number, payer_region_code="350200", amounts=AMOUNTS)
        return pos.PosServiceQuoteSettlementResponse(quote=self.edge.stated(quote, "350200"))

    def commit(
        self, request: pos.PosServiceCommitClaimRequest
    ) -> pos.PosServiceCommitClaimResponse:
        commitment = Commitment.FromString(request.commitment.payload)
        self.state = Attempt.STATE_COMMITTED
        settlement = Settlement(
            settlement_id=commitment.settlement_id,
            prescription_number=self.number,
            payer_region_code="350200",
            amounts=commitment.accepted_amounts,
        )
        return pos.PosServiceCommitClaimResponse(
            attempt=self.attempt(), settlement=self.edge.stated(settlement)
        )

    def dispense(self, _: Untyped) -> pos.PosServiceRecordDispenseResponse:
        return pos.PosServiceRecordDispenseResponse(progress=DispenseProgress(booked_by_home=True))

    def progress(self, _: Untyped) -> pos.PosServiceGetDispenseResponse:
        progress = DispenseProgress(settlement_id="S", state=DispenseProgress.STATE_COMPLETED)
        return pos.PosServiceGetDispenseResponse(progress=progress, attempt=self.attempt())

    def take_back(
        self, request: pos.PosServiceReturnDispenseRequest
    ) -> pos.PosServiceReturnDispenseResponse:
        content = DispenseReturn.FromString(request.dispense_return.payload)
        progress = ReturnProgress(reversal_id=content.reversal_id, booked_by_home=True)
        return pos.PosServiceReturnDispenseResponse(progress=progress)

    def correct(self, _: Untyped) -> pos.PosServiceCorrectCallResponse:
        self.state = Attempt.STATE_RELEASED
        return pos.PosServiceCorrectCallResponse(
            outcome=CORRECTION_OUTCOME_RELEASED, attempt=self.attempt()
        )

    def release(self, _: Untyped) -> pos.PosServiceReleaseClaimResponse:
        self.state = Attempt.STATE_RELEASED
        return pos.PosServiceReleaseClaimResponse(attempt=self.attempt())


@pytest.fixture
def counter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter]:
    edge = FakeEdge(tmp_path)
    with edge.serving():
        counter = Counter(edge)
        hospital, pharmacy = edge.hospital(), edge.pharmacy()
        drug = counter.prescription.lines[0].drug_code
        pharmacy.profile.prices[drug] = 400_000  # type: ignore[index] # a dict, as the test made it
        monkeypatch.setattr(Desk, "profile", property(lambda _: pharmacy.profile))
        monkeypatch.setattr(Desk, "pharmacy", property(lambda _: pharmacy))
        monkeypatch.setattr(Desk, "hospital", property(lambda _: hospital))
        yield counter
        hospital.close()
        pharmacy.close()


def test_a_handover_step_by_step(counter: Counter) -> None:
    assert counter.answer("find", counter.code)["status"]["validity"] == "ACTIVE"
    assert counter.answer("claim", counter.code.lower())["state"] == "RESERVED"
    assert counter.answer("quote")["amounts"]["pool_fen"] == 600
    committed = counter.answer("commit")
    assert committed["attempt"]["state"] == "COMMITTED"
    assert committed["settlement"]["amounts"]["person_fen"] == 400
    counter.answer("dispense", "--line", "1:B1,B2:99990000000000000001~")
    request = counter.edge.requests[-1]
    assert isinstance(request, pos.PosServiceRecordDispenseRequest)
    record = DispenseRecord.FromString(request.dispense_record.payload)
    assert record.settlement_id == committed["settlement_id"]
    (line,) = record.lines
    assert (line.quantity, list(line.batch_numbers)) == (7, ["B1", "B2"])
    assert (line.trace_codes[0].code, line.trace_codes[0].loose_sale) == (
        "99990000000000000001",
        True,
    )


def returned(counter: Counter) -> DispenseReturn:
    """What was sent last."""
    request = counter.edge.requests[-1]
    assert isinstance(request, pos.PosServiceReturnDispenseRequest)
    return DispenseReturn.FromString(request.dispense_return.payload)


def test_a_part_and_then_the_rest_of_a_handover_comes_back(counter: Counter) -> None:
    for step in (("claim", counter.code), ("quote",), ("commit",), ("dispense", "--line", "1:B1")):
        counter.answer(*step)
    why = ("--cause", "dispensing-error", "--reason", "the wrong strength")
    code = "99990000000000000001"
    answer = counter.answer("return", "--line", f"1:2:{code}", *why)
    content = returned(counter)
    assert answer["reversal_id"] == content.reversal_id
    assert (content.settlement_id, content.cause) == ("S", DispenseReturn.CAUSE_DISPENSING_ERROR)
    assert [(line.quantity, list(line.trace_codes)) for line in content.lines] == [(2, [code])]
    told = counter.run("return", counter.number, "0198", "--cause", "patient", "--reason", "x")
    assert "taken back; home: booked; payer: on its way" in told.stdout
    assert [line.quantity for line in returned(counter).lines] == [7]
    assert returned(counter).reversal_id != content.reversal_id


@pytest.mark.parametrize(
    "given",
    [
        ("--line", "1", "--cause", "patient"),
        ("--line", "1:0", "--cause", "patient"),
        ("350200177244380012300001000424", "--cause", "patient"),
        ("--cause", "boredom"),
        (),
    ],
)
def test_a_return_that_says_too_little_is_stopped_before_it_is_sent(
    counter: Counter, given: tuple[str, ...]
) -> None:
    counter.answer("claim", counter.code)
    assert counter.run("return", *given, "--reason", "x").exit_code == 2
    sent = [type(each) for each in counter.edge.requests]
    assert pos.PosServiceReturnDispenseRequest not in sent


def test_people_get_words_and_yuan_instead_of_json(counter: Counter) -> None:
    assert "苯磺酸氨氯地平片" in counter.run("find", counter.code).stdout
    assert "RESERVED" in counter.run("claim", counter.code).stdout
    quoted = counter.run("quote").stdout
    assert "统筹基金支付" in quoted
    assert "6.00" in quoted
    assert "hand over" in counter.run("commit").stdout


def test_a_lost_answer_keeps_the_request_and_the_same_command_sends_it_again(
    counter: Counter,
) -> None:
    counter.answer("claim", counter.code)
    counter.answer("quote")
    counter.edge.answers["CommitClaim"] = in_turn(*LOST, counter.commit)
    counter.edge.requests.clear()
    lost = counter.run("commit")
    assert lost.exit_code == 3
    assert "repeat the same command" in lost.stderr
    assert counter.answer("commit")["attempt"]["state"] == "COMMITTED"
    assert len(counter.edge.requests) == 5
    assert len(set(texts(counter.edge.requests))) == 1


def test_while_an_answer_is_missing_no_other_step_is_taken(counter: Counter) -> None:
    counter.answer("claim", counter.code)
    counter.answer("quote")
    counter.edge.answers["CommitClaim"] = in_turn(*LOST)
    counter.run("commit")
    refused = counter.run("release", "--reason", "演示")
    assert refused.exit_code == 2
    assert "`commit 0198` has no answer yet" in refused.stderr
    assert counter.run("forget").exit_code == 0
    assert "no current claim" in counter.run("commit").stderr


def test_a_refusal_says_who_holds_it_and_whom_to_ask(counter: Counter) -> None:
    counter.edge.answers["ClaimPrescription"] = in_turn(
        Refusal(
            grpc.StatusCode.FAILED_PRECONDITION,
            "PRESCRIPTION_HELD",
            holder_name="泉州示范药店（合成）",
            holder_phone="0595-5550001",
        )
    )
    result = counter.run("claim", counter.code)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert "PRESCRIPTION_HELD" in line
    assert "ask 泉州示范药店（合成） 0595-5550001" in line


def test_a_release_forgets_the_claim(counter: Counter) -> None:
    counter.answer("claim", counter.code)
    assert counter.answer("release", "--reason", "缺货")["state"] == "RELEASED"
    request = counter.edge.requests[-1]
    assert isinstance(request, pos.PosServiceReleaseClaimRequest)
    assert ClaimRelease.FromString(request.release.payload).reason == "缺货"
    assert counter.run("quote").exit_code == 2


def test_a_commit_without_an_answer_is_corrected(counter: Counter) -> None:
    counter.answer("claim", counter.code)
    counter.answer("quote")
    counter.edge.answers["CommitClaim"] = in_turn(*LOST)
    counter.run("commit")
    commit = counter.edge.requests[-1]
    assert isinstance(commit, pos.PosServiceCommitClaimRequest)
    counter.edge.answers["CorrectCall"] = in_turn(*LOST, counter.correct)
    assert counter.run("correct", "--reason", "病人走了").exit_code == 3
    assert counter.run("commit").exit_code == 2
    answer = counter.answer("correct", "--reason", "病人走了")
    assert (answer["outcome"], answer["attempt"]["state"]) == ("RELEASED", "RELEASED")
    sent = [each for each in counter.edge.requests if isinstance(each, Correcting)]
    assert len(set(texts(sent))) == 1
    correction = Correction.FromString(sent[0].correction.payload)
    assert correction.corrected_request_id == commit.request_id
    assert (correction.prescription_number, correction.reason) == (counter.number, "病人走了")
    assert "no current claim" in counter.run("quote").stderr


def test_a_call_of_another_terminal_is_corrected_by_its_id(counter: Counter) -> None:
    other = "019ce000-0000-7000-8000-000000000000"
    result = counter.run("correct", other, "--number", counter.number, "--reason", "演示")
    assert "released" in result.stdout
    (request,) = counter.edge.requests
    assert isinstance(request, Correcting)
    assert Correction.FromString(request.correction.payload).corrected_request_id == other


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("commit",), "quote first"),
        (("dispense", "--line", "1:B:1"), "not committed"),
        (("quote", "--substitute", "1:SYNW9"), "the price list has no drug SYNW9"),
        (("quote", "--substitute", "7:SYNW1"), "the claim has no line 7"),
    ],
)
def test_steps_out_of_order_are_stopped_before_anything_is_sent(
    counter: Counter, arguments: tuple[str, ...], words: str
) -> None:
    counter.answer("claim", counter.code)
    counter.edge.requests.clear()
    result = counter.run(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert counter.edge.requests == []


@pytest.mark.parametrize("given", [(), ("--line", "2:B"), ("--line", "1:"), ("--invent-boxes",)])
def test_a_handover_needs_a_batch_for_each_line(counter: Counter, given: tuple[str, ...]) -> None:
    for step in (("claim", counter.code), ("quote",), ("commit",)):
        counter.answer(*step)
    assert counter.run("dispense", *given).exit_code == 2


def test_a_session_keeps_nothing_of_the_patient_and_no_pickup_code(counter: Counter) -> None:
    counter.answer("claim", counter.code)
    session = Session.load(counter.edge.folder / "profile.json")
    kept = session.goods.SerializeToString() + session.attempt.SerializeToString()
    assert counter.prescription.patient.name.encode() not in kept
    assert not session.goods.HasField("patient")
    assert session.pending_request == b""


def issued(
    counter: Counter, request: his.IssuePrescriptionRequest
) -> his.IssuePrescriptionResponse:
    signer = counter.edge.cast.hospital_seal.signer
    sealed = add_signature(request.prescription, signer, SIGNER_ROLE_HOSPITAL_SEAL, NOW)
    number = Prescription.FromString(sealed.payload).prescription_number
    return his.IssuePrescriptionResponse(
        prescription_number=number,
        pickup_code=f"{number}.{SECRET}",
        registration=his.REGISTRATION_QUEUED,
        prescription=sealed,
    )


def test_issuing_shows_the_pickup_code_as_text_and_as_a_qr_code_that_scans(
    counter: Counter, tmp_path: Path
) -> None:
    counter.edge.answers["IssuePrescription"] = lambda request: issued(counter, request)
    picture = tmp_path / "code.png"
    result = counter.run("issue", str(SHEET), "--qr", str(picture))
    assert result.exit_code == 0, result.output
    (scanned,) = zxingcpp.read_barcodes(pixels(picture))
    code = PickupCode.parse(scanned.text)
    assert str(code) == scanned.text
    assert code.secret == SECRET
    assert code.readable in result.stdout
    assert "QUEUED" in result.stdout


def test_issuing_in_json_gives_the_code_once_and_draws_nothing(counter: Counter) -> None:
    counter.edge.answers["IssuePrescription"] = lambda request: issued(counter, request)
    answer = counter.answer("issue", str(SHEET))
    assert answer["pickup_code"].endswith(SECRET)
    assert answer["status"] is None


def pixels(picture: Path) -> memoryview:
    """The grey values of a PNG with one bit a pixel and the filters 0 and 2, as segno writes it."""
    data = picture.read_bytes()
    width, height, depth, colour = struct.unpack(">IIBB", data[16:26])
    assert (depth, colour) == (1, 0), "one bit of grey a pixel"
    start = data.index(b"IDAT") + 4
    (length,) = struct.unpack(">I", data[start - 8 : start - 4])
    raw = zlib.decompress(data[start : start + length])
    stride = (width + 7) // 8
    grey, above = bytearray(), bytes(stride)
    for row in range(height):
        kind, *values = raw[row * (stride + 1) : (row + 1) * (stride + 1)]
        assert kind in (0, 2), "stored as it is, or as the difference to the row above"
        above = bytes(
            (value + (up if kind else 0)) % 256 for value, up in zip(values, above, strict=True)
        )
        grey += bytes(255 * (above[x // 8] >> (7 - x % 8) & 1) for x in range(width))
    return memoryview(bytes(grey)).cast("B", shape=[height, width])


def test_a_history_shows_when_what_was_signed_by_whom(counter: Counter) -> None:
    statement = counter.attempt()
    event = TraceEvent(
        action="claim confirmed",
        actor_code="350200",
        statement=statement,
        statement_sha256=statement_sha256(statement),
    )
    event.event_time.FromDatetime(NOW)
    event.signers.add(role=SIGNER_ROLE_PLATFORM, display_name="示范平台")
    answer = pos.PosServiceListStatementsResponse(events=[event])
    counter.edge.answers["ListStatements"] = lambda _: answer
    told = counter.run("history", counter.number)
    assert told.exit_code == 0, told.output
    local = NOW.astimezone(CHINA).strftime("%Y-%m-%d %H:%M:%S")
    for words in (local, "claim confirmed", "attempt", "350200", "示范平台 (platform)"):
        assert words in told.stdout
    assert counter.answer("history", counter.number)[0]["action"] == "claim confirmed"


def test_an_e_credential_opens_what_its_holder_chooses(counter: Counter) -> None:
    alone = counter.run("claim", counter.number)
    assert alone.exit_code == 2
    assert "present the patient's e-credential first" in alone.stderr
    counter.edge.answers["PresentECredential"] = lambda _: presented(counter)
    (status,) = counter.answer("present", "350200.TEST0001.1.X")
    assert counter.answer("claim", status["prescription_number"])["state"] == "RESERVED"
    request = counter.edge.requests[-1]
    assert isinstance(request, pos.PosServiceClaimPrescriptionRequest)
    assert request.e_credential.prescription_number == counter.number
    assert request.pickup_code == ""


def test_an_e_credential_for_another_pharmacy_is_not_taken(counter: Counter) -> None:
    counter.edge.answers["PresentECredential"] = lambda _: presented(counter, "P35020000099")
    assert counter.run("present", "350200.TEST0001.1.X").exit_code == 3


def presented(
    counter: Counter, pharmacy_code: str = ""
) -> pos.PosServicePresentECredentialResponse:
    token = ECredential(
        insured_person_id="TEST0001",
        payer_region_code="350200",
        pharmacy_code=pharmacy_code or counter.edge.cast.pharmacy.institution_code,
    )
    status = PrescriptionStatus(prescription_number=counter.number)
    return pos.PosServicePresentECredentialResponse(
        token=counter.edge.stated(token), statuses=[counter.edge.stated(status)]
    )


@pytest.mark.parametrize(
    ("severity", "status"), [(RuleFinding.SEVERITY_WARN, 0), (RuleFinding.SEVERITY_REFUSE, 1)]
)
def test_a_precheck_shows_the_findings_and_fails_if_issuing_would(
    counter: Counter, severity: RuleFinding.Severity.ValueType, status: int
) -> None:
    finding = RuleFinding(rule_id="R2", severity=severity, message="prescribe less")
    response = his.HisServicePrecheckPrescriptionResponse(findings=[finding])
    counter.edge.answers["PrecheckPrescription"] = lambda _: response
    result = counter.run("precheck", str(SHEET))
    assert "prescribe less" in result.stdout
    assert result.exit_code == status
