"""Statements: what verifies, and every way in which one is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from itertools import permutations
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from google.protobuf.message import Message

from rxoutflow.identity import CallerKind, KeyPurpose, SignerName
from rxoutflow.statements import (
    FileSigner,
    SignatureInvalid,
    SignatureMissing,
    SignedContentMismatch,
    SignersNotDistinct,
    SignerUntrusted,
    SignerUnusable,
    StatementError,
    StatementMalformed,
    StatementTypeUnexpected,
    Verified,
    Verifier,
    add_signature,
    new_statement,
    pae,
    read_statement,
    sign,
    statement_sha256,
)
from rxoutflow.statements.payloads import RULES, Role, rule_for
from rxoutflow.v1.attempt_pb2 import Attempt, Claim, ClaimRelease, Commitment, LineQuantity
from rxoutflow.v1.dispense_pb2 import DispenseRecord
from rxoutflow.v1.error_reason_pb2 import ErrorReason
from rxoutflow.v1.prescription_pb2 import Prescription
from rxoutflow.v1.prescription_status_pb2 import PrescriptionStatus, Revocation
from rxoutflow.v1.settlement_pb2 import Pricing, Quote, Settlement
from rxoutflow.v1.statement_pb2 import (
    SIGNATURE_ALGORITHM_ECDSA_P256_SHA256,
    SIGNATURE_ALGORITHM_ED25519,
    SIGNER_ROLE_CHECKER,
    SIGNER_ROLE_DISPENSER,
    SIGNER_ROLE_HOSPITAL_SEAL,
    SIGNER_ROLE_PHARMACY_SEAL,
    SIGNER_ROLE_PLATFORM,
    SIGNER_ROLE_PRESCRIBER,
    SIGNER_ROLE_REGISTRY,
    SIGNER_ROLE_REVIEWING_PHARMACIST,
    ProtectedHeader,
    SignedStatement,
)
from rxoutflow.v1.trust_pb2 import Institution, TrustList
from support.pki import BEGIN, CLIENT, END, NOW, Authority, Credential, Region, ed, trust_store
from support.sheets import KINDS, Cast, Sheet, signed

VERIFIABLE = [kind for kind in KINDS if kind is not TrustList]
UNENCRYPTED = NoEncryption()
HOME, ELSEWHERE = "350200", "440300"


@pytest.fixture(scope="module")
def cast() -> Cast:
    """Shared: tests that change the trust list make a cast of their own."""
    return Cast.create(HOME)


@pytest.fixture(scope="module")
def verifier(cast: Cast) -> Verifier:
    return Verifier(cast.trust())


def named(kind: type[Message]) -> str:
    return kind.__name__


def refused(
    verifier: Verifier, statement: SignedStatement, kind: type[Message] = Prescription
) -> StatementError:
    with pytest.raises(StatementError) as error:
        verifier.verify(statement, kind, NOW)
    return error.value


# what verifies


@pytest.mark.parametrize("kind", VERIFIABLE, ids=named)
def test_a_statement_of_every_kind_verifies(
    kind: type[Message], cast: Cast, verifier: Verifier
) -> None:
    statement = cast.statement(kind)
    verified = verifier.verify(statement, kind, NOW, HOME)
    assert verified.content == cast.message(kind)
    assert [signer.role for signer in verified.signers] == [role for role, _ in cast.sheet(kind)]
    assert verified.sha256 == statement_sha256(statement)


def test_who_signed_comes_from_the_trust_list(cast: Cast, verifier: Verifier) -> None:
    verified = verifier.verify(cast.statement(Prescription), Prescription, NOW)
    prescriber, _, seal = verified.signers
    assert prescriber.person_code == prescriber.display_name == "D001"
    assert prescriber.sign_time == NOW
    assert (seal.person_code, seal.display_name) == ("", "seal")
    assert {each.institution_code for each in verified.signers} == {cast.hospital.institution_code}
    assert {each.region_code for each in verified.signers} == {HOME}


def test_a_claim_may_be_signed_by_either_pharmacist(cast: Cast, verifier: Verifier) -> None:
    for role, who in (
        (SIGNER_ROLE_REVIEWING_PHARMACIST, cast.pharmacist),
        (SIGNER_ROLE_DISPENSER, cast.dispenser),
    ):
        sheet = [(role, who), (SIGNER_ROLE_PHARMACY_SEAL, cast.pharmacy_seal)]
        verifier.verify(signed(cast.message(Claim), sheet), Claim, NOW)


def test_a_statement_verifies_after_a_journey_through_bytes(cast: Cast, verifier: Verifier) -> None:
    statement = cast.statement(Prescription)
    arrived = read_statement(statement.SerializeToString())
    assert verifier.verify(arrived, Prescription, NOW).sha256 == statement_sha256(statement)


def test_ed25519_keys_and_intermediate_authorities_verify() -> None:
    cast = Cast.create()
    region = cast.region
    doctor = region.person(cast.hospital, "D007", SIGNER_ROLE_PRESCRIBER, key=ed())
    region.signing = region.signing.subordinate("people").subordinate("pharmacists")
    reviewer = region.person(cast.hospital, "R007", SIGNER_ROLE_REVIEWING_PHARMACIST, key=ed())
    message = cast.prescription()
    message.issuer.prescriber.person_code = "D007"
    message.issuer.reviewing_pharmacist.person_code = "R007"
    statement = signed(message, hospital_sheet(cast, prescriber=doctor, reviewer=reviewer))
    assert Verifier(cast.trust()).verify(statement, Prescription, NOW).content == message


def hospital_sheet(
    cast: Cast,
    prescriber: Credential | None = None,
    reviewer: Credential | None = None,
    seal: Credential | None = None,
) -> Sheet:
    return [
        (SIGNER_ROLE_PRESCRIBER, prescriber or cast.prescriber),
        (SIGNER_ROLE_REVIEWING_PHARMACIST, reviewer or cast.hospital_pharmacist),
        (SIGNER_ROLE_HOSPITAL_SEAL, seal or cast.hospital_seal),
    ]


def test_every_reason_is_in_the_error_catalogue() -> None:
    reasons = {error.reason for error in StatementError.__subclasses__()}
    assert len(reasons) == 7
    assert {f"ERROR_REASON_{reason}" for reason in reasons} <= set(ErrorReason.keys())


# one kind shown as another


@pytest.mark.parametrize(("kind", "other"), list(permutations(KINDS, 2)), ids=named)
def test_no_kind_passes_for_another(
    kind: type[Message], other: type[Message], cast: Cast, verifier: Verifier
) -> None:
    statement = cast.statement(kind)
    error = refused(verifier, statement, other)
    assert isinstance(error, StatementTypeUnexpected)
    assert error.detail == {"expected": rule_for(other).payload_type}
    statement.payload_type = rule_for(other).payload_type
    assert isinstance(
        refused(verifier, statement, other), SignatureInvalid | SignatureMissing | SignerUntrusted
    )


def test_a_relabelled_statement_of_the_same_signers_has_no_valid_signature(
    cast: Cast, verifier: Verifier
) -> None:
    release = cast.statement(ClaimRelease)
    release.payload_type = rule_for(Commitment).payload_type
    assert isinstance(refused(verifier, release, Commitment), SignatureInvalid)


def test_a_trust_list_is_never_verified_as_a_statement_of_business(
    cast: Cast, verifier: Verifier
) -> None:
    assert isinstance(refused(verifier, cast.statement(TrustList), TrustList), SignerUntrusted)


def test_payload_types_are_distinct_and_only_table_messages_are_statements(
    verifier: Verifier, cast: Cast
) -> None:
    assert len({rule.payload_type for rule in RULES}) == len(RULES)
    with pytest.raises(TypeError, match="not a statement"):
        verifier.verify(cast.statement(Claim), LineQuantity, NOW)


# stripping, swapping, re-sealing


@pytest.mark.parametrize("kind", VERIFIABLE, ids=named)
def test_no_signature_can_be_stripped(kind: type[Message], cast: Cast, verifier: Verifier) -> None:
    for index in range(len(cast.sheet(kind))):
        statement = cast.statement(kind)
        del statement.signatures[index]
        assert isinstance(refused(verifier, statement, kind), SignatureMissing)


def test_a_stripped_signature_is_named(cast: Cast, verifier: Verifier) -> None:
    statement = cast.statement(Prescription)
    del statement.signatures[1]
    error = refused(verifier, statement)
    assert error.detail == {"role": "REVIEWING_PHARMACIST"}
    assert "PRESCRIBER, REVIEWING_PHARMACIST, HOSPITAL_SEAL in this order" in error.message


@pytest.mark.parametrize("order", list(permutations(range(3)))[1:], ids=str)
def test_signatures_cannot_change_places(
    order: tuple[int, ...], cast: Cast, verifier: Verifier
) -> None:
    statement = cast.statement(Prescription)
    shuffled = [statement.signatures[index] for index in order]
    del statement.signatures[:]
    statement.signatures.extend(shuffled)
    assert isinstance(refused(verifier, statement), SignatureMissing)


@pytest.mark.parametrize("index", range(3))
def test_no_signature_can_be_swapped_for_one_of_another_statement(
    index: int, cast: Cast, verifier: Verifier
) -> None:
    statement, message = cast.statement(Prescription), cast.prescription()
    message.note = "another"
    other = signed(message, cast.sheet(Prescription))
    statement.signatures[index].CopyFrom(other.signatures[index])
    assert isinstance(refused(verifier, statement), SignatureInvalid)


def test_a_seal_covers_the_very_signatures_below_it(cast: Cast, verifier: Verifier) -> None:
    """ECDSA is randomised: signing the same again makes another signature of the same person."""
    one, other = cast.statement(Prescription), cast.statement(Prescription)
    one.signatures[0].CopyFrom(other.signatures[0])
    error = refused(verifier, one)
    assert isinstance(error, SignatureInvalid)
    assert error.detail == {"role": "REVIEWING_PHARMACIST"}


def test_a_seal_cannot_be_used_again_without_a_reviewer(cast: Cast, verifier: Verifier) -> None:
    people = signed(cast.prescription(), cast.sheet(Prescription)[:1])
    resealed = add_signature(people, cast.hospital_seal.signer, SIGNER_ROLE_HOSPITAL_SEAL, NOW)
    assert isinstance(refused(verifier, resealed), SignatureMissing)


def test_a_changed_prescription_cannot_be_sealed_anew(cast: Cast, verifier: Verifier) -> None:
    statement, message = cast.statement(Prescription), cast.prescription()
    message.lines[0].quantity = 280
    del statement.signatures[2]
    statement.payload = message.SerializeToString()
    resealed = add_signature(statement, cast.hospital_seal.signer, SIGNER_ROLE_HOSPITAL_SEAL, NOW)
    error = refused(verifier, resealed)
    assert isinstance(error, SignatureInvalid)
    assert error.detail == {"role": "PRESCRIBER"}


def test_another_hospital_cannot_seal_what_it_did_not_issue() -> None:
    cast = Cast.create()
    relay = cast.region.seal(cast.region.hospital())
    statement = signed(cast.prescription(), hospital_sheet(cast, seal=relay))
    error = refused(Verifier(cast.trust()), statement)
    assert isinstance(error, SignedContentMismatch)
    assert error.detail["field"] == "signatures[2].protected.institution_code"


def test_another_region_cannot_seal_what_it_only_relays(cast: Cast) -> None:
    relay = Cast.create(ELSEWHERE)
    statement = signed(cast.prescription(), hospital_sheet(cast, seal=relay.hospital_seal))
    error = refused(Verifier(trust_store(cast.region, relay.region)), statement)
    assert isinstance(error, SignedContentMismatch)
    assert error.detail["field"] == "signatures[2].protected.region_code"


def test_a_signature_beyond_those_needed_is_refused(cast: Cast, verifier: Verifier) -> None:
    statement = cast.statement(Attempt)
    more = add_signature(statement, cast.platform_seal.signer, SIGNER_ROLE_PLATFORM, NOW)
    error = refused(verifier, more, Attempt)
    assert isinstance(error, SignatureMissing)
    assert "no others" in error.message


def test_a_statement_without_signatures_is_refused(cast: Cast, verifier: Verifier) -> None:
    statement = cast.statement(Prescription)
    del statement.signatures[:]
    assert isinstance(refused(verifier, statement), SignatureMissing)


# damage


def damaged(data: bytes) -> Iterator[bytes]:
    for index in range(len(data)):
        yield data[:index] + bytes([data[index] ^ 1]) + data[index + 1 :]


def test_no_bit_of_the_payload_can_change(cast: Cast, verifier: Verifier) -> None:
    statement = cast.statement(Attempt)
    verifier.verify(statement, Attempt, NOW)
    for payload in damaged(statement.payload):
        statement.payload = payload
        assert isinstance(refused(verifier, statement, Attempt), SignatureInvalid)


def test_no_bit_of_a_signature_value_can_change(cast: Cast, verifier: Verifier) -> None:
    statement = cast.statement(Attempt)
    verifier.verify(statement, Attempt, NOW)
    for value in damaged(statement.signatures[0].value):
        statement.signatures[0].value = value
        assert isinstance(refused(verifier, statement, Attempt), SignatureInvalid)


def test_no_bit_of_a_header_can_change(cast: Cast, verifier: Verifier) -> None:
    statement = cast.statement(Attempt)
    verifier.verify(statement, Attempt, NOW)
    for protected in damaged(statement.signatures[0].protected):
        statement.signatures[0].protected = protected
        refused(verifier, statement, Attempt)


def test_no_bit_of_the_certificate_can_change(cast: Cast, verifier: Verifier) -> None:
    statement = cast.statement(Attempt)
    verifier.verify(statement, Attempt, NOW)
    (leaf,) = statement.signatures[0].certificate_chain
    for certificate in damaged(leaf):
        statement.signatures[0].certificate_chain[0] = certificate
        assert isinstance(refused(verifier, statement, Attempt), SignatureInvalid)


def test_what_is_remembered_of_a_statement_does_not_change_with_it(
    cast: Cast, verifier: Verifier
) -> None:
    statement = cast.statement(Attempt)
    same = SignedStatement.FromString(statement.SerializeToString())
    verifier.verify(statement, Attempt, NOW)
    statement.signatures[0].certificate_chain[0] = b"another"
    assert verifier.verify(same, Attempt, NOW).signers[0].role == SIGNER_ROLE_PLATFORM


def test_bytes_that_are_appended_are_not_ignored(cast: Cast, verifier: Verifier) -> None:
    statement = cast.statement(Attempt)
    verifier.verify(statement, Attempt, NOW)
    statement.payload += b"\x18\x01"
    assert isinstance(refused(verifier, statement, Attempt), SignatureInvalid)


def test_a_signed_payload_in_ambiguous_form_is_still_refused(
    cast: Cast, verifier: Verifier
) -> None:
    """The signer itself shows one fence to some parsers and another one to others."""
    payload = cast.message(Attempt).SerializeToString() + b"\x18\x01\x18\x02"
    statement = sign(
        payload,
        rule_for(Attempt).payload_type,
        cast.platform_seal.signer,
        SIGNER_ROLE_PLATFORM,
        NOW,
        "*",
    )
    error = refused(verifier, statement, Attempt)
    assert isinstance(error, StatementMalformed)
    assert error.detail == {"field": "fence"}


# the envelope


def with_unknown_field(statement: SignedStatement) -> None:
    statement.MergeFromString(b"\xf8\x07\x01")


def with_unknown_field_in_signature(statement: SignedStatement) -> None:
    statement.signatures[0].MergeFromString(b"\xf8\x07\x01")


def without_certificate(statement: SignedStatement) -> None:
    del statement.signatures[0].certificate_chain[:]


def with_five_certificates(statement: SignedStatement) -> None:
    statement.signatures[0].certificate_chain.extend([b"any"] * 4)


def with_a_huge_certificate(statement: SignedStatement) -> None:
    statement.signatures[0].certificate_chain.append(bytes(20_000))


def with_a_header_that_is_not_one(statement: SignedStatement) -> None:
    statement.signatures[0].protected = b"\xff\xff"


def with_a_huge_header(statement: SignedStatement) -> None:
    statement.signatures[0].protected += bytes(3000)


def with_a_header_field_twice(statement: SignedStatement) -> None:
    statement.signatures[0].protected += b"\x08\x01"


@pytest.mark.parametrize(
    ("spoil", "field"),
    [
        (with_unknown_field, "statement"),
        (with_unknown_field_in_signature, "signatures[0]"),
        (without_certificate, "signatures[0].certificate_chain"),
        (with_five_certificates, "signatures[0].certificate_chain"),
        (with_a_huge_certificate, "signatures[0].certificate_chain"),
        (with_a_header_that_is_not_one, "signatures[0].protected"),
        (with_a_huge_header, "signatures[0].protected"),
        (with_a_header_field_twice, "signatures[0].protected.algorithm"),
    ],
)
def test_a_spoiled_envelope_is_malformed(
    spoil: Callable[[SignedStatement], None], field: str, cast: Cast, verifier: Verifier
) -> None:
    statement = cast.statement(Attempt)
    spoil(statement)
    error = refused(verifier, statement, Attempt)
    assert isinstance(error, StatementMalformed)
    assert error.detail == {"field": field}


def test_a_serialised_statement_in_ambiguous_form_is_refused(cast: Cast) -> None:
    data = cast.statement(Attempt).SerializeToString()
    with pytest.raises(StatementMalformed):
        read_statement(data + b"\x0a\x00")


# headers that say something else


def restate(
    statement: SignedStatement, signer: Credential, change: Callable[[ProtectedHeader], object]
) -> SignedStatement:
    """The statement with its last header changed and signed again with the signer's own key."""
    last = statement.signatures[-1]
    header = ProtectedHeader.FromString(last.protected)
    change(header)
    last.protected = header.SerializeToString()
    last.value = signer.signer.sign(pae(statement.payload_type, last.protected, statement.payload))
    return statement


