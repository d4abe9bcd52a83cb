"""Three regions with all their servers, and one request to every method that would succeed.

    premises = await prepared()          # in support.ready
    call = premises.calls["/rxoutflow.v1.HomeService/GrantClaim"]
    answer = await premises.make(call)
    premises.restore()

Home, dispensing and payer region each have a platform; the home region's hospital and the
dispensing region's pharmacy have an edge. All of them are :class:`~support.doors.Door`. Every
request is kept just before it takes effect, each on a prescription of its own, so that a spoiled
copy of it meets every check on the way and not just the first. Each region also has a second
hospital and a second pharmacy, who are strangers to everything here.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from hashlib import sha256
from itertools import count
from typing import Any, cast

import grpc
from cryptography.hazmat.primitives.serialization import Encoding
from google.protobuf.message import Message

from rxoutflow.identity import CallerKind, CallerName
from rxoutflow.statements import Verifier
from rxoutflow.statements.payloads import RULES
from rxoutflow.v1 import (
    annotations_pb2,
    dispense_pb2,
    his_service_pb2,
    his_service_pb2_grpc,
    pos_service_pb2,
    pos_service_pb2_grpc,
)
from rxoutflow.v1.prescription_pb2 import Prescription
from rxoutflow.v1.statement_pb2 import ProtectedHeader, SignedStatement
from rxoutflow.v1.trust_pb2 import Institution
from rxoutflow_server.application.dispensing.exchange import Exchange
from rxoutflow_server.application.edge.surroundings import Edge
from rxoutflow_server.application.ports import PeerGateway
from rxoutflow_server.domain.errors import Reason, Unavailable
from rxoutflow_server.hospital.servicer import HisServicer
from rxoutflow_server.pharmacy.servicer import PosServicer
from rxoutflow_server.platform.changes import AnnouncingStore, Changes
from rxoutflow_server.platform.desk import Desk, RolesHere
from rxoutflow_server.platform.service import _services as platform_services
from rxoutflow_server.storage.memory import MemoryStore
from rxoutflow_server.transport.errors import refusal_of
from rxoutflow_server.transport.policy import Place
from rxoutflow_server.transport.server import Service
from support.doors import Answer, Door, connection
from support.edges import Pauses
from support.live import issue, lasting_authority
from support.pki import NOW, Credential, Region
from support.sheets import Cast
from support.world import Platform, World

HOME, DISPENSING, PAYER = "350200", "350500", "320600"
HIS, POS = "his", "pos"
State = dict[str, sqlite3.Connection]
"""Copies of stores, by name."""

STATEMENTS: Mapping[str, type[Message]] = {rule.payload_type: rule.message for rule in RULES}
"""The message of every payload type."""


@dataclass(frozen=True)
class Call:
    """A request that would succeed: at which door, by whom, to which method."""

    door: str
    caller: CallerName
    method: str
    request: Message
    variant: str = ""

    @property
    def name(self) -> str:
        """Service and method, and what is special."""
        short = self.method.removeprefix("/rxoutflow.v1.")
        return f"{short} ({self.variant})" if self.variant else short


class _Platform:
    """The platform as an edge calls it, through the platform's door."""

    def __init__(self, premises: Premises, region: str, caller: CallerName, service: str) -> None:
        self._premises = premises
        self._region = region
        self._caller = caller
        self._service = service

    async def reachable(self) -> bool:
        return True

    def __getattr__(self, name: str) -> Callable[[Message], Any]:
        method = "".join(word.capitalize() for word in name.split("_"))

        async def call(request: Message) -> Message:
            path = f"/rxoutflow.v1.{self._service}/{method}"
            call = Call(self._region, self._caller, path, request)
            answer = await self._premises.make(call)
            if answer.response is None:
                raise refusal_of(_rpc_error(answer), self._region)
            return answer.response

        return call


