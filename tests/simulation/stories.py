"""Short exchanges over three regions in one process, each told to its end and then checked.

A story is a few calls in a fixed order, with one thing in it that rarely happens by chance: a
client that uses an id again, two pharmacies that hold the same box, a pharmacy that records what it
has let go. What the regions then hold, and what the clients heard, is held to all invariants. Where
the federation has to refuse, the story goes on as somebody would who was not refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, timedelta
from typing import Any, TypeVar

from google.protobuf.message import Message

from rxoutflow.statements import StatementError
from rxoutflow.v1 import attempt_pb2, dispense_pb2, pharmacy_service_pb2
from rxoutflow.v1.administration_service_pb2 import ListOverdueAttemptsRequest
from rxoutflow.v1.evidence_pb2 import EvidenceBundle
from rxoutflow.v1.home_service_pb2 import CommitAttemptRequest
from rxoutflow.v1.supervision_service_pb2 import ExportEvidenceRequest
from rxoutflow_server.application import administration
from rxoutflow_server.application.dispensing import claims, records, returns, settling
from rxoutflow_server.application.log import showing
from rxoutflow_server.application.ports import Transaction
from rxoutflow_server.domain.errors import Reason, Refusal, Unavailable
from rxoutflow_server.domain.tariff import PersonType
from rxoutflow_server.platform import tasks
from rxoutflow_server.storage.tables.transaction import PlatformTables
from support.adjudications import adjudicate, decision, silent
from support.history import Call, Kind, Recorder, Revocation, Status
from support.invariants import (
    Answer,
    RegionRecords,
    check_accumulators,
    check_adjudicated,
    check_always,
    check_chains,
    check_nothing_lost,
    check_quiescent,
    read_region,
    reversed_amounts,
)
from support.invariants.money import own_reversals
from support.world import World, content_of, person

REGIONS = HOME, DISPENSING, PAYER = "350200", "350500", "320600"
DISPENSING_ERROR = dispense_pb2.DispenseReturn.CAUSE_DISPENSING_ERROR
QUALITY = dispense_pb2.DispenseReturn.CAUSE_QUALITY
PHARMACY = "/rxoutflow.v1.PharmacyService"

R = TypeVar("R", bound=Message)
Story = Callable[["Teller"], Awaitable[None]]


class Teller:
    """Acts for pharmacies and the hospital, and keeps what they heard."""

    def __init__(self) -> None:
        self.world = World.create(*REGIONS, registrars=REGIONS)
        self.opening = {code: person() for code in self.world.platforms}
        self.answers: list[Answer] = []
        self.recorder = Recorder(lambda: self.world.clock.now.timestamp())

    def pause(self, seconds: float = 1.0) -> None:
        """Let time pass."""
        self.world.clock.now += timedelta(seconds=seconds)

    async def issue(self, payer: str = PAYER, quantity: int = 20) -> str:
        """Issue a prescription of one line; its pickup code."""
        number, code = await self.world.issue(HOME, payer, quantity=quantity)
        self.recorder.registered(number, {1: quantity})
        self.pause()
        return code

    async def claim(self, pharmacy: str, code: str, **changes: Any) -> attempt_pb2.Attempt:
        """Claim."""
        request = self.world.claim_request(pharmacy, code, **changes)
        call = self._call(Kind.CLAIM, pharmacy, code.partition(".")[0], request)
        response = await self._heard(call, pharmacy, "ClaimPrescription", claims.claim, request)
        attempt = content_of(response.attempt, attempt_pb2.Attempt)
        call.ok(
            attempt=attempt.attempt_id,
            fence=attempt.fence,
            lines={line.line_id: line.quantity for line in attempt.lines},
            until=attempt.lease_expire_time.ToDatetime(UTC).timestamp(),
        )
        self.pause()
        return attempt

    async def commit(
        self, pharmacy: str, attempt: attempt_pb2.Attempt, **changes: Any
    ) -> pharmacy_service_pb2.CommitClaimRequest:
        """Quote and commit; the request."""
        amounts = await self.world.quote(pharmacy, attempt)
        request = self.world.commit_request(pharmacy, attempt, amounts, **changes)
        await self.send_commit(pharmacy, request)
        return request

    async def send_commit(
        self, pharmacy: str, request: pharmacy_service_pb2.CommitClaimRequest
    ) -> None:
        """Commit, with a request that was made before."""
        content = content_of(request.commitment, attempt_pb2.Commitment)
        call = self._call(
            Kind.COMMIT,
            pharmacy,
            content.prescription_number,
            request,
            attempt=content.attempt_id,
            lines={line.line_id: line.quantity for line in content.lines},
            settlement=content.settlement_id,
        )
        await self._heard(call, pharmacy, "CommitClaim", settling.commit, request)
        call.ok()
        self.pause()

    async def release(self, pharmacy: str, attempt: attempt_pb2.Attempt) -> None:
        """Let go."""
        content = attempt_pb2.ClaimRelease(
            prescription_number=attempt.prescription_number,
            attempt_id=attempt.attempt_id,
            fence=attempt.fence,
            pharmacy_code=attempt.pharmacy_code,
            reason="the patient went away",
        )
        request = pharmacy_service_pb2.ReleaseClaimRequest(
            request_id=self.world.request_id(), release=self.world.signed(pharmacy, content)
        )
        number = attempt.prescription_number
        call = self._call(Kind.RELEASE, pharmacy, number, request, attempt=attempt.attempt_id)
        await self._heard(call, pharmacy, "ReleaseClaim", claims.release, request)
        call.ok()
        self.pause()

    async def record(
        self,
        pharmacy: str,
        committed: pharmacy_service_pb2.CommitClaimRequest,
        box: str = "",
        **changes: Any,
    ) -> pharmacy_service_pb2.RecordDispenseRequest:
        """Hand over and record it; of the box with this trace code, if it matters."""
        request = self.world.record_request(pharmacy, committed.commitment, **changes)
        if box:
            content = content_of(request.dispense_record, dispense_pb2.DispenseRecord)
            content.lines[0].trace_codes[0].code = box
            request.dispense_record.CopyFrom(self.world.signed(pharmacy, content))
        content = content_of(request.dispense_record, dispense_pb2.DispenseRecord)
        number, attempt_id = content.prescription_number, content.attempt_id
        call = self._call(Kind.DISPENSE, pharmacy, number, request, attempt=attempt_id)
        command = records.record_dispense
        await self._heard(call, pharmacy, "RecordDispense", command, request)
        call.ok()
        self.pause()
        return request

    async def fill(
        self, pharmacy: str, code: str, box: str = ""
    ) -> pharmacy_service_pb2.RecordDispenseRequest:
        """The whole way of a pharmacy."""
        attempt = await self.claim(pharmacy, code)
        return await self.record(pharmacy, await self.commit(pharmacy, attempt), box)

    async def take_back(
        self,
        pharmacy: str,
        recorded: pharmacy_service_pb2.RecordDispenseRequest,
        quantity: int,
        cause: dispense_pb2.DispenseReturn.Cause.ValueType,
        *boxes: str,
    ) -> None:
        """Medicine of a handover comes back, with these boxes."""
        record = content_of(recorded.dispense_record, dispense_pb2.DispenseRecord)
        content = dispense_pb2.DispenseReturn(
            reversal_id=self.world.request_id(),
            prescription_number=record.prescription_number,
            attempt_id=record.attempt_id,
            pharmacy_code=record.pharmacy_code,
            settlement_id=record.settlement_id,
            cause=cause,
            lines=[dispense_pb2.ReturnedLine(line_id=1, quantity=quantity, trace_codes=boxes)],
            reason="the parcel came back",
        )
        content.return_time.FromDatetime(self.world.clock.now)
        request = pharmacy_service_pb2.ReturnDispenseRequest(
            request_id=self.world.request_id(),
            dispense_return=self.world.signed(pharmacy, content),
        )
        call = self._call(
            Kind.RETURN,
            pharmacy,
            record.prescription_number,
            request,
            attempt=record.attempt_id,
            lines={1: quantity},
            again=cause != dispense_pb2.DispenseReturn.CAUSE_PATIENT,
        )
        command = self._in_one_transaction(pharmacy, returns.take_back)
        await self._heard(call, pharmacy, "ReturnDispense", command, request)
        call.ok()
        self.pause()

    async def revoke(self, code: str) -> None:
        """The hospital takes its prescription back."""
        number = code.partition(".")[0]
        call = self.recorder.begin(Kind.REVOKE, number, HOME, self.world.request_id())
        response = await self.world.revoke(number)
        call.ok(revocation=_REVOCATIONS[response.outcome])
        self.pause()

    async def look(self, code: str) -> None:
        """The hospital reads how its prescription stands."""
        number = code.partition(".")[0]
        call = self.recorder.begin(Kind.READ, number, HOME, "")
        status = await self.world.status(number)
        live = status.live_attempt
        call.ok(
            status=Status(
                live_attempt=live.attempt_id,
                committed=live.state == attempt_pb2.Attempt.STATE_COMMITTED,
                held=tuple((line.line_id, line.quantity) for line in live.lines),
                dispensed=tuple(
                    (each.line_id, each.dispensed) for each in status.lines if each.dispensed
                ),
                revoked=status.validity == status.VALIDITY_REVOKED,
            )
        )
        self.pause()

    async def change_person(self, payer: str, **changes: Any) -> None:
        """What a payer knows of the insured person from the beginning."""
        await self.world.change_person(payer, **changes)
        self.opening[payer] = replace(self.opening[payer], **changes)

    async def settle(self) -> None:
        """Every event arrives, however often it has to be sent; boxes that came back are free."""
        for _ in range(4):
            await self.world.settle()
            for platform in self.world.platforms.values():
                await tasks.finish_boxes(platform.exchange)
            self.pause(61)

    def regions(self) -> dict[str, RegionRecords]:
        """What all regions hold."""
        platforms = self.world.platforms.items()
        return {code: read_region(code, each.store.connection) for code, each in platforms}

    def exported(self, number: str) -> EvidenceBundle:
        """What the home region exports about a prescription."""
        platform = self.world.platforms[HOME]
        request = ExportEvidenceRequest(prescription_number=number)
        tables = PlatformTables(platform.store.connection)
        return showing.export(tables, platform.region, request).bundle

    @property
    def registries(self) -> dict[str, str]:
        """The pins by which anybody trusts the regions."""
        platforms = self.world.platforms.items()
        return {code: each.cast.region.registry.sha256.hex() for code, each in platforms}

    def check(self) -> None:
        """Hold all of it to the invariants.

        Raises:
            Violation: with the number of the invariant.
        """
        regions = self.regions()
        check_quiescent(regions, self.world.clock.now, self.answers)
        self.recorder.check()
        check_chains(regions[HOME], self.exported, self.registries, self.world.clock.now)
        for code, records_ in regions.items():
            (insured,) = records_.persons
            opening, settlements = self.opening[code], records_.settlements
            check_nothing_lost(opening, insured, settlements, reversed_amounts(records_))
            tariff = next(iter(self.world.platforms[code].region.tariffs))
            reversals = own_reversals(records_)
            check_accumulators(opening, settlements, tariff, lambda _: 3, reversals)

    def _in_one_transaction(self, pharmacy: str, command: Any) -> Any:
        platform = self.world.platforms[pharmacy]

        async def run(_: Any, caller: Any, request: Any) -> Any:
            return await platform.store.transact(
                lambda tx: command(tx, platform.region, caller, request)
            )

        return run

    def _call(self, kind: Kind, pharmacy: str, number: str, request: Any, **details: Any) -> Call:
        return self.recorder.begin(kind, number, pharmacy, request.request_id, **details)

    async def _heard(
        self, call: Call, pharmacy: str, method: str, command: Any, request: Any
    ) -> Any:
        """The answer, kept; a refusal is kept too, and raised."""
        platform = self.world.platforms[pharmacy]
        try:
            response = await command(platform.exchange, platform.pharmacy, request)
        except Refusal as refusal:
            call.refused(refusal.reason)
            self.pause()
            raise
        number = self.recorder.prescription_of(call)
        self.answers.append(
            Answer.of(
                pharmacy, number, platform.pharmacy, f"{PHARMACY}/{method}", request, response
            )
        )
        return response


_REVOCATIONS = {
    1: Revocation.REVOKED,
    2: Revocation.MARKED,
    3: Revocation.ALREADY_DISPENSED,
}


def told(story: Story) -> None:
    """Tell a story and check it.

    Raises:
        Violation: with the number of the invariant.
    """

    async def tell() -> None:
        teller = Teller()
        await story(teller)
        teller.check()

    asyncio.run(tell())


@contextmanager
def refused(*reasons: Reason) -> Iterator[None]:
    """What the federation refuses, the story does without."""
    try:
        yield
    except Refusal as refusal:
        if refusal.reason not in reasons:
            raise


# --- the stories ------------------------------------------------------------------------------


async def an_ordinary_day(teller: Teller) -> None:
    """One is filled, one released after its commit, one revoked, one left to its lease."""
    await teller.fill(DISPENSING, await teller.issue())
    code = await teller.issue()
    attempt = await teller.claim(DISPENSING, code)
    await teller.commit(DISPENSING, attempt)
    await teller.release(DISPENSING, attempt)
    await teller.settle()
    await teller.fill(PAYER, code)
    await teller.revoke(await teller.issue())
    await teller.claim(DISPENSING, await teller.issue())
    teller.pause(3600)
    await teller.world.expire_leases(HOME)
    await teller.settle()


async def a_whole_year(teller: Teller) -> None:
    """A retired person's prescriptions until the cap is reached; some are given up on the way."""
    await teller.change_person(PAYER, person_type=PersonType.RETIRED)
    for index, quantity in enumerate((7, 333, 20, 400, 9, 500, 31)):
        code = await teller.issue(quantity=quantity)
        attempt = await teller.claim(DISPENSING, code)
        committed = await teller.commit(DISPENSING, attempt)
        if index % 3 == 2:
            await teller.release(DISPENSING, attempt)
        else:
            await teller.record(DISPENSING, committed)
        await teller.settle()


