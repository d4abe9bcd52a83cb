"""Insured persons and settlements: what the payer region alone writes.

Everything here is keyed by the insured person. The figures of a settlement are fixed when it is
held; afterwards only its state moves. The end of an attempt is noted once and stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from rxoutflow_server.application.ports import IndexEntry
from rxoutflow_server.domain.accounts import AccountEntry, AccountMovement, OpeningBalances
from rxoutflow_server.domain.benefit import Enrolment
from rxoutflow_server.domain.reversal import Reversal
from rxoutflow_server.domain.settlement import (
    Amounts,
    InsuredPerson,
    Settlement,
    SettlementState,
)
from rxoutflow_server.domain.tariff import AreaStatus, PersonType
from rxoutflow_server.storage.tables.connection import Connection, Row, Value, require_one
from rxoutflow_server.storage.tables.values import (
    amounts_of,
    amounts_text,
    figures_of,
    figures_text,
    instant,
    micros,
    quantities_of,
    quantities_text,
    schemes_of,
    schemes_text,
    settled_of,
    settled_text,
)

_PERSON = """
SELECT insured_person_id, person_type, area_status, own_account_fen, family_accounts_fen, year,
       used_deductible_fen, used_cap_fen, direct_settlement_suspended
FROM insured_persons WHERE insured_person_id = ?"""
_ADD_PERSON = """
INSERT INTO insured_persons (
    person_type, area_status, own_account_fen, family_accounts_fen, year, used_deductible_fen,
    used_cap_fen, direct_settlement_suspended, insured_person_id)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (insured_person_id) DO NOTHING
"""
_SAVE_PERSON = """
UPDATE insured_persons SET
    person_type = ?, area_status = ?, own_account_fen = ?, family_accounts_fen = ?, year = ?,
    used_deductible_fen = ?, used_cap_fen = ?, direct_settlement_suspended = ?
WHERE insured_person_id = ?
"""
_ENROLMENTS = """
SELECT scheme_code, used_deductible_fen, used_cap_fen FROM scheme_accumulators
WHERE insured_person_id = ?
  AND year = (SELECT year FROM insured_persons WHERE insured_person_id = ?)
ORDER BY scheme_code
"""
_FORGET_ENROLMENTS = "DELETE FROM scheme_accumulators WHERE insured_person_id = ? AND year = ?"
_ADD_ENROLMENT = """
INSERT INTO scheme_accumulators (
    insured_person_id, year, scheme_code, used_deductible_fen, used_cap_fen)
VALUES (?, ?, ?, ?, ?)
"""
_USE_CREDENTIAL_CODE = """
INSERT INTO credential_uses (insured_person_id, code_sha256, pharmacy_code) VALUES (?, ?, ?)
ON CONFLICT (insured_person_id, code_sha256) DO NOTHING
"""
_CREDENTIAL_USER = """
SELECT pharmacy_code FROM credential_uses WHERE insured_person_id = ? AND code_sha256 = ?
"""
# In the order in which ``_settlement`` reads and ``_settlement_row`` writes them.
_SETTLEMENT_COLUMNS = """
    settlement_id, attempt_id, prescription_number, insured_person_id, dispensing_region_code,
    pharmacy_code, state, family_accounts_fen, tariff_version, year, create_time, update_time,
    cause_sha256, record_sha256, booked_sha256,
    total_fen, own_fen, excess_fen, first_self_pay_fen, inscope_fen, deductible_fen, pool_fen,
    ratio_self_fen, person_fen, account_fen, family_fen, cash_fen, schemes, pricing_sha256,
    lines, reversed_total_fen, reversed_own_fen, reversed_excess_fen,
    reversed_first_self_pay_fen, reversed_inscope_fen, reversed_deductible_fen,
    reversed_pool_fen, reversed_ratio_self_fen, reversed_person_fen, reversed_account_fen,
    reversed_family_fen, reversed_cash_fen
