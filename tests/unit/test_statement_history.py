"""The history behind a state: what an issuer and a claimant may read, and that others may not."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from rxoutflow.identity import CallerName
from rxoutflow.statements import statement_sha256
from rxoutflow.v1 import attempt_pb2, prescription_status_pb2
from rxoutflow.v1.hospital_service_pb2 import HospitalServiceListStatementsRequest
from rxoutflow.v1.pharmacy_service_pb2 import PharmacyServiceListStatementsRequest
from rxoutflow.v1.statement_pb2 import (
    SIGNER_ROLE_DISPENSER,
    SIGNER_ROLE_PHARMACY_SEAL,
    SIGNER_ROLE_PLATFORM,
)
from rxoutflow.v1.trace_pb2 import TraceEvent
from rxoutflow_server.application.dispensing import claims
from rxoutflow_server.application.dispensing import history as of_claimant
from rxoutflow_server.application.home import history as of_issuer
from rxoutflow_server.domain.errors import Reason, Refusal
from support.world import World, content_of

HOME, DISPENSING, PAYER = "350200", "350500", "320600"
Told = list[tuple[str, str, str]]


@pytest.fixture
def world() -> World:
    return World.create(HOME, DISPENSING, PAYER)


async def issuer_reads(
    world: World, number: str, caller: CallerName | None = None, **page: int | str
) -> tuple[list[TraceEvent], str]:
    platform = world.platforms[HOME]
    request = HospitalServiceListStatementsRequest(prescription_number=number, **page)  # type: ignore[arg-type]  # of several kinds
    answer = await platform.store.read(
        lambda tx: of_issuer.list_statements(
            tx, platform.region, caller or platform.hospital, request
        )
    )
    return list(answer.events), answer.next_page_token


async def claimant_reads(
    world: World, region: str, number: str, caller: CallerName | None = None
) -> list[TraceEvent]:
    platform = world.platforms[region]
    request = PharmacyServiceListStatementsRequest(prescription_number=number)
    answer = await platform.store.read(
        lambda tx: of_claimant.list_statements(
            tx, platform.region, caller or platform.pharmacy, request
        )
    )
    return list(answer.events)


def told(events: list[TraceEvent]) -> Told:
    """What happened, by whom, and what kind of statement it rests on."""
    kinds = (each.statement.payload_type.split(".")[2] for each in events)
    return [(each.action, each.actor_code, kind) for each, kind in zip(events, kinds, strict=True)]


async def handed_over(world: World, dispensing: str = DISPENSING) -> str:
    number, code = await world.issue(HOME, PAYER)
    await world.dispense(dispensing, code)
    await world.settle()
    return number


async def test_the_issuer_reads_every_step_with_what_was_signed_for_it(world: World) -> None:
    number = await handed_over(world)
    hospital = world.platforms[HOME].hospital.institution_code
    pharmacy = world.platforms[DISPENSING].pharmacy.institution_code
    events, token = await issuer_reads(world, number)
    assert token == ""
    assert told(events) == [
        ("registered", hospital, "prescription"),
        ("claimed", pharmacy, "claim"),
        ("claimed", HOME, "attempt"),
        ("committed", pharmacy, "commitment"),
        ("committed", HOME, "attempt"),
        ("dispense booked", pharmacy, "dispense-record"),
        ("dispense booked", HOME, "attempt"),
        ("settlement known", PAYER, "settlement"),
    ]
    assert all(each.region_role == TraceEvent.REGION_ROLE_HOME for each in events)
    assert all(statement_sha256(each.statement) == each.statement_sha256 for each in events)
    people = [SIGNER_ROLE_DISPENSER, SIGNER_ROLE_PHARMACY_SEAL]
    assert [signer.role for signer in events[1].signers] == people
    assert [signer.role for signer in events[2].signers] == [SIGNER_ROLE_PLATFORM]
    assert events[-1].amounts.total_fen == 3000
    times = [each.event_time.ToNanoseconds() for each in events]
    assert times == sorted(times)


async def test_a_lease_that_ran_out_rests_on_the_platforms_word_alone(world: World) -> None:
    number, code = await world.issue(HOME, PAYER)
    await world.claim(DISPENSING, code)
    world.clock.now += timedelta(minutes=30)
    await world.expire_leases(HOME)
    events, _ = await issuer_reads(world, number)
    assert told(events)[-1] == ("lease expired", HOME, "attempt")
    assert len(events) == 4


async def test_what_was_revoked_unregistered_has_a_history_too(world: World) -> None:
    number = world.prescription(HOME, PAYER).prescription_number
    answer = await world.revoke(number)
    assert answer.outcome == prescription_status_pb2.REVOCATION_OUTCOME_NEVER_REGISTERED
    hospital = world.platforms[HOME].hospital.institution_code
    events, _ = await issuer_reads(world, number)
    assert told(events) == [("revoked unregistered", hospital, "revocation")]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 100])
async def test_pages_of_any_size_make_the_same_history(world: World, size: int) -> None:
    number = await handed_over(world)
    whole, _ = await issuer_reads(world, number)
    read: list[TraceEvent] = []
    token, more = "", True
    while more:
        events, token = await issuer_reads(world, number, page_size=size, page_token=token)
        assert len(events) <= size
        read += events
        more = bool(token)
    assert read == whole


@pytest.mark.parametrize("token", ["-1", "x", "٣", "1" * 10, " 1"])
async def test_a_token_that_was_never_given_is_refused(world: World, token: str) -> None:
    number = await handed_over(world)
    with pytest.raises(Refusal) as refused:
        await issuer_reads(world, number, page_token=token)
    assert refused.value.reason is Reason.FIELD_INVALID
    with pytest.raises(Refusal):
        await issuer_reads(world, number, page_size=-1)


async def test_the_claimant_reads_the_prescription_and_its_own_steps(world: World) -> None:
    number = await handed_over(world)
    hospital = world.platforms[HOME].hospital.institution_code
    pharmacy = world.platforms[DISPENSING].pharmacy.institution_code
    assert told(await claimant_reads(world, DISPENSING, number)) == [
        ("prescription received", hospital, "prescription"),
        ("claim forwarded", pharmacy, "claim"),
        ("claim confirmed", HOME, "attempt"),
        ("commit requested", pharmacy, "commitment"),
        ("hold confirmed", PAYER, "settlement"),
        ("commit confirmed", HOME, "attempt"),
        ("handed over", pharmacy, "dispense-record"),
        ("booking known", HOME, "attempt"),
        ("payment known", PAYER, "settlement"),
    ]


async def test_a_release_and_a_lease_that_ran_out_stand_in_the_claimants_history(
    world: World,
) -> None:
    number, code = await world.issue(HOME, PAYER)
    await world.release(DISPENSING, await world.claim(DISPENSING, code))
    await world.settle()
    await world.claim(DISPENSING, code)
    world.clock.now += timedelta(minutes=30)
    await world.expire_leases(HOME)
    await world.settle()
    actions = [action for action, _, _ in told(await claimant_reads(world, DISPENSING, number))]
    assert actions == [
        "prescription received",
        "claim forwarded",
        "claim confirmed",
        "release forwarded",
        "end known",
        "claim forwarded",
        "claim confirmed",
        "end known",
    ]


async def test_in_its_own_home_region_a_pharmacy_reads_nothing_of_other_roles(
    world: World,
) -> None:
    number, code = await world.issue(HOME, HOME)
    await world.dispense(HOME, code)
    await world.settle()
    events = await claimant_reads(world, HOME, number)
    assert all(each.region_role == TraceEvent.REGION_ROLE_DISPENSING for each in events)
    assert "registered" not in [each.action for each in events]
    mine, _ = await issuer_reads(world, number)
    assert all(each.region_role == TraceEvent.REGION_ROLE_HOME for each in mine)


def second_pharmacy(world: World) -> CallerName:
    """Another pharmacy of the dispensing region, with people and a seal that everybody trusts."""
    platform = world.platforms[DISPENSING]
    region, pharmacy = platform.cast.region, platform.cast.region.pharmacy()
    platform.cast = replace(
        platform.cast,
        pharmacy=pharmacy,
        dispenser=region.person(pharmacy, "R013", SIGNER_ROLE_DISPENSER),
        pharmacy_seal=region.seal(pharmacy),
    )
    entry = region.entry(pharmacy)
    entry.designated, entry.name = True, "示范二店"
    region.trust_list.sequence += 1
    for each in world.platforms.values():
        each.region.trust.offer(region.signed_list(), world.clock.now)
    return pharmacy


async def test_a_pharmacy_reads_nothing_of_another_ones_attempts(world: World) -> None:
    number, code = await world.issue(HOME, PAYER)
    first = world.platforms[DISPENSING].pharmacy
    attempt = await world.claim(DISPENSING, code)
    await world.release(DISPENSING, attempt)
    await world.settle()
    second = second_pharmacy(world)
    with pytest.raises(Refusal) as stranger:
        await claimant_reads(world, DISPENSING, number, second)
    assert stranger.value.reason is Reason.PRESCRIPTION_NOT_FOUND
    world.clock.now += timedelta(minutes=1)
    await world.claim(DISPENSING, code)
    mine = await claimant_reads(world, DISPENSING, number, second)
    theirs = await claimant_reads(world, DISPENSING, number, first)
    for events, own, other in ((mine, second, first), (theirs, first, second)):
        said = b"".join(each.statement.payload for each in events)
        assert own.institution_code.encode() in said
        assert other.institution_code.encode() not in said
    assert mine[0].action == "prescription received"
    assert mine[0].event_time.ToDatetime(world.clock.now.tzinfo) == world.clock.now, (
        "when another pharmacy had it is none of its business"
    )
    claimed = content_of(mine[-1].statement, attempt_pb2.Attempt)
    assert claimed.pharmacy_code == second.institution_code


async def test_a_refused_claim_makes_nobody_a_party(world: World) -> None:
    number, code = await world.issue(HOME, PAYER)
    await world.claim(PAYER, code)
    platform = world.platforms[DISPENSING]
    with pytest.raises(Refusal):
        await claims.claim(
            platform.exchange, platform.pharmacy, world.claim_request(DISPENSING, code)
        )
    with pytest.raises(Refusal) as refused:
        await claimant_reads(world, DISPENSING, number)
    assert refused.value.reason is Reason.PRESCRIPTION_NOT_FOUND


async def test_another_hospital_reads_nothing(world: World) -> None:
    number = await handed_over(world)
    stranger = world.platforms[HOME].cast.region.hospital()
    with pytest.raises(Refusal) as refused:
        await issuer_reads(world, number, stranger)
    assert refused.value.reason is Reason.PRESCRIPTION_NOT_FOUND
    with pytest.raises(Refusal) as of_nothing:
        await issuer_reads(world, world.prescription(HOME, PAYER).prescription_number, stranger)
    assert of_nothing.value.message == refused.value.message
