"""Keys that sign: wherever a key is kept, it is used through the one small interface here.

- :class:`FileSigner`: a key file, best encrypted; P-256, Ed25519, or SM2 with the extra ``sm2``.
- :class:`CallbackSigner`: a function, for signature services and for the middleware of a USB key.
- :class:`~rxoutflow.statements.hsm.Pkcs11Signer`: a key in a hardware module, extra ``hsm``.

Whatever a key gives is brought into the one form that verifiers accept, and is not let out if it
does not verify with the certificate. No key, password or PIN is ever part of a message.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self, TypeAlias

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from rxoutflow.statements.algorithms import (
    ECDSA_SHA256,
    KeyUnsupported,
    SignatureWrong,
    read_sm2_key,
    verification_key,
)
from rxoutflow.v1.statement_pb2 import SignatureAlgorithm

if TYPE_CHECKING:
    from rxoutflow.statements.sm2 import Sm2PrivateKey

_PROBE = b"Does this key belong to this certificate?"
"""Signed to find out; no statement begins like this."""

PrivateKey: TypeAlias = "ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | Sm2PrivateKey"


class SignerUnusable(ValueError):
    """A certificate or key cannot be signed with until somebody changes that.

    The message begins with the file that is at fault, if there is one.
    """

    def __init__(self, problem: str, path: Path | None = None) -> None:
        """Keep the problem and the file."""
        super().__init__(f"{path}: {problem}" if path else problem)
        self.problem = problem
        self.path = path


class KeyMismatch(SignerUnusable):
    """A private key is another one than that of the certificate."""


class SignerUnavailable(Exception):
    """A key cannot be used at the moment: its token or service fails or does not answer.

    Nothing was signed. Trying the same again later is safe.
    """


class Signer(Protocol):
    """A key that signs, with the certificate that names its holder."""

    @property
    def certificate_chain(self) -> Sequence[bytes]:
        """The signer's certificate and its intermediates, DER, leaf first, without the anchor."""
        ...

    @property
    def algorithm(self) -> SignatureAlgorithm.ValueType:
        """The algorithm of :meth:`sign`: that of the certificate's key."""
        ...

    def sign(self, data: bytes) -> bytes:
        """Return the signature value over the data: 64 bytes for Ed25519, else ASN.1 DER.

        ECDSA values have the lower of their two s, without which verifiers refuse them.

        Raises:
            SignerUnavailable: if the key cannot be used at the moment.
        """
        ...


class CertifiedSigner:
    """What signers have in common: a certificate chain, and the algorithm of its first key."""

    def __init__(self, certificates: Sequence[x509.Certificate]) -> None:
        """Take a chain, leaf first, without the anchor.

        Raises:
            SignerUnusable: if the leaf's key is of a kind that cannot sign.
        """
        try:
            self._key = verification_key(certificates[0])
        except KeyUnsupported as error:
            raise SignerUnusable(str(error)) from None
        self._chain = tuple(each.public_bytes(Encoding.DER) for each in certificates)

    @property
    def certificate_chain(self) -> Sequence[bytes]:
        """The signer's certificate and its intermediates, DER, leaf first."""
        return self._chain

    @property
    def algorithm(self) -> SignatureAlgorithm.ValueType:
        """The algorithm of the certificate's key."""
        return self._key.algorithm

    def _checked(self, value: bytes, data: bytes) -> bytes:
        """The value in its normal form, if the certificate's key gave it for the data.

        Raises:
            SignatureWrong: if not.
        """
        normal = self._key.normal_form(value)
        self._key.verify(normal, data)
        return normal

    def _require_fit(self, sign: Callable[[bytes], bytes]) -> None:
        """Refuse a key that is not the certificate's, by a signature over nothing of importance."""
        try:
            self._checked(sign(_PROBE), _PROBE)
        except SignatureWrong:
            raise KeyMismatch("the private key is not the one of the certificate") from None


