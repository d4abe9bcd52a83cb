"""L12, protocol and durability: bugs that are planted on purpose, each of which is found.

Every plant breaks one thing in the code that runs; the simulation or a story has to find it within
its budget, by an invariant that the plant breaks. The stories find nothing in the code as it is,
and the simulation's seeds are held to that by the simulation's own test. ``RXOUTFLOW_WRITE_DOCS=1``
writes the table of plants into the reliability page; without it the page has to be up to date.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from simulation import stories
from simulation.bugs import BUGS, Bug, Simulation, Told, table
from simulation.plan import Parameters
from simulation.run import simulate
from support.board import Ran

FLOOR = 35
SEEDS = 20
"""Most seeds that the simulation may need to find a plant."""

INVARIANTS = [f"I{number}" for number in range(1, 15)]
PAGE = Path(__file__).parents[2] / "docs/reliability.md"
BEGIN, END = "<!-- planted bugs: generated -->", "<!-- end of planted bugs -->"

_caught: dict[str, str] = {}
"""By plant: what found it."""


def simulated(bug: Bug) -> str:
    """What the simulation says with a plant in place: its first violation."""
    assert isinstance(bug.found_by, Simulation)
    first = bug.found_by.seeds
    others = [seed for seed in range(1, SEEDS + 1) if seed not in first]
    for seed in (*first, *others)[:SEEDS]:
        violation = simulate(Parameters(seed)).violation
        if violation:
            return f"seed {seed}: {violation}"
    return ""


def told(bug: Bug) -> str:
    """What a story comes to with a plant in place."""
    assert isinstance(bug.found_by, Told)
    try:
        stories.told(bug.found_by.story)
    except AssertionError as violation:
        return str(violation)
    return ""


def of_invariant(text: str) -> str:
    """The number of the invariant that a violation names."""
    found = re.search(r"\b([IL]\d+): ", text)
    return found.group(1) if found else ""


@pytest.mark.parametrize("story", stories.STORIES, ids=lambda story: story.__name__)
def test_a_story_finds_nothing_in_the_code_as_it_is(story: stories.Story) -> None:
    stories.told(story)


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bug = BUGS[name]
    bug.put(monkeypatch)
    found = simulated(bug) if isinstance(bug.found_by, Simulation) else told(bug)
    assert found, f"nobody noticed that {name}"
    assert of_invariant(found) in bug.breaks, found
    _caught[name] = found


def test_every_invariant_is_broken_by_a_plant() -> None:
    broken = {invariant for bug in BUGS.values() for invariant in bug.breaks}
    assert [each for each in INVARIANTS if each not in broken] == []


def test_every_story_is_told_with_a_plant_or_shows_what_is_right() -> None:
    used = {bug.found_by.story for bug in BUGS.values() if isinstance(bug.found_by, Told)}
    assert used <= set(stories.STORIES)


def test_the_page_lists_every_plant() -> None:
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    _, found, after = rest.partition(END)
    assert found, f"{PAGE.name} has no place for the table: {BEGIN} … {END}"
    wanted = f"{before}{BEGIN}\n\n{table()}\n{END}{after}"
    if os.environ.get("RXOUTFLOW_WRITE_DOCS"):
        PAGE.write_text(wanted, "utf-8")
    assert PAGE.read_text("utf-8") == wanted, "write it with RXOUTFLOW_WRITE_DOCS=1"


def test_the_board(ran: Ran, request: pytest.FixtureRequest) -> None:
    """K of K, if all of them were asked for."""
    asked = {item.name for item in request.session.items}
    if not all(f"test_a_planted_bug_is_found[{name}]" in asked for name in BUGS):
        pytest.skip("not all plants were asked for")
    assert sorted(_caught) == sorted(BUGS)
    ran(
        f"L12 planted bugs of protocol and durability, {len(_caught)}/{len(BUGS)} caught",
        len(_caught),
        FLOOR,
    )
