"""What will be tried in a run, drawn from its seed before it begins.

Every prescription and every fault is drawn from a source of its own, so that leaving one out does
not change the others: that is how a failing run is made smaller. Which kinds of faults occur at all
is drawn too: a run with few kinds goes deeper into each than one in which everything goes wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from simulation.federation import CODES, LISTS, PEOPLE_EACH

KINDS = (
    "lost requests",
    "lost answers",
    "doubled",
    "stragglers",
    "cuts",
    "clogs",
    "crashes",
    "traps",
    "client crashes",
    "disk",
    "clocks",
    "far clocks",
    "trust",
    "seals",
    "suspension",
    "midnight",
)
"""Kinds of faults that can be left out."""

NEVER = 10.0**8
"""Seconds after which nothing of a run is left."""

_ALL_DAY = 24 * 3600.0
_TO_MIDNIGHT = 14.5 * 3600.0
"""From the beginning of a run, half past nine in the morning, to midnight in China."""
_TO_NEW_YEAR = 304 * _ALL_DAY + _TO_MIDNIGHT


@dataclass(frozen=True)
class Parameters:
    """Which run: enough to repeat it, and little enough to be written down.

    ``prescriptions`` and ``horizon`` cut the drawn plan short; ``without`` leaves kinds of faults
    out; ``faults`` keeps only these of the scheduled faults, by their number.
    """

    seed: int
    prescriptions: int | None = None
    visits: int | None = None
    horizon: float | None = None
    without: frozenset[str] = frozenset()
    faults: tuple[int, ...] | None = None

    def __str__(self) -> str:
        parts = [
            f"{name}={getattr(self, name)!r}"
            for name in ("seed", "prescriptions", "visits", "horizon", "faults")
            if getattr(self, name) is not None
        ]
        if self.without:
            parts.append(f"without=frozenset({sorted(self.without)!r})")
        return f"Parameters({', '.join(parts)})"


@dataclass(frozen=True)
class Visit:
    """A patient goes to a pharmacy."""

    number: int
    pharmacy: str
    delay: float
    behaviour: str
    insured: bool
    by_card: bool
    claimed: float
    committed: float
    """The parts of what is there that are claimed, and then committed; 1 is everything."""
    patience: int
    seconds: float
    """How often somebody impatient asks, and how long each time."""
    pause: float
    returned: float
    cause: int
    """The part that is brought back after a handover, and why: a DispenseReturn.Cause."""


@dataclass(frozen=True)
class Prescription:
    """A prescription that will be issued, and what is done with it."""

    number: int
    home: str
    payer: str
    person: str
    at: float
    lines: tuple[int, ...]
    valid: float
    revoked_after: float | None
    revoked_again: float | None
    """Seconds after which the hospital asks once more."""
    visits: tuple[Visit, ...]


@dataclass(frozen=True)
class Fault:
    """Something goes wrong, or is put right."""

    at: float
    kind: str
    what: str
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Plan:
    """A whole run."""

    regions: tuple[str, ...]
    begin: float
    lease: float
    overdue: float
    """After how long the operators decide on a committed attempt; never, if it is endless."""
    tick: float
    horizon: float
    kinds: frozenset[str]
    weather: dict[str, float]
    prescriptions: tuple[Prescription, ...]
    faults: tuple[Fault, ...] = field(default=())

    @property
    def pharmacies(self) -> tuple[str, ...]:
        return tuple(pharmacy_of(code, index) for code in self.regions for index in (0, 1))

    @property
    def hospitals(self) -> tuple[str, ...]:
        return tuple(hospital_of(code) for code in self.regions)


def pharmacy_of(region: str, index: int) -> str:
    return f"P{region}0000{index + 2}"


def hospital_of(region: str) -> str:
    return f"H{region}00001"


def drawn(parameters: Parameters, behaviours: dict[str, int]) -> Plan:
    """The plan of a run. ``behaviours`` are those of pharmacies, with their weights."""
    random = Random(f"{parameters.seed}:plan")
    regions = CODES[: random.choice((3, 3, 3, 4, 5))]
    kinds = frozenset(kind for kind in KINDS if random.random() < 0.4)
    horizon = random.choice((60.0, 120.0, 120.0, 180.0))
    count = random.randint(4, 7)
    begin = random.choice((_TO_MIDNIGHT, _TO_NEW_YEAR)) - random.uniform(5, 100)
    lease, tick = random.choice((20.0, 45.0, 60.0)), random.choice((3.0, 5.0))
    overdue = random.choice((10.0, 10.0, 10.0, 30.0, 90.0, NEVER))
    weather = _weather(Random(f"{parameters.seed}:weather"))
    kinds -= parameters.without
    horizon = min(horizon, parameters.horizon or horizon)
    plan = Plan(
        regions=regions,
        begin=begin if "midnight" in kinds else 0.0,
        lease=lease,
        overdue=overdue,
        tick=tick,
        horizon=horizon,
        kinds=kinds,
        weather=weather,
        prescriptions=tuple(
            _prescription(parameters, index, regions, (horizon, lease), behaviours)
            for index in range(min(count, parameters.prescriptions or count))
        ),
    )
    return replace(plan, faults=_faults(parameters, plan))


def _weather(random: Random) -> dict[str, float]:
    return {
        "lose_request": random.choice((0.01, 0.05, 0.15)),
        "lose_answer": random.choice((0.01, 0.05, 0.15)),
        "double": random.choice((0.02, 0.1)),
        "straggler": random.choice((0.02, 0.1)),
        "straggles": random.choice((1.0, 6.0, 15.0)),
        "slowest": random.choice((0.01, 0.05, 0.3, 1.0)),
    }


def _prescription(
    parameters: Parameters,
    index: int,
    regions: tuple[str, ...],
    horizon_and_lease: tuple[float, float],
    behaviours: dict[str, int],
) -> Prescription:
    horizon, lease = horizon_and_lease
    random = Random(f"{parameters.seed}:prescription {index}")
    home = random.choice(regions)
    payer = random.choice((*regions, home))
    visits = random.choice((1, 2, 2, 3, 3))
    return Prescription(
        number=index,
        home=home,
        payer=payer,
        person=f"TEST{random.randint(1, PEOPLE_EACH):04}",
        at=random.uniform(0, horizon * 0.6),
        lines=tuple(random.randint(2, 30) for _ in range(random.choice((1, 1, 2, 3)))),
        valid=random.choice((horizon * 4, horizon * 4, random.uniform(15, 60))),
        revoked_after=random.choice((None, None, random.uniform(0, horizon * 0.6))),
        revoked_again=random.choice((None, 0.5, random.uniform(0, 30))),
        visits=tuple(_visits(random, regions, lease, behaviours, visits))[: parameters.visits],
    )


def _visits(
    random: Random,
    regions: tuple[str, ...],
    lease: float,
    behaviours: dict[str, int],
    count: int,
) -> Iterator[Visit]:
    """Visits to any pharmacies, and to the same one again."""
    pharmacy = ""
    for number in range(count):
        if not pharmacy or random.random() < 0.75:
            pharmacy = pharmacy_of(random.choice(regions), random.randrange(2))
        yield _visit(random, number, pharmacy, lease, behaviours)


def _visit(
    random: Random, number: int, pharmacy: str, lease: float, behaviours: dict[str, int]
) -> Visit:
    return Visit(
        number=number,
        pharmacy=pharmacy,
        delay=random.choice((0.0, random.uniform(0, 2), random.uniform(0, 60))),
        behaviour=random.choices(list(behaviours), list(behaviours.values()))[0],
        insured=random.random() < 0.75,
        by_card=random.random() < 0.2,
        claimed=random.choice((1.0, 1.0, 1.0, random.random())),
        committed=random.choice((1.0, 1.0, 1.0, random.random())),
        patience=random.choice((1, 1, 2, 3)),
        seconds=random.choice((0.1, 0.5, 2.0, 15.0)),
        pause=random.choice(
            (0.2, random.uniform(0, 5), random.uniform(0, 70), lease * random.uniform(0.93, 1.0))
        ),
        returned=random.choice((1.0, 1.0, random.random())),
        cause=random.choice((1, 2, 4)),  # what is handed over at a counter was delivered
    )


def _faults(parameters: Parameters, plan: Plan) -> tuple[Fault, ...]:
    makers = {
        "cuts": _cuts,
        "clogs": _clogs,
        "crashes": _crashes,
        "traps": _traps,
        "client crashes": _client_crashes,
        "disk": _disk,
        "clocks": _clocks,
        "far clocks": _far_clocks,
        "trust": _trust,
        "seals": _seals,
        "suspension": _suspension,
    }
    faults: list[Fault] = []
    for kind, make in makers.items():
        if kind in plan.kinds:
            random = Random(f"{parameters.seed}:{kind}")
            faults += [replace(fault, kind=kind) for fault in make(random, plan)]
    faults.sort(key=lambda fault: (fault.at, fault.kind, fault.what))
    if parameters.faults is None:
        return tuple(faults)
    return tuple(fault for index, fault in enumerate(faults) if index in parameters.faults)


def _times(random: Random, plan: Plan, least: int, most: int) -> list[float]:
    return sorted(random.uniform(0, plan.horizon) for _ in range(random.randint(least, most)))


def _nodes(plan: Plan) -> list[str]:
    return [*plan.regions, *plan.pharmacies, *plan.hospitals]


def _cuts(random: Random, plan: Plan) -> list[Fault]:
    """One-way cuts, isolated regions, halves, and nodes cut off and joined again one by one."""
    faults = []
    for at in _times(random, plan, 1, 4):
        style = random.choice(("one way", "mute", "isolated", "halves", "swizzled", "client"))
        lasts = random.choice((1.0, 5.0, 20.0, 60.0)) * random.uniform(0.5, 1.5)
        regions = list(plan.regions)
        random.shuffle(regions)
        if style == "one way":
            pairs = [(regions[0], regions[1])]
        elif style == "mute":
            pairs = [(regions[0], other) for other in regions[1:]]
        elif style == "isolated":
            pairs = [pair for other in regions[1:] for pair in _both(regions[0], other)]
        elif style == "client":
            client = random.choice([*plan.pharmacies, *plan.hospitals])
            pairs = random.choice((_both(client, client[1:7]), [(client[1:7], client)]))
        elif style == "halves":
            middle = len(regions) // 2
            pairs = [
                pair
                for one in regions[:middle]
                for two in regions[middle:]
                for pair in _both(one, two)
            ]
        else:
            faults += _swizzled(random, regions, at, lasts)
            continue
        faults += [Fault(at, "", "cut", tuple(pairs)), Fault(at + lasts, "", "join", tuple(pairs))]
    return faults


def _swizzled(random: Random, regions: list[str], at: float, lasts: float) -> list[Fault]:
    faults = []
    chosen = regions[: random.randint(2, len(regions))]
    joined = random.sample(chosen, len(chosen))
    for index, region in enumerate(chosen):
        pairs = tuple(pair for other in regions if other != region for pair in _both(region, other))
        ends = at + lasts + 2.0 * joined.index(region)
        faults += [
            Fault(at + index * 1.5, "", "cut", pairs),
            Fault(ends + len(chosen) * 1.5, "", "join", pairs),
        ]
    return faults


def _both(one: str, other: str) -> list[tuple[str, str]]:
    return [(one, other), (other, one)]


def _clogs(random: Random, plan: Plan) -> list[Fault]:
    faults = []
    for at in _times(random, plan, 1, 3):
        node, seconds = random.choice(_nodes(plan)), random.uniform(0.5, 9.0)
        faults.append(Fault(at, "", "clog", (node, seconds)))
        faults.append(Fault(at + random.uniform(2, 30), "", "clog", (node, 0.0)))
    return faults


def _crashes(random: Random, plan: Plan) -> list[Fault]:
    return [
        Fault(at, "", random.choice(("crash", "crash", "crash after sync")), (
            random.choice(plan.regions), random.choice((0.1, 2.0, 15.0)) * random.uniform(0.5, 1.5)
        ))
        for at in _times(random, plan, 1, 5)
    ]  # fmt: skip


def _traps(random: Random, plan: Plan) -> list[Fault]:
    """Crashes after a number of steps of a node: wherever it waits then."""
    return [
        Fault(at, "", "trap", (
            random.choice(_nodes(plan)), random.randint(1, 40), random.uniform(0.1, 6.0)
        ))
        for at in _times(random, plan, 2, 7)
    ]  # fmt: skip


def _client_crashes(random: Random, plan: Plan) -> list[Fault]:
    return [
        Fault(at, "", "crash", (
            random.choice([*plan.pharmacies, *plan.hospitals]), random.uniform(0.1, 20.0)
        ))
        for at in _times(random, plan, 2, 8)
    ]  # fmt: skip


def _disk(random: Random, plan: Plan) -> list[Fault]:
    faults = []
    for at in _times(random, plan, 1, 3):
        region = random.choice(plan.regions)
        if random.random() < 0.5:
            faults.append(Fault(at, "", "disk fails", (region, random.uniform(0.5, 10.0))))
        else:
            faults.append(Fault(at, "", "disk slow", (region, random.uniform(0.5, 6.0))))
            faults.append(Fault(at + random.uniform(2, 20), "", "disk slow", (region, 0.02)))
    return faults


def _clocks(random: Random, plan: Plan) -> list[Fault]:
    """Clocks that are wrong within what is allowed, and that jump."""
    begin = [Fault(0.0, "", "clock", (node, random.uniform(-280, 280))) for node in _nodes(plan)]
    jumps = [
        Fault(at, "", "clock", (random.choice(_nodes(plan)), random.uniform(-280, 280)))
        for at in _times(random, plan, 0, 4)
    ]
    return begin + jumps


def _far_clocks(random: Random, plan: Plan) -> list[Fault]:
    """A clock that is wrong by more than ten minutes, for a while."""
    faults = []
    for at in _times(random, plan, 1, 2):
        node = random.choice(_nodes(plan))
        seconds = random.choice((-1, 1)) * random.uniform(700, 1500)
        faults.append(Fault(at, "", "clock", (node, seconds)))
        faults.append(Fault(at + random.uniform(5, 40), "", "clock", (node, 0.0)))
    return faults


def _trust(random: Random, plan: Plan) -> list[Fault]:
    """Lists come late, in any order, again, and older ones after newer ones."""
    return [
        Fault(at, "", "offer", (
            random.choice(plan.regions), random.choice(plan.regions), random.choice(LISTS[:2])
        ))
        for at in _times(random, plan, 3, 15)
    ]  # fmt: skip


def _seals(random: Random, plan: Plan) -> list[Fault]:
    """Regions begin to use their second seals; other regions hear of them sooner or later."""
    faults = []
    for region in plan.regions:
        at = random.uniform(0, plan.horizon)
        faults.append(Fault(at, "", "offer", (region, region, 2)))
        faults.append(Fault(at, "", "second seals", (region,)))
        for other in plan.regions:
            if other != region and random.random() < 0.8:
                later = at + random.choice((-1.0, 0.5, 10.0, 40.0)) * random.random()
                faults.append(Fault(max(0.0, later), "", "offer", (other, region, 2)))
    return faults


def _suspension(random: Random, plan: Plan) -> list[Fault]:
    """A pharmacy may begin nothing new for a while, and everybody hears of it at another time."""
    region = random.choice(plan.regions)
    begin = random.uniform(0, plan.horizon * 0.7)
    end = begin + random.uniform(5, 40)
    return [
        Fault(at + random.uniform(0, 15), "", "offer", (other, region, sequence))
        for other in plan.regions
        for at, sequence in ((begin, 3), (end, 4))
    ]