def set_field(name: str, value: object) -> Callable[[ProtectedHeader], object]:
    return lambda header: setattr(header, name, value)


@pytest.mark.parametrize(
    ("change", "expected", "detail"),
    [
        (set_field("algorithm", 0), StatementMalformed, {"field": "algorithm"}),
        (set_field("role", 0), StatementMalformed, {"field": "role"}),
        (set_field("audience", ""), StatementMalformed, {"field": "audience"}),
        (set_field("region_code", ""), StatementMalformed, {"field": "region_code"}),
        (set_field("institution_code", ""), StatementMalformed, {"field": "institution_code"}),
        (set_field("certificate_sha256", b""), StatementMalformed, {"field": "certificate_sha256"}),
        (lambda h: h.ClearField("sign_time"), StatementMalformed, {"field": "sign_time"}),
        (lambda h: setattr(h.sign_time, "nanos", -1), StatementMalformed, {"field": "sign_time"}),
        (
            lambda h: setattr(h.sign_time, "seconds", 2**62),
            StatementMalformed,
            {"field": "sign_time"},
        ),
        (set_field("algorithm", SIGNATURE_ALGORITHM_ED25519), SignatureInvalid, {}),
        (set_field("algorithm", 3), SignatureInvalid, {}),
        (set_field("certificate_sha256", bytes(32)), SignatureInvalid, {}),
        (
            lambda h: h.prior_signature_sha256.append(bytes(32)),
            SignatureInvalid,
            {"role": "PLATFORM"},
        ),
        (set_field("role", SIGNER_ROLE_REGISTRY), SignatureMissing, {"role": "PLATFORM"}),
        (set_field("region_code", ELSEWHERE), SignerUntrusted, {"region": ELSEWHERE}),
        (set_field("institution_code", "350201"), SignerUntrusted, {"region": HOME}),
        (set_field("audience", HOME), SignedContentMismatch, {"field": "audience"}),
        (set_field("audience", "anyone"), SignedContentMismatch, {"field": "audience"}),
    ],
)
def test_a_signer_cannot_say_something_else_in_the_header(
    change: Callable[[ProtectedHeader], object],
    expected: type[StatementError],
    detail: dict[str, str],
    cast: Cast,
    verifier: Verifier,
) -> None:
    error = refused(verifier, restate(cast.statement(Attempt), cast.platform_seal, change), Attempt)
    assert isinstance(error, expected)
    if expected is StatementMalformed:
        detail = {"field": f"signatures[0].protected.{detail['field']}"}
    assert detail.items() <= error.detail.items()


