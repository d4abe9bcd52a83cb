"""SM2 with SM3: the standard's own example, agreement with OpenSSL, and statements that verify."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("gmssl_pyx", reason="SM2 is missing: pip install 'rxoutflow[sm2]'")

from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.serialization import Encoding

import rxoutflow.statements
from rxoutflow.certificates import Usage, verify_chain
from rxoutflow.identity import KeyPurpose, SignerName
from rxoutflow.statements import (
    CallbackSigner,
    FileSigner,
    SignatureInvalid,
    SignedContentMismatch,
    SignerUntrusted,
    SignerUnusable,
    Verifier,
    new_statement,
)
from rxoutflow.statements.algorithms import KeyUnsupported, SignatureWrong, verification_key
from rxoutflow.statements.sm2 import Sm2PrivateKey, Sm2PublicKey, read_private_key
from rxoutflow.v1.attempt_pb2 import Attempt
from rxoutflow.v1.prescription_pb2 import Prescription
from rxoutflow.v1.statement_pb2 import (
    SIGNATURE_ALGORITHM_ECDSA_P256_SHA256,
    SIGNATURE_ALGORITHM_SM2_SM3,
    SIGNER_ROLE_HOSPITAL_SEAL,
    SIGNER_ROLE_PLATFORM,
    SIGNER_ROLE_PRESCRIBER,
    SIGNER_ROLE_REVIEWING_PHARMACIST,
    ProtectedHeader,
    SignedStatement,
)
from rxoutflow_server.devpki_sm2 import issue_for, private_pem
from support.pki import NOW, Credential, Region
from support.sheets import Cast, Sheet, signed
from support.sm2 import sm2_leaf, sm2_person, sm2_seal

ORDER = 0xFFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFF7203DF6B21C6052B53BBF40939D54123
DATA = "处方 prescription".encode()
OPENSSL = shutil.which("openssl")
needs_openssl = pytest.mark.skipif(OPENSSL is None, reason="openssl is not installed")

# GB/T 32918.5-2017, annex A: signature example on the recommended curve
STANDARD_KEY = Sm2PrivateKey(
    bytes.fromhex("3945208F7B2144B13F36E38AC6D39F95889393692860B51A42FB81EF4DF7C5B8"),
    Sm2PublicKey(
        bytes.fromhex(
            "09F9DF311E5421A150DD7D161E4BC5C672179FAD1833FC076BB08FF356F35020"
            "CCEA490CE26775A52DC6EA718CC1AA600AED05FBF35E084A6632F6072DA9AD13"
        )
    ),
)
STANDARD_MESSAGE = b"message digest"
STANDARD_DIGEST = "F0B43E94BA45ACCAACE692ED534382EB17E6AB5A19CE7B31F4486FDFC0D28640"
STANDARD_SIGNATURE = encode_dss_signature(
    0xF5A03B0648D2C4630EEAC513E1BB81A15944DA3827D5B74143AC7EACEEE720B3,
    0xB1B6AA29DF212FD8763182BC0D421CA1BB9038FD1F7F42D4840B69C485BBC1AA,
)


@pytest.fixture
def cast() -> Cast:
    """A hospital whose people and seal have SM2 keys, in a region that allows them."""
    cast = Cast.create()
    cast.region.trust_list.algorithms.append(SIGNATURE_ALGORITHM_SM2_SM3)
    return cast


@pytest.fixture
def sheet(cast: Cast) -> Sheet:
    region, hospital = cast.region, cast.hospital
    doctor = sm2_person(region, hospital, "D001", SIGNER_ROLE_PRESCRIBER)
    reviewer = sm2_person(region, hospital, "R001", SIGNER_ROLE_REVIEWING_PHARMACIST)
    seal = sm2_seal(region, hospital, SIGNER_ROLE_HOSPITAL_SEAL)
    return [
        (SIGNER_ROLE_PRESCRIBER, doctor),
        (SIGNER_ROLE_REVIEWING_PHARMACIST, reviewer),
        (SIGNER_ROLE_HOSPITAL_SEAL, seal),
    ]


# the algorithm


def test_the_standards_example_verifies() -> None:
    assert STANDARD_KEY.public.digest(STANDARD_MESSAGE).hex().upper() == STANDARD_DIGEST
    STANDARD_KEY.public.verify(STANDARD_SIGNATURE, STANDARD_MESSAGE)


def test_the_standards_key_signs_what_verifies() -> None:
    values = {STANDARD_KEY.sign(STANDARD_MESSAGE) for _ in range(8)}
    assert len(values) == 8, "every signature has a random number of its own"
    for value in values:
        STANDARD_KEY.public.verify(value, STANDARD_MESSAGE)


R, S = decode_dss_signature(STANDARD_SIGNATURE)


@pytest.mark.parametrize(
    "value",
    [
        encode_dss_signature(R, ORDER - S),  # what changes an ECDSA signature unnoticed
        encode_dss_signature(ORDER - R, S),
        encode_dss_signature(S, R),
        encode_dss_signature(R, S + ORDER),
        encode_dss_signature(R, ORDER - R),  # r + s = n, which the standard excludes by name
        encode_dss_signature(0, S),
        encode_dss_signature(R, 0),
        R.to_bytes(32, "big") + S.to_bytes(32, "big"),
        STANDARD_SIGNATURE + b"\0",
        STANDARD_SIGNATURE[:-1],
        b"",
    ],
)
def test_nothing_else_is_the_standards_signature(value: bytes) -> None:
    with pytest.raises(SignatureWrong):
        STANDARD_KEY.public.verify(value, STANDARD_MESSAGE)


def test_another_message_or_key_does_not_verify() -> None:
    with pytest.raises(SignatureWrong):
        STANDARD_KEY.public.verify(STANDARD_SIGNATURE, STANDARD_MESSAGE + b".")
    with pytest.raises(SignatureWrong):
        Sm2PrivateKey.generate().public.verify(STANDARD_SIGNATURE, STANDARD_MESSAGE)


@pytest.mark.parametrize("point", [bytes(64), b"\x01" * 64, b"\xff" * 64, b"", bytes(63)])
def test_what_is_no_point_of_the_curve_is_no_key(point: bytes) -> None:
    with pytest.raises(KeyUnsupported, match="no point"):
        Sm2PublicKey(point)


def test_a_private_key_is_never_shown() -> None:
    assert STANDARD_KEY.scalar.hex() not in repr(STANDARD_KEY).lower()
    assert "scalar" not in repr(STANDARD_KEY)


# agreement with OpenSSL


def openssl(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [OPENSSL or "openssl", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


SM2_OPTIONS = ("-rawin", "-digest", "sm3", "-pkeyopt", "distid:1234567812345678")


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """A key that OpenSSL made."""
    file = tmp_path / "sm2.key"
    if openssl("genpkey", "-algorithm", "SM2", "-out", file).returncode:
        pytest.skip("this openssl has no SM2")
    (tmp_path / "data").write_bytes(DATA)
    return file


@needs_openssl
def test_what_openssl_signs_verifies_here(key_file: Path, tmp_path: Path) -> None:
    public = read_private_key(key_file.read_bytes(), None).public
    value = tmp_path / "value"
    for _ in range(4):
        signing = ("-sign", "-inkey", key_file, "-in", tmp_path / "data", "-out", value)
        assert openssl("pkeyutl", *signing, *SM2_OPTIONS).returncode == 0
        public.verify(value.read_bytes(), DATA)
        with pytest.raises(SignatureWrong):
            public.verify(value.read_bytes(), DATA + b".")


@needs_openssl
def test_openssl_verifies_what_is_signed_here(key_file: Path, tmp_path: Path) -> None:
    key = read_private_key(key_file.read_bytes(), None)
    checking = ("-verify", "-inkey", key_file, "-in", tmp_path / "data", "-sigfile")
    for number in range(4):
        (tmp_path / "value").write_bytes(key.sign(DATA + b"." * (number % 2)))
        outcome = openssl("pkeyutl", *checking, tmp_path / "value", *SM2_OPTIONS)
        assert (outcome.returncode == 0) == (number % 2 == 0)


@needs_openssl
def test_openssl_reads_the_keys_and_certificates_made_here(tmp_path: Path, cast: Cast) -> None:
    key = Sm2PrivateKey.generate()
    (tmp_path / "key.pem").write_bytes(private_pem(key))
    assert openssl("pkey", "-in", tmp_path / "key.pem", "-check", "-noout").returncode == 0
    name = SignerName(cast.region.platform, KeyPurpose.SEAL)
    leaf = sm2_leaf(cast.region.signing, name, key).certificate
    (tmp_path / "leaf.pem").write_bytes(leaf.public_bytes(Encoding.PEM))
    shown = openssl("x509", "-in", tmp_path / "leaf.pem", "-noout", "-pubkey").stdout
    assert shown == openssl("pkey", "-in", tmp_path / "key.pem", "-pubout").stdout


@needs_openssl
@pytest.mark.parametrize("options", [(), ("-v2", "aes-128-cbc"), ("-v2prf", "hmacWithSHA1")])
def test_a_key_that_openssl_encrypted_opens_with_its_password(
    options: tuple[str, ...], key_file: Path, tmp_path: Path
) -> None:
    sealed = tmp_path / "sealed.key"
    command = ("pkcs8", "-topk8", "-in", key_file, "-out", sealed, "-passout", "pass:open sesame")
    assert openssl(*command, *options).returncode == 0
    key = read_private_key(key_file.read_bytes(), None)
    assert read_private_key(sealed.read_bytes(), b"open sesame") == key
    for wrong in (b"open barley", None):
        with pytest.raises(ValueError, match=r"."):
            read_private_key(sealed.read_bytes(), wrong)


@needs_openssl
def test_other_keys_and_other_encryption_are_refused_by_name(
    key_file: Path, tmp_path: Path
) -> None:
    sealed = tmp_path / "sealed.key"
    command = ("pkcs8", "-topk8", "-in", key_file, "-out", sealed, "-passout", "pass:word")
    assert openssl(*command, "-v2", "des3").returncode == 0
    with pytest.raises(KeyUnsupported, match="encrypted in another way"):
        read_private_key(sealed.read_bytes(), b"word")
    curve = tmp_path / "curve.key"
    making = ("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime239v1")
    assert openssl(*making, "-out", curve).returncode == 0
    with pytest.raises(KeyUnsupported, match="neither P-256 nor Ed25519, nor SM2"):
        read_private_key(curve.read_bytes(), None)


def test_a_small_private_key_survives_its_file() -> None:
    small = Sm2PrivateKey(bytes(31) + b"\x07", STANDARD_KEY.public)
    assert read_private_key(private_pem(small), None) == small


# certificates


def test_an_sm2_leaf_leads_to_an_anchor_over_an_intermediate(cast: Cast) -> None:
    authority = cast.region.signing.subordinate("people")
    leaf = sm2_leaf(authority, SignerName(cast.hospital, KeyPurpose.SEAL))
    anchors = [cast.region.signing.certificate]
    path = verify_chain(leaf.certificate, leaf.intermediates, anchors, NOW, Usage.SIGNING)
    assert path.leaf == leaf.certificate
    assert verification_key(path.leaf).algorithm == SIGNATURE_ALGORITHM_SM2_SM3


def test_a_certificate_whose_point_is_not_on_the_curve_is_refused(
    cast: Cast, sheet: Sheet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An authority may have signed it unread."""
    good = Sm2PrivateKey.generate()
    monkeypatch.setattr(Sm2PublicKey, "__post_init__", lambda self: None)
    bad = Sm2PublicKey(good.public.point[:63] + bytes([good.public.point[63] ^ 1]))
    monkeypatch.undo()
    name = SignerName(cast.region.platform, KeyPurpose.SEAL)
    authority = cast.region.signing
    certificate = issue_for(authority.issue(str(name)).certificate, bad, authority.key)
    with pytest.raises(KeyUnsupported, match="no point"):
        verification_key(certificate)


