"""Verifying statements: from bytes to content that somebody answers for.

:meth:`Verifier.verify` returns the parsed content together with who signed it, or raises a
:class:`~rxoutflow.statements.errors.StatementError`. There is no boolean and no unverified content.
It reads no files, asks no network and no clock: what is trusted comes from the
:class:`~rxoutflow.trust.TrustStore`, and the time is passed in. One verifier may be shared by
threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from itertools import combinations, islice
from operator import attrgetter
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeAlias, TypeVar

from cryptography import x509
from google.protobuf.message import Message

from rxoutflow.certificates import (
    CertificateUntrusted,
    TrustedPath,
    Usage,
    certificate_sha256,
    verify_chain,
)
from rxoutflow.identity import REGION_CODE, IdentityError, SignerName, signer_name
from rxoutflow.statements.algorithms import (
    KeyUnsupported,
    SignatureWrong,
    VerificationKey,
    verification_key,
)
from rxoutflow.statements.envelope import (
    MAX_CERTIFICATE_BYTES,
    MAX_CERTIFICATES,
    SignaturePart,
    check_payload,
    own_signatures,
    read_signatures,
)
from rxoutflow.statements.errors import (
    RegionNotTrusted,
    SignatureInvalid,
    SignedContentMismatch,
    SignersNotDistinct,
    SignerUntrusted,
)
from rxoutflow.statements.pae import digest_of, signature_sha256
from rxoutflow.statements.payloads import (
    ANYBODY,
    PURPOSES,
    Agreement,
    Audience,
    Binding,
    PayloadRule,
    Role,
    Roles,
    home_region,
    role_name,
    rule_for,
)
from rxoutflow.v1.attempt_pb2 import Attempt
from rxoutflow.v1.statement_pb2 import (
    SIGNER_ROLE_PLATFORM,
    ProtectedHeader,
    Signature,
    SignedStatement,
)
from rxoutflow.v1.trust_pb2 import Signer

if TYPE_CHECKING:
    from rxoutflow.trust import RegionTrust, TrustStore

MAX_CLOCK_AHEAD = timedelta(minutes=10)
"""How far a signer's clock may be ahead of the verifier's."""

_MAX_REMEMBERED = 10_000
"""Statements of some seconds of a busy platform, signers of its day; a kilobyte or two each."""

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class VerifiedSigner:
    """Who signed, in which capacity and when; the person code is empty for seals and platforms."""

    role: Role
    person_code: str
    institution_code: str
    region_code: str
    display_name: str
    sign_time: datetime


@dataclass(frozen=True, slots=True)
class Verified(Generic[M]):
    """A statement that verified: its content, who signed it in order, and its digest."""

    content: M
    signers: tuple[VerifiedSigner, ...]
    sha256: bytes


@dataclass(frozen=True, slots=True)
class _Holder:
    """Whom a list and a certificate that leads to its anchors name, by rule 5, in one role."""

    path: TrustedPath
    key: VerificationKey
    not_before: datetime
    not_after: datetime
    """Of the certificate itself, whatever its issuers say."""
    person_code: str
    institution_code: str
    display_name: str


class _Judged(NamedTuple):
    """One signature: who signed, and for which instants of judgement that comes out alike."""

    signer: VerifiedSigner
    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True)
class _Finding:
    """What was found of a statement under one list of its region, for a span of instants.

    It holds nothing that anybody can change.
    """

    region_code: str
    sequence: int
    not_before: datetime
    not_after: datetime
    signers: tuple[VerifiedSigner, ...]
    audience: str
    sha256: bytes


_Key: TypeAlias = tuple[bytes, str, Roles]
_K = TypeVar("_K")
_V = TypeVar("_V")


class Verifier:
    """Decides whether a statement verifies. These are the rules, in the order of checking.

    1. The payload type is that of the expected message.
    2. Envelope and headers are in plain wire form, complete and in bounds.
    3. The signatures are exactly those of :data:`~rxoutflow.statements.payloads.RULES`, in order
       (or the beginning of them that the caller asks for), each covers the digests of all before
       it, and each names the certificate it carries.
    4. All signers belong to one institution of one region, whose trust list is held and in force.
       Lists of other regions play no part.
    5. For every signature: the certificate is on that list for this role and institution; neither
       it nor an issuer of it is denied; the institution has not withdrawn (a suspended one may
       finish what it began: policy decides that, not the signature); the certificate leads to the
       region's signing anchors and is valid at the instant of judgement; its one URI names the same
       region, institution, person and purpose, and an institution of the right kind.
    6. The time of signing lies in the certificate's validity and at most ten minutes ahead.
    7. The header's algorithm is that of the certificate's key and allowed in the region.
    8. The signature value verifies over the exact bytes and has the one form that its algorithm
       allows, so that nobody but the signer can give a statement another digest.
    9. Roles that the law keeps apart were filled by different people, judged by person code.
    10. The payload is in plain wire form. It is parsed once, after all of the above.
    11. The audience follows the rule of the type and is the same in all signatures. At last, after
        rule 12, it is the caller's region or anybody where the caller says which region it is.
    12. What the content says about its signers agrees with who signed.

    Intermediate certificates are no part of the digest and need not be: they only help to find a
    path. Whoever takes some away can make a statement fail; nobody can change, by adding some, who
    signed, in which role, or what.

    A statement passes an exchange several times. What was found of the same bytes is remembered for
    a while. It counts again while the region's list is the same and in force, and the instant of
    judgement is one at which rules 5 and 6 come out alike; anything else is judged anew. The
    audience is compared with each caller's region, and each caller gets a content of its own.
    Refusals are never remembered.

    "The instant of judgement" is ``now`` for a fresh statement. For an old one it is ``at``, the
    time at which a trusted log received it; lists are always judged as of ``now``.
    """

    def __init__(self, trust: TrustStore) -> None:
        self._trust = trust
        self._holders: dict[tuple[object, ...], _Holder] = {}
        self._found: dict[_Key, _Finding] = {}
        self._signed_here: dict[_Key, bool] = {}

    def verify(
        self,
        statement: SignedStatement,
        expected: type[M],
        now: datetime,
        audience_region: str | None = None,
        *,
        roles: Sequence[Role] | None = None,
        at: datetime | None = None,
    ) -> Verified[M]:
        """Return the content and signers of a statement of the expected type.

        Args:
            statement: as it was received.
            expected: the message class, for instance ``Prescription``.
            now: the time, aware.
            audience_region: the region that acts on the statement; ``None`` for one that only
                forwards or keeps it.
            roles: the signatures to expect, where the rest is still to come, for instance the
                people's before the seal; a beginning of those the type needs.
            at: for an old statement, when a trusted log received it, aware.

        Raises:
            StatementError: the subclass says why.
            ValueError: if ``roles`` is not a beginning of those the type needs.
            TypeError: if messages of the expected class are never signed.
        """
        rule = rule_for(expected)
        wanted = _wanted(rule, roles)
        key = _key(statement, rule, wanted)
        found = self._found.get(key)
        if found is None or not self._still_holds(found, now, at or now):
            found = self._judge(statement, rule, key, now, at or now)
            _remember(self._found, key, found)
        _check_audience(rule, found.audience, audience_region)
        return Verified(expected.FromString(statement.payload), found.signers, found.sha256)

    def platform_key(
        self, region_code: str, certificate_chain: Sequence[bytes], now: datetime
    ) -> VerificationKey:
        """The key with which a region's platform signs the head of its log, by rules 4 and 5.

        A certificate that has expired, or is not valid yet, is judged within its validity: what it
        signs has no time of its own, and the trust list says whether it still counts.

        Raises:
            SignerUntrusted: the region does not vouch for this certificate as its platform's.
        """
        part = _platform_part(region_code, certificate_chain, now)
        try:
            region = self._trust.region(region_code, now)
        except RegionNotTrusted as error:
            raise _untrusted(part, f"is of a region without a trust list here: {error}") from None
        holder = self._holder(part, rule_for(Attempt), region, _within_validity(part, now))
        if holder.key.algorithm not in region.algorithms:
            raise _untrusted(part, "is for an algorithm that its region does not allow")
        return holder.key

    def signed_here(self, statement: SignedStatement, kind: type[Message]) -> None:
        """Note a statement that this process has just signed: it need not prove that to itself."""
        rule = rule_for(kind)
        _remember(self._signed_here, _key(statement, rule, rule.roles), True)

    def _still_holds(self, found: _Finding, now: datetime, at: datetime) -> bool:
        """Whether the list is the same and in force, and the instant one of those judged alike."""
        try:
            region = self._trust.region(found.region_code, now)
        except RegionNotTrusted:
            return False
        return region.sequence == found.sequence and found.not_before <= at <= found.not_after

    def _judge(
        self, statement: SignedStatement, rule: PayloadRule, key: _Key, now: datetime, at: datetime
    ) -> _Finding:
        """Judge a statement by all rules, but for whom it is meant.

        The form and the values of what this process signed itself need no proof.
        """
        own = key in self._signed_here
        parts = (own_signatures if own else read_signatures)(statement, rule, key[2])
        region = self._region(parts, now)
        unproven = None if own else statement
        judged = [self._signer(unproven, each, rule, region, at) for each in parts]
        signers = tuple(each.signer for each in judged)
        _check_distinct(rule, signers)
        if not own:
            check_payload(statement, rule)
        content = rule.message.FromString(statement.payload)
        audience = _audience(rule, content, parts)
        for binding in rule.bindings:
            _check_binding(binding, content, signers)
        return _Finding(
            region.region_code,
            region.sequence,
            max(each.not_before for each in judged),
            min(each.not_after for each in judged),
            signers,
            audience,
            digest_of(rule.payload_type, statement.payload, (each.sha256 for each in parts)),
        )

    def _region(self, parts: Sequence[SignaturePart], now: datetime) -> RegionTrust:
        """The one region of all signers."""
        first = parts[0].header
        for part in parts[1:]:
            for field in ("region_code", "institution_code"):
                if getattr(part.header, field) != getattr(first, field):
                    raise SignedContentMismatch(
                        f"{part.name} signs for another institution than {parts[0].name}",
                        field=f"signatures[{part.index}].protected.{field}",
                        role=part.name,
                    )
        try:
            return self._trust.region(first.region_code, now)
        except RegionNotTrusted as error:
            raise _untrusted(
                parts[0], f"is of a region without a trust list here: {error}"
            ) from None

    def _signer(
        self,
        statement: SignedStatement | None,
        part: SignaturePart,
        rule: PayloadRule,
        region: RegionTrust,
        at: datetime,
    ) -> _Judged:
        """Check one signature by rules 5 to 7, and its value over a statement by rule 8."""
        holder = self._holder(part, rule, region, at)
        _check_sign_time(part, holder, at)
        _check_algorithm(part, holder.key, region)
        if statement is not None:
            _check_value(part, holder.key, statement)
        signer = VerifiedSigner(
            part.role,
            holder.person_code,
            holder.institution_code,
            region.region_code,
            holder.display_name,
            part.sign_time,
        )
        earliest = max(holder.path.not_before, part.sign_time - MAX_CLOCK_AHEAD)
        return _Judged(signer, earliest, holder.path.not_after)

    def _holder(
        self, part: SignaturePart, rule: PayloadRule, region: RegionTrust, at: datetime
    ) -> _Holder:
        """Check a signer by rule 5; once per list, role, institution and certificates sent.

        The header names the first of these certificates (rule 3).
        """
        header = part.header
        stated = (rule.signer_kind, header.role, header.institution_code)
        key = (region.region_code, region.sequence, *stated, *part.signature.certificate_chain)
        holder = self._holders.get(key)
        if holder is None or not holder.path.valid_at(at):
            holder = _read_holder(part, rule, region, at)
            _remember(self._holders, key, holder)
        return holder


def _key(statement: SignedStatement, rule: PayloadRule, wanted: Roles) -> _Key:
    """What a finding is of: everything in a statement counts, certificates and the unknown."""
    return sha256(statement.SerializeToString()).digest(), rule.name, wanted


def _remember(memory: dict[_K, _V], key: _K, value: _V) -> None:
    """Keep a value; the oldest make room."""
    if len(memory) >= _MAX_REMEMBERED:
        for oldest in tuple(islice(memory, _MAX_REMEMBERED // 4)):
            memory.pop(oldest, None)
    memory[key] = value


def _wanted(rule: PayloadRule, roles: Sequence[Role] | None) -> Roles:
    if roles is None:
        return rule.roles
    places = rule.roles[: len(roles)]
    if not 1 <= len(roles) == len(places) or any(
        role not in place for role, place in zip(roles, places, strict=True)
    ):
        raise ValueError(f"the signatures of a {rule.name} do not begin with these roles")
    return tuple((role,) for role in roles)


def _untrusted(part: SignaturePart, problem: str) -> SignerUntrusted:
    return SignerUntrusted(
        f"the certificate of {part.name} {problem}",
        role=part.name,
        region=part.header.region_code,
    )


def _platform_part(
    region_code: str, certificate_chain: Sequence[bytes], now: datetime
) -> SignaturePart:
    """A platform's certificates as a signature by it would show them."""
    chain = list(certificate_chain)
    header = ProtectedHeader(
        role=SIGNER_ROLE_PLATFORM, institution_code=region_code, region_code=region_code
    )
    signature = Signature(certificate_chain=chain)
    part = SignaturePart(0, header, signature, now, signature_sha256(signature))
    if not 1 <= len(chain) <= MAX_CERTIFICATES or max(map(len, chain)) > MAX_CERTIFICATE_BYTES:
        raise _untrusted(part, "is missing, or has too many or too large issuers")
    header.certificate_sha256 = sha256(chain[0]).digest()
    return part


