"""``keys`` as operators use it: a key, a request, and a certificate that came back."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from rxoutflow.certificates import Usage, certificate_sha256, verify_chain
from rxoutflow.identity import caller_name, signer_name
from rxoutflow_server.cli_keys import keys_group
from support.pki import BEGIN, END, NOW, Authority, ed

HOSPITAL = "spiffe://350200.rxoutflow/hospital/H35020000001"
SEAL = f"{HOSPITAL}/seal"
DOCTOR = f"{HOSPITAL}/person/D350200001"
PLATFORM = "spiffe://350200.rxoutflow/platform/350200"
DAY = timedelta(days=1)
SERVER_AUTH, CLIENT_AUTH = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
REGULATOR = "spiffe://350200.rxoutflow/regulator/R350200"


def run(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(keys_group, [str(each) for each in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def told(result: Result) -> str:
    """The one line on standard error of a command that failed."""
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line


def request(folder: Path, name: str, *options: str | Path) -> Result:
    return run("request", "--name", name, "--out", folder, *options)


def load_request(file: Path) -> x509.CertificateSigningRequest:
    csr = x509.load_pem_x509_csr(file.read_bytes())
    assert csr.is_signature_valid
    return csr


def alternative_names(csr: x509.CertificateSigningRequest) -> tuple[list[str], list[str]]:
    names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return uris, names.get_values_for_type(x509.DNSName)


class Requested:
    """The key of a request, of which an authority has the public half."""

    def __init__(self, csr: x509.CertificateSigningRequest) -> None:
        self._public = csr.public_key()

    def public_key(self) -> object:
        return self._public


def issued(
    folder: Path, stem: str, *, begins: timedelta = -DAY, ends: timedelta = 30 * DAY
) -> tuple[x509.Certificate, Authority]:
    """What an authority makes of a request: its names and key, and what the authority decides."""
    csr = load_request(folder / f"{stem}.csr")
    uris, dns = alternative_names(csr)
    authority, now = Authority.create("a real authority"), datetime.now(UTC)
    certificate = authority.issue(
        *uris,
        key=Requested(csr),  # type: ignore[arg-type] # the public half is all that it takes
        dns=dns,
        usages=requested_uses(csr),
        begin=now + begins,
        end=now + ends,
    ).certificate
    (folder / f"{stem}.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    return certificate, authority


def requested_uses(csr: x509.CertificateSigningRequest) -> list[x509.ObjectIdentifier]:
    try:
        return list(csr.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return []


# requests


@pytest.mark.parametrize(
    ("name", "stem", "options", "host_names", "uses"),
    [
        (PLATFORM, "350200-tls", (), ["platform.350200.rxoutflow"], [SERVER_AUTH, CLIENT_AUTH]),
        (HOSPITAL, "H35020000001-tls", (), [], [CLIENT_AUTH]),
        (
            HOSPITAL,
            "H35020000001-tls",
            ("--server",),
            ["h35020000001.350200.rxoutflow"],
            [SERVER_AUTH, CLIENT_AUTH],
        ),
        (REGULATOR, "R350200-tls", (), [], [CLIENT_AUTH]),
        (SEAL, "H35020000001-seal", (), [], []),
        (DOCTOR, "H35020000001-D350200001", (), [], []),
        (f"{PLATFORM}/registry", "350200-registry", (), [], []),
    ],
)
def test_a_request_asks_for_exactly_one_name_and_what_the_key_is_for(
    name: str,
    stem: str,
    options: tuple[str, ...],
    host_names: list[str],
    uses: list[x509.ObjectIdentifier],
    tmp_path: Path,
) -> None:
    result = request(tmp_path / "keys", name, *options)
    assert result.exit_code == 0
    csr = load_request(tmp_path / "keys" / f"{stem}.csr")
    assert alternative_names(csr) == ([name], host_names)
    assert requested_uses(csr) == uses
    usage = csr.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert not usage.key_cert_sign
    assert ("signing" if name.count("/") > 4 else "transport") in result.stderr


@pytest.mark.parametrize(
    ("algorithm", "kind"),
    [("p256", ec.EllipticCurvePrivateKey), ("ed25519", ed25519.Ed25519PrivateKey)],
)
def test_the_private_key_is_its_owners_alone(algorithm: str, kind: type, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        request(tmp_path / "keys", SEAL, "--algorithm", algorithm)
    finally:
        os.umask(before)
    key = tmp_path / "keys" / "H35020000001-seal.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    private = load_pem_private_key(key.read_bytes(), None)
    assert isinstance(private, kind)
    assert load_request(key.with_suffix(".csr")).public_key() == private.public_key()


def test_a_private_key_may_be_encrypted_at_rest(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("open sesame\n")
    assert request(tmp_path, SEAL, "--password-file", password).exit_code == 0
    key = (tmp_path / "H35020000001-seal.key").read_bytes()
    load_pem_private_key(key, b"open sesame")
    with pytest.raises(TypeError):
        load_pem_private_key(key, None)


def test_nothing_is_overwritten_unless_asked_for(tmp_path: Path) -> None:
    request(tmp_path, SEAL)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    assert len(before) == 2
    assert "--force replaces it" in told(request(tmp_path, SEAL))
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before
    (tmp_path / "H35020000001-seal.key").unlink()
    assert "H35020000001-seal.csr: is there already" in told(request(tmp_path, SEAL))
    assert request(tmp_path, SEAL, "--force").exit_code == 0
    after = {file: file.read_bytes() for file in tmp_path.iterdir()}
    assert after.keys() == before.keys()
    assert not set(after.values()) & set(before.values())


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("H35020000001",), "the URI is not spiffe://"),
        ((f"{HOSPITAL}/stamp",), "goes on with /seal, /registry or /person/<code>"),
        (("spiffe://350200.rxoutflow/hospital/H35050000001",), "does not fit"),
        ((HOSPITAL, "--algorithm", "ed25519"), "TLS keys are P-256"),
        ((REGULATOR, "--server"), "only platforms, hospitals and pharmacies run servers"),
        ((SEAL, "--server"), "only platforms, hospitals and pharmacies run servers"),
        ((SEAL, "--password-file", "nowhere"), "--password-file: nowhere: cannot be read"),
    ],
)
def test_what_cannot_be_requested_is_refused_and_leaves_nothing(
    arguments: tuple[str, ...], complaint: str, tmp_path: Path
) -> None:
    assert complaint in told(request(tmp_path / "keys", *arguments))
    assert not (tmp_path / "keys").exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("a file")
    assert "keys" in told(request(tmp_path / "keys" / "more", SEAL))


# what came back


def test_a_certificate_issued_for_a_request_names_the_same_holder(tmp_path: Path) -> None:
    span = {"begins": BEGIN - datetime.now(UTC), "ends": END - datetime.now(UTC)}
    request(tmp_path, DOCTOR)
    certificate, authority = issued(tmp_path, "H35020000001-D350200001", **span)
    assert str(signer_name(certificate)) == DOCTOR
    verify_chain(certificate, [], [authority.certificate], NOW, Usage.SIGNING)
    request(tmp_path, PLATFORM)
    certificate, authority = issued(tmp_path, "350200-tls", **span)
    assert str(caller_name(certificate)) == PLATFORM
    for usage in (Usage.SERVER, Usage.CLIENT):
        verify_chain(certificate, [], [authority.certificate], NOW, usage)


def test_show_tells_name_purpose_validity_and_digest(tmp_path: Path) -> None:
    request(tmp_path, PLATFORM)
    certificate, _ = issued(tmp_path, "350200-tls")
    lines = run("show", tmp_path / "350200-tls.pem").stdout.splitlines()
    rows = {line[:15].strip(): line[15:].strip() for line in lines}
    assert rows["name"] == PLATFORM
    assert rows["purpose"] == "TLS server and TLS client of a platform"
    assert rows["key"] == "P-256"
    assert rows["host name"] == "platform.350200.rxoutflow"
    assert rows["sha256"] == certificate_sha256(certificate).hex()
    assert f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC (valid now)" in rows["valid"]


@pytest.mark.parametrize(
    ("name", "stem", "purpose"),
    [
        (SEAL, "H35020000001-seal", "signs statements: the seal of a hospital"),
        (DOCTOR, "H35020000001-D350200001", "signs statements: a person of a hospital"),
        (HOSPITAL, "H35020000001-tls", "TLS client of a hospital"),
    ],
)
def test_show_tells_what_a_key_is_for(name: str, stem: str, purpose: str, tmp_path: Path) -> None:
    request(tmp_path, name)
    issued(tmp_path, stem)
    assert purpose in run("show", tmp_path / f"{stem}.pem").stdout


@pytest.mark.parametrize(
    ("begins", "ends", "state"),
    [(-2 * DAY, -DAY, "expired"), (DAY, 2 * DAY, "not valid yet")],
)
def test_a_certificate_out_of_its_time_is_shown_and_fails_its_check(
    begins: timedelta, ends: timedelta, state: str, tmp_path: Path
) -> None:
    request(tmp_path, SEAL)
    issued(tmp_path, "H35020000001-seal", begins=begins, ends=ends)
    certificate, key = tmp_path / "H35020000001-seal.pem", tmp_path / "H35020000001-seal.key"
    assert f"({state})" in run("show", certificate).stdout
    assert f"is {state}" in told(run("check", certificate, key))


def test_check_passes_for_what_belongs_together(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("open sesame\n")
    request(tmp_path, SEAL, "--algorithm", "ed25519", "--password-file", password)
    issued(tmp_path, "H35020000001-seal")
    files = tmp_path / "H35020000001-seal.pem", tmp_path / "H35020000001-seal.key"
    result = run("check", *files, "--password-file", password)
    assert (result.exit_code, result.stdout[:4]) == (0, "ok: ")
    assert SEAL in result.stdout
    assert "password" in told(run("check", *files))


def test_check_finds_a_key_of_another_certificate(tmp_path: Path) -> None:
    request(tmp_path, SEAL)
    request(tmp_path, DOCTOR)
    issued(tmp_path, "H35020000001-seal")
    pair = tmp_path / "H35020000001-seal.pem", tmp_path / "H35020000001-D350200001.key"
    assert "is not the key of H35020000001-seal.pem" in told(run("check", *pair))


def test_check_refuses_tls_keys_of_another_kind_and_names_of_another_form(tmp_path: Path) -> None:
    for name, complaint in (
        (HOSPITAL, "a TLS key must be P-256"),
        ("https://example.org/hospital", "the URI is not"),
    ):
        credential = Authority.create("any").issue(
            name, key=ed(), begin=datetime.now(UTC) - DAY, end=datetime.now(UTC) + DAY
        )
        certificate, key = tmp_path / "any.pem", tmp_path / "any.key"
        certificate.write_bytes(credential.certificate.public_bytes(Encoding.PEM))
        plain = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        key.write_bytes(credential.key.private_bytes(*plain))
        assert complaint in told(run("check", certificate, key))


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_a_file_that_holds_no_certificate_is_named(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "some.pem"
    if content is not None:
        file.write_bytes(content)
    assert str(file) in told(run("show", file))
