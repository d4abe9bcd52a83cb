"""``keys`` as operators use it: a key, a request, and a certificate that came back."""

from __future__ import annotations

import os
import stat
from datetime import timedelta
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
from support.pki import CLIENT, SERVER, Authority, p256

HOSPITAL = "spiffe://350200.rxoutflow/hospital/H35020000001"
SEAL = f"{HOSPITAL}/seal"
DOCTOR = f"{HOSPITAL}/person/D350200001"
PLATFORM = "spiffe://350200.rxoutflow/platform/350200"
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


def issued(folder: Path, stem: str, **how: object) -> x509.Certificate:
    """What an authority makes of a request: its names and its key, and the authority's own rules."""
    csr = load_request(folder / f"{stem}.csr")
    uris, dns = alternative_names(csr)
    authority = Authority.create("a real authority")
    now = x509.datetime.datetime.now(x509.datetime.timezone.utc)
    span = {"begin": now - timedelta(days=1), "end": now + timedelta(days=30)} | how
    credential = authority.issue(*uris, key=_Requested(csr), dns=dns, **span)  # type: ignore[arg-type]
    file = folder / f"{stem}.pem"
    file.write_bytes(credential.certificate.public_bytes(Encoding.PEM))
    return credential.certificate


class _Requested:
    """The key of a request, of which the authority has the public half."""

    def __init__(self, csr: x509.CertificateSigningRequest) -> None:
        self._public = csr.public_key()

    def public_key(self) -> object:
        return self._public
