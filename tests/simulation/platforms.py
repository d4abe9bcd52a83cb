"""A regional platform as a node: production code from the servicers down, on simulated ground.

What is simulated is what the composition root would bring: the clock, randomness, the disk, the
channels to other platforms, and the server that reads requests and answers with statuses. Starting
does what ``platform/service.py`` does; a crash ends everything at once and keeps what was synced.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from functools import cache
from random import Random
from typing import TYPE_CHECKING, Any

from google.protobuf import message_factory
from google.protobuf.message import Message

from rxoutflow.identity import CallerName
from rxoutflow.numbers import new_id
from rxoutflow.statements import Verifier, new_statement
from rxoutflow.trust import TrustListRefused, TrustStore
from rxoutflow.v1.statement_pb2 import SIGNER_ROLE_PLATFORM, SignedStatement
from rxoutflow_server.application.dispensing.exchange import Exchange
from rxoutflow_server.application.exchange.outbox import Pauses
from rxoutflow_server.application.log.region_log import RegionLog
from rxoutflow_server.application.region import Region
from rxoutflow_server.credential_codes import CredentialCodes
from rxoutflow_server.platform import service, tasks
from rxoutflow_server.platform.changes import AnnouncingStore, Changes
from rxoutflow_server.platform.desk import Desk, LocalPeer, RolesHere
from rxoutflow_server.platform.peers import RegionalPeers
from rxoutflow_server.transport import interceptor
from rxoutflow_server.transport.errors import status_of
from rxoutflow_server.transport.identity import Caller
from rxoutflow_server.transport.policy import Gate, Place, policies_of
from simulation import federation
from simulation.loop import Process
from simulation.network import Answer, Reply
from simulation.store import Disk, SimulatedStore, Speed, Watcher

if TYPE_CHECKING:
    from simulation.world import World

Handler = Callable[[Any, Any], Coroutine[Any, Any, Message]]

_holders: dict[tuple[object, ...], Any] = {}
"""Certificates whose paths were verified, under which list: the same in every run."""


class Platform:
    """One region's platform."""

    def __init__(self, world: World, code: str, disk: Disk, watcher: Watcher) -> None:
        self.name = code
        self.home = federation.home(code)
        self.process: Process | None = None
        self.speed = Speed()
        self.disk = disk
        self.trust = federation.trust_store(world.codes)
        self.ahead = 0.0
        """Seconds by which the clock here is ahead of the truth."""
        self.rolled = False
        """Whether the platform signs with its second seal as soon as its own list has it."""
        self.trap: int | None = None
        """After how many more things that happen here it crashes."""
        self.trap_down = 0.0
        self._world = world
        self._watcher = watcher
        self._random = Random(f"{world.seed}:{code}:store")
        self._ids = Random(f"{world.seed}:{code}:ids")
        self._jitter = Random(f"{world.seed}:{code}:jitter")
        self._callers: dict[str, Caller] = {}
        self.store: SimulatedStore | None = None
        self.lease = timedelta(seconds=world.plan.lease)

    def now(self) -> datetime:
        """The time, as the clock here shows it."""
        return self._world.epoch + timedelta(seconds=self._world.loop.now + self.ahead)

    def start(self) -> None:
        """Start from what was synced."""
        world = self._world
        process = self.process = Process()
        region = self._region()
        self.store = SimulatedStore(
            world.loop,
            process,
            self.disk,
            self.speed,
            self._random,
            self._watcher,
            self.crash,
            service.growing(region),
        )
        changes = Changes()
        store = AnnouncingStore(self.store, changes)
        desk = Desk(region, store)
        itself = LocalPeer(desk, self.home.platform)
        peers = RegionalPeers(self.name, itself, _Channels(world, self))  # type: ignore[arg-type]
        exchange = Exchange(region, store, peers, RolesHere(region))
        services = service._services(exchange, desk, changes)  # what production offers, all of it
        self._gate = Gate(Place(self.name), _policies(tuple(each.descriptor for each in services)))
        self._handlers: dict[str, tuple[Any, Handler]] = {
            path: (request, getattr(each.servicer, name))
            for each in services
            for path, name, request in _methods(each.descriptor)
        }
        self._background(exchange, changes)
        world.note(self.name, "start")

    def crash(self, down: float | None = None) -> None:
        """Stop at once; what was not synced is lost. It starts again after a while."""
        if self.process is None or not self.process.alive:
            return
        world = self._world
        self.trap = None
        world.note(self.name, "crash")
        self.process.end()
        assert self.store is not None
        self.store.lose()
        pause = self.trap_down if down is None else down
        world.loop.call_later(pause, self._restart)

    def offer(self, statement: SignedStatement) -> str:
        """Offer a trust list; what came of it. Lists are kept across crashes."""
        try:
            return str(self.trust.offer(statement, self.now()))
        except TrustListRefused as error:
            return type(error).__name__

    def stepped(self) -> None:
        """Count down to a crash that waits for a number of steps."""
        if self.trap is None:
            return
        self.trap -= 1
        if self.trap <= 0:
            self.crash()

    def serve(
        self, caller: str, method: str, request: bytes, deadline: float, reply: Reply
    ) -> Callable[[], None]:
        """Handle a request as the server and its interceptor do."""
        assert self.process is not None
        loop = self._world.loop
        work = self._handle(self._caller(caller), method, request, deadline, reply)
        task = loop.spawn(self.process, work)
        end = loop.call_at(deadline, task.cancel)
        task.add_done_callback(lambda _: end.cancel())
        return lambda: None if task.done() else _ignore(task.cancel())

    async def _handle(
        self, caller: Caller, method: str, data: bytes, deadline: float, reply: Reply
    ) -> None:
        interceptor._caller.set(caller)
        interceptor._deadline.set(deadline)
        try:
            self._gate.check(method, caller)
            request_class, handler = self._handlers[method]
            response = await handler(request_class.FromString(data), None)
        except Exception as error:
            reply(Answer(status=status_of(error)))
        else:
            reply(Answer(response.SerializeToString(deterministic=True)))

    def _caller(self, name: str) -> Caller:
        if name not in self._callers:
            holder: CallerName = self._world.holder(name)
            self._callers[name] = Caller(
                holder.region_code, holder.kind, holder.institution_code, b""
            )
        return self._callers[name]

    def _restart(self) -> None:
        if self.process is None or not self.process.alive:
            self.start()

    def _region(self) -> Region:
        home = self.home
        verifier = Verifier(self.trust)
        verifier._holders = _holders  # paths depend on region, sequence and chain alone
        return Region(
            code=self.name,
            trust=self.trust,
            verifier=verifier,
            seal=self._seal,
            now=self.now,
            new_id=lambda now: new_id(now, self._ids.randbytes),
            hash_pickup_secret=service.pickup_hasher(home.key),
            holder_of_credential=CredentialCodes(self.name, home.key).holder,
            lease=self.lease,
            tariffs=home.tariffs,
            catalogue=home.catalogue,
            overdue=timedelta(seconds=self._world.plan.overdue),
            log=RegionLog(self.name, home.seals[0], self.now),
        )

    def _seal(
        self, message: Message, *, now: datetime, audience: str | None = None
    ) -> SignedStatement:
        own = self.trust.held(self.name)
        second = self.rolled and own is not None and own.sequence >= federation.SEALS_CHANGE
        signer = self.home.seals[1 if second else 0]
        return new_statement(message, signer, SIGNER_ROLE_PLATFORM, now, audience)

    def _background(self, exchange: Exchange, changes: Changes) -> None:
        pauses, people = Pauses(), tasks.WorkForPeople(exchange)
        self._repeat(
            "outbox", lambda: tasks.deliver_facts(exchange, self._jittered, pauses), changes
        )
        self._repeat("work for people", people.tell, every=3.0)
        self._repeat("leases", lambda: tasks.end_leases(exchange))
        self._repeat("logs", lambda: tasks.watch_logs(exchange), every=10.0)
        self._repeat("commitments", lambda: tasks.finish_commitments(exchange))
        self._repeat("holds", lambda: tasks.ask_about_holds(exchange), every=20.0)

    def _jittered(self) -> float:
        return self._jitter.uniform(0.5, 1.5)

    def _repeat(
        self, name: str, work: tasks.Round, changes: Changes | None = None, *, every: float = 1.0
    ) -> None:
        """Let a background task look as often as the plan says, or ``every`` so many times."""
        assert self.process is not None
        seconds = self._world.plan.tick * every

        async def round_() -> None:
            self._world.note(self.name, "round", name)
            await work()

        self._world.loop.spawn(self.process, tasks.repeat(name, round_, changes, seconds=seconds))