"""
_SETTLEMENT = f"""
SELECT {_SETTLEMENT_COLUMNS}
FROM settlements WHERE insured_person_id = ? AND settlement_id = ?
"""  # noqa: S608 - columns of the table
_SETTLEMENTS_OF_ATTEMPT = f"""
SELECT {_SETTLEMENT_COLUMNS}
FROM settlements WHERE insured_person_id = ? AND attempt_id = ? ORDER BY settlement_id
"""  # noqa: S608 - columns of the table
_SETTLEMENTS_OF = f"""
SELECT {_SETTLEMENT_COLUMNS}
FROM settlements WHERE insured_person_id = ? ORDER BY settlement_id
"""  # noqa: S608 - columns of the table
_SWEEP_SETTLEMENTS_OF_YEAR = f"""
SELECT {_SETTLEMENT_COLUMNS}
FROM settlements WHERE year = ? ORDER BY insured_person_id, create_time, settlement_id
"""  # noqa: S608 - columns of the table
_SWEEP_HOLDS = f"""
SELECT {_SETTLEMENT_COLUMNS}
FROM settlements AS held
WHERE state = 'held' AND create_time <= ? AND (create_time, settlement_id) > (?, ?)
  AND NOT EXISTS (SELECT 1 FROM attempt_ends AS ended
                  WHERE ended.insured_person_id = held.insured_person_id
                    AND ended.attempt_id = held.attempt_id)
ORDER BY create_time, settlement_id LIMIT ?
"""  # noqa: S608 - columns of the table
_SWEEP_COUNT_HOLDS = """
SELECT COUNT(*) FROM settlements WHERE state = 'held' AND create_time <= ?
"""
_ADD_SETTLEMENT = f"""
INSERT INTO settlements ({_SETTLEMENT_COLUMNS})
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,
        ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""  # noqa: S608 - columns of the table
_SAVE_SETTLEMENT = """
UPDATE settlements SET
    state = ?, update_time = ?, cause_sha256 = ?, record_sha256 = ?, booked_sha256 = ?,
    reversed_total_fen = ?, reversed_own_fen = ?, reversed_excess_fen = ?,
    reversed_first_self_pay_fen = ?, reversed_inscope_fen = ?, reversed_deductible_fen = ?,
    reversed_pool_fen = ?, reversed_ratio_self_fen = ?, reversed_person_fen = ?,
    reversed_account_fen = ?, reversed_family_fen = ?, reversed_cash_fen = ?
WHERE insured_person_id = ? AND settlement_id = ?
"""
_SWEEP_PERSONS = """
SELECT insured_person_id FROM insured_persons WHERE insured_person_id > ?
ORDER BY insured_person_id LIMIT ?
"""
_OPENING = """
SELECT own_account_fen, family_accounts_fen, held_fen, payable_fen, pool_fen
FROM account_openings WHERE insured_person_id = ?
"""
_ADD_OPENING = """
INSERT INTO account_openings (
    insured_person_id, own_account_fen, family_accounts_fen, held_fen, payable_fen, pool_fen)
VALUES (?, ?, ?, ?, ?, ?)
"""
_ADD_BENEFIT_OPENING = """
INSERT INTO benefit_openings (insured_person_id, scheme_code, year, used_deductible_fen,
                              used_cap_fen, since)
VALUES (?, ?, ?, ?, ?, ?)
"""
_ACCOUNT_ENTRIES = """
SELECT insured_person_id, settlement_id, movement, reversal_id, debit_account, credit_account, fen,
       time
FROM account_entries WHERE insured_person_id = ?
ORDER BY settlement_id, movement, reversal_id, debit_account, credit_account
"""
_ADD_ACCOUNT_ENTRIES = """
INSERT INTO account_entries (
    insured_person_id, settlement_id, movement, reversal_id, debit_account, credit_account, fen,
    time)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""
_REVERSAL = """
SELECT reversal_id, settlement_id, insured_person_id, lines, amounts, cause_sha256, time
FROM reversals WHERE insured_person_id = ? AND settlement_id = ? AND reversal_id = ?
"""
_REVERSALS = """
SELECT reversal_id, settlement_id, insured_person_id, lines, amounts, cause_sha256, time
FROM reversals WHERE insured_person_id = ? AND settlement_id = ? ORDER BY reversal_id
"""
_ADD_REVERSAL = """
INSERT INTO reversals (reversal_id, settlement_id, insured_person_id, lines, amounts, cause_sha256,
                       time)
