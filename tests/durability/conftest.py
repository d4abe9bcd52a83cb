"""Stores on disks that fail: the servers and requests they are tried with, and a place for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import pytest_asyncio
import structlog

from support import doors
from support.board import Ran, reporter
from support.premises import Premises
from support.ready import prepared


@pytest.fixture
def ran(record_property: Callable[[str, object], None]) -> Ran:
    return reporter(record_property)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def _prepared() -> Premises:
    doors.keep_quiet()
    return await prepared()


@pytest.fixture
def premises(_prepared: Premises) -> Iterator[Premises]:
    doors.keep_quiet()
    _prepared.restore()
    yield _prepared
    _prepared.restore()
    structlog.reset_defaults()


@pytest.fixture
def disks() -> Iterator[Path]:
    """A folder for files that are written all the time: in memory, where there is such a place.

    What is durable is decided here, and not by that file system.
    """
    memory = Path("/dev/shm")  # noqa: S108 - the directory made there is ours alone
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)
