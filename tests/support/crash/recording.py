"""What one store did to its disk while it served, and what it had promised at each moment.

A ``Recorder`` keeps the operations of one folder, in order, and puts marks between them: a commit
is done, a caller hears the answer to a command of a commit, a client hears OK. It also keeps which
contents the store had after each commit, as a digest over all pages. ``points`` walks along the
recording and builds the disk as it was at chosen operations.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any, TypeAlias, TypeVar

from rxoutflow_server.domain.errors import Unavailable
from rxoutflow_server.storage.sqlite import SqliteStore
from support.crash.disk import Disk, Image
from support.crash.vfs import Kind, Operation
from support.invariants import Answer

T = TypeVar("T")

_ENDS = (Kind.SYNC, Kind.TRUNCATE, Kind.DELETE, Kind.SYNC_DIRECTORY)

Contents: TypeAlias = dict[bytes, tuple[int, int]]
"""The first and the last commit that left these contents, by their digest."""


@dataclass(frozen=True, slots=True)
class Committed:
    """A commit has returned to the store: so many are done."""

    commits: int


@dataclass(frozen=True, slots=True)
class Answered:
    """Somebody has heard the answer to a command of this commit, counted from one."""

    commit: int


@dataclass(frozen=True, slots=True)
class Heard:
    """A client has heard OK."""

    answer: Answer


Event: TypeAlias = Operation | Committed | Answered | Heard


@dataclass
class Recording:
    """All that happened on a disk which began like this."""

    name: str
    start: Disk
    events: list[Event] = field(default_factory=list)
    contents: Contents = field(default_factory=dict)
    committed: int = 0
    answered: int = 0
    heard: tuple[Answer, ...] = ()
    """What was promised before it began."""

    @property
    def newest_answer(self) -> int:
        """The last commit of which anybody has heard."""
        marks = [each.commit for each in self.events if isinstance(each, Answered)]
        return max([self.answered, *marks])

    @property
    def operations(self) -> int:
        """How many operations there were."""
        return sum(isinstance(each, Operation) for each in self.events)


@dataclass
class Point:
    """A moment: after so many operations, the disk is this, and so much was promised."""

    recording: Recording
    operation: int
    disk: Disk
    committed: int
    answered: int
    heard: list[Answer]
    interrupted: bool = False
    """Whether a commit has failed, so that nobody knows whether it was made."""


def points(recording: Recording, chosen: set[int]) -> Iterator[Point]:
    """The moments after the chosen operations, which are counted from one."""
    disk, heard = recording.start.copy(), list(recording.heard)
    committed, answered, done = recording.committed, recording.answered, 0
    for event in recording.events:
        match event:
            case Operation():
                if done in chosen:  # with the marks that follow it
                    yield Point(recording, done, disk, committed, answered, heard)
                disk.apply(event)
                done += 1
            case Committed(commits):
                committed = commits
            case Answered(commit):
                answered = max(answered, commit)
            case Heard(answer):
                heard.append(answer)
    if done in chosen:
        yield Point(recording, done, disk, committed, answered, heard)


def spread(recording: Recording, number: int, choice: Random) -> set[int]:
    """So many moments of a recording.

    Half of them, if there are so many, are where a cut is most likely to show something: when an
    answer has just been heard, and on both sides of what is no mere write.
    """
    likely, done = set[int](), 0
    for event in recording.events:
        match event:
            case Answered():
                likely.add(done)
            case Operation():
                likely |= {done, done + 1} if event.kind in _ENDS else set()
                done += 1
    chosen = set(choice.sample(sorted(likely), min(len(likely), number // 2)))
    rest = sorted(set(range(done + 1)) - chosen)
    return chosen | set(choice.sample(rest, min(len(rest), number - len(chosen))))


def just_answered(recording: Recording) -> set[int]:
    """The moments at which answers have just been heard."""
    found, done = set[int](), 0
    for event in recording.events:
        if isinstance(event, Answered):
            found.add(done)
        done += isinstance(event, Operation)
    return found


class Recorder:
    """Records one store in a folder of its own. It is what ``watching`` takes."""

    def __init__(self, folder: Path, killed: Point | None = None) -> None:
        """The files of the folder are all synced; or they are what a killed process left there."""
        self.folder = folder
        self.commits = self.waiting = 0
        if killed is None:
            image: Image = {each.name: each.read_bytes() for each in folder.iterdir()}
            self.recording = Recording(folder.name, Disk(image))
        else:
            before = killed.recording
            self.recording = Recording(
                folder.name, killed.disk.copy(), contents=dict(before.contents)
            )
            self.recording.committed = killed.committed
            self.recording.answered = killed.answered
            self.recording.heard = tuple(killed.heard)

    @property
    def path(self) -> Path:
        """The database."""
        return self.folder / DATABASE

    def before(self, _kind: Kind, _path: Path) -> int:
        """Nothing fails."""
        return 0

    def after(self, operation: Operation) -> None:
        """Keep what belongs to this folder."""
        if self.folder in (operation.path, operation.path.parent):
            self.recording.events.append(operation)

    def opened(self) -> None:
        """The store is open: these are its contents before the next commit."""
        _first, self.commits = self.recording.contents.setdefault(digest_of(self.path), (0, 0))
        self.recording.events.append(Committed(self.commits))

    def committed(self, _commands: int) -> None:
        """A hook for ``on_commit``."""
        self.commits += 1
        found = digest_of(self.path)
        first, _last = self.recording.contents.get(found, (self.commits, 0))
        self.recording.contents[found] = (first, self.commits)
        self.recording.events.append(Committed(self.commits))

    def heard(self, answer: Answer) -> None:
        """A client has heard OK."""
        self.recording.events.append(Heard(answer))

    def transacting(self, store: SqliteStore[Any]) -> Callable[[Callable[[Any], T]], Awaitable[T]]:
        """The store's ``transact``, with a mark where it returns."""

        async def transact(command: Callable[[Any], T]) -> T:
            commit = 0

            def counted(tx: Any) -> T:
                nonlocal commit
                commit = self.commits + 1
                return command(tx)

            self.waiting += 1
            try:
                return await self._marked(store.transact(counted), lambda: commit)
            finally:
                self.waiting -= 1

        return transact

    def reading(self, store: SqliteStore[Any]) -> Callable[[Callable[[Any], T]], Awaitable[T]]:
        """The store's ``read``, with a mark where it returns: what was seen is promised."""

        async def read(query: Callable[[Any], T]) -> T:
            seen = self.commits
            return await self._marked(store.read(query), lambda: seen)

        return read

    async def _marked(self, asked: Awaitable[T], commit: Callable[[], int]) -> T:
        """The answer, with a mark; a refusal is one too, but not that nothing is known."""
        try:
            answer = await asked
        except Unavailable:
            raise
        except Exception:
            self.recording.events.append(Answered(commit()))
            raise
        self.recording.events.append(Answered(commit()))
        return answer


DATABASE = "platform.db"


def digest_of(path: Path) -> bytes:
    """The digest of all pages as a reader sees them now."""
    # A reader beside the store, past any watch; as a last one it would checkpoint, were it closed
    # after the store.
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro&vfs=unix", uri=True)
    try:
        return digest(connection)
    finally:
        connection.close()


def digest(connection: sqlite3.Connection) -> bytes:
    """The digest of all pages as this connection sees them."""
    return sha256(connection.serialize()).digest()


__all__ = [
    "DATABASE",
    "Answered",
    "Committed",
    "Contents",
    "Event",
    "Heard",
    "Point",
    "Recorder",
    "Recording",
    "digest",
    "digest_of",
    "just_answered",
    "points",
    "spread",
]
