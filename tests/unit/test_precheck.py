"""The pre-check (预核验) says everything at once: what is written, and who may write it."""

from __future__ import annotations

from rxoutflow.v1.finding_pb2 import RuleFinding
from rxoutflow.v1.hospital_service_pb2 import PrecheckPrescriptionRequest
from rxoutflow.v1.prescription_pb2 import Prescription
from rxoutflow.v1.trust_pb2 import Institution
from rxoutflow_server.application.home import registration
from support.world import World

HOME, PAYER = "350200", "320600"


def found(world: World, content: Prescription) -> list[tuple[str, str]]:
    request = PrecheckPrescriptionRequest(prescription=content)
    findings = registration.precheck(world.platforms[HOME].region, request).findings
    assert all(each.severity == RuleFinding.SEVERITY_REFUSE for each in findings)
    assert all(each.source and each.message for each in findings)
    return [(each.rule_id, each.field) for each in findings]


def test_a_good_prescription_of_a_hospital_in_good_standing_has_no_findings() -> None:
    world = World.create(HOME, PAYER)

    assert found(world, world.prescription(HOME, PAYER)) == []


def test_a_basis_that_the_agreement_does_not_cover_is_found_beside_all_else() -> None:
    world = World.create(HOME, PAYER)
    world.limit_scope(HOME, "hospital", Prescription.OUTFLOW_BASIS_DOUBLE_CHANNEL)
    content = world.prescription(HOME, PAYER)
    content.outflow_basis = Prescription.OUTFLOW_BASIS_OTHER
    content.issuer.reviewing_pharmacist.CopyFrom(content.issuer.prescriber)

    assert found(world, content) == [
        ("R10", "issuer.reviewing_pharmacist.person_code"),
        ("R18", "outflow_basis"),
    ]


def test_a_suspended_hospital_is_found() -> None:
    world = World.create(HOME, PAYER)
    cast = world.platforms[HOME].cast
    cast.region.entry(cast.hospital).status = Institution.STATUS_SUSPENDED
    cast.region.trust_list.sequence += 1
    world.platforms[HOME].region.trust.offer(cast.region.signed_list(), world.clock.now)

    assert found(world, world.prescription(HOME, PAYER)) == [("R19", "issuer.institution_code")]
