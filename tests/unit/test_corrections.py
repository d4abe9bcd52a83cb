"""Correction (冲正): whatever became of a call, afterwards it has no effect and will have none."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from datetime import timedelta
from typing import Any

import pytest

from rxoutflow.numbers import PrescriptionNumber
from rxoutflow.v1 import attempt_pb2, dispense_pb2
from rxoutflow.v1.home_service_pb2 import CorrectAttemptRequest, GrantClaimRequest
from rxoutflow.v1.pharmacy_service_pb2 import (
    ClaimPrescriptionRequest,
    CommitClaimRequest,
    CorrectCallRequest,
    PharmacyServiceGetOutcomeRequest,
    ReleaseClaimRequest,
)
from rxoutflow_server.application.dispensing import claims, corrections, settling
from rxoutflow_server.application.home.attempts import CLAIM_FRESHNESS
from rxoutflow_server.domain.errors import Reason, Refusal, Unavailable
from support.sheets import signed
from support.world import World, content_of, person

HOME, DISPENSING, PAYER = "350200", "350500", "320600"
NOTHING = attempt_pb2.CORRECTION_OUTCOME_NOTHING_TO_UNDO
RELEASED = attempt_pb2.CORRECTION_OUTCOME_RELEASED
ENDED = attempt_pb2.CORRECTION_OUTCOME_ALREADY_ENDED
DISPENSED = attempt_pb2.CORRECTION_OUTCOME_ALREADY_DISPENSED
Attempt = attempt_pb2.Attempt


@pytest.fixture
def world() -> World:
    return World.create(HOME, DISPENSING, PAYER)


async def claim(world: World, request: ClaimPrescriptionRequest) -> Attempt:
    platform = world.platforms[DISPENSING]
    response = await claims.claim(platform.exchange, platform.pharmacy, request)
    return content_of(response.attempt, Attempt)


async def committing(world: World, code: str) -> tuple[Attempt, CommitClaimRequest]:
    attempt = await world.claim(DISPENSING, code)
    amounts = await world.quote(DISPENSING, attempt)
    return attempt, world.commit_request(DISPENSING, attempt, amounts)


def of(world: World, number: str, request: Any) -> CorrectCallRequest:
    """The correction of a request."""
    return world.correction_request(DISPENSING, number, request.request_id)


async def reason_of(work: Coroutine[Any, Any, Any]) -> Reason:
    with pytest.raises(Refusal) as refused:
        await work
    return refused.value.reason


async def everything_is_free(world: World, number: str) -> None:
    """As if nobody had ever claimed it."""
    await world.settle()
    (line,) = (await world.status(number)).lines
    assert (line.available, line.claimed, line.committed) == (20, 0, 0)
    assert await world.person(PAYER) == person()
    for region in world.platforms:
        assert await world.dead_events(region) == []


# claims


async def test_a_claim_that_never_arrived_never_takes_effect(world: World) -> None:
    number, code = await world.issue(HOME, PAYER)
    request = world.claim_request(DISPENSING, code)
    world.unreachable = {HOME}
    with pytest.raises(Unavailable):
        await claim(world, request)
    world.unreachable = set()
    response = await world.correct(DISPENSING, of(world, number, request))
    assert response.outcome == NOTHING
    assert not response.HasField("attempt")
    assert await reason_of(claim(world, request)) is Reason.REQUEST_CORRECTED
    await everything_is_free(world, number)
    assert (await world.claim(DISPENSING, code)).fence == 1


async def test_home_refuses_a_corrected_claim_that_was_on_its_way(world: World) -> None:
    """The dispensing region has forwarded it, and home gets it after the correction."""
    number, code = await world.issue(HOME, PAYER)
    request = world.claim_request(DISPENSING, code)
    correcting = world.correct(DISPENSING, of(world, number, request))
    claimed, corrected = in_turns((0, 0, 1, 1, 1, 1), claim(world, request), correcting)
    assert corrected.outcome == NOTHING
    assert claimed.reason is Reason.REQUEST_CORRECTED
    await everything_is_free(world, number)


async def test_a_claim_whose_answer_was_lost_is_released(world: World) -> None:
    number, code = await world.issue(HOME, PAYER)
    request = world.claim_request(DISPENSING, code)
    world.losing = {"grant_claim"}
    with pytest.raises(Unavailable):
        await claim(world, request)
    response = await world.correct(DISPENSING, of(world, number, request))
    assert response.outcome == RELEASED
    assert content_of(response.attempt, Attempt).state == Attempt.STATE_RELEASED
    assert await reason_of(claim(world, request)) is Reason.REQUEST_CORRECTED
    await everything_is_free(world, number)
    assert (await world.claim(PAYER, code)).fence == 2


async def test_a_claim_that_was_answered_is_released_and_keeps_its_outcome(world: World) -> None:
    number, code = await world.issue(HOME, PAYER)
    request = world.claim_request(DISPENSING, code)
    attempt = await claim(world, request)
    assert (await world.correct(DISPENSING, of(world, number, request))).outcome == RELEASED
    assert await claim(world, request) == attempt
    known = (await world.progress(DISPENSING, attempt)).attempt
    assert content_of(known, Attempt).state == Attempt.STATE_RELEASED
    await everything_is_free(world, number)


async def test_an_attempt_that_another_claim_was_given_too_is_released(world: World) -> None:
    number, code = await world.issue(HOME, PAYER)
    first = world.claim_request(DISPENSING, code)
    world.losing = {"grant_claim"}
    with pytest.raises(Unavailable):
        await claim(world, first)
    again = world.claim_request(DISPENSING, code)
    attempt = await claim(world, again)
    response = await world.correct(DISPENSING, of(world, number, first))
    assert response.outcome == RELEASED
    assert content_of(response.attempt, Attempt).attempt_id == attempt.attempt_id
    commit = world.commit_request(DISPENSING, attempt, None)
    assert await reason_of(world.commit(DISPENSING, commit)) is Reason.ATTEMPT_ENDED


async def test_what_one_till_has_committed_is_not_undone_by_the_doubt_of_another(
    world: World,
) -> None:
    number, code = await world.issue(HOME, PAYER)
    lost = world.claim_request(DISPENSING, code)
    world.losing = {"grant_claim"}
    with pytest.raises(Unavailable):
        await claim(world, lost)
    _, commit = await committing(world, code)
    await world.commit(DISPENSING, commit)
    correction = of(world, number, lost)
    assert (
        await reason_of(world.correct(DISPENSING, correction)) is Reason.ATTEMPT_ALREADY_COMMITTED
    )
    await world.record(DISPENSING, world.record_request(DISPENSING, commit.commitment))
    await world.settle()
    assert (await world.correct(DISPENSING, correction)).outcome == DISPENSED
    assert (await world.status(number)).lines[0].dispensed == 20


@pytest.mark.parametrize("late", [False, True])
async def test_a_claim_that_has_ended_by_itself_is_told_so(world: World, late: bool) -> None:
    number, code = await world.issue(HOME, PAYER)
    request = world.claim_request(DISPENSING, code)
    attempt = await claim(world, request)
    if late:
        world.clock.now += timedelta(minutes=30)
    else:
        await world.release(DISPENSING, attempt)
    response = await world.correct(DISPENSING, of(world, number, request))
    assert response.outcome == ENDED
    state = Attempt.STATE_EXPIRED if late else Attempt.STATE_RELEASED
    assert content_of(response.attempt, Attempt).state == state
    await everything_is_free(world, number)


# commits


async def test_a_commit_that_never_arrived_leaves_the_claim(world: World) -> None:
    number, code = await world.issue(HOME, PAYER)
    attempt, commit = await committing(world, code)
    response = await world.correct(DISPENSING, of(world, number, commit))
    assert response.outcome == NOTHING
    assert await reason_of(world.commit(DISPENSING, commit)) is Reason.REQUEST_CORRECTED
    assert (await world.status(number)).live_attempt.state == Attempt.STATE_RESERVED
    anew = world.commit_request(DISPENSING, attempt, await world.quote(DISPENSING, attempt))
    await world.commit(DISPENSING, anew)


async def test_a_commit_that_home_never_saw_is_driven_no_further(world: World) -> None:
    number, code = await world.issue(HOME, PAYER)
    attempt, commit = await committing(world, code)
    world.unreachable = {HOME}
    with pytest.raises(Unavailable):
        await world.commit(DISPENSING, commit)
    world.unreachable = set()
    assert (await world.correct(DISPENSING, of(world, number, commit))).outcome == NOTHING
    assert await settling.undecided(world.platforms[DISPENSING].exchange, 10) == []
    assert (await world.status(number)).live_attempt.state == Attempt.STATE_RESERVED
    anew = world.commit_request(DISPENSING, attempt, await world.quote(DISPENSING, attempt))
    # The payer holds money for the attempt, and cannot know that home never committed it.
    assert await reason_of(world.commit(DISPENSING, anew)) is Reason.ATTEMPT_ALREADY_COMMITTED
    await world.release(DISPENSING, attempt)
    await everything_is_free(world, number)


@pytest.mark.parametrize("lost", [{"commit_attempt"}, set()])
async def test_a_commit_is_undone_with_its_claim_and_its_hold(world: World, lost: set[str]) -> None:
    number, code = await world.issue(HOME, PAYER)
    _, commit = await committing(world, code)
    world.losing = set(lost)
    if lost:
        with pytest.raises(Unavailable):
            await world.commit(DISPENSING, commit)
    else:
        await world.commit(DISPENSING, commit)
    response = await world.correct(DISPENSING, of(world, number, commit))
    assert response.outcome == RELEASED
    record = world.record_request(DISPENSING, commit.commitment)
    assert await reason_of(world.record(DISPENSING, record)) is Reason.ATTEMPT_ENDED
    with pytest.raises(Refusal):
        await world.commit(DISPENSING, commit)
    await everything_is_free(world, number)


async def test_while_home_is_out_of_reach_a_correction_already_stops_the_commit(
    world: World,
) -> None:
    number, code = await world.issue(HOME, PAYER)
    _, commit = await committing(world, code)
    await world.commit(DISPENSING, commit)
    correction = of(world, number, commit)
    world.unreachable = {HOME}
    with pytest.raises(Unavailable):
        await world.correct(DISPENSING, correction)
    record = world.record_request(DISPENSING, commit.commitment)
    assert await reason_of(world.record(DISPENSING, record)) is Reason.ATTEMPT_ENDED
    world.unreachable = set()
    assert (await world.correct(DISPENSING, correction)).outcome == RELEASED
    await everything_is_free(world, number)


@pytest.mark.parametrize("booked", [False, True])
async def test_a_handover_that_was_recorded_is_not_corrected(world: World, booked: bool) -> None:
    number, code = await world.issue(HOME, PAYER)
    request = world.claim_request(DISPENSING, code)
    attempt = await claim(world, request)
    commit = world.commit_request(DISPENSING, attempt, await world.quote(DISPENSING, attempt))
    await world.commit(DISPENSING, commit)
    await world.record(DISPENSING, world.record_request(DISPENSING, commit.commitment))
    if booked:
        await world.settle()
    for each in (request, commit):
        response = await world.correct(DISPENSING, of(world, number, each))
        assert response.outcome == DISPENSED
    await world.settle()
    progress = (await world.progress(DISPENSING, attempt)).progress
    assert progress.state == dispense_pb2.DispenseProgress.STATE_COMPLETED
    platform = world.platforms[DISPENSING]
    asked = PharmacyServiceGetOutcomeRequest(
        prescription_number=number, request_id=commit.request_id
    )
    found = await platform.store.read(lambda tx: claims.get_outcome(tx, platform.pharmacy, asked))
    assert found.outcome.method.endswith("/CommitClaim")


async def test_a_commitment_sent_under_two_ids_is_corrected_by_the_first(world: World) -> None:
    number, code = await world.issue(HOME, PAYER)
    _, first = await committing(world, code)
    await world.commit(DISPENSING, first)
    second = CommitClaimRequest(request_id=world.request_id(), commitment=first.commitment)
    await world.commit(DISPENSING, second)
    with pytest.raises(Refusal) as refused:
        await world.correct(DISPENSING, of(world, number, second))
    assert refused.value.reason is Reason.ATTEMPT_ALREADY_COMMITTED
    assert refused.value.detail["request_id"] == first.request_id
    assert (await world.correct(DISPENSING, of(world, number, first))).outcome == RELEASED
    await everything_is_free(world, number)


# the correction itself


@pytest.mark.parametrize("lost", ["correct_attempt", ""])
async def test_a_correction_that_is_repeated_says_the_same(world: World, lost: str) -> None:
    number, code = await world.issue(HOME, PAYER)
    request = world.claim_request(DISPENSING, code)
    await claim(world, request)
    correction = of(world, number, request)
    if lost:
        world.losing = {lost}
        with pytest.raises(Unavailable):
            await world.correct(DISPENSING, correction)
    first = await world.correct(DISPENSING, correction)
    assert first.outcome == RELEASED
    world.unreachable = {HOME}
    assert await world.correct(DISPENSING, correction) == first
    world.unreachable = set()
    assert (await world.correct(DISPENSING, of(world, number, request))).outcome == ENDED
    other = world.correction_request(DISPENSING, number, world.request_id())
    other.request_id = correction.request_id
    assert await reason_of(world.correct(DISPENSING, other)) is Reason.REQUEST_ID_REUSED


async def test_a_corrected_call_without_an_outcome_says_so_when_it_is_asked_for(
    world: World,
) -> None:
    number, _ = await world.issue(HOME, PAYER)
    lost = world.request_id()
    await world.correct(DISPENSING, world.correction_request(DISPENSING, number, lost))
    asked = PharmacyServiceGetOutcomeRequest(prescription_number=number, request_id=lost)
    platform = world.platforms[DISPENSING]
    with pytest.raises(Refusal) as refused:
        await platform.store.read(lambda tx: claims.get_outcome(tx, platform.pharmacy, asked))
    assert refused.value.reason is Reason.REQUEST_CORRECTED


async def test_another_pharmacy_corrects_nothing_of_ones_own(world: World) -> None:
    """It hears what it would hear about a call that never was, and the call is as it was."""
    number, code = await world.issue(HOME, PAYER)
    request = world.claim_request(DISPENSING, code)
    attempt = await claim(world, request)
    strange = world.correction_request(PAYER, number, request.request_id)
    assert (await world.correct(PAYER, strange)).outcome == NOTHING
    assert (await world.status(number)).live_attempt.attempt_id == attempt.attempt_id
    assert await claim(world, request) == attempt


async def test_a_pharmacy_cannot_have_a_call_refused_that_another_one_will_make(
    world: World,
) -> None:
    """Not even one of the same region, whose calls the same platform forwards."""
    number, code = await world.issue(HOME, PAYER)
    request = world.claim_request(DISPENSING, code)
    platform = world.platforms[DISPENSING]
    own, region = platform.cast, platform.cast.region
    stranger = region.pharmacy()
    region.entry(stranger).designated = True
    content = attempt_pb2.Correction(
        prescription_number=number,
        corrected_request_id=request.request_id,
        pharmacy_code=stranger.institution_code,
        reason="none of its business",
    )
    review = own.sheet(attempt_pb2.Correction)[0][0]
    seal = own.sheet(attempt_pb2.Correction)[1][0]
    people = [(review, region.person(stranger, "R9", review)), (seal, region.seal(stranger))]
    region.trust_list.sequence += 1
    for each in world.platforms.values():
        each.region.trust.offer(region.signed_list(), world.clock.now)
    correction = CorrectCallRequest(
        request_id=world.request_id(), correction=signed(content, people, at=world.clock.now)
    )
    response = await corrections.correct(platform.exchange, stranger, correction)
    assert response.outcome == NOTHING
    assert (await claim(world, request)).state == Attempt.STATE_RESERVED


async def test_only_claims_and_commits_are_corrected(world: World) -> None:
    number, code = await world.issue(HOME, PAYER)
    attempt = await world.claim(DISPENSING, code)
    content = attempt_pb2.ClaimRelease(
        prescription_number=number,
        attempt_id=attempt.attempt_id,
        fence=attempt.fence,
        pharmacy_code=attempt.pharmacy_code,
        reason="the patient went away",
    )
    release = ReleaseClaimRequest(
        request_id=world.request_id(), release=world.signed(DISPENSING, content)
    )
    platform = world.platforms[DISPENSING]
    await claims.release(platform.exchange, platform.pharmacy, release)
    correction = of(world, number, release)
    assert await reason_of(world.correct(DISPENSING, correction)) is Reason.FIELD_INVALID


async def test_a_prescription_that_home_does_not_know_yet_can_be_corrected_too(
    world: World,
) -> None:
    """The hospital's edge may bring it later; the claim stays without effect."""
    content = world.prescription(HOME, PAYER)
    number, lost = content.prescription_number, world.request_id()
    correction = world.correction_request(DISPENSING, number, lost)
    assert (await world.correct(DISPENSING, correction)).outcome == NOTHING
    code = await world.register(HOME, content)
    request = world.claim_request(DISPENSING, code, request_id=lost)
    home = world.platforms[HOME]
    platform = world.platforms[DISPENSING].cast.region.platform
    granting = GrantClaimRequest(request_id=lost, claim=request.claim, pickup_code=code)
    assert await reason_of(home.desk.grant_claim(platform, granting)) is Reason.REQUEST_CORRECTED


