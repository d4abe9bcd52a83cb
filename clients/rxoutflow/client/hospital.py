"""For hospital systems: issue prescriptions, take them back, hear what became of them.

Speaks HisService at the hospital's edge service. A mutating call comes in two halves: ``*_request``
builds and signs, ``send_*`` sends, repeats and verifies. A system that must survive its own crash
stores the request between the two and sends it again afterwards; the answer is the same. ``issue``
and ``revoke`` do both at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from rxoutflow.client.base import Client
from rxoutflow.client.evidence import Evidence, require
from rxoutflow.client.history import Page, read_history
from rxoutflow.client.notices import NoticeStream
from rxoutflow.documents import Draft
from rxoutflow.identity import CallerKind
from rxoutflow.numbers import PickupCode, PrescriptionNumber, new_prescription_number
from rxoutflow.profile import Person
from rxoutflow.v1.finding_pb2 import RuleFinding
from rxoutflow.v1.his_service_pb2 import (
    HisServiceGetOutcomeRequest,
    HisServiceGetPrescriptionRequest,
    HisServiceGetPrescriptionResponse,
    HisServiceListStatementsRequest,
    HisServicePrecheckPrescriptionRequest,
    HisServiceRevokePrescriptionRequest,
    HisServiceWatchNoticesRequest,
    IssuePrescriptionRequest,
    IssuePrescriptionResponse,
    Registration,
)
from rxoutflow.v1.his_service_pb2_grpc import HisServiceStub
from rxoutflow.v1.outcome_pb2 import Outcome
from rxoutflow.v1.prescription_pb2 import Practitioner, Prescription
from rxoutflow.v1.prescription_status_pb2 import (
    PrescriptionStatus,
    Revocation,
    RevocationOutcome,
)
from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow.v1.trace_pb2 import TraceEvent


@dataclass(frozen=True, slots=True)
class IssuedPrescription:
    """A prescription that the edge accepted, and the pickup code for the patient.

    ``status`` is None while it waits at the edge for the platform (``REGISTRATION_QUEUED``).
    """

    number: PrescriptionNumber
    pickup_code: PickupCode
    registration: Registration.ValueType
    prescription: Evidence[Prescription]
    status: Evidence[PrescriptionStatus] | None
    response: IssuePrescriptionResponse


@dataclass(frozen=True, slots=True)
class KnownPrescription:
    """A prescription of this hospital as the edge knows it; ``status_time`` is when it heard."""

    registration: Registration.ValueType
    prescription: Evidence[Prescription]
    status: Evidence[PrescriptionStatus] | None
    status_time: datetime | None


@dataclass(frozen=True, slots=True)
class Revoked:
    """What a revocation came to."""

    outcome: RevocationOutcome.ValueType
    status: Evidence[PrescriptionStatus] | None


class HospitalClient(Client):
    """A hospital's system at its edge service."""

    kind = CallerKind.HOSPITAL

    def complete(self, draft: Draft) -> Prescription:
        """Fill in what profile and clock know: number, times, hospital, people."""
        now = self.surroundings.now()
        issue_time, expire_time = draft.times(now)
        number = new_prescription_number(
            self.profile.region_code,
            self.profile.institution_code,
            now,
            self.surroundings.random_bytes,
        )
        prescription = Prescription()
        prescription.CopyFrom(draft.content)
        prescription.prescription_number = str(number)
        # Unique within the hospital as the number is, for systems without numbers of their own.
        prescription.hospital_prescription_number = (
            draft.content.hospital_prescription_number or f"RX{str(number)[6:29]}"
        )
        prescription.issue_time.FromDatetime(issue_time)
        prescription.expire_time.FromDatetime(expire_time)
        self._fill_issuer(prescription)
        return prescription

    def precheck(self, prescription: Prescription) -> tuple[RuleFinding, ...]:
        """Everything that the rules have to say, without issuing it.

        Raises:
            Refused, Indefinite: see :mod:`rxoutflow.errors`.
        """
        request = HisServicePrecheckPrescriptionRequest(prescription=prescription)
        return tuple(self.connection.call(self._stub.PrecheckPrescription, request).findings)

    def issue(self, prescription: Prescription) -> IssuedPrescription:
        """Sign and issue a complete prescription.

        Raises:
            RuleViolated, SignatureRefused, PrescriptionClosed, ...: refused; nothing happened.
            Indefinite: it may have happened; send the same request again.
            AnswerUntrusted: the answer does not verify.
        """
        return self.send_issue(self.issue_request(prescription))

    def issue_request(self, prescription: Prescription) -> IssuePrescriptionRequest:
        """The request, signed by prescriber and reviewing pharmacist."""
        signed = self.sign(prescription, "prescriber", "reviewing_pharmacist")
        return IssuePrescriptionRequest(request_id=self.new_id(), prescription=signed)

    def send_issue(self, request: IssuePrescriptionRequest) -> IssuedPrescription:
        """Send a request to issue, for the first time or again."""
        response = self.connection.call(self._stub.IssuePrescription, request)
        sealed = self.evidence.read(response.prescription, Prescription)
        number = sealed.content.prescription_number
        code = PickupCode.parse(response.pickup_code)
        require(
            response.prescription.payload == request.prescription.payload
            and response.prescription_number == number == str(code.number),
            "the answer is about another prescription than was issued",
        )
        self.receipts.take(
            response, response.prescription, request.prescription, self.profile.region_code
        )
        return IssuedPrescription(
            code.number,
            code,
            response.registration,
            sealed,
            self._status(response.status, number) if response.HasField("status") else None,
            response,
        )

    def revoke(self, number: PrescriptionNumber, reason: str) -> Revoked:
        """Take a prescription back; the answer says what it came to.

        Raises:
            NotFound, ...: refused; nothing happened.
            Indefinite: it may have happened; send the same request again.
        """
        return self.send_revoke(self.revoke_request(number, reason))

    def revoke_request(
        self, number: PrescriptionNumber, reason: str
    ) -> HisServiceRevokePrescriptionRequest:
        """The request, signed by the prescriber."""
        revocation = Revocation(
            prescription_number=str(number),
            institution_code=self.profile.institution_code,
            reason=reason,
        )
        return HisServiceRevokePrescriptionRequest(
            request_id=self.new_id(), revocation=self.sign(revocation, "prescriber")
        )

    def send_revoke(self, request: HisServiceRevokePrescriptionRequest) -> Revoked:
        """Send a request to revoke, for the first time or again."""
        response = self.connection.call(self._stub.RevokePrescription, request)
        self.receipts.take(
            response, response.revocation, request.revocation, self.profile.region_code
        )
        number = Revocation.FromString(request.revocation.payload).prescription_number
        status = self._status(response.status, number) if response.HasField("status") else None
        return Revoked(response.outcome, status)

    def get(self, number: PrescriptionNumber) -> KnownPrescription:
        """The prescription and where it stands.

        Raises:
            NotFound: it is not of this hospital.
        """
        request = HisServiceGetPrescriptionRequest(prescription_number=str(number))
        response = self.connection.call(self._stub.GetPrescription, request)
        sealed = self.evidence.read(response.prescription, Prescription)
        require(
            sealed.content.prescription_number == str(number),
            "the answer is about another prescription than was asked for",
        )
        return KnownPrescription(
            response.registration,
            sealed,
            self._status(response.status, str(number)) if response.HasField("status") else None,
            _time(response),
        )

    def history(self, number: PrescriptionNumber) -> tuple[TraceEvent, ...]:
        """The statements behind the status, oldest first, each verified.

        Raises:
            NotFound: it is not of this hospital, or has not reached the platform.
            AnswerUntrusted: a statement does not verify, or is not the one named.
        """

        def ask(token: str) -> Page:
            request = HisServiceListStatementsRequest(
                prescription_number=str(number), page_token=token
            )
            answer = self.connection.call(self._stub.ListStatements, request)
            return answer.events, answer.next_page_token

        return read_history(self.evidence, str(number), ask)

    def outcome(self, number: PrescriptionNumber, request_id: str) -> Outcome:
        """What became of a request whose answer was lost.

        Raises:
            NotFound: it had no effect so far.
        """
        request = HisServiceGetOutcomeRequest(
            prescription_number=str(number), request_id=request_id
        )
        return self.connection.call(self._stub.GetOutcome, request).outcome

    def watch(self, resume_token: str = "") -> NoticeStream:
        """Notices about this hospital's prescriptions, after ``resume_token``."""
        limit = self.connection.patience.stream_timeout
        return NoticeStream(
            lambda token: self._stub.WatchNotices(
                HisServiceWatchNoticesRequest(resume_token=token), timeout=limit
            ),
            self.connection,
            self.evidence,
            resume_token,
        )

    @property
    def _stub(self) -> HisServiceStub:
        return self.connection.stub(HisServiceStub)

    def _status(self, statement: SignedStatement, number: str) -> Evidence[PrescriptionStatus]:
        status = self.evidence.read(statement, PrescriptionStatus)
        require(
            status.content.prescription_number == number,
            "the status is about another prescription than was asked for",
        )
        return status

    def _fill_issuer(self, prescription: Prescription) -> None:
        issuer, people = prescription.issuer, self.profile.people
        issuer.institution_code = self.profile.institution_code
        issuer.institution_name = self.profile.institution_name
        issuer.prescriber.CopyFrom(_practitioner(people["prescriber"]))
        issuer.reviewing_pharmacist.CopyFrom(_practitioner(people["reviewing_pharmacist"]))


def _practitioner(person: Person) -> Practitioner:
    return Practitioner(person_code=person.person_code, name=person.name, title=person.title)


def _time(response: HisServiceGetPrescriptionResponse) -> datetime | None:
    return response.status_time.ToDatetime(UTC) if response.HasField("status_time") else None
