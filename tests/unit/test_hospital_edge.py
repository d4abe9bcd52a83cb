"""The edge of a hospital: what its systems and its patients can rely on, whatever the line does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from rxoutflow.numbers import PickupCode
from rxoutflow.statements import (
    SignatureMissing,
    SignersNotDistinct,
    Verifier,
    new_statement,
)
from rxoutflow.v1.his_service_pb2 import (
    REGISTRATION_QUEUED,
    REGISTRATION_REFUSED,
    REGISTRATION_REGISTERED,
    REGISTRATION_WITHDRAWN,
    HisServiceGetOutcomeRequest,
    HisServiceGetPrescriptionRequest,
    HisServiceGetPrescriptionResponse,
    HisServiceRevokePrescriptionRequest,
    IssuePrescriptionRequest,
    IssuePrescriptionResponse,
    Registration,
)
from rxoutflow.v1.hospital_service_pb2 import (
    RegisterPrescriptionRequest,
    RevokePrescriptionRequest,
)
from rxoutflow.v1.notice_pb2 import Notice
from rxoutflow.v1.prescription_pb2 import Prescription
from rxoutflow.v1.prescription_status_pb2 import (
    REVOCATION_OUTCOME_ALREADY_REVOKED,
    REVOCATION_OUTCOME_NEVER_REGISTERED,
    REVOCATION_OUTCOME_REVOKED,
    PrescriptionStatus,
    Revocation,
    RevocationOutcome,
)
from rxoutflow.v1.statement_pb2 import SIGNER_ROLE_PRESCRIBER, SIGNER_ROLE_REVIEWING_PHARMACIST
from rxoutflow_server.application.edge import delivery, hospital, notices
from rxoutflow_server.application.edge.surroundings import Edge
from rxoutflow_server.domain.errors import Reason, Refusal, Unavailable
from support.edges import (
    FakeHospitalPlatform,
    Line,
    Pauses,
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

AGAINST_RULES = Refusal(Reason.PRESCRIPTION_RULE_VIOLATED, "R2: too long", rule="R2")


@dataclass
class Site:
    """A hospital's edge and the platform at the other end of its line."""

    cast: Cast
    edge: Edge
    line: Line
    platform: FakeHospitalPlatform

    def request(self, number: str = "") -> IssuePrescriptionRequest:
        statement = by_people(self.cast, prescription(self.cast, number))
        return IssuePrescriptionRequest(request_id=request_id(), prescription=statement)

    async def issue(self, request: IssuePrescriptionRequest) -> IssuePrescriptionResponse:
        return await hospital.issue(self.edge, self.platform, request)

    async def get(self, number: str) -> HisServiceGetPrescriptionResponse:
        request = HisServiceGetPrescriptionRequest(prescription_number=number)
        return await hospital.get(self.edge, self.platform, request)

    def revocation(self, number: str) -> HisServiceRevokePrescriptionRequest:
        content = Revocation(
            prescription_number=number,
            institution_code=self.edge.code,
            reason="wrong dose",
        )
        return HisServiceRevokePrescriptionRequest(
            request_id=request_id(), revocation=by_people(self.cast, content)
        )

    async def deliver(self) -> bool:
        return await delivery.prescriptions(self.edge, self.platform)

    async def told(self) -> list[Notice]:
        """The notices that the hospital's systems find waiting."""
        code = self.edge.code
        waiting = await self.edge.store.read(lambda tx: len(tx.journal.notices(code, 0, 100)))
        stream = notices.watch(self.edge, "")
        return [await anext(stream) for _ in range(waiting)]

    async def outcome(self, number: str, request_id: str) -> IssuePrescriptionResponse:
        request = HisServiceGetOutcomeRequest(prescription_number=number, request_id=request_id)
        found = await self.edge.store.read(lambda tx: hospital.get_outcome(tx, self.edge, request))
        response = IssuePrescriptionResponse()
        assert found.outcome.response.Unpack(response)
        return response


