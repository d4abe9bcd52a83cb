"""Instants on the wire and in Python: Protobuf's ``Timestamp`` and aware ``datetime``.

Exact in both directions, in whole numbers. What Protobuf's own conversions refuse is refused: times
before the year 1 or after 9999, and nanoseconds that are less than none or a second and more. Two
things differ from them on purpose: a time without zone is refused instead of being taken for UTC,
and nothing is worked out by way of calendar fields, which costs four times as much.

Python keeps microseconds: nanoseconds beyond them are dropped, as Protobuf does.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_SECOND = -62_135_596_800
_LAST_SECOND = 253_402_300_799
_NANOS = 1_000_000_000


def to_datetime(stamp: Timestamp) -> datetime:
    """The instant, aware, UTC.

    Raises:
        ValueError: if it is no time of the years 1 to 9999.
    """
    seconds, nanos = stamp.seconds, stamp.nanos
    if not (_FIRST_SECOND <= seconds <= _LAST_SECOND and 0 <= nanos < _NANOS):
        raise ValueError("a timestamp must lie in the years 1 to 9999, with nanos below a second")
    return _EPOCH + timedelta(0, seconds, nanos // 1000)


def to_timestamp(time: datetime) -> Timestamp:
    """The instant on the wire.

    Raises:
        ValueError: if the time has no zone, or lies in the years 1 to 9999 only in its own.
    """
    if time.utcoffset() is None:
        raise ValueError("a time must have a time zone")
    since = time - _EPOCH
    seconds = since.days * 86_400 + since.seconds
    if not _FIRST_SECOND <= seconds <= _LAST_SECOND:
        raise ValueError("a time must lie in the years 1 to 9999 of UTC")
    return Timestamp(seconds=seconds, nanos=since.microseconds * 1000)
