"""Days, as the pooling regions count them.

All of them keep one civil time, eight hours ahead of UTC, without daylight saving time since 1991.
A day begins at its midnight and ends before the next one. Nothing here asks for the present time.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from typing import Final

LOCAL_TIME: Final = timezone(timedelta(hours=8), "Asia/Shanghai")
"""The civil time of every pooling region: that of days of issue, of dispensing and of fills."""


def local_day(moment: datetime) -> date:
    """The local day of an aware time."""
    return moment.astimezone(LOCAL_TIME).date()
