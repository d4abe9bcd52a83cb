"""Rows of state against the evidence: computed again beside the store, compared, and put right.

Each prescription of the region, and each insured person, is replayed into an empty store in
memory, with the same tables; then rows are compared with rows. So nothing here knows what a state
means, and no state can be forgotten in a comparison. What is told names prescriptions by their
numbers and persons by a hash of theirs.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, TypeAlias

from google.protobuf import symbol_database
from google.protobuf.message import DecodeError, Message

from rxoutflow.v1 import attempt_pb2, settlement_pb2
from rxoutflow.v1.prescription_pb2 import Prescription as PrescriptionSheet
from rxoutflow_server.application.recompute.books import replay_books
from rxoutflow_server.application.recompute.evidence import Evidence, NotReplayable
from rxoutflow_server.application.recompute.home import replay_prescription
from rxoutflow_server.application.recompute.index import Heard
from rxoutflow_server.application.recompute.payer import Formula, Person, replay_person
from rxoutflow_server.storage.maintenance import Records
from rxoutflow_server.storage.scratch import Scratch
from rxoutflow_server.storage.tables.connection import Value
from rxoutflow_server.storage.tables.recorded import (
    Cells,
    Key,
    StoredOutcomeRow,
    Table,
    pages,
)

PAGE = 200
"""So many prescriptions or persons are read on one snapshot."""

_Part: TypeAlias = tuple[tuple[Table, ...], list[str]]
"""Tables, and the objects whose rows are compared in them."""

_SHOWN = frozenset({"state", "validity", "year", "movement"})
_ATTEMPTS_OF = ("/rxoutflow.v1.HomeService/", "/rxoutflow.v1.AdministrationService/")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as the evidence says, and whether it can be put right from it."""

    subject: str
    table: str
    row: str
    problem: str
    derived: bool = True


@dataclass(slots=True)
class Report:
    """How much was computed again, and what was found."""

    prescriptions: int = 0
    persons: int = 0
    outcomes: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def beyond_repair(self) -> list[Finding]:
        """What the evidence does not say how to put right."""
        return [each for each in self.findings if not each.derived]


@dataclass(frozen=True, slots=True)
class _Difference:
    """A row that is not as it should be: either side may be missing."""

    table: Table
    key: Key
    stored: Cells | None
    expected: Cells | None