@pytest.fixture(scope="module")
def cast() -> Cast:
    return Cast.create()


@pytest.fixture
async def site(cast: Cast, tmp_path: Path) -> AsyncIterator[Site]:
    line = Line(cast.region.code)
    async with edge_of(cast, cast.hospital, cast.hospital_seal, tmp_path) as edge:
        yield Site(cast, edge, line, FakeHospitalPlatform(cast, line))


async def test_issuing_seals_registers_and_gives_a_pickup_code(site: Site) -> None:
    request = site.request()
    issued = await site.issue(request)
    verified = Verifier(site.cast.trust()).verify(issued.prescription, Prescription, NOW, "350200")
    code = PickupCode.parse(issued.pickup_code)
    (sent,) = site.line.of(RegisterPrescriptionRequest)
    assert isinstance(sent, RegisterPrescriptionRequest)
    assert issued.registration == REGISTRATION_REGISTERED
    assert issued.prescription.payload == request.prescription.payload
    assert str(code.number) == verified.content.prescription_number == issued.prescription_number
    assert (sent.request_id, sent.pickup_secret) == (request.request_id, code.secret)
    assert bytes_of(sent.prescription) == bytes_of(issued.prescription)
    assert PrescriptionStatus.FromString(issued.status.payload).version == 1


async def test_the_same_request_again_gives_the_same_code_and_sends_nothing(site: Site) -> None:
    request = site.request()
    first, again = await site.issue(request), await site.issue(request)
    assert bytes_of(again) == bytes_of(first)
    assert len(site.line.calls) == 1


async def test_issuing_goes_on_while_the_platform_is_away(site: Site) -> None:
    site.line.up = False
    request = site.request()
    queued = await site.issue(request)
    assert queued.registration == REGISTRATION_QUEUED
    assert not queued.HasField("status")
    assert not await site.deliver()
    site.line.up = True
    assert await site.deliver()
    later = await site.issue(request)
    assert later.registration == REGISTRATION_REGISTERED
    assert (later.pickup_code, later.prescription) == (queued.pickup_code, queued.prescription)
    assert len(site.line.calls) == 1


async def test_a_backlog_is_brought_side_by_side(site: Site) -> None:
    site.line.up = False
    for _ in range(3):
        await site.issue(site.request())
    site.line.up, site.line.hold = True, asyncio.Event()
    delivering = asyncio.create_task(site.deliver())
    async with asyncio.timeout(10):
        while len(site.line.of(RegisterPrescriptionRequest)) < 3:
            await asyncio.sleep(0)
    site.line.hold.set()
    assert await delivering


async def test_what_was_queued_survives_a_restart(cast: Cast, tmp_path: Path) -> None:
    line = Line(cast.region.code, up=False)
    platform = FakeHospitalPlatform(cast, line)
    async with edge_of(cast, cast.hospital, cast.hospital_seal, tmp_path) as edge:
        site = Site(cast, edge, line, platform)
        queued = await site.issue(site.request())
    line.up = True
    async with edge_of(cast, cast.hospital, cast.hospital_seal, tmp_path) as edge:
        assert await Site(cast, edge, line, platform).deliver()
    assert bytes_of(platform.registered[queued.prescription_number]) == bytes_of(
        queued.prescription
    )


async def test_a_lost_answer_is_asked_for_again_with_the_same_bytes(site: Site) -> None:
    site.line.loses_answers = True
    assert (await site.issue(site.request())).registration == REGISTRATION_QUEUED
    site.line.loses_answers = False
    assert await site.deliver()
    first, second = site.line.of(RegisterPrescriptionRequest)
    assert bytes_of(first) == bytes_of(second)


