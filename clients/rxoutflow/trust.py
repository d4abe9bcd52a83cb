"""What each region vouches for: trust lists, one per region, never merged.

A :class:`TrustStore` starts from one pinned certificate a region, that of its registry. A list is
accepted only if that registry signed it, if it is well formed in every entry, and if its sequence
is higher than that of the list held; one that is refused changes nothing. A list that has lapsed,
and whose grace is over where there is one, is not used: every question about its region raises
until a newer one comes.

Lists that were accepted are immutable, so a reader who holds a :class:`RegionTrust` sees one list
throughout. Nothing here fetches lists, writes files or asks for the time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from threading import Lock
from types import MappingProxyType
from typing import Self

from cryptography import x509
from google.protobuf.timestamp_pb2 import Timestamp

from rxoutflow.identity import (
    PERSON_CODE,
    REGION_CODE,
    CallerKind,
    CallerName,
    IdentityError,
    KeyPurpose,
    SignerName,
    signer_name,
)
from rxoutflow.statements.algorithms import KeyUnsupported, SignatureWrong, verification_key
from rxoutflow.statements.envelope import (
    SignaturePart,
    check_payload,
    read_signatures,
    read_statement,
)
from rxoutflow.statements.errors import (
    RegionNotTrusted,
    StatementError,
    TrustListRefused,
    TrustListRollback,
)
from rxoutflow.statements.payloads import ANYBODY, PURPOSES, Role, rule_for
from rxoutflow.statements.verification import MAX_CLOCK_AHEAD
from rxoutflow.v1.annotations_pb2 import CallerKind as ContractKind
from rxoutflow.v1.statement_pb2 import SIGNER_ROLE_REGISTRY, SignatureAlgorithm, SignedStatement
from rxoutflow.v1.trust_pb2 import Institution, Signer, TrustList

__all__ = [
    "Offer",
    "RegionNotTrusted",
    "RegionTrust",
    "TrustListRefused",
    "TrustListRollback",
    "TrustStore",
    "read_trust_list",
]

SUFFIX = ".trustlist"
"""A trust list in a folder is ``<region code>.trustlist``: a serialised ``SignedStatement``."""

MAX_ROOTS = 2
"""Registry certificates of a region that may be pinned at once: the present and the next."""

_RULE = rule_for(TrustList)
_SHA256_HEX = re.compile(r"[0-9a-f]{64}")


class Offer(StrEnum):
    """What came of offering a trust list."""

    ACCEPTED = "accepted"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class RegionTrust:
    """A region's trust list that is in force: of this region only, and never changed.

    Entries are the contract's messages; treat them as read only.
    """

    region_code: str
    name: str
    sequence: int
    lapse_time: datetime
    """The expiry of the list or of its registry's certificate, whichever is first."""
    transport_anchors: tuple[x509.Certificate, ...]
    signing_anchors: tuple[x509.Certificate, ...]
    algorithms: frozenset[SignatureAlgorithm.ValueType]
    endpoints: tuple[str, ...]
    institutions: Mapping[str, Institution]
    _signers: Mapping[bytes, Signer]
    _denied: frozenset[bytes]

    def institution(self, institution_code: str) -> Institution | None:
        """The institution of this code, whatever its status, or ``None``."""
        return self.institutions.get(institution_code)

    def has_withdrawn(self, institution_code: str) -> bool:
        """Whether the institution has left and may do nothing at all."""
        institution = self.institutions.get(institution_code)
        return institution is not None and institution.status == Institution.STATUS_WITHDRAWN

    def signer(self, certificate_sha256: bytes) -> Signer | None:
        """What the signing certificate of this digest may do, or ``None``."""
        return self._signers.get(certificate_sha256)

    def is_denied(self, certificate_sha256: bytes) -> bool:
        """Whether the certificate of this digest, of either PKI, is no longer trusted."""
        return certificate_sha256 in self._denied


@dataclass(frozen=True, slots=True)
class _Held:
    trust: RegionTrust
    statement: SignedStatement