class Recomputation:
    """One pass over a store. ``mending`` also writes what was computed."""

    def __init__(
        self,
        records: Records,
        formula: Formula,
        *,
        mending: bool = False,
        progress: Callable[[int], None] = lambda done: None,
    ) -> None:
        self._records = records
        self._formula = formula
        self._mending = mending
        self._progress = progress
        self._scratch = Scratch()
        self._paid: dict[str, list[str]] = {}
        """The prescriptions that were paid for here, by insured person."""
        self._insured: dict[str, list[str]] = {}
        """Those of which the payer role hears, by insured person."""
        self._unsaid: dict[str, set[str]] = {}
        """Those of which it hears, but not whose they are: by number, the attempts that ended."""
        self._indexed: set[str] = set()
        """Of these, the ones that are certainly in the index."""
        self.report = Report()

    def run(self) -> Report:
        """Compute everything again."""
        with self._scratch:
            for numbers in self._pages(lambda: pages(self._records.recorded, PAGE)):
                for number in numbers:
                    self._prescription(number)
                self._progress(len(numbers))
            with self._reading():
                self._hospital_numbers()
            for persons in self._pages(self._persons):
                for person_id in persons:
                    self._person(person_id)
            for number in sorted(self._indexed):
                problem = "is missing, and no statement here says whose prescription it is"
                self._tell(f"prescription {number}", "prescription_index", "", problem)
        return self.report

    def _pages(self, listing: Callable[[], Iterator[list[str]]]) -> Iterator[list[str]]:
        """Pages, each on a snapshot of its own; or all in the one transaction that writes."""
        listed = listing()
        while True:
            with self._reading():
                page = next(listed, None)
                if page is None:
                    return
                yield page

    def _reading(self) -> AbstractContextManager[None]:
        return nullcontext() if self._mending else self._records.snapshot()

    def _persons(self) -> Iterator[list[str]]:
        for person_id in [each for each in self._paid if not self._is_known(each)]:
            self._tell(_person_name(person_id), "insured_persons", "", "the person is not there")
        page = self._records.recorded.persons("", PAGE)
        while page:
            yield page
            page = self._records.recorded.persons(page[-1], PAGE)
        yield sorted(self._insured)  # of whom nothing is noted, and should be

    def _is_known(self, person_id: str) -> bool:
        return self._records.tables.payer.person(person_id) is not None

    def _prescription(self, number: str) -> None:
        evidence = self._records.recorded.evidence([number])
        try:
            evidence.require_intact()
        except NotReplayable as error:
            self._tell(f"prescription {number}", "statements", "", str(error))
            return
        paid = self._note_paid(number, evidence)
        self._note_insured(number, evidence)
        self._outcomes(number, evidence)
        self._books(number, evidence, paid=paid)
        if not number.startswith(self._formula.region_code):
            return
        self.report.prescriptions += 1
        stored = self._records.tables.home.prescription(number)
        pickup_hash = stored.pickup_hash if stored is not None else b""

        def replay() -> None:
            replay_prescription(self._scratch.tables, number, evidence, pickup_hash)

        self._compare(f"prescription {number}", [(self._scratch.home, [number])], replay)

    def _note_paid(self, number: str, evidence: Evidence) -> bool:
        code = self._formula.region_code
        settled = evidence.of_kind(settlement_pb2.Settlement)
        paid = any(each.payer_region_code == code for each in settled)
        if paid:
            for sheet in evidence.of_kind(PrescriptionSheet)[:1]:
                self._paid.setdefault(sheet.patient.insured_person_id, []).append(number)
        return paid

    def _note_insured(self, number: str, evidence: Evidence) -> None:
        heard = self._heard(number, evidence)
        if not heard.is_indexed and not heard.ended:
            return
        if heard.person_id:
            self._insured.setdefault(heard.person_id, []).append(number)
            return
        self._unsaid[number] = heard.ended
        if heard.is_indexed:
            self._indexed.add(number)

    def _heard(self, number: str, evidence: Evidence) -> Heard:
        code = self._formula.region_code
        return Heard(code, number, evidence, self._records.recorded.told(number, code))

    def _books(self, number: str, evidence: Evidence, *, paid: bool) -> None:
        """Sales, receivables and counts; and nothing payable where nothing was to be paid."""
        name = f"prescription {number}"
        if self._records.recorded.lacks_steps(number):
            self._tell(name, "steps", "", "a step is not kept any more; restore a backup")
            return
        steps = self._records.tables.journal.steps(number)
        tables = self._scratch.sales if paid else (*self._scratch.books, *self._scratch.sales)

        def replay() -> None:
            code = self._formula.region_code
            replay_books(self._scratch.tables, code, number, evidence, steps)

        self._compare(name, [(tables, [number])], replay)

    def _hospital_numbers(self) -> None:
        """Hospitals' own numbers, as the prescriptions have them."""
        table, found = self._scratch.hospital_numbers, list[_Difference]()
        too_many, missing = self._records.recorded.hospital_numbers()
        for own in too_many:
            found.append(_Difference(table, table.key_of(own), own, None))
        for own in missing:
            found.append(_Difference(table, table.key_of(own), None, own))
        for each in found:
            row = each.stored or each.expected or {}
            number = str(row["prescription_number"])
            self.report.findings.append(_finding(f"prescription {number}", each))
        if self._mending:
            self._mend(found)

    def _person(self, person_id: str) -> None:
        self._index(person_id)
        if person_id in self._paid or self._is_known(person_id):
            self._accounts(person_id)

    def _index(self, person_id: str) -> None:
        """The index of a person's prescriptions, and the attempts on them that ended."""
        payer, recorded = self._records.tables.payer, self._records.recorded
        stored = {each.prescription_number: each for each in payer.indexed(person_id)}
        ended = set(recorded.ended_attempts(person_id))
        unsaid = [number for number, ends in self._unsaid.items() if ends & ended]
        numbers = {*stored, *self._insured.pop(person_id, []), *unsaid}
        kept = {number: recorded.evidence([number]) for number in sorted(numbers)}
        if any(not each.is_intact for evidence in kept.values() for each in evidence.kept):
            return  # that was told, and nothing is written from it
        heard = [self._heard(number, evidence) for number, evidence in kept.items()]
        own = [each for each in heard if each.person_id in ("", person_id)]
        self._indexed -= numbers

        def replay() -> None:
            for each in own:
                entry = stored.get(each.number)
                each.replay(self._scratch.tables, person_id, entry, ended)

        self._compare(_person_name(person_id), [(self._scratch.noted, [person_id])], replay)

    def _accounts(self, person_id: str) -> None:
        self.report.persons += 1
        payer, name = self._records.tables.payer, _person_name(person_id)
        stored, opening = payer.person(person_id), payer.opening(person_id)
        benefit = self._records.recorded.benefit_opening(person_id)
        if stored is None or opening is None or benefit is None:
            self._tell(name, "account_openings", "", "how the person's accounts began is not there")
            return
        settlements, entries = payer.settlements_of(person_id), payer.account_entries(person_id)
        person = Person(stored, opening, benefit, settlements, entries)
        listed = {each.prescription_number for each in settlements}
        numbers = sorted({*self._paid.get(person_id, []), *listed})  # also what came since
        evidence = self._records.recorded.evidence(numbers)

        def replay() -> None:
            evidence.require_intact()
            replay_person(self._scratch.tables, person, evidence, self._formula)

        parts = [(self._scratch.payer, [person_id]), (self._scratch.books, numbers)]
        self._compare(name, parts, replay)

    def _compare(self, name: str, parts: list[_Part], replay: Callable[[], None]) -> None:
        """Replay into the empty store, compare what came out, and empty it again."""
        try:
            replay()
            found = [
                difference
                for tables, shards in parts
                for shard in sorted(shards)
                for difference in self._differences(tables, shard)
            ]
        except NotReplayable as error:
            self._tell(name, "", "", str(error))
        except sqlite3.IntegrityError as error:
            self._tell(name, "", "", f"the statements lead to what cannot be: {error}")
        else:
            self.report.findings += [_finding(name, each) for each in found]
            if self._mending:
                self._mend(found)
        finally:
            self._scratch.clear()

    def _differences(self, tables: Iterable[Table], shard: str) -> Iterator[_Difference]:
        for table in tables:
            stored = self._records.recorded.rows(table, shard)
            expected = self._scratch.recorded.rows(table, shard)
            for key in sorted({*stored, *expected}, key=repr):
                row, should = stored.get(key), expected.get(key)
                if row != should and not _is_of_a_closed_year(table, row, should, expected):
                    yield _Difference(table, key, row, should)

    def _mend(self, found: list[_Difference]) -> None:
        """Write what was computed: what is too much first, then what others refer to first."""
        recorded = self._records.recorded
        for each in reversed(found):
            if each.expected is None:
                recorded.delete(each.table, each.key)
        for each in found:
            if each.expected is not None and each.stored is not None:
                recorded.update(each.table, each.expected)
        for each in found:
            if each.expected is not None and each.stored is None:
                recorded.insert(each.table, each.expected)

    def _outcomes(self, number: str, evidence: Evidence) -> None:
        stated = {_bytes(each) for each in evidence.of_kind(attempt_pb2.Attempt)}
        for outcome in self._records.recorded.outcomes(number):
            self.report.outcomes += 1
            problem = _problem_of(outcome, stated)
            if problem:
                row = f"request {outcome.request_id}"
                self._tell(f"prescription {number}", "outcomes", row, problem)

    def _tell(self, subject: str, table: str, row: str, problem: str) -> None:
        self.report.findings.append(Finding(subject, table, row, problem, derived=False))


