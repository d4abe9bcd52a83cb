"""What SQLite does to files, seen and disturbed from below.

    with watching(watch):
        ...                 # every connection that is opened here

SQLite reaches files through a table of functions, its VFS. Here the table of the very library that
Python's ``sqlite3`` is linked with is copied, some functions of the copy are replaced, and it
becomes the default for as long as the context lasts. So the code under test is the code of
production, from the store down to SQLite, without a seam for tests.

Opening, writing, truncating, syncing and deleting are told of when they have succeeded; a watch may
have any of them, and reading, fail instead. The memory that connections share (the ``-shm`` file)
is not watched: SQLite makes it anew after a crash. Locks and everything else are SQLite's own.
"""

from __future__ import annotations

import _sqlite3
import ctypes
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from ctypes import c_char_p, c_int, c_int64, c_void_p
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, Protocol

_OK = 0
_MAIN_DB, _MAIN_JOURNAL, _WAL = 0x100, 0x800, 0x80000
_NAME = b"rxoutflow-watched"
_OPEN_DIRECTORY = b"openDirectory"


class Kind(StrEnum):
    """What is done to a file, or to the directory that names it."""

    OPEN = "open"
    READ = "read"
    WRITE = "write"
    TRUNCATE = "truncate"
    SYNC = "sync"
    DELETE = "delete"
    SYNC_DIRECTORY = "sync directory"


@dataclass(frozen=True, slots=True)
class Operation:
    """Something that was done. ``at`` is where bytes were written, or the new size."""

    kind: Kind
    path: Path
    at: int = 0
    data: bytes = b""


class Watch(Protocol):
    """Who hears of operations, and may have them fail."""

    def before(self, kind: Kind, path: Path) -> int:
        """Zero to go on, or the SQLite error with which the operation fails instead."""

    def after(self, operation: Operation) -> None:
        """It was done; never called for reading."""


@contextmanager
def watching(watch: Watch) -> Iterator[None]:
    """Every connection that this process opens meanwhile is watched."""
    shim = _shim()
    shim.watch = watch
    shim.begin()
    try:
        yield
    finally:
        shim.end()
        shim.watch = None
    if shim.defects:
        raise shim.defects.pop()


class CannotWatch(Exception):
    """This Python hides the library that it is linked with."""


@cache
def _library() -> ctypes.CDLL:
    """The SQLite that Python's own module uses: not any other on this machine."""
    place = getattr(_sqlite3, "__file__", None)  # none where it is built into the interpreter
    library = ctypes.CDLL(place)
    with closing(sqlite3.connect(":memory:")) as connection:
        (ours,) = connection.execute("SELECT sqlite_source_id()").fetchone()
    try:
        library.sqlite3_sourceid.restype = c_char_p
        same = library.sqlite3_sourceid().decode() == ours
        library.sqlite3_vfs_find.argtypes, library.sqlite3_vfs_find.restype = [c_char_p], c_void_p
        library.sqlite3_vfs_register.argtypes = [c_void_p, c_int]
    except AttributeError:
        same = False
    if not same:
        raise CannotWatch(
            f"the functions of the SQLite in {place or 'this interpreter'} cannot be reached; run"
            " these tests with a Python whose sqlite3 module is linked with a shared libsqlite3"
        )
    return library


class _Vfs(ctypes.Structure):
    """``sqlite3_vfs``, version 3."""

    _fields_ = [
        ("version", c_int),
        ("file_size", c_int),
        ("longest_path", c_int),
        ("next", c_void_p),
        ("name", c_char_p),
        ("app_data", c_void_p),
        ("open", c_void_p),
        ("delete", c_void_p),
        *((name, c_void_p) for name in ("access", "full_path", "dl_open", "dl_error", "dl_sym")),
        *((name, c_void_p) for name in ("dl_close", "randomness", "sleep", "time", "last_error")),
        ("time64", c_void_p),
        ("set_system_call", c_void_p),
        ("get_system_call", c_void_p),
        ("next_system_call", c_void_p),
    ]


class _Methods(ctypes.Structure):
    """``sqlite3_io_methods``; of version 2 as far as it is used, so that nothing is mapped."""

    _fields_ = [
        ("version", c_int),
        *((name, c_void_p) for name in ("close", "read", "write", "truncate", "sync")),
        *((f"other{index}", c_void_p) for index in range(11)),
    ]


_OPEN = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, c_void_p)
_DELETE = ctypes.CFUNCTYPE(c_int, c_void_p, c_char_p, c_int)
_CLOSE = ctypes.CFUNCTYPE(c_int, c_void_p)
_BYTES = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
_TRUNCATE = ctypes.CFUNCTYPE(c_int, c_void_p, c_int64)
_SYNC = ctypes.CFUNCTYPE(c_int, c_void_p, c_int)
_DIRECTORY = ctypes.CFUNCTYPE(c_int, c_char_p, c_void_p)
_SET_CALL = ctypes.CFUNCTYPE(c_int, c_void_p, c_char_p, c_void_p)
_GET_CALL = ctypes.CFUNCTYPE(c_void_p, c_void_p, c_char_p)


@dataclass(frozen=True, slots=True)
class _Honest:
    """The functions that really do something to a file."""

    close: Callable[..., int]
    read: Callable[..., int]
    write: Callable[..., int]
    truncate: Callable[..., int]
    sync: Callable[..., int]


