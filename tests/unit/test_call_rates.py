"""Rates: who calls too fast is told when to come back; others are not touched."""

from __future__ import annotations

import pytest

from rxoutflow.identity import CallerKind
from rxoutflow_server.domain.errors import Reason, Refusal
from rxoutflow_server.transport.identity import Caller
from rxoutflow_server.transport.rates import CallRates, Rate


class Seconds:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def caller(code: str, kind: CallerKind = CallerKind.PHARMACY) -> Caller:
    return Caller("350200", kind, code, b"")


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


@pytest.fixture
def rates(seconds: Seconds) -> CallRates:
    return CallRates(Rate(per_second=10, burst=3), Rate(per_second=100, burst=50), seconds)


def taken(rates: CallRates, who: Caller, tries: int) -> int:
    done = 0
    for _ in range(tries):
        try:
            rates.take(who)
        except Refusal:
            return done
        done += 1
    return done


def test_a_burst_passes_and_the_next_call_is_told_when_to_come_back(rates: CallRates) -> None:
    assert taken(rates, caller("P35020000001"), 3) == 3
    with pytest.raises(Refusal) as refused:
        rates.take(caller("P35020000001"))
    assert refused.value.reason is Reason.OVERLOADED
    assert refused.value.detail == {"retry_after_ms": "100"}


def test_whoever_waits_as_told_gets_through(rates: CallRates, seconds: Seconds) -> None:
    taken(rates, caller("P35020000001"), 4)
    seconds.now += 0.1
    rates.take(caller("P35020000001"))


def test_a_long_pause_gives_no_more_than_a_burst(rates: CallRates, seconds: Seconds) -> None:
    taken(rates, caller("P35020000001"), 4)
    seconds.now += 3600
    assert taken(rates, caller("P35020000001"), 100) == 3


def streamed(rates: CallRates, who: Caller) -> int:
    """How many requests of a stream are read at once."""
    done = 0
    while not rates.take_streamed(who):
        done += 1
    return done


def test_a_stream_is_told_to_wait_and_leaves_something_to_calls(
    rates: CallRates, seconds: Seconds
) -> None:
    platform = caller("350200", CallerKind.PLATFORM)
    assert streamed(rates, platform) == 45
    assert taken(rates, platform, 100) == 5
    wait = rates.take_streamed(platform)
    assert wait == pytest.approx(0.059)
    seconds.now += wait
    assert streamed(rates, platform) == 1


def test_a_stream_of_whoever_may_hardly_call_still_moves(seconds: Seconds) -> None:
    slow = CallRates(Rate(per_second=1, burst=1), Rate(per_second=1, burst=1), seconds)
    assert streamed(slow, caller("P35020000001")) == 1


def test_what_comes_in_one_call_counts_like_calls(rates: CallRates) -> None:
    platform = caller("350200", CallerKind.PLATFORM)
    rates.take(platform)
    rates.charge(platform, 19)
    assert taken(rates, platform, 100) == 30


def test_more_in_one_call_than_a_burst_is_owed_and_paid_before_the_next(
    rates: CallRates, seconds: Seconds
) -> None:
    pharmacy = caller("P35020000001")
    rates.take(pharmacy)
    rates.charge(pharmacy, 99)
    with pytest.raises(Refusal) as refused:
        rates.take(pharmacy)
    assert refused.value.detail == {"retry_after_ms": "9800"}
    seconds.now += 9.8
    assert taken(rates, pharmacy, 100) == 1


def test_a_stream_waits_for_what_its_caller_owes(rates: CallRates, seconds: Seconds) -> None:
    pharmacy = caller("P35020000001")
    rates.take(pharmacy)
    rates.charge(pharmacy, 9)
    wait = rates.take_streamed(pharmacy)
    assert wait == pytest.approx(0.82)
    seconds.now += wait
    assert streamed(rates, pharmacy) == 1


def test_one_institution_does_not_slow_another(rates: CallRates) -> None:
    taken(rates, caller("P35020000001"), 4)
    assert taken(rates, caller("P35020000002"), 3) == 3


def test_a_platform_forwards_for_many_and_may_call_faster(rates: CallRates) -> None:
    assert taken(rates, caller("350200", CallerKind.PLATFORM), 100) == 50
