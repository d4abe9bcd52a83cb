"""Certificates, each kept once: taken out of the bytes that are kept, and put back when read.

Half of what a prescription would leave is the same few certificates, which stand in every
signature. What looks like one is taken out, and its SHA-256 put in its place; what comes back is
every byte as it was. Bytes are all that this looks at: no message is parsed here, and none written
again. So what merely looks like a certificate is taken out and put back in the same way.

The kept form begins with a zero, with which no message begins; whatever begins otherwise is whole
as it is. After the zero come literals, each behind its length and a mark, two bytes each: nothing
follows the literal; the digest of what follows does; or that digest stands in the literal itself,
so many bytes before its end. A signature names its certificate in its protected header, so the last
is the usual case.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from hashlib import sha256 as digest_of
from typing import Protocol

from rxoutflow_server.domain.errors import InvariantBroken
from rxoutflow_server.storage.tables.connection import Connection

SMALLEST, LARGEST = 128, 4_096
"""Bytes of a certificate. What is smaller is hardly worth it, what is larger is none."""

_APART = b"\x00"
_DIGEST_BYTES = 32
_HEAD = struct.Struct("!HH")
_LONGEST = 0xFFFF
_NOTHING_FOLLOWS, _DIGEST_FOLLOWS = 0, 1
_SEQUENCE = b"\x30\x82"
"""How a DER sequence begins whose length, which follows, takes two bytes."""

_TAG = 0x1A
"""Tag of ``Signature.certificate_chain``. A length of two bytes stands between it and its value."""

KEEP_CERTIFICATE = """
INSERT INTO certificates (sha256, certificate) VALUES (?, ?) ON CONFLICT (sha256) DO NOTHING
"""
_CERTIFICATE = "SELECT certificate FROM certificates WHERE sha256 = ?"


class Memory(Protocol):
    """What is known of certificates that are kept."""

    def get(self, sha256: bytes, /) -> bytes | None:
        """A certificate, if it is known to be kept."""

    def note(self, sha256: bytes, certificate: bytes, /) -> None:
        """This one is kept, as far as the transaction can see."""


class _Forgetful:
    def get(self, sha256: bytes, /) -> bytes | None:
        """Nothing is known."""
        return None

    def note(self, sha256: bytes, certificate: bytes, /) -> None:
        """Forget it."""


class CertificateTables:
    """Certificates in SQL, and the bytes from which they were taken.

    ``memory`` spares asking. Where anything is written, it has to forget what is undone.
    """

    def __init__(self, connection: Connection, memory: Memory | None = None) -> None:
        self._connection = connection
        self._memory = memory or _Forgetful()

    def take_out(self, whole: bytes) -> bytes:
        """Keep the certificates in some bytes; what is left is the form in which to keep these."""
        kept, certificates = taken_apart(whole)
        for sha256, certificate in sorted(certificates.items()):
            if self._memory.get(sha256) is None:
                self.add(sha256, certificate)
                self._memory.note(sha256, certificate)
        return kept

    def put_back(self, kept: bytes) -> bytes:
        """The bytes as they were.

        Raises:
            InvariantBroken: a certificate is not kept any more, or was changed; or the form was.
        """
        return put_together(kept, self.certificate)

    def certificate(self, sha256: bytes) -> bytes:
        """A certificate.

        Raises:
            InvariantBroken: it is not kept any more, or was changed.
        """
        known = self._memory.get(sha256)
        if known is not None:
            return known
        row = self._connection.execute(_CERTIFICATE, (sha256,)).fetchone()
        if row is None:
            raise InvariantBroken(f"certificate {sha256.hex()} is not kept any more")
        certificate = bytes(row[0])
        if digest_of(certificate).digest() != sha256:
            raise InvariantBroken(f"certificate {sha256.hex()} was changed")
        self._memory.note(sha256, certificate)
        return certificate

    def add(self, sha256: bytes, certificate: bytes) -> None:
        """Keep a certificate, unless it is kept."""
        self._connection.execute(KEEP_CERTIFICATE, (sha256, certificate))


def taken_apart(whole: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """The form in which bytes are kept, and the certificates in them by their SHA-256."""
    parts, certificates, begin = [_APART], dict[bytes, bytes](), 0
    for at, end in _certificates_in(whole):
        certificate = whole[at:end]
        sha256 = digest_of(certificate).digest()
        certificates[sha256] = certificate
        parts += _pieces(whole[begin:at], sha256)
        begin = end
    if not certificates and not whole.startswith(_APART):
        return whole, certificates
    parts += _pieces(whole[begin:], None)
    return b"".join(parts), certificates


def put_together(kept: bytes, certificate: Callable[[bytes], bytes]) -> bytes:
    """What was taken apart, as it was; ``certificate`` finds one by its SHA-256.

    Raises:
        InvariantBroken: this is not what was taken apart; or whatever ``certificate`` raises.
    """
    if not kept.startswith(_APART):
        return kept
    parts, at = list[bytes](), len(_APART)
    while at < len(kept):
        length, mark = _HEAD.unpack(_read(kept, at, _HEAD.size))
        at += _HEAD.size
        literal = _read(kept, at, length)
        at += length
        parts.append(literal)
        if mark == _DIGEST_FOLLOWS:
            parts.append(certificate(_read(kept, at, _DIGEST_BYTES)))
            at += _DIGEST_BYTES
        elif mark != _NOTHING_FOLLOWS:
            parts.append(certificate(_read(literal, length - mark, _DIGEST_BYTES)))
    return b"".join(parts)


def _certificates_in(whole: bytes) -> Iterator[tuple[int, int]]:
    """Where what looks like a certificate begins and ends; none is within another one."""
    at = whole.find(_SEQUENCE, 3)
    while at >= 0:
        end = at + 4 + int.from_bytes(whole[at + 2 : at + 4])
        if end <= len(whole) and _is_a_field(whole[at - 3 : at], end - at):
            yield at, end
            at = end
        at = whole.find(_SEQUENCE, at + 1)


def _is_a_field(before: bytes, size: int) -> bool:
    """Whether what stands before a value says of it what stands before a certificate of this size.

    That is the tag, and a length of seven bits to a byte, the lowest first.
    """
    return SMALLEST <= size <= LARGEST and before == bytes((_TAG, size & 0x7F | 0x80, size >> 7))


def _pieces(literal: bytes, sha256: bytes | None) -> Iterator[bytes]:
    """A literal, in several if it is long, and which certificate follows it."""
    while len(literal) > _LONGEST:
        yield _HEAD.pack(_LONGEST, _NOTHING_FOLLOWS) + literal[:_LONGEST]
        literal = literal[_LONGEST:]
    if sha256 is None:
        if literal:
            yield _HEAD.pack(len(literal), _NOTHING_FOLLOWS) + literal
    elif (place := literal.rfind(sha256)) >= 0:
        yield _HEAD.pack(len(literal), len(literal) - place) + literal
    else:
        yield _HEAD.pack(len(literal), _DIGEST_FOLLOWS) + literal + sha256


def _read(data: bytes, at: int, size: int) -> bytes:
    if at < 0 or at + size > len(data):
        raise InvariantBroken("bytes that were taken apart do not fit together any more")
    return data[at : at + size]
