"""I5 money, in the accounts: double entries, and balances that are nothing else than their sum.

The entries are added up here once more, account by account, and laid beside the person's row, the
settlements and the book of what is owed to each region.
"""

from __future__ import annotations

from collections import Counter

from rxoutflow_server.domain.accounts import AccountEntry, differences
from rxoutflow_server.domain.ledger import Book
from support.invariants.records import RegionRecords
from support.invariants.violation import hold

_ENDS = ("post", "void")


def check_accounts(payer: RegionRecords) -> None:
    """I5: each balance is the opening one plus its entries, and what is owed is what is booked."""
    for person in payer.persons:
        person_id = person.insured_person_id
        found = differences(
            person,
            [each for each in payer.settlements if each.insured_person_id == person_id],
            payer.openings[person_id],
            [each for each in payer.account_entries if each.insured_person_id == person_id],
        )
        hold("I5", not found, f"accounts are not their entries: {found}")
    check_entries(payer.account_entries)
    _check_payables(payer)


def check_entries(entries: tuple[AccountEntry, ...]) -> None:
    """I5: debits are credits, a settlement is held once and ends once, and nothing is overdrawn."""
    ended: dict[str, set[str]] = {}
    for each in entries:
        if each.movement in _ENDS:
            ended.setdefault(each.settlement_id, set()).add(each.movement)
    for settlement_id, movements in ended.items():
        hold("I4", len(movements) == 1, f"settlement {settlement_id} was posted and voided")
    balances: Counter[tuple[str, str]] = Counter()
    for each in entries:
        balances[each.settlement_id, each.debit_account] -= each.fen
        balances[each.settlement_id, each.credit_account] += each.fen
    hold("I5", sum(balances.values()) == 0, "debits are not credits")
    for (settlement_id, account), fen in balances.items():
        passing = account == "held" or account.startswith("payable:")
        sound = fen >= 0 if passing else fen <= 0
        hold("I5", sound, f"settlement {settlement_id} leaves {fen} fen on {account}")


def _check_payables(payer: RegionRecords) -> None:
    owed: Counter[str] = Counter()
    for each in payer.account_entries:
        owed[each.credit_account] += each.fen
        owed[each.debit_account] -= each.fen
    booked: Counter[str] = Counter()
    for book, region, entry in payer.entries:
        if book is Book.PAYABLE:
            booked[f"payable:{region}"] += entry.owed_fen
    for account in {*booked, *(each for each in owed if each.startswith("payable:"))}:
        same = owed[account] == booked[account]
        hold("I5", same, f"{account} stands at {owed[account]} fen, booked are {booked[account]}")
