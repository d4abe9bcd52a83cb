"""Logs: known keys and plain values only, whatever a programmer hands over."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest
import structlog
from grpc._cython import cygrpc  # type: ignore[attr-defined] # its stubs leave it out
from hypothesis import given
from hypothesis import strategies as st

from rxoutflow_server import telemetry

SECRETS = ["张三丰", "350203199001011234", "0592-5550001", "病人 张三丰"]


class Lines:
    """The log lines written so far."""

    def __init__(self) -> None:
        self.stream = StringIO()

    def __call__(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]


@pytest.fixture
def lines() -> Iterator[Lines]:
    lines = Lines()
    telemetry.configure("info", lines.stream)
    yield lines
    structlog.reset_defaults()
    logging.basicConfig(handlers=[], force=True)


def test_a_line_has_level_time_event_and_what_was_given(lines: Lines) -> None:
    structlog.get_logger().info("ready", address="127.0.0.1:8443")
    (line,) = lines()
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "ready", "level": "info", "address": "127.0.0.1:8443"}


def test_unknown_keys_are_left_out_and_named(lines: Lines) -> None:
    structlog.get_logger().info("call", patient_name="张三丰", diagnosis="K29")
    (line,) = lines()
    assert line["redacted"] == ["patient_name", "diagnosis"]
    assert "张三丰" not in lines.stream.getvalue()
    assert "K29" not in lines.stream.getvalue()


@pytest.mark.parametrize("key", sorted(telemetry.FORMS))
@pytest.mark.parametrize("value", SECRETS)
def test_no_key_takes_a_name_an_identity_number_or_a_telephone_number(
    lines: Lines, key: str, value: str
) -> None:
    record = telemetry.redact(None, "", {key: value})
    assert record == {key: telemetry.REDACTED, "redacted": [key]}


@given(key=st.sampled_from(sorted(telemetry.FORMS)), value=st.text(min_size=201))
def test_no_key_takes_a_long_text(key: str, value: str) -> None:
    assert telemetry.redact(None, "", {key: value})[key] == telemetry.REDACTED


@given(value=st.dictionaries(st.text(), st.text()) | st.binary() | st.tuples(st.text(min_size=1)))
def test_no_key_takes_structures(value: object) -> None:
    for key in telemetry.FORMS:
        assert telemetry.redact(None, "", {key: value})[key] == telemetry.REDACTED


def test_an_event_that_is_a_sentence_is_taken_out(lines: Lines) -> None:
    structlog.get_logger().info("dispensed to 张三丰")
    (line,) = lines()
    assert line["event"] == telemetry.REDACTED


def test_exceptions_of_libraries_are_reduced_to_their_type(lines: Lines) -> None:
    logging.getLogger("some.library").error("cannot find 张三丰", exc_info=KeyError("张三丰"))
    (line,) = lines()
    assert (line["event"], line["library"], line["exception"], line["level"]) == (
        "library",
        "some.library",
        "KeyError",
        "error",
    )
    assert "张三丰" not in json.dumps(line, ensure_ascii=False)


def test_an_answer_whose_caller_went_away_is_no_defect(lines: Lines) -> None:
    gone = cygrpc.ExecuteBatchError("a connection ended under its call")
    logging.getLogger("grpc._cython.cygrpc").error("raised in core", exc_info=gone)
    (line,) = lines()
    assert (line["exception"], line["level"]) == ("ExecuteBatchError", "warning")


def test_what_is_below_the_level_is_not_written(lines: Lines) -> None:
    structlog.get_logger().debug("ready")
    assert lines() == []


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="debug, info, warning, error"):
        telemetry.configure("verbose")