VALUES (?, ?, ?, ?, ?, ?, ?)
"""
_ATTEMPT_END = "SELECT state FROM attempt_ends WHERE insured_person_id = ? AND attempt_id = ?"
_NOTE_ATTEMPT_END = """
INSERT INTO attempt_ends (insured_person_id, attempt_id, state) VALUES (?, ?, ?)
ON CONFLICT (insured_person_id, attempt_id) DO NOTHING
"""
_INDEX = """
INSERT INTO prescription_index (insured_person_id, prescription_number, version, status_sha256)
VALUES (?, ?, ?, ?)
ON CONFLICT (insured_person_id, prescription_number) DO UPDATE SET
    version = excluded.version, status_sha256 = excluded.status_sha256
WHERE prescription_index.version < excluded.version
"""
_INDEXED = """
SELECT insured_person_id, prescription_number, version, status_sha256
FROM prescription_index WHERE insured_person_id = ? ORDER BY prescription_number
"""


class PayerTables:
    """The port ``PayerRecords`` in SQL."""

    def __init__(self, connection: Connection, lock: str) -> None:
        self._connection = connection
        self._lock = lock

    def person(self, insured_person_id: str) -> InsuredPerson | None:
        """An insured person, locked for change."""
        key = (insured_person_id,)
        found = self._connection.execute(_PERSON + self._lock, key)
        enrolled = self._connection.execute(_ENROLMENTS, key * 2)  # in one trip to a database
        row = found.fetchone()
        if row is None:
            return None
        enrolments = tuple([Enrolment(*each) for each in enrolled.fetchall()])
        return replace(_person(row), enrolments=enrolments)

    def add_person(self, person: InsuredPerson) -> bool:
        """Store a person and open the accounts; false if the person is there already."""
        added = self._connection.execute(_ADD_PERSON, _person_row(person)).rowcount == 1
        if added:
            own, family = person.own_account_fen, amounts_text(person.family_accounts_fen)
            opening = (person.insured_person_id, own, family, 0, 0, 0)
            self._connection.execute(_ADD_OPENING, opening)
            self._open_benefit(person)
            self._add_enrolments(person)
        return added

    def save_person(self, person: InsuredPerson) -> None:
        """Store the person's standing, accounts, enrolments and accumulators."""
        saved = self._connection.execute(_SAVE_PERSON, _person_row(person))
        require_one(saved, "an insured person")
        self._connection.execute(_FORGET_ENROLMENTS, (person.insured_person_id, person.year))
        self._add_enrolments(person)

    def _open_benefit(self, person: InsuredPerson) -> None:
        """Note what of the year's benefit was used before anything that this region decided."""
        ordinary = ("", person.used_deductible_fen, person.used_cap_fen)
        schemes = [
            (each.scheme_code, each.used_deductible_fen, each.used_cap_fen)
            for each in person.enrolments
        ]
        for scheme_code, deductible, cap in (ordinary, *schemes):
            key = (person.insured_person_id, scheme_code, person.year)
            self._connection.execute(_ADD_BENEFIT_OPENING, (*key, deductible, cap, 0))

    def _add_enrolments(self, person: InsuredPerson) -> None:
        for each in person.enrolments:
            key = (person.insured_person_id, person.year, each.scheme_code)
            used = (each.used_deductible_fen, each.used_cap_fen)
            self._connection.execute(_ADD_ENROLMENT, (*key, *used))

    def settlement(self, insured_person_id: str, settlement_id: str) -> Settlement | None:
        """A settlement of a person."""
        key = (insured_person_id, settlement_id)
        row = self._connection.execute(_SETTLEMENT, key).fetchone()
        return None if row is None else _settlement(row)

    def settlements_of_attempt(
        self, insured_person_id: str, attempt_id: str
    ) -> Sequence[Settlement]:
        """All settlements that were begun for an attempt."""
        key = (insured_person_id, attempt_id)
        rows = self._connection.execute(_SETTLEMENTS_OF_ATTEMPT, key).fetchall()
        return [_settlement(row) for row in rows]

    def settlements_of_year(self, year: int) -> Sequence[Settlement]:
        """All settlements of a benefit year, by person, in the order in which they began."""
        rows = self._connection.execute(_SWEEP_SETTLEMENTS_OF_YEAR, (year,)).fetchall()
        return [_settlement(row) for row in rows]

    def holds_until(
        self, end: datetime, after: tuple[datetime, str] | None, limit: int
    ) -> Sequence[Settlement]:
        """Holds from before or at a time whose attempts have not ended, longest held first."""
        begin, last = (micros(after[0]), after[1]) if after else (-1, "")
        rows = self._connection.execute(_SWEEP_HOLDS, (micros(end), begin, last, limit)).fetchall()
        return [_settlement(row) for row in rows]

    def count_holds_until(self, end: datetime) -> int:
        """How many holds there are from before or at a time, whatever became of the attempts."""
        ((count,),) = self._connection.execute(_SWEEP_COUNT_HOLDS, (micros(end),)).fetchall()
        return int(count)

    def add_settlement(self, settlement: Settlement) -> None:
        """Store a new settlement."""
        self._connection.execute(_ADD_SETTLEMENT, _settlement_row(settlement))

    def save_settlement(self, settlement: Settlement) -> None:
        """Store a settlement's new state."""
        saved = self._connection.execute(
            _SAVE_SETTLEMENT,
            (
                settlement.state.value,
                micros(settlement.update_time),
                settlement.cause_sha256,
                settlement.record_sha256,
                settlement.booked_sha256,
                *_amounts_row(settlement.reversed),
                settlement.insured_person_id,
                settlement.settlement_id,
            ),
        )
        require_one(saved, f"settlement {settlement.settlement_id}")

    def settlements_of(self, insured_person_id: str) -> Sequence[Settlement]:
        """All settlements of a person, in the order of the ids."""
        rows = self._connection.execute(_SETTLEMENTS_OF, (insured_person_id,)).fetchall()
        return [_settlement(row) for row in rows]

    def persons(self, after: str, limit: int) -> Sequence[str]:
        """The ids of the insured persons behind this one, in order."""
        rows = self._connection.execute(_SWEEP_PERSONS, (after, limit)).fetchall()
        return [person_id for (person_id,) in rows]

    def opening(self, insured_person_id: str) -> OpeningBalances | None:
        """What the person's accounts held before the first entry."""
        row = self._connection.execute(_OPENING, (insured_person_id,)).fetchone()
        if row is None:
            return None
        own, family, held, payable, pool = row
        return OpeningBalances(own, amounts_of(family), held, payable, pool)

    def account_entries(self, insured_person_id: str) -> Sequence[AccountEntry]:
        """What moved on the person's accounts, by settlement, movement and reversal."""
        rows = self._connection.execute(_ACCOUNT_ENTRIES, (insured_person_id,)).fetchall()
        return [_account_entry(row) for row in rows]

    def add_account_entries(self, entries: Iterable[AccountEntry]) -> None:
        """Append entries. A movement that was written before is a defect and is refused."""
        rows = [_account_entry_row(each) for each in entries]
        if rows:  # all in one statement: a hold is one trip to the database, not four
            sql = _ADD_ACCOUNT_ENTRIES + ", (?, ?, ?, ?, ?, ?, ?, ?)" * (len(rows) - 1)
            self._connection.execute(sql, [value for row in rows for value in row])

    def reversal(
        self, insured_person_id: str, settlement_id: str, reversal_id: str
    ) -> Reversal | None:
        """A reversal."""
        key = (insured_person_id, settlement_id, reversal_id)
        row = self._connection.execute(_REVERSAL, key).fetchone()
        return None if row is None else _reversal(row)

    def reversals(self, insured_person_id: str, settlement_id: str) -> Sequence[Reversal]:
        """What was reversed of a settlement, in the order of the ids."""
        rows = self._connection.execute(_REVERSALS, (insured_person_id, settlement_id)).fetchall()
        return [_reversal(row) for row in rows]

    def add_reversal(self, reversal: Reversal) -> None:
        """Store a new reversal."""
        self._connection.execute(
            _ADD_REVERSAL,
            (
                reversal.reversal_id,
                reversal.settlement_id,
                reversal.insured_person_id,
                quantities_text(reversal.lines),
                figures_text(reversal.amounts),
                reversal.cause_sha256,
                micros(reversal.time),
            ),
        )

    def attempt_end(self, insured_person_id: str, attempt_id: str) -> str | None:
        """The final state of an attempt that the home region has reported, if any."""
        key = (insured_person_id, attempt_id)
        row = self._connection.execute(_ATTEMPT_END, key).fetchone()
        return None if row is None else str(row[0])

    def note_attempt_end(self, insured_person_id: str, attempt_id: str, state: str) -> None:
        """Remember that an attempt has ended, so that no hold can be placed for it any more."""
        self._connection.execute(_NOTE_ATTEMPT_END, (insured_person_id, attempt_id, state))

    def use_credential_code(
        self, insured_person_id: str, code_sha256: bytes, pharmacy_code: str
    ) -> bool:
        """Bind a code to the pharmacy that used it first; false if another one did."""
        key = (insured_person_id, code_sha256)
        self._connection.execute(_USE_CREDENTIAL_CODE, (*key, pharmacy_code))
        row = self._connection.execute(_CREDENTIAL_USER, key).fetchone()
        return row is not None and row[0] == pharmacy_code

    def index(self, entry: IndexEntry) -> None:
        """Keep the newest reference to a prescription of an insured person."""
        self._connection.execute(
            _INDEX,
            (
                entry.insured_person_id,
                entry.prescription_number,
                entry.version,
                entry.status_sha256,
            ),
        )

    def indexed(self, insured_person_id: str) -> Sequence[IndexEntry]:
        """References to a person's prescriptions, in the order of their numbers."""
        rows = self._connection.execute(_INDEXED, (insured_person_id,)).fetchall()
        return [IndexEntry(*row) for row in rows]