def _person_name(person_id: str) -> str:
    return f"person {sha256(person_id.encode()).hexdigest()[:12]}"


def _is_of_a_closed_year(
    table: Table, row: Cells | None, should: Cells | None, expected: Mapping[Key, Cells]
) -> bool:
    """Accumulators of schemes in a year that is over stay as they were."""
    if table.name != "scheme_accumulators" or row is None or should is not None:
        return False
    return row["year"] not in {each["year"] for each in expected.values()}


def _finding(subject: str, each: _Difference) -> Finding:
    row = ", ".join(
        f"{column} {_short(value)}"
        for column, value in zip(each.table.key, each.key, strict=True)
        if column not in ("insured_person_id", "prescription_number") and value != ""
    )
    return Finding(subject, each.table.name, row, _problem(each))


def _problem(each: _Difference) -> str:
    if each.stored is None:
        return "is missing"
    if each.expected is None:
        return "is there, but follows from nothing that is kept"
    stored, expected = each.stored, each.expected
    return "; ".join(
        _told(column, stored[column], expected[column])
        for column in each.table.columns
        if stored[column] != expected[column]
    )


def _told(column: str, stored: Value, expected: Value) -> str:
    """Numbers and states are told; whatever else is in a column might be about a person."""
    if isinstance(stored, int) or column in _SHOWN:
        return f"{column} is {_short(stored)}, should be {_short(expected)}"
    return f"{column} is another than should be"


def _short(value: Value) -> str:
    return value.hex()[:16] if isinstance(value, bytes) else str(value)


def _problem_of(outcome: StoredOutcomeRow, stated: set[bytes]) -> str:
    """What is wrong with the stored answer to a request; nothing if it is whole."""
    if not outcome.method:  # the mark of a call that was corrected
        return ""
    if outcome.response is None:
        return "a certificate in the stored answer is not kept any more, or was changed"
    try:
        kind: Any = symbol_database.Default().GetSymbol(outcome.response_type)
        response = kind.FromString(outcome.response)
    except (KeyError, DecodeError):
        return f"the stored answer is no {outcome.response_type}"
    if not outcome.method.startswith(_ATTEMPTS_OF) or not response.HasField("attempt"):
        return ""
    attempt = attempt_pb2.Attempt.FromString(response.attempt.payload)
    return "" if _bytes(attempt) in stated else "it states an attempt that home never stated"


def _bytes(message: Message) -> bytes:
    return message.SerializeToString(deterministic=True)
