"""Spoiled statements: in their envelope, and in what is signed. See ``mutants``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC
from functools import partial
from random import Random
from typing import Any, cast

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, Message

from rxoutflow.statements import add_signature, pae, sign
from rxoutflow.statements.payloads import Audience, rule_for
from rxoutflow.v1.statement_pb2 import ProtectedHeader, SignedStatement
from support.mutants import (
    TIMES,
    Mutant,
    changed_fields,
    chosen,
    field_mutants,
    flipped,
    spoiled_bytes,
    wire_mutants,
)
from support.pki import Credential
from support.premises import STATEMENTS

Signers = Mapping[bytes, Credential]
"""Who can sign anew, by the digest of the certificate."""

Spoil = Callable[[SignedStatement], None]
Named = tuple[str, Spoil]

SIGNED_ANEW = "signed anew"
"""Stands in the name of every mutant in which somebody who may sign has signed again."""


def mutants(request: Message, signers: Signers, seed: int, most: int) -> list[tuple[Mutant, bytes]]:
    """Different mutants of a request with their bytes, about so many, from all its families."""
    random = Random(seed)
    families = [
        list(wire_mutants(request, random)),
        list(field_mutants(request)),
        list(_envelopes(request, signers, random)),
        list(_contents(request, signers, random)),
    ]
    made: dict[bytes, Mutant] = {}
    for mutant in chosen([family for family in families if family], most, random):
        data = mutant.make()
        if data is not None and data != request.SerializeToString():
            made.setdefault(data, mutant)
    return [(mutant, data) for data, mutant in made.items()]


def statements_in(message: Message) -> Iterator[SignedStatement]:
    """Every signed statement of a message, at any depth."""
    if isinstance(message, SignedStatement):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for each in value if field.is_repeated else [value]:
                yield from statements_in(each)


def signed_anew(
    statement: SignedStatement, payload: bytes, signers: Signers, audience: str = ""
) -> SignedStatement:
    """Another payload, signed by whoever signed the statement, each as they did."""
    fresh = SignedStatement()
    for index, signature in enumerate(statement.signatures):
        header = ProtectedHeader.FromString(signature.protected)
        signer = signers[header.certificate_sha256].signer
        time = header.sign_time.ToDatetime(UTC)
        if index == 0:
            meant = audience or header.audience
            fresh = sign(payload, statement.payload_type, signer, header.role, time, meant)
        else:
            fresh = add_signature(fresh, signer, header.role, time)
    return fresh


def _with(request: Message, index: int, spoil: Spoil) -> bytes | None:
    """The request with one of its statements spoiled."""
    copy = type(request)()
    copy.CopyFrom(request)
    try:
        spoil(list(statements_in(copy))[index])
    except (IndexError, KeyError, DecodeError):
        return None
    return copy.SerializeToString()


# envelopes


def _envelopes(request: Message, signers: Signers, random: Random) -> Iterator[Mutant]:
    for index, statement in enumerate(statements_in(request)):
        for what, spoil in (
            *_relabelled(statement),
            *_payloads(random),
            *_rearranged(len(statement.signatures)),
            *_values(statement, random),
            *_chains(statement, signers),
            *_headers(statement, signers),
        ):
            yield Mutant("envelope", what, partial(_with, request, index, spoil))


def _relabelled(statement: SignedStatement) -> Iterator[Named]:
    kind = statement.payload_type
    for label in (*STATEMENTS, "", kind.upper(), f"{kind} ", kind[:-1], f"{kind}\0", "*"):
        yield f"payload_type {label!r}", partial(_set, "payload_type", label)


def _payloads(random: Random) -> Iterator[Named]:
    for payload in (b"", b"\xff", bytes(300_000)):
        yield f"payload of {len(payload)} bytes", partial(_set, "payload", payload)
    for _ in range(8):
        seed = random.randrange(2**32)
        yield (
            "a bit of the payload flipped",
            lambda statement, seed=seed: _set(  # type: ignore[misc] # mypy cannot infer a lambda with a default
                "payload", flipped(statement.payload, seed), statement
            ),
        )


def _set(name: str, value: Any, target: Any) -> None:
    setattr(target, name, value)


def _rearranged(count: int) -> Iterator[Named]:
    whole = list(range(count))
    orders: list[list[int]] = [[], whole * 2, whole * 30, whole[::-1]]
    for index in whole:
        orders += [whole[:index] + whole[index + 1 :], [*whole, index], [index]]
    for order in orders:
        yield f"signatures {order[:8]}", partial(_rearrange, order)


def _rearrange(order: Sequence[int], statement: SignedStatement) -> None:
    kept = [statement.signatures[index] for index in order]
    del statement.signatures[:]
    statement.signatures.extend(kept)


def _values(statement: SignedStatement, random: Random) -> Iterator[Named]:
    for at, signature in enumerate(statement.signatures):
        seeds = [random.randrange(2**32) for _ in range(4)]
        for value in (
            b"",
            b"\0" * 64,
            b"\x30\x06\x02\x01\x00\x02\x01\x00",
            b"\xff" * 72,
            *(flipped(signature.value, seed) for seed in seeds),
        ):
            yield f"value {at}: {value[:8].hex()}", partial(_put_value, at, value)


def _put_value(at: int, value: bytes, statement: SignedStatement) -> None:
    statement.signatures[at].value = value


def _chains(statement: SignedStatement, signers: Signers) -> Iterator[Named]:
    strangers = [who.signer.certificate_chain[0] for who in list(signers.values())[:2]]
    for at, signature in enumerate(statement.signatures):
        leaf = signature.certificate_chain[0]
        for what, chain in {
            "no certificate": [],
            "noise for a certificate": [b"noise"],
            "noise behind the certificate": [leaf, b"\x30\x82\xff\xff"],
            "the certificate five times": [leaf] * 5,
            "a huge certificate": [leaf + bytes(20_000)],
            "a longer certificate": [leaf + b"\0"],
            "the certificate of a colleague": strangers[:1],
            "a colleague as issuer": [leaf, *strangers],
        }.items():
            yield f"chain {at}: {what}", partial(_put_chain, at, chain)


def _put_chain(at: int, chain: Sequence[bytes], statement: SignedStatement) -> None:
    del statement.signatures[at].certificate_chain[:]
    statement.signatures[at].certificate_chain.extend(chain)


_HEADER_FIELDS: Mapping[str, Sequence[Any]] = {
    "algorithm": (0, 2, 3, 99),
    "role": (0, 1, 4, 5, 6, 7, 8, 99),
    "region_code": ("", "350500", "320600", "350200", "35020", "999999", "350200 ", "x" * 3000),
    "institution_code": ("", "350200", "H35020000001", "P35050000002", "H35020000003"),
    "audience": ("", "*", "350200", "350500", "320600", "999999"),
    "certificate_sha256": (b"", bytes(32), bytes(31)),
}

HeaderChange = Callable[[ProtectedHeader], object]


def _headers(statement: SignedStatement, signers: Signers) -> Iterator[Named]:
    changes: list[tuple[str, HeaderChange]] = [
        (f"{name} {value!r:.30}", partial(_set, name, value))
        for name, values in _HEADER_FIELDS.items()
        for value in values
    ]
    changes += [(f"signed at {time}", partial(_set_time, *time)) for time in TIMES]
    changes += [
        ("one prior more", lambda header: header.prior_signature_sha256.append(bytes(32))),
        ("no priors", lambda header: header.ClearField("prior_signature_sha256")),
    ]
    for at in range(len(statement.signatures)):
        for what, change in changes:
            yield f"header {at}: {what}", partial(_restate, at, signers, change, False)
            name = f"header {at}, {SIGNED_ANEW}: {what}"
            yield name, partial(_restate, at, signers, change, True)
        for noise in (b"", b"\xff\xff", b"\x08\x01\x08\x01", bytes(3000)):
            yield f"header {at}: {noise[:4].hex()}", partial(_put_header, at, noise)


def _set_time(seconds: int, nanos: int, header: ProtectedHeader) -> None:
    header.sign_time.seconds, header.sign_time.nanos = seconds, nanos


def _put_header(at: int, noise: bytes, statement: SignedStatement) -> None:
    statement.signatures[at].protected = noise


def _restate(
    at: int, signers: Signers, change: HeaderChange, anew: bool, statement: SignedStatement
) -> None:
    """The header changed, under the old signature or under a new one by the same signer."""
    signature = statement.signatures[at]
    header = ProtectedHeader.FromString(signature.protected)
    signer = signers[header.certificate_sha256].signer
    change(header)
    signature.protected = header.SerializeToString(deterministic=True)
    if anew:
        data = pae(statement.payload_type, signature.protected, statement.payload)
        signature.value = signer.sign(data)


# what is signed


def _contents(request: Message, signers: Signers, random: Random) -> Iterator[Mutant]:
    for index, statement in enumerate(statements_in(request)):
        kind = STATEMENTS[statement.payload_type]
        descriptor = cast(Descriptor, kind.DESCRIPTOR)
        spoiled = list(spoiled_bytes(statement.payload, descriptor, random))
        for what, make in spoiled if len(spoiled) < 150 else random.sample(spoiled, 150):
            spoil = partial(_sign_anew, make, kind, signers)
            yield _content(what, partial(_with, request, index, spoil))
        for what, change in changed_fields(kind.FromString(statement.payload)):
            spoil = partial(_sign_changed, change, kind, signers)
            yield _content(what, partial(_with, request, index, spoil))


def _content(what: str, make: Callable[[], bytes | None]) -> Mutant:
    return Mutant("content", f"{SIGNED_ANEW}: {what}", make)


def _sign_changed(
    change: Callable[[], Message | None],
    kind: type[Message],
    signers: Signers,
    statement: SignedStatement,
) -> None:
    content = change()
    if content is None:
        raise KeyError("its type does not allow it")
    payload = content.SerializeToString(deterministic=True)
    _sign_anew(lambda: payload, kind, signers, statement)


def _sign_anew(
    make: Callable[[], bytes], kind: type[Message], signers: Signers, statement: SignedStatement
) -> None:
    """Sign as honest software would, that is for the home region that the content now names."""
    payload, audience = make(), ""
    if rule_for(kind).audience is Audience.HOME:
        try:
            content: Any = kind.FromString(payload)
            audience = content.prescription_number[:6]
        except DecodeError:
            pass
    statement.CopyFrom(signed_anew(statement, payload, signers, audience))