class _Shim:
    """The copied table. It lives as long as the process: connections may outlive their watch."""

    def __init__(self) -> None:
        self.watch: Watch | None = None
        self.defects: list[BaseException] = []
        self._library = _library()
        self._default = self._library.sqlite3_vfs_find(None)
        real = _Vfs.from_address(self._default)
        self._open: Callable[..., int] = _OPEN(real.open)
        self._delete: Callable[..., int] = _DELETE(real.delete)
        self._set_call = _SET_CALL(real.set_system_call)
        get_call = _GET_CALL(real.get_system_call)
        self._open_directory: Callable[..., int] = _DIRECTORY(
            get_call(self._default, _OPEN_DIRECTORY)
        )
        self._files: dict[int, tuple[Path, _Honest]] = {}
        self._tables: dict[int, tuple[_Methods, _Honest]] = {}
        self._directories: list[Path] = []
        self._table = _Vfs.from_buffer_copy(real)
        self._table.name = _NAME
        self._kept: list[Any] = []
        self._table.open = self._keep(_OPEN, self._on_open)
        self._table.delete = self._keep(_DELETE, self._on_delete)
        self._seen_directory = self._keep(_DIRECTORY, self._on_directory)

    def begin(self) -> None:
        self._library.sqlite3_vfs_register(ctypes.addressof(self._table), 1)
        self._set_call(self._default, _OPEN_DIRECTORY, self._seen_directory)

    def end(self) -> None:
        self._set_call(self._default, _OPEN_DIRECTORY, None)
        self._library.sqlite3_vfs_register(self._default, 1)

    def _keep(self, kind: Any, function: Callable[..., int]) -> int:
        """The address of a function that C may call; a defect in it is an error of the disk."""

        def guarded(*arguments: Any) -> int:
            try:
                return function(*arguments)
            except BaseException as defect:  # C cannot be told
                self.defects.append(defect)
                return sqlite3.SQLITE_IOERR

        callback = kind(guarded)
        self._kept.append(callback)
        address = ctypes.cast(callback, c_void_p).value
        assert address is not None
        return address

    def _before(self, kind: Kind, path: Path) -> int:
        return self.watch.before(kind, path) if self.watch is not None else _OK

    def _after(self, result: int, kind: Kind, path: Path, at: int = 0, data: bytes = b"") -> int:
        if result == _OK and self.watch is not None:
            self.watch.after(Operation(kind, path, at, data))
        return result

    def _on_open(self, vfs: int, name: int | None, file: int, flags: int, out: int) -> int:
        if name is None or not flags & (_MAIN_DB | _MAIN_JOURNAL | _WAL):
            return self._open(self._default, name, file, flags, out)
        path = Path(os.fsdecode(ctypes.string_at(name)))
        if error := self._before(Kind.OPEN, path):
            c_void_p.from_address(file).value = None  # there is nothing to close
            return error
        result = self._open(self._default, name, file, flags, out)
        if result == _OK:
            methods = c_void_p.from_address(file)
            table, honest = self._replaced(methods.value or 0)
            methods.value = ctypes.addressof(table)
            self._files[file] = (path, honest)
        return self._after(result, Kind.OPEN, path)

    def _replaced(self, address: int) -> tuple[_Methods, _Honest]:
        if address not in self._tables:
            real = _Methods.from_address(address)
            honest = _Honest(
                _CLOSE(real.close),
                _BYTES(real.read),
                _BYTES(real.write),
                _TRUNCATE(real.truncate),
                _SYNC(real.sync),
            )
            table = _Methods.from_buffer_copy(real)
            table.version = min(real.version, 2)
            table.close = self._keep(_CLOSE, self._on_close)
            table.read = self._keep(_BYTES, self._on_read)
            table.write = self._keep(_BYTES, self._on_write)
            table.truncate = self._keep(_TRUNCATE, self._on_truncate)
            table.sync = self._keep(_SYNC, self._on_sync)
            self._tables[address] = (table, honest)
        return self._tables[address]

    def _on_close(self, file: int) -> int:
        _path, honest = self._files.pop(file)
        return honest.close(file)

    def _on_read(self, file: int, buffer: int, length: int, at: int) -> int:
        path, honest = self._files[file]
        return self._before(Kind.READ, path) or honest.read(file, buffer, length, at)

    def _on_write(self, file: int, buffer: int, length: int, at: int) -> int:
        path, honest = self._files[file]
        if error := self._before(Kind.WRITE, path):
            return error
        result = honest.write(file, buffer, length, at)
        return self._after(result, Kind.WRITE, path, at, ctypes.string_at(buffer, length))

    def _on_truncate(self, file: int, size: int) -> int:
        path, honest = self._files[file]
        if error := self._before(Kind.TRUNCATE, path):
            return error
        return self._after(honest.truncate(file, size), Kind.TRUNCATE, path, size)

    def _on_sync(self, file: int, flags: int) -> int:
        path, honest = self._files[file]
        if error := self._before(Kind.SYNC, path):
            return error
        result = self._after(honest.sync(file, flags), Kind.SYNC, path)
        return self._with_directories(result)

    def _on_delete(self, vfs: int, name: bytes, sync: int) -> int:
        path = Path(os.fsdecode(name))
        if error := self._before(Kind.DELETE, path):
            return error
        result = self._after(self._delete(self._default, name, sync), Kind.DELETE, path)
        return self._with_directories(result)

    def _on_directory(self, name: bytes, descriptor: int) -> int:
        """SQLite opens the directory of a file for nothing but to sync it, right afterwards."""
        self._directories.append(Path(os.fsdecode(name)).parent)
        return self._open_directory(name, descriptor)

    def _with_directories(self, result: int) -> int:
        while self._directories:
            self._after(result, Kind.SYNC_DIRECTORY, self._directories.pop())
        return result


@cache
def _shim() -> _Shim:
    return _Shim()