class FileSigner(CertifiedSigner):
    """A signer whose key was read from a file: P-256, Ed25519 or, with the extra, SM2."""

    def __init__(self, certificates: Sequence[x509.Certificate], key: PrivateKey) -> None:
        """Take a chain, leaf first, and the private key of the leaf.

        Raises:
            SignerUnusable: if the key is of another kind or is not the certificate's.
        """
        super().__init__(certificates)
        self._sign = _signing(key)
        self._require_fit(self._sign)

    @classmethod
    def load(
        cls, certificate_pem_path: Path, key_pem_path: Path, password: bytes | None = None
    ) -> Self:
        """Read a PEM chain, leaf first, and a PEM private key, which a password may protect.

        Raises:
            SignerUnusable: naming the file that cannot be read or used.
        """
        certificates = read_certificates(certificate_pem_path)
        key = _read_key(key_pem_path, password)
        try:
            return cls(certificates, key)
        except KeyMismatch:
            problem = f"is not the key of {certificate_pem_path.name}; configure the pair together"
            raise SignerUnusable(problem, key_pem_path) from None
        except SignerUnusable as error:
            raise SignerUnusable(error.problem, certificate_pem_path) from None

    def sign(self, data: bytes) -> bytes:
        """Return the signature value over the data."""
        return self._key.normal_form(self._sign(data))


class CallbackSigner(CertifiedSigner):
    """A signer that asks a function, for keys that only their own software can use.

    The function gets the bytes to sign, not their digest, and returns an Ed25519 signature or, for
    ECDSA and SM2, DER or r and s with 32 bytes each. It may raise anything when it cannot sign; a
    :class:`SignerUnavailable` goes to the caller as it is. It may be called by several threads.
    """

    def __init__(
        self, certificates: Sequence[x509.Certificate], sign: Callable[[bytes], bytes]
    ) -> None:
        """Take a chain, leaf first, and the function, which is not called yet.

        Raises:
            SignerUnusable: if the leaf's key is of a kind that cannot sign.
        """
        super().__init__(certificates)
        self._sign = sign

    def sign(self, data: bytes) -> bytes:
        """Return the signature value over the data.

        Raises:
            SignerUnavailable: if the function failed, or signed with another key.
        """
        try:
            return self._checked(self._sign(data), data)
        except SignerUnavailable:
            raise
        except SignatureWrong:
            raise SignerUnavailable(
                "the signing service returned no signature by the key of the certificate"
            ) from None
        except Exception as error:  # whatever the function raises means the same to the caller
            raise SignerUnavailable(
                f"the signing service did not sign: {type(error).__name__}"
            ) from error


def read_certificates(path: Path) -> list[x509.Certificate]:
    """The certificates in a PEM file, in order.

    Raises:
        SignerUnusable: if it cannot be read or holds none.
    """
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise SignerUnusable(f"cannot be read: {error.strerror}", path) from None
    except ValueError:
        raise SignerUnusable("must hold PEM certificates, the signer's first", path) from None


def _signing(key: PrivateKey) -> Callable[[bytes], bytes]:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return lambda data: key.sign(data, ECDSA_SHA256)
    return key.sign


def _read_key(path: Path, password: bytes | None) -> PrivateKey:
    try:
        data = path.read_bytes()
        key = _parse_key(data, password)
    except OSError as error:
        raise SignerUnusable(f"cannot be read: {error.strerror}", path) from None
    except KeyUnsupported as error:
        raise SignerUnusable(str(error), path) from None
    except (TypeError, ValueError):
        raise SignerUnusable(
            "must hold a PEM private key; give its password if, and only if, it has one", path
        ) from None
    return key


def _parse_key(data: bytes, password: bytes | None) -> PrivateKey:
    try:
        key = load_pem_private_key(data, password)
    except UnsupportedAlgorithm:
        return read_sm2_key(data, password)
    if not isinstance(key, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
        raise KeyUnsupported("the key must be P-256 or Ed25519, or SM2")
    return key
