"""The edge of a pharmacy: what its systems may rely on before anything crosses the counter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from google.protobuf.message import Message

from rxoutflow.numbers import PickupCode, PrescriptionNumber
from rxoutflow.statements import (
    SignatureInvalid,
    SignatureMissing,
    Verifier,
    new_statement,
    statement_sha256,
)
from rxoutflow.v1.attempt_pb2 import (
    CORRECTION_OUTCOME_ALREADY_DISPENSED,
    CORRECTION_OUTCOME_NOTHING_TO_UNDO,
    CORRECTION_OUTCOME_RELEASED,
    Attempt,
    Claim,
    ClaimRelease,
    Collector,
    Commitment,
    Correction,
    CorrectionOutcome,
)
from rxoutflow.v1.dispense_pb2 import DispenseProgress, DispenseRecord
from rxoutflow.v1.notice_pb2 import Notice
from rxoutflow.v1.pharmacy_service_pb2 import (
    ClaimPrescriptionRequest,
    CommitClaimRequest,
    CorrectCallRequest,
    CorrectCallResponse,
    FindPrescriptionResponse,
    RecordDispenseRequest,
)
from rxoutflow.v1.pos_service_pb2 import (
    PosServiceClaimPrescriptionRequest,
    PosServiceClaimPrescriptionResponse,
    PosServiceCommitClaimRequest,
    PosServiceCorrectCallRequest,
    PosServiceFindPrescriptionRequest,
    PosServiceGetOutcomeRequest,
    PosServiceRecordDispenseRequest,
    PosServiceRecordDispenseResponse,
    PosServiceReleaseClaimRequest,
)
from rxoutflow.v1.prescription_pb2 import Prescription
from rxoutflow.v1.prescription_status_pb2 import PrescriptionStatus
from rxoutflow.v1.settlement_pb2 import (
    SETTLEMENT_MODE_INSURANCE,
    SETTLEMENT_MODE_SELF_PAY,
    Amounts,
)
from rxoutflow.v1.statement_pb2 import SIGNER_ROLE_DISPENSER, SignedStatement
from rxoutflow_server.application.edge import delivery, handovers, pharmacy
from rxoutflow_server.application.edge.surroundings import Edge
from rxoutflow_server.domain.errors import Reason, Refusal, Unavailable
from support.edges import (
    FakePharmacyPlatform,
    Line,
    Rounds,
    by_people,
    bytes_of,
    edge_of,
    fresh_number,
    prescription,
    request_id,
    with_seal,
)
from support.pki import NOW
from support.sheets import Cast

SECRET = "0123456789ABCDEF"
HELD = Refusal(Reason.PRESCRIPTION_HELD, "another pharmacy holds it", holder_name="P")
ALREADY_SOLD = Refusal(Reason.TRACE_CODE_ALREADY_SOLD, "line 1: sold before", line_id="1")
AMOUNTS = Amounts(total_fen=1000, pool_fen=700, person_fen=300)


@dataclass
class Site:
    """A pharmacy's edge and the platform at the other end of its line."""

    cast: Cast
    edge: Edge
    line: Line
    platform: FakePharmacyPlatform
    number: str

    @property
    def pickup_code(self) -> str:
        return str(PickupCode(PrescriptionNumber.parse(self.number), SECRET))

    def register(self, content: Prescription) -> FindPrescriptionResponse:
        """What the platform answers when this prescription is opened."""
        sheet = with_seal(self.cast, content)
        status = PrescriptionStatus(
            prescription_number=content.prescription_number,
            version=1,
            prescription_sha256=statement_sha256(sheet),
        )
        self.platform.opened = FindPrescriptionResponse(
            prescription=sheet, status=self.platform.signed(status)
        )
        return self.platform.opened

    async def find(self) -> SignedStatement:
        request = PosServiceFindPrescriptionRequest(pickup_code=self.pickup_code)
        return (await pharmacy.find(self.edge, self.platform, request)).prescription

    def claim(self) -> PosServiceClaimPrescriptionRequest:
        content = Claim(
            prescription_number=self.number,
            pharmacy_code=self.edge.code,
            collector=Collector(kind=Collector.KIND_PATIENT),
        )
        return PosServiceClaimPrescriptionRequest(
            request_id=request_id(),
            claim=by_people(self.cast, content),
            pickup_code=self.pickup_code,
        )

    def commitment(self, *, insured: bool = True) -> PosServiceCommitClaimRequest:
        content = Commitment(
            prescription_number=self.number,
            attempt_id=self.platform.attempt.attempt_id,
            fence=1,
            pharmacy_code=self.edge.code,
            settlement_id=request_id(),
            mode=SETTLEMENT_MODE_INSURANCE if insured else SETTLEMENT_MODE_SELF_PAY,
            accepted_amounts=AMOUNTS if insured else None,
        )
        content.lines.add(line_id=1, drug_code="X", quantity=1, unit_price_micro_yuan=1)
        self.platform.attempt.state = Attempt.STATE_COMMITTED
        settlement = self.platform.settlement
        settlement.prescription_number = self.number
        settlement.attempt_id, settlement.settlement_id = content.attempt_id, content.settlement_id
        settlement.amounts.CopyFrom(AMOUNTS)
        return PosServiceCommitClaimRequest(
            request_id=request_id(), commitment=by_people(self.cast, content)
        )

    def record(self, batch: str = "B1") -> PosServiceRecordDispenseRequest:
        content = DispenseRecord(
            prescription_number=self.number,
            attempt_id=self.platform.attempt.attempt_id,
            fence=1,
            pharmacy_code=self.edge.code,
            settlement_id="S",
        )
        content.dispense_time.FromDatetime(NOW)
        content.lines.add(line_id=1, drug_code="X", quantity=1, batch_numbers=[batch])
        return PosServiceRecordDispenseRequest(
            request_id=request_id(), dispense_record=by_people(self.cast, content)
        )

    async def hand_over(
        self, request: PosServiceRecordDispenseRequest
    ) -> PosServiceRecordDispenseResponse:
        return await handovers.record(self.edge, self.platform, request)

    async def outcome(self, asked: str) -> Message:
        request = PosServiceGetOutcomeRequest(prescription_number=self.number, request_id=asked)
        found = await self.edge.store.read(lambda tx: pharmacy.get_outcome(tx, self.edge, request))
        response = PosServiceRecordDispenseResponse()
        if not found.outcome.response.Unpack(response):
            claimed = PosServiceClaimPrescriptionResponse()
            assert found.outcome.response.Unpack(claimed)
            return claimed
        return response


