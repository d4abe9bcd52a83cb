"""What a verified bundle is, and why a bundle is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TypeVar

from google.protobuf.message import Message

from rxoutflow.log.checkpoint import Head
from rxoutflow.statements import VerifiedSigner

M = TypeVar("M", bound=Message)


class BundleReason(StrEnum):
    """Why a bundle is refused."""

    MALFORMED = "MALFORMED"
    """It is no bundle, or not in plain wire form."""
    TRUST_LIST = "TRUST_LIST"
    """A trust list in it is not signed by the pinned registry of its region."""
    CHECKPOINT = "CHECKPOINT"
    """The head of the log is not signed by the platform of the region."""
    NOT_LOGGED = "NOT_LOGGED"
    """The log does not keep a statement at this place and since this time."""
    STATEMENT = "STATEMENT"
    """The signatures of a statement do not verify."""
    OTHER_PRESCRIPTION = "OTHER_PRESCRIPTION"
    """A statement is about another prescription."""
    CHAIN_BROKEN = "CHAIN_BROKEN"
    """A statement that another one rests on is missing, or says something else."""
    QUANTITY_EXCEEDED = "QUANTITY_EXCEEDED"
    """More was claimed, committed, handed over or returned than the step before allows."""
    AMOUNTS_BROKEN = "AMOUNTS_BROKEN"
    """Amounts do not add up, or are others than were accepted, held or paid."""


class BundleRefused(ValueError):
    """A bundle does not show what it should."""

    def __init__(self, reason: BundleReason, message: str) -> None:
        """Keep the reason for programs and the words for people."""
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message


@dataclass(frozen=True, slots=True)
class LoggedContent:
    """A statement that verified: what it says, who signed it, where the log keeps it."""

    name: str
    """Its kind, for instance ``dispense-record``."""
    content: Message
    signers: tuple[VerifiedSigner, ...]
    sha256: bytes
    leaf_index: int
    keep_time: datetime


@dataclass(frozen=True, slots=True)
class VerifiedBundle:
    """A bundle whose statements verified, in the order of the log."""

    prescription_number: str
    head: Head
    statements: tuple[LoggedContent, ...]

    def of(self, kind: type[M]) -> Iterator[tuple[LoggedContent, M]]:
        """The statements of one kind, with their contents."""
        for each in self.statements:
            if isinstance(each.content, kind):
                yield each, each.content
