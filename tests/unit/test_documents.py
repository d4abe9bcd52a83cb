"""Prescriptions as JSON: what becomes of them, and how mistakes are told."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeAlias

import pytest

from rxoutflow.documents import parse_draft
from rxoutflow.errors import InvalidInput
from rxoutflow.v1.prescription_pb2 import Encounter, Prescription

Json: TypeAlias = Any
"""What json.loads gives."""

SHEET: dict[str, Json] = {
    "type": "WESTERN",
    "outflow_basis": "OUTPATIENT_POOL",
    "issuer": {"department_name": "内科"},
    "patient": {
        "insured_person_id": "SYN320600001",
        "payer_region_code": "320600",
        "name": "合成患者甲",
        "sex": "FEMALE",
        "birth_date": "1956-03-14",
    },
    "encounter": {
        "encounter_number": "V-1",
        "kind": "VISIT",
        "diagnoses": [{"system": "ICD10", "code": "I10.x00", "name": "原发性高血压"}],
    },
    "lines": [
        {
            "drug_code": "SYNW0000000000000000001",
            "generic_name": "苯磺酸氨氯地平片",
            "quantity": 7,
            "unit": "片",
            "supply_days": 7,
        }
    ],
}


def parsed(**changes: object) -> Prescription:
    return parse_draft(json.dumps({**SHEET, **changes})).content


def test_a_sheet_becomes_a_message() -> None:
    prescription = parsed(note="饭后")
    assert prescription.type == Prescription.TYPE_WESTERN
    assert prescription.encounter.kind == Encounter.KIND_VISIT
    assert prescription.patient.birth_date.year == 1956
    assert (prescription.lines[0].line_id, prescription.lines[0].quantity) == (1, 7)
    assert prescription.note == "饭后"


def test_enums_may_also_go_by_their_full_names() -> None:
    assert parsed(type="TYPE_PATENT").type == Prescription.TYPE_PATENT


def test_an_object_that_is_there_but_empty_is_told_from_one_that_is_not() -> None:
    assert not parsed().HasField("long_prescription")
    with pytest.raises(InvalidInput, match=r"long_prescription\.reason: is missing"):
        parsed(long_prescription={})


@pytest.mark.parametrize(
    ("days", "ago", "expires"),
    [(1, 0, "2026-03-02T16:00"), (3, 0, "2026-03-04T16:00"), (1, 5, "2026-02-25T16:00")],
)
def test_validity_ends_with_the_last_local_day(days: int, ago: int, expires: str) -> None:
    draft = parse_draft(json.dumps({**SHEET, "validity_days": days, "issued_days_ago": ago}))
    _, expire_time = draft.times(datetime(2026, 3, 2, 9, 30, tzinfo=UTC))
    assert expire_time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M") == expires


def test_late_in_the_evening_utc_it_is_the_next_day_in_china() -> None:
    draft = parse_draft(json.dumps(SHEET))
    _, expire_time = draft.times(datetime(2026, 3, 2, 16, 30, tzinfo=UTC))
    assert expire_time.astimezone(UTC).isoformat() == "2026-03-03T16:00:00+00:00"


def edit(*keys: str | int, to: object) -> Callable[[Json], None]:
    def apply(values: Json) -> None:
        for key in keys[:-1]:
            values = values[key]
        values[keys[-1]] = to

    return apply


def remove(*keys: str | int) -> Callable[[Json], None]:
    def apply(values: Json) -> None:
        for key in keys[:-1]:
            values = values[key]
        del values[keys[-1]]

    return apply


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (edit("lines", 0, "quantity", to=0), "lines[0].quantity: must be an integer of at least 1"),
        (edit("lines", 0, "quantity", to=1.5), "lines[0].quantity: must be an integer"),
        (edit("lines", 0, "quantity", to=True), "lines[0].quantity: must be an integer"),
        (edit("lines", 0, "quantity", to="7"), "lines[0].quantity: must be an integer"),
        (edit("lines", 0, "quantity", to=2**63), "lines[0].quantity: must be at most"),
        (edit("lines", 0, "supply_days", to=2**31), "lines[0].supply_days: must be at most"),
        (edit("lines", 0, "quantitiy", to=7), "lines[0].quantitiy: unknown key; did you mean qu"),
        (remove("lines", 0, "drug_code"), "lines[0].drug_code: is missing"),
        (edit("lines", to=[]), "lines: is missing"),
        (edit("lines", to={}), "lines: must be a list"),
        (edit("lines", 0, to="aspirin"), "lines[0]: must be an object"),
        (edit("type", to="western"), "type: must be one of WESTERN, PATENT, HERBAL"),
        (edit("type", to="UNSPECIFIED"), "type: must be one of"),
        (edit("patient", "sex", to=1), "patient.sex: must be one of MALE, FEMALE"),
        (edit("patient", "name", to=None), "patient.name: must be a text"),
        (edit("patient", "name", to=""), "patient.name: is missing"),
        (edit("patient", "birth_date", to="14.3.1956"), "patient.birth_date: must be a date"),
        (edit("patient", "birth_date", to="1956-02-30"), "patient.birth_date: must be a date"),
        (edit("patient", "weight_grams", to=-1), "patient.weight_grams: must be an integer of at"),
        (edit("patient", "pregnant", to="no"), "patient.pregnant: must be true or false"),
        (remove("encounter", "diagnoses", 0, "code"), "encounter.diagnoses[0].code: is missing"),
        (remove("issuer"), "issuer: is missing"),
        (edit("issuer", "prescriber", to={}), "issuer.prescriber: is filled in on issue"),
        (edit("prescription_number", to="1"), "prescription_number: is filled in on issue"),
        (edit("issue_time", to="2026-03-02"), "issue_time: is filled in on issue"),
        (edit("validity_days", to=0), "validity_days: must be an integer from 1 to"),
        (edit("issued_days_ago", to="5"), "issued_days_ago: must be an integer from 0 to"),
        (edit("about", to=5), "about: must be a text"),
        (edit("validity_day", to=1), "validity_day: unknown key; did you mean validity_days?"),
    ],
)
def test_mistakes_are_named_by_their_path(change: Callable[[Json], None], words: str) -> None:
    values = copy.deepcopy(SHEET)
    change(values)
    with pytest.raises(InvalidInput) as caught:
        parse_draft(json.dumps(values), "sheet.json")
    assert str(caught.value).startswith(f"sheet.json: {words}")


def test_mistakes_never_repeat_what_may_be_personal() -> None:
    sheet = copy.deepcopy(SHEET)
    sheet["patient"]["birth_date"] = "秘密"
    with pytest.raises(InvalidInput) as caught:
        parse_draft(json.dumps(sheet))
    assert "秘密" not in str(caught.value)


def test_broken_json_is_told_with_line_and_column() -> None:
    with pytest.raises(InvalidInput, match="sheet: line 2 column 1: not valid JSON"):
        parse_draft('{"type":\n', "sheet")