# statements


def test_a_prescription_signed_with_sm2_throughout_verifies(cast: Cast, sheet: Sheet) -> None:
    statement = signed(cast.prescription(), sheet)
    arrived = SignedStatement.FromString(statement.SerializeToString())
    verified = Verifier(cast.trust()).verify(arrived, Prescription, NOW, cast.region.code)
    assert verified.content == cast.prescription()
    assert [signer.role for signer in verified.signers] == [role for role, _ in sheet]


def test_sm2_and_p256_signatures_stand_on_one_sheet(cast: Cast, sheet: Sheet) -> None:
    mixed = [sheet[0], cast.sheet(Prescription)[1], sheet[2]]
    Verifier(cast.trust()).verify(signed(cast.prescription(), mixed), Prescription, NOW)


def test_a_region_must_allow_sm2_by_name(cast: Cast, sheet: Sheet) -> None:
    cast.region.trust_list.algorithms.remove(SIGNATURE_ALGORITHM_SM2_SM3)
    with pytest.raises(SignerUntrusted, match="algorithm that its region does not allow"):
        Verifier(cast.trust()).verify(signed(cast.prescription(), sheet), Prescription, NOW)


@pytest.mark.parametrize("place", range(3))
def test_a_changed_sm2_signature_is_refused(place: int, cast: Cast, sheet: Sheet) -> None:
    statement = signed(cast.prescription(), sheet)
    signature = statement.signatures[place]
    r, s = decode_dss_signature(signature.value)
    signature.value = encode_dss_signature(r, ORDER - s)
    with pytest.raises(SignatureInvalid):
        Verifier(cast.trust()).verify(statement, Prescription, NOW)


