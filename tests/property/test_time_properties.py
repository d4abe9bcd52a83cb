"""Instants on the wire: exactly those of Protobuf's own conversions, and refused where they are."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from rxoutflow.times import to_datetime, to_timestamp

FIRST, LAST = -62_135_596_800, 253_402_300_799
ZONES = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
BORDERS = st.sampled_from([FIRST - 1, FIRST, -1, 0, 1, LAST, LAST + 1, -(2**63), 2**63 - 1])
SECONDS = BORDERS | st.integers(FIRST, LAST)
NANOS = st.sampled_from([-1, 0, 999, 1000, 999_999_999, 1_000_000_000]) | st.integers(
    -(2**31), 2**31 - 1
)


@given(st.datetimes(timezones=ZONES))
def test_a_time_goes_onto_the_wire_as_protobuf_puts_it(time: datetime) -> None:
    expected = Timestamp()
    try:
        expected.FromDatetime(time)
    except (OverflowError, ValueError):
        with pytest.raises(ValueError, match="years 1 to 9999"):
            to_timestamp(time)
        return
    assert to_timestamp(time) == expected
    assert to_datetime(expected) == time


@given(SECONDS, NANOS)
def test_a_timestamp_is_read_as_protobuf_reads_it(seconds: int, nanos: int) -> None:
    stamp = Timestamp(seconds=seconds, nanos=nanos)
    try:
        expected = stamp.ToDatetime(UTC)
    except (OverflowError, ValueError):
        with pytest.raises(ValueError, match="years 1 to 9999"):
            to_datetime(stamp)
        return
    read = to_datetime(stamp)
    assert read == expected
    assert read.utcoffset() == timedelta(0)


@given(st.datetimes())
def test_a_time_without_zone_is_refused(time: datetime) -> None:
    with pytest.raises(ValueError, match="time zone"):
        to_timestamp(time)
