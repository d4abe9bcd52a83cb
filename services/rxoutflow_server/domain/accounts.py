"""Accounts of an insured person at the payer, as a ledger with double entries.

Every entry names one account that is debited and one that is credited with the same fen, so debits
and credits are equal whatever happens. Holding, paying, setting free and reversing write entries,
each once, and nothing else moves a balance. What the person's row says is therefore the opening
balances plus the entries, and ``differences`` tells where it is not. ``docs/accounts.md`` has the
chart of accounts. Cash never enters: it does not pass the payer.

    own account, family allotments, pooled fund ─hold─▶ held ─post─▶ payable to a region
           ▲                                             │                   │
           └───────────────────void──────────────────────┴─────reversal──────┘
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

from rxoutflow_server.domain.benefit import LineShare
from rxoutflow_server.domain.errors import InvariantBroken
from rxoutflow_server.domain.settlement import (
    Amounts,
    InsuredPerson,
    Settlement,
    SettlementState,
)

OWN = "own"
"""The person's own account (个人账户)."""
POOL = "pool"
"""The pooled fund (统筹基金), as far as it paid for this person."""
HELD = "held"
"""Set aside for settlements that are neither paid nor set free (预留)."""
_FAMILY = "family:"
_PAYABLE = "payable:"

Balances: TypeAlias = Mapping[str, int]
"""Credits less debits in fen, by account; an account that is not named stands at zero."""


def family(allotment: int) -> str:
    """The account of an allotment of family mutual aid (家庭共济), numbered from 1."""
    return f"{_FAMILY}{allotment}"


def payable(region_code: str) -> str:
    """The account of what is owed to a dispensing region (应付)."""
    return f"{_PAYABLE}{region_code}"


class AccountMovement(StrEnum):
    """What happened to a settlement. The names sort in the order of events, but for the void."""

    HOLD = "hold"
    POST = "post"
    REVERSAL = "reversal"
    VOID = "void"


@dataclass(frozen=True, slots=True)
class AccountEntry:
    """Fen that moved from the account that is debited to the one that is credited.

    All but ``fen`` and ``time`` are its key: the same movement is never written twice.

    Raises:
        InvariantBroken: nothing moves, or from an account to itself, or a reversal has no id.
    """

    insured_person_id: str
    settlement_id: str
    movement: AccountMovement
    reversal_id: str
    debit_account: str
    credit_account: str
    fen: int
    time: datetime

    def __post_init__(self) -> None:
        named = (self.movement is AccountMovement.REVERSAL) == bool(self.reversal_id)
        if self.fen <= 0 or self.debit_account == self.credit_account or not named:
            raise InvariantBroken(f"settlement {self.settlement_id}: an entry that moves nothing")


@dataclass(frozen=True, slots=True)
class OpeningBalances:
    """What the accounts held before the first entry.

    Of a person who is new, ``held_fen``, ``payable_fen`` and ``pool_fen`` are zero; of one who was
    there before entries were written they are what was under way and what had been paid.
    """

    own_account_fen: int
    family_accounts_fen: tuple[int, ...]
    held_fen: int = 0
    payable_fen: int = 0
    pool_fen: int = 0


@dataclass(frozen=True, slots=True)
class Difference:
    """An account whose balance is not what the entries say, in fen."""

    account: str
    expected_fen: int
    found_fen: int


def held(settlement: Settlement) -> tuple[AccountEntry, ...]:
    """The entries of a hold: each source gives what the settlement takes from it."""
    moves = [(source, HELD, fen) for source, fen in _sources_of(settlement)]
    return _entries(settlement, AccountMovement.HOLD, moves)


def voided(settlement: Settlement) -> tuple[AccountEntry, ...]:
    """The entries of a void: everything that was held goes back to where it came from."""
    moves = [(HELD, source, fen) for source, fen in _sources_of(settlement)]
    return _entries(settlement, AccountMovement.VOID, moves)


def posted(settlement: Settlement) -> tuple[AccountEntry, ...]:
    """The entry of a payment: what was held is owed to the dispensing region."""
    owed = payable(settlement.dispensing_region_code)
    return _entries(settlement, AccountMovement.POST, [(HELD, owed, _funded(settlement.amounts))])


