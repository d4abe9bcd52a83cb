"""What the edge services of hospitals and pharmacies need from the outside.

An edge keeps its own evidence, outcomes and notices in the same journal as a platform, and beside
them what it still owes to the platform: prescriptions on their way out, and records of handovers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol, TypeVar

from rxoutflow_server.application.ports import Journal

T = TypeVar("T")


class Registration(StrEnum):
    """How far the edge has brought a prescription."""

    QUEUED = "queued"
    REGISTERED = "registered"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True)
class IssuedPrescription:
    """A prescription that the hospital's systems have issued through this edge."""

    prescription_number: str
    request_id: str
    statement_sha256: bytes
    pickup_secret: str
    registration: Registration
    create_time: datetime
    status_sha256: bytes = b""
    status_time: datetime | None = None
    sent: bool = False
    """Whether the platform may have it: noted before the first try, and never taken back."""
    refusal: str = ""
    """The platform's refusal, as ``edge.refusals`` writes it."""
    revocation_request_id: str = ""
    """The request to revoke it that waits for the platform, if there is one."""


@dataclass(frozen=True, slots=True)
class Handover:
    """A dispense record that the pharmacy's systems have made, until the platform has it."""

    prescription_number: str
    attempt_id: str
    request_id: str
    statement_sha256: bytes
    delivered: bool
    create_time: datetime
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class GoodsReturn:
    """A return that the pharmacy's systems have made, until the platform has it."""

    prescription_number: str
    reversal_id: str
    attempt_id: str
    request_id: str
    statement_sha256: bytes
    delivered: bool
    create_time: datetime
    refusal: str = ""


class EdgeRecords(Protocol):
    """What an edge alone writes."""

    def issued(self, number: str) -> IssuedPrescription | None:
        """An issued prescription."""

    def add_issued(self, issued: IssuedPrescription) -> bool:
        """Store a new one; false if the number is taken."""

    def save_issued(self, issued: IssuedPrescription) -> None:
        """Store its progress."""

    def queued(self, limit: int) -> Sequence[IssuedPrescription]:
        """Those that the platform does not have yet, oldest first."""

    def handover(self, number: str, attempt_id: str) -> Handover | None:
        """A handover."""

    def waiting_handover(self, number: str) -> Handover | None:
        """A handover of this prescription that the platform has neither got nor refused."""

    def add_handover(self, handover: Handover) -> bool:
        """Store a new one; false if the attempt has one."""

    def save_handover(self, handover: Handover) -> None:
        """Store its progress, or the corrected record in the place of a refused one."""

    def undelivered(self, limit: int) -> Sequence[Handover]:
        """Those that the platform does not have yet and has not refused, oldest first."""

    def goods_return(self, number: str, reversal_id: str) -> GoodsReturn | None:
        """A return."""

    def add_goods_return(self, returned: GoodsReturn) -> bool:
        """Store a new one; false if the id is taken."""

    def save_goods_return(self, returned: GoodsReturn) -> None:
        """Store its progress, or the corrected return in the place of a refused one."""

    def undelivered_returns(self, limit: int) -> Sequence[GoodsReturn]:
        """Those that the platform does not have yet and has not refused, oldest first.

        Those whose handover waits itself are not among them.
        """

    def resume_token(self, stream: str) -> str:
        """The token of the last notice stored from a stream; empty at first."""

    def save_resume_token(self, stream: str, token: str) -> None:
        """Remember how far a stream has been stored."""


class EdgeTransaction(Protocol):
    """Everything that one command of an edge sees and changes."""

    @property
    def journal(self) -> Journal:
        """Evidence, outcomes and notices."""

    @property
    def edge(self) -> EdgeRecords:
        """What the edge owes to the platform."""


class EdgeStore(Protocol):
    """An edge's store; see ``ports.Store``."""

    async def transact(self, command: Callable[[EdgeTransaction], T]) -> T:
        """Run a command and commit it durably before returning. Exceptions undo it."""

    async def read(self, query: Callable[[EdgeTransaction], T]) -> T:
        """Run a query on a consistent snapshot; it must not write."""
