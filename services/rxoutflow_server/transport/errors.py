"""The one map between errors and gRPC.

Every reason of the catalogue has one status code and is either definite (nothing happened) or
indefinite (it may have happened). :func:`status_of` turns an error into a ``google.rpc.Status``
with exactly one ``ErrorInfo``; :func:`refusal_of` turns the answer of another region back into the
error that it was.

An exception that nobody foresaw is a defect: the caller gets INTERNAL with an incident number, and
the log gets the exception's type and where it was raised. Its text goes nowhere, since it may hold
personal data.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping
from traceback import walk_tb
from types import MappingProxyType
from typing import Final, NamedTuple

import grpc
import structlog
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from rxoutflow.statements import SignerUnavailable, StatementError
from rxoutflow.trust import RegionNotTrusted
from rxoutflow_server.domain.errors import Reason, Refusal, Unavailable

DOMAIN: Final = "rxoutflow.v1"
"""The domain of every ErrorInfo of this contract."""

MAX_MESSAGE: Final = 600
MAX_DETAIL: Final = 360
"""Bytes in UTF-8. A status travels in HTTP/2 trailers, of which 8 KiB are certain to arrive."""

RETRY_MS: Final = 2000
"""Pause that an overloaded server asks for."""

log = structlog.get_logger()


class Meaning(NamedTuple):
    """How a reason is told to a client."""

    code: grpc.StatusCode
    definite: bool


_REASONS_BY_CODE: Mapping[grpc.StatusCode, tuple[Reason, ...]] = {
    grpc.StatusCode.UNAUTHENTICATED: (
        Reason.CALLER_IDENTITY_INVALID,
        Reason.CALLER_CERTIFICATE_UNTRUSTED,
        Reason.CALLER_CERTIFICATE_EXPIRED,
        Reason.CALLER_CERTIFICATE_REVOKED,
    ),
    grpc.StatusCode.PERMISSION_DENIED: (
        Reason.CALLER_KIND_NOT_ALLOWED,
        Reason.CALLER_REGION_NOT_ALLOWED,
        Reason.INSTITUTION_NOT_ACTIVE,
        Reason.INSTITUTION_OUT_OF_SCOPE,
        Reason.SIGNER_UNTRUSTED,
        Reason.SIGNERS_NOT_DISTINCT,
    ),
    grpc.StatusCode.INVALID_ARGUMENT: (
        Reason.FIELD_INVALID,
        Reason.STATEMENT_MALFORMED,
        Reason.STATEMENT_TYPE_UNEXPECTED,
        Reason.SIGNATURE_MISSING,
        Reason.SIGNATURE_INVALID,
        Reason.SIGNED_CONTENT_MISMATCH,
        Reason.PRESCRIPTION_NUMBER_INVALID,
        Reason.LINE_UNKNOWN,
    ),
    grpc.StatusCode.ALREADY_EXISTS: (
        Reason.REQUEST_ID_REUSED,
        Reason.PRESCRIPTION_ALREADY_REGISTERED,
    ),
    grpc.StatusCode.NOT_FOUND: (
        Reason.PRESCRIPTION_NOT_FOUND,
        Reason.PICKUP_CODE_INVALID,
        Reason.ATTEMPT_NOT_FOUND,
        Reason.SETTLEMENT_NOT_FOUND,
        Reason.OUTCOME_NOT_FOUND,
        Reason.EVENT_NOT_FOUND,
    ),
    grpc.StatusCode.FAILED_PRECONDITION: (
        Reason.PRESCRIPTION_RULE_VIOLATED,
        Reason.PRESCRIPTION_EXPIRED,
        Reason.PRESCRIPTION_REVOKED,
        Reason.PRESCRIPTION_HELD,
        Reason.PRESCRIPTION_USED_UP,
        Reason.E_CREDENTIAL_NOT_ACCEPTED,
        Reason.PICKUP_CODE_LOCKED,
        Reason.FILL_TOO_EARLY,
        Reason.DOSES_INCOMPLETE,
        Reason.ATTEMPT_ENDED,
        Reason.ATTEMPT_NOT_COMMITTED,
        Reason.ATTEMPT_ALREADY_COMMITTED,
        Reason.FENCE_STALE,
        Reason.QUANTITY_EXCEEDED,
        Reason.DISPENSE_MISMATCH,
        Reason.TRACE_CODE_MISSING,
        Reason.TRACE_CODE_ALREADY_SOLD,
        Reason.ATTEMPT_NOT_OVERDUE,
        Reason.DELIVERY_NOT_POSSIBLE,
        Reason.DRUG_NOT_IN_CATALOGUE,
        Reason.PRICE_ABOVE_CATALOGUE,
        Reason.PERSON_NOT_INSURED,
        Reason.DIRECT_SETTLEMENT_SUSPENDED,
        Reason.TARIFF_NOT_IN_FORCE,
        Reason.QUOTE_CHANGED,
        Reason.SETTLEMENT_ENDED,
        Reason.RETURN_EXCEEDED,
        Reason.REQUEST_CORRECTED,
        Reason.EARLIER_FACT_MISSING,
        Reason.REGION_UNKNOWN,
    ),
    grpc.StatusCode.UNAVAILABLE: (
        Reason.PEER_UNAVAILABLE,
        Reason.STORE_UNAVAILABLE,
        Reason.SIGNER_UNAVAILABLE,
    ),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (Reason.OVERLOADED,),
    grpc.StatusCode.INTERNAL: (Reason.INTERNAL,),
}

_INDEFINITE = frozenset(
    {
        Reason.PEER_UNAVAILABLE,
        Reason.STORE_UNAVAILABLE,
        Reason.SIGNER_UNAVAILABLE,
        Reason.INTERNAL,
    }
)

MEANINGS: Mapping[Reason, Meaning] = MappingProxyType(
    {
        reason: Meaning(code, reason not in _INDEFINITE)
        for code, reasons in _REASONS_BY_CODE.items()
        for reason in reasons
    }
)
"""Each reason's status code, and whether it is definite; the comments of ``error_reason.proto``."""

