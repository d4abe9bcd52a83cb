"""The error catalogue: contract, domain and map say the same, and nothing personal gets out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from rxoutflow.statements import SignatureInvalid
from rxoutflow.trust import RegionNotTrusted
from rxoutflow.v1.error_reason_pb2 import ErrorReason
from rxoutflow_server import telemetry
from rxoutflow_server.domain.errors import InvariantBroken, Reason, Refusal, Unavailable
from rxoutflow_server.transport.errors import MEANINGS, refusal_of, status_of

PROTO = Path(__file__).parents[2] / "protos/rxoutflow/v1/error_reason.proto"
PATIENT = "张三丰 350203199001011234"


def catalogue() -> dict[str, tuple[str, str]]:
    """Reason, status code and definiteness, as the comments of the contract give them."""
    entries = re.findall(
        r"((?: +//[^\n]*\n)+) +ERROR_REASON_(\w+) = [1-9]\d*;", PROTO.read_text("utf-8")
    )
    texts = {name: re.sub(r"\s*//\s*", " ", comment).strip() for comment, name in entries}
    heads = {
        name: re.match(r"([A-Z_]+), (definite|indefinite)\. ", text) for name, text in texts.items()
    }
    return {name: (head[1], head[2]) for name, head in heads.items() if head}


def metadata_of(status: status_pb2.Status) -> dict[str, str]:
    return dict(info_of(status).metadata)


def info_of(status: status_pb2.Status) -> error_details_pb2.ErrorInfo:
    infos = [detail for detail in status.details if detail.Is(INFO.DESCRIPTOR)]
    assert len(infos) == 1, "exactly one ErrorInfo"
    info = error_details_pb2.ErrorInfo()
    infos[0].Unpack(info)
    assert info.domain == "rxoutflow.v1"
    return info


INFO = error_details_pb2.ErrorInfo()


def as_received(status: status_pb2.Status) -> grpc.aio.AioRpcError:
    """The error that a client sees."""
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    metadata = grpc.aio.Metadata(("grpc-status-details-bin", status.SerializeToString()))
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), metadata, details=status.message)


@pytest.fixture
def logged() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    stream = StringIO()
    telemetry.configure("info", stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    structlog.reset_defaults()


def test_every_reason_of_the_contract_has_a_comment_that_this_test_can_read() -> None:
    numbered = {name for name, number in ErrorReason.items() if number}
    assert {f"ERROR_REASON_{name}" for name in catalogue()} == numbered


def test_the_domain_knows_every_reason_of_the_contract_and_no_other() -> None:
    assert set(Reason) == set(catalogue())


@pytest.mark.parametrize("reason", Reason)
def test_code_and_definiteness_are_those_of_the_contract(reason: Reason) -> None:
    code, definiteness = catalogue()[reason]
    meaning = MEANINGS[reason]
    assert meaning.code.name == code
    assert meaning.definite == (definiteness == "definite")


@pytest.mark.parametrize("reason", [reason for reason in Reason if MEANINGS[reason].definite])
def test_a_refusal_crosses_the_wire_unchanged_unless_it_is_about_the_platform(
    reason: Reason,
) -> None:
    refusal = Refusal(reason, "line 1: too much; ask for 2 at most", line_id="1", available="2")
    again = refusal_of(as_received(status_of(refusal)), "350500")
    if reason.startswith("CALLER_"):
        assert isinstance(again, Unavailable)
        assert (again.reason, again.detail) == (Reason.PEER_UNAVAILABLE, {"region": "350500"})
        assert reason in again.message
    else:
        assert isinstance(again, Refusal)
        assert (again.reason, again.message, again.detail) == (
            reason,
            refusal.message,
            refusal.detail,
        )


@pytest.mark.parametrize("reason", [reason for reason in Reason if not MEANINGS[reason].definite])
def test_what_is_indefinite_at_a_peer_is_indefinite_here(reason: Reason) -> None:
    status = status_of(Unavailable(reason, "not now"))
    again = refusal_of(as_received(status), "350500")
    assert isinstance(again, Unavailable)
    assert again.reason is Reason.PEER_UNAVAILABLE


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code.value[0]])
def test_an_error_without_error_info_never_counts_as_definite(code: grpc.StatusCode) -> None:
    error = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details="no")
    assert isinstance(refusal_of(error, "350500"), Unavailable)


@pytest.mark.parametrize(
    "info",
    [
        error_details_pb2.ErrorInfo(reason="PRESCRIPTION_USED_UP", domain="other.example"),
        error_details_pb2.ErrorInfo(reason="NOT_IN_THE_CATALOGUE", domain="rxoutflow.v1"),
    ],
    ids=["another domain", "unknown reason"],
)
def test_reasons_that_are_not_of_this_catalogue_never_count_as_definite(
    info: error_details_pb2.ErrorInfo,
) -> None:
    status = status_pb2.Status(code=grpc.StatusCode.FAILED_PRECONDITION.value[0], message="no")
    status.details.add().Pack(info)
    assert isinstance(refusal_of(as_received(status), "350500"), Unavailable)


def test_a_status_that_is_garbage_never_counts_as_definite() -> None:
    metadata = grpc.aio.Metadata(("grpc-status-details-bin", b"\xff\xff"))
    error = grpc.aio.AioRpcError(
        grpc.StatusCode.NOT_FOUND, grpc.aio.Metadata(), metadata, details="no"
    )
    assert isinstance(refusal_of(error, "350500"), Unavailable)


def test_metadata_of_a_peer_cannot_break_the_refusal() -> None:
    status = status_of(Refusal(Reason.PRESCRIPTION_HELD, "held"))
    info = info_of(status)
    for key in ("self", "reason", "message", "Bad-Key", "holder_name"):
        info.metadata[key] = "x"
    del status.details[:]
    status.details.add().Pack(info)
    refusal = refusal_of(as_received(status), "350500")
    assert refusal.detail == {"holder_name": "x"}


def test_a_refused_statement_keeps_its_reason_and_detail() -> None:
    status = status_of(SignatureInvalid("the signature of PRESCRIBER is wrong", role="PRESCRIBER"))
    assert status.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert info_of(status).reason == "SIGNATURE_INVALID"
    assert metadata_of(status) == {"role": "PRESCRIBER"}


def test_a_region_without_trust_list_is_unknown() -> None:
    status = status_of(RegionNotTrusted("320600", "has no trust list here"))
    assert info_of(status).reason == "REGION_UNKNOWN"
    assert metadata_of(status) == {"region": "320600"}


def test_an_invalid_field_is_named_in_a_bad_request() -> None:
    field = "prescription.lines[2].quantity"
    status = status_of(Refusal(Reason.FIELD_INVALID, f"{field}: must be at least 1", field=field))
    bad_request = error_details_pb2.BadRequest()
    assert status.details[1].Unpack(bad_request)
    (violation,) = bad_request.field_violations
    assert violation.field == field
    assert violation.description == f"{field}: must be at least 1"


def test_who_asks_too_much_is_told_how_long_to_wait() -> None:
    status = status_of(Refusal(Reason.OVERLOADED, "too much at once"))
    retry = error_details_pb2.RetryInfo()
    assert status.details[1].Unpack(retry)
    assert retry.retry_delay.ToTimedelta().total_seconds() >= 1


def raised(error: Exception) -> Exception:
    """The error as it looks after it was raised somewhere."""
    with pytest.raises(type(error)) as caught:
        raise error
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        KeyError(PATIENT),
        InvariantBroken(PATIENT),
        UnicodeEncodeError("ascii", PATIENT, 0, 1, PATIENT),
    ],
)
def test_a_defect_is_told_by_incident_and_nothing_else(
    error: Exception, logged: Callable[[], list[dict[str, Any]]]
) -> None:
    status = status_of(raised(error))
    assert info_of(status).reason == "INTERNAL"
    (line,) = logged()
    assert metadata_of(status) == {"incident": line["incident"]}
    assert line["incident"] in status.message
    assert line["exception"] == type(error).__name__
    assert line["trace"][-1].startswith(f"{__name__}:")
    everything = json.dumps(line, ensure_ascii=False) + str(status) + status.message
    assert not any(part in everything for part in PATIENT.split())


def test_each_defect_is_an_incident_of_its_own(
    logged: Callable[[], list[dict[str, Any]]],
) -> None:
    first, second = status_of(ValueError()), status_of(ValueError())
    assert metadata_of(first) != metadata_of(second)
    assert len(logged()) == 2


@given(
    message=st.text() | st.integers(1, 5000).map("药".__mul__),
    detail=st.dictionaries(
        st.sampled_from(["field", "role", "rules", "holder_name"]),
        st.text() | st.integers(1, 5000).map("药".__mul__),
    ),
)
def test_a_status_always_fits_into_the_trailers(message: str, detail: dict[str, str]) -> None:
    status = status_of(Refusal(Reason.FIELD_INVALID, message, **detail))
    percent_encoded = 3 * len(status.message.encode())
    base64_encoded = status.ByteSize() * 4 / 3
    assert percent_encoded + base64_encoded < 8 * 1024


def test_a_region_behind_the_one_that_was_asked_is_named_by_its_own_code() -> None:
    away = Unavailable(Reason.PEER_UNAVAILABLE, "the payer is away", region="320600")

    heard = refusal_of(as_received(status_of(away)), "350500")

    assert isinstance(heard, Unavailable)
    assert heard.detail == {"region": "320600"}
    assert "320600" in heard.message
