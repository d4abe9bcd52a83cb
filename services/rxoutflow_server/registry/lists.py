"""Reading signed trust lists back, for people: one list, verified, with its content.

A list is verified under the registry that is pinned for it or, where nobody says which that is,
under the certificate that it carries. The latter proves that the list is whole and not who made it:
compare :attr:`SignedList.registry_sha256` with the pin.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Final

from google.protobuf.message import DecodeError

from rxoutflow.trust import TrustListRefused, TrustStore, read_trust_list
from rxoutflow.v1.statement_pb2 import ProtectedHeader, SignedStatement
from rxoutflow.v1.trust_pb2 import TrustList
from rxoutflow_server.transport.channels import MAX_RESPONSE_BYTES

MAX_LIST_BYTES: Final = MAX_RESPONSE_BYTES - 4096
"""The largest list, with its signature, that servers can fetch from each other."""


class ListError(Exception):
    """A trust list cannot be used; the message says which, why and what to do."""


@dataclass(frozen=True, slots=True)
class SignedList:
    """A trust list that verified."""

    content: TrustList
    data: bytes
    """The signed list as it is in files."""
    registry_sha256: str
    """SHA-256 of the certificate of the registry that signed, in hexadecimal."""
    lapse_time: datetime

    @property
    def region_code(self) -> str:
        """The region that vouches."""
        return self.content.region_code

    @property
    def sequence(self) -> int:
        """Its place in the sequence of the region's lists."""
        return self.content.sequence


def read_list(path: Path, now: datetime, root: str | None = None) -> SignedList:
    """Read a list from a file and verify it as of ``now`` (aware).

    Args:
        path: the file.
        now: the time; a list from the future is refused, one that has lapsed is not.
        root: SHA-256 of the registry's certificate in hexadecimal; that of the certificate in the
            list if ``None``.

    Raises:
        ListError: naming the file.
    """
    try:
        return verified_list(path.read_bytes(), now, root)
    except OSError as error:
        raise ListError(f"{path}: cannot be read ({error.strerror})") from None
    except ListError as error:
        raise ListError(f"{path}: {error}") from None


def verified_list(data: bytes, now: datetime, root: str | None = None) -> SignedList:
    """Verify a list; see :func:`read_list`.

    Raises:
        ListError: naming no file.
    """
    try:
        statement = read_trust_list(data)
        region_code, carried = _signed_by(statement)
        store = TrustStore({region_code: root or carried})
        store.offer(statement, now)
    except ValueError as error:
        raise ListError(f"is no trust list to rely on: {error}") from None
    held = store.held(region_code)
    if held is None:
        raise ListError("is no trust list to rely on: it is of another region than its signer")
    return SignedList(TrustList.FromString(statement.payload), data, carried, held.lapse_time)


def _signed_by(statement: SignedStatement) -> tuple[str, str]:
    """The region and the digest of the certificate that the signature claims."""
    try:
        signature = statement.signatures[0]
        header = ProtectedHeader.FromString(signature.protected)
        return header.region_code, sha256(signature.certificate_chain[0]).hexdigest()
    except (IndexError, DecodeError):
        raise TrustListRefused("it is not signed") from None
