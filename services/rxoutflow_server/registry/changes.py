"""What changed from one trust list to the next: one line for each thing added, removed or changed.

Lines begin with ``+``, ``-`` or ``~``. They compare content and not bytes: two lists that vouch for
the same differ in nothing but sequence and times, which are not listed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

from cryptography import x509
from google.protobuf.message import Message

from rxoutflow.certificates import certificate_sha256
from rxoutflow.v1.trust_pb2 import Institution, Signer, TrustList
from rxoutflow_server.registry.words import (
    ALGORITHMS,
    KINDS,
    QUOTA_PERIODS,
    ROLES,
    SCOPES,
    STATUSES,
    word_of,
)

_SHOWN_DIGITS = 16

_Entry = TypeVar("_Entry", bound=Message)


def changes(old: TrustList, new: TrustList) -> list[str]:
    """The lines, in the order region, anchors, institutions, signers, endpoints, denials."""
    return [
        *_fields("region", _region(old), _region(new)),
        *_members(
            "transport anchor", _anchors(old.transport_anchors), _anchors(new.transport_anchors)
        ),
        *_members("signing anchor", _anchors(old.signing_anchors), _anchors(new.signing_anchors)),
        *_members("algorithm", _algorithms(old), _algorithms(new)),
        *_entries("institution", _institutions(old), _institutions(new), describe_institution),
        *_entries("signer", _signers(old), _signers(new), describe_signer),
        *_members("endpoint", _endpoints(old), _endpoints(new)),
        *_members("denied", _denied(old), _denied(new)),
    ]


def describe_institution(entry: Institution) -> dict[str, str]:
    """What an entry says, in words."""
    return {
        "kind": word_of(KINDS, entry.kind),
        "name": entry.name,
        "phone": entry.phone,
        "designated": "yes" if entry.designated else "no",
        "tier": str(entry.tier or ""),
        "status": word_of(STATUSES, entry.status),
        "scope": ", ".join(word_of(SCOPES, each) for each in entry.scope),
        "agreement": _agreement(entry),
    }


def _agreement(entry: Institution) -> str:
    if not entry.HasField("agreement"):
        return ""
    terms = entry.agreement
    period = word_of(QUOTA_PERIODS, terms.period)
    return f"{terms.document}, {terms.quota_fen} fen a {period}"


def describe_signer(entry: Signer) -> dict[str, str]:
    """What an entry says, in words."""
    return {
        "institution": entry.institution_code,
        "roles": ", ".join(word_of(ROLES, role) for role in entry.roles),
        "person_code": entry.person_code,
        "display_name": entry.display_name,
    }


def describe_anchor(der: bytes) -> str:
    """An anchor in words: digest, subject and expiry."""
    anchor = x509.load_der_x509_certificate(der)
    digest = certificate_sha256(anchor).hex()[:_SHOWN_DIGITS]
    subject = anchor.subject.rfc4514_string()
    return f"{digest}… {subject} until {anchor.not_valid_after_utc:%Y-%m-%d}"


def _region(content: TrustList) -> dict[str, str]:
    return {"code": content.region_code, "name": content.region_name}


def _anchors(anchors: Iterable[bytes]) -> dict[str, str]:
    return {der.hex(): describe_anchor(der) for der in anchors}


def _algorithms(content: TrustList) -> dict[str, str]:
    words = [word_of(ALGORITHMS, each) for each in content.algorithms]
    return dict(zip(words, words, strict=True))


def _endpoints(content: TrustList) -> dict[str, str]:
    return {each.target: each.target for each in content.endpoints}


def _denied(content: TrustList) -> dict[str, str]:
    return {each.hex(): each.hex() for each in content.denied_certificate_sha256}


def _institutions(content: TrustList) -> dict[str, Institution]:
    return {each.institution_code: each for each in content.institutions}


def _signers(content: TrustList) -> dict[str, Signer]:
    return {each.certificate_sha256.hex(): each for each in content.signers}


def _members(what: str, old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    """Things that are there or not, by what tells them apart."""
    yield from (f"- {what} {text}" for key, text in old.items() if key not in new)
    yield from (f"+ {what} {text}" for key, text in new.items() if key not in old)


def _entries(
    what: str,
    old: Mapping[str, _Entry],
    new: Mapping[str, _Entry],
    describe: Callable[[_Entry], dict[str, str]],
) -> Iterator[str]:
    for key in [*old, *(key for key in new if key not in old)]:
        short = key[:_SHOWN_DIGITS] + "…" if len(key) > _SHOWN_DIGITS else key
        if key not in new:
            yield f"- {what} {short}: {_in_words(describe(old[key]))}"
        elif key not in old:
            yield f"+ {what} {short}: {_in_words(describe(new[key]))}"
        else:
            yield from _fields(f"{what} {short}", describe(old[key]), describe(new[key]))


def _fields(what: str, old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    different = [f"{key} {old[key]!r} -> {new[key]!r}" for key in new if old[key] != new[key]]
    if different:
        yield f"~ {what}: {'; '.join(different)}"


def _in_words(description: Mapping[str, str]) -> str:
    return "; ".join(f"{key} {value}" for key, value in description.items() if value)
