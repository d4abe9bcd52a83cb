"""Makes a store large: the rows of a few real prescriptions, multiplied with new numbers in bulk.

Works on the file of a platform that is stopped. Every row that belongs to a template prescription,
or to its insured person, is copied with another number, other ids, other digests, other trace codes
and an earlier time, so that keys and references stay valid; the log grows over all of it, with
right hashes. The bytes of a statement are those of the template with the new number put in: their
signatures and digests are not those of a real one, so such a store serves for measuring, never for
an audit.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from rxoutflow.log.merkle import covering, leaf_hash, node_hash
from rxoutflow.log.receipts import leaf_data
from rxoutflow.numbers import PrescriptionNumber
from rxoutflow_server.storage.tables.values import instant

BATCH = 5000
STEP_MS = 100
"""Time between one prescription and the next: ten a second."""

PRESCRIPTIONS_OF_A_PERSON = 10
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_KEPT_TIMES = {"expire_time", "lease_expire_time"}
_OF_PERSON = ("insured_persons", "account_openings", "benefit_openings")
_NEW = """
CREATE TEMP TABLE new (
    place INTEGER PRIMARY KEY, number TEXT, head TEXT, seed BLOB, back INTEGER, person TEXT
)
"""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A leaf of a template: the end of its digest, its type, and when it was kept."""

    tail: bytes
    payload_type: str
    time: int


class Template:
    """A real prescription whose rows are copied."""

    def __init__(self, connection: sqlite3.Connection, number: str) -> None:
        self.number = number
        ((self.person,),) = connection.execute(
            "SELECT insured_person_id FROM prescriptions WHERE prescription_number = ?", (number,)
        )
        settlements = connection.execute(
            "SELECT settlement_id FROM settlements WHERE prescription_number = ?", (number,)
        )
        self.ids = {number, *(each for (each,) in settlements)}
        self.copies: list[tuple[str, list[Any]]] = []
        self.notices: list[tuple[str, list[Any]]] = []
        for table in _tables(connection):
            self._read(connection, table)
        rows = connection.execute(
            "SELECT statement_sha256, payload_type, keep_time FROM log_leaves"
            " WHERE prescription_number = ? ORDER BY leaf_index",
            (number,),
        )
        self.leaves = [Leaf(digest[24:], kind, time) for digest, kind, time in rows]

    def _read(self, connection: sqlite3.Connection, table: str) -> None:
        cursor = connection.execute(f"SELECT * FROM {table}")  # noqa: S608 - names of tables
        columns = [each[0] for each in cursor.description]
        rows = [row for row in cursor if not self.ids.isdisjoint(map(_hashable, row))]
        if table in _OF_PERSON:
            cursor.execute(f"SELECT * FROM {table}")  # noqa: S608 - as above
            rows = [row for row in cursor if row[0] == self.person]
        for row in rows if table != "log_leaves" else ():
            copy = self._copy(table, columns, row)
            (self.notices if table == "notices" else self.copies).append(copy)

    def _copy(
        self, table: str, columns: Sequence[str], row: Sequence[Any]
    ) -> tuple[str, list[Any]]:
        """The statement that copies a row for everything in ``new``."""
        made = [self._value(table, *pair) for pair in zip(columns, row, strict=True)]
        values = [value for _, each in made for value in each]
        where = f" WHERE place % {PRESCRIPTIONS_OF_A_PERSON} = 0" if table in _OF_PERSON else ""
        sql = (
            f"INSERT INTO {table} ({', '.join(columns)})"  # noqa: S608 - names from the schema
            f" SELECT {', '.join(each for each, _ in made)} FROM new{where} ORDER BY place"
        )
        return sql, values

    def _value(self, table: str, column: str, value: Any) -> tuple[str, list[Any]]:
        """What stands in a column of a copy: an expression over ``new``, and its parameters."""
        if column.endswith("_time") or column in ("time", "since"):
            back = isinstance(value, int) and column not in _KEPT_TIMES
            return ("? - new.back", [value]) if back else ("?", [value])
        if isinstance(value, bytes):
            return self._bytes(value)
        if column == "sequence" and table == "notices":
            return "? + row_number() OVER (ORDER BY place)", [value]
        if not isinstance(value, str):
            return "?", [value]
        if column == "institution_code":
            return "?", [value]
        if column == "code":
            return "printf('%020d', abs(random()))", []
        if column == "hospital_prescription_number":
            return "'BENCH-' || new.number", []
        if value == self.person:
            return "new.person", []
        if _UUID.fullmatch(value):
            return "new.head || ?", [value[-12:]]
        return ("replace(?, ?, new.number)", [value, self.number])

    def _bytes(self, value: bytes) -> tuple[str, list[Any]]:
        if len(value) == 32:
            return "CAST(new.seed || ? AS BLOB)", [value[24:]]
        number = self.number.encode()
        if number not in value:
            return "?", [value]
        return "CAST(replace(?, ?, new.number) AS BLOB)", [value, self.number]


