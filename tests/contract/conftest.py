"""The engines that the contract suite runs on, as fixtures."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.backends import ALL, LASTING, Backend, OpenEdgeStore, OpenStore


@pytest.fixture(params=ALL)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    """Every engine."""
    made: Backend = request.param(tmp_path)
    return made


@pytest.fixture(params=LASTING)
def lasting_backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    """Every engine whose records survive, and whose queries run beside commands."""
    made: Backend = request.param(tmp_path)
    return made


@pytest.fixture
async def store(backend: Backend) -> AsyncIterator[OpenStore]:
    """A platform's store, on every engine."""
    opened = backend.platform()
    yield opened
    await opened.close()


@pytest.fixture
async def lasting_store(lasting_backend: Backend) -> AsyncIterator[OpenStore]:
    """A platform's store, on every engine whose queries run beside commands."""
    opened = lasting_backend.platform()
    yield opened
    await opened.close()


@pytest.fixture
async def edge(backend: Backend) -> AsyncIterator[OpenEdgeStore]:
    """An edge's store, on every engine."""
    opened = backend.edge()
    yield opened
    await opened.close()
