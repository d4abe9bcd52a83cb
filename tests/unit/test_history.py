"""The history checker: it lets through what one prescription can have said, and nothing else.

Each history is a table of operations: who asked what, from when to when, and what came back. An end
of ``None`` is a call that was never answered.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from random import Random
from threading import Thread

import pytest

from support.history import (
    Kind,
    NotSerialisable,
    Operation,
    Recorder,
    Revocation,
    Status,
    check_history,
)
from support.invariants import Violation

PACKS = {1: 20}
ALL = ((1, 20),)
HALF = ((1, 10),)
LEASE = 30.0

_ids = count(1)


def asked(kind: Kind, client: str, begin: float, end: float | None, **heard: object) -> Operation:
    """An operation on the one prescription."""
    operation = Operation(kind, "RX", client, f"request-{next(_ids)}", begin, end)
    return replace(operation, **heard)  # type: ignore[arg-type] # the table names real fields


def claim(
    client: str,
    attempt: str,
    begin: float,
    end: float | None,
    *,
    lines: tuple[tuple[int, int], ...] = ALL,
) -> Operation:
    return asked(Kind.CLAIM, client, begin, end, attempt=attempt, lines=lines, until=begin + LEASE)


def held(client: str, begin: float, end: float, reason: str = "PRESCRIPTION_HELD") -> Operation:
    """A claim that was refused."""
    return asked(Kind.CLAIM, client, begin, end, refused=reason)


def commit(
    client: str,
    attempt: str,
    begin: float,
    end: float | None,
    *,
    lines: tuple[tuple[int, int], ...] = ALL,
    settlement: str = "S1",
) -> Operation:
    return asked(
        Kind.COMMIT, client, begin, end, attempt=attempt, lines=lines, settlement=settlement
    )


def release(client: str, attempt: str, begin: float, end: float | None) -> Operation:
    return asked(Kind.RELEASE, client, begin, end, attempt=attempt)


def dispense(client: str, attempt: str, begin: float, end: float | None) -> Operation:
    return asked(Kind.DISPENSE, client, begin, end, attempt=attempt)


def correct(client: str, attempt: str, begin: float, end: float | None) -> Operation:
    return asked(Kind.CORRECT, client, begin, end, attempt=attempt)


def adjudicate(attempt: str, begin: float, *, handed_over: bool) -> Operation:
    return asked(
        Kind.ADJUDICATE, "operator", begin, begin + 1, attempt=attempt, handed_over=handed_over
    )


def returned(attempt: str, begin: float, quantity: int, *, again: bool = True) -> Operation:
    lines = ((1, quantity),)
    return asked(Kind.RETURN, "A", begin, begin + 1, attempt=attempt, lines=lines, again=again)


def revoke(outcome: Revocation, begin: float, end: float | None) -> Operation:
    return asked(Kind.REVOKE, "hospital", begin, end, revocation=outcome)


def read(begin: float, end: float, **seen: object) -> Operation:
    status = replace(Status(), **seen)  # type: ignore[arg-type] # the table names real fields
    return asked(Kind.READ, "hospital", begin, end, status=status)


WHOLE_WAY = (
    claim("A", "a1", 0, 1),
    commit("A", "a1", 2, 3),
    dispense("A", "a1", 4, 5),
)

GOOD: dict[str, list[Operation]] = {
    "nothing": [],
    "the whole way": [
        *WHOLE_WAY,
        read(6, 7, dispensed=ALL),
        held("B", 8, 9, "PRESCRIPTION_USED_UP"),
    ],
    "home has not booked the handover yet": [
        *WHOLE_WAY,
        read(6, 7, live_attempt="a1", committed=True, held=ALL),
        held("B", 8, 9),
        read(10, 11, dispensed=ALL),
    ],
    "two at once, one wins": [claim("A", "a1", 0, 10), held("B", 0, 10)],
    "asked again while it is held": [claim("A", "a1", 0, 1), claim("A", "a1", 2, 3)],
    "released and claimed by another": [
        claim("A", "a1", 0, 1),
        release("A", "a1", 2, 3),
        claim("B", "b1", 4, 5),
    ],
    "released after commit": [
        claim("A", "a1", 0, 1),
        commit("A", "a1", 2, 3),
        release("A", "a1", 4, 5),
        claim("B", "b1", 6, 7),
    ],
    "the lease ran out": [claim("A", "a1", 0, 1), claim("B", "b1", 40, 41)],
    "a lease that is over is still held until somebody looks": [
        claim("A", "a1", 0, 1),
        held("B", 40, 41),
    ],
    "a grant that got lost was in effect": [
        claim("A", "", 0, None, lines=()),
        held("B", 5, 6),
        claim("A", "a1", 7, 8),
    ],
    "a grant that got lost was not in effect": [
        claim("A", "", 0, None, lines=()),
        claim("B", "b1", 5, 6),
    ],
    "a commit that got lost took effect later": [
        claim("A", "a1", 0, 1),
        commit("A", "a1", 2, None),
        read(3, 4, live_attempt="a1", held=ALL),
        read(5, 6, live_attempt="a1", held=ALL, committed=True),
    ],
    "a release that got lost": [
        claim("A", "a1", 0, 1),
        commit("A", "a1", 2, 3),
        release("A", "a1", 4, None),
        held("B", 5, 6),
        claim("B", "b1", 7, 8),
    ],
    "less was committed than claimed": [
        claim("A", "a1", 0, 1),
        commit("A", "a1", 2, 3, lines=HALF),
        dispense("A", "a1", 4, 5),
        claim("B", "b1", 6, 7, lines=HALF),
    ],
    "returned and filled again": [
        *WHOLE_WAY,
        returned("a1", 6, 20),
        claim("B", "b1", 8, 9),
    ],
    "marked, and revoked after the release": [
        claim("A", "a1", 0, 1),
        revoke(Revocation.MARKED, 2, 3),
        held("B", 4, 5),
        release("A", "a1", 6, 7),
        held("B", 8, 9, "PRESCRIPTION_REVOKED"),
        revoke(Revocation.ALREADY_REVOKED, 10, 11),
    ],
    "marked, and dispensed all the same": [
        claim("A", "a1", 0, 1),
        revoke(Revocation.MARKED, 2, 3),
        commit("A", "a1", 4, 5),
        dispense("A", "a1", 6, 7),
        read(8, 9, dispensed=ALL),
        revoke(Revocation.ALREADY_DISPENSED, 10, 11),
    ],
    "a claim that got lost was corrected": [
        claim("A", "", 0, None, lines=()),
        correct("A", "a1", 2, 3),
        claim("B", "b1", 4, 5),
    ],
    "a correction that got lost": [
        claim("A", "a1", 0, 1),
        correct("A", "", 2, None),
        held("B", 3, 4),
        claim("B", "b1", 5, 6),
    ],
    "two people found that nothing was handed over": [
        claim("A", "a1", 0, 1),
        commit("A", "a1", 2, 3),
        adjudicate("a1", 4, handed_over=False),
        claim("B", "b1", 6, 7),
    ],
    "two people found the handover, and its record came late": [
        claim("A", "a1", 0, 1),
        commit("A", "a1", 2, 3),
        adjudicate("a1", 4, handed_over=True),
        read(6, 7, dispensed=ALL),
        dispense("A", "a1", 8, 9),
    ],
    "revoked too late": [*WHOLE_WAY, revoke(Revocation.ALREADY_DISPENSED, 6, 7)],
    "a revocation that got lost": [
        revoke(Revocation.REVOKED, 0, None),
        held("A", 1, 2, "PRESCRIPTION_REVOKED"),
    ],
    "a refusal that says nothing of the prescription": [
        held("A", 0, 1, "OVERLOADED"),
        claim("A", "a1", 2, 3),
    ],
}


@pytest.mark.parametrize("name", GOOD)
def test_what_one_prescription_can_have_said_is_let_through(name: str) -> None:
    check_history(GOOD[name], PACKS)


BAD: dict[str, list[Operation]] = {
    "two holders": [claim("A", "a1", 0, 1), claim("B", "b1", 2, 3)],
    "two holders at once": [claim("A", "a1", 0, 10), claim("B", "b1", 0, 10)],
    "a lease that ended before its time": [claim("A", "a1", 0, 1), claim("B", "b1", 29, 29.5)],
    "a lease that ended a commit": [
        claim("A", "a1", 0, 1),
        commit("A", "a1", 2, 3),
        claim("B", "b1", 40, 41),
    ],
    "a commit after the lease ended and another claimed": [
        claim("A", "a1", 0, 1),
        claim("B", "b1", 40, 41),
        commit("A", "a1", 42, 43),
    ],
    "an acknowledged claim that was lost": [
        claim("A", "a1", 0, 1),
        read(2, 3),
    ],
    "an acknowledged commit that was lost": [
        claim("A", "a1", 0, 1),
        commit("A", "a1", 2, 3),
        read(4, 5, live_attempt="a1", held=ALL),
    ],
    "an acknowledged release that was lost": [
        claim("A", "a1", 0, 1),
        release("A", "a1", 2, 3),
        held("B", 4, 5),
    ],
    "a stale read": [
        *WHOLE_WAY,
        read(6, 7, dispensed=ALL),
        read(8, 9, live_attempt="a1", committed=True, held=ALL),
    ],
    "a stale refusal": [
        claim("A", "a1", 0, 1),
        release("A", "a1", 2, 3),
        read(4, 5),
        held("B", 6, 7),
    ],
    "an attempt id used twice": [
        claim("A", "a1", 0, 1),
        release("A", "a1", 2, 3),
        claim("A", "a1", 4, 5),
    ],
    "a commit under two settlements": [
        claim("A", "a1", 0, 1),
        commit("A", "a1", 2, 3),
        commit("A", "a1", 4, 5, settlement="S2"),
    ],
    "a commit of more than was claimed": [
        claim("A", "a1", 0, 1, lines=HALF),
        commit("A", "a1", 2, 3),
    ],
    "a commit of what another claimed": [claim("A", "a1", 0, 1), commit("B", "a1", 2, 3)],
    "a claim of more than there is": [claim("A", "a1", 0, 1, lines=((1, 21),))],
    "a handover without a commit": [claim("A", "a1", 0, 1), dispense("A", "a1", 2, 3)],
    "a handover after a release": [
        claim("A", "a1", 0, 1),
        commit("A", "a1", 2, 3),
        release("A", "a1", 4, 5),
        dispense("A", "a1", 6, 7),
    ],
    "a release after the handover": [*WHOLE_WAY, release("A", "a1", 6, 7)],
    "a correction of what was handed over": [*WHOLE_WAY, correct("A", "a1", 6, 7)],
    "found not handed over after the record": [
        *WHOLE_WAY,
        adjudicate("a1", 6, handed_over=False),
    ],
    "an adjudication of what is not committed": [
        claim("A", "a1", 0, 1),
        adjudicate("a1", 2, handed_over=True),
    ],
    "two late records of what was found": [
        claim("A", "a1", 0, 1),
        commit("A", "a1", 2, 3),
        adjudicate("a1", 4, handed_over=True),
        dispense("A", "a1", 6, 7),
        dispense("A", "a1", 8, 9),
    ],
    "two handovers of one attempt": [*WHOLE_WAY, dispense("A", "a1", 6, 7)],
    "dispensed and claimed again": [*WHOLE_WAY, claim("B", "b1", 6, 7)],
    "more came back than was handed over": [
        *WHOLE_WAY,
        returned("a1", 6, 11),
        returned("a1", 8, 10),
    ],
    "came back for good, and was filled again": [
        *WHOLE_WAY,
        returned("a1", 6, 20, again=False),
        claim("B", "b1", 8, 9),
    ],
    "more filled again than came back": [
        *WHOLE_WAY,
        returned("a1", 6, 10),
        claim("B", "b1", 8, 9),
    ],
    "claimed after it was revoked": [
        revoke(Revocation.REVOKED, 0, 1),
        claim("A", "a1", 2, 3),
    ],
    "revoked while it was held": [claim("A", "a1", 0, 1), revoke(Revocation.REVOKED, 2, 3)],
    "refused as held while nobody holds it": [held("B", 0, 1)],
    "refused as used up while it is full": [held("B", 0, 1, "PRESCRIPTION_USED_UP")],
    "a fence that did not rise": [
        replace(claim("A", "a1", 0, 1), fence=2),
        release("A", "a1", 2, 3),
        replace(claim("B", "b1", 4, 5), fence=2),
    ],
}


@pytest.mark.parametrize("name", BAD)
def test_what_no_prescription_can_have_said_is_refused(name: str) -> None:
    with pytest.raises(NotSerialisable):
        check_history(BAD[name], PACKS)


@pytest.mark.parametrize("name", BAD)
def test_every_wrong_history_is_wrong_in_one_thing(name: str) -> None:
    """Without its last operation each of them is fine: the checker finds that, and no more."""
    *earlier, _ = BAD[name]
    check_history(earlier, PACKS)


def test_the_same_request_again_is_one_operation() -> None:
    first = claim("A", "", 0, None, lines=())
    again = replace(first, invoked=5, returned=6, attempt="a1", lines=ALL)
    check_history([first, held("B", 2, 3), again, replace(again, returned=8)], PACKS)


def test_a_request_that_is_answered_in_two_ways_is_refused() -> None:
    first = claim("A", "a1", 0, 1)
    again = replace(first, invoked=2, returned=3, attempt="a2")
    with pytest.raises(Violation, match="I8"):
        check_history([first, again], PACKS)


def test_a_refused_request_may_be_answered_later() -> None:
    first = held("A", 2, 3)
    again = replace(first, invoked=6, returned=7, refused="", attempt="a1", lines=ALL)
    before, after = claim("B", "b1", 0, 1), release("B", "b1", 4, 5)
    check_history([before, first, after, again], PACKS)


def test_many_calls_without_an_answer_are_judged_in_no_time() -> None:
    lost = [replace(claim("AB"[index % 2], "", index, None), lines=()) for index in range(14)]
    check_history([*lost, claim("C", "c1", 60, 61)], PACKS)
    with pytest.raises(NotSerialisable):
        check_history([*lost, claim("C", "c1", 60, 61), claim("D", "d1", 62, 63)], PACKS)


def test_the_message_names_what_cannot_be_next() -> None:
    with pytest.raises(NotSerialisable, match=r"RX: after 1 operations .*\n  2\.000 to 3\.000: B"):
        check_history(BAD["two holders"], PACKS)


def honest(seed: int) -> list[Operation]:
    """What clients would hear of a prescription that is right, seen with delays and losses."""
    return list(_Pharmacies(Random(seed)).run())


class _Pharmacies:
    """Two pharmacies that take turns, as the prescription's one writer decides; a clock of steps.

    Every operation takes effect at a step and is heard of some time around it, or never.
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self._now = 0.0
        self._live = ""
        self._holder = ""
        self._committed = False
        self._gone = False

    def run(self) -> Iterator[Operation]:
        for index in range(12):
            self._now += self._random.uniform(0.5, 2)
            client = self._random.choice("AB")
            begin, end = self._now - self._random.random() * 3, self._now + self._random.random()
            lost = self._random.random() < 0.2
            yield from self._turn(client, begin, None if lost else end, index)

    def _turn(
        self, client: str, begin: float, end: float | None, index: int
    ) -> Iterator[Operation]:
        if self._gone:
            if end is not None:
                yield read(begin, end, dispensed=ALL)
        elif not self._live:
            self._live, self._holder = f"attempt-{index}", client
            heard = replace(claim(client, self._live, begin, end), until=begin + 1000)
            yield heard if end is not None else replace(heard, attempt="", lines=())
        elif client != self._holder:
            if end is not None:
                yield held(client, begin, end)
        elif not self._committed:
            self._committed = True
            yield commit(client, self._live, begin, end)
        elif self._random.random() < 0.5:
            yield release(client, self._live, begin, end)
            self._live, self._committed = "", False
        else:
            yield dispense(client, self._live, begin, end)
            self._gone = True