def reversed_by(
    settlement: Settlement, reversal_id: str, parts: Iterable[LineShare], time: datetime
) -> tuple[AccountEntry, ...]:
    """The entries of a reversal: what came back goes from the payable to its sources."""
    parts = list(parts)
    back = Amounts.of_lines(parts)
    allotments = tuple(
        sum(fen) for fen in zip(*(part.family_accounts_fen for part in parts), strict=True)
    )
    owed = payable(settlement.dispensing_region_code)
    sources = _sources(back.account_fen, allotments, back.pool_fen)
    moves = [(owed, source, fen) for source, fen in sources]
    return _entries(settlement, AccountMovement.REVERSAL, moves, reversal_id, time)


def balances(opening: OpeningBalances, entries: Iterable[AccountEntry]) -> dict[str, int]:
    """Every account's balance after the entries; what was payable before them has no region."""
    after = {OWN: opening.own_account_fen, POOL: -opening.pool_fen, HELD: opening.held_fen}
    for number, fen in enumerate(opening.family_accounts_fen, start=1):
        after[family(number)] = fen
    if opening.payable_fen:
        after[payable("")] = opening.payable_fen
    for entry in entries:
        after[entry.debit_account] = after.get(entry.debit_account, 0) - entry.fen
        after[entry.credit_account] = after.get(entry.credit_account, 0) + entry.fen
    return after


def payable_fen(after: Balances) -> int:
    """What is owed to all regions together."""
    return sum(fen for account, fen in after.items() if account.startswith(_PAYABLE))


def differences(
    person: InsuredPerson,
    settlements: Iterable[Settlement],
    opening: OpeningBalances,
    entries: Sequence[AccountEntry],
) -> tuple[Difference, ...]:
    """Where the person's row or settlements say another balance than opening and entries do.

    ``settlements`` and ``entries`` are all of the person's.
    """
    after = balances(opening, entries)
    expected = {each: fen for each, fen in after.items() if not each.startswith(_PAYABLE)}
    expected[_PAYABLE] = payable_fen(after)
    found = _found(person, settlements)
    return tuple(
        Difference(account.rstrip(":"), expected.get(account, 0), found.get(account, 0))
        for account in sorted({*expected, *found})
        if expected.get(account, 0) != found.get(account, 0)
    )


def drawn_since(entries: Iterable[AccountEntry], allotment: int, begin: datetime) -> int:
    """What settlements that were held since then took of an allotment and have not given back."""
    account, entries = family(allotment), list(entries)
    counted = {
        each.settlement_id
        for each in entries
        if each.movement is AccountMovement.HOLD and each.time >= begin
    }
    of_account = [each for each in entries if each.settlement_id in counted]
    taken = sum(each.fen for each in of_account if each.debit_account == account)
    return taken - sum(each.fen for each in of_account if each.credit_account == account)


def _found(person: InsuredPerson, settlements: Iterable[Settlement]) -> dict[str, int]:
    found = {OWN: person.own_account_fen, POOL: 0, HELD: 0, _PAYABLE: 0}
    for number, fen in enumerate(person.family_accounts_fen, start=1):
        found[family(number)] = fen
    for each in settlements:
        if each.state is SettlementState.VOIDED:
            continue
        account = HELD if each.state is SettlementState.HELD else _PAYABLE
        found[account] += _funded(each.amounts) - _funded(each.reversed)
        found[POOL] -= each.amounts.pool_fen - each.reversed.pool_fen
    return found


def _funded(amounts: Amounts) -> int:
    return amounts.account_fen + amounts.family_fen + amounts.pool_fen


def _sources_of(settlement: Settlement) -> list[tuple[str, int]]:
    amounts = settlement.amounts
    return _sources(amounts.account_fen, settlement.family_accounts_fen, amounts.pool_fen)


def _sources(own_fen: int, family_fen: Sequence[int], pool_fen: int) -> list[tuple[str, int]]:
    allotments = [(family(number), fen) for number, fen in enumerate(family_fen, start=1)]
    return [(OWN, own_fen), *allotments, (POOL, pool_fen)]


def _entries(
    settlement: Settlement,
    movement: AccountMovement,
    moves: Iterable[tuple[str, str, int]],
    reversal_id: str = "",
    time: datetime | None = None,
) -> tuple[AccountEntry, ...]:
    """An entry for each debit account, credit account and fen that move at all."""
    return tuple(
        AccountEntry(
            insured_person_id=settlement.insured_person_id,
            settlement_id=settlement.settlement_id,
            movement=movement,
            reversal_id=reversal_id,
            debit_account=debit,
            credit_account=credit,
            fen=fen,
            time=time or settlement.update_time,
        )
        for debit, credit, fen in moves
        if fen
    )
