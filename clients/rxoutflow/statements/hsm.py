"""Keys in a hardware security module or token, through PKCS#11: the optional extra ``hsm``.

The key never leaves the module. It is found by the labels of its token and of itself, and must be a
P-256 or Ed25519 key; for SM2, PKCS#11 has no common mechanism, so use a
:class:`~rxoutflow.statements.CallbackSigner` with the maker's own software.

When the module fails, the signer opens a new session and tries once more. A PIN that was refused is
never sent again, because modules lock themselves after a few wrong ones. Importing this module
without the extra raises an ImportError that says what to install.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Self, cast

from cryptography import x509

from rxoutflow.statements.signers import (
    CertifiedSigner,
    SignerUnavailable,
    SignerUnusable,
    read_certificates,
)
from rxoutflow.v1.statement_pb2 import (
    SIGNATURE_ALGORITHM_ECDSA_P256_SHA256,
    SIGNATURE_ALGORITHM_ED25519,
    SignatureAlgorithm,
)

try:
    import pkcs11
except ImportError as error:
    raise ImportError("PKCS#11 is not installed here: pip install 'rxoutflow[hsm]'") from error

_PIN_REFUSED = (
    pkcs11.PinIncorrect,
    pkcs11.PinInvalid,
    pkcs11.PinLenRange,
    pkcs11.PinExpired,
    pkcs11.PinLocked,
)


class TokenKey:
    """A private key in a token: opened when it is needed, one signature at a time."""

    def __init__(self, module: Path, token_label: str, key_label: str, pin: str) -> None:
        """Say where the key is; nothing is opened yet."""
        self._module = module
        self._token_label = token_label
        self._key_label = key_label
        self._pin = pin
        self._session: pkcs11.Session | None = None
        self._key: pkcs11.SignMixin | None = None
        self._refusal: pkcs11.PKCS11Error | None = None

    def sign(self, data: bytes, mechanism: pkcs11.Mechanism) -> bytes:
        """Sign, opening the token if necessary.

        Raises:
            PKCS11Error: whatever the module says.
        """
        if self._key is None:
            self._key = self._find()
        return bytes(self._key.sign(data, mechanism=mechanism))

    def close(self) -> None:
        """Let go of the token; the next signature opens it again."""
        if self._session is not None:
            with suppress(pkcs11.PKCS11Error):
                self._session.close()
        self._session = self._key = None

    def _find(self) -> pkcs11.SignMixin:
        token = pkcs11.lib(str(self._module)).get_token(token_label=self._token_label)
        self._session = self._open(token)
        wanted = {
            pkcs11.Attribute.CLASS: pkcs11.ObjectClass.PRIVATE_KEY,
            pkcs11.Attribute.LABEL: self._key_label,
        }
        keys = list(self._session.get_objects(wanted))
        if len(keys) != 1:
            raise pkcs11.MultipleObjectsReturned if keys else pkcs11.NoSuchKey
        return cast(pkcs11.SignMixin, keys[0])  # if the token says that it signs

    def _open(self, token: pkcs11.Token) -> pkcs11.Session:
        if self._refusal is not None:
            raise self._refusal
        try:
            return token.open(user_pin=self._pin)
        except pkcs11.UserAlreadyLoggedIn:  # another signer of this process has
            return token.open()
        except _PIN_REFUSED as refusal:
            self._refusal = refusal
            raise


class Pkcs11Signer(CertifiedSigner):
    """A signer whose key is in a hardware security module; may be shared by threads."""

    def __init__(self, certificates: Sequence[x509.Certificate], key: TokenKey) -> None:
        """Take a chain, leaf first, and the key of the leaf, which signs once to show that it is.

        Raises:
            SignerUnusable: if module, token, PIN or key are not to be had, or the key is another.
        """
        super().__init__(certificates)
        if self.algorithm not in _MECHANISMS:
            raise SignerUnusable("a key in a PKCS#11 module must be P-256 or Ed25519")
        self._token_key = key
        self._lock = Lock()
        try:
            self._require_fit(self._signature)
        except pkcs11.PKCS11Error as error:
            key.close()
            raise SignerUnusable(_told(error)) from error

    @classmethod
    def load(
        cls, certificate_pem_path: Path, module: Path, token_label: str, key_label: str, pin: str
    ) -> Self:
        """Read a PEM chain, leaf first, and open its key in a token.

        Args:
            certificate_pem_path: the chain.
            module: the shared library that the maker of the module provides.
            token_label: which of its tokens.
            key_label: which private key of the token; the label must be the key's only.
            pin: the PIN of the token's user.

        Raises:
            SignerUnusable: if a file, the token or the key cannot be used.
        """
        certificates = read_certificates(certificate_pem_path)
        try:
            return cls(certificates, TokenKey(module, token_label, key_label, pin))
        except SignerUnusable as error:
            raise SignerUnusable(f"{error} (key {key_label!r}, token {token_label!r})") from None

    def sign(self, data: bytes) -> bytes:
        """Return the signature value over the data.

        Raises:
            SignerUnavailable: if the module does not sign, even in a new session.
        """
        with self._lock:
            try:
                value = self._signature(data)
            except pkcs11.PKCS11Error:
                value = self._again(data)
        return self._key.normal_form(value)

    def _again(self, data: bytes) -> bytes:
        self._token_key.close()
        try:
            return self._signature(data)
        except pkcs11.PKCS11Error as error:
            raise SignerUnavailable(_told(error)) from error

    def _signature(self, data: bytes) -> bytes:
        return self._token_key.sign(*_MECHANISMS[self.algorithm](data))


_MECHANISMS: Mapping[
    SignatureAlgorithm.ValueType, Callable[[bytes], tuple[bytes, pkcs11.Mechanism]]
] = {
    # every module signs a digest, few make it themselves
    SIGNATURE_ALGORITHM_ECDSA_P256_SHA256: lambda data: (
        sha256(data).digest(),
        pkcs11.Mechanism.ECDSA,
    ),
    SIGNATURE_ALGORITHM_ED25519: lambda data: (data, pkcs11.Mechanism.EDDSA),
}

_PROBLEMS: Mapping[type[pkcs11.PKCS11Error], str] = {
    pkcs11.NoSuchToken: "there is no token of this label: put it in, or correct the label",
    pkcs11.MultipleTokensReturned: "there are several tokens of this label: rename one",
    pkcs11.NoSuchKey: "the token has no private key of this label: correct the label",
    pkcs11.MultipleObjectsReturned: "the token has several keys of this label: rename one",
    **dict.fromkeys(_PIN_REFUSED, "the token refuses the PIN: correct it and start again"),
}


def _told(error: pkcs11.PKCS11Error) -> str:
    name = type(error).__name__
    return f"{_PROBLEMS.get(type(error), 'the PKCS#11 module fails')} ({name})"