async def two_quotes_before_two_commits(teller: Teller) -> None:
    """Two pharmacies have quoted for one person before either commits."""
    first = await teller.claim(DISPENSING, await teller.issue())
    second = await teller.claim(PAYER, await teller.issue())
    one = await teller.world.quote(DISPENSING, first)
    other = await teller.world.quote(PAYER, second)
    request = teller.world.commit_request(DISPENSING, first, one)
    await teller.send_commit(DISPENSING, request)
    await teller.record(DISPENSING, request)
    late = teller.world.commit_request(PAYER, second, other)
    with refused(Reason.QUOTE_CHANGED):
        await teller.send_commit(PAYER, late)
        await teller.record(PAYER, late)
    await _release_what_is_reserved(teller, PAYER, second)
    await teller.settle()


async def an_id_used_for_another_request(teller: Teller) -> None:
    """A client's fault: a new claim under the id of an earlier one."""
    code = await teller.issue()
    request = teller.world.request_id()
    await teller.claim(DISPENSING, code, request_id=request)
    with refused(Reason.REQUEST_ID_REUSED):
        await teller.claim(DISPENSING, code, request_id=request)
    teller.pause(3600)
    await teller.world.expire_leases(HOME)
    await teller.settle()


async def a_request_repeated_much_later(teller: Teller) -> None:
    """A day later a pharmacy asks again what it committed, with the same request."""
    attempt = await teller.claim(DISPENSING, await teller.issue())
    committed = await teller.commit(DISPENSING, attempt)
    await teller.record(DISPENSING, committed)
    teller.pause(3600)
    await teller.settle()
    with refused(Reason.ATTEMPT_ENDED):
        await teller.send_commit(DISPENSING, committed)
    await teller.settle()


