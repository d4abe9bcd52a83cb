"""An operator at a terminal, over real servers: a silent pharmacy is adjudicated by two people."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rxoutflow.v1.dispense_pb2 import DispenseProgress
from support.exchanges import Exchange
from support.sandbox import LiveSandbox, eventually, run_program, run_sandbox

HOME = "xiamen-operator"


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveSandbox]:
    with run_sandbox(tmp_path_factory.mktemp("operator")) as running:
        yield running


def at_desk(
    sandbox: LiveSandbox, actor: str, *arguments: str | Path
) -> subprocess.CompletedProcess[str]:
    folder = sandbox.layout.directory
    return run_program("rxoutflow", "--sandbox", folder, "--as", actor, *arguments)


def answered(sandbox: LiveSandbox, actor: str, *arguments: str | Path) -> Any:
    """What a command that succeeds says in JSON."""
    done = at_desk(sandbox, actor, *arguments, "--json")
    assert (done.returncode, done.stderr) == (0, ""), done
    return json.loads(done.stdout)


def decided(sandbox: LiveSandbox, exchange: Exchange, file: Path, finding: str) -> str:
    """The first person decides; the attempt's id."""
    attempt_id = exchange.attempt.content.attempt_id
    listed = answered(sandbox, HOME, "overdue", "list")
    (entry,) = (each for each in listed if each["attempt"]["attempt_id"] == attempt_id)
    assert entry["pharmacy_phone"] == "0595-5550101"
    assert entry["settlement"]["state"] == "HELD"
    evidence = ("--evidence", "stock book of 2 March, seen by both")
    answered(sandbox, HOME, "overdue", "decide", attempt_id, finding, *evidence, "-o", file)
    return attempt_id


def test_what_two_people_find_handed_over_is_paid_and_the_pharmacy_may_still_record_it(
    sandbox: LiveSandbox, tmp_path: Path
) -> None:
    exchange, file = Exchange(sandbox).up_to(3), tmp_path / "decision"
    attempt_id = decided(sandbox, exchange, file, "--handed-over")
    countersign = ("overdue", "countersign", file, "--yes")
    alone = at_desk(sandbox, HOME, *countersign, "--as", "first")
    assert alone.returncode == 2
    assert "it takes a second person" in alone.stderr
    elsewhere = at_desk(sandbox, "quanzhou-operator", *countersign)
    assert (elsewhere.returncode, "SIGNED_CONTENT_MISMATCH" in elsewhere.stderr) == (1, True)
    ended = answered(sandbox, HOME, *countersign)
    assert (ended["attempt"]["attempt_id"], ended["attempt"]["state"]) == (attempt_id, "DISPENSED")
    eventually(exchange.completed, "completed without a record")
    again = at_desk(sandbox, HOME, *countersign)
    assert (again.returncode, "ATTEMPT_ENDED" in again.stderr) == (1, True)
    exchange.record()
    eventually(lambda: "record known" in actions(sandbox, exchange), "the record known at home")
    assert exchange.completed()
    eventually(lambda: not sandbox.undelivered(), "everything delivered")
    once = Counter(actions(sandbox, exchange))
    assert [once[each] for each in ("adjudicated", "posted", "record known")] == [1, 1, 1]
    assert not once["voided"]
    assert answered(sandbox, HOME, "dead-letters", "list") == []


def test_what_two_people_find_not_handed_over_is_free_for_another_pharmacy(
    sandbox: LiveSandbox, tmp_path: Path
) -> None:
    exchange, file = Exchange(sandbox).up_to(3), tmp_path / "decision"
    decided(sandbox, exchange, file, "--not-handed-over")
    ended = answered(sandbox, HOME, "overdue", "countersign", file, "--yes")
    assert ended["attempt"]["state"] == "RELEASED"
    eventually(lambda: exchange.state == DispenseProgress.STATE_RELEASED, "released")
    eventually(lambda: "voided" in actions(sandbox, exchange), "voided")
    other = sandbox.pharmacy("nantong")
    claim = other.claim_request(exchange.issued.pickup_code)
    assert other.send_claim(claim).content.fence == 2


def actions(sandbox: LiveSandbox, exchange: Exchange) -> list[str]:
    """What happened to a prescription, in all regions."""
    return [event.action for event in sandbox.trace(exchange.number)]


def test_a_decision_outlives_the_platform(sandbox: LiveSandbox, tmp_path: Path) -> None:
    """Killed as soon as it has answered, home still tells everybody what was found."""
    exchange, file = Exchange(sandbox).up_to(3), tmp_path / "decision"
    decided(sandbox, exchange, file, "--handed-over")
    answered(sandbox, HOME, "overdue", "countersign", file, "--yes")
    with sandbox.servers.killed("platform-350200"):
        pass
    eventually(exchange.completed, "completed after the restart")


def test_a_decision_is_shown_before_it_is_signed(sandbox: LiveSandbox, tmp_path: Path) -> None:
    exchange, file = Exchange(sandbox).up_to(3), tmp_path / "decision"
    decided(sandbox, exchange, file, "--handed-over")
    asked = at_desk(sandbox, HOME, "overdue", "countersign", file)
    assert asked.returncode == 1
    for part in ("HANDED_OVER", "stock book of 2 March", "郭裁决（合成）", "J350200001"):
        assert part in asked.stdout
    assert exchange.attempt.content.attempt_id in at_desk(sandbox, HOME, "overdue", "list").stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("overdue", "decide", "x", "--handed-over", "--evidence", "e", "-o", "d"), "is not on"),
        (("overdue", "countersign", "nothing-here", "--yes"), "cannot be read"),
        (("dead-letters", "retry", "x"), "is not set aside"),
        (("dead-letters", "discard", "x", "--reason", "r"), "is not set aside"),
    ],
)
def test_wrong_input_is_one_readable_line(
    sandbox: LiveSandbox, arguments: tuple[str, ...], says: str
) -> None:
    done = at_desk(sandbox, HOME, *arguments)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert says in line


def test_only_an_operator_is_let_in(sandbox: LiveSandbox) -> None:
    done = at_desk(sandbox, "xiamen-regulator", "overdue", "list")
    assert (done.returncode, "this needs an operator" in done.stderr) == (2, True)
