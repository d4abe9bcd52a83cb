"""Trust lists on their way: what a server asks for, believes, keeps, and warns about."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from structlog.testing import capture_logs

from rxoutflow.identity import CallerName
from rxoutflow.trust import RegionNotTrusted, TrustStore
from rxoutflow.v1 import peer_service_pb2 as messages
from rxoutflow.v1 import peer_service_pb2_grpc as stubs
from rxoutflow.v1.peer_service_pb2 import GetTrustListRequest, GetTrustListResponse
from rxoutflow.v1.trust_pb2 import Institution
from rxoutflow_server.application.exchange import trust_lists
from rxoutflow_server.application.region import Region as HomeRegion
from rxoutflow_server.config import PlatformConfig, TrustConfig
from rxoutflow_server.domain.errors import Reason, Refusal, Unavailable
from rxoutflow_server.platform.servicers import PeerServicer
from rxoutflow_server.registry.alarms import LapseAlarm
from rxoutflow_server.registry.fetching import (
    TrustFetcher,
    keep_trust,
    own_platform,
    peers_of,
)
from rxoutflow_server.transport.channels import PeerChannels, platform_server_name
from rxoutflow_server.transport.errors import peer_unavailable
from rxoutflow_server.transport.identity import Authenticator
from rxoutflow_server.transport.policy import Place
from rxoutflow_server.transport.server import Server, Service, build_server
from rxoutflow_server.trust_folder import TrustFolder
from support.live import Clock, issue, live_region, write_pair
from support.pki import CLIENT, NOW, SERVER, Region

HOME, OTHER = "350200", "350500"

Logs = list[Any]


@dataclass
class Peer:
    """Whoever is asked: answers from a trust store of its own, unless told otherwise."""

    trust: TrustStore
    regions: Sequence[str] = (HOME, OTHER)
    passed_on: Collection[str] = ()
    first_here: str | None = None
    asked: list[tuple[str, int]] = field(default_factory=list)
    instead: Callable[[], GetTrustListResponse] | None = None

    async def ask(self, region_code: str, held_sequence: int) -> GetTrustListResponse:
        self.asked.append((region_code, held_sequence))
        if self.instead is not None:
            return self.instead()
        request = GetTrustListRequest(region_code=region_code, held_sequence=held_sequence)
        return trust_lists.answer(self.trust, HOME, request)


@dataclass
class Site:
    """A server of region 350200 with its folder, and a peer to ask about region 350500."""

    folder: Path
    home: Region = field(default_factory=lambda: Region.create(HOME))
    other: Region = field(default_factory=lambda: Region.create(OTHER))
    now: datetime = NOW

    def __post_init__(self) -> None:
        self.trust, self.peer = self.empty_store(), Peer(self.empty_store())
        self.lists = TrustFolder(self.folder, self.trust, lambda: self.now)
        self.fetcher = TrustFetcher(self.trust, self.lists, self.peer, lambda: self.now)

    def empty_store(self) -> TrustStore:
        return TrustStore(self.pins)

    @property
    def pins(self) -> dict[str, str]:
        return {each.code: each.registry.sha256.hex() for each in (self.home, self.other)}

    @property
    def file(self) -> Path:
        return self.folder / f"{OTHER}.trustlist"

    def publish(self, sequence: int) -> None:
        """Region 350500 signs its list as it is now; the peer has it."""
        self.peer.trust.offer(self.other.signed_list(sequence=sequence), NOW)

    async def fetch(self) -> Logs:
        """Fetch the list of region 350500; returns what was logged."""
        with capture_logs() as logs:
            await self.fetcher.fetch(OTHER)
        return logs

    def sequence(self) -> int:
        held = self.trust.held(OTHER)
        return held.sequence if held is not None else 0


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def events(logs: Logs) -> list[str]:
    return [line["event"] for line in logs]


# fetching


async def test_a_new_list_is_fetched_takes_effect_and_survives_a_restart(site: Site) -> None:
    site.publish(3)
    assert events(await site.fetch()) == ["trust_list_accepted"]
    assert site.trust.region(OTHER, NOW).sequence == 3
    after_restart = TrustStore.load(site.folder, site.pins, NOW)
    assert after_restart.region(OTHER, NOW).sequence == 3


async def test_a_list_that_is_held_is_neither_sent_nor_written_again(site: Site) -> None:
    site.publish(3)
    await site.fetch()
    written = site.file.stat().st_mtime_ns
    assert await site.fetch() == []
    assert site.peer.asked == [(OTHER, 0), (OTHER, 3)]
    assert site.file.stat().st_mtime_ns == written


async def test_whoever_passes_a_list_on_cannot_change_it(site: Site) -> None:
    site.publish(3)
    await site.fetch()
    before = site.file.read_bytes()
    site.other.registry = site.home.registry  # the passer-on has every key but the right one
    forged = site.other.signed_list(sequence=4)
    site.peer.instead = lambda: GetTrustListResponse(trust_list=forged, sequence=4)
    assert events(await site.fetch()) == ["trust_list_refused"]
    tampered = site.peer.trust.statement(OTHER)
    assert tampered is not None
    tampered.payload += b"\x18\x09"
    site.peer.instead = lambda: GetTrustListResponse(trust_list=tampered, sequence=9)
    assert events(await site.fetch()) == ["trust_list_refused"]
    assert (site.sequence(), site.file.read_bytes()) == (3, before)


async def test_the_list_of_another_region_is_no_answer(site: Site) -> None:
    genuine = site.home.signed_list(sequence=5)
    site.peer.instead = lambda: GetTrustListResponse(trust_list=genuine, sequence=5)
    assert events(await site.fetch()) == ["trust_list_refused"]
    assert site.trust.regions() == ()
    assert list(site.folder.iterdir()) == []


async def test_who_sends_an_older_list_is_reported_and_not_believed(site: Site) -> None:
    older = site.other.signed_list(sequence=2)
    site.publish(3)
    await site.fetch()
    site.peer.instead = lambda: GetTrustListResponse(trust_list=older, sequence=9)
    (line,) = await site.fetch()
    assert line["event"] == "trust_list_rollback"
    assert (line["region"], line["sequence"], line["held_sequence"]) == (OTHER, 2, 3)
    assert TrustStore.load(site.folder, site.pins, NOW).region(OTHER, NOW).sequence == 3


async def test_who_holds_an_older_list_is_reported_once_an_hour(site: Site) -> None:
    """Such as a platform that was restored from yesterday's backup."""
    site.publish(3)
    await site.fetch()
    site.peer.trust = site.empty_store()
    site.publish(2)
    assert events(await site.fetch()) == ["trust_list_rollback"]
    assert await site.fetch() == []
    site.now += timedelta(hours=1)
    assert events(await site.fetch()) == ["trust_list_rollback"]
    assert site.sequence() == 3


