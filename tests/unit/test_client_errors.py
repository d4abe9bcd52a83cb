"""Errors: catalogue, code and library agree, and every failure of a call becomes one of ours."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any as Any_
from typing import TypeAlias

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from rxoutflow import errors
from rxoutflow.client.failures import from_rpc_error
from rxoutflow.errors import (
    FieldInvalid,
    FillTooEarly,
    Indefinite,
    Overloaded,
    PrescriptionHeld,
    QuoteChanged,
    Refused,
    RuleViolated,
    ServerError,
    Unavailable,
    from_reason,
)
from rxoutflow.v1.error_reason_pb2 import ErrorReason

PROTO = Path(__file__).parents[2] / "protos/rxoutflow/v1/error_reason.proto"
ENTRY = re.compile(r"((?:  //[^\n]*\n)+)  ERROR_REASON_([A-Z_]+) = [1-9]", re.MULTILINE)
CATALOGUE = {name: comment for comment, name in ENTRY.findall(PROTO.read_text("utf-8"))}
REASONS = [name.removeprefix(errors.PREFIX) for name in ErrorReason.keys()[1:]]


Untyped: TypeAlias = Any_
"""gRPC's stubs name the type of metadata twice, differently."""


class Failed(grpc.RpcError, grpc.Call):
    """A call that failed, as gRPC raises it."""

    def __init__(
        self, code: grpc.StatusCode, details: str = "", status: Status | None = None
    ) -> None:
        self._code, self._details = code, details
        trailers = rpc_status.to_status(status).trailing_metadata if status else ()
        self._trailers = tuple(trailers)

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details

    def trailing_metadata(self) -> tuple[Untyped, ...]:
        return self._trailers

    def initial_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        return ()

    def is_active(self) -> bool:
        return False

    def time_remaining(self) -> float:
        return 0.0

    def cancel(self) -> bool:
        return False

    def add_callback(self, callback: object) -> bool:
        return False


def refusal(
    code: grpc.StatusCode,
    reason: str,
    message: str = "words",
    *,
    retry_seconds: int | None = None,
    **metadata: str,
) -> Failed:
    status = Status(code=code.value[0], message=message)
    status.details.add().Pack(ErrorInfo(reason=reason, domain=errors.DOMAIN, metadata=metadata))
    if retry_seconds is not None:
        status.details.add().Pack(RetryInfo(retry_delay=Duration(seconds=retry_seconds)))
    return Failed(code, message, status)


def test_the_catalogue_in_the_contract_is_read_whole() -> None:
    assert sorted(CATALOGUE) == sorted(REASONS)


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_is_definite_exactly_where_the_catalogue_says_so(reason: str) -> None:
    error = from_reason(reason, "words", {})
    says_definite = ", definite." in CATALOGUE[reason]
    assert says_definite != (", indefinite." in CATALOGUE[reason])
    assert isinstance(error, Refused) == says_definite
    assert isinstance(error, Indefinite) != says_definite


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_of_the_catalogue_arrives_under_its_name(reason: str) -> None:
    code = grpc.StatusCode[CATALOGUE[reason].split(",")[0].removeprefix("  // ")]
    error = from_rpc_error(refusal(code, reason, "what to do"), "edge:1")
    assert isinstance(error, ServerError)
    assert (error.reason, error.message) == (reason, "what to do")


def test_a_refusal_names_the_holder_and_whom_to_call() -> None:
    error = from_rpc_error(
        refusal(
            grpc.StatusCode.FAILED_PRECONDITION,
            "PRESCRIPTION_HELD",
            holder_code="P35050000001",
            holder_name="泉州示范药店（合成）",
            holder_phone="0595-5550001",
        ),
        "edge:1",
    )
    assert isinstance(error, PrescriptionHeld)
    assert (error.holder_code, error.holder_name) == ("P35050000001", "泉州示范药店（合成）")
    assert "0595-5550001" in error.advice


