"""L12: bugs planted in what keeps strangers and liars out, and the checks that have to catch them.

``test_planted_bugs`` attacks the code itself. Here it is the gate that is tried: each bug is
planted in a process of its own, in which one named check of the gate runs, and must turn red.
Without a bug the same checks are green, or nothing would be shown.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from support.board import Ran
from support.plants import PLANTS, VARIABLE

ROOT = Path(__file__).resolve().parents[2]


def run(checks: Sequence[str], plant: str = "") -> subprocess.CompletedProcess[str]:
    """Run checks of the gate in another process, with a bug planted or without."""
    arguments = ["-p", "support.plants", "-p", "no:cacheprovider", "-q", "-x", "--no-header"]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        "PYTHONPATH": str(ROOT / "tests"),
        VARIABLE: plant,
    }
    return subprocess.run(
        [sys.executable, "-m", "pytest", *arguments, *checks],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("plant", PLANTS)
def test_a_planted_bug_turns_its_check_red(
    plant: str, record_property: Callable[[str, object], None]
) -> None:
    finished = run([PLANTS[plant].caught_by], plant)
    report = finished.stdout + finished.stderr
    assert finished.returncode == pytest.ExitCode.TESTS_FAILED, report
    assert re.search(r"\b[1-9]\d* failed\b", report), report
    record_property("floor", f"L12 caught: {plant}")


def test_without_a_bug_the_same_checks_are_green(ran: Ran) -> None:
    finished = run(sorted({plant.caught_by for plant in PLANTS.values()}))
    assert finished.returncode == pytest.ExitCode.OK, finished.stdout + finished.stderr
    ran("L12 bugs planted", len(PLANTS), 25)
