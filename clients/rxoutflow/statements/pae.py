"""The bytes that are signed, and the digests by which statements and signatures are named.

The pre-authentication encoding puts the length before every part, so that no two triples of
payload type, header and payload have the same encoding (after DSSE, the Dead Simple Signing
Envelope). Everything here works on exact bytes and never on parsed messages.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

from rxoutflow.v1.statement_pb2 import Signature, SignedStatement

SIGNATURE_TYPE = "application/vnd.rxoutflow.signature.v1"
"""The type under which a signature itself is digested."""


def pae(payload_type: str, protected: bytes, payload: bytes) -> bytes:
    """Encode a payload, its type and a signature's header as the bytes to sign.

    ``"RXOUTFLOWv1" SP len(type) SP type SP len(protected) SP protected SP len(payload) SP payload``
    with lengths in bytes, decimal, without leading zeros (``statement.proto``).
    """
    kind = payload_type.encode()
    return b"RXOUTFLOWv1 %d %b %d %b %d %b" % (
        len(kind),
        kind,
        len(protected),
        protected,
        len(payload),
        payload,
    )


def signature_sha256(signature: Signature) -> bytes:
    """Digest of a signature, by which later signatures cover it.

    The certificate chain is not part of it: the header names the certificate by its digest.
    """
    return sha256(pae(SIGNATURE_TYPE, signature.protected, signature.value)).digest()


def statement_sha256(statement: SignedStatement) -> bytes:
    """Digest of a statement as it was received, by which other statements refer to it.

    Over the encoding of its payload with an empty header, then its signatures' digests in order.
    """
    signatures = map(signature_sha256, statement.signatures)
    return digest_of(statement.payload_type, statement.payload, signatures)


def digest_of(payload_type: str, payload: bytes, signature_digests: Iterable[bytes]) -> bytes:
    """Digest of the statement with this payload and signatures of these digests, in order."""
    return sha256(pae(payload_type, b"", payload) + b"".join(signature_digests)).digest()
