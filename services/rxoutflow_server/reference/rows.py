"""Checked reading of CSV files: every fault of every row is reported at once, by row and column.

Files are UTF-8, with the expected columns in any order and no others. A row collects its faults and
goes on with a stand-in value, so one pass finds everything that is wrong.

A file that was cut off must not pass for a whole one: its last line ends with a line break, and
where it ends with a trailer, a line ``# rows: N``, it holds N rows.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rxoutflow_server.reference import Problem, ReferenceDataError

T = TypeVar("T")

_TRAILER = re.compile(r"# rows: ([0-9]{1,9})")


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a file: those that must be there, and those that may."""

    required: Sequence[str]
    optional: Sequence[str] = ()


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

    def read_optional(self, column: str, parse: Callable[[str], T], absent: T) -> T:
        """The same for a column that the file may lack."""
        return self.read(column, parse, absent) if column in self._values else absent


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
        ReferenceDataError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ReferenceDataError(path, "file", f"not readable: {error.strerror}") from error


def has_trailer(content: bytes) -> bool:
    """Whether a file says in a trailer how many rows it holds."""
    lines = content.decode("utf-8", "replace").splitlines()
    return any(_TRAILER.fullmatch(line) for line in lines[-2:])


def read_rows(path: Path, content: bytes, columns: Columns, build: Callable[[Row], T]) -> list[T]:
    """What ``build`` makes of every row.

    Raises:
        ReferenceDataError: with all faults of all rows.
    """
    text = _text(path, content)
    body, promised = _without_trailer(text)
    built: list[T] = []
    problems: list[Problem] = []
    reader = csv.DictReader(io.StringIO(body, newline=""), strict=True)
    try:
        _require_columns(path, reader.fieldnames or (), columns)
        for row in _rows(reader):
            built.append(build(row))
            problems += row.problems
    except csv.Error as error:
        problems.append(Problem(f"row {reader.reader.line_num}", f"not readable as CSV: {error}"))
    problems += _cut_off(text, reader.line_num, promised, len(built))
    if not built and not problems:
        problems.append(Problem("row 2", "nothing: the file holds only its header"))
    if problems:
        raise ReferenceDataError(path, problems[0].where, problems[0].problem, problems[1:])
    return built


def _rows(reader: csv.DictReader[str]) -> Iterator[Row]:
    columns = list(reader.fieldnames or ())
    return (Row(reader.line_num, values, columns) for values in reader)


def _without_trailer(text: str) -> tuple[str, int | None]:
    """The text up to the trailer, and the number of rows that it promises."""
    body = text.rstrip("\r\n")
    begin = max(body.rfind("\n"), body.rfind("\r")) + 1
    match = _TRAILER.fullmatch(body[begin:])
    return (text[:begin], int(match[1])) if match else (text, None)


def _cut_off(text: str, last: int, promised: int | None, found: int) -> Iterator[Problem]:
    if text and not text.endswith(("\n", "\r")):
        yield Problem(
            f"row {last}",
            "the file ends in the middle of a line, so it may be cut off: get it again, or end its"
            " last line with a line break",
        )
    if promised is not None and promised != found:
        yield Problem(
            "trailer", f"{promised} rows are promised, {found} are there: get the file again"
        )


def _text(path: Path, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ReferenceDataError(path, "file", f"not readable as UTF-8 text: {error}") from error


def _require_columns(path: Path, found: Sequence[str], columns: Columns) -> None:
    missing = [column for column in columns.required if column not in found]
    known = {*columns.required, *columns.optional}
    unknown = [column for column in found if column not in known]
    if missing:
        raise ReferenceDataError(path, "row 1", f"missing columns: {', '.join(missing)}")
    if unknown or len(found) != len(set(found)):
        named = ", ".join(unknown) or "a column twice"
        raise ReferenceDataError(path, "row 1", f"unexpected columns: {named}")
