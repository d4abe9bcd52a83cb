"""Notices: from the platform into the edge's own store, and from there to the institution.

One stream comes in. Each notice is stored together with its evidence and the platform's token, so
after any interruption the stream goes on where it stopped. Streams going out are served from the
store alone, with tokens of the edge's own: they work while the platform is away, and tell of what
only the edge knows. Evidence is kept as it came, for the institution to verify; the edge itself
relies on it only if it verifies.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import structlog

from rxoutflow.statements import StatementError
from rxoutflow.statements.payloads import rule_for
from rxoutflow.v1.notice_pb2 import Notice
from rxoutflow.v1.prescription_status_pb2 import PrescriptionStatus
from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow_server.application.edge.platform import Platform
from rxoutflow_server.application.edge.registration import heard
from rxoutflow_server.application.edge.sealing import keep
from rxoutflow_server.application.edge.surroundings import Edge
from rxoutflow_server.application.edge_ports import EdgeTransaction
from rxoutflow_server.application.messages import instant, timestamp
from rxoutflow_server.application.ports import NoticeRecord
from rxoutflow_server.application.validation import invalid
from rxoutflow_server.domain.errors import Refusal, Unavailable

PAGE = 100
STREAM = "platform"
"""The name under which the platform's token is kept."""

_STATUS = rule_for(PrescriptionStatus).payload_type
_TOKEN_DIGITS = 18

log = structlog.get_logger()


async def keep_following(edge: Edge, platform: Platform) -> None:
    """Store what the platform tells, again and again, until cancelled."""
    tries = 0
    while True:
        try:
            await follow(edge, platform)
            tries = 0
        except (Refusal, Unavailable) as error:
            log.warning("notices_interrupted", reason=str(error.reason))
        except Exception as error:  # whatever it was, the next stream may do better
            log.exception("notices_interrupted", exception=type(error).__qualname__)
        await edge.pause(tries)
        tries += 1


async def follow(edge: Edge, platform: Platform) -> None:
    """Store what the platform tells until its stream ends.

    Raises:
        Refusal: the platform does not let this institution listen.
        Unavailable: the stream broke.
    """
    token = await edge.store.read(lambda tx: tx.edge.resume_token(STREAM))
    async with aclosing(platform.watch_notices(token)) as told:
        async for notice in told:
            await _keep(edge, notice)


async def watch(edge: Edge, resume_token: str) -> AsyncGenerator[Notice, None]:
    """The stored notices after a token, and then whatever comes, for as long as somebody listens.

    Raises:
        Refusal: FIELD_INVALID for a token that this edge never gave.
    """
    after = _sequence(resume_token)
    while True:
        news = edge.noticed.listen()
        page = await _page(edge, after)
        for notice in page:
            yield notice
            after = int(notice.resume_token)
        if not page:
            await news.wait()


async def _keep(edge: Edge, notice: Notice) -> None:
    await edge.store.transact(lambda tx: _store(tx, edge, notice))
    edge.noticed.ring()


def _store(tx: EdgeTransaction, edge: Edge, notice: Notice) -> None:
    number, now, digest = notice.prescription_number, edge.now(), b""
    if notice.HasField("evidence"):
        digest = keep(tx, number, notice.evidence, now)
        _hear(tx, edge, number, notice.evidence)
    tx.journal.add_notice(
        NoticeRecord(
            institution_code=edge.code,
            kind=_kind_name(notice.kind),
            prescription_number=number,
            other_institution_code=notice.institution_code,
            statement_sha256=digest,
            summary=notice.summary,
            time=instant(notice.event_time),
        )
    )
    tx.edge.save_resume_token(STREAM, notice.resume_token)


def _hear(tx: EdgeTransaction, edge: Edge, number: str, evidence: SignedStatement) -> None:
    """If the evidence is a newer status of a prescription issued here, remember it."""
    issued = tx.edge.issued(number)
    if issued is None or evidence.payload_type != _STATUS:
        return
    now = edge.now()
    try:
        status = edge.verifier.verify(evidence, PrescriptionStatus, now)
    except StatementError as error:
        log.warning("evidence_not_believed", reason=error.reason)
        return
    if status.content.prescription_number == number:
        tx.edge.save_issued(heard(tx, issued, evidence, status, now))


async def _page(edge: Edge, after: int) -> list[Notice]:
    return await edge.store.read(
        lambda tx: [
            _message(tx, edge, stored) for stored in tx.journal.notices(edge.code, after, PAGE)
        ]
    )


def _message(tx: EdgeTransaction, edge: Edge, stored: NoticeRecord) -> Notice:
    number, other, digest = (
        stored.prescription_number,
        stored.other_institution_code,
        stored.statement_sha256,
    )
    return Notice(
        resume_token=str(stored.sequence),
        event_time=timestamp(stored.time),
        kind=_kind(stored.kind),
        prescription_number=number,
        institution_code=other,
        institution_name=edge.name_of(other) if other else "",
        evidence=tx.journal.statement(number, digest) if digest else None,
        summary=stored.summary,
    )


def _kind_name(kind: Notice.Kind.ValueType) -> str:
    """The name of a kind; its number if the platform is newer than this edge and knows more."""
    known = kind in Notice.Kind.values()
    return Notice.Kind.Name(kind).removeprefix("KIND_") if known else str(int(kind))


def _kind(name: str) -> Notice.Kind.ValueType:
    return Notice.Kind.ValueType(int(name)) if name.isdigit() else Notice.Kind.Value(f"KIND_{name}")


def _sequence(resume_token: str) -> int:
    if not resume_token:
        return 0
    if not (resume_token.isascii() and resume_token.isdigit()) or len(resume_token) > _TOKEN_DIGITS:
        raise invalid("resume_token", "must be the token of a notice of this edge, or empty")
    return int(resume_token)
