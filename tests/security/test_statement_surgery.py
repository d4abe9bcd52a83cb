"""Signatures cut out, swapped, lent, and sealed anew: on every kind of statement.

``tests/unit/test_statements.py`` shows each rule by an example, mostly on a prescription. Here
every operation that a relay, a colleague or another region could try is done to every kind of
statement, at every signature. None may verify.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from google.protobuf.message import Message

from rxoutflow.statements import StatementError, Verifier, add_signature, sign
from rxoutflow.statements.payloads import Role, rule_for
from rxoutflow.trust import TrustStore
from rxoutflow.v1.statement_pb2 import ProtectedHeader, SignedStatement
from rxoutflow.v1.trust_pb2 import TrustList
from support.board import Ran
from support.pki import NOW, Credential, trust_store
from support.sheets import KINDS, Cast, Sheet

VERIFIABLE = [kind for kind in KINDS if kind is not TrustList]
ELSEWHERE = "440300"
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


class Theatre:
    """Two regions, and in the first one a second hospital and pharmacy with people of their own."""

    def __init__(self) -> None:
        self.cast = Cast.create()
        self.colleagues = _colleagues(self.cast)
        self.elsewhere = Cast.create(ELSEWHERE)
        self.trust: TrustStore = trust_store(self.cast.region, self.elsewhere.region)
        self.verifier = Verifier(self.trust)

    def statement(self, kind: type[Message]) -> SignedStatement:
        """An honest statement; each call signs anew."""
        payload = self.cast.message(kind).SerializeToString(deterministic=True)
        return signed_by(kind, payload, self.cast.sheet(kind), self.cast)


def signed_by(kind: type[Message], payload: bytes, sheet: Sheet, cast: Cast) -> SignedStatement:
    """Exact bytes signed by everybody on a sheet, for whom the kind is meant."""
    (role, first), *others = sheet
    audience = cast.audience(kind) or _settled(kind, cast)
    statement = sign(payload, rule_for(kind).payload_type, first.signer, role, NOW, audience)
    for role, credential in others:
        statement = add_signature(statement, credential.signer, role, NOW)
    return statement


def _settled(kind: type[Message], cast: Cast) -> str:
    honest = ProtectedHeader.FromString(cast.statement(kind).signatures[0].protected)
    return honest.audience


def _colleagues(cast: Cast) -> Cast:
    """People and seals of another hospital, pharmacy and hand in the same region."""
    region = cast.region
    hospital, pharmacy = region.hospital(), region.pharmacy()
    roles: dict[bytes, Role] = {
        credential.sha256: role for kind in VERIFIABLE for role, credential in cast.sheet(kind)
    }

    def other(credential: Credential, code: str, *, at_hospital: bool) -> Credential:
        role = roles[credential.sha256]
        return region.person(hospital if at_hospital else pharmacy, code, role)

    return replace(
        cast,
        hospital=hospital,
        pharmacy=pharmacy,
        prescriber=other(cast.prescriber, "D901", at_hospital=True),
        hospital_pharmacist=other(cast.hospital_pharmacist, "R901", at_hospital=True),
        hospital_seal=region.seal(hospital),
        pharmacist=other(cast.pharmacist, "R902", at_hospital=False),
        dispenser=other(cast.dispenser, "R903", at_hospital=False),
        checker=other(cast.checker, "R904", at_hospital=False),
        pharmacy_seal=region.seal(pharmacy),
        adjudicator=other(cast.adjudicator, "J901", at_hospital=True),
        second_adjudicator=other(cast.second_adjudicator, "J902", at_hospital=False),
        platform_seal=region.signing.issue("spiffe://350200.rxoutflow/platform/350200/seal"),
    )


@pytest.fixture(scope="module")
def theatre() -> Theatre:
    return Theatre()


def operations(theatre: Theatre, kind: type[Message]) -> Iterator[tuple[str, SignedStatement]]:
    """Everything that is tried on a statement of the kind."""
    yield from _cut_out(theatre, kind)
    yield from _swapped(theatre, kind)
    yield from _lent(theatre, kind)
    yield from _sealed_anew(theatre, kind)
    yield from _signed_by_others(theatre, kind)


def _cut_out(theatre: Theatre, kind: type[Message]) -> Iterator[tuple[str, SignedStatement]]:
    count = len(theatre.cast.sheet(kind))
    for index in range(count):
        cut = theatre.statement(kind)
        del cut.signatures[index]
        yield f"signature {index} cut out", cut
        blank = theatre.statement(kind)
        blank.signatures[index].value = b""
        yield f"signature {index} without a value", blank
        other_form = theatre.statement(kind)
        r, s = decode_dss_signature(other_form.signatures[index].value)
        other_form.signatures[index].value = encode_dss_signature(r, P256_ORDER - s)
        yield f"signature {index} in its second form", other_form
        doubled = theatre.statement(kind)
        doubled.signatures.add().CopyFrom(doubled.signatures[index])
        yield f"signature {index} twice", doubled
    for one in range(count):
        for other in range(one):
            turned = theatre.statement(kind)
            first, second = (type(turned.signatures[0])() for _ in range(2))
            first.CopyFrom(turned.signatures[one])
            second.CopyFrom(turned.signatures[other])
            turned.signatures[other].CopyFrom(first)
            turned.signatures[one].CopyFrom(second)
            yield f"signatures {other} and {one} changed places", turned


def _swapped(theatre: Theatre, kind: type[Message]) -> Iterator[tuple[str, SignedStatement]]:
    """A signature of another statement of the same people, about something else or the same."""
    sheet = theatre.cast.sheet(kind)
    payload = theatre.statement(kind).payload
    unlike = signed_by(kind, payload + b"\xa2\x06\x01x", sheet, theatre.cast)
    for index in range(len(sheet)):
        swapped = theatre.statement(kind)
        swapped.signatures[index].CopyFrom(unlike.signatures[index])
        yield f"signature {index} of another statement", swapped
        if index + 1 < len(sheet):  # the last one covers nothing that comes after it
            alike = theatre.statement(kind)
            alike.signatures[index].CopyFrom(theatre.statement(kind).signatures[index])
            yield f"signature {index} of the same people at another time", alike
    carried = theatre.statement(kind)
    carried.payload = unlike.payload
    yield "all signatures carried to another content", carried


def _lent(theatre: Theatre, kind: type[Message]) -> Iterator[tuple[str, SignedStatement]]:
    """A signature that was made under another kind of statement."""
    for other in VERIFIABLE:
        if other is kind:
            continue
        lender = theatre.statement(other)
        for index in range(min(len(lender.signatures), len(theatre.cast.sheet(kind)))):
            lent = theatre.statement(kind)
            lent.signatures[index].CopyFrom(lender.signatures[index])
            yield f"signature {index} of a {other.__name__}", lent
        relabelled = theatre.statement(kind)
        relabelled.payload_type = rule_for(other).payload_type
        yield f"shown as a {other.__name__}", relabelled


def _sealed_anew(theatre: Theatre, kind: type[Message]) -> Iterator[tuple[str, SignedStatement]]:
    """The last signer signs again, over less or over something else than the others did."""
    *people, (role, seal) = theatre.cast.sheet(kind)
    for index in range(len(people)):
        kept = [each for position, each in enumerate(people) if position != index]
        if kept:
            payload = theatre.statement(kind).payload
            stripped = signed_by(kind, payload, kept, theatre.cast)
            yield (
                f"signature {index} stripped and sealed anew",
                add_signature(stripped, seal.signer, role, NOW),
            )
    if people:
        changed = theatre.statement(kind)
        del changed.signatures[-1]
        changed.payload += b"\xa2\x06\x01x"
        yield "changed and sealed anew", add_signature(changed, seal.signer, role, NOW)
        alone = signed_by(kind, theatre.statement(kind).payload, [(role, seal)], theatre.cast)
        yield "sealed without anybody's signature", alone


def _signed_by_others(
    theatre: Theatre, kind: type[Message]
) -> Iterator[tuple[str, SignedStatement]]:
    """One signer, or all, replaced by a colleague elsewhere in the region, or by another region."""
    payload = theatre.statement(kind).payload
    sheet = list(theatre.cast.sheet(kind))
    for whose, cast in (("a colleague", theatre.colleagues), ("another region", theatre.elsewhere)):
        others = list(cast.sheet(kind))
        for index in range(len(sheet)):
            mixed = [*sheet[:index], others[index], *sheet[index + 1 :]]
            yield f"signature {index} by {whose}", signed_by(kind, payload, mixed, theatre.cast)
        yield f"all signatures by {whose}", signed_by(kind, payload, others, theatre.cast)


@pytest.mark.parametrize("kind", VERIFIABLE, ids=lambda kind: kind.__name__)
def test_no_operation_on_signatures_leaves_a_statement_that_verifies(
    kind: type[Message], theatre: Theatre
) -> None:
    theatre.verifier.verify(theatre.statement(kind), kind, NOW)
    verified = []
    for what, statement in operations(theatre, kind):
        try:
            theatre.verifier.verify(statement, kind, NOW)
        except StatementError:
            continue
        verified.append(what)
    assert verified == []


def test_there_are_enough_operations(theatre: Theatre, ran: Ran) -> None:
    cases = sum(1 for kind in VERIFIABLE for _ in operations(theatre, kind))
    ran("statement surgery", cases, 400)