async def test_peers_may_be_behind_with_a_servers_own_list(site: Site) -> None:
    site.peer.first_here = OTHER
    site.publish(3)
    await site.fetch()
    site.peer.trust = site.empty_store()
    site.publish(2)
    assert await site.fetch() == []


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (peer_unavailable(OTHER, "UNAVAILABLE"), "PEER_UNAVAILABLE"),
        (Refusal(Reason.REGION_UNKNOWN, "no list", region=OTHER), "REGION_UNKNOWN"),
    ],
)
async def test_a_fetch_that_fails_changes_nothing_and_is_told_once_an_hour(
    error: Refusal | Unavailable, reason: str, site: Site
) -> None:
    site.publish(3)
    await site.fetch()

    def fail() -> GetTrustListResponse:
        raise error

    site.peer.instead = fail
    (line,) = await site.fetch()
    assert (line["event"], line["reason"]) == ("trust_list_not_fetched", reason)
    assert await site.fetch() == []
    assert site.sequence() == 3
    site.peer.instead = None
    site.publish(4)
    await site.fetch()
    assert site.sequence() == 4


async def test_an_edge_asks_once_and_then_only_for_what_is_new(site: Site) -> None:
    site.peer.passed_on = (OTHER,)
    site.peer.trust.offer(site.home.signed_list(), NOW)
    site.publish(3)
    await site.fetcher.fetch(HOME)
    assert site.peer.asked == [(HOME, 0), (OTHER, 0)]
    assert site.sequence() == 3
    await site.fetcher.fetch(HOME)
    assert site.peer.asked[2:] == [(HOME, 1)]
    site.publish(4)
    await site.fetcher.fetch(HOME)
    assert site.peer.asked[3:] == [(HOME, 1), (OTHER, 3)]
    assert site.sequence() == 4


