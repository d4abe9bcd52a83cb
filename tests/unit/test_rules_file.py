"""A region's own figures of the rules: dated, checked, and in force by the day of issue."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from rxoutflow_server.domain.prescription_rules import NATIONAL, RULES
from rxoutflow_server.domain.rule_book import RULE_LIST, Effect, Stage
from rxoutflow_server.domain.suspicions import DEFAULT_THRESHOLDS
from rxoutflow_server.reference import ReferenceDataError
from rxoutflow_server.reference.rules import load_rules

HEAD = 'region_code = "350200"\nregion_name = "test"\n'
FIRST = """
[[version]]
version_id = "first"
document = "synthetic"
valid_from = 2026-01-01
valid_until = 2026-07-01
max_lines = 4

[version.suspicion]
returns_a_day = 2
"""
SECOND = """
[[version]]
version_id = "second"
document = "synthetic"
valid_from = 2026-07-01
max_supply_days = 14
long_antimicrobial_diagnoses = ["A15"]
"""


def book_of(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "rules.toml"
    file.write_text(text, "utf-8")
    return file


def test_a_version_applies_from_its_first_day_until_the_next_ones(tmp_path: Path) -> None:
    rules = load_rules(book_of(tmp_path, HEAD + FIRST + SECOND), "350200")

    assert rules.parameters_on(date(2025, 12, 31)) is NATIONAL
    assert rules.parameters_on(date(2026, 1, 1)).version_id == "first"
    assert rules.parameters_on(date(2026, 6, 30)).max_lines == 4
    later = rules.parameters_on(date(2026, 7, 1))
    assert (later.version_id, later.max_lines, later.max_supply_days) == ("second", 5, 14)
    assert later.long_antimicrobial_diagnoses == ("A15",)


def test_thresholds_follow_the_same_days(tmp_path: Path) -> None:
    rules = load_rules(book_of(tmp_path, HEAD + FIRST + SECOND), "350200")

    assert rules.thresholds_on(date(2026, 6, 30)).returns_a_day == 2
    assert rules.thresholds_on(date(2026, 7, 1)) == DEFAULT_THRESHOLDS
    assert rules.thresholds_on(date(2025, 1, 1)) == DEFAULT_THRESHOLDS


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (HEAD.replace("350200", "350500") + FIRST, "region_code"),
        (HEAD, "version"),
        (HEAD + FIRST.replace("max_lines = 4", "max_lines = 0"), "version[0].max_lines"),
        (HEAD + FIRST.replace("max_lines = 4", 'max_lines = "4"'), "version[0].max_lines"),
        (HEAD + FIRST.replace("max_lines", "max_line"), "version[0].max_line"),
        (HEAD + FIRST.replace("returns_a_day", "returns"), "version[0].suspicion.returns"),
        (HEAD + FIRST.replace("2026-07-01", "2026-01-01"), "version[0].valid_until"),
        (HEAD + FIRST.replace("2026-07-01", "2026-07-02") + SECOND, "version"),
        (HEAD + SECOND + FIRST, "version"),
        (HEAD + FIRST.replace("max_lines = 4", "long_max_weeks = 3"), "version[0].long_max_weeks"),
        (HEAD + SECOND.replace('["A15"]', '"A15"'), "version[0].long_antimicrobial_diagnoses"),
        (HEAD + SECOND.replace("2026-07-01", '"2026-07-01"'), "version[0].valid_from"),
        ("region_code = ", "file"),
    ],
)
def test_a_bad_file_is_refused_with_key_and_reason(tmp_path: Path, text: str, named: str) -> None:
    file = book_of(tmp_path, text)

    with pytest.raises(ReferenceDataError) as refused:
        load_rules(file, "350200")

    assert (refused.value.file, refused.value.where) == (file, named)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReferenceDataError, match="not readable"):
        load_rules(tmp_path / "none.toml", "350200")


def test_the_list_names_every_rule_once_and_in_order() -> None:
    assert [entry.id for entry in RULE_LIST] == [f"R{number}" for number in range(1, 24)]


def test_what_the_list_says_is_checked_at_registration_is_what_has_a_check() -> None:
    listed = {entry.id for entry in RULE_LIST if Stage.PRECHECK in entry.stages}
    by_table = {rule.id for rule in RULES}

    # R18 and R19 ask the trust list who may issue at all, before any rule is looked at.
    assert listed - {"R18", "R19"} == by_table


def test_every_rule_of_supervision_only_flags() -> None:
    flags = {entry.id for entry in RULE_LIST if entry.effect is Effect.FLAG}

    assert flags == {"R23"}
