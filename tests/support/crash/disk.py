"""What a disk may hold after a power cut: all that was synced, and of the rest any part.

A file is what was synced, and the changes since. Of those each sector of 512 bytes may have reached
the disk or not, in any order, or in part; the size may be any that the file had. A name is in its
directory for certain only once the directory was synced; until then each creation and removal may
be there or not. Bytes that were never written are zeros or rubbish.

This is harsher than any one disk, and SQLite asks for no more than it grants: a write leaves bytes
beside it alone, even in its own sector (the property that SQLite calls powersafe overwrite).
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from random import Random
from typing import TypeAlias

from support.crash.vfs import Kind, Operation

SECTOR = 512
_TORN = 0.1
"""The share of sectors that were reached by the power cut while they were written."""

Image: TypeAlias = dict[str, bytes]
"""Files by name."""


class Cut(StrEnum):
    """How a power cut treats what was not synced."""

    DROPS = "drops everything"
    KEEPS = "keeps everything, as the end of the process alone does"
    ORDERED = "keeps what came first, the last write in part"
    SHUFFLED = "keeps any sectors"


@dataclass(frozen=True, slots=True)
class _Write:
    at: int
    data: bytes


@dataclass(frozen=True, slots=True)
class _Truncate:
    size: int


_Change: TypeAlias = _Write | _Truncate


@dataclass
class _File:
    synced: bytearray
    changes: list[_Change] = field(default_factory=list)

    def sync(self) -> None:
        for change in self.changes:
            _apply(self.synced, change)
        self.changes.clear()

    def lose_sync(self, choice: Random) -> None:
        """A sync failed: what was on its way is there or not, and is never tried again.

        Linux marks pages that it failed to write as clean, so a later sync says that all is well.
        """
        self.synced = bytearray(_shuffled(self, choice))
        self.changes.clear()


class Disk:
    """One directory."""

    def __init__(self, image: Image | None = None) -> None:
        """A directory with these files, all of it synced."""
        self._files = [_File(bytearray(data)) for data in (image or {}).values()]
        self._synced = {name: index for index, name in enumerate(image or {})}
        self._names = dict(self._synced)
        self._renaming: list[tuple[str, int | None]] = []

    def copy(self) -> Disk:
        """The same disk, for another future."""
        return deepcopy(self)

    def apply(self, operation: Operation) -> None:
        """Something was done to a file or to the directory."""
        name = operation.path.name
        match operation.kind:
            case Kind.OPEN:
                self._find(name)
            case Kind.WRITE:
                self._file(name).changes.append(_Write(operation.at, operation.data))
            case Kind.TRUNCATE:
                self._file(name).changes.append(_Truncate(operation.at))
            case Kind.SYNC:
                self._find(name).sync()
            case Kind.DELETE:
                self._rename(name, None)
            case Kind.SYNC_DIRECTORY:
                _carry_out(self._synced, self._renaming)
                self._renaming.clear()

    def lose_sync(self, name: str, choice: Random) -> None:
        """A sync of a file failed."""
        self._file(name).lose_sync(choice)

    def image(self, cut: Cut, choice: Random) -> Image:
        """What is there after a power cut."""
        names = dict(self._synced)
        _carry_out(names, _some(self._renaming, cut, choice))
        return {name: _cut(self._files[index], cut, choice) for name, index in names.items()}

    def is_settled(self) -> bool:
        """Whether everything is synced, so that all power cuts leave the same."""
        return not self._renaming and not any(each.changes for each in self._files)

    def _find(self, name: str) -> _File:
        """A file; it is created when it is first met."""
        if name not in self._names:
            self._files.append(_File(bytearray()))
            self._rename(name, len(self._files) - 1)
        return self._file(name)

    def _file(self, name: str) -> _File:
        return self._files[self._names[name]]

    def _rename(self, name: str, index: int | None) -> None:
        _carry_out(self._names, [(name, index)])
        self._renaming.append((name, index))


def write(image: Image, folder: Path) -> None:
    """Put the files of an image into a folder that has no others of their names."""
    for name, data in image.items():
        (folder / name).write_bytes(data)


def _carry_out(names: dict[str, int], renaming: list[tuple[str, int | None]]) -> None:
    for name, index in renaming:
        if index is None:
            names.pop(name, None)
        else:
            names[name] = index


def _some(
    renaming: list[tuple[str, int | None]], cut: Cut, choice: Random
) -> list[tuple[str, int | None]]:
    match cut:
        case Cut.DROPS:
            return []
        case Cut.KEEPS:
            return renaming
        case Cut.ORDERED:
            return renaming[: choice.randint(0, len(renaming))]
        case Cut.SHUFFLED:
            return [each for each in renaming if choice.random() < 0.5]


def _cut(file: _File, cut: Cut, choice: Random) -> bytes:
    match cut:
        case Cut.DROPS:
            return bytes(file.synced)
        case Cut.KEEPS:
            return _all_of(file, file.changes)
        case Cut.ORDERED:
            return _ordered(file, choice)
        case Cut.SHUFFLED:
            return _shuffled(file, choice)


def _all_of(file: _File, changes: list[_Change]) -> bytes:
    content = bytearray(file.synced)
    for change in changes:
        _apply(content, change)
    return bytes(content)


def _ordered(file: _File, choice: Random) -> bytes:
    kept = file.changes[: choice.randint(0, len(file.changes))]
    if kept and isinstance(last := kept[-1], _Write):
        torn = last.data[: choice.randint(0, len(last.data))]
        kept = [*kept[:-1], _Write(last.at, torn)]
    return _all_of(file, kept)


def _shuffled(file: _File, choice: Random) -> bytes:
    """Every sector as it was at any moment since the last sync, and a size that the file had."""
    if not file.changes:
        return bytes(file.synced)
    content, touched, sizes = bytearray(file.synced), dict[int, list[bytes]](), [len(file.synced)]
    for change in file.changes:
        if isinstance(change, _Write):
            _remember(touched, content, change)
        _apply(content, change)
        sizes.append(len(content))
    size = choice.choice([*sizes, max(sizes), max(sizes)])
    found = bytearray(_fitted(bytes(file.synced), size, choice))
    share = choice.choice((0.05, 0.5, 0.95))
    for sector, versions in touched.items():
        begin = sector * SECTOR
        if begin < size and choice.random() < share:
            kept = _torn(versions, choice) if choice.random() < _TORN else choice.choice(versions)
            found[begin : begin + SECTOR] = kept[: size - begin]
    return bytes(found)


def _remember(touched: dict[int, list[bytes]], content: bytearray, change: _Write) -> None:
    """How the sectors of a write are before it, if they are new to us, and after it."""
    end = change.at + len(change.data)
    first, last = change.at // SECTOR, (end - 1) // SECTOR
    before = bytes(content[first * SECTOR : (last + 1) * SECTOR])
    before = before.ljust((last + 1 - first) * SECTOR, b"\0")
    skip = change.at - first * SECTOR
    after = before[:skip] + change.data + before[skip + len(change.data) :]
    for sector in range(first, last + 1):
        begin = (sector - first) * SECTOR
        versions = touched.setdefault(sector, [before[begin : begin + SECTOR]])
        versions.append(after[begin : begin + SECTOR])


def _torn(versions: list[bytes], choice: Random) -> bytes:
    """The beginning of one version and the end of the one before it."""
    index, at = choice.randrange(1, len(versions)), choice.randint(0, SECTOR)
    return versions[index][:at] + versions[index - 1][at:]


def _fitted(content: bytes, size: int, choice: Random) -> bytes:
    more = max(0, size - len(content))
    filling = choice.randbytes(more) if choice.random() < 0.3 else bytes(more)
    return content[:size] + filling


def _apply(content: bytearray, change: _Change) -> None:
    size = change.size if isinstance(change, _Truncate) else change.at
    if size > len(content) or isinstance(change, _Truncate):
        content[:] = bytes(content[:size]).ljust(size, b"\0")
    if isinstance(change, _Write):
        content[change.at : change.at + len(change.data)] = change.data