async def test_an_edge_reports_a_platform_that_has_lost_a_list_or_never_had_it(site: Site) -> None:
    site.peer.passed_on = (OTHER,)
    site.peer.trust.offer(site.home.signed_list(), NOW)
    site.publish(3)
    await site.fetcher.fetch(HOME)
    for sequence, event in ((2, "trust_list_rollback"), (0, "trust_list_not_fetched")):
        site.peer.trust = site.empty_store()
        site.peer.trust.offer(site.home.signed_list(), NOW)
        if sequence:
            site.publish(sequence)
        with capture_logs() as logs:
            await site.fetcher.fetch(HOME)
            await site.fetcher.fetch(HOME)
        assert [(line["event"], line["region"]) for line in logs] == [(event, OTHER)]
        assert site.sequence() == 3


async def test_an_edge_asks_for_no_region_that_it_has_not_pinned(site: Site) -> None:
    site.peer.passed_on = ()
    site.peer.trust.offer(site.home.signed_list(), NOW)
    site.publish(3)
    await site.fetcher.fetch(HOME)
    assert site.peer.asked == [(HOME, 0)]


async def test_one_region_that_does_not_answer_delays_no_other(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_sleep = asyncio.sleep
    monkeypatch.setattr(asyncio, "sleep", lambda _seconds: real_sleep(0))
    asked_often = asyncio.Event()

    class Half(Peer):
        async def ask(self, region_code: str, held_sequence: int) -> GetTrustListResponse:
            if region_code == HOME:
                await asyncio.Event().wait()
            if len(self.asked) >= 3:
                asked_often.set()
            if len(self.asked) == 1:
                self.asked.append(("fails", 0))
                raise RuntimeError("a defect of one round")
            return await super().ask(region_code, held_sequence)

    source = Half(site.peer.trust)
    site.publish(3)
    work = keep_trust(config(site.folder, site.pins), site.trust, source, lambda: site.now)
    with capture_logs() as logs:
        task = asyncio.create_task(work)
        async with asyncio.timeout(10):
            await asked_often.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert site.sequence() == 3
    assert "task_failed" in events(logs)


def config(folder: Path, pins: dict[str, str], region_code: str = HOME) -> PlatformConfig:
    """As much of a configuration as fetching reads."""
    trust = TrustConfig(folder, pins)
    return cast(PlatformConfig, SimpleNamespace(region_code=region_code, trust=trust))


# passing on


def test_a_platform_passes_on_its_own_list_and_those_it_holds(site: Site) -> None:
    site.trust.offer(site.home.signed_list(sequence=4), NOW)
    site.trust.offer(site.other.signed_list(sequence=6), NOW)
    for wanted, code, sequence in (("", HOME, 4), (HOME, HOME, 4), (OTHER, OTHER, 6)):
        request = GetTrustListRequest(region_code=wanted)
        response = trust_lists.answer(site.trust, HOME, request)
        assert response.trust_list == site.trust.statement(code)
        assert response.sequence == sequence
        told = [(each.region_code, each.sequence) for each in response.other_lists]
        assert told == ([(OTHER, 6)] if code == HOME else [])


@pytest.mark.parametrize(
    ("held", "sent"), [(-1, True), (0, True), (3, True), (4, False), (5, False)]
)
def test_only_a_newer_list_is_sent(held: int, sent: bool, site: Site) -> None:
    site.trust.offer(site.home.signed_list(sequence=4), NOW)
    request = GetTrustListRequest(held_sequence=held)
    response = trust_lists.answer(site.trust, HOME, request)
    assert (response.HasField("trust_list"), response.sequence) == (sent, 4)


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (OTHER, Reason.REGION_UNKNOWN),
        ("999999", Reason.REGION_UNKNOWN),
        ("", Reason.REGION_UNKNOWN),
        ("35020", Reason.FIELD_INVALID),
        ("张三丰张三丰", Reason.FIELD_INVALID),
    ],
)
def test_a_region_that_is_not_held_is_refused_with_its_reason(
    wanted: str, reason: Reason, site: Site
) -> None:
    with pytest.raises(Refusal) as refused:
        trust_lists.answer(site.trust, HOME, GetTrustListRequest(region_code=wanted))
    assert refused.value.reason is reason
    assert "张三" not in str(refused.value.detail) + refused.value.message


