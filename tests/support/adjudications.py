"""Silent pharmacies in the in-process world: committed attempts, and what two people find.

case = await silent(world)
world.clock.now += OVERDUE
await adjudicate(world, decision(world, case.attempt, handed_over=True))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from google.rpc import error_details_pb2

from rxoutflow.identity import CallerKind, CallerName
from rxoutflow.statements.payloads import rule_for
from rxoutflow.v1 import administration_service_pb2 as messages
from rxoutflow.v1 import attempt_pb2, peer_service_pb2, pharmacy_service_pb2
from rxoutflow.v1.statement_pb2 import SIGNER_ROLE_ADJUDICATOR, SignedStatement
from rxoutflow_server.application import administration
from support.pki import Credential
from support.sheets import signed
from support.world import PERSON, World, content_of

HOME, DISPENSING, PAYER = "350200", "350500", "320600"
OVERDUE = timedelta(hours=48)
Adjudication, Attempt = attempt_pb2.Adjudication, attempt_pb2.Attempt


@dataclass(frozen=True)
class Silent:
    """A committed attempt, and how its pharmacy committed it."""

    number: str
    code: str
    attempt: attempt_pb2.Attempt
    request: pharmacy_service_pb2.CommitClaimRequest

    @property
    def settlement_id(self) -> str:
        return content_of(self.request.commitment, attempt_pb2.Commitment).settlement_id


async def silent(
    world: World, *, insured: bool = True, dispensing: str = DISPENSING, payer: str = PAYER
) -> Silent:
    """A pharmacy commits and says nothing more; every event has arrived."""
    number, code = await world.issue(HOME, payer)
    attempt = await world.claim(dispensing, code)
    amounts = await world.quote(dispensing, attempt) if insured else None
    request = world.commit_request(dispensing, attempt, amounts)
    await world.commit(dispensing, request)
    await world.settle()
    return Silent(number, code, attempt, request)


def decision(
    world: World,
    attempt: attempt_pb2.Attempt,
    *,
    handed_over: bool,
    people: Sequence[Credential] = (),
    **changes: Any,
) -> SignedStatement:
    """What two people found, by default those of the home region."""
    content = Adjudication(
        **{
            "adjudication_id": world.request_id(),
            "prescription_number": attempt.prescription_number,
            "attempt_id": attempt.attempt_id,
            "fence": attempt.fence,
            "finding": (
                Adjudication.FINDING_HANDED_OVER
                if handed_over
                else Adjudication.FINDING_NOT_HANDED_OVER
            ),
            "evidence": "the pharmacy's stock book, and a call to the patient",
            **changes,
        }
    )
    cast = world.platforms[HOME].cast
    who = people or (cast.adjudicator, cast.second_adjudicator)
    sheet = [(SIGNER_ROLE_ADJUDICATOR, each) for each in who]
    return signed(content, sheet, at=world.clock.now)


def operator(code: str = HOME) -> CallerName:
    """Somebody who runs the region's platform."""
    return CallerName(code, CallerKind.OPERATOR, f"O{code}")


async def adjudicate(
    world: World, statement: SignedStatement, request_id: str = ""
) -> attempt_pb2.Attempt:
    """Hand a decision in at the home region; the attempt as it ended."""
    platform = world.platforms[HOME]
    request = messages.AdjudicateAttemptRequest(
        request_id=request_id or world.request_id(), adjudication=statement
    )
    response = await platform.store.transact(
        lambda tx: administration.adjudicate(tx, platform.region, operator(), request)
    )
    return content_of(response.attempt, Attempt)


def on_their_way(world: World, origin: str, to: str) -> list[peer_service_pb2.PeerEvent]:
    """The events that a region has for another one, oldest first."""
    store: Any = world.platforms[origin].store
    journal = store._tables.journal
    return [
        peer_service_pb2.PeerEvent(
            event_id=each.event_id,
            prescription_number=each.prescription_number,
            insured_person_id=each.insured_person_id,
            statement=journal.statement(each.prescription_number, each.statement_sha256),
        )
        for each in journal.due_events(to, world.clock.now, 1000)
    ]


def event(
    world: World, statement: SignedStatement, number: str, *, to_payer: bool
) -> peer_service_pb2.PeerEvent:
    """A fact that somebody tells by hand."""
    return peer_service_pb2.PeerEvent(
        event_id=world.request_id(),
        prescription_number=number,
        insured_person_id=PERSON if to_payer else "",
        statement=statement,
    )


async def bring(world: World, origin: str, to: str, *events: peer_service_pb2.PeerEvent) -> str:
    """Deliver events by hand, one call each; the reason of the last refusal, if any."""
    caller = world.platforms[origin].cast.region.platform
    reason = ""
    for each in events:
        request = peer_service_pb2.DeliverEventsRequest(events=[each])
        response = await world.platforms[to].desk.deliver_events(caller, request)
        info = error_details_pb2.ErrorInfo()
        for detail in response.acknowledgements[0].error.details:
            detail.Unpack(info)
        reason = info.reason or reason
    return reason


def is_adjudication(event: peer_service_pb2.PeerEvent) -> bool:
    return event.statement.payload_type == rule_for(Adjudication).payload_type
