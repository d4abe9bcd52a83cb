"""The same request again: the same answer, byte for byte, and no second effect.

The outcome of a mutating request is stored in the transaction that carries it out, under the
prescription, the caller and the request id, and lives as long as the prescription. It is bound to a
digest of the request, so the same id with other content is refused. Refusals are not stored: they
had no effect.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from rxoutflow.v1.outcome_pb2 import Outcome
from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow_server.application.ports import Journal, StoredOutcome
from rxoutflow_server.application.validation import check_uuid
from rxoutflow_server.domain.errors import Reason, Refusal

M = TypeVar("M", bound=Message)
R = TypeVar("R", bound=Message)


@dataclass(frozen=True, slots=True)
class RequestKey:
    """Which request: ids are scoped to the prescription and the caller."""

    prescription_number: str
    caller: str
    request_id: str
    method: str


def once(
    journal: Journal,
    key: RequestKey,
    request: Message,
    response_type: type[R],
    now: datetime,
    carry_out: Callable[[], R],
) -> R:
    """The stored answer to this request, or else the answer of carrying it out now.

    Raises:
        Refusal: REQUEST_ID_REUSED, FIELD_INVALID for an id that is no UUID, or whatever carrying
            it out raises.
    """
    check_uuid("request_id", key.request_id)
    digest = _digest(request)
    stored = journal.outcome(key.prescription_number, key.caller, key.request_id)
    if stored is not None:
        return _replayed(stored, key, digest, response_type)
    try:
        response = carry_out()
    except Refusal:
        # Where commands run beside each other, the same request may have taken effect while this
        # one waited for a lock: then that is its answer, and not a refusal for what it did itself.
        stored = journal.outcome(key.prescription_number, key.caller, key.request_id)
        if stored is None:
            raise
        return _replayed(stored, key, digest, response_type)
    journal.keep_outcome(
        key.prescription_number,
        key.caller,
        key.request_id,
        StoredOutcome(
            method=key.method,
            request_sha256=digest,
            response_type=response.DESCRIPTOR.full_name,
            response=response.SerializeToString(),
            effect_time=now,
        ),
    )
    return response


def require_unused(journal: Journal, key: RequestKey, request: Message) -> None:
    """Refuse an id under which the outcome of another request is stored, before anything happens.

    Raises:
        Refusal: REQUEST_ID_REUSED.
    """
    stored = journal.outcome(key.prescription_number, key.caller, key.request_id)
    if stored is not None:
        _require_same(stored, key, _digest(request))


def require_same_return(before: bytes, now: bytes) -> None:
    """A return that comes again is the same one: its id is never used for another.

    Args:
        before: digest of the return that is known under this id.
        now: digest of the one that came.

    Raises:
        Refusal: REQUEST_ID_REUSED.
    """
    if before != now:
        raise Refusal(
            Reason.REQUEST_ID_REUSED,
            "reversal_id: it was used for another return; use a new id for a new return",
        )


def find_outcome(journal: Journal, number: str, caller: str, request_id: str) -> Outcome:
    """What became of a request.

    Raises:
        Refusal: OUTCOME_NOT_FOUND.
    """
    stored = journal.outcome(number, caller, request_id)
    if stored is None:
        raise Refusal(
            Reason.OUTCOME_NOT_FOUND,
            "nothing is stored for this request; repeat it with the same request_id",
        )
    outcome = Outcome(method=stored.method)
    outcome.response.type_url = f"type.googleapis.com/{stored.response_type}"
    outcome.response.value = stored.response
    outcome.effect_time.FromDatetime(stored.effect_time)
    return outcome


def unverified_number(statement: SignedStatement, expected: type[Message]) -> str:
    """The prescription number that a statement claims, to look a stored outcome up with.

    Nothing else may be done with it: the statement is verified before anything happens.

    Raises:
        Refusal: STATEMENT_MALFORMED.
    """
    content = unverified(statement, expected)
    return str(getattr(content, "prescription_number"))  # noqa: B009 - every payload type has it


def unverified(statement: SignedStatement, expected: type[M]) -> M:
    """What a statement claims, to find out who has to verify it; nothing may be done with it.

    Raises:
        Refusal: STATEMENT_MALFORMED.
    """
    try:
        return expected.FromString(statement.payload)
    except DecodeError:
        raise Refusal(
            Reason.STATEMENT_MALFORMED, f"the payload is not a {expected.DESCRIPTOR.name}"
        ) from None


def _replayed(stored: StoredOutcome, key: RequestKey, digest: bytes, response_type: type[R]) -> R:
    _require_same(stored, key, digest)
    return response_type.FromString(stored.response)


def _require_same(stored: StoredOutcome, key: RequestKey, digest: bytes) -> None:
    if (stored.method, stored.request_sha256) != (key.method, digest):
        raise Refusal(
            Reason.REQUEST_ID_REUSED,
            "this request_id was used for another request; use a new id for a new request",
        )


def _digest(request: Message) -> bytes:
    return sha256(request.SerializeToString(deterministic=True)).digest()