@pytest.mark.parametrize("seed", range(60))
def test_histories_of_a_right_prescription_are_let_through(seed: int) -> None:
    check_history(honest(seed), PACKS)


def test_a_second_grant_slipped_into_a_right_history_is_found() -> None:
    found = 0
    for seed in range(60):
        history = honest(seed)
        first = next((each for each in history if each.kind is Kind.DISPENSE), None)
        if first is None or first.returned is None:
            continue
        late = claim("B", "another", first.returned + 1, first.returned + 2)
        with pytest.raises(NotSerialisable):
            check_history([*history, late], PACKS)
        found += 1
    assert found >= 10


# --- recording ------------------------------------------------------------------------------------


def test_a_recorder_keeps_what_clients_hear() -> None:
    time = iter(range(100))
    recorder = Recorder(lambda: float(next(time)))
    recorder.registered("RX", PACKS)
    recorder.begin(Kind.CLAIM, "RX", "A", "1").ok(attempt="a1", lines=PACKS, fence=1, until=50.0)
    recorder.begin(Kind.CLAIM, "RX", "B", "2").refused("PRESCRIPTION_HELD")
    recorder.begin(Kind.COMMIT, "RX", "A", "3", attempt="a1", lines=PACKS, settlement="S").ok()
    recorder.begin(Kind.DISPENSE, "RX", "A", "4", attempt="a1")
    assert recorder.check() == 4
    recorder.begin(Kind.CLAIM, "RX", "B", "5").ok(attempt="b1", lines=PACKS)
    with pytest.raises(NotSerialisable):
        recorder.check()


def test_what_is_not_known_to_be_registered_is_not_judged() -> None:
    recorder = Recorder()
    recorder.begin(Kind.CLAIM, "RX", "A", "1").ok(attempt="a1", lines={1: 99})
    assert recorder.check() == 0


def test_threads_may_record_together() -> None:
    recorder = Recorder()

    def work(name: str) -> None:
        recorder.registered(name, PACKS)
        for index in range(50):
            attempt = f"{name}-{index}"
            recorder.begin(Kind.CLAIM, name, "A", f"{attempt}-c").ok(attempt=attempt, lines=PACKS)
            recorder.begin(Kind.RELEASE, name, "A", f"{attempt}-r", attempt=attempt).ok()

    threads = [Thread(target=work, args=(f"RX{index}",)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert recorder.check() == 400
