"""Who may call what: the options of the contract, and what a server makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import ServiceDescriptor

from rxoutflow.identity import CallerKind
from rxoutflow.v1 import (
    annotations_pb2,
    his_service_pb2,
    home_service_pb2,
    hospital_service_pb2,
    payer_service_pb2,
    peer_service_pb2,
    pharmacy_service_pb2,
    pos_service_pb2,
    supervision_service_pb2,
)
from rxoutflow_server.domain.errors import Reason, Refusal
from rxoutflow_server.transport.identity import KINDS, Caller
from rxoutflow_server.transport.policy import Gate, Place, PolicyError, policies_of

PLATFORM_SERVICES = {
    "HospitalService": hospital_service_pb2,
    "PharmacyService": pharmacy_service_pb2,
    "HomeService": home_service_pb2,
    "PayerService": payer_service_pb2,
    "PeerService": peer_service_pb2,
    "SupervisionService": supervision_service_pb2,
}
EDGE_SERVICES = {"HisService": his_service_pb2, "PosService": pos_service_pb2}

HOSPITAL, OTHER_HOSPITAL = "H35020000001", "H35020000002"


def services(modules: Mapping[str, object]) -> list[ServiceDescriptor]:
    return [
        module.DESCRIPTOR.services_by_name[name]  # type: ignore[attr-defined] # generated modules
        for name, module in modules.items()
    ]


def caller(kind: CallerKind, region: str = "350200", institution: str = HOSPITAL) -> Caller:
    return Caller(region, kind, institution, b"")


def verdict(gate: Gate, method: str, who: Caller) -> Reason | None:
    try:
        gate.check(f"/rxoutflow.v1.{method}", who)
    except Refusal as refusal:
        return refusal.reason
    return None


PLATFORM = Gate(Place("350200"), policies_of(services(PLATFORM_SERVICES)))
EDGE = Gate(Place("350200", HOSPITAL), policies_of(services(EDGE_SERVICES)))

KIND, REGION = Reason.CALLER_KIND_NOT_ALLOWED, Reason.CALLER_REGION_NOT_ALLOWED


def test_every_kind_of_the_contract_is_known() -> None:
    numbers = {number for number in annotations_pb2.CallerKind.values() if number}
    assert set(KINDS) == numbers
    assert set(KINDS.values()) == set(CallerKind)


def test_every_method_of_the_contract_has_a_policy() -> None:
    everything = services(PLATFORM_SERVICES) + services(EDGE_SERVICES)
    policies = policies_of(everything)
    assert len(policies) == sum(len(service.methods) for service in everything)
    assert all(policy.callers for policy in policies.values())


@pytest.mark.parametrize(
    ("method", "who", "expected"),
    [
        ("HospitalService/RegisterPrescription", caller(CallerKind.HOSPITAL), None),
        ("HospitalService/RegisterPrescription", caller(CallerKind.HOSPITAL, "350500"), REGION),
        ("HospitalService/RegisterPrescription", caller(CallerKind.PHARMACY), KIND),
        ("HospitalService/RegisterPrescription", caller(CallerKind.PLATFORM), KIND),
        ("PharmacyService/ClaimPrescription", caller(CallerKind.PHARMACY), None),
        ("PharmacyService/ClaimPrescription", caller(CallerKind.PHARMACY, "350500"), REGION),
        ("PharmacyService/ClaimPrescription", caller(CallerKind.HOSPITAL), KIND),
        ("PeerService/DeliverEvents", caller(CallerKind.PLATFORM, "350500"), None),
        ("PeerService/DeliverEvents", caller(CallerKind.HOSPITAL), KIND),
        ("PeerService/GetTrustList", caller(CallerKind.PHARMACY, "350500"), None),
        ("PeerService/GetTrustList", caller(CallerKind.OPERATOR), KIND),
        ("HomeService/CommitAttempt", caller(CallerKind.PLATFORM, "320600"), None),
        ("PeerService/NoSuchMethod", caller(CallerKind.PLATFORM), KIND),
    ],
)
def test_a_platform_lets_through_whom_the_contract_names(
    method: str, who: Caller, expected: Reason | None
) -> None:
    assert verdict(PLATFORM, method, who) == expected


@pytest.mark.parametrize(
    ("method", "who", "expected"),
    [
        ("HisService/IssuePrescription", caller(CallerKind.HOSPITAL), None),
        (
            "HisService/IssuePrescription",
            caller(CallerKind.HOSPITAL, institution=OTHER_HOSPITAL),
            REGION,
        ),
        ("HisService/IssuePrescription", caller(CallerKind.HOSPITAL, "350500"), REGION),
        ("HisService/IssuePrescription", caller(CallerKind.PLATFORM, institution="350200"), KIND),
    ],
)
def test_an_edge_is_for_its_own_institution(
    method: str, who: Caller, expected: Reason | None
) -> None:
    assert verdict(EDGE, method, who) == expected


@pytest.mark.parametrize(("kind", "region"), list(product(CallerKind, ["350200", "350500"])))
def test_health_is_for_every_authenticated_caller(kind: CallerKind, region: str) -> None:
    EDGE.check("/grpc.health.v1.Health/Check", caller(kind, region))


def test_a_refused_kind_is_told_for_whom_the_method_is() -> None:
    with pytest.raises(Refusal, match="is for hospital, not for a pharmacy") as caught:
        PLATFORM.check("/rxoutflow.v1.HospitalService/GetPrescription", caller(CallerKind.PHARMACY))
    assert caught.value.detail == {
        "kind": "pharmacy",
        "method": "/rxoutflow.v1.HospitalService/GetPrescription",
    }


def test_an_edge_method_at_a_platform_stops_the_start() -> None:
    with pytest.raises(PolicyError, match="belongs at an institution's edge"):
        Gate(Place("350200"), policies_of(services(EDGE_SERVICES)))


Options = annotations_pb2.MethodPolicy
PEER = annotations_pb2.RELATION_PEER
HOSPITAL_KIND = annotations_pb2.CALLER_KIND_HOSPITAL
NO_KIND = annotations_pb2.CALLER_KIND_UNSPECIFIED
UNKNOWN_KIND = annotations_pb2.CallerKind.ValueType(99)


def service_with(policy: Options | None) -> ServiceDescriptor:
    """A service of one method with this policy, as if the contract had it."""
    file = descriptor_pb2.FileDescriptorProto(
        name="made_up.proto",
        package="made.up",
        syntax="proto3",
        dependency=["rxoutflow/v1/annotations.proto"],
    )
    file.message_type.add(name="Empty")
    method = file.service.add(name="Desk").method.add(
        name="Ask", input_type=".made.up.Empty", output_type=".made.up.Empty"
    )
    if policy is not None:
        method.options.Extensions[annotations_pb2.policy].CopyFrom(policy)
    pool = descriptor_pool.DescriptorPool()
    for known in (descriptor_pb2.DESCRIPTOR, annotations_pb2.DESCRIPTOR):
        pool.AddSerializedFile(known.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    made: ServiceDescriptor = pool.FindServiceByName("made.up.Desk")
    return made


@pytest.mark.parametrize(
    ("policy", "complaint"),
    [
        (None, "made.up.Desk.Ask has no policy"),
        (Options(relation=PEER), "must name callers and a relation"),
        (
            Options(callers=[HOSPITAL_KIND]),
            "must name callers and a relation",
        ),
        (Options(callers=[UNKNOWN_KIND], relation=PEER), "unknown kind"),
        (Options(callers=[NO_KIND], relation=PEER), "unknown kind"),
    ],
)
def test_a_method_without_complete_policy_stops_the_start(
    policy: Options | None, complaint: str
) -> None:
    with pytest.raises(PolicyError, match=complaint):
        policies_of([service_with(policy)])
