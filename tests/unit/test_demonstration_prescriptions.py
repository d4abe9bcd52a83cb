"""The demonstration prescriptions: synthetic, catalogued, and lawful unless they show a rule."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from rxoutflow.documents import CHINA, read_draft
from rxoutflow.v1.prescription_pb2 import Practitioner, Prescription
from rxoutflow_server.application.messages import prescription_facts
from rxoutflow_server.application.validation import check_prescription
from rxoutflow_server.domain.prescription_rules import Severity, findings, is_resident_number
from rxoutflow_server.reference.catalogues import load_catalogue
from rxoutflow_server.reference.insured import load_insured

ROOT = Path(__file__).parents[2]
DATA = ROOT / "services/rxoutflow_server/sandbox/data"
FILES = sorted((ROOT / "clients/prescriptions").glob("*.json"))
NOW = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
UNLAWFUL = {"six-drugs": {"R3"}}


def completed(path: Path) -> Prescription:
    """As a hospital's client would complete it."""
    draft = read_draft(path)
    prescription = draft.content
    issue_time, expire_time = draft.times(NOW)
    prescription.prescription_number = "350200177244380012300001000424"
    prescription.hospital_prescription_number = "RX1"
    prescription.issue_time.FromDatetime(issue_time)
    prescription.expire_time.FromDatetime(expire_time)
    issuer = prescription.issuer
    issuer.institution_code, issuer.institution_name = "H35020000001", "厦门示范医院（合成）"
    issuer.prescriber.CopyFrom(Practitioner(person_code="D1", name="合成医师"))
    issuer.reviewing_pharmacist.CopyFrom(Practitioner(person_code="A1", name="合成药师"))
    return prescription


def test_there_are_at_least_fourteen() -> None:
    assert len(FILES) >= 14


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_is_lawful_or_shows_a_rule(path: Path) -> None:
    prescription = completed(path)
    check_prescription(prescription)
    issue_day = prescription.issue_time.ToDatetime(UTC).astimezone(CHINA).date()
    flags = load_catalogue(DATA / "catalogues/350200.csv").flags()
    facts = prescription_facts(prescription, issue_day)
    found = findings(facts, catalogue_flags=flags)
    refusing = {each.rule_id for each in found if each.severity is Severity.REFUSE}
    assert refusing == UNLAWFUL.get(path.stem, set())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_is_synthetic(path: Path) -> None:
    patient = read_draft(path).content.patient
    assert "合成" in patient.name
    assert patient.insured_person_id.startswith("SYN")
    assert is_resident_number(patient.identity_number)
    assert patient.identity_number.startswith("999999"), "no such county: nobody's number"
    birth = patient.birth_date
    assert patient.identity_number[6:14] == f"{birth.year}{birth.month:02}{birth.day:02}"
    assert int(patient.identity_number[16]) % 2 == (patient.sex == patient.SEX_MALE)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_its_drugs_are_in_every_catalogue_under_these_names(path: Path) -> None:
    for file in (DATA / "catalogues").glob("*.csv"):
        catalogue = load_catalogue(file)
        for line in read_draft(path).content.lines:
            drug = catalogue.drug(line.drug_code)
            assert (drug.generic_name, drug.unit) == (line.generic_name, line.unit)


def test_the_insured_of_the_sandbox_are_those_of_the_prescriptions_but_for_the_child() -> None:
    insured = {
        (path.stem, person.insured_person_id)
        for path in (DATA / "insured").glob("*.csv")
        for person in load_insured(path, 2026)
    }
    prescribed = {
        (draft.content.patient.payer_region_code, draft.content.patient.insured_person_id)
        for draft in map(read_draft, FILES)
    }
    assert prescribed - insured == {("350500", "SYN350500099")}
    assert insured <= prescribed
