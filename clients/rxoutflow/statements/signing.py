"""Signing statements: one sheet, several signatures.

A statement is made from a message once; its bytes are never serialised again. Every further
signature covers all before it. Keys stay behind the :class:`Signer` interface, so that they may
live in a file, a token or a signing service. The signer's region and institution are read from its
certificate: a header can not say anything else than the certificate does.

Nothing here checks authority: a statement with the wrong roles can be made, and is refused by
whoever verifies it. The statement passed in is never changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Protocol, Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from rxoutflow.identity import IdentityError, SignerName, signer_name
from rxoutflow.statements.algorithms import KeyUnsupported, verification_key
from rxoutflow.statements.pae import pae, signature_sha256
from rxoutflow.statements.payloads import (
    ANYBODY,
    Audience,
    PayloadRule,
    Role,
    home_region,
    rule_for,
)
from rxoutflow.v1.statement_pb2 import (
    ProtectedHeader,
    Signature,
    SignatureAlgorithm,
    SignedStatement,
)


class SignerUnusable(ValueError):
    """A certificate or key cannot be signed with. The message names the file."""


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
        """Return the signature value over the data: ASN.1 DER for ECDSA, 64 bytes for Ed25519."""
        ...


_PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


class FileSigner:
    """A signer whose key was read from a file: P-256 or Ed25519."""

    def __init__(self, certificates: Sequence[x509.Certificate], key: _PrivateKey) -> None:
        """Take a chain, leaf first, and the private key of the leaf.

        Raises:
            SignerUnusable: if the key is of another kind or is not the certificate's.
        """
        try:
            self._algorithm = verification_key(certificates[0]).algorithm
        except KeyUnsupported as error:
            raise SignerUnusable(str(error)) from None
        if certificates[0].public_key() != key.public_key():
            raise SignerUnusable("the private key is not the one of the certificate")
        self._chain = tuple(each.public_bytes(Encoding.DER) for each in certificates)
        self._key = key

    @classmethod
    def load(
        cls, certificate_pem_path: Path, key_pem_path: Path, password: bytes | None = None
    ) -> Self:
        """Read a PEM chain, leaf first, and a PEM private key.

        Raises:
            SignerUnusable: naming the file that cannot be read or used.
        """
        certificates = _read_certificates(certificate_pem_path)
        key = _read_key(key_pem_path, password)
        try:
            return cls(certificates, key)
        except SignerUnusable as error:
            raise SignerUnusable(f"{certificate_pem_path}: {error}") from None

    @property
    def certificate_chain(self) -> Sequence[bytes]:
        """The signer's certificate and its intermediates, DER, leaf first."""
        return self._chain

    @property
    def algorithm(self) -> SignatureAlgorithm.ValueType:
        """The algorithm of the certificate's key."""
        return self._algorithm

    def sign(self, data: bytes) -> bytes:
        """Return the signature value over the data."""
        if isinstance(self._key, ed25519.Ed25519PrivateKey):
            return self._key.sign(data)
        return self._key.sign(data, ec.ECDSA(hashes.SHA256()))


def new_statement(
    message: Message,
    signer: Signer,
    role: Role,
    sign_time: datetime,
    audience: str | None = None,
) -> SignedStatement:
    """Serialise a message and put the first signature on it.

    Args:
        message: of a type that is signed, for instance a ``Prescription``.
        signer: who signs first.
        role: in which capacity.
        sign_time: when, aware.
        audience: for whom. Only pricing and quote need it, the code of one region; for all others
            it follows from the type.

    Raises:
        TypeError: if messages of this type are never signed.
        ValueError: if the audience is missing, or other than the type requires.
    """
    rule = rule_for(type(message))
    settled = _settled_audience(rule, message)
    meant = audience or settled
    if not meant or (settled and meant != settled):
        raise ValueError(f"audience: the {rule.name} is for {settled or 'the region to name here'}")
    payload = message.SerializeToString(deterministic=True)
    return sign(payload, rule.payload_type, signer, role, sign_time, meant)


def sign(
    payload: bytes,
    payload_type: str,
    signer: Signer,
    role: Role,
    sign_time: datetime,
    audience: str,
) -> SignedStatement:
    """Put the first signature on exact bytes. ``sign_time`` is aware."""
    statement = SignedStatement(payload=payload, payload_type=payload_type)
    return _signed(statement, signer, role, sign_time, audience)


def add_signature(
    statement: SignedStatement, signer: Signer, role: Role, sign_time: datetime
) -> SignedStatement:
    """Return the statement with one more signature, over all before it and for their audience.

    Verify the statement first: whoever signs stands for what is there already.

    Raises:
        ValueError: if the statement has no signature yet.
    """
    if not statement.signatures:
        raise ValueError("the statement has no signature to add to; use sign")
    first = ProtectedHeader.FromString(statement.signatures[0].protected)
    return _signed(statement, signer, role, sign_time, first.audience)


def _signed(
    statement: SignedStatement, signer: Signer, role: Role, sign_time: datetime, audience: str
) -> SignedStatement:
    header = _header(signer, role, sign_time, audience)
    header.prior_signature_sha256.extend(map(signature_sha256, statement.signatures))
    protected = header.SerializeToString(deterministic=True)
    signature = Signature(
        protected=protected,
        value=signer.sign(pae(statement.payload_type, protected, statement.payload)),
        certificate_chain=signer.certificate_chain,
    )
    signed = SignedStatement()
    signed.CopyFrom(statement)
    signed.signatures.append(signature)
    return signed


def _header(signer: Signer, role: Role, sign_time: datetime, audience: str) -> ProtectedHeader:
    if sign_time.utcoffset() is None:
        raise ValueError("sign_time must have a time zone")
    time = Timestamp()
    time.FromDatetime(sign_time)
    leaf = signer.certificate_chain[0]
    institution = _name(leaf).institution
    return ProtectedHeader(
        algorithm=signer.algorithm,
        certificate_sha256=sha256(leaf).digest(),
        role=role,
        institution_code=institution.institution_code,
        region_code=institution.region_code,
        sign_time=time,
        audience=audience,
    )


def _settled_audience(rule: PayloadRule, message: Message) -> str:
    """The audience that follows from type and content, or nothing."""
    match rule.audience:
        case Audience.HOME:
            return home_region(message)
        case Audience.ANYBODY:
            return ANYBODY
        case Audience.NAMED:
            return ""


@lru_cache(maxsize=256)
def _name(certificate: bytes) -> SignerName:
    """Whom a certificate names.

    Raises:
        SignerUnusable: if it is not a signing certificate of the exchange.
    """
    try:
        return signer_name(x509.load_der_x509_certificate(certificate))
    except IdentityError as error:
        raise SignerUnusable(f"the signer's certificate cannot sign statements: {error}") from None


def _read_certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise SignerUnusable(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise SignerUnusable(f"{path}: must hold PEM certificates, the signer's first") from None


def _read_key(path: Path, password: bytes | None) -> _PrivateKey:
    try:
        key = load_pem_private_key(path.read_bytes(), password)
    except OSError as error:
        raise SignerUnusable(f"{path}: cannot be read: {error.strerror}") from None
    except (TypeError, ValueError, UnsupportedAlgorithm):
        raise SignerUnusable(
            f"{path}: must hold a PEM private key; give its password if, and only if, it has one"
        ) from None
    if not isinstance(key, _PrivateKey):
        raise SignerUnusable(f"{path}: the key must be P-256 or Ed25519")
    return key
