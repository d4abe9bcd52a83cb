"""The folder of trust lists: what is put there counts without a restart, what was fetched stays.

A list is offered to the trust store whenever its file changes. The store refuses what is not
authentic or is older than what it holds; the refusal is logged, and the list held stays in force.
A list that came from elsewhere is written here, so that a restart accepts no older one.

Files are only ever replaced as a whole, by one process at a time, and never by an older list:
several servers may share a folder. Reading and verifying happen in threads, because the list of a
large region takes a second.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

import structlog

from rxoutflow.trust import (
    SUFFIX,
    Offer,
    TrustListRefused,
    TrustListRollback,
    TrustStore,
    read_trust_list,
)
from rxoutflow.v1.statement_pb2 import SignedStatement

log = structlog.get_logger()

_Stamp = tuple[int, int, int]


class TrustFolder:
    """Watches and fills a folder of trust lists for a trust store that was loaded from it."""

    def __init__(self, folder: Path, trust: TrustStore, now: Callable[[], datetime]) -> None:
        self._folder = folder
        self._trust = trust
        self._now = now
        self._seen = self._stamps()

    async def offer_changed(self) -> None:
        """Offer every list whose file has changed since the last look."""
        stamps = self._stamps()
        for path, stamp in stamps.items():
            if self._seen.get(path) != stamp:
                await asyncio.to_thread(self._offer_file, path)
        self._seen = stamps

    async def offer(self, statement: SignedStatement, region_code: str) -> Offer | None:
        """Offer a region's list that was fetched, and keep it if it is accepted.

        Returns nothing if it is refused, which is logged.
        """
        return await asyncio.to_thread(self._take, statement, region_code)

    def _take(self, statement: SignedStatement, region_code: str) -> Offer | None:
        offer = self._judge(statement, region_code)
        if offer is Offer.ACCEPTED:
            self._keep(region_code)
        return offer

    def _offer_file(self, path: Path) -> None:
        try:
            statement = read_trust_list(path.read_bytes())
        except (TrustListRefused, OSError) as error:
            log.warning("trust_list_refused", file=str(path), exception=type(error).__name__)
            return
        if not self._is_held(statement, path.stem):
            self._judge(statement, path.stem)

    def _judge(self, statement: SignedStatement, region_code: str) -> Offer | None:
        """What the store says of a list, with a line in the log."""
        try:
            offer = self._trust.offer(statement, self._now(), region_code=region_code)
        except TrustListRollback as error:
            log_rollback(region_code, error.sequence, error.held_sequence)
            return None
        except TrustListRefused as error:
            log.warning("trust_list_refused", region=region_code, exception=type(error).__name__)
            return None
        if offer is Offer.ACCEPTED:
            held = self._trust.held(region_code)
            log.info("trust_list_accepted", region=region_code, sequence=held and held.sequence)
        return offer

    def _keep(self, region_code: str) -> None:
        path = self._folder / f"{region_code}{SUFFIX}"
        try:
            with alone_in(self._folder):
                self._replace(path, region_code)
        except OSError as error:
            log.warning("trust_list_not_kept", region=region_code, exception=type(error).__name__)

    def _replace(self, path: Path, region_code: str) -> None:
        """Bring the file up to what the store holds, or the store to a file that is newer."""
        with suppress(TrustListRefused, FileNotFoundError):
            present = read_trust_list(path.read_bytes())
            if not self._is_held(present, region_code):
                self._trust.offer(present, self._now(), region_code=region_code)
            if self._is_held(present, region_code):
                return
        held = self._trust.statement(region_code)
        if held is not None:
            write_whole(path, held.SerializeToString())

    def _is_held(self, statement: SignedStatement, region_code: str) -> bool:
        """Whether the store holds the very list, so that nothing needs to be verified."""
        held = self._trust.statement(region_code)
        return held is not None and held.payload == statement.payload

    def _stamps(self) -> dict[Path, _Stamp]:
        stamps = {}
        for path in self._folder.glob(f"*{SUFFIX}"):
            with suppress(FileNotFoundError):
                status = path.stat()
                stamps[path] = (status.st_ino, status.st_mtime_ns, status.st_size)
        return stamps


def log_rollback(region_code: str, sequence: int, held_sequence: int) -> None:
    """Tell that somebody offered a list older than the one held: an attack, or an old backup."""
    log.error(
        "trust_list_rollback", region=region_code, sequence=sequence, held_sequence=held_sequence
    )


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes that replace lists out of a folder for a moment.

    Raises:
        OSError: the folder cannot be opened.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file as a whole, durably: after any crash there is the old content or the new.

    Raises:
        OSError: it cannot be written; the old content is still there.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    try:
        with temporary.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
