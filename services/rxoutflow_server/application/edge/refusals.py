"""Refusals as text, so that one that was given once can be given again.

Only what a caller was told is kept: reason, sentence, and the details for programs.
"""

from __future__ import annotations

import json

from rxoutflow_server.domain.errors import Reason, Refusal


def written(refusal: Refusal) -> str:
    """A refusal as text."""
    return json.dumps(
        {"reason": refusal.reason, "message": refusal.message, "detail": refusal.detail},
        ensure_ascii=False,
    )


def read(text: str) -> Refusal:
    """The refusal that was written."""
    parts = json.loads(text)
    return Refusal(Reason(parts["reason"]), parts["message"], **parts["detail"])