async def one_box_in_two_regions(teller: Teller) -> None:
    """Two pharmacies, each in its own region, sell the box with the same code."""
    box = teller.world.trace_code()
    await teller.fill(DISPENSING, await teller.issue(), box)
    await teller.settle()
    await _sell_again(teller, PAYER, box)


async def one_box_in_one_region(teller: Teller) -> None:
    """One pharmacy sells a box twice."""
    box = teller.world.trace_code()
    await teller.fill(DISPENSING, await teller.issue(), box)
    await teller.settle()
    await _sell_again(teller, DISPENSING, box)


async def one_box_in_another_spelling(teller: Teller) -> None:
    """A scanner's software writes the code of a box in full-width digits the second time."""
    box = teller.world.trace_code()
    await teller.fill(DISPENSING, await teller.issue(), box)
    await teller.settle()
    await _sell_again(teller, DISPENSING, "".join(chr(ord(each) + 0xFEE0) for each in box))


async def _sell_again(teller: Teller, pharmacy: str, box: str) -> None:
    attempt = await teller.claim(pharmacy, await teller.issue())
    committed = await teller.commit(pharmacy, attempt)
    with refused(Reason.TRACE_CODE_ALREADY_SOLD, Reason.FIELD_INVALID, Reason.TRACE_CODE_MISSING):
        await teller.record(pharmacy, committed, box)
    await _release_what_is_reserved(teller, pharmacy, attempt)
    await teller.settle()


