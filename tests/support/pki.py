"""Throwaway PKIs for tests: regions with two authorities each, people, seals and trust lists.

    region = Region.create("350200")
    hospital = region.hospital()
    doctor = region.person(hospital, "D001", PRESCRIBER)
    seal = region.seal(hospital)
    verifier = Verifier(trust_store(region))

Whoever is created through a :class:`Region` is entered in its trust list. Keys live in memory only.
Every certificate is valid from a day before :data:`NOW` to thirty days after, unless a test says
otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from rxoutflow.certificates import certificate_sha256
from rxoutflow.identity import CallerKind, CallerName, KeyPurpose, SignerName
from rxoutflow.statements import FileSigner, new_statement
from rxoutflow.statements.payloads import PURPOSES, Role
from rxoutflow.trust import TrustStore
from rxoutflow.v1 import annotations_pb2
from rxoutflow.v1.statement_pb2 import (
    SIGNATURE_ALGORITHM_ECDSA_P256_SHA256,
    SIGNATURE_ALGORITHM_ED25519,
    SIGNER_ROLE_HOSPITAL_SEAL,
    SIGNER_ROLE_PHARMACY_SEAL,
    SIGNER_ROLE_PLATFORM,
    SIGNER_ROLE_REGISTRY,
    SignedStatement,
)
from rxoutflow.v1.trust_pb2 import Endpoint, Institution, Signer, TrustList

NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
"""The time in tests."""

BEGIN, END = NOW - timedelta(days=1), NOW + timedelta(days=30)

Key = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

CLIENT = (ExtendedKeyUsageOID.CLIENT_AUTH,)
SERVER = (ExtendedKeyUsageOID.SERVER_AUTH,)


def p256() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def ed() -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.generate()


@dataclass(frozen=True)
class Credential:
    """A certificate with its private key and its intermediates."""

    certificate: x509.Certificate
    key: Key
    intermediates: tuple[x509.Certificate, ...] = ()

    @property
    def sha256(self) -> bytes:
        return certificate_sha256(self.certificate)

    @property
    def signer(self) -> FileSigner:
        return FileSigner((self.certificate, *self.intermediates), self.key)


@dataclass(frozen=True)
class Authority:
    """Issues certificates; an anchor, or an intermediate below one."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    path: tuple[x509.Certificate, ...] = ()

    @classmethod
    def create(cls, name: str, *, path_length: int | None = None) -> Self:
        key = p256()
        return cls(_authority_certificate(name, key, path_length=path_length), key)

    def subordinate(self, name: str, *, path_length: int | None = None) -> Authority:
        key = p256()
        certificate = _authority_certificate(name, key, self, path_length)
        return Authority(certificate, key, (certificate, *self.path))

    def issue(
        self,
        *names: str,
        key: Key | None = None,
        usages: Sequence[ObjectIdentifier] = (),
        dns: Sequence[str] = (),
        begin: datetime = BEGIN,
        end: datetime = END,
        digital_signature: bool = True,
        ca: bool = False,
        common_name: str = "leaf",
    ) -> Credential:
        """Issue a leaf with these URI names."""
        key = key or p256()
        alternative = [*map(x509.UniformResourceIdentifier, names), *map(x509.DNSName, dns)]
        builder = (
            _builder(common_name, key, self, begin, end)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(_key_usage(digital_signature=digital_signature), critical=True)
        )
        if alternative:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternative), False)
        if usages:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        return Credential(builder.sign(self.key, hashes.SHA256()), key, self.path)


