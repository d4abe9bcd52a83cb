"""What the demo saw: checks, refusals, prescriptions filled, scenes, clearing, the main case.

Collects while the demo runs, shows it as tables, and writes it as JSON (docs/demo-report.md).
Decides nothing but whether every check held.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from demonstration.cases import TARIFFS, Case, Figures
from rxoutflow.cli.show import yuan
from rxoutflow.client import Committed, IssuedPrescription
from rxoutflow.errors import ServerError
from rxoutflow.plain import Plain, plain, short_name
from rxoutflow.v1.dispense_pb2 import ReturnProgress
from rxoutflow.v1.notice_pb2 import Notice
from rxoutflow.v1.settlement_pb2 import Amounts
from rxoutflow.v1.trace_pb2 import TraceEvent

FORMAT = "rxoutflow-demo-report/1"


@dataclass
class Filled:
    """A prescription that was filled; ``settlement`` of ``committed`` is None if paid alone."""

    case: Case
    about: str
    issued: IssuedPrescription
    committed: Committed
    state: str = ""

    @property
    def file(self) -> str:
        """The demonstration prescription."""
        return self.case.file

    @property
    def tariff_version(self) -> str:
        """The tariff that it was settled under; empty if the patient paid alone."""
        settlement = self.committed.settlement
        return settlement.content.tariff_version if settlement else ""

    @property
    def amounts(self) -> Amounts | None:
        """What was settled, or None if the patient paid alone."""
        settlement = self.committed.settlement
        return settlement.content.amounts if settlement else None

    @property
    def regions(self) -> tuple[str, str, str]:
        """Home, dispensing and payer region."""
        attempt = self.committed.attempt.content
        payer = self.issued.prescription.content.patient.payer_region_code
        return self.issued.number.region_code, attempt.dispensing_region_code, payer


@dataclass(frozen=True)
class Returned:
    """What came back of a prescription that was filled, and the money that went back."""

    filled: Filled
    progress: ReturnProgress
    cause: str

    @property
    def done(self) -> bool:
        """Whether home has booked it and the payer has given the money back."""
        return self.progress.booked_by_home and self.progress.reversed_by_payer


@dataclass(frozen=True)
class Scene:
    """Something that was played out: each step with what came of it."""

    title: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def note(self, step: str, outcome: str) -> None:
        """Add a step."""
        self.steps.append((step, outcome))


@dataclass(frozen=True)
class Pair:
    """What a payer owes a dispensing region; ``agreed`` if both regions' lists are the same."""

    payer: str
    dispensing: str
    postings: int
    reversals: int
    owed_fen: int
    agreed: bool


