"""How often an institution may call: a token bucket for each, refilled all the time.

A bucket holds a burst; each call takes a token; what is empty refills at the rate. Who calls faster
is refused before anything is read, and told when to come back. Only authenticated institutions have
buckets, so their number is bounded by the trust lists.
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
        rate = self._platform if caller.kind is CallerKind.PLATFORM else self._institution
        now = self._monotonic()
        bucket = self._buckets.get(caller.institution_code)
        if bucket is None:
            bucket = self._buckets[caller.institution_code] = _Bucket(rate.burst, now)
        wait = bucket.take(rate, now)
        if wait > 0:
            raise Refusal(
                Reason.OVERLOADED,
                f"more than {rate.per_second:g} calls a second: wait, then repeat more slowly",
                retry_after_ms=str(round(wait * 1000) or 1),
            )


_ROUNDING = 1e-6
"""What floating point may lose of a token, so that whoever waits as told gets through."""


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float

    def take(self, rate: Rate, now: float) -> float:
        """Take a token and return 0, or return the seconds until there is one."""
        refilled = self.tokens + (now - self.filled_at) * rate.per_second
        self.tokens, self.filled_at = min(refilled, rate.burst), now
        if self.tokens < 1 - _ROUNDING:
            return (1 - self.tokens) / rate.per_second
        self.tokens -= 1
        return 0.0
