"""Reads the JSON files of this library with errors that name file, line and key.

``read_object`` refuses what is not readable, not JSON, not an object, or has a key twice.
``Fields`` then hands out typed values by key, and ``finish`` refuses the keys that nobody asked
for, with a suggestion. Nothing is guessed or converted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path

from rxoutflow.errors import InvalidInput


def read_object(path: Path) -> dict[str, object]:
    """The JSON object in this file.

    Raises:
        InvalidInput: it cannot be read, or is not a JSON object.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path}: not UTF-8 text: save it as UTF-8") from error
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read: {error.strerror}") from error
    return parse_object(text, str(path))


def parse_object(text: str, source: str) -> dict[str, object]:
    """The JSON object in this text; ``source`` is what messages call it.

    Raises:
        InvalidInput: the text is not a JSON object.
    """
    try:
        value = json.loads(
            text.removeprefix("\ufeff"), object_pairs_hook=_no_key_twice, parse_constant=_refuse
        )
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise InvalidInput(f"{source}: {where}: not valid JSON: {error.msg}") from error
    except _NotPlain as error:
        raise InvalidInput(f"{source}: {error}") from error
    except RecursionError as error:
        raise InvalidInput(f"{source}: nested too deeply") from error
    if not isinstance(value, dict):
        raise InvalidInput(f"{source}: must hold one JSON object: begin with {{")
    return value


def unknown_key(path: str, known: Iterable[str]) -> str:
    """What to tell somebody who wrote a key that is not known."""
    names = sorted(known)
    close = get_close_matches(path.rpartition(".")[2], names, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(names)}"
    return f"{path}: unknown key; {hint}"


class Fields:
    """The values of one JSON object, by key; messages name source and path."""

    def __init__(self, source: str, values: Mapping[str, object], path: str = "") -> None:
        self._source = source
        self._values = values
        self._path = path
        self._asked: set[str] = set()

    def text(self, key: str, default: str | None = None) -> str:
        """A string that is not empty; with a default, it may be missing or empty.

        Raises:
            InvalidInput: it is missing without a default, or no such string.
        """
        value = self._value(key)
        if value in (None, "") and default is not None:
            return default
        if not isinstance(value, str) or not value:
            raise self.problem(key, "must be a text that is not empty")
        return value

    def integer(self, key: str) -> int:
        """An integer of at least 0.

        Raises:
            InvalidInput: it is missing or no such integer.
        """
        value = self._value(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self.problem(key, "must be an integer of at least 0")
        return value

    def fields(self, key: str, *, optional: bool = False) -> Fields:
        """An object in this object.

        Raises:
            InvalidInput: it is missing without being optional, or no object.
        """
        value = self._value(key)
        if value is None and optional:
            value = {}
        if not isinstance(value, dict):
            raise self.problem(key, "must be an object")
        return Fields(self._source, value, self._join(key))

    def names(self) -> tuple[str, ...]:
        """The keys that are there."""
        return tuple(self._values)

    def finish(self) -> None:
        """Refuse keys that nobody asked for.

        Raises:
            InvalidInput: there is one.
        """
        for key in self._values:
            if key not in self._asked:
                raise InvalidInput(f"{self._source}: {unknown_key(self._join(key), self._asked)}")

    def problem(self, key: str, what: str) -> InvalidInput:
        """The error that names source and key."""
        missing = "is missing: it " if key not in self._values else ""
        return InvalidInput(f"{self._source}: {self._join(key)}: {missing}{what}")

    def _value(self, key: str) -> object:
        self._asked.add(key)
        return self._values.get(key)

    def _join(self, key: str) -> str:
        return f"{self._path}.{key}" if self._path else key


class _NotPlain(ValueError):
    """JSON that Python reads but the standard does not know, or that is ambiguous."""


def _no_key_twice(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _NotPlain(f"key {twice!r} is there twice: keep one")
    return values


def _refuse(name: str) -> object:
    raise _NotPlain(f"{name} is not a JSON value")
