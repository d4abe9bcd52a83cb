"""Statements: what is signed, how it is signed, and how it is verified.

A statement is one sheet with several signatures: exact bytes, never serialised again. Make one with
:func:`new_statement` and :func:`add_signature`; read one with :meth:`Verifier.verify`, which hands
out content only if all rules hold. The rules of every kind are in ``payloads.RULES``.
"""

from rxoutflow.statements.envelope import read_statement
from rxoutflow.statements.errors import (
    RegionNotTrusted,
    SignatureInvalid,
    SignatureMissing,
    SignedContentMismatch,
    SignersNotDistinct,
    SignerUntrusted,
    StatementError,
    StatementMalformed,
    StatementTypeUnexpected,
)
from rxoutflow.statements.pae import pae, signature_sha256, statement_sha256
from rxoutflow.statements.signers import (
    CallbackSigner,
    FileSigner,
    Signer,
    SignerUnavailable,
    SignerUnusable,
)
from rxoutflow.statements.signing import add_signature, new_statement, sign
from rxoutflow.statements.verification import Verified, VerifiedSigner, Verifier
from rxoutflow.statements.wire import Bounds, check_wire

__all__ = [
    "Bounds",
    "CallbackSigner",
    "FileSigner",
    "RegionNotTrusted",
    "SignatureInvalid",
    "SignatureMissing",
    "SignedContentMismatch",
    "Signer",
    "SignerUnavailable",
    "SignerUntrusted",
    "SignerUnusable",
    "SignersNotDistinct",
    "StatementError",
    "StatementMalformed",
    "StatementTypeUnexpected",
    "Verified",
    "VerifiedSigner",
    "Verifier",
    "add_signature",
    "check_wire",
    "new_statement",
    "pae",
    "read_statement",
    "sign",
    "signature_sha256",
    "statement_sha256",
]
