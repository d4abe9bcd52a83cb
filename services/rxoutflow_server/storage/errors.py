"""What an operator hears when a store cannot be opened or copied, and a caller when it fails.

The operator's errors happen at start or at maintenance, never while a command runs: a store that
fails at work answers ``Unavailable`` instead. Messages name the file and say what to do next.
"""

from __future__ import annotations

from rxoutflow_server.domain.errors import Reason, Unavailable


class StoreError(Exception):
    """A store cannot be opened or copied as asked. The message names the file and the remedy."""


class StoreInUse(StoreError):
    """Another process has the store open."""


def unavailable() -> Unavailable:
    """What every caller of a stopped store hears, and whose command may have taken effect."""
    return Unavailable(
        Reason.STORE_UNAVAILABLE,
        "the records cannot be written or read at present, and whether this request took effect is"
        " not known; repeat it later with the same request_id, or ask for its outcome",
    )
