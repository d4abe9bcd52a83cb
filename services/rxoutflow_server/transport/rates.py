"""How often an institution may call: a token bucket for each, refilled all the time.

A bucket holds a burst; each call takes a token; what is empty refills at the rate. Who calls faster
is refused before anything is read, and told when to come back; a stream of requests is read more
slowly instead. A call that turns out to hold several takes a token for each, and may owe some:
so it is never too large for a burst, and its caller's next waits for longer. Only authenticated
institutions have buckets, so their number is bounded by the trust lists.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rxoutflow.identity import CallerKind
from rxoutflow_server.domain.errors import Reason, Refusal
from rxoutflow_server.transport.identity import Caller


@dataclass(frozen=True, slots=True)
class Rate:
    """So many calls a second in the long run, and so many at once after a pause."""

    per_second: float
    burst: int


INSTITUTION_RATE = Rate(per_second=500, burst=1000)
"""For a hospital, pharmacy or regulator."""

PLATFORM_RATE = Rate(per_second=5000, burst=10_000)
"""For another platform, which forwards for all of its pharmacies."""

LEFT_TO_CALLS = 0.1
"""The part of a burst that streams of requests do not take."""


class CallRates:
    """The buckets of a server.

    Args:
        institution: the rate of a hospital, pharmacy, regulator or operator.
        platform: the rate of another platform.
        monotonic: seconds of a clock that never goes back.
    """

    def __init__(self, institution: Rate, platform: Rate, monotonic: Callable[[], float]) -> None:
        self._institution = institution
        self._platform = platform
        self._monotonic = monotonic
        self._buckets: dict[str, _Bucket] = {}

    def take(self, caller: Caller) -> None:
        """Take a token of the caller's.

        Raises:
            Refusal: OVERLOADED, with ``retry_after_ms``.
        """
        bucket = self._bucket(caller)
        wait = bucket.take(self._monotonic())
        if wait > 0:
            per_second = bucket.rate.per_second
            raise Refusal(
                Reason.OVERLOADED,
                f"more than {per_second:g} calls a second: wait, then repeat more slowly",
                retry_after_ms=str(round(wait * 1000) or 1),
            )

    def take_streamed(self, caller: Caller) -> float:
        """Take a token for a request of a stream and return 0, or return the seconds to wait.

        Streams leave a part of the burst to calls, so that a stream at full speed gets none of its
        caller's own calls refused.
        """
        bucket = self._bucket(caller)
        return bucket.take(self._monotonic(), leave=(bucket.rate.burst - 1) * LEFT_TO_CALLS)

    def charge(self, caller: Caller, calls: int) -> None:
        """Take tokens for what came in a call besides the one that let it in; they may be owed."""
        self._bucket(caller).tokens -= calls

    def _bucket(self, caller: Caller) -> _Bucket:
        bucket = self._buckets.get(caller.institution_code)
        if bucket is None:
            rate = self._platform if caller.kind is CallerKind.PLATFORM else self._institution
            bucket = _Bucket(rate, rate.burst, self._monotonic())
            self._buckets[caller.institution_code] = bucket
        return bucket


_ROUNDING = 1e-6
"""What floating point may lose of a token, so that whoever waits as told gets through."""


@dataclass(slots=True)
class _Bucket:
    rate: Rate
    tokens: float
    filled_at: float

    def take(self, now: float, leave: float = 0.0) -> float:
        """Take a token beyond those to leave and return 0, or return the seconds until there is."""
        refilled = self.tokens + (now - self.filled_at) * self.rate.per_second
        self.tokens, self.filled_at = min(refilled, self.rate.burst), now
        if self.tokens < leave + 1 - _ROUNDING:
            return (leave + 1 - self.tokens) / self.rate.per_second
        self.tokens -= 1
        return 0.0
