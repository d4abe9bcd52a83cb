"""One valid statement of every kind, and the people who sign them.

cast = Cast.create()
statement = cast.statement(Prescription)
Verifier(cast.trust()).verify(statement, Prescription, NOW)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from google.protobuf.message import Message

from rxoutflow.identity import CallerName
from rxoutflow.statements import add_signature, new_statement
from rxoutflow.statements.payloads import RULES, Audience, Role, rule_for
from rxoutflow.trust import TrustStore
from rxoutflow.v1.attempt_pb2 import (
    Adjudication,
    Attempt,
    Claim,
    ClaimRelease,
    Commitment,
    Correction,
)
from rxoutflow.v1.clearing_pb2 import ClearingAcceptance, ClearingStatement
from rxoutflow.v1.credential_pb2 import ECredential
from rxoutflow.v1.dispense_pb2 import DeliveryUpdate, DispenseRecord, DispenseReturn, TraceCodeSale
from rxoutflow.v1.prescription_pb2 import Prescription
from rxoutflow.v1.prescription_status_pb2 import PrescriptionStatus, Revocation
from rxoutflow.v1.settlement_pb2 import Pricing, Quote, Reversal, Settlement
from rxoutflow.v1.statement_pb2 import (
    SIGNER_ROLE_ADJUDICATOR,
    SIGNER_ROLE_CHECKER,
    SIGNER_ROLE_DISPENSER,
    SIGNER_ROLE_HOSPITAL_SEAL,
    SIGNER_ROLE_PHARMACY_SEAL,
    SIGNER_ROLE_PLATFORM,
    SIGNER_ROLE_PRESCRIBER,
    SIGNER_ROLE_REGISTRY,
    SIGNER_ROLE_REVIEWING_PHARMACIST,
    SignedStatement,
)
from rxoutflow.v1.trust_pb2 import TrustList
from support.pki import NOW, Credential, Region, trust_store

HOME = "350200"
KINDS = tuple(rule.message for rule in RULES)
"""The message class of every kind of statement."""

Sheet = Sequence[tuple[Role, Credential]]
"""Who signs in which role, in order."""


@dataclass(frozen=True)
class Cast:
    """A region with one hospital and one pharmacy, and everybody who signs there."""

    region: Region
    hospital: CallerName
    prescriber: Credential
    hospital_pharmacist: Credential
    hospital_seal: Credential
    pharmacy: CallerName
    pharmacist: Credential
    dispenser: Credential
    checker: Credential
    pharmacy_seal: Credential
    platform_seal: Credential
    adjudicator: Credential
    second_adjudicator: Credential

    @classmethod
    def create(cls, code: str = HOME) -> Self:
        region = Region.create(code)
        hospital, pharmacy = region.hospital(), region.pharmacy()
        return cls(
            region,
            hospital,
            region.person(hospital, "D001", SIGNER_ROLE_PRESCRIBER),
            region.person(hospital, "R001", SIGNER_ROLE_REVIEWING_PHARMACIST),
            region.seal(hospital),
            pharmacy,
            region.person(pharmacy, "R002", SIGNER_ROLE_REVIEWING_PHARMACIST),
            region.person(pharmacy, "R003", SIGNER_ROLE_DISPENSER),
            region.person(pharmacy, "R004", SIGNER_ROLE_CHECKER),
            region.seal(pharmacy),
            region.seal(region.platform),
            region.person(region.platform, "J001", SIGNER_ROLE_ADJUDICATOR),
            region.person(region.platform, "J002", SIGNER_ROLE_ADJUDICATOR),
        )

    @property
    def number(self) -> str:
        """A prescription number of this region."""
        return f"{self.region.code}{'0' * 24}"

    def trust(self) -> TrustStore:
        return trust_store(self.region)

    def prescription(self) -> Prescription:
        """A prescription with five lines, about as large as they come."""
        message = Prescription(
            prescription_number=self.number,
            hospital_prescription_number="RX-2026-000001",
            type=Prescription.TYPE_WESTERN,
            outflow_basis=Prescription.OUTFLOW_BASIS_OUTPATIENT_POOL,
        )
        message.issue_time.FromDatetime(NOW)
        message.expire_time.FromDatetime(NOW)
        issuer, patient = message.issuer, message.patient
        issuer.institution_code = self.hospital.institution_code
        issuer.institution_name, issuer.department_name = "测试医院", "心内科"
        issuer.prescriber.person_code, issuer.prescriber.name = "D001", "测试医师"
        issuer.reviewing_pharmacist.person_code = "R001"
        issuer.reviewing_pharmacist.name = "测试药师"
        patient.insured_person_id, patient.payer_region_code = "TEST0001", self.region.code
        patient.name, patient.sex, patient.weight_grams = "测试患者", patient.SEX_FEMALE, -1
        message.encounter.diagnoses.add(system=1, code="I10.x00", name="高血压病")
        for line_id in range(1, 6):
            line = message.lines.add(
                line_id=line_id,
                drug_code=f"XC08CAA000A00101010000{line_id}",
                generic_name="苯磺酸氨氯地平片",
                dosage_form="片剂",
                specification="5mg*28",
                quantity=28,
                unit="片",
                route="口服",
                frequency="qd",
                supply_days=7,
            )
            line.single_dose.value_milli, line.single_dose.unit = 1000, "片"
        return message

    def message(self, kind: type[Message]) -> Message:
        """A message of the kind, as far as signatures depend on it."""
        number, pharmacy, region = self.number, self.pharmacy.institution_code, self.region.code
        examples: dict[type[Message], Message] = {
            Revocation: Revocation(
                prescription_number=number,
                institution_code=self.hospital.institution_code,
                reason="wrong dose",
            ),
            Claim: Claim(prescription_number=number, pharmacy_code=pharmacy),
            ClaimRelease: ClaimRelease(prescription_number=number, pharmacy_code=pharmacy),
            Correction: Correction(prescription_number=number, pharmacy_code=pharmacy),
            Commitment: Commitment(prescription_number=number, pharmacy_code=pharmacy, fence=1),
            DispenseRecord: DispenseRecord(prescription_number=number, pharmacy_code=pharmacy),
            DispenseReturn: DispenseReturn(prescription_number=number, pharmacy_code=pharmacy),
            DeliveryUpdate: DeliveryUpdate(prescription_number=number, pharmacy_code=pharmacy),
            Adjudication: Adjudication(prescription_number=number, fence=1),
            Attempt: Attempt(prescription_number=number, state=Attempt.STATE_RESERVED),
            PrescriptionStatus: PrescriptionStatus(prescription_number=number, version=1),
            Pricing: Pricing(prescription_number=number, pharmacy_code=pharmacy),
            Quote: Quote(prescription_number=number, payer_region_code=region),
            Settlement: Settlement(prescription_number=number, payer_region_code=region),
            Reversal: Reversal(prescription_number=number, payer_region_code=region),
            TraceCodeSale: TraceCodeSale(registrar_region_code=region, prescription_number=number),
            ECredential: ECredential(payer_region_code=region, pharmacy_code=pharmacy),
            ClearingStatement: ClearingStatement(payer_region_code=region, period="2026-02"),
            ClearingAcceptance: ClearingAcceptance(dispensing_region_code=region, period="2026-02"),
            TrustList: self.region.trust_list,
        }
        return self.prescription() if kind is Prescription else examples[kind]

    def sheet(self, kind: type[Message]) -> Sheet:
        """Who signs a statement of the kind."""
        review = (SIGNER_ROLE_REVIEWING_PHARMACIST, self.pharmacist)
        pharmacy_seal = (SIGNER_ROLE_PHARMACY_SEAL, self.pharmacy_seal)
        prescriber = (SIGNER_ROLE_PRESCRIBER, self.prescriber)
        hospital_seal = (SIGNER_ROLE_HOSPITAL_SEAL, self.hospital_seal)
        hospital_review = (SIGNER_ROLE_REVIEWING_PHARMACIST, self.hospital_pharmacist)
        sheets: dict[type[Message], Sheet] = {
            Prescription: [prescriber, hospital_review, hospital_seal],
            Revocation: [prescriber, hospital_seal],
            Claim: [(SIGNER_ROLE_DISPENSER, self.dispenser), pharmacy_seal],
            ClaimRelease: [review, pharmacy_seal],
            Correction: [review, pharmacy_seal],
            Commitment: [review, pharmacy_seal],
            DispenseReturn: [review, pharmacy_seal],
            DeliveryUpdate: [review, pharmacy_seal],
            DispenseRecord: [
                review,
                (SIGNER_ROLE_DISPENSER, self.dispenser),
                (SIGNER_ROLE_CHECKER, self.checker),
                pharmacy_seal,
            ],
            Adjudication: [
                (SIGNER_ROLE_ADJUDICATOR, self.adjudicator),
                (SIGNER_ROLE_ADJUDICATOR, self.second_adjudicator),
            ],
            TrustList: [(SIGNER_ROLE_REGISTRY, self.region.registry)],
        }
        return sheets.get(kind, [(SIGNER_ROLE_PLATFORM, self.platform_seal)])

    def statement(self, kind: type[Message]) -> SignedStatement:
        """A statement of the kind with all its signatures."""
        return signed(self.message(kind), self.sheet(kind), audience=self.audience(kind))

    def audience(self, kind: type[Message]) -> str | None:
        """The audience to name where the kind does not settle it."""
        return self.region.code if rule_for(kind).audience is Audience.NAMED else None


def signed(
    message: Message, sheet: Sheet, *, at: datetime = NOW, audience: str | None = None
) -> SignedStatement:
    """The message with one signature for each entry of the sheet."""
    (role, first), *others = sheet
    statement = new_statement(message, first.signer, role, at, audience)
    for role, credential in others:
        statement = add_signature(statement, credential.signer, role, at)
    return statement
