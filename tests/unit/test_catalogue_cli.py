"""``catalogue`` as its user sees it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rxoutflow_server.cli_catalogue import catalogue_group
from rxoutflow_server.reference.catalogues import COLUMNS, OPTIONAL_COLUMNS, load_catalogue

HEADER = ",".join((*COLUMNS, *OPTIONAL_COLUMNS))
CODES = [f"SYNW{number:019}" for number in range(1, 4)]
ROWS = [f"{code},达格列净片,DAPA-10MG,片剂,10mg×14片,片,4.36,B,1000,4,,,盒,14" for code in CODES]


def catalogue(*arguments: str | Path) -> Result:
    return CliRunner().invoke(catalogue_group, [str(each) for each in arguments])


def file_of(folder: Path, *rows: str, trailer: bool = True, name: str = "350500.csv") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    ending = (f"# rows: {len(rows)}",) if trailer else ()
    path.write_text("\n".join((HEADER, *rows, *ending)) + "\n", encoding="utf-8")
    return path


def test_a_good_file_says_how_many_drugs_and_which_version(tmp_path: Path) -> None:
    file = file_of(tmp_path, *ROWS)
    result = catalogue("check", file)

    assert result.exit_code == 0
    assert result.output == f"ok: 3 drugs, version {load_catalogue(file).version_id}\n"


def test_every_bad_row_is_reported_with_row_column_and_reason(tmp_path: Path) -> None:
    bad = (
        ROWS[0].replace("4.36", "four"),
        ROWS[1].replace(",B,", ",D,").replace("SYNW", "syn"),
        ROWS[2].replace("盒,14", "盒,"),
        "only a code",
    )
    report = tmp_path / "bad.csv"
    result = catalogue("check", file_of(tmp_path / "in", *bad), "--csv", report)

    assert result.exit_code == 2
    assert "row 2, column price_yuan: must be yuan with at most six decimals" in result.output
    assert "row 3, column category: must be A, B or C" in result.output
    assert "row 3, column drug_code: must be 23 digits and capital letters" in result.output
    assert "row 4, column units_per_package: give package_unit and" in result.output
    assert "row 5, column generic_name: missing" in result.output
    assert "in 4 rows" in result.output
    with report.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["row"] for row in rows} == {"2", "3", "4", "5"}
    assert rows[0] == {
        "row": "2",
        "column": "price_yuan",
        "reason": "must be yuan with at most six decimals, like 0.35",
    }


@pytest.mark.parametrize("cut", range(1, 200))
def test_a_file_that_was_cut_anywhere_in_its_end_is_not_loaded(tmp_path: Path, cut: int) -> None:
    file = file_of(tmp_path, *ROWS)
    file.write_bytes(file.read_bytes()[:-cut])
    result = catalogue("load", file, "--to", tmp_path / "350500.csv")

    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_a_file_without_a_trailer_that_was_cut_in_its_last_cell_is_refused(tmp_path: Path) -> None:
    limited = ROWS[2].replace("4,,,", "4,限二线用药,,")
    file = file_of(tmp_path, *ROWS[:2], limited, trailer=False)
    file.write_bytes(file.read_bytes()[:-2])
    result = catalogue("check", file)

    assert result.exit_code == 2
    assert "row 4: the file ends in the middle of a line, so it may be cut off" in result.output


def test_show_gives_a_drug_and_the_price_of_a_package(tmp_path: Path) -> None:
    result = catalogue("show", file_of(tmp_path, *ROWS), CODES[0])
    lines = [" ".join(line.split()) for line in result.output.splitlines()]

    assert "price_micro_yuan 4.36 yuan" in lines
    assert "first_self_pay_bp 10 %" in lines
    assert "price of a package 61.04 yuan" in lines


def test_show_of_a_drug_that_is_not_there_says_so(tmp_path: Path) -> None:
    result = catalogue("show", file_of(tmp_path, *ROWS), "NOTHING")

    assert result.exit_code == 2
    assert "drug NOTHING is not in catalogue" in result.output


def test_diff_tells_what_comes_goes_and_changes(tmp_path: Path) -> None:
    old = file_of(tmp_path / "old", *ROWS[:2])
    new = file_of(
        tmp_path / "new", ROWS[1].replace("4.36", "4.5").replace(",B,1000", ",A,"), ROWS[2]
    )
    result = catalogue("diff", old, new)

    assert result.exit_code == 1
    assert f"+ {CODES[2]} 达格列净片 4.36 yuan" in result.output
    assert f"- {CODES[0]} 达格列净片" in result.output
    assert f"~ {CODES[1]} 达格列净片 price_micro_yuan: 4.36 yuan → 4.50 yuan" in result.output
    assert f"~ {CODES[1]} 达格列净片 category: B → A" in result.output
    assert "1 added, 1 removed, 1 changed" in result.output


def test_diff_of_the_same_drugs_is_nothing(tmp_path: Path) -> None:
    old, new = file_of(tmp_path / "old", *ROWS), file_of(tmp_path / "new", *reversed(ROWS))

    assert catalogue("diff", old, new).exit_code == 0


def test_load_puts_a_complete_file_in_place(tmp_path: Path) -> None:
    present = file_of(tmp_path / "platform", *ROWS[:2])
    new = file_of(tmp_path / "new", *ROWS)
    result = catalogue("load", new, "--to", present)

    assert result.exit_code == 0
    assert "1 added, 0 removed, 0 changed" in result.output
    assert present.read_bytes() == new.read_bytes()
    assert [each.name for each in present.parent.iterdir()] == ["350500.csv"]


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    present = file_of(tmp_path / "platform", *ROWS[:2])
    before = present.read_bytes()
    result = catalogue("load", file_of(tmp_path / "new", *ROWS), "--to", present, "--dry-run")

    assert result.exit_code == 0
    assert present.read_bytes() == before


@pytest.mark.parametrize(
    ("rows", "trailer", "options", "reason"),
    [
        (ROWS, False, (), "does not say how many rows it holds"),
        (ROWS, False, ("--rows", "4"), "holds 3 drugs, not 4"),
        ([ROWS[0].replace("4.36", "?")], True, (), "row 2, column price_yuan"),
        ([ROWS[0], ROWS[0]], True, (), "row 3, column drug_code: used in an earlier row too"),
    ],
)
def test_a_file_that_may_be_incomplete_or_is_wrong_is_not_loaded(
    tmp_path: Path, rows: list[str], trailer: bool, options: tuple[str, ...], reason: str
) -> None:
    present = file_of(tmp_path / "platform", *ROWS[:2])
    before = present.read_bytes()
    new = file_of(tmp_path / "new", *rows, trailer=trailer)
    result = catalogue("load", new, "--to", present, *options)

    assert result.exit_code == 2
    assert reason in result.output
    assert present.read_bytes() == before


def test_the_count_of_rows_may_be_given_by_hand(tmp_path: Path) -> None:
    new = file_of(tmp_path / "new", *ROWS, trailer=False)
    result = catalogue("load", new, "--to", tmp_path / "350500.csv", "--rows", "3")

    assert result.exit_code == 0
    assert (tmp_path / "350500.csv").exists()


def test_a_catalogue_of_another_region_is_not_loaded(tmp_path: Path) -> None:
    new = file_of(tmp_path / "new", *ROWS)
    result = catalogue("load", new, "--to", tmp_path / "320600.csv")

    assert result.exit_code == 2
    assert "is for region 320600" in result.output


def test_load_needs_one_place(tmp_path: Path) -> None:
    assert "--to" in catalogue("load", file_of(tmp_path, *ROWS)).output
