"""A hardware security module in software for tests: SoftHSM with tokens in a temporary folder.

Tests that use it carry the marker ``hsm`` and are skipped where SoftHSM is missing. SoftHSM reads
its configuration once in a process, so tests of one process share a folder while they use it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pkcs11
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_public_key,
)
from pkcs11.util.ec import (
    decode_ec_private_key,
    encode_ec_public_key,
    encode_named_curve_parameters,
)

from rxoutflow.identity import KeyPurpose, SignerName
from support.pki import Credential, Region

PIN = "271828"
_OFFICER_PIN = "314159"
_ED25519 = "1.3.101.112"
_PLACES = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/opt/homebrew/lib")


def softhsm_module() -> Path | None:
    """SoftHSM's PKCS#11 library on this machine."""
    places = [Path(place) / "softhsm" / "libsofthsm2.so" for place in _PLACES]
    return next((each for each in places if each.is_file()), None)


@dataclass(frozen=True)
class TokenHolder:
    """A key pair that was made in a token: only its public half is known outside."""

    public: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

    def public_key(self) -> ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey:
        return self.public


@dataclass(frozen=True)
class SoftHsm:
    """A module with tokens, all with the same PIN."""

    module: Path
    folder: Path

    @classmethod
    def start(cls, folder: Path, *labels: str) -> SoftHsm:
        """Make tokens of these labels; skips the test where SoftHSM is missing."""
        module, tool = softhsm_module(), shutil.which("softhsm2-util")
        if module is None or tool is None:
            pytest.skip("SoftHSM is not installed; on Debian: apt-get install softhsm2")
        tokens, configuration = folder / "tokens", folder / "softhsm2.conf"
        tokens.mkdir()
        configuration.write_text(f"directories.tokendir = {tokens}\nlog.level = ERROR\n")
        os.environ["SOFTHSM2_CONF"] = str(configuration)
        for label in labels:
            command = [tool, "--init-token", "--free", "--label", label]
            pins = ["--pin", PIN, "--so-pin", _OFFICER_PIN]
            subprocess.run([*command, *pins], check=True, capture_output=True)
        pkcs11.lib(str(module)).reinitialize()  # it may have been used with another folder
        return cls(module, folder)

    def seal(self, region: Region, token: str, label: str, *, ed: bool = False) -> Credential:
        """Make a key in a token, and the certificate of the platform's seal for it, listed."""
        holder = TokenHolder(self._generate(token, label, ed=ed))
        name = SignerName(region.platform, KeyPurpose.SEAL)
        return region.seal(name.institution, key=holder)  # type: ignore[arg-type] # public half

    def put(self, key: ec.EllipticCurvePrivateKey, token: str, label: str) -> None:
        """Put a key that was made elsewhere into a token."""
        form = (Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        attributes = decode_ec_private_key(key.private_bytes(*form))
        own = {pkcs11.Attribute.LABEL: label, pkcs11.Attribute.TOKEN: True}
        own[pkcs11.Attribute.SIGN] = own[pkcs11.Attribute.PRIVATE] = True
        with self._session(token) as session:
            session.create_object(attributes | own)

    def lose(self, token: str) -> None:
        """Destroy everything in a token while it is in use."""
        with self._session(token) as session:
            for each in list(session.get_objects()):
                each.destroy()

    def _generate(
        self, token: str, label: str, *, ed: bool
    ) -> ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey:
        kind = pkcs11.KeyType.EC_EDWARDS if ed else pkcs11.KeyType.EC
        curve = encode_named_curve_parameters(_ED25519 if ed else "secp256r1")
        mechanism = pkcs11.Mechanism.EC_EDWARDS_KEY_PAIR_GEN if ed else None
        with self._session(token) as session:
            parameters = session.create_domain_parameters(
                kind, {pkcs11.Attribute.EC_PARAMS: curve}, local=True
            )
            public, _ = parameters.generate_keypair(mechanism=mechanism, store=True, label=label)
            if ed:
                point = public[pkcs11.Attribute.EC_POINT]
                return ed25519.Ed25519PublicKey.from_public_bytes(point[-32:])
            key = load_der_public_key(encode_ec_public_key(public))
            assert isinstance(key, ec.EllipticCurvePublicKey)
            return key

    def _session(self, token: str) -> pkcs11.Session:
        found = pkcs11.lib(str(self.module)).get_token(token_label=token)
        try:
            return found.open(rw=True, user_pin=PIN)
        except pkcs11.UserAlreadyLoggedIn:
            return found.open(rw=True)
