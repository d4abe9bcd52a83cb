"""The demo: prescriptions issued and filled within and across three regions, and what is refused.

    rxoutflow-server sandbox --run clients/demo.py
    python clients/demo.py --sandbox DIR/sandbox.json [--report demo-report.json]

The main case is written in 厦门, paid in 南通 and filled in 泉州. Uses only what every integrator
has, the client library. Whatever is expected is a check; if one fails, the exit status is 1.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from demonstration import refusals
from demonstration.report import Filled
from demonstration.stage import Ear, Stage, draft
from rxoutflow.amounts import broken_identities
from rxoutflow.client import Committed, PharmacyClient
from rxoutflow.errors import RxoutflowError
from rxoutflow.plain import short_name
from rxoutflow.profile import load_sandbox
from rxoutflow.sandbox_goods import invented_boxes
from rxoutflow.v1.dispense_pb2 import Delivery, DispenseProgress
from rxoutflow.v1.notice_pb2 import Notice
from rxoutflow.v1.prescription_pb2 import Prescription
from rxoutflow.v1.settlement_pb2 import PricedLine

PATIENCE_SECONDS = 20.0
WIDE = 140
"""Columns where the output is no terminal."""


@dataclass(frozen=True)
class Case:
    """Who fills what; ``refusal`` is what the payer answers where it does not pay."""

    file: str
    hospital: str
    pharmacy: str
    refusal: str = ""
    substitute: str = ""
    delivery_fee_fen: int = 0


MAIN = Case("hypertension-chronic", "xiamen", "quanzhou")
CASES = (
    MAIN,
    Case("diabetes", "xiamen", "xiamen"),
    Case("acute-infection", "quanzhou", "quanzhou"),
    Case("long-twelve-weeks", "xiamen", "nantong"),
    Case("herbal-formula", "xiamen", "quanzhou"),
    Case("internet-follow-up", "xiamen", "nantong", delivery_fee_fen=1200),
    Case("child-with-weight", "quanzhou", "quanzhou", refusal="PERSON_NOT_INSURED"),
    Case("patent-medicine", "xiamen", "xiamen"),
    Case("self-pay", "xiamen", "xiamen", refusal="TARIFF_NOT_IN_FORCE"),
    Case("one-region", "quanzhou", "quanzhou"),
    Case("unfiled-traveller", "xiamen", "nantong"),
    Case("limited-use-unmet", "xiamen", "quanzhou"),
    Case("suspended-person", "quanzhou", "quanzhou", refusal="DIRECT_SETTLEMENT_SUSPENDED"),
    Case("substitution", "quanzhou", "xiamen", substitute="SYNW0000000000000000002"),
)


def fill(stage: Stage, case: Case) -> None:
    """Issue, find, claim, quote, commit, hand over, record."""
    client, issued = stage.pharmacies[case.pharmacy], stage.issue(case.file, case.hospital)
    prescription = client.find(issued.pickup_code).prescription.content
    attempt = client.claim(issued.pickup_code).content
    if case is MAIN:
        again = client.claim(issued.pickup_code).content.attempt_id
        stage.report.check("claiming again gives the same attempt", again == attempt.attempt_id)
        refusals.claimed_by_another(stage, issued, client)
    lines = client.price(prescription, attempt.lines)
    if case.substitute:
        substitute(lines, case.substitute, client)
    accepted = None
    if case.refusal:
        title = f"{case.file}: the payer does not pay, so the patient pays alone"
        stage.report.refused(title, case.refusal, lambda: client.quote(attempt, lines))
    else:
        accepted = client.quote(attempt, lines).content.amounts
    committed = client.commit(attempt, lines, accepted)
    check_amounts(stage, case, committed)
    herbal = prescription.type == Prescription.TYPE_HERBAL
    boxes = invented_boxes(lines, herbal, client.surroundings.random_bytes)
    client.dispense(committed, boxes, delivery(case))
    stage.report.filled.append(Filled(case.file, draft(case.file).about, issued, committed))


def substitute(lines: Sequence[PricedLine], drug_code: str, client: PharmacyClient) -> None:
    """Hand out another product of the same generic group, at its price."""
    for line in lines:
        line.drug_code = drug_code
        line.unit_price_micro_yuan = client.profile.prices[drug_code]


def delivery(case: Case) -> Delivery | None:
    """Sent by courier, where the case says so; the fee is never paid by insurance."""
    if not case.delivery_fee_fen:
        return None
    state, fee = Delivery.STATE_DISPATCHED, case.delivery_fee_fen
    return Delivery(state=state, carrier="合成快递", parcel_number="SYN-1", fee_fen=fee)


def check_amounts(stage: Stage, case: Case, committed: Committed) -> None:
    """Hold the settlement against the benefit formula's identities and the prices."""
    check, settlement, lines = stage.report.check, committed.settlement, committed.lines
    alone = settlement is None
    check(f"{case.file}: paid as meant, by insurance or alone", alone == bool(case.refusal))
    if settlement is None:
        return
    amounts = settlement.content.amounts
    broken = broken_identities(amounts)
    check(f"{case.file}: the amounts add up", not broken, "; ".join(broken))
    total = sum((line.quantity * line.unit_price_micro_yuan + 5000) // 10000 for line in lines)
    name = f"{case.file}: the total is that of the prices, without delivery"
    check(name, amounts.total_fen == total, f"{amounts.total_fen} and {total} fen")


def same_request_twice(stage: Stage) -> None:
    """The same request again gives the same answer."""
    client = stage.hospitals["quanzhou"]
    request = client.issue_request(client.complete(draft("acute-infection")))
    first, again = (client.send_issue(request).response for _ in range(2))
    stage.report.issued += 1
    same = first.SerializeToString() == again.SerializeToString()
    stage.report.check("the same request again gives the same answer, byte for byte", same)


def wait_for_completion(stage: Stage) -> None:
    """Home books and payer posts on their own; ask at a civil pace until both have."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    for case, filled in zip(CASES, stage.report.filled, strict=True):
        client, attempt = stage.pharmacies[case.pharmacy], filled.committed.attempt.content
        progress = client.progress(attempt).progress
        while progress.state != DispenseProgress.STATE_COMPLETED and time.monotonic() < deadline:
            time.sleep(0.3)
            progress = client.progress(attempt).progress
        filled.state = short_name(progress, "state")
        done = filled.state == "COMPLETED"
        stage.report.check(f"{case.file}: booked by home, posted by payer", done, filled.state)


def trace(stage: Stage) -> None:
    """The main case as home, dispensing and payer region stored it."""
    main, report = stage.report.filled[0], stage.report
    events = [e for each in stage.regulators.values() for e in each.trace(main.issued.number)]
    report.timeline = sorted(events, key=lambda event: event.event_time.ToNanoseconds())
    told = {event.region_code for event in events}
    report.check("three regions tell the main case", told == set(main.regions), str(told))
    posted = [e.amounts for e in events if e.action == "posted" and e.region_code == "320600"]
    report.check("the payer's trace has the settled amounts posted", main.amounts in posted)


def hear(stage: Stage, ear: Ear) -> None:
    """The issuing hospital hears of every step of the main case."""
    number = str(stage.report.filled[0].issued.number)
    heard = ear.heard_of(number, Notice.KIND_DISPENSED, PATIENCE_SECONDS)
    kinds = [short_name(notice, "kind") for notice in heard]
    expected = ["CLAIMED", "COMMITTED", "DISPENSED"]
    in_order = [kind for kind in kinds if kind in expected] == expected
    stage.report.notices = heard
    stage.report.check("the hospital hears claimed, committed, dispensed", in_order, str(kinds))


def play(stage: Stage, console: Console) -> None:
    """Everything, in its order."""
    began, expiring = time.monotonic(), refusals.short_lived(stage)
    with stage.hospitals["xiamen"].watch() as stream, Progress(console=console) as progress:
        ear = Ear(stream)
        for case in progress.track(CASES, description="filling prescriptions"):
            fill(stage, case)
        same_request_twice(stage)
        refusals.wrong_sheets(stage)
        refusals.wrong_claims(stage)
        refusals.wrong_callers(stage, stage.report.filled[0].issued.number)
        wait_for_completion(stage)
        hear(stage, ear)
    refusals.claimed_too_late(stage, expiring)
    trace(stage)
    stage.report.seconds = time.monotonic() - began


def main() -> int:
    """Play, show, report."""
    parser = argparse.ArgumentParser(description="Fill prescriptions across three regions.")
    parser.add_argument("--sandbox", type=Path, required=True, help="sandbox.json or its folder")
    parser.add_argument("--report", type=Path, help="write what was seen as JSON")
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else WIDE)
    try:
        with ExitStack() as context:
            stage = Stage(load_sandbox(arguments.sandbox), context)
            play(stage, console)
    except RxoutflowError as error:
        console.print(f"the demo cannot go on: {error}. {error.advice}", style="red", markup=False)
        return 1
    stage.report.show(console)
    if arguments.report is not None:
        stage.report.write(arguments.report)
        console.print(f"report written to {arguments.report}", markup=False)
    return 0 if stage.report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
