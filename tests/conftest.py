"""What a run says at its end: how much was tried where "nothing went wrong" needs a number.

A test that searches for a violation records what it did as the property ``floor``; it fails by
itself if that was less than it promises. The figures are printed here, whoever ran the tests.

gRPC's own fork handlers are turned off before anything imports it: tests that start processes run
beside tests that use gRPC in this one, and the handlers abort the child before it becomes a program
of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from support.board import Ran, reporter

os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"


@pytest.fixture
def ran(record_property: Callable[[str, object], None]) -> Ran:
    """Reports how much a test ran, and refuses less than the floor."""
    return reporter(record_property)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures of the tests that passed."""
    passed: list[pytest.TestReport] = terminalreporter.stats.get("passed", [])
    floors = [text for each in passed for name, text in each.user_properties if name == "floor"]
    if floors:
        terminalreporter.section("how much was tried")
    for text in sorted({str(text) for text in floors}):
        terminalreporter.write_line(text)