@pytest.mark.parametrize(
    ("known", "words"),
    [({"open_day": "2026-03-30"}, "on 2026-03-30"), ({}, "once the present fill was collected")],
)
def test_a_fill_that_is_not_open_yet_says_when_to_come_again(
    known: dict[str, str], words: str
) -> None:
    code = grpc.StatusCode.FAILED_PRECONDITION
    failed = refusal(code, "FILL_TOO_EARLY", retry_seconds=None, line_id="1", **known)
    error = from_rpc_error(failed, "e")
    assert isinstance(error, FillTooEarly)
    assert error.open_day == known.get("open_day", "")
    assert words in error.advice


def test_details_of_refusals_are_typed() -> None:
    code = grpc.StatusCode.FAILED_PRECONDITION
    changed = from_rpc_error(
        refusal(code, "QUOTE_CHANGED", total_fen="300", pool_fen="100", person_fen="200"), "e"
    )
    assert isinstance(changed, QuoteChanged)
    assert (changed.total_fen, changed.pool_fen, changed.person_fen) == (300, 100, 200)
    violated = from_rpc_error(refusal(code, "PRESCRIPTION_RULE_VIOLATED", rules="R2,R3"), "e")
    assert isinstance(violated, RuleViolated)
    assert violated.rules == ("R2", "R3")
    invalid = from_rpc_error(
        refusal(grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID", field="lines[2].quantity"), "e"
    )
    assert isinstance(invalid, FieldInvalid)
    assert invalid.field == "lines[2].quantity"


def test_an_overloaded_server_says_how_long_to_wait() -> None:
    busy = refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", retry_seconds=7)
    error = from_rpc_error(busy, "edge:1")
    assert isinstance(error, Overloaded)
    assert error.retry_after == 7


@pytest.mark.parametrize("code", list(grpc.StatusCode)[1:])
def test_without_the_catalogue_the_status_code_decides_and_doubt_is_indefinite(
    code: grpc.StatusCode,
) -> None:
    error = from_rpc_error(Failed(code, "from some proxy"), "edge:1")
    nothing_can_have_happened = {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.UNAUTHENTICATED,
    }
    assert isinstance(error, Refused) == (code in nothing_can_have_happened)
    assert isinstance(error, Indefinite) == (code not in nothing_can_have_happened)


def test_an_unreachable_server_is_explained_with_its_address_and_the_certificate() -> None:
    error = from_rpc_error(Failed(grpc.StatusCode.UNAVAILABLE, "Socket closed"), "10.0.0.1:8443")
    assert isinstance(error, Unavailable)
    assert "10.0.0.1:8443" in error.message
    assert "certificate" in error.message


def test_a_reason_of_another_domain_or_a_newer_catalogue_is_judged_by_its_code() -> None:
    newer = from_rpc_error(refusal(grpc.StatusCode.ABORTED, "INVENTED_LATER"), "edge:1")
    assert isinstance(newer, Indefinite)
    assert newer.reason == "INVENTED_LATER"
    status = Status(code=grpc.StatusCode.NOT_FOUND.value[0], message="words")
    status.details.add().Pack(ErrorInfo(reason="INTERNAL", domain="example.com"))
    other = from_rpc_error(Failed(grpc.StatusCode.NOT_FOUND, "words", status), "edge:1")
    assert isinstance(other, Refused)


def test_details_that_do_not_parse_are_judged_by_the_code() -> None:
    status = Status(code=grpc.StatusCode.INTERNAL.value[0], message="words")
    status.details.append(Any(type_url="type.googleapis.com/unknown", value=b"\xff"))
    error = from_rpc_error(Failed(grpc.StatusCode.INTERNAL, "words", status), "edge:1")
    assert isinstance(error, Indefinite)
    contradicting = Failed(grpc.StatusCode.NOT_FOUND, "words", status)
    assert isinstance(from_rpc_error(contradicting, "edge:1"), Refused)


def test_every_kind_of_refusal_says_what_to_do_next() -> None:
    for reason in REASONS:
        error = from_reason(reason, "", {})
        assert error is not None
        assert error.advice or type(error) is Refused
