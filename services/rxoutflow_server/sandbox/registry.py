"""The trust lists of the sandbox's regions: who takes part, who may sign, and where the peers are.

A list vouches for exactly what its constellation says: every hospital and pharmacy is active and
designated, every person may sign in one capacity, nothing is denied. The registry that signs it is
not on it; it is known by its pinned digest alone. A real region's registry decides each of these
with evidence; this one only copies.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from cryptography.hazmat.primitives.serialization import Encoding

from rxoutflow.certificates import certificate_sha256
from rxoutflow.identity import CallerKind
from rxoutflow.statements import FileSigner, new_statement
from rxoutflow.v1.annotations_pb2 import (
    CALLER_KIND_HOSPITAL,
    CALLER_KIND_OPERATOR,
    CALLER_KIND_PHARMACY,
    CALLER_KIND_REGULATOR,
)
from rxoutflow.v1.statement_pb2 import (
    SIGNATURE_ALGORITHM_ECDSA_P256_SHA256,
    SIGNATURE_ALGORITHM_ED25519,
    SIGNATURE_ALGORITHM_SM2_SM3,
    SIGNER_ROLE_ADJUDICATOR,
    SIGNER_ROLE_CHECKER,
    SIGNER_ROLE_DISPENSER,
    SIGNER_ROLE_HOSPITAL_SEAL,
    SIGNER_ROLE_PHARMACY_SEAL,
    SIGNER_ROLE_PLATFORM,
    SIGNER_ROLE_PRESCRIBER,
    SIGNER_ROLE_REGISTRY,
    SIGNER_ROLE_REVIEWING_PHARMACIST,
    SignerRole,
)
from rxoutflow.v1.trust_pb2 import Endpoint, Institution, Signer, TrustList
from rxoutflow_server.devpki import KeyAlgorithm, KeyPair
from rxoutflow_server.sandbox import constellation
from rxoutflow_server.sandbox.constellation import Capacity, Region
from rxoutflow_server.sandbox.pki import RegionPki

LIFETIME = timedelta(days=90)
"""How long a trust list of the sandbox holds; every start issues new ones."""

_KINDS = {
    CallerKind.HOSPITAL: CALLER_KIND_HOSPITAL,
    CallerKind.PHARMACY: CALLER_KIND_PHARMACY,
    CallerKind.REGULATOR: CALLER_KIND_REGULATOR,
    CallerKind.OPERATOR: CALLER_KIND_OPERATOR,
}
_SEALS = {
    CallerKind.HOSPITAL: SIGNER_ROLE_HOSPITAL_SEAL,
    CallerKind.PHARMACY: SIGNER_ROLE_PHARMACY_SEAL,
}
_CAPACITIES = {
    Capacity.PRESCRIBER: SIGNER_ROLE_PRESCRIBER,
    Capacity.REVIEWING_PHARMACIST: SIGNER_ROLE_REVIEWING_PHARMACIST,
    Capacity.DISPENSER: SIGNER_ROLE_DISPENSER,
    Capacity.CHECKER: SIGNER_ROLE_CHECKER,
    Capacity.FIRST_ADJUDICATOR: SIGNER_ROLE_ADJUDICATOR,
    Capacity.SECOND_ADJUDICATOR: SIGNER_ROLE_ADJUDICATOR,
}
_ALGORITHMS = {
    KeyAlgorithm.P256: SIGNATURE_ALGORITHM_ECDSA_P256_SHA256,
    KeyAlgorithm.ED25519: SIGNATURE_ALGORITHM_ED25519,
    KeyAlgorithm.SM2: SIGNATURE_ALGORITHM_SM2_SM3,
}


def trust_list(
    region: Region, pki: RegionPki, target: str, *, sequence: int, now: datetime
) -> TrustList:
    """What the region vouches for.

    Args:
        region: the region, its institutions and people.
        pki: where its certificates are.
        target: where peers reach its platform.
        sequence: higher than that of every list before.
        now: when the list is issued (aware).
    """
    content = TrustList(
        region_code=region.code,
        region_name=region.name,
        sequence=sequence,
        transport_anchors=[_der(pki.transport_authority)],
        signing_anchors=[_der(pki.signing_authority)],
        algorithms=sorted(_ALGORITHMS[each] for each in region.key_algorithms),
        institutions=[_institution(each) for each in region.institutions],
        signers=_signers(region, pki),
        endpoints=[Endpoint(target=target)],
    )
    content.issue_time.FromDatetime(now)
    content.expire_time.FromDatetime(now + LIFETIME)
    return content


def sign_trust_list(content: TrustList, pki: RegionPki, now: datetime) -> bytes:
    """The list as a serialised statement, signed by the region's registry."""
    registry = FileSigner.load(pki.registry.certificate, pki.registry.key)
    return new_statement(content, registry, SIGNER_ROLE_REGISTRY, now).SerializeToString()


def _institution(institution: constellation.Institution) -> Institution:
    return Institution(
        institution_code=institution.code,
        kind=_KINDS[institution.kind],
        name=institution.name,
        phone=institution.phone,
        designated=institution.has_edge,
        tier=institution.tier,
        status=Institution.STATUS_ACTIVE,
    )


def _signers(region: Region, pki: RegionPki) -> Iterator[Signer]:
    platform_name = f"{region.name}处方流转平台（合成）"
    yield _signer(pki.platform_seal, region.code, SIGNER_ROLE_PLATFORM, platform_name)
    for each in region.institutions:
        if each.has_edge:
            yield _signer(pki.seal(each), each.code, _SEALS[each.kind], f"{each.name}电子签章")
        for person in each.people:
            role = _CAPACITIES[person.capacity]
            signs_as = each.signs_as.institution_code
            yield _signer(pki.person(person), signs_as, role, person.name, person.code)


def _signer(
    files: KeyPair,
    institution_code: str,
    role: SignerRole.ValueType,
    display_name: str,
    person_code: str = "",
) -> Signer:
    return Signer(
        certificate_sha256=certificate_sha256(files.load()),
        institution_code=institution_code,
        roles=[role],
        person_code=person_code,
        display_name=display_name,
    )


def _der(files: KeyPair) -> bytes:
    return files.load().public_bytes(Encoding.DER)
