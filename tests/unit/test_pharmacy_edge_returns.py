"""A pharmacy's edge takes medicine back: accepted at once, delivered after the handover, once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rxoutflow.statements import SignatureMissing, Verifier
from rxoutflow.v1.dispense_pb2 import DispenseRecord, DispenseReturn
from rxoutflow.v1.notice_pb2 import Notice
from rxoutflow.v1.pharmacy_service_pb2 import RecordDispenseRequest, ReturnDispenseRequest
from rxoutflow.v1.pos_service_pb2 import (
    PosServiceGetOutcomeRequest,
    PosServiceRecordDispenseRequest,
    PosServiceReturnDispenseRequest,
    PosServiceReturnDispenseResponse,
)
from rxoutflow_server.application.edge import delivery, goods_returns, handovers, pharmacy
from rxoutflow_server.application.edge.surroundings import Edge
from rxoutflow_server.domain.errors import Reason, Refusal
from support.edges import (
    FakePharmacyPlatform,
    Line,
    by_people,
    bytes_of,
    edge_of,
    fresh_number,
    request_id,
)
from support.pki import NOW
from support.sheets import Cast

EXCEEDED = Refusal(Reason.RETURN_EXCEEDED, "line 1: 2 would come back, 1 still can", line_id="1")


@dataclass
class Counter:
    """A pharmacy's edge, its platform, and what goes over the counter."""

    cast: Cast
    edge: Edge
    line: Line
    platform: FakePharmacyPlatform
    number: str

    async def take_back(
        self, request: PosServiceReturnDispenseRequest
    ) -> PosServiceReturnDispenseResponse:
        return await goods_returns.take_back(self.edge, self.platform, request)

    async def hand_over(self) -> None:
        content = DispenseRecord(
            prescription_number=self.number,
            attempt_id=self.platform.attempt.attempt_id,
            fence=1,
            pharmacy_code=self.edge.code,
            settlement_id="S",
        )
        content.dispense_time.FromDatetime(NOW)
        content.lines.add(line_id=1, drug_code="X", quantity=1, batch_numbers=["B1"])
        request = PosServiceRecordDispenseRequest(
            request_id=request_id(), dispense_record=by_people(self.cast, content)
        )
        await handovers.record(self.edge, self.platform, request)

    def returned(self, reversal_id: str = "", quantity: int = 1) -> PosServiceReturnDispenseRequest:
        content = DispenseReturn(
            reversal_id=reversal_id or request_id(),
            prescription_number=self.number,
            attempt_id=self.platform.attempt.attempt_id,
            pharmacy_code=self.edge.code,
            settlement_id="S",
            cause=DispenseReturn.CAUSE_PATIENT,
            reason="an adverse reaction",
        )
        content.return_time.FromDatetime(NOW)
        content.lines.add(line_id=1, quantity=quantity)
        return PosServiceReturnDispenseRequest(
            request_id=request_id(), dispense_return=by_people(self.cast, content)
        )

    async def deliver(self) -> bool:
        return await delivery.records(self.edge, self.platform)

    async def outcome(self, asked: str) -> PosServiceReturnDispenseResponse:
        request = PosServiceGetOutcomeRequest(prescription_number=self.number, request_id=asked)
        found = await self.edge.store.read(lambda tx: pharmacy.get_outcome(tx, self.edge, request))
        response = PosServiceReturnDispenseResponse()
        assert found.outcome.response.Unpack(response)
        return response


@pytest.fixture(scope="module")
def cast() -> Cast:
    return Cast.create()


@pytest.fixture
async def counter(cast: Cast, tmp_path: Path) -> AsyncIterator[Counter]:
    line = Line(cast.region.code)
    async with edge_of(cast, cast.pharmacy, cast.pharmacy_seal, tmp_path) as edge:
        yield Counter(cast, edge, line, FakePharmacyPlatform(cast, line), fresh_number(cast))


async def test_a_return_is_sealed_and_answered_when_the_platform_is_there(
    counter: Counter,
) -> None:
    request = counter.returned()
    answer = await counter.take_back(request)
    content = DispenseReturn.FromString(request.dispense_return.payload)
    assert answer.progress.reversal_id == content.reversal_id
    (sent,) = counter.line.of(ReturnDispenseRequest)
    assert isinstance(sent, ReturnDispenseRequest)
    Verifier(counter.cast.trust()).verify(sent.dispense_return, DispenseReturn, NOW)


