"""Stores on disks that fail: the servers and requests they are tried with, and a place for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from support.places import memory
from support.started import _prepared, premises

__all__ = ["_prepared", "premises"]


@pytest.fixture
def disks() -> Iterator[Path]:
    """A folder for files that are written all the time: in memory, where there is such a place.

    What is durable is decided here, and not by that file system.
    """
    with TemporaryDirectory(dir=memory()) as folder:
        yield Path(folder)
