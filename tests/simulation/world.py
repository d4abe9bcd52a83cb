"""A run: regions, institutions, patients and faults under one virtual clock.

For as long as the plan says, prescriptions are issued, patients go to pharmacies and things go
wrong. Then everything is put right and nothing new begins: whatever was begun has to come to an
end in bounded time, and the regions have to agree (``convergence``). The first violation ends the
run at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from random import Random
from typing import Any

from rxoutflow.identity import CallerName
from rxoutflow.statements.payloads import RULES
from rxoutflow.v1 import administration_service_pb2, peer_service_pb2
from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow_server.credential_codes import CredentialCodes
from rxoutflow_server.storage.tables.transaction import PlatformTables
from simulation import convergence, federation
from simulation.behaviours import HOSPITALS, OPERATORS, PHARMACIES
from simulation.checks import Ledger
from simulation.clients import Case, Client, Script
from simulation.loop import VirtualLoop
from simulation.network import Network, Weather
from simulation.plan import Fault, Parameters, Prescription, Visit, drawn, hospital_of, pharmacy_of
from simulation.platforms import Platform
from simulation.store import Disks
from simulation.trace import Trace
from simulation.truth import Truth
from support.invariants import Answer, Violation

_ENDING_SECONDS = 900.0
"""How long after the last fault everything may take to come to its end, in virtual time."""

_DISK_SLOWEST = 0.02


class World:
    """Everything in a run."""

    def __init__(self, parameters: Parameters, disks: Disks) -> None:
        self.parameters = parameters
        self.seed = parameters.seed
        weights = {name: weight for name, (weight, _) in PHARMACIES.items()}
        self.plan = drawn(parameters, weights)
        self.codes = self.plan.regions
        self.epoch: datetime = federation.BEGINNING + timedelta(seconds=self.plan.begin)
        self.loop = VirtualLoop()
        self.trace = Trace()
        self.network = Network(self.loop, Random(f"{self.seed}:network"), self.trace)
        self.truth = Truth(self)
        self.failure: BaseException | None = None
        self.platforms: dict[str, Platform] = {}
        self.clients: dict[str, Client] = {}
        self.ledgers: dict[str, Ledger] = {}
        self.calm = False
        self.over = False
        self._visits_to_come = 0
        self._issued: dict[int, None] = {}
        for code in self.codes:
            self._add_region(code, disks)

    # what happens

    async def main(self) -> None:
        """The whole run."""
        for node in self.nodes():
            node.start()
        self._blow()
        for prescription in self.plan.prescriptions:
            self.loop.call_later(prescription.at, self._issue, prescription)
        for code in self.codes:
            operator = federation.home(code).operator.institution_code
            self.clients[operator].begin(Case(f"operator {code}", "decide", {}))
        for fault in self.plan.faults:
            self.loop.call_later(min(fault.at, self.plan.horizon), self._apply, fault)
        await asyncio.sleep(self.plan.horizon)
        self._calm_down()
        await self._come_to_an_end()
        convergence.check(self)

    def nodes(self) -> list[Platform | Client]:
        """Everybody who can crash."""
        return [*self.platforms.values(), *self.clients.values()]

    def note(self, node: str, kind: str, detail: str = "") -> None:
        """Write an event into the trace."""
        self.trace.add(self.loop.now, node, kind, detail)

    def fail(self, error: BaseException) -> None:
        """Note the first violation, and stop."""
        if self.failure is None:
            self.failure = error
            self.note("", "violation", f"{type(error).__name__}: {error}")
            self.loop.stop()

    def answered(self, caller: str, callee: str, path: str, request: Any, response: Any) -> None:
        """A client or platform has heard OK."""
        method = path.rpartition("/")[2]
        if method == "DeliverEvents":
            self._acknowledged(caller, callee, response)
        elif not method.startswith("Get") and _has_id(request):
            number, holder = _number_in(request), self.holder(caller)
            self.truth.heard.append(Answer(callee, number, holder, path, request, response))

    def set_aside(self, letter: administration_service_pb2.DeadLetter) -> None:
        """An operator finds an event that another region refused: nothing here explains that."""
        self.fail(Violation("I14", f"an event was set aside: {letter.error}"))

    def registered(self, index: int, number: str, secret: str) -> None:
        """A hospital gives a pickup code to the patient, who goes to pharmacies."""
        if index in self._issued:
            return
        self._issued[index] = None
        (plan,) = (each for each in self.plan.prescriptions if each.number == index)
        for visit in plan.visits:
            self._visits_to_come += 1
            self.loop.call_later(visit.delay, self._arrive, plan, visit, number, secret)

    def holder(self, name: str) -> CallerName:
        """Whose certificate a node shows."""
        if name in self.platforms:
            return self.platforms[name].home.platform
        return self.clients[name].holder

    def credential_code(self, payer: str, person: str) -> str:
        """What the insured's app shows, which has the right time."""
        now = self.epoch + timedelta(seconds=self.loop.now)
        return CredentialCodes(payer, federation.home(payer).key).show(person, now)

    # building

    def _add_region(self, code: str, disks: Disks) -> None:
        home = federation.home(code)
        disk = disks.make(code)
        opening = {person.insured_person_id: person for person in federation.people(code)}
        disk.writer.execute("BEGIN")
        for person in opening.values():
            PlatformTables(disk.writer).payer.add_person(person)
        disk.writer.execute("COMMIT")
        ledger = self.ledgers[code] = Ledger(self, code, opening)
        ledger.read_from(disk.reader)
        self.platforms[code] = Platform(self, code, disk, ledger)
        self._add_client(home.hospital.name, HOSPITALS)
        self._add_client(home.operator, OPERATORS)
        scripts = {name: script for name, (_, script) in PHARMACIES.items()}
        for pharmacy in home.pharmacies:
            self._add_client(pharmacy.name, scripts)
        self.network.nodes.update(self.platforms)
        self.network.nodes.update(self.clients)

    def _add_client(self, holder: CallerName, scripts: Mapping[str, Script]) -> None:
        self.clients[holder.institution_code] = Client(self, holder, scripts)

    def _issue(self, plan: Prescription) -> None:
        client = self.clients[hospital_of(plan.home)]
        facts = {
            "index": plan.number,
            "payer": plan.payer,
            "person": plan.person,
            "lines": plan.lines,
            "valid": plan.valid,
            "revoked_after": plan.revoked_after,
            "revoked_again": plan.revoked_again,
        }
        if not client.begin(Case(f"rx{plan.number}", "issue", facts)):
            self.loop.call_later(2.0, self._issue, plan)

    def _arrive(self, plan: Prescription, visit: Visit, number: str, secret: str) -> None:
        client = self.clients[visit.pharmacy]
        facts = {
            "number": number,
            "secret": secret,
            "payer": plan.payer,
            "person": plan.person,
            "lines": plan.lines,
            "insured": visit.insured,
            "by_card": visit.by_card,
            "claimed": visit.claimed,
            "committed": visit.committed,
            "patience": visit.patience,
            "seconds": visit.seconds,
            "pause": visit.pause,
            "returned": visit.returned,
            "cause": visit.cause,
        }
        case = Case(f"rx{plan.number}.{visit.number}", visit.behaviour, facts)
        if client.begin(case):
            self._visits_to_come -= 1
        else:
            self.loop.call_later(2.0, self._arrive, plan, visit, number, secret)

    def _acknowledged(
        self, caller: str, callee: str, response: peer_service_pb2.DeliverEventsResponse
    ) -> None:
        for each in response.acknowledgements:
            if not each.HasField("error"):
                self.truth.acknowledged.append((caller, callee, each.event_id))

    # faults

    def _blow(self) -> None:
        """Let the network be as bad as the plan says."""
        kinds, weather = self.plan.kinds, self.plan.weather
        self.network.weather = Weather(
            slowest=weather["slowest"],
            lose_request=weather["lose_request"] if "lost requests" in kinds else 0.0,
            lose_answer=weather["lose_answer"] if "lost answers" in kinds else 0.0,
            double=weather["double"] if "doubled" in kinds else 0.0,
            straggler=weather["straggler"] if "stragglers" in kinds else 0.0,
            straggles=weather["straggles"],
        )

    def _apply(self, fault: Fault) -> None:
        """Let a fault happen, or be put right."""
        if self.calm:
            return
        shown = [each for each in fault.arguments if not isinstance(each, tuple)]
        self.note("", "fault", f"{fault.what} {shown or len(fault.arguments)}")
        _FAULTS[fault.what](self, *fault.arguments)

    def node(self, name: str) -> Platform | Client:
        return self.platforms.get(name) or self.clients[name]

    def cut(self, *pairs: tuple[str, str]) -> None:
        self.network.cuts.update(dict.fromkeys(pairs))

    def join(self, *pairs: tuple[str, str]) -> None:
        for pair in pairs:
            self.network.cuts.pop(pair, None)

    def clog(self, name: str, seconds: float) -> None:
        self.network.clogged[name] = seconds

    def crash(self, name: str, down: float) -> None:
        self.node(name).crash(down)

    def crash_after_sync(self, name: str, down: float) -> None:
        platform = self.platforms[name]
        platform.trap_down, platform.speed.crash_after_sync = down, True

    def trap(self, name: str, steps: int, down: float) -> None:
        node = self.node(name)
        node.trap, node.trap_down = steps, down

    def disk_fails(self, name: str, down: float) -> None:
        platform = self.platforms[name]
        platform.trap_down, platform.speed.fails = down, True

    def disk_slow(self, name: str, slowest: float) -> None:
        self.platforms[name].speed.slowest = slowest

    def clock(self, name: str, ahead: float) -> None:
        self.node(name).ahead = ahead

    def offer(self, name: str, region: str, sequence: int) -> None:
        self._offer(name, region, sequence)

    def second_seals(self, region: str) -> None:
        for name in (region, pharmacy_of(region, 0), pharmacy_of(region, 1)):
            self.node(name).rolled = True

    def _offer(self, name: str, region: str, sequence: int) -> None:
        platform = self.platforms[name]
        held = platform.trust.held(region)
        before = held.sequence if held is not None else 0
        came_of_it = platform.offer(federation.home(region).lists[sequence])
        after = platform.trust.held(region)
        self.note(name, "offered", f"{region} {sequence}: {came_of_it}")
        if after is None or after.sequence < before:
            self.fail(Violation("I10", "an older trust list took the place of a newer one"))

    # the end

    def _calm_down(self) -> None:
        """Put everything right."""
        self.calm = True
        self.note("", "calm")
        self.network.cuts.clear()
        self.network.clogged.clear()
        self.network.weather = Weather()
        random = Random(f"{self.seed}:calm")
        for platform in self.platforms.values():
            speed = platform.speed
            speed.slowest, speed.fails, speed.crash_after_sync = _DISK_SLOWEST, False, False
            for region in self.codes:
                self._offer(platform.name, region, federation.LISTS[-1])
        for node in self.nodes():
            node.trap = None
            node.ahead = max(-100.0, min(100.0, node.ahead)) if random.random() < 0.5 else 0.0

    async def _come_to_an_end(self) -> None:
        """Wait until nothing is left to be done.

        Raises:
            Violation: I14, because something is, for too long.
        """
        begin = self.loop.now
        # A clock that was ahead lets its region's outbox wait until the time that it showed.
        begin += max(
            (abs(fault.arguments[1]) for fault in self.plan.faults if fault.what == "clock"),
            default=0.0,
        )
        while left := self._left():
            if self.loop.now > begin + _ENDING_SECONDS:
                raise Violation("I14", f"not at an end after {_ENDING_SECONDS} seconds: {left}")
            await asyncio.sleep(2.0)

    def _left(self) -> str:
        """What is still to be done."""
        if self._visits_to_come or len(self._issued) + self._refused() < len(
            self.plan.prescriptions
        ):
            return "patients are still to come"
        for client in self.clients.values():
            for case in client.cases.values():
                if not case.end and case.script not in OPERATORS:
                    return f"{client.name} works on {case.case_id} ({case.script})"
        return convergence.unfinished(self)

    def _refused(self) -> int:
        """Prescriptions that were never registered."""
        return sum(
            1
            for client in self.clients.values()
            for case in client.cases.values()
            if case.script == "issue" and case.end and case.facts["index"] not in self._issued
        )


def _has_id(request: Any) -> bool:
    """Whether the outcome of a request has to be stored."""
    return "request_id" in request.DESCRIPTOR.fields_by_name


_TYPES = {rule.payload_type: rule.message for rule in RULES}


def _number_in(request: Any) -> str:
    """The prescription that a request is about: that of the statement in it."""
    for field, value in request.ListFields():
        if field.message_type is SignedStatement.DESCRIPTOR:
            content: Any = _TYPES[value.payload_type].FromString(value.payload)
            return str(content.prescription_number)
    raise AssertionError(f"{request.DESCRIPTOR.name} has no statement")


_FAULTS: dict[str, Callable[..., None]] = {
    "cut": World.cut,
    "join": World.join,
    "clog": World.clog,
    "crash": World.crash,
    "crash after sync": World.crash_after_sync,
    "trap": World.trap,
    "disk fails": World.disk_fails,
    "disk slow": World.disk_slow,
    "clock": World.clock,
    "offer": World.offer,
    "second seals": World.second_seals,
}