def _rpc_error(answer: Answer) -> grpc.aio.AioRpcError:
    """The answer as a client's library raises it."""
    assert answer.status is not None
    code = next(each for each in grpc.StatusCode if each.value[0] == answer.status.code)
    details = ("grpc-status-details-bin", answer.status.SerializeToString())
    trailing = grpc.aio.Metadata(details)
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, answer.status.message)


class _Withholding:
    """The way to other regions that keeps the calls named and does not make them."""

    def __init__(self, honest: Any, kept: dict[str, Message], withheld: set[str]) -> None:
        self._honest = honest
        self._kept = kept
        self._withheld = withheld

    def region(self, region_code: str) -> PeerGateway:
        return cast(PeerGateway, _Line(self, self._honest.region(region_code)))

    def carry(self, name: str, request: Message) -> None:
        if name in self._withheld:
            self._kept[name] = request
            raise Unavailable(Reason.PEER_UNAVAILABLE, "withheld")


class _Line:
    def __init__(self, way: _Withholding, honest: Any) -> None:
        self._way = way
        self._honest = honest

    def __getattr__(self, name: str) -> Callable[[Message], Any]:
        async def call(request: Message) -> Any:
            self._way.carry(name, request)
            return await getattr(self._honest, name)(request)

        return call


@dataclass
class Premises:
    """The servers, who may call them, and a request to every method."""

    world: World
    strangers: dict[str, Cast]
    """Of every region, a cast of its second hospital and its second pharmacy."""
    doors: dict[str, Door] = field(default_factory=dict)
    stores: dict[str, MemoryStore[Any]] = field(default_factory=dict)
    calls: dict[str, list[Call]] = field(default_factory=dict)
    _credentials: dict[CallerName, Credential] = field(default_factory=dict)
    _start: State = field(default_factory=dict)
    _writes: dict[str, int] = field(default_factory=dict)
    _withheld: set[str] = field(default_factory=set)
    _kept: dict[str, Message] = field(default_factory=dict)
    _ids: Iterator[int] = field(default_factory=lambda: count(1))

    @classmethod
    def open(cls) -> Premises:
        """All servers, with nothing stored yet."""
        world = World.create(HOME, DISPENSING, PAYER)
        for platform in world.platforms.values():
            _make_lasting(platform.cast.region)
            _make_impatient(platform)
        strangers = {code: _stranger(each.cast) for code, each in world.platforms.items()}
        premises = cls(world, strangers)
        premises.publish()
        premises._open()
        return premises

    async def remember(self) -> None:
        """Take this for the state to go back to, and check that every request would succeed."""
        self._start = self.state()
        self._writes = {name: each.connection.total_changes for name, each in self.stores.items()}
        for call in self.all_calls():
            answer = await self.make(call)
            assert answer.reason == "OK", f"{call.name}: {answer.reason} {answer.message}"
            self.restore()

    def region(self, code: str) -> Region:
        """A region's PKI and trust list."""
        return self.world.platforms[code].cast.region

    def cast(self, code: str) -> Cast:
        """The people of a region."""
        return self.world.platforms[code].cast

    def publish(self, code: str = "") -> None:
        """Bring the trust lists as they are now, or that of one region, to everybody."""
        for each in [code] if code else self.world.platforms:
            region = self.region(each)
            trust = self.world.platforms[each].region.trust
            region.trust_list.sequence += 1
            trust.offer(region.signed_list(), self.world.clock.now)

    def credential(self, name: CallerName) -> Credential:
        """The caller's TLS certificate."""
        if name not in self._credentials:
            self._credentials[name] = issue(self.region(name.region_code).transport, name)
        return self._credentials[name]

    async def make(self, call: Call, request: bytes | None = None) -> Answer:
        """Make the call, or one with other bytes in its place."""
        data = call.request.SerializeToString() if request is None else request
        seen = connection(self.credential(call.caller))
        return await self.doors[call.door].call(call.method, data, seen)

    def state(self) -> State:
        """A copy of every store."""
        return {name: _copy(store.connection) for name, store in self.stores.items()}

    def restore(self) -> None:
        """Put the stores back to where every request would succeed."""
        for name, store in self.stores.items():
            if self._touched(name):
                self._start[name].backup(store.connection)
                self._writes[name] = store.connection.total_changes
                self._forget_log(name)

    def _forget_log(self, name: str) -> None:
        """What a region's log remembers of its store is that of another state now."""
        log: Any = self.world.platforms[name].region.log if name in self.world.platforms else None
        if log is not None:
            log._signed_size = None
            log._recent.clear()

    def effects(self) -> set[str]:
        """The tables that differ from where every request would succeed, as ``store.table``."""
        touched = {name: self._start[name] for name in self.stores if self._touched(name)}
        return self.changes(touched)

    def changes(self, before: State) -> set[str]:
        """The tables that differ from a state that was taken before, as ``store.table``."""
        return {
            f"{name}.{table}"
            for name, copy in before.items()
            for table in _differing(copy, self.stores[name].connection)
        }

    def _touched(self, name: str) -> bool:
        """Whether anything was written since, be it undone."""
        return self.stores[name].connection.total_changes != self._writes[name]

    def all_calls(self) -> list[Call]:
        """Every request."""
        return [call for calls in self.calls.values() for call in calls]

    def _open(self) -> None:
        for code, platform in self.world.platforms.items():
            peers = _Withholding(platform.exchange.peers, self._kept, self._withheld)
            region = platform.region
            platform.exchange = Exchange(region, platform.store, peers, RolesHere(region))
            changes = Changes()
            announcing = replace(platform.exchange, store=AnnouncingStore(platform.store, changes))
            services = platform_services(announcing, platform.desk, changes)
            self._open_door(code, services, Place(code), platform, platform.store)
        hospital, pharmacy = self.cast(HOME).hospital, self.cast(DISPENSING).pharmacy
        his = self._edge(HOME, hospital, self.cast(HOME).hospital_seal)
        pos = self._edge(DISPENSING, pharmacy, self.cast(DISPENSING).pharmacy_seal)
        upwards: Any = _Platform(self, HOME, hospital, "HospitalService")
        service = Service(
            his_service_pb2_grpc.add_HisServiceServicer_to_server,
            HisServicer(his, upwards),
            his_service_pb2.DESCRIPTOR.services_by_name["HisService"],
        )
        place = Place(HOME, hospital.institution_code)
        self._open_door(HIS, [service], place, self.world.platforms[HOME], his.store)
        upwards = _Platform(self, DISPENSING, pharmacy, "PharmacyService")
        service = Service(
            pos_service_pb2_grpc.add_PosServiceServicer_to_server,
            PosServicer(pos, upwards),
            pos_service_pb2.DESCRIPTOR.services_by_name["PosService"],
        )
        place = Place(DISPENSING, pharmacy.institution_code)
        self._open_door(POS, [service], place, self.world.platforms[DISPENSING], pos.store)

    def _open_door(
        self, name: str, services: list[Service], place: Place, platform: Platform, store: Any
    ) -> None:
        trust = platform.region.trust
        self.doors[name] = Door(services, trust, place, self.world.clock)
        self.stores[name] = store

    def _edge(self, code: str, institution: CallerName, seal: Credential) -> Edge:
        trust = self.world.platforms[code].region.trust
        store = MemoryStore.open("edge")
        return Edge(
            institution=institution,
            trust=trust,
            verifier=Verifier(trust),
            seal=seal.signer,
            store=store,
            now=self.world.clock,
            random_bytes=lambda length: sha256(bytes([next(self._ids) % 256])).digest()[:length],
            pause=Pauses(),
        )

    async def withhold(self, name: str, work: Any) -> Any:
        """Do the work up to its call of another region, and return that call's request."""
        self._withheld.add(name)
        try:
            await work
        except Unavailable:
            return self._kept.pop(name)
        finally:
            self._withheld.clear()
        raise AssertionError(f"{name} was never called")


