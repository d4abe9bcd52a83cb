"""Checked reading of CSV files: every fault of every row is reported at once, by row and column.

Files are UTF-8, with exactly the expected columns in any order. A row collects its faults and goes
on with a stand-in value, so one pass finds everything that is wrong.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from rxoutflow_server.reference import Problem, ReferenceDataError

T = TypeVar("T")


class Row:
    """One row of a file; ``read`` parses a cell, ``fault`` reports what is wrong with it."""

    def __init__(
        self, number: int, values: Mapping[str, str | None], columns: Sequence[str]
    ) -> None:
        self.problems: list[Problem] = []
        self._number = number
        self._values = values
        if len(values) > len(columns):
            self.fault(columns[-1], "more cells than columns: quote a cell that holds a comma")

    def fault(self, column: str, problem: str) -> None:
        """Report what is wrong in a column of this row."""
        self.problems.append(Problem(f"row {self._number}, column {column}", problem))

    def read(self, column: str, parse: Callable[[str], T], stand_in: T) -> T:
        """The parsed cell; after a ValueError of the parser, the stand-in and a fault."""
        text = self._values.get(column)
        if text is None:
            self.fault(column, "missing: the row has too few cells")
            return stand_in
        try:
            return parse(text.strip())
        except ValueError as error:
            self.fault(column, str(error))
            return stand_in


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
        ReferenceDataError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ReferenceDataError(path, "file", f"not readable: {error.strerror}") from error


def read_rows(
    path: Path, content: bytes, columns: Sequence[str], build: Callable[[Row], T]
) -> list[T]:
    """What ``build`` makes of every row.

    Raises:
        ReferenceDataError: with all faults of all rows.
    """
    reader = csv.DictReader(io.StringIO(_text(path, content), newline=""), strict=True)
    built: list[T] = []
    problems: list[Problem] = []
    try:
        _require_columns(path, reader.fieldnames or (), columns)
        for values in reader:
            row = Row(reader.line_num, values, columns)
            built.append(build(row))
            problems += row.problems
    except csv.Error as error:
        problems.append(Problem(f"row {reader.reader.line_num}", f"not readable as CSV: {error}"))
    if not built and not problems:
        problems.append(Problem("row 2", "nothing: the file holds only its header"))
    if problems:
        raise ReferenceDataError(path, problems[0].where, problems[0].problem, problems[1:])
    return built


def _text(path: Path, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ReferenceDataError(path, "file", f"not readable as UTF-8 text: {error}") from error


def _require_columns(path: Path, found: Sequence[str], columns: Sequence[str]) -> None:
    missing = [column for column in columns if column not in found]
    unknown = [column for column in found if column not in columns]
    if missing:
        raise ReferenceDataError(path, "row 1", f"missing columns: {', '.join(missing)}")
    if unknown or len(found) != len(columns):
        named = ", ".join(unknown) or "a column twice"
        raise ReferenceDataError(path, "row 1", f"unexpected columns: {named}")
