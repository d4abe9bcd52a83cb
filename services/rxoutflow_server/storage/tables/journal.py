"""Evidence, outcomes, notices and messages: the journal that every role and every edge writes.

Statements, steps, outcomes and notices are only ever added. Events wait in the outbox until they
are acknowledged or set aside, and keep their order within a prescription: none is due before an
earlier one to the same region is due again, or has left. What is kept of statements and answers is
without their certificates, which are kept once; nobody else sees that.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow_server.application.ports import (
    DeadEvent,
    Flow,
    NoticeRecord,
    OutgoingEvent,
    RegionRole,
    StoredOutcome,
    TraceStep,
)
from rxoutflow_server.domain.errors import InvariantBroken
from rxoutflow_server.storage.tables.certificates import CertificateTables
from rxoutflow_server.storage.tables.connection import Connection, Row
from rxoutflow_server.storage.tables.values import instant, micros

_KEEP_STATEMENT = """
INSERT INTO statements (prescription_number, sha256, payload_type, statement, keep_time)
VALUES (?, ?, ?, ?, ?)
ON CONFLICT (prescription_number, sha256) DO NOTHING
"""
_STATEMENT = "SELECT statement FROM statements WHERE prescription_number = ? AND sha256 = ?"
_STATEMENTS = "SELECT sha256, statement FROM statements WHERE prescription_number = ?"
_STATEMENTS_OF = """
SELECT statement FROM statements WHERE prescription_number = ? AND payload_type = ?
ORDER BY keep_time, sha256
"""
_OUTCOME = """
SELECT method, request_sha256, response_type, response, effect_time
FROM outcomes WHERE prescription_number = ? AND caller = ? AND request_id = ?
"""
_KEEP_OUTCOME = """
INSERT INTO outcomes (prescription_number, caller, request_id, method, request_sha256,
                      response_type, response, effect_time)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