@pytest.fixture(scope="module")
def cast() -> Cast:
    return Cast.create()


@pytest.fixture
async def site(cast: Cast, tmp_path: Path) -> AsyncIterator[Site]:
    line = Line(cast.region.code)
    async with edge_of(cast, cast.pharmacy, cast.pharmacy_seal, tmp_path) as edge:
        platform = FakePharmacyPlatform(cast, line)
        yield Site(cast, edge, line, platform, fresh_number(cast))


async def test_a_prescription_is_shown_only_with_its_three_signatures(site: Site) -> None:
    opened = site.register(prescription(site.cast, site.number))
    assert await site.find() == opened.prescription
    del opened.prescription.signatures[2]
    with pytest.raises(SignatureMissing):
        await site.find()


async def test_a_prescription_that_was_changed_on_the_way_is_not_shown(site: Site) -> None:
    opened = site.register(prescription(site.cast, site.number))
    content = Prescription.FromString(opened.prescription.payload)
    content.lines[0].quantity += 1
    opened.prescription.payload = content.SerializeToString(deterministic=True)
    with pytest.raises(SignatureInvalid):
        await site.find()


async def test_another_prescription_than_was_asked_for_is_not_shown(site: Site) -> None:
    asked = site.register(prescription(site.cast, site.number))
    other = with_seal(site.cast, prescription(site.cast))
    asked.prescription.CopyFrom(other)
    with pytest.raises(Refusal) as refused:
        await site.find()
    assert refused.value.reason is Reason.SIGNED_CONTENT_MISMATCH


async def test_a_status_that_vouches_for_another_prescription_is_no_way_in(site: Site) -> None:
    other = site.register(prescription(site.cast))
    status = PrescriptionStatus.FromString(other.status.payload)
    status.prescription_number = site.number
    other.status.CopyFrom(site.platform.signed(status))
    with pytest.raises(Refusal) as refused:
        await site.find()
    assert refused.value.reason is Reason.SIGNED_CONTENT_MISMATCH


