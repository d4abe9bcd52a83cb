"""``benefit quote`` as its user sees it."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from rxoutflow_server.cli_benefit import OUTPUT_KEYS, benefit_group

CASE: dict[str, Any] = {
    "payer_region": "350500",
    "date": "2024-05-01",
    "person_type": "active",
    "issuing_tier": 2,
    "area_status": "unfiled",
    "used_deductible_fen": 20_000,
    "used_cap_fen": 0,
    "own_account_fen": 10_000,
    "family_accounts_fen": [30_000],
    "lines": [
        {
            "quantity": 5,
            "unit_price_micro_yuan": 48_330_000,
            "category": "B",
            "first_self_pay_bp": 1_000,
            "limit_price_micro_yuan": None,
            "limited_use_unmet": False,
        },
        {
            "quantity": 14,
            "unit_price_micro_yuan": 56_000_000,
            "category": "A",
            "first_self_pay_bp": 0,
            "limit_price_micro_yuan": None,
            "limited_use_unmet": False,
        },
    ],
}
EXPECTED = dict(
    zip(
        OUTPUT_KEYS,
        (102565, 0, 0, 2417, 100148, 40000, 33683, 26465, 68882, 10000, 30000, 28882),
        strict=True,
    )
)


def quote(*options: str, stdin: str) -> Result:
    return CliRunner().invoke(benefit_group, ["quote", "-", *options], input=stdin)


def test_a_case_on_standard_input_gives_every_figure_as_json() -> None:
    result = quote(stdin=json.dumps(CASE))

    assert result.exit_code == 0
    assert json.loads(result.stdout) == EXPECTED


def test_a_case_in_a_file_gives_the_same(tmp_path: Path) -> None:
    path = tmp_path / "CASE.json"
    path.write_text(json.dumps(CASE), encoding="utf-8")
    result = CliRunner().invoke(benefit_group, ["quote", str(path)])

    assert json.loads(result.stdout) == EXPECTED


def test_a_batch_gives_results_in_the_order_of_the_cases() -> None:
    result = quote("--batch", stdin=json.dumps([CASE, CASE | {"used_cap_fen": 2_500_000}]))

    assert [case["pool_fen"] for case in json.loads(result.stdout)] == [33_683, 0]


def test_an_empty_batch_gives_an_empty_list() -> None:
    assert json.loads(quote("--batch", stdin="[]").stdout) == []


def test_an_explanation_goes_to_standard_error_and_leaves_the_json_alone() -> None:
    result = quote("--explain", stdin=json.dumps(CASE))

    assert json.loads(result.stdout) == EXPECTED
    assert "泉政办〔2022〕28号, unverified" in result.stderr
    assert "× 70 % for unfiled" in result.stderr


def changed(path: str, value: object) -> dict[str, Any]:
    case = deepcopy(CASE)
    target: Any = case
    *parents, last = path.split(".")
    for key in parents:
        target = target[int(key) if key.isdigit() else key]
    target[last] = value
    return case


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("payer_region", "999999", "payer_region"),
        ("payer_region", 350500, "payer_region"),
        ("date", "2022-12-31", "payer_region"),
        ("date", "2024-13-01", "date"),
        ("date", "20240501", "date"),
        ("person_type", "student", "person_type"),
        ("issuing_tier", 4, "issuing_tier"),
        ("issuing_tier", "2", "issuing_tier"),
        ("area_status", "home", "area_status"),
        ("used_deductible_fen", -1, "used_deductible_fen"),
        ("used_cap_fen", 0.0, "used_cap_fen"),
        ("own_account_fen", True, "own_account_fen"),
        ("own_account_fen", 2**63, "own_account_fen"),
        ("family_accounts_fen", 30_000, "family_accounts_fen"),
        ("family_accounts_fen", [1, "2"], "family_accounts_fen[1]"),
        ("lines", [], "lines"),
        ("lines", ["aspirin"], "lines[0]"),
        ("lines.1.quantity", 0, "lines[1].quantity"),
        ("lines.1.quantity", float("nan"), "lines[1].quantity"),
        ("lines.0.unit_price_micro_yuan", None, "lines[0].unit_price_micro_yuan"),
        ("lines.0.category", "a", "lines[0].category"),
        ("lines.0.category", ["A"], "lines[0].category"),
        ("lines.0.first_self_pay_bp", 10_001, "lines[0].first_self_pay_bp"),
        ("lines.0.limit_price_micro_yuan", "30", "lines[0].limit_price_micro_yuan"),
        ("lines.0.limited_use_unmet", 0, "lines[0].limited_use_unmet"),
        ("lines.0.limit_price", 1, "lines[0].limit_price"),
        ("delivery_fee_fen", 500, "delivery_fee_fen"),
    ],
)
def test_bad_input_ends_with_status_2_and_names_the_key(
    path: str, value: object, named: str
) -> None:
    result = quote(stdin=json.dumps(changed(path, value)))

    assert result.exit_code == 2
    assert result.stdout == ""
    assert f"Error: {named}: " in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("key", [*CASE])
def test_a_missing_key_is_named(key: str) -> None:
    result = quote(stdin=json.dumps({name: CASE[name] for name in CASE if name != key}))

    assert result.exit_code == 2
    assert f"Error: {key}: missing" in result.stderr


def test_a_bad_case_in_a_batch_is_named_with_its_place() -> None:
    result = quote("--batch", stdin=json.dumps([CASE, changed("lines.1.quantity", 0)]))

    assert result.exit_code == 2
    assert "Error: [1].lines[1].quantity: " in result.stderr


@pytest.mark.parametrize(
    ("stdin", "options", "message"),
    [
        ("", (), "not readable as JSON"),
        ("{", (), "not readable as JSON"),
        ("[" * 100_000, (), "not readable as JSON"),
        ("[]", (), "add --batch"),
        ("{}", ("--batch",), "is a list of cases"),
        ("3", (), "must be a table"),
    ],
)
def test_input_of_another_shape_ends_with_status_2(
    stdin: str, options: tuple[str, ...], message: str
) -> None:
    result = quote(*options, stdin=stdin)

    assert result.exit_code == 2
    assert message in result.stderr


# The scheme of the demonstration's 320600 is invented: 80 % in tier 3 after 30.00 yuan.
SCHEME_CASE = CASE | {
    "payer_region": "320600",
    "issuing_tier": 3,
    "area_status": "filed",
    "used_deductible_fen": 80_000,
    "special_disease_code": "SYN-M03900",
    "enrolled": [{"scheme_code": "NT-SYN-M03900", "used_deductible_fen": 2_000, "used_cap_fen": 0}],
    "lines": [
        CASE["lines"][0] | {"category": "A", "drug_code": "SYNW0000000000000000001"},
        CASE["lines"][1],
    ],
}


def test_a_case_with_a_scheme_says_what_falls_to_it() -> None:
    figures = json.loads(quote(stdin=json.dumps(SCHEME_CASE)).stdout)

    assert figures["schemes"] == [
        {
            "scheme_code": "NT-SYN-M03900",
            "lines": [0],
            "inscope_fen": 24_165,
            "deductible_fen": 1_000,
            "pool_fen": 18_532,
        }
    ]
    assert figures["pool_fen"] == 18_532 + 43_120
    assert {*figures} == {*OUTPUT_KEYS, "schemes"}


@pytest.mark.parametrize("changes", [{"enrolled": []}, {"special_disease_code": "SYN-M01600"}])
def test_a_case_outside_every_scheme_gives_the_documented_figures_only(
    changes: dict[str, Any],
) -> None:
    figures = json.loads(quote(stdin=json.dumps(SCHEME_CASE | changes)).stdout)

    assert {*figures} == {*OUTPUT_KEYS}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"special_disease_code": ""}, "special_disease_code"),
        ({"enrolled": "NT-SYN-M03900"}, "enrolled"),
        ({"enrolled": [{"scheme_code": "S"}]}, "enrolled[0].used_deductible_fen"),
        ({"enrolled": [SCHEME_CASE["enrolled"][0] | {"used_cap_fen": -1}]},
         "enrolled[0].used_cap_fen"),
        ({"enrolled": SCHEME_CASE["enrolled"] * 2}, "enrolled"),
    ],
)  # fmt: skip
def test_bad_schemes_of_a_case_are_named(changes: dict[str, Any], named: str) -> None:
    result = quote(stdin=json.dumps(SCHEME_CASE | changes))

    assert result.exit_code == 2
    assert f"Error: {named}: " in result.stderr


def test_a_folder_of_bad_tariffs_ends_with_status_2_and_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "350500.toml").write_text("region_code = 350500", encoding="utf-8")
    result = quote("--tariffs", str(tmp_path), stdin=json.dumps(CASE))

    assert result.exit_code == 2
    assert "350500.toml" in result.stderr
    assert "region_code" in result.stderr