def people_of(cast: Cast) -> dict[bytes, Credential]:
    """Everybody who signs, by the digest of the certificate."""
    everybody = [getattr(cast, each.name) for each in fields(cast)]
    return {each.sha256: each for each in everybody if isinstance(each, Credential)}


def signers(premises: Premises) -> dict[bytes, Credential]:
    """Everybody who signs anywhere here, by the digest of the certificate."""
    casts = [*(premises.cast(code) for code in premises.world.platforms)]
    return {key: who for cast in casts for key, who in people_of(cast).items()}


def header_of(statement: SignedStatement, index: int = 0) -> ProtectedHeader:
    """A signature's header."""
    return ProtectedHeader.FromString(statement.signatures[index].protected)


def regulator(code: str) -> CallerName:
    """The supervising authority of a region."""
    return CallerName(code, CallerKind.REGULATOR, f"R{code}")


def operator(code: str) -> CallerName:
    """Somebody who runs servers in a region."""
    return CallerName(code, CallerKind.OPERATOR, f"O{code}")


def _make_impatient(platform: Platform) -> None:
    """A commitment is overdue at once, so that it can be decided on while time stands still."""
    platform.region = replace(platform.region, overdue=timedelta(0))
    platform.desk = Desk(platform.region, platform.store)


def _make_lasting(region: Region) -> None:
    """TLS certificates that pass real handshakes; a regulator and an operator."""
    region.transport = lasting_authority(f"{region.code} transport")
    der = region.transport.certificate.public_bytes(Encoding.DER)
    region.trust_list.transport_anchors[:] = [der]
    region.trust_list.expire_time.FromDatetime(NOW + timedelta(days=20))
    for name in (regulator(region.code), operator(region.code)):
        kind = annotations_pb2.CallerKind.Value(f"CALLER_KIND_{name.kind.upper()}")
        region.trust_list.institutions.append(
            Institution(
                institution_code=name.institution_code,
                kind=kind,
                name=name.institution_code,
                status=Institution.STATUS_ACTIVE,
            )
        )


