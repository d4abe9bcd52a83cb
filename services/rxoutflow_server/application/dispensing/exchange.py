"""The dispensing region at work: its records, and the way to the other regions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from rxoutflow.statements import StatementError, Verified
from rxoutflow.statements.verification import M
from rxoutflow.v1.home_service_pb2 import (
    CommitAttemptRequest,
    CommitAttemptResponse,
    GrantClaimRequest,
    GrantClaimResponse,
)
from rxoutflow.v1.payer_service_pb2 import HoldBenefitRequest, HoldBenefitResponse
from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow_server.application.ports import PeerGateway, Peers, Store, Transaction
from rxoutflow_server.application.region import Region, routed
from rxoutflow_server.domain.errors import Reason, Unavailable


class OwnRoles(Protocol):
    """Home and payer where they are this region itself: what they do is a part of a transaction.

    What is refused has to be undone with all that led to it.
    """

    def grant_claim(self, tx: Transaction, request: GrantClaimRequest) -> GrantClaimResponse:
        """See HomeService.GrantClaim; without a receipt.

        Raises:
            RefusedHere: it was refused, and would be again.
        """

    def commit_attempt(
        self, tx: Transaction, request: CommitAttemptRequest
    ) -> CommitAttemptResponse:
        """See HomeService.CommitAttempt.

        Raises:
            RefusedHere: likewise.
        """

    def hold_benefit(self, tx: Transaction, request: HoldBenefitRequest) -> HoldBenefitResponse:
        """See PayerService.HoldBenefit.

        Raises:
            RefusedHere: likewise.
        """


class RefusedHere(Exception):
    """An own role refused a part of a transaction. Asked alone, it says why, and that is stored."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """What a command needs that has to ask other regions on its way."""

    region: Region
    store: Store
    peers: Peers
    own: OwnRoles

    def home_of(self, prescription_number: str) -> PeerGateway:
        """The home region of a prescription, by the first six digits of its number.

        Raises:
            Refusal: PRESCRIPTION_NUMBER_INVALID or REGION_UNKNOWN.
        """
        return self.peers.region(routed(prescription_number).region_code)


def believed(
    region: Region,
    statement: SignedStatement,
    expected: type[M],
    now: datetime,
    *,
    origin: str,
    decides: bool = True,
) -> Verified[M]:
    """What another region answered, verified. An answer that does not verify is none.

    Raises:
        Unavailable: it does not verify; the region ``origin`` may have acted all the same.
    """
    try:
        return region.verified(statement, expected, now, decides=decides)
    except StatementError as error:
        raise _not_believed(origin, f"{expected.DESCRIPTOR.name}: {error.reason}") from error


def require_asked(origin: str, holds: bool) -> None:
    """Do not believe an answer about something else than was asked.

    Raises:
        Unavailable: it does not hold; the region ``origin`` may have acted all the same.
    """
    if not holds:
        raise _not_believed(origin, "it is about something else than was asked")


def _not_believed(origin: str, problem: str) -> Unavailable:
    return Unavailable(
        Reason.PEER_UNAVAILABLE,
        f"region {origin} gave an answer that does not verify ({problem}): rely on nothing, tell"
        " the operator, and repeat with the same request_id",
        region=origin,
    )
