"""L10: certificates that must not let anybody in, over real TLS.

A handshake admits whoever any region's authority vouches for; everything else is decided on each
call. So a bad certificate is stopped in one of two places: by the handshake, and the client sees
UNAVAILABLE; or by the call, and the client is told why. Some odd ones are honest and are served:
they stand here too, so that nobody mistakes strictness for safety.

Most cases meet one server. Those in which something changes while a client is connected have a
server of their own.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from rxoutflow.identity import CallerKind, CallerName, KeyPurpose, SignerName
from rxoutflow.statements import SignerUntrusted, Verifier
from rxoutflow.v1 import annotations_pb2
from rxoutflow.v1 import hospital_service_pb2 as messages
from rxoutflow.v1 import hospital_service_pb2_grpc as stubs
from rxoutflow.v1.attempt_pb2 import Attempt
from rxoutflow.v1.statement_pb2 import SIGNER_ROLE_HOSPITAL_SEAL, SIGNER_ROLE_PLATFORM
from rxoutflow.v1.trust_pb2 import Institution, Signer
from rxoutflow_server.transport.channels import open_channel, platform_server_name
from rxoutflow_server.transport.errors import error_info
from rxoutflow_server.transport.server import Server
from support import pki, raw_http2
from support.board import Ran
from support.doors import keep_quiet
from support.forge import ISSUER_USES, LEAF_USE, authority, der, forge
from support.live import (
    Site,
    in_years,
    issue,
    key_pair,
    lasting_authority,
    register,
    write_pair,
)
from support.pki import CLIENT, SERVER, Authority, Credential
from support.sheets import Cast, signed

pytestmark = pytest.mark.asyncio(loop_scope="session")

METHOD = "/rxoutflow.v1.HospitalService/RegisterPrescription"
SERVED = "OK"
HANDSHAKE = "UNAVAILABLE None"
IDENTITY = "UNAUTHENTICATED CALLER_IDENTITY_INVALID"
UNTRUSTED = "UNAUTHENTICATED CALLER_CERTIFICATE_UNTRUSTED"
EXPIRED = "UNAUTHENTICATED CALLER_CERTIFICATE_EXPIRED"
REVOKED = "UNAUTHENTICATED CALLER_CERTIFICATE_REVOKED"
INACTIVE = "PERMISSION_DENIED INSTITUTION_NOT_ACTIVE"

Make = Callable[[Site], Credential]


def uri(site: Site) -> str:
    return str(site.hospital)


def named(*names: str | x509.GeneralName) -> Make:
    """Honestly issued, with these names."""
    return lambda site: forge(site.home.transport, *names)


def respelled(change: Callable[[str], str]) -> Make:
    """Honestly issued, with the hospital's URI spelled otherwise."""
    return lambda site: forge(site.home.transport, change(uri(site)))


def honest(**how: Any) -> Make:
    """The hospital's URI and authority, and something else."""
    return lambda site: forge(site.home.transport, uri(site), **how)


def below(make: Callable[[Site], Authority]) -> Make:
    """The hospital's URI, issued by an authority that somebody set up."""
    return lambda site: forge(make(site), uri(site))


def with_more(*certificates: Callable[[Site], x509.Certificate]) -> Make:
    """The hospital's honest certificate, with other certificates sent along."""

    def make(site: Site) -> Credential:
        leaf = forge(site.home.transport, uri(site))
        extra = tuple(certificate(site) for certificate in certificates)
        return Credential(leaf.certificate, leaf.key, extra)

    return make


def _directory(name: str) -> x509.DirectoryName:
    return x509.DirectoryName(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))


def _chain(site: Site, length: int) -> Authority:
    """An authority below that many others."""
    issuer = site.home.transport
    for index in range(length):
        issuer = lasting_authority(f"branch {index}", issuer)
    return issuer


def _leaf_that_issues(site: Site) -> Authority:
    return authority(site.home.transport, "a leaf", ca=False, key_uses=(LEAF_USE,), usages=CLIENT)


def _expired() -> dict[str, datetime]:
    now = datetime.now(UTC)
    return {"begin": now - timedelta(days=9), "end": now - timedelta(days=1)}


def _early() -> dict[str, datetime]:
    now = datetime.now(UTC)
    return {"begin": now + timedelta(days=1), "end": now + timedelta(days=9)}


