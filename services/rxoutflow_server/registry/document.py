"""The registry file: what a region vouches for, as people write it down.

The file is either fit to be signed or refused with *all* of its problems at once. Checked are form
and completeness; that codes fit region and kind; that every certificate can be read, leads to the
region's signing anchor, names exactly the institution and person that the file says, and has a key
of an allowed algorithm; that roles fit the kind of institution; that nothing is listed twice and
the two PKIs are kept apart.

A certificate that has expired is no problem but a note: what was signed with it while it was valid
must remain verifiable, so its entry stays. Nothing here signs anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from rxoutflow.certificates import CertificateUntrusted, Usage, certificate_sha256, verify_chain
from rxoutflow.identity import (
    CallerKind,
    CallerName,
    IdentityError,
    KeyPurpose,
    SignerName,
    signer_name,
)
from rxoutflow.statements.algorithms import KeyUnsupported, verification_key
from rxoutflow.statements.payloads import PURPOSES
from rxoutflow.v1.annotations_pb2 import CALLER_KIND_UNSPECIFIED
from rxoutflow.v1.statement_pb2 import (
    SIGNER_ROLE_ADJUDICATOR,
    SIGNER_ROLE_CHECKER,
    SIGNER_ROLE_DISPENSER,
    SIGNER_ROLE_HOSPITAL_SEAL,
    SIGNER_ROLE_PHARMACY_SEAL,
    SIGNER_ROLE_PLATFORM,
    SIGNER_ROLE_PRESCRIBER,
    SIGNER_ROLE_REVIEWING_PHARMACIST,
)
from rxoutflow.v1.trust_pb2 import Agreement, Endpoint, Institution, Signer, TrustList
from rxoutflow_server.config import ADDRESS, ADDRESS_ADVICE
from rxoutflow_server.config_table import Problem, Table, reading
from rxoutflow_server.registry.words import (
    ALGORITHMS,
    KINDS,
    QUOTA_PERIODS,
    ROLES,
    SCOPES,
    STATUSES,
)

VALIDITY_DAYS: Final = (1, 397)
DEFAULT_VALIDITY_DAYS: Final = 90

EXPIRES_SOON: Final = timedelta(days=30)
"""How long before a certificate expires a note says so."""

NAME: Final = re.compile(r"[^\s\x00-\x1f\x7f]([^\x00-\x1f\x7f]{0,98}[^\s\x00-\x1f\x7f])?")
"""A name or a reason: up to 100 characters, nothing that a terminal would act on."""

_REGION = re.compile(r"[0-9]{6}")
_CODE = re.compile(r"[A-Z0-9]{1,20}")
_PHONE = re.compile(r"[0-9+() -]{5,30}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_TIERS = (1, 3)
_QUOTA_FEN = (1, 10**15)

_HOSPITAL, _PHARMACY = CallerKind.HOSPITAL, CallerKind.PHARMACY
_MAY_SIGN = {
    SIGNER_ROLE_PRESCRIBER: (_HOSPITAL,),
    SIGNER_ROLE_REVIEWING_PHARMACIST: (_HOSPITAL, _PHARMACY),
    SIGNER_ROLE_DISPENSER: (_PHARMACY,),
    SIGNER_ROLE_CHECKER: (_PHARMACY,),
    SIGNER_ROLE_HOSPITAL_SEAL: (_HOSPITAL,),
    SIGNER_ROLE_PHARMACY_SEAL: (_PHARMACY,),
    SIGNER_ROLE_PLATFORM: (CallerKind.PLATFORM,),
    SIGNER_ROLE_ADJUDICATOR: (CallerKind.PLATFORM,),
}
"""The kinds of institutions for which somebody signs in a role."""


@dataclass(frozen=True, slots=True)
class Draft:
    """What a registry file vouches for, ready to be issued."""

    content: TrustList
    """Without sequence and times."""
    validity: timedelta
    """How long a list holds from its issue."""
    notes: tuple[Problem, ...]
    """What the operator should know, and what does not stop a list."""


def read_registry(file: Path, now: datetime) -> Draft:
    """Read and check a registry file as of ``now`` (aware).

    Raises:
        ConfigError: with everything that is wrong.
    """
    with reading(file) as root:
        return _Reader(file, root, now).read()


@dataclass
class _Reader:
    """Reads one file; what it learns on the way is what later entries are checked against."""

    file: Path
    root: Table
    now: datetime
    region_code: str = ""
    kinds: dict[str, CallerKind | None] = field(default_factory=dict)
    """The kind of each institution listed, by code, the platform's under the region's; none
    where it is not known."""
    signing_anchors: list[x509.Certificate] = field(default_factory=list)
    algorithms: set[str] = field(default_factory=set)
    names: dict[str, str] = field(default_factory=dict)
    """The name of each person, by code."""
    notes: list[Problem] = field(default_factory=list)

    def read(self) -> Draft:
        root = self.root
        advice = 'use the six-digit code, for instance "350200"'
        self.region_code = root.text("region", _REGION, advice)
        name = root.text("name", NAME, "give the region's name for people")
        days = root.integer("validity_days", *VALIDITY_DAYS, DEFAULT_VALIDITY_DAYS)
        self.algorithms = set(root.choices("algorithms", tuple(ALGORITHMS)))
        endpoints = root.text_list("endpoints", ADDRESS, ADDRESS_ADVICE)
        transport = self._anchors("transport")
        self.signing_anchors = self._anchors("signing")
        self._check_apart(transport)
        institutions = self._institutions()
        content = TrustList(
            region_code=self.region_code,
            region_name=name,
            transport_anchors=map(_der, transport),
            signing_anchors=map(_der, self.signing_anchors),
            algorithms=sorted(ALGORITHMS[each] for each in self.algorithms),
            institutions=institutions,
            signers=self._signers(),
            endpoints=[Endpoint(target=target) for target in endpoints],
            denied_certificate_sha256=self._denied(),
        )
        return Draft(content, timedelta(days=days), tuple(self.notes))

    # anchors

    def _anchors(self, pki: str) -> list[x509.Certificate]:
        table = self.root.table("anchors")
        anchors = []
        for path in table.files(pki):
            for certificate in self._certificates(table, pki, path):
                if not _may_issue(certificate):
                    table.note(pki, f"{path} may not issue certificates; name the anchor itself")
                anchors.append(certificate)
                self._note_expiry(f"anchors.{pki}", certificate)
        if anchors and all(each.not_valid_after_utc < self.now for each in anchors):
            table.note(pki, "have all expired; have the authority issue a new one")
        return anchors

    def _check_apart(self, transport: Sequence[x509.Certificate]) -> None:
        keys = {_public_key(each) for each in transport}
        if keys.intersection(map(_public_key, self.signing_anchors)):
            problem = "share a key with transport; run two authorities, one for each PKI"
            self.root.table("anchors").note("signing", problem)

    # institutions

    def _institutions(self) -> list[Institution]:
        if self.region_code:
            self.kinds[self.region_code] = CallerKind.PLATFORM
        tables = self.root.tables("institution", "code")
        return [self._institution(table) for table in tables]

    def _institution(self, table: Table) -> Institution:
        word = table.choice("kind", tuple(KINDS), "")
        kind = CallerKind(word) if word else None
        return Institution(
            institution_code=self._code(table, kind),
            kind=KINDS.get(word, CALLER_KIND_UNSPECIFIED),
            name=table.text("name", NAME, "give its name for people"),
            phone=_phone(table, kind),
            designated=table.boolean("designated", False),
            tier=_tier(table, kind),
            status=STATUSES[table.choice("status", tuple(STATUSES), "active")],
            scope=[SCOPES[each] for each in _scope(table)],
            agreement=_agreement(table, kind),
        )

    def _code(self, table: Table, kind: CallerKind | None) -> str:
        advice = "H or P, the region and five digits; others a code of capitals and digits"
        code = table.text("code", _CODE, advice)
        if code in self.kinds:
            table.note("code", "stands in the file twice; keep one of them")
        if code:
            self.kinds[code] = kind
        if code and kind and self.region_code:
            try:
                CallerName(self.region_code, kind, code)
            except IdentityError:
                table.note("code", f"does not fit a {kind} of this region; {advice}")
        return code

    # signers

    def _signers(self) -> list[Signer]:
        entries: dict[bytes, Signer] = {}
        for table in self.root.tables("signer", "certificate"):
            signer = self._signer(table)
            if signer.certificate_sha256 and signer.certificate_sha256 in entries:
                table.note("certificate", "stands in the file twice; keep one of them")
            entries[signer.certificate_sha256] = signer
        if not any(SIGNER_ROLE_PLATFORM in each.roles for each in entries.values()):
            problem = 'nobody has the role "platform"; list the certificate of the platform\'s seal'
            self.root.note("signer", problem)
        return list(entries.values())

    def _signer(self, table: Table) -> Signer:
        signer = Signer(
            institution_code=table.text("institution", _CODE, "give the code of an institution"),
            roles=[ROLES[each] for each in table.choices("roles", tuple(ROLES))],
            person_code=table.optional_text("person_code", _CODE, "use capitals and digits"),
            display_name=table.text("display_name", NAME, "give the name that others are shown"),
        )
        path = table.file("certificate")
        chain = self._certificates(table, "certificate", path) if path.is_file() else []
        self._check_roles(table, signer)
        self._check_person(table, signer)
        if chain:
            signer.certificate_sha256 = certificate_sha256(chain[0])
            self._check_certificate(table, chain, signer)
        return signer

    def _check_roles(self, table: Table, signer: Signer) -> None:
        if signer.institution_code and signer.institution_code not in self.kinds:
            table.note("institution", "is not in this file; list it as an [[institution]]")
            return
        kind = self.kinds.get(signer.institution_code)
        if kind and not all(kind in _MAY_SIGN[role] for role in signer.roles):
            table.note("roles", f"do not belong to a {kind}; correct them or the institution")
        if len({PURPOSES[role] for role in signer.roles}) > 1:
            table.note("roles", "mix a person's and a seal's; list one certificate for each")

    def _check_person(self, table: Table, signer: Signer) -> None:
        if not signer.roles:
            return
        person = PURPOSES[signer.roles[0]] is KeyPurpose.PERSON
        if person and not signer.person_code:
            table.note("person_code", "is missing; people are told apart by it")
        if signer.person_code and not person:
            table.note("person_code", "is for people and not for seals; remove it")
        known = self.names.setdefault(signer.person_code, signer.display_name)
        if signer.person_code and known != signer.display_name:
            table.note("person_code", "has another display_name elsewhere; one code is one person")

    def _check_certificate(
        self, table: Table, chain: Sequence[x509.Certificate], signer: Signer
    ) -> None:
        leaf, *intermediates = chain
        self._check_name(table, leaf, signer)
        try:
            algorithm = verification_key(leaf).algorithm
        except KeyUnsupported as error:
            table.note("certificate", f"{error}; have one issued for a key of another kind")
        else:
            if self.algorithms and algorithm not in map(ALGORITHMS.get, self.algorithms):
                problem = "has a key of an algorithm that is not allowed; add it to algorithms"
                table.note("certificate", problem)
        if not self.signing_anchors:
            return
        # What was signed while it was valid stays verifiable, so it is judged as of then.
        at = min(max(self.now, leaf.not_valid_before_utc), leaf.not_valid_after_utc)
        try:
            verify_chain(leaf, intermediates, self.signing_anchors, at, Usage.SIGNING)
        except CertificateUntrusted as error:
            table.note("certificate", f"{error}; have one issued by the region's signing authority")
        self._note_expiry(table.name, leaf)

    def _check_name(self, table: Table, leaf: x509.Certificate, signer: Signer) -> None:
        """The certificate names exactly what the file says of it."""
        kind = self.kinds.get(signer.institution_code)
        if kind is None or not signer.roles:
            return  # which is noted already
        try:
            holder = CallerName(self.region_code, kind, signer.institution_code)
            expected = SignerName(holder, PURPOSES[signer.roles[0]], signer.person_code)
        except IdentityError:
            return  # which is noted already
        try:
            named = signer_name(leaf)
        except IdentityError as error:
            table.note("certificate", f"{error}; have one issued for {expected}")
            return
        if named != expected:
            problem = f"is for {named}, and the entry says {expected}; correct the entry"
            table.note("certificate", problem)

    # denials

    def _denied(self) -> list[bytes]:
        digests = [self._denial(table) for table in self.root.tables("denied", "certificate")]
        return list(dict.fromkeys(digest for digest in digests if digest))

    def _denial(self, table: Table) -> bytes:
        table.text("reason", NAME, "say why, for those who come after you")
        by_file, by_digest = table.has("certificate"), table.has("sha256")
        if by_file == by_digest:
            table.note("certificate", "is missing, or sha256 is there too; give one of the two")
            return b""
        if by_digest:
            advice = "64 small hexadecimal digits, as `openssl x509 -outform DER | sha256sum` says"
            return bytes.fromhex(table.text("sha256", _DIGEST, advice))
        path = table.file("certificate")
        chain = self._certificates(table, "certificate", path) if path.is_file() else []
        return certificate_sha256(chain[0]) if chain else b""

    # certificates

    def _certificates(self, table: Table, key: str, path: Path) -> list[x509.Certificate]:
        """The certificates of a PEM file, none if it has none, which is noted."""
        try:
            return x509.load_pem_x509_certificates(path.read_bytes())
        except OSError:
            pass  # which is noted already
        except ValueError:
            table.note(key, f"{path} holds no certificate in PEM; export it as PEM")
        return []

    def _note_expiry(self, where: str, certificate: x509.Certificate) -> None:
        end = certificate.not_valid_after_utc
        if end < self.now:
            self._note(where, f"expired on {end:%Y-%m-%d}; what it signed before still verifies")
        elif end < self.now + EXPIRES_SOON:
            self._note(where, f"expires on {end:%Y-%m-%d}; have a new one issued")

    def _note(self, where: str, text: str) -> None:
        self.notes.append(Problem(self.file, where, text))


def _scope(table: Table) -> list[str]:
    """What the agreement covers; nothing written means everything."""
    return table.choices("scope", tuple(SCOPES)) if table.has("scope") else []


def _agreement(table: Table, kind: CallerKind | None) -> Agreement | None:
    """The quota of its agreement, if there is one; of institutions that prescribe or dispense."""
    if not table.has("agreement"):
        return None
    if kind not in (_HOSPITAL, _PHARMACY, None):
        table.note("agreement", f"is for hospitals and pharmacies and not for a {kind}; remove it")
    terms = table.table("agreement")
    period = terms.choice("period", tuple(QUOTA_PERIODS), "")
    return Agreement(
        document=terms.text("document", NAME, "give the reference of the document"),
        quota_fen=terms.integer("quota_fen", *_QUOTA_FEN, 0),
        period=QUOTA_PERIODS.get(period, Agreement.PERIOD_UNSPECIFIED),
    )


def _phone(table: Table, kind: CallerKind | None) -> str:
    read: Callable[[str, re.Pattern[str], str], str] = table.optional_text
    if kind in (_HOSPITAL, _PHARMACY):
        read = table.text
    return read("phone", _PHONE, 'give digits, for instance "0592-5550001"')


def _tier(table: Table, kind: CallerKind | None) -> int:
    given = table.has("tier")
    if kind is _HOSPITAL:
        return table.integer("tier", *_TIERS, 0)
    if given and kind is not None:
        table.note("tier", f"is for hospitals and not for a {kind}; remove it")
    return 0


def _may_issue(certificate: x509.Certificate) -> bool:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except (x509.ExtensionNotFound, ValueError):
        return False
    return constraints.value.ca


def _public_key(certificate: x509.Certificate) -> bytes:
    """The key in DER; all of the certificate if its key is of a kind unknown here."""
    try:
        key = certificate.public_key()
    except (UnsupportedAlgorithm, ValueError):
        return _der(certificate)
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)
