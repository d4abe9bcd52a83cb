"""What a hospital and a pharmacy sign and send for a prescription, from its issue to its handover.

Requests come out complete and are not sent: whoever asks for one sends it, as often as it likes.
Nothing is looked up at a platform; what it has said so far is given.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Self

from google.protobuf.message import Message

from rxoutflow.documents import Draft, read_draft
from rxoutflow.numbers import SECRET_ALPHABET, SECRET_LENGTH, PrescriptionNumber, new_id
from rxoutflow.statements import Signer, add_signature, new_statement
from rxoutflow.statements.signers import FileSigner
from rxoutflow.v1.attempt_pb2 import Attempt, Claim, Collector, Commitment
from rxoutflow.v1.dispense_pb2 import DispensedLine, DispenseRecord, TraceCode
from rxoutflow.v1.hospital_service_pb2 import RegisterPrescriptionRequest
from rxoutflow.v1.pharmacy_service_pb2 import (
    ClaimPrescriptionRequest,
    CommitClaimRequest,
    QuoteSettlementRequest,
    RecordDispenseRequest,
)
from rxoutflow.v1.prescription_pb2 import Prescription
from rxoutflow.v1.settlement_pb2 import SETTLEMENT_MODE_INSURANCE, Amounts, PricedLine
from rxoutflow.v1.statement_pb2 import (
    SIGNER_ROLE_CHECKER,
    SIGNER_ROLE_DISPENSER,
    SIGNER_ROLE_HOSPITAL_SEAL,
    SIGNER_ROLE_PHARMACY_SEAL,
    SIGNER_ROLE_PRESCRIBER,
    SIGNER_ROLE_REVIEWING_PHARMACIST,
    SignedStatement,
    SignerRole,
)
from rxoutflow_server.sandbox.constellation import Institution, Region
from rxoutflow_server.sandbox.layout import Layout

_DRAFT = Path(__file__).parents[2] / "clients/prescriptions/one-region.json"
_DISPENSER = ("dispenser", SIGNER_ROLE_DISPENSER)
_REVIEWER = ("reviewing_pharmacist", SIGNER_ROLE_REVIEWING_PHARMACIST)


@dataclass(frozen=True)
class Desk:
    """An institution, and everybody who signs there, by capacity."""

    region: Region
    institution: Institution
    signers: Mapping[str, Signer]

    @classmethod
    def at(cls, layout: Layout, region: Region, institution: Institution) -> Self:
        """One of a sandbox, with its keys."""
        pki = layout.pki(region)
        pairs = {"seal": pki.seal(institution)}
        pairs |= {each.capacity: pki.person(each) for each in institution.people}
        signers = {
            name: FileSigner.load(each.certificate, each.key) for name, each in pairs.items()
        }
        return cls(region, institution, signers)


@dataclass(frozen=True)
class Paperwork:
    """A hospital's and a pharmacy's.

    ``prices`` are the pharmacy's, in 10⁻⁶ yuan a unit by drug code; ``serials`` gives the digits by
    which prescriptions of one millisecond differ.
    """

    hospital: Desk
    pharmacy: Desk
    draft: Draft
    prices: Mapping[str, int]
    random: Random
    serials: Callable[[], int]

    @classmethod
    def at(
        cls,
        layout: Layout,
        hospital: tuple[Region, Institution],
        pharmacy: tuple[Region, Institution],
        random: Random,
        serials: Callable[[], int],
    ) -> Self:
        """That of two institutions of a sandbox, for copies of one prescription."""
        return cls(
            Desk.at(layout, *hospital),
            Desk.at(layout, *pharmacy),
            read_draft(_DRAFT),
            json.loads(layout.prices(pharmacy[1]).read_text("utf-8")),
            random,
            serials,
        )

    def prescription(self, person_id: str, payer: str) -> Prescription:
        """A new prescription like the draft, for an insured person of the region that pays."""
        now, content = _now(), Prescription()
        region, hospital = self.hospital.region, self.hospital.institution
        content.CopyFrom(self.draft.content)
        issue, expire = self.draft.times(now)
        milliseconds, digits = int(now.timestamp() * 1000), f"{self.serials() % 10**5:05}"
        number = PrescriptionNumber(region.code, milliseconds, hospital.code[-5:], digits)
        content.prescription_number = str(number)
        content.hospital_prescription_number = self.new_id()
        content.issue_time.FromDatetime(issue)
        content.expire_time.FromDatetime(max(expire, now + timedelta(hours=1)))
        content.issuer.institution_code = hospital.code
        content.issuer.institution_name = hospital.name
        for capacity in ("prescriber", "reviewing_pharmacist"):
            person = next(each for each in hospital.people if each.capacity == capacity)
            named = getattr(content.issuer, capacity)
            named.person_code, named.name = person.code, person.name
        content.patient.insured_person_id = person_id
        content.patient.payer_region_code = payer
        return content

    def registration(self, content: Prescription) -> RegisterPrescriptionRequest:
        """Signed by prescriber and reviewer, sealed, with a pickup secret."""
        prescriber, seal = SIGNER_ROLE_PRESCRIBER, SIGNER_ROLE_HOSPITAL_SEAL
        signers = (("prescriber", prescriber), _REVIEWER, ("seal", seal))
        return RegisterPrescriptionRequest(
            request_id=self.new_id(),
            prescription=_signed(self.hospital, content, *signers),
            pickup_secret="".join(self.random.choices(SECRET_ALPHABET, k=SECRET_LENGTH)),
        )

    def claim(self, number: str, pickup_code: str) -> ClaimPrescriptionRequest:
        """For all of it, by the patient's own hand."""
        content = Claim(prescription_number=number, pharmacy_code=self._pharmacy_code)
        content.collector.kind = Collector.KIND_PATIENT
        return ClaimPrescriptionRequest(
            request_id=self.new_id(),
            claim=self._by_pharmacy(content, _DISPENSER),
            pickup_code=pickup_code,
        )

    def quote(self, attempt: Attempt, lines: Iterable[PricedLine]) -> QuoteSettlementRequest:
        """What it would cost."""
        return QuoteSettlementRequest(
            prescription_number=attempt.prescription_number,
            attempt_id=attempt.attempt_id,
            lines=lines,
        )

    def commitment(
        self,
        attempt: Attempt,
        lines: Iterable[PricedLine],
        amounts: Amounts,
        settlement_id: str,
    ) -> CommitClaimRequest:
        """To the amounts that were quoted."""
        content = Commitment(
            prescription_number=attempt.prescription_number,
            attempt_id=attempt.attempt_id,
            fence=attempt.fence,
            pharmacy_code=self._pharmacy_code,
            settlement_id=settlement_id,
            mode=SETTLEMENT_MODE_INSURANCE,
            lines=lines,
            accepted_amounts=amounts,
        )
        return CommitClaimRequest(
            request_id=self.new_id(), commitment=self._by_pharmacy(content, _REVIEWER)
        )

    def record(
        self, attempt: Attempt, lines: Iterable[PricedLine], settlement_id: str
    ) -> RecordDispenseRequest:
        """Of the handover of a new box for each line, now."""
        content = DispenseRecord(
            prescription_number=attempt.prescription_number,
            attempt_id=attempt.attempt_id,
            fence=attempt.fence,
            pharmacy_code=self._pharmacy_code,
            settlement_id=settlement_id,
            lines=[self._box(line) for line in lines],
        )
        content.dispense_time.FromDatetime(_now())
        people = (_REVIEWER, _DISPENSER, ("checker", SIGNER_ROLE_CHECKER))
        return RecordDispenseRequest(
            request_id=self.new_id(), dispense_record=self._by_pharmacy(content, *people)
        )

    def priced(self, content: Prescription) -> Sequence[PricedLine]:
        """All lines of a prescription at the pharmacy's prices."""
        return [
            PricedLine(
                line_id=line.line_id,
                drug_code=line.drug_code,
                quantity=line.quantity,
                unit_price_micro_yuan=self.prices[line.drug_code],
            )
            for line in content.lines
        ]

    def new_id(self) -> str:
        """For a request or a settlement."""
        return new_id(_now(), self.random.randbytes)

    @property
    def _pharmacy_code(self) -> str:
        return self.pharmacy.institution.code

    def _box(self, line: PricedLine) -> DispensedLine:
        return DispensedLine(
            line_id=line.line_id,
            drug_code=line.drug_code,
            quantity=line.quantity,
            batch_numbers=["B1"],
            trace_codes=[TraceCode(code=f"{self.random.randrange(10**20):020}")],
        )

    def _by_pharmacy(
        self, content: Message, *people: tuple[str, SignerRole.ValueType]
    ) -> SignedStatement:
        return _signed(self.pharmacy, content, *people, ("seal", SIGNER_ROLE_PHARMACY_SEAL))


def _signed(
    desk: Desk, content: Message, *signers: tuple[str, SignerRole.ValueType]
) -> SignedStatement:
    now, ((first, role), *others) = _now(), signers
    sheet = new_statement(content, desk.signers[first], role, now)
    for name, role in others:
        sheet = add_signature(sheet, desk.signers[name], role, now)
    return sheet


def _now() -> datetime:
    return datetime.now(UTC)