# taking effect


async def test_a_denied_or_withdrawn_institution_is_refused_after_the_next_fetch(
    site: Site,
) -> None:
    stolen, leaver = site.other.hospital(), site.other.hospital()
    doors = Authenticator(site.trust, lambda: site.now)
    connections = {each: connection_of(site.other, each) for each in (stolen, leaver)}
    site.publish(3)
    await site.fetch()
    for connection in connections.values():
        assert doors.authenticate(connection).region_code == OTHER
    site.other.deny(certificate_of(connections[stolen]))
    site.other.entry(leaver).status = Institution.STATUS_WITHDRAWN
    site.publish(4)
    assert doors.authenticate(connections[stolen]), "not before it is fetched"
    await site.fetch()
    for holder, reason in {
        stolen: Reason.CALLER_CERTIFICATE_REVOKED,
        leaver: Reason.INSTITUTION_NOT_ACTIVE,
    }.items():
        with pytest.raises(Refusal) as refused:
            doors.authenticate(connections[holder])
        assert refused.value.reason is reason


async def test_a_suspended_institution_may_begin_nothing_after_the_next_fetch(site: Site) -> None:
    pharmacy = site.other.pharmacy()
    unused = {each.name: cast(Any, None) for each in fields(HomeRegion)}
    ours = {"code": HOME, "trust": site.trust, "now": lambda: site.now}
    region = HomeRegion(**{**unused, **ours})  # only whom it trusts matters here
    site.publish(3)
    await site.fetch()
    assert region.require_active(OTHER, pharmacy.institution_code)
    site.other.entry(pharmacy).status = Institution.STATUS_SUSPENDED
    site.publish(4)
    await site.fetch()
    with pytest.raises(Refusal) as refused:
        region.require_active(OTHER, pharmacy.institution_code)
    assert refused.value.reason is Reason.INSTITUTION_NOT_ACTIVE


def connection_of(region: Region, holder: CallerName) -> dict[str, list[bytes]]:
    """What gRPC tells of a connection with a fresh certificate of the holder."""
    pem = region.client(holder).certificate.public_bytes(Encoding.PEM)
    return {
        "ssl_tls_version": [b"TLSv1.3"],
        "x509_pem_cert": [pem],
        "x509_pem_cert_chain": [pem],
    }


def certificate_of(connection: dict[str, list[bytes]]) -> x509.Certificate:
    return x509.load_pem_x509_certificate(connection["x509_pem_cert"][0])


# the folder


async def test_a_list_that_is_put_into_the_folder_counts_without_a_restart(site: Site) -> None:
    site.file.write_bytes(site.other.signed_list(sequence=2).SerializeToString())
    await site.lists.offer_changed()
    assert site.sequence() == 2


async def test_an_older_list_in_the_folder_is_reported_and_not_used(site: Site) -> None:
    site.publish(3)
    await site.fetch()
    site.file.write_bytes(site.other.signed_list(sequence=2).SerializeToString())
    with capture_logs() as logs:
        await site.lists.offer_changed()
    assert events(logs) == ["trust_list_rollback"]
    assert site.sequence() == 3


@pytest.mark.parametrize("content", [b"", b"nonsense"])
async def test_a_file_that_is_no_list_is_reported_once_and_not_used(
    content: bytes, site: Site
) -> None:
    site.publish(3)
    await site.fetch()
    site.file.write_bytes(content)
    with capture_logs() as logs:
        await site.lists.offer_changed()
        await site.lists.offer_changed()
    assert events(logs) == ["trust_list_refused"]
    assert site.sequence() == 3


async def test_a_list_under_the_name_of_another_region_is_not_used(site: Site) -> None:
    site.file.write_bytes(site.home.signed_list().SerializeToString())
    await site.lists.offer_changed()
    assert site.trust.regions() == ()


@pytest.mark.parametrize("sequence", [1, 2])
async def test_an_older_file_or_a_broken_one_gives_way_to_what_was_fetched(
    sequence: int, site: Site
) -> None:
    older = site.other.signed_list(sequence=1).SerializeToString()
    site.file.write_bytes(older if sequence == 1 else b"nonsense")
    site.publish(3)
    await site.fetch()
    assert TrustStore.load(site.folder, site.pins, NOW).region(OTHER, NOW).sequence == 3
    assert [path.name for path in site.folder.iterdir()] == [site.file.name]


