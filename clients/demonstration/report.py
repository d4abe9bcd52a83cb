"""What the demo saw: checks, refusals, prescriptions filled, the timeline of the main case.

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

from rxoutflow.cli.show import yuan
from rxoutflow.client import Committed, IssuedPrescription
from rxoutflow.errors import ServerError
from rxoutflow.plain import Plain, plain, short_name
from rxoutflow.v1.notice_pb2 import Notice
from rxoutflow.v1.settlement_pb2 import Amounts
from rxoutflow.v1.supervision_service_pb2 import TraceEvent

FORMAT = "rxoutflow-demo-report/1"


@dataclass
class Filled:
    """A prescription that was filled; ``settlement`` of ``committed`` is None if paid alone."""

    file: str
    about: str
    issued: IssuedPrescription
    committed: Committed
    state: str = ""

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


@dataclass
class Report:
    """Everything that was seen, in the order in which it happened."""

    region_names: Mapping[str, str]
    filled: list[Filled] = field(default_factory=list)
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
        """Print the timeline of the main case, what was filled and refused, and the verdict."""
        console.print(self._timeline(), self._prescriptions(), self._refusals())
        for check in self.checks:
            if not check["ok"]:
                console.print(f"FAILED {check['name']}: {check['detail']}", markup=False)
        held = sum(check["ok"] is True for check in self.checks)
        console.print(
            f"{self.issued} prescriptions issued, {len(self.filled)} filled, {len(self.refusals)} "
            f"attempts refused; {held} of {len(self.checks)} checks held in {self.seconds:.1f} s"
        )

    def write(self, path: Path) -> None:
        """Write the report as JSON."""
        content: dict[str, Plain] = {
            "format": FORMAT,
            "ok": self.ok,
            "seconds": round(self.seconds, 1),
            "issued": self.issued,
            "prescriptions": [self._entry(each) for each in self.filled],
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
            "amounts": _amounts(filled.amounts),
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
        return table

    def _refusals(self) -> Table:
        table = _table("refused, as it has to be", "attempt", "reason", "message")
        for each in self.refusals:
            table.add_row(str(each["title"]), str(each["reason"]), str(each["message"]))
        return table

    def _region(self, code: str) -> str:
        return self.region_names.get(code, code)


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