async def test_a_refusal_at_once_is_the_answer_then_and_ever_after(site: Site) -> None:
    site.line.refuses = AGAINST_RULES
    request = site.request()
    for _ in range(2):
        with pytest.raises(Refusal, match="R2: too long") as refused:
            await site.issue(request)
        assert (refused.value.reason, refused.value.detail) == (
            Reason.PRESCRIPTION_RULE_VIOLATED,
            {"rule": "R2"},
        )
    number = Prescription.FromString(request.prescription.payload).prescription_number
    assert (await site.get(number)).registration == REGISTRATION_REFUSED
    assert len(site.line.calls) == 1
    assert await site.told() == []


async def test_a_refusal_later_is_a_notice(site: Site) -> None:
    site.line.up = False
    issued = await site.issue(site.request())
    site.line.up, site.line.refuses = True, AGAINST_RULES
    assert await site.deliver()
    (notice,) = await site.told()
    assert notice.kind == Notice.KIND_REGISTRATION_REFUSED
    assert notice.prescription_number == issued.prescription_number
    assert notice.summary == "PRESCRIPTION_RULE_VIOLATED: R2: too long"


async def test_a_platform_that_is_too_busy_has_refused_nothing(site: Site) -> None:
    site.line.refuses = Refusal(Reason.OVERLOADED, "too much at once")
    issued = await site.issue(site.request())
    assert issued.registration == REGISTRATION_QUEUED
    assert not await site.deliver()
    site.line.refuses = None
    assert await site.deliver()
    assert (await site.get(issued.prescription_number)).registration == REGISTRATION_REGISTERED


async def test_an_answer_that_the_platform_did_not_sign_registers_nothing(site: Site) -> None:
    site.platform.seal = site.cast.hospital_seal
    issued = await site.issue(site.request())
    assert issued.registration == REGISTRATION_QUEUED
    site.platform.seal = site.cast.platform_seal
    assert await site.deliver()


async def test_one_that_cannot_be_decided_holds_up_no_other(site: Site) -> None:
    site.line.up = False
    first, second = [await site.issue(site.request()) for _ in range(2)]
    site.line.up = True
    register = site.platform.register_prescription

    async def fail_for_first(request: RegisterPrescriptionRequest):  # type: ignore[no-untyped-def] # noqa: ANN202 - stands in for the method
        if request.prescription == first.prescription:
            raise RuntimeError("a defect")
        return await register(request)

    site.platform.register_prescription = fail_for_first  # type: ignore[method-assign]
    assert not await site.deliver()
    assert list(site.platform.registered) == [second.prescription_number]


async def test_a_sheet_without_a_review_is_not_sealed(site: Site) -> None:
    content = prescription(site.cast)
    alone = new_statement(content, site.cast.prescriber.signer, SIGNER_ROLE_PRESCRIBER, NOW)
    with pytest.raises(SignatureMissing):
        await site.issue(IssuePrescriptionRequest(request_id=request_id(), prescription=alone))
    assert site.line.calls == []


async def test_nobody_reviews_the_own_prescription(tmp_path: Path) -> None:
    cast = Cast.create()
    roles = SIGNER_ROLE_PRESCRIBER, SIGNER_ROLE_REVIEWING_PHARMACIST
    doctor = cast.region.person(cast.hospital, "D009", *roles)
    statement = by_people(
        replace(cast, prescriber=doctor, hospital_pharmacist=doctor), prescription(cast)
    )
    line = Line(cast.region.code)
    async with edge_of(cast, cast.hospital, cast.hospital_seal, tmp_path) as edge:
        site = Site(cast, edge, line, FakeHospitalPlatform(cast, line))
        with pytest.raises(SignersNotDistinct):
            await site.issue(
                IssuePrescriptionRequest(request_id=request_id(), prescription=statement)
            )
    assert line.calls == []


async def test_a_prescription_without_a_required_field_is_not_sealed(site: Site) -> None:
    content = prescription(site.cast)
    content.lines[1].quantity = 0
    request = IssuePrescriptionRequest(
        request_id=request_id(), prescription=by_people(site.cast, content)
    )
    with pytest.raises(Refusal) as refused:
        await site.issue(request)
    assert refused.value.detail == {"field": "lines[1].quantity"}


