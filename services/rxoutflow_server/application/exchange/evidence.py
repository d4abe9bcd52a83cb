"""Keeping evidence: statements byte for byte, and the steps that they caused."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from google.protobuf.message import Message

from rxoutflow.statements import Verified, statement_sha256
from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow_server.application.ports import (
    Flow,
    NoticeRecord,
    OutgoingEvent,
    RegionRole,
    TraceStep,
    Transaction,
)
from rxoutflow_server.application.region import Region


def keep(
    tx: Transaction,
    number: str,
    statement: SignedStatement,
    now: datetime,
    verified: Verified[Any] | None = None,
) -> bytes:
    """Keep a statement and return its digest. What a platform keeps is a leaf of its log, once.

    ``verified`` is what verified of this very statement, and says its digest, where that is known.
    """
    digest = statement_sha256(statement) if verified is None else verified.sha256
    tx.keep(number, digest, statement, now)
    return digest


def stated(
    tx: Transaction,
    region: Region,
    number: str,
    content: Message,
    now: datetime,
) -> tuple[SignedStatement, bytes]:
    """Sign a statement of this platform and keep it."""
    statement = region.seal(content, now=now)
    return statement, keep(tx, number, statement, now)


def step(
    tx: Transaction,
    number: str,
    role: RegionRole,
    flow: Flow,
    action: str,
    actor_code: str,
    sha256: bytes,
    now: datetime,
) -> None:
    """Append a step to the life of a prescription."""
    tx.journal.add_step(number, TraceStep(now, role, flow, action, actor_code, sha256))


def tell_region(
    tx: Transaction,
    region: Region,
    peer: str,
    number: str,
    sha256: bytes,
    now: datetime,
    *,
    insured_person_id: str = "",
) -> None:
    """Put a fact on its way to another region, or to another role of this one."""
    tx.journal.add_event(
        OutgoingEvent(
            event_id=region.new_id(now),
            peer_region_code=peer,
            prescription_number=number,
            insured_person_id=insured_person_id,
            statement_sha256=sha256,
            create_time=now,
        )
    )


def tell_institution(
    tx: Transaction,
    institution_code: str,
    kind: str,
    number: str,
    other_code: str,
    sha256: bytes,
    summary: str,
    now: datetime,
) -> None:
    """Append a notice for an institution of this region."""
    tx.journal.add_notice(
        NoticeRecord(
            institution_code=institution_code,
            kind=kind,
            prescription_number=number,
            other_institution_code=other_code,
            statement_sha256=sha256,
            summary=summary,
            time=now,
        )
    )