def _within_validity(part: SignaturePart, now: datetime) -> datetime:
    """The time, or the nearest at which the certificate was valid."""
    try:
        leaf = x509.load_der_x509_certificate(part.signature.certificate_chain[0])
    except ValueError:
        raise _untrusted(part, "cannot be read") from None
    return min(max(now, leaf.not_valid_before_utc), leaf.not_valid_after_utc)


def _listed_signer(part: SignaturePart, region: RegionTrust) -> Signer:
    """Look the signer up: listed for this role and institution, not withdrawn."""
    header = part.header
    listed = region.signer(header.certificate_sha256)
    if listed is None or header.role not in listed.roles:
        raise _untrusted(part, "is not on the trust list of its region for this role")
    if listed.institution_code != header.institution_code:
        raise _untrusted(part, "is not on the trust list of its region for this institution")
    if region.has_withdrawn(header.institution_code):
        raise _untrusted(part, "is of an institution that has withdrawn")
    return listed


def _read_holder(
    part: SignaturePart, rule: PayloadRule, region: RegionTrust, at: datetime
) -> _Holder:
    listed = _listed_signer(part, region)
    try:
        leaf, *intermediates = map(x509.load_der_x509_certificate, part.signature.certificate_chain)
        path = verify_chain(leaf, intermediates, region.signing_anchors, at, Usage.SIGNING)
        name, key = signer_name(leaf), verification_key(leaf)
    except (CertificateUntrusted, IdentityError, KeyUnsupported) as error:
        raise _untrusted(part, f"is not acceptable: {error}") from None
    except ValueError:
        raise _untrusted(part, "or one of its issuers cannot be read") from None
    if any(region.is_denied(certificate_sha256(each)) for each in path.certificates):
        raise _untrusted(part, "or an issuer of it is on the deny list of its region")
    _check_name(part, rule, name, listed)
    return _Holder(
        path,
        key,
        leaf.not_valid_before_utc,
        leaf.not_valid_after_utc,
        listed.person_code,
        listed.institution_code,
        listed.display_name,
    )


