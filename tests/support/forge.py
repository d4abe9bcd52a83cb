"""Certificates as no careful authority would issue them, for tests of who is let in.

    forged = forge(site.home.transport, "spiffe://...", usages=())

Everything can be said or left out. What it does not say is as in an honest TLS client certificate,
valid for decades by the machine's clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, ObjectIdentifier

from support.live import BEGIN, END
from support.pki import CLIENT, Authority, Credential

LEAF_USE = "digital_signature"
ISSUER_USES = ("key_cert_sign", "crl_sign")
_USES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
    "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip


def forge(
    issuer: Authority | None,
    *names: str | x509.GeneralName,
    common_name: str = "leaf",
    key: Any = None,
    usages: Sequence[ObjectIdentifier] | None = CLIENT,
    key_uses: Sequence[str] | None = (LEAF_USE,),
    ca: bool | None = False,
    path_length: int | None = None,
    begin: datetime = BEGIN,
    end: datetime = END,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
    digest: Any = None,
) -> Credential:
    """Issue a certificate; by itself if there is no issuer. ``None`` leaves an extension out.

    Names that are strings are URIs.
    """
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(_authority_identifier(issuer.key if issuer else key), False)
    )
    for extension, critical in (
        *_extensions(names, usages, key_uses, ca, path_length),
        *extensions,
    ):
        builder = builder.add_extension(extension, critical)
    signing_key = issuer.key if issuer else key
    certificate = builder.sign(signing_key, digest or hashes.SHA256())
    return Credential(certificate, key, issuer.path if issuer else ())


def authority(issuer: Authority | None, name: str, **how: Any) -> Authority:
    """An authority, below another or by itself, with whatever is wrong with it."""
    defaults: dict[str, Any] = {"usages": None, "key_uses": ISSUER_USES, "ca": True}
    credential = forge(issuer, common_name=name, **{**defaults, **how})
    path = (credential.certificate, *issuer.path) if issuer else ()
    assert isinstance(credential.key, ec.EllipticCurvePrivateKey)
    return Authority(credential.certificate, credential.key, path)


def der(credential: Credential | Authority) -> bytes:
    """The certificate in DER."""
    return credential.certificate.public_bytes(Encoding.DER)


def _authority_identifier(key: Any) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _extensions(
    names: Sequence[str | x509.GeneralName],
    usages: Sequence[ObjectIdentifier] | None,
    key_uses: Sequence[str] | None,
    ca: bool | None,
    path_length: int | None,
) -> list[tuple[x509.ExtensionType, bool]]:
    found: list[tuple[x509.ExtensionType, bool]] = []
    if ca is not None:
        found.append((x509.BasicConstraints(ca=ca, path_length=path_length), True))
    if key_uses is not None:
        uses = {each: each in key_uses for each in _USES}
        found.append((x509.KeyUsage(**uses), True))
    if usages:
        found.append((x509.ExtendedKeyUsage(usages), False))
    general = [x509.UniformResourceIdentifier(n) if isinstance(n, str) else n for n in names]
    if general:
        found.append((x509.SubjectAlternativeName(general), False))
    return found