def test_a_signers_clock_may_be_ten_minutes_ahead_and_no_more(
    cast: Cast, verifier: Verifier
) -> None:
    message, sheet = cast.message(Attempt), cast.sheet(Attempt)
    ahead = NOW + timedelta(minutes=10)
    verifier.verify(signed(message, sheet, at=ahead), Attempt, NOW)
    error = refused(verifier, signed(message, sheet, at=ahead + timedelta(seconds=1)), Attempt)
    assert isinstance(error, SignedContentMismatch)
    assert error.detail["field"] == "signatures[0].protected.sign_time"


def test_a_signature_from_before_the_certificate_is_refused(cast: Cast, verifier: Verifier) -> None:
    early = signed(cast.message(Attempt), cast.sheet(Attempt), at=BEGIN - timedelta(seconds=1))
    assert isinstance(refused(verifier, early, Attempt), SignerUntrusted)


# whom the region vouches for


def platform_attempt(cast: Cast, signer: Credential) -> SignedStatement:
    return signed(cast.message(Attempt), [(SIGNER_ROLE_PLATFORM, signer)])


def untrusted(cast: Cast, signer: Credential) -> SignerUntrusted:
    error = refused(Verifier(cast.trust()), platform_attempt(cast, signer), Attempt)
    assert isinstance(error, SignerUntrusted)
    assert error.detail == {"role": "PLATFORM", "region": HOME}
    return error


