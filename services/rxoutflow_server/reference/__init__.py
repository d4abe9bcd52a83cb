"""Reference data on files: tariffs and catalogues, read once and refused when anything is wrong.

A file is taken whole or not at all. ``ReferenceDataError`` names the file, the place in it and what
to do; where a file has several faults it names all of them at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault: ``where`` is a key path, or a row and a column.

    ``line`` is the line of the file, from 1, where ``where`` does not say it already.
    """

    where: str
    problem: str
    line: int | None = None

    def __str__(self) -> str:
        place = self.where if self.line is None else f"line {self.line}, {self.where}"
        return f"{place}: {self.problem}"


class ReferenceDataError(Exception):
    """A reference data file cannot be used."""

    def __init__(
        self,
        file: Path,
        where: str,
        problem: str,
        more: Sequence[Problem] = (),
        *,
        line: int | None = None,
    ) -> None:
        """Keep the file and every fault found in it, the first one apart."""
        self.file = file
        self.where = where
        self.problem = problem
        self.problems = (Problem(where, problem, line), *more)
        faults = "\n".join(f"  {fault}" for fault in self.problems)
        super().__init__(f"{file} cannot be used:\n{faults}")
