"""Whether a store that comes back from a power cut still holds what was promised.

An image is opened as a service opens its store. Its contents, over all pages, must be those that
some commit left: no earlier one than the last of which anybody heard, and no later one than the
one under way. So nothing answered is lost, and nothing is half there. Contents that were not met
before are then looked at for themselves: SQLite finds no fault in them, they keep the invariants,
every answer and receipt is true of them, and who asks again hears the same once more.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest

from rxoutflow.v1.hospital_service_pb2 import RegisterPrescriptionRequest
from rxoutflow.v1.prescription_pb2 import Prescription
from rxoutflow_server.storage.errors import StoreError
from rxoutflow_server.storage.sqlite import SqliteStore
from support.crash.disk import Cut, Image, write
from support.crash.recording import DATABASE, Point, digest
from support.crash.site import open_store
from support.invariants import (
    Answer,
    RegionRecords,
    check_durable,
    check_receipts,
    check_region,
    check_same_answers,
    read_region,
)
from support.invariants.violation import Violation, hold
from support.premises import Call, Premises

ASKED_AGAIN = 3
"""How many of the newest answers are asked for again, of all contents that are met."""


@dataclass
class Judge:
    """Judges images of one server's store."""

    premises: Premises
    name: str
    folder: Path
    """Where images are put, one after the other."""
    kept: Path
    """Where the one goes that does not hold what was promised."""
    calls: dict[str, Call] = field(default_factory=dict)
    """The requests that were made, by their id."""
    rows_when_empty: str = ""
    """All rows of a store in which nothing has happened yet."""
    images: int = 0
    _records: dict[bytes, RegionRecords] = field(default_factory=dict)
    _heard: set[tuple[bytes, int]] = field(default_factory=set)
    _sound: set[bytes] = field(default_factory=set)

    async def judge(self, point: Point, cut: Cut, choice: Random) -> None:
        """Cut the power here.

        Raises:
            Violation: something that was promised does not hold.
        """
        self.images += 1
        image = point.disk.image(cut, choice)
        try:
            await self._open(point, f"operation {point.operation}, {cut}", image, choice)
        except Violation as violation:
            self.kept.mkdir()
            write(image, self.kept)
            violation.add_note(f"the image is kept in {self.kept}")
            raise

    async def _open(self, point: Point, what: str, image: Image, choice: Random) -> None:
        where = f"{self.name}: power cut after {what}"
        self._put(image, choice)
        try:
            store = open_store(self.premises, self.name, self.folder / DATABASE)
        except StoreError as error:
            hold("I7", False, f"{where}: {error}")
            return
        async with store:
            await self._judge(store, point, where)

    async def _judge(self, store: SqliteStore[Any], point: Point, where: str) -> None:
        with closing(sqlite3.connect(self.folder / DATABASE)) as reader:
            found = digest(reader)
            commits = point.recording.contents.get(found)
            if commits is None and point.interrupted:
                commits = point.committed + 1, point.committed + 1
            if commits is None:
                empty = self._is_empty(reader, point)
                hold("I7", empty, f"{where}: it holds what no commit left")
                return
            first, last = commits
            lost = f"{where}: it is at commit {last}, of {point.answered} somebody has heard"
            hold("I7", last >= point.answered, lost)
            ahead = f"{where}: it is at commit {first}, before {point.committed} was made"
            hold("I7", first <= point.committed + 1, ahead)
            self._look_at(found, reader)
        if self.name in self.premises.world.platforms:
            await self._ask(found, point, store)

    def _is_empty(self, reader: sqlite3.Connection, point: Point) -> bool:
        """Whether the schema was only now made, or finished; nobody had heard anything then."""
        return not point.answered and rows(reader) == self.rows_when_empty

    def _look_at(self, found: bytes, reader: sqlite3.Connection) -> None:
        if found in self._sound:
            return
        self._sound.add(found)
        faults = reader.execute("PRAGMA integrity_check").fetchall()
        hold("I7", faults == [("ok",)], f"{self.name}: {faults}")
        orphans = reader.execute("PRAGMA foreign_key_check").fetchall()
        hold("I7", orphans == [], f"{self.name}: {orphans}")
        if self.name in self.premises.world.platforms:
            records = self._records[found] = read_region(self.name, reader)
            check_region(records)
            check_whole(records, self.calls.values())

    async def _ask(self, found: bytes, point: Point, store: SqliteStore[Any]) -> None:
        """What was heard is there, and heard once more."""
        if (found, len(point.heard)) in self._heard:
            return
        self._heard.add((found, len(point.heard)))
        records = self._records[found]
        check_durable(point.heard, records)
        check_receipts(point.heard, records)
        again = [await self._again(each, store) for each in point.heard[-ASKED_AGAIN:]]
        check_same_answers([*point.heard, *again])
        check_receipts(again, records)
        with closing(sqlite3.connect(self.folder / DATABASE)) as reader:
            hold("I8", digest(reader) == found, f"{self.name}: asking again has changed something")

    async def _again(self, answer: Answer, store: SqliteStore[Any]) -> Answer:
        call, kept = self.calls[answer.request_id], self.premises.stores[self.name]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kept, "transact", store.transact)
            patch.setattr(kept, "read", store.read)
            reply = await self.premises.make(call)
        same = reply.response is not None
        hold("I8", same, f"{self.name}: {call.name} was OK, asked again it is {reply.reason}")
        assert reply.response is not None
        return Answer.of(
            answer.region,
            answer.prescription_number,
            answer.caller,
            answer.method,
            call.request,
            reply.response,
        )

    def _put(self, image: Image, choice: Random) -> None:
        for old in self.folder.iterdir():
            old.unlink()
        write(image, self.folder)
        if choice.random() < 0.25:  # shared memory is no part of the disk, but its file is
            (self.folder / f"{DATABASE}-shm").write_bytes(choice.randbytes(32 * 1024))


def check_whole(records: RegionRecords, calls: Iterable[Call]) -> None:
    """A registration is there with all that belongs to it, or not at all.

    The prescription, its signed sheet, the leaf of the log, the answer, the fact for the payer.
    """
    prescriptions = {each.number: each for each in records.prescriptions}
    logged = {each.prescription_number for each in records.leaves}
    for call in calls:
        if not isinstance(call.request, RegisterPrescriptionRequest) or call.door != records.code:
            continue
        sheet = Prescription.FromString(call.request.prescription.payload)
        number, payer = sheet.prescription_number, sheet.patient.payer_region_code
        told = {
            each.peer_region_code for each in records.outbox if each.prescription_number == number
        }
        there = {
            "prescription": number in prescriptions,
            "sheet": any(key == number for key, _ in records.statements),
            "leaf": number in logged,
            "answer": (number, str(call.caller), call.request.request_id) in records.outcomes,
            "fact for the payer": payer in told,
        }
        some = [name for name, is_there in there.items() if is_there]
        hold("I7", len(some) in (0, len(there)), f"of {number} there are only {some}")


def rows(reader: sqlite3.Connection) -> str:
    """All rows and the schema, but for the notes about migrations.

    Those have times; and whoever makes them adds an index in a transaction of its own, which is
    not made up for after a power cut. Nothing rests on it: one process migrates at a time.
    """
    schema = reader.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()
    names = [(name, sql) for name, sql in schema if "migrations" not in name]
    found = [
        sorted(map(repr, reader.execute(f'SELECT * FROM "{name}"')))  # noqa: S608 - our schema
        for name, sql in names
        if sql and sql.startswith("CREATE TABLE")
    ]
    return repr((names, found))
