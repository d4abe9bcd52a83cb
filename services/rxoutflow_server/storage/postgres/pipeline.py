"""Statements on their way to the server: sent at once, their results looked at when needed.

libpq's pipeline mode under the small part of psycopg that wraps it. A statement of which nobody
looks at the result costs no round trip: it leaves with the next one of which somebody does, or with
the commit. Statements keep their order. The first one that fails makes the server skip those behind
it; its error is raised where results are next looked at.

Every statement is prepared once for a connection, parameters and results are binary except for
integers on their way in, and a server that does not answer for ``PATIENCE_S`` is given up.
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import count
from typing import Any, TypeAlias

import psycopg
from psycopg import errors, pq

from rxoutflow_server.storage.known import Known, KnownHere
from rxoutflow_server.storage.postgres.appends import (
    KEEP_WITH_LEAF,
    Append,
    Array,
    BatchWriter,
    Gathered,
    Parameters,
    append_of,
    tables_of,
)
from rxoutflow_server.storage.tables.certificates import KEEP_CERTIFICATE
from rxoutflow_server.storage.tables.connection import (
    Cursor,
    LateCursor,
    Row,
    Value,
    not_the_one,
)

PATIENCE_S = 30.0
"""Longest wait for anything from the server; a lock is waited for no longer than lock_timeout."""

MAX_PREPARED = 1000
"""Most statements prepared on a connection; what is made of marks could be more."""

LOCK = " FOR UPDATE"
"""What is appended to the loads that precede a change."""

_DONE = (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK)
_LOOKS = ("SELECT", "WITH RECURSIVE", "SET LOCAL", "BEGIN", "ROLLBACK", "COMMIT")
_Decoder: TypeAlias = Callable[[bytes], Any]


class Answer(LateCursor):
    """The port ``Cursor``: a result that is waited for when it is first looked at."""

    __slots__ = ("_at", "_pipeline", "_plan", "expected", "result")

    def __init__(self, pipeline: Pipeline, plan: _Plan) -> None:
        self._pipeline = pipeline
        self._plan = plan
        self.result: pq.abc.PGresult | None = None
        self.expected: str | None = None
        self._at = 0

    @property
    def rowcount(self) -> int:
        """How many rows a change touched."""
        return self._known().command_tuples or 0

    def expect_one(self, what: str) -> None:
        """Have the transaction broken before it is committed, unless one row was touched."""
        self.expected = what
        self._pipeline.expects += 1

    @property
    def said(self) -> bytes | None:
        """What the server calls what it did."""
        return self._known().command_status

    @property
    def was_next_to_come(self) -> bool:
        """Whether everything before it was answered, but not it."""
        return self._pipeline.failed is self

    def fetchone(self) -> Row | None:
        """The next row, or None."""
        result = self._known()
        if self._at >= result.ntuples:
            return None
        self._at += 1
        return self._plan.row(result, self._at - 1)

    def fetchall(self) -> list[Row]:
        """All rows that are left."""
        result = self._known()
        begin, self._at = self._at, result.ntuples
        return [self._plan.row(result, at) for at in range(begin, self._at)]

    def _known(self) -> pq.abc.PGresult:
        if self.result is None:
            self._pipeline.catch_up()
        if self.result is None:
            raise psycopg.InterfaceError("the result of a statement of an earlier transaction")
        return self.result


class Pipeline:
    """The port ``Connection`` of the tables, on a connection of psycopg that nobody else uses."""

    def __init__(self, connection: psycopg.Connection, writer: BatchWriter, known: Known) -> None:
        """Put a connection that is idle into pipeline mode, for good."""
        self.gathered = Gathered(writer)
        self.known = KnownHere(known)
        self._certificates: dict[bytes, bytes] = {}
        self._kept: list[Answer] = []
        self._libpq = connection.pgconn
        self._libpq.enter_pipeline_mode()
        self._readable, self._either = select.poll(), select.poll()
        self._readable.register(self._libpq.socket, select.POLLIN)
        self._either.register(self._libpq.socket, select.POLLIN | select.POLLOUT)
        self._plans: dict[str, _Plan] = {}
        self._names = count()
        self._let_go = False
        self.waits_for_rows = True
        """Whether a load waits for a row that somebody else has locked, or fails at once."""
        self.expects = 0
        """How many results on their way are to be looked at before a commit."""
        self._broken: str | None = None
        self.failed: Answer | _Plan | None = None
        """The statement that failed last."""
        self.changes = 0
        """How many statements that may change something were sent, or gathered to be."""
        self._sent: deque[Answer | _Plan] = deque()
        """What is on its way: answers, and the preparation of a plan before its first."""

    def execute(self, sql: str, parameters: Sequence[Value] = (), /) -> Cursor:
        """Run one statement with ``?`` placeholders, now or when it matters."""
        if not self.waits_for_rows and sql.endswith(LOCK):
            sql += " NOWAIT"
        plan = self._plan(sql)
        if plan.append is not None:
            self.gather(plan.append, parameters)
            return ADDED
        if self.gathered and (seen := self.gathered.seen_by(plan.tables, parameters)):
            self.gathered.send(self.send, seen)
        return self.send(sql, parameters)

    def gather(self, append: Append, row: Sequence[Value]) -> None:
        """Keep a row that is sent before the end of the transaction, or before it could be seen."""
        self.changes += 1
        self.gathered.add(append, row)

    def gather_certificate(self, sha256: bytes, certificate: bytes) -> None:
        """Have a certificate kept at the end; nobody here has to ask for it before."""
        self.changes += 1
        self._certificates[sha256] = certificate

    def send_gathered(self) -> None:
        """Send what waits, if anything does, at the end of a transaction.

        Certificates go in one order, and first: of two transactions that keep the same one, the
        second waits for the end of the first, which then must not wait for the second.
        """
        for row in sorted(self._certificates.items()):
            self.send(KEEP_CERTIFICATE, row)
        self._certificates = {}
        if self.gathered:
            self.gathered.send(self.send)

    def make_sure(self) -> None:
        """Wait for what has to be looked at before a commit.

        Raises:
            InvariantBroken: a change did not touch the one row that it was meant for.
            psycopg.Error: of the first statement that failed.
        """
        if self.expects:
            self.catch_up()
        if self._broken is not None:
            raise not_the_one(self._broken)

    def share_known(self) -> None:
        """Have other transactions know what this one does, which is over and not undone."""
        self.known.share(
            [(number, sha256) for kept in self._kept for number, sha256 in kept.fetchall()]
        )

    def begin(self, sql: str) -> None:
        """Begin a transaction, of which nothing is expected yet."""
        self.waits_for_rows = True
        self.gathered.forget()
        self.known.begin()
        self._certificates, self._kept = {}, []
        self.expects, self._broken = 0, None
        self.send(sql)

    def send(self, sql: str, parameters: Parameters = ()) -> Answer:
        """Send one statement."""
        if self._let_go:
            self._let_go = False
            self.pass_over(synced=True)
        plan = self._plan(sql)
        if plan.name is None and not plan.is_once:
            self._prepare(plan)
        values, formats = _encoded(parameters)
        if plan.name is None:
            self._libpq.send_query_params(_numbered(sql), values, None, formats, 1)
        else:
            self._libpq.send_query_prepared(plan.name, values, formats, 1)
        answer = Answer(self, plan)
        self._sent.append(answer)
        self.changes += plan.changes
        if sql is KEEP_WITH_LEAF.sql:
            self._kept.append(answer)
        return answer

    def catch_up(self) -> None:
        """Wait for the results of everything that was sent.

        Raises:
            psycopg.Error: of the first statement that failed; those behind it were not run.
        """
        self._libpq.send_flush_request()
        self._flush()
        while self._sent:
            self._receive()

    def finish(self) -> None:
        """The same, at the end of a transaction: what comes next does not suffer from an error.

        Raises:
            psycopg.Error: likewise.
        """
        self._libpq.pipeline_sync()
        self._flush()
        while self._sent:
            self._receive(synced=True)
        self._drain()

    def let_go(self) -> None:
        """Send everything, and do not wait: nobody needs the results."""
        self._libpq.pipeline_sync()
        self._flush()
        self._let_go = True

    def pass_over(self, *, synced: bool = False) -> None:
        """Wait for everything that was sent, whether it failed or not.

        Raises:
            psycopg.Error: the connection is lost.
        """
        if not synced:
            self._libpq.pipeline_sync()
            self._flush()
        while self._sent:
            try:
                self._receive(synced=True)
            except psycopg.Error:
                if self._libpq.status != pq.ConnStatus.OK:
                    raise
                return
        self._drain()

    def _plan(self, sql: str) -> _Plan:
        plan = self._plans.get(sql)
        if plan is None:
            plan = _Plan(sql)
            if plan.append is not None and not self.gathered.takes(plan.append):
                plan.append = None
            if len(self._plans) < MAX_PREPARED:
                self._plans[sql] = plan
            else:
                plan.is_once = True
        return plan

    def _prepare(self, plan: _Plan) -> None:
        plan.name = b"s%d" % next(self._names)
        self._libpq.send_prepare(plan.name, _numbered(plan.sql))
        self._sent.append(plan)

    def _receive(self, *, synced: bool = False) -> None:
        """Take the next result.

        Raises:
            psycopg.Error: it is an error; the pipeline is empty then, and clean.
        """
        result = self._next()
        waiting = self._sent.popleft()
        if result is None or result.status not in _DONE:
            self.failed = waiting
            self._clean(waiting, synced)
            raise _error(result)
        self._libpq.get_result()  # the end of this statement's results
        if isinstance(waiting, Answer):
            waiting.result = result
            if waiting.expected is not None:
                self.expects -= 1
                if result.command_tuples != 1:
                    self._broken = self._broken or waiting.expected

    def _clean(self, failed: Answer | _Plan, synced: bool) -> None:
        """Let the server skip what is on its way, and forget what was not prepared."""
        for each in (failed, *self._sent):
            if isinstance(each, _Plan):
                each.name = None
        self._sent.clear()
        if self._libpq.status == pq.ConnStatus.OK:
            if not synced:
                self._libpq.pipeline_sync()
                self._flush()
            self._drain()

    def _drain(self) -> None:
        """Pass everything up to the point at which client and server agree again."""
        nothing = 0
        while nothing < 2:
            result = self._next()
            if result is not None and result.status == pq.ExecStatus.PIPELINE_SYNC:
                return
            nothing = nothing + 1 if result is None else 0
        raise psycopg.OperationalError("the server ended the connection")

    def _next(self) -> pq.abc.PGresult | None:
        while self._libpq.is_busy():
            self._wait(self._readable)
            self._libpq.consume_input()
        return self._libpq.get_result()

    def _flush(self) -> None:
        while self._libpq.flush():
            self._wait(self._either)
            self._libpq.consume_input()  # a server that cannot send does not read either

    def _wait(self, poll: select.poll) -> None:
        if not poll.poll(PATIENCE_S * 1000):
            raise psycopg.OperationalError("the server does not answer")


class _Plan:
    """A prepared statement, and how the columns of its result are read."""

    __slots__ = ("_decoders", "append", "changes", "is_once", "name", "sql", "tables")

    def __init__(self, sql: str) -> None:
        self.sql = sql
        self.name: bytes | None = None
        self.is_once = False
        self.append = append_of(sql)
        self.tables = tables_of(sql)
        self.changes = not sql.lstrip().startswith(_LOOKS)
        self._decoders: tuple[_Decoder | None, ...] | None = None

    def row(self, result: pq.abc.PGresult, at: int) -> Row:
        """A row of a result of this statement."""
        decoders = self._decoders
        if decoders is None:
            decoders = tuple([_DECODERS[result.ftype(each)] for each in range(result.nfields)])
            self._decoders = decoders
        values = [result.get_value(at, column) for column in range(len(decoders))]
        return tuple(
            [
                value if value is None or decode is None else decode(value)
                for value, decode in zip(values, decoders, strict=True)
            ]
        )


class _Added:
    """The result of an addition that was gathered: it stores its row, or the transaction fails."""

    rowcount = 1

    def fetchone(self) -> Row | None:
        """Nothing."""
        return None

    def fetchall(self) -> list[Row]:
        """Nothing."""
        return []


ADDED = _Added()


def _encoded(parameters: Parameters) -> tuple[list[bytes | None], list[int]]:
    """Parameters for libpq: integers in figures, whatever width the server takes them for."""
    try:
        formats = [_FORMATS[type(value)] for value in parameters]
    except KeyError:  # a member of an enumeration, or the like
        return _encoded([int(each) if isinstance(each, int) else str(each) for each in parameters])
    return [_encode_one(value) for value in parameters], formats


_FORMATS: dict[type, int] = {int: 0, bool: 0, str: 1, bytes: 1, type(None): 1, Array: 1}


def _encode_one(value: Value | Array) -> bytes | None:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, int):
        return b"%d" % value
    return value.encoded() if isinstance(value, Array) else value


def _integer(value: bytes) -> int:
    return int.from_bytes(value, "big", signed=True)


def _numeric(value: bytes) -> int:
    """A sum of integers, which PostgreSQL makes as a decimal number of digits to base 10,000."""
    count, weight, sign = (int.from_bytes(value[at : at + 2], "big") for at in (0, 2, 4))
    digits = [int.from_bytes(value[8 + 2 * at : 10 + 2 * at], "big") for at in range(count)]
    places: list[int] = [10_000 ** (weight - at) for at in range(count)]
    total = sum(digit * place for digit, place in zip(digits, places, strict=True))
    return -total if sign else total


_DECODERS: dict[int, _Decoder | None] = {
    16: _integer,  # boolean: as an integer, like on the other engine
    17: None,  # bytea
    20: _integer,
    21: _integer,
    23: _integer,
    25: bytes.decode,  # text
    1700: _numeric,
}


def _error(result: pq.abc.PGresult | None) -> psycopg.Error:
    if result is None or result.status == pq.ExecStatus.PIPELINE_ABORTED:
        return psycopg.OperationalError("the server ended the connection")
    return errors.error_from_result(result)


@lru_cache(maxsize=1024)
def _numbered(sql: str) -> bytes:
    """The same statement with PostgreSQL's placeholders; our statements hold no other ``?``."""
    first, *others = sql.split("?")
    marked = [f"${number}{text}" for number, text in enumerate(others, start=1)]
    return "".join((first, *marked)).encode()
