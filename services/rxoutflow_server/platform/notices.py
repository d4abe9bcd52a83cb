"""Streams of notices: what an institution has not heard yet, then whatever comes."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from rxoutflow.v1 import notice_pb2
from rxoutflow_server.application.messages import timestamp
from rxoutflow_server.application.ports import NoticeRecord, Store, Transaction
from rxoutflow_server.application.region import Region
from rxoutflow_server.application.validation import invalid
from rxoutflow_server.platform.changes import Changes, wait

PAGE = 100
LONGEST_WAIT_SECONDS = 30.0
_TOKEN_DIGITS = 18


async def watch(
    region: Region, store: Store, changes: Changes, institution_code: str, resume_token: str
) -> AsyncGenerator[notice_pb2.Notice, None]:
    """Notices for an institution after a resume token, for as long as somebody listens.

    Raises:
        Refusal: FIELD_INVALID for a token that this platform never gave.
    """
    after = _sequence(resume_token)
    while True:
        expected = changes.expected()
        page = await store.read(lambda tx, after=after: _page(tx, region, institution_code, after))  # type: ignore[misc] # mypy cannot infer a lambda with a default
        for sequence, notice in page:
            yield notice
            after = sequence
        if len(page) < PAGE:
            await wait(expected, LONGEST_WAIT_SECONDS)


def _sequence(resume_token: str) -> int:
    if not resume_token:
        return 0
    if not (resume_token.isascii() and resume_token.isdigit()) or len(resume_token) > _TOKEN_DIGITS:
        raise invalid("resume_token", "must be the token of a notice, or empty")
    return int(resume_token)


def _page(
    tx: Transaction, region: Region, institution_code: str, after: int
) -> list[tuple[int, notice_pb2.Notice]]:
    found = tx.journal.notices(institution_code, after, PAGE)
    return [(notice.sequence, _message(tx, region, notice)) for notice in found]


def _message(tx: Transaction, region: Region, notice: NoticeRecord) -> notice_pb2.Notice:
    other = notice.other_institution_code
    return notice_pb2.Notice(
        resume_token=str(notice.sequence),
        event_time=timestamp(notice.time),
        kind=notice_pb2.Notice.Kind.Value(f"KIND_{notice.kind}"),
        prescription_number=notice.prescription_number,
        institution_code=other,
        institution_name=region.name_of(other[1:7], other) if other else "",
        evidence=tx.journal.statement(notice.prescription_number, notice.statement_sha256),
        summary=notice.summary,
    )
