"""Attempts: what the home region makes of a claim.

An attempt has an id that is never used twice and a fence that only rises. Reserved attempts end by
release or when their lease runs out; from commit on, no timer moves them. The transitions
themselves are in ``prescription.py``, because they move the ledger of the prescription too.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class AttemptState(StrEnum):
    """Where an attempt stands."""

    RESERVED = "reserved"
    COMMITTED = "committed"
    DISPENSED = "dispensed"
    RELEASED = "released"
    EXPIRED = "expired"

    @property
    def is_live(self) -> bool:
        """Whether the attempt still holds quantities."""
        return self in (AttemptState.RESERVED, AttemptState.COMMITTED)


@dataclass(frozen=True, slots=True)
class LineQuantity:
    """A quantity of a line of the prescription, in the line's smallest dispensable unit."""

    line_id: int
    quantity: int


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of one pharmacy on one prescription.

    ``cause_sha256`` is the digest of the statement that led to the present state, the pharmacy's or
    that of two adjudicators, and empty after a lease ran out. ``settlement_id`` is empty before
    commit and when the patient pays alone.
    """

    attempt_id: str
    prescription_number: str
    fence: int
    state: AttemptState
    pharmacy_code: str
    dispensing_region_code: str
    lines: tuple[LineQuantity, ...]
    create_time: datetime
    lease_expire_time: datetime | None
    update_time: datetime
    settlement_id: str = ""
    cause_sha256: bytes = b""

    def lease_is_over(self, now: datetime) -> bool:
        """Whether a reserved attempt has run out. The lease is half open: its end is outside."""
        return (
            self.state is AttemptState.RESERVED
            and self.lease_expire_time is not None
            and now >= self.lease_expire_time
        )