def _person_row(person: InsuredPerson) -> tuple[Value, ...]:
    return (
        person.person_type.value,
        person.area_status.value,
        person.own_account_fen,
        amounts_text(person.family_accounts_fen),
        person.year,
        person.used_deductible_fen,
        person.used_cap_fen,
        int(person.direct_settlement_suspended),
        person.insured_person_id,
    )


def _person(row: Row) -> InsuredPerson:
    (person_id, person_type, area_status, own, family, year, used_deductible, used_cap,
     suspended) = row  # fmt: skip
    return InsuredPerson(
        insured_person_id=person_id,
        person_type=PersonType(person_type),
        area_status=AreaStatus(area_status),
        own_account_fen=own,
        family_accounts_fen=amounts_of(family),
        year=year,
        used_deductible_fen=used_deductible,
        used_cap_fen=used_cap,
        direct_settlement_suspended=bool(suspended),
    )


def _settlement_row(settlement: Settlement) -> tuple[Value, ...]:
    return (
        settlement.settlement_id,
        settlement.attempt_id,
        settlement.prescription_number,
        settlement.insured_person_id,
        settlement.dispensing_region_code,
        settlement.pharmacy_code,
        settlement.state.value,
        amounts_text(settlement.family_accounts_fen),
        settlement.tariff_version,
        settlement.year,
        micros(settlement.create_time),
        micros(settlement.update_time),
        settlement.cause_sha256,
        settlement.record_sha256,
        settlement.booked_sha256,
        *_amounts_row(settlement.amounts),
        schemes_text(settlement.schemes),
        settlement.pricing_sha256,
        settled_text(settlement.lines),
        *_amounts_row(settlement.reversed),
    )