async def test_another_version_of_the_sheet_than_is_registered_is_not_shown(site: Site) -> None:
    opened = site.register(prescription(site.cast, site.number))
    changed = prescription(site.cast, site.number)
    changed.lines[0].quantity += 1
    opened.prescription.CopyFrom(with_seal(site.cast, changed))
    with pytest.raises(Refusal) as refused:
        await site.find()
    assert refused.value.reason is Reason.SIGNED_CONTENT_MISMATCH


async def test_a_mistyped_pickup_code_is_not_sent(site: Site) -> None:
    request = site.claim()
    digit = "1" if site.number[-1] != "1" else "2"
    request.pickup_code = f"{site.number[:-1]}{digit}.{SECRET}"
    with pytest.raises(Refusal) as refused:
        await pharmacy.claim(site.edge, site.platform, request)
    assert refused.value.reason is Reason.PICKUP_CODE_INVALID
    assert site.line.calls == []


async def test_a_claim_is_sealed_and_its_answer_kept(site: Site) -> None:
    request = site.claim()
    answer = await pharmacy.claim(site.edge, site.platform, request)
    (sent,) = site.line.of(ClaimPrescriptionRequest)
    assert isinstance(sent, ClaimPrescriptionRequest)
    verified = Verifier(site.cast.trust()).verify(sent.claim, Claim, NOW)
    assert [signer.institution_code for signer in verified.signers] == [site.edge.code] * 2
    assert (sent.request_id, sent.pickup_code) == (request.request_id, site.pickup_code)
    site.line.up = False
    assert bytes_of(await pharmacy.claim(site.edge, site.platform, request)) == bytes_of(answer)
    assert await site.outcome(request.request_id) == answer


async def test_a_claim_whose_answer_was_lost_is_repeated_with_the_same_bytes(site: Site) -> None:
    request = site.claim()
    site.line.loses_answers = True
    with pytest.raises(Unavailable) as lost:
        await pharmacy.claim(site.edge, site.platform, request)
    assert lost.value.reason is Reason.PEER_UNAVAILABLE
    site.line.loses_answers = False
    await pharmacy.claim(site.edge, site.platform, request)
    first, second = site.line.of(ClaimPrescriptionRequest)
    assert bytes_of(first) == bytes_of(second)


async def test_a_refused_claim_is_asked_anew_when_it_is_repeated(site: Site) -> None:
    request = site.claim()
    site.line.refuses = HELD
    with pytest.raises(Refusal, match="holds it"):
        await pharmacy.claim(site.edge, site.platform, request)
    with pytest.raises(Refusal, match="nothing is stored"):
        await site.outcome(request.request_id)
    site.line.refuses = None
    assert (await pharmacy.claim(site.edge, site.platform, request)).HasField("attempt")


async def test_a_request_id_is_not_used_for_two_claims(site: Site) -> None:
    first, second = site.claim(), site.claim()
    second.request_id = first.request_id
    await pharmacy.claim(site.edge, site.platform, first)
    with pytest.raises(Refusal) as refused:
        await pharmacy.claim(site.edge, site.platform, second)
    assert refused.value.reason is Reason.REQUEST_ID_REUSED


async def test_another_pharmacys_claim_is_not_sealed(
    site: Site, cast: Cast, tmp_path: Path
) -> None:
    other = cast.region.pharmacy()
    seal = cast.region.seal(other)
    folder = tmp_path / "other"
    folder.mkdir()
    async with edge_of(cast, other, seal, folder) as edge:
        with pytest.raises(Refusal, match="another institution"):
            await pharmacy.claim(edge, site.platform, site.claim())
    assert site.line.calls == []


async def test_a_dispenser_may_claim_but_not_commit(site: Site) -> None:
    claim, commitment = site.claim(), site.commitment()
    signer = site.cast.dispenser.signer
    claimed = Claim.FromString(claim.claim.payload)
    committed = Commitment.FromString(commitment.commitment.payload)
    claim.claim.CopyFrom(new_statement(claimed, signer, SIGNER_ROLE_DISPENSER, NOW))
    commitment.commitment.CopyFrom(new_statement(committed, signer, SIGNER_ROLE_DISPENSER, NOW))
    await pharmacy.claim(site.edge, site.platform, claim)
    with pytest.raises(SignatureMissing):
        await pharmacy.commit(site.edge, site.platform, commitment)