class TrustStore:
    """The trust lists held, one per region, behind pinned registries. Safe to share by threads.

    Args:
        registry_roots: for each region that is trusted at all, the SHA-256, in hexadecimal, of its
            registry's certificate in DER; two of them, separated by a space, while the registry
            changes its key.
        grace: for how long a list that has lapsed is still used.

    Raises:
        ValueError: if a region code or digest is not of this form.
    """

    def __init__(self, registry_roots: Mapping[str, str], grace: timedelta = timedelta(0)) -> None:
        self._roots = {region: _roots(region, pins) for region, pins in registry_roots.items()}
        self._grace = grace
        self._held: Mapping[str, _Held] = {}
        self._version = 0
        self._accepting = Lock()

    @classmethod
    def load(
        cls,
        folder: Path,
        registry_roots: Mapping[str, str],
        now: datetime,
        grace: timedelta = timedelta(0),
    ) -> Self:
        """Read every ``<region code>.trustlist`` of a folder. ``now`` is aware.

        A list that has lapsed is kept, so that no lower one is accepted, and not used.

        Raises:
            TrustListRefused: naming the file that is not acceptable.
        """
        if not folder.is_dir():
            raise TrustListRefused(f"{folder}: there is no such folder of trust lists")
        store = cls(registry_roots, grace)
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            store._load_file(path, now)
        return store

    def offer(
        self, statement: SignedStatement, now: datetime, *, region_code: str | None = None
    ) -> Offer:
        """Take a trust list if it is authentic and newer than the one held.

        Args:
            statement: the signed list.
            now: the time, aware.
            region_code: the region whose list it must be; any that is pinned if ``None``.

        Raises:
            TrustListRollback: if it is older than the list held, which stays in force.
            TrustListRefused: if it is not signed by the pinned registry of its region, is not well
                formed, is of another region, is from the future, or differs from the list held
                under the same sequence. The list held stays in force.
        """
        trust = _verified_list(statement, self._roots, now)
        if region_code not in (None, trust.region_code):
            raise TrustListRefused(f"is the list of another region than {region_code}")
        kept = SignedStatement()
        kept.CopyFrom(statement)
        with self._accepting:
            held = self._held.get(trust.region_code)
            if held is not None and not _supersedes(trust, kept, held):
                return Offer.UNCHANGED
            self._held = {**self._held, trust.region_code: _Held(trust, kept)}
            self._version += 1
        return Offer.ACCEPTED

    def region(self, region_code: str, now: datetime) -> RegionTrust:
        """Return the region's list that is in force, or in its grace, at ``now`` (aware).

        Raises:
            RegionNotTrusted: if there is none, or it has lapsed and its grace is over.
        """
        held = self.held(region_code)
        if held is None:
            raise RegionNotTrusted(region_code, "has no trust list here")
        if now > held.lapse_time + self._grace:
            raise RegionNotTrusted(region_code, "has a trust list here that has lapsed")
        return held

    def held(self, region_code: str) -> RegionTrust | None:
        """The region's list, lapsed or not; or ``None``.

        Only to show it and to fetch a newer one: whoever decides anything asks :meth:`region`.
        """
        held = self._held.get(region_code)
        return held.trust if held is not None else None

    def institution(
        self, region_code: str, institution_code: str, now: datetime
    ) -> Institution | None:
        """The institution as its own region's list in force at ``now`` (aware) has it, or ``None``.

        Raises:
            RegionNotTrusted: if there is no list of the region, or it has lapsed.
        """
        return self.region(region_code, now).institution(institution_code)

    def statement(self, region_code: str) -> SignedStatement | None:
        """The signed list held for a region, lapsed or not, to pass on or to keep; or ``None``."""
        held = self._held.get(region_code)
        if held is None:
            return None
        copy = SignedStatement()
        copy.CopyFrom(held.statement)
        return copy

    def regions(self) -> tuple[str, ...]:
        """Codes of the regions of which a list is held, lapsed or not, in order."""
        return tuple(sorted(self._held))

    @property
    def grace(self) -> timedelta:
        """For how long a list that has lapsed is still used."""
        return self._grace

    @property
    def version(self) -> int:
        """A number that rises with every list accepted, for caches."""
        return self._version

    def _load_file(self, path: Path, now: datetime) -> None:
        region_code = path.name.removesuffix(SUFFIX)
        try:
            self.offer(read_trust_list(path.read_bytes()), now, region_code=region_code)
        except OSError as error:
            raise TrustListRefused(f"{path}: cannot be read: {error.strerror}") from None
        except TrustListRefused as error:
            raise TrustListRefused(f"{path}: {error}") from None


