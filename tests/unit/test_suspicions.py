"""R23: each pattern is flagged from its threshold on, and not one unit before."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rxoutflow_server.domain.suspicions import (
    Facts,
    HandedOver,
    Issued,
    Pattern,
    Returned,
    Signed,
    Thresholds,
    suspicions,
)

START = datetime(2026, 3, 2, 8, tzinfo=UTC)
LOW = Thresholds(
    encounter_prescriptions=3,
    prescriptions_an_hour=4,
    places_minutes=30,
    early_refill_days=7,
    returns_a_day=2,
    returns_a_person=3,
)


def issued(index: int, **changes: object) -> Issued:
    facts: dict[str, object] = {
        "prescription_number": f"N{index:03}",
        "issuer_code": "H35020000001",
        "prescriber_code": f"D{index}",
        "encounter_number": f"V{index}",
        "insured_person_id": f"P{index}",
        "issue_time": START,
        "supplies": (("DRUG", 7),),
        **changes,
    }
    return Issued(**facts)  # type: ignore[arg-type] # a table of the fields' own types


def patterns(facts: Facts) -> list[Pattern]:
    return [each.pattern for each in suspicions(facts, LOW)]


@pytest.mark.parametrize(("sheets", "flagged"), [(2, False), (3, True), (4, True)])
def test_one_encounter_on_many_sheets(sheets: int, flagged: bool) -> None:
    one_visit = [
        issued(index, encounter_number="V", insured_person_id="P", supplies=())
        for index in range(sheets)
    ]

    assert (Pattern.SPLIT_ENCOUNTER in patterns(Facts(issued=one_visit))) == flagged


def test_encounters_of_two_people_or_hospitals_are_not_one() -> None:
    sheets = [issued(index, encounter_number="V", supplies=()) for index in range(5)]

    assert patterns(Facts(issued=sheets)) == []


@pytest.mark.parametrize(("minutes", "flagged"), [(19, True), (20, False)])
def test_a_prescriber_faster_than_the_threshold_within_an_hour(minutes: int, flagged: bool) -> None:
    pace = [
        issued(
            index,
            prescriber_code="D",
            issue_time=START + timedelta(minutes=minutes * index),
            supplies=(),
        )
        for index in range(4)
    ]

    found = suspicions(Facts(issued=pace), LOW)

    assert [each.subject for each in found] == (["D"] if flagged else [])


@pytest.mark.parametrize(("seconds", "flagged"), [(-1, True), (0, False), (1, False)])
def test_handed_over_before_it_was_written(seconds: int, flagged: bool) -> None:
    handed = HandedOver("N", "P35020000001", START, START + timedelta(seconds=seconds))

    assert patterns(Facts(handed_over=[handed])) == [Pattern.DISPENSED_BEFORE_ISSUE] * flagged


@pytest.mark.parametrize(("minutes", "flagged"), [(29, True), (30, False)])
def test_one_person_at_two_places(minutes: int, flagged: bool) -> None:
    here = Signed("350200:A1", "P35020000001", "N1", START)
    there = Signed("350200:A1", "P35020000002", "N2", START + timedelta(minutes=minutes))

    assert patterns(Facts(signed=[there, here])) == [Pattern.TWO_PLACES_AT_ONCE] * flagged


def test_one_place_or_two_people_are_no_suspicion() -> None:
    signed = [
        Signed("350200:A1", "P35020000001", "N1", START),
        Signed("350200:A1", "P35020000001", "N2", START),
        Signed("350200:A2", "P35020000002", "N3", START),
    ]

    assert patterns(Facts(signed=signed)) == []


@pytest.mark.parametrize(("day", "flagged"), [(23, True), (24, False)])
def test_the_same_drug_again_too_early(day: int, flagged: bool) -> None:
    month = issued(1, insured_person_id="P", supplies=(("DRUG", 30),))
    again = issued(2, insured_person_id="P", issue_time=START + timedelta(days=day))
    other = issued(3, insured_person_id="P", supplies=(("OTHER", 30),))

    found = suspicions(Facts(issued=[again, month, other]), LOW)

    assert [each.pattern for each in found] == [Pattern.EARLY_REFILL] * flagged
    assert all(each.prescription_numbers == ("N001", "N002") for each in found)


def test_returns_that_pile_up_at_a_pharmacy_or_for_a_person() -> None:
    at_one_pharmacy = [Returned(f"N{n}", "P1", f"A{n}", "2026-03-02") for n in range(2)]
    for_one_person = [Returned(f"M{n}", "P2", "A", f"2026-03-0{n + 1}") for n in range(3)]

    found = suspicions(Facts(returned=[*at_one_pharmacy, *for_one_person]), LOW)

    assert [(each.pattern, each.subject) for each in found] == [
        (Pattern.REPEATED_RETURNS, "P1"),
        (Pattern.REPEATED_RETURNS, "P2"),
    ]


def test_no_suspicion_names_a_patient() -> None:
    sheets = [issued(n, insured_person_id="CANARY", encounter_number="V") for n in range(3)]
    returned = [Returned(f"N{n}", "P1", "CANARY", "2026-03-02") for n in range(3)]

    found = suspicions(Facts(issued=sheets, returned=returned), LOW)

    assert found
    assert "CANARY" not in repr(found)


@given(st.lists(st.integers(min_value=0, max_value=10_000), max_size=25), st.randoms())
def test_the_order_of_the_facts_does_not_matter(minutes: list[int], random: object) -> None:
    sheets = [
        issued(
            index,
            prescriber_code="D",
            insured_person_id="P",
            issue_time=START + timedelta(minutes=minute),
        )
        for index, minute in enumerate(minutes)
    ]
    shuffled = list(sheets)
    random.shuffle(shuffled)  # type: ignore[attr-defined] # hypothesis gives a random.Random

    assert suspicions(Facts(issued=shuffled), LOW) == suspicions(Facts(issued=sheets), LOW)
