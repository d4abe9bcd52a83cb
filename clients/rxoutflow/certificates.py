"""Paths: whether a certificate leads to an anchor of one region.

Every region runs two PKIs, one for TLS and one for signatures, and its trust list carries the
anchors of both. A path is built from the leaf over at most three intermediates to one of the
anchors given, and is checked at one instant: signatures, validity, basic constraints, path lengths,
key usage, unknown critical extensions. The work is done by ``cryptography``'s path validator
(RFC 5280 with the Web PKI's rules for issuing certificates: P-256, P-384, P-521 or RSA keys).
Leaves may also have Ed25519 keys; RSA keys of leaves, which the validator does not judge, must have
2048 bits as well.

Nothing here reads names (:mod:`rxoutflow.identity`), deny lists or authority
(:mod:`rxoutflow.trust`), fetches anything or asks for the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

MAX_INTERMEDIATES = 3
"""Most certificates between the leaf and its anchor."""

MIN_RSA_BITS = 2048
"""Least size of a leaf's RSA key."""


class CertificateUntrusted(ValueError):
    """A certificate does not lead to an anchor, or may not be used for this."""


class Usage(StrEnum):
    """What a leaf certificate is used for."""

    CLIENT = "client"
    SERVER = "server"
    SIGNING = "signing"


@dataclass(frozen=True, slots=True)
class TrustedPath:
    """A verified path, leaf first and anchor last, and the time for which all of it is valid."""

    certificates: tuple[x509.Certificate, ...]
    not_before: datetime
    not_after: datetime

    @property
    def leaf(self) -> x509.Certificate:
        """The certificate that was asked about."""
        return self.certificates[0]

    def valid_at(self, instant: datetime) -> bool:
        """Whether every certificate of the path is valid at the instant (aware)."""
        return self.not_before <= instant <= self.not_after


def verify_chain(
    leaf: x509.Certificate,
    intermediates: Sequence[x509.Certificate],
    anchors: Sequence[x509.Certificate],
    at: datetime,
    usage: Usage,
) -> TrustedPath:
    """Return the path from the leaf to one of the anchors, all of it valid at ``at`` (aware).

    Anchors are those of one region and one PKI: never pass the anchors of two together.

    Raises:
        CertificateUntrusted: if there is no such path or the leaf's usage forbids it.
    """
    if not anchors:
        raise CertificateUntrusted("the region has no anchor for this use")
    _require_strong_key(leaf)
    builder = (
        PolicyBuilder().store(Store(list(anchors))).time(at).max_chain_depth(MAX_INTERMEDIATES)
    )
    verifier = builder.extension_policies(
        ca_policy=ExtensionPolicy.webpki_defaults_ca(), ee_policy=_leaf_policy(usage)
    ).build_client_verifier()
    try:
        path = verifier.verify(leaf, list(intermediates)).chain
    except VerificationError as error:
        raise CertificateUntrusted(
            f"the certificate does not lead to an anchor of its region for {usage}: {_brief(error)}"
        ) from None
    return TrustedPath(
        tuple(path),
        max(certificate.not_valid_before_utc for certificate in path),
        min(certificate.not_valid_after_utc for certificate in path),
    )


def certificate_sha256(certificate: x509.Certificate) -> bytes:
    """SHA-256 of the certificate in DER, the name by which trust lists know it."""
    return certificate.fingerprint(hashes.SHA256())


def _require_strong_key(leaf: x509.Certificate) -> None:
    try:
        key = leaf.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return  # whoever uses the key says so if it cannot be read; SM2 is read elsewhere
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < MIN_RSA_BITS:
        raise CertificateUntrusted(f"an RSA key must have at least {MIN_RSA_BITS} bits")


_AUTHENTICATION = {
    Usage.CLIENT: ExtendedKeyUsageOID.CLIENT_AUTH,
    Usage.SERVER: ExtendedKeyUsageOID.SERVER_AUTH,
}
_NOT_FOR_SIGNING = {*_AUTHENTICATION.values(), ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}


@lru_cache
def _leaf_policy(usage: Usage) -> ExtensionPolicy:
    """Rules for the leaf's extensions. Unknown critical ones are refused by the validator."""

    def extended_key_usage(
        _policy: Policy, _leaf: x509.Certificate, extension: x509.ExtendedKeyUsage | None
    ) -> None:
        uses = set(extension or ())
        if usage is Usage.SIGNING and not uses.isdisjoint(_NOT_FOR_SIGNING):
            raise ValueError("extended key usage of a signing key must not allow TLS")
        if usage is not Usage.SIGNING and _AUTHENTICATION[usage] not in uses:
            raise ValueError(f"extended key usage must allow TLS {usage} authentication")

    return (
        ExtensionPolicy.permit_all()
        .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _key_usage)
        .may_be_present(x509.BasicConstraints, Criticality.AGNOSTIC, _basic_constraints)
        .may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, extended_key_usage)
    )


def _key_usage(_policy: Policy, _leaf: x509.Certificate, extension: x509.KeyUsage | None) -> None:
    if extension is None or not extension.digital_signature or extension.key_cert_sign:
        raise ValueError("key usage must allow digital signatures and no issuing")


def _basic_constraints(
    _policy: Policy, _leaf: x509.Certificate, extension: x509.BasicConstraints | None
) -> None:
    if extension is not None and extension.ca:
        raise ValueError("basic constraints say that it is an issuing certificate, not a leaf")


def _brief(error: VerificationError) -> str:
    """The validator's reason without its printout of the certificate, which holds names."""
    return str(error).partition(" (encountered processing")[0].removeprefix("validation failed: ")
