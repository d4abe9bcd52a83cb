"""What the tests of the simulation share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from support.board import Ran, reporter


@pytest.fixture
def ran(record_property: Callable[[str, object], None]) -> Ran:
    """Reports how much a test ran, and refuses less than the floor."""
    return reporter(record_property)
