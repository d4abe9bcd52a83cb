"""Signers: wherever a key is kept, what leaves them verifies, or they say what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)

from rxoutflow.passwords import PasswordSource, PasswordUnusable
from rxoutflow.statements import (
    CallbackSigner,
    FileSigner,
    SignatureInvalid,
    Signer,
    SignerUnavailable,
    SignerUnusable,
    Verifier,
    add_signature,
    new_statement,
    pae,
    statement_sha256,
)
from rxoutflow.trust import TrustListRefused
from rxoutflow.v1.attempt_pb2 import Attempt
from rxoutflow.v1.prescription_pb2 import Prescription
from rxoutflow.v1.statement_pb2 import SIGNER_ROLE_PLATFORM, SignedStatement
from support.pki import NOW, Authority, Credential, ed, p256, trust_store
from support.sheets import Cast, signed

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
ED25519_ORDER = 2**252 + 27742317777372353535851937790883648493
ECDSA = ec.ECDSA(hashes.SHA256())


@pytest.fixture(scope="module")
def cast() -> Cast:
    return Cast.create()


@pytest.fixture(scope="module")
def verifier(cast: Cast) -> Verifier:
    return Verifier(cast.trust())


def other_s(value: bytes) -> bytes:
    """What a relay can make of an ECDSA signature without any key."""
    r, s = decode_dss_signature(value)
    return encode_dss_signature(r, ORDER - s)


def raw(value: bytes) -> bytes:
    """The signature as tokens and signature services give it: r and s, 32 bytes each."""
    return b"".join(number.to_bytes(32, "big") for number in decode_dss_signature(value))


def attempt(cast: Cast, signer: Signer) -> SignedStatement:
    return new_statement(cast.message(Attempt), signer, SIGNER_ROLE_PLATFORM, NOW)


# one form of every signature


def test_every_ecdsa_signature_of_a_file_signer_has_the_lower_s(cast: Cast) -> None:
    signer = cast.platform_seal.signer
    values = [signer.sign(bytes([number])) for number in range(32)]  # without care, half are high
    assert all(decode_dss_signature(value)[1] <= ORDER // 2 for value in values)


@pytest.mark.parametrize("place", range(3))
def test_a_relay_cannot_give_a_statement_another_digest(
    place: int, cast: Cast, verifier: Verifier
) -> None:
    """The higher s verifies with any tool for ECDSA; it is refused here, in every place."""
    statement = cast.statement(Prescription)
    digest = statement_sha256(statement)
    signature = statement.signatures[place]
    signature.value = other_s(signature.value)
    assert statement_sha256(statement) != digest
    with pytest.raises(SignatureInvalid) as refusal:
        verifier.verify(statement, Prescription, NOW)
    assert refusal.value.reason == "SIGNATURE_INVALID"


def test_the_last_signature_is_refused_for_its_form_alone(cast: Cast, verifier: Verifier) -> None:
    """Nothing covers it, so that its form is the only fault; the message says what to do."""
    statement = cast.statement(Prescription)
    seal = statement.signatures[-1]
    seal.value = other_s(seal.value)
    bytes_signed = pae(statement.payload_type, seal.protected, statement.payload)
    public = cast.hospital_seal.certificate.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    public.verify(seal.value, bytes_signed, ECDSA)  # a tool that does not look at the form
    with pytest.raises(SignatureInvalid, match="lower of its two s; its signer must write it so"):
        verifier.verify(statement, Prescription, NOW)


def test_a_trust_list_with_the_other_s_is_refused(cast: Cast) -> None:
    store = trust_store(cast.region)
    statement = cast.region.signed_list(sequence=9)
    statement.signatures[0].value = other_s(statement.signatures[0].value)
    with pytest.raises(TrustListRefused, match="does not verify"):
        store.offer(statement, NOW)


@pytest.mark.parametrize(
    "rewrite",
    [
        raw,
        lambda value: value + b"\0",
        lambda value: value[:1] + b"\x81" + value[1:],  # the length in two bytes: BER, not DER
        lambda value: b"",
        lambda value: bytes(64),
        lambda value: encode_dss_signature(decode_dss_signature(value)[0], 0),
        lambda value: encode_dss_signature(decode_dss_signature(value)[0] + ORDER, 1),
    ],
)
def test_no_other_encoding_of_an_ecdsa_signature_is_accepted(
    rewrite: Callable[[bytes], bytes], cast: Cast, verifier: Verifier
) -> None:
    statement = attempt(cast, cast.platform_seal.signer)
    statement.signatures[0].value = rewrite(statement.signatures[0].value)
    with pytest.raises(SignatureInvalid, match="PLATFORM"):
        verifier.verify(statement, Attempt, NOW)


def test_the_second_form_of_an_ed25519_signature_is_refused() -> None:
    cast = Cast.create()
    seal = cast.region.seal(cast.region.platform, key=ed())
    verifier = Verifier(cast.trust())
    statement = attempt(cast, seal.signer)
    verifier.verify(statement, Attempt, NOW)
    value = statement.signatures[0].value
    second = int.from_bytes(value[32:], "little") + ED25519_ORDER
    statement.signatures[0].value = value[:32] + second.to_bytes(32, "little")
    with pytest.raises(SignatureInvalid):
        verifier.verify(statement, Attempt, NOW)


# intermediates


def test_intermediates_on_the_way_change_nothing_that_is_verified() -> None:
    """They are outside of every digest, so whoever relays a statement can add to them."""
    cast = Cast.create()
    region = cast.region
    region.signing = region.signing.subordinate("people")
    seal = region.seal(region.platform)
    verifier = Verifier(cast.trust())
    statement = attempt(cast, seal.signer)
    plain = verifier.verify(statement, Attempt, NOW)
    strangers = [Authority.create("stranger"), region.signing.subordinate("of no use")]
    for each in strangers:
        chain = statement.signatures[0].certificate_chain
        chain.insert(1, each.certificate.public_bytes(Encoding.DER))
        assert verifier.verify(statement, Attempt, NOW) == plain


def test_without_its_intermediates_a_statement_fails_and_no_more() -> None:
    cast = Cast.create()
    cast.region.signing = cast.region.signing.subordinate("people")
    seal = cast.region.seal(cast.region.platform)
    statement = attempt(cast, seal.signer)
    del statement.signatures[0].certificate_chain[1:]
    with pytest.raises(Exception, match="does not lead to an anchor"):
        Verifier(cast.trust()).verify(statement, Attempt, NOW)


# functions: signature services and the middleware of USB keys


def service(credential: Credential, form: Callable[[bytes], bytes] = lambda value: value) -> Signer:
    """A signature service that holds the key and answers in this form."""
    key = credential.key
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return CallbackSigner([credential.certificate], lambda data: form(key.sign(data, ECDSA)))


@pytest.mark.parametrize("form", [bytes, raw, other_s, lambda value: raw(other_s(value))])
def test_a_signature_service_may_answer_in_any_usual_form(
    form: Callable[[bytes], bytes], cast: Cast, verifier: Verifier
) -> None:
    statement = attempt(cast, service(cast.platform_seal, form))
    verifier.verify(statement, Attempt, NOW)


def test_an_ed25519_service_signs_too() -> None:
    cast = Cast.create()
    seal = cast.region.seal(cast.region.platform, key=ed())
    signer = CallbackSigner([seal.certificate], lambda data: seal.key.sign(data))  # type: ignore[call-arg]
    Verifier(cast.trust()).verify(attempt(cast, signer), Attempt, NOW)


def test_one_statement_may_be_signed_by_files_and_by_a_service(
    cast: Cast, verifier: Verifier
) -> None:
    (role, first), (second, pharmacist), (third, seal) = cast.sheet(Prescription)
    statement = new_statement(cast.prescription(), service(first), role, NOW)
    statement = add_signature(statement, pharmacist.signer, second, NOW)
    statement = add_signature(statement, service(seal), third, NOW)
    assert len(verifier.verify(statement, Prescription, NOW).signers) == 3


@pytest.mark.parametrize(
    "answer", [b"", b"no signature", bytes(64), b"\x30\x06\x02\x01\x01\x02\x01\x01"]
)
def test_a_service_that_answers_nonsense_signs_nothing(answer: bytes, cast: Cast) -> None:
    signer = CallbackSigner([cast.platform_seal.certificate], lambda data: answer)
    with pytest.raises(SignerUnavailable, match="no signature by the key of the certificate"):
        attempt(cast, signer)


def test_a_service_that_signs_with_another_key_is_found_out(cast: Cast) -> None:
    other = p256()
    signer = CallbackSigner([cast.platform_seal.certificate], lambda data: other.sign(data, ECDSA))
    with pytest.raises(SignerUnavailable, match="key of the certificate"):
        attempt(cast, signer)


def test_a_service_that_fails_is_unavailable_and_its_words_stay_inside(cast: Cast) -> None:
    def fail(data: bytes) -> bytes:
        raise TimeoutError("the PIN is 1234")

    with pytest.raises(SignerUnavailable, match="did not sign: TimeoutError") as raised:
        attempt(cast, CallbackSigner([cast.platform_seal.certificate], fail))
    assert "1234" not in str(raised.value)
    assert isinstance(raised.value.__cause__, TimeoutError)


def test_a_service_may_say_itself_that_it_is_unavailable(cast: Cast) -> None:
    def fail(data: bytes) -> bytes:
        raise SignerUnavailable("put the USB key in")

    with pytest.raises(SignerUnavailable, match="put the USB key in"):
        attempt(cast, CallbackSigner([cast.platform_seal.certificate], fail))


def test_a_service_is_not_asked_before_there_is_something_to_sign(cast: Cast) -> None:
    """A USB key would ask its owner for the PIN."""
    asked: list[bytes] = []

    def sign(data: bytes) -> bytes:
        asked.append(data)
        raise SignerUnavailable

    signer = CallbackSigner([cast.platform_seal.certificate], sign)
    assert signer.certificate_chain
    assert signer.algorithm
    assert not asked


# passwords


def test_a_password_may_be_in_a_file_or_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "password"
    file.write_bytes(b" open sesame \r\n")
    monkeypatch.setenv("SEAL_PASSWORD", "open sesame")
    assert PasswordSource(file).read() == b" open sesame "
    assert PasswordSource(variable="SEAL_PASSWORD").read() == b"open sesame"
    assert PasswordSource().read() is None


def test_a_password_that_is_not_there_is_missed_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SEAL_PASSWORD", raising=False)
    (tmp_path / "empty").write_bytes(b"\n")
    for source, named in (
        (PasswordSource(tmp_path / "gone"), "gone: cannot be read"),
        (PasswordSource(tmp_path / "empty"), "empty: holds no password"),
        (PasswordSource(variable="SEAL_PASSWORD"), "SEAL_PASSWORD is not set"),
    ):
        with pytest.raises(PasswordUnusable, match=named):
            source.read()
    with pytest.raises(PasswordUnusable, match="not both"):
        PasswordSource(tmp_path / "empty", "SEAL_PASSWORD")


@pytest.mark.parametrize("kind", ["p256", "ed25519"])
def test_a_key_that_is_encrypted_at_rest_signs_with_its_password(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cast = Cast.create()
    seal = cast.region.seal(cast.region.platform, key=ed() if kind == "ed25519" else None)
    certificate, key = tmp_path / "seal.pem", tmp_path / "seal.key"
    certificate.write_bytes(seal.certificate.public_bytes(Encoding.PEM))
    encryption = BestAvailableEncryption(b"open sesame")
    key.write_bytes(seal.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    assert key.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    monkeypatch.setenv("SEAL_PASSWORD", "open sesame")
    password = PasswordSource(variable="SEAL_PASSWORD").read()
    statement = attempt(cast, FileSigner.load(certificate, key, password))
    Verifier(cast.trust()).verify(statement, Attempt, NOW)
    with pytest.raises(SignerUnusable, match=r"seal\.key.*password") as refusal:
        FileSigner.load(certificate, key, b"open barley")
    assert "barley" not in str(refusal.value)


def test_signing_covers_all_that_came_before_in_its_normal_form(
    cast: Cast, verifier: Verifier
) -> None:
    """A service that answers with the higher s does not spoil the signatures after its own."""
    (role, doctor), *others = cast.sheet(Prescription)
    statement = new_statement(cast.prescription(), service(doctor, other_s), role, NOW)
    for role, credential in others:
        statement = add_signature(statement, credential.signer, role, NOW)
    whole = signed(cast.prescription(), cast.sheet(Prescription))
    assert verifier.verify(statement, Prescription, NOW).signers == (
        verifier.verify(whole, Prescription, NOW).signers
    )
