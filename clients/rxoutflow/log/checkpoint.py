"""Checkpoints: the head of a region's log as a C2SP tlog-checkpoint, signed by its platform.

The note has three lines, origin, size and root, and a signature line under the origin as key name.
Ed25519 and P-256 keys sign as C2SP signed notes do (types 0x01 and 0x02), so that other tools can
read and cosign them; SM2 keys sign under a type of the exchange's own (0xff), for which C2SP has
none. A note never begins like a statement, so no signature passes for one of the other kind.

Which key is the platform's says the region's trust list, and nothing else: a checkpoint brings its
certificates along, and the verifier looks them up. Lines of unknown keys are ignored.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from hashlib import sha256

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from rxoutflow.log.merkle import HASH_BYTES
from rxoutflow.statements import Signer, StatementError, Verifier
from rxoutflow.statements.algorithms import SignatureWrong, VerificationKey
from rxoutflow.v1.statement_pb2 import (
    SIGNATURE_ALGORITHM_ECDSA_P256_SHA256,
    SIGNATURE_ALGORITHM_ED25519,
    Checkpoint,
    SignatureAlgorithm,
)

MAX_NOTE_BYTES = 64 * 1024
_SM2_TYPE = b"sm2-sm3.rxoutflow"
_ORIGIN = re.compile(r"([0-9]{6})\.rxoutflow/log")
_SIZE = re.compile(r"0|[1-9][0-9]{0,17}")
_SIGNATURE = re.compile(r"— ([^\s+]+) ([A-Za-z0-9+/]+={0,2})")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_KEY_ID_BYTES = 4


class CheckpointWrong(ValueError):
    """A checkpoint is not well formed, or not signed by the platform whose log it names."""


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a region's log: how many leaves it has, and the root over them."""

    region_code: str
    size: int
    root: bytes


def origin_of(region_code: str) -> str:
    """The name of a region's log, and of the key that signs it."""
    return f"{region_code}.rxoutflow/log"


def sign_head(head: Head, signer: Signer) -> Checkpoint:
    """Sign a head. Sign no head that contradicts one that was signed before.

    Raises:
        SignerUnavailable: the key cannot be used at the moment.
    """
    name, text = origin_of(head.region_code), _text(head)
    key_id = _key_id(name, signer.algorithm, signer.certificate_chain[0])
    signature = b64encode(key_id + signer.sign(text.encode())).decode()
    return Checkpoint(
        note=f"{text}\n— {name} {signature}\n", certificate_chain=signer.certificate_chain
    )


def read_head(note: str) -> Head:
    """What a note says, without judging who signed it.

    Raises:
        CheckpointWrong: it is not a checkpoint of a region's log.
    """
    return _parsed(note)[0]


def verify_checkpoint(
    checkpoint: Checkpoint, verifier: Verifier, now: datetime, *, region_code: str | None = None
) -> Head:
    """The head that a checkpoint states, if the platform of its region signed it.

    A certificate that has expired still counts while the region's trust list names it: a checkpoint
    says nothing of its time.

    Args:
        checkpoint: as it was received.
        verifier: whom to trust.
        now: the time, aware; trust lists are judged as of it.
        region_code: the region whose log it must be; any that is trusted if ``None``.

    Raises:
        CheckpointWrong: it is not well formed, of another region, or not signed by its platform.
    """
    head, text, signatures = _parsed(checkpoint.note)
    if region_code not in (None, head.region_code):
        raise CheckpointWrong(f"the checkpoint is not of the log of region {region_code}")
    chain = tuple(checkpoint.certificate_chain)
    try:
        key = verifier.platform_key(head.region_code, chain, now)
    except StatementError as error:
        raise CheckpointWrong(f"the checkpoint's signer: {error}") from None
    _check_signatures(head, text, signatures, key, chain[0])
    return head


def _check_signatures(
    head: Head,
    text: str,
    signatures: list[tuple[str, bytes]],
    key: VerificationKey,
    certificate: bytes,
) -> None:
    """One line at least is of this key, and every line of this key verifies."""
    name = origin_of(head.region_code)
    key_id = _key_id(name, key.algorithm, certificate)
    ours = [value for known, value in signatures if (known, value[:4]) == (name, key_id)]
    if not ours:
        raise CheckpointWrong("the checkpoint has no signature by the key of its certificate")
    for value in ours:
        try:
            key.verify(value[_KEY_ID_BYTES:], text.encode())
        except SignatureWrong as error:
            raise CheckpointWrong(f"the checkpoint's signature does not verify: {error}") from None


def _text(head: Head) -> str:
    root = b64encode(head.root).decode()
    return f"{origin_of(head.region_code)}\n{head.size}\n{root}\n"


def _parsed(note: str) -> tuple[Head, str, list[tuple[str, bytes]]]:
    """The head, the text that is signed, and the signatures with the names of their keys."""
    if len(note) > MAX_NOTE_BYTES or _CONTROL.search(note):
        raise CheckpointWrong("the checkpoint is no signed note")
    text, blank, lines = note.rpartition("\n\n")
    if not blank or not lines.endswith("\n"):
        raise CheckpointWrong("the checkpoint is no signed note: a signature is missing")
    text += "\n"
    return _head(text), text, [_signature(line) for line in lines[:-1].split("\n")]


def _head(text: str) -> Head:
    parts = text[:-1].split("\n")
    if len(parts) != 3:
        raise CheckpointWrong("the checkpoint must have three lines: origin, size and root")
    origin, size, root = _ORIGIN.fullmatch(parts[0]), _SIZE.fullmatch(parts[1]), _decoded(parts[2])
    if origin is None or size is None or len(root) != HASH_BYTES:
        raise CheckpointWrong("the checkpoint's origin, size or root is not well formed")
    return Head(origin.group(1), int(parts[1]), root)


def _signature(line: str) -> tuple[str, bytes]:
    parts = _SIGNATURE.fullmatch(line)
    if parts is None:
        raise CheckpointWrong("a signature line of the checkpoint is not well formed")
    return parts.group(1), _decoded(parts.group(2))


def _decoded(text: str) -> bytes:
    """Base64 in the one form that it should have."""
    try:
        data = b64decode(text, validate=True)
    except (NotBase64, ValueError):
        raise CheckpointWrong("the checkpoint holds something that is no Base64") from None
    if b64encode(data).decode() != text:
        raise CheckpointWrong("the checkpoint holds Base64 in a second form")
    return data


@lru_cache(maxsize=64)
def _key_id(name: str, algorithm: SignatureAlgorithm.ValueType, certificate: bytes) -> bytes:
    """By which a signature line names its key; see the contract's Checkpoint."""
    if algorithm == SIGNATURE_ALGORITHM_ECDSA_P256_SHA256:
        key = x509.load_der_x509_certificate(certificate).public_key()
        named = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    elif algorithm == SIGNATURE_ALGORITHM_ED25519:
        key = x509.load_der_x509_certificate(certificate).public_key()
        raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
        named = name.encode() + b"\n\x01" + raw
    else:
        named = name.encode() + b"\n\xff" + _SM2_TYPE + sha256(certificate).digest()
    return sha256(named).digest()[:_KEY_ID_BYTES]