_ADD_STEP = """
INSERT INTO steps (prescription_number, sequence, time, role, flow, action, actor_code,
                   statement_sha256)
VALUES (?, (SELECT COALESCE(MAX(sequence), 0) + 1 FROM steps WHERE prescription_number = ?),
        ?, ?, ?, ?, ?, ?)
"""
_STEPS = """
SELECT time, role, flow, action, actor_code, statement_sha256
FROM steps WHERE prescription_number = ? ORDER BY sequence
"""
_NEXT_NOTICE = """
INSERT INTO notice_counters (institution_code, sequence) VALUES (?, 1)
ON CONFLICT (institution_code) DO UPDATE SET sequence = notice_counters.sequence + 1
"""
_ADD_NOTICE = """
INSERT INTO notices (institution_code, sequence, kind, prescription_number,
                     other_institution_code, statement_sha256, summary, time)
VALUES (?, (SELECT sequence FROM notice_counters WHERE institution_code = ?), ?, ?, ?, ?, ?, ?)
"""
_NOTICES = """
SELECT institution_code, kind, prescription_number, other_institution_code, statement_sha256,
       summary, time, sequence
FROM notices WHERE institution_code = ? AND sequence > ? ORDER BY sequence LIMIT ?
"""
_SWEEP_COUNT_NOTICES = """
SELECT COALESCE(SUM(sequence), 0) FROM notice_counters WHERE institution_code > ''
"""
_ADD_EVENT = """
INSERT INTO outbox (prescription_number, peer_region_code, event_id, sequence, insured_person_id,
                    statement_sha256, create_time, pending_since, next_try_time, tries,
                    state, error)
VALUES (?, ?, ?,
        (SELECT COALESCE(MAX(sequence), 0) + 1 FROM outbox WHERE prescription_number = ?),
        ?, ?, ?, ?, ?, ?, 'pending', '')
"""
# The inner query says "not dead" rather than "pending", so that it goes by the prescription's key
# and not by the index of pending events, which grows long while a region is out of reach.
_SWEEP_STATEMENTS_KEPT = """
SELECT statement FROM statements
WHERE payload_type IN ('application/vnd.rxoutflow.prescription.v1+protobuf',
                       'application/vnd.rxoutflow.dispense-record.v1+protobuf',
                       'application/vnd.rxoutflow.dispense-return.v1+protobuf')
  AND payload_type = ? AND keep_time >= ? AND keep_time < ?
ORDER BY keep_time
"""
_SWEEP_DUE_EVENTS = """
SELECT event_id, peer_region_code, prescription_number, insured_person_id, statement_sha256,
       create_time, tries, pending_since
FROM outbox AS due
WHERE peer_region_code = ? AND state = 'pending' AND next_try_time <= ?
  AND NOT EXISTS (
    SELECT 1 FROM outbox AS earlier
    WHERE earlier.prescription_number = due.prescription_number
      AND earlier.peer_region_code = due.peer_region_code
      AND earlier.state <> 'dead' AND earlier.sequence < due.sequence
      AND earlier.next_try_time > due.next_try_time)
ORDER BY next_try_time, create_time, prescription_number, sequence LIMIT ?
"""
# Whoever takes events of a prescription holds its first one locked meanwhile, so that nobody else
# takes those behind it; what is locked is left to whoever locked it. "Not dead" for the same reason
# as above.
_FIRST_EVENT = """
SELECT event_id FROM outbox
WHERE prescription_number = ? AND peer_region_code = ? AND state <> 'dead'
  AND sequence = (SELECT MIN(sequence) FROM outbox WHERE prescription_number = ?
                  AND peer_region_code = ? AND state <> 'dead')
"""
_TAKE_EVENTS = """
UPDATE outbox SET next_try_time = ?
WHERE prescription_number = ? AND peer_region_code = ? AND state <> 'dead'
  AND next_try_time <= ?
  AND NOT EXISTS (
    SELECT 1 FROM outbox AS earlier
    WHERE earlier.prescription_number = ? AND earlier.peer_region_code = ?
      AND earlier.state <> 'dead' AND earlier.sequence < outbox.sequence
      AND earlier.next_try_time > outbox.next_try_time)
RETURNING event_id, peer_region_code, prescription_number, insured_person_id, statement_sha256,
          create_time, tries, pending_since, sequence
"""
_EVENT_LET_GO = """
UPDATE outbox SET next_try_time = ?
WHERE prescription_number = ? AND peer_region_code = ? AND event_id = ?
"""
# From one region to the next through the index, however many events wait for each.
_SWEEP_DUE_PEERS = """
WITH RECURSIVE peers (code) AS (
    SELECT MIN(peer_region_code) FROM outbox WHERE state = 'pending'
    UNION ALL
    SELECT (SELECT MIN(peer_region_code) FROM outbox
            WHERE state = 'pending' AND peer_region_code > peers.code)
    FROM peers WHERE peers.code IS NOT NULL)
SELECT code FROM peers
WHERE EXISTS (SELECT 1 FROM outbox
              WHERE state = 'pending' AND peer_region_code = code AND next_try_time <= ?)
"""
_EVENT_ACKNOWLEDGED = """
DELETE FROM outbox WHERE prescription_number = ? AND peer_region_code = ? AND event_id = ?
"""
_EVENT_REFUSED = """
UPDATE outbox SET state = 'dead', error = ?, tries = tries + 1
WHERE prescription_number = ? AND peer_region_code = ? AND event_id = ?
"""
_EVENT_DELAYED = """
UPDATE outbox SET next_try_time = ?, tries = tries + 1
WHERE prescription_number = ? AND peer_region_code = ? AND event_id = ?
"""
_EVENT_PUT_BACK = """
UPDATE outbox SET next_try_time = ?, tries = tries + 1,
    sequence = (SELECT MAX(sequence) + 1 FROM outbox WHERE prescription_number = ?)
WHERE prescription_number = ? AND peer_region_code = ? AND event_id = ?
"""
_SWEEP_DEAD_EVENTS = """
SELECT event_id, peer_region_code, prescription_number, insured_person_id, statement_sha256,
       create_time, tries, pending_since, error
FROM outbox WHERE state = 'dead' AND event_id > ? ORDER BY event_id LIMIT ?
"""
_SWEEP_COUNT_DEAD_EVENTS = """
SELECT COUNT(*) FROM outbox WHERE state = 'dead' AND event_id > ''
"""
_DEAD_EVENT = """
SELECT event_id, peer_region_code, prescription_number, insured_person_id, statement_sha256,
       create_time, tries, pending_since, error
FROM outbox
WHERE prescription_number = ? AND peer_region_code = ? AND event_id = ? AND state = 'dead'
"""
_EVENT_REVIVED = """
UPDATE outbox SET state = 'pending', error = '', next_try_time = ?, pending_since = ?
WHERE prescription_number = ? AND peer_region_code = ? AND event_id = ? AND state = 'dead'
"""
_TAKE_TURN = """
INSERT INTO task_turns (code, holder, until) VALUES (?, ?, ?)
ON CONFLICT (code) DO UPDATE SET holder = excluded.holder, until = excluded.until
WHERE task_turns.holder = excluded.holder OR task_turns.until <= ?
"""
_RECEIVE_EVENT = """
INSERT INTO inbox (prescription_number, origin, event_id, receive_time) VALUES (?, ?, ?, ?)
ON CONFLICT (prescription_number, origin, event_id) DO NOTHING
"""