def _check_name(part: SignaturePart, rule: PayloadRule, name: SignerName, listed: Signer) -> None:
    """The certificate names whom header and trust list name, and a key for this use."""
    institution = name.institution
    named = (institution.region_code, institution.institution_code, name.person_code, name.purpose)
    header = part.header
    stated = (header.region_code, header.institution_code, listed.person_code, PURPOSES[part.role])
    if named != stated:
        raise _untrusted(part, "names another signer than header and trust list")
    if institution.kind is not rule.signer_kind:
        raise _untrusted(part, f"is not of a {rule.signer_kind}, which the {rule.name} needs")


def _check_sign_time(part: SignaturePart, holder: _Holder, at: datetime) -> None:
    if part.sign_time > at + MAX_CLOCK_AHEAD:
        raise SignedContentMismatch(
            f"{part.name} signed in the future: set the signer's clock",
            field=f"signatures[{part.index}].protected.sign_time",
            role=part.name,
        )
    if not holder.not_before <= part.sign_time <= holder.not_after:
        raise _untrusted(part, "was not valid when it was signed with")


def _check_algorithm(part: SignaturePart, key: VerificationKey, region: RegionTrust) -> None:
    if part.header.algorithm != key.algorithm:
        raise SignatureInvalid(
            f"the algorithm of {part.name} is not that of the certificate's key", role=part.name
        )
    if key.algorithm not in region.algorithms:
        raise _untrusted(part, "is for an algorithm that its region does not allow")


