"""What a status code promises: definite means that nothing happened, indefinite that it may have.

That a *definite* refusal leaves no trace is shown by some three hundred mutants of every method in
``test_malformed_input``. Here is the other half: every method that changes something is made to
lose its answer after each single commit that it makes anywhere, its own region's or another's. It
then must answer indefinitely, or not at all to what it could not decide; and the same request again
must bring exactly what an undisturbed one brings, once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from rxoutflow_server.application.ports import Transaction
from rxoutflow_server.domain.errors import Reason, Unavailable
from rxoutflow_server.transport.errors import MEANINGS
from security.test_malformed_input import CHANGES_NOTHING, outcome
from support.board import Ran
from support.premises import Call, Premises

pytestmark = pytest.mark.asyncio(loop_scope="session")

MOST_COMMITS = 12
"""No method commits more often, in all regions together."""

ANSWERED_ONCE = {
    "AdministrationService/RetryDeadLetter": Reason.EVENT_NOT_FOUND,
    "AdministrationService/DiscardDeadLetter": Reason.EVENT_NOT_FOUND,
}
"""Methods without a request id: the event is set aside no more, which a repeat is told."""

INDEFINITE = {str(reason) for reason, meaning in MEANINGS.items() if not meaning.definite}


class Commits:
    """Counts the commits of all stores, and loses the answer to one of them."""

    def __init__(self, lose: int | None = None) -> None:
        self.made = 0
        self._lose = lose

    def after(self, transact: Callable[..., Any]) -> Callable[..., Any]:
        async def counting(command: Callable[[Transaction], Any]) -> Any:
            result = await transact(command)
            self.made += 1
            if self.made == self._lose:
                raise Unavailable(Reason.STORE_UNAVAILABLE, "the answer was lost")
            return result

        return counting


@contextmanager
def watching(premises: Premises, commits: Commits) -> Iterator[Commits]:
    """Every store of the premises, with its commits counted."""
    with pytest.MonkeyPatch.context() as patch:
        for store in premises.stores.values():
            patch.setattr(store, "transact", commits.after(store.transact))
        yield commits


def rows(premises: Premises) -> dict[str, int]:
    """How many rows each table of each store has."""
    counted = {}
    for name, store in premises.stores.items():
        tables = store.connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        for (table,) in tables.fetchall():
            count = store.connection.execute(f"SELECT COUNT(*) FROM {table}")  # noqa: S608 - ours
            counted[f"{name}.{table}"] = count.fetchone()[0]
    return counted


def mutating(premises: Premises) -> list[Call]:
    return [each for each in premises.all_calls() if not CHANGES_NOTHING.fullmatch(each.name)]


async def undisturbed(premises: Premises, call: Call) -> tuple[int, dict[str, int]]:
    """How often the call commits, and what it leaves."""
    with watching(premises, Commits()) as commits:
        assert outcome(await premises.make(call)) == "OK", call.name
    return commits.made, rows(premises)


async def test_the_same_request_again_has_no_second_effect(premises: Premises, ran: Ran) -> None:
    wrong, calls = [], mutating(premises)
    for call in calls:
        first = await premises.make(call)
        before = premises.state()
        again = await premises.make(call)
        method = call.method.removeprefix("/rxoutflow.v1.")
        if outcome(again) != ANSWERED_ONCE.get(method, "OK"):
            wrong.append((call.name, outcome(again)))
        if changed := premises.changes(before):
            wrong.append((call.name, f"changed {changed}"))
        assert outcome(first) == "OK"
        premises.restore()
    assert wrong == []
    ran("L9 requests made twice", len(calls), 40)


async def test_a_lost_answer_is_indefinite_and_its_repeat_brings_what_it_should(
    premises: Premises, ran: Ran
) -> None:
    wrong, lost = [], 0
    for call in mutating(premises):
        commits, expected = await undisturbed(premises, call)
        premises.restore()
        assert 0 < commits <= MOST_COMMITS, call.name
        for number in range(1, commits + 1):
            wrong += await _lose(premises, call, number, expected)
            lost += 1
            premises.restore()
    assert wrong == []
    ran("L9 answers lost after a commit", lost, 60)


async def _lose(
    premises: Premises, call: Call, number: int, expected: dict[str, int]
) -> list[tuple[str, int, str]]:
    """What is wrong after the answer to that commit was lost and the request made again."""
    method = call.method.removeprefix("/rxoutflow.v1.")
    with watching(premises, Commits(number)):
        first = outcome(await premises.make(call))
    found = []
    if first not in INDEFINITE | {"OK"}:
        found.append((call.name, number, f"said {first}, which is definite"))
    second = outcome(await premises.make(call))
    if second not in ("OK", ANSWERED_ONCE.get(method)):
        found.append((call.name, number, f"repeated: {second}"))
    after = rows(premises)
    if differing := {table for table in expected if after.get(table) != expected[table]}:
        found.append((call.name, number, f"other than undisturbed: {differing}"))
    return found
