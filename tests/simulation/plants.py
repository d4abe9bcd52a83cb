"""Bugs that are planted to see whether the simulation finds them.

A plant is a context manager that changes one thing while it is in place. Write it with
:func:`replaced`, which refuses a name that is no longer there, and put it in the table; a test runs
seeds until each is caught, and says within how many.

    with PLANTS["acknowledged before it is synced"].planted():
        result = simulate(Parameters(seed))
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from unittest.mock import patch

Patch = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True)
class Plant:
    """A bug, and within how many seeds, counted from zero, the simulation must find it."""

    patches: Sequence[Patch]
    within: int
    invariants: frozenset[str] = frozenset()
    """The numbers of the invariants that it may break; any, if empty."""

    @contextmanager
    def planted(self) -> Iterator[None]:
        """While it is there."""
        with ExitStack() as stack:
            for each in self.patches:
                stack.enter_context(each())
            yield


def replaced(path: str, make: Callable[[Any], Any]) -> Patch:
    """Put what ``make`` makes of the honest thing in its place.

    ``path`` is ``module:attribute`` or ``module:Class.attribute``.
    """

    def enter() -> AbstractContextManager[object]:
        module, _, attribute = path.partition(":")
        target: Any = importlib.import_module(module)
        *classes, name = attribute.split(".")
        for each in classes:
            target = getattr(target, each)
        assert hasattr(target, name), f"{path} is not there any more: plant the bug elsewhere"
        return patch.object(target, name, make(getattr(target, name)))

    return enter


# durability


def _answers_at_once(honest: Any) -> Any:
    """Whoever waits is answered as soon as the command has run."""

    def try_(self: Any, job: Any) -> None:
        honest(self, job)
        job.answer()

    return try_


# the protocol


def _timer_after_commit(honest: Any) -> Any:
    """The lease ends a committed attempt, too."""

    def expire_lease(prescription: Any, *, now: datetime) -> Any:
        from rxoutflow_server.domain.attempt import AttemptState

        live = prescription.live_attempt
        over = live is not None and now >= live.create_time + timedelta(seconds=60)
        if not over or live.state is not AttemptState.COMMITTED:
            return honest(prescription, now=now)
        from rxoutflow_server.domain import prescription as home

        freed = home._give_back(prescription, live)
        return home._ended(freed, live, AttemptState.EXPIRED, b"", now)

    return expire_lease


def _once_is_forgotten(honest: Any) -> Any:
    """Outcomes are not kept, so every repetition is carried out again."""
    return lambda *args, **kwargs: None


def _voided_by_a_timer(honest: Any) -> Any:
    """A hold is set free some time after it was made, whatever became of its attempt."""

    def posted(settlement: Any, **kwargs: Any) -> Any:
        from rxoutflow_server.domain.settlement import SettlementState

        old = kwargs["now"] - settlement.create_time > timedelta(seconds=20)
        if old and settlement.state is SettlementState.HELD:
            return replace(settlement, state=SettlementState.VOIDED, update_time=kwargs["now"])
        return honest(settlement, **kwargs)

    return posted


PLANTS: dict[str, Plant] = {
    "acknowledged before it is synced": Plant(
        [replaced("simulation.store:SimulatedStore._try", _answers_at_once)], within=40
    ),
    "a lease that ends committed attempts": Plant(
        [replaced("rxoutflow_server.domain.prescription:expire_lease", _timer_after_commit)],
        within=20,
    ),
    "outcomes not kept": Plant(
        [replaced(
            "rxoutflow_server.storage.tables.journal:JournalTables.keep_outcome",
            _once_is_forgotten,
        )],
        within=5,
    ),
    "a hold voided by a timer": Plant(
        [replaced("rxoutflow_server.domain.settlement:post", _voided_by_a_timer)], within=20
    ),
}  # fmt: skip
"""Every planted bug, by what it does."""
