"""Daily reconciliation (对总账、对明细账): do two parties' books of one day say the same?

Totals first, by mode; only where they differ, details by settlement. Each difference is named, from
the view of one party: *here* are its own entries, *there* are the other's. Nothing is put right
here: a difference is for people, who look at the signed statements behind the entries.

Details are compared in windows, so that neither side has to hold a whole day: each gives its next
entries, and what both have given completely is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from rxoutflow_server.domain.errors import Reason, Refusal
from rxoutflow_server.domain.ledger import AMOUNTS, Entry, Movement, Totals
from rxoutflow_server.domain.settlement import SettlementState


class DifferenceKind(StrEnum):
    """What is wrong with a settlement."""

    MISSING_HERE = "missing_here"
    """Posted there, and not known here on that day."""
    MISSING_THERE = "missing_there"
    """Posted here, and not known there at all."""
    AMOUNT_DIFFERS = "amount_differs"
    """In both books of the day, with other amounts."""
    MODE_DIFFERS = "mode_differs"
    """In both books of the day, paid by insurance in one and by the patient alone in the other."""
    STATE_DIFFERS = "state_differs"
    """Reversed by one side only, or posted here but only held or voided there."""
    DAY_DIFFERS = "day_differs"
    """In both books, but on another day there."""


@dataclass(frozen=True, slots=True)
class AmountDifference:
    """An amount that differs, by its name in ``Entry``."""

    field: str
    here_fen: int
    there_fen: int


@dataclass(frozen=True, slots=True)
class Known:
    """What the other side knows of a settlement that is not in its book of the day.

    ``day`` is the day on which it has the entry, if it has one.
    """

    state: SettlementState
    day: date | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference. The states and the day are set where the kind needs them."""

    kind: DifferenceKind
    settlement_id: str
    movement: Movement
    prescription_number: str
    reversal_id: str = ""
    amounts: tuple[AmountDifference, ...] = ()
    here_state: SettlementState | None = None
    there_state: SettlementState | None = None
    there_day: date | None = None


Knowledge = Callable[[Entry], Known | None]
"""What the other side knows of an entry that it has not in its book of the day."""

_STATES = {
    Movement.POSTING: SettlementState.POSTED,
    Movement.REVERSAL: SettlementState.REVERSED,
}


def agree(here: Sequence[Totals], there: Sequence[Totals]) -> bool:
    """Whether the totals of all modes are the same. A mode without entries may be left out."""
    return {each for each in here if each.count} == {each for each in there if each.count}


def compare(
    here: Iterable[Entry], there: Iterable[Entry], knowledge: Knowledge = lambda entry: None
) -> Iterator[Difference]:
    """The differences between two books, each in the order of its keys; reads both once.

    Raises:
        Refusal: FIELD_INVALID if entries are out of order, or one occurs twice.
    """
    own, other = _Ascending(here), _Ascending(there)
    while own.next is not None or other.next is not None:
        if other.next is None or (own.next is not None and own.next.key < other.next.key):
            yield _not_there(own.take(), knowledge)
        elif own.next is None or other.next.key < own.next.key:
            yield _not_here(other.take())
        else:
            yield from _unlike(own.take(), other.take())


def through(page: Sequence[Entry], *, last: bool) -> str | None:
    """The settlement up to which a page is complete; None for the last page: to the end.

    All entries of one settlement are compared in one window, so a page that is followed by another
    is complete only before its last settlement.

    Raises:
        Refusal: FIELD_INVALID for a page that is not the last and has a single settlement or none:
            nothing could be compared by it.
    """
    if last:
        return None
    final = page[-1].settlement_id if page else ""
    before = [entry.settlement_id for entry in page if entry.settlement_id < final]
    if not before:
        raise Refusal(
            Reason.FIELD_INVALID,
            "entries: must hold several settlements, or be the last",
            field="entries",
        )
    return before[-1]


def window(ends: Iterable[str | None]) -> str | None:
    """The settlement up to which all pages are complete; None: all are to the end."""
    return min((end for end in ends if end is not None), default=None)


def within(entries: Iterable[Entry], end: str | None) -> list[Entry]:
    """The entries up to the end of a window."""
    return [entry for entry in entries if end is None or entry.settlement_id <= end]


class _Ascending:
    """Entries one by one, the next always in sight, and none out of order."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._rest = iter(entries)
        self.next = next(self._rest, None)

    def take(self) -> Entry:
        taken = self.next
        assert taken is not None  # noqa: S101 - for the type checker: callers have looked
        self.next = next(self._rest, None)
        if self.next is not None and self.next.key <= taken.key:
            raise Refusal(
                Reason.FIELD_INVALID,
                "entries: must ascend by settlement_id, each movement once",
                field="entries",
            )
        return taken


def _not_here(entry: Entry) -> Difference:
    if entry.movement is Movement.REVERSAL:
        return _difference(
            DifferenceKind.STATE_DIFFERS,
            entry,
            here_state=SettlementState.POSTED,
            there_state=SettlementState.REVERSED,
        )
    return _difference(DifferenceKind.MISSING_HERE, entry)


def _not_there(entry: Entry, knowledge: Knowledge) -> Difference:
    known = knowledge(entry)
    if known is None:
        return _difference(DifferenceKind.MISSING_THERE, entry)
    if known.day is not None:
        return _difference(DifferenceKind.DAY_DIFFERS, entry, there_day=known.day)
    return _difference(
        DifferenceKind.STATE_DIFFERS,
        entry,
        here_state=_STATES[entry.movement],
        there_state=known.state,
    )


def _unlike(here: Entry, there: Entry) -> Iterator[Difference]:
    amounts = tuple(
        AmountDifference(name, getattr(here, name), getattr(there, name))
        for name in AMOUNTS
        if getattr(here, name) != getattr(there, name)
    )
    if here.mode is not there.mode:
        yield _difference(DifferenceKind.MODE_DIFFERS, here)
    if amounts:
        yield _difference(DifferenceKind.AMOUNT_DIFFERS, here, amounts=amounts)


def _difference(
    kind: DifferenceKind,
    entry: Entry,
    *,
    amounts: tuple[AmountDifference, ...] = (),
    here_state: SettlementState | None = None,
    there_state: SettlementState | None = None,
    there_day: date | None = None,
) -> Difference:
    return Difference(
        kind=kind,
        settlement_id=entry.settlement_id,
        movement=entry.movement,
        prescription_number=entry.prescription_number,
        reversal_id=entry.reversal_id,
        amounts=amounts,
        here_state=here_state,
        there_state=there_state,
        there_day=there_day,
    )
