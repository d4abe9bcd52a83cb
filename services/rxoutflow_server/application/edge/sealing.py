"""Sealing: verify the people's signatures, add the institution's seal, and keep the sheet.

A request is sealed once. The sealed statement is kept in the same transaction, and found again by
the request, so that the platform hears the same bytes however often the request is repeated, by
the institution's systems or by the edge itself. The answer is stored under the same request.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Generic, TypeVar

from google.protobuf.message import DecodeError, Message
from google.protobuf.wrappers_pb2 import BytesValue

from rxoutflow.statements import add_signature, statement_sha256
from rxoutflow.statements.payloads import Role, rule_for
from rxoutflow.v1.statement_pb2 import ProtectedHeader, SignedStatement
from rxoutflow_server.application.edge.surroundings import Edge
from rxoutflow_server.application.edge_ports import EdgeTransaction
from rxoutflow_server.application.exchange.idempotency import RequestKey, once
from rxoutflow_server.application.ports import StoredOutcome
from rxoutflow_server.application.validation import check_required
from rxoutflow_server.domain.errors import InvariantBroken, Reason, Refusal

M = TypeVar("M", bound=Message)
R = TypeVar("R", bound=Message)


@dataclass(frozen=True)
class Sheet(Generic[M]):
    """What people have signed, of what kind it has to be, and what refuses its content."""

    statement: SignedStatement
    expected: type[M]
    check: Callable[[M], None] = check_required


def sealed(
    tx: EdgeTransaction, edge: Edge, key: RequestKey, request: Message, sheet: Sheet[M]
) -> SignedStatement:
    """The sealed statement of a request: made when it comes first, the same bytes ever after.

    Args:
        tx: the transaction in which it is kept.
        edge: whose seal it is.
        key: which request.
        request: the whole request, to which the key is bound.
        sheet: what the people have signed.

    Raises:
        StatementError: the people's signatures do not verify.
        Refusal: REQUEST_ID_REUSED, SIGNED_CONTENT_MISMATCH if people of another institution signed,
            or what the sheet's check raises.
    """
    now = edge.now()

    def seal() -> BytesValue:
        statement = _seal(edge, sheet, now)
        return BytesValue(value=keep(tx, key.prescription_number, statement, now))

    digest = once(tx.journal, _sealing(key), request, BytesValue, now, seal)
    return tx.journal.statement(key.prescription_number, digest.value)


def sealed_before(tx: EdgeTransaction, key: RequestKey) -> SignedStatement:
    """The sealed statement of a request that was sealed before."""
    digest = BytesValue.FromString(_sealed_outcome(tx, key).response)
    return tx.journal.statement(key.prescription_number, digest.value)


def when_sealed(tx: EdgeTransaction, key: RequestKey) -> datetime | None:
    """When a request was sealed, if it was."""
    outcome = _outcome(tx, _sealing(key))
    return outcome.effect_time if outcome is not None and outcome.method == key.method else None


def answered(
    tx: EdgeTransaction, key: RequestKey, request: Message, response_type: type[R], now: datetime
) -> R | None:
    """The stored answer to a request, if there is one.

    Raises:
        Refusal: REQUEST_ID_REUSED.
    """
    if _outcome(tx, key) is None:
        return None
    return once(tx.journal, key, request, response_type, now, response_type)


def conclusion(tx: EdgeTransaction, key: RequestKey, response_type: type[R]) -> R | None:
    """The stored answer to a request that is known to be the same, if there is one."""
    stored = _outcome(tx, key)
    return response_type.FromString(stored.response) if stored is not None else None


def concluded(tx: EdgeTransaction, key: RequestKey, response: R, now: datetime) -> R:
    """Store the answer to a sealed request. The answer that was stored first stays."""
    before = conclusion(tx, key, type(response))
    if before is not None:
        return before
    outcome = replace(
        _sealed_outcome(tx, key),
        response_type=response.DESCRIPTOR.full_name,
        response=response.SerializeToString(),
        effect_time=now,
    )
    tx.journal.keep_outcome(key.prescription_number, key.caller, key.request_id, outcome)
    return response


def keep(tx: EdgeTransaction, number: str, statement: SignedStatement, now: datetime) -> bytes:
    """Keep a statement byte for byte and return its digest."""
    digest = statement_sha256(statement)
    tx.journal.keep_statement(number, digest, statement, now)
    return digest


def _sealing(key: RequestKey) -> RequestKey:
    """Under which key the sealing of a request is stored; no caller has a name of this form."""
    return replace(key, caller=f"{key.caller}#seal")


def _outcome(tx: EdgeTransaction, key: RequestKey) -> StoredOutcome | None:
    return tx.journal.outcome(key.prescription_number, key.caller, key.request_id)


def _sealed_outcome(tx: EdgeTransaction, key: RequestKey) -> StoredOutcome:
    outcome = _outcome(tx, _sealing(key))
    if outcome is None:
        raise InvariantBroken(f"request {key.request_id} was never sealed")
    return outcome


def _seal(edge: Edge, sheet: Sheet[M], now: datetime) -> SignedStatement:
    statement, expected = sheet.statement, sheet.expected
    roles = _people(statement, expected)
    verified = edge.verifier.verify(statement, expected, now, roles=roles)
    if verified.signers[0].institution_code != edge.code:
        raise Refusal(
            Reason.SIGNED_CONTENT_MISMATCH,
            f"people of another institution signed; this edge seals only for {edge.code}",
            field="signatures[0].protected.institution_code",
        )
    sheet.check(verified.content)
    (seal_role,) = rule_for(expected).roles[-1]
    return add_signature(statement, edge.seal, seal_role, now)


def _people(statement: SignedStatement, expected: type[Message]) -> list[Role]:
    """Who has to have signed before the seal."""
    places = rule_for(expected).roles[:-1]
    return [_role(statement, index, place) for index, place in enumerate(places)]


def _role(statement: SignedStatement, index: int, place: tuple[Role, ...]) -> Role:
    """Where several roles may fill a place, the one that is named there, to be verified."""
    try:
        stated = ProtectedHeader.FromString(statement.signatures[index].protected).role
    except (IndexError, DecodeError):
        return place[0]
    return stated if stated in place else place[0]
