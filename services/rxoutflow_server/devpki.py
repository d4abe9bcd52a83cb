"""Certificates for development: two PKIs a region, made in one go, for the sandbox and for tests.

Promises certificates of exactly the form that the exchange asks of real ones: one URI name a leaf,
TLS and signing keys under separate authorities, P-256 for TLS, P-256, Ed25519 or (with the extra
``sm2``) SM2 for signatures, random serial numbers, private keys that only their owner can read.

It is no certificate authority. It keeps no record of what it issued, revokes nothing, protects its
keys with file permissions alone, and vouches for nobody: never trust its anchors outside the
machine that made them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from rxoutflow.identity import CallerName, SignerName
from rxoutflow.statements.algorithms import sm2_support

if TYPE_CHECKING:
    from rxoutflow.statements.sm2 import Sm2PrivateKey

AUTHORITY_LIFETIME = timedelta(days=3650)
LEAF_LIFETIME = timedelta(days=365)
BACKDATING = timedelta(minutes=5)
"""How far before now certificates begin, for machines whose clocks run a little behind."""

_ORGANISATION = "rxoutflow development PKI"

BuiltInKey: TypeAlias = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
"""Keys of which certificates and requests can be made without SM2."""

PrivateKey: TypeAlias = "BuiltInKey | Sm2PrivateKey"


class KeyAlgorithm(StrEnum):
    """Kinds of keys that signers may have; TLS keys are always P-256."""

    P256 = "p256"
    ED25519 = "ed25519"
    SM2 = "sm2"

    def new_key(self) -> PrivateKey:
        """A fresh private key.

        Raises:
            KeyUnsupported: SM2 is not installed.
        """
        match self:
            case KeyAlgorithm.P256:
                return ec.generate_private_key(ec.SECP256R1())
            case KeyAlgorithm.ED25519:
                return ed25519.Ed25519PrivateKey.generate()
            case KeyAlgorithm.SM2:
                key: Sm2PrivateKey = sm2_support().Sm2PrivateKey.generate()
                return key


@dataclass(frozen=True, slots=True)
class KeyPair:
    """The files of a certificate and its private key, both PEM."""

    certificate: Path
    key: Path

    @classmethod
    def at(cls, folder: Path, name: str) -> Self:
        """The files ``<name>.pem`` and ``<name>.key`` of a folder."""
        return cls(folder / f"{name}.pem", folder / f"{name}.key")

    def load(self) -> x509.Certificate:
        """Read the certificate."""
        return x509.load_pem_x509_certificate(self.certificate.read_bytes())


@dataclass(frozen=True, slots=True)
class Credential:
    """A certificate and the private key it is for."""

    certificate: x509.Certificate
    key: PrivateKey

    def write(self, files: KeyPair) -> None:
        """Write both, the key readable by its owner alone.

        Raises:
            FileExistsError: one of the files is there already; keys are never overwritten.
        """
        make_private_folder(files.key.parent)
        write_private_file(files.key, _private_pem(self.key))
        with files.certificate.open("xb") as stream:
            stream.write(self.certificate.public_bytes(serialization.Encoding.PEM))


class Authority:
    """One certificate authority of one region, at one instant (aware): issues leaves, no more."""

    def __init__(
        self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, now: datetime
    ) -> None:
        self.credential = Credential(certificate, key)
        self._key = key
        self._now = now

    @classmethod
    def create(cls, region_code: str, pki: str, now: datetime) -> Self:
        """Make the region's authority for one PKI, ``transport`` or ``signing``."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(f"{region_code} {pki} CA")
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = (
            _builder(name, name, key.public_key(), now, AUTHORITY_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(issues=True), critical=True)
            .add_extension(identifier, critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier),
                critical=False,
            )
        )
        return cls(builder.sign(key, hashes.SHA256()), key, now)

    def issue_server(self, holder: CallerName, host_name: str) -> Credential:
        """A TLS certificate for a service, which also dials others; clients check the host name."""
        usages = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
        return self._issue(holder, KeyAlgorithm.P256, [x509.DNSName(host_name)], usages)

    def issue_client(self, holder: CallerName) -> Credential:
        """A TLS certificate for software that only dials."""
        return self._issue(holder, KeyAlgorithm.P256, [], (ExtendedKeyUsageOID.CLIENT_AUTH,))

    def issue_signer(self, holder: SignerName, algorithm: KeyAlgorithm) -> Credential:
        """A certificate for a key that signs statements and can never be used for TLS."""
        return self._issue(holder, algorithm, [], ())

    def _issue(
        self,
        holder: CallerName | SignerName,
        algorithm: KeyAlgorithm,
        other_names: Iterable[x509.GeneralName],
        usages: Iterable[x509.ObjectIdentifier],
    ) -> Credential:
        key = algorithm.new_key()
        public = _builder_key(key)
        issuer = self.credential.certificate
        builder = (
            _builder(_name(_common_name(holder)), issuer.subject, public, self._now, LEAF_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(leaf_key_usage(), critical=True)
            .add_extension(_subject_names(holder, other_names), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(_issuer_identifier(issuer), critical=False)
        )
        if purposes := list(usages):
            builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        return Credential(self._sign(builder, key), key)

    def _sign(self, builder: x509.CertificateBuilder, key: PrivateKey) -> x509.Certificate:
        certificate = builder.sign(self._key, hashes.SHA256())
        if isinstance(key, BuiltInKey):
            return certificate
        from rxoutflow_server import devpki_sm2

        return devpki_sm2.issue_for(certificate, key.public, self._key)


def make_private_folder(folder: Path) -> None:
    """Make a folder, and the missing ones above it, that only their owner can enter."""
    if not folder.parent.exists():
        make_private_folder(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)


def write_private_file(file: Path, content: bytes) -> None:
    """Write a new file that only its owner can read, from the first byte on.

    Raises:
        FileExistsError: it is there already.
    """
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey,
    now: datetime,
    lifetime: timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATING)
        .not_valid_after(now + lifetime)
    )


def leaf_key_usage() -> x509.KeyUsage:
    """What the key of a leaf may do: sign, and never issue."""
    return _key_usage(issues=False)


def _builder_key(key: PrivateKey) -> ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey:
    """The public key to build a certificate with: for SM2 that of a stand-in, replaced later."""
    if isinstance(key, BuiltInKey):
        return key.public_key()
    return ec.generate_private_key(ec.SECP256R1()).public_key()


def _private_pem(key: PrivateKey) -> bytes:
    if isinstance(key, BuiltInKey):
        return key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    from rxoutflow_server import devpki_sm2

    return devpki_sm2.private_pem(key)


def _name(common_name: str) -> x509.Name:
    """A subject for people to read; nothing is ever granted because of it."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, _ORGANISATION),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _common_name(holder: CallerName | SignerName) -> str:
    """Codes and never names of people, since certificates end up in logs."""
    if isinstance(holder, CallerName):
        return holder.institution_code
    return f"{holder.institution.institution_code} {holder.person_code or holder.purpose}"


def _subject_names(
    holder: CallerName | SignerName, other_names: Iterable[x509.GeneralName]
) -> x509.SubjectAlternativeName:
    uri = x509.UniformResourceIdentifier(str(holder))
    return x509.SubjectAlternativeName([uri, *other_names])


def _issuer_identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _key_usage(*, issues: bool) -> x509.KeyUsage:
    """What a key may do: an authority issues, a leaf signs, and neither does the other."""
    return x509.KeyUsage(
        digital_signature=not issues,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=issues,
        crl_sign=issues,
        encipher_only=False,
        decipher_only=False,
    )
