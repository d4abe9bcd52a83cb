"""The history behind a status: steps with the statements that they rest on, each verified here.

A step counts only if its statement verifies as of the time when the platform stored it, is the one
whose digest the step names, and speaks of the prescription that was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC

from rxoutflow.client.evidence import EvidenceReader, require
from rxoutflow.statements import statement_sha256
from rxoutflow.v1.trace_pb2 import TraceEvent

Page = tuple[Iterable[TraceEvent], str]
"""Some events, and the token of the next page; empty on the last one."""


def read_event(evidence: EvidenceReader, event: TraceEvent, number: str) -> TraceEvent:
    """The event, whose statement was verified.

    Raises:
        AnswerUntrusted: the statement does not verify, or is another than the event says.
    """
    statement = evidence.read_any(event.statement, at=event.event_time.ToDatetime(UTC))
    require(
        event.statement_sha256 == statement_sha256(event.statement),
        f"the statement of `{event.action}` is not the one whose digest the trace names",
    )
    require(
        getattr(statement.content, "prescription_number", number) == number,
        f"the statement of `{event.action}` is about another prescription than was asked for",
    )
    return event


def read_history(
    evidence: EvidenceReader, number: str, ask: Callable[[str], Page]
) -> tuple[TraceEvent, ...]:
    """Every event of all pages, oldest first, each verified.

    Raises:
        AnswerUntrusted: as ``read_event``, or the pages lead nowhere.
    """
    found: list[TraceEvent] = []
    token, more = "", True
    while more:
        events, following = ask(token)
        page = [read_event(evidence, event, number) for event in events]
        found += page
        more, token = bool(following), following
        require(not more or bool(page), "the platform's pages lead nowhere")
    return tuple(found)