class JournalTables:
    """The port ``Journal`` in SQL. ``certificates`` are those of the connection."""

    def __init__(
        self,
        connection: Connection,
        lock: str = "",
        certificates: CertificateTables | None = None,
    ) -> None:
        self._connection = connection
        self._lock = lock
        self.certificates = certificates or CertificateTables(connection)

    def keep_statement(
        self, number: str, sha256: bytes, statement: SignedStatement, time: datetime
    ) -> bool:
        """Keep a statement byte for byte; false if it was kept before, which changes nothing."""
        whole = statement.SerializeToString()
        return self.keep_bytes(number, sha256, statement.payload_type, whole, time)

    def keep_bytes(
        self, number: str, sha256: bytes, payload_type: str, whole: bytes, time: datetime
    ) -> bool:
        """The same, for whoever has its bytes."""
        kept = self.certificates.take_out(whole)
        row = (number, sha256, payload_type, kept, micros(time))
        return self._connection.execute(_KEEP_STATEMENT, row).rowcount == 1

    def statements(self, number: str) -> Sequence[tuple[bytes, SignedStatement]]:
        """Every statement that is kept about a prescription, with its digest."""
        rows = self._connection.execute(_STATEMENTS, (number,)).fetchall()
        return [(sha256, self._statement(kept)) for sha256, kept in rows]

    def statement(self, number: str, sha256: bytes) -> SignedStatement:
        """A statement that was kept.

        Raises:
            InvariantBroken: it was not.
        """
        statement = self.find_statement(number, sha256)
        if statement is None:
            raise InvariantBroken(f"no statement {sha256.hex()} is kept for {number}")
        return statement

    def find_statement(self, number: str, sha256: bytes) -> SignedStatement | None:
        """A statement, if it was kept."""
        whole = self.find_bytes(number, sha256)
        return None if whole is None else SignedStatement.FromString(whole)

    def find_bytes(self, number: str, sha256: bytes) -> bytes | None:
        """The bytes of a statement, if it was kept."""
        row = self._connection.execute(_STATEMENT, (number, sha256)).fetchone()
        return None if row is None else self.certificates.put_back(row[0])

    def statements_of(self, number: str, payload_type: str) -> Sequence[SignedStatement]:
        """Statements of a type that were kept for a prescription, in the order of keeping."""
        rows = self._connection.execute(_STATEMENTS_OF, (number, payload_type)).fetchall()
        return [self._statement(kept) for (kept,) in rows]

    def statements_kept(
        self, payload_type: str, begin: datetime, end: datetime
    ) -> Sequence[SignedStatement]:
        """What was signed of this type, kept from a time up to another one, in that order."""
        rows = self._connection.execute(
            _SWEEP_STATEMENTS_KEPT, (payload_type, micros(begin), micros(end))
        ).fetchall()
        return [self._statement(kept) for (kept,) in rows]

    def outcome(self, number: str, caller: str, request_id: str) -> StoredOutcome | None:
        """The stored outcome of a request."""
        row = self._connection.execute(_OUTCOME, (number, caller, request_id)).fetchone()
        return None if row is None else self._stored(row)

    def keep_outcome(
        self, number: str, caller: str, request_id: str, outcome: StoredOutcome
    ) -> None:
        """Store the outcome of a request, once: a second one breaks the transaction."""
        self._connection.execute(
            _KEEP_OUTCOME,
            (
                number,
                caller,
                request_id,
                outcome.method,
                outcome.request_sha256,
                outcome.response_type,
                self.certificates.take_out(outcome.response),
                micros(outcome.effect_time),
            ),
        )

    def add_step(self, number: str, step: TraceStep) -> None:
        """Append a step to the life of a prescription."""
        self._connection.execute(
            _ADD_STEP,
            (
                number,
                number,
                micros(step.time),
                step.role.value,
                step.flow.value,
                step.action,
                step.actor_code,
                step.statement_sha256,
            ),
        )

    def steps(self, number: str) -> Sequence[TraceStep]:
        """The life of a prescription in the order in which it was stored."""
        return [_step(row) for row in self._connection.execute(_STEPS, (number,)).fetchall()]

    def add_notice(self, notice: NoticeRecord) -> None:
        """Append a notice for an institution under that institution's next number."""
        institution = notice.institution_code
        self._connection.execute(_NEXT_NOTICE, (institution,))
        self._connection.execute(
            _ADD_NOTICE,
            (
                institution,
                institution,
                notice.kind,
                notice.prescription_number,
                notice.other_institution_code,
                notice.statement_sha256,
                notice.summary,
                micros(notice.time),
            ),
        )

    def notices(self, institution_code: str, after: int, limit: int) -> Sequence[NoticeRecord]:
        """Notices for an institution after a sequence number, oldest first."""
        rows = self._connection.execute(_NOTICES, (institution_code, after, limit)).fetchall()
        return [_notice(row) for row in rows]

    def count_notices(self) -> int:
        """How many notices there are, for all institutions."""
        ((count,),) = self._connection.execute(_SWEEP_COUNT_NOTICES).fetchall()
        return int(count)

    def add_event(self, event: OutgoingEvent) -> None:
        """Put a fact into the outbox, after all that wait there for the same prescription."""
        created = micros(event.create_time)
        self._connection.execute(
            _ADD_EVENT,
            (
                event.prescription_number,
                event.peer_region_code,
                event.event_id,
                event.prescription_number,
                event.insured_person_id,
                event.statement_sha256,
                created,
                micros(event.pending_since or event.create_time),
                created,
                event.tries,
            ),
        )

    def due_events(self, peer: str, now: datetime, limit: int) -> Sequence[OutgoingEvent]:
        """Events for a peer that are to be sent now: those first whose turn came first."""
        rows = self._connection.execute(_SWEEP_DUE_EVENTS, (peer, micros(now), limit)).fetchall()
        return [_event(row) for row in rows]

    def take_events(
        self, peer: str, now: datetime, until: datetime, limit: int
    ) -> Sequence[OutgoingEvent]:
        """The same, for whoever takes them alone: nobody else is given them before ``until``."""
        skip = f"{self._lock} SKIP LOCKED" if self._lock else ""
        numbers = {event.prescription_number for event in self.due_events(peer, now, limit)}
        firsts = [
            (number, self._connection.execute(_FIRST_EVENT + skip, (number, peer, number, peer)))
            for number in sorted(numbers)
        ]
        free = [number for number, first in firsts if first.fetchone() is not None]
        taken = [
            self._connection.execute(
                _TAKE_EVENTS, (micros(until), number, peer, micros(now), number, peer)
            )
            for number in free
        ]
        rows = sorted((row for each in taken for row in each.fetchall()), key=_waited_longest)
        return [_event(row[:-1]) for row in rows]

    def event_let_go(self, event: OutgoingEvent, now: datetime) -> None:
        """Let anybody take an event again that was taken and not sent."""
        self._connection.execute(_EVENT_LET_GO, (micros(now), *_event_key(event)))

    def take_turn(self, task: str, holder: str, until: datetime, now: datetime) -> bool:
        """Have a task to oneself for a while, or for longer; false if somebody else has it."""
        values = (task, holder, micros(until), micros(now))
        return self._connection.execute(_TAKE_TURN, values).rowcount == 1

    def peers_with_due_events(self, now: datetime) -> Sequence[str]:
        """Regions for which something is to be sent now."""
        rows = self._connection.execute(_SWEEP_DUE_PEERS, (micros(now),)).fetchall()
        return sorted([peer for (peer,) in rows])

    def event_acknowledged(self, event: OutgoingEvent) -> None:
        """Take an event out of the outbox. An event that has left it already is no error."""
        self._connection.execute(_EVENT_ACKNOWLEDGED, _event_key(event))

    def event_refused(self, event: OutgoingEvent, reason: str) -> None:
        """Set an event aside for an operator, with the reason, unless it has left the outbox."""
        self._connection.execute(_EVENT_REFUSED, (reason, *_event_key(event)))

    def event_delayed(self, event: OutgoingEvent, until: datetime) -> None:
        """Send the event again later, and those behind it on its prescription after it."""
        self._connection.execute(_EVENT_DELAYED, (micros(until), *_event_key(event)))

    def event_put_back(self, event: OutgoingEvent, until: datetime) -> None:
        """Send the event again later, behind all that waits by then on its prescription."""
        number = event.prescription_number
        self._connection.execute(_EVENT_PUT_BACK, (micros(until), number, *_event_key(event)))

    def dead_events(self, after: str, limit: int) -> Sequence[DeadEvent]:
        """Events that were set aside, with ids above ``after`` (empty: all), oldest first."""
        rows = self._connection.execute(_SWEEP_DEAD_EVENTS, (after, limit)).fetchall()
        return [_dead_event(row) for row in rows]

    def dead_event(self, number: str, peer: str, event_id: str) -> DeadEvent | None:
        """An event that was set aside."""
        row = self._connection.execute(_DEAD_EVENT, (number, peer, event_id)).fetchone()
        return None if row is None else _dead_event(row)

    def count_dead_events(self) -> int:
        """How many events were set aside."""
        ((count,),) = self._connection.execute(_SWEEP_COUNT_DEAD_EVENTS).fetchall()
        return int(count)

    def event_revived(self, event: OutgoingEvent, now: datetime) -> None:
        """Give an event that was set aside back to be sent, at once."""
        self._connection.execute(_EVENT_REVIVED, (micros(now), micros(now), *_event_key(event)))

    def receive_event(self, number: str, origin: str, event_id: str, time: datetime) -> bool:
        """Note an event of another region; false if it was noted before."""
        noted = self._connection.execute(_RECEIVE_EVENT, (number, origin, event_id, micros(time)))
        return noted.rowcount == 1

    def _statement(self, kept: bytes) -> SignedStatement:
        return SignedStatement.FromString(self.certificates.put_back(kept))

    def _stored(self, row: Row) -> StoredOutcome:
        method, request_sha256, response_type, kept, effect_time = row
        response = self.certificates.put_back(kept)
        return StoredOutcome(method, request_sha256, response_type, response, instant(effect_time))


def _waited_longest(row: Row) -> tuple[int, str, int]:
    """In the order of creation, and on each prescription in its own order."""
    _, _, number, _, _, create_time, _, _, sequence = row
    return create_time, number, sequence


def _event_key(event: OutgoingEvent) -> tuple[str, str, str]:
    return event.prescription_number, event.peer_region_code, event.event_id


def _step(row: Row) -> TraceStep:
    time, role, flow, action, actor_code, sha256 = row
    return TraceStep(instant(time), RegionRole(role), Flow(flow), action, actor_code, sha256)


def _notice(row: Row) -> NoticeRecord:
    institution, kind, number, other, sha256, summary, time, sequence = row
    return NoticeRecord(institution, kind, number, other, sha256, summary, instant(time), sequence)


def _event(row: Row) -> OutgoingEvent:
    event_id, peer, number, person, sha256, create_time, tries, since = row
    pending_since = None if since == create_time else instant(since)
    return OutgoingEvent(
        event_id, peer, number, person, sha256, instant(create_time), tries, pending_since
    )


def _dead_event(row: Row) -> DeadEvent:
    *event, error = row
    return DeadEvent(_event(tuple(event)), error)
