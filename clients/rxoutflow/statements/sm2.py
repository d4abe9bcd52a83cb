"""SM2 signatures with SM3 (GB/T 32918), as the optional extra ``sm2`` of this package.

The mathematics is GmSSL's, by way of ``gmssl_pyx``; certificates and key files, which
``cryptography`` cannot read because of their curve, are parsed by ``asn1crypto``. Signer id is
1234567812345678 and nothing else. Values are ASN.1 DER with r and s as integers.

For signatures on statements only: nothing here encrypts, issues certificates or speaks TLS.
Importing this module without the extra raises an ImportError that says what to install.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
from cryptography.hazmat.primitives.padding import PKCS7

from rxoutflow.statements.algorithms import (
    KeyUnsupported,
    SignatureWrong,
    require_form,
    signature_numbers,
)
from rxoutflow.v1.statement_pb2 import SIGNATURE_ALGORITHM_SM2_SM3

try:
    import gmssl_pyx
    from asn1crypto import keys, pem, x509
except ImportError as error:
    raise ImportError("SM2 is not installed here: pip install 'rxoutflow[sm2]'") from error

SIGNER_ID = b"1234567812345678"
"""The signer id that the exchange uses for everybody: the default of GM/T 0009."""

_CURVE = bytes.fromhex("06082a811ccf5501822d")
"""The object identifier 1.2.156.10197.1.301 in DER."""

_ORDER = 0xFFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFF7203DF6B21C6052B53BBF40939D54123
_NUMBER_BYTES = 32
_UNCOMPRESSED = b"\x04"
_DOMAIN = len(SIGNER_ID * 8).to_bytes(2, "big") + SIGNER_ID + bytes.fromhex(
    "FFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF00000000FFFFFFFFFFFFFFFC"
    "28E9FA9E9D9F5E344D5A9E4BCF6509A7F39789F515AB8F92DDBCBD414D940E93"
    "32C4AE2C1F1981195F9904466A39C9948FE30BBFF2660BE1715A4589334C74C7"
    "BC3736A2F4F6779C59BDCEE36B692153D0A9877CC62A474002DF32E52139F0A0"
)  # fmt: skip
"""What is hashed before the public key: bits of the signer id, the id, and a, b, G of the curve."""

_PRF = {"sha1": hashes.SHA1, "sha256": hashes.SHA256}


@dataclass(frozen=True, slots=True)
class Sm2PublicKey:
    """A point of the curve: x and y with 32 bytes each.

    Raises:
        KeyUnsupported: if it is no point of the curve.
    """

    point: bytes
    algorithm: ClassVar = SIGNATURE_ALGORITHM_SM2_SM3

    def __post_init__(self) -> None:
        try:
            gmssl_pyx.normalize_sm2_public_key(self.point)
        except gmssl_pyx.InvalidValueError:
            raise KeyUnsupported("the SM2 key is no point of its curve") from None

    def digest(self, data: bytes) -> bytes:
        """What is signed in place of the data: SM3 over Z, which names signer and key, and it."""
        z = gmssl_pyx.sm3_hash(_DOMAIN + self.point)
        return bytes(gmssl_pyx.sm3_hash(z + data))

    def normal_form(self, value: bytes) -> bytes:
        """Write a signature in DER.

        Raises:
            SignatureWrong: if it is no SM2 signature.
        """
        return encode_dss_signature(*signature_numbers(value, _ORDER))

    def verify(self, value: bytes, data: bytes) -> None:
        """Check a signature value over the data.

        Raises:
            SignatureWrong: if it is not this key's signature over the data, in DER.
        """
        # GmSSL writes to standard error what it cannot parse: it only ever sees what is well formed
        require_form(value, self.normal_form(value), "r and s")
        if not gmssl_pyx.sm2_verify_sm3_digest(self.point, self.digest(data), value):
            raise SignatureWrong


@dataclass(frozen=True, slots=True)
class Sm2PrivateKey:
    """A private key with its public half."""

    scalar: bytes = field(repr=False)
    public: Sm2PublicKey

    @classmethod
    def generate(cls) -> Sm2PrivateKey:
        """A fresh key."""
        point, scalar = gmssl_pyx.sm2_key_generate()
        return cls(scalar, Sm2PublicKey(point))

    def sign(self, data: bytes) -> bytes:
        """Sign the data: r and s in DER."""
        return bytes(gmssl_pyx.sm2_sign_sm3_digest(self.scalar, self.public.digest(data)))


def certificate_key(certificate: bytes) -> Sm2PublicKey:
    """The SM2 key of a certificate in DER.

    Raises:
        KeyUnsupported: if its key is no SM2 key.
    """
    try:
        info = x509.Certificate.load(certificate)["tbs_certificate"]["subject_public_key_info"]
        point = _point(info["algorithm"], info["public_key"])
    except (TypeError, ValueError) as error:
        raise KeyUnsupported("the certificate's key cannot be read") from error
    return Sm2PublicKey(point)


def read_private_key(data: bytes, password: bytes | None) -> Sm2PrivateKey:
    """Read a private key from PEM: PKCS#8, plain or encrypted with AES.

    Raises:
        KeyUnsupported: if it is no SM2 key with its public half, or encrypted in another way.
        ValueError: if it cannot be read, or the password does not open it.
    """
    kind, _, der = pem.unarmor(data)
    if kind == "ENCRYPTED PRIVATE KEY":
        der = _decrypted(keys.EncryptedPrivateKeyInfo.load(der), password or b"")
    info = keys.PrivateKeyInfo.load(der)
    number = info["private_key"].parsed
    point = _point(info["private_key_algorithm"], number["public_key"])
    scalar = number["private_key"].native.to_bytes(_NUMBER_BYTES, "big")
    return Sm2PrivateKey(scalar, Sm2PublicKey(point))


def _point(algorithm: Any, key: Any) -> bytes:  # noqa: ANN401 - asn1crypto has no types
    """The point of a public key, which must be on this curve and not compressed."""
    if algorithm["algorithm"].native != "ec" or algorithm["parameters"].dump() != _CURVE:
        raise KeyUnsupported("the key is neither P-256 nor Ed25519, nor SM2")
    point = key.native or b""
    if len(point) != 1 + 2 * _NUMBER_BYTES or point[:1] != _UNCOMPRESSED:
        raise KeyUnsupported("the SM2 key's public half is missing or compressed: write it anew")
    return bytes(point[1:])


def _decrypted(info: Any, password: bytes) -> bytes:  # noqa: ANN401
    """The plain PKCS#8 of an encrypted one: PBKDF2 and AES-CBC, as OpenSSL writes it."""
    scheme, data = info["encryption_algorithm"], info["encrypted_data"].native
    way = (scheme.kdf, scheme.encryption_cipher, scheme.encryption_mode)
    if way != ("pbkdf2", "aes", "cbc") or scheme.kdf_hmac not in _PRF:
        raise KeyUnsupported("the key is encrypted in another way than openssl pkcs8 -topk8 does")
    derive = PBKDF2HMAC(
        _PRF[scheme.kdf_hmac](), scheme.key_length, scheme.kdf_salt, scheme.kdf_iterations
    )
    cipher = Cipher(algorithms.AES(derive.derive(password)), modes.CBC(scheme.encryption_iv))
    decryptor, unpadder = cipher.decryptor(), PKCS7(algorithms.AES.block_size).unpadder()
    padded = decryptor.update(data) + decryptor.finalize()
    return unpadder.update(padded) + unpadder.finalize()