def _amounts_row(amounts: Amounts) -> tuple[int, ...]:
    return (
        amounts.total_fen,
        amounts.own_fen,
        amounts.excess_fen,
        amounts.first_self_pay_fen,
        amounts.inscope_fen,
        amounts.deductible_fen,
        amounts.pool_fen,
        amounts.ratio_self_fen,
        amounts.person_fen,
        amounts.account_fen,
        amounts.family_fen,
        amounts.cash_fen,
    )


def _settlement(row: Row) -> Settlement:
    (settlement_id, attempt_id, number, person_id, region, pharmacy, state, family, tariff, year,
     create, update, cause_sha256, record_sha256, booked_sha256, *figures) = row  # fmt: skip
    amounts, (schemes, pricing_sha256, lines) = figures[:12], figures[12:15]
    return Settlement(
        settlement_id=settlement_id,
        attempt_id=attempt_id,
        prescription_number=number,
        insured_person_id=person_id,
        dispensing_region_code=region,
        pharmacy_code=pharmacy,
        state=SettlementState(state),
        amounts=_amounts(amounts),
        family_accounts_fen=amounts_of(family),
        tariff_version=tariff,
        year=year,
        create_time=instant(create),
        update_time=instant(update),
        cause_sha256=cause_sha256,
        record_sha256=record_sha256,
        booked_sha256=booked_sha256,
        schemes=schemes_of(schemes),
        pricing_sha256=pricing_sha256,
        lines=settled_of(lines),
        reversed=_amounts(figures[15:]),
    )


