"""Signing statements: one sheet, several signatures.

A statement is made from a message once; its bytes are never serialised again. Every further
signature covers all before it. Keys stay behind the interface of
:mod:`rxoutflow.statements.signers`. The signer's region and institution are read from its
certificate: a header can not say anything else than the certificate does.

Nothing here checks authority: a statement with the wrong roles can be made, and is refused by
whoever verifies it. The statement passed in is never changed.
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from hashlib import sha256

from cryptography import x509
from google.protobuf.message import Message

from rxoutflow.identity import IdentityError, SignerName, signer_name
from rxoutflow.statements.pae import pae, signature_sha256
from rxoutflow.statements.payloads import (
    ANYBODY,
    Audience,
    PayloadRule,
    Role,
    home_region,
    rule_for,
)
from rxoutflow.statements.signers import Signer, SignerUnusable
from rxoutflow.times import to_timestamp
from rxoutflow.v1.statement_pb2 import ProtectedHeader, SignedStatement


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
    _add(statement, signer, role, sign_time, audience)
    return statement


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
    signed = SignedStatement()
    signed.CopyFrom(statement)
    _add(signed, signer, role, sign_time, first.audience)
    return signed


def _add(
    statement: SignedStatement, signer: Signer, role: Role, sign_time: datetime, audience: str
) -> None:
    header = _header(signer, role, sign_time, audience)
    header.prior_signature_sha256.extend(map(signature_sha256, statement.signatures))
    protected = header.SerializeToString(deterministic=True)
    statement.signatures.add(
        protected=protected,
        value=signer.sign(pae(statement.payload_type, protected, statement.payload)),
        certificate_chain=signer.certificate_chain,
    )


def _header(signer: Signer, role: Role, sign_time: datetime, audience: str) -> ProtectedHeader:
    certificate_sha256, name = _certificate(signer.certificate_chain[0])
    return ProtectedHeader(
        algorithm=signer.algorithm,
        certificate_sha256=certificate_sha256,
        role=role,
        institution_code=name.institution.institution_code,
        region_code=name.institution.region_code,
        sign_time=to_timestamp(sign_time),
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
def _certificate(certificate: bytes) -> tuple[bytes, SignerName]:
    """The digest of a certificate, and whom it names.

    Raises:
        SignerUnusable: if it is not a signing certificate of the exchange.
    """
    try:
        name = signer_name(x509.load_der_x509_certificate(certificate))
    except IdentityError as error:
        raise SignerUnusable(f"the signer's certificate cannot sign statements: {error}") from None
    return sha256(certificate).digest(), name
