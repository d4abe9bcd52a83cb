"""Hospitals and pharmacies as they ought to be: what the contract asks of a client, and no more.

A client stores what it is about to ask before it asks, and the answer before it goes on. After an
indefinite error it sends the same bytes again, or asks for the outcome. A script is run again from
its beginning after a crash and passes over what is stored, so it goes on where it was.

What a client has stored survives; what it merely knew does not. What has been handed over has been
handed over, whatever anybody stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cache
from random import Random
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message

from rxoutflow.client.failures import from_rpc_error
from rxoutflow.errors import Indefinite, Overloaded, Refused
from rxoutflow.identity import CallerName
from rxoutflow.numbers import new_id
from simulation.loop import Process
from simulation.network import Reply

if TYPE_CHECKING:
    from simulation.world import World

CALL_SECONDS = 15.0
"""How long a client waits for one answer."""


@dataclass
class Case:
    """What a client has stored of one piece of its work."""

    case_id: str
    script: str
    facts: dict[str, Any]
    requests: dict[str, bytes] = field(default_factory=dict)
    answers: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    """Per step: OK and the response, or a reason and nothing."""
    end: str = ""

    def copy(self) -> Case:
        return replace(
            self,
            facts=dict(self.facts),
            requests=dict(self.requests),
            answers=dict(self.answers),
        )


class Definite(Exception):
    """A request was refused."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class GaveUp(Exception):
    """No definite answer came in the time that the client was ready to wait."""


Script = Callable[["Work"], Awaitable[str]]
Build = Callable[[], Message | Awaitable[Message]]
"""Makes the request of a step; called once, before it is stored."""


class Client:
    """One hospital or pharmacy."""

    def __init__(self, world: World, holder: CallerName, scripts: Mapping[str, Script]) -> None:
        self.name = holder.institution_code
        self.holder = holder
        self.platform = holder.region_code
        self.process: Process | None = None
        self.ahead = 0.0
        self.rolled = False
        self.trap: int | None = None
        self.trap_down = 0.0
        self.random = Random(f"{world.seed}:{self.name}")
        self.cases: dict[str, Case] = {}
        self.world = world
        self._scripts = scripts

    def now(self) -> datetime:
        """The time, as the clock here shows it."""
        return self.world.epoch + timedelta(seconds=self.world.loop.now + self.ahead)

    def new_id(self) -> str:
        return new_id(self.now(), self.random.randbytes)

    @property
    def seal_index(self) -> int:
        return 1 if self.rolled else 0

    def start(self) -> None:
        """Take up everything that is stored and not finished."""
        self.process = Process()
        self.world.note(self.name, "start")
        for case in list(self.cases.values()):
            if not case.end:
                self._run(case)

    def crash(self, down: float | None = None) -> None:
        if self.process is None or not self.process.alive:
            return
        self.trap = None
        self.world.note(self.name, "crash")
        self.process.end()
        self.world.loop.call_later(self.trap_down if down is None else down, self._restart)

    def begin(self, case: Case) -> bool:
        """Take up new work; false while nobody is there, or has time for this prescription."""
        if self.process is None or not self.process.alive or self._is_busy_with(case):
            return False
        self.cases[case.case_id] = case.copy()
        self._run(case)
        return True

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
        """Nobody calls a client."""
        raise AssertionError("a client was called")

    def _is_busy_with(self, case: Case) -> bool:
        """One prescription is dealt with at one counter at a time."""
        number = case.facts.get("number")
        return number is not None and any(
            not each.end and each.facts.get("number") == number for each in self.cases.values()
        )

    def _restart(self) -> None:
        if self.process is None or not self.process.alive:
            self.start()

    def _run(self, case: Case) -> None:
        assert self.process is not None
        work = Work(self, case.copy())
        self.world.loop.spawn(self.process, self._carry_out(work))

    async def _carry_out(self, work: Work) -> None:
        try:
            work.case.end = str(await self._scripts[work.case.script](work))
        except (Definite, GaveUp) as error:
            work.case.end = f"{type(error).__name__} {error}".strip()
        except Exception as error:  # a defect of a script, or of an answer
            self.world.fail(error)
            return
        await work.save("end")


