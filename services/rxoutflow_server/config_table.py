"""Tables of a configuration file, read key by key, every fault noted and none fatal.

A reader asks for the keys that it knows, by type. What is missing, of another type or out of range
is noted and stands in as an empty value, so that one pass finds everything; keys that nobody asked
for are noted by :meth:`Table.close`, with the nearest known one. No note repeats a value, except
for the code or path by which people know an entry of a list.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TypeVar

OTHERS = 0o007
"""Permission bits of those who are neither owner nor group."""

_LABEL = re.compile(r"[A-Za-z0-9_./-]{1,120}")
"""A code or a path; anything else does not get into a message."""

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault: the key is a path such as ``tls.certificate``, empty for the whole file."""

    file: Path
    key: str
    problem: str
    """What is wrong; what to do."""

    def __str__(self) -> str:
        """Read as ``FILE: key: problem; what to do``."""
        return ": ".join(part for part in (str(self.file), self.key, self.problem) if part)


class ConfigError(Exception):
    """A file cannot be used; ``problems`` holds everything that is wrong with it."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        """Keep the problems in the order in which they were found."""
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


@contextmanager
def reading(file: Path) -> Iterator[Table]:
    """The root table of a TOML file.

    Raises:
        ConfigError: in the end, if anything was noted; at once if the file is no TOML.
    """
    problems: list[Problem] = []
    root = Table(file, _parse(file), problems)
    yield root
    root.close()
    if problems:
        raise ConfigError(problems)


class Table:
    """One table of the file. Tables of one file share their list of problems."""

    def __init__(
        self,
        file: Path,
        values: Mapping[str, object],
        problems: list[Problem],
        path: str = "",
    ) -> None:
        self._file = file
        self._values = values
        self._path = path
        self._problems = problems
        self._known: set[str] = set()
        self._tables: dict[str, Table] = {}

    @property
    def name(self) -> str:
        """Where the table stands in the file; empty for its root."""
        return self._path

    def has(self, key: str) -> bool:
        """Whether the key is there."""
        self._known.add(key)
        return key in self._values

    def note(self, key: str, problem: str) -> None:
        """Note a fault of a key of this table."""
        where = ".".join(part for part in (self._path, key) if part)
        self._problems.append(Problem(self._file, where, problem))

    def table(self, key: str) -> Table:
        """A table inside this one; an empty one if it is missing."""
        if key in self._tables:
            return self._tables[key]
        value = self._get(key, {})
        if not isinstance(value, Mapping):
            self.note(key, f"must be a table; write [{key}] and its keys below")
            value = {}
        inner = Table(self._file, value, self._problems, f"{self._path}.{key}".lstrip("."))
        self._tables[key] = inner
        return inner

    def text(self, key: str, form: re.Pattern[str], advice: str) -> str:
        """A text of this form."""
        value = self._required(key, advice)
        if value is None:
            return ""
        if not isinstance(value, str) or not form.fullmatch(value):
            self.note(key, f"is not of the required form; {advice}")
            return ""
        return value

    def optional_text(self, key: str, form: re.Pattern[str], advice: str) -> str:
        """A text of this form, or an empty one if the key is missing."""
        return self.text(key, form, advice) if self.has(key) else ""

    def choice(self, key: str, choices: tuple[str, ...], default: str) -> str:
        """One of a few texts."""
        value = self._get(key, default)
        if not isinstance(value, str) or value not in choices:
            self.note(key, f"is not known; use one of {', '.join(choices)}")
            return default
        return value

    def integer(self, key: str, least: int, most: int, default: int) -> int:
        """A whole number within bounds."""
        value = self._get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            self.note(key, f"is out of range; use a whole number from {least} to {most}")
            return default
        return value

    def boolean(self, key: str, default: bool) -> bool:
        """Yes or no."""
        value = self._get(key, default)
        if not isinstance(value, bool):
            self.note(key, "is neither yes nor no; write true or false, without quotes")
            return default
        return value

    def choices(self, key: str, choices: tuple[str, ...]) -> list[str]:
        """A list of some of a few texts, each at most once; at least one."""
        advice = f"list some of {', '.join(choices)}"
        values = [value for value in self._list(key, advice) if isinstance(value, str)]
        if len(set(values) & set(choices)) < len(self._list(key, advice)):
            self.note(key, f"holds something that is not known, or the same twice; {advice}")
            return []
        return values

    def text_list(self, key: str, form: re.Pattern[str], advice: str) -> list[str]:
        """A list of texts of one form; at least one."""
        values = self._list(key, advice)
        texts = [value for value in values if isinstance(value, str) and form.fullmatch(value)]
        if len(texts) < len(values):
            self.note(key, f"holds something that is not of the required form; {advice}")
        return texts

    def files(self, key: str) -> list[Path]:
        """The paths of files that can be read; at least one."""
        advice = "list paths, absolute or relative to this file"
        paths = [self._file.parent / str(value) for value in self._list(key, advice)]
        for path in paths:
            if fault := _file_fault(path):
                self.note(key, fault)
        return paths

    def tables(self, key: str, label: str) -> list[Table]:
        """The tables of a list, each known to people by its text under ``label``."""
        values = self._get(key, [])
        if not isinstance(values, list) or not all(isinstance(each, Mapping) for each in values):
            self.note(key, f"must be a list of tables; write [[{key}]] and its keys below")
            return []
        return [self._item(key, number, each, label) for number, each in enumerate(values, 1)]

    def texts(
        self, key: str, name: re.Pattern[str], form: re.Pattern[str], advice: str
    ) -> dict[str, str]:
        """A table of texts of one form, under names of another; at least one."""
        inner = self.table(key)
        if not inner._values:
            self.note(key, f"is missing; {advice}")
        for each in inner._values:
            if not name.fullmatch(each):
                inner.note(each, f"is not a name of the required form; {advice}")
        return {each: inner.text(each, form, advice) for each in inner._values}

    def file(self, key: str) -> Path:
        """The path of a file that can be read."""
        return self._path_of(key, _file_fault)

    def optional_file(self, key: str) -> Path | None:
        """The path of a file that can be read, or nothing if the key is missing."""
        return self.file(key) if self.has(key) else None

    def secret_file(self, key: str) -> Path:
        """The path of a file that can be read, and not by everybody."""
        return self._path_of(key, _secret_fault)

    def optional_secret_file(self, key: str) -> Path | None:
        """The path of such a file, or nothing if the key is missing."""
        return self.secret_file(key) if self.has(key) else None

    def folder(self, key: str) -> Path:
        """The path of a folder that can be read."""
        return self._path_of(key, _folder_fault)

    def writable_folder(self, key: str) -> Path:
        """The path of a folder that can be read and written."""
        return self._path_of(key, _writable_folder_fault)

    def writable_file(self, key: str) -> Path:
        """The path of a file that exists or can be made."""
        return self._path_of(key, _writable_fault)

    def close(self) -> None:
        """Note the keys that nobody asked for, in this table and those inside."""
        for key in self._values:
            if key not in self._known:
                nearest = get_close_matches(key, self._known, 1, cutoff=0.5)
                advice = f"did you mean {nearest[0]}?" if nearest else "remove it"
                self.note(key, f"is not a known key; {advice}")
        for inner in self._tables.values():
            inner.close()

    def _get(self, key: str, default: _Value) -> object | _Value:
        self._known.add(key)
        return self._values.get(key, default)

    def _list(self, key: str, advice: str) -> list[object]:
        value = self._required(key, advice)
        if value is None:
            return []
        if not isinstance(value, list) or not value:
            self.note(key, f"must be a list and not empty; {advice}")
            return []
        return value

    def _item(self, key: str, number: int, values: Mapping[str, object], label: str) -> Table:
        known_as = values.get(label)
        name = f"{key}[{known_as if _is_label(known_as) else f'#{number}'}]"
        path = f"{self._path}.{name}".lstrip(".")
        item = self._tables[f"{key}[{number}]"] = Table(self._file, values, self._problems, path)
        return item

    def _required(self, key: str, advice: str) -> object | None:
        value = self._get(key, None)
        if value is None:
            self.note(key, f"is missing; {advice}")
        return value

    def _path_of(self, key: str, fault_of: Callable[[Path], str]) -> Path:
        value = self._required(key, "give a path, absolute or relative to this file")
        if value is None:
            return Path()
        if not isinstance(value, str) or not value:
            self.note(key, "is no path; give one in quotes")
            return Path()
        path = self._file.parent / value
        if fault := fault_of(path):
            self.note(key, fault)
        return path


def _parse(file: Path) -> Mapping[str, object]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise ConfigError([Problem(file, "", f"cannot be read ({error.strerror})")]) from None
    except UnicodeDecodeError:
        raise ConfigError([Problem(file, "", "is no text; save it as UTF-8")]) from None
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"\(at .*\)$", str(error))
        where = place.group() if place else ""
        raise ConfigError([Problem(file, "", f"is no TOML {where}; correct it")]) from None


def _is_label(value: object) -> bool:
    return isinstance(value, str) and _LABEL.fullmatch(value) is not None


def _file_fault(path: Path) -> str:
    if not path.is_file():
        return f"{path} is no file; correct the path or create it"
    if not os.access(path, os.R_OK):
        return f"{path} cannot be read; give this user the right to read it"
    return ""


def _secret_fault(path: Path) -> str:
    fault = _file_fault(path)
    if not fault and path.stat().st_mode & OTHERS:
        return f"{path} is open to everybody; run chmod 600 on it"
    return fault


def _folder_fault(path: Path) -> str:
    if not path.is_dir():
        return f"{path} is no folder; correct the path or create it"
    if not os.access(path, os.R_OK | os.X_OK):
        return f"{path} cannot be read; give this user the right to read it"
    return ""


def _writable_folder_fault(path: Path) -> str:
    fault = _folder_fault(path)
    if not fault and not os.access(path, os.W_OK):
        return f"{path} cannot be written; give this user the right to write it"
    return fault


def _writable_fault(path: Path) -> str:
    if not path.parent.is_dir():
        return f"the folder {path.parent} does not exist; create it"
    if not os.access(path.parent, os.W_OK | os.X_OK):
        return f"the folder {path.parent} cannot be written; give this user the right to"
    if path.exists() and not (path.is_file() and os.access(path, os.R_OK | os.W_OK)):
        return f"{path} is no file that can be read and written; correct the path or its rights"
    return ""
