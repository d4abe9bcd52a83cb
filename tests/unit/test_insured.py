"""Insured persons from CSV: enrolment in schemes, and which files are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from rxoutflow_server.domain.benefit import Enrolment
from rxoutflow_server.reference import ReferenceDataError
from rxoutflow_server.reference.insured import COLUMNS, load_insured

HEADER = ",".join(COLUMNS)
ROW = "SYN1,active,filed,100,5;6,0,0,false"


def file_with(folder: Path, *rows: str) -> Path:
    path = folder / "350500.csv"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def test_without_the_column_nobody_is_enrolled(tmp_path: Path) -> None:
    (person,) = load_insured(file_with(tmp_path, HEADER, ROW), 2026)

    assert person.enrolments == ()


@pytest.mark.parametrize(("cell", "codes"), [("", []), ("S1", ["S1"]), ("S-2; S1", ["S1", "S-2"])])
def test_codes_of_schemes_are_separated_by_semicolons(
    tmp_path: Path, cell: str, codes: list[str]
) -> None:
    rows = (f"{HEADER},enrolled_schemes", f"{ROW},{cell}")
    (person,) = load_insured(file_with(tmp_path, *rows), 2026)

    assert sorted(person.enrolments, key=str) == sorted(map(Enrolment, codes), key=str)


@pytest.mark.parametrize("cell", ["s1", "S1;", "S1;S1", "S1,S2"])
def test_a_bad_code_is_refused_with_row_and_column(tmp_path: Path, cell: str) -> None:
    with pytest.raises(ReferenceDataError, match="row 2, column enrolled_schemes"):
        load_insured(file_with(tmp_path, f"{HEADER},enrolled_schemes", f"{ROW},{cell}"), 2026)


def test_a_file_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    path = file_with(tmp_path, HEADER, ROW)
    path.write_bytes(path.read_bytes()[:-1])

    with pytest.raises(ReferenceDataError, match="may be cut off"):
        load_insured(path, 2026)
