"""Platforms and pharmacies that may call, sign with their own keys, and do not tell the truth.

The region that decides a fact must not be talked out of it by another one, whatever that one signs;
and what somebody asks for in vain must leave nothing behind at anybody else's. Most of these were
found by the mutants of ``test_malformed_input``, and stand here so that each has a name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from google.protobuf.message import Message

from rxoutflow.v1 import attempt_pb2, peer_service_pb2, prescription_status_pb2, settlement_pb2
from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow_server.domain.errors import Reason
from support.doors import Answer, reason_in
from support.mutant_statements import signed_anew, statements_in
from support.premises import DISPENSING, HOME, PAYER, Call, Premises, signers
from support.world import content_of, person

pytestmark = pytest.mark.asyncio(loop_scope="session")

M = TypeVar("M", bound=Message)
Attempt = attempt_pb2.Attempt
Status = prescription_status_pb2.PrescriptionStatus

EVENTS = "/rxoutflow.v1.PeerService/DeliverEvents"


def call_of(premises: Premises, method: str, variant: str = "") -> Call:
    """The request that would succeed."""
    calls = premises.calls[f"/rxoutflow.v1.{method}"]
    return next(call for call in calls if call.variant == variant)


def retold(premises: Premises, call: Call, kind: type[M], change: Callable[[M], object]) -> Call:
    """The request with one of its statements saying something else, signed by its own signers."""
    request = type(call.request)()
    request.CopyFrom(call.request)
    for statement in statements_in(request):
        try:
            content = content_of(statement, kind) if _is(statement, kind) else None
        except KeyError:
            continue
        if content is not None:
            change(content)
            payload = content.SerializeToString(deterministic=True)
            statement.CopyFrom(signed_anew(statement, payload, signers(premises)))
    return replace(call, request=request)


def _is(statement: SignedStatement, kind: type[Message]) -> bool:
    from rxoutflow.statements.payloads import rule_for

    return statement.payload_type == rule_for(kind).payload_type


def with_request(call: Call, **fields: Any) -> Call:
    """The request with other fields."""
    request: Any = type(call.request)()
    request.CopyFrom(call.request)
    for name, value in fields.items():
        setattr(request, name, value)
    return replace(call, request=request)


def told(answer: Answer) -> str:
    """The reason for which an event was refused, or OK."""
    assert isinstance(answer.response, peer_service_pb2.DeliverEventsResponse), answer
    (acknowledgement,) = answer.response.acknowledgements
    return reason_in(acknowledgement.error) if acknowledgement.HasField("error") else "OK"


def event_of(call: Call) -> peer_service_pb2.PeerEvent:
    request: Any = call.request
    event: peer_service_pb2.PeerEvent = request.events[0]
    return event


async def held(premises: Premises, settlement_person: str) -> list[str]:
    """States of a person's settlements at the payer."""
    rows = premises.stores[PAYER].connection.execute(
        "SELECT state FROM settlements WHERE insured_person_id = ?", (settlement_person,)
    )
    return [state for (state,) in rows.fetchall()]


async def test_a_region_ends_no_attempt_on_a_prescription_of_another_one(
    premises: Premises,
) -> None:
    """It signs an attempt on a prescription of its own, under the id of somebody else's."""
    honest = call_of(premises, "PeerService/DeliverEvents", "void")
    victim = content_of(event_of(honest).statement, Attempt)
    world, liar = premises.world, premises.region(DISPENSING).platform
    own = world.prescription(DISPENSING, PAYER).prescription_number
    lie = Attempt()
    lie.CopyFrom(victim)
    lie.prescription_number = own
    event = peer_service_pb2.PeerEvent(
        event_id=world.request_id(),
        prescription_number=own,
        insured_person_id=event_of(honest).insured_person_id,
        statement=world.signed(DISPENSING, lie),
    )
    request = peer_service_pb2.DeliverEventsRequest(events=[event])
    await premises.make(Call(PAYER, liar, EVENTS, request))
    assert await held(premises, event.insured_person_id) == ["held"]
    await premises.make(honest)
    assert await held(premises, event.insured_person_id) == ["voided"]


@pytest.mark.parametrize("state", [0, Attempt.STATE_RESERVED, Attempt.STATE_COMMITTED])
async def test_an_attempt_that_has_not_ended_sets_no_money_free(
    premises: Premises, state: Attempt.State.ValueType
) -> None:
    honest = call_of(premises, "PeerService/DeliverEvents", "void")
    lie = retold(premises, honest, Attempt, lambda content: setattr(content, "state", state))
    assert told(await premises.make(lie)) != "OK"
    assert await held(premises, event_of(honest).insured_person_id) == ["held"]


@pytest.mark.parametrize(
    "variant", ["index", "marked for revocation", "released", "book", "post", "settled", "paid"]
)
async def test_a_fact_is_filed_under_its_own_prescription(premises: Premises, variant: str) -> None:
    """Else a stream of notices would break on evidence that is not where the notice says."""
    honest = call_of(premises, "PeerService/DeliverEvents", variant)
    request: Any = type(honest.request)()
    request.CopyFrom(honest.request)
    other = premises.world.prescription(HOME, PAYER).prescription_number
    request.events[0].prescription_number = other
    answer = await premises.make(replace(honest, request=request))
    assert told(answer) == Reason.SIGNED_CONTENT_MISMATCH
    assert premises.effects() == set()


