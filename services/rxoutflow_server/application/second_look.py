"""R23 on the evidence of a day: gathers plain facts from what was signed, and has them looked at.

Works on whatever this region keeps: prescriptions that it issued or dispensed, handovers and
returns of its pharmacies, and those of others for which it is home or payer. It changes nothing.
Prescriptions of the weeks before are read too, because a refill is early by what came before it;
only what involves the day itself is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date, datetime, time, timedelta
from typing import TypeAlias, TypeVar

from google.protobuf.message import Message

from rxoutflow.statements.payloads import rule_for
from rxoutflow.v1.dispense_pb2 import DispenseRecord, DispenseReturn
from rxoutflow.v1.prescription_pb2 import Prescription
from rxoutflow.v1.statement_pb2 import ProtectedHeader, SignedStatement
from rxoutflow.v1.trust_pb2 import Signer
from rxoutflow_server.application.messages import instant
from rxoutflow_server.application.ports import Transaction
from rxoutflow_server.application.region import LOCAL_TIME
from rxoutflow_server.domain.suspicions import (
    Facts,
    HandedOver,
    Issued,
    Returned,
    Signed,
    Suspicion,
    Thresholds,
    suspicions,
)

M = TypeVar("M", bound=Message)
ListedSigner: TypeAlias = Callable[[str, bytes], Signer | None]
"""A signer by region and digest of the certificate, as the region's trust list has it now."""

LOOK_BACK = timedelta(weeks=12)
"""The longest supply that a prescription may give (R6)."""


def suspicions_of_day(
    tx: Transaction, listed: ListedSigner, day: date, thresholds: Thresholds
) -> list[Suspicion]:
    """What deserves a second look of what this region kept on a local day."""
    begin = datetime.combine(day, time(), LOCAL_TIME)
    facts, today = _facts(tx, listed, begin)
    return [
        each
        for each in suspicions(facts, thresholds)
        if today.intersection(each.prescription_numbers)
    ]


def _facts(tx: Transaction, listed: ListedSigner, begin: datetime) -> tuple[Facts, set[str]]:
    """The facts, and the numbers of the prescriptions to which something happened on the day."""
    end = begin + timedelta(days=1)
    sheets = list(_kept(tx, Prescription, begin, end))
    records = list(_kept(tx, DispenseRecord, begin, end))
    returns = list(_kept(tx, DispenseReturn, begin, end))
    earlier = list(_kept(tx, Prescription, begin - LOOK_BACK, begin))
    prescriptions = {each.prescription_number: each for _, each in [*earlier, *sheets]}
    sealed = [(statement, content.prescription_number) for statement, content in sheets]
    sealed += [(statement, content.prescription_number) for statement, content in records]
    signed = [each for statement, number in sealed for each in _signed(listed, statement, number)]
    facts = Facts(
        issued=[_issued(each) for each in prescriptions.values()],
        handed_over=list(_handed_over(records, prescriptions)),
        signed=signed,
        returned=[_returned(each, prescriptions) for _, each in returns],
    )
    numbers = {number for _, number in sealed} | {each.prescription_number for _, each in returns}
    # A prescriber's velocity is one day's; what he wrote in the weeks before does not add to it.
    recent = [each for each in facts.issued if each.prescription_number in numbers]
    people = {each.insured_person_id for each in recent}
    issued = [each for each in facts.issued if each.insured_person_id in people]
    return replace(facts, issued=issued), numbers


def _kept(
    tx: Transaction, kind: type[M], begin: datetime, end: datetime
) -> Iterator[tuple[SignedStatement, M]]:
    """Statements of a kind with their contents; they were verified before they were kept."""
    for statement in tx.journal.statements_kept(rule_for(kind).payload_type, begin, end):
        yield statement, kind.FromString(statement.payload)


def _issued(content: Prescription) -> Issued:
    return Issued(
        prescription_number=content.prescription_number,
        issuer_code=content.issuer.institution_code,
        prescriber_code=content.issuer.prescriber.person_code,
        encounter_number=content.encounter.encounter_number,
        insured_person_id=content.patient.insured_person_id,
        issue_time=instant(content.issue_time),
        supplies=tuple((line.drug_code, line.supply_days) for line in content.lines),
    )


def _handed_over(
    records: list[tuple[SignedStatement, DispenseRecord]], prescriptions: dict[str, Prescription]
) -> Iterator[HandedOver]:
    for _, record in records:
        prescription = prescriptions.get(record.prescription_number)
        if prescription is not None:
            yield HandedOver(
                record.prescription_number,
                record.pharmacy_code,
                instant(prescription.issue_time),
                instant(record.dispense_time),
            )


def _returned(content: DispenseReturn, prescriptions: dict[str, Prescription]) -> Returned:
    number = content.prescription_number
    prescription = prescriptions.get(number)
    return Returned(
        prescription_number=number,
        pharmacy_code=content.pharmacy_code,
        # Whose prescription is not here is counted by the prescription alone.
        insured_person_id=prescription.patient.insured_person_id if prescription else number,
        day=instant(content.return_time).astimezone(LOCAL_TIME).date().isoformat(),
    )


def _signed(listed: ListedSigner, statement: SignedStatement, number: str) -> Iterator[Signed]:
    """The people's signatures; seals are no people."""
    for signature in statement.signatures:
        header = ProtectedHeader.FromString(signature.protected)
        signer = listed(header.region_code, header.certificate_sha256)
        if signer is not None and signer.person_code:
            yield Signed(
                f"{header.region_code}:{signer.person_code}",
                header.institution_code,
                number,
                instant(header.sign_time),
            )
