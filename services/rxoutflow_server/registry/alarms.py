"""Alarms about trust lists: that one lapses soon, has lapsed, or cannot be had.

Each alarm is one structured log line, at most once an hour for each region, so that it can be
watched for without drowning a log. Nothing here changes what is trusted.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

import structlog

from rxoutflow.trust import RegionTrust, TrustStore

REPEAT_AFTER: Final = timedelta(hours=1)
"""How long an alarm is silent about a region once it has been raised."""

log = structlog.get_logger()


class Hourly:
    """Remembers what was said lately."""

    def __init__(self) -> None:
        self._said: dict[tuple[str, str], datetime] = {}

    def is_due(self, event: str, region_code: str, now: datetime) -> bool:
        """Whether to say it now; if so, it counts as said at ``now`` (aware)."""
        said = self._said.get((event, region_code))
        if said is not None and now - said < REPEAT_AFTER:
            return False
        self._said[event, region_code] = now
        return True


class LapseAlarm:
    """Tells in time that the trust list of a region lapses.

    Args:
        trust: holds the lists.
        ahead: how long before a list lapses the alarm begins.
    """

    def __init__(self, trust: TrustStore, ahead: timedelta) -> None:
        self._trust = trust
        self._ahead = ahead
        self._hourly = Hourly()

    def check(self, now: datetime) -> None:
        """Raise the alarms that are due at ``now`` (aware)."""
        for region in self._held():
            if now > region.lapse_time:
                left = max(region.lapse_time + self._trust.grace - now, timedelta(0))
                if self._hourly.is_due("lapsed", region.region_code, now):
                    log.error("trust_list_lapsed", **_figures(region, left))
            elif region.lapse_time - now <= self._ahead and self._hourly.is_due(
                "lapses_soon", region.region_code, now
            ):
                left = region.lapse_time - now
                log.warning("trust_list_lapses_soon", **_figures(region, left))

    def _held(self) -> Iterable[RegionTrust]:
        held = map(self._trust.held, self._trust.regions())
        return [region for region in held if region is not None]


def _figures(region: RegionTrust, left: timedelta) -> dict[str, str | int]:
    """What is left: until the list lapses, or until its grace ends if it has lapsed."""
    return {
        "region": region.region_code,
        "sequence": region.sequence,
        "remaining_seconds": int(left.total_seconds()),
    }