def test_a_header_cannot_choose_another_algorithm_than_the_keys(cast: Cast, sheet: Sheet) -> None:
    statement = signed(cast.prescription(), sheet)
    header = ProtectedHeader.FromString(statement.signatures[-1].protected)
    header.algorithm = SIGNATURE_ALGORITHM_ECDSA_P256_SHA256
    statement.signatures[-1].protected = header.SerializeToString(deterministic=True)
    with pytest.raises(SignatureInvalid, match="not that of the certificate's key"):
        Verifier(cast.trust()).verify(statement, Prescription, NOW)


def test_changed_content_is_refused(cast: Cast, sheet: Sheet) -> None:
    statement = signed(cast.prescription(), sheet)
    other = cast.prescription()
    other.lines[0].quantity += 1
    statement.payload = other.SerializeToString(deterministic=True)
    with pytest.raises((SignatureInvalid, SignedContentMismatch)):
        Verifier(cast.trust()).verify(statement, Prescription, NOW)


# signers


def sm2_platform(region: Region) -> Credential:
    return sm2_seal(region, region.platform, SIGNER_ROLE_PLATFORM)


def write(folder: Path, credential: Credential) -> tuple[Path, Path]:
    certificate, key = folder / "seal.pem", folder / "seal.key"
    certificate.write_bytes(credential.certificate.public_bytes(Encoding.PEM))
    key.write_bytes(private_pem(credential.key))  # type: ignore[arg-type] # an SM2 key
    return certificate, key


