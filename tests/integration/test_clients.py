"""The clients against an edge that answers right, wrong, late or never."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event

import grpc
import pytest

from rxoutflow.client import HospitalClient
from rxoutflow.documents import read_draft
from rxoutflow.errors import (
    AnswerUntrusted,
    Indefinite,
    InvalidInput,
    PrescriptionHeld,
    RuleViolated,
    Unavailable,
)
from rxoutflow.numbers import PickupCode, PrescriptionNumber
from rxoutflow.profile import Endpoint
from rxoutflow.statements import add_signature, statement_sha256
from rxoutflow.v1 import his_service_pb2 as his
from rxoutflow.v1 import pos_service_pb2 as pos
from rxoutflow.v1.attempt_pb2 import Attempt, Claim, Commitment, LineQuantity
from rxoutflow.v1.dispense_pb2 import DispensedLine, DispenseProgress, DispenseRecord
from rxoutflow.v1.notice_pb2 import Notice
from rxoutflow.v1.prescription_pb2 import Prescription
from rxoutflow.v1.prescription_status_pb2 import (
    REVOCATION_OUTCOME_REVOKED,
    PrescriptionStatus,
)
from rxoutflow.v1.settlement_pb2 import Amounts, PricedLine, Quote, Settlement
from rxoutflow.v1.statement_pb2 import SIGNER_ROLE_HOSPITAL_SEAL
from rxoutflow.v1.supervision_service_pb2 import TracePrescriptionResponse
from rxoutflow.v1.trace_pb2 import TraceEvent
from support import live
from support.fake_edge import LOST, FakeEdge, Refusal, Untyped, in_turn, texts
from support.pki import NOW

DRAFT = Path(__file__).parents[2] / "clients/prescriptions/one-region.json"
SECRET = "0123456789ABCDEF"
NUMBER = PrescriptionNumber.parse("350200177244380012300001000424")
AMOUNTS = Amounts(
    total_fen=1000, inscope_fen=1000, pool_fen=600, ratio_self_fen=400, person_fen=400, cash_fen=400
)
LINES = (PricedLine(line_id=1, drug_code="SYNW1", quantity=7, unit_price_micro_yuan=400_000),)


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[FakeEdge]:
    edge = FakeEdge(tmp_path)
    with edge.serving():
        yield edge


def issue(edge: FakeEdge, request: his.IssuePrescriptionRequest) -> his.IssuePrescriptionResponse:
    """What a right edge answers: sealed, registered."""
    sealed = add_signature(
        request.prescription, edge.cast.hospital_seal.signer, SIGNER_ROLE_HOSPITAL_SEAL, NOW
    )
    number = Prescription.FromString(sealed.payload).prescription_number
    return his.IssuePrescriptionResponse(
        prescription_number=number,
        pickup_code=f"{number}.{SECRET}",
        registration=his.REGISTRATION_REGISTERED,
        prescription=sealed,
        status=edge.stated(PrescriptionStatus(prescription_number=number)),
    )


def complete(client: HospitalClient) -> Prescription:
    return client.complete(read_draft(DRAFT))


def test_issuing_gives_the_sealed_prescription_and_the_pickup_code(edge: FakeEdge) -> None:
    edge.answers["IssuePrescription"] = lambda request: issue(edge, request)
    with edge.hospital() as client:
        issued = client.issue(complete(client))
    assert issued.pickup_code.secret == SECRET
    assert [each.person_code for each in issued.prescription.signers] == ["D001", "R001", ""]
    assert issued.number.region_code == "350200"
    assert issued.prescription.content.issuer.institution_code == "H35020000001"
    assert issued.status is not None


def test_a_lost_answer_is_asked_for_again_with_the_very_same_request(edge: FakeEdge) -> None:
    edge.answers["IssuePrescription"] = in_turn(LOST, LOST, lambda request: issue(edge, request))
    with edge.hospital() as client:
        client.issue(complete(client))
    assert len(set(texts(edge.requests))) == 1
    assert edge.pauses == [1.0, 2.0]


def test_giving_up_says_that_it_may_have_happened(edge: FakeEdge) -> None:
    edge.answers["IssuePrescription"] = in_turn(*[Refusal(grpc.StatusCode.UNKNOWN)] * 4)
    with edge.hospital() as client, pytest.raises(Indefinite):
        client.issue(complete(client))
    assert len(edge.requests) == 4
    assert edge.pauses == [1.0, 2.0, 3.0], "longer each time, up to the longest"


def test_a_refusal_is_raised_at_once(edge: FakeEdge) -> None:
    edge.answers["IssuePrescription"] = in_turn(
        Refusal(grpc.StatusCode.FAILED_PRECONDITION, "PRESCRIPTION_RULE_VIOLATED", rule="R3")
    )
    with edge.hospital() as client, pytest.raises(RuleViolated) as caught:
        client.issue(complete(client))
    assert caught.value.rules == ("R3",)
    assert edge.pauses == []


def forged(edge: FakeEdge, request: his.IssuePrescriptionRequest) -> his.IssuePrescriptionResponse:
    answer = issue(edge, request)
    answer.prescription.signatures[2].value = answer.prescription.signatures[1].value
    return answer


def of_another(
    edge: FakeEdge, request: his.IssuePrescriptionRequest
) -> his.IssuePrescriptionResponse:
    other = his.IssuePrescriptionRequest()
    with edge.hospital() as client:
        other.prescription.CopyFrom(client.issue_request(complete(client)).prescription)
    return issue(edge, other)


@pytest.mark.parametrize("answer", [forged, of_another])
def test_an_answer_that_does_not_verify_or_fit_is_never_handed_out(
    edge: FakeEdge, answer: Untyped
) -> None:
    edge.answers["IssuePrescription"] = lambda request: answer(edge, request)
    with edge.hospital() as client, pytest.raises(AnswerUntrusted):
        client.issue(complete(client))


def test_a_status_of_another_prescription_is_refused(edge: FakeEdge) -> None:
    stranger = edge.stated(PrescriptionStatus(prescription_number=edge.cast.number))
    edge.answers["RevokePrescription"] = lambda _: his.HisServiceRevokePrescriptionResponse(
        outcome=REVOCATION_OUTCOME_REVOKED, status=stranger
    )
    with edge.hospital() as client, pytest.raises(AnswerUntrusted):
        client.revoke(PickupCode.parse(f"{number_of(client)}.{SECRET}").number, "演示")


def number_of(client: HospitalClient) -> str:
    return complete(client).prescription_number


def test_a_server_of_another_name_is_not_spoken_to(edge: FakeEdge) -> None:
    wrong = Endpoint(edge.target, "other.350200.rxoutflow")
    profile = replace(edge.hospital_profile(), endpoint=wrong)
    with edge.hospital(profile) as client, pytest.raises(Unavailable, match="certificate"):
        client.precheck(complete(client))
    assert edge.requests == []


def test_a_client_of_a_foreign_pki_is_told_about_its_certificate(edge: FakeEdge) -> None:
    foreign = live.issue(live.lasting_authority("foreign"), edge.cast.hospital)
    profile = replace(edge.hospital_profile(), tls=edge.tls(foreign, "foreign"))
    with edge.hospital(profile) as client, pytest.raises(Unavailable, match="certificate"):
        client.precheck(complete(client))
    assert edge.requests == []


def test_a_key_that_is_not_the_certificates_is_named(edge: FakeEdge) -> None:
    profile = edge.hospital_profile()
    mixed = replace(profile.people["prescriber"], key=profile.people["reviewing_pharmacist"].key)
    wrong = replace(profile, people={**profile.people, "prescriber": mixed})
    with edge.hospital(wrong) as client, pytest.raises(InvalidInput) as caught:
        client.issue(complete(client))
    assert "people.prescriber" in str(caught.value)


def test_notices_go_on_after_an_interruption_and_end_when_closed(edge: FakeEdge) -> None:
    finished = Event()

    def notices(request: his.HisServiceWatchNoticesRequest) -> Iterator[Untyped]:
        first = int(request.resume_token or 0) + 1
        for token in (first, first + 1):
            yield his.HisServiceWatchNoticesResponse(notice=Notice(resume_token=str(token)))
        if first == 1:
            raise LOST
        finished.wait(5)

    edge.answers["WatchNotices"] = notices
    heard = []
    with edge.hospital() as client, client.watch() as stream:
        for notice in stream:
            heard.append(notice.resume_token)
            if len(heard) == 4:
                stream.close()
                finished.set()
    assert heard == ["1", "2", "3", "4"]
    tokens = [getattr(request, "resume_token", None) for request in edge.requests]
    assert tokens == ["", "2"]


def test_a_notice_with_false_evidence_is_not_handed_out(edge: FakeEdge) -> None:
    evidence = edge.stated(PrescriptionStatus(prescription_number=edge.cast.number))
    evidence.payload += evidence.payload
    response = his.HisServiceWatchNoticesResponse(notice=Notice(evidence=evidence))
    edge.answers["WatchNotices"] = lambda _: iter([response])
    with edge.hospital() as client, client.watch() as stream, pytest.raises(AnswerUntrusted):
        next(iter(stream))


def attempt(edge: FakeEdge, **changes: Untyped) -> Attempt:
    values: dict[str, Untyped] = {
        "attempt_id": "0198",
        "prescription_number": edge.cast.number,
        "fence": 3,
        "state": Attempt.STATE_RESERVED,
        "pharmacy_code": edge.cast.pharmacy.institution_code,
        "lines": [LineQuantity(line_id=1, quantity=7)],
    }
    return Attempt(**(values | changes))


def code(edge: FakeEdge) -> PickupCode:
    with edge.hospital() as client:
        return PickupCode.parse(f"{number_of(client)}.{SECRET}")


def test_a_claim_is_signed_by_the_pharmacist_and_gives_the_attempt(edge: FakeEdge) -> None:
    pickup_code = code(edge)
    edge.answers["ClaimPrescription"] = lambda _: pos.PosServiceClaimPrescriptionResponse(
        attempt=edge.stated(attempt(edge, prescription_number=str(pickup_code.number)))
    )
    with edge.pharmacy() as client:
        claimed = client.claim(pickup_code)
    assert claimed.content.fence == 3
    (request,) = edge.requests
    assert isinstance(request, pos.PosServiceClaimPrescriptionRequest)
    claim = Claim.FromString(request.claim.payload)
    assert claim.pharmacy_code == edge.cast.pharmacy.institution_code
    assert SECRET.encode() not in request.claim.SerializeToString(), "the code is never signed"


def test_a_held_prescription_says_by_whom(edge: FakeEdge) -> None:
    edge.answers["ClaimPrescription"] = in_turn(
        Refusal(grpc.StatusCode.FAILED_PRECONDITION, "PRESCRIPTION_HELD", holder_name="示范药店")
    )
    with edge.pharmacy() as client, pytest.raises(PrescriptionHeld) as caught:
        client.claim(code(edge))
    assert caught.value.holder_name == "示范药店"


@pytest.mark.parametrize(
    "changes", [{"pharmacy_code": "P35020000099"}, {"prescription_number": "350200" + "1" * 24}]
)
def test_an_attempt_of_somebody_or_something_else_is_refused(
    edge: FakeEdge, changes: dict[str, str]
) -> None:
    pickup_code = code(edge)
    values = {"prescription_number": str(pickup_code.number)} | changes
    edge.answers["ClaimPrescription"] = lambda _: pos.PosServiceClaimPrescriptionResponse(
        attempt=edge.stated(attempt(edge, **values))
    )
    with edge.pharmacy() as client, pytest.raises(AnswerUntrusted):
        client.claim(pickup_code)


def test_a_quote_that_does_not_add_up_is_refused(edge: FakeEdge) -> None:
    wrong = Amounts()
    wrong.CopyFrom(AMOUNTS)
    wrong.cash_fen += 1
    quote = Quote(prescription_number=edge.cast.number, payer_region_code="350200", amounts=wrong)
    edge.answers["QuoteSettlement"] = lambda _: pos.PosServiceQuoteSettlementResponse(
        quote=edge.stated(quote, audience="350200")
    )
    with edge.pharmacy() as client, pytest.raises(AnswerUntrusted, match="add up"):
        client.quote(attempt(edge), LINES)


def committed(
    edge: FakeEdge, request: pos.PosServiceCommitClaimRequest, **changes: Untyped
) -> pos.PosServiceCommitClaimResponse:
    commitment = Commitment.FromString(request.commitment.payload)
    state = changes.pop("state", Attempt.STATE_COMMITTED)
    values: dict[str, Untyped] = {
        "settlement_id": commitment.settlement_id,
        "prescription_number": commitment.prescription_number,
        "payer_region_code": "350200",
        "state": Settlement.STATE_HELD,
        "amounts": commitment.accepted_amounts,
    }
    return pos.PosServiceCommitClaimResponse(
        attempt=edge.stated(attempt(edge, state=state)),
        settlement=edge.stated(Settlement(**(values | changes))),
    )


def test_commit_gives_permission_with_the_accepted_amounts(edge: FakeEdge) -> None:
    edge.answers["CommitClaim"] = lambda request: committed(edge, request)
    with edge.pharmacy() as client:
        permission = client.commit(attempt(edge), LINES, AMOUNTS)
    assert permission.settlement is not None
    assert permission.settlement.content.amounts == AMOUNTS
    assert permission.lines == LINES


@pytest.mark.parametrize(
    "changes",
    [
        {"state": Attempt.STATE_RESERVED},
        {"amounts": Amounts(total_fen=1000, own_fen=1000, person_fen=1000, cash_fen=1000)},
        {"settlement_id": "another"},
    ],
    ids=["not committed", "other amounts", "another settlement"],
)
def test_no_permission_comes_from_an_answer_that_does_not_fit(
    edge: FakeEdge, changes: dict[str, Untyped]
) -> None:
    edge.answers["CommitClaim"] = lambda request: committed(edge, request, **changes)
    with edge.pharmacy() as client, pytest.raises(AnswerUntrusted):
        client.commit(attempt(edge), LINES, AMOUNTS)


def test_who_pays_alone_gets_no_settlement_and_three_people_sign_the_handover(
    edge: FakeEdge,
) -> None:
    edge.answers["CommitClaim"] = lambda _: pos.PosServiceCommitClaimResponse(
        attempt=edge.stated(attempt(edge, state=Attempt.STATE_COMMITTED))
    )
    edge.answers["RecordDispense"] = lambda _: pos.PosServiceRecordDispenseResponse(
        progress=DispenseProgress(booked_by_home=True)
    )
    goods = [DispensedLine(line_id=1, drug_code="SYNW1", quantity=7, batch_numbers=["B"])]
    with edge.pharmacy() as client:
        permission = client.commit(attempt(edge), LINES, None)
        progress = client.dispense(permission, goods)
    assert permission.settlement is None
    assert progress is not None
    assert progress.booked_by_home
    request = edge.requests[-1]
    assert isinstance(request, pos.PosServiceRecordDispenseRequest)
    assert len(request.dispense_record.signatures) == 3
    record = DispenseRecord.FromString(request.dispense_record.payload)
    assert record.settlement_id == permission.settlement_id != ""


def test_a_trace_whose_digest_names_another_statement_is_refused(edge: FakeEdge) -> None:
    number = code(edge).number
    event = step(edge, str(number))
    edge.answers["TracePrescription"] = lambda _: TracePrescriptionResponse(events=[event])
    with edge.regulator() as client:
        assert len(client.trace(number)) == 1
        event.statement_sha256 = bytes(32)
        with pytest.raises(AnswerUntrusted):
            client.trace(number)


def step(edge: FakeEdge, number: str, action: str = "claimed") -> TraceEvent:
    statement = edge.stated(attempt(edge, prescription_number=number))
    digest = statement_sha256(statement)
    event = TraceEvent(statement=statement, statement_sha256=digest, action=action)
    event.event_time.FromDatetime(NOW)
    return event


def test_a_history_is_read_page_by_page(edge: FakeEdge) -> None:
    number = code(edge).number
    events = [step(edge, str(number), action) for action in ("claimed", "committed", "released")]

    def page(request: Untyped) -> dict[str, Untyped]:
        begin = int(request.page_token or 0)
        token = str(begin + 2) if begin + 2 < len(events) else ""
        return {"events": events[begin : begin + 2], "next_page_token": token}

    edge.answers["ListStatements"] = lambda asked: (
        his.HisServiceListStatementsResponse(**page(asked))
        if isinstance(asked, his.HisServiceListStatementsRequest)
        else pos.PosServiceListStatementsResponse(**page(asked))
    )
    with edge.hospital() as hospital:
        assert list(hospital.history(number)) == events
    with edge.pharmacy() as pharmacy:
        assert list(pharmacy.history(str(number))) == events
    assert [request.page_token for request in edge.requests] == ["", "2", "", "2"]  # type: ignore[attr-defined]  # of either kind


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda event, other: event.ClearField("statement_sha256"), "not the one whose digest"),
        (lambda event, other: event.CopyFrom(other), "about another prescription"),
        (lambda event, other: event.ClearField("statement"), "of a kind"),
    ],
)
def test_a_history_with_a_wrong_statement_is_refused_as_a_whole(
    edge: FakeEdge, spoil: Untyped, words: str
) -> None:
    number = code(edge).number
    event = step(edge, str(number))
    spoil(event, step(edge, edge.cast.number))
    answer = his.HisServiceListStatementsResponse(events=[event])
    edge.answers["ListStatements"] = lambda _: answer
    with edge.hospital() as client, pytest.raises(AnswerUntrusted, match=words):
        client.history(number)


def test_a_history_that_leads_nowhere_is_refused(edge: FakeEdge) -> None:
    endless = his.HisServiceListStatementsResponse(next_page_token="1")
    edge.answers["ListStatements"] = lambda _: endless
    with edge.hospital() as client, pytest.raises(AnswerUntrusted, match="nowhere"):
        client.history(code(edge).number)


def test_a_renewed_certificate_is_shown_at_the_next_call(edge: FakeEdge) -> None:
    edge.answers["GetOutcome"] = lambda _: his.HisServiceGetOutcomeResponse()
    profile = edge.hospital_profile()
    with edge.hospital(profile) as hospital:
        hospital.outcome(NUMBER, "0195")
        first = hospital.connection.channel
        renewed = edge.tls(live.issue(edge.cast.region.transport, profile.name), "renewed")
        renewed.certificate.replace(profile.tls.certificate)
        renewed.key.replace(profile.tls.key)
        hospital.outcome(NUMBER, "0195")
        assert hospital.connection.channel is not first
    before, after = edge.shown
    assert before != after


def test_files_that_are_being_replaced_do_not_disturb_a_client(edge: FakeEdge) -> None:
    edge.answers["GetOutcome"] = lambda _: his.HisServiceGetOutcomeResponse()
    profile = edge.hospital_profile()
    with edge.hospital(profile) as hospital:
        channel = hospital.connection.channel
        profile.tls.key.unlink()
        assert hospital.connection.channel is channel
        hospital.outcome(NUMBER, "0195")