async def a_record_after_the_release(teller: Teller) -> None:
    """A pharmacy lets go, and records the handover all the same."""
    attempt = await teller.claim(DISPENSING, await teller.issue())
    committed = await teller.commit(DISPENSING, attempt)
    await teller.release(DISPENSING, attempt)
    with refused(Reason.ATTEMPT_ENDED):
        await teller.record(DISPENSING, committed)
    with suppress(AssertionError):
        await teller.settle()


async def a_release_after_the_record(teller: Teller) -> None:
    """One till records the handover, and another one of the same pharmacy lets go."""
    attempt = await teller.claim(DISPENSING, await teller.issue())
    await teller.record(DISPENSING, await teller.commit(DISPENSING, attempt))
    with refused(Reason.ATTEMPT_ENDED):
        await teller.release(DISPENSING, attempt)
    await teller.settle()


async def a_commit_without_a_hold(teller: Teller) -> None:
    """A platform asks home to commit and has not asked the payer to hold."""
    attempt = await teller.claim(DISPENSING, await teller.issue())
    amounts = await teller.world.quote(DISPENSING, attempt)
    asked = teller.world.commit_request(DISPENSING, attempt, amounts)
    request = CommitAttemptRequest(request_id=asked.request_id, commitment=asked.commitment)
    platform = teller.world.platforms[DISPENSING].cast.region.platform
    with suppress(StatementError):
        await teller.world.platforms[HOME].desk.commit_attempt(platform, request)
        await teller.settle()
        return
    await _release_what_is_reserved(teller, DISPENSING, attempt)
    await teller.settle()