async def test_letting_go_is_answered_by_the_ended_attempt(site: Site) -> None:
    content = ClaimRelease(
        prescription_number=site.number,
        attempt_id=site.platform.attempt.attempt_id,
        fence=1,
        pharmacy_code=site.edge.code,
        reason="patient left",
    )
    request = PosServiceReleaseClaimRequest(
        request_id=request_id(), release=by_people(site.cast, content)
    )
    answer = await pharmacy.release(site.edge, site.platform, request)
    assert Attempt.FromString(answer.attempt.payload).state == Attempt.STATE_RELEASED


def correction(site: Site, corrected_request_id: str) -> PosServiceCorrectCallRequest:
    content = Correction(
        prescription_number=site.number,
        corrected_request_id=corrected_request_id,
        pharmacy_code=site.edge.code,
        reason="the answer was lost",
    )
    return PosServiceCorrectCallRequest(
        request_id=request_id(), correction=by_people(site.cast, content)
    )


async def test_a_lost_claim_is_corrected_and_refused_ever_after(site: Site) -> None:
    claim = site.claim()
    site.line.loses_answers = True
    with pytest.raises(Unavailable):
        await pharmacy.claim(site.edge, site.platform, claim)
    site.line.loses_answers = False
    request = correction(site, claim.request_id)
    answer = await pharmacy.correct(site.edge, site.platform, request)
    assert answer.outcome == CORRECTION_OUTCOME_RELEASED
    assert Attempt.FromString(answer.attempt.payload).state == Attempt.STATE_RELEASED
    assert await pharmacy.correct(site.edge, site.platform, request) == answer
    assert len(site.line.of(CorrectCallRequest)) == 1
    for work in (
        pharmacy.claim(site.edge, site.platform, claim),
        site.outcome(claim.request_id),
    ):
        with pytest.raises(Refusal) as refused:
            await work
        assert refused.value.reason is Reason.REQUEST_CORRECTED
    assert len(site.line.of(ClaimPrescriptionRequest)) == 1


async def test_a_call_that_was_answered_keeps_its_outcome_after_a_correction(site: Site) -> None:
    claim = site.claim()
    claimed = await pharmacy.claim(site.edge, site.platform, claim)
    await pharmacy.correct(site.edge, site.platform, correction(site, claim.request_id))
    assert await pharmacy.claim(site.edge, site.platform, claim) == claimed
    assert await site.outcome(claim.request_id) == claimed


async def test_a_claim_that_is_answered_after_its_correction_is_refused(site: Site) -> None:
    claim = site.claim()
    site.line.hold = asyncio.Event()
    running = asyncio.create_task(pharmacy.claim(site.edge, site.platform, claim))
    await site.line.arrived.wait()
    late, site.line.hold = site.line.hold, None
    await pharmacy.correct(site.edge, site.platform, correction(site, claim.request_id))
    late.set()
    with pytest.raises(Refusal) as refused:
        await running
    assert refused.value.reason is Reason.REQUEST_CORRECTED


async def test_a_call_that_led_to_nothing_is_corrected_without_an_attempt(site: Site) -> None:
    answer = await pharmacy.correct(site.edge, site.platform, correction(site, request_id()))
    assert answer.outcome == CORRECTION_OUTCOME_NOTHING_TO_UNDO
    assert not answer.HasField("attempt")


async def test_a_correction_is_repeated_with_the_same_bytes(site: Site) -> None:
    request = correction(site, request_id())
    site.line.loses_answers = True
    with pytest.raises(Unavailable):
        await pharmacy.correct(site.edge, site.platform, request)
    site.line.loses_answers = False
    await pharmacy.correct(site.edge, site.platform, request)
    first, second = site.line.of(CorrectCallRequest)
    assert first == second


