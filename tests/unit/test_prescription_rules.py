"""Every rule about what a prescription says, at its boundary and one beyond."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from stdnum.cn import ric, uscc

from rxoutflow_server.domain.catalogue import DrugFlag
from rxoutflow_server.domain.prescription_rules import (
    NATIONAL,
    RULES,
    EncounterKind,
    Parameters,
    Practitioner,
    PrescribedLine,
    PrescriptionFacts,
    PrescriptionType,
    Severity,
    findings,
    is_resident_number,
    parameters_in_force,
    same_person,
)

CHINA = timezone(timedelta(hours=8))
SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)


def resident_number(first_17: str) -> str:
    return first_17 + ric.calc_check_digit(first_17 + "0")


def credit_code(first_17: str) -> str:
    return first_17 + uscc.calc_check_digit(first_17)


LINE = PrescribedLine("SYNW0000000000000000001", supply_days=7, quantity=28)
GOOD = PrescriptionFacts(
    issue_time=datetime(2024, 5, 1, 10, 0, tzinfo=CHINA),
    expire_time=datetime(2024, 5, 2, 0, 0, tzinfo=CHINA),
    issue_day=date(2024, 5, 1),
    type=PrescriptionType.WESTERN,
    lines=(LINE,),
    encounter_kind=EncounterKind.VISIT,
    patient_age_months=40 * 12,
    prescriber=Practitioner("D350500000001", "prescriber"),
    reviewer=Practitioner("P350500000002", "reviewer"),
    institution_code="H35050000001",
    institution_credit_code=credit_code("12350500000000001"),
    patient_identity_number=resident_number("35050219840501001"),
)
INTERNET = replace(
    GOOD,
    encounter_kind=EncounterKind.INTERNET,
    is_follow_up=True,
    diagnosis_established=True,
)


def with_line(facts: PrescriptionFacts = GOOD, **changes: object) -> PrescriptionFacts:
    line = replace(LINE, **changes)  # type: ignore[arg-type]  # a table of changes is untyped
    return replace(facts, lines=(line,))


def flagged(flag: DrugFlag, facts: PrescriptionFacts = GOOD) -> PrescriptionFacts:
    return with_line(facts, flags=frozenset({flag}))


def found(facts: PrescriptionFacts) -> list[tuple[str, str]]:
    """Rule and field of everything found."""
    return [(finding.rule_id, finding.field) for finding in findings(facts)]


@pytest.mark.parametrize("facts", [GOOD, INTERNET])
def test_a_good_prescription_has_no_findings(facts: PrescriptionFacts) -> None:
    assert findings(facts) == ()


END_OF_THIRD_DAY = datetime(2024, 5, 4, tzinfo=CHINA)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"expire_time": END_OF_THIRD_DAY}, []),
        ({"expire_time": END_OF_THIRD_DAY.astimezone(UTC)}, []),
        ({"expire_time": END_OF_THIRD_DAY + SECOND}, [("R1", "expire_time")]),
        ({"expire_time": GOOD.issue_time + SECOND}, []),
        ({"expire_time": GOOD.issue_time}, [("R1", "expire_time")]),
        ({"issue_time": datetime(2024, 4, 30, 16, 0, tzinfo=UTC)}, []),
        ({"issue_time": datetime(2024, 4, 30, 15, 59, tzinfo=UTC)}, [("R1", "issue_time")]),
        ({"issue_day": date(2024, 5, 2)}, [("R1", "issue_time")]),
        (
            {"expire_time": END_OF_THIRD_DAY + SECOND, "is_long_prescription": True},
            [("R1", "expire_time")],
        ),
    ],
)
def test_validity_ends_with_the_third_local_day_counting_the_day_of_issue(
    change: dict[str, object], expected: list[tuple[str, str]]
) -> None:
    assert found(replace(GOOD, **change)) == expected  # type: ignore[arg-type]  # untyped table


def repeat(fills: int, interval: int, valid_days: int) -> PrescriptionFacts:
    """A long prescription with a repeat plan, valid for so many days from the day of issue on."""
    return replace(
        with_line(quantity=84),
        is_long_prescription=True,
        long_assessment="assessed",
        fill_count=fills,
        fill_interval_days=interval,
        expire_time=datetime(2024, 5, 1, tzinfo=CHINA) + timedelta(days=valid_days),
    )


@pytest.mark.parametrize("beyond", [timedelta(), SECOND])
@pytest.mark.parametrize(
    ("fills", "interval", "days"),
    [
        pytest.param(2, 1, 6, id="next day"),
        pytest.param(3, 28, 63, id="each fill three days"),
        pytest.param(3, 38, 83, id="below twelve weeks"),
        pytest.param(3, 39, 84, id="twelve weeks at most"),
    ],
)
def test_a_repeat_prescription_is_valid_for_the_days_of_each_fill_and_twelve_weeks_at_most(
    fills: int, interval: int, days: int, beyond: timedelta
) -> None:
    facts = repeat(fills, interval, days)
    late = replace(facts, expire_time=facts.expire_time + beyond)
    assert found(late) == ([("R1", "expire_time")] if beyond else [])


def test_only_a_long_prescription_has_the_validity_of_a_repeat_plan() -> None:
    facts = replace(repeat(3, 28, 63), is_long_prescription=False)
    assert ("R1", "expire_time") in found(facts)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        pytest.param(repeat(1, 0, 3), [], id="once needs no interval"),
        pytest.param(repeat(2, 1, 3), [], id="an interval of a day"),
        pytest.param(
            repeat(2, 0, 3), [("R6", "long_prescription.fill_interval_days")], id="no interval"
        ),
        pytest.param(repeat(3, 28, 57), [], id="the last fill has a day"),
        pytest.param(
            replace(repeat(3, 28, 56), expire_time=datetime(2024, 5, 1, tzinfo=CHINA) + 56 * DAY),
            [("R6", "expire_time")],
            id="the last fill never opens",
        ),
        pytest.param(
            replace(repeat(3, 28, 56), expire_time=datetime(2024, 6, 26, tzinfo=CHINA) + SECOND),
            [],
            id="the last fill opens for a second",
        ),
        pytest.param(repeat(2, 83, 84), [], id="the last fill on the last day of twelve weeks"),
        pytest.param(
            repeat(2, 84, 84),
            [("R6", "long_prescription.fill_interval_days")],
            id="the last fill after twelve weeks",
        ),
    ],
)
def test_the_fills_of_a_repeat_plan_open_while_it_is_valid(
    facts: PrescriptionFacts, expected: list[tuple[str, str]]
) -> None:
    assert found(facts) == expected


@pytest.mark.parametrize(("fills", "expected"), [(28, []), (29, [("R6", "lines[0].quantity")])])
def test_every_fill_of_a_repeat_plan_has_something_of_every_line(
    fills: int, expected: list[tuple[str, str]]
) -> None:
    facts = replace(repeat(fills, 1, 57), lines=(LINE,))
    assert found(facts) == expected


FORMULA = replace(
    GOOD,
    type=PrescriptionType.HERBAL,
    lines=(
        replace(LINE, quantity=70_000, flags=frozenset({DrugFlag.HERBAL})),
        replace(LINE, quantity=35_000, flags=frozenset({DrugFlag.HERBAL})),
    ),
    dose_count=7,
)


@pytest.mark.parametrize(
    ("doses", "quantity", "expected"),
    [
        (7, 35_000, []),
        (7, 35_007, []),
        (7, 35_001, [("R3", "lines[1].quantity")]),
        (7, 34_999, [("R3", "lines[1].quantity")]),
        (1, 34_999, []),
        (7, 6, [("R3", "lines[1].quantity")]),
    ],
)
def test_the_herbs_of_a_formula_make_whole_doses(
    doses: int, quantity: int, expected: list[tuple[str, str]]
) -> None:
    first, second = FORMULA.lines
    facts = replace(FORMULA, dose_count=doses, lines=(first, replace(second, quantity=quantity)))
    assert found(facts) == expected


def test_every_fill_of_a_formula_has_a_dose() -> None:
    plan = {"is_long_prescription": True, "fill_interval_days": 1}
    end = datetime(2024, 5, 11, tzinfo=CHINA)
    seven = replace(FORMULA, fill_count=7, expire_time=end, **plan)  # type: ignore[arg-type]  # untyped table
    assert found(seven) == []
    assert found(replace(seven, fill_count=8)) == [("R6", "herbal_formula.dose_count")]


def test_validity_follows_the_regions_own_parameters() -> None:
    parameters = Parameters(max_validity_days=1, utc_offset_minutes=0)
    issued = replace(GOOD, expire_time=datetime(2024, 5, 2, tzinfo=UTC))

    assert findings(issued, parameters) == ()
    late = replace(issued, expire_time=issued.expire_time + SECOND)
    assert [finding.rule_id for finding in findings(late, parameters)] == ["R1"]


@pytest.mark.parametrize(
    ("days", "change", "expected"),
    [
        (1, {}, []),
        (0, {}, [("R2", "lines[0].supply_days")]),
        (7, {}, []),
        (8, {}, [("R2", "lines[0].supply_days")]),
        (8, {"supply_reason": " "}, [("R2", "lines[0].supply_days")]),
        (8, {"is_long_prescription": True}, []),
        (3, {"is_emergency": True}, []),
        (4, {"is_emergency": True}, [("R2", "lines[0].supply_days")]),
    ],
)
def test_supply_beyond_the_usual_days_needs_a_reason(
    days: int, change: dict[str, object], expected: list[tuple[str, str]]
) -> None:
    facts = replace(with_line(supply_days=days), **change)  # type: ignore[arg-type]  # untyped table

    assert found(facts) == expected


@pytest.mark.parametrize(("days", "severities"), [(7, []), (8, [Severity.WARN])])
def test_a_reasoned_supply_beyond_the_usual_days_only_warns(
    days: int, severities: list[Severity]
) -> None:
    facts = replace(with_line(supply_days=days), supply_reason="travels for a month")

    assert [finding.severity for finding in findings(facts)] == severities


def test_a_sheet_of_five_drugs_passes_and_a_sixth_does_not() -> None:
    assert found(replace(GOOD, lines=(LINE,) * 5)) == []
    assert found(replace(GOOD, lines=(LINE,) * 6)) == [("R3", "lines")]
    assert found(replace(GOOD, lines=(LINE,) * 6, type=PrescriptionType.PATENT)) == [
        ("R3", "lines")
    ]


def test_a_herbal_sheet_may_hold_many_herbs_and_nothing_else() -> None:
    herb = replace(LINE, flags=frozenset({DrugFlag.HERBAL}))
    sheet = replace(GOOD, type=PrescriptionType.HERBAL)

    assert found(replace(sheet, lines=(herb,) * 16)) == []
    assert found(replace(sheet, lines=(herb, LINE))) == [("R3", "lines[1].drug_code")]
    assert found(replace(GOOD, lines=(LINE, herb))) == [("R3", "lines[1].drug_code")]


def test_a_prescription_of_nothing_is_refused() -> None:
    assert found(replace(GOOD, lines=())) == [("R3", "lines")]
    assert found(with_line(quantity=0)) == [("R3", "lines[0].quantity")]


@pytest.mark.parametrize(
    ("days", "assessment", "expected"),
    [
        (28, "", []),
        (29, "", [("R6", "long_prescription.assessment")]),
        (29, " ", [("R6", "long_prescription.assessment")]),
        (29, "stable for a year", []),
        (84, "stable for a year", []),
        (85, "stable for a year", [("R6", "lines[0].supply_days")]),
    ],
)
def test_a_long_prescription_is_for_four_weeks_or_assessed_and_for_twelve_at_most(
    days: int, assessment: str, expected: list[tuple[str, str]]
) -> None:
    long = replace(
        with_line(supply_days=days), is_long_prescription=True, long_assessment=assessment
    )

    assert found(long) == expected


def test_leaving_out_the_mark_of_a_long_prescription_makes_no_more_days_possible() -> None:
    facts = replace(with_line(supply_days=85), supply_reason="travels", long_assessment="stable")

    assert ("R6", "lines[0].supply_days") in found(facts)


@pytest.mark.parametrize(
    "flag",
    [
        DrugFlag.TOXIC,
        DrugFlag.RADIOACTIVE,
        DrugFlag.PRECURSOR,
        DrugFlag.PSYCHOTROPIC_2,
        DrugFlag.SPECIAL_STORAGE,
        DrugFlag.ANTIMICROBIAL,
    ],
)
def test_some_drugs_are_never_prescribed_long(flag: DrugFlag) -> None:
    assert found(flagged(flag)) == []
    assert found(replace(flagged(flag), is_long_prescription=True)) == [
        ("R6", "lines[0].drug_code")
    ]


@pytest.mark.parametrize(("diagnosis", "allowed"), [("A15.0", True), ("J15.0", False)])
def test_an_antimicrobial_is_prescribed_long_for_tuberculosis_only(
    diagnosis: str, allowed: bool
) -> None:
    facts = replace(flagged(DrugFlag.ANTIMICROBIAL), is_long_prescription=True)

    assert (found(replace(facts, diagnosis_codes=("I10", diagnosis))) == []) is allowed


def test_tuberculosis_does_not_make_other_drugs_long() -> None:
    facts = replace(flagged(DrugFlag.TOXIC), is_long_prescription=True, diagnosis_codes=("A15.0",))

    assert found(facts) == [("R6", "lines[0].drug_code")]


@pytest.mark.parametrize("flag", [DrugFlag.NARCOTIC, DrugFlag.PSYCHOTROPIC_1])
def test_narcotics_and_psychotropics_i_never_leave_the_hospital(flag: DrugFlag) -> None:
    assert found(flagged(flag)) == [("R7", "lines[0].drug_code")]


@pytest.mark.parametrize(("months", "rules"), [(18 * 12, []), (18 * 12 - 1, ["R7"])])
def test_psychotropics_ii_are_for_adults(months: int, rules: list[str]) -> None:
    facts = replace(flagged(DrugFlag.PSYCHOTROPIC_2), patient_age_months=months)

    assert [finding.rule_id for finding in findings(facts)] == rules


def test_psychotropics_ii_are_never_prescribed_over_the_internet() -> None:
    assert found(flagged(DrugFlag.PSYCHOTROPIC_2, INTERNET)) == [("R7", "lines[0].drug_code")]


def test_a_flag_left_out_of_the_line_is_taken_from_the_catalogue() -> None:
    catalogue_flags = {LINE.drug_code: frozenset({DrugFlag.NARCOTIC})}

    assert [finding.rule_id for finding in findings(GOOD, NATIONAL, catalogue_flags)] == ["R7"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"is_follow_up": False}, [("R8", "encounter.follow_up")]),
        ({"diagnosis_established": False}, [("R8", "encounter.diagnoses")]),
        ({"patient_age_months": 71}, [("R8", "patient.guardian_name")]),
        ({"patient_age_months": 71, "guardian_present": True}, []),
        ({"patient_age_months": 72}, []),
    ],
)
def test_an_internet_prescription_is_a_follow_up_and_young_children_have_a_guardian(
    change: dict[str, object], expected: list[tuple[str, str]]
) -> None:
    assert found(replace(INTERNET, **change)) == expected  # type: ignore[arg-type]  # untyped table


def test_a_visit_needs_no_follow_up_and_no_guardian() -> None:
    assert found(replace(GOOD, patient_age_months=1)) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"prescriber": Practitioner("", "n")}, [("R9", "issuer.prescriber.person_code")]),
        ({"prescriber": Practitioner("c", " ")}, [("R9", "issuer.prescriber.name")]),
        ({"reviewer": Practitioner("c", "")}, [("R9", "issuer.reviewing_pharmacist.name")]),
        ({"reviewer": None}, []),
        (
            {"reviewer": Practitioner(" D350500000001 ", "other name")},
            [("R10", "issuer.reviewing_pharmacist.person_code")],
        ),
    ],
)
def test_prescriber_and_reviewer_are_named_and_different_people(
    change: dict[str, object], expected: list[tuple[str, str]]
) -> None:
    assert found(replace(GOOD, **change)) == expected  # type: ignore[arg-type]  # untyped table


def test_the_pharmacys_people_are_distinct_from_each_other_and_from_the_prescriber() -> None:
    assert list(same_person({"prescriber": "a", "reviewer": "b", "dispenser": "c"})) == []
    assert list(same_person({"prescriber": "a", "reviewer": "b", "dispenser": "b"})) == [
        ("dispenser.person_code", "reviewer and dispenser must be different people")
    ]
    assert list(same_person({"prescriber": "", "reviewer": "", "dispenser": ""})) == []


@pytest.mark.parametrize(
    ("number", "valid"),
    [
        ("11010519491231002X", True),
        ("110105194912310021", False),
        ("11010519491231002x", False),
        ("11010519491231002", False),
        ("11010519491231002X ", False),
        ("１1010519491231002X", False),
        (resident_number("35050219840230001"), False),
        (resident_number("35020319500101001"), True),
    ],
    ids=[
        "the example of the standard",
        "wrong check digit",
        "lower case",
        "too short",
        "trailing blank",
        "full-width digit",
        "30 February",
        "born before the district was founded",
    ],
)
def test_an_identity_number_is_checked_by_shape_date_and_check_digit(
    number: str, valid: bool
) -> None:
    assert is_resident_number(number) is valid
    rules = [finding.rule_id for finding in findings(replace(GOOD, patient_identity_number=number))]
    assert rules == ([] if valid else ["R22"])


def test_another_identity_document_is_not_checked() -> None:
    assert found(replace(GOOD, patient_identity_number=None)) == []


@pytest.mark.parametrize(
    ("code", "valid"),
    [("91110000600037341L", True), ("91110000600037341M", False), ("9111 0000600037341L", False)],
)
def test_an_institutions_credit_code_is_checked(code: str, valid: bool) -> None:
    expected = [] if valid else [("R22", "institution_credit_code")]

    assert found(replace(GOOD, institution_credit_code=code)) == expected


@pytest.mark.parametrize("code", ["P35050000001", "H3505000000", "H350500000011", ""])
def test_a_prescription_comes_from_a_designated_hospital(code: str) -> None:
    assert found(replace(GOOD, institution_code=code)) == [("R22", "issuer.institution_code")]


def test_everything_wrong_is_reported_at_once_in_the_order_of_the_rules() -> None:
    narcotic = replace(LINE, flags=frozenset({DrugFlag.NARCOTIC}), supply_days=8)
    facts = replace(
        INTERNET,
        expire_time=GOOD.issue_time,
        lines=(narcotic,) * 6,
        is_follow_up=False,
        reviewer=GOOD.prescriber,
        patient_identity_number="1",
    )
    rules = [finding.rule_id for finding in findings(facts)]

    assert sorted(set(rules), key=rules.index) == ["R1", "R2", "R3", "R7", "R8", "R10", "R22"]
    assert rules.count("R7") == 6


def test_no_message_repeats_what_the_patient_or_the_people_are_called() -> None:
    facts = replace(GOOD, patient_identity_number="350502198405010000", reviewer=GOOD.prescriber)
    text = " ".join(finding.message for finding in findings(facts))

    assert text
    for secret in ("350502198405010000", GOOD.prescriber.code, GOOD.prescriber.name + " "):
        assert secret not in text.replace("issuer.prescriber", "")


@pytest.mark.parametrize(
    ("limited", "stated", "found"),
    [(True, False, ["R16"]), (True, True, []), (False, False, []), (False, True, [])],
)
def test_a_limited_drug_wants_a_word_on_its_limit(
    limited: bool, stated: bool, found: list[str]
) -> None:
    line = replace(GOOD.lines[0], limited_use_stated=stated)
    drugs = frozenset({line.drug_code} if limited else ())

    warned = findings(replace(GOOD, lines=(line,)), limited_drugs=drugs)

    assert [each.rule_id for each in warned] == found
    assert all(each.severity is Severity.WARN for each in warned)


def test_every_rule_names_its_source_and_every_finding_carries_it() -> None:
    assert {rule.id for rule in RULES} == {
        *("R1", "R2", "R3", "R6", "R7", "R8", "R9", "R10", "R16", "R22")
    }
    assert all(rule.source for rule in RULES)
    (finding,) = findings(replace(GOOD, lines=()))
    assert finding.source == "处方管理办法 art. 6"


def test_a_region_without_figures_of_its_own_in_force_follows_the_national_measures() -> None:
    own = Parameters(
        version_id="350500-1", valid_from=date(2024, 1, 1), valid_until=date(2025, 1, 1)
    )

    assert parameters_in_force([own], date(2023, 12, 31)) is NATIONAL
    assert parameters_in_force([own], date(2024, 1, 1)) is own
    assert parameters_in_force([own], date(2024, 12, 31)) is own
    assert parameters_in_force([own], date(2025, 1, 1)) is NATIONAL
