"""The regions of the simulation: keys, people, trust lists, tariffs, catalogues.

Made once a process and never changed, so that a run costs nothing for it; and the same in every
process, byte for byte: keys come from names, certificates carry counted serials and deterministic
signatures. Every region has one hospital and two pharmacies, and four trust lists in sequence:

    1  as it begins
    2  a second seal for the platform and for each pharmacy beside the first
    3  as 2, and the second pharmacy is suspended
    4  as 2 again
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from hashlib import sha256

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from google.protobuf.message import Message

from rxoutflow.identity import CallerKind, CallerName, KeyPurpose, SignerName
from rxoutflow.statements import FileSigner, Signer, add_signature, new_statement
from rxoutflow.statements.payloads import Role
from rxoutflow.trust import TrustStore
from rxoutflow.v1 import annotations_pb2, statement_pb2, trust_pb2
from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow_server.domain.benefit import Category
from rxoutflow_server.domain.catalogue import Catalogue, Drug, DrugFlag
from rxoutflow_server.domain.settlement import InsuredPerson
from rxoutflow_server.domain.tariff import (
    AnnualDeductible,
    AreaStatus,
    ByAreaStatus,
    ByPerson,
    ByTier,
    PersonType,
    Tariff,
    Tariffs,
)

BEGINNING = datetime(2026, 3, 2, 1, 30, tzinfo=UTC)
"""The time at which every run begins, in the morning of a business day in China."""

CODES = ("350200", "350500", "320600", "430400", "610900")
DRUGS = tuple(f"SYNTEST{index:016}" for index in range(1, 4))
PRICE = 1_500_000
"""1.50 yuan a tablet."""

PEOPLE_EACH = 2
"""Insured persons of a region; few, so that their prescriptions compete for the same fen."""

_VALID_FROM, _VALID_UNTIL = BEGINNING - timedelta(days=2), BEGINNING + timedelta(days=400)


@dataclass(frozen=True)
class Hospital:
    """A hospital and who signs there."""

    name: CallerName
    prescriber: Signer
    pharmacist: Signer
    seal: Signer


@dataclass(frozen=True)
class Pharmacy:
    """A pharmacy and who signs there; ``seals`` are the present one and the next."""

    name: CallerName
    pharmacist: Signer
    dispenser: Signer
    checker: Signer
    seals: tuple[Signer, Signer]


@dataclass(frozen=True)
class Home:
    """One region."""

    code: str
    platform: CallerName
    seals: tuple[Signer, Signer]
    hospital: Hospital
    pharmacies: tuple[Pharmacy, Pharmacy]
    operator: CallerName
    adjudicators: tuple[Signer, Signer]
    registry_root: str
    lists: dict[int, SignedStatement]
    tariffs: Tariffs
    catalogue: Catalogue
    key: bytes


SEALS_CHANGE = 2
"""The first list that has the second seals."""

LISTS = (1, 2, 3, 4)


@cache
def home(code: str) -> Home:
    """A region, made when it is first asked for."""
    return _Maker(code).made()


def people(code: str) -> list[InsuredPerson]:
    """The persons insured in a region, as a run begins."""
    return [
        InsuredPerson(
            insured_person_id=f"TEST{index:04}",
            person_type=PersonType.ACTIVE if index % 2 else PersonType.RETIRED,
            area_status=AreaStatus.FILED,
            own_account_fen=1_500 * index,
            family_accounts_fen=(700,),
            year=BEGINNING.year,
            used_deductible_fen=6_000,
            used_cap_fen=60_000,
        )
        for index in range(1, PEOPLE_EACH + 1)
    ]


def trust_store(codes: Sequence[str]) -> TrustStore:
    """What a region trusts that holds the first list of each."""
    roots = {code: home(code).registry_root for code in codes}
    store = TrustStore(roots)
    store._held = _first_lists(tuple(codes))._held  # immutable: what is offered replaces it
    return store


@cache
def _first_lists(codes: tuple[str, ...]) -> TrustStore:
    store = TrustStore({code: home(code).registry_root for code in codes})
    for code in codes:
        store.offer(home(code).lists[1], BEGINNING)
    return store


def signed(
    message: Message,
    sheet: Sequence[tuple[Role, Signer]],
    at: datetime,
    audience: str | None = None,
) -> SignedStatement:
    """The message with one signature for each entry of the sheet."""
    (role, first), *others = sheet
    statement = new_statement(message, first, role, at, audience)
    for role, signer in others:
        statement = add_signature(statement, signer, role, at)
    return statement


class _Maker:
    """Makes a region: an authority, what it certifies, and lists of that."""

    def __init__(self, code: str) -> None:
        self.code = code
        self._serials = itertools.count(1)
        self._authority = ec.derive_private_key(
            int.from_bytes(_seed(f"{code} authority")) >> 8, ec.SECP256R1()
        )
        self._anchor = self._certificate("authority", self._authority.public_key(), authority=True)
        self._signers: list[tuple[int, trust_pb2.Signer]] = []

    def made(self) -> Home:
        code = self.code
        platform = CallerName(code, CallerKind.PLATFORM, code)
        registry = self._signer(SignerName(platform, KeyPurpose.REGISTRY), "registry")
        seals = self._seals(platform, statement_pb2.SIGNER_ROLE_PLATFORM)
        hospital = self._hospital(CallerName(code, CallerKind.HOSPITAL, f"H{code}00001"))
        first, second = (
            self._pharmacy(CallerName(code, CallerKind.PHARMACY, f"P{code}0000{number}"))
            for number in (2, 3)
        )
        one, other = (
            self._person(platform, person, statement_pb2.SIGNER_ROLE_ADJUDICATOR)
            for person in ("J001", "J002")
        )
        lists = {
            sequence: new_statement(
                self._list(sequence, (hospital.name, first.name, second.name)),
                registry,
                statement_pb2.SIGNER_ROLE_REGISTRY,
                BEGINNING - timedelta(hours=1),
            )
            for sequence in LISTS
        }
        return Home(
            code,
            platform,
            seals,
            hospital,
            (first, second),
            CallerName(code, CallerKind.OPERATOR, f"OPERATOR{code}"),
            (one, other),
            sha256(registry.certificate_chain[0]).hexdigest(),
            lists,
            Tariffs([_tariff(code)]),
            _catalogue(code),
            _seed(f"{code} pickup codes"),
        )

    def _hospital(self, name: CallerName) -> Hospital:
        return Hospital(
            name,
            self._person(name, "D001", statement_pb2.SIGNER_ROLE_PRESCRIBER),
            self._person(name, "R001", statement_pb2.SIGNER_ROLE_REVIEWING_PHARMACIST),
            self._seals(name, statement_pb2.SIGNER_ROLE_HOSPITAL_SEAL)[0],
        )

    def _pharmacy(self, name: CallerName) -> Pharmacy:
        number = name.institution_code[-1]
        return Pharmacy(
            name,
            self._person(name, f"R{number}02", statement_pb2.SIGNER_ROLE_REVIEWING_PHARMACIST),
            self._person(name, f"R{number}03", statement_pb2.SIGNER_ROLE_DISPENSER),
            self._person(name, f"R{number}04", statement_pb2.SIGNER_ROLE_CHECKER),
            self._seals(name, statement_pb2.SIGNER_ROLE_PHARMACY_SEAL),
        )

    def _person(self, institution: CallerName, person: str, role: Role) -> Signer:
        name = SignerName(institution, KeyPurpose.PERSON, person)
        return self._listed(self._signer(name, person), name, role, 1)

    def _seals(self, institution: CallerName, role: Role) -> tuple[Signer, Signer]:
        name = SignerName(institution, KeyPurpose.SEAL)
        first, second = (
            self._listed(self._signer(name, f"seal {since}"), name, role, since)
            for since in (1, SEALS_CHANGE)
        )
        return first, second

    def _listed(self, signer: Signer, name: SignerName, role: Role, since: int) -> Signer:
        entry = trust_pb2.Signer(
            certificate_sha256=sha256(signer.certificate_chain[0]).digest(),
            institution_code=name.institution.institution_code,
            roles=[role],
            person_code=name.person_code,
            display_name=name.person_code or "seal",
        )
        self._signers.append((since, entry))
        return signer

    def _signer(self, name: SignerName, key: str) -> Signer:
        private = ed25519.Ed25519PrivateKey.from_private_bytes(_seed(f"{name} {key}"))
        return FileSigner([self._certificate(key, private.public_key(), str(name))], private)

    def _certificate(
        self,
        subject: str,
        key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey,
        name: str = "",
        *,
        authority: bool = False,
    ) -> x509.Certificate:
        issuing = self._authority.public_key()
        builder = (
            x509.CertificateBuilder()
            .subject_name(_common_name(f"{self.code} {subject}"))
            .issuer_name(_common_name(f"{self.code} authority"))
            .public_key(key)
            .serial_number(next(self._serials))
            .not_valid_before(_VALID_FROM)
            .not_valid_after(_VALID_UNTIL)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(issuing), critical=False
            )
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(_key_usage(issues=authority), critical=True)
        )
        if name:
            names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(name)])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self._authority, hashes.SHA256(), ecdsa_deterministic=True)

    def _list(self, sequence: int, institutions: Sequence[CallerName]) -> trust_pb2.TrustList:
        anchor = self._anchor.public_bytes(Encoding.DER)
        content = trust_pb2.TrustList(
            region_code=self.code,
            region_name=f"Region {self.code}",
            sequence=sequence,
            transport_anchors=[anchor],
            signing_anchors=[anchor],
            algorithms=[statement_pb2.SIGNATURE_ALGORITHM_ED25519],
            endpoints=[trust_pb2.Endpoint(target=f"platform.{self.code}.example:8443")],
            institutions=_institutions(sequence, institutions),
            signers=[entry for since, entry in self._signers if since <= sequence],
        )
        content.issue_time.FromDatetime(BEGINNING - timedelta(hours=1))
        content.expire_time.FromDatetime(_VALID_UNTIL)
        return content


def _institutions(sequence: int, names: Sequence[CallerName]) -> Iterator[trust_pb2.Institution]:
    for name in names:
        suspended = sequence == 3 and name == names[-1]
        yield trust_pb2.Institution(
            institution_code=name.institution_code,
            kind=annotations_pb2.CallerKind.Value(f"CALLER_KIND_{name.kind.upper()}"),
            name=f"示范{name.institution_code}",
            phone="000-0000000",
            designated=True,
            tier=3,
            status=(
                trust_pb2.Institution.STATUS_SUSPENDED
                if suspended
                else trust_pb2.Institution.STATUS_ACTIVE
            ),
        )


def _seed(name: str) -> bytes:
    return sha256(f"simulation {name}".encode()).digest()


def _common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _key_usage(*, issues: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not issues,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=issues,
        crl_sign=issues,
        encipher_only=False,
        decipher_only=False,
    )


def _tariff(code: str) -> Tariff:
    return Tariff(
        version_id=f"{code}-simulation",
        region_code=code,
        document="none: a simulation's",
        unverified=True,
        valid_from=date(2026, 1, 1),
        valid_until=None,
        deductible=AnnualDeductible(ByPerson(active=10_000, retired=8_000)),
        ratio_bp=ByTier(8_000, 7_000, 6_000),
        retired_bonus_bp=500,
        cap_fen=ByPerson(active=70_000, retired=80_000),
        area_factor_bp=ByAreaStatus(unfiled=7_000),
    )


def _catalogue(code: str) -> Catalogue:
    return Catalogue(
        code,
        f"{code}-simulation",
        [
            Drug(
                drug_code=drug,
                generic_name=f"试验药{index}",
                generic_group=f"G{index}",
                dosage_form="片剂",
                specification="1mg",
                unit="片",
                price_micro_yuan=PRICE,
                category=Category.A,
                flags=frozenset[DrugFlag](),
            )
            for index, drug in enumerate(DRUGS, 1)
        ],
    )
