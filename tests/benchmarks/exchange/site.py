"""Three regional platforms as processes of their own, and everything that a load needs to sign."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc

from rxoutflow_server.sandbox.constellation import (
    CONSTELLATION_FILE,
    DATA,
    Constellation,
    Institution,
    Region,
)
from rxoutflow_server.sandbox.layout import Layout, Prepared, prepare
from rxoutflow_server.sandbox.running import server_command
from rxoutflow_server.sandbox.supervisor import Program, Supervisor
from rxoutflow_server.sandbox.wiring import Wiring, choose_ports, platform_service, services
from support.insured import admit

RATE = "\n[limits]\ncalls_per_second = 100000\n"
CHANNELS = 4
"""HTTP/2 connections of the load to one server."""


def person_id(index: int) -> str:
    """The number of an insured person of every region."""
    return f"BENCH{index:07}"


@dataclass(frozen=True)
class Site:
    """The platforms while they run."""

    prepared: Prepared
    wiring: Wiring
    pids: dict[str, int]
    echo_port: int

    @property
    def layout(self) -> Layout:
        """Where everything is."""
        return self.prepared.layout

    @property
    def constellation(self) -> Constellation:
        """Who there is."""
        return self.prepared.constellation

    def region(self, code: str) -> Region:
        """A region by its code."""
        return next(each for each in self.constellation.regions if each.code == code)

    def institution(self, actor: str) -> tuple[Region, Institution]:
        """An institution with its region, by its name in the constellation."""
        return next(
            (region, each)
            for region in self.constellation.regions
            for each in region.institutions
            if each.actor == actor
        )

    def channels(self, actor: str) -> list[grpc.aio.Channel]:
        """Connections of an institution to the platform of its region."""
        region, institution = self.institution(actor)
        target = self.wiring.target(platform_service(region))
        return [self._channel(region, institution, target, index) for index in range(CHANNELS)]

    def echo_channels(self, actor: str) -> list[grpc.aio.Channel]:
        """Connections of an institution to the echo."""
        region, institution = self.institution(actor)
        target = f"127.0.0.1:{self.echo_port}"
        return [self._channel(region, institution, target, index) for index in range(CHANNELS)]

    def _channel(
        self, region: Region, institution: Institution, target: str, index: int
    ) -> grpc.aio.Channel:
        pki = self.layout.pki(region)
        pair = pki.client_tls(institution)
        credentials = grpc.ssl_channel_credentials(
            pki.transport_authority.certificate.read_bytes(),
            pair.key.read_bytes(),
            pair.certificate.read_bytes(),
        )
        options = [
            ("grpc.ssl_target_name_override", region.host_name),
            ("grpc.use_local_subchannel_pool", 1),
            ("rxoutflow.channel", index),
        ]
        return grpc.aio.secure_channel(target, credentials, options=options)


@contextmanager
def running_site(folder: Path, people: int, echo_region: str, postgres: str) -> Iterator[Site]:
    """Platforms and an echo in one of their regions, with so many insured in each.

    ``postgres`` is the address of a database for their records; empty: a file each.
    """
    prepared = prepare(folder / "site", datetime.now(UTC), data=_with_keys(folder / "data"))
    layout, constellation = prepared.layout, prepared.constellation
    for region in constellation.regions:
        admit(layout.insured(region), map(person_id, range(people)))
    names = [each.name for each in services(layout, constellation)]
    wiring = Wiring(layout, constellation, choose_ports(names))
    wiring.write(datetime.now(UTC))
    platforms = [each for each in services(layout, constellation) if each.role == "platform"]
    for each in platforms:
        text = each.config.read_text("utf-8")
        if postgres:
            place = f'postgres = "{postgres}"\nschema = "{each.name.replace("-", "_")}"'
            text = text.replace('path = "platform.db"', place)
        each.config.write_text(text + RATE, "utf-8")
    with Supervisor(layout.logs) as supervisor:
        supervisor.start([Program(each.name, server_command(each)) for each in platforms])
        pids = supervisor.pids()
        region = next(each for each in constellation.regions if each.code == echo_region)
        with _echo(layout, region) as (pid, port):
            yield Site(prepared, wiring, {**pids, "echo": pid}, port)


def _with_keys(folder: Path) -> Path:
    """The sandbox's data, with P-256 for everybody's signatures."""
    shutil.copytree(DATA, folder)
    file = folder / CONSTELLATION_FILE
    text = file.read_text("utf-8").replace(
        'institution_keys = "ed25519"', 'institution_keys = "p256"'
    )
    file.write_text(text, "utf-8")
    return folder


@contextmanager
def _echo(layout: Layout, region: Region) -> Iterator[tuple[int, int]]:
    pki = layout.pki(region)
    pair, roots = pki.platform_tls, pki.transport_authority.certificate
    command: list[str | Path] = [
        sys.executable,
        Path(__file__).with_name("echo.py"),
        pair.certificate,
        pair.key,
        roots,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.pid, int(process.stdout.readline())
        finally:
            process.kill()