class Filler:
    """Fills the store of a stopped platform.

    Args:
        store: its file.
        registered: the number of a prescription that was only registered.
        exchanged: the number of one that was dispensed and paid.
        percent_exchanged: how many of a hundred copies are of the latter.
        most: how many prescriptions there will ever be, so that all of them are of the past.
    """

    def __init__(
        self, store: Path, registered: str, exchanged: str, percent_exchanged: int, most: int
    ) -> None:
        self._store, self._percent = store, percent_exchanged
        with closing(sqlite3.connect(store)) as connection:
            self._registered = Template(connection, registered)
            self._exchanged = Template(connection, exchanged)
        self._first = PrescriptionNumber.parse(registered)
        self._most = most
        self.filled = 0

    def fill(self, count: int) -> None:
        """Let there be so many prescriptions."""
        with closing(sqlite3.connect(self._store, isolation_level=None)) as connection:
            for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -1000000"):
                connection.execute(f"PRAGMA {pragma}")
            connection.execute(_NEW)
            tree = Tree(connection)
            while self.filled < count:
                self._batch(connection, tree, min(BATCH, count - self.filled))
            connection.execute("PRAGMA journal_mode = WAL")

    def _batch(self, connection: sqlite3.Connection, tree: Tree, count: int) -> None:
        middle = self.filled + count * self._percent // 100
        end = self.filled + count
        connection.execute("BEGIN")
        for template, places in (
            (self._exchanged, range(self.filled, middle)),
            (self._registered, range(middle, end)),
        ):
            self._multiply(connection, tree, template, places)
        connection.execute("COMMIT")
        self.filled = end

    def _multiply(
        self, connection: sqlite3.Connection, tree: Tree, template: Template, places: range
    ) -> None:
        if not places:
            return
        connection.execute("DELETE FROM new")
        new = [self._new(place) for place in places]
        connection.executemany("INSERT INTO new VALUES (?, ?, ?, ?, ?, ?)", new)
        for sql, values in template.copies:
            connection.execute(sql, values)
        for sql, values in template.notices:
            _notify(connection, sql, values)
        leaves = (
            (number, seed + leaf.tail, leaf.payload_type, leaf.time - back)
            for _, number, _, seed, back, _ in new
            for leaf in template.leaves
        )
        tree.grow(leaves)

    def _new(self, place: int) -> tuple[int, str, str, bytes, int, str]:
        back_ms = (self._most - place) * STEP_MS
        first = self._first
        milliseconds = first.milliseconds - back_ms
        random = f"{place % 10**5:05}"
        number = str(
            PrescriptionNumber(first.region_code, milliseconds, first.institution_serial, random)
        )
        seed = sha256(number.encode()).digest()[:24]
        digits = f"{milliseconds:012x}"
        head = f"{digits[:8]}-{digits[8:]}-7{seed.hex()[:3]}-8{seed.hex()[3:6]}-"
        person = f"FILL{place // PRESCRIPTIONS_OF_A_PERSON:08}"
        return place, number, head, seed, back_ms * 1000, person


class Tree:
    """The log's tree while it grows by rows that are written past the platform."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        ((self._size,),) = connection.execute(
            "SELECT COALESCE(MAX(leaf_index) + 1, 0) FROM log_leaves"
        )
        self._edge = [self._hash(level, place) for level, place in covering(0, self._size)]

    def grow(self, leaves: Iterator[tuple[str, bytes, str, int]]) -> None:
        """Append leaves: number, digest, payload type, and time in microseconds."""
        self._connection.executemany(
            "INSERT INTO log_leaves (leaf_index, prescription_number, statement_sha256,"
            " payload_type, keep_time, hashes) VALUES (?, ?, ?, ?, ?, ?)",
            (self._placed(*leaf) for leaf in leaves),
        )

    def _placed(
        self, number: str, digest: bytes, payload_type: str, time: int
    ) -> tuple[int, str, bytes, str, int, bytes]:
        index = self._size
        completed = [leaf_hash(leaf_data(digest, payload_type, instant(time)))]
        while index >> (len(completed) - 1) & 1:
            completed.append(node_hash(self._edge.pop(), completed[-1]))
        self._edge.append(completed[-1])
        self._size += 1
        return index, number, digest, payload_type, time, b"".join(completed)

    def _hash(self, level: int, place: int) -> bytes:
        end = ((place + 1) << level) - 1
        ((hashes,),) = self._connection.execute(
            "SELECT hashes FROM log_leaves WHERE leaf_index = ?", (end,)
        )
        return bytes(hashes[level * 32 : (level + 1) * 32])


def _notify(connection: sqlite3.Connection, sql: str, values: list[Any]) -> None:
    """Copy a notice; its counter goes on from the institution's last."""
    institution = values[0]
    ((last,),) = connection.execute(
        "SELECT sequence FROM notice_counters WHERE institution_code = ?", (institution,)
    )
    added = connection.execute(sql, [institution, last, *values[2:]]).rowcount
    connection.execute(
        "UPDATE notice_counters SET sequence = sequence + ? WHERE institution_code = ?",
        (added, institution),
    )


def _tables(connection: sqlite3.Connection) -> list[str]:
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    return [name for (name,) in rows if not name.startswith(("sqlite_", "_sqlite"))]


def _hashable(value: Any) -> Any:
    return value if isinstance(value, str) else None
