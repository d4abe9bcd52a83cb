"""Certificates, each kept once: taken out of the bytes that are kept, and put back when read.

Half of what a prescription leaves is the same few certificates, which stand in every signature. What
looks like one is taken out and its SHA-256 put in its place; what comes back is every byte as it
was. Bytes are all that this looks at: no message is parsed here, and none is written again. What
merely looks like a certificate is taken out and put back in the same way.

The kept form begins with a zero, with which no message begins; whatever begins otherwise is whole
as it is. After the zero come literals, each behind its length and a mark (two bytes each): nothing
follows the literal; a digest does; or the digest of what follows stands in the literal itself, so
many bytes before its end. A signature names its certificate in its protected header, so the last is
the usual case.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Collection, Iterator, Mapping
from hashlib import sha256 as digest_of
from typing import NamedTuple, Protocol

from rxoutflow_server.domain.errors import InvariantBroken
from rxoutflow_server.storage.tables.connection import Connection

KEPT_APART = b"\x00"
"""The first byte of what was taken apart."""

LARGEST = 4_096
"""Bytes of a certificate at most; whatever is larger stays where it is."""

_DIGEST_BYTES = 32
_HEAD = struct.Struct("!HH")
_LONGEST = 0xFFFF
_NOTHING_FOLLOWS, _DIGEST_FOLLOWS = 0, 1
_IN_A_CHAIN = re.compile(rb"\x1a([\x80-\xff])([\x01-\x7f])(\x30\x82(..))", re.DOTALL)
"""Tag and length of ``Signature.certificate_chain``, then those of a DER sequence, which begins
with the third group. Both lengths are of two bytes, so there are 128 bytes at least to be won."""

KEEP_CERTIFICATE = """
INSERT INTO certificates (sha256, certificate) VALUES (?, ?) ON CONFLICT (sha256) DO NOTHING
"""
_CERTIFICATE = "SELECT certificate FROM certificates WHERE sha256 = ?"


class _Piece(NamedTuple):
    """A literal, and the digest of what follows it, if anything does."""

    literal: bytes
    sha256: bytes | None


class Memory(Protocol):
    """What is known of certificates that are kept."""

    def get(self, sha256: bytes, /) -> bytes | None:
        """A certificate, if it is known to be kept."""

    def note(self, sha256: bytes, certificate: bytes, /) -> None:
        """This one is kept, as far as the transaction sees."""


class _Forgetful:
    def get(self, sha256: bytes, /) -> bytes | None:
        """Nothing is known."""
        return None

    def note(self, sha256: bytes, certificate: bytes, /) -> None:
        """Forget it."""


FORGETFUL = _Forgetful()


class CertificateTables:
    """Certificates in SQL, and bytes without and with them.

    ``memory`` spares asking. If anything is written here, it must forget what was undone.
    """

    def __init__(self, connection: Connection, memory: Memory = FORGETFUL) -> None:
        self._connection = connection
        self._memory = memory

    def without(self, whole: bytes) -> bytes:
        """The form in which bytes are kept; their certificates are kept as well."""
        kept, certificates = taken_apart(whole)
        if certificates:
            self._keep(certificates)
        return kept

    def whole(self, kept: bytes) -> bytes:
        """The bytes as they were.

        Raises:
            InvariantBroken: a certificate is not kept any more, or was changed.
        """
        if not kept.startswith(KEPT_APART):
            return kept
        pieces = [*_pieces(kept)]
        certificates = self._certificates({each.sha256 for each in pieces if each.sha256})
        return b"".join(
            literal if sha256 is None else literal + certificates[sha256]
            for literal, sha256 in pieces
        )

    def add(self, sha256: bytes, certificate: bytes) -> None:
        """Keep a certificate, unless it is kept."""
        self._connection.execute(KEEP_CERTIFICATE, (sha256, certificate))

    def _keep(self, certificates: Mapping[bytes, bytes]) -> None:
        for sha256 in sorted(each for each in certificates if self._memory.get(each) is None):
            self.add(sha256, certificates[sha256])
            self._memory.note(sha256, certificates[sha256])

    def _certificates(self, digests: Collection[bytes]) -> dict[bytes, bytes]:
        known = {each: self._memory.get(each) for each in digests}
        asked = {
            each: self._connection.execute(_CERTIFICATE, (each,))
            for each, certificate in known.items()
            if certificate is None
        }
        for sha256, answer in asked.items():
            row = answer.fetchone()
            known[sha256] = _intact(sha256, None if row is None else bytes(row[0]))
            self._memory.note(sha256, known[sha256])
        return known


def taken_apart(whole: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """The form in which bytes are kept, and the certificates in them by their SHA-256."""
    parts, certificates, begin = [KEPT_APART], dict[bytes, bytes](), 0
    for at, end in _certificates_in(whole):
        certificate = whole[at:end]
        sha256 = digest_of(certificate).digest()
        certificates[sha256] = certificate
        parts += _written(whole[begin:at], sha256)
        begin = end
    if not certificates and not whole.startswith(KEPT_APART):
        return whole, certificates
    parts += _written(whole[begin:], None)
    return b"".join(parts), certificates
