"""Abuse in the gate: the servers and requests that all of it starts from."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import pytest_asyncio
import structlog

from support import doors
from support.board import Ran, reporter
from support.premises import Premises
from support.ready import prepared


@pytest.fixture
def ran(record_property: Callable[[str, object], None]) -> Ran:
    """Reports how many cases a test ran, and refuses fewer than the floor."""
    return reporter(record_property)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def _prepared() -> Premises:
    """Made once; whoever uses it must run on the session's event loop, as it does."""
    doors.keep_quiet()
    return await prepared()


@pytest.fixture
def premises(_prepared: Premises) -> Iterator[Premises]:
    """Three regions and two edges, as they were when every request would succeed."""
    doors.keep_quiet()
    _prepared.restore()
    yield _prepared
    _prepared.restore()
    structlog.reset_defaults()
