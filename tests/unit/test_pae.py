"""The bytes that are signed, by fixed vectors that other implementations can check against."""

from __future__ import annotations

from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from rxoutflow.statements import pae, signature_sha256, statement_sha256
from rxoutflow.v1.statement_pb2 import Signature, SignedStatement

TYPE = "application/vnd.rxoutflow.claim.v1+protobuf"

# payload: Claim{prescription_number: "350200"}; header: ProtectedHeader{algorithm: 1, role: 3}
PAYLOAD = bytes.fromhex("0a06333530323030")
PROTECTED = bytes.fromhex("08011803")
ENCODED = (
    b"RXOUTFLOWv1 43 application/vnd.rxoutflow.claim.v1+protobuf "
    b"4 \x08\x01\x18\x03 8 \x0a\x06350200"
)


def test_the_encoding_of_a_known_statement_is_fixed() -> None:
    assert pae(TYPE, PROTECTED, PAYLOAD) == ENCODED
    assert sha256(ENCODED).hexdigest() == (
        "ba44a9b7a7e82efcff6cba344e6d3788cf1b8d40e8f237ff22040451844dc776"
    )


def test_the_digests_of_a_known_statement_are_fixed() -> None:
    signature = Signature(protected=PROTECTED, value=b"value", certificate_chain=[b"any"])
    statement = SignedStatement(payload=PAYLOAD, payload_type=TYPE, signatures=[signature] * 2)
    one = sha256(
        b"RXOUTFLOWv1 38 application/vnd.rxoutflow.signature.v1 4 \x08\x01\x18\x03 5 value"
    ).digest()
    assert signature_sha256(signature) == one
    assert statement_sha256(statement) == sha256(pae(TYPE, b"", PAYLOAD) + one + one).digest()
    assert statement_sha256(statement).hex() == (
        "517811dc45fee3de6bf4f28550183b8ccf9a2a837a33e1288c761fe7e24d439e"
    )


def test_empty_parts_have_length_zero() -> None:
    assert pae("", b"", b"") == b"RXOUTFLOWv1 0  0  0 "


def test_lengths_are_in_bytes_not_characters() -> None:
    assert pae("处方", b"", b"").startswith(b"RXOUTFLOWv1 6 ")


parts = st.tuples(st.text(max_size=9), st.binary(max_size=9), st.binary(max_size=9))


@given(parts, parts)
def test_different_statements_never_have_the_same_encoding(
    one: tuple[str, bytes, bytes], other: tuple[str, bytes, bytes]
) -> None:
    assert (pae(*one) == pae(*other)) == (one == other)