def read_trust_list(data: bytes) -> SignedStatement:
    """Parse a serialised trust list, for instance from a file, without judging it.

    Raises:
        TrustListRefused: if it is not a statement in plain wire form.
    """
    try:
        return read_statement(data, _RULE.bounds)
    except StatementError as error:
        raise TrustListRefused(str(error)) from None


def _roots(region_code: str, pins: str) -> frozenset[bytes]:
    digests = pins.lower().split(" ")
    if (
        not REGION_CODE.fullmatch(region_code)
        or not all(map(_SHA256_HEX.fullmatch, digests))
        or len(digests) > MAX_ROOTS
    ):
        raise ValueError(
            f"registry root of {region_code!r}: needs a six-digit region code and the SHA-256 of "
            "the registry's certificate, 64 hexadecimal digits; two of them, separated by a space, "
            "while the registry changes its key"
        )
    return frozenset(map(bytes.fromhex, digests))


def _supersedes(trust: RegionTrust, statement: SignedStatement, held: _Held) -> bool:
    """Whether the new list takes the place of the one held; false if it is the same."""
    if trust.sequence > held.trust.sequence:
        return True
    if trust.sequence < held.trust.sequence:
        raise TrustListRollback(trust.region_code, trust.sequence, held.trust.sequence)
    if statement.payload != held.statement.payload:
        raise TrustListRefused(
            f"region {trust.region_code}: two different lists have the sequence {trust.sequence}; "
            "ask the region's registry"
        )
    return False


def _verified_list(
    statement: SignedStatement, roots: Mapping[str, frozenset[bytes]], now: datetime
) -> RegionTrust:
    """Verify a list under the pinned registry of the region that it is about."""
    try:
        (part,) = read_signatures(statement, _RULE, _RULE.roles)
        certificate = _registry_certificate(part, roots)
        _check_signature(statement, part, certificate)
        check_payload(statement, _RULE)
    except StatementError as error:
        raise TrustListRefused(str(error)) from None
    content = TrustList.FromString(statement.payload)
    _check_origin(content, part, certificate, now)
    return _parse(content, certificate)


def _registry_certificate(
    part: SignaturePart, roots: Mapping[str, frozenset[bytes]]
) -> x509.Certificate:
    """The signer's certificate, if it is a pinned one of the region that it signs for."""
    region_code = part.header.region_code
    pinned = roots.get(region_code)
    if pinned is None:
        raise TrustListRefused("the list is of a region whose registry is not pinned here")
    der = part.signature.certificate_chain[0]
    if sha256(der).digest() not in pinned:
        raise TrustListRefused(
            f"region {region_code}: the list is not signed by the pinned registry"
        )
    try:
        certificate = x509.load_der_x509_certificate(der)
        named = signer_name(certificate)
    except ValueError as error:
        raise TrustListRefused(
            f"region {region_code}: the registry's certificate: {error}"
        ) from None
    platform = CallerName(region_code, CallerKind.PLATFORM, region_code)
    if named != SignerName(platform, KeyPurpose.REGISTRY):
        raise TrustListRefused(
            f"region {region_code}: the pinned certificate names no registry of it"
        )
    return certificate


def _check_signature(
    statement: SignedStatement, part: SignaturePart, certificate: x509.Certificate
) -> None:
    try:
        key = verification_key(certificate)
        key.verify(part.signature.value, part.signed_bytes(statement))
    except (KeyUnsupported, SignatureWrong):
        raise TrustListRefused(
            f"region {part.header.region_code}: the registry's signature does not verify"
        ) from None
    if part.header.algorithm != key.algorithm:
        raise TrustListRefused("the algorithm is not that of the registry's key")


def _check_origin(
    content: TrustList, part: SignaturePart, certificate: x509.Certificate, now: datetime
) -> None:
    """The list is of the signer's region, for anybody, signed within validity and not ahead."""
    header = part.header
    if not content.region_code == header.region_code == header.institution_code:
        raise TrustListRefused("region_code: is not the region whose registry signed")
    if header.audience != ANYBODY:
        raise TrustListRefused(f"region {content.region_code}: the audience must be {ANYBODY}")
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not begin <= part.sign_time <= end:
        raise TrustListRefused(
            f"region {content.region_code}: signed while the registry's certificate was not valid"
        )
    if max(part.sign_time, _time(content.issue_time, "issue_time")) > now + MAX_CLOCK_AHEAD:
        raise TrustListRefused(
            f"region {content.region_code}: the list is from the future; check the clocks"
        )