_ABOUT_THIS_PLATFORM = frozenset(
    {
        Reason.CALLER_IDENTITY_INVALID,
        Reason.CALLER_CERTIFICATE_UNTRUSTED,
        Reason.CALLER_CERTIFICATE_EXPIRED,
        Reason.CALLER_CERTIFICATE_REVOKED,
        Reason.CALLER_KIND_NOT_ALLOWED,
        Reason.CALLER_REGION_NOT_ALLOWED,
    }
)

_DETAIL_KEY = re.compile(r"[a-z][a-z0-9_]{0,63}")
_NOT_DETAIL = frozenset({"self", "reason", "message"})


def status_of(error: Exception) -> status_pb2.Status:
    """What a caller is told about an error. Logs an incident when the error is a defect.

    Cancellation and gRPC's own aborts are no errors in this sense: let them pass before.
    """
    match error:
        case Refusal() | Unavailable():
            return _status(error.reason, error.message, error.detail)
        case StatementError():
            return _status(Reason(error.reason), error.message, error.detail)
        case SignerUnavailable():
            return _status(
                Reason.SIGNER_UNAVAILABLE,
                "the server cannot sign at the moment: repeat with the same request_id",
                {},
            )
        case RegionNotTrusted():
            return _status(Reason.REGION_UNKNOWN, str(error), {"region": error.region_code})
        case _:
            return _incident_status(error)


def reason_of(error: Exception) -> str:
    """The reason that a caller would be told; for a log line of work that has no caller.

    Logs an incident when the error is a defect.
    """
    info = error_details_pb2.ErrorInfo()
    status_of(error).details[0].Unpack(info)
    return str(info.reason)