async def test_a_return_is_accepted_while_the_platform_is_away_and_delivered_later(
    counter: Counter,
) -> None:
    request = counter.returned()
    counter.line.up = False
    assert not (await counter.take_back(request)).HasField("progress")
    assert await counter.outcome(request.request_id) == PosServiceReturnDispenseResponse()
    assert not await counter.deliver()
    counter.line.up = True
    assert await counter.deliver()
    assert await counter.deliver()
    assert len(counter.line.of(ReturnDispenseRequest)) == 1
    counter.line.up = False
    assert (await counter.take_back(request)).HasField("progress")


async def test_a_return_goes_to_the_platform_after_the_record_of_its_handover(
    counter: Counter,
) -> None:
    counter.line.up = False
    await counter.hand_over()
    await counter.take_back(counter.returned())
    counter.line.up = True
    assert await counter.deliver()
    record, returned = counter.line.calls
    assert isinstance(record, RecordDispenseRequest)
    assert isinstance(returned, ReturnDispenseRequest)


async def test_the_record_is_brought_first_when_somebody_takes_back_what_it_is_of(
    counter: Counter,
) -> None:
    counter.line.up = False
    await counter.hand_over()
    counter.line.up = True
    assert (await counter.take_back(counter.returned())).HasField("progress")
    record, returned = counter.line.calls
    assert isinstance(record, RecordDispenseRequest)
    assert isinstance(returned, ReturnDispenseRequest)


async def test_a_return_whose_answer_was_lost_is_delivered_with_the_same_bytes(
    counter: Counter,
) -> None:
    counter.line.loses_answers = True
    await counter.take_back(counter.returned())
    counter.line.loses_answers = False
    assert await counter.deliver()
    first, second = counter.line.of(ReturnDispenseRequest)
    assert bytes_of(first) == bytes_of(second)


async def test_a_platform_that_is_too_busy_has_refused_no_return(counter: Counter) -> None:
    counter.line.refuses = Refusal(Reason.OVERLOADED, "too much at once")
    assert not (await counter.take_back(counter.returned())).HasField("progress")
    counter.line.refuses = None
    assert await counter.deliver()
    assert len(counter.line.of(ReturnDispenseRequest)) == 2


@pytest.mark.parametrize("late", [True, False])
async def test_a_corrected_return_takes_the_place_of_a_refused_one(
    counter: Counter, *, late: bool
) -> None:
    wrong = counter.returned(quantity=2)
    content = DispenseReturn.FromString(wrong.dispense_return.payload)
    counter.line.up, counter.line.refuses = not late, EXCEEDED
    if late:
        await counter.take_back(wrong)
        counter.line.up = True
        assert await counter.deliver()
    with pytest.raises(Refusal, match="still can"):
        await counter.take_back(wrong)
    with pytest.raises(Refusal, match="nothing is stored"):
        await counter.outcome(wrong.request_id)
    counter.line.refuses = None
    right = counter.returned(content.reversal_id)
    assert (await counter.take_back(right)).HasField("progress")


async def test_the_pharmacy_hears_of_a_return_that_was_refused_later(counter: Counter) -> None:
    counter.line.up = False
    await counter.take_back(counter.returned())
    counter.line.up, counter.line.refuses = True, EXCEEDED
    assert await counter.deliver()
    (notice,) = await counter.edge.store.read(
        lambda tx: tx.journal.notices(counter.edge.code, 0, 10)
    )
    assert notice.kind == "RETURN_REFUSED"
    assert notice.summary == f"{EXCEEDED.reason}: {EXCEEDED.message}"
    assert f"KIND_{notice.kind}" in Notice.Kind.keys()  # noqa: SIM118 - an enum wrapper is no dict


async def test_the_id_of_a_return_stands_for_nothing_else(counter: Counter) -> None:
    counter.line.up = False
    first = counter.returned()
    await counter.take_back(first)
    reversal_id = DispenseReturn.FromString(first.dispense_return.payload).reversal_id
    with pytest.raises(Refusal) as refused:
        await counter.take_back(counter.returned(reversal_id, quantity=2))
    assert refused.value.reason is Reason.REQUEST_ID_REUSED


async def test_a_return_without_a_pharmacist_is_not_accepted(counter: Counter) -> None:
    request = counter.returned()
    del request.dispense_return.signatures[0]
    with pytest.raises(SignatureMissing):
        await counter.take_back(request)
    assert counter.line.calls == []