def test_an_sm2_key_in_a_file_signs(cast: Cast, tmp_path: Path) -> None:
    signer = FileSigner.load(*write(tmp_path, sm2_platform(cast.region)))
    statement = new_statement(cast.message(Attempt), signer, SIGNER_ROLE_PLATFORM, NOW)
    Verifier(cast.trust()).verify(statement, Attempt, NOW)


def test_middleware_that_answers_r_and_s_signs_with_sm2(cast: Cast) -> None:
    """As the SKF interface of USB keys (GM/T 0016) does."""
    seal = sm2_platform(cast.region)

    def sign(data: bytes) -> bytes:
        numbers = decode_dss_signature(seal.key.sign(data))  # type: ignore[call-arg] # SM2
        return b"".join(number.to_bytes(32, "big") for number in numbers)

    signer = CallbackSigner([seal.certificate], sign)
    statement = new_statement(cast.message(Attempt), signer, SIGNER_ROLE_PLATFORM, NOW)
    Verifier(cast.trust()).verify(statement, Attempt, NOW)


def test_an_sm2_key_of_another_certificate_is_refused(cast: Cast, tmp_path: Path) -> None:
    files = write(tmp_path, sm2_platform(cast.region))
    files[1].write_bytes(private_pem(Sm2PrivateKey.generate()))
    with pytest.raises(SignerUnusable, match=r"seal\.key: is not the key of seal\.pem"):
        FileSigner.load(*files)


# where SM2 is not installed


@pytest.fixture
def no_sm2(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the extra had not been installed."""
    monkeypatch.delattr(rxoutflow.statements, "sm2")
    monkeypatch.delitem(sys.modules, "rxoutflow.statements.sm2")
    monkeypatch.setitem(sys.modules, "gmssl_pyx", None)


def test_without_the_extra_a_signature_is_untrusted_and_says_what_is_missing(
    cast: Cast, sheet: Sheet, request: pytest.FixtureRequest
) -> None:
    statement = signed(cast.prescription(), sheet)
    request.getfixturevalue("no_sm2")
    with pytest.raises(SignerUntrusted, match=r"pip install 'rxoutflow\[sm2\]'") as refusal:
        Verifier(cast.trust()).verify(statement, Prescription, NOW)
    assert refusal.value.reason == "SIGNER_UNTRUSTED"


def test_without_the_extra_a_key_file_is_refused_and_says_what_is_missing(
    cast: Cast, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    files = write(tmp_path, sm2_platform(cast.region))
    request.getfixturevalue("no_sm2")
    with pytest.raises(SignerUnusable, match=r"seal\.key: .*pip install 'rxoutflow\[sm2\]'"):
        FileSigner.load(*files)


@pytest.mark.usefixtures("no_sm2")
def test_without_the_extra_everything_else_works(cast: Cast) -> None:
    statement = signed(cast.prescription(), cast.sheet(Prescription))
    Verifier(cast.trust()).verify(statement, Prescription, NOW)
