"""Several processes of a platform on one port and one database, over real mutual TLS.

Each is replaced under load without a failed call; one that is killed is replaced by itself, while
the clients' usual repetition covers what was under way; all end with the process that watches them.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest

from benchmarks.exchange.load import Call
from benchmarks.exchange.site import RATE, Site
from benchmarks.exchange.work import Job
from rxoutflow.client import DirectHospitalClient, Registered
from rxoutflow.profile import Endpoint, load_profile
from rxoutflow_server.sandbox.layout import prepare
from rxoutflow_server.sandbox.running import server_command
from rxoutflow_server.sandbox.wiring import Wiring, choose_ports, services
from support.postgres import fresh_schema
from support.sandbox import eventually

REGION, HOSPITAL = "350500", "quanzhou-hospital"
SCHEMA = "workers"
WORKERS = 2
AT_ONCE = 8

pytestmark = pytest.mark.timeout(120)


@dataclass
class Running:
    """A platform of several processes, and a hospital that knows it."""

    process: subprocess.Popen[bytes]
    log: Path
    job: Job
    site: Site

    def hospital(self) -> DirectHospitalClient:
        """The hospital with a sealing service of its own."""
        region, institution = self.site.institution(HOSPITAL)
        endpoint = Endpoint(self.site.wiring.target(f"platform-{REGION}"), region.host_name)
        profile = load_profile(self.site.layout.profile(institution))
        return DirectHospitalClient(replace(profile, endpoint=endpoint))

    def said(self, event: str) -> int:
        """How often it has been said in the log."""
        lines, _, _ = self.log.read_text("utf-8").rpartition("\n")  # the last may be half written
        return sum(
            json.loads(each)["event"] == event
            for each in lines.splitlines()
            if each.startswith("{")
        )

    def workers(self) -> set[int]:
        """The processes that are watched."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return {int(each) for each in children.read_text("ascii").split()}


@contextmanager
def running(folder: Path) -> Iterator[Running]:
    """A region's platform in two processes."""
    address = fresh_schema(SCHEMA)
    prepared = prepare(folder, datetime.now(UTC))
    layout, constellation = prepared.layout, prepared.constellation
    all_of_them = services(layout, constellation)
    wiring = Wiring(layout, constellation, choose_ports([each.name for each in all_of_them]))
    wiring.write(datetime.now(UTC))
    service = next(each for each in all_of_them if each.name == f"platform-{REGION}")
    text = service.config.read_text("utf-8")
    place = f'postgres = "{address}"\nschema = "{SCHEMA}"'
    text = f"workers = {WORKERS}\n" + text.replace('path = "platform.db"', place)
    service.config.write_text(text + RATE, "utf-8")
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(server_command(service), stdout=output, stderr=output)
    site = Site(prepared, wiring, {}, 0)
    job = Job(site, HOSPITAL, "quanzhou-pharmacy", REGION)
    started = Running(process, log, job, site)
    try:
        eventually(lambda: started.said("workers_ready"), "the workers are ready")
        yield started
    finally:
        process.terminate()
        process.wait(30)


WORTH_REPEATING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
"""What a server that is about to end says of calls that reach it then."""
PAUSES = (0.1, 0.2, 0.4, 0.8, 1.6)
"""Seconds before a call is repeated: longer than gRPC leaves an address alone that failed once."""


class Load:
    """Registers prescriptions, one after the other in each of a few tasks, until told to end."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._index = iter(range(1_000_000))
        self.registered = 0
        self.failures: list[grpc.aio.AioRpcError] = []
        self.ending = False

    async def work(self) -> None:
        while not self.ending:
            call = self._job.register(self._job.case(next(self._index)))
            try:
                await self._repeated(call)
            except grpc.aio.AioRpcError as error:
                self.failures.append(error)
            else:
                self.registered += 1

    async def _repeated(self, call: Call) -> None:
        """Make a call, and again after each pause as long as that may help."""
        for pause in PAUSES:
            try:
                await call()
            except grpc.aio.AioRpcError as error:
                if error.code() not in WORTH_REPEATING:
                    raise
                await asyncio.sleep(pause)
            else:
                return
        await call()


async def under_load(platform: Running, happening: Any) -> Load:
    """What a load meets while something happens."""
    load = Load(platform.job)
    tasks = [asyncio.create_task(load.work()) for _ in range(AT_ONCE)]
    try:
        while load.registered < 5 * AT_ONCE:
            await asyncio.sleep(0.05)
        await happening()
        seen = load.registered
        while load.registered < seen + 5 * AT_ONCE and not load.failures:
            await asyncio.sleep(0.05)
    finally:
        load.ending = True
        await asyncio.gather(*tasks)
    return load


async def test_processes_are_replaced_under_load_without_a_failed_call_and_a_killed_one_too(
    tmp_path: Path,
) -> None:
    with running(tmp_path) as platform:
        before = platform.workers()
        assert len(before) == WORKERS

        async def replaced() -> None:
            platform.process.send_signal(signal.SIGHUP)
            while not platform.said("workers_replaced"):
                await asyncio.sleep(0.05)

        load = await under_load(platform, replaced)
        assert load.failures == []
        fresh = platform.workers()
        assert len(fresh) == WORKERS
        assert not before & fresh

        async def killed() -> None:
            os.kill(min(fresh), signal.SIGKILL)
            while len(platform.workers() - {min(fresh)}) < WORKERS or platform.said("ready") < 5:
                await asyncio.sleep(0.05)

        load = await under_load(platform, killed)
        assert load.failures == []
        left = platform.workers()
        platform.process.terminate()
        assert platform.process.wait(30) == 0
    assert not [pid for pid in left if Path(f"/proc/{pid}").exists()]


async def test_registrations_over_a_stream_go_on_while_processes_are_replaced(
    tmp_path: Path,
) -> None:
    with running(tmp_path) as platform:
        before = platform.workers()
        ending = asyncio.Event()

        def registrations() -> Iterator[Any]:
            while not ending.is_set():
                yield platform.job.case().registration

        def register() -> list[Registered]:
            results = []
            with platform.hospital() as hospital:
                for each in hospital.register_all(registrations()):
                    results.append(each)
                    if len(results) == 50:
                        platform.process.send_signal(signal.SIGHUP)
                    if platform.said("workers_replaced"):
                        ending.set()
            return results

        results = await asyncio.to_thread(register)
        assert [each.failure for each in results if each.failure] == []
        numbers = {each.status.content.prescription_number for each in results if each.status}
        assert len(numbers) == len(results) > 50
        assert not before & platform.workers()
