"""Each check of what must never happen: silent on what went well, raised by what did not.

Three regions fill, release and refuse prescriptions, and their records are read. Every violation
is then made by changing one thing in those records, as a defect would have left them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from rxoutflow.statements import statement_sha256
from rxoutflow.v1 import attempt_pb2, dispense_pb2, pharmacy_service_pb2, settlement_pb2
from rxoutflow.v1.evidence_pb2 import EvidenceBundle
from rxoutflow.v1.statement_pb2 import SIGNER_ROLE_ADJUDICATOR, SignedStatement
from rxoutflow.v1.supervision_service_pb2 import ExportEvidenceRequest
from rxoutflow_server.application.dispensing import claims
from rxoutflow_server.application.log import proofs, showing
from rxoutflow_server.application.messages import amounts_message
from rxoutflow_server.application.ports import IndexEntry, StoredOutcome
from rxoutflow_server.domain.attempt import Attempt, AttemptState
from rxoutflow_server.domain.dispense import DispenseState
from rxoutflow_server.domain.prescription import LineUse
from rxoutflow_server.domain.settlement import Amounts, SettlementState
from rxoutflow_server.storage.tables.transaction import PlatformTables
from support.invariants import (
    Answer,
    RegionRecords,
    Violation,
    Waiting,
    check_accumulators,
    check_adjudicated,
    check_agreement,
    check_amounts,
    check_authority,
    check_chain,
    check_chains,
    check_delivered,
    check_durable,
    check_ended,
    check_grounds,
    check_grown,
    check_handed_over,
    check_leases,
    check_not_overdrawn,
    check_nothing_lost,
    check_quiescent,
    check_receipts,
    check_region,
    check_returned,
    check_reversals,
    check_reversed,
    check_same_answers,
    check_settled_once,
    check_step,
    check_trace_codes,
    normalised,
    read_region,
    reversed_amounts,
    roots_of,
)
from support.invariants.records import payload_type
from support.merkle import Plain
from support.settlements import AMOUNTS, HELD
from support.world import World, person

HOME, DISPENSING, PAYER = "350200", "350500", "320600"
CLAIM = "/rxoutflow.v1.PharmacyService/ClaimPrescription"
SILENCE = timedelta(hours=1)

Regions = dict[str, RegionRecords]


@dataclass
class Past:
    """What happened, as regions store it and as a client keeps it."""

    world: World
    answers: list[Answer] = field(default_factory=list)

    @property
    def regions(self) -> Regions:
        platforms = self.world.platforms.items()
        return {code: read_region(code, each.store.connection) for code, each in platforms}


async def _past() -> Past:
    """One prescription dispensed, one released after its commit, one committed, one reserved."""
    past = Past(World.create(HOME, DISPENSING, PAYER))
    world = past.world
    _, code = await world.issue(HOME, PAYER)
    await world.dispense(DISPENSING, code)
    await world.settle()
    world.clock.now += timedelta(minutes=1)
    _, code = await world.issue(HOME, PAYER)
    attempt = await world.claim(DISPENSING, code)
    await _commit(world, attempt)
    await world.release(DISPENSING, attempt)
    await world.settle()
    world.clock.now += timedelta(minutes=1)
    _, code = await world.issue(HOME, PAYER)
    await _commit(world, await world.claim(DISPENSING, code))
    number, code = await world.issue(HOME, PAYER)
    platform, request = world.platforms[DISPENSING], world.claim_request(DISPENSING, code)
    response = await claims.claim(platform.exchange, platform.pharmacy, request)
    past.answers.append(Answer.of(DISPENSING, number, platform.pharmacy, CLAIM, request, response))
    await world.settle()
    return past


async def _commit(world: World, attempt: attempt_pb2.Attempt) -> None:
    amounts = await world.quote(DISPENSING, attempt)
    await world.commit(DISPENSING, world.commit_request(DISPENSING, attempt, amounts))


@pytest.fixture(scope="module")
def past() -> Past:
    return asyncio.run(_past())


@pytest.fixture
def regions(past: Past) -> Regions:
    return past.regions


def test_an_exchange_that_went_well_breaks_nothing(past: Past) -> None:
    check_quiescent(past.regions, past.world.clock.now, past.answers)
    records = past.regions
    states = {each.state for each in records[HOME].attempts}
    assert len(states) == 4, "the exchange is too dull to be worth checking"
    assert records[PAYER].settlements
    assert records[PAYER].entries


def test_the_accumulators_of_an_exchange_that_went_well_have_a_serial_order(past: Past) -> None:
    tariff = next(iter(past.world.platforms[PAYER].region.tariffs))
    payer = past.regions[PAYER]
    check_accumulators(person(), payer.settlements, tariff, lambda _: 3)
    check_nothing_lost(person(), payer.persons[0], payer.settlements)


def test_payload_types_are_those_of_the_contract() -> None:
    assert payload_type(attempt_pb2.ClaimRelease) == (
        "application/vnd.rxoutflow.claim-release.v1+protobuf"
    )


# --- what one region's records must be ------------------------------------------------------------


def attempts_with(records: RegionRecords, before: AttemptState, **changes: Any) -> RegionRecords:
    """The records with each attempt that is in a state changed."""
    return replace(
        records,
        attempts=tuple(
            replace(each, **changes) if each.state is before else each for each in records.attempts
        ),
    )


def ledger_with(records: RegionRecords, change: Callable[[LineUse], LineUse]) -> RegionRecords:
    prescriptions = tuple(
        replace(each, lines=tuple(change(line) for line in each.lines))
        for each in records.prescriptions
    )
    return replace(records, prescriptions=prescriptions)


def statements_with(
    records: RegionRecords, change: Callable[[SignedStatement], SignedStatement | None]
) -> RegionRecords:
    """The records with statements changed under the digests of what they were, or gone."""
    kept = {}
    for key, statement in records.statements.items():
        copy = SignedStatement()
        copy.CopyFrom(statement)
        changed = change(copy)
        if changed is not None:
            kept[key] = changed
    return replace(records, statements=kept)


def stated_too(
    past: Past, records: RegionRecords, *contents: settlement_pb2.Settlement
) -> RegionRecords:
    """The records with more settlements that the payer signed."""
    world, more = past.world, dict(records.statements)
    for content in contents:
        seal = world.platforms[PAYER].region.seal
        statement = seal(content, now=world.clock.now)
        more[content.prescription_number, statement_sha256(statement)] = statement
    return replace(records, statements=more)


def settled(records: RegionRecords, name: str) -> settlement_pb2.Settlement:
    """What the payer signed of a settlement in a state."""
    state = settlement_pb2.Settlement.State.Value(f"STATE_{name}")
    stated = records.stated(settlement_pb2.Settlement)
    return next(each for each in stated if each.state == state)


def unkeep(kind: str) -> Callable[[SignedStatement], SignedStatement | None]:
    return lambda statement: None if f".{kind}." in statement.payload_type else statement


def alter_payload(statement: SignedStatement) -> SignedStatement:
    statement.payload += b"\x00"
    return statement


def twice(records: RegionRecords, action: str) -> RegionRecords:
    """The records with a step of some kind taken twice."""
    steps = {
        number: each + tuple(step for step in each if step.action == action)
        for number, each in records.steps.items()
    }
    return replace(records, steps=steps)


def other_actor(records: RegionRecords) -> RegionRecords:
    steps = {
        number: tuple(replace(step, actor_code="P35020099999") for step in each)
        for number, each in records.steps.items()
    }
    return replace(records, steps=steps)


def settlements_with(records: RegionRecords, **changes: Any) -> RegionRecords:
    return replace(
        records, settlements=tuple(replace(each, **changes) for each in records.settlements)
    )


def posted_and_voided(past: Past, records: RegionRecords) -> RegionRecords:
    both = settled(records, "POSTED")
    both.state = settlement_pb2.Settlement.STATE_VOIDED
    return stated_too(past, records, both)


def posted_twice(past: Past, records: RegionRecords) -> RegionRecords:
    again = settled(records, "POSTED")
    again.update_time.seconds += 1
    return stated_too(past, records, again)


def with_leaf(records: RegionRecords, **changes: Any) -> RegionRecords:
    """The records with one leaf more, otherwise like the last one."""
    return replace(records, leaves=(*records.leaves, replace(records.leaves[-1], **changes)))


def with_head(records: RegionRecords, **changes: Any) -> RegionRecords:
    """The records with one head more, otherwise like the last one."""
    head = replace(records.checkpoints[-1], **changes)
    return replace(records, checkpoints=(*records.checkpoints, head))


Break = Callable[[Past, RegionRecords], RegionRecords]

BROKEN_REGIONS: dict[str, tuple[str, str, Break]] = {
    "a ledger that its attempts do not explain": (
        "I1",
        HOME,
        lambda _, records: ledger_with(records, lambda line: replace(line, dispensed=0)),
    ),
    "less authorised than attempts hold": (
        "I1",
        HOME,
        lambda _, records: attempts_with(
            records, AttemptState.RELEASED, state=AttemptState.DISPENSED
        ),
    ),
    "two live attempts": (
        "I2",
        HOME,
        lambda _, records: replace(
            records,
            attempts=records.attempts
            + tuple(
                replace(each, attempt_id="another", lines=(), fence=2)
                for each in records.attempts
                if each.state is AttemptState.COMMITTED
            ),
        ),
    ),
    "a fence used twice": (
        "I2",
        HOME,
        lambda _, records: replace(
            records,
            attempts=records.attempts
            + tuple(
                replace(each, attempt_id="another")
                for each in records.attempts
                if each.state is AttemptState.RELEASED
            ),
        ),
    ),
    "a lease that ended a committed attempt": (
        "I3",
        HOME,
        lambda _, records: attempts_with(
            records, AttemptState.RELEASED, state=AttemptState.EXPIRED
        ),
    ),
    "a commit without a commitment": (
        "I3",
        HOME,
        lambda _, records: statements_with(records, unkeep("commitment")),
    ),
    "a handover booked by a claim": (
        "I3",
        HOME,
        lambda _, records: attempts_with(
            records,
            AttemptState.DISPENSED,
            cause_sha256=next(
                digest
                for digest, each in records.stated_with_digests(attempt_pb2.Claim)
                if each.prescription_number == _dispensed(records).prescription_number
            ),
        ),
    ),
    "posted and voided": ("I4", PAYER, posted_and_voided),
    "posted twice": ("I4", PAYER, posted_twice),
    "a settlement that does not add up": (
        "I5",
        PAYER,
        lambda _, records: settlements_with(records, amounts=replace(AMOUNTS, cash_fen=401)),
    ),
    "a person overdrawn": (
        "I5",
        PAYER,
        lambda _, records: replace(
            records, persons=tuple(replace(each, own_account_fen=-1) for each in records.persons)
        ),
    ),
    "a posting that is not booked": (
        "I5",
        PAYER,
        lambda _, records: replace(records, entries=()),
    ),
    "a posting booked with other figures": (
        "I5",
        PAYER,
        lambda _, records: replace(
            records,
            entries=tuple(
                (book, about, replace(entry, pool_fen=0, total_fen=entry.total_fen - 1200))
                for book, about, entry in records.entries
            ),
        ),
    ),
    "a statement altered": (
        "I7",
        HOME,
        lambda _, records: statements_with(records, alter_payload),
    ),
    "two settlements that hold money for one attempt": (
        "I4",
        PAYER,
        lambda _, records: replace(
            records,
            settlements=records.settlements
            + tuple(
                replace(each, settlement_id="another")
                for each in records.settlements
                if each.state is SettlementState.HELD
            ),
        ),
    ),
    "a payment without a record": (
        "I5",
        PAYER,
        lambda _, records: statements_with(records, unkeep("dispense-record")),
    ),
    "a payment that home has not booked": (
        "I5",
        PAYER,
        lambda _, records: statements_with(records, unkeep("attempt")),
    ),
    "a statement that is not in the log": (
        "I9",
        HOME,
        lambda _, records: replace(records, leaves=records.leaves[:-1]),
    ),
    "a leaf of nothing that is kept": (
        "I9",
        HOME,
        lambda _, records: with_leaf(
            records, index=len(records.leaves), statement_sha256=bytes(32)
        ),
    ),
    "a statement that is in the log twice": (
        "I9",
        HOME,
        lambda _, records: with_leaf(records, index=len(records.leaves)),
    ),
    "leaves that are not in a row": (
        "I9",
        HOME,
        lambda _, records: replace(records, leaves=records.leaves[::-1]),
    ),
    "a leaf that was changed under a signed head": (
        "I9",
        HOME,
        lambda _, records: replace(
            records,
            leaves=(
                replace(records.leaves[0], keep_time=records.leaves[0].keep_time + SILENCE),
                *records.leaves[1:],
            ),
        ),
    ),
    "a signed head beyond the leaves": (
        "I9",
        HOME,
        lambda _, records: with_head(records, size=records.checkpoints[-1].size + 1),
    ),
    "a signed head of another log": (
        "I9",
        HOME,
        lambda _, records: with_head(
            records, note=records.checkpoints[-1].note.replace(HOME, PAYER)
        ),
    ),
    "a claim granted twice": ("I8", HOME, lambda _, records: twice(records, "claimed")),
    "a payment twice": ("I8", PAYER, lambda _, records: twice(records, "posted")),
    "a step put down to somebody else": ("I10", HOME, lambda _, records: other_actor(records)),
    "a step on nothing": (
        "I10",
        HOME,
        lambda _, records: statements_with(records, unkeep("prescription")),
    ),
}


def _dispensed(records: RegionRecords) -> Attempt:
    return next(each for each in records.attempts if each.state is AttemptState.DISPENSED)


@pytest.mark.parametrize("name", BROKEN_REGIONS)
def test_a_broken_region_is_found_out(past: Past, name: str) -> None:
    invariant, region, broken = BROKEN_REGIONS[name]
    with pytest.raises(Violation) as found:
        check_region(broken(past, past.regions[region]))
    assert found.value.invariant == invariant, found.value


# --- what all regions together must be ------------------------------------------------------------


def dispenses_in(regions: Regions, before: DispenseState, after: DispenseState) -> Regions:
    records = regions[DISPENSING]
    dispenses = tuple(
        replace(each, state=after) if each.state is before else each for each in records.dispenses
    )
    return regions | {DISPENSING: replace(records, dispenses=dispenses)}


def settlements_in(regions: Regions, before: SettlementState, after: SettlementState) -> Regions:
    records = regions[PAYER]
    settlements = tuple(
        replace(each, state=after) if each.state is before else each for each in records.settlements
    )
    return regions | {PAYER: replace(records, settlements=settlements, entries=())}


def without(regions: Regions, region: str, **empty: Any) -> Regions:
    return regions | {region: replace(regions[region], **empty)}


Disagree = Callable[[Regions], Regions]

DISAGREEMENTS: dict[str, Disagree] = {
    "a handover that home has not booked": lambda regions: dispenses_in(
        regions, DispenseState.COMMITTED, DispenseState.DISPENSED
    ),
    "a dispense that has heard no end": lambda regions: dispenses_in(
        regions, DispenseState.COMPLETED, DispenseState.DISPENSED
    ),
    "a commitment that nobody decided": lambda regions: dispenses_in(
        regions, DispenseState.COMMITTED, DispenseState.HELD
    ),
    "a released attempt that may still be handed over": lambda regions: dispenses_in(
        regions, DispenseState.RELEASED, DispenseState.COMMITTED
    ),
    "a committed attempt of which its region knows nothing": lambda regions: without(
        regions, DISPENSING, dispenses=()
    ),
    "a handover without its money": lambda regions: without(
        regions, PAYER, settlements=(), entries=(), account_entries=(), persons=()
    ),
    "a prescription that the payer has not indexed": lambda regions: without(
        regions, PAYER, index=()
    ),
    "an index ahead of home": lambda regions: without(
        regions,
        PAYER,
        index=tuple(
            IndexEntry(each.insured_person_id, each.prescription_number, 99, b"")
            for each in regions[PAYER].index
        ),
    ),
    "an event that waits": lambda regions: without(
        regions, HOME, outbox=(Waiting("1", PAYER, "pending", ""),)
    ),
    "an event that was set aside": lambda regions: without(
        regions, HOME, outbox=(Waiting("1", PAYER, "dead", "refused"),)
    ),
}


@pytest.mark.parametrize("name", DISAGREEMENTS)
def test_regions_that_disagree_are_found_out(past: Past, name: str) -> None:
    with pytest.raises(Violation) as found:
        check_quiescent(DISAGREEMENTS[name](past.regions), past.world.clock.now)
    assert found.value.invariant == "I14", found.value


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (SettlementState.HELD, SettlementState.VOIDED),
        (SettlementState.POSTED, SettlementState.VOIDED),
        (SettlementState.POSTED, SettlementState.HELD),
        (SettlementState.VOIDED, SettlementState.HELD),
        (SettlementState.HELD, SettlementState.POSTED),
    ],
)
def test_money_that_does_not_follow_the_goods_is_found_out(
    past: Past, before: SettlementState, after: SettlementState
) -> None:
    with pytest.raises(Violation) as found:
        check_agreement(settlements_in(past.regions, before, after))
    assert found.value.invariant == "I14"


def test_a_debt_that_the_other_region_does_not_claim_is_found_out(past: Past) -> None:
    with pytest.raises(Violation) as found:
        check_quiescent(without(past.regions, DISPENSING, entries=()), past.world.clock.now)
    assert found.value.invariant == "I5"


def test_an_attempt_reserved_past_its_lease_is_found_out(past: Past) -> None:
    with pytest.raises(Violation) as found:
        check_leases(past.regions[HOME], past.world.clock.now + timedelta(hours=1))
    assert found.value.invariant == "I14"


def test_a_silent_commit_belongs_on_the_list(past: Past) -> None:
    home, later = past.regions[HOME], past.world.clock.now + SILENCE
    silent = [each.attempt_id for each in home.attempts if each.state is AttemptState.COMMITTED]
    check_adjudicated(home, past.world.clock.now, SILENCE, ())
    check_adjudicated(home, later, SILENCE, silent)
    with pytest.raises(Violation) as found:
        check_adjudicated(home, later, SILENCE, ())
    assert found.value.invariant == "I14"


def test_a_hold_for_an_attempt_that_ended_is_found_out() -> None:
    check_ended([HELD], [HELD.attempt_id])
    with pytest.raises(Violation, match="I4"):
        check_ended([HELD], [])


# --- I7, I8, I10: answers -------------------------------------------------------------------------


def outcomes_with(
    records: RegionRecords, change: Callable[[StoredOutcome], StoredOutcome]
) -> RegionRecords:
    return replace(records, outcomes={key: change(each) for key, each in records.outcomes.items()})


LOST: dict[str, Callable[[RegionRecords], RegionRecords]] = {
    "an outcome that was forgotten": lambda records: replace(records, outcomes={}),
    "an outcome of another request": lambda records: outcomes_with(
        records, lambda each: replace(each, request_sha256=bytes(32))
    ),
    "an outcome of another method": lambda records: outcomes_with(
        records, lambda each: replace(each, method="/other")
    ),
    "an outcome that says something else": lambda records: outcomes_with(
        records, lambda each: replace(each, response=b"")
    ),
    "a statement that was not kept": lambda records: statements_with(records, unkeep("claim")),
}


@pytest.mark.parametrize("name", LOST)
def test_an_answer_that_was_lost_is_found_out(past: Past, name: str) -> None:
    check_durable(past.answers, past.regions[DISPENSING])
    with pytest.raises(Violation) as found:
        check_durable(past.answers, LOST[name](past.regions[DISPENSING]))
    assert found.value.invariant == "I7"


def test_a_receipt_is_no_part_of_an_outcome(past: Past) -> None:
    (answer,) = past.answers
    assert isinstance(answer.response, pharmacy_service_pb2.ClaimPrescriptionResponse)
    with_receipt = pharmacy_service_pb2.ClaimPrescriptionResponse()
    with_receipt.CopyFrom(answer.response)
    with_receipt.receipt.SetInParent()
    check_durable([replace(answer, response=with_receipt)], past.regions[DISPENSING])
    check_same_answers([answer, replace(answer, response=with_receipt)])


def test_two_answers_to_one_request_are_found_out(past: Past) -> None:
    (answer,) = past.answers
    check_same_answers([answer, answer])
    other = pharmacy_service_pb2.ClaimPrescriptionResponse()
    with pytest.raises(Violation, match="I8"):
        check_same_answers([answer, replace(answer, response=other)])


def test_one_request_id_for_two_requests_is_found_out(past: Past) -> None:
    (answer,) = past.answers
    other = pharmacy_service_pb2.ClaimPrescriptionRequest(request_id=answer.request_id)
    with pytest.raises(Violation, match="I8"):
        check_same_answers([answer, replace(answer, request=other)])


def test_only_the_signer_or_its_platform_is_answered(past: Past) -> None:
    (answer,), platforms = past.answers, past.world.platforms
    check_authority([answer, replace(answer, caller=platforms[DISPENSING].cast.region.platform)])
    for stranger in (platforms[PAYER].pharmacy, platforms[PAYER].cast.region.platform):
        with pytest.raises(Violation, match="I10"):
            check_authority([replace(answer, caller=stranger)])


# --- I3, I4, I5, I13: plain values ----------------------------------------------------------------


def test_what_timers_may_not_do_is_found_out(past: Past) -> None:
    committed = next(
        each for each in past.regions[HOME].attempts if each.state is AttemptState.COMMITTED
    )
    before = {committed.attempt_id: committed}
    released = replace(committed, state=AttemptState.RELEASED)
    check_step(before, {committed.attempt_id: released}, signed=True)
    for state in (AttemptState.RELEASED, AttemptState.EXPIRED):
        after = {committed.attempt_id: replace(committed, state=state)}
        with pytest.raises(Violation, match="I3"):
            check_step(before, after, signed=False)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, SettlementState.POSTED),
        (SettlementState.POSTED, SettlementState.VOIDED),
        (SettlementState.VOIDED, SettlementState.POSTED),
        (SettlementState.REVERSED, SettlementState.POSTED),
    ],
)
def test_a_settlement_that_ends_twice_is_found_out(
    before: SettlementState | None, after: SettlementState
) -> None:
    with pytest.raises(Violation, match="I4"):
        check_settled_once(before, after)


def test_more_handed_over_than_authorised_is_found_out() -> None:
    check_handed_over(2, 2)
    with pytest.raises(Violation, match="I1"):
        check_handed_over(2, 3)


@pytest.mark.parametrize("name", Amounts.__slots__)
def test_every_figure_of_a_settlement_counts(name: str) -> None:
    check_amounts(AMOUNTS)
    with pytest.raises(Violation, match="I5"):
        check_amounts(replace(AMOUNTS, **{name: getattr(AMOUNTS, name) + 1}))


def test_a_balance_below_zero_is_found_out() -> None:
    with pytest.raises(Violation, match="I5"):
        check_not_overdrawn(replace(person(), used_cap_fen=-1))


def test_a_fen_that_vanished_is_found_out(past: Past) -> None:
    payer = past.regions[PAYER]
    (now,) = payer.persons
    for name in ("own_account_fen", "used_deductible_fen", "used_cap_fen"):
        with pytest.raises(Violation, match="I5"):
            check_nothing_lost(
                person(), replace(now, **{name: getattr(now, name) + 1}), payer.settlements
            )
    with pytest.raises(Violation, match="I5"):
        check_nothing_lost(person(), replace(now, family_accounts_fen=(7,)), payer.settlements)


@pytest.mark.parametrize(
    "amounts",
    [
        pytest.param({"deductible_fen": 1000, "pool_fen": 1200}, id="deductible taken again"),
        pytest.param({"pool_fen": 10**6}, id="beyond the cap"),
        pytest.param({"account_fen": 500}, id="an account spent twice"),
        pytest.param({"family_fen": 300}, id="a family account spent twice"),
        pytest.param({"pool_fen": 0}, id="less than is due"),
    ],
)
def test_settlements_that_no_serial_order_gives_are_found_out(
    past: Past, amounts: dict[str, int]
) -> None:
    tariff = next(iter(past.world.platforms[PAYER].region.tariffs))
    settlements = sorted(past.regions[PAYER].settlements, key=lambda each: each.create_time)
    *earlier, last = settlements
    wrong = replace(last, amounts=replace(last.amounts, **amounts))
    with pytest.raises(Violation, match="I13"):
        check_accumulators(person(), [*earlier, wrong], tariff, lambda _: 3)


def test_holds_of_the_same_moment_may_stand_in_either_order(past: Past) -> None:
    tariff = next(iter(past.world.platforms[PAYER].region.tariffs))
    moment = past.world.clock.now
    live = [
        replace(each, create_time=moment)
        for each in past.regions[PAYER].settlements
        if each.state is not SettlementState.VOIDED
    ]
    assert len(live) == 2
    check_accumulators(person(), live, tariff, lambda _: 3)
    check_accumulators(person(), live[::-1], tariff, lambda _: 3)


# --- I6 and I12: what came back, and what was sold ------------------------------------------------


def test_no_source_gives_back_more_than_it_paid() -> None:
    half = Amounts(**{name: getattr(AMOUNTS, name) // 2 for name in Amounts.__slots__})
    check_reversed(AMOUNTS, [half, half])
    check_reversed(AMOUNTS, [AMOUNTS], whole=True)
    for wrong, whole in (([AMOUNTS, half], False), ([half], True)):
        with pytest.raises(Violation, match="I6"):
            check_reversed(AMOUNTS, wrong, whole=whole)
    with pytest.raises(Violation, match="I6"):
        check_reversed(AMOUNTS, [replace(half, cash_fen=-1)])


def test_no_more_comes_back_than_was_handed_over() -> None:
    check_returned({1: 20}, [{1: 5}, {1: 15}])
    for wrong in ([{1: 5}, {1: 16}], [{2: 1}]):
        with pytest.raises(Violation, match="I6"):
            check_returned({1: 20}, wrong)


def returned(past: Past, regions: Regions, **changes: Any) -> dispense_pb2.DispenseReturn:
    """A return of everything that was handed over."""
    record = next(iter(regions[DISPENSING].stated(dispense_pb2.DispenseRecord)))
    lines = [
        dispense_pb2.ReturnedLine(
            line_id=line.line_id,
            quantity=line.quantity,
            trace_codes=[each.code for each in line.trace_codes],
        )
        for line in record.lines
    ]
    content = dispense_pb2.DispenseReturn(
        reversal_id="reversal-1",
        prescription_number=record.prescription_number,
        attempt_id=record.attempt_id,
        pharmacy_code=record.pharmacy_code,
        settlement_id=record.settlement_id,
        cause=dispense_pb2.DispenseReturn.CAUSE_NOT_DELIVERED,
        lines=lines,
    )
    content.MergeFrom(dispense_pb2.DispenseReturn(**changes))
    return content


def reversal(regions: Regions, content: dispense_pb2.DispenseReturn) -> settlement_pb2.Reversal:
    """What a payer would sign of a return of everything."""
    posted = next(
        each for each in regions[PAYER].settlements if each.settlement_id == content.settlement_id
    )
    return settlement_pb2.Reversal(
        reversal_id=content.reversal_id,
        settlement_id=content.settlement_id,
        prescription_number=content.prescription_number,
        payer_region_code=PAYER,
        dispensing_region_code=DISPENSING,
        amounts=amounts_message(posted.amounts),
    )


def keeping(regions: Regions, region: str, *contents: Any) -> Regions:
    """The regions, of which one keeps more statements. Nobody verifies them here."""
    more = dict(regions[region].statements)
    for content in contents:
        statement = SignedStatement(
            payload=content.SerializeToString(), payload_type=payload_type(type(content))
        )
        more[content.prescription_number, statement_sha256(statement)] = statement
    return regions | {region: replace(regions[region], statements=more)}


def reversing(regions: Regions, settlement_id: str) -> Regions:
    """The regions, of which the payer knows that it gave back all of a settlement."""
    payer = regions[PAYER]
    settlements = tuple(
        replace(each, state=SettlementState.REVERSED, reversed=each.amounts)
        if each.settlement_id == settlement_id
        else each
        for each in payer.settlements
    )
    return regions | {PAYER: replace(payer, settlements=settlements)}


def test_a_return_is_reversed_once(past: Past) -> None:
    regions = past.regions
    content = returned(past, regions)
    accepted = keeping(regions, DISPENSING, content)
    check_reversals(accepted, quiescent=False)
    unknown = keeping(accepted, PAYER, reversal(regions, content))
    with pytest.raises(Violation, match="I6"):
        check_reversals(unknown, quiescent=True)
    both = reversing(unknown, content.settlement_id)
    check_reversals(both, quiescent=True)
    total = reversed_amounts(both[PAYER])[content.settlement_id].total_fen
    assert total == reversal(regions, content).amounts.total_fen
    with pytest.raises(Violation, match="I6"):
        check_reversals(accepted, quiescent=True)


def test_a_reversal_of_no_return_is_found_out(past: Past) -> None:
    regions = past.regions
    made_up = reversal(regions, returned(past, regions))
    with pytest.raises(Violation, match="I6"):
        check_reversals(keeping(regions, PAYER, made_up), quiescent=False)


def test_more_money_back_than_was_paid_is_found_out(past: Past) -> None:
    regions = past.regions
    first, second = returned(past, regions), returned(past, regions, reversal_id="reversal-2")
    for each in (first, second):
        each.lines[0].quantity = 1
    accepted = keeping(regions, DISPENSING, first, second)
    both = keeping(accepted, PAYER, reversal(regions, first), reversal(regions, second))
    with pytest.raises(Violation, match="I6"):
        check_reversals(both, quiescent=False)


def test_a_reversal_made_twice_is_found_out(past: Past) -> None:
    regions = past.regions
    first = reversal(regions, returned(past, regions))
    again = reversal(regions, returned(past, regions))
    again.reverse_time.seconds = 1
    with pytest.raises(Violation, match="I4"):
        check_region(keeping(regions, PAYER, first, again)[PAYER])


def sold(regions: Regions, **changes: Any) -> dispense_pb2.DispenseRecord:
    """Another handover of the box that was handed over."""
    record = next(iter(regions[DISPENSING].stated(dispense_pb2.DispenseRecord)))
    for name, value in changes.items():
        setattr(record.lines[0].trace_codes[0], name, value)
    record.attempt_id = "another"
    return record


def accepting(regions: Regions, region: str, content: dispense_pb2.DispenseRecord) -> Regions:
    """The regions, of which one has accepted one more record."""
    kept = keeping(regions, region, content)
    payload = content.SerializeToString()
    digest = next(
        digest
        for (_, digest), statement in kept[region].statements.items()
        if statement.payload == payload and not statement.signatures
    )
    first = next(each for each in regions[DISPENSING].dispenses if each.record_sha256)
    dispense = replace(first, attempt_id="another", record_sha256=digest)
    records = kept[region]
    return kept | {region: replace(records, dispenses=(*records.dispenses, dispense))}


@pytest.mark.parametrize("region", [DISPENSING, PAYER])
def test_a_box_sold_twice_is_found_out_wherever(past: Past, region: str) -> None:
    regions = past.regions
    check_trace_codes(regions.values())
    with pytest.raises(Violation, match="I12"):
        check_trace_codes(accepting(regions, region, sold(regions)).values())


def test_a_box_sold_whole_and_in_parts_is_found_out(past: Past) -> None:
    regions = past.regions
    with pytest.raises(Violation, match="I12"):
        check_trace_codes(accepting(regions, PAYER, sold(regions, loose_sale=True)).values())


def test_a_box_sold_again_under_another_spelling_is_found_out(past: Past) -> None:
    regions = past.regions
    code = next(iter(regions[DISPENSING].stated(dispense_pb2.DispenseRecord)))
    spelled = " ".join(chr(ord(each) + 0xFEE0) for each in code.lines[0].trace_codes[0].code)
    with pytest.raises(Violation, match="I12"):
        check_trace_codes(accepting(regions, PAYER, sold(regions, code=spelled)).values())


def test_a_box_that_came_back_for_sale_may_be_sold_again(past: Past) -> None:
    regions = past.regions
    again = accepting(regions, PAYER, sold(regions))
    check_trace_codes(keeping(again, DISPENSING, returned(past, regions)).values())
    defective = returned(past, regions)
    defective.cause = dispense_pb2.DispenseReturn.CAUSE_QUALITY
    with pytest.raises(Violation, match="I12"):
        check_trace_codes(keeping(again, DISPENSING, defective).values())


def test_spellings_of_a_trace_code_are_one() -> None:
    assert normalised(" 8123-4567 ") == normalised("8123４567") == "81234567"


# --- I9: log and receipts -------------------------------------------------------------------------


def receipted(past: Past, index: int) -> Answer:
    """An answer with the receipt of a leaf of the dispensing region, as it is now."""
    (answer,) = past.answers
    leaf = past.regions[DISPENSING].leaves[index]
    tables = PlatformTables(past.world.platforms[DISPENSING].store.connection)
    receipt = proofs.receipt(tables.log, leaf.prescription_number, leaf.statement_sha256)
    response = pharmacy_service_pb2.ClaimPrescriptionResponse(receipt=receipt)
    return replace(answer, response=response)


@pytest.mark.parametrize("index", [0, 3, -1])
def test_a_receipt_stays_true(past: Past, index: int) -> None:
    check_receipts([receipted(past, index)], past.regions[DISPENSING])


def test_a_receipt_of_a_log_that_was_made_anew_is_found_out(past: Past) -> None:
    records, answer = past.regions[DISPENSING], receipted(past, 0)
    later = replace(records.leaves[1], keep_time=records.leaves[1].keep_time + SILENCE)
    forked = replace(records, leaves=(records.leaves[0], later, *records.leaves[2:]))
    shorter = replace(records, leaves=records.leaves[:1])
    for wrong in (forked, shorter):
        with pytest.raises(Violation, match="I9"):
            check_receipts([answer], wrong)


def test_a_receipt_of_another_leaf_is_found_out(past: Past) -> None:
    answer = receipted(past, 0)
    assert isinstance(answer.response, pharmacy_service_pb2.ClaimPrescriptionResponse)
    answer.response.receipt.leaf_index = 1
    with pytest.raises(Violation, match="I9"):
        check_receipts([answer], past.regions[DISPENSING])


def test_a_log_only_grows(past: Past) -> None:
    records = past.regions[HOME]
    before = replace(records, leaves=records.leaves[:2], checkpoints=records.checkpoints[:1])
    check_grown(before, records)
    for wrong in (
        replace(records, leaves=records.leaves[1:]),
        replace(records, checkpoints=records.checkpoints[1:]),
    ):
        with pytest.raises(Violation, match="I9"):
            check_grown(before, wrong)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 8, 21])
def test_roots_are_those_of_the_standard(count: int) -> None:
    leaves = [bytes([each]) for each in range(count)]
    tree = Plain(leaves)
    assert roots_of(leaves) == [tree.root(0, size) for size in range(count + 1)]


# --- I11: what is exported ------------------------------------------------------------------------


def exported(past: Past, number: str) -> EvidenceBundle:
    """What the home region exports about a prescription."""
    platform = past.world.platforms[HOME]
    request = ExportEvidenceRequest(prescription_number=number)
    tables = PlatformTables(platform.store.connection)
    return showing.export(tables, platform.region, request).bundle


def registries(past: Past) -> dict[str, str]:
    platforms = past.world.platforms.items()
    return {code: each.cast.region.registry.sha256.hex() for code, each in platforms}


def unlisted(bundle: EvidenceBundle) -> None:
    del bundle.trust_lists[-1]


def uncommitted(bundle: EvidenceBundle) -> None:
    kinds = [each.statement.payload_type for each in bundle.statements]
    del bundle.statements[kinds.index(payload_type(attempt_pb2.Commitment))]


def unpaid(bundle: EvidenceBundle) -> None:
    state = settlement_pb2.Settlement.STATE_POSTED
    kind = payload_type(settlement_pb2.Settlement)
    for index, each in reversed(list(enumerate(bundle.statements))):
        payload = each.statement.payload
        settlement = each.statement.payload_type == kind
        if settlement and settlement_pb2.Settlement.FromString(payload).state == state:
            del bundle.statements[index]


def altered(bundle: EvidenceBundle) -> None:
    bundle.statements[0].statement.payload += b"\x00"


def moved(bundle: EvidenceBundle) -> None:
    bundle.statements[0].leaf_index += 1


def dated(bundle: EvidenceBundle) -> None:
    bundle.statements[0].keep_time.seconds += 1


def unsigned(bundle: EvidenceBundle) -> None:
    bundle.checkpoint.note = bundle.checkpoint.note.replace(HOME, PAYER)


def of_another(bundle: EvidenceBundle) -> None:
    bundle.prescription_number = "another"


Spoil = Callable[[EvidenceBundle], None]


@pytest.mark.parametrize(
    "spoil", [unlisted, uncommitted, unpaid, altered, moved, dated, unsigned, of_another]
)
def test_a_bundle_that_does_not_stand_by_itself_is_found_out(past: Past, spoil: Spoil) -> None:
    home, now, pins = past.regions[HOME], past.world.clock.now, registries(past)

    def spoilt(number: str) -> EvidenceBundle:
        bundle = exported(past, number)
        spoil(bundle)
        return bundle

    assert check_chains(home, lambda number: exported(past, number), pins, now) == 1
    with pytest.raises(Violation, match="I11"):
        check_chains(home, spoilt, pins, now)


def test_a_region_that_nobody_pinned_is_not_believed(past: Past) -> None:
    number = _dispensed(past.regions[HOME]).prescription_number
    pins = {code: pin for code, pin in registries(past).items() if code != DISPENSING}
    with pytest.raises(Violation, match="I11"):
        check_chain(exported(past, number), pins, past.world.clock.now)


# --- adjudication ---------------------------------------------------------------------------------


def adjudicated(past: Past, *people: Any) -> RegionRecords:
    """Home, where a committed attempt was released by a decision that these people signed."""
    home = past.regions[HOME]
    committed = next(each for each in home.attempts if each.state is AttemptState.COMMITTED)
    content = attempt_pb2.Adjudication(
        prescription_number=committed.prescription_number, attempt_id=committed.attempt_id
    )
    kept = keeping({HOME: home}, HOME, content)[HOME]
    key = next(key for key, each in kept.statements.items() if not each.signatures)
    for credential in people:
        der = credential.certificate.public_bytes(Encoding.DER)
        kept.statements[key].signatures.add(certificate_chain=[der])
    released = replace(
        committed, state=AttemptState.RELEASED, lease_expire_time=None, cause_sha256=key[1]
    )
    attempts = tuple(released if each is committed else each for each in home.attempts)
    return replace(kept, attempts=attempts)


def test_two_people_adjudicate(past: Past) -> None:
    region = past.world.platforms[HOME].cast.region
    one, other = (
        region.person(region.platform, code, SIGNER_ROLE_ADJUDICATOR) for code in ("A001", "A002")
    )
    check_grounds(adjudicated(past, one, other))
    for wrong in ((one,), (one, one), (one, other, other)):
        with pytest.raises(Violation, match="I3"):
            check_grounds(adjudicated(past, *wrong))


def test_undelivered_events_are_found_out_by_themselves() -> None:
    check_delivered({})
    waiting = RegionRecords(HOME, outbox=(Waiting("1", PAYER, "pending", ""),))
    with pytest.raises(Violation, match="I14"):
        check_delivered({HOME: waiting})
