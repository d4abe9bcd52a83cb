"""Signed answers: verified with the trust lists that this client holds, and kept as evidence.

An answer counts only if it verifies (:class:`rxoutflow.statements.Verifier`) and speaks of what was
asked. What does not is raised as ``AnswerUntrusted`` and never handed out, not even in part. The
statement is kept beside its content, so that it can be stored and shown to others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from google.protobuf.message import Message

from rxoutflow.amounts import broken_identities
from rxoutflow.errors import AnswerUntrusted, InvalidInput
from rxoutflow.log.checkpoint import CheckpointWrong, Head, verify_checkpoint
from rxoutflow.log.receipts import LoggedAt, verify_receipt
from rxoutflow.profile import Profile
from rxoutflow.statements import StatementError, VerifiedSigner, Verifier
from rxoutflow.statements.errors import TrustListRefused
from rxoutflow.statements.payloads import RULES, Role
from rxoutflow.trust import TrustStore
from rxoutflow.v1.settlement_pb2 import Amounts
from rxoutflow.v1.statement_pb2 import Checkpoint, Receipt, SignedStatement

M = TypeVar("M", bound=Message)

_MESSAGES = {rule.payload_type: rule.message for rule in RULES}


@dataclass(frozen=True, slots=True)
class Evidence(Generic[M]):
    """A statement that verified: its content, who signed it, and the statement itself."""

    content: M
    signers: tuple[VerifiedSigner, ...]
    statement: SignedStatement


class EvidenceReader:
    """Reads signed answers against a profile's trust lists."""

    def __init__(self, profile: Profile, now: Callable[[], datetime]) -> None:
        """Load the trust lists.

        Raises:
            InvalidInput: a trust list is missing or not acceptable.
        """
        trust = profile.trust
        try:
            store = TrustStore.load(trust.folder, trust.registry_roots, now())
        except (TrustListRefused, ValueError) as error:
            raise InvalidInput(f"{profile.path}: trust: {error}") from error
        self._verifier = Verifier(store)
        self._now = now

    def read(
        self,
        statement: SignedStatement,
        expected: type[M],
        at: datetime | None = None,
        roles: Sequence[Role] | None = None,
    ) -> Evidence[M]:
        """The verified content of a statement of the expected kind.

        ``at`` is for an old statement: when a trusted log received it. ``roles`` are the signatures
        to expect where others are still to come.

        Raises:
            AnswerUntrusted: it does not verify.
        """
        try:
            verified = self._verifier.verify(statement, expected, self._now(), roles=roles, at=at)
        except StatementError as error:
            name = expected.DESCRIPTOR.name
            raise AnswerUntrusted(f"{name}: {error.reason}: {error.message}") from error
        return Evidence(verified.content, verified.signers, statement)

    def read_any(self, statement: SignedStatement, at: datetime | None = None) -> Evidence[Message]:
        """The verified content of a statement of whatever kind it says to be.

        Raises:
            AnswerUntrusted: it is of no known kind, or does not verify.
        """
        expected = _MESSAGES.get(statement.payload_type)
        if expected is None:
            raise AnswerUntrusted("the statement is of a kind that this version does not know")
        return self.read(statement, expected, at)

    def head(self, checkpoint: Checkpoint) -> Head:
        """The head of a region's log that a checkpoint states.

        Raises:
            AnswerUntrusted: the platform of that region did not sign it.
        """
        try:
            return verify_checkpoint(checkpoint, self._verifier, self._now())
        except CheckpointWrong as error:
            raise AnswerUntrusted(str(error)) from error

    def logged(self, receipt: Receipt, statement: SignedStatement, region_code: str) -> LoggedAt:
        """Where the log of a region keeps a statement.

        Raises:
            ReceiptWrong: the receipt does not prove it.
        """
        now = self._now()
        return verify_receipt(receipt, statement, self._verifier, now, region_code=region_code)


def require(holds: bool, otherwise: str) -> None:
    """Refuse an answer that speaks of something else than was asked.

    Raises:
        AnswerUntrusted: it does not hold.
    """
    if not holds:
        raise AnswerUntrusted(otherwise)


def require_sound(amounts: Amounts) -> None:
    """Refuse amounts that do not add up.

    Raises:
        AnswerUntrusted: an identity of the benefit formula does not hold.
    """
    broken = broken_identities(amounts)
    require(not broken, f"the amounts do not add up: {'; '.join(broken)}")