def refusal_of(error: grpc.aio.AioRpcError, region_code: str) -> Refusal | Unavailable:
    """The error that another region's platform answered with.

    A definite reason becomes the same refusal again. Everything else means that the region did not
    decide, as far as can be known here: no connection, no answer in time, a defect there, or that
    it does not accept this platform as a caller, which is for the operators and not for the
    institution whose request this is.
    """
    info = error_info(error)
    reason = _definite_reason(info)
    if info is None or reason is None or reason in _ABOUT_THIS_PLATFORM:
        if info is not None and info.reason == Reason.PEER_UNAVAILABLE:
            # It did answer: a third region is away, and the caller should hear which.
            return peer_unavailable(info.metadata.get("region", region_code), info.reason)
        cause = info.reason if info is not None and reason is not None else error.code().name
        return peer_unavailable(region_code, cause)
    return Refusal(reason, error.details() or reason, **_details(info.metadata))


def peer_unavailable(region_code: str, cause: str) -> Unavailable:
    """The region cannot be asked now; ``cause`` is a status code or a reason."""
    return Unavailable(
        Reason.PEER_UNAVAILABLE,
        f"region {region_code} cannot be reached or did not decide ({cause}): "
        "repeat with the same request_id",
        region=region_code,
    )


def error_info(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo | None:
    """The ErrorInfo of this contract that came with an error, if there is one."""
    try:
        status = rpc_status.from_call(error)
    except (ValueError, DecodeError):
        return None
    if status is None:
        return None
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Is(info.DESCRIPTOR) and detail.Unpack(info) and info.domain == DOMAIN:
            return info
    return None


def _definite_reason(info: error_details_pb2.ErrorInfo | None) -> Reason | None:
    if info is None or info.reason not in Reason.__members__:
        return None
    reason = Reason(info.reason)
    return reason if MEANINGS[reason].definite else None


def _details(metadata: Mapping[str, str]) -> dict[str, str]:
    """The metadata that may become a refusal's detail; another region's names are not trusted."""
    return {
        key: value
        for key, value in metadata.items()
        if _DETAIL_KEY.fullmatch(key) and key not in _NOT_DETAIL
    }


def _incident_status(error: Exception) -> status_pb2.Status:
    incident = secrets.token_hex(8)
    log.error("defect", incident=incident, exception=type(error).__qualname__, trace=_places(error))
    message = (
        f"a defect of the server, incident {incident}: "
        "repeat with the same request_id, and report the incident to the operator"
    )
    return _status(Reason.INTERNAL, message, {"incident": incident})


def _places(error: BaseException) -> list[str]:
    """Where an error was raised, innermost last: modules and lines, no values."""
    frames = walk_tb(error.__traceback__)
    places = [f"{frame.f_globals.get('__name__', '?')}:{line}" for frame, line in frames]
    return places[-12:]


def _status(reason: Reason, message: str, detail: Mapping[str, str]) -> status_pb2.Status:
    short = _clip(message, MAX_MESSAGE)
    status = status_pb2.Status(code=MEANINGS[reason].code.value[0], message=short)
    for part in _parts(reason, short, detail):
        status.details.add().Pack(part)
    return status


def _parts(reason: Reason, message: str, detail: Mapping[str, str]) -> Iterator[Message]:
    metadata = {key: _clip(value, MAX_DETAIL) for key, value in detail.items()}
    yield error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata)
    if reason is Reason.FIELD_INVALID:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=metadata.get("field", ""), description=message
        )
        yield error_details_pb2.BadRequest(field_violations=[violation])
    if reason is Reason.OVERLOADED:
        delay = Duration()
        delay.FromMilliseconds(int(metadata.get("retry_after_ms", RETRY_MS)))
        yield error_details_pb2.RetryInfo(retry_delay=delay)


def _clip(text: str, limit: int) -> str:
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= limit:
        return encoded.decode()
    return encoded[: limit - len("…".encode())].decode("utf-8", "ignore") + "…"
