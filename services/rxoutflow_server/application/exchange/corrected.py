"""Calls that were corrected (冲正): marked, so that they take no effect when they arrive later.

A mark stands in the journal of outcomes, beside the outcomes themselves and under a name that no
caller has. It is set only where no outcome is stored: a call that was answered keeps its answer.
Whoever carries a call out looks for its mark in the same transaction, so of a call and its
correction one comes first and the other one sees it.
"""

from __future__ import annotations

from datetime import datetime

from rxoutflow.v1.attempt_pb2 import Correction
from rxoutflow_server.application.ports import Journal, StoredOutcome
from rxoutflow_server.domain.errors import Reason, Refusal


def mark(
    journal: Journal,
    number: str,
    caller: str,
    request_id: str,
    correction_sha256: bytes,
    now: datetime,
) -> None:
    """Mark a call as corrected. Marking it again changes nothing."""
    if _marked(journal, number, caller, request_id):
        return
    correction = StoredOutcome(
        method="",
        request_sha256=correction_sha256,
        response_type=Correction.DESCRIPTOR.full_name,
        response=b"",
        effect_time=now,
    )
    journal.keep_outcome(number, _scope(caller), request_id, correction)


def require_uncorrected(journal: Journal, number: str, caller: str, request_id: str) -> None:
    """The call was not corrected before it could take effect.

    Raises:
        Refusal: REQUEST_CORRECTED.
    """
    if _marked(journal, number, caller, request_id):
        raise Refusal(
            Reason.REQUEST_CORRECTED,
            "this call was corrected: it has no effect, now or later; make a new call with a new"
            " request_id if it is still wanted",
        )


def _marked(journal: Journal, number: str, caller: str, request_id: str) -> bool:
    return journal.outcome(number, _scope(caller), request_id) is not None


def _scope(caller: str) -> str:
    """Under which name marks are stored; no caller has one of this form."""
    return f"{caller}#corrected"