async def test_what_has_left_the_counter_is_told_before_anything_is_corrected(site: Site) -> None:
    commit = site.commitment()
    await pharmacy.commit(site.edge, site.platform, commit)
    site.line.up = False
    await site.hand_over(site.record())
    request = correction(site, commit.request_id)
    with pytest.raises(Unavailable):
        await pharmacy.correct(site.edge, site.platform, request)
    site.line.up = True
    await pharmacy.correct(site.edge, site.platform, request)
    *_, record, corrected = site.line.calls
    assert isinstance(record, RecordDispenseRequest)
    assert isinstance(corrected, CorrectCallRequest)


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (CORRECTION_OUTCOME_RELEASED, Attempt.STATE_COMMITTED),
        (CORRECTION_OUTCOME_ALREADY_DISPENSED, Attempt.STATE_RELEASED),
        (CORRECTION_OUTCOME_NOTHING_TO_UNDO, Attempt.STATE_RESERVED),
        (CORRECTION_OUTCOME_RELEASED, None),
    ],
)
async def test_an_outcome_that_the_attempt_contradicts_is_not_believed(
    site: Site, outcome: CorrectionOutcome.ValueType, state: Attempt.State.ValueType | None
) -> None:
    answer = CorrectCallResponse(outcome=outcome)
    if state is not None:
        site.platform.attempt.prescription_number = site.number
        site.platform.attempt.state = state
        answer.attempt.CopyFrom(site.platform.signed(site.platform.attempt))
    site.platform.corrected = lambda: answer  # type: ignore[method-assign] # a platform that lies
    with pytest.raises(Unavailable):
        await pharmacy.correct(site.edge, site.platform, correction(site, request_id()))


@pytest.mark.parametrize("insured", [True, False])
async def test_a_commit_is_permitted_by_attempt_and_settlement(
    site: Site, *, insured: bool
) -> None:
    answer = await pharmacy.commit(site.edge, site.platform, site.commitment(insured=insured))
    assert Attempt.FromString(answer.attempt.payload).state == Attempt.STATE_COMMITTED
    assert answer.HasField("settlement") is insured


def forged(platform: FakePharmacyPlatform, cast: Cast) -> None:
    platform.seal = cast.pharmacy_seal


def another_attempt(platform: FakePharmacyPlatform, _cast: Cast) -> None:
    platform.attempt.attempt_id = request_id()


def another_pharmacy(platform: FakePharmacyPlatform, _cast: Cast) -> None:
    platform.attempt.pharmacy_code = "P35020099999"


def not_committed(platform: FakePharmacyPlatform, _cast: Cast) -> None:
    platform.attempt.state = Attempt.STATE_RESERVED


def other_amounts(platform: FakePharmacyPlatform, _cast: Cast) -> None:
    platform.settlement.amounts.person_fen += 1


def another_settlement(platform: FakePharmacyPlatform, _cast: Cast) -> None:
    platform.settlement.settlement_id = request_id()


def settlement_of_another_attempt(platform: FakePharmacyPlatform, _cast: Cast) -> None:
    platform.settlement.attempt_id = request_id()


@pytest.mark.parametrize(
    "spoil",
    [
        forged,
        another_attempt,
        another_pharmacy,
        not_committed,
        other_amounts,
        another_settlement,
        settlement_of_another_attempt,
    ],
)
async def test_nothing_is_handed_over_on_an_answer_that_does_not_hold(
    site: Site, spoil: Callable[[FakePharmacyPlatform, Cast], None]
) -> None:
    request = site.commitment()
    spoil(site.platform, site.cast)
    with pytest.raises(Unavailable) as not_believed:
        await pharmacy.commit(site.edge, site.platform, request)
    assert not_believed.value.reason is Reason.PEER_UNAVAILABLE
    with pytest.raises(Refusal, match="nothing is stored"):
        await site.outcome(request.request_id)
    assert len(site.line.of(CommitClaimRequest)) == 1


async def test_a_record_is_answered_with_progress_when_the_platform_is_there(site: Site) -> None:
    answer = await site.hand_over(site.record())
    assert answer.progress.state == DispenseProgress.STATE_DISPENSED


async def test_a_record_is_accepted_while_the_platform_is_away_and_delivered_later(
    site: Site,
) -> None:
    request = site.record()
    site.line.up = False
    assert not (await site.hand_over(request)).HasField("progress")
    assert await site.outcome(request.request_id) == PosServiceRecordDispenseResponse()
    assert not await delivery.records(site.edge, site.platform)
    site.line.up = True
    assert await delivery.records(site.edge, site.platform)
    assert await delivery.records(site.edge, site.platform)
    (sent,) = site.line.of(RecordDispenseRequest)
    assert isinstance(sent, RecordDispenseRequest)
    Verifier(site.cast.trust()).verify(sent.dispense_record, DispenseRecord, NOW)
    site.line.up = False
    assert (await site.hand_over(request)).HasField("progress")