def _amounts(columns: Sequence[int]) -> Amounts:
    (total, own, excess, first_self_pay, inscope, deductible, pool, ratio_self, person, account,
     family, cash) = columns  # fmt: skip
    return Amounts(
        total_fen=total,
        own_fen=own,
        excess_fen=excess,
        first_self_pay_fen=first_self_pay,
        inscope_fen=inscope,
        deductible_fen=deductible,
        pool_fen=pool,
        ratio_self_fen=ratio_self,
        person_fen=person,
        account_fen=account,
        family_fen=family,
        cash_fen=cash,
    )


def _reversal(row: Row) -> Reversal:
    reversal_id, settlement_id, person_id, lines, amounts, sha256, time = row
    return Reversal(
        reversal_id=reversal_id,
        settlement_id=settlement_id,
        insured_person_id=person_id,
        lines=quantities_of(lines),
        amounts=figures_of(amounts),
        cause_sha256=sha256,
        time=instant(time),
    )


def _account_entry_row(entry: AccountEntry) -> tuple[Value, ...]:
    return (
        entry.insured_person_id,
        entry.settlement_id,
        entry.movement.value,
        entry.reversal_id,
        entry.debit_account,
        entry.credit_account,
        entry.fen,
        micros(entry.time),
    )


def _account_entry(row: Row) -> AccountEntry:
    person_id, settlement_id, movement, reversal_id, debit, credit, fen, time = row
    return AccountEntry(
        insured_person_id=person_id,
        settlement_id=settlement_id,
        movement=AccountMovement(movement),
        reversal_id=reversal_id,
        debit_account=debit,
        credit_account=credit,
        fen=fen,
        time=instant(time),
    )
