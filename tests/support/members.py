"""Callers of every kind, in every standing, with certificates in every state; and who lets them in.

For the authority matrix: two regions, of which one runs the servers under test, and a third one of
which nobody here holds a trust list.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cache
from types import ModuleType
from typing import Any

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass

from rxoutflow import v1
from rxoutflow.identity import CallerKind, CallerName
from rxoutflow.trust import TrustStore
from rxoutflow.v1 import annotations_pb2
from rxoutflow.v1.trust_pb2 import Institution
from rxoutflow_server.transport.server import Service
from support.live import BEGIN, END, live_region
from support.pki import CLIENT, Credential, Region

HERE, THERE, NOWHERE = "350200", "350500", "320600"

EDGE_SERVICES = ("HisService", "PosService")


def _modules() -> Iterator[tuple[ModuleType, ModuleType]]:
    """The generated modules of every file that declares a service."""
    for module in pkgutil.iter_modules(v1.__path__):
        if module.name.endswith("_service_pb2"):
            name = f"{v1.__name__}.{module.name}"
            yield importlib.import_module(name), importlib.import_module(f"{name}_grpc")


class State(StrEnum):
    """An institution's standing in its region's trust list; of a platform, its region's here."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    WITHDRAWN = "withdrawn"
    UNKNOWN = "unknown"


class Certificate(StrEnum):
    """The state of a caller's certificate."""

    VALID = "valid"
    EXPIRED = "expired"
    DENIED = "denied"


@dataclass(frozen=True)
class Member:
    """A caller in one standing with one certificate."""

    name: CallerName
    own_institution: bool
    state: State
    certificate: Certificate
    credential: Credential

    @property
    def own_region(self) -> bool:
        """Whether it is of the servers' region."""
        return self.name.region_code == HERE


class Membership:
    """All members, and the trust lists that say what they are."""

    def __init__(self, now: datetime) -> None:
        self._now = now
        self.regions = {code: live_region(code) for code in (HERE, THERE, NOWHERE)}
        self.members = list(self._institutions())
        self.members += self._platforms()
        held = [self.regions[HERE], self.regions[THERE]]
        self.trust = TrustStore({each.code: each.registry.sha256.hex() for each in held})
        for region in held:
            region.trust_list.sequence += 1
            self.trust.offer(region.signed_list(), now)

    def own(self, kind: CallerKind, state: State) -> CallerName:
        """The institution of a kind and standing that runs an edge here."""
        return next(
            each.name
            for each in self.members
            if each.name.kind is kind
            and each.own_region
            and each.own_institution
            and each.state is state
        )

    def _institutions(self) -> Iterator[Member]:
        kinds = [kind for kind in CallerKind if kind is not CallerKind.PLATFORM]
        for region in (self.regions[HERE], self.regions[THERE]):
            for kind in kinds:
                for number, state in enumerate(State, 1):
                    for own in (True, False):
                        code = f"{kind[0].upper()}{region.code}{number + (0 if own else 10):05}"
                        name = CallerName(region.code, kind, code)
                        _list(region, name, state)
                        yield from self._each(region, name, own, state)

    def _platforms(self) -> Iterator[Member]:
        for region in self.regions.values():
            state = State.UNKNOWN if region.code == NOWHERE else State.ACTIVE
            yield from self._each(region, region.platform, region.code == HERE, state)

    def _each(self, region: Region, name: CallerName, own: bool, state: State) -> Iterator[Member]:
        for certificate in Certificate:
            end = END if certificate is not Certificate.EXPIRED else self._now - timedelta(hours=1)
            credential = region.transport.issue(str(name), usages=CLIENT, begin=BEGIN, end=end)
            if certificate is Certificate.DENIED:
                region.deny(credential.certificate)
            yield Member(name, own, state, certificate, credential)


def _list(region: Region, name: CallerName, state: State) -> None:
    if state is State.UNKNOWN:
        return
    region.trust_list.institutions.append(
        Institution(
            institution_code=name.institution_code,
            kind=annotations_pb2.CallerKind.Value(f"CALLER_KIND_{name.kind.upper()}"),
            name=name.institution_code,
            designated=True,
            status=Institution.Status.Value(f"STATUS_{state.upper()}"),
        )
    )


@cache
def contract() -> dict[str, ServiceDescriptor]:
    """Every service of the contract."""
    return {
        service.name: service
        for messages, _ in _modules()
        for service in messages.DESCRIPTOR.services_by_name.values()
    }


@cache
def platform_services() -> tuple[str, ...]:
    """Names of the services of a platform."""
    return tuple(name for name in contract() if name not in EDGE_SERVICES)


@cache
def methods() -> dict[str, MethodDescriptor]:
    """Every method of the contract, as ``Service/Method``."""
    return {
        f"{service.name}/{method.name}": method
        for service in contract().values()
        for method in service.methods
    }


def welcoming(*names: str) -> list[Service]:
    """Services that answer whoever gets through to them, for tests of who does."""
    made = []
    for messages, stubs in _modules():
        for service in messages.DESCRIPTOR.services_by_name.values():
            if service.name in names:
                add: Callable[[Any, Any], None] = getattr(
                    stubs, f"add_{service.name}Servicer_to_server"
                )
                made.append(Service(add, _Welcoming(service), service))
    return made


class _Welcoming:
    """Has every method of a service."""

    def __init__(self, service: ServiceDescriptor) -> None:
        self._service = service

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = self._service.methods_by_name[name]
        response = GetMessageClass(method.output_type)

        async def answer(_request: object, _context: object) -> Any:
            return response()

        async def stream(_request: object, _context: object) -> Any:
            yield response()

        return stream if method.server_streaming else answer
