"""Comparing the accounts of the insured with the entries that they rest on; it mends nothing.

A difference is a defect, damage to the store, or somebody's hand in it: it is for an operator, who
finds every entry under the settlement that it belongs to.
"""

from __future__ import annotations

from collections.abc import Iterator

from rxoutflow_server.application.ports import Transaction
from rxoutflow_server.domain.accounts import Difference, OpeningBalances, differences
from rxoutflow_server.domain.settlement import InsuredPerson

PAGE = 1000
"""Persons looked at before the next ones are listed."""

_NEVER_OPENED = OpeningBalances(0, ())


def account_differences(tx: Transaction, person: InsuredPerson) -> tuple[Difference, ...]:
    """Where a person's balances are not the opening ones plus the entries."""
    person_id = person.insured_person_id
    return differences(
        person,
        tx.payer.settlements_of(person_id),
        tx.payer.opening(person_id) or _NEVER_OPENED,
        tx.payer.account_entries(person_id),
    )


def all_account_differences(tx: Transaction) -> Iterator[tuple[str, Difference]]:
    """The differences of all persons, each with the person's id, a page of persons at a time."""
    after = ""
    while page := tx.payer.persons(after, PAGE):
        for person_id in page:
            person = tx.payer.person(person_id)
            if person is not None:
                for difference in account_differences(tx, person):
                    yield person_id, difference
        after = page[-1]
