"""Seals whose key is in a hardware security module: what they sign, and how they fail."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("pkcs11", reason="python-pkcs11 is missing: pip install 'rxoutflow[hsm]'")

import pkcs11
from cryptography.hazmat.primitives.serialization import Encoding

from rxoutflow.statements import SignerUnavailable, SignerUnusable, Verifier, new_statement
from rxoutflow.statements.algorithms import verification_key
from rxoutflow.statements.hsm import Pkcs11Signer, TokenKey
from rxoutflow.v1.attempt_pb2 import Attempt
from rxoutflow.v1.statement_pb2 import SIGNER_ROLE_PLATFORM
from support.hsm import PIN, SoftHsm
from support.pki import NOW, Credential
from support.sheets import Cast

pytestmark = pytest.mark.hsm

SEAL, OTHER, ED, TWICE = "platform seal", "another key", "ed25519 seal", "label of two keys"


@pytest.fixture(scope="module")
def softhsm(tmp_path_factory: pytest.TempPathFactory) -> SoftHsm:
    return SoftHsm.start(tmp_path_factory.mktemp("hsm"), "seals", "fragile")


@pytest.fixture(scope="module")
def cast() -> Cast:
    return Cast.create()


@pytest.fixture(scope="module")
def seal(softhsm: SoftHsm, cast: Cast) -> Credential:
    return softhsm.seal(cast.region, "seals", SEAL)


@pytest.fixture
def certificate(seal: Credential, tmp_path: Path) -> Path:
    return write(tmp_path, seal)


def write(folder: Path, credential: Credential) -> Path:
    file = folder / "seal.pem"
    file.write_bytes(credential.certificate.public_bytes(Encoding.PEM))
    return file


def signer(
    softhsm: SoftHsm, certificate: Path, label: str = "seals", key: str = SEAL, pin: str = PIN
) -> Pkcs11Signer:
    return Pkcs11Signer.load(certificate, softhsm.module, label, key, pin)


def test_a_seal_in_a_module_signs_what_verifies(
    softhsm: SoftHsm, certificate: Path, cast: Cast
) -> None:
    sealed = signer(softhsm, certificate)
    statement = new_statement(cast.message(Attempt), sealed, SIGNER_ROLE_PLATFORM, NOW)
    assert Verifier(cast.trust()).verify(statement, Attempt, NOW).content == cast.message(Attempt)


def test_an_ed25519_key_in_a_module_signs_too(softhsm: SoftHsm, tmp_path: Path) -> None:
    cast = Cast.create()
    credential = softhsm.seal(cast.region, "seals", ED, ed=True)
    sealed = signer(softhsm, write(tmp_path, credential), key=ED)
    statement = new_statement(cast.message(Attempt), sealed, SIGNER_ROLE_PLATFORM, NOW)
    Verifier(cast.trust()).verify(statement, Attempt, NOW)


def test_signatures_of_a_module_are_normalised(
    softhsm: SoftHsm, certificate: Path, seal: Credential
) -> None:
    """Modules know nothing of a lower s: about half of what they return would be refused."""
    sealed, key = signer(softhsm, certificate), verification_key(seal.certificate)
    for number in range(32):
        key.verify(sealed.sign(bytes([number])), bytes([number]))


def test_several_signers_of_one_process_share_a_token(
    softhsm: SoftHsm, certificate: Path, cast: Cast
) -> None:
    """A process logs in to a token once for all its sessions, and out for all of them."""
    token_key = TokenKey(softhsm.module, "seals", SEAL, PIN)
    first = signer(softhsm, certificate)
    assert token_key.sign(bytes(32), pkcs11.Mechanism.ECDSA)
    second = signer(softhsm, certificate)
    token_key.close()
    for each in (first, second):
        assert new_statement(cast.message(Attempt), each, SIGNER_ROLE_PLATFORM, NOW).signatures


def test_a_signer_outlives_a_restart_of_its_module(
    softhsm: SoftHsm, certificate: Path, seal: Credential
) -> None:
    sealed = signer(softhsm, certificate)
    pkcs11.lib(str(softhsm.module)).reinitialize()  # every session and login is gone
    verification_key(seal.certificate).verify(sealed.sign(b"data"), b"data")


def test_a_key_that_is_gone_makes_the_signer_unavailable(softhsm: SoftHsm, tmp_path: Path) -> None:
    cast = Cast.create()
    file = write(tmp_path, softhsm.seal(cast.region, "fragile", SEAL))
    sealed = signer(softhsm, file, label="fragile")
    softhsm.lose("fragile")
    with pytest.raises(SignerUnavailable, match="no private key of this label"):
        new_statement(cast.message(Attempt), sealed, SIGNER_ROLE_PLATFORM, NOW)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"label": "seal"}, "there is no token of this label"),
        ({"key": "platform"}, "no private key of this label"),
        ({"pin": "000000"}, "refuses the PIN"),
        ({"pin": ""}, "refuses the PIN"),
    ],
)
def test_what_is_wrong_is_told_without_the_pin(
    wrong: dict[str, str],
    told: str,
    softhsm: SoftHsm,
    certificate: Path,
) -> None:
    pkcs11.lib(str(softhsm.module)).reinitialize()  # nobody is logged in, so that the PIN counts
    with pytest.raises(SignerUnusable, match=told) as refusal:
        signer(softhsm, certificate, **wrong)
    assert PIN not in str(refusal.value)
    assert "000000" not in str(refusal.value)


def test_a_library_that_is_no_module_is_refused(certificate: Path, tmp_path: Path) -> None:
    with pytest.raises(SignerUnusable, match="the PKCS#11 module fails"):
        Pkcs11Signer.load(certificate, tmp_path / "none.so", "seals", SEAL, PIN)


def test_a_key_of_another_certificate_is_refused(
    softhsm: SoftHsm, cast: Cast, certificate: Path
) -> None:
    softhsm.seal(cast.region, "seals", OTHER)
    with pytest.raises(SignerUnusable, match="not the one of the certificate"):
        signer(softhsm, certificate, key=OTHER)


def test_a_label_of_two_keys_is_refused(softhsm: SoftHsm, cast: Cast, tmp_path: Path) -> None:
    softhsm.seal(cast.region, "seals", TWICE)
    file = write(tmp_path, softhsm.seal(cast.region, "seals", TWICE))
    with pytest.raises(SignerUnusable, match="several keys of this label"):
        signer(softhsm, file, key=TWICE)


def test_a_pin_that_was_refused_is_never_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Modules lock themselves after a few wrong PINs, and then nobody can sign."""
    logins: list[str] = []

    def refuse(user_pin: str) -> None:
        logins.append(user_pin)
        raise pkcs11.PinIncorrect

    token = SimpleNamespace(open=refuse)
    library = SimpleNamespace(get_token=lambda token_label: token)
    monkeypatch.setattr(pkcs11, "lib", lambda path: library)
    key = TokenKey(tmp_path, "seals", SEAL, PIN)
    for _ in range(3):
        with pytest.raises(pkcs11.PinIncorrect):
            key.sign(b"", pkcs11.Mechanism.ECDSA)
        key.close()
    assert logins == [PIN]
