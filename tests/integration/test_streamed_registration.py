"""Registrations in bulk as hospitals and attackers meet them: a real server over mutual TLS.

The servicer is the platform's own, before a store that does what a test says; so a test decides
when something is decided. Whole platforms are in ``test_bulk_registration``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from io import StringIO
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import grpc
import pytest
import structlog
from cryptography.hazmat.primitives.serialization import Encoding

from rxoutflow.client.failures import from_rpc_error
from rxoutflow.errors import Overloaded
from rxoutflow.v1 import hospital_service_pb2 as messages
from rxoutflow.v1 import hospital_service_pb2_grpc as stubs
from rxoutflow_server import telemetry
from rxoutflow_server.domain.errors import Reason, Refusal
from rxoutflow_server.platform.changes import Changes
from rxoutflow_server.platform.servicers import MAX_STREAMED, HospitalServicer
from rxoutflow_server.transport.channels import platform_server_name
from rxoutflow_server.transport.errors import error_info
from rxoutflow_server.transport.interceptor import CallLimits
from rxoutflow_server.transport.rates import Rate
from support.doors import reason_in
from support.live import Site, issue, key_pair, register

METHOD = "/rxoutflow.v1.HospitalService/StreamRegisterPrescriptions"
Stream = grpc.aio.StreamStreamCall
"""An open stream of registrations."""


async def _agree(_number: int) -> None:
    """What the store says unless told otherwise."""


async def _meet_a_defect_in_the_first(number: int) -> None:
    if number == 1:
        raise KeyError("张三丰")


async def _never_decide_the_first(number: int) -> None:
    if number == 1:
        await asyncio.Event().wait()


async def _revoke_the_second(number: int) -> None:
    if number == 2:
        raise Refusal(Reason.PRESCRIPTION_REVOKED, "taken back")


@dataclass
class Store:
    """Decides on registrations as a test says."""

    decide: Callable[[int], Any] = _agree
    begun: int = 0
    cancelled: int = 0
    bytes_of_answer: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def transact(self, _command: object) -> messages.RegisterPrescriptionResponse:
        self.begun += 1
        self._announce()
        try:
            await self.decide(self.begun)
        except asyncio.CancelledError:
            self.cancelled += 1
            self._announce()
            raise
        response = messages.RegisterPrescriptionResponse()
        response.status.payload = bytes(self.bytes_of_answer)
        return response

    def _announce(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    async def until(self, seen: Callable[[], bool]) -> None:
        """Wait until it is so."""
        async with asyncio.timeout(10):
            while not seen():
                await self.changed.wait()


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def site(tmp_path: Path, store: Store) -> Site:
    region: Any = SimpleNamespace(log=None)
    servicer: Any = HospitalServicer(region, store, Changes())  # type: ignore[arg-type] # all it needs
    return Site(tmp_path, desk=servicer)


@pytest.fixture
def logged() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """The log lines of calls so far."""
    stream = StringIO()
    telemetry.configure("info", stream)

    def calls() -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in stream.getvalue().splitlines()]
        return [line for line in lines if line["event"] == "call"]

    yield calls
    structlog.reset_defaults()


def request_id(number: int) -> str:
    return str(UUID(int=number))


def registration(number: int, padding: int = 0) -> messages.StreamRegisterPrescriptionsRequest:
    request = messages.StreamRegisterPrescriptionsRequest()
    request.registration.request_id = request_id(number)
    request.registration.prescription.payload = bytes(padding)
    return request


def open_stream(channel: grpc.aio.Channel) -> Stream[Any, Any]:
    return stubs.HospitalServiceStub(channel).StreamRegisterPrescriptions()


async def send(stream: Stream[Any, Any], *numbers: int) -> None:
    for number in numbers:
        await stream.write(registration(number))


async def answered(stream: Stream[Any, Any]) -> str:
    """The next answer: to which registration, and what."""
    async with asyncio.timeout(10):
        answer: Any = await stream.read()
    assert answer is not grpc.aio.EOF, f"the stream ended: {await stream.code()}"
    result = reason_in(answer.error) if answer.HasField("error") else "OK"
    return f"{UUID(answer.request_id).int} {result}"


async def ended(stream: Stream[Any, Any]) -> str:
    """How the stream ended, with all its answers read."""
    async with asyncio.timeout(10):
        try:
            assert await stream.read() is grpc.aio.EOF, "there are more answers"
        except grpc.aio.AioRpcError as error:
            info = error_info(error)
            return f"{error.code().name} {info.reason if info else None}"
        return (await stream.code()).name


async def test_every_registration_is_answered_and_closing_the_sending_side_loses_none(
    site: Site,
) -> None:
    async with site.serving() as server, site.connection(server) as channel:
        stream = open_stream(channel)
        await send(stream, *range(300))
        await stream.done_writing()
        assert [await answered(stream) for _ in range(300)] == [f"{n} OK" for n in range(300)]
        assert await ended(stream) == "OK"


async def test_answers_come_in_the_order_of_the_registrations(site: Site, store: Store) -> None:
    first, second = asyncio.Event(), asyncio.Event()

    async def decide(number: int) -> None:
        if number == 1:
            await first.wait()
        second.set()

    store.decide = decide
    async with site.serving() as server, site.connection(server) as channel:
        stream = open_stream(channel)
        await send(stream, 1, 2)
        await second.wait()
        first.set()
        assert [await answered(stream), await answered(stream)] == ["1 OK", "2 OK"]


async def test_an_answer_comes_while_the_stream_is_open(site: Site) -> None:
    async with site.serving() as server, site.connection(server) as channel:
        stream = open_stream(channel)
        for number in range(3):
            await send(stream, number)
            assert await answered(stream) == f"{number} OK"
        await stream.done_writing()
        assert await ended(stream) == "OK"


async def test_what_is_refused_is_refused_alone(site: Site, store: Store) -> None:
    store.decide = _revoke_the_second
    async with site.serving() as server, site.connection(server) as channel:
        stream = open_stream(channel)
        await send(stream, 1, 2, 3)
        found = [await answered(stream) for _ in range(3)]
    assert found == ["1 OK", "2 PRESCRIPTION_REVOKED", "3 OK"]


async def test_a_defect_is_told_to_whom_it_met_and_the_stream_goes_on(
    site: Site, store: Store, logged: Callable[[], list[dict[str, Any]]]
) -> None:
    store.decide = _meet_a_defect_in_the_first
    async with site.serving() as server, site.connection(server) as channel:
        stream = open_stream(channel)
        await send(stream, 1, 2)
        assert [await answered(stream), await answered(stream)] == ["1 INTERNAL", "2 OK"]
    assert "张三丰" not in json.dumps(logged(), ensure_ascii=False)


async def test_a_registration_that_takes_too_long_is_indefinite_and_the_stream_goes_on(
    site: Site, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rxoutflow_server.transport.interceptor.DEFAULT_SECONDS", 0.05)

    store.decide = _never_decide_the_first
    async with site.serving() as server, site.connection(server) as channel:
        stream = open_stream(channel)
        await send(stream, 1, 2)
        assert [await answered(stream), await answered(stream)] == ["1 STORE_UNAVAILABLE", "2 OK"]


async def test_every_registration_leaves_a_line_and_so_does_the_stream(
    site: Site, store: Store, logged: Callable[[], list[dict[str, Any]]]
) -> None:
    store.decide = _revoke_the_second
    async with site.serving() as server, site.connection(server) as channel:
        stream = open_stream(channel)
        await send(stream, 1, 2)
        await stream.done_writing()
        for _ in range(2):
            await answered(stream)
        assert await ended(stream) == "OK"
    lines = logged()
    assert {line["method"] for line in lines} == {METHOD}
    assert {line["caller"] for line in lines} == {site.hospital.institution_code}
    assert [(line["code"], line.get("reason"), line.get("request_id")) for line in lines] == [
        ("OK", None, request_id(1)),
        ("FAILED_PRECONDITION", "PRESCRIPTION_REVOKED", request_id(2)),
        ("OK", None, None),
    ]


async def test_a_client_that_never_reads_does_not_grow_the_server(site: Site, store: Store) -> None:
    store.bytes_of_answer = 256 * 1024  # a few of them fill what lies between server and client
    most, sent = MAX_STREAMED + 40, count()

    async def pour(stream: Stream[Any, Any]) -> None:
        for number in range(1000):
            await stream.write(registration(number, padding=64 * 1024))
            next(sent)

    async with site.serving() as server, site.connection(server) as channel:
        stream = open_stream(channel)
        pouring = asyncio.create_task(pour(stream))
        await store.until(lambda: store.begun >= MAX_STREAMED)
        for _ in range(50):
            await register(channel)  # the server is at leisure, and goes no further
        assert store.begun - 50 <= most
        assert next(sent) < 1000, "the sender was not held up"
        store.bytes_of_answer = 0
        for number in range(1000):
            assert await answered(stream) == f"{number} OK"
        await pouring


async def test_who_sends_faster_than_its_rate_is_slowed_down_and_never_refused(
    site: Site, store: Store
) -> None:
    limits = CallLimits(institution_rate=Rate(per_second=500, burst=50))
    async with site.serving(limits=limits) as server, site.connection(server) as channel:
        begun = asyncio.get_running_loop().time()
        stream = open_stream(channel)
        await send(stream, *range(150))
        await stream.done_writing()
        for number in range(150):
            assert await answered(stream) == f"{number} OK"
            if number == 100:
                await register(channel)  # the stream leaves something to calls
        assert asyncio.get_running_loop().time() - begun > (150 - 50) / 500


async def in_a_batch(channel: grpc.aio.Channel, number: int) -> list[str]:
    """What becomes of so many registrations in one call."""
    requests = [registration(each).registration for each in range(number)]
    batch = messages.BatchRegisterPrescriptionsRequest(requests=requests)
    answer = await stubs.HospitalServiceStub(channel).BatchRegisterPrescriptions(batch)
    return [str(result.WhichOneof("result")) for result in answer.results]


async def test_a_batch_counts_as_many_calls_as_it_holds_and_the_next_is_told_when(
    site: Site, store: Store
) -> None:
    limits = CallLimits(institution_rate=Rate(per_second=0.1, burst=20))
    async with site.serving(limits=limits) as server, site.connection(server) as channel:
        for _ in range(2):
            assert await in_a_batch(channel, 15) == ["response"] * 15
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await in_a_batch(channel, 1)
    refusal = from_rpc_error(refused.value, "the platform")
    assert isinstance(refusal, Overloaded)
    owed, next_one = 10, 1
    assert refusal.retry_after == pytest.approx((owed + next_one) / 0.1, abs=5)
    assert store.begun == 30


async def test_a_hundred_in_a_batch_are_let_in_where_a_burst_is_smaller(site: Site) -> None:
    limits = CallLimits(institution_rate=Rate(per_second=1, burst=2))
    async with site.serving(limits=limits) as server, site.connection(server) as channel:
        assert await in_a_batch(channel, 100) == ["response"] * 100


async def test_a_batch_of_too_many_counts_as_one_call(site: Site) -> None:
    limits = CallLimits(institution_rate=Rate(per_second=0.1, burst=2))
    async with site.serving(limits=limits) as server, site.connection(server) as channel:
        for _ in range(2):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await in_a_batch(channel, 101)
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_one_institution_has_so_many_streams_and_not_more(site: Site) -> None:
    limits = CallLimits(streams_per_caller=1)
    async with site.serving(limits=limits) as server, site.connection(server) as channel:
        first = open_stream(channel)
        await send(first, 1)
        assert await answered(first) == "1 OK"
        assert await ended(open_stream(channel)) == "RESOURCE_EXHAUSTED OVERLOADED"
        await first.done_writing()
        assert await ended(first) == "OK"
        again = open_stream(channel)
        await send(again, 2)
        assert await answered(again) == "2 OK"


async def test_a_denied_caller_loses_its_idle_stream(site: Site) -> None:
    credential = issue(site.home.transport, site.hospital)
    async with (
        site.serving(recheck_seconds=0.01) as server,
        site.connection(server, credential) as channel,
    ):
        stream = open_stream(channel)
        await send(stream, 1)
        assert await answered(stream) == "1 OK"
        site.home.deny(credential.certificate)
        site.publish()
        assert await ended(stream) == "UNAUTHENTICATED CALLER_CERTIFICATE_REVOKED"


async def test_nothing_is_registered_of_what_a_denied_caller_sends(
    site: Site, store: Store
) -> None:
    credential = issue(site.home.transport, site.hospital)
    async with site.serving() as server, site.connection(server, credential) as channel:
        stream = open_stream(channel)
        await send(stream, 1)
        assert await answered(stream) == "1 OK"
        site.home.deny(credential.certificate)
        site.publish()
        await send(stream, 2)
        assert await ended(stream) == "UNAUTHENTICATED CALLER_CERTIFICATE_REVOKED"
    assert store.begun == 1


async def test_a_server_that_stops_answers_what_it_has_read(site: Site, store: Store) -> None:
    release = asyncio.Event()

    async def decide(_number: int) -> None:
        await release.wait()

    store.decide = decide
    server = site.build()
    await server.start()
    async with site.connection(server) as channel:
        stream = open_stream(channel)
        await send(stream, 1, 2)
        await store.until(lambda: store.begun == 2)
        stopping = asyncio.create_task(server.stop(grace_seconds=60))
        await asyncio.sleep(0)
        release.set()
        assert [await answered(stream), await answered(stream)] == ["1 OK", "2 OK"]
        assert await ended(stream) == "UNAVAILABLE None"
        assert "not answered" in (await stream.details())
        async with asyncio.timeout(5):
            await stopping


async def test_an_idle_stream_ends_at_once_when_the_server_stops(site: Site) -> None:
    server = site.build()
    await server.start()
    async with site.connection(server) as channel:
        stream = open_stream(channel)
        await send(stream, 1)
        assert await answered(stream) == "1 OK"
        async with asyncio.timeout(5):
            await server.stop(grace_seconds=60)
        assert await ended(stream) == "UNAVAILABLE None"


async def test_a_client_that_leaves_takes_what_is_under_way_with_it(
    site: Site, store: Store
) -> None:
    async def decide(_number: int) -> None:
        await asyncio.Event().wait()

    store.decide = decide
    async with site.serving(limits=CallLimits(streams_per_caller=1)) as server:
        async with site.connection(server) as channel:
            stream = open_stream(channel)
            await send(stream, 1, 2, 3)
            await store.until(lambda: store.begun == 3)
            stream.cancel()
            await store.until(lambda: store.cancelled == 3)
        store.decide = _agree
        async with site.connection(server) as channel:
            stream = open_stream(channel)
            await send(stream, 4)
            assert await answered(stream) == "4 OK"


@asynccontextmanager
async def unbridled(site: Site, address: str) -> AsyncIterator[grpc.aio.Channel]:
    """A channel of a client that sends what it likes."""
    roots = site.home.transport.certificate.public_bytes(Encoding.PEM)
    pair = key_pair(issue(site.home.transport, site.hospital))
    credentials = grpc.ssl_channel_credentials(roots, pair.key_pem, pair.certificate_pem)
    options = [("grpc.ssl_target_name_override", platform_server_name(site.home.code))]
    async with grpc.aio.secure_channel(address, credentials, options) as channel:
        yield channel


async def test_what_is_no_message_ends_the_stream_after_the_answers_to_what_came_before(
    site: Site,
) -> None:
    answer = messages.StreamRegisterPrescriptionsResponse.FromString
    async with site.serving() as server, unbridled(site, server.address) as channel:
        stream: Any = channel.stream_stream(METHOD, response_deserializer=answer)()
        await stream.write(registration(1).SerializeToString())
        await stream.write(b"\xff\xff")
        assert await answered(stream) == "1 OK"
        assert await ended(stream) == "INVALID_ARGUMENT FIELD_INVALID"


async def test_a_registration_beyond_one_mebibyte_ends_the_stream(site: Site, store: Store) -> None:
    async with site.serving() as server, unbridled(site, server.address) as channel:
        stream = open_stream(channel)
        await send(stream, 1)
        assert await answered(stream) == "1 OK"
        await stream.write(registration(2, padding=1024 * 1024))
        assert await ended(stream) == "RESOURCE_EXHAUSTED None"
    assert store.begun == 1


async def test_no_more_of_an_id_comes_back_than_an_id_has(site: Site) -> None:
    request = registration(1)
    request.registration.request_id = "x" * 100_000
    async with site.serving() as server, site.connection(server) as channel:
        stream = open_stream(channel)
        await stream.write(request)
        answer: Any = await stream.read()
    assert answer.request_id == "x" * 36


async def test_a_defect_in_a_batch_is_told_to_whom_it_met_and_each_leaves_a_line(
    site: Site, store: Store, logged: Callable[[], list[dict[str, Any]]]
) -> None:
    async def decide(number: int) -> None:
        await _meet_a_defect_in_the_first(number)
        await _revoke_the_second(number)

    store.decide = decide
    async with site.serving() as server, site.connection(server) as channel:
        assert await in_a_batch(channel, 3) == ["error", "error", "response"]
    lines = logged()
    assert {line["method"] for line in lines} == {METHOD.replace("Stream", "Batch")}
    told = {(line.get("request_id"), line["code"], line.get("reason")) for line in lines}
    assert told == {
        (request_id(0), "INTERNAL", "INTERNAL"),
        (request_id(1), "FAILED_PRECONDITION", "PRESCRIPTION_REVOKED"),
        (request_id(2), "OK", None),
        (None, "OK", None),
    }
    assert "张三丰" not in json.dumps(lines, ensure_ascii=False)


async def test_a_registration_in_a_batch_has_the_time_of_the_batch(
    site: Site, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rxoutflow_server.transport.interceptor.DEFAULT_SECONDS", 0.3)

    store.decide = _never_decide_the_first
    async with site.serving() as server, site.connection(server) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await in_a_batch(channel, 2)
    assert ended.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert store.begun == 2
