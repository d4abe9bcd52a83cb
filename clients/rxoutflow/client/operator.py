"""For the people who run a region's platform: silent pharmacies, and events that were set aside.

Speaks AdministrationService at the platform of the operator's own region. An adjudication takes two
people: one decides and signs, the other reads what was signed, signs too and hands it in. They may
share a profile or have one each; the same person twice is refused here already, and by every region
that would act on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from rxoutflow.client.base import Client
from rxoutflow.client.evidence import Evidence, require
from rxoutflow.errors import InvalidInput
from rxoutflow.identity import CallerKind
from rxoutflow.statements import statement_sha256
from rxoutflow.v1.administration_service_pb2 import (
    AdjudicateAttemptRequest,
    DeadLetter,
    DiscardDeadLetterRequest,
    ListDeadLettersRequest,
    ListOverdueAttemptsRequest,
    OverdueAttempt,
    RetryDeadLetterRequest,
)
from rxoutflow.v1.administration_service_pb2_grpc import AdministrationServiceStub
from rxoutflow.v1.attempt_pb2 import Adjudication, Attempt, Commitment
from rxoutflow.v1.settlement_pb2 import Settlement
from rxoutflow.v1.statement_pb2 import SIGNER_ROLE_ADJUDICATOR, SignedStatement

_ENDS = {
    Adjudication.FINDING_HANDED_OVER: Attempt.STATE_DISPENSED,
    Adjudication.FINDING_NOT_HANDED_OVER: Attempt.STATE_RELEASED,
}


@dataclass(frozen=True, slots=True)
class Overdue:
    """A committed attempt whose pharmacy is silent, with the evidence that the platform has."""

    attempt: Evidence[Attempt]
    commitment: Evidence[Commitment]
    settlement: Evidence[Settlement] | None
    pharmacy_name: str
    pharmacy_phone: str
    issuer_institution_code: str
    commit_time: datetime


class OperatorClient(Client):
    """An operator at the platform of its region."""

    kind = CallerKind.OPERATOR

    def overdue(self) -> Iterator[Overdue]:
        """The adjudication list, oldest commit first, fetched page by page.

        Raises:
            AnswerUntrusted: a statement of the list does not verify.
        """
        request = ListOverdueAttemptsRequest()
        while True:
            page = self.connection.call(self._stub.ListOverdueAttempts, request)
            yield from map(self._overdue, page.attempts)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def find_overdue(self, attempt_id: str) -> Overdue:
        """The attempt with this id on the adjudication list.

        Raises:
            InvalidInput: it is not on the list.
        """
        for each in self.overdue():
            if each.attempt.content.attempt_id == attempt_id:
                return each
        raise InvalidInput(
            f"attempt {attempt_id} is not on the adjudication list: it has ended, or its pharmacy "
            "still has time; see `rxoutflow overdue list`"
        )

    def decide(
        self,
        overdue: Overdue,
        finding: Adjudication.Finding.ValueType,
        evidence: str,
        person: str,
        documents: Sequence[bytes] = (),
    ) -> SignedStatement:
        """A decision with the first signature; it takes a second one to count.

        Args:
            overdue: what is decided on.
            finding: what was found.
            evidence: what that rests on, for people, without personal data.
            person: who signs, by the name in the profile.
            documents: SHA-256 of documents that are kept elsewhere.

        Raises:
            InvalidInput: the profile has no such person, or the key cannot be used.
        """
        attempt = overdue.attempt.content
        content = Adjudication(
            adjudication_id=self.new_id(),
            prescription_number=attempt.prescription_number,
            attempt_id=attempt.attempt_id,
            fence=attempt.fence,
            finding=finding,
            evidence=evidence,
            document_sha256=documents,
        )
        return self.sign(content, person)

    def read_decision(self, statement: SignedStatement) -> Evidence[Adjudication]:
        """What the first person decided, to be read before it is signed by the second.

        Raises:
            AnswerUntrusted: it is no decision with one valid signature.
        """
        return self.evidence.read(statement, Adjudication, roles=(SIGNER_ROLE_ADJUDICATOR,))

    def adjudicate_request(
        self, decision: Evidence[Adjudication], person: str
    ) -> AdjudicateAttemptRequest:
        """The decision with the second person's signature, ready to be handed in.

        Raises:
            InvalidInput: it is the same person, the profile has no such person, or the key cannot
                be used.
        """
        second = self.profile.people.get(person)
        if second is not None and second.person_code == decision.signers[0].person_code:
            raise InvalidInput(
                f"{second.name} has signed already: it takes a second person to adjudicate"
            )
        return AdjudicateAttemptRequest(
            request_id=self.new_id(),
            adjudication=self.countersign(decision.statement, person),
        )

    def send_adjudicate(self, request: AdjudicateAttemptRequest) -> Evidence[Attempt]:
        """The attempt as it has ended. Sending the same request again is safe.

        Raises:
            Refused: see the contract.
            AnswerUntrusted: the answer is not the end that was decided.
        """
        answer = self.connection.call(self._stub.AdjudicateAttempt, request)
        attempt = self.evidence.read(answer.attempt, Attempt)
        decided = Adjudication.FromString(request.adjudication.payload)
        require(
            attempt.content.attempt_id == decided.attempt_id
            and attempt.content.state == _ENDS[decided.finding]
            and attempt.content.cause_sha256 == statement_sha256(request.adjudication),
            "the attempt did not end by this decision",
        )
        return attempt

    def dead_letters(self) -> Iterator[DeadLetter]:
        """Events that were set aside, oldest first, fetched page by page."""
        request = ListDeadLettersRequest()
        while True:
            page = self.connection.call(self._stub.ListDeadLetters, request)
            yield from page.dead_letters
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def find_dead_letter(self, event_id: str) -> DeadLetter:
        """The event with this id among those that were set aside.

        Raises:
            InvalidInput: it is not among them.
        """
        for each in self.dead_letters():
            if each.event_id == event_id:
                return each
        raise InvalidInput(
            f"event {event_id} is not set aside, or not any more; see `rxoutflow dead-letters list`"
        )

    def retry(self, dead: DeadLetter) -> None:
        """Send an event again that was set aside.

        Raises:
            NotFound: it is set aside no more, perhaps because of a first try of this very call.
        """
        request = RetryDeadLetterRequest(
            prescription_number=dead.prescription_number,
            peer_region_code=dead.peer_region_code,
            event_id=dead.event_id,
        )
        self.connection.call(self._stub.RetryDeadLetter, request)

    def discard(self, dead: DeadLetter, reason: str) -> None:
        """Give an event up that was set aside, with a reason that stays on record.

        Raises:
            NotFound: it is set aside no more, perhaps because of a first try of this very call.
        """
        request = DiscardDeadLetterRequest(
            prescription_number=dead.prescription_number,
            peer_region_code=dead.peer_region_code,
            event_id=dead.event_id,
            reason=reason,
        )
        self.connection.call(self._stub.DiscardDeadLetter, request)

    @property
    def _stub(self) -> AdministrationServiceStub:
        return self.connection.stub(AdministrationServiceStub)

    def _overdue(self, entry: OverdueAttempt) -> Overdue:
        attempt = self.evidence.read(entry.attempt, Attempt)
        committed = entry.commit_time.ToDatetime(UTC)
        commitment = self.evidence.read(entry.commitment, Commitment, at=committed)
        require(
            commitment.content.attempt_id == attempt.content.attempt_id
            and attempt.content.cause_sha256 == statement_sha256(entry.commitment),
            "the commitment is not that of the attempt",
        )
        settlement = None
        if entry.HasField("settlement"):
            settlement = self.evidence.read(entry.settlement, Settlement, at=committed)
        return Overdue(
            attempt,
            commitment,
            settlement,
            entry.pharmacy_name,
            entry.pharmacy_phone,
            entry.issuer_institution_code,
            committed,
        )