async def test_another_hospitals_sheet_is_not_sealed(site: Site, tmp_path: Path) -> None:
    cast = site.cast
    other = cast.region.hospital()
    seal = cast.region.seal(other)
    folder = tmp_path / "other"
    folder.mkdir()
    async with edge_of(cast, other, seal, folder) as edge:
        with pytest.raises(Refusal, match="another institution") as refused:
            await hospital.issue(edge, site.platform, site.request())
    assert refused.value.reason is Reason.SIGNED_CONTENT_MISMATCH
    assert site.line.calls == []


async def test_a_number_with_another_hospitals_serial_is_refused(site: Site) -> None:
    own = site.cast.hospital
    alien = replace(site.cast, hospital=replace(own, institution_code="H35020000099"))
    with pytest.raises(Refusal, match="prescription_number") as refused:
        await site.issue(site.request(fresh_number(alien)))
    assert refused.value.reason is Reason.SIGNED_CONTENT_MISMATCH


async def test_a_request_id_is_not_used_for_two_prescriptions(site: Site) -> None:
    first, second = site.request(), site.request()
    second.request_id = first.request_id
    await site.issue(first)
    number = Prescription.FromString(first.prescription.payload).prescription_number
    second.prescription.CopyFrom(by_people(site.cast, prescription(site.cast, number)))
    with pytest.raises(Refusal) as refused:
        await site.issue(second)
    assert refused.value.reason is Reason.REQUEST_ID_REUSED


async def test_a_number_is_not_used_for_two_requests(site: Site) -> None:
    first = await site.issue(site.request())
    with pytest.raises(Refusal) as refused:
        await site.issue(site.request(first.prescription_number))
    assert refused.value.reason is Reason.PRESCRIPTION_ALREADY_REGISTERED


async def test_a_prescription_that_never_left_is_withdrawn_here(site: Site) -> None:
    site.line.up = False
    issued = await site.issue(site.request())
    request = site.revocation(issued.prescription_number)
    for _ in range(2):
        answer = await hospital.revoke(site.edge, site.platform, request)
        assert (answer.outcome, answer.HasField("status")) == (REVOCATION_OUTCOME_REVOKED, False)
    again = await hospital.revoke(
        site.edge, site.platform, site.revocation(issued.prescription_number)
    )
    assert again.outcome == REVOCATION_OUTCOME_ALREADY_REVOKED
    site.line.up = True
    assert await site.deliver()
    assert site.line.calls == []
    assert (await site.get(issued.prescription_number)).registration == REGISTRATION_WITHDRAWN


async def test_a_revocation_during_the_upload_waits_for_it_and_follows_it(site: Site) -> None:
    site.line.hold = asyncio.Event()
    request = site.request()
    issuing = asyncio.create_task(site.issue(request))
    await site.line.arrived.wait()
    number = Prescription.FromString(request.prescription.payload).prescription_number
    revoking = asyncio.create_task(
        hospital.revoke(site.edge, site.platform, site.revocation(number))
    )
    done, _ = await asyncio.wait([revoking], timeout=0.05)
    assert not done
    site.line.hold.set()
    assert (await revoking).outcome == REVOCATION_OUTCOME_REVOKED
    await issuing
    assert [type(call) for call in site.line.calls] == [
        RegisterPrescriptionRequest,
        RevokePrescriptionRequest,
    ]
    assert number in site.platform.revoked


