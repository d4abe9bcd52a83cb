"""Where the key of a server's seal is kept: in files, or in a hardware security module.

Loading opens the key and signs once with it, so that a server which starts can sign. Who the
certificate names and whether anybody trusts it is checked by the configuration.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from rxoutflow.passwords import PasswordSource, PasswordUnusable
from rxoutflow.statements import FileSigner, Signer, SignerUnusable
from rxoutflow_server.transport.tls import KeyFiles


@dataclass(frozen=True, slots=True)
class ModuleKey:
    """A key in a PKCS#11 module, with its certificate chain in a PEM file."""

    certificate: Path
    module: Path
    """The shared library that the maker of the module provides."""
    token_label: str
    key_label: str
    pin_file: Path

    @property
    def complete(self) -> bool:
        """Whether everything is named and the files are there."""
        files = (self.certificate, self.module, self.pin_file)
        return all(each.is_file() for each in files) and bool(self.token_label and self.key_label)

    def name_of(self, path: Path | None) -> str:
        """The configuration's name of what is at fault."""
        names = {self.certificate: "certificate", self.pin_file: "pin_file"}
        return names.get(path, "key_label") if path else "key_label"


SigningKey: TypeAlias = KeyFiles | ModuleKey


def load_signer(key: SigningKey) -> Signer:
    """The signer of a configuration.

    Raises:
        SignerUnusable: saying which file, token or package is at fault.
    """
    try:
        if isinstance(key, KeyFiles):
            return FileSigner.load(key.certificate, key.key, key.password.read())
        return _load_module_key(key)
    except PasswordUnusable as error:
        raise SignerUnusable(error.problem, error.path) from None


def _load_module_key(key: ModuleKey) -> Signer:
    try:
        from rxoutflow.statements.hsm import Pkcs11Signer
    except ImportError as error:
        raise SignerUnusable(str(error)) from None
    pin = PasswordSource(file=key.pin_file).read() or b""
    try:
        text = pin.decode()
    except UnicodeDecodeError:
        raise SignerUnusable("is no text; write the PIN as UTF-8", key.pin_file) from None
    return Pkcs11Signer.load(key.certificate, key.module, key.token_label, key.key_label, text)
