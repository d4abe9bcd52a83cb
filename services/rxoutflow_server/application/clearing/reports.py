"""What there is to say about a period: every pair's figures from our own books, and how it stands.

Figures come from the entries each time, never from a statement, so a report shows when books were
changed after a statement was made from them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from rxoutflow.v1.clearing_pb2 import ClearingStatement
from rxoutflow_server.application.clearing.lists import Listed, listed_book
from rxoutflow_server.application.ports import Clearing, RegionRole, Transaction
from rxoutflow_server.domain.clearing import Obligation, Period
from rxoutflow_server.domain.ledger import Book


class Standing(StrEnum):
    """How the clearing of a pair stands."""

    NOT_STATED = "not stated"
    """The payer has stated nothing yet, or has not reached us."""
    STATED = "stated, not accepted"
    ACCEPTED = "accepted"
    BOOKS_CHANGED = "BOOKS CHANGED SINCE IT WAS STATED"
    """Our own book gives another list than the statement: look at it before anything else."""


@dataclass(frozen=True, slots=True)
class Position:
    """What one region owes another one for a period, as our own book has it."""

    role: RegionRole
    payer: str
    dispensing: str
    listed: Listed
    clearing: Clearing | None

    @property
    def book(self) -> Book:
        """The book that the figures come from."""
        return _BOOKS[self.role]

    @property
    def counterpart(self) -> str:
        """The other region."""
        return self.dispensing if self.role is RegionRole.PAYER else self.payer

    @property
    def obligation(self) -> Obligation:
        """What is owed."""
        return Obligation(self.payer, self.dispensing, self.listed.tally.figures.owed_fen)

    @property
    def standing(self) -> Standing:
        """How it stands."""
        if self.clearing is None:
            return Standing.NOT_STATED
        stated = ClearingStatement.FromString(self.clearing.statement.payload)
        if stated.list_sha256 != self.listed.list_sha256:
            return Standing.BOOKS_CHANGED
        return Standing.STATED if self.clearing.acceptance is None else Standing.ACCEPTED


_BOOKS = {RegionRole.PAYER: Book.PAYABLE, RegionRole.DISPENSING: Book.RECEIVABLE}


def positions(tx: Transaction, region_code: str, period: Period) -> list[Position]:
    """What this region owes others and what others owe it, for every pair with entries.

    What a region owes itself is reconciled, but nothing between regions.
    """
    found = [
        _position(tx, region_code, role, peer, period)
        for role, book in _BOOKS.items()
        for peer in _peers(tx, role, book, period)
        if peer != region_code
    ]
    return [each for each in found if each.clearing or each.listed.tally.days]


def _peers(tx: Transaction, role: RegionRole, book: Book, period: Period) -> Iterable[str]:
    stated = [each.peer_region_code for each in tx.clearing.clearings(period) if each.role is role]
    return sorted({*tx.clearing.counterparts(book), *stated})


def _position(
    tx: Transaction, region_code: str, role: RegionRole, peer: str, period: Period
) -> Position:
    paying = role is RegionRole.PAYER
    return Position(
        role=role,
        payer=region_code if paying else peer,
        dispensing=peer if paying else region_code,
        listed=listed_book(tx, _BOOKS[role], peer, period),
        clearing=tx.clearing.clearing(role, peer, period),
    )
