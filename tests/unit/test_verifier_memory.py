"""What a verifier remembers of a statement is never more than it would find again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from rxoutflow.identity import KeyPurpose, SignerName
from rxoutflow.statements import (
    SignatureInvalid,
    SignatureMissing,
    SignedContentMismatch,
    SignerUntrusted,
    StatementError,
    StatementMalformed,
    StatementTypeUnexpected,
    Verified,
    Verifier,
    add_signature,
    new_statement,
    pae,
    statement_sha256,
    verification,
)
from rxoutflow.trust import TrustListRefused, TrustStore
from rxoutflow.v1.attempt_pb2 import Attempt, Claim
from rxoutflow.v1.prescription_pb2 import Prescription
from rxoutflow.v1.settlement_pb2 import Pricing
from rxoutflow.v1.statement_pb2 import (
    SIGNATURE_ALGORITHM_ED25519,
    SIGNER_ROLE_CHECKER,
    SIGNER_ROLE_PLATFORM,
    SIGNER_ROLE_PRESCRIBER,
    SIGNER_ROLE_REVIEWING_PHARMACIST,
    ProtectedHeader,
    SignedStatement,
)
from rxoutflow.v1.trust_pb2 import Institution
from support.pki import BEGIN, END, NOW, Authority, trust_store
from support.sheets import Cast, signed

HOME, ELSEWHERE = "350200", "440300"
HOUR = timedelta(hours=1)

Change = Callable[[Cast], None]


class Office:
    """A verifier that has verified a prescription and an attempt, and its region's registry."""

    def __init__(self, cast: Cast) -> None:
        self.cast = cast
        self.store: TrustStore = cast.trust()
        self.verifier = Verifier(self.store)
        self.prescription = cast.statement(Prescription)
        self.attempt = cast.statement(Attempt)
        self.verifier.verify(self.prescription, Prescription, NOW)
        self.verifier.verify(self.attempt, Attempt, NOW)

    def publish(self) -> None:
        """The trust list as it is now takes effect."""
        sequence = self.cast.region.trust_list.sequence + 1
        self.store.offer(self.cast.region.signed_list(sequence=sequence), NOW)

    def refused(self, statement: SignedStatement, kind: Any = Prescription) -> StatementError:
        with pytest.raises(StatementError) as error:
            self.verifier.verify(statement, kind, NOW)
        return error.value


@pytest.fixture
def office() -> Office:
    return Office(Cast.create(HOME))