async def test_a_revocation_during_a_dropped_upload_is_never_answered_here(site: Site) -> None:
    """The hospital's system gives up while the upload runs, and the line breaks after it."""
    site.line.hold = asyncio.Event()
    request = site.request()
    issuing = asyncio.create_task(site.issue(request))
    await site.line.arrived.wait()
    issuing.cancel()
    await asyncio.wait([issuing])
    site.line.up, site.line.hold = False, None
    number = Prescription.FromString(request.prescription.payload).prescription_number
    with pytest.raises(Unavailable):
        await hospital.revoke(site.edge, site.platform, site.revocation(number))
    assert (await site.get(number)).registration == REGISTRATION_QUEUED


async def test_once_the_edge_has_tried_to_send_a_prescription_it_withdraws_it_no_more(
    site: Site,
) -> None:
    site.line.up = False
    number = (await site.issue(site.request())).prescription_number
    site.line.up, site.line.loses_answers = True, True
    assert not await site.deliver()
    site.line.up = False
    with pytest.raises(Unavailable):
        await hospital.revoke(site.edge, site.platform, site.revocation(number))
    assert (await site.get(number)).registration == REGISTRATION_QUEUED


@pytest.mark.parametrize(
    ("arrived_before", "outcome", "registration"),
    [
        (True, REVOCATION_OUTCOME_REVOKED, REGISTRATION_REGISTERED),
        (False, REVOCATION_OUTCOME_NEVER_REGISTERED, REGISTRATION_REFUSED),
    ],
)
async def test_a_revocation_after_a_lost_answer_is_brought_to_its_end_by_the_edge(
    site: Site,
    *,
    arrived_before: bool,
    outcome: RevocationOutcome.ValueType,
    registration: Registration.ValueType,
) -> None:
    site.line.loses_answers = arrived_before
    site.line.refuses = None if arrived_before else Refusal(Reason.OVERLOADED, "busy")
    issued = await site.issue(site.request())
    number, request = issued.prescription_number, site.revocation(issued.prescription_number)
    site.line.up, site.line.loses_answers, site.line.refuses = False, False, None
    with pytest.raises(Unavailable):
        await hospital.revoke(site.edge, site.platform, request)
    site.line.up = True
    assert await site.deliver()
    assert site.platform.revoked | site.platform.barred == {number}
    calls = len(site.line.calls)
    answer = await hospital.revoke(site.edge, site.platform, request)
    assert answer.outcome == outcome
    assert answer.HasField("status")
    assert len(site.line.calls) == calls
    known = await site.get(number)
    assert known.registration == registration
    status = PrescriptionStatus.FromString(known.status.payload)
    assert status.validity == PrescriptionStatus.VALIDITY_REVOKED


async def test_what_is_revoked_before_it_arrives_is_never_valid(site: Site) -> None:
    """The register call of a lost try is still on its way when the doctor takes it back."""
    site.line.refuses = Refusal(Reason.OVERLOADED, "busy")
    request = site.request()
    number = (await site.issue(request)).prescription_number
    site.line.refuses = None
    answer = await hospital.revoke(site.edge, site.platform, site.revocation(number))
    assert answer.outcome == REVOCATION_OUTCOME_NEVER_REGISTERED
    (late,) = site.line.of(RegisterPrescriptionRequest)
    assert isinstance(late, RegisterPrescriptionRequest)
    with pytest.raises(Refusal) as refused:
        await site.platform.register_prescription(late)
    assert refused.value.reason is Reason.PRESCRIPTION_REVOKED
    calls = len(site.line.calls)
    assert await site.deliver()
    assert len(site.line.calls) == calls, "nothing is left to bring"
    with pytest.raises(Refusal) as refused:
        await site.issue(request)
    assert refused.value.reason is Reason.PRESCRIPTION_REVOKED
    assert await site.told() == [], "the hospital asked for it"


