"""The platform's answers: believed only if they verify and speak of what was asked.

An answer that does not verify is no answer. Whoever sent it may have acted, so it counts as an
indefinite failure and never as a refusal: the institution's systems have done nothing wrong.
"""

from __future__ import annotations

from datetime import datetime
from operator import attrgetter
from typing import TypeVar

from google.protobuf.message import Message

from rxoutflow.statements import StatementError, Verified
from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow_server.application.edge.platform import out_of_reach
from rxoutflow_server.application.edge.surroundings import Edge
from rxoutflow_server.domain.errors import Unavailable

M = TypeVar("M", bound=Message)


def believed(edge: Edge, statement: SignedStatement, expected: type[M], now: datetime) -> M:
    """The content of a platform's statement, verified.

    Raises:
        Unavailable: it does not verify.
    """
    return _verified(edge, statement, expected, now).content


def trusted(
    edge: Edge, statement: SignedStatement, expected: type[M], number: str, now: datetime
) -> Verified[M]:
    """A platform's statement about a prescription, verified.

    Raises:
        Unavailable: it does not verify, or is about another prescription.
    """
    verified = _verified(edge, statement, expected, now)
    require(edge, str(attrgetter("prescription_number")(verified.content)) == number)
    return verified


def require(edge: Edge, holds: bool) -> None:
    """Do not believe an answer about something else than was asked.

    Raises:
        Unavailable: it does not hold.
    """
    if not holds:
        raise _not_believed(edge, "it is about something else than was asked")


def _verified(
    edge: Edge, statement: SignedStatement, expected: type[M], now: datetime
) -> Verified[M]:
    try:
        return edge.verifier.verify(statement, expected, now)
    except StatementError as error:
        raise _not_believed(edge, f"{expected.DESCRIPTOR.name}: {error.reason}") from error


def _not_believed(edge: Edge, problem: str) -> Unavailable:
    """The answer is none; an operator has to look."""
    return out_of_reach(
        edge.institution.region_code,
        f"gave an answer that does not verify ({problem}): rely on nothing, tell the operator",
    )