@pytest.fixture
def proofs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The roles of all signatures whose values were verified since."""
    proven: list[str] = []
    honest = verification._check_value

    def check(part: Any, key: Any, statement: SignedStatement) -> None:
        proven.append(part.name)
        honest(part, key, statement)

    monkeypatch.setattr(verification, "_check_value", check)
    return proven


# what is remembered


def test_what_verified_before_is_not_proven_again(office: Office, proofs: list[str]) -> None:
    first = office.verifier.verify(office.cast.statement(Claim), Claim, NOW)
    assert len(proofs) == len(first.signers)
    again = office.verifier.verify(office.prescription, Prescription, NOW, HOME)
    assert again.content == office.cast.message(Prescription)
    assert again.sha256 == statement_sha256(office.prescription)
    assert len(proofs) == len(first.signers)


def test_the_answer_is_that_of_a_verifier_without_memory(office: Office) -> None:
    fresh = Verifier(office.store).verify(office.prescription, Prescription, NOW)
    assert office.verifier.verify(office.prescription, Prescription, NOW) == fresh


def test_every_caller_gets_content_of_its_own(office: Office) -> None:
    mine = office.verifier.verify(office.prescription, Prescription, NOW)
    mine.content.prescription_number = "changed"
    mine.content.lines[0].quantity = 0
    again = office.verifier.verify(office.prescription, Prescription, NOW)
    assert again.content == office.cast.message(Prescription)


def test_a_changed_statement_is_another_one(office: Office) -> None:
    office.attempt.payload += b"\x18\x01"
    assert isinstance(office.refused(office.attempt, Attempt), SignatureInvalid)
    office.prescription.signatures[0].value = office.prescription.signatures[1].value
    assert isinstance(office.refused(office.prescription), SignatureInvalid)


def test_bytes_beside_the_contract_are_another_statement(office: Office) -> None:
    unknown = SignedStatement.FromString(office.attempt.SerializeToString() + b"\xf8\x07\x01")
    assert isinstance(office.refused(unknown, Attempt), StatementMalformed)


def test_a_statement_is_not_remembered_as_one_of_another_kind(office: Office) -> None:
    assert isinstance(office.refused(office.attempt, Pricing), StatementTypeUnexpected)


def test_a_statement_is_not_remembered_with_other_signatures_than_were_asked_for(
    office: Office,
) -> None:
    people = (SIGNER_ROLE_PRESCRIBER, SIGNER_ROLE_REVIEWING_PHARMACIST)
    unsealed = signed(office.cast.prescription(), office.cast.sheet(Prescription)[:2])
    office.verifier.verify(unsealed, Prescription, NOW, roles=people)
    assert isinstance(office.refused(unsealed), SignatureMissing)


def test_a_refusal_is_not_remembered(office: Office) -> None:
    newcomer = office.cast.region.signing.issue(str(_seal(office.cast)))
    sheet = [(SIGNER_ROLE_PLATFORM, newcomer)]
    statement = signed(office.cast.message(Attempt), sheet)
    assert isinstance(office.refused(statement, Attempt), SignerUntrusted)
    office.cast.region.list_signer(newcomer, _seal(office.cast), SIGNER_ROLE_PLATFORM)
    office.publish()
    office.verifier.verify(statement, Attempt, NOW)


def test_the_oldest_make_room(
    office: Office, proofs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "_MAX_REMEMBERED", 4)
    for day in range(8):
        statement = signed(
            office.cast.message(Attempt),
            office.cast.sheet(Attempt),
            at=NOW - timedelta(hours=day),
        )
        office.verifier.verify(statement, Attempt, NOW)
    proofs.clear()
    office.verifier.verify(statement, Attempt, NOW)
    assert not proofs
    office.verifier.verify(office.attempt, Attempt, NOW)
    assert proofs == ["PLATFORM"]


# signers that are known


def test_a_signer_known_in_one_role_is_not_believed_in_another(office: Office) -> None:
    sheet = list(office.cast.sheet(Prescription))
    sheet[1] = (SIGNER_ROLE_REVIEWING_PHARMACIST, office.cast.prescriber)
    error = office.refused(signed(office.cast.prescription(), sheet))
    assert isinstance(error, SignerUntrusted)
    assert error.detail["role"] == "REVIEWING_PHARMACIST"


def test_a_hospitals_pharmacist_who_is_known_does_not_claim_for_a_pharmacy(office: Office) -> None:
    people = [(SIGNER_ROLE_REVIEWING_PHARMACIST, office.cast.hospital_pharmacist)]
    claim = signed(office.cast.message(Claim), people)
    with pytest.raises(SignerUntrusted, match="not of a pharmacy"):
        office.verifier.verify(claim, Claim, NOW, roles=[SIGNER_ROLE_REVIEWING_PHARMACIST])


def test_a_signer_who_is_known_does_not_sign_for_another_institution(office: Office) -> None:
    signature = office.attempt.signatures[0]
    header = ProtectedHeader.FromString(signature.protected)
    header.institution_code = office.cast.pharmacy.institution_code
    signature.protected = header.SerializeToString()
    signature.value = office.cast.platform_seal.signer.sign(
        pae(office.attempt.payload_type, signature.protected, office.attempt.payload)
    )
    assert isinstance(office.refused(office.attempt, Attempt), SignerUntrusted)


# what a newer list says counts at once


def _seal(cast: Cast) -> SignerName:
    return SignerName(cast.region.platform, KeyPurpose.SEAL)


def withdraw_the_hospital(cast: Cast) -> None:
    cast.region.entry(cast.hospital).status = Institution.STATUS_WITHDRAWN


def deny_the_reviewer(cast: Cast) -> None:
    cast.region.deny(cast.hospital_pharmacist.certificate)


def deny_the_authority(cast: Cast) -> None:
    cast.region.deny(cast.region.signing.certificate)


def strike_the_prescriber_off(cast: Cast) -> None:
    kept = [each for each in cast.region.trust_list.signers if each.person_code != "D001"]
    del cast.region.trust_list.signers[:]
    cast.region.trust_list.signers.extend(kept)


def give_the_reviewer_another_role(cast: Cast) -> None:
    (entry,) = (each for each in cast.region.trust_list.signers if each.person_code == "R001")
    entry.roles[:] = [SIGNER_ROLE_CHECKER]


def allow_another_algorithm_only(cast: Cast) -> None:
    cast.region.trust_list.algorithms[:] = [SIGNATURE_ALGORITHM_ED25519]


def change_the_authority(cast: Cast) -> None:
    other = Authority.create(f"{HOME} signing").certificate
    cast.region.trust_list.signing_anchors[:] = [other.public_bytes(Encoding.DER)]


@pytest.mark.parametrize(
    "change",
    [
        withdraw_the_hospital,
        deny_the_reviewer,
        deny_the_authority,
        strike_the_prescriber_off,
        give_the_reviewer_another_role,
        allow_another_algorithm_only,
        change_the_authority,
    ],
)
def test_what_a_newer_list_takes_away_is_gone_at_once(change: Change, office: Office) -> None:
    change(office.cast)
    office.publish()
    assert isinstance(office.refused(office.prescription), SignerUntrusted)


def test_a_newer_name_for_a_signer_is_the_one_that_is_told(office: Office) -> None:
    (entry,) = (
        each for each in office.cast.region.trust_list.signers if each.person_code == "D001"
    )
    entry.display_name = "as married"
    office.publish()
    verified = office.verifier.verify(office.prescription, Prescription, NOW)
    assert verified.signers[0].display_name == "as married"


def test_a_list_that_was_refused_changes_nothing(office: Office, proofs: list[str]) -> None:
    withdraw_the_hospital(office.cast)
    older = office.cast.region.signed_list(sequence=1)
    with pytest.raises(TrustListRefused):
        office.store.offer(older, NOW)
    office.verifier.verify(office.prescription, Prescription, NOW)
    assert not proofs


def test_a_verifier_with_another_list_remembers_nothing_of_this_one(office: Office) -> None:
    withdraw_the_hospital(office.cast)
    stricter = Verifier(trust_store(office.cast.region))
    with pytest.raises(SignerUntrusted, match="withdrawn"):
        stricter.verify(office.prescription, Prescription, NOW)
    office.verifier.verify(office.prescription, Prescription, NOW)


# time, forwards and backwards


@pytest.fixture
def lasting() -> Office:
    """Its list and registry outlive the certificates of its signers."""
    cast = Cast.create(HOME)
    name = str(SignerName(cast.region.platform, KeyPurpose.REGISTRY))
    cast.region.registry = cast.region.signing.issue(name, end=END + timedelta(days=300))
    cast.region.trust_list.expire_time.FromDatetime(END + timedelta(days=200))
    return Office(cast)


def test_a_list_that_lapses_lets_nothing_through_that_is_remembered(office: Office) -> None:
    with pytest.raises(SignerUntrusted, match="lapsed"):
        office.verifier.verify(office.prescription, Prescription, NOW + timedelta(days=8))
    office.verifier.verify(office.prescription, Prescription, NOW)


def test_a_lapsed_list_is_no_use_for_an_old_statement_either(office: Office) -> None:
    with pytest.raises(SignerUntrusted, match="lapsed"):
        office.verifier.verify(office.attempt, Attempt, NOW + timedelta(days=8), at=NOW)


def test_a_certificate_that_expires_ends_what_is_remembered(lasting: Office) -> None:
    verify, after = lasting.verifier.verify, timedelta(seconds=1)
    verify(lasting.attempt, Attempt, END)
    with pytest.raises(SignerUntrusted):
        verify(lasting.attempt, Attempt, END + after)
    verify(lasting.attempt, Attempt, END + after, at=END)


def test_a_clock_that_goes_backwards_is_seen(office: Office) -> None:
    """A signature may be ten minutes ahead; what was in the past a moment ago can be the future."""
    verify = office.verifier.verify
    verify(office.attempt, Attempt, NOW - timedelta(minutes=10))
    with pytest.raises(SignedContentMismatch, match="future"):
        verify(office.attempt, Attempt, NOW - timedelta(minutes=10, microseconds=1))
    verify(office.attempt, Attempt, NOW)


def test_a_clock_before_the_certificates_is_seen(office: Office) -> None:
    at_dawn = signed(office.cast.message(Attempt), office.cast.sheet(Attempt), at=BEGIN)
    verify = office.verifier.verify
    verify(at_dawn, Attempt, NOW)
    verify(at_dawn, Attempt, NOW, at=BEGIN)
    with pytest.raises(SignerUntrusted):
        verify(at_dawn, Attempt, NOW, at=BEGIN - timedelta(microseconds=1))


def test_the_latest_of_the_signatures_decides(office: Office) -> None:
    """The people signed long ago, the seal just now."""
    sheet = office.cast.sheet(Prescription)
    statement = signed(office.cast.prescription(), sheet[:2], at=NOW - HOUR)
    role, seal = sheet[2]
    statement = add_signature(statement, seal.signer, role, NOW)
    office.verifier.verify(statement, Prescription, NOW)
    with pytest.raises(SignedContentMismatch, match="future"):
        office.verifier.verify(statement, Prescription, NOW - timedelta(minutes=11))


# audience


@pytest.mark.parametrize("first", [None, HOME])
def test_a_statement_remembered_for_one_region_is_not_meant_for_another(
    first: str | None, office: Office
) -> None:
    office.verifier.verify(office.prescription, Prescription, NOW, first)
    with pytest.raises(SignedContentMismatch, match="not meant for this region"):
        office.verifier.verify(office.prescription, Prescription, NOW, ELSEWHERE)
    office.verifier.verify(office.prescription, Prescription, NOW, HOME)


def test_a_statement_for_nobody_here_is_still_judged_by_all_other_rules(office: Office) -> None:
    withdraw_the_hospital(office.cast)
    office.publish()
    with pytest.raises(SignerUntrusted):
        office.verifier.verify(office.prescription, Prescription, NOW, ELSEWHERE)


# what a process signed itself


class Platform(Office):
    """The verifier of a platform, whose seal just signed an attempt."""

    def __init__(self, cast: Cast) -> None:
        super().__init__(cast)
        self.own = new_statement(
            cast.message(Attempt), cast.platform_seal.signer, SIGNER_ROLE_PLATFORM, NOW - HOUR
        )
        self.verifier.signed_here(self.own, Attempt)


@pytest.fixture
def platform() -> Platform:
    return Platform(Cast.create(HOME))


def test_what_was_signed_here_needs_no_proof(platform: Platform, proofs: list[str]) -> None:
    verified: Verified[Attempt] = platform.verifier.verify(platform.own, Attempt, NOW)
    assert not proofs
    assert verified == Verifier(platform.store).verify(platform.own, Attempt, NOW)


@pytest.mark.parametrize(
    "change", [deny_the_authority, allow_another_algorithm_only, change_the_authority]
)
@pytest.mark.parametrize("used", [False, True], ids=["at first use", "used before"])
def test_what_was_signed_here_is_believed_no_longer_than_the_list_says(
    change: Change, used: bool, platform: Platform
) -> None:
    if used:
        platform.verifier.verify(platform.own, Attempt, NOW)
    change(platform.cast)
    platform.publish()
    assert isinstance(platform.refused(platform.own, Attempt), SignerUntrusted)


def test_a_denied_seal_does_not_pass_by_having_signed_here(platform: Platform) -> None:
    platform.cast.region.deny(platform.cast.platform_seal.certificate)
    platform.publish()
    assert isinstance(platform.refused(platform.own, Attempt), SignerUntrusted)


def test_what_was_signed_here_is_proven_only_byte_for_byte(platform: Platform) -> None:
    other_value = SignedStatement.FromString(platform.own.SerializeToString())
    other_value.signatures[0].value = platform.attempt.signatures[0].value
    assert isinstance(platform.refused(other_value, Attempt), SignatureInvalid)
    appended = SignedStatement.FromString(platform.own.SerializeToString())
    appended.payload += b"\x18\x01"
    assert isinstance(platform.refused(appended, Attempt), SignatureInvalid)
    more = SignedStatement.FromString(platform.own.SerializeToString())
    more.signatures[0].certificate_chain.append(b"more")
    assert isinstance(platform.refused(more, Attempt), SignerUntrusted)


def test_what_was_signed_here_has_the_signatures_of_its_type(platform: Platform) -> None:
    """Whoever notes a statement that is not finished gains nothing by it."""
    half = signed(platform.cast.message(Claim), platform.cast.sheet(Claim)[:1])
    platform.verifier.signed_here(half, Claim)
    assert isinstance(platform.refused(half, Claim), SignatureMissing)


def test_what_was_signed_here_is_of_its_type_only(platform: Platform) -> None:
    platform.verifier.signed_here(platform.own, Pricing)
    assert isinstance(platform.refused(platform.own, Pricing), StatementTypeUnexpected)


def test_what_was_signed_here_is_judged_by_time_and_content(platform: Platform) -> None:
    with pytest.raises(SignedContentMismatch, match="future"):
        platform.verifier.verify(platform.own, Attempt, NOW - HOUR - timedelta(minutes=11))
    message = platform.cast.message(Attempt)
    assert isinstance(message, Attempt)
    message.prescription_number = f"{ELSEWHERE}{'0' * 24}"
    signer = platform.cast.platform_seal.signer
    foreign = new_statement(message, signer, SIGNER_ROLE_PLATFORM, NOW)
    platform.verifier.signed_here(foreign, Attempt)
    assert isinstance(platform.refused(foreign, Attempt), SignedContentMismatch)
