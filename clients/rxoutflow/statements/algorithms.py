"""Signature algorithms, each bound to one kind of key.

The algorithm follows from the certificate's key. What a header says is compared with it and never
believed, so no message can choose a weaker algorithm. Which of them a region's signers may use is
in its trust list. P-256 and Ed25519 are built in; the contract's SM2 is not: a key of any other
kind is refused here.
"""

from __future__ import annotations

from typing import Protocol

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from rxoutflow.v1.statement_pb2 import (
    SIGNATURE_ALGORITHM_ECDSA_P256_SHA256,
    SIGNATURE_ALGORITHM_ED25519,
    SignatureAlgorithm,
)

_ECDSA_SHA256 = ec.ECDSA(hashes.SHA256())


class KeyUnsupported(ValueError):
    """A key is of a kind that no signature algorithm here is made for."""


class SignatureWrong(ValueError):
    """A signature value does not belong to these bytes and this key."""


class VerificationKey(Protocol):
    """The public half of a signing key."""

    @property
    def algorithm(self) -> SignatureAlgorithm.ValueType:
        """The one algorithm that this key is used with."""
        ...

    def verify(self, value: bytes, data: bytes) -> None:
        """Check a signature value over the data.

        Raises:
            SignatureWrong: if it is not this key's signature over the data.
        """
        ...


class _P256Key:
    algorithm = SIGNATURE_ALGORITHM_ECDSA_P256_SHA256

    def __init__(self, key: ec.EllipticCurvePublicKey) -> None:
        self._key = key

    def verify(self, value: bytes, data: bytes) -> None:
        try:
            self._key.verify(value, data, _ECDSA_SHA256)
        except InvalidSignature:
            raise SignatureWrong from None


class _Ed25519Key:
    algorithm = SIGNATURE_ALGORITHM_ED25519

    def __init__(self, key: ed25519.Ed25519PublicKey) -> None:
        self._key = key

    def verify(self, value: bytes, data: bytes) -> None:
        try:
            self._key.verify(value, data)
        except InvalidSignature:
            raise SignatureWrong from None


def verification_key(certificate: x509.Certificate) -> VerificationKey:
    """Return the certificate's key with the algorithm it is bound to.

    Raises:
        KeyUnsupported: if it is neither P-256 nor Ed25519.
    """
    try:
        key = certificate.public_key()
    except (UnsupportedAlgorithm, ValueError) as error:
        raise KeyUnsupported("the certificate's key cannot be read") from error
    match key:
        case ec.EllipticCurvePublicKey(curve=ec.SECP256R1()):
            return _P256Key(key)
        case ed25519.Ed25519PublicKey():
            return _Ed25519Key(key)
        case _:
            raise KeyUnsupported("the certificate's key is neither P-256 nor Ed25519")
