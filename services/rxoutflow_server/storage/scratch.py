"""An empty store in memory to compute state in: the same tables, filled and emptied again."""

from __future__ import annotations

from types import TracebackType

from rxoutflow_server.storage.memory import MemoryStore
from rxoutflow_server.storage.tables.recorded import RecordedTables, Table
from rxoutflow_server.storage.tables.transaction import PlatformTables

_HOME = (
    "prescription_numbers",
    "prescriptions",
    "prescription_lines",
    "attempts",
    "booked_returns",
)
_PAYER = (
    "insured_persons",
    "scheme_accumulators",
    "settlements",
    "reversals",
    "account_entries",
)
_NOTED = ("prescription_index", "attempt_ends")
_BESIDE = ("account_openings", "benefit_openings", "statements")
"""Written with the others, and not compared: they are evidence themselves, or found otherwise."""


class Scratch:
    """Where state is computed."""

    def __init__(self) -> None:
        self._store = MemoryStore.open("platform")
        connection = self._store.connection
        connection.execute("PRAGMA foreign_keys = OFF")  # emptied in any order
        self.tables = PlatformTables(connection)
        self.recorded = RecordedTables(connection)
        self.home = tuple(self._table(name, "prescription_number") for name in _HOME)
        self.payer = tuple(self._table(name, "insured_person_id") for name in _PAYER)
        self.noted = tuple(self._table(name, "insured_person_id") for name in _NOTED)
        self.books = (self._table("ledger_entries", "prescription_number", "book = 'payable'"),)
        self.sales = (
            self._table("ledger_entries", "prescription_number", "book <> 'payable'"),
            self._table("agreement_uses", "prescription_number"),
        )
        self.hospital_numbers = self._table("hospital_numbers", "prescription_number")

    def __enter__(self) -> Scratch:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._store.connection.close()

    @property
    def compared(self) -> tuple[Table, ...]:
        """Every table whose rows follow from the evidence, or a part of one."""
        of_each = (*self.home, *self.payer, *self.noted, *self.books, *self.sales)
        return (*of_each, self.hospital_numbers)

    def clear(self) -> None:
        """Forget what was computed."""
        beside = [self._table(name, "") for name in _BESIDE]
        for table in (*self.compared, *beside):
            self.recorded.forget(table)

    def _table(self, name: str, shard: str, only: str = "") -> Table:
        info = self._store.connection.execute(f"PRAGMA table_info({name})").fetchall()
        columns = tuple(column for _, column, *_ in info)
        key = [(position, column) for _, column, *_, position in info if position]
        return Table(name, shard, columns, tuple(column for _, column in sorted(key)), only)