def seal_name(cast: Cast) -> SignerName:
    return SignerName(cast.region.platform, KeyPurpose.SEAL)


def test_a_certificate_that_is_not_listed_is_refused_though_its_authority_is_trusted() -> None:
    cast = Cast.create()
    unlisted = cast.region.signing.issue(str(seal_name(cast)))
    assert "not on the trust list" in untrusted(cast, unlisted).message


def test_a_certificate_of_an_unknown_authority_is_refused_though_it_is_listed() -> None:
    cast = Cast.create()
    stranger = Authority.create(f"{HOME} signing").issue(str(seal_name(cast)))
    cast.region.list_signer(stranger, seal_name(cast), SIGNER_ROLE_PLATFORM)
    assert "anchor" in untrusted(cast, stranger).message


def test_a_certificate_of_another_regions_authority_is_refused_though_both_are_trusted() -> None:
    cast, elsewhere = Cast.create(), Region.create(ELSEWHERE)
    foreign = elsewhere.signing.issue(str(seal_name(cast)))
    cast.region.list_signer(foreign, seal_name(cast), SIGNER_ROLE_PLATFORM)
    verifier = Verifier(trust_store(cast.region, elsewhere))
    assert isinstance(refused(verifier, platform_attempt(cast, foreign), Attempt), SignerUntrusted)


