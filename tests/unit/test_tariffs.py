"""Which tariff is in force, and which tariff files are refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

import rxoutflow_server.sandbox
from rxoutflow_server.domain.errors import Reason, Refusal
from rxoutflow_server.domain.tariff import (
    AccountRules,
    AnnualDeductible,
    AreaStatus,
    ByAreaStatus,
    ByPerson,
    ByTier,
    Part,
    PersonType,
    PerVisitDeductible,
    Scheme,
    SchemeKind,
    Tariff,
    Tariffs,
)
from rxoutflow_server.reference import ReferenceDataError
from rxoutflow_server.reference.tariffs import load_tariffs

DEMONSTRATION = Path(rxoutflow_server.sandbox.__file__).parent / "data" / "tariffs"

TARIFF = Tariff(
    version_id="350500-1",
    region_code="350500",
    document="a document",
    unverified=True,
    valid_from=date(2023, 1, 1),
    valid_until=date(2024, 1, 1),
    deductible=AnnualDeductible(ByPerson(active=60_000, retired=50_000)),
    ratio_bp=ByTier(8_500, 8_000, 7_500),
    retired_bonus_bp=500,
    cap_fen=ByPerson(active=2_500_000, retired=2_600_000),
    area_factor_bp=ByAreaStatus(unfiled=7_000),
)
NEXT = replace(TARIFF, version_id="350500-2", valid_from=date(2024, 1, 1), valid_until=None)

FILE = """
region_code = "350500"
region_name = "泉州"

[[version]]
version_id = "350500-1"
document = "a document"
unverified = true
valid_from = 2023-01-01
valid_until = 2024-01-01
retired_bonus_bp = 500

[version.deductible]
kind = "annual"
amount_fen = { active = 60_000, retired = 50_000 }

[version.ratio_bp]
tier_1 = 8_500
tier_2 = 8_000
tier_3 = 7_500

[version.cap_fen]
active = 2_500_000
retired = 2_600_000

