"""The payer's holds: every step in every state, and every fen there and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from rxoutflow_server.domain.errors import InvariantBroken, Reason, Refusal
from rxoutflow_server.domain.settlement import (
    Amounts,
    InsuredPerson,
    Settlement,
    SettlementState,
    consume,
    give_back,
    post,
    require_accepted,
    require_direct_settlement,
    void,
)
from support.invariants import (
    check_amounts,
    check_not_overdrawn,
    check_nothing_lost,
    check_settled_once,
)
from support.settlements import AMOUNTS, HELD, NOW, PERSON, YEAR, settlement_in

LATER = NOW + timedelta(days=400)


def posted(settlement: Settlement) -> Settlement:
    return post(settlement, cause_sha256=b"record", now=LATER)


def voided(settlement: Settlement) -> Settlement:
    return void(settlement, cause_sha256=b"attempt ended", now=LATER)


Step = Callable[[Settlement], Settlement]


@pytest.mark.parametrize(
    ("state", "step", "expected", "cause"),
    [("held", posted, "posted", b"record"), ("held", voided, "voided", b"attempt ended")],
)
def test_a_hold_is_posted_or_voided_however_old_it_is(
    state: str, step: Step, expected: str, cause: bytes
) -> None:
    before = settlement_in(SettlementState(state))
    after = step(before)
    check_settled_once(before.state, after.state)
    assert after == replace(
        before, state=SettlementState(expected), cause_sha256=cause, update_time=LATER
    )


def test_posting_again_changes_nothing_whatever_the_cause() -> None:
    once = posted(HELD)
    assert post(once, cause_sha256=b"another record", now=LATER + timedelta(days=1)) is once


def test_what_was_paid_and_given_back_is_not_paid_again() -> None:
    given_back = settlement_in(SettlementState.REVERSED)
    assert posted(given_back) is given_back


def test_what_was_set_free_is_never_posted() -> None:
    with pytest.raises(Refusal) as refused:
        posted(settlement_in(SettlementState.VOIDED))
    assert refused.value.reason is Reason.SETTLEMENT_ENDED
    assert refused.value.detail == {"state": "voided"}


@pytest.mark.parametrize("state", ["posted", "voided", "reversed"])
def test_only_a_hold_can_be_voided_and_only_once(state: str) -> None:
    with pytest.raises(InvariantBroken, match=state):
        voided(settlement_in(SettlementState(state)))


def test_the_tables_above_cover_every_state() -> None:
    assert {state.value for state in SettlementState} == {"held", "posted", "voided", "reversed"}


def test_a_hold_sets_accounts_deductible_and_cap_aside() -> None:
    after = consume(PERSON, HELD)
    assert after == replace(
        PERSON,
        own_account_fen=5_000,
        family_accounts_fen=(0, 200),
        used_deductible_fen=23_000,
        used_cap_fen=74_000,
    )
    check_nothing_lost(PERSON, after, [HELD])
    check_not_overdrawn(after)


def test_giving_back_restores_the_person_to_the_fen() -> None:
    assert give_back(consume(PERSON, HELD), HELD) == PERSON


def test_two_holds_come_back_in_any_order() -> None:
    other = replace(
        HELD,
        amounts=replace(AMOUNTS, deductible_fen=1, pool_fen=2, account_fen=3),
        family_accounts_fen=(0, 4),
    )
    both = consume(consume(PERSON, HELD), other)
    assert give_back(give_back(both, HELD), other) == PERSON
    assert give_back(give_back(both, other), HELD) == PERSON


def test_a_hold_of_a_closed_year_returns_accounts_but_no_accumulators() -> None:
    next_year = consume(PERSON, HELD).in_year(YEAR + 1)
    after = give_back(next_year, HELD)
    assert (after.own_account_fen, after.family_accounts_fen) == (10_000, (500, 300))
    assert (after.year, after.used_deductible_fen, after.used_cap_fen) == (YEAR + 1, 0, 0)


def test_a_new_benefit_year_begins_at_zero_and_leaves_the_accounts() -> None:
    after = PERSON.in_year(YEAR + 1)
    assert after == replace(PERSON, year=YEAR + 1, used_deductible_fen=0, used_cap_fen=0)
    assert PERSON.in_year(YEAR) is PERSON


def test_a_benefit_year_that_is_over_is_closed() -> None:
    with pytest.raises(Refusal) as refused:
        PERSON.in_year(YEAR - 1)
    assert refused.value.reason is Reason.TARIFF_NOT_IN_FORCE
    assert refused.value.detail == {"day": str(YEAR - 1)}


def test_the_formula_hears_the_standing_and_the_funding_of_the_person() -> None:
    standing = PERSON.standing(issuing_tier=3, away=True)
    assert (standing.person_type, standing.area_status) == ("active", "filed")
    assert (standing.issuing_tier, standing.used_deductible_fen) == (3, 20_000)
    assert standing.used_cap_fen == 70_000
    funding = PERSON.funding
    assert (funding.own_account_fen, funding.family_accounts_fen) == (10_000, (500, 300))


def test_at_home_there_is_no_away_from_home_status() -> None:
    assert PERSON.standing(issuing_tier=3, away=False).area_status is None


@pytest.mark.parametrize("name", Amounts.__slots__)
def test_an_amount_that_the_patient_did_not_accept_is_refused(name: str) -> None:
    accepted = replace(AMOUNTS, **{name: getattr(AMOUNTS, name) + 1})
    with pytest.raises(Refusal) as refused:
        require_accepted(AMOUNTS, accepted)
    assert refused.value.reason is Reason.QUOTE_CHANGED
    assert refused.value.detail == {"total_fen": "10000", "pool_fen": "4000", "person_fen": "6000"}


def test_amounts_that_were_accepted_to_the_fen_are_held() -> None:
    check_amounts(AMOUNTS)
    require_accepted(AMOUNTS, replace(AMOUNTS))


@pytest.mark.parametrize("suspended", [False, True])
def test_a_suspended_person_has_no_direct_settlement(suspended: bool) -> None:
    person: InsuredPerson = replace(PERSON, direct_settlement_suspended=suspended)
    if not suspended:
        require_direct_settlement(person)
        return
    with pytest.raises(Refusal) as refused:
        require_direct_settlement(person)
    assert refused.value.reason is Reason.DIRECT_SETTLEMENT_SUSPENDED
