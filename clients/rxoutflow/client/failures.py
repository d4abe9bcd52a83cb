"""Turns what gRPC raises into the exceptions of :mod:`rxoutflow.errors`.

A server of this contract sends a ``google.rpc.Status`` with one ErrorInfo of the catalogue.
Whatever else comes (no server, a failed TLS handshake, a lost connection, a proxy's error, a reason
newer than this library) is judged by its status code: definite only where the code says that
nothing can have happened. Never by the words of a message.
"""

from __future__ import annotations

import grpc
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from rxoutflow.errors import (
    DOMAIN,
    Indefinite,
    Overloaded,
    Refused,
    Unavailable,
    from_reason,
)

_DEFINITE = frozenset(
    {
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
)

_CODES = {code.value[0]: code for code in grpc.StatusCode}


def from_rpc_error(error: grpc.RpcError, target: str) -> Refused | Indefinite:
    """The exception for a failed call to ``target``."""
    return _failure(_code(error), _details(error), _status(error), target)


def from_status(status: Status, target: str) -> Refused | Indefinite:
    """The exception for a status that stands in an answer of ``target``."""
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    return _failure(code, status.message, status, target)


def _failure(
    code: grpc.StatusCode, details: str, status: Status | None, target: str
) -> Refused | Indefinite:
    info = _error_info(status)
    if info is not None and info.domain == DOMAIN:
        known = from_reason(info.reason, details, dict(info.metadata))
        if isinstance(known, Overloaded):
            known.retry_after = _retry_after(status)
        if known is not None:
            return known
    reason = info.reason if info is not None and info.reason else code.name
    return _by_code(code, reason, details, target)


def _by_code(code: grpc.StatusCode, reason: str, details: str, target: str) -> Refused | Indefinite:
    if code is grpc.StatusCode.UNAVAILABLE:
        return Unavailable(
            reason,
            f"{target} was not reached. Either nothing listens there, or the TLS handshake failed: "
            "the server does not accept this client's certificate, or its certificate is not the "
            f"one that the profile's roots and server_name say ({details})",
        )
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Unavailable(reason, f"{target} did not answer in time")
    kind = Refused if code in _DEFINITE else Indefinite
    return kind(reason, details or f"{target} answered {code.name}")


def _code(error: grpc.RpcError) -> grpc.StatusCode:
    return error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN


def _details(error: grpc.RpcError) -> str:
    return (error.details() or "") if isinstance(error, grpc.Call) else str(error)


def _status(error: grpc.RpcError) -> Status | None:
    try:
        status: Status | None = rpc_status.from_call(error)
    except (ValueError, AttributeError):
        # Status that contradicts the trailers, or an error of no call: judged by its code alone.
        return None
    return status


def _error_info(status: Status | None) -> ErrorInfo | None:
    for detail in status.details if status else ():
        info = ErrorInfo()
        if detail.Unpack(info):
            return info
    return None


def _retry_after(status: Status | None) -> float | None:
    for detail in status.details if status else ():
        retry = RetryInfo()
        if detail.Unpack(retry):
            return float(retry.retry_delay.ToTimedelta().total_seconds())
    return None
