"""Where a platform keeps its records, and how its service and its reports open that place.

A file, or a schema of a PostgreSQL database; above this module nobody knows which. The driver of
PostgreSQL is an extra, so it is imported only where a database is named.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import structlog

from rxoutflow_server.application.ports import Reader, Store, Transaction
from rxoutflow_server.storage.errors import StoreError, StoreInUse
from rxoutflow_server.storage.sqlite import SqliteStore
from rxoutflow_server.storage.sqlite.reports import reading_platform as reading_file

if TYPE_CHECKING:
    from rxoutflow_server.storage.postgres import PostgresStore


@dataclass(frozen=True, slots=True)
class Database:
    """A schema of a PostgreSQL database.

    ``address`` is a connection string of libpq without a password: that belongs into a password
    file, which libpq finds by ``passfile``.
    """

    address: str
    schema: str
    connections: int
    distributed: bool = False
    """The engine spreads rows over machines by their keys."""


StorePlace: TypeAlias = Path | Database

PATIENCE_SECONDS = 15.0
"""How long a new process waits for the one before it, which may be finishing what it has begun."""

_LOOK_SECONDS = 0.1

log = structlog.get_logger()


def open_platform(
    place: StorePlace,
    *,
    on_failure: Callable[[StoreError], None],
    before_commit: Callable[[Transaction], None],
    with_commit: Callable[[Transaction], Callable[[], None]] | None,
) -> AbstractAsyncContextManager[Store]:
    """Open a platform's store for its service.

    ``on_failure`` and ``before_commit`` are those of a store with one writer. A database goes on
    after a failure, and has many writers: ``with_commit`` is called in each of their transactions,
    and what it returns once that is committed.

    Raises:
        StoreError: it cannot be opened.
    """
    if isinstance(place, Path):
        return SqliteStore.open(
            place, "platform", on_failure=on_failure, before_commit=before_commit
        )
    return _open_database(place, with_commit)


async def open_when_free(
    place: StorePlace,
    *,
    on_failure: Callable[[StoreError], None],
    before_commit: Callable[[Transaction], None],
    with_commit: Callable[[Transaction], Callable[[], None]] | None,
    patience: float = PATIENCE_SECONDS,
) -> AbstractAsyncContextManager[Store]:
    """Open a platform's store as ``open_platform`` does, once the process before has let it go.

    Raises:
        StoreError: it cannot be opened, or another process still has it after ``patience`` seconds.
    """
    loop = asyncio.get_running_loop()
    end, told = loop.time() + patience, False
    while True:
        try:
            return open_platform(
                place, on_failure=on_failure, before_commit=before_commit, with_commit=with_commit
            )
        except StoreInUse:
            if loop.time() >= end:
                raise
        if not told:
            log.warning("store_in_use", remaining_seconds=patience)
            told = True
        await asyncio.sleep(_LOOK_SECONDS)


@contextmanager
def reading_platform(place: StorePlace) -> Iterator[Reader]:
    """A platform's records, for reading only, beside the service that may be running.

    Raises:
        StoreError: there are none, or they are of another kind or release.
    """
    if isinstance(place, Path):
        with reading_file(place) as reader:
            yield reader
    else:
        with _reading_database(place) as reader:
            yield reader


def commits_alone(place: StorePlace) -> bool:
    """Whether one writer commits everything, so that something can be done before each commit."""
    return isinstance(place, Path)


def _open_database(
    place: Database, with_commit: Callable[[Transaction], Callable[[], None]] | None
) -> PostgresStore[Transaction]:
    with driver_needed():
        from rxoutflow_server.storage.postgres import Options, PostgresStore
    return PostgresStore.open(
        place.address,
        "platform",
        schema=place.schema,
        options=Options(place.connections, place.distributed),
        before_commit=with_commit,
    )


def _reading_database(place: Database) -> AbstractContextManager[Reader]:
    with driver_needed():
        from rxoutflow_server.storage.postgres.reports import reading_platform as reading
    return reading(place.address, place.schema)


@contextmanager
def driver_needed() -> Iterator[None]:
    """Say what to install where the driver of PostgreSQL is missing.

    Raises:
        StoreError: it is.
    """
    try:
        yield
    except ImportError:
        raise StoreError(
            "the driver of PostgreSQL is missing; install it: pip install 'rxoutflow[postgres]'"
        ) from None
