"""Asking home about money that has been held for long: time alone sets nothing free.

Home tells the payer how an attempt ended. That can be lost: home gave the event up while this
region was away, or was restored from a backup. So a payer asks what became of each attempt for
which it has held money longer than a pharmacy may be silent. What home signs takes effect as if
home had told it. Nothing else ends a hold: no timer, no answer that does not verify, and no answer
that home does not know the attempt.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime

import structlog

from rxoutflow.identity import CallerKind, CallerName
from rxoutflow.statements import StatementError
from rxoutflow.v1.attempt_pb2 import Attempt
from rxoutflow.v1.home_service_pb2 import GetAttemptRequest
from rxoutflow.v1.peer_service_pb2 import PeerEvent
from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow_server.application.dispensing.exchange import Exchange, believed, require_asked
from rxoutflow_server.application.payer.events import ENDED, note_attempt_end
from rxoutflow_server.application.ports import Transaction
from rxoutflow_server.application.region import Region, routed
from rxoutflow_server.domain.errors import Refusal, Unavailable
from rxoutflow_server.domain.settlement import Settlement

PAGE = 100
"""Holds that are read at once."""

log = structlog.get_logger()


async def ask_about_holds(exchange: Exchange) -> None:
    """Ask about every hold that is overdue and of whose attempt no end is known here.

    A home region that cannot be reached is asked once. Whatever is wrong with one hold, the others
    are asked about.
    """
    away = set[str]()
    async for hold in _overdue(exchange):
        home = routed(hold.prescription_number).region_code
        if home not in away and not await _ask(exchange, home, hold):
            away.add(home)


async def _overdue(exchange: Exchange) -> AsyncIterator[Settlement]:
    """Such holds, longest held first."""
    end, after = exchange.region.now() - exchange.region.overdue, None
    while holds := await exchange.store.read(_page(end, after)):
        for hold in holds:
            yield hold
        after = (holds[-1].create_time, holds[-1].settlement_id)


def _page(
    end: datetime, after: tuple[datetime, str] | None
) -> Callable[[Transaction], Sequence[Settlement]]:
    return lambda tx: tx.payer.holds_until(end, after, PAGE)


async def _ask(exchange: Exchange, home: str, hold: Settlement) -> bool:
    """Let what home says take effect if it is the end of the attempt; whether home answered."""
    request = GetAttemptRequest(
        prescription_number=hold.prescription_number, attempt_id=hold.attempt_id
    )
    asked = log.bind(settlement_id=hold.settlement_id, peer=home)
    answered = False
    try:
        answer = await exchange.peers.region(home).get_attempt(request)
        answered = True
        state = await exchange.store.transact(
            lambda tx: _heard(tx, exchange.region, home, hold, answer.attempt)
        )
    except (Unavailable, Refusal, StatementError) as error:
        asked.warning("hold_not_asked", reason=error.reason)
        return answered or not isinstance(error, Unavailable)
    asked.info("hold_asked", code=state)
    return True


def _heard(
    tx: Transaction, region: Region, home: str, hold: Settlement, statement: SignedStatement
) -> str:
    now, number = region.now(), hold.prescription_number
    verified = believed(region, statement, Attempt, now, origin=home)
    content = verified.content
    asked = (number, hold.attempt_id)
    require_asked(home, (content.prescription_number, content.attempt_id) == asked)
    if content.state in ENDED:
        said = PeerEvent(insured_person_id=hold.insured_person_id, statement=statement)
        said.prescription_number = number
        note_attempt_end(
            tx, region, CallerName(home, CallerKind.PLATFORM, home), said, verified, now
        )
    return Attempt.State.Name(content.state).removeprefix("STATE_").lower()
