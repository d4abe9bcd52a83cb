"""The transport as callers and attackers meet it: a real server, real mutual TLS, real clients."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import pytest
import structlog
from cryptography.hazmat.primitives.serialization import Encoding
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from rxoutflow.identity import CallerKind, CallerName
from rxoutflow.trust import RegionNotTrusted
from rxoutflow.v1 import hospital_service_pb2 as messages
from rxoutflow.v1 import hospital_service_pb2_grpc as stubs
from rxoutflow.v1.trust_pb2 import Institution
from rxoutflow_server import telemetry
from rxoutflow_server.domain.errors import Reason, Refusal, Unavailable
from rxoutflow_server.transport.channels import PeerChannels, platform_server_name
from rxoutflow_server.transport.errors import error_info, refusal_of
from rxoutflow_server.transport.interceptor import (
    CallLimits,
    current_caller,
    remaining_seconds,
)
from rxoutflow_server.transport.server import ListenError, serve
from rxoutflow_server.transport.tls import KeyFileError
from support import pki
from support.live import (
    HOSPITAL_SERVICE,
    Site,
    in_years,
    issue,
    key_pair,
    lasting_authority,
    register,
    write_pair,
)

PATIENT = "张三丰 350203199001011234"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def logged() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """The log lines so far."""
    stream = StringIO()
    telemetry.configure("info", stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    structlog.reset_defaults()


def raising(error: Exception) -> Callable[[], Any]:
    async def answer() -> None:
        raise error

    return answer


async def fail(channel: grpc.aio.Channel, request_id: str = "") -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await register(channel, request_id)
    return caught.value


async def refused(site: Site, credential: pki.Credential) -> str:
    """The reason for which a call with this certificate is refused."""
    async with site.serving() as server, site.connection(server, credential) as channel:
        error = await fail(channel)
    info = error_info(error)
    return f"{error.code().name} {info.reason if info else None}"


async def test_a_listed_hospital_is_served_and_known_by_its_certificate(site: Site) -> None:
    seen = []

    async def answer() -> None:
        seen.append(current_caller())

    site.desk.answer = answer
    credential = issue(site.home.transport, site.hospital)
    async with site.serving() as server, site.connection(server, credential) as channel:
        await register(channel)
    (caller,) = seen
    assert (caller.region_code, caller.kind, caller.institution_code) == (
        "350200",
        CallerKind.HOSPITAL,
        site.hospital.institution_code,
    )
    assert caller.certificate_sha256 == credential.sha256


async def test_a_certificate_below_an_intermediate_authority_is_served(site: Site) -> None:
    intermediate = lasting_authority("350200 branch", site.home.transport)
    async with (
        site.serving() as server,
        site.connection(server, issue(intermediate, site.hospital)) as channel,
    ):
        await register(channel)


async def test_a_caller_without_certificate_gets_no_further_than_the_handshake(site: Site) -> None:
    roots = site.home.transport.certificate.public_bytes(Encoding.PEM)
    name = platform_server_name(site.home.code)
    async with site.serving() as server:
        credentials = grpc.ssl_channel_credentials(roots)
        options = [("grpc.ssl_target_name_override", name)]
        async with grpc.aio.secure_channel(server.address, credentials, options) as channel:
            error = await fail(channel)
    assert error.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_caller_of_no_known_authority_gets_no_further_than_the_handshake(
    site: Site,
) -> None:
    stranger = issue(lasting_authority("350200 transport"), site.hospital)
    assert await refused(site, stranger) == "UNAVAILABLE None"


async def test_a_common_name_grants_nothing(site: Site) -> None:
    credential = issue(site.home.transport, common_name=str(site.hospital)[:60])
    assert await refused(site, credential) == "UNAUTHENTICATED CALLER_IDENTITY_INVALID"


async def test_a_dns_name_grants_nothing(site: Site) -> None:
    credential = issue(site.home.transport, dns=("h35020000001.350200.rxoutflow",))
    assert await refused(site, credential) == "UNAUTHENTICATED CALLER_IDENTITY_INVALID"


async def test_a_certificate_with_two_names_is_nobody(site: Site) -> None:
    credential = issue(site.home.transport, site.hospital, site.home.pharmacy())
    assert await refused(site, credential) == "UNAUTHENTICATED CALLER_IDENTITY_INVALID"


async def test_the_authority_of_another_region_cannot_name_callers_of_this_one(site: Site) -> None:
    forged = issue(site.other.transport, site.hospital)
    assert await refused(site, forged) == "UNAUTHENTICATED CALLER_CERTIFICATE_UNTRUSTED"


async def test_the_authority_of_another_region_cannot_name_this_platform(site: Site) -> None:
    forged = issue(site.other.transport, site.home.platform)
    assert await refused(site, forged) == "UNAUTHENTICATED CALLER_CERTIFICATE_UNTRUSTED"


async def test_a_server_certificate_that_is_not_for_clients_does_not_call(site: Site) -> None:
    credential = issue(site.home.transport, site.hospital, usages=pki.SERVER)
    assert await refused(site, credential) == "UNAVAILABLE None"


async def test_a_pharmacy_cannot_call_what_is_for_hospitals(site: Site) -> None:
    pharmacy = site.home.pharmacy()
    site.publish()
    credential = issue(site.home.transport, pharmacy)
    assert await refused(site, credential) == "PERMISSION_DENIED CALLER_KIND_NOT_ALLOWED"


async def test_a_hospital_of_another_region_is_sent_home(site: Site) -> None:
    elsewhere = site.other.hospital()
    site.publish()
    credential = issue(site.other.transport, elsewhere)
    assert await refused(site, credential) == "PERMISSION_DENIED CALLER_REGION_NOT_ALLOWED"


async def test_an_institution_that_is_not_listed_is_refused(site: Site) -> None:
    unlisted = CallerName("350200", CallerKind.HOSPITAL, "H35020099999")
    credential = issue(site.home.transport, unlisted)
    assert await refused(site, credential) == "PERMISSION_DENIED INSTITUTION_NOT_ACTIVE"


async def test_an_institution_listed_as_another_kind_is_refused(site: Site) -> None:
    regulator = CallerName("350200", CallerKind.REGULATOR, site.hospital.institution_code)
    credential = issue(site.home.transport, regulator)
    assert await refused(site, credential) == "PERMISSION_DENIED INSTITUTION_NOT_ACTIVE"


async def test_an_institution_that_withdraws_is_refused_on_its_open_connection(site: Site) -> None:
    site.desk.answer = raising(Refusal(Reason.PRESCRIPTION_USED_UP, "nothing left"))
    async with site.serving() as server, site.connection(server) as channel:
        assert (await fail(channel)).code() is grpc.StatusCode.FAILED_PRECONDITION
        site.home.entry(site.hospital).status = Institution.STATUS_WITHDRAWN
        site.publish()
        info = error_info(await fail(channel))
    assert info is not None
    assert info.reason == "INSTITUTION_NOT_ACTIVE"
    assert info.metadata == {"institution": site.hospital.institution_code}


async def test_a_suspended_institution_still_reaches_the_application(site: Site) -> None:
    site.home.entry(site.hospital).status = Institution.STATUS_SUSPENDED
    site.publish()
    async with site.serving() as server, site.connection(server) as channel:
        await register(channel)


async def test_a_certificate_that_expires_is_refused_on_its_open_connection(site: Site) -> None:
    credential = issue(site.home.transport, site.hospital, end=in_years(1))
    async with site.serving() as server, site.connection(server, credential) as channel:
        await register(channel)
        site.clock.now = in_years(2)
        info = error_info(await fail(channel))
    assert info is not None
    assert info.reason == "CALLER_CERTIFICATE_EXPIRED"


async def test_a_certificate_that_is_denied_is_refused_on_its_open_connection(site: Site) -> None:
    credential = issue(site.home.transport, site.hospital)
    async with site.serving() as server, site.connection(server, credential) as channel:
        await register(channel)
        site.home.deny(credential.certificate)
        site.publish()
        info = error_info(await fail(channel))
    assert info is not None
    assert info.reason == "CALLER_CERTIFICATE_REVOKED"


async def test_nobody_of_a_region_whose_list_has_lapsed_is_served(site: Site) -> None:
    site.home.trust_list.expire_time.FromDatetime(in_years(1))
    site.publish()
    async with site.serving() as server, site.connection(server) as channel:
        await register(channel)
        site.clock.now = in_years(2)
        info = error_info(await fail(channel))
    assert info is not None
    assert info.reason == "CALLER_CERTIFICATE_UNTRUSTED"
    assert info.metadata["region"] == "350200"


async def test_a_region_that_joins_is_admitted_without_restart(site: Site) -> None:
    elsewhere = site.other.platform
    site.trust = site.empty_trust()
    site.publish(site.home)
    async with site.serving() as server:
        async with site.connection(server, issue(site.other.transport, elsewhere)) as channel:
            assert (await fail(channel)).code() is grpc.StatusCode.UNAVAILABLE
        site.publish(site.other)
        async with site.connection(server, issue(site.other.transport, elsewhere)) as channel:
            info = error_info(await fail(channel))
    assert info is not None
    assert info.reason == "CALLER_KIND_NOT_ALLOWED"


async def test_a_refusal_arrives_with_its_reason_and_facts(site: Site) -> None:
    site.desk.answer = raising(
        Refusal(
            Reason.PRESCRIPTION_HELD,
            "held by 泉州示范药店（合成）, 0595-5550001: ask them to release it",
            holder_name="泉州示范药店（合成）",
        )
    )
    async with site.serving() as server, site.connection(server) as channel:
        error = await fail(channel)
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert error.details() == "held by 泉州示范药店（合成）, 0595-5550001: ask them to release it"
    status = rpc_status.from_call(error)
    assert [detail.TypeName() for detail in status.details] == ["google.rpc.ErrorInfo"]
    again = refusal_of(error, "350200")
    assert isinstance(again, Refusal)
    assert (again.reason, again.message, again.detail) == (
        Reason.PRESCRIPTION_HELD,
        error.details(),
        {"holder_name": "泉州示范药店（合成）"},
    )


async def test_a_defect_is_reported_by_incident_and_never_by_what_it_says(
    site: Site, logged: Callable[[], list[dict[str, Any]]]
) -> None:
    site.desk.answer = raising(KeyError(PATIENT))
    request_id = str(uuid4())
    async with site.serving() as server, site.connection(server) as channel:
        error = await fail(channel, request_id)
    assert error.code() is grpc.StatusCode.INTERNAL
    info = error_info(error)
    assert info is not None
    incident = info.metadata["incident"]
    # gRPC's own event loop may log a line of its own beside these two.
    lines = logged()
    (defect,) = (line for line in lines if line.get("incident") == incident and "trace" in line)
    (call,) = (line for line in lines if line.get("request_id") == request_id and "code" in line)
    assert defect["exception"] == "KeyError"
    assert any(place.startswith("support.live:") for place in defect["trace"])
    assert (call["code"], call["reason"], call["request_id"]) == (
        "INTERNAL",
        "INTERNAL",
        request_id,
    )
    everything = json.dumps(logged(), ensure_ascii=False) + str(error)
    assert not any(part in everything for part in PATIENT.split())


async def test_every_call_leaves_one_line_that_says_who_and_what_came_of_it(
    site: Site, logged: Callable[[], list[dict[str, Any]]]
) -> None:
    async with site.serving() as server, site.connection(server) as channel:
        await register(channel, request_id=PATIENT)
    (line,) = logged()
    assert line.pop("timestamp")
    assert line.pop("duration_ms") > 0
    assert line == {
        "event": "call",
        "level": "info",
        "method": "/rxoutflow.v1.HospitalService/RegisterPrescription",
        "caller": site.hospital.institution_code,
        "region": "350200",
        "kind": "hospital",
        "code": "OK",
        "request_id": "[redacted]",
        "redacted": ["request_id"],
    }


async def test_a_failure_that_may_have_happened_stays_indefinite_between_regions(
    site: Site,
) -> None:
    site.desk.answer = raising(Unavailable(Reason.STORE_UNAVAILABLE, "the store is busy"))
    async with site.serving() as server, site.connection(server) as channel:
        error = await fail(channel)
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    outcome = refusal_of(error, "350200")
    assert isinstance(outcome, Unavailable)
    assert (outcome.reason, outcome.detail) == (Reason.PEER_UNAVAILABLE, {"region": "350200"})


async def test_a_handler_knows_how_much_time_its_caller_left(site: Site) -> None:
    seen = []

    async def answer() -> None:
        seen.append(remaining_seconds())

    site.desk.answer = answer
    async with site.serving() as server, site.connection(server) as channel:
        await register(channel, seconds=5)
        stub = stubs.HospitalServiceStub(channel)
        await stub.RegisterPrescription(messages.RegisterPrescriptionRequest())
    with_deadline, without = seen
    assert 3 < with_deadline <= 5
    assert 28 < without <= 30


async def test_a_call_without_deadline_still_comes_to_an_end(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rxoutflow_server.transport.interceptor.DEFAULT_SECONDS", 0.05)
    ended = []

    async def answer() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append(True)
            raise

    site.desk.answer = answer
    async with site.serving() as server, site.connection(server) as channel:
        stub = stubs.HospitalServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.RegisterPrescription(messages.RegisterPrescriptionRequest())
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert ended == [True]


async def test_one_institution_cannot_take_all_places(site: Site) -> None:
    held, release = asyncio.Event(), asyncio.Event()

    async def answer() -> None:
        held.set()
        await release.wait()

    site.desk.answer = answer
    second = site.home.hospital()
    site.publish()
    limits = CallLimits(unary=4, unary_per_caller=1)
    async with (
        site.serving(limits=limits) as server,
        site.connection(server) as channel,
        site.connection(server, issue(site.home.transport, second)) as other,
    ):
        first = asyncio.create_task(register(channel))
        await held.wait()
        error = await fail(channel)
        release.set()
        await register(other)
        await first
        await register(channel)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    status = rpc_status.from_call(error)
    retry = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(retry) for detail in status.details)
    assert retry.retry_delay.seconds > 0


async def test_what_is_under_way_bounds_what_is_taken_on(site: Site) -> None:
    held, release = asyncio.Event(), asyncio.Event()

    async def answer() -> None:
        held.set()
        await release.wait()

    site.desk.answer = answer
    second = issue(site.home.transport, site.home.hospital())
    site.publish()
    async with (
        site.serving(limits=CallLimits(unary=1)) as server,
        site.connection(server) as channel,
        site.connection(server, second) as other,
    ):
        first = asyncio.create_task(register(channel))
        await held.wait()
        info = error_info(await fail(other))
        release.set()
        await first
        await register(other)
    assert info is not None
    assert info.reason == "OVERLOADED"


class Notices:
    """A stream that sends what a test tells it to."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[None] = asyncio.Queue()
        self.closed = asyncio.Event()

    async def __call__(self) -> AsyncIterator[messages.HospitalServiceWatchNoticesResponse]:
        try:
            while True:
                await self.queue.get()
                yield messages.HospitalServiceWatchNoticesResponse()
        finally:
            self.closed.set()


