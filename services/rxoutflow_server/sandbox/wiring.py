"""What changes with every start: addresses, and all files that name them.

Peers find each other through signed trust lists, so the ports are chosen first and then written:
trust lists with a sequence one higher than the last, server configurations, client profiles and the
announcement. Ports lie below the range from which systems draw the ports of outgoing connections,
and all are on the loopback interface. A chosen port may be taken before its server binds it; who
starts the servers has to expect that.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rxoutflow.identity import CallerKind
from rxoutflow_server.devpki import KeyPair
from rxoutflow_server.sandbox.constellation import Constellation, Institution, Person, Region
from rxoutflow_server.sandbox.layout import Layout, SandboxError, State, write_atomically
from rxoutflow_server.sandbox.registry import sign_trust_list, trust_list

HOST = "127.0.0.1"
LEASE_SECONDS = 1800
"""How long a pharmacy may hold a prescription before it commits."""

OVERDUE_HOURS = 0
"""A commitment may be decided on at once, so that nobody has to wait to try it."""

_PORTS = range(20_000, 32_768)

Table = Mapping[str, "str | int | list[str] | Table"]


@dataclass(frozen=True, slots=True)
class Service:
    """A server process: its name, its role on the command line and its configuration."""

    name: str
    role: str
    config: Path


@dataclass(frozen=True, slots=True)
class Wiring:
    """The files of one start, for given ports by the name of the service."""

    layout: Layout
    constellation: Constellation
    ports: Mapping[str, int]

    def write(self, now: datetime) -> None:
        """Write trust lists, server configurations and client profiles.

        Args:
            now: when the trust lists are issued (aware).
        """
        self._issue_trust_lists(now)
        for region in self.constellation.regions:
            _write_toml(platform_config_file(self.layout, region), self._platform_config(region))
            for each in region.institutions:
                if each.has_edge:
                    file = edge_config_file(self.layout, each)
                    _write_toml(file, self._edge_config(file.parent, region, each))
                self._write_profile(region, each)

    def announcement(self) -> dict[str, object]:
        """The content of ``sandbox.json``."""
        return {
            "directory": str(self.layout.directory),
            "platforms": {region.code: self._platform_entry(region) for region in self._regions},
            "actors": {
                each.actor: self._actor_entry(each) for each in self.constellation.institutions
            },
        }

    def target(self, service: str) -> str:
        """The gRPC target of a service."""
        return f"{HOST}:{self.ports[service]}"

    @property
    def _regions(self) -> Sequence[Region]:
        return self.constellation.regions

    def _issue_trust_lists(self, now: datetime) -> None:
        state = State.read(self.layout.state)
        if state is None:
            raise SandboxError(f"{self.layout.state} is gone: make the sandbox anew with --fresh")
        state = state.next_sequence()
        state.write(self.layout.state)
        for region in self._regions:
            pki = self.layout.pki(region)
            target = self.target(platform_service(region))
            content = trust_list(region, pki, target, sequence=state.trust_sequence, now=now)
            signed = sign_trust_list(content, pki, now)
            write_atomically(self.layout.trust / f"{region.code}.trustlist", signed)

    def _platform_config(self, region: Region) -> Table:
        folder, pki = self.layout.platform(region), self.layout.pki(region)
        return {
            "region": region.code,
            "listen": self.target(platform_service(region)),
            "tls": _pair(pki.platform_tls, folder),
            "signing": _pair(pki.platform_seal, folder),
            "trust": self._trust(folder),
            "store": {"path": "platform.db"},
            "pickup": {"hash_key_file": _relative(self.layout.pickup_key(region), folder)},
            "reference": {
                "tariffs": _relative(self.layout.tariffs, folder),
                "catalogue": _relative(self.layout.catalogue(region), folder),
                "insured": _relative(self.layout.insured(region), folder),
            },
            "claim": {"lease_seconds": LEASE_SECONDS},
            "adjudication": {"overdue_hours": OVERDUE_HOURS},
            "trace_codes": {"registrars": [each.code for each in self._regions]},
            "log": {"level": "info"},
        }

    def _edge_config(self, folder: Path, region: Region, institution: Institution) -> Table:
        pki = self.layout.pki(region)
        return {
            "institution": institution.code,
            "region": region.code,
            "listen": self.target(institution.actor),
            "tls": _pair(pki.edge_tls(institution), folder),
            "signing": _pair(pki.seal(institution), folder),
            "trust": self._trust(folder),
            "store": {"path": "edge.db"},
            "log": {"level": "info"},
            "platform": {"target": self.target(platform_service(region))},
        }

    def _write_profile(self, region: Region, institution: Institution) -> None:
        file = self.layout.profile(institution)
        folder, pki = file.parent, self.layout.pki(region)
        roots = _relative(pki.transport_authority.certificate, folder)
        profile: dict[str, object] = {
            "actor": institution.actor,
            "kind": institution.kind,
            "region_code": region.code,
            "institution_code": institution.code,
            "institution_name": institution.name,
            "endpoint": self._endpoint(region, institution),
            "tls": {**_pair(pki.client_tls(institution), folder), "roots": roots},
            "people": {
                person.capacity: _person_entry(person, pki.person(person), folder)
                for person in institution.people
            },
            "trust": self._trust(folder),
        }
        if institution.kind is CallerKind.PHARMACY:
            profile["price_list"] = _relative(self.layout.prices(institution), folder)
        _write_json(file, profile)

    def _endpoint(self, region: Region, institution: Institution) -> Table:
        if institution.has_edge:
            return {
                "target": self.target(institution.actor),
                "server_name": institution.host_name,
            }
        return {"target": self.target(platform_service(region)), "server_name": region.host_name}

    def _trust(self, folder: Path) -> Table:
        pins = {each.code: self.layout.pki(each).registry_sha256() for each in self._regions}
        return {"folder": _relative(self.layout.trust, folder), "registry_roots": pins}

    def _platform_entry(self, region: Region) -> Table:
        return {
            "name": region.name,
            "target": self.target(platform_service(region)),
            "server_name": region.host_name,
        }

    def _actor_entry(self, institution: Institution) -> Table:
        return {
            "kind": institution.kind,
            "region_code": institution.region_code,
            "institution_code": institution.code,
            "institution_name": institution.name,
            "profile": _relative(self.layout.profile(institution), self.layout.directory),
        }


def services(layout: Layout, constellation: Constellation) -> tuple[Service, ...]:
    """Every server process of the constellation: the platforms, then the edges."""
    platforms = [
        Service(platform_service(each), "platform", platform_config_file(layout, each))
        for each in constellation.regions
    ]
    edges = [
        Service(each.actor, each.kind, edge_config_file(layout, each))
        for each in constellation.institutions
        if each.has_edge
    ]
    return (*platforms, *edges)


def platform_service(region: Region) -> str:
    """The name of a platform's process."""
    return f"platform-{region.code}"


