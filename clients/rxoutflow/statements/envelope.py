"""Reading a statement: everything that can be judged without trusting anybody.

The envelope is in bounds, the type is the expected one, every header is in plain wire form and
complete, the roles stand in their order, every signature covers those before it and names the
certificate that it carries. What comes out is still a claim: nothing here says that a signature
verifies or that its signer may sign.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from rxoutflow.statements.errors import (
    SignatureInvalid,
    SignatureMissing,
    StatementMalformed,
    StatementTypeUnexpected,
)
from rxoutflow.statements.pae import pae, signature_sha256
from rxoutflow.statements.payloads import PayloadRule, Role, Roles, role_name
from rxoutflow.statements.wire import DEFAULT_BOUNDS, Bounds, check_wire
from rxoutflow.times import to_datetime
from rxoutflow.v1.statement_pb2 import ProtectedHeader, Signature, SignedStatement

MAX_CERTIFICATES = 4
"""A leaf and at most three intermediates."""

MAX_CERTIFICATE_BYTES = 16 * 1024

_HEADER_BOUNDS = Bounds(max_bytes=2048, max_depth=2, max_elements=32)
_REQUIRED = (
    "algorithm", "certificate_sha256", "role", "institution_code", "region_code", "audience"
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SignaturePart:
    """A signature, read but not verified: what it says of itself, and its digest."""

    index: int
    header: ProtectedHeader
    signature: Signature
    sign_time: datetime
    sha256: bytes

    @property
    def role(self) -> Role:
        """The capacity in which the signer says to sign."""
        return self.header.role

    @property
    def name(self) -> str:
        """The role as messages show it."""
        return role_name(self.header.role)

    def signed_bytes(self, statement: SignedStatement) -> bytes:
        """The bytes that the signature value is over."""
        return pae(statement.payload_type, self.signature.protected, statement.payload)


def read_statement(data: bytes, bounds: Bounds = DEFAULT_BOUNDS) -> SignedStatement:
    """Parse a serialised statement, for instance from a file, without judging its signatures.

    Raises:
        StatementMalformed: if it is not in plain wire form.
    """
    check_wire(data, SignedStatement.DESCRIPTOR, bounds)
    return SignedStatement.FromString(data)


def read_signatures(
    statement: SignedStatement, rule: PayloadRule, roles: Roles
) -> tuple[SignaturePart, ...]:
    """Read the headers and check what they say against the rule and each other.

    Raises:
        StatementTypeUnexpected: if the payload is of another type.
        StatementMalformed: if envelope or headers are not plain, complete and in bounds.
        SignatureMissing: if the roles are not exactly those wanted, in order.
        SignatureInvalid: if a signature does not cover those before it, or names a certificate
            other than the one it carries.
    """
    _check_type(statement, rule)
    _refuse_unknown_fields(statement, "statement")
    if len(statement.signatures) > len(rule.roles):
        raise _roles_differ(rule, roles)
    parts = tuple(_part(index, each) for index, each in enumerate(statement.signatures))
    _check_roles(parts, rule, roles)
    _check_priors(parts)
    for part in parts:
        _check_certificate_digest(part)
    return parts


def own_signatures(
    statement: SignedStatement, rule: PayloadRule, roles: Roles
) -> tuple[SignaturePart, ...]:
    """Read the headers of a statement that is, byte for byte, one that this process signed.

    Its envelope and headers are such as they are written here. Only type and roles are checked.

    Raises:
        StatementTypeUnexpected: if the payload is of another type.
        SignatureMissing: if the roles are not exactly those wanted, in order.
    """
    _check_type(statement, rule)
    parts = tuple(
        _read(index, signature, ProtectedHeader.FromString(signature.protected))
        for index, signature in enumerate(statement.signatures)
    )
    _check_roles(parts, rule, roles)
    return parts


def check_payload(statement: SignedStatement, rule: PayloadRule) -> None:
    """Check that the payload may be parsed as the rule's message.

    Raises:
        StatementMalformed: if it is not in plain wire form.
    """
    check_wire(statement.payload, rule.descriptor, rule.bounds)


def _check_type(statement: SignedStatement, rule: PayloadRule) -> None:
    if statement.payload_type != rule.payload_type:
        raise StatementTypeUnexpected(
            f"another kind of statement belongs here: its payload type is {rule.payload_type}",
            expected=rule.payload_type,
        )


def _refuse_unknown_fields(message: Message, field: str) -> None:
    if len(UnknownFieldSet(message)) > 0:
        raise StatementMalformed(f"{field} has fields that the contract does not know", field=field)


def _part(index: int, signature: Signature) -> SignaturePart:
    field = f"signatures[{index}]"
    _refuse_unknown_fields(signature, field)
    chain = signature.certificate_chain
    if not 1 <= len(chain) <= MAX_CERTIFICATES:
        raise StatementMalformed(
            f"{field} must carry the signer's certificate and at most "
            f"{MAX_CERTIFICATES - 1} intermediates",
            field=f"{field}.certificate_chain",
        )
    if max(map(len, chain)) > MAX_CERTIFICATE_BYTES:
        raise StatementMalformed(
            f"a certificate is larger than {MAX_CERTIFICATE_BYTES} bytes",
            field=f"{field}.certificate_chain",
        )
    return _read(index, signature, _header(signature.protected, f"{field}.protected"))


def _read(index: int, signature: Signature, header: ProtectedHeader) -> SignaturePart:
    sign_time = _sign_time(header, f"signatures[{index}].protected")
    return SignaturePart(index, header, signature, sign_time, signature_sha256(signature))


def _header(protected: bytes, field: str) -> ProtectedHeader:
    try:
        check_wire(protected, ProtectedHeader.DESCRIPTOR, _HEADER_BOUNDS)
    except StatementMalformed as error:
        inner = error.detail.get("field")
        raise StatementMalformed(
            f"{field}: {error}", field=f"{field}.{inner}" if inner else field
        ) from None
    header = ProtectedHeader.FromString(protected)
    for name in _REQUIRED:
        if not getattr(header, name):
            raise StatementMalformed(f"{field}.{name} is missing", field=f"{field}.{name}")
    return header


def _sign_time(header: ProtectedHeader, field: str) -> datetime:
    try:
        if header.HasField("sign_time"):
            return to_datetime(header.sign_time)
    except ValueError:
        pass
    raise StatementMalformed(f"{field}.sign_time is missing or no time", field=f"{field}.sign_time")


def _check_roles(parts: Sequence[SignaturePart], rule: PayloadRule, roles: Roles) -> None:
    for part, accepted in zip(parts, roles, strict=False):
        if part.role not in accepted:
            raise _roles_differ(rule, roles, accepted)
    if len(parts) != len(roles):
        raise _roles_differ(rule, roles, *roles[len(parts) : len(parts) + 1])


def _roles_differ(
    rule: PayloadRule, roles: Roles, missing: Sequence[Role] = ()
) -> SignatureMissing:
    wanted = ", ".join(_alternatives(each) for each in roles)
    message = f"the {rule.name} needs signatures {wanted} in this order"
    if not missing:
        return SignatureMissing(f"{message} and no others")
    name = _alternatives(missing)
    return SignatureMissing(f"{message}; {name} is missing", role=name)


def _alternatives(roles: Sequence[Role]) -> str:
    return " or ".join(role_name(role) for role in roles)


def _check_priors(parts: Sequence[SignaturePart]) -> None:
    """Every signature covers all that came before it, so none can be stripped or swapped."""
    digests: list[bytes] = []
    for part in parts:
        if list(part.header.prior_signature_sha256) != digests:
            raise SignatureInvalid(
                f"the signature of {part.name} covers other signatures than those before it",
                role=part.name,
            )
        digests.append(part.sha256)


def _check_certificate_digest(part: SignaturePart) -> None:
    leaf = part.signature.certificate_chain[0]
    if sha256(leaf).digest() != part.header.certificate_sha256:
        raise SignatureInvalid(
            f"the certificate of {part.name} is not the one that was signed with", role=part.name
        )