WatchCall = grpc.aio.UnaryStreamCall
"""An open stream of notices."""


async def watch(channel: grpc.aio.Channel, notices: Notices) -> WatchCall[Any, Any]:
    """An open stream that has delivered its first notice."""
    call = stubs.HospitalServiceStub(channel).WatchNotices(
        messages.HospitalServiceWatchNoticesRequest()
    )
    notices.queue.put_nowait(None)
    await call.read()
    return call


async def end_of(call: WatchCall[Any, Any]) -> grpc.aio.AioRpcError:
    async with asyncio.timeout(10):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    return caught.value


async def test_a_denied_caller_gets_no_further_message_on_its_stream(site: Site) -> None:
    notices = site.desk.notices = Notices()
    credential = issue(site.home.transport, site.hospital)
    async with site.serving() as server, site.connection(server, credential) as channel:
        call = await watch(channel, notices)
        site.home.deny(credential.certificate)
        site.publish()
        notices.queue.put_nowait(None)
        info = error_info(await end_of(call))
        await notices.closed.wait()
    assert info is not None
    assert info.reason == "CALLER_CERTIFICATE_REVOKED"


async def test_a_denied_caller_loses_its_idle_stream(site: Site) -> None:
    notices = site.desk.notices = Notices()
    credential = issue(site.home.transport, site.hospital)
    async with (
        site.serving(recheck_seconds=0.01) as server,
        site.connection(server, credential) as channel,
    ):
        call = await watch(channel, notices)
        site.home.deny(credential.certificate)
        site.publish()
        info = error_info(await end_of(call))
        await notices.closed.wait()
    assert info is not None
    assert info.reason == "CALLER_CERTIFICATE_REVOKED"