def _check_value(part: SignaturePart, key: VerificationKey, statement: SignedStatement) -> None:
    try:
        key.verify(part.signature.value, part.signed_bytes(statement))
    except SignatureWrong as error:
        raise SignatureInvalid(
            f"the signature of {part.name} does not verify: {error}", role=part.name
        ) from None


def _check_distinct(rule: PayloadRule, signers: Sequence[VerifiedSigner]) -> None:
    for one, other in rule.different_people:
        alike = any(
            {first.role, second.role} == {one, other} and first.person_code == second.person_code
            for first, second in combinations(signers, 2)
        )
        if alike:
            raise SignersNotDistinct(
                f"{role_name(one)} and {role_name(other)} must be different people",
                role=role_name(other),
            )


def _audience(rule: PayloadRule, content: Message, parts: Sequence[SignaturePart]) -> str:
    """For whom all signatures are meant, as the type requires."""
    audience = parts[0].header.audience
    match rule.audience:
        case Audience.HOME:
            fits = audience == home_region(content)
        case Audience.ANYBODY:
            fits = audience == ANYBODY
        case Audience.NAMED:
            fits = REGION_CODE.fullmatch(audience) is not None
    if not fits or any(part.header.audience != audience for part in parts):
        raise _not_meant(rule)
    return audience


def _check_audience(rule: PayloadRule, audience: str, audience_region: str | None) -> None:
    if audience_region is not None and audience not in (ANYBODY, audience_region):
        raise _not_meant(rule)


def _not_meant(rule: PayloadRule) -> SignedContentMismatch:
    return SignedContentMismatch(
        f"the {rule.name} is not meant for this region, or not as its type requires",
        field="audience",
    )


def _check_binding(binding: Binding, content: Message, signers: Sequence[VerifiedSigner]) -> None:
    stated = str(attrgetter(binding.field)(content))
    first = signers[0]
    match binding.agreement:
        case Agreement.INSTITUTION:
            agrees = stated == first.institution_code
        case Agreement.REGION:
            agrees = stated == first.region_code
        case Agreement.REGION_OF_NUMBER:
            agrees = stated[:6] == first.region_code
        case Agreement.REGION_OF_INSTITUTION:
            agrees = stated[1:7] == first.region_code
        case Agreement.PERSON:
            agrees = all(
                stated == each.person_code for each in signers if each.role == binding.role
            )
    if not agrees:
        raise SignedContentMismatch(
            f"{binding.field} contradicts the signatures: it must name who signed",
            field=binding.field,
        )
