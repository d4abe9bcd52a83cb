"""The guide to tariffs and catalogues says what is: its example settles as it says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from rxoutflow_server.cli_benefit import benefit_group
from rxoutflow_server.cli_catalogue import catalogue_group
from rxoutflow_server.cli_tariff import tariff_group
from rxoutflow_server.domain.catalogue import DrugFlag
from rxoutflow_server.reference import catalogues, insured

PAGE = (Path(__file__).parents[2] / "docs" / "tariffs-and-catalogues.md").read_text("utf-8")


def fence(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "999900.toml").write_text(fence("toml"), "utf-8")
    return tmp_path


def test_the_tariff_of_the_guide_passes_its_check(folder: Path) -> None:
    result = CliRunner().invoke(tariff_group, ["check", str(folder)])

    assert result.exit_code == 0
    assert "schemes: HTN" in result.output


def test_the_case_of_the_guide_settles_as_the_guide_says(folder: Path) -> None:
    arguments = ["quote", "-", "--tariffs", str(folder)]
    result = CliRunner().invoke(benefit_group, arguments, input=fence("json"))
    figures = json.loads(result.stdout)

    assert [line["quantity"] for line in json.loads(fence("json"))["lines"]] == [28, 28]
    assert figures["total_fen"] == 3_136 + 2_380
    assert figures["first_self_pay_fen"] == 314
    assert figures["deductible_fen"] == 1_000 + 2_380
    assert (figures["pool_fen"], figures["account_fen"], figures["cash_fen"]) == (1_549, 3_000, 967)
    for amount in ("31.36", "23.80", "28.22", "15.49", "55.16", "30.00", "9.67"):
        assert amount in PAGE


def test_the_change_of_the_guide_shows_as_the_guide_says(folder: Path, tmp_path: Path) -> None:
    old = fence("toml")
    head, version = old.split("[[version]]", 1)
    ended = version.replace(
        "valid_from = 2026-01-01", "valid_from = 2026-01-01\nvalid_until = 2026-07-01"
    )
    begun = (
        version.replace("999900-2026", "999900-2026-07")
        .replace("valid_from = 2026-01-01", "valid_from = 2026-07-01")
        .replace("tier_3 = 5_500", "tier_3 = 6_000")
        .replace("retired = 300_000", "retired = 350_000")
    )
    new = tmp_path / "new.toml"
    new.write_text(f"{head}[[version]]{ended}\n[[version]]{begun}", "utf-8")
    result = CliRunner().invoke(tariff_group, ["diff", str(folder / "999900.toml"), str(new)])

    assert result.exit_code == 1
    for line in result.output.splitlines():
        assert line in PAGE


def test_every_column_flag_and_command_is_in_the_guide() -> None:
    columns = (
        *catalogues.COLUMNS,
        *catalogues.OPTIONAL_COLUMNS,
        *insured.OPTIONAL_COLUMNS,
    )
    assert [column for column in columns if f"`{column}`" not in PAGE] == []
    assert [flag for flag in DrugFlag if flag not in PAGE] == []
    for group in (tariff_group, catalogue_group):
        assert [n for n in group.commands if f"rxoutflow-server {group.name} {n}" not in PAGE] == []