async def test_nothing_is_stored_about_numbers_that_no_hospital_can_have_given(
    world: World,
) -> None:
    number = str(PrescriptionNumber(HOME, 1_700_000_000_000, "99999", "00001"))
    before = stored(world)
    correction = world.correction_request(DISPENSING, number, world.request_id())
    response = await world.platforms[HOME].desk.correct_attempt(
        world.platforms[DISPENSING].cast.region.platform,
        _forwarded(correction),
    )
    assert response.outcome == NOTHING
    assert stored(world) == (before[0] + 1, before[1])  # its answer alone


def _forwarded(correction: CorrectCallRequest) -> CorrectAttemptRequest:
    return CorrectAttemptRequest(request_id=correction.request_id, correction=correction.correction)


def stored(world: World) -> tuple[int, int]:
    connection = world.platforms[HOME].store.connection
    ((outcomes,),) = connection.execute("SELECT COUNT(*) FROM outcomes").fetchall()
    ((statements,),) = connection.execute("SELECT COUNT(*) FROM statements").fetchall()
    return outcomes, statements


# every order


Work = Coroutine[Any, Any, Any]


def orders(first: int, second: int) -> Iterator[tuple[int, ...]]:
    """Every way in which two pieces of work can take turns, given how many turns each needs."""
    if not first or not second:
        yield (0,) * first + (1,) * second
        return
    yield from ((0, *rest) for rest in orders(first - 1, second))
    yield from ((1, *rest) for rest in orders(first, second - 1))


