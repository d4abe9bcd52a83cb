"""The line of a TOML file on which a key stands, so that a fault can be found by a person.

Python's TOML reader keeps no positions. This looks for table headers and keys in the text, as
people write them; where a key is written in another way, or missing, it gives the line of the
nearest table around it. It is for messages only: nothing is decided by it.
"""

from __future__ import annotations

import re

_SEGMENT = re.compile(r"([A-Za-z0-9_-]+)(?:\[([0-9]+)\])?")
_HEADER = re.compile(r"\s*\[{1,2}\s*([A-Za-z0-9_.-]+)\s*\]{1,2}")


def line_of(text: str, where: str) -> int | None:
    """The line, from 1, of a key path like ``version[1].ratio_bp.tier_2``; None if unknown."""
    lines = text.splitlines()
    begin, end, found, path = 0, len(lines), None, ""
    for name, index in _SEGMENT.findall(where):
        path = f"{path}.{name}" if path else name
        place = _find(lines, begin, end, path, name, int(index or 0))
        if place is None:
            break
        found = begin = place
        end = _end_of(lines, begin, end, path)
    return None if found is None else found + 1


def _find(lines: list[str], begin: int, end: int, path: str, name: str, index: int) -> int | None:
    headers = [number for number in range(begin, end) if _header(lines[number]) == path]
    if index < len(headers):
        return headers[index]
    key = re.compile(rf"(?:.*[{{,])?\s*{re.escape(name)}\s*=")
    return next((number for number in range(begin, end) if key.match(lines[number])), None)


def _end_of(lines: list[str], begin: int, end: int, path: str) -> int:
    """Where the table that begins here ends: at the next header that is not inside it."""
    if _header(lines[begin]) is None:
        return end
    for number in range(begin + 1, end):
        header = _header(lines[number])
        if header is not None and not header.startswith(f"{path}."):
            return number
    return end


def _header(line: str) -> str | None:
    match = _HEADER.match(line)
    return match[1] if match else None
