"""Statements as the replay reads them: in the order of the log, each with the time of keeping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from google.protobuf.message import Message

from rxoutflow.statements.payloads import rule_for

M = TypeVar("M", bound=Message)


class NotReplayable(Exception):
    """The evidence does not lead anywhere. The message names numbers and ids, never a person."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A statement that was kept. ``place`` orders all statements of a region."""

    place: tuple[int, int, int]
    prescription_number: str
    sha256: bytes
    payload_type: str
    payload: bytes
    keep_time: datetime
    is_intact: bool = True
    """Whether it is still what its digest says."""

    def read(self, kind: type[M]) -> M | None:
        """Its content, if it is of this kind."""
        if self.payload_type != rule_for(kind).payload_type:
            return None
        return kind.FromString(self.payload)  # verified before it was kept


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is kept about some prescriptions, in the order of the log."""

    kept: Sequence[Kept]

    def require_intact(self) -> None:
        """Nothing may be computed from what is not what it was.

        Raises:
            NotReplayable: a statement is not what its digest says.
        """
        for each in self.kept:
            if not each.is_intact:
                raise NotReplayable(f"statement {each.sha256.hex()[:16]} is not what it was")

    def of_kind(self, kind: type[M]) -> list[M]:
        """The contents of all statements of a kind."""
        return [content for each in self.kept if (content := each.read(kind)) is not None]

    def named(self, sha256: bytes, what: str) -> Kept:
        """The statement with this digest.

        Raises:
            NotReplayable: it is not kept.
        """
        found = self.find(sha256)
        if found is None:
            raise NotReplayable(f"{what}, statement {sha256.hex()[:16]}, is not kept any more")
        return found

    def find(self, sha256: bytes) -> Kept | None:
        """The statement with this digest, if it is kept."""
        return next((each for each in self.kept if each.sha256 == sha256), None)
