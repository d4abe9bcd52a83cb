"""Real servers over real mutual TLS on loopback, for tests.

OpenSSL checks validity by the machine's clock, so transport certificates made here are valid for
decades around it, and the clock of a server under test starts at the machine's time and can be
moved: to a time at which a certificate that still passes the handshake is no longer valid.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypedDict, Unpack

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID, ObjectIdentifier

from rxoutflow.identity import CallerName, KeyPurpose, SignerName
from rxoutflow.trust import TrustStore
from rxoutflow.v1 import hospital_service_pb2 as messages
from rxoutflow.v1 import hospital_service_pb2_grpc as stubs
from rxoutflow_server.transport.channels import open_channel, platform_server_name
from rxoutflow_server.transport.interceptor import CallLimits
from rxoutflow_server.transport.policy import Place
from rxoutflow_server.transport.server import Server, Service, build_server
from rxoutflow_server.transport.tls import KeyFiles, KeyPair
from support import pki

BEGIN = datetime(2020, 1, 1, tzinfo=UTC)
END = datetime(2090, 1, 1, tzinfo=UTC)


@dataclass
class Clock:
    """A clock that a test can move."""

    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __call__(self) -> datetime:
        return self.now


def live_region(code: str) -> pki.Region:
    """A region whose TLS certificates pass real handshakes."""
    region = pki.Region.create(code)
    region.transport = lasting_authority(f"{code} transport")
    region.registry = region.signing.issue(
        str(SignerName(region.platform, KeyPurpose.REGISTRY)), begin=BEGIN, end=END
    )
    region.trust_list.transport_anchors[:] = [
        region.transport.certificate.public_bytes(Encoding.DER)
    ]
    region.trust_list.expire_time.FromDatetime(END)
    return region


def lasting_authority(name: str, above: pki.Authority | None = None) -> pki.Authority:
    """An authority that is valid for decades: an anchor, or below another."""
    key = pki.p256()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(above.certificate.subject if above else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(BEGIN)
        .not_valid_after(END)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(_issuer_identifier(above.key if above else key), critical=False)
        .sign(above.key if above else key, hashes.SHA256())
    )
    return pki.Authority(certificate, key, (certificate, *above.path) if above else ())


def _issuer_identifier(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def issue(
    authority: pki.Authority,
    *names: CallerName | str,
    usages: tuple[ObjectIdentifier, ...] = pki.CLIENT,
    dns: tuple[str, ...] = (),
    end: datetime = END,
    common_name: str = "leaf",
) -> pki.Credential:
    """A TLS certificate that is valid by the machine's clock."""
    return authority.issue(
        *map(str, names), usages=usages, dns=dns, begin=BEGIN, end=end, common_name=common_name
    )


def key_pair(credential: pki.Credential) -> KeyPair:
    """The credential as TLS libraries take it."""
    chain = (credential.certificate, *credential.intermediates)
    return KeyPair(
        credential.certificate,
        b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain),
        credential.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )


def write_pair(folder: Path, name: str, credential: pki.Credential) -> KeyFiles:
    """Write certificate and key, the key for its owner only; replaces what is there at once."""
    pair = key_pair(credential)
    files = KeyFiles(folder / f"{name}.pem", folder / f"{name}.key")
    for path, content in ((files.key, pair.key_pem), (files.certificate, pair.certificate_pem)):
        fresh = path.with_suffix(".new")
        fresh.write_bytes(content)
        fresh.chmod(0o600)
        fresh.replace(path)
    return files


async def _agree() -> None:
    """What a desk does unless told otherwise."""


class Desk(stubs.HospitalServiceServicer):
    """A hospital service that does what a test says."""

    def __init__(self) -> None:
        self.answer: Callable[[], Awaitable[None]] = _agree
        self.notices: Callable[[], AsyncIterator[messages.HospitalServiceWatchNoticesResponse]]

    async def RegisterPrescription(  # noqa: N802
        self, request: messages.RegisterPrescriptionRequest, context: object
    ) -> messages.RegisterPrescriptionResponse:
        await self.answer()
        return messages.RegisterPrescriptionResponse()

    async def WatchNotices(  # noqa: N802
        self, request: messages.HospitalServiceWatchNoticesRequest, context: object
    ) -> AsyncIterator[messages.HospitalServiceWatchNoticesResponse]:
        async for notice in self.notices():
            yield notice


class BuildOptions(TypedDict, total=False):
    """What a test may ask of the server."""

    limits: CallLimits
    recheck_seconds: float


HOSPITAL_SERVICE = messages.DESCRIPTOR.services_by_name["HospitalService"]


@dataclass
class Site:
    """The platform of region 350200 with a desk for hospitals, and a second region."""

    folder: Path
    home: pki.Region = field(default_factory=lambda: live_region("350200"))
    other: pki.Region = field(default_factory=lambda: live_region("350500"))
    clock: Clock = field(default_factory=Clock)
    desk: Desk = field(default_factory=Desk)
    hospital: CallerName = field(init=False)
    trust: TrustStore = field(init=False)
    files: KeyFiles = field(init=False)

    def __post_init__(self) -> None:
        self.hospital = self.home.hospital()
        self.files = write_pair(self.folder, "platform", self.server_credential())
        self.trust = self.empty_trust()
        self.publish()

    def empty_trust(self) -> TrustStore:
        """A store that knows the registries of both regions and holds no list yet."""
        regions = (self.home, self.other)
        return TrustStore({region.code: region.registry.sha256.hex() for region in regions})

    def publish(self, *regions: pki.Region) -> None:
        """Bring the lists of these regions, or of both, as they are now, to the server."""
        for region in regions or (self.home, self.other):
            region.trust_list.sequence += 1
            self.trust.offer(region.signed_list(), self.clock.now)

    def server_credential(self) -> pki.Credential:
        name = platform_server_name(self.home.code)
        usages = (*pki.SERVER, *pki.CLIENT)
        return issue(self.home.transport, self.home.platform, usages=usages, dns=(name,))

    def build(self, listen: str = "127.0.0.1:0", **options: Unpack[BuildOptions]) -> Server:
        add = stubs.add_HospitalServiceServicer_to_server
        return build_server(
            [Service(add, self.desk, HOSPITAL_SERVICE)],
            listen=listen,
            tls=self.files,
            trust=self.trust,
            place=Place(self.home.code),
            clock=self.clock,
            **options,
        )

    @asynccontextmanager
    async def serving(self, **options: Unpack[BuildOptions]) -> AsyncIterator[Server]:
        server = self.build(**options)
        await server.start()
        try:
            yield server
        finally:
            await server.stop(0)

    @asynccontextmanager
    async def connection(
        self, server: Server, credential: pki.Credential | None = None
    ) -> AsyncIterator[grpc.aio.Channel]:
        """A channel with the hospital's certificate, or another."""
        credential = credential or issue(self.home.transport, self.hospital)
        roots = self.home.transport.certificate.public_bytes(Encoding.PEM)
        channel = open_channel(
            server.address, platform_server_name(self.home.code), key_pair(credential), roots
        )
        async with channel:
            yield channel


async def register(channel: grpc.aio.Channel, request_id: str = "", seconds: float = 10) -> None:
    """Make one call."""
    request = messages.RegisterPrescriptionRequest(request_id=request_id)
    await stubs.HospitalServiceStub(channel).RegisterPrescription(request, timeout=seconds)


def in_years(years: int) -> datetime:
    return datetime.now(UTC) + timedelta(days=365 * years)