async def test_streams_end_at_once_when_the_server_stops(site: Site) -> None:
    notices = site.desk.notices = Notices()
    server = site.build()
    await server.start()
    async with site.connection(server) as channel:
        call = await watch(channel, notices)
        async with asyncio.timeout(5):
            await server.stop(grace_seconds=60)
        error = await end_of(call)
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "resume token" in (error.details() or "")


async def test_a_client_that_leaves_ends_its_stream(site: Site) -> None:
    notices = site.desk.notices = Notices()
    async with site.serving() as server:
        async with site.connection(server) as channel:
            await watch(channel, notices)
        async with asyncio.timeout(5):
            await notices.closed.wait()


async def test_a_call_under_way_finishes_when_the_server_stops(site: Site) -> None:
    held, release = asyncio.Event(), asyncio.Event()

    async def answer() -> None:
        held.set()
        await release.wait()

    site.desk.answer = answer
    server = site.build()
    await server.start()
    async with site.connection(server) as channel, site.connection(server) as prober:
        health = health_pb2_grpc.HealthStub(prober).Watch(
            health_pb2.HealthCheckRequest(service=HOSPITAL_SERVICE.full_name), timeout=10
        )
        assert (await health.read()).status == health_pb2.HealthCheckResponse.SERVING
        call = asyncio.create_task(register(channel))
        await held.wait()
        stop = asyncio.create_task(server.stop(grace_seconds=60))
        assert (await health.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert not call.done()
        release.set()
        await call
        async with asyncio.timeout(5):
            await stop
        assert (await fail(channel)).code() is grpc.StatusCode.UNAVAILABLE


async def test_sigterm_stops_a_server_that_said_it_is_ready(
    site: Site, logged: Callable[[], list[dict[str, Any]]]
) -> None:
    server = site.build()
    serving = asyncio.create_task(serve(server))
    async with site.connection(server) as channel:
        await register(channel)
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(5):
            await serving
    ready, _, stopping = logged()
    assert (ready["event"], ready["address"]) == ("ready", server.address)
    assert stopping["event"] == "stopping"


async def test_health_is_told_per_service_to_authenticated_callers(site: Site) -> None:
    platform = issue(site.other.transport, site.other.platform)
    async with site.serving() as server, site.connection(server, platform) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answers = [
            await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10)
            for name in ("", HOSPITAL_SERVICE.full_name)
        ]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Check(health_pb2.HealthCheckRequest(service="other"), timeout=10)
    assert [answer.status for answer in answers] == [health_pb2.HealthCheckResponse.SERVING] * 2
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_an_unknown_method_is_not_implemented(site: Site) -> None:
    async with site.serving() as server, site.connection(server) as channel:
        unknown: Any = channel.unary_unary("/rxoutflow.v1.HospitalService/Nothing")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await unknown(b"", timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_request_beyond_one_mebibyte_is_turned_away(site: Site) -> None:
    async with site.serving() as server:
        roots = site.home.transport.certificate.public_bytes(Encoding.PEM)
        pair = key_pair(issue(site.home.transport, site.hospital))
        credentials = grpc.ssl_channel_credentials(roots, pair.key_pem, pair.certificate_pem)
        options = [("grpc.ssl_target_name_override", platform_server_name("350200"))]
        async with grpc.aio.secure_channel(server.address, credentials, options) as channel:
            error = await fail(channel, request_id="x" * (1024 * 1024 + 1))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_taken_address_is_named_with_what_to_do(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ListenError, match=f"{address}.*in use.*`listen`"):
            site.build(listen=address)


async def test_two_servers_never_share_an_address(site: Site) -> None:
    async with site.serving() as server:
        with pytest.raises(ListenError):
            site.build(listen=server.address)


async def test_a_key_of_another_certificate_is_refused_at_start(site: Site) -> None:
    other = write_pair(site.folder, "other", site.server_credential())
    site.files.key.write_bytes(other.key.read_bytes())
    with pytest.raises(KeyFileError, match=r"platform\.key: is not the key of platform\.pem"):
        site.build()


async def test_a_renewed_certificate_is_used_without_restart(site: Site) -> None:
    async with site.serving() as server:
        async with site.connection(server) as channel:
            await register(channel)
        renewed = lasting_authority("350200 transport 2027")
        site.home.transport = renewed
        site.home.trust_list.transport_anchors.append(
            renewed.certificate.public_bytes(Encoding.DER)
        )
        site.publish()
        write_pair(site.folder, "platform", site.server_credential())
        async with site.connection(server) as channel:  # trusts the new authority only
            await register(channel)


async def test_a_half_written_renewal_leaves_the_old_certificate_in_use(
    site: Site, logged: Callable[[], list[dict[str, Any]]]
) -> None:
    async with site.serving() as server:
        site.files.certificate.write_bytes(b"-----BEGIN CERT")
        async with site.connection(server) as channel:
            await register(channel)
    warning = logged()[0]
    assert (warning["event"], warning["level"]) == ("certificate_not_usable", "warning")
    assert warning["file"].endswith("platform.pem")


class TestPeerChannels:
    async def test_reach_the_platform_that_the_trust_list_names(self, site: Site) -> None:
        async with site.serving() as server:
            site.home.trust_list.endpoints[0].target = server.address
            site.publish()
            files = write_pair(
                site.folder, "peer", issue(site.other.transport, site.other.platform)
            )
            peers = PeerChannels(site.trust, files, site.clock)
            info = error_info(await fail(peers.channel("350200")))
            await peers.close()
        assert info is not None
        assert info.metadata["kind"] == "platform"

    @pytest.mark.parametrize(
        "imposter",
        [
            pytest.param(
                lambda site: issue(
                    site.home.transport,
                    site.home.platform,
                    usages=pki.SERVER,
                    dns=(platform_server_name("350500"),),
                ),
                id="vouched for by another region",
            ),
            pytest.param(
                lambda site: issue(
                    site.other.transport,
                    site.other.hospital(),
                    usages=pki.SERVER,
                    dns=("h35050000001.350500.rxoutflow",),
                ),
                id="an institution of the region",
            ),
        ],
    )
    async def test_do_not_talk_to_an_imposter(
        self, site: Site, imposter: Callable[[Site], pki.Credential]
    ) -> None:
        write_pair(site.folder, "platform", imposter(site))
        async with site.serving() as server:
            site.other.trust_list.endpoints[0].target = server.address
            site.publish()
            own = write_pair(site.folder, "own", site.server_credential())
            peers = PeerChannels(site.trust, own, site.clock)
            error = await fail(peers.channel("350500"))
            await peers.close()
        assert error.code() is grpc.StatusCode.UNAVAILABLE

    async def test_are_kept_until_endpoint_anchors_or_own_certificate_change(
        self, site: Site
    ) -> None:
        peers = PeerChannels(site.trust, site.files, site.clock)
        first = peers.channel("350500")
        site.publish()
        assert peers.channel("350500") is first
        site.other.trust_list.endpoints[0].target = "127.0.0.1:1"
        site.publish()
        second = peers.channel("350500")
        assert second is not first
        write_pair(site.folder, "platform", site.server_credential())
        third = peers.channel("350500")
        assert third is not second
        site.files.certificate.write_bytes(b"-----BEGIN CERT")
        assert peers.channel("350500") is third
        await peers.close()

    async def test_to_an_unknown_region_say_so(self, site: Site) -> None:
        peers = PeerChannels(site.trust, site.files, site.clock)
        with pytest.raises(RegionNotTrusted, match="320600"):
            peers.channel("320600")

    async def test_to_a_region_without_endpoint_say_so(self, site: Site) -> None:
        del site.other.trust_list.endpoints[:]
        site.publish()
        peers = PeerChannels(site.trust, site.files, site.clock)
        with pytest.raises(Refusal, match="names no endpoint") as caught:
            peers.channel("350500")
        assert caught.value.reason is Reason.REGION_UNKNOWN


async def test_a_call_with_too_much_metadata_is_turned_away(site: Site) -> None:
    async with site.serving() as server, site.connection(server) as channel:
        stub = stubs.HospitalServiceStub(channel)
        heavy = (("x-heavy", "x" * 20_000),)
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await stub.RegisterPrescription(
                messages.RegisterPrescriptionRequest(), metadata=heavy, timeout=5
            )
        assert failed.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await register(channel, seconds=5)