class Work:
    """What a script works with: its case, and the way to the platform."""

    def __init__(self, client: Client, case: Case) -> None:
        self.client = client
        self.case = case
        self.world = client.world
        self.round = ""
        """Which time the patient comes, as a part of the names of steps."""

    @property
    def facts(self) -> dict[str, Any]:
        """What was known when the case began."""
        return self.case.facts

    async def save(self, step: str) -> None:
        """Store the case as it is now."""
        client = self.client
        await asyncio.sleep(client.random.uniform(0.001, 0.01))
        client.cases[self.case.case_id] = self.case.copy()
        self.world.note(client.name, "step", f"{self.case.case_id} {step}")
        client.stepped()

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def share(self, of: str) -> float:
        """The part to take: who comes again takes all that is left."""
        return 1.0 if self.round else float(self.facts[of])

    async def ask(self, step: str, path: str, build: Build, *, tries: int | None = None) -> Any:
        """The response to a request that is made once, whatever happens in between.

        Raises:
            Definite: it was refused.
            GaveUp: it was sent as often as ``tries`` says, and not answered.
        """
        case = self.case
        if step not in case.answers:
            if step not in case.requests:
                made = build()
                request = await made if isinstance(made, Awaitable) else made
                case.requests[step] = request.SerializeToString()
                await self.save(f"{step}?")
            case.answers[step] = await self._answer(path, case.requests[step], tries)
            await self.save(f"{step} {case.answers[step][0]}")
        result, response = case.answers[step]
        if result == "gave up":
            raise GaveUp(step)
        if result != "OK":
            raise Definite(result)
        return _classes(path)[1].FromString(response)

    def forget(self, step: str) -> None:
        """Let a step be done anew: it was refused, and is another one by now."""
        self.case.requests.pop(step, None)
        self.case.answers.pop(step, None)

    async def look(self, path: str, request: Message) -> Any:
        """The response to a question, or None; nothing is stored."""
        try:
            data = await self._call(path, request.SerializeToString())
        except grpc.RpcError:
            return None
        return _classes(path)[1].FromString(data)

    async def _answer(self, path: str, data: bytes, tries: int | None) -> tuple[str, bytes]:
        failures = 0
        seconds = CALL_SECONDS if tries is None else self.facts.get("seconds", CALL_SECONDS)
        while tries is None or failures < tries:
            try:
                return "OK", await self._call(path, data, seconds)
            except grpc.RpcError as error:
                failure = from_rpc_error(error, self.client.platform)
            if isinstance(failure, Refused) and not isinstance(failure, Overloaded):
                return failure.reason, b""
            assert isinstance(failure, Indefinite | Overloaded), failure
            outcome = await self._outcome(path, data)
            if outcome is not None:
                return "OK", outcome
            failures += 1
            longest = min(5.0, 0.2 * 2.0 ** min(failures, 8))
            await asyncio.sleep(longest * self.client.random.uniform(0.5, 1.0))
        return "gave up", b""

    async def _call(self, path: str, data: bytes, seconds: float = CALL_SECONDS) -> bytes:
        client = self.client
        response = await self.world.network.call(client, client.platform, path, data, seconds)
        asked, answered = _classes(path)
        self.world.answered(
            client.name,
            client.platform,
            path,
            asked.FromString(data),
            answered.FromString(response),
        )
        return response

    async def _outcome(self, path: str, data: bytes) -> bytes | None:
        """What GetOutcome says, if it is asked and knows."""
        request = _classes(path)[0].FromString(data)
        number = self.facts.get("number", "")
        if not hasattr(request, "request_id") or not number or self.client.random.random() < 0.5:
            return None
        service = path.rpartition("/")[0]
        get_outcome = f"{service}/GetOutcome"
        asked = _classes(get_outcome)[0](prescription_number=number, request_id=request.request_id)
        try:
            answer = await self._call(get_outcome, asked.SerializeToString())
        except grpc.RpcError:
            return None
        outcome = _classes(get_outcome)[1].FromString(answer).outcome
        return bytes(outcome.response.value)


@cache
def _classes(path: str) -> tuple[Any, Any]:
    """Request and response class of a method."""
    service, _, name = path.removeprefix("/").partition("/")
    method = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name]
    return (
        message_factory.GetMessageClass(method.input_type),
        message_factory.GetMessageClass(method.output_type),
    )
