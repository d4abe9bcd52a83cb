"""SM2 keys and certificates for development, for the sandbox and for tests.

The certificate software below :mod:`rxoutflow_server.devpki` knows no SM2. So a certificate is
first issued for a stand-in key; here the SM2 key takes its place and the authority signs again. The
authority itself has a P-256 key: SM2 is for signatures on statements only. Needs the extra ``sm2``.
"""

from __future__ import annotations

from asn1crypto import core, keys, pem
from asn1crypto import x509 as asn1
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from rxoutflow.statements.algorithms import ECDSA_SHA256
from rxoutflow.statements.sm2 import Sm2PrivateKey, Sm2PublicKey

_CURVE = "1.2.156.10197.1.301"
_UNCOMPRESSED = b"\x04"
_NUMBER_BYTES = 32


def issue_for(
    stand_in: x509.Certificate, key: Sm2PublicKey, issuer: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    """The certificate with this key and the key's identifier, signed anew by its issuer."""
    certificate = asn1.Certificate.load(stand_in.public_bytes(Encoding.DER))
    content = certificate["tbs_certificate"]
    info = keys.PublicKeyInfo({"algorithm": _algorithm(), "public_key": _UNCOMPRESSED + key.point})
    content["subject_public_key_info"] = info
    for extension in content["extensions"]:
        if extension["extn_id"].native == "key_identifier":
            extension["extn_value"] = core.OctetString(info.sha1).dump()
    certificate["signature_value"] = issuer.sign(content.dump(force=True), ECDSA_SHA256)
    return x509.load_der_x509_certificate(certificate.dump(force=True))


def private_pem(key: Sm2PrivateKey) -> bytes:
    """The key as PKCS#8 in PEM, not encrypted."""
    keys.NamedCurve.register("sm2p256v1", _CURVE, _NUMBER_BYTES)
    number = keys.ECPrivateKey(
        {
            "version": "ecPrivkeyVer1",
            "private_key": int.from_bytes(key.scalar, "big"),
            "public_key": _UNCOMPRESSED + key.public.point,
        }
    )
    number["private_key"].set_encoded_width(_NUMBER_BYTES)
    info = {"version": 0, "private_key_algorithm": _algorithm(), "private_key": number}
    return bytes(pem.armor("PRIVATE KEY", keys.PrivateKeyInfo(info).dump()))


def _algorithm() -> dict[str, object]:
    curve = keys.ECDomainParameters(name="named", value=keys.NamedCurve(_CURVE))
    return {"algorithm": "ec", "parameters": curve}
