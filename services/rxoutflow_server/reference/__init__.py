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
    """One fault: ``where`` is a key path, or a row and a column."""

    where: str
    problem: str


class ReferenceDataError(Exception):
    """A reference data file cannot be used."""

    def __init__(self, file: Path, where: str, problem: str, more: Sequence[Problem] = ()) -> None:
        """Keep the file and every fault found in it, the first one apart."""
        self.file = file
        self.where = where
        self.problem = problem
        self.problems = (Problem(where, problem), *more)
        faults = "\n".join(f"  {fault.where}: {fault.problem}" for fault in self.problems)
        super().__init__(f"{file} cannot be used:\n{faults}")