async def test_a_revocation_does_not_wait_for_the_registration_to_be_brought(site: Site) -> None:
    site.line.loses_answers = True
    number = (await site.issue(site.request())).prescription_number
    site.line.loses_answers = False
    answer = await hospital.revoke(site.edge, site.platform, site.revocation(number))
    assert answer.outcome == REVOCATION_OUTCOME_REVOKED
    assert [type(call) for call in site.line.calls] == [
        RegisterPrescriptionRequest,
        RevokePrescriptionRequest,
    ]
    assert await site.deliver()
    known = await site.get(number)
    assert known.registration == REGISTRATION_REGISTERED
    status = PrescriptionStatus.FromString(known.status.payload)
    assert status.validity == PrescriptionStatus.VALIDITY_REVOKED


async def test_a_repeated_revocation_carries_the_same_bytes(site: Site) -> None:
    issued = await site.issue(site.request())
    request = site.revocation(issued.prescription_number)
    site.line.loses_answers = True
    with pytest.raises(Unavailable):
        await hospital.revoke(site.edge, site.platform, request)
    site.line.loses_answers = False
    await hospital.revoke(site.edge, site.platform, request)
    first, second = site.line.of(RevokePrescriptionRequest)
    assert bytes_of(first) == bytes_of(second)


async def test_a_refused_prescription_needs_no_platform_to_be_taken_back(site: Site) -> None:
    site.line.refuses = AGAINST_RULES
    request = site.request()
    with pytest.raises(Refusal):
        await site.issue(request)
    number = Prescription.FromString(request.prescription.payload).prescription_number
    answer = await hospital.revoke(site.edge, site.platform, site.revocation(number))
    assert answer.outcome == REVOCATION_OUTCOME_REVOKED
    assert site.line.of(RevokePrescriptionRequest) == []


async def test_a_prescription_is_shown_as_heard_last_while_the_platform_is_away(
    site: Site,
) -> None:
    number = (await site.issue(site.request())).prescription_number
    site.platform.version = 4
    fresh = await site.get(number)
    site.line.up = False
    kept = await site.get(number)
    assert kept == fresh
    assert PrescriptionStatus.FromString(kept.status.payload).version == 4
    assert kept.status_time.ToDatetime(NOW.tzinfo) == NOW


async def test_an_older_status_never_takes_the_place_of_a_newer_one(site: Site) -> None:
    number = (await site.issue(site.request())).prescription_number
    site.platform.version = 4
    await site.get(number)
    site.platform.version = 3
    await site.get(number)
    older = site.platform.status(number, version=2)
    site.platform.notices.add(Notice.KIND_CLAIMED, number, older)
    await notices.follow(site.edge, site.platform)
    for site.line.up in (True, False):
        status = PrescriptionStatus.FromString((await site.get(number)).status.payload)
        assert status.version == 4


async def test_a_prescription_that_was_not_issued_here_is_asked_for_at_the_platform(
    site: Site,
) -> None:
    elsewhere = prescription(site.cast)
    number = elsewhere.prescription_number
    site.platform.registered[number] = with_seal(site.cast, elsewhere)
    found = await site.get(number)
    assert found.registration == REGISTRATION_REGISTERED
    assert found.prescription == site.platform.registered[number]
    site.platform.registered[number] = with_seal(site.cast, prescription(site.cast))
    with pytest.raises(Unavailable, match="something else"):
        await site.get(number)
    site.line.up = False
    with pytest.raises(Unavailable):
        await site.get(number)


async def test_the_outcome_of_issuing_is_what_it_has_come_to(site: Site) -> None:
    site.line.up = False
    request = site.request()
    issued = await site.issue(request)
    number = issued.prescription_number
    assert await site.outcome(number, request.request_id) == issued
    site.line.up = True
    await site.deliver()
    later = await site.outcome(number, request.request_id)
    assert later.registration == REGISTRATION_REGISTERED
    with pytest.raises(Refusal) as unknown:
        await site.outcome(number, request_id())
    assert unknown.value.reason is Reason.OUTCOME_NOT_FOUND