@pytest.mark.parametrize("holder", ["", "H35050000001", "P35050000004", "P35050099999"])
async def test_a_region_makes_up_no_notices_for_institutions_of_another_one(
    premises: Premises, holder: str
) -> None:
    honest = call_of(premises, "PeerService/DeliverEvents", "marked for revocation")

    def change(content: prescription_status_pb2.PrescriptionStatus) -> None:
        content.live_attempt.pharmacy_code = holder

    await premises.make(retold(premises, honest, Status, change))
    assert f"{DISPENSING}.notices" not in premises.effects()
    premises.restore()
    await premises.make(honest)
    assert f"{DISPENSING}.notices" in premises.effects()


async def test_amounts_of_another_region_add_up_or_are_refused(premises: Premises) -> None:
    honest = call_of(premises, "PeerService/DeliverEvents", "paid")

    def change(content: settlement_pb2.Settlement) -> None:
        content.amounts.pool_fen += 1

    lie = retold(premises, honest, settlement_pb2.Settlement, change)
    assert told(await premises.make(lie)) == Reason.FIELD_INVALID


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda content: content.lines.append(content.lines[0]), id="a line twice"),
        pytest.param(
            lambda content: setattr(content, "dispense_day", "2027-01-01"),
            id="next year's benefits",
        ),
        pytest.param(
            lambda content: setattr(content.lines[0].line, "unit_price_micro_yuan", 2**62),
            id="a price beyond all money",
        ),
        pytest.param(lambda content: content.lines[0].ClearField("category"), id="no category"),
        pytest.param(
            lambda content: setattr(content, "pharmacy_code", "P35050000004"),
            id="another pharmacy's prices",
        ),
    ],
)
async def test_a_payer_holds_nothing_on_prices_that_cannot_be(
    premises: Premises, change: Callable[[settlement_pb2.Pricing], object]
) -> None:
    honest = call_of(premises, "PayerService/HoldBenefit")
    answer = await premises.make(retold(premises, honest, settlement_pb2.Pricing, change))
    assert answer.reason in (Reason.FIELD_INVALID, Reason.SIGNED_CONTENT_MISMATCH)
    assert premises.effects() == set()


COMMITMENTS: dict[str, Callable[[attempt_pb2.Commitment], object]] = {
    "a stale fence": lambda content: setattr(content, "fence", content.fence + 1),
    "a fence of zero": lambda content: setattr(content, "fence", 0),
    "a settlement id that is none": lambda content: setattr(content, "settlement_id", "mine"),
    "a line twice": lambda content: content.lines.append(content.lines[0]),
    "more than the claim": lambda content: setattr(content.lines[0], "quantity", 10**6),
    "a negative quantity": lambda content: setattr(content.lines[0], "quantity", -1),
}


@pytest.mark.parametrize("what", COMMITMENTS)
async def test_a_commitment_that_home_would_refuse_takes_no_money_at_the_payer(
    premises: Premises, what: str
) -> None:
    honest = call_of(premises, "PharmacyService/CommitClaim")
    spoiled = retold(premises, honest, attempt_pb2.Commitment, COMMITMENTS[what])
    answer = await premises.make(spoiled)
    assert answer.reason != "OK"
    assert not {table for table in premises.effects() if table.startswith((PAYER, HOME))}


async def test_a_request_id_that_is_none_takes_no_money_at_the_payer(premises: Premises) -> None:
    honest = call_of(premises, "PharmacyService/CommitClaim")
    answer = await premises.make(with_request(honest, request_id="the same as always"))
    assert answer.reason == Reason.FIELD_INVALID
    assert premises.effects() == set()


async def test_a_token_with_an_impossible_time_opens_nothing(premises: Premises) -> None:
    from rxoutflow.v1.credential_pb2 import ECredential

    honest = call_of(premises, "HomeService/OpenPrescription", "e-credential")
    for seconds, nanos in ((2**62, 0), (-(2**62), 0), (1_772_444_400, 2_000_000_000)):

        def change(content: ECredential, seconds: int = seconds, nanos: int = nanos) -> None:
            content.expire_time.seconds, content.expire_time.nanos = seconds, nanos & 0x7FFFFFFF

        answer = await premises.make(retold(premises, honest, ECredential, change))
        assert answer.reason == Reason.FIELD_INVALID


async def test_a_resume_token_beyond_all_counting_is_refused(premises: Premises) -> None:
    for service in ("HospitalService", "PharmacyService", "HisService", "PosService"):
        honest = call_of(premises, f"{service}/WatchNotices")
        answer = await premises.make(with_request(honest, resume_token="9" * 19))
        assert answer.reason == Reason.FIELD_INVALID, service


async def test_nobody_unknown_gets_so_far_as_to_have_a_request_read(premises: Premises) -> None:
    """Bytes that are no request at all are judged after their sender."""
    call = call_of(premises, "HospitalService/GetPrescription")
    stranger = replace(call, caller=premises.cast(DISPENSING).pharmacy)
    assert (await premises.make(stranger, b"\xff\xff")).reason == Reason.CALLER_KIND_NOT_ALLOWED
    assert (await premises.make(call, b"\xff\xff")).reason == Reason.FIELD_INVALID


async def test_the_person_that_everything_starts_from_is_untouched(premises: Premises) -> None:
    """So that the checks above, which say that nothing has changed, could see a change."""
    before = await premises.world.person(PAYER)
    assert before.insured_person_id == person().insured_person_id
    await premises.make(call_of(premises, "PayerService/HoldBenefit"))
    assert f"{PAYER}.insured_persons" in premises.effects()