def in_turns(order: tuple[int, ...], *works: Work) -> list[Any]:
    """Let pieces of work take turns, one step of a store at a time; what each came to."""
    ends: list[Any] = [None] * len(works)
    running = dict(enumerate(works))

    def turn(index: int) -> None:
        if index in running:
            try:
                running[index].send(None)
            except StopIteration as end:
                ends[index] = end.value
                del running[index]
            except (Refusal, Unavailable) as error:
                ends[index] = error
                del running[index]

    for index in order:
        turn(index)
    while running:
        turn(next(iter(running)))
    return ends


LOSSES = [set[str](), {"grant_claim"}, {"commit_attempt"}, {"hold_benefit"}, {"correct_attempt"}]


@pytest.mark.parametrize("lost", LOSSES, ids=lambda lost: "".join(lost) or "nothing lost")
async def test_a_claim_and_its_correction_agree_in_every_order(
    world: World, lost: set[str]
) -> None:
    ends = set()
    for order in orders(4, 4):
        number, code = await world.issue(HOME, PAYER)
        request = world.claim_request(DISPENSING, code)
        correction = of(world, number, request)
        world.losing = set(lost)
        in_turns(order, claim(world, request), world.correct(DISPENSING, correction))
        world.losing = set()
        decided = await world.correct(DISPENSING, correction)
        assert decided.outcome in (NOTHING, RELEASED)
        ends.add(decided.outcome)
        await everything_is_free(world, number)
    assert ends == {NOTHING, RELEASED}