def test_a_certificate_of_the_transport_pki_signs_nothing() -> None:
    cast = Cast.create()
    tls = cast.region.transport.issue(str(seal_name(cast)))
    cast.region.list_signer(tls, seal_name(cast), SIGNER_ROLE_PLATFORM)
    untrusted(cast, tls)


def test_a_certificate_that_is_usable_for_tls_signs_nothing() -> None:
    cast = Cast.create()
    dual = cast.region.signing.issue(str(seal_name(cast)), usages=CLIENT)
    cast.region.list_signer(dual, seal_name(cast), SIGNER_ROLE_PLATFORM)
    assert "must not allow TLS" in untrusted(cast, dual).message


@pytest.mark.parametrize(
    "uri",
    [
        f"spiffe://{HOME}.rxoutflow/platform/{HOME}",
        f"spiffe://{HOME}.rxoutflow/platform/{HOME}/registry",
        f"spiffe://{HOME}.rxoutflow/platform/{HOME}/person/D001",
        f"spiffe://{HOME}.rxoutflow/operator/{HOME}/seal",
        f"spiffe://{HOME}.rxoutflow/hospital/H35020000001/seal",
        f"spiffe://{ELSEWHERE}.rxoutflow/platform/{ELSEWHERE}/seal",
    ],
)
def test_a_listed_certificate_must_name_its_holder(uri: str) -> None:
    """The signer claims to be the platform; its certificate was issued for something else."""
    cast = Cast.create()
    name = seal_name(cast)
    credential = cast.region.list_signer(cast.region.signing.issue(uri), name, SIGNER_ROLE_PLATFORM)
    statement = platform_attempt(cast, cast.platform_seal)
    signature = statement.signatures[0]
    signature.certificate_chain[:] = credential.signer.certificate_chain
    restate(statement, credential, set_field("certificate_sha256", credential.sha256))
    error = refused(Verifier(cast.trust()), statement, Attempt)
    assert isinstance(error, SignerUntrusted)
    said = ("names another signer", "not acceptable: the URI", "is not of a platform")
    assert any(words in error.message for words in said)


def test_a_certificate_with_two_names_signs_nothing() -> None:
    cast = Cast.create()
    name = str(seal_name(cast))
    double = cast.region.signing.issue(name, name.replace("/seal", "/registry"))
    cast.region.list_signer(double, seal_name(cast), SIGNER_ROLE_PLATFORM)
    statement = platform_attempt(cast, cast.platform_seal)
    statement.signatures[0].certificate_chain[:] = double.signer.certificate_chain
    restate(statement, double, set_field("certificate_sha256", double.sha256))
    error = refused(Verifier(cast.trust()), statement, Attempt)
    assert isinstance(error, SignerUntrusted)
    assert "2 URI names" in error.message


def test_a_person_signs_only_in_the_roles_on_the_list(cast: Cast, verifier: Verifier) -> None:
    statement = signed(
        cast.prescription(), hospital_sheet(cast, prescriber=cast.hospital_pharmacist)
    )
    error = refused(verifier, statement)
    assert isinstance(error, SignerUntrusted)
    assert error.detail["role"] == "PRESCRIBER"


def test_a_pharmacys_pharmacist_does_not_review_for_a_hospital() -> None:
    cast = Cast.create()
    people = [(SIGNER_ROLE_REVIEWING_PHARMACIST, cast.hospital_pharmacist)]
    error_message = signed(cast.message(Claim), people)
    with pytest.raises(SignerUntrusted, match="not of a pharmacy"):
        Verifier(cast.trust()).verify(
            error_message, Claim, NOW, roles=[SIGNER_ROLE_REVIEWING_PHARMACIST]
        )


def test_the_person_on_the_list_must_be_the_person_in_the_certificate() -> None:
    cast = Cast.create()
    (entry,) = (each for each in cast.region.trust_list.signers if each.person_code == "D001")
    entry.person_code = "D999"
    assert isinstance(
        refused(Verifier(cast.trust()), cast.statement(Prescription)), SignerUntrusted
    )


def test_a_person_signs_only_for_the_institution_on_the_list() -> None:
    """The certificate still names the hospital that the person has left."""
    cast = Cast.create()
    (entry,) = (each for each in cast.region.trust_list.signers if each.person_code == "D001")
    entry.institution_code = cast.region.hospital().institution_code
    error = refused(Verifier(cast.trust()), cast.statement(Prescription))
    assert isinstance(error, SignerUntrusted)
    assert "for this institution" in error.message


def test_a_denied_certificate_is_refused() -> None:
    cast = Cast.create()
    cast.region.deny(cast.platform_seal.certificate)
    assert "deny list" in untrusted(cast, cast.platform_seal).message


def test_a_certificate_of_a_denied_issuer_is_refused() -> None:
    cast = Cast.create()
    issuer = cast.region.signing.subordinate("lost")
    credential = issuer.issue(str(seal_name(cast)))
    cast.region.list_signer(credential, seal_name(cast), SIGNER_ROLE_PLATFORM)
    cast.region.deny(issuer.certificate)
    assert "deny list" in untrusted(cast, credential).message


def test_the_seal_of_an_institution_that_has_withdrawn_is_refused() -> None:
    cast = Cast.create()
    cast.region.entry(cast.hospital).status = Institution.STATUS_WITHDRAWN
    error = refused(Verifier(cast.trust()), cast.statement(Prescription))
    assert isinstance(error, SignerUntrusted)
    assert "withdrawn" in error.message


