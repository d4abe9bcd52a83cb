"""``tariff`` as its user sees it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import rxoutflow_server.sandbox
from rxoutflow_server import cli_tariff
from rxoutflow_server.cli_tariff import tariff_group
from rxoutflow_server.config import load_platform
from rxoutflow_server.sandbox.layout import prepare
from rxoutflow_server.sandbox.wiring import Wiring, platform_config_file, services
from rxoutflow_server.storage.sqlite.connection import open_writer
from rxoutflow_server.storage.sqlite.schema import migrate

DEMONSTRATION = Path(rxoutflow_server.sandbox.__file__).parent / "data" / "tariffs"
NOW = datetime(2026, 6, 15, 4, tzinfo=UTC)

HEAD = 'region_code = "350500"\nregion_name = "泉州"\n'
VERSION = """
[[version]]
version_id = "350500-1"
document = "a document"
unverified = true
valid_from = 2026-01-01
retired_bonus_bp = 500
deductible = { kind = "annual", amount_fen = { active = 60_000, retired = 50_000 } }
cap_fen = { active = 2_500_000, retired = 2_600_000 }
area_factor_bp = { unfiled = 7_000, others = 10_000 }

[version.ratio_bp]
tier_1 = 8_500
tier_2 = 8_000
tier_3 = 7_500
"""
ENDED = VERSION.replace("2026-01-01", "2026-01-01\nvalid_until = 2026-07-01")
NEXT = VERSION.replace("350500-1", "350500-2").replace("2026-01-01", "2026-07-01")
SCHEME = """
[[version.scheme]]
scheme_code = "S1"
name = "高血压"
kind = "special_disease"
document = "a document"
disease_codes = ["M03900"]
drug_codes = ["SYNW0000000000000000001"]
retired_bonus_bp = 0
deductible = { kind = "annual", amount_fen = { active = 0, retired = 0 } }
ratio_bp = { tier_1 = 9_000, tier_2 = 9_000, tier_3 = 9_000 }
cap_fen = { active = 1_000, retired = 1_000 }
area_factor_bp = { others = 10_000 }
"""


@pytest.fixture(autouse=True)
def _today(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_tariff, "utc_now", lambda: NOW)


def tariff(*arguments: str | Path) -> Result:
    return CliRunner().invoke(tariff_group, [str(each) for each in arguments])


def file_of(folder: Path, *versions: str, name: str = "350500.toml") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(HEAD + "".join(versions), encoding="utf-8")
    return path


# --- check and show -------------------------------------------------------------------------------


def test_the_demonstration_tariffs_pass_and_say_that_they_are_unverified() -> None:
    result = tariff("check", DEMONSTRATION)

    assert result.exit_code == 0
    assert result.output.count("UNVERIFIED") == 6
    assert "ok: 6 versions" in result.output


def test_every_bad_version_of_every_file_is_named_with_line_key_and_reason(tmp_path: Path) -> None:
    first = file_of(tmp_path, VERSION.replace("8_000", "80.0"), NEXT.replace("7_500", "-1"))
    second = file_of(tmp_path, VERSION.replace("2_500_000", "x"), name="350501.toml")
    result = tariff("check", tmp_path)

    assert result.exit_code == 2
    assert f"{first} cannot be used" in result.output
    assert "line 16, version[0].ratio_bp.tier_2: must be a whole number" in result.output
    assert "line 32, version[1].ratio_bp.tier_3: must be a whole number" in result.output
    assert f"{second} cannot be used" in result.output
    assert "not readable as TOML" in result.output
    assert "line 11" in result.output


@pytest.mark.parametrize(
    ("versions", "reason"),
    [
        ((VERSION, NEXT), "are both in force on 2026-07-01"),
        ((ENDED, NEXT.replace("2026-07-01", "2026-07-02")), "nothing is in force from 2026-07-01"),
        ((ENDED, ENDED.replace("2026-01-01\n", "2027-01-01\n").replace("2026-07-01", "2028-01-01")),
         "is used twice"),
    ],
)  # fmt: skip
def test_overlaps_gaps_and_repeated_ids_are_refused_with_file_line_and_reason(
    tmp_path: Path, versions: tuple[str, ...], reason: str
) -> None:
    file = file_of(tmp_path, *versions)
    for path in (file, tmp_path):
        result = tariff("check", path)
        assert result.exit_code == 2
        assert str(file) in result.output
        assert "line " in result.output
        assert reason in result.output


def test_show_puts_every_figure_in_words_and_says_for_whom(tmp_path: Path) -> None:
    result = tariff("show", file_of(tmp_path, VERSION, SCHEME), "--on", "2026-03-01")
    lines = [" ".join(line.split()) for line in result.output.splitlines()]

    assert lines[0].startswith("350500 350500-1 from 2026-01-01 on (a document, UNVERIFIED)")
    assert "deductible a year retired 500.00 yuan" in lines
    assert "fund's share retired, tier 2 85 %" in lines
    assert "factor away from home unfiled 70 %" in lines
    assert "scheme S1: cap a year enrolled, active 10.00 yuan" in lines
    assert "scheme S1: drug SYNW0000000000000000001 enrolled listed" in lines
    assert "own account pays own everybody yes" in lines


def test_show_without_a_version_in_force_on_the_day_says_so(tmp_path: Path) -> None:
    result = tariff("show", file_of(tmp_path, VERSION), "--on", "2025-12-31")

    assert result.exit_code == 2
    assert "name another region or day" in result.output


# --- diff -----------------------------------------------------------------------------------------


def test_diff_says_row_by_row_what_changes_when_and_for_whom(tmp_path: Path) -> None:
    old = file_of(tmp_path / "old", VERSION)
    cheaper = NEXT.replace("8_000", "7_000").replace("60_000", "70_000")
    new = file_of(tmp_path / "new", ENDED, cheaper, SCHEME)
    result = tariff("diff", old, new)
    lines = [" ".join(line.split()) for line in result.output.splitlines()]

    assert result.exit_code == 1
    assert lines[0] == "350500 from 2026-07-01 on: 350500-1 → 350500-2"
    assert "deductible a year active 600.00 yuan → 700.00 yuan" in lines
    assert "fund's share active, tier 2 80 % → 70 %" in lines
    assert "fund's share retired, tier 2 85 % → 75 %" in lines
    assert "scheme S1: disease M03900 enrolled - → listed" in lines
    assert not [line for line in lines if "tier 1 8" in line]


def test_versions_that_are_cut_otherwise_but_say_the_same_are_no_difference(tmp_path: Path) -> None:
    old = file_of(tmp_path / "old", VERSION)
    new = file_of(tmp_path / "new", ENDED, NEXT)
    result = tariff("diff", old, new)

    assert result.exit_code == 0
    assert "no figure changes on any day" in result.output


def test_a_region_that_comes_or_goes_is_a_difference_in_every_row(tmp_path: Path) -> None:
    result = tariff("diff", file_of(tmp_path, ENDED), DEMONSTRATION)

    assert result.exit_code == 1
    assert "610900 from 2023-01-01 on: - → 610900-demo-2023" in result.output


# --- load -----------------------------------------------------------------------------------------


def test_a_checked_file_is_put_in_place_whole_and_the_changes_are_shown(tmp_path: Path) -> None:
    file_of(tmp_path / "platform", VERSION)
    new = file_of(tmp_path / "new", ENDED, NEXT.replace("8_000", "7_000"), name="draft.toml")
    result = tariff("load", new, "--to", tmp_path / "platform")

    assert result.exit_code == 0
    assert "350500 from 2026-07-01 on" in result.output
    assert "adjust" not in result.output
    assert (tmp_path / "platform" / "350500.toml").read_bytes() == new.read_bytes()
    assert [each.name for each in (tmp_path / "platform").iterdir()] == ["350500.toml"]


def test_the_first_file_of_a_region_needs_no_other(tmp_path: Path) -> None:
    (tmp_path / "platform").mkdir()
    result = tariff("load", file_of(tmp_path, VERSION), "--to", tmp_path / "platform")

    assert result.exit_code == 0
    assert (tmp_path / "platform" / "350500.toml").exists()


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    present = file_of(tmp_path / "platform", VERSION)
    before = present.read_bytes()
    result = tariff("load", file_of(tmp_path, ENDED, NEXT), "--to", present.parent, "--dry-run")

    assert result.exit_code == 0
    assert present.read_bytes() == before


def test_a_change_in_the_past_says_how_to_list_what_it_means(tmp_path: Path) -> None:
    present = file_of(tmp_path / "platform", VERSION)
    late = [each.replace("2026-07-01", "2026-06-01") for each in (ENDED, NEXT)]
    new = file_of(tmp_path, late[0], late[1].replace("8_000", "9_000"))
    result = tariff("load", new, "--to", present.parent)

    assert result.exit_code == 0
    assert "tariff adjust --config PLATFORM.toml --from 2026-06-01" in result.output


@pytest.mark.parametrize(
    ("versions", "reason"),
    [
        ((VERSION.replace("8_000", "7_000"),), "350500-1 has other figures"),
        ((NEXT,), "350500-1 is missing"),
        ((VERSION, NEXT), "are both in force"),
        ((ENDED, NEXT.replace("2026-07-01", "2026-08-01")), "nothing is in force from 2026-07-01"),
        ((VERSION.replace("8_000", "80.0"),), "version[0].ratio_bp.tier_2"),
    ],
)
def test_a_file_that_would_break_what_is_in_force_is_refused_and_nothing_is_written(
    tmp_path: Path, versions: tuple[str, ...], reason: str
) -> None:
    present = file_of(tmp_path / "platform", VERSION)
    before = present.read_bytes()
    new = file_of(tmp_path, *versions, name="new.toml")
    result = tariff("load", new, "--to", present.parent)

    assert result.exit_code == 2
    assert str(new) in result.output
    assert reason in result.output
    assert "Traceback" not in result.output
    assert present.read_bytes() == before


def test_what_may_change_of_a_version_that_has_begun(tmp_path: Path) -> None:
    present = file_of(tmp_path / "platform", VERSION)
    verified = VERSION.replace("unverified = true", "unverified = false")
    new = file_of(tmp_path, verified.replace("a document", "the document"))

    assert tariff("load", new, "--to", present.parent).exit_code == 0


def test_a_version_that_has_not_begun_may_still_change(tmp_path: Path) -> None:
    present = file_of(tmp_path / "platform", ENDED, NEXT)
    new = file_of(tmp_path, ENDED, NEXT.replace("8_000", "7_000"))

    assert tariff("load", new, "--to", present.parent).exit_code == 0


def test_a_version_in_another_file_of_the_folder_counts_too(tmp_path: Path) -> None:
    file_of(tmp_path / "platform", VERSION, name="old-name.toml")
    result = tariff("load", file_of(tmp_path, NEXT), "--to", tmp_path / "platform")

    assert result.exit_code == 2
    assert "old-name.toml" in result.output


@pytest.mark.parametrize("options", [(), ("--to", ".", "--config", __file__)])
def test_load_needs_one_place(tmp_path: Path, options: tuple[str, ...]) -> None:
    result = tariff("load", file_of(tmp_path, VERSION), *options)

    assert result.exit_code == 2
    assert "--to" in result.output


# --- adjust ---------------------------------------------------------------------------------------


def platform_of(box: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configuration of a platform of a sandbox that was never started."""
    monkeypatch.setattr(cli_tariff, "utc_now", lambda: datetime.now(UTC))
    made, now = prepare(box, datetime.now(UTC)), datetime.now(UTC)
    names = [each.name for each in services(made.layout, made.constellation)]
    ports = {name: 1 + index for index, name in enumerate(names)}
    Wiring(made.layout, made.constellation, ports).write(now)
    return platform_config_file(made.layout, made.constellation.regions[0])


def test_adjust_reads_a_platform_s_store_and_lists_nothing_where_nothing_was_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = platform_of(tmp_path / "box", monkeypatch)
    store = load_platform(config, datetime.now(UTC)).records
    assert isinstance(store, Path)
    store.parent.mkdir(parents=True, exist_ok=True)
    connection = open_writer(store)
    migrate(connection, store, "platform")
    connection.close()
    listed, report = tmp_path / "list.csv", tmp_path / "page.md"
    result = tariff(
        "adjust", "--config", config, "--from", "2026-01-01", "--csv", listed, "--report", report
    )

    assert result.exit_code == 0
    assert "0 settlements were computed again, 0 differ" in report.read_text("utf-8")
    assert len(listed.read_text("utf-8").splitlines()) == 1


def test_adjust_of_a_platform_that_never_ran_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = platform_of(tmp_path / "box", monkeypatch)
    result = tariff("adjust", "--config", config, "--from", "2026-01-01")

    assert result.exit_code == 2
    assert "does not exist" in result.output
