"""Signature algorithms, each bound to one kind of key.

The algorithm follows from the certificate's key. What a header says is compared with it and never
believed, so no message can choose a weaker algorithm. Which of them a region's signers may use is
in its trust list. P-256 and Ed25519 are built in; SM2 needs the optional extra ``sm2``, without
which its keys are refused by name. Keys of all other kinds are refused.

Every signature value is accepted in one form only. An ECDSA signature (r, s) verifies as (r, n - s)
too, so whoever relays a statement could rewrite its signatures and with them its digest; only the
lower s, in DER, is accepted here. The second forms of Ed25519 are refused by RFC 8032. For SM2 none
can be computed without the private key, because its s enters the point that is recomputed.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Protocol

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.serialization import Encoding

from rxoutflow.v1.statement_pb2 import (
    SIGNATURE_ALGORITHM_ECDSA_P256_SHA256,
    SIGNATURE_ALGORITHM_ED25519,
    SignatureAlgorithm,
)

if TYPE_CHECKING:
    from rxoutflow.statements.sm2 import Sm2PrivateKey

ECDSA_SHA256 = ec.ECDSA(hashes.SHA256())

_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_NUMBER_BYTES = 32
_TOKEN_BYTES = 2 * _NUMBER_BYTES
_SM2_CURVE = bytes.fromhex("06082a811ccf5501822d")
"""The object identifier 1.2.156.10197.1.301, DER."""


class KeyUnsupported(ValueError):
    """A key is of a kind that no signature algorithm here is made for."""


class SignatureWrong(ValueError):
    """A signature value does not belong to these bytes and this key, or has a second form."""

    def __init__(self, problem: str = "the bytes were changed, or another key signed") -> None:
        """Say what is wrong."""
        super().__init__(problem)


class VerificationKey(Protocol):
    """The public half of a signing key."""

    @property
    def algorithm(self) -> SignatureAlgorithm.ValueType:
        """The one algorithm that this key is used with."""
        ...

    def normal_form(self, value: bytes) -> bytes:
        """Write a signature value of any tool or token in the one form that is accepted.

        Raises:
            SignatureWrong: if it is no signature value of this algorithm.
        """
        ...

    def verify(self, value: bytes, data: bytes) -> None:
        """Check a signature value over the data.

        Raises:
            SignatureWrong: if it is not this key's signature over the data, in its normal form.
        """
        ...


class _P256Key:
    algorithm = SIGNATURE_ALGORITHM_ECDSA_P256_SHA256

    def __init__(self, key: ec.EllipticCurvePublicKey) -> None:
        self._key = key

    def normal_form(self, value: bytes) -> bytes:
        r, s = signature_numbers(value, _P256_ORDER)
        lower = min(s, _P256_ORDER - s)
        if s == lower and len(value) != _TOKEN_BYTES:
            return value  # DER writes two numbers in one way only, and no other is read
        return encode_dss_signature(r, lower)

    def verify(self, value: bytes, data: bytes) -> None:
        require_form(value, self.normal_form(value), "the lower of its two s")
        try:
            self._key.verify(value, data, ECDSA_SHA256)
        except InvalidSignature:
            raise SignatureWrong from None


class _Ed25519Key:
    algorithm = SIGNATURE_ALGORITHM_ED25519

    def __init__(self, key: ed25519.Ed25519PublicKey) -> None:
        self._key = key

    def normal_form(self, value: bytes) -> bytes:
        return value

    def verify(self, value: bytes, data: bytes) -> None:
        try:
            self._key.verify(value, data)
        except InvalidSignature:
            raise SignatureWrong from None


def verification_key(certificate: x509.Certificate) -> VerificationKey:
    """Return the certificate's key with the algorithm it is bound to.

    Raises:
        KeyUnsupported: if it is neither P-256 nor Ed25519 nor SM2, or is SM2 and the extra is
            missing.
    """
    try:
        key = certificate.public_key()
    except UnsupportedAlgorithm:
        return _sm2_key(certificate.public_bytes(Encoding.DER))
    except ValueError as error:
        raise KeyUnsupported("the certificate's key cannot be read") from error
    match key:
        case ec.EllipticCurvePublicKey(curve=ec.SECP256R1()):
            return _P256Key(key)
        case ed25519.Ed25519PublicKey():
            return _Ed25519Key(key)
        case _:
            raise KeyUnsupported("the certificate's key is neither P-256 nor Ed25519, nor SM2")


def read_sm2_key(data: bytes, password: bytes | None) -> Sm2PrivateKey:
    """Read an SM2 private key from PEM.

    Raises:
        KeyUnsupported: if it is of another kind, or the extra is missing.
        ValueError: if the password does not open it.
    """
    key: Sm2PrivateKey = sm2_support().read_private_key(data, password)
    return key


def sm2_support() -> ModuleType:
    """The module for SM2.

    Raises:
        KeyUnsupported: saying what to install.
    """
    try:
        from rxoutflow.statements import sm2
    except ImportError as error:
        raise KeyUnsupported(str(error)) from None
    return sm2


def signature_numbers(value: bytes, order: int) -> tuple[int, int]:
    """Read r and s from DER, or from 32 bytes each as tokens give them.

    Raises:
        SignatureWrong: if the value is neither, or a number is not between 0 and the order.
    """
    try:
        if len(value) == _TOKEN_BYTES:
            r, s = _number(value[:_NUMBER_BYTES]), _number(value[_NUMBER_BYTES:])
        else:
            r, s = decode_dss_signature(value)
    except ValueError:
        raise SignatureWrong("the value is no signature in DER") from None
    if not (0 < r < order and 0 < s < order):
        raise SignatureWrong("the value is no signature: a number is out of range")
    return r, s


def require_form(value: bytes, normal: bytes, described: str) -> None:
    """Refuse a second form of a signature.

    Raises:
        SignatureWrong: if the value is not the normal one.
    """
    if value != normal:
        raise SignatureWrong(f"the value must be DER with {described}; its signer must write it so")


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _sm2_key(certificate: bytes) -> VerificationKey:
    if _SM2_CURVE not in certificate:  # only chooses the message: the key itself is parsed
        raise KeyUnsupported("the certificate's key is neither P-256 nor Ed25519, nor SM2")
    key: VerificationKey = sm2_support().certificate_key(certificate)
    return key