async def test_servers_that_share_a_folder_never_write_an_older_list(site: Site) -> None:
    """A slower server fetched list 3 while another has written list 4 already."""
    site.publish(3)
    newer = site.other.signed_list(sequence=4).SerializeToString()
    site.file.write_bytes(newer)
    await site.fetch()
    assert site.file.read_bytes() == newer
    assert site.sequence() == 4


async def test_a_list_that_another_server_has_kept_is_not_written_again(site: Site) -> None:
    site.publish(3)
    site.file.write_bytes(site.other.signed_list(sequence=3).SerializeToString())
    kept = site.file.stat()
    await site.fetch()
    assert (site.file.stat().st_ino, site.file.stat().st_mtime_ns) == (
        kept.st_ino,
        kept.st_mtime_ns,
    )


async def test_a_folder_that_cannot_be_written_does_not_keep_a_list_from_taking_effect(
    site: Site,
) -> None:
    site.folder.rmdir()
    site.publish(3)
    assert events(await site.fetch()) == ["trust_list_accepted", "trust_list_not_kept"]
    assert site.sequence() == 3


# alarms


def alarms(alarm: LapseAlarm, at: datetime) -> list[tuple[str, int]]:
    with capture_logs() as logs:
        alarm.check(at)
    assert {line["region"] for line in logs} <= {OTHER}
    return [(line["event"], line["remaining_seconds"]) for line in logs]


def test_an_alarm_is_raised_before_a_list_lapses_and_once_an_hour(site: Site) -> None:
    site.trust.offer(site.other.signed_list(), NOW)
    alarm = LapseAlarm(site.trust, timedelta(days=2))
    lapse = NOW + timedelta(days=7)
    begin = lapse - timedelta(days=2)
    assert alarms(alarm, begin - timedelta(seconds=1)) == []
    assert alarms(alarm, begin) == [("trust_list_lapses_soon", 2 * 86400)]
    assert alarms(alarm, begin + timedelta(minutes=59)) == []
    again = begin + timedelta(hours=1)
    assert alarms(alarm, again) == [("trust_list_lapses_soon", 2 * 86400 - 3600)]


def test_an_alarm_counts_down_the_grace_once_a_list_has_lapsed(site: Site) -> None:
    trust = TrustStore(site.pins, timedelta(hours=24))
    trust.offer(site.other.signed_list(), NOW)
    alarm = LapseAlarm(trust, timedelta(days=2))
    lapse = NOW + timedelta(days=7)
    assert alarms(alarm, lapse + timedelta(hours=1)) == [("trust_list_lapsed", 23 * 3600)]
    assert alarms(alarm, lapse + timedelta(hours=30)) == [("trust_list_lapsed", 0)]


def test_each_region_has_its_own_alarm(site: Site) -> None:
    site.trust.offer(site.home.signed_list(), NOW)
    site.trust.offer(site.other.signed_list(), NOW)
    with capture_logs() as logs:
        LapseAlarm(site.trust, timedelta(days=14)).check(NOW)
    assert [line["region"] for line in logs] == [HOME, OTHER]


# over real connections


