"""Fixtures of tests that begin with servers for which every request would succeed.

A ``conftest.py`` that imports them has them, made once.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import pytest_asyncio
import structlog

from support import doors
from support.premises import Premises
from support.ready import prepared

__all__ = ["_prepared", "premises"]


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
