"""L12, trust: bugs that are planted on purpose, each of which a check has to catch.

Every plant breaks one thing in the real code. Its check is a short attack: it passes on the code as
it is, and must fail with the plant in place. A plant that no check notices would mean that the gate
is blind there. The board at the end of a run says how many were caught.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from grpc_health.v1 import health_pb2

from rxoutflow import trust
from rxoutflow.certificates import verify_chain
from rxoutflow.identity import CallerKind, CallerName, uri_names
from rxoutflow.statements import (
    StatementError,
    Verifier,
    add_signature,
    envelope,
    sign,
    verification,
)
from rxoutflow.statements.errors import TrustListRefused
from rxoutflow.statements.payloads import rule_for
from rxoutflow.v1.attempt_pb2 import Claim
from rxoutflow.v1.dispense_pb2 import DispenseRecord
from rxoutflow.v1.home_service_pb2 import GrantClaimRequest
from rxoutflow.v1.prescription_pb2 import Prescription
from rxoutflow.v1.statement_pb2 import (
    SIGNATURE_ALGORITHM_ECDSA_P256_SHA256,
    SIGNATURE_ALGORITHM_ED25519,
    SIGNER_ROLE_CHECKER,
    SIGNER_ROLE_DISPENSER,
    SIGNER_ROLE_PHARMACY_SEAL,
    SIGNER_ROLE_REVIEWING_PHARMACIST,
    SignedStatement,
)
from rxoutflow_server.application.dispensing import claims
from rxoutflow_server.application.exchange import idempotency
from rxoutflow_server.application.home import attempts
from rxoutflow_server.domain import prescription as home
from rxoutflow_server.domain.errors import Reason, Refusal
from rxoutflow_server.domain.prescription import Validity
from rxoutflow_server.transport import identity, policy
from rxoutflow_server.transport.identity import Authenticator
from support.board import Ran
from support.pki import CLIENT, NOW, Credential, Region, trust_store
from support.sheets import Cast, signed
from support.world import World

HOME, DISPENSING, PAYER = "350200", "350500", "320600"
FLOOR = 16

Plant = Callable[[pytest.MonkeyPatch], None]
Check = Callable[[], None]


def patched(target: Any, name: str, value: Any) -> Plant:
    """A plant that replaces one thing."""
    return lambda monkeypatch: monkeypatch.setattr(target, name, value)


def nothing(*_: object, **__: object) -> None:
    """What a check does that was forgotten."""


# --- who is calling -------------------------------------------------------------------------------


def shown(credential: Credential) -> dict[str, tuple[bytes, ...]]:
    return {
        "ssl_tls_version": (b"TLSv1.3",),
        "x509_pem_cert": (credential.certificate.public_bytes(Encoding.PEM),),
    }


@contextmanager
def refused(*reasons: Reason) -> Iterator[None]:
    """Passes if the code refuses for one of these reasons."""
    with pytest.raises((Refusal, StatementError)) as caught:
        yield
    assert isinstance(caught.value, Refusal | StatementError)
    assert caught.value.reason in reasons, caught.value


def authenticate(credential: Credential, *regions: Region) -> None:
    Authenticator(trust_store(*regions), lambda: NOW).authenticate(shown(credential))


def a_common_name_grants_nothing() -> None:
    region = Region.create(HOME)
    hospital = region.hospital()
    credential = region.transport.issue(usages=CLIENT, common_name=str(hospital))
    with refused(Reason.CALLER_IDENTITY_INVALID):
        authenticate(credential, region)


def fall_back_to_the_common_name(leaf: x509.Certificate) -> CallerName:
    (name,) = leaf.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return CallerName.parse(str(name.value))


def two_names_are_none() -> None:
    region = Region.create(HOME)
    hospital, pharmacy = region.hospital(), region.pharmacy()
    credential = region.transport.issue(str(hospital), str(pharmacy), usages=CLIENT)
    with refused(Reason.CALLER_IDENTITY_INVALID):
        authenticate(credential, region)


def take_the_first_name(leaf: x509.Certificate) -> CallerName:
    return CallerName.parse(next(iter(uri_names(leaf))))


def a_neighbour_cannot_mint_our_hospitals() -> None:
    ours, theirs = Region.create(HOME), Region.create(DISPENSING)
    credential = theirs.transport.issue(str(ours.hospital()), usages=CLIENT)
    with refused(Reason.CALLER_CERTIFICATE_UNTRUSTED):
        authenticate(credential, ours, theirs)


def merge_the_regions(monkeypatch: pytest.MonkeyPatch) -> None:
    known: list[x509.Certificate] = []
    create = trust_store

    def remembering(*regions: Region, **more: Any) -> trust.TrustStore:
        known[:] = [each.transport.certificate for each in regions]
        return create(*regions, **more)

    def merged(leaf: Any, intermediates: Any, _anchors: Any, at: Any, usage: Any) -> Any:
        return verify_chain(leaf, intermediates, known, at, usage)

    monkeypatch.setitem(globals(), "trust_store", remembering)
    monkeypatch.setattr(identity, "verify_chain", merged)


def a_denied_caller_is_refused() -> None:
    region = Region.create(HOME)
    credential = region.transport.issue(str(region.hospital()), usages=CLIENT)
    region.trust_list.denied_certificate_sha256.append(credential.sha256)
    with refused(Reason.CALLER_CERTIFICATE_REVOKED):
        authenticate(credential, region)


def a_withdrawn_institution_is_refused() -> None:
    region = Region.create(HOME)
    hospital = region.hospital()
    region.entry(hospital).status = region.entry(hospital).STATUS_WITHDRAWN
    credential = region.transport.issue(str(hospital), usages=CLIENT)
    with refused(Reason.INSTITUTION_NOT_ACTIVE):
        authenticate(credential, region)


def an_older_list_is_refused() -> None:
    region = Region.create(HOME)
    old = region.signed_list()
    region.trust_list.sequence += 1
    store = trust_store(region)
    with pytest.raises(TrustListRefused):
        store.offer(old, NOW)


def a_method_without_a_policy_is_refused() -> None:
    with pytest.raises(policy.PolicyError):
        policy.policies_of([health_pb2.DESCRIPTOR.services_by_name["Health"]])


# --- what is signed -------------------------------------------------------------------------------


def verify(cast: Cast, statement: SignedStatement, kind: Any) -> None:
    Verifier(cast.trust()).verify(statement, kind, NOW)


def unknown_fields_are_refused() -> None:
    cast = Cast.create()
    content = cast.prescription().SerializeToString() + b"\xfa\x7f\x01x"
    (first, prescriber), *others = cast.sheet(Prescription)
    payload_type = rule_for(Prescription).payload_type
    statement = sign(content, payload_type, prescriber.signer, first, NOW, HOME)
    for role, credential in others:
        statement = add_signature(statement, credential.signer, role, NOW)
    with refused(Reason.STATEMENT_MALFORMED):
        verify(cast, statement, Prescription)


def a_seal_covers_the_signatures_before_it() -> None:
    cast = Cast.create()
    mine, other = cast.statement(Prescription), cast.statement(Prescription)
    mine.signatures[0].CopyFrom(other.signatures[0])
    with refused(Reason.SIGNATURE_INVALID, Reason.SIGNATURE_MISSING):
        verify(cast, mine, Prescription)


def nobody_signs_in_a_role_that_is_not_theirs() -> None:
    cast = Cast.create()
    sheet = [
        (SIGNER_ROLE_DISPENSER, cast.checker),
        (SIGNER_ROLE_PHARMACY_SEAL, cast.pharmacy_seal),
    ]
    with refused(Reason.SIGNER_UNTRUSTED):
        verify(cast, signed(cast.message(Claim), sheet), Claim)


def any_role_will_do(part: Any, region: Any) -> Any:
    return region.signer(part.header.certificate_sha256)


def one_person_does_not_play_two() -> None:
    cast = Cast.create()
    both = cast.region.person(
        cast.pharmacy, "R009", SIGNER_ROLE_REVIEWING_PHARMACIST, SIGNER_ROLE_DISPENSER
    )
    sheet = [
        (SIGNER_ROLE_REVIEWING_PHARMACIST, both),
        (SIGNER_ROLE_DISPENSER, both),
        (SIGNER_ROLE_CHECKER, cast.checker),
        (SIGNER_ROLE_PHARMACY_SEAL, cast.pharmacy_seal),
    ]
    with refused(Reason.SIGNERS_NOT_DISTINCT):
        verify(cast, signed(cast.message(DispenseRecord), sheet), DispenseRecord)


def an_algorithm_that_the_region_does_not_allow_is_refused() -> None:
    cast = Cast.create()
    cast.region.trust_list.algorithms[:] = [SIGNATURE_ALGORITHM_ED25519]
    with refused(Reason.SIGNER_UNTRUSTED):
        verify(cast, cast.statement(Prescription), Prescription)


def what_was_changed_does_not_verify() -> None:
    cast = Cast.create()
    statement = cast.statement(Prescription)
    statement.payload = statement.payload.replace("高血压病".encode(), "高血脂病".encode())
    with refused(Reason.SIGNATURE_INVALID):
        verify(cast, statement, Prescription)


def a_seal_of_another_hospital_is_refused() -> None:
    cast = Cast.create()
    content = cast.prescription()
    content.issuer.institution_code = cast.region.hospital().institution_code
    with refused(Reason.SIGNED_CONTENT_MISMATCH):
        verify(cast, signed(content, cast.sheet(Prescription)), Prescription)


# --- what is asked --------------------------------------------------------------------------------


def in_a_world(attack: Callable[[World], Any]) -> Check:
    """A check over three regions."""

    def check() -> None:
        asyncio.run(attack(World.create(HOME, DISPENSING, PAYER)))

    return check


async def another_request_under_the_same_id(world: World) -> None:
    _, code = await world.issue(HOME, PAYER)
    platform = world.platforms[DISPENSING]
    first = world.claim_request(DISPENSING, code)
    await claims.claim(platform.exchange, platform.pharmacy, first)
    other = world.claim_request(DISPENSING, code, request_id=first.request_id)
    with refused(Reason.REQUEST_ID_REUSED):
        await claims.claim(platform.exchange, platform.pharmacy, other)


async def a_wrong_pickup_code(world: World) -> None:
    _, code = await world.issue(HOME, PAYER)
    with refused(Reason.PICKUP_CODE_INVALID):
        await world.claim(DISPENSING, code[:-1] + ("0" if code[-1] != "0" else "1"))


async def a_claim_at_the_very_end(world: World) -> None:
    content = world.prescription(HOME, PAYER)
    code = await world.register(HOME, content)
    world.clock.now = content.expire_time.ToDatetime(tzinfo=UTC)
    with refused(Reason.PRESCRIPTION_EXPIRED):
        await world.claim(DISPENSING, code)


def valid_through_the_end(prescription: home.Prescription, now: Any) -> Validity:
    return Validity.EXPIRED if now > prescription.expire_time else prescription.validity


async def a_platform_speaks_for_a_neighbours_pharmacy(world: World) -> None:
    _, code = await world.issue(HOME, PAYER)
    asked = world.claim_request(DISPENSING, code)
    request = GrantClaimRequest(
        request_id=asked.request_id, claim=asked.claim, pickup_code=asked.pickup_code
    )
    neighbour = world.platforms[PAYER].cast.region.platform
    with refused(Reason.CALLER_REGION_NOT_ALLOWED):
        await world.platforms[HOME].desk.grant_claim(neighbour, request)


def whoever_forwards(region: Any, caller: CallerName, pharmacy_code: str) -> Any:
    return region.require_active(pharmacy_code[1:7], pharmacy_code)


class _Anything:
    """A key under which every signature verifies."""

    algorithm = SIGNATURE_ALGORITHM_ECDSA_P256_SHA256

    def verify(self, _value: bytes, _data: bytes) -> None:
        return


ANYBODY = policy.MethodPolicy(frozenset(CallerKind), own_region=False, own_institution=False)

PLANTS: dict[str, tuple[Plant, Check]] = {
    "fall back to the common name": (
        patched(identity, "caller_name", fall_back_to_the_common_name),
        a_common_name_grants_nothing,
    ),
    "take the first of two names": (
        patched(identity, "caller_name", take_the_first_name),
        two_names_are_none,
    ),
    "merge the regions' anchors": (merge_the_regions, a_neighbour_cannot_mint_our_hospitals),
    "ignore the deny list": (
        patched(trust.RegionTrust, "is_denied", lambda *_: False),
        a_denied_caller_is_refused,
    ),
    "let whoever has withdrawn go on": (
        patched(identity, "_check_institution", nothing),
        a_withdrawn_institution_is_refused,
    ),
    "take an older trust list": (
        patched(trust, "_supersedes", lambda *_: True),
        an_older_list_is_refused,
    ),
    "let a method pass that has no policy": (
        patched(policy, "_policy_of", lambda _: ANYBODY),
        a_method_without_a_policy_is_refused,
    ),
    "take unknown fields": (
        patched(verification, "check_payload", nothing),
        unknown_fields_are_refused,
    ),
    "leave earlier signatures uncovered": (
        patched(envelope, "_check_priors", nothing),
        a_seal_covers_the_signatures_before_it,
    ),
    "forget the roles": (
        patched(verification, "_listed_signer", any_role_will_do),
        nobody_signs_in_a_role_that_is_not_theirs,
    ),
    "forget that people must differ": (
        patched(verification, "_check_distinct", nothing),
        one_person_does_not_play_two,
    ),
    "believe the message's algorithm": (
        patched(verification, "_check_algorithm", nothing),
        an_algorithm_that_the_region_does_not_allow_is_refused,
    ),
    "forget to verify": (
        patched(verification, "verification_key", lambda _: _Anything()),
        what_was_changed_does_not_verify,
    ),
    "do not ask who the content says it is from": (
        patched(verification, "_check_binding", nothing),
        a_seal_of_another_hospital_is_refused,
    ),
    "idempotency without a digest": (
        patched(idempotency, "_require_same", nothing),
        in_a_world(another_request_under_the_same_id),
    ),
    "take any pickup secret": (
        patched(hmac, "compare_digest", lambda *_: True),
        in_a_world(a_wrong_pickup_code),
    ),
    "inclusive expiry": (
        patched(home.Prescription, "validity_at", valid_through_the_end),
        in_a_world(a_claim_at_the_very_end),
    ),
    "let a platform speak for any pharmacy": (
        patched(attempts, "_require_pharmacy", whoever_forwards),
        in_a_world(a_platform_speaks_for_a_neighbours_pharmacy),
    ),
}


@pytest.mark.parametrize("name", PLANTS)
def test_the_code_as_it_is_withstands(name: str) -> None:
    PLANTS[name][1]()


def test_every_planted_bug_is_caught(ran: Ran) -> None:
    missed = []
    for name, (plant, check) in PLANTS.items():
        with pytest.MonkeyPatch.context() as monkeypatch:
            plant(monkeypatch)
            try:
                check()
            except (AssertionError, pytest.fail.Exception):
                continue
            missed.append(name)
    assert missed == []
    ran("L12 planted bugs of trust, every one caught", len(PLANTS), FLOOR)