async def the_record_arrives_first(teller: Teller) -> None:
    """The payer hears of the handover from the pharmacy's region, while home is out of reach."""
    await teller.fill(DISPENSING, await teller.issue())
    teller.world.unreachable.add(HOME)
    await teller.world.deliver_from(DISPENSING)
    check_always(teller.regions(), teller.answers)
    teller.world.unreachable.clear()
    teller.pause(61)
    await teller.settle()


async def a_part_comes_back_and_then_the_rest(teller: Teller) -> None:
    """A parcel comes back in two halves, and the prescription is filled again."""
    code = await teller.issue()
    recorded = await teller.fill(DISPENSING, code)
    await teller.settle()
    for _ in range(2):
        await teller.take_back(DISPENSING, recorded, 10, DISPENSING_ERROR)
    await teller.settle()
    await teller.fill(PAYER, code)
    await teller.settle()


async def more_comes_back_than_was_handed_over(teller: Teller) -> None:
    """A pharmacy takes everything back, and then a part of it once more."""
    recorded = await teller.fill(DISPENSING, await teller.issue())
    await teller.settle()
    await teller.take_back(DISPENSING, recorded, 20, DISPENSING_ERROR)
    with refused(Reason.RETURN_EXCEEDED):
        await teller.take_back(DISPENSING, recorded, 10, DISPENSING_ERROR)
    await teller.settle()


async def a_defective_box_comes_back(teller: Teller) -> None:
    """A box was recalled after the handover; somebody puts it on the shelf again."""
    box = teller.world.trace_code()
    recorded = await teller.fill(DISPENSING, await teller.issue(), box)
    await teller.settle()
    await teller.take_back(DISPENSING, recorded, 20, QUALITY, box)
    await teller.settle()
    await _sell_again(teller, DISPENSING, box)


async def the_return_arrives_first(teller: Teller) -> None:
    """The payer hears of a return before home has told it of the handover."""
    recorded = await teller.fill(DISPENSING, await teller.issue())
    await teller.take_back(DISPENSING, recorded, 20, DISPENSING_ERROR)
    teller.world.unreachable.add(HOME)
    await teller.world.deliver_from(DISPENSING)
    teller.world.unreachable.clear()
    teller.pause(61)
    await teller.settle()


async def one_person_decides(teller: Teller) -> None:
    """A pharmacy falls silent, and an adjudicator signs for both that are needed."""
    case = await silent(teller.world)
    home = teller.world.platforms[HOME]
    teller.pause(2 * home.region.overdue.total_seconds())
    one = home.cast.adjudicator
    alone = decision(teller.world, case.attempt, handed_over=False, people=(one, one))
    with suppress(StatementError):
        await adjudicate(teller.world, alone)
    await teller.settle()


