"""Trust lists: who may change what a region vouches for, and what a list must hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from rxoutflow.certificates import certificate_sha256
from rxoutflow.statements import add_signature, new_statement, pae, sign
from rxoutflow.statements.payloads import rule_for
from rxoutflow.trust import (
    Offer,
    RegionNotTrusted,
    TrustListRefused,
    TrustListRollback,
    TrustStore,
)
from rxoutflow.v1.annotations_pb2 import CALLER_KIND_PHARMACY, CALLER_KIND_UNSPECIFIED
from rxoutflow.v1.statement_pb2 import (
    SIGNATURE_ALGORITHM_ED25519,
    SIGNER_ROLE_HOSPITAL_SEAL,
    SIGNER_ROLE_PLATFORM,
    SIGNER_ROLE_PRESCRIBER,
    SIGNER_ROLE_REGISTRY,
    SIGNER_ROLE_UNSPECIFIED,
    ProtectedHeader,
    SignedStatement,
)
from rxoutflow.v1.trust_pb2 import Institution, Signer, TrustList
from support.pki import BEGIN, END, NOW, Credential, Region, ed, trust_store

CODE, OTHER = "350200", "440300"


@pytest.fixture
def region() -> Region:
    return Region.create(CODE)


def root(region: Region) -> dict[str, str]:
    return {region.code: region.registry.sha256.hex()}


def empty_store(*regions: Region) -> TrustStore:
    return TrustStore({code: pin for region in regions for code, pin in root(region).items()})


def refusal(region: Region, statement: SignedStatement | None = None) -> str:
    """Why a store that holds nothing yet refuses a list; it must still hold nothing afterwards."""
    store = empty_store(region)
    with pytest.raises(TrustListRefused) as error:
        store.offer(statement or region.signed_list(), NOW)
    assert (store.regions(), store.version) == ((), 0)
    return str(error.value)


# what an accepted list answers


def test_an_accepted_list_answers_for_its_region(region: Region) -> None:
    hospital = region.hospital()
    doctor = region.person(hospital, "D001", SIGNER_ROLE_PRESCRIBER)
    lost = region.client(hospital)
    region.deny(lost.certificate)
    trust = trust_store(region).region(CODE, NOW)
    assert (trust.region_code, trust.name, trust.sequence) == (CODE, f"Region {CODE}", 1)
    assert trust.transport_anchors == (region.transport.certificate,)
    assert trust.signing_anchors == (region.signing.certificate,)
    assert trust.endpoints == (f"platform.{CODE}.example:8443",)
    assert trust.institution(hospital.institution_code) == region.entry(hospital)
    assert trust.institution("H35020099999") is None
    listed = trust.signer(doctor.sha256)
    assert listed is not None
    assert (listed.person_code, list(listed.roles)) == ("D001", [SIGNER_ROLE_PRESCRIBER])
    assert trust.signer(lost.sha256) is None
    assert trust.is_denied(lost.sha256)
    assert not trust.is_denied(doctor.sha256)


def test_the_store_finds_an_institution_by_its_region(region: Region) -> None:
    hospital = region.hospital()
    store = trust_store(region)
    found = store.institution(CODE, hospital.institution_code, NOW)
    assert found is not None
    assert found.status == Institution.STATUS_ACTIVE
    with pytest.raises(RegionNotTrusted):
        store.institution(OTHER, hospital.institution_code, NOW)


def test_withdrawn_is_not_the_same_as_suspended_or_unknown(region: Region) -> None:
    left, paused = region.hospital(), region.hospital()
    region.entry(left).status = Institution.STATUS_WITHDRAWN
    region.entry(paused).status = Institution.STATUS_SUSPENDED
    trust = trust_store(region).region(CODE, NOW)
    assert trust.has_withdrawn(left.institution_code)
    assert not trust.has_withdrawn(paused.institution_code)
    assert not trust.has_withdrawn("H35020099999")


def test_regions_are_never_merged(region: Region) -> None:
    other = Region.create(OTHER)
    seal = other.seal(other.hospital())
    store = trust_store(region, other)
    assert store.regions() == (CODE, OTHER)
    assert store.region(CODE, NOW).signer(seal.sha256) is None
    assert store.region(CODE, NOW).signing_anchors != store.region(OTHER, NOW).signing_anchors


def test_a_region_without_a_list_is_not_trusted(region: Region) -> None:
    with pytest.raises(RegionNotTrusted, match=CODE) as error:
        empty_store(region).region(CODE, NOW)
    assert error.value.region_code == CODE


# sequence


def test_the_same_list_again_changes_nothing(region: Region) -> None:
    store = trust_store(region)
    version = store.version
    assert store.offer(region.signed_list(), NOW) is Offer.UNCHANGED
    assert store.version == version


def test_a_higher_sequence_takes_effect_and_raises_the_version(region: Region) -> None:
    store = trust_store(region)
    version = store.version
    hospital = region.hospital()
    assert store.offer(region.signed_list(sequence=5), NOW) is Offer.ACCEPTED
    assert store.region(CODE, NOW).institution(hospital.institution_code) is not None
    assert store.version > version


def test_a_lower_sequence_is_refused_and_the_list_held_stays(region: Region) -> None:
    older = region.signed_list(sequence=1)
    region.deny(region.signing.certificate)
    store = trust_store(region)
    store.offer(region.signed_list(sequence=2), NOW)
    with pytest.raises(TrustListRefused, match="list 1 is older than list 2"):
        store.offer(older, NOW)
    assert store.region(CODE, NOW).sequence == 2


def test_a_rollback_says_what_was_offered_and_what_is_held(region: Region) -> None:
    older = region.signed_list(sequence=3)
    store = trust_store(region)
    store.offer(region.signed_list(sequence=8), NOW)
    with pytest.raises(TrustListRollback) as error:
        store.offer(older, NOW)
    assert (error.value.region_code, error.value.sequence, error.value.held_sequence) == (
        CODE,
        3,
        8,
    )


def test_a_list_of_another_region_than_the_one_asked_for_changes_nothing(region: Region) -> None:
    other = Region.create(OTHER)
    store = empty_store(region, other)
    with pytest.raises(TrustListRefused, match=f"another region than {CODE}"):
        store.offer(other.signed_list(), NOW, region_code=CODE)
    assert (store.regions(), store.version) == ((), 0)


def test_two_lists_of_one_sequence_are_refused(region: Region) -> None:
    store = trust_store(region)
    region.hospital()
    with pytest.raises(TrustListRefused, match="two different lists"):
        store.offer(region.signed_list(), NOW)
    assert not store.region(CODE, NOW).institutions


def test_whoever_holds_a_list_keeps_seeing_that_list(region: Region) -> None:
    store = trust_store(region)
    held = store.region(CODE, NOW)
    hospital = region.hospital()
    store.offer(region.signed_list(sequence=2), NOW)
    assert held.institution(hospital.institution_code) is None


def test_the_signed_list_can_be_passed_on_but_not_changed(region: Region) -> None:
    store = trust_store(region)
    passed_on = store.statement(CODE)
    assert passed_on is not None
    assert empty_store(region).offer(passed_on, NOW) is Offer.ACCEPTED
    passed_on.Clear()
    assert store.statement(CODE) != passed_on
    assert store.statement(OTHER) is None


def test_a_list_is_kept_as_it_was_when_it_was_offered(region: Region) -> None:
    store, statement = empty_store(region), region.signed_list()
    payload = statement.payload
    store.offer(statement, NOW)
    statement.payload = b""
    kept = store.statement(CODE)
    assert kept is not None
    assert kept.payload == payload


# time


def test_a_list_is_used_until_it_lapses_and_not_after(region: Region) -> None:
    store = trust_store(region)
    expiry = NOW + timedelta(days=7)
    assert store.region(CODE, expiry).sequence == 1
    with pytest.raises(RegionNotTrusted, match="lapsed"):
        store.region(CODE, expiry + timedelta(seconds=1))


def test_a_lapsed_list_is_used_for_its_grace_and_not_a_second_longer(region: Region) -> None:
    store = TrustStore(root(region), timedelta(hours=24))
    store.offer(region.signed_list(), NOW)
    end = NOW + timedelta(days=7, hours=24)
    assert store.region(CODE, end).sequence == 1
    with pytest.raises(RegionNotTrusted, match="lapsed"):
        store.region(CODE, end + timedelta(seconds=1))


def test_a_folder_is_loaded_with_a_grace(region: Region, tmp_path: Path) -> None:
    save(tmp_path, region)
    later = NOW + timedelta(days=7, hours=1)
    store = TrustStore.load(tmp_path, root(region), later, timedelta(hours=2))
    assert store.grace == timedelta(hours=2)
    assert store.region(CODE, later).sequence == 1


def test_a_newer_list_ends_the_grace_of_an_older_one(region: Region) -> None:
    store, later = TrustStore(root(region), timedelta(hours=24)), NOW + timedelta(days=7, hours=1)
    store.offer(region.signed_list(), NOW)
    region.deny(region.signing.certificate)
    region.trust_list.expire_time.FromDatetime(NOW + timedelta(days=30))
    store.offer(region.signed_list(sequence=2), later)
    assert store.region(CODE, later).is_denied(certificate_sha256(region.signing.certificate))


def test_a_lapsed_list_can_be_looked_at_but_not_trusted_by(region: Region) -> None:
    store = trust_store(region)
    held = store.held(CODE)
    assert held is not None
    assert held.endpoints == (f"platform.{CODE}.example:8443",)
    assert store.held(OTHER) is None
    with pytest.raises(RegionNotTrusted):
        store.region(CODE, NOW + timedelta(days=8))


def test_a_list_lapses_with_its_registrys_certificate(region: Region) -> None:
    region.trust_list.expire_time.FromDatetime(END + timedelta(days=300))
    with pytest.raises(RegionNotTrusted, match="lapsed"):
        trust_store(region).region(CODE, END + timedelta(seconds=1))


def test_a_lapsed_list_still_keeps_older_ones_out(region: Region) -> None:
    older, newer = region.signed_list(sequence=1), region.signed_list(sequence=2)
    store, later = empty_store(region), NOW + timedelta(days=8)
    store.offer(newer, later)
    with pytest.raises(RegionNotTrusted):
        store.region(CODE, later)
    with pytest.raises(TrustListRefused, match="older"):
        store.offer(older, later)


def test_a_newer_list_ends_a_lapse(region: Region) -> None:
    store, later = trust_store(region), NOW + timedelta(days=8)
    region.trust_list.expire_time.FromDatetime(later + timedelta(days=1))
    store.offer(region.signed_list(sequence=2), later)
    assert store.region(CODE, later).sequence == 2


def test_a_list_from_the_future_is_refused(region: Region) -> None:
    region.trust_list.issue_time.FromDatetime(NOW + timedelta(minutes=11))
    assert "future" in refusal(region)


def test_a_list_signed_in_the_future_is_refused(region: Region) -> None:
    signer, role = region.registry.signer, SIGNER_ROLE_REGISTRY
    later = new_statement(region.trust_list, signer, role, NOW + timedelta(minutes=11))
    assert "future" in refusal(region, later)


def test_a_list_signed_outside_the_validity_of_the_registrys_certificate_is_refused(
    region: Region,
) -> None:
    signer, role = region.registry.signer, SIGNER_ROLE_REGISTRY
    early = new_statement(region.trust_list, signer, role, BEGIN - timedelta(days=1))
    assert "not valid" in refusal(region, early)


# who signs


def registry_of(region: Region, code: str = CODE) -> str:
    return f"spiffe://{code}.rxoutflow/platform/{code}/registry"


def test_only_the_pinned_registry_signs(region: Region) -> None:
    """Another certificate of the same name and authority is not the pinned one."""
    pinned = root(region)
    region.registry = region.signing.issue(registry_of(region))
    with pytest.raises(TrustListRefused, match="not signed by the pinned registry"):
        TrustStore(pinned).offer(region.signed_list(), NOW)


def test_a_region_that_is_not_pinned_is_refused(region: Region) -> None:
    with pytest.raises(TrustListRefused, match="not pinned"):
        empty_store(Region.create(OTHER)).offer(region.signed_list(), NOW)


def test_while_a_registry_changes_its_key_both_may_sign_and_nobody_else(region: Region) -> None:
    old = region.signed_list(sequence=1)
    pins = region.registry.sha256.hex()
    region.registry = region.signing.issue(registry_of(region))
    store = TrustStore({CODE: f"{pins} {region.registry.sha256.hex()}"})
    store.offer(old, NOW)
    assert store.offer(region.signed_list(sequence=2), NOW) is Offer.ACCEPTED
    region.registry = region.signing.issue(registry_of(region))
    with pytest.raises(TrustListRefused, match="not signed by the pinned registry"):
        store.offer(region.signed_list(sequence=3), NOW)


def test_a_registry_vouches_for_its_own_region_only(region: Region) -> None:
    other = Region.create(OTHER)
    region.registry = other.registry
    with pytest.raises(TrustListRefused, match="region_code"):
        empty_store(other).offer(region.signed_list(), NOW)


def test_the_pinned_certificate_must_name_the_registry_of_its_region(region: Region) -> None:
    registry = region.registry
    for uri in (
        registry_of(region).replace("registry", "seal"),
        registry_of(region, OTHER),
        registry_of(region).removesuffix("/registry"),
    ):
        region.registry = region.signing.issue(uri, key=registry.key)
        statement = restated(registered(region, registry), region.registry)
        assert "registry" in refusal(region, statement)


def registered(region: Region, registry: Credential) -> SignedStatement:
    return new_statement(region.trust_list, registry.signer, SIGNER_ROLE_REGISTRY, NOW)


def restated(
    statement: SignedStatement,
    signer: Credential,
    change: Callable[[ProtectedHeader], object] = lambda _header: None,
) -> SignedStatement:
    """The list shown under another certificate or header, and properly signed so."""
    signature = statement.signatures[0]
    header = ProtectedHeader.FromString(signature.protected)
    header.certificate_sha256 = signer.sha256
    change(header)
    signature.protected = header.SerializeToString()
    signature.certificate_chain[:] = signer.signer.certificate_chain
    encoded = pae(statement.payload_type, signature.protected, statement.payload)
    signature.value = signer.signer.sign(encoded)
    return statement


@pytest.mark.parametrize(
    "change",
    [
        lambda header: setattr(header, "algorithm", SIGNATURE_ALGORITHM_ED25519),
        lambda header: setattr(header, "institution_code", "H35020000001"),
        lambda header: setattr(header, "role", SIGNER_ROLE_PLATFORM),
        lambda header: setattr(header, "audience", CODE),
        lambda header: setattr(header, "certificate_sha256", bytes(32)),
    ],
)
def test_the_header_of_a_list_is_exact(
    change: Callable[[ProtectedHeader], object], region: Region
) -> None:
    refusal(region, restated(region.signed_list(), region.registry, change))


def test_a_registry_may_have_an_ed25519_key(region: Region) -> None:
    region.registry = region.signing.issue(registry_of(region), key=ed())
    assert trust_store(region).regions() == (CODE,)


def test_a_second_signature_is_refused(region: Region) -> None:
    signer, role = region.registry.signer, SIGNER_ROLE_REGISTRY
    assert "no others" in refusal(region, add_signature(region.signed_list(), signer, role, NOW))


def test_no_bit_of_a_list_can_change(region: Region) -> None:
    statement = region.signed_list()
    for changed in damaged(statement.payload):
        statement.payload = changed
        assert "does not verify" in refusal(region, statement)


def damaged(data: bytes) -> Iterator[bytes]:
    for index in range(0, len(data), 7):
        yield data[:index] + bytes([data[index] ^ 1]) + data[index + 1 :]


def test_a_signed_list_in_ambiguous_form_is_refused(region: Region) -> None:
    payload = region.trust_list.SerializeToString() + b"\x18\x63"
    kind, signer = rule_for(TrustList).payload_type, region.registry.signer
    statement = sign(payload, kind, signer, SIGNER_ROLE_REGISTRY, NOW, "*")
    assert "sequence" in refusal(region, statement)


@pytest.mark.parametrize(
    "pin", ["", "00", "zz" * 32, "00" * 31, "00" * 33, "00" * 64, " ".join(["00" * 32] * 3)]
)
def test_a_pin_must_be_a_digest(pin: str) -> None:
    with pytest.raises(ValueError, match="64 hexadecimal digits"):
        TrustStore({CODE: pin})


@pytest.mark.parametrize("code", ["", "35020", "3502000", "３５０２００"])
def test_a_pin_must_be_of_a_region(code: str) -> None:
    with pytest.raises(ValueError, match="six-digit"):
        TrustStore({code: "00" * 32})


# what a list must hold


def with_sequence_zero(region: Region) -> None:
    region.trust_list.sequence = 0


def with_expiry_before_issue(region: Region) -> None:
    region.trust_list.expire_time.CopyFrom(region.trust_list.issue_time)


def without_expiry(region: Region) -> None:
    region.trust_list.ClearField("expire_time")


def with_a_time_that_is_none(region: Region) -> None:
    region.trust_list.expire_time.seconds = 2**62


def with_an_anchor_that_is_none(region: Region) -> None:
    region.trust_list.signing_anchors.append(b"none")


def with_a_short_denied_digest(region: Region) -> None:
    region.trust_list.denied_certificate_sha256.append(b"short")


def with_an_institution_of_another_region(region: Region) -> None:
    region.entry(region.hospital()).institution_code = f"H{OTHER}00001"


def with_an_institution_of_another_kind(region: Region) -> None:
    region.entry(region.hospital()).kind = CALLER_KIND_PHARMACY


def with_an_institution_without_kind(region: Region) -> None:
    region.entry(region.hospital()).kind = CALLER_KIND_UNSPECIFIED


def with_an_institution_without_status(region: Region) -> None:
    region.entry(region.hospital()).status = Institution.STATUS_UNSPECIFIED


def with_an_institution_twice(region: Region) -> None:
    region.trust_list.institutions.append(region.entry(region.hospital()))


def signer_entry(region: Region) -> Signer:
    region.person(region.hospital(), "D001", SIGNER_ROLE_PRESCRIBER)
    return region.trust_list.signers[0]


def with_a_signer_of_a_short_digest(region: Region) -> None:
    signer_entry(region).certificate_sha256 = b"short"


def with_a_signer_of_no_institution(region: Region) -> None:
    signer_entry(region).institution_code = "H35020099999"


def with_a_signer_without_roles(region: Region) -> None:
    del signer_entry(region).roles[:]


def with_a_signer_in_an_unspecified_role(region: Region) -> None:
    signer_entry(region).roles.append(SIGNER_ROLE_UNSPECIFIED)


def with_a_signer_as_registry(region: Region) -> None:
    signer_entry(region).roles[:] = [SIGNER_ROLE_REGISTRY]


def with_a_person_as_seal(region: Region) -> None:
    signer_entry(region).roles.append(SIGNER_ROLE_HOSPITAL_SEAL)


def with_a_person_without_code(region: Region) -> None:
    signer_entry(region).person_code = ""


def with_a_seal_of_a_person(region: Region) -> None:
    hospital = region.hospital()
    region.seal(hospital)
    region.trust_list.signers[0].person_code = "D001"


def with_a_signer_twice(region: Region) -> None:
    region.trust_list.signers.append(signer_entry(region))


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (with_sequence_zero, "sequence"),
        (with_expiry_before_issue, "expire_time"),
        (without_expiry, "expire_time"),
        (with_a_time_that_is_none, "expire_time"),
        (with_an_anchor_that_is_none, "signing_anchors"),
        (with_a_short_denied_digest, "denied_certificate_sha256[0]"),
        (with_an_institution_of_another_region, "institutions[0]: institution_code"),
        (with_an_institution_of_another_kind, "institutions[0]: institution_code"),
        (with_an_institution_without_kind, "institutions[0]: kind"),
        (with_an_institution_without_status, "institutions[0]: kind and status"),
        (with_an_institution_twice, "institutions[1]: institution_code"),
        (with_a_signer_of_a_short_digest, "signers[0]: certificate_sha256"),
        (with_a_signer_of_no_institution, "signers[0]: institution_code"),
        (with_a_signer_without_roles, "signers[0]: roles"),
        (with_a_signer_in_an_unspecified_role, "signers[0]: roles"),
        (with_a_signer_as_registry, "signers[0]: roles"),
        (with_a_person_as_seal, "signers[0]: roles"),
        (with_a_person_without_code, "signers[0]: person_code"),
        (with_a_seal_of_a_person, "signers[0]: person_code"),
        (with_a_signer_twice, "signers[1]: certificate_sha256"),
    ],
)
def test_an_entry_that_is_not_well_formed_refuses_the_whole_list(
    spoil: Callable[[Region], None], named: str, region: Region
) -> None:
    spoil(region)
    assert named in refusal(region)


def test_a_large_region_fits_into_a_list(region: Region) -> None:
    """Three thousand pharmacies with one seal each: more than the bound of ordinary statements."""
    for serial in range(3000):
        pharmacy = region.pharmacy()
        region.trust_list.signers.add(
            certificate_sha256=serial.to_bytes(32),
            institution_code=pharmacy.institution_code,
            roles=[SIGNER_ROLE_PLATFORM],
            display_name="seal",
        )
    statement = region.signed_list()
    assert len(statement.payload) > 256 * 1024
    assert empty_store(region).offer(statement, NOW) is Offer.ACCEPTED


# files


def save(folder: Path, region: Region, name: str | None = None) -> Path:
    path = folder / f"{name or region.code}.trustlist"
    path.write_bytes(region.signed_list().SerializeToString())
    return path


def test_a_folder_of_lists_is_loaded(region: Region, tmp_path: Path) -> None:
    other = Region.create(OTHER)
    save(tmp_path, region)
    save(tmp_path, other)
    (tmp_path / "notes.txt").write_text("ignored")
    store = TrustStore.load(tmp_path, root(region) | root(other), NOW)
    assert store.regions() == (CODE, OTHER)


def test_a_pinned_region_may_come_later(region: Region, tmp_path: Path) -> None:
    store = TrustStore.load(tmp_path, root(region), NOW)
    assert store.regions() == ()
    store.offer(region.signed_list(), NOW)
    assert store.regions() == (CODE,)


def test_a_lapsed_list_in_the_folder_does_not_prevent_a_start(
    region: Region, tmp_path: Path
) -> None:
    save(tmp_path, region)
    later = NOW + timedelta(days=8)
    store = TrustStore.load(tmp_path, root(region), later)
    with pytest.raises(RegionNotTrusted):
        store.region(CODE, later)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x0a\x00\x0a\x00"])
def test_a_file_that_is_no_list_is_named(content: bytes, region: Region, tmp_path: Path) -> None:
    path = tmp_path / f"{CODE}.trustlist"
    path.write_bytes(content)
    with pytest.raises(TrustListRefused, match=path.name):
        TrustStore.load(tmp_path, root(region), NOW)


def test_a_file_under_the_name_of_another_region_is_refused(region: Region, tmp_path: Path) -> None:
    other = Region.create(OTHER)
    save(tmp_path, region, name=OTHER)
    with pytest.raises(TrustListRefused, match="another region"):
        TrustStore.load(tmp_path, root(region) | root(other), NOW)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrustListRefused, match="nowhere"):
        TrustStore.load(tmp_path / "nowhere", {}, NOW)


def test_a_file_that_cannot_be_read_is_named(region: Region, tmp_path: Path) -> None:
    (tmp_path / f"{CODE}.trustlist").mkdir()
    with pytest.raises(TrustListRefused, match="cannot be read"):
        TrustStore.load(tmp_path, root(region), NOW)