@dataclass
class Report:
    """Everything that was seen, in the order in which it happened."""

    region_names: Mapping[str, str]
    filled: list[Filled] = field(default_factory=list)
    returned: list[Returned] = field(default_factory=list)
    scenes: list[Scene] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    nets: Mapping[str, int] = field(default_factory=dict)
    open_month: str = ""
    refusals: list[dict[str, Plain]] = field(default_factory=list)
    checks: list[dict[str, Plain]] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    timeline: list[TraceEvent] = field(default_factory=list)
    issued: int = 0
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether every check held."""
        return all(check["ok"] for check in self.checks)

    def scene(self, title: str) -> Scene:
        """The scene of this title, begun if there is none yet."""
        for known in self.scenes:
            if known.title == title:
                return known
        self.scenes.append(Scene(title))
        return self.scenes[-1]

    def check(self, name: str, holds: bool, detail: str = "") -> None:
        """Note whether something is as it has to be."""
        self.checks.append({"name": name, "ok": holds, "detail": detail})

    def refused(self, title: str, reason: str, call: Callable[[], object]) -> ServerError | None:
        """Call what has to be refused with this reason of the catalogue."""
        error: ServerError | None = None
        try:
            call()
        except ServerError as raised:
            error = raised
        got, words = (error.reason, error.message) if error else ("", "it was not refused")
        self.refusals.append({"title": title, "expected": reason, "reason": got, "message": words})
        self.check(f"refused: {title}", got == reason, f"expected {reason}, got {got}: {words}")
        return error

    def show(self, console: Console) -> None:
        """Print the main case, tariffs, scenes, refusals, clearing, and the verdict."""
        console.print(self._timeline(), self._prescriptions(), self._tariffs(), self._arithmetic())
        console.print(*map(_scene_table, self.scenes), self._refusals(), self._clearing())
        for check in self.checks:
            if not check["ok"]:
                console.print(f"FAILED {check['name']}: {check['detail']}", markup=False)
        held = sum(check["ok"] is True for check in self.checks)
        console.print(
            f"{self.issued} prescriptions issued, {len(self.filled)} filled, {len(self.refusals)} "
            f"attempts refused; {held}/{len(self.checks)} checks in {self.seconds:.1f} s"
        )

    def write(self, path: Path) -> None:
        """Write the report as JSON."""
        content: dict[str, Plain] = {
            "format": FORMAT,
            "ok": self.ok,
            "seconds": round(self.seconds, 1),
            "issued": self.issued,
            "prescriptions": [self._entry(each) for each in self.filled],
            "returns": [_return(each) for each in self.returned],
            "scenes": [_scene(each) for each in self.scenes],
            "clearing": {
                "pairs": [dict(vars(each)) for each in self.pairs],
                "net_fen": dict(self.nets),
                "month": self.open_month,
            },
            "refusals": list(self.refusals),
            "main_case": {
                "prescription_number": str(self.filled[0].issued.number),
                "timeline": [_step(event) for event in self.timeline],
                "notices": [_notice(each) for each in self.notices],
            },
            "checks": list(self.checks),
        }
        path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")

    def _entry(self, filled: Filled) -> dict[str, Plain]:
        home, dispensing, payer = filled.regions
        return {
            "file": filled.file,
            "about": filled.about,
            "prescription_number": str(filled.issued.number),
            "home_region": home,
            "dispensing_region": dispensing,
            "payer_region": payer,
            "hospital": filled.issued.prescription.content.issuer.institution_code,
            "pharmacy": filled.committed.attempt.content.pharmacy_code,
            "payment": "insurance" if filled.amounts else "self-pay",
            "settlement_id": filled.committed.settlement_id,
            "tariff_version": filled.tariff_version,
            "amounts": _amounts(filled.amounts),
            "by_hand": dict(filled.case.figures._asdict()) if filled.case.figures else None,
            "arithmetic": filled.case.why,
            "state": filled.state,
        }

    def _timeline(self) -> Table:
        number = self.filled[0].issued.number
        title = f"main case {number}, as its three regions stored it"
        table = _table(title, "time", "decided in", "flow", "what", "signed by", "fund", "person")
        for event in self.timeline:
            role = short_name(event, "region_role").lower()
            table.add_row(
                event.event_time.ToDatetime().strftime("%H:%M:%S.%f")[:-3],
                f"{self._region(event.region_code)} {role}",
                short_name(event, "flow").lower(),
                event.action,
                _signers(event) or event.actor_code,
                *_money(event.amounts if event.HasField("amounts") else None),
            )
        return table

    def _prescriptions(self) -> Table:
        parts = ("total", "fund", "account", "family", "cash")
        regions = ("home", "dispensing", "payer")
        table = _table("filled, in yuan", "prescription", *regions, *parts, "state")
        for each in self.filled:
            names = map(self._region, each.regions)
            table.add_row(each.file, *names, *_paid(each.amounts), each.state.lower())
        for back in self.returned:
            names = map(self._region, back.filled.regions)
            state = "given back" if back.done else "on its way back"
            amounts = back.progress.amounts
            table.add_row(f"{back.filled.file}, returned", *names, *_given_back(amounts), state)
        return table

    def _tariffs(self) -> Table:
        heads = [name.replace("_", " ") for name in Figures._fields]
        table = _table("settled as worked out by hand, in yuan", "tariff", "shows", *heads)
        for each in self._under_tariffs():
            found, by_hand = Figures.of(each.amounts or Amounts()), each.case.figures or ()
            pairs = zip(found, by_hand, strict=True)
            cells = (yuan(a) if a == b else f"{yuan(a)} not {yuan(b)}" for a, b in pairs)
            name = self._region(each.regions[2])
            table.add_row(f"{name}\n{each.tariff_version}", each.case.shows, *cells)
        return table

    def _arithmetic(self) -> Table:
        table = _table("the arithmetic", "tariff", "by hand")
        for each in self._under_tariffs():
            table.add_row(self._region(each.regions[2]), each.case.why)
        return table

    def _under_tariffs(self) -> Sequence[Filled]:
        """One settlement a tariff: the first of each case."""
        first = {each.file: each for each in reversed(self.filled)}
        return [first[case.file] for case in TARIFFS if case.file in first]

    def _clearing(self) -> Table:
        table = _table(
            "owed this month, which is not over and so not stated yet",
            *("payer", "dispensing", "posted", "reversed", "owed", "both lists"),
        )
        for each in self.pairs:
            names = self._region(each.payer), self._region(each.dispensing)
            words = "the same" if each.agreed else "DIFFER"
            counts = str(each.postings), str(each.reversals)
            table.add_row(*names, *counts, signed(each.owed_fen), words)
        table.add_section()
        for code, fen in self.nets.items():
            table.add_row(self._region(code), "net", "", "", signed(fen), "")
        table.add_row("all", "net", "", "", signed(sum(self.nets.values())), "")
        return table

    def _refusals(self) -> Table:
        table = _table("refused, as it has to be", "attempt", "reason", "message")
        for each in self.refusals:
            table.add_row(str(each["title"]), str(each["reason"]), str(each["message"]))
        return table

    def _region(self, code: str) -> str:
        return self.region_names.get(code, code)


def _scene_table(scene: Scene) -> Table:
    table = _table(scene.title, "step", "outcome")
    for step in scene.steps:
        table.add_row(*step)
    return table


def _scene(scene: Scene) -> dict[str, Plain]:
    steps: list[Plain] = [{"step": step, "outcome": outcome} for step, outcome in scene.steps]
    return {"title": scene.title, "steps": steps}


def signed(fen: int) -> str:
    """Fen as yuan with two decimals, less than nothing with a minus."""
    return f"-{yuan(-fen)}" if fen < 0 else yuan(fen)


def _table(title: str, *columns: str) -> Table:
    return Table(*columns, title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)


def _signers(event: TraceEvent) -> str:
    return "\n".join(
        f"{each.display_name} {short_name(each, 'role').lower().replace('_', ' ')}"
        for each in event.signers
    )


def _money(amounts: Amounts | None) -> Sequence[str]:
    return (yuan(amounts.pool_fen), yuan(amounts.person_fen)) if amounts else ("", "")


def _paid(amounts: Amounts | None) -> Sequence[str]:
    if amounts is None:
        return ("", "", "", "", "alone")
    parts = (amounts.total_fen, amounts.pool_fen, amounts.account_fen, amounts.family_fen)
    return tuple(map(yuan, (*parts, amounts.cash_fen)))


def _given_back(amounts: Amounts) -> Sequence[str]:
    return tuple(part if part == yuan(0) else f"-{part}" for part in _paid(amounts))


def _return(back: Returned) -> dict[str, Plain]:
    return {
        "file": back.filled.file,
        "prescription_number": str(back.filled.issued.number),
        "settlement_id": back.filled.committed.settlement_id,
        "reversal_id": back.progress.reversal_id,
        "cause": back.cause.removeprefix("CAUSE_"),
        "booked_by_home": back.progress.booked_by_home,
        "reversed_by_payer": back.progress.reversed_by_payer,
        "amounts": _amounts(back.progress.amounts if back.done else None),
    }


def _amounts(amounts: Amounts | None) -> Plain:
    if amounts is None:
        return None
    return {field.name: getattr(amounts, field.name) for field in Amounts.DESCRIPTOR.fields}


def _step(event: TraceEvent) -> dict[str, Plain]:
    return {
        "event_time": event.event_time.ToJsonString(),
        "region": event.region_code,
        "role": short_name(event, "region_role"),
        "flow": short_name(event, "flow"),
        "action": event.action,
        "actor": event.actor_code,
        "signers": [plain(signer) for signer in event.signers],
        "statement_sha256": event.statement_sha256.hex(),
        "amounts": _amounts(event.amounts) if event.HasField("amounts") else None,
    }


def _notice(notice: Notice) -> dict[str, Plain]:
    return {
        "event_time": notice.event_time.ToJsonString(),
        "kind": short_name(notice, "kind"),
        "institution_code": notice.institution_code,
        "summary": notice.summary,
    }