def _parse(content: TrustList, registry: x509.Certificate) -> RegionTrust:
    """Read every entry; one that is not well formed refuses the list."""
    issue_time = _time(content.issue_time, "issue_time")
    expire_time = _time(content.expire_time, "expire_time")
    if content.sequence < 1:
        raise TrustListRefused("sequence: must be at least 1")
    if expire_time <= issue_time:
        raise TrustListRefused("expire_time: must be after issue_time")
    institutions = _institutions(content)
    return RegionTrust(
        region_code=content.region_code,
        name=content.region_name,
        sequence=content.sequence,
        lapse_time=min(expire_time, registry.not_valid_after_utc),
        transport_anchors=_anchors(content.transport_anchors, "transport_anchors"),
        signing_anchors=_anchors(content.signing_anchors, "signing_anchors"),
        algorithms=frozenset(content.algorithms),
        endpoints=tuple(endpoint.target for endpoint in content.endpoints),
        institutions=institutions,
        _signers=_signers(content, institutions),
        _denied=frozenset(_digests(content.denied_certificate_sha256)),
    )


def _time(value: Timestamp, field: str) -> datetime:
    try:
        return value.ToDatetime(UTC)
    except (ValueError, OverflowError):
        raise TrustListRefused(f"{field}: is no time") from None


def _anchors(certificates: Iterable[bytes], field: str) -> tuple[x509.Certificate, ...]:
    try:
        return tuple(map(x509.load_der_x509_certificate, certificates))
    except ValueError:
        raise TrustListRefused(f"{field}: holds something that is no certificate") from None


def _digests(digests: Iterable[bytes]) -> Iterable[bytes]:
    for index, digest in enumerate(digests):
        if len(digest) != sha256().digest_size:
            raise TrustListRefused(f"denied_certificate_sha256[{index}]: must be 32 bytes")
        yield digest


def _institutions(content: TrustList) -> Mapping[str, Institution]:
    institutions: dict[str, Institution] = {}
    for index, entry in enumerate(content.institutions):
        problem = _institution_problem(entry, content.region_code)
        if entry.institution_code in institutions:
            problem = "institution_code: stands in the list twice"
        if problem:
            raise TrustListRefused(f"institutions[{index}]: {problem}")
        institutions[entry.institution_code] = entry
    return MappingProxyType(institutions)


def _institution_problem(entry: Institution, region_code: str) -> str:
    """What is wrong with a listed institution, or nothing."""
    kind = ContractKind.Name(entry.kind).removeprefix("CALLER_KIND_").lower()
    if kind not in [*CallerKind] or not entry.status:
        return "kind and status are required"
    try:
        CallerName(region_code, CallerKind(kind), entry.institution_code)
    except IdentityError as error:
        return f"institution_code: {error}"
    return ""


def _signers(content: TrustList, institutions: Mapping[str, Institution]) -> Mapping[bytes, Signer]:
    signers: dict[bytes, Signer] = {}
    for index, entry in enumerate(content.signers):
        problem = _signer_problem(entry, content.region_code, institutions)
        if entry.certificate_sha256 in signers:
            problem = "certificate_sha256: stands in the list twice"
        if problem:
            raise TrustListRefused(f"signers[{index}]: {problem}")
        signers[entry.certificate_sha256] = entry
    return MappingProxyType(signers)


def _signer_problem(
    entry: Signer, region_code: str, institutions: Mapping[str, Institution]
) -> str:
    """What is wrong with a listed signer, or nothing."""
    if len(entry.certificate_sha256) != sha256().digest_size:
        return "certificate_sha256: must be 32 bytes"
    if entry.institution_code != region_code and entry.institution_code not in institutions:
        return "institution_code: is not an institution of this list"
    return _role_problem(entry.roles, entry.person_code)


def _role_problem(roles: Sequence[Role], person_code: str) -> str:
    if not roles or SIGNER_ROLE_REGISTRY in roles or not all(role in PURPOSES for role in roles):
        return "roles: must name roles, and never the registry's"
    purposes = {PURPOSES[role] for role in roles}
    if len(purposes) > 1:
        return "roles: a person's key and a seal are never the same"
    if (purposes == {KeyPurpose.PERSON}) != bool(PERSON_CODE.fullmatch(person_code)):
        return "person_code: is required for people, and only for them"
    return ""