@pytest.mark.parametrize("lost", ["", "commit_attempt", "correct_attempt"])
async def test_a_commit_and_its_correction_agree_in_every_order(world: World, lost: str) -> None:
    ends = set()
    for order in orders(6, 4):
        world.clock.now += timedelta(milliseconds=1)
        ends.add(await committed_and_corrected(world, order, {lost}, insured=False))
    assert ends == {NOTHING, RELEASED}


@pytest.mark.parametrize("lost", LOSSES, ids=lambda lost: "".join(lost) or "nothing lost")
async def test_a_correction_at_any_step_of_an_insured_commit_sets_the_money_free(
    world: World, lost: set[str]
) -> None:
    for step in range(10):
        world.clock.now += timedelta(milliseconds=1)
        await committed_and_corrected(world, (0,) * step + (1,) * 4, lost, insured=True)


async def committed_and_corrected(
    world: World, order: tuple[int, ...], lost: set[str], *, insured: bool
) -> attempt_pb2.CorrectionOutcome.ValueType:
    """A commit and its correction taking turns; what it came to. Nothing is left of either."""
    number, code = await world.issue(HOME, PAYER)
    attempt = await world.claim(DISPENSING, code)
    amounts = await world.quote(DISPENSING, attempt) if insured else None
    commit = world.commit_request(DISPENSING, attempt, amounts)
    correction = of(world, number, commit)
    world.losing = set(lost)
    in_turns(order, world.commit(DISPENSING, commit), world.correct(DISPENSING, correction))
    world.losing = set()
    assert await settling.undecided(world.platforms[DISPENSING].exchange, 10) == []
    with pytest.raises(Refusal):
        await world.record(DISPENSING, world.record_request(DISPENSING, commit.commitment))
    decided = await world.correct(DISPENSING, correction)
    if decided.outcome == NOTHING:
        await world.release(DISPENSING, attempt)
    await everything_is_free(world, number)
    return decided.outcome