async def test_the_delivery_of_records_wakes_up_for_one_that_was_not_decided(site: Site) -> None:
    rounds = Rounds(lambda: delivery.records(site.edge, site.platform))
    loop = asyncio.create_task(delivery.keep_delivering(site.edge, rounds))
    await rounds.until(1)
    site.line.loses_answers = True
    request = site.record()
    assert not (await site.hand_over(request)).HasField("progress")
    await rounds.until(2)
    site.line.loses_answers = False
    await rounds.until_done()
    loop.cancel()
    assert (await site.outcome(request.request_id)) != PosServiceRecordDispenseResponse()


async def test_a_record_whose_answer_was_lost_is_delivered_with_the_same_bytes(
    site: Site,
) -> None:
    site.line.loses_answers = True
    await site.hand_over(site.record())
    site.line.loses_answers = False
    assert await delivery.records(site.edge, site.platform)
    first, second = site.line.of(RecordDispenseRequest)
    assert bytes_of(first) == bytes_of(second)


async def test_a_platform_that_is_too_busy_has_refused_no_record(site: Site) -> None:
    site.line.refuses = Refusal(Reason.OVERLOADED, "too much at once")
    assert not (await site.hand_over(site.record())).HasField("progress")
    site.line.refuses = None
    assert await delivery.records(site.edge, site.platform)
    assert len(site.line.of(RecordDispenseRequest)) == 2


@pytest.mark.parametrize("late", [True, False])
async def test_a_corrected_record_takes_the_place_of_a_refused_one(
    site: Site, *, late: bool
) -> None:
    wrong, right = site.record("B1"), site.record("B2")
    site.line.up, site.line.refuses = not late, ALREADY_SOLD
    if late:
        await site.hand_over(wrong)
        site.line.up = True
        assert await delivery.records(site.edge, site.platform)
    with pytest.raises(Refusal, match="sold before"):
        await site.hand_over(wrong)
    with pytest.raises(Refusal, match="nothing is stored"):
        await site.outcome(wrong.request_id)
    site.line.refuses = None
    assert (await site.hand_over(right)).HasField("progress")
    with pytest.raises(Refusal, match="nothing is stored"):
        await site.outcome(wrong.request_id)


async def test_the_pharmacy_hears_of_a_record_that_was_refused_later(site: Site) -> None:
    site.line.up = False
    request = site.record()
    await site.hand_over(request)
    site.line.up, site.line.refuses = True, ALREADY_SOLD
    assert await delivery.records(site.edge, site.platform)
    (notice,) = await site.edge.store.read(lambda tx: tx.journal.notices(site.edge.code, 0, 10))
    assert (notice.kind, notice.summary) == (
        "DISPENSE_REFUSED",
        f"{ALREADY_SOLD.reason}: {ALREADY_SOLD.message}",
    )
    assert f"KIND_{notice.kind}" in Notice.Kind.keys()  # noqa: SIM118 - an enum wrapper is no dict


async def test_two_records_of_one_handover_are_not_accepted(site: Site) -> None:
    site.line.up = False
    await site.hand_over(site.record("B1"))
    with pytest.raises(Refusal) as refused:
        await site.hand_over(site.record("B2"))
    assert refused.value.reason is Reason.DISPENSE_MISMATCH


async def test_a_record_without_a_check_is_not_accepted(site: Site) -> None:
    request = site.record()
    content = DispenseRecord.FromString(request.dispense_record.payload)
    one = by_people(site.cast, content)
    del one.signatures[2]
    request.dispense_record.CopyFrom(one)
    with pytest.raises(SignatureMissing):
        await site.hand_over(request)
    assert site.line.calls == []


async def test_steps_before_the_handover_need_the_platform(site: Site) -> None:
    site.line.up = False
    steps: list[Awaitable[object]] = [
        site.find(),
        pharmacy.claim(site.edge, site.platform, site.claim()),
        pharmacy.commit(site.edge, site.platform, site.commitment()),
    ]
    for step in steps:
        with pytest.raises(Unavailable) as away:
            await step
        assert away.value.reason is Reason.PEER_UNAVAILABLE