@dataclass
class Region:
    """A pooling region: its authorities, its registry and what its trust list says."""

    code: str
    transport: Authority
    signing: Authority
    registry: Credential
    trust_list: TrustList
    _serials: count[int] = field(default_factory=lambda: count(1))

    @classmethod
    def create(cls, code: str) -> Self:
        transport = Authority.create(f"{code} transport")
        signing = Authority.create(f"{code} signing")
        platform = CallerName(code, CallerKind.PLATFORM, code)
        registry = signing.issue(str(SignerName(platform, KeyPurpose.REGISTRY)))
        trust_list = TrustList(
            region_code=code,
            region_name=f"Region {code}",
            sequence=1,
            transport_anchors=[_der(transport.certificate)],
            signing_anchors=[_der(signing.certificate)],
            algorithms=[SIGNATURE_ALGORITHM_ECDSA_P256_SHA256, SIGNATURE_ALGORITHM_ED25519],
            endpoints=[Endpoint(target=f"platform.{code}.example:8443")],
        )
        trust_list.issue_time.FromDatetime(BEGIN)
        trust_list.expire_time.FromDatetime(NOW + timedelta(days=7))
        return cls(code, transport, signing, registry, trust_list)

    @property
    def platform(self) -> CallerName:
        return CallerName(self.code, CallerKind.PLATFORM, self.code)

    def hospital(self) -> CallerName:
        return self._institution(CallerKind.HOSPITAL)

    def pharmacy(self) -> CallerName:
        return self._institution(CallerKind.PHARMACY)

    def entry(self, institution: CallerName) -> Institution:
        """The institution's entry in the trust list, to be changed by a test."""
        (entry,) = (
            each
            for each in self.trust_list.institutions
            if each.institution_code == institution.institution_code
        )
        return entry

    def person(
        self, institution: CallerName, person_code: str, *roles: Role, key: Key | None = None
    ) -> Credential:
        """A person's signing key, listed for these roles."""
        name = SignerName(institution, KeyPurpose.PERSON, person_code)
        return self.list_signer(self.signing.issue(str(name), key=key), name, *roles)

    def seal(self, institution: CallerName, *, key: Key | None = None) -> Credential:
        """The seal of a hospital, pharmacy or platform, listed."""
        role = {
            CallerKind.HOSPITAL: SIGNER_ROLE_HOSPITAL_SEAL,
            CallerKind.PHARMACY: SIGNER_ROLE_PHARMACY_SEAL,
            CallerKind.PLATFORM: SIGNER_ROLE_PLATFORM,
        }[institution.kind]
        name = SignerName(institution, KeyPurpose.SEAL)
        return self.list_signer(self.signing.issue(str(name), key=key), name, role)

    def list_signer(self, credential: Credential, name: SignerName, *roles: Role) -> Credential:
        """Enter a signing certificate in the trust list."""
        assert all(PURPOSES[role] is name.purpose for role in roles), "a test's mistake"
        self.trust_list.signers.append(
            Signer(
                certificate_sha256=credential.sha256,
                institution_code=name.institution.institution_code,
                roles=roles,
                person_code=name.person_code,
                display_name=name.person_code or "seal",
            )
        )
        return credential

    def deny(self, *certificates: x509.Certificate) -> None:
        self.trust_list.denied_certificate_sha256.extend(map(certificate_sha256, certificates))

    def client(self, holder: CallerName) -> Credential:
        """A TLS certificate to call with."""
        return self.transport.issue(str(holder), usages=CLIENT)

    def server(self, holder: CallerName, *dns: str) -> Credential:
        """A TLS certificate to serve and to call with."""
        return self.transport.issue(str(holder), usages=(*SERVER, *CLIENT), dns=dns)

    def signed_list(self, *, sequence: int | None = None) -> SignedStatement:
        """The trust list as it is now, signed by the registry."""
        if sequence is not None:
            self.trust_list.sequence = sequence
        return new_statement(self.trust_list, self.registry.signer, SIGNER_ROLE_REGISTRY, NOW)

    def _institution(self, kind: CallerKind) -> CallerName:
        code = f"{kind[0].upper()}{self.code}{next(self._serials):05}"
        self.trust_list.institutions.append(
            Institution(
                institution_code=code,
                kind=annotations_pb2.CallerKind.Value(f"CALLER_KIND_{kind.upper()}"),
                name=f"Institution {code}",
                phone="0592-0000000",
                designated=True,
                status=Institution.STATUS_ACTIVE,
            )
        )
        return CallerName(self.code, kind, code)


def trust_store(*regions: Region, now: datetime = NOW) -> TrustStore:
    """A store that holds the lists of these regions as they are now."""
    store = TrustStore({region.code: region.registry.sha256.hex() for region in regions})
    for region in regions:
        store.offer(region.signed_list(), now)
    return store


def _authority_certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: Authority | None = None,
    path_length: int | None = None,
) -> x509.Certificate:
    return (
        _builder(name, key, issuer, BEGIN, END)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_key_usage(issues=True), critical=True)
        .sign(issuer.key if issuer else key, hashes.SHA256())
    )


def _builder(
    name: str, key: Key, issuer: Authority | None, begin: datetime, end: datetime
) -> x509.CertificateBuilder:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuing_key = issuer.key if issuer else key
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuing_key.public_key()), False
        )
    )


def _key_usage(*, digital_signature: bool = False, issues: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=issues,
        crl_sign=issues,
        encipher_only=False,
        decipher_only=False,
    )


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)
