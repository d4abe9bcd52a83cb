"""The client of hospitals that seal by themselves, against a platform that answers as told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from rxoutflow.client import Registered
from rxoutflow.errors import (
    AnswerUntrusted,
    CallerRefused,
    Indefinite,
    InvalidInput,
    PrescriptionClosed,
    Unavailable,
)
from rxoutflow.numbers import PrescriptionNumber
from rxoutflow.v1 import hospital_service_pb2 as messages
from rxoutflow.v1.prescription_pb2 import Prescription
from rxoutflow.v1.prescription_status_pb2 import PrescriptionStatus
from support.fake_edge import LOST, Answer, FakeEdge, Refusal, Untyped, in_turn

STREAM, UNARY = "StreamRegisterPrescriptions", "RegisterPrescription"
StreamResponse = messages.StreamRegisterPrescriptionsResponse
Request = messages.RegisterPrescriptionRequest

REVOKED = Refusal(grpc.StatusCode.FAILED_PRECONDITION, "PRESCRIPTION_REVOKED")
DEFECT = Refusal(grpc.StatusCode.INTERNAL, "INTERNAL", incident="0123456789abcdef")
BUSY = Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[FakeEdge]:
    edge = FakeEdge(tmp_path)
    with edge.serving():
        yield edge


def number_of(name: str) -> str:
    """A prescription's number, for one that is called ``1``, ``2`` or the like here."""
    return str(PrescriptionNumber("350200", 1_772_443_800_123, "00001", f"{name:>05}"))


def registration(name: str) -> Request:
    request = Request(request_id=f"0198-{name}")
    content = Prescription(prescription_number=number_of(name))
    request.prescription.payload = content.SerializeToString()
    return request


def response(edge: FakeEdge, request: Request) -> messages.RegisterPrescriptionResponse:
    """What a right platform answers."""
    number = Prescription.FromString(request.prescription.payload).prescription_number
    status = edge.stated(PrescriptionStatus(prescription_number=number))
    return messages.RegisterPrescriptionResponse(status=status)


def right(edge: FakeEdge) -> Answer:
    return lambda request: StreamResponse(
        request_id=request.registration.request_id, response=response(edge, request.registration)
    )


def error(refusal: Refusal) -> Answer:
    return lambda request: StreamResponse(
        request_id=request.registration.request_id, error=refusal.status
    )


def registered(edge: FakeEdge, *names: str, at_once: int = 64) -> list[Registered]:
    with edge.direct() as client:
        return list(client.register_all(map(registration, names), at_once))


def names(results: list[Registered]) -> list[str]:
    """The prescriptions that are registered."""
    found = [each.status.content.prescription_number for each in results if each.status]
    assert len(found) == len(results), results
    return [each[24:29].lstrip("0") for each in found]


def sent(edge: FakeEdge) -> list[str]:
    """The registrations that were sent, as often as they were."""
    requests: list[Untyped] = [getattr(each, "registration", each) for each in edge.requests]
    return [each.request_id.removeprefix("0198-") for each in requests]


def test_each_answer_is_verified_and_handed_out_in_order(edge: FakeEdge) -> None:
    edge.answers[STREAM] = right(edge)
    assert names(registered(edge, "1", "2", "3")) == ["1", "2", "3"]
    assert sent(edge) == ["1", "2", "3"]
    assert edge.pauses == []


def test_none_at_once_is_refused(edge: FakeEdge) -> None:
    with pytest.raises(InvalidInput, match="at_once"):
        registered(edge, "1", at_once=0)


def test_nothing_to_register_is_no_error(edge: FakeEdge) -> None:
    assert registered(edge) == []


def test_what_was_not_answered_is_sent_again_and_nothing_else(edge: FakeEdge) -> None:
    edge.answers[STREAM] = in_turn(right(edge), LOST, *[right(edge)] * 2)
    assert names(registered(edge, "1", "2", "3", at_once=1)) == ["1", "2", "3"]
    assert sent(edge) == ["1", "2", "2", "3"]
    assert edge.pauses == [1.0]


def test_a_stream_that_ends_too_soon_is_opened_again(edge: FakeEdge) -> None:
    edge.answers[STREAM] = in_turn(right(edge), None, right(edge))
    assert names(registered(edge, "1", "2", at_once=1)) == ["1", "2"]
    assert sent(edge) == ["1", "2", "2"]


def test_patience_begins_anew_with_every_answer(edge: FakeEdge) -> None:
    edge.answers[STREAM] = in_turn(LOST, LOST, LOST, right(edge), LOST, LOST, LOST, right(edge))
    assert names(registered(edge, "1", "2", at_once=1)) == ["1", "2"]
    assert edge.pauses == [1.0, 2.0, 3.0] * 2


def test_giving_up_says_that_it_may_have_happened(edge: FakeEdge) -> None:
    edge.answers[STREAM] = in_turn(*[LOST] * 4)
    with pytest.raises(Unavailable):
        registered(edge, "1")
    assert sent(edge) == ["1"] * 4


def test_a_refused_registration_is_a_result_and_the_others_go_on(edge: FakeEdge) -> None:
    edge.answers[STREAM] = in_turn(right(edge), error(REVOKED), right(edge))
    first, second, third = registered(edge, "1", "2", "3")
    assert isinstance(second.failure, PrescriptionClosed)
    assert second.status is None
    assert names([first, third]) == ["1", "3"]


def test_a_refused_stream_is_raised_at_once(edge: FakeEdge) -> None:
    denied = Refusal(grpc.StatusCode.UNAUTHENTICATED, "CALLER_CERTIFICATE_REVOKED")
    edge.answers[STREAM] = in_turn(denied)
    with pytest.raises(CallerRefused):
        registered(edge, "1")
    assert edge.pauses == []


@pytest.mark.parametrize("undecided", [DEFECT, BUSY], ids=["indefinite", "overloaded"])
def test_what_the_stream_did_not_decide_is_repeated_by_itself(
    edge: FakeEdge, undecided: Refusal
) -> None:
    edge.answers[STREAM] = in_turn(error(undecided), right(edge))
    edge.answers[UNARY] = in_turn(LOST, lambda request: response(edge, request))
    assert names(registered(edge, "1", "2", at_once=1)) == ["1", "2"]
    assert sent(edge) == ["1", "1", "1", "2"]


def test_what_is_never_decided_is_a_result_that_says_so(edge: FakeEdge) -> None:
    edge.answers[STREAM] = in_turn(error(DEFECT), right(edge))
    edge.answers[UNARY] = in_turn(*[DEFECT] * 4)
    first, second = registered(edge, "1", "2", at_once=1)
    assert isinstance(first.failure, Indefinite)
    assert names([second]) == ["2"]


def of_another(edge: FakeEdge, _request: Untyped) -> StreamResponse:
    return StreamResponse(request_id="0198-1", response=response(edge, registration("2")))


def to_another(edge: FakeEdge, request: Untyped) -> StreamResponse:
    return StreamResponse(request_id="0198-2", response=response(edge, request.registration))


def unsigned(edge: FakeEdge, request: Untyped) -> StreamResponse:
    answer = right(edge)(request)
    answer.response.status.signatures[0].value = bytes(64)
    return StreamResponse.FromString(answer.SerializeToString())


@pytest.mark.parametrize("wrong", [of_another, to_another, unsigned])
def test_an_answer_that_does_not_verify_or_fit_is_never_handed_out(
    edge: FakeEdge, wrong: Untyped
) -> None:
    edge.answers[STREAM] = lambda request: wrong(edge, request)
    with pytest.raises(AnswerUntrusted):
        registered(edge, "1")