async def test_a_record_and_a_correction_agree_in_every_order(world: World) -> None:
    """Either the handover is booked and paid, or nothing was handed over; never half of each."""
    for order in orders(2, 6):
        number, code = await world.issue(HOME, PAYER)
        attempt, commit = await committing(world, code)
        await world.commit(DISPENSING, commit)
        record = world.record_request(DISPENSING, commit.commitment)
        correction = of(world, number, commit)
        recorded, _ = in_turns(
            order, world.record(DISPENSING, record), world.correct(DISPENSING, correction)
        )
        decided = await world.correct(DISPENSING, correction)
        await world.settle()
        dispensed = (await world.status(number)).lines[0].dispensed
        if isinstance(recorded, Refusal):
            assert (decided.outcome, dispensed) == (RELEASED, 0)
        else:
            assert (decided.outcome, dispensed) == (DISPENSED, 20)
            progress = (await world.progress(DISPENSING, attempt)).progress
            assert progress.state == dispense_pb2.DispenseProgress.STATE_COMPLETED
        assert await world.dead_events(DISPENSING) == []
        await world.change_person(PAYER, used_cap_fen=0, used_deductible_fen=9_000,
                                  own_account_fen=500, family_accounts_fen=(300,))  # fmt: skip


# claims that are not fresh


async def test_a_claim_that_was_kept_cannot_be_used_later(world: World) -> None:
    number, code = await world.issue(HOME, PAYER)
    request = world.claim_request(DISPENSING, code)
    attempt = await claim(world, request)
    await world.release(DISPENSING, attempt)
    request.request_id = world.request_id()
    world.clock.now += CLAIM_FRESHNESS
    assert (await claim(world, request)).fence == 2
    world.clock.now += timedelta(seconds=1)
    assert (await world.status(number)).live_attempt.fence == 2
    request.request_id = world.request_id()
    with pytest.raises(Refusal) as refused:
        await claim(world, request)
    assert refused.value.reason is Reason.FIELD_INVALID
    assert refused.value.detail["field"] == "claim.signatures.sign_time"


async def test_a_claim_whose_answer_was_lost_is_found_again_however_late(world: World) -> None:
    _, code = await world.issue(HOME, PAYER)
    request = world.claim_request(DISPENSING, code)
    world.losing = {"grant_claim"}
    with pytest.raises(Unavailable):
        await claim(world, request)
    world.clock.now += timedelta(hours=2)
    assert (await claim(world, request)).fence == 1
