"""A server's or client's own certificate and key, read from files and watched for renewal.

A pair is only ever taken as a whole: a certificate whose key does not fit is refused, so a renewal
that is half written leaves the old pair in use. Keys may be encrypted; the decrypted key exists in
memory only and is left out of every ``repr``.

Who the certificate belongs to, and whether anybody trusts it, is not checked here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from rxoutflow.passwords import PasswordSource, PasswordUnusable

State = tuple[int, int, int]
"""What changes when a file does: inode, time of change, size."""

Stamp = tuple[State, ...]
"""What changes when one of several files does."""


class KeyFileError(Exception):
    """A certificate or key file cannot be used; says which file and what to do."""

    def __init__(self, path: Path, problem: str) -> None:
        """Keep the file and the problem, which ends with what to do."""
        super().__init__(f"{path}: {problem}")
        self.path = path
        self.problem = problem


@dataclass(frozen=True, slots=True)
class KeyFiles:
    """Where a certificate (PEM, leaf first, intermediates after) and its key (PEM) are."""

    certificate: Path
    key: Path
    key_password_file: Path | None = None
    key_password_env: str | None = None
    """The environment variable that holds the password; not with a file."""

    @property
    def password(self) -> PasswordSource:
        """Where the key's password is."""
        return PasswordSource(self.key_password_file, self.key_password_env)

    @property
    def complete(self) -> bool:
        """Whether certificate and key are there."""
        return self.certificate.is_file() and self.key.is_file()

    def name_of(self, path: Path | None) -> str:
        """The configuration's name of one of the files; that of the password's for any other."""
        names = {self.certificate: "certificate", self.key: "key"}
        password = "key_password_env" if self.key_password_env else "key_password_file"
        return names.get(path, password) if path else password

    def stamp(self) -> Stamp:
        """Something that differs when the files have been replaced.

        Raises:
            KeyFileError: a file is gone.
        """
        return tuple(map(_state, (self.certificate, self.key)))


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate with its key, as TLS libraries take them."""

    certificate: x509.Certificate
    certificate_pem: bytes
    key_pem: bytes = field(repr=False)


def load_key_pair(files: KeyFiles) -> KeyPair:
    """Read a certificate and its key.

    Raises:
        KeyFileError: a file cannot be read or decrypted, or the key is another certificate's.
    """
    certificate_pem = _read(files.certificate)
    certificate = _leaf(files.certificate, certificate_pem)
    key = _private_key(files)
    if _public_der(key.public_key()) != _public_der(certificate.public_key()):
        raise KeyFileError(
            files.key, f"is not the key of {files.certificate.name}; configure the pair together"
        )
    key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return KeyPair(certificate, certificate_pem, key_pem)


def to_pem(certificates: Iterable[x509.Certificate]) -> bytes:
    """The certificates one after the other, as TLS libraries take roots."""
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def _private_key(files: KeyFiles) -> PrivateKeyTypes:
    pem = _read(files.key)
    password = _password(files)
    try:
        return load_pem_private_key(pem, password)
    except TypeError:
        wanted = (
            "is not encrypted; remove key_password_file or key_password_env"
            if password
            else "is encrypted; give key_password_file or key_password_env"
        )
        raise KeyFileError(files.key, wanted) from None
    except (ValueError, UnsupportedAlgorithm):
        raise KeyFileError(
            files.key, "holds no private key in PEM that this password opens; check both files"
        ) from None


def _password(files: KeyFiles) -> bytes | None:
    try:
        return files.password.read()
    except PasswordUnusable as error:
        raise KeyFileError(error.path or files.key, error.problem) from None


def _state(path: Path) -> State:
    try:
        state = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from None
    return state.st_ino, state.st_mtime_ns, state.st_size


def _leaf(path: Path, pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(pem)[0]
    except (ValueError, IndexError):
        raise KeyFileError(path, "holds no certificate in PEM; export it as PEM") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> KeyFileError:
    return KeyFileError(path, f"cannot be read ({error.strerror}); check path and owner")


def _public_der(key: object) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined,no-any-return] # every public key has it, their union has no common base
