"""What the payer noted of prescriptions of its insured, replayed: where they stand, what ended.

Home states both, signed, and tells the payer role. Where one region is payer and something else, a
statement may be kept that the payer has not heard yet: of a region's own word the outbox says so;
of another region's word to a region that dispenses too, nothing does. Such a statement may have
been heard or not, and the stored row counts, as long as it says what some statement says.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from rxoutflow.v1 import attempt_pb2
from rxoutflow.v1.prescription_pb2 import Prescription as PrescriptionSheet
from rxoutflow.v1.prescription_status_pb2 import PrescriptionStatus
from rxoutflow_server.application.payer.events import ENDED
from rxoutflow_server.application.ports import IndexEntry, Transaction
from rxoutflow_server.application.recompute.evidence import Evidence, Kept


@dataclass(frozen=True, slots=True)
class Told:
    """What a region has told its own payer role of a prescription, as far as it did not arrive."""

    waiting: Collection[bytes]
    """Statements that are on their way, or were set aside."""
    given_up: Collection[bytes]
    """Statements of which an operator gave up an event, to whomever."""


@dataclass(frozen=True, slots=True)
class Heard:
    """The statements of one prescription to which the payer role listens."""

    region_code: str
    number: str
    evidence: Evidence
    told: Told

    @property
    def person_id(self) -> str:
        """Whose prescription it is; empty if the prescription itself is not kept here."""
        for sheet in self.evidence.of_kind(PrescriptionSheet):
            return sheet.patient.insured_person_id
        return ""

    @property
    def is_indexed(self) -> bool:
        """Whether the payer has certainly heard where it stands."""
        return any(self._is_certain(kept, status) for kept, status in self._statuses())

    @property
    def ended(self) -> set[str]:
        """The attempts that have ended, as far as statements say."""
        return {attempt.attempt_id for _, attempt in self._ends()}

    def replay(
        self,
        fresh: Transaction,
        person_id: str,
        entry: IndexEntry | None,
        noted: Collection[str],
    ) -> None:
        """Note in an empty store what the payer heard.

        Args:
            fresh: where to.
            person_id: whose prescription it is.
            entry: of the index, as stored.
            noted: the attempts that are noted as ended, as stored.
        """
        for each in self._entries(person_id, entry):
            fresh.payer.index(each)
        for kept, attempt in self._ends():
            if attempt.attempt_id in noted or self._is_certain_end(kept, attempt):
                state = attempt_pb2.Attempt.State.Name(attempt.state)
                name = state.removeprefix("STATE_").lower()
                fresh.payer.note_attempt_end(person_id, attempt.attempt_id, name)

    def _entries(self, person_id: str, stored: IndexEntry | None) -> Iterator[IndexEntry]:
        """The stored entry first, if it can be: of one version the index keeps what comes first."""
        statuses = list(self._statuses())
        entries = {
            kept.sha256: IndexEntry(person_id, self.number, status.version, kept.sha256)
            for kept, status in statuses
        }
        is_possible = stored is not None and entries.get(stored.status_sha256) == stored
        if stored is not None and is_possible:
            yield stored
        certain = {kept.sha256 for kept, status in statuses if self._is_certain(kept, status)}
        for kept, _ in statuses:
            if kept.sha256 in certain:
                yield entries[kept.sha256]
        for kept, _ in reversed(statuses):  # the payer is told after whoever is warned
            if not is_possible and kept.sha256 not in certain:
                yield entries[kept.sha256]

    def _statuses(self) -> Iterator[tuple[Kept, PrescriptionStatus]]:
        """What home may have told the payer role; not what waits."""
        for kept in self.evidence.kept:
            status = kept.read(PrescriptionStatus)
            if status is None or status.payer_region_code != self.region_code:
                continue
            if kept.sha256 not in self.told.waiting:
                yield kept, status

    def _is_certain(self, kept: Kept, status: PrescriptionStatus) -> bool:
        if _is_warning(status) or kept.sha256 in self.told.given_up:
            return False
        return self._is_own or not (status.cause_sha256 and self._dispenses)

    def _ends(self) -> Iterator[tuple[Kept, attempt_pb2.Attempt]]:
        for kept in self.evidence.kept:
            attempt = kept.read(attempt_pb2.Attempt)
            if attempt is None or attempt.payer_region_code != self.region_code:
                continue
            if attempt.state in ENDED:
                yield kept, attempt

    def _is_certain_end(self, kept: Kept, attempt: attempt_pb2.Attempt) -> bool:
        if not self._is_own:
            return attempt.dispensing_region_code != self.region_code
        unheard = {*self.told.waiting, *self.told.given_up}
        return not any(
            each.sha256 in unheard
            for each, other in self._ends()
            if other.attempt_id == attempt.attempt_id
        )

    @property
    def _is_own(self) -> bool:
        return self.number.startswith(self.region_code)

    @property
    def _dispenses(self) -> bool:
        attempts = self.evidence.of_kind(attempt_pb2.Attempt)
        return any(each.dispensing_region_code == self.region_code for each in attempts)


def _is_warning(status: PrescriptionStatus) -> bool:
    """Whether whoever holds the prescription is told too that its issuer wants it back."""
    marked = status.validity == PrescriptionStatus.VALIDITY_MARKED_FOR_REVOCATION
    return marked and status.HasField("live_attempt") and not status.cause_sha256