def test_a_suspended_institution_may_finish_what_it_began() -> None:
    cast = Cast.create()
    cast.region.entry(cast.pharmacy).status = Institution.STATUS_SUSPENDED
    Verifier(cast.trust()).verify(cast.statement(DispenseRecord), DispenseRecord, NOW)


def test_an_algorithm_that_the_region_does_not_allow_is_refused() -> None:
    cast = Cast.create()
    credential = cast.region.seal(cast.region.platform, key=ed())
    cast.region.trust_list.algorithms[:] = [SIGNATURE_ALGORITHM_ECDSA_P256_SHA256]
    assert "algorithm" in untrusted(cast, credential).message


def test_without_a_trust_list_of_the_signers_region_nothing_verifies(cast: Cast) -> None:
    verifier = Verifier(trust_store(Region.create(ELSEWHERE)))
    assert isinstance(refused(verifier, cast.statement(Attempt), Attempt), SignerUntrusted)


def test_a_lapsed_trust_list_verifies_nothing(cast: Cast, verifier: Verifier) -> None:
    with pytest.raises(SignerUntrusted, match="lapsed"):
        verifier.verify(cast.statement(Attempt), Attempt, NOW + timedelta(days=8))


# time


def long_lived(cast: Cast) -> Verifier:
    """The region's list and registry outlive the certificates of its signers."""
    region = cast.region
    name = str(SignerName(region.platform, KeyPurpose.REGISTRY))
    region.registry = region.signing.issue(name, end=END + timedelta(days=300))
    region.trust_list.expire_time.FromDatetime(END + timedelta(days=200))
    return Verifier(cast.trust())


def test_an_expired_certificate_no_longer_signs() -> None:
    cast = Cast.create()
    verifier, later = long_lived(cast), END + timedelta(days=1)
    verifier.verify(cast.statement(Attempt), Attempt, NOW)
    for time in (NOW, later):
        statement = signed(cast.message(Attempt), cast.sheet(Attempt), at=time)
        with pytest.raises(SignerUntrusted):
            verifier.verify(statement, Attempt, later)


def test_a_statement_that_verified_before_is_judged_anew_by_time() -> None:
    cast = Cast.create()
    verifier, statement = long_lived(cast), cast.statement(Attempt)
    verifier.verify(statement, Attempt, NOW)
    with pytest.raises(SignerUntrusted):
        verifier.verify(statement, Attempt, END + timedelta(days=1))


def test_an_old_statement_is_judged_as_of_when_a_log_received_it() -> None:
    cast = Cast.create()
    verifier, later = long_lived(cast), END + timedelta(days=1)
    statement = cast.statement(Attempt)
    verified = verifier.verify(statement, Attempt, later, at=NOW)
    assert verified.signers[0].sign_time == NOW
    with pytest.raises(SignedContentMismatch, match="future"):
        verifier.verify(statement, Attempt, later, at=NOW - timedelta(hours=1))


def test_a_newer_trust_list_takes_effect_though_paths_are_remembered() -> None:
    cast = Cast.create()
    store = cast.trust()
    verifier, statement = Verifier(store), cast.statement(Attempt)
    verifier.verify(statement, Attempt, NOW)
    cast.region.trust_list.signing_anchors[:] = []
    store.offer(cast.region.signed_list(sequence=2), NOW)
    assert isinstance(refused(verifier, statement, Attempt), SignerUntrusted)


def test_a_remembered_path_does_not_stand_in_for_missing_issuers() -> None:
    cast = Cast.create()
    credential = cast.region.signing.subordinate("sub").issue(str(seal_name(cast)))
    cast.region.list_signer(credential, seal_name(cast), SIGNER_ROLE_PLATFORM)
    verifier, statement = Verifier(cast.trust()), platform_attempt(cast, credential)
    verifier.verify(statement, Attempt, NOW)
    del statement.signatures[0].certificate_chain[1:]
    assert isinstance(refused(verifier, statement, Attempt), SignerUntrusted)


# different people


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [(rule.message, *pair) for rule in RULES for pair in rule.different_people],
)
def test_one_person_does_not_sign_in_two_roles_that_the_law_keeps_apart(
    kind: type[Message], one: Role, other: Role
) -> None:
    """Even with a certificate for each of them."""
    cast = Cast.create()
    institution = {
        CallerKind.HOSPITAL: cast.hospital,
        CallerKind.PHARMACY: cast.pharmacy,
        CallerKind.PLATFORM: cast.region.platform,
    }[rule_for(kind).signer_kind]
    sheet = [
        (role, cast.region.person(institution, "X1", role) if role in (one, other) else credential)
        for role, credential in cast.sheet(kind)
    ]
    message = cast.message(kind)
    if isinstance(message, Prescription):
        message.issuer.prescriber.person_code = "X1"
        message.issuer.reviewing_pharmacist.person_code = "X1"
    error = refused(Verifier(cast.trust()), signed(message, sheet), kind)
    assert isinstance(error, SignersNotDistinct)
    assert error.reason == "SIGNERS_NOT_DISTINCT"


def test_the_reviewing_pharmacist_may_also_check_the_handover() -> None:
    cast = Cast.create()
    both = cast.region.person(
        cast.pharmacy, "X1", SIGNER_ROLE_REVIEWING_PHARMACIST, SIGNER_ROLE_CHECKER
    )
    sheet = [
        (SIGNER_ROLE_REVIEWING_PHARMACIST, both),
        (SIGNER_ROLE_DISPENSER, cast.dispenser),
        (SIGNER_ROLE_CHECKER, both),
        (SIGNER_ROLE_PHARMACY_SEAL, cast.pharmacy_seal),
    ]
    statement = signed(cast.message(DispenseRecord), sheet)
    Verifier(cast.trust()).verify(statement, DispenseRecord, NOW)


