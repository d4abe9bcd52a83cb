"""Checked reading of keyed data (TOML, JSON): every fault names the key's full path.

``Fields`` converts nothing and guesses nothing: a value of another type is refused, and a key that
nobody read is refused too, because it is most likely a misspelt one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

MAX_INTEGER = 2**63 - 1
"""The largest integer that the contract's messages can carry."""


class FieldError(ValueError):
    """A key is missing, unknown, or has an unusable value."""

    def __init__(self, where: str, problem: str) -> None:
        """Keep the key's path and what to do about it."""
        super().__init__(f"{where}: {problem}")
        self.where = where
        self.problem = problem


class Fields:
    """A table of values that knows its own path and which of its keys were read."""

    def __init__(self, values: object, path: str = "") -> None:
        """Take the values of one table.

        Raises:
            FieldError: this is not a table.
        """
        if not isinstance(values, Mapping):
            raise FieldError(path or "the whole input", "must be a table of keys and values")
        self._values = values
        self._path = path
        self._read: set[str] = set()

    def path(self, key: str) -> str:
        """The full path of a key of this table, or of the table itself for an empty key."""
        return ".".join(part for part in (self._path, key) if part)

    def has(self, key: str) -> bool:
        """Whether the key is given."""
        return key in self._values

    def value(self, key: str) -> object:
        """The value as it stands; FieldError when it is missing, as in all methods below."""
        self._read.add(key)
        if key not in self._values:
            raise FieldError(self.path(key), "missing")
        value: object = self._values[key]
        return value

    def text(self, key: str) -> str:
        """A text that is not blank."""
        value = self.value(key)
        if not isinstance(value, str) or not value.strip():
            raise FieldError(self.path(key), "must be text in quotes")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts, none blank and none twice; it may be empty."""
        texts: dict[str, None] = {}
        for path, value in self._items(key):
            if not isinstance(value, str) or not value.strip():
                raise FieldError(path, "must be text in quotes")
            if value in texts:
                raise FieldError(path, "is in the list before: remove it here")
            texts[value] = None
        return tuple(texts)

    def integer(self, key: str) -> int:
        """A whole number from 0 to ``MAX_INTEGER``."""
        return _whole_number(self.value(key), self.path(key))

    def integers(self, key: str) -> tuple[int, ...]:
        """A list of such numbers; it may be empty."""
        return tuple(_whole_number(value, path) for path, value in self._items(key))

    def boolean(self, key: str) -> bool:
        """True or false."""
        value = self.value(key)
        if not isinstance(value, bool):
            raise FieldError(self.path(key), "must be true or false")
        return value

    def table(self, key: str) -> Fields:
        """A table inside this one."""
        return Fields(self.value(key), self.path(key))

    def tables(self, key: str, *, may_be_empty: bool = False) -> Iterator[Fields]:
        """A list of tables, at least one unless it may be empty."""
        items = list(self._items(key))
        if not items and not may_be_empty:
            raise FieldError(self.path(key), "must hold at least one")
        return (Fields(value, path) for path, value in items)

    def close(self) -> None:
        """Refuse the keys that nobody read."""
        for key in self._values:
            if key not in self._read:
                raise FieldError(self.path(key), "unknown key: remove it or correct its spelling")

    def _items(self, key: str) -> Iterator[tuple[str, object]]:
        values = self.value(key)
        if not isinstance(values, list):
            raise FieldError(self.path(key), "must be a list")
        return ((f"{self.path(key)}[{index}]", value) for index, value in enumerate(values))


def _whole_number(value: object, path: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_INTEGER:
        raise FieldError(path, f"must be a whole number from 0 to {MAX_INTEGER}, without quotes")
    return value