async def test_notices_are_stored_with_evidence_and_resumed_after_the_last(site: Site) -> None:
    number = (await site.issue(site.request())).prescription_number
    told = site.platform.notices
    evidence = site.platform.status(number, version=2)
    told.add(Notice.KIND_REGISTERED, number)
    told.add(Notice.KIND_REVOKED, number, evidence)
    await notices.follow(site.edge, site.platform)
    told.add(Notice.KIND_SETTLED, number)
    await notices.follow(site.edge, site.platform)
    found = await site.told()
    assert told.tokens == ["", "t2"]
    assert [notice.kind for notice in found] == [
        Notice.KIND_REGISTERED,
        Notice.KIND_REVOKED,
        Notice.KIND_SETTLED,
    ]
    assert bytes_of(found[1].evidence) == bytes_of(evidence)
    assert not found[0].HasField("evidence")
    site.line.up = False
    status = PrescriptionStatus.FromString((await site.get(number)).status.payload)
    assert status.version == 2


async def test_a_stream_goes_on_after_the_token_that_it_is_given(site: Site) -> None:
    number = fresh_number(site.cast)
    for kind in (Notice.KIND_CLAIMED, Notice.KIND_COMMITTED):
        site.platform.notices.add(kind, number)
    await notices.follow(site.edge, site.platform)
    first = (await site.told())[0]
    second = await anext(notices.watch(site.edge, first.resume_token))
    assert second.kind == Notice.KIND_COMMITTED


async def test_whoever_listens_hears_of_a_notice_when_it_is_stored(site: Site) -> None:
    listening = asyncio.create_task(anext(notices.watch(site.edge, "")))
    await asyncio.wait([listening], timeout=0.05)
    assert not listening.done()
    site.platform.notices.add(Notice.KIND_DISPENSED, fresh_number(site.cast))
    await notices.follow(site.edge, site.platform)
    assert (await asyncio.wait_for(listening, 5)).kind == Notice.KIND_DISPENSED


@pytest.mark.parametrize("token", ["x", "-1", "1.5", "٣", "9" * 30])
async def test_a_token_that_was_never_given_is_refused(site: Site, token: str) -> None:
    with pytest.raises(Refusal) as refused:
        await anext(notices.watch(site.edge, token))
    assert (refused.value.reason, refused.value.detail) == (
        Reason.FIELD_INVALID,
        {"field": "resume_token"},
    )


async def test_a_kind_of_notice_that_is_newer_than_the_edge_is_passed_on(site: Site) -> None:
    site.platform.notices.add(Notice.Kind.ValueType(99), fresh_number(site.cast))
    await notices.follow(site.edge, site.platform)
    (notice,) = await site.told()
    assert int(notice.kind) == 99


async def test_the_stream_from_the_platform_is_opened_again_with_growing_pauses(
    site: Site,
) -> None:
    pauses = Pauses(stop_after=4)
    site.line.up = False
    with pytest.raises(asyncio.CancelledError):
        await notices.keep_following(replace(site.edge, pause=pauses), site.platform)
    assert pauses.taken == [0, 1, 2, 3]


async def test_delivery_pauses_while_it_fails_and_sleeps_while_nothing_is_due(
    site: Site,
) -> None:
    pauses, rounds = Pauses(), Rounds(site.deliver)
    edge = replace(site.edge, pause=pauses)
    loop = asyncio.create_task(delivery.keep_delivering(edge, rounds))
    await rounds.until(1)
    site.line.loses_answers = True
    await site.issue(site.request())
    await rounds.until(4)
    site.line.loses_answers = False
    await rounds.until_done()
    made = rounds.made
    await asyncio.wait([loop], timeout=0.05)
    assert not loop.done()
    loop.cancel()
    assert rounds.made == made
    assert pauses.taken == list(range(made - 2))


async def test_pauses_double_up_to_the_longest() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    pause = delivery.pauses(sleep, lambda: 1.5)
    for tries in (0, 1, 2, 10, 10_000):
        await pause(tries)
    assert slept == pytest.approx([0.3, 0.6, 1.2, 15.0, 15.0])
