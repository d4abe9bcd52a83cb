"""The engines under the contract suite: where each of them keeps its records.

A test that takes ``store``, ``edge`` or ``backend`` (``tests/contract/conftest.py``) runs on all of
them. Add an engine by adding a backend.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from rxoutflow_server.application.edge_ports import EdgeStore
from rxoutflow_server.application.ports import Store
from rxoutflow_server.storage.memory import MemoryStore
from rxoutflow_server.storage.postgres import PostgresStore
from rxoutflow_server.storage.sqlite import SqliteStore
from support.postgres import fresh_schema


class OpenStore(Store, Protocol):
    async def close(self) -> None: ...


class OpenEdgeStore(EdgeStore, Protocol):
    async def close(self) -> None: ...


class Backend(Protocol):
    """An engine with one place for a platform's records and one for an edge's."""

    def platform(self) -> OpenStore: ...

    def edge(self) -> OpenEdgeStore: ...


class Memory:
    """Nothing survives closing, and nothing happens beside anything else."""

    def __init__(self, directory: Path) -> None:
        """There is no place."""

    def platform(self) -> OpenStore:
        return MemoryStore.open("platform")

    def edge(self) -> OpenEdgeStore:
        return MemoryStore.open("edge")


class SqliteFiles:
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def platform(self) -> OpenStore:
        return SqliteStore.open(self._directory / "platform.db", "platform")

    def edge(self) -> OpenEdgeStore:
        return SqliteStore.open(self._directory / "edge.db", "edge")


class PostgresSchemas:
    """Two schemas of a PostgreSQL database, made anew for each test."""

    def __init__(self, directory: Path) -> None:
        self._address = fresh_schema("platform", "edge")

    def platform(self) -> OpenStore:
        return PostgresStore.open(self._address, "platform", schema="platform")

    def edge(self) -> OpenEdgeStore:
        return PostgresStore.open(self._address, "edge", schema="edge")


LASTING: tuple[type[Backend], ...] = (SqliteFiles, PostgresSchemas)
"""Those whose records are there after a restart, and whose queries run beside commands."""

ALL: tuple[type[Backend], ...] = (Memory, *LASTING)