def platform_config_file(layout: Layout, region: Region) -> Path:
    """The configuration of a platform."""
    return layout.platform(region) / "platform.toml"


def edge_config_file(layout: Layout, institution: Institution) -> Path:
    """The configuration of an institution's edge service."""
    return layout.edge(institution) / f"{institution.kind}.toml"


def choose_ports(names: Sequence[str]) -> dict[str, int]:
    """A free port for each name, chosen at random.

    Raises:
        SandboxError: there are not enough.
    """
    candidates = secrets.SystemRandom().sample(_PORTS, len(_PORTS))
    free = (port for port in candidates if is_free(port))
    ports = dict(zip(names, free, strict=False))
    if len(ports) < len(names):
        raise SandboxError("too few free ports on the loopback interface: stop other programs")
    return ports


def is_free(port: int) -> bool:
    """Whether nobody listens on the port at this moment."""
    with socket.socket() as probe:
        # as servers do, so that what is left of ended connections does not count
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _person_entry(person: Person, files: KeyPair, folder: Path) -> Table:
    return {
        "person_code": person.code,
        "name": person.name,
        "title": person.title,
        **_pair(files, folder),
    }


def _pair(files: KeyPair, folder: Path) -> Mapping[str, str]:
    return {
        "certificate": _relative(files.certificate, folder),
        "key": _relative(files.key, folder),
    }


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()


def _write_json(file: Path, content: Mapping[str, object]) -> None:
    write_atomically(file, json.dumps(content, indent=2, ensure_ascii=False).encode())


def _write_toml(file: Path, content: Table) -> None:
    write_atomically(file, to_toml(content).encode())


def to_toml(table: Table, path: str = "") -> str:
    """A table of texts, integers, lists and tables as TOML; JSON's quoted texts are TOML's too."""
    lines = [f"[{path}]"] if path else []
    tables = []
    for key, value in table.items():
        if isinstance(value, Mapping):
            tables.append(to_toml(value, f"{path}.{_key(key)}".lstrip(".")))
        else:
            lines.append(f"{_key(key)} = {json.dumps(value, ensure_ascii=False)}")
    return "\n".join([*lines, "", *tables])


def _key(key: str) -> str:
    return key if key.isidentifier() and key.isascii() else json.dumps(key)