async def a_pharmacy_falls_silent(teller: Teller) -> None:
    """It is on the list of those on whom two people have to decide; and they do."""
    case = await silent(teller.world)
    home = teller.world.platforms[HOME]
    teller.pause(2 * home.region.overdue.total_seconds())
    request = ListOverdueAttemptsRequest()
    overdue = await home.store.read(
        lambda tx: administration.list_overdue(tx, home.region, request)
    )
    listed = [content_of(each.attempt, attempt_pb2.Attempt) for each in overdue.attempts]
    check_adjudicated(
        teller.regions()[HOME],
        teller.world.clock.now,
        home.region.overdue,
        {each.attempt_id for each in listed},
    )
    await adjudicate(teller.world, decision(teller.world, case.attempt, handed_over=True))
    await teller.settle()


async def a_commit_with_a_wrong_fence(teller: Teller) -> None:
    """A pharmacy commits its attempt under a fence that it never got."""
    attempt = await teller.claim(DISPENSING, await teller.issue())
    with refused(Reason.FENCE_STALE):
        committed = await teller.commit(DISPENSING, attempt, fence=attempt.fence + 1)
        await teller.record(DISPENSING, committed, fence=attempt.fence + 1)
        raise AssertionError("I2: a fence that was never given was good for a handover")
    await _release_what_is_reserved(teller, DISPENSING, attempt)
    await teller.settle()


async def a_retry_under_a_new_settlement(teller: Teller) -> None:
    """The answer to a commit is lost, and the pharmacy's system makes a new one of it."""
    attempt = await teller.claim(DISPENSING, await teller.issue())
    amounts = await teller.world.quote(DISPENSING, attempt)
    first = teller.world.commit_request(DISPENSING, attempt, amounts)
    teller.world.losing = {"commit_attempt"}
    with suppress(Unavailable):
        await teller.send_commit(DISPENSING, first)
    teller.pause()
    again = teller.world.commit_request(
        DISPENSING, attempt, await teller.world.quote(DISPENSING, attempt)
    )
    with refused(Reason.ATTEMPT_ALREADY_COMMITTED):
        await teller.send_commit(DISPENSING, again)
    teller.pause()
    await teller.send_commit(DISPENSING, first)
    await teller.settle()


async def a_region_that_is_too_busy(teller: Teller) -> None:
    """The payer is overloaded when it hears of the handover, and is not any more later."""
    await teller.fill(DISPENSING, await teller.issue())
    store = teller.world.platforms[PAYER].store
    honest = store.transact

    async def overloaded(command: Callable[[Transaction], Any]) -> Any:
        raise Refusal(Reason.OVERLOADED, "too much work")

    store.transact = overloaded  # type: ignore[method-assign] # for a while
    await teller.world.settle()
    store.transact = honest  # type: ignore[method-assign]
    teller.pause(61)
    await teller.settle()


async def a_read_after_each_step(teller: Teller) -> None:
    """The hospital looks after everything that was acknowledged."""
    code = await teller.issue()
    attempt = await teller.claim(DISPENSING, code)
    await teller.look(code)
    committed = await teller.commit(DISPENSING, attempt)
    await teller.look(code)
    await teller.record(DISPENSING, committed)
    await teller.settle()
    await teller.look(code)


async def _release_what_is_reserved(
    teller: Teller, pharmacy: str, attempt: attempt_pb2.Attempt
) -> None:
    """So that nothing stays under way that was refused."""
    with refused(Reason.ATTEMPT_ENDED):
        await teller.release(pharmacy, attempt)


STORIES: tuple[Story, ...] = (
    an_ordinary_day,
    a_whole_year,
    two_quotes_before_two_commits,
    an_id_used_for_another_request,
    a_request_repeated_much_later,
    one_box_in_two_regions,
    one_box_in_one_region,
    one_box_in_another_spelling,
    a_record_after_the_release,
    a_release_after_the_record,
    a_commit_without_a_hold,
    the_record_arrives_first,
    a_part_comes_back_and_then_the_rest,
    more_comes_back_than_was_handed_over,
    a_defective_box_comes_back,
    the_return_arrives_first,
    one_person_decides,
    a_pharmacy_falls_silent,
    a_commit_with_a_wrong_fence,
    a_retry_under_a_new_settlement,
    a_region_that_is_too_busy,
    a_read_after_each_step,
)
"""All of them."""