def _stranger(cast: Cast) -> Cast:
    """A second hospital and a second pharmacy of the region, with people of their own."""
    region, sheet = cast.region, cast.sheet
    hospital, pharmacy = region.hospital(), region.pharmacy()
    region.entry(hospital).tier = 3
    (prescriber, _), (review, _), _ = sheet(Prescription)
    _, (dispenser, _), (checker, _), _ = sheet(dispense_pb2.DispenseRecord)
    return replace(
        cast,
        hospital=hospital,
        prescriber=region.person(hospital, "D901", prescriber),
        hospital_pharmacist=region.person(hospital, "R901", review),
        hospital_seal=region.seal(hospital),
        pharmacy=pharmacy,
        pharmacist=region.person(pharmacy, "R902", review),
        dispenser=region.person(pharmacy, "R903", dispenser),
        checker=region.person(pharmacy, "R904", checker),
        pharmacy_seal=region.seal(pharmacy),
    )


def _copy(connection: sqlite3.Connection) -> sqlite3.Connection:
    copy = sqlite3.connect(":memory:")
    connection.backup(copy)
    return copy


def _differing(before: sqlite3.Connection, after: sqlite3.Connection) -> Iterator[str]:
    """Names of the tables whose rows differ."""
    tables = before.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    for (table,) in tables:
        select = f"SELECT * FROM {table}"  # noqa: S608 - a name of our own schema
        rows = [each.execute(select).fetchall() for each in (before, after)]
        # Sorting costs twenty times as much as reading, and nearly all tables are as they were.
        if rows[0] != rows[1] and sorted(map(repr, rows[0])) != sorted(map(repr, rows[1])):
            yield table