def _ignore(_: object) -> None:
    return None


@cache
def _methods(descriptor: Any) -> tuple[tuple[str, str, Any], ...]:
    """Path, name and request class of a service's methods with one answer."""
    return tuple(
        (
            f"/{descriptor.full_name}/{method.name}",
            method.name,
            message_factory.GetMessageClass(method.input_type),
        )
        for method in descriptor.methods
        if not method.server_streaming
    )


@cache
def _policies(descriptors: tuple[Any, ...]) -> Any:
    return policies_of(descriptors)


class _Channels:
    """What ``PeerChannels`` is to ``RegionalPeers``: channels to regions whose list is in force."""

    def __init__(self, world: World, platform: Platform) -> None:
        self._world = world
        self._platform = platform
        self._channels: dict[str, _Channel] = {}

    def channel(self, region_code: str) -> _Channel:
        trust: TrustStore = self._platform.trust
        trust.region(region_code, self._platform.now())
        if region_code not in self._channels:
            self._channels[region_code] = _Channel(self._world, self._platform, region_code)
        return self._channels[region_code]


class _Channel:
    """What the generated stubs need of a gRPC channel."""

    def __init__(self, world: World, caller: Platform, callee: str) -> None:
        self._world = world
        self._caller = caller
        self._callee = callee
        self._methods: dict[str, Callable[..., Any]] = {}

    def unary_unary(
        self,
        path: str,
        request_serializer: Callable[[Any], bytes],
        response_deserializer: Callable[[bytes], Any],
        **_: object,
    ) -> Callable[..., Any]:
        method = self._methods.get(path)
        if method is None:
            method = self._method(path, request_serializer, response_deserializer)
            self._methods[path] = method
        return method

    def unary_stream(self, path: str, **_: object) -> None:
        """No platform opens a stream to another one."""

    def _method(
        self, path: str, serialize: Callable[[Any], bytes], parse: Callable[[bytes], Any]
    ) -> Callable[..., Any]:
        async def call(request: Message, timeout: float) -> Any:
            data = serialize(request)
            network = self._world.network
            response = parse(await network.call(self._caller, self._callee, path, data, timeout))
            self._world.answered(self._caller.name, self._callee, path, request, response)
            return response

        return call