[version.area_factor_bp]
unfiled = 7_000
others = 10_000
"""


def folder_with(folder: Path, text: str) -> Path:
    (folder / "350500.toml").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("day", "version_id"),
    [
        (date(2023, 1, 1), "350500-1"),
        (date(2023, 12, 31), "350500-1"),
        (date(2024, 1, 1), "350500-2"),
        (date(2999, 1, 1), "350500-2"),
    ],
)
def test_a_version_is_in_force_from_its_first_day_up_to_the_next_one(
    day: date, version_id: str
) -> None:
    assert Tariffs([NEXT, TARIFF]).in_force("350500", day).version_id == version_id


@pytest.mark.parametrize(
    ("region_code", "day"),
    [
        ("350500", date(2022, 12, 31)),
        ("350500", date(2024, 1, 1)),
        ("350200", date(2023, 6, 1)),
    ],
)
def test_a_day_that_no_version_covers_is_refused(region_code: str, day: date) -> None:
    with pytest.raises(Refusal, match=region_code) as refused:
        Tariffs([TARIFF]).in_force(region_code, day)

    assert refused.value.reason is Reason.TARIFF_NOT_IN_FORCE
    assert refused.value.detail == {"region_code": region_code, "day": day.isoformat()}


@pytest.mark.parametrize("valid_from", [date(2023, 12, 31), date(2023, 1, 1)])
def test_two_versions_in_force_on_one_day_are_refused(valid_from: date) -> None:
    with pytest.raises(ValueError, match="both in force"):
        Tariffs([TARIFF, replace(NEXT, valid_from=valid_from)])


def test_an_open_version_leaves_no_room_for_a_later_one() -> None:
    with pytest.raises(ValueError, match="both in force on 2024-01-01"):
        Tariffs([replace(TARIFF, valid_until=None), NEXT])


def test_two_regions_may_be_in_force_at_once_but_not_share_a_version_id() -> None:
    other = replace(TARIFF, region_code="350200")

    assert len(list(Tariffs([TARIFF, replace(other, version_id="350200-1")]))) == 2
    with pytest.raises(ValueError, match="used twice"):
        Tariffs([TARIFF, other])


@pytest.mark.parametrize(
    "change",
    [
        {"retired_bonus_bp": 1_501},
        {"retired_bonus_bp": -1},
        {"ratio_bp": ByTier(10_001, 0, 0)},
        {"area_factor_bp": ByAreaStatus(emergency=10_001)},
        {"cap_fen": ByPerson(active=-1, retired=0)},
        {"deductible": AnnualDeductible(ByPerson(active=0, retired=-1))},
        {"deductible": PerVisitDeductible(ByTier(0, 0, 0), yearly_maximum_fen=-1)},
        {"valid_until": date(2023, 1, 1)},
    ],
)
def test_a_tariff_that_could_pay_more_than_the_bill_cannot_be_built(
    change: dict[str, object],
) -> None:
    with pytest.raises(ValueError, match="must"):
        replace(TARIFF, **change)  # type: ignore[arg-type]  # a table of changes is untyped


@pytest.mark.parametrize(
    ("used", "tier", "left"),
    [(0, 1, 0), (0, 2, 5_000), (25_001, 2, 4_999), (30_000, 3, 0), (30_001, 3, 0)],
)
def test_a_per_visit_deductible_ends_at_its_yearly_maximum(used: int, tier: int, left: int) -> None:
    deductible = PerVisitDeductible(ByTier(0, 5_000, 10_000), yearly_maximum_fen=30_000)

    assert deductible.left_fen(PersonType.ACTIVE, tier, used) == left


def test_a_file_gives_the_tariff_it_describes(tmp_path: Path) -> None:
    assert list(load_tariffs(folder_with(tmp_path, FILE))) == [TARIFF]


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("tier_2 = 8_000", "tier_2 = 80.0", "version[0].ratio_bp.tier_2"),
        ("tier_2 = 8_000", "", "version[0].ratio_bp.tier_2"),
        ("tier_2 = 8_000", "tier_2 = true", "version[0].ratio_bp.tier_2"),
        ("tier_2 = 8_000", "tier_2 = -1", "version[0].ratio_bp.tier_2"),
        ("tier_2 = 8_000", "tier_2 = 8_000\ntier_4 = 1", "version[0].ratio_bp.tier_4"),
        ("tier_2 = 8_000", "tier_2 = 9_999", "version[0]"),
        ("others = 10_000", "", "version[0].area_factor_bp.others"),
        ("others = 10_000", "others = 9_000", "version[0].area_factor_bp.others"),
        ("unfiled =", "unfield =", "version[0].area_factor_bp.unfield"),
        ('"annual"', '"monthly"', "version[0].deductible.kind"),
        ("2023-01-01", '"2023-01-01"', "version[0].valid_from"),
        ("2023-01-01", "2023-01-01T00:00:00", "version[0].valid_from"),
        ("unverified = true", "", "version[0].unverified"),
        ("unverified = true", "unverified = 1", "version[0].unverified"),
        ('"350500"\n', '"3505"\n', "region_code"),
        ('"泉州"', '""', "region_name"),
        ("[version.cap_fen]", "[version.cap]", "version[0].cap_fen"),
        ("[[version]]", "[version]", "version"),
        ("tier_2 = 8_000", "tier_2 = = 8", "file"),
    ],
)
def test_a_bad_file_is_refused_with_the_path_of_the_key(
    tmp_path: Path, old: str, new: str, where: str
) -> None:
    assert old in FILE
    folder = folder_with(tmp_path, FILE.replace(old, new))

    with pytest.raises(ReferenceDataError) as refused:
        load_tariffs(folder)

    assert refused.value.file == folder / "350500.toml"
    assert refused.value.where == where
    assert where in str(refused.value)


SCHEME = """
[[version.scheme]]
scheme_code = "S1"
name = "高血压"
kind = "two_diseases"
document = "another document"
disease_codes = ["M03900", "M03901"]
drug_codes = ["SYNW0000000000000000001"]
retired_bonus_bp = 0
deductible = { kind = "annual", amount_fen = { active = 100, retired = 0 } }
ratio_bp = { tier_1 = 9_000, tier_2 = 8_000, tier_3 = 7_000 }
cap_fen = { active = 40_000, retired = 50_000 }
area_factor_bp = { others = 10_000 }
"""
ACCOUNTS = """
[version.accounts]
own_account_pays = ["own", "excess", "first_self_pay", "deductible", "ratio_self"]
family_accounts_pay = ["deductible", "ratio_self"]
"""


def test_a_file_gives_the_schemes_and_account_rules_that_it_describes(tmp_path: Path) -> None:
    (tariff,) = load_tariffs(folder_with(tmp_path, FILE + SCHEME + ACCOUNTS))

    assert tariff.schemes == (
        Scheme(
            scheme_code="S1",
            name="高血压",
            kind=SchemeKind.TWO_DISEASES,
            document="another document",
            disease_codes=frozenset({"M03900", "M03901"}),
            drug_codes=frozenset({"SYNW0000000000000000001"}),
            deductible=AnnualDeductible(ByPerson(100, 0)),
            ratio_bp=ByTier(9_000, 8_000, 7_000),
            retired_bonus_bp=0,
            cap_fen=ByPerson(40_000, 50_000),
            area_factor_bp=ByAreaStatus(),
        ),
    )
    assert tariff.accounts == AccountRules(family=frozenset({Part.DEDUCTIBLE, Part.RATIO_SELF}))


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ('"S1"', '"s1"', "line 31, version[0].scheme[0].scheme_code"),
        ('"two_diseases"', '"one"', "line 33, version[0].scheme[0].kind"),
        ('"M03901"', '"M03900"', "line 35, version[0].scheme[0].disease_codes[1]"),
        ('["M03900", "M03901"]', "[]", "line 30, version[0].scheme[0]"),
        ('0000001"', '00001"', "line 36, version[0].scheme[0].drug_codes[0]"),
        ("tier_1 = 9_000", "tier_1 = 1.5", "line 39, version[0].scheme[0].ratio_bp.tier_1"),
        ("others = 10_000 }", "}", "line 41, version[0].scheme[0].area_factor_bp"),
        ('name = "高', 'title = "高', "line 30, version[0].scheme[0].name"),
        ('["own", ', '["cash", ', "line 44, version[0].accounts.own_account_pays[0]"),
        ("family_accounts_pay", "family_pays", "version[0].accounts.family_accounts_pay"),
    ],
)
def test_a_bad_scheme_or_account_rule_is_refused_with_line_and_key(
    tmp_path: Path, old: str, new: str, place: str
) -> None:
    text = FILE + SCHEME + ACCOUNTS
    assert old in text
    with pytest.raises(ReferenceDataError) as refused:
        load_tariffs(folder_with(tmp_path, text.replace(old, new, 1)))

    assert place in str(refused.value)


def test_two_schemes_with_one_code_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ReferenceDataError, match="must not share a scheme_code"):
        load_tariffs(folder_with(tmp_path, FILE + SCHEME + SCHEME))


def test_a_file_with_overlapping_versions_is_refused(tmp_path: Path) -> None:
    version = FILE[FILE.index("[[version]]") :].replace('"350500-1"', '"350500-2"')

    with pytest.raises(ReferenceDataError, match="350500-1 and 350500-2"):
        load_tariffs(folder_with(tmp_path, FILE + version))


def test_a_folder_without_tariffs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReferenceDataError, match="no tariff file"):
        load_tariffs(tmp_path)


def test_the_demonstration_tariffs_are_all_marked_unverified_and_cite_a_document() -> None:
    tariffs = list(load_tariffs(DEMONSTRATION))

    assert sorted(tariff.region_code for tariff in tariffs) == [
        "320600",
        "350500",
        "361000",
        "420700",
        "430400",
        "610900",
    ]
    assert all(tariff.unverified and "〔2022〕" in tariff.document for tariff in tariffs)


def test_a_status_that_the_document_does_not_name_is_not_reduced() -> None:
    hengyang = load_tariffs(DEMONSTRATION).in_force("430400", date(2024, 1, 1))

    assert [hengyang.area_factor_bp.of(status) for status in AreaStatus] == [
        10_000,
        9_000,
        8_500,
        7_000,
    ]