# content against signers


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (Prescription, "issuer.institution_code", "H35020099999"),
        (Prescription, "issuer.prescriber.person_code", "D002"),
        (Prescription, "issuer.reviewing_pharmacist.person_code", "D001"),
        (Prescription, "prescription_number", ELSEWHERE + "0" * 24),
        (Revocation, "institution_code", "H35020099999"),
        (Revocation, "prescription_number", ELSEWHERE + "0" * 24),
        (Claim, "pharmacy_code", "P35020099999"),
        (ClaimRelease, "pharmacy_code", "P35020099999"),
        (Commitment, "pharmacy_code", "P35020099999"),
        (DispenseRecord, "pharmacy_code", ""),
        (Attempt, "prescription_number", ELSEWHERE + "0" * 24),
        (PrescriptionStatus, "prescription_number", ""),
        (Pricing, "pharmacy_code", f"P{ELSEWHERE}00001"),
        (Quote, "payer_region_code", ELSEWHERE),
        (Quote, "payer_region_code", HOME + "0"),
        (Settlement, "payer_region_code", ELSEWHERE),
    ],
)
def test_content_that_contradicts_its_signers_is_refused(
    kind: type[Message], field: str, value: str, cast: Cast, verifier: Verifier
) -> None:
    message = cast.message(kind)
    *path, last = field.split(".")
    holder: object = message
    for name in path:
        holder = getattr(holder, name)
    setattr(holder, last, value)
    error = refused(verifier, signed(message, cast.sheet(kind), audience=cast.audience(kind)), kind)
    assert isinstance(error, SignedContentMismatch)
    assert error.detail == {"field": field}


# audience


@pytest.mark.parametrize("kind", VERIFIABLE, ids=named)
def test_a_statement_is_acted_on_only_by_the_region_it_is_meant_for(
    kind: type[Message], cast: Cast, verifier: Verifier
) -> None:
    statement = cast.statement(kind)
    audience = ProtectedHeader.FromString(statement.signatures[0].protected).audience
    verifier.verify(statement, kind, NOW, None)
    verifier.verify(statement, kind, NOW, HOME)
    if audience == "*":
        verifier.verify(statement, kind, NOW, ELSEWHERE)
    else:
        with pytest.raises(SignedContentMismatch, match="not meant for this region"):
            verifier.verify(statement, kind, NOW, ELSEWHERE)


@pytest.mark.parametrize("audience", [ELSEWHERE, "*", "350200 "])
def test_a_claim_is_meant_for_the_home_region_of_its_prescription(
    audience: str, cast: Cast, verifier: Verifier
) -> None:
    (role, first), (seal_role, seal) = cast.sheet(Claim)
    payload, kind = cast.message(Claim).SerializeToString(), rule_for(Claim).payload_type
    statement = sign(payload, kind, first.signer, role, NOW, audience)
    statement = add_signature(statement, seal.signer, seal_role, NOW)
    error = refused(verifier, statement, Claim)
    assert error.detail == {"field": "audience"}


def test_all_signatures_are_meant_for_the_same_audience(cast: Cast, verifier: Verifier) -> None:
    statement = restate(cast.statement(Claim), cast.pharmacy_seal, set_field("audience", ELSEWHERE))
    assert refused(verifier, statement, Claim).detail == {"field": "audience"}


def test_a_pricing_for_anybody_is_refused(cast: Cast, verifier: Verifier) -> None:
    statement = restate(cast.statement(Pricing), cast.platform_seal, set_field("audience", "*"))
    assert refused(verifier, statement, Pricing).detail == {"field": "audience"}


# statements that are not finished


def test_peoples_signatures_verify_before_the_seal(cast: Cast, verifier: Verifier) -> None:
    people = (SIGNER_ROLE_PRESCRIBER, SIGNER_ROLE_REVIEWING_PHARMACIST)
    unsealed = signed(cast.prescription(), cast.sheet(Prescription)[:2])
    verified = verifier.verify(unsealed, Prescription, NOW, roles=people)
    assert [signer.person_code for signer in verified.signers] == ["D001", "R001"]
    drafted = signed(cast.prescription(), cast.sheet(Prescription)[:1])
    verifier.verify(drafted, Prescription, NOW, roles=people[:1])


def test_an_unfinished_statement_has_exactly_the_signatures_asked_for(
    cast: Cast, verifier: Verifier
) -> None:
    people = (SIGNER_ROLE_PRESCRIBER, SIGNER_ROLE_REVIEWING_PHARMACIST)
    for statement in (
        cast.statement(Prescription),
        signed(cast.prescription(), cast.sheet(Prescription)[:1]),
    ):
        with pytest.raises(SignatureMissing):
            verifier.verify(statement, Prescription, NOW, roles=people)


def test_an_unfinished_statement_is_held_to_all_other_rules(cast: Cast, verifier: Verifier) -> None:
    message = cast.prescription()
    message.issuer.prescriber.person_code = "D002"
    statement = signed(message, cast.sheet(Prescription)[:1])
    with pytest.raises(SignedContentMismatch):
        verifier.verify(statement, Prescription, NOW, roles=[SIGNER_ROLE_PRESCRIBER])


@pytest.mark.parametrize(
    "roles",
    [
        [],
        [SIGNER_ROLE_HOSPITAL_SEAL],
        [SIGNER_ROLE_PRESCRIBER, SIGNER_ROLE_HOSPITAL_SEAL],
        [SIGNER_ROLE_PRESCRIBER] * 4,
    ],
)
def test_a_caller_cannot_ask_for_less_than_a_beginning(
    roles: list[Role], cast: Cast, verifier: Verifier
) -> None:
    with pytest.raises(ValueError, match="do not begin"):
        verifier.verify(cast.statement(Prescription), Prescription, NOW, roles=roles)