def _unknown_extension(size: int) -> x509.UnrecognizedExtension:
    return x509.UnrecognizedExtension(ObjectIdentifier("1.3.6.1.4.1.99999.1"), bytes(size))


def _listed_as_other_kind(site: Site) -> Credential:
    name = CallerName("350200", CallerKind.REGULATOR, site.hospital.institution_code)
    return forge(site.home.transport, str(name))


def _seal(site: Site) -> Credential:
    """The seal of the hospital: of the signing PKI."""
    return site.home.seal(site.hospital)


def _signing_authority(site: Site) -> Credential:
    return site.home.signing.issue(uri(site), usages=CLIENT)


def _root_itself(site: Site) -> Credential:
    return Credential(site.home.transport.certificate, site.home.transport.key)


CASES: dict[str, tuple[Make, str]] = {
    # names
    "an honest certificate": (honest(), SERVED),
    "a common name only": (
        lambda site: forge(site.home.transport, common_name=uri(site)[:60]), IDENTITY),
    "no name at all": (named(), IDENTITY),
    "a DNS name that looks like the URI": (
        lambda site: forge(site.home.transport, x509.DNSName(uri(site))), IDENTITY),
    "the DNS name of the edge": (
        named(x509.DNSName("h35020000001.350200.rxoutflow")), IDENTITY),
    "an e-mail address": (named(x509.RFC822Name("h35020000001@350200.rxoutflow")), IDENTITY),
    "an IP address": (named(x509.IPAddress(IPv4Address("127.0.0.1"))), IDENTITY),
    "a directory name": (
        lambda site: forge(site.home.transport, _directory(uri(site))), IDENTITY),
    "another kind of name": (
        named(x509.OtherName(ObjectIdentifier("1.3.6.1.4.1.99999.2"), b"\x0c\x01x")), IDENTITY),
    "two URIs, the own first": (
        lambda site: forge(site.home.transport, uri(site), str(site.home.platform)), IDENTITY),
    "two URIs, the own last": (
        lambda site: forge(site.home.transport, str(site.home.platform), uri(site)), IDENTITY),
    "the same URI twice": (lambda site: forge(site.home.transport, uri(site), uri(site)), IDENTITY),
    "two URIs with a DNS name between": (
        lambda site: forge(site.home.transport, uri(site), x509.DNSName("x"), uri(site)), IDENTITY),
    "the URI behind a DNS name": (
        lambda site: forge(site.home.transport, x509.DNSName("x.example"), uri(site)), SERVED),
    "the URI before two hundred DNS names": (
        lambda site: forge(site.home.transport, uri(site), *(
            x509.DNSName(f"h{index}.example") for index in range(200))), SERVED),
    "a hundred URIs": (
        lambda site: forge(site.home.transport, *(
            f"{uri(site)[:-5]}{index:05}" for index in range(100))), IDENTITY),
    # spellings of the URI
    "user information": (respelled(lambda name: name.replace("://", "://admin@")), IDENTITY),
    "a port": (respelled(lambda name: name.replace(".rxoutflow", ".rxoutflow:443")), IDENTITY),
    "a query": (respelled(lambda name: f"{name}?kind=platform"), IDENTITY),
    "a fragment": (respelled(lambda name: f"{name}#1"), IDENTITY),
    "a trailing slash": (respelled(lambda name: f"{name}/"), IDENTITY),
    "a doubled slash": (respelled(lambda name: name.replace("/hospital", "//hospital")), IDENTITY),
    "dot segments": (respelled(lambda name: name.replace("hospital/", "x/../hospital/")), IDENTITY),
    "an upper-case scheme": (respelled(lambda name: name.replace("spiffe", "SPIFFE")), IDENTITY),
    "an upper-case trust domain": (
        respelled(lambda name: name.replace("rxoutflow", "RXOUTFLOW")), IDENTITY),
    "an upper-case kind": (respelled(lambda name: name.replace("hospital", "HOSPITAL")), IDENTITY),
    "a lower-case code": (respelled(lambda name: name.replace("/H", "/h")), IDENTITY),
    "percent encoding": (respelled(lambda name: name.replace("/H", "/%48")), IDENTITY),
    "another scheme": (respelled(lambda name: name.replace("spiffe", "https")), IDENTITY),
    "no scheme": (respelled(lambda name: name.removeprefix("spiffe:")), IDENTITY),
    "a longer trust domain": (
        respelled(lambda name: name.replace(".rxoutflow", ".rxoutflow.example")), IDENTITY),
    "a trust domain in front": (
        respelled(lambda name: name.replace("://", "://evil.example/")), IDENTITY),
    "a subdomain": (respelled(lambda name: name.replace("://", "://x.")), IDENTITY),
    "a region of seven digits": (respelled(lambda name: name.replace("://", "://1")), IDENTITY),
    "a line break behind": (respelled(lambda name: f"{name}\n"), IDENTITY),
    "a blank before": (respelled(lambda name: f" {name}"), IDENTITY),
    "a NUL behind": (respelled(lambda name: f"{name}\0.example"), IDENTITY),
    "two URIs in one": (respelled(lambda name: f"{name} {name}"), IDENTITY),
    "an empty URI": (named(""), IDENTITY),
    "an unknown kind": (respelled(lambda name: name.replace("hospital", "admin")), IDENTITY),
    "the code of another kind": (respelled(lambda name: name.replace("/H", "/P")), IDENTITY),
    "a code of another region": (
        respelled(lambda name: name.replace("/H350200", "/H350500")), IDENTITY),
    "a platform with a hospital's code": (
        respelled(lambda name: name.replace("hospital", "platform")), IDENTITY),
    "the name of a seal": (respelled(lambda name: f"{name}/seal"), IDENTITY),
    "the name of a person": (respelled(lambda name: f"{name}/person/D001"), IDENTITY),
    # whose authority
    "this region's name by another's authority": (
        lambda site: forge(site.other.transport, uri(site)), UNTRUSTED),
    "this platform's name by another's authority": (
        lambda site: forge(site.other.transport, str(site.home.platform)), UNTRUSTED),
    "another region's name by this authority": (
        lambda site: forge(site.home.transport, str(site.other.hospital())), UNTRUSTED),
    "another platform's name by this authority": (
        lambda site: forge(site.home.transport, str(site.other.platform)), UNTRUSTED),
    "an unknown region's name by this authority": (
        named("spiffe://320600.rxoutflow/platform/320600"), UNTRUSTED),
    "an authority of the same name": (below(lambda site: lasting_authority("350200 transport")),
        HANDSHAKE),
    "by itself": (lambda site: forge(None, uri(site)), HANDSHAKE),
    "the authority itself as a client": (_root_itself, HANDSHAKE),
    "an authority that expired": (below(lambda site: authority(
        site.home.transport, "old", **_expired())), HANDSHAKE),
    "the seal of the signing PKI": (_seal, HANDSHAKE),
    "by the authority of the signing PKI": (_signing_authority, HANDSHAKE),
    # whose entry
    "an institution that is not listed": (
        respelled(lambda name: f"{name[:-5]}99999"), INACTIVE),
    "an institution listed as another kind": (_listed_as_other_kind, INACTIVE),
    "a regulator that is not listed": (named("spiffe://350200.rxoutflow/regulator/R1"), INACTIVE),
    # when
    "expired": (honest(**_expired()), HANDSHAKE),
    "not yet valid": (honest(**_early()), HANDSHAKE),
    # for what
    "for servers only": (honest(usages=SERVER), HANDSHAKE),
    "for signing code only": (honest(usages=(ExtendedKeyUsageOID.CODE_SIGNING,)), HANDSHAKE),
    "for no stated use": (honest(usages=None), UNTRUSTED),
    "for any use": (honest(usages=(ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,)), HANDSHAKE),
    "a key that may not sign": (honest(key_uses=("key_encipherment",)), HANDSHAKE),
    "a key of no stated use": (honest(key_uses=None), UNTRUSTED),
    "a key that may issue, too": (honest(key_uses=(LEAF_USE, *ISSUER_USES)), UNTRUSTED),
    "an authority used as a leaf": (honest(ca=True), UNTRUSTED),
    "an unknown critical extension": (
        honest(extensions=[(_unknown_extension(3), True)]), HANDSHAKE),
    "an unknown extension of 4 kB": (
        honest(extensions=[(_unknown_extension(4_000), False)]), SERVED),
    "an unknown extension of 2 MB": (
        honest(extensions=[(_unknown_extension(2_000_000), False)]), HANDSHAKE),
    # over which path
    "below an intermediate": (below(lambda site: _chain(site, 1)), SERVED),
    "below three intermediates": (below(lambda site: _chain(site, 3)), SERVED),
    "below four intermediates": (below(lambda site: _chain(site, 4)), UNTRUSTED),
    "intermediates that prove nothing": (
        with_more(
            lambda site: lasting_authority("stranger").certificate,
            lambda site: site.other.transport.certificate,
        ), SERVED),
    "its authority sent along by a stranger": (
        lambda site: Credential(
            (leaf := forge(site.other.transport, uri(site))).certificate, leaf.key,
            (site.home.transport.certificate,)), UNTRUSTED),
    "an issuer that is a leaf": (below(_leaf_that_issues), HANDSHAKE),
    "an issuer without key usage for issuing": (below(lambda site: authority(
        site.home.transport, "no issuer", key_uses=(LEAF_USE,))), HANDSHAKE),
    "an issuer without basic constraints": (below(lambda site: authority(
        site.home.transport, "no constraints", ca=None)), HANDSHAKE),
    "a path longer than its issuer allows": (below(lambda site: lasting_authority(
        "grandchild", authority(site.home.transport, "child", path_length=0))), HANDSHAKE),
    "an intermediate left out": (
        lambda site: Credential(
            (leaf := forge(_chain(site, 1), uri(site))).certificate, leaf.key), HANDSHAKE),
    "an unknown intermediate": (below(lambda site: lasting_authority(
        "child", lasting_authority("nobody"))), HANDSHAKE),
    # with which key
    "a key of RSA, 2048 bits": (
        honest(key=rsa.generate_private_key(65537, 2048)), SERVED),
    "a key of RSA, 1024 bits": (
        honest(key=rsa.generate_private_key(65537, 1024)), UNTRUSTED),  # noqa: S505 - that is why
    "a key on P-384": (honest(key=ec.generate_private_key(ec.SECP384R1())), SERVED),
    "a key on P-192": (honest(key=ec.generate_private_key(ec.SECP192R1())), HANDSHAKE),
    "a key on secp256k1": (honest(key=ec.generate_private_key(ec.SECP256K1())), HANDSHAKE),
    "a key of DSA": (honest(key=dsa.generate_private_key(2048)), HANDSHAKE),
    "a key of Ed25519": (honest(key=ed25519.Ed25519PrivateKey.generate()), HANDSHAKE),
}  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def standing(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[tuple[Site, Server]]:
    """A server that no test changes."""
    keep_quiet()
    site = Site(tmp_path_factory.mktemp("site"))
    async with site.serving() as server:
        yield site, server


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A site of a test's own."""
    keep_quiet()
    return Site(tmp_path)


async def outcome(channel: grpc.aio.Channel) -> str:
    """OK, or status and reason."""
    try:
        await register(channel)
    except grpc.aio.AioRpcError as error:
        info = error_info(error)
        return f"{error.code().name} {info.reason if info else None}"
    return SERVED


@pytest.mark.parametrize("case", CASES)
async def test_a_certificate_lets_in_only_whom_it_should(
    case: str, standing: tuple[Site, Server]
) -> None:
    make, expected = CASES[case]
    site, server = standing
    async with site.connection(server, make(site)) as channel:
        assert await outcome(channel) == expected


# other transports


async def raw(site: Site, server: Server, context: ssl.SSLContext, **how: Any) -> raw_http2.Reply:
    """A call by hand."""
    name = platform_server_name(site.home.code)
    return await asyncio.to_thread(raw_http2.call, server.address, name, context, METHOD, **how)


def raw_client(site: Site, credential: Credential | None) -> ssl.SSLContext:
    roots = site.home.transport.certificate.public_bytes(Encoding.PEM)
    return raw_http2.client_context(roots, credential, site.folder)


async def test_a_client_of_tls_1_2_is_refused_on_each_call(site: Site) -> None:
    client = raw_client(site, forge(site.home.transport, uri(site)))
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    async with site.serving() as server:
        first = await raw(site, server, client)
        again = await raw(site, server, client, session=first.session)
    for reply in (first, again):
        assert (reply.tls, reply.status) == ("TLSv1.2", grpc.StatusCode.UNAUTHENTICATED.value[0])
        assert "TLS 1.3" in reply.message


async def test_the_same_client_with_tls_1_3_is_served(site: Site) -> None:
    client = raw_client(site, forge(site.home.transport, uri(site)))
    async with site.serving() as server:
        reply = await raw(site, server, client)
    assert (reply.tls, reply.status) == ("TLSv1.3", 0)


async def test_a_client_without_certificate_gets_nowhere(site: Site) -> None:
    async with site.serving() as server:
        with pytest.raises(raw_http2.Refused):
            await raw(site, server, raw_client(site, None))


async def test_a_client_without_tls_gets_nowhere(site: Site) -> None:
    async with (
        site.serving() as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        assert await outcome(channel) == HANDSHAKE


@pytest.mark.parametrize("size", [90_000, 300_000])
async def test_a_huge_certificate_does_the_server_no_harm(site: Site, size: int) -> None:
    huge = forge(site.home.transport, uri(site), extensions=[(_unknown_extension(size), False)])
    client = raw_client(site, huge)
    async with site.serving() as server:
        with suppress(raw_http2.Refused):  # TLS libraries bound what they read: either is well
            assert (await raw(site, server, client)).status == 0
        async with site.connection(server) as channel:
            assert await outcome(channel) == SERVED


# what changes while a client is connected


async def until_refused(channel: grpc.aio.Channel) -> str:
    """What a client hears that calls until it is not served any more."""
    async with asyncio.timeout(20):
        while (heard := await outcome(channel)) == SERVED:
            await asyncio.sleep(0.02)
    return heard


async def test_a_certificate_that_expires_is_refused_on_its_live_connection(site: Site) -> None:
    """By the real clock: it is valid in the handshake and expires a moment later."""
    site.clock = Ticking()  # type: ignore[assignment] # a clock, too
    end = datetime.now(UTC) + timedelta(seconds=3)
    short = forge(site.home.transport, uri(site), end=end)
    async with site.serving() as server, site.connection(server, short) as channel:
        await register(channel)
        assert await until_refused(channel) == EXPIRED
        assert datetime.now(UTC) >= end - timedelta(seconds=1)
        told = EXPIRED
        async with asyncio.timeout(20):
            while told == EXPIRED:  # handshakes count whole seconds: over with the one of its end
                async with site.connection(server, short) as another:
                    told = await outcome(another)
        assert told == HANDSHAKE


class Ticking:
    """The machine's clock."""

    @property
    def now(self) -> datetime:
        return datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


async def test_a_resumed_session_does_not_outlive_its_certificate(site: Site) -> None:
    credential = forge(site.home.transport, uri(site), end=in_years(1))
    client = raw_client(site, credential)
    async with site.serving() as server:
        first = await raw(site, server, client)
        resumed = await raw(site, server, client, session=first.session)
        assert (first.status, resumed.status, resumed.resumed) == (0, 0, True)
        site.clock.now = in_years(2)
        late = await raw(site, server, client, session=resumed.session)
    assert late.resumed, "the session must have been resumed, or nothing is shown"
    assert late.status == grpc.StatusCode.UNAUTHENTICATED.value[0]
    assert "valid from" in late.message


async def test_a_resumed_session_does_not_outlive_a_denial(site: Site) -> None:
    credential = forge(site.home.transport, uri(site))
    client = raw_client(site, credential)
    async with site.serving() as server:
        first = await raw(site, server, client)
        site.home.deny(credential.certificate)
        site.publish()
        late = await raw(site, server, client, session=first.session)
    assert first.status == 0
    assert late.status == grpc.StatusCode.UNAUTHENTICATED.value[0]
    assert "deny list" in late.message


Change = Callable[[Site, Credential], None]


def _deny(site: Site, credential: Credential) -> None:
    site.home.deny(credential.certificate)


def _deny_the_issuer(site: Site, credential: Credential) -> None:
    site.home.deny(credential.intermediates[0])


def _withdraw(site: Site, _credential: Credential) -> None:
    site.home.entry(site.hospital).status = Institution.STATUS_WITHDRAWN


def _suspend(site: Site, _credential: Credential) -> None:
    site.home.entry(site.hospital).status = Institution.STATUS_SUSPENDED


def _strike_out(site: Site, _credential: Credential) -> None:
    site.home.trust_list.institutions.remove(site.home.entry(site.hospital))


def _relist_as_regulator(site: Site, _credential: Credential) -> None:
    site.home.entry(site.hospital).kind = annotations_pb2.CALLER_KIND_REGULATOR


def _change_the_authority(site: Site, _credential: Credential) -> None:
    site.home.transport = lasting_authority("350200 transport")
    site.home.trust_list.transport_anchors[:] = [der(site.home.transport)]


def _lapse(site: Site, _credential: Credential) -> None:
    site.home.trust_list.expire_time.FromDatetime(in_years(1))
    site.publish()
    site.clock.now = in_years(2)


CHANGES: dict[str, tuple[Change, str]] = {
    "denied": (_deny, REVOKED),
    "its issuer denied": (_deny_the_issuer, REVOKED),
    "withdrawn": (_withdraw, INACTIVE),
    "struck out": (_strike_out, INACTIVE),
    "listed as another kind": (_relist_as_regulator, INACTIVE),
    "its authority replaced": (_change_the_authority, UNTRUSTED),
    "its region's list lapsed": (_lapse, UNTRUSTED),
    "suspended": (_suspend, SERVED),
}
"""What may happen to a caller that is connected, and what its next call comes to."""


@pytest.mark.parametrize("change", CHANGES)
async def test_what_happens_to_a_caller_counts_on_its_next_call(change: str, site: Site) -> None:
    happen, expected = CHANGES[change]
    credential = forge(_chain(site, 1), uri(site))
    async with site.serving() as server, site.connection(server, credential) as channel:
        assert await outcome(channel) == SERVED
        happen(site, credential)
        if change != "its region's list lapsed":
            site.publish()
        assert await outcome(channel) == expected


class Notices:
    """A stream that sends what a test tells it to."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[None] = asyncio.Queue()

    async def __call__(self) -> AsyncIterator[messages.HospitalServiceWatchNoticesResponse]:
        while True:
            await self.queue.get()
            yield messages.HospitalServiceWatchNoticesResponse()


@pytest.mark.parametrize("idle", [False, True], ids=["at the next message", "while idle"])
@pytest.mark.parametrize("change", [each for each in CHANGES if each != "suspended"])
async def test_what_happens_to_a_caller_ends_its_streams(
    change: str, idle: bool, site: Site
) -> None:
    happen, expected = CHANGES[change]
    credential = forge(_chain(site, 1), uri(site))
    notices = site.desk.notices = Notices()
    seconds = 0.01 if idle else 3600.0
    async with (
        site.serving(recheck_seconds=seconds) as server,
        site.connection(server, credential) as channel,
    ):
        stream = stubs.HospitalServiceStub(channel).WatchNotices(
            messages.HospitalServiceWatchNoticesRequest()
        )
        notices.queue.put_nowait(None)
        await stream.read()
        happen(site, credential)
        if change != "its region's list lapsed":
            site.publish()
        if not idle:
            notices.queue.put_nowait(None)
        async with asyncio.timeout(10):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stream.read()
    info = error_info(caught.value)
    assert info is not None
    assert f"{caught.value.code().name} {info.reason}" == expected


async def test_a_suspended_caller_keeps_its_stream(site: Site) -> None:
    notices = site.desk.notices = Notices()
    async with site.serving(recheck_seconds=0.01) as server, site.connection(server) as channel:
        stream = stubs.HospitalServiceStub(channel).WatchNotices(
            messages.HospitalServiceWatchNoticesRequest()
        )
        notices.queue.put_nowait(None)
        await stream.read()
        _suspend(site, forge(site.home.transport, uri(site)))
        site.publish()
        for _ in range(3):
            notices.queue.put_nowait(None)
            await stream.read()


# one PKI in the place of the other


async def test_a_tls_certificate_signs_no_statement_though_it_is_listed(site: Site) -> None:
    """Not even when its name is that of a seal, and the registry lists it by mistake."""
    cast = Cast.create("320600")
    name = SignerName(cast.hospital, KeyPurpose.SEAL)
    tls = cast.region.transport.issue(str(name), usages=CLIENT)
    cast.region.trust_list.signers.append(
        Signer(
            certificate_sha256=tls.sha256,
            institution_code=cast.hospital.institution_code,
            roles=[SIGNER_ROLE_HOSPITAL_SEAL],
        )
    )
    platform = SignerName(cast.region.platform, KeyPurpose.SEAL)
    seal = cast.region.transport.issue(str(platform))
    cast.region.list_signer(seal, platform, SIGNER_ROLE_PLATFORM)
    statement = signed(cast.message(Attempt), [(SIGNER_ROLE_PLATFORM, seal)])

    async def answer() -> None:
        Verifier(cast.trust()).verify(statement, Attempt, pki.NOW)

    site.desk.answer = answer
    async with site.serving() as server, site.connection(server) as channel:
        assert await outcome(channel) == f"PERMISSION_DENIED {SignerUntrusted.reason}"


# servers that are not who they should be


def _server(
    site: Site, issuer: Authority, *names: str | x509.GeneralName, **how: Any
) -> Credential:
    usages = how.pop("usages", (*SERVER, *CLIENT))
    return forge(issuer, *names, usages=usages, **how)


def _dns(region: str = "350200") -> x509.DNSName:
    return x509.DNSName(platform_server_name(region))


SERVERS: dict[str, tuple[Make, str]] = {
    "the platform": (
        lambda site: _server(site, site.home.transport, str(site.home.platform), _dns()), SERVED),
    "with another region's name": (
        lambda site: _server(site, site.home.transport, str(site.home.platform), _dns("350500")),
        HANDSHAKE),
    "with the name of an edge": (
        lambda site: _server(site, site.home.transport,
                             x509.DNSName("h35020000001.350200.rxoutflow")), HANDSHAKE),
    # A limit of gRPC's client, stated here so that a change of it is noticed: where a certificate
    # has no DNS name, the client looks at the common name, and nobody can tell it not to. So an
    # authority must give the use "server" only with a DNS name, and choose common names itself.
    "with a common name and no other": (
        lambda site: _server(site, site.home.transport, common_name=platform_server_name("350200")),
        SERVED),
    "with a common name and a URI": (
        lambda site: _server(site, site.home.transport, str(site.hospital),
                             common_name=platform_server_name("350200")), SERVED),
    "for clients only, with a common name": (
        lambda site: _server(site, site.home.transport, str(site.hospital), usages=CLIENT,
                             common_name=platform_server_name("350200")), HANDSHAKE),
    "with a common name and another DNS name": (
        lambda site: _server(site, site.home.transport, _dns("350500"),
                             common_name=platform_server_name("350200")), HANDSHAKE),
    "with a URI only": (
        lambda site: _server(site, site.home.transport, str(site.home.platform)), HANDSHAKE),
    "by another region's authority": (
        lambda site: _server(site, site.other.transport, str(site.home.platform), _dns()),
        HANDSHAKE),
    "by itself": (lambda site: forge(None, str(site.home.platform), _dns(), usages=SERVER),
        HANDSHAKE),
    "for clients only": (
        lambda site: _server(site, site.home.transport, str(site.home.platform), _dns(),
                             usages=CLIENT), HANDSHAKE),
    "expired": (
        lambda site: _server(site, site.home.transport, str(site.home.platform), _dns(),
                             **_expired()), HANDSHAKE),
    "with a name that begins alike": (
        lambda site: _server(site, site.home.transport,
                             x509.DNSName(f"{platform_server_name('350200')}.example")), HANDSHAKE),
}  # fmt: skip


@pytest.mark.parametrize("case", SERVERS)
async def test_a_client_talks_to_no_other_server(case: str, site: Site) -> None:
    make, expected = SERVERS[case]
    write_pair(site.folder, "platform", make(site))
    async with site.serving() as server, site.connection(server) as channel:
        assert await outcome(channel) == expected


async def test_a_client_of_another_region_trusts_no_authority_of_this_one(site: Site) -> None:
    roots = site.other.transport.certificate.public_bytes(Encoding.PEM)
    own = key_pair(issue(site.other.transport, site.other.platform))
    async with (
        site.serving() as server,
        open_channel(server.address, platform_server_name("350200"), own, roots) as channel,
    ):
        assert await outcome(channel) == HANDSHAKE


async def test_there_are_enough_cases(ran: Ran) -> None:
    streams = 2 * (len(CHANGES) - 1) + 1
    alone = 10
    cases = len(CASES) + len(CHANGES) + streams + len(SERVERS) + alone
    ran("L10 certificate cases over TLS", cases, 120)
