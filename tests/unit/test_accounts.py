"""A person's accounts in a payer region: what is written when, and how older stores begin."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from rxoutflow_server.application.payer.account_checks import (
    account_differences,
    all_account_differences,
)
from rxoutflow_server.domain import accounts
from rxoutflow_server.domain import settlement as transitions
from rxoutflow_server.domain.accounts import Difference, OpeningBalances
from rxoutflow_server.domain.settlement import NOTHING, SettlementState
from rxoutflow_server.storage.sqlite.connection import open_writer
from rxoutflow_server.storage.sqlite.schema import migrate
from rxoutflow_server.storage.tables.schema import MIGRATIONS
from rxoutflow_server.storage.tables.transaction import PlatformTables
from support.settlements import AMOUNTS, HELD, NOW, PERSON

PERSON_ID = PERSON.insured_person_id
BACK = replace(NOTHING, total_fen=3, pool_fen=2, person_fen=1, account_fen=1, inscope_fen=2)


@pytest.fixture
def tx(tmp_path: Path) -> Iterator[PlatformTables]:
    path = tmp_path / "platform.db"
    with closing(open_writer(path)) as raw:
        migrate(raw, path, "platform")
        yield PlatformTables(raw)


def hold(tx: PlatformTables) -> None:
    person = tx.payer.person(PERSON_ID)
    assert person is not None
    tx.payer.add_settlement(HELD)
    tx.payer.save_person(transitions.consume(person, HELD))
    tx.payer.add_account_entries(accounts.held(HELD))


def test_the_accounts_of_a_person_are_their_entries(tx: PlatformTables) -> None:
    tx.payer.add_person(PERSON)
    hold(tx)
    person = tx.payer.person(PERSON_ID)
    assert person is not None
    assert account_differences(tx, person) == ()
    assert accounts.balances(
        OpeningBalances(PERSON.own_account_fen, PERSON.family_accounts_fen),
        tx.payer.account_entries(PERSON_ID),
    ) == {"own": 5_000, "family:1": 0, "family:2": 200, "pool": -4_000, "held": 9_600}


def test_every_person_is_looked_at(tx: PlatformTables) -> None:
    for name in ("3502000002", "3502000003", PERSON_ID):
        tx.payer.add_person(replace(PERSON, insured_person_id=name))
    hold(tx)
    changed = replace(PERSON, insured_person_id="3502000003", own_account_fen=10_001)
    tx.payer.save_person(changed)
    assert list(all_account_differences(tx)) == [("3502000003", Difference("own", 10_000, 10_001))]


def test_a_person_of_an_older_store_opens_with_what_is_under_way(tx: PlatformTables) -> None:
    person = transitions.consume(PERSON, HELD)
    tx.payer.add_person(person)
    paid = replace(HELD, settlement_id="paid", state=SettlementState.POSTED, reversed=BACK)
    ended = replace(HELD, settlement_id="ended", state=SettlementState.VOIDED)
    given_back = replace(
        HELD, settlement_id="back", state=SettlementState.REVERSED, reversed=AMOUNTS
    )
    for each in (HELD, paid, ended, given_back):
        tx.payer.add_settlement(each)
    _open_again(tx)
    assert tx.payer.opening(PERSON_ID) == OpeningBalances(5_000, (0, 200), 9_600, 9_597, 7_998)
    assert account_differences(tx, person) == ()
    voided = transitions.void(HELD, cause_sha256=b"", now=NOW)
    tx.payer.save_settlement(voided)
    tx.payer.save_person(PERSON)
    tx.payer.add_account_entries(accounts.voided(voided))
    assert account_differences(tx, PERSON) == ()


def test_a_person_of_an_older_store_without_settlements_opens_with_the_balances(
    tx: PlatformTables,
) -> None:
    tx.payer.add_person(PERSON)
    _open_again(tx)
    opened = OpeningBalances(PERSON.own_account_fen, PERSON.family_accounts_fen)
    assert tx.payer.opening(PERSON_ID) == opened


def _open_again(tx: PlatformTables) -> None:
    """As the migration does for persons that it finds."""
    *_, opening = MIGRATIONS["platform"]["0021_accounts"]
    connection = tx.payer._connection
    connection.execute("DELETE FROM account_openings")
    connection.execute(opening)
