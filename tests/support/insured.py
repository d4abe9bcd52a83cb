"""More people for a region of the sandbox, with enough on their accounts for many visits."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

_PERSON = {
    "person_type": "active",
    "area_status": "filed",
    "own_account_fen": "100000000",
    "used_deductible_fen": "0",
    "used_cap_fen": "0",
    "direct_settlement_suspended": "false",
}


def admit(file: Path, people: Iterable[str]) -> None:
    """Add insured people, by their numbers, to a region's list."""
    columns = file.read_text("utf-8").splitlines()[0].split(",")
    with file.open("a", encoding="utf-8") as stream:
        for person in people:
            values = {**_PERSON, "insured_person_id": person}
            stream.write(",".join(values.get(column, "") for column in columns) + "\n")