@dataclass
class Federation:
    """Two platforms that know each other, over mutual TLS on loopback."""

    folder: Path
    clock: Clock = field(default_factory=Clock)
    home: Region = field(default_factory=lambda: live_region(HOME))
    other: Region = field(default_factory=lambda: live_region(OTHER))

    def __post_init__(self) -> None:
        self.pins = {each.code: each.registry.sha256.hex() for each in (self.home, self.other)}
        self.here, self.there = TrustStore(self.pins), TrustStore(self.pins)

    def exchange(self, *stores: TrustStore) -> None:
        for store in stores or (self.here, self.there):
            for region in (self.home, self.other):
                store.offer(region.signed_list(), self.clock.now)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Server]:
        """The platform of the other region, with its address on its list."""
        name = platform_server_name(OTHER)
        files = write_pair(
            self.folder,
            "there",
            issue(
                self.other.transport, self.other.platform, usages=(*SERVER, *CLIENT), dns=(name,)
            ),
        )
        region = cast(HomeRegion, SimpleNamespace(code=OTHER, trust=self.there))
        service = Service(
            stubs.add_PeerServiceServicer_to_server,
            PeerServicer(region, cast(Any, None)),
            messages.DESCRIPTOR.services_by_name["PeerService"],
        )
        server = build_server(
            [service],
            listen="127.0.0.1:0",
            tls=files,
            trust=self.there,
            place=Place(OTHER),
            clock=self.clock,
        )
        self.other.trust_list.endpoints[0].target = server.address
        await server.start()
        try:
            yield server
        finally:
            await server.stop(0)

    @asynccontextmanager
    async def channels(self, holder: CallerName) -> AsyncIterator[PeerChannels]:
        usages = (*SERVER, *CLIENT)
        credential = issue(self.home.transport, holder, usages=usages)
        files = write_pair(self.folder, "here", credential)
        channels = PeerChannels(self.here, files, self.clock)
        try:
            yield channels
        finally:
            await channels.close()

    def fetcher(self, source: Any) -> TrustFetcher:
        trust = self.folder / "trust"
        trust.mkdir(exist_ok=True)
        folder = TrustFolder(trust, self.here, self.clock)
        return TrustFetcher(self.here, folder, source, self.clock)


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return Federation(tmp_path)


async def test_a_platform_fetches_from_a_real_peer(federation: Federation) -> None:
    federation_config = config(federation.folder / "trust", federation.pins)
    async with federation.serving(), federation.channels(federation.home.platform) as channels:
        federation.exchange()
        source = peers_of(federation_config, federation.here, channels)
        assert source.regions == (HOME, OTHER)
        federation.there.offer(federation.other.signed_list(sequence=2), federation.clock.now)
        await federation.fetcher(source).fetch(OTHER)
        assert federation.here.region(OTHER, federation.clock.now).sequence == 2


async def test_a_platform_learns_from_peers_what_its_backup_has_forgotten(
    federation: Federation,
) -> None:
    federation_config = config(federation.folder / "trust", federation.pins)
    async with federation.serving(), federation.channels(federation.home.platform) as channels:
        federation.exchange()
        federation.there.offer(federation.home.signed_list(sequence=5), federation.clock.now)
        source = peers_of(federation_config, federation.here, channels)
        await federation.fetcher(source).fetch(HOME)
        assert federation.here.region(HOME, federation.clock.now).sequence == 5


async def test_a_lapsed_list_still_says_where_to_fetch_the_next_one(
    federation: Federation,
) -> None:
    now = federation.clock.now
    federation_config = config(federation.folder / "trust", federation.pins)
    async with federation.serving(), federation.channels(federation.home.platform) as channels:
        lasting = federation.other.trust_list.expire_time.ToDatetime()
        federation.other.trust_list.expire_time.FromDatetime(now - timedelta(days=1))
        federation.exchange(federation.here)
        with pytest.raises(RegionNotTrusted):
            federation.here.region(OTHER, now)
        federation.other.trust_list.expire_time.FromDatetime(lasting)
        federation.other.trust_list.sequence = 2
        federation.exchange(federation.there)
        source = peers_of(federation_config, federation.here, channels)
        await federation.fetcher(source).fetch(OTHER)
        assert federation.here.region(OTHER, now).sequence == 2


async def test_an_edge_gets_the_lists_of_all_regions_from_its_own_platform(
    federation: Federation,
) -> None:
    """The edge is of the other region here, whose platform is the one that serves."""
    pharmacy = federation.other.pharmacy()
    pins, folder = federation.pins, federation.folder
    async with federation.serving():
        federation.exchange(federation.there)
        federation.here.offer(federation.other.signed_list(), federation.clock.now)
        files = write_pair(folder, "edge", issue(federation.other.transport, pharmacy))
        channels = PeerChannels(federation.here, files, federation.clock)
        source = own_platform(config(folder / "trust", pins, OTHER), federation.here, channels)
        assert source.regions == (OTHER,)
        with capture_logs() as logs:
            await federation.fetcher(source).fetch(OTHER)
        await channels.close()
    assert "trust_list_accepted" in events(logs)
    assert federation.here.region(HOME, federation.clock.now).sequence == 1


def test_a_region_without_peers_has_nobody_to_ask(site: Site) -> None:
    alone = config(site.folder, {HOME: site.pins[HOME]})
    assert peers_of(alone, site.trust, cast(Any, None)).regions == ()