# signing


def test_signing_never_changes_the_statement_it_adds_to(cast: Cast) -> None:
    statement = cast.statement(Claim)
    before = statement.SerializeToString(deterministic=True)
    added = add_signature(statement, cast.platform_seal.signer, SIGNER_ROLE_PLATFORM, NOW)
    assert statement.SerializeToString(deterministic=True) == before
    assert added.signatures[:2] == statement.signatures


def test_a_time_without_zone_is_not_signed(cast: Cast) -> None:
    with pytest.raises(ValueError, match="time zone"):
        signed(cast.message(Attempt), cast.sheet(Attempt), at=NOW.replace(tzinfo=None))


def test_a_signature_is_added_only_to_a_first_one(cast: Cast) -> None:
    with pytest.raises(ValueError, match="use sign"):
        add_signature(SignedStatement(), cast.platform_seal.signer, SIGNER_ROLE_PLATFORM, NOW)


def test_the_audience_is_settled_by_the_type_or_has_to_be_given(cast: Cast) -> None:
    seal = cast.platform_seal.signer
    new_statement(cast.message(Attempt), seal, SIGNER_ROLE_PLATFORM, NOW, "*")
    with pytest.raises(ValueError, match="audience"):
        new_statement(cast.message(Attempt), seal, SIGNER_ROLE_PLATFORM, NOW, HOME)
    with pytest.raises(ValueError, match="audience"):
        new_statement(cast.message(Quote), seal, SIGNER_ROLE_PLATFORM, NOW)


def test_a_tls_certificate_cannot_sign(cast: Cast) -> None:
    tls = cast.region.client(cast.hospital)
    with pytest.raises(SignerUnusable, match="cannot sign statements"):
        signed(cast.message(Attempt), [(SIGNER_ROLE_PLATFORM, tls)])


def write(
    folder: Path, credential: Credential, encryption: KeySerializationEncryption = UNENCRYPTED
) -> tuple[Path, Path]:
    chain = (credential.certificate, *credential.intermediates)
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(b"".join(each.public_bytes(Encoding.PEM) for each in chain))
    key.write_bytes(credential.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    return certificate, key


@pytest.mark.parametrize("kind", ["p256", "ed25519"])
def test_a_signer_is_read_from_files(kind: str, tmp_path: Path) -> None:
    cast = Cast.create()
    credential = cast.region.seal(cast.region.platform, key=ed() if kind == "ed25519" else None)
    signer = FileSigner.load(*write(tmp_path, credential))
    statement = new_statement(cast.message(Attempt), signer, SIGNER_ROLE_PLATFORM, NOW)
    Verifier(cast.trust()).verify(statement, Attempt, NOW)


def test_a_chain_in_a_file_goes_into_the_statement(tmp_path: Path, cast: Cast) -> None:
    credential = cast.region.signing.subordinate("sub").issue(str(seal_name(cast)))
    assert len(FileSigner.load(*write(tmp_path, credential)).certificate_chain) == 2


def test_an_encrypted_key_needs_its_password(tmp_path: Path, cast: Cast) -> None:
    files = write(tmp_path, cast.platform_seal, BestAvailableEncryption(b"word"))
    FileSigner.load(*files, password=b"word")
    for password in (None, b"other"):
        with pytest.raises(SignerUnusable, match=r"key\.pem.*password"):
            FileSigner.load(*files, password=password)


def test_a_key_of_another_certificate_is_refused(tmp_path: Path, cast: Cast) -> None:
    mixed = replace(cast.platform_seal, key=cast.hospital_seal.key)
    certificate, key = write(tmp_path, cast.platform_seal)
    key.write_bytes(mixed.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, UNENCRYPTED))
    with pytest.raises(SignerUnusable, match=r"key\.pem.*not the key of certificate\.pem"):
        FileSigner.load(certificate, key)


@pytest.mark.parametrize("name", ["certificate.pem", "key.pem"])
def test_a_file_that_cannot_be_used_is_named(name: str, tmp_path: Path, cast: Cast) -> None:
    files = write(tmp_path, cast.platform_seal)
    (tmp_path / name).write_bytes(b"nothing of the kind")
    with pytest.raises(SignerUnusable, match=name.replace(".", r"\.")):
        FileSigner.load(*files)
    (tmp_path / name).unlink()
    with pytest.raises(SignerUnusable, match=name.replace(".", r"\.")):
        FileSigner.load(*files)


def test_a_key_of_another_kind_is_refused(tmp_path: Path, cast: Cast) -> None:
    certificate, key = write(tmp_path, cast.platform_seal)
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    key.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, UNENCRYPTED))
    with pytest.raises(SignerUnusable, match="P-256 or Ed25519"):
        FileSigner.load(certificate, key)


def test_a_verified_statement_names_its_bytes(cast: Cast, verifier: Verifier) -> None:
    """Two signings of the same content are two statements."""
    digests = {verifier.verify(cast.statement(Attempt), Attempt, NOW).sha256 for _ in range(2)}
    assert len(digests) == 2
    assert all(len(digest) == sha256().digest_size for digest in digests)


def test_messages_of_refusals_hold_nothing_of_the_content(cast: Cast, verifier: Verifier) -> None:
    message = cast.prescription()
    message.issuer.prescriber.person_code = "D777"
    error = refused(verifier, signed(message, cast.sheet(Prescription)))
    shown = f"{error} {error.detail}"
    assert not any(word in shown for word in ("D777", "D001", "测试患者", "TEST0001"))


def test_one_verifier_gives_the_same_answer_again(cast: Cast, verifier: Verifier) -> None:
    statement = cast.statement(Prescription)
    first: Verified[Prescription] = verifier.verify(statement, Prescription, NOW)
    assert verifier.verify(statement, Prescription, NOW) == first
