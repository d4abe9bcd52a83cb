"""Where tests put files that are written all the time."""

from __future__ import annotations

from pathlib import Path

_MEMORY = Path("/dev/shm")  # noqa: S108 - what is made there has a name that is ours alone


def memory() -> Path | None:
    """Where files outlive every process but are quick to write, if there is such a place."""
    return _MEMORY if _MEMORY.is_dir() else None
