"""What a message must hold before any rule looks at it, and how the first fault is named."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rxoutflow.v1.dispense_pb2 import Delivery, DispenseRecord
from rxoutflow.v1.settlement_pb2 import PricedLine
from rxoutflow.v1.statement_pb2 import SIGNER_ROLE_PLATFORM
from rxoutflow.v1.trust_pb2 import Signer
from rxoutflow_server.application.validation import (
    check_priced_lines,
    check_quoted_lines,
    check_required,
)
from rxoutflow_server.domain.errors import Reason, Refusal

Change = Callable[[DispenseRecord], object]

UNKNOWN = "has a value that this contract does not know"
NO_TIME = "is no time between the years 1970 and 9998"

FAULTS: list[tuple[Change, str, str]] = [
    (lambda record: record.ClearField("attempt_id"), "attempt_id", "is required"),
    (lambda record: record.ClearField("dispense_time"), "dispense_time", "is required"),
    (lambda record: record.ClearField("lines"), "lines", "is required"),
    (
        lambda record: record.lines[1].ClearField("batch_numbers"),
        "lines[1].batch_numbers",
        "is required",
    ),
    (
        lambda record: record.lines[1].trace_codes[0].ClearField("code"),
        "lines[1].trace_codes[0].code",
        "is required",
    ),
    (lambda record: setattr(record.dispense_time, "seconds", -1), "dispense_time", NO_TIME),
    (lambda record: setattr(record.dispense_time, "nanos", 10**9), "dispense_time", NO_TIME),
    (lambda record: record.delivery.SetInParent(), "delivery.state", "is required"),
    (
        lambda record: record.delivery.MergeFrom(Delivery.FromString(b"\x08\x63")),
        "delivery.state",
        UNKNOWN,
    ),
]


def _record() -> DispenseRecord:
    record = DispenseRecord(
        prescription_number="number",
        attempt_id="attempt",
        pharmacy_code="pharmacy",
        settlement_id="settlement",
    )
    record.dispense_time.FromSeconds(1)
    for line_id in (1, 2):
        line = record.lines.add(line_id=line_id, drug_code="drug", batch_numbers=["batch"])
        line.trace_codes.add(code="code")
    return record


def test_a_message_with_all_that_is_required_passes_and_zero_is_a_number() -> None:
    record = _record()
    assert record.fence == 0
    check_required(record)


@pytest.mark.parametrize(("change", "field", "problem"), FAULTS)
def test_a_fault_is_named_by_its_whole_path(change: Change, field: str, problem: str) -> None:
    record = _record()
    change(record)
    with pytest.raises(Refusal) as refused:
        check_required(record)
    assert refused.value.reason is Reason.FIELD_INVALID
    assert refused.value.detail["field"] == field
    assert refused.value.message == f"{field}: {problem}"


def test_a_fault_in_a_part_is_named_by_the_path_of_the_part() -> None:
    record = _record()
    record.lines[0].trace_codes[0].ClearField("code")
    with pytest.raises(Refusal) as refused:
        check_required(record.lines[0], "lines[4]")
    assert refused.value.detail["field"] == "lines[4].trace_codes[0].code"


def test_of_several_faults_the_first_field_is_named() -> None:
    record = _record()
    record.lines[0].ClearField("drug_code")
    record.ClearField("settlement_id")
    with pytest.raises(Refusal) as refused:
        check_required(record)
    assert refused.value.detail["field"] == "settlement_id"


def test_every_value_of_a_repeated_enum_is_known() -> None:
    signer = Signer(roles=[SIGNER_ROLE_PLATFORM])
    signer.MergeFrom(Signer.FromString(b"\x1a\x01\x63"))
    with pytest.raises(Refusal) as refused:
        check_required(signer)
    assert refused.value.message == f"roles: {UNKNOWN}"


@pytest.mark.parametrize(
    ("lines", "field"),
    [
        ([], "lines"),
        ([PricedLine(line_id=1, quantity=1)], "lines[0].drug_code"),
        ([PricedLine(line_id=1, drug_code="drug", quantity=0)], "lines[0].quantity"),
        ([PricedLine(line_id=1, drug_code="drug", quantity=1)] * 2, "lines[1].line_id"),
    ],
)
def test_lines_to_quote_are_complete_possible_and_named_once(
    lines: list[PricedLine], field: str
) -> None:
    with pytest.raises(Refusal) as refused:
        check_quoted_lines(lines)
    assert refused.value.detail["field"] == field


def test_a_price_of_nothing_is_a_price() -> None:
    check_priced_lines([PricedLine(line_id=1, drug_code="drug", quantity=1)])
