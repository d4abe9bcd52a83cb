"""The demo: prescriptions filled across five regions, returned, refused, cut off, cleared.

    rxoutflow-server sandbox --run clients/demo.py
    python clients/demo.py --sandbox DIR/sandbox.json [--report demo-report.json]

The main case is written in 厦门, paid in 南通 and filled in 泉州. Hospitals, pharmacies, regulators
and operators do what they have the client library and the commands for. Whatever is expected is a
check; if one fails, the exit status is 1. What settlements come to was worked out by hand for a
fresh sandbox, so another one is refused with exit status 2.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from demonstration import (
    books,
    corrections,
    deliveries,
    desk,
    evidence,
    outages,
    page,
    refusals,
    returns,
    silence,
)
from demonstration.cases import CASES, REPEAT
from demonstration.filling import completed, fill
from demonstration.stage import Ear, Stage, draft, until
from rxoutflow.errors import InvalidInput, RxoutflowError
from rxoutflow.plain import short_name
from rxoutflow.profile import load_sandbox
from rxoutflow.v1.notice_pb2 import Notice

WIDE = 160
"""Columns where the output is no terminal."""


def same_request_twice(stage: Stage) -> None:
    """The same request again gives the same answer."""
    client = stage.hospitals["quanzhou"]
    request = client.issue_request(client.complete(draft("acute-infection")))
    first, again = (client.send_issue(request).response for _ in range(2))
    stage.report.issued += 1
    same = first.SerializeToString() == again.SerializeToString()
    stage.report.check("the same request again gives the same answer, byte for byte", same)


def wait_for_completion(stage: Stage) -> None:
    """Home books and payer posts on their own."""
    for filled in stage.report.filled:
        done = until(lambda each=filled: completed(stage, each))  # type: ignore[misc] # mypy cannot infer a lambda with a default
        stage.report.check(f"{filled.file}: booked by home, posted by payer", done, filled.state)


def trace(stage: Stage) -> None:
    """The main case as home, dispensing and payer region stored it."""
    main, report = stage.report.filled[0], stage.report
    report.timeline = stage.trace(main.issued.number)
    told = {event.region_code for event in report.timeline}
    report.check("three regions tell the main case", told == set(main.regions), str(told))
    payer = main.regions[2]
    posted = [e.amounts for e in report.timeline if (e.action, e.region_code) == ("posted", payer)]
    report.check("the payer's trace has the settled amounts posted", main.amounts in posted)


def hear(stage: Stage, ear: Ear) -> None:
    """The issuing hospital hears of every step of the main case."""
    number = str(stage.report.filled[0].issued.number)
    heard = ear.heard_of(number, Notice.KIND_DISPENSED)
    kinds = [short_name(notice, "kind") for notice in heard]
    expected = ["CLAIMED", "COMMITTED", "DISPENSED"]
    in_order = [kind for kind in kinds if kind in expected] == expected
    stage.report.notices = heard
    stage.report.check("the hospital hears claimed, committed, dispensed", in_order, str(kinds))


def play(stage: Stage) -> None:
    """Everything, in its order."""
    expiring = refusals.short_lived(stage)
    with stage.hospitals["xiamen"].watch() as stream:
        ear = Ear(stream)
        with stage.act(f"filling {len(CASES)} prescriptions"):
            for case in CASES:
                fill(stage, case)
            wait_for_completion(stage)
            hear(stage, ear)
            trace(stage)
    with stage.act("what must be refused, and the same request twice"):
        same_request_twice(stage)
        refuse(stage)
    with stage.act("the payer's region goes away in the middle of a settlement"):
        outages.payer_away(stage)
    with stage.act("the home region goes away after its commit"):
        outages.home_away(stage)
    with stage.act("a delivery, and calls whose answers were lost"):
        deliveries.play(stage)
        corrections.play(stage)
    with stage.act("medicine comes back, and so does its money"):
        returns.play(stage)
    with stage.act("silent pharmacies are adjudicated"):
        silence.play(stage)
    with stage.act("receipts and evidence are verified offline"):
        evidence.play(stage)
    with stage.act("the day is reconciled, the month cleared"):
        books.pharmacies(stage)
        books.regions(stage)
        refusals.claimed_too_late(stage, expiring)


def refuse(stage: Stage) -> None:
    """Wrong sheets, claims, callers; the next fill too early."""
    filled = stage.report.filled
    refusals.wrong_sheets(stage)
    refusals.wrong_claims(stage)
    refusals.wrong_callers(stage, filled[0].issued.number)
    (repeat,) = (each for each in filled if each.case is REPEAT)
    refusals.next_fill_too_early(stage, repeat)


def tell(stage: Stage, report: Path | None, markdown: Path | None) -> None:
    """Show everything, and write it where it is asked for."""
    stage.report.show(stage.console)
    if report is not None:
        stage.report.write(report)
        stage.console.print(f"report written to {report}", markup=False)
    if markdown is not None:
        page.put(stage.report, markdown)


def main() -> int:
    """Play, show, report."""
    parser = argparse.ArgumentParser(description="Fill prescriptions across five regions.")
    parser.add_argument("--sandbox", type=Path, required=True, help="sandbox.json or its folder")
    parser.add_argument("--report", type=Path, help="write what was seen as JSON")
    parser.add_argument("--page", type=Path, help="put the outcome into this Markdown page")
    arguments = parser.parse_args()
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else WIDE)
    began = time.monotonic()
    try:
        with ExitStack() as context:
            stage = Stage(load_sandbox(arguments.sandbox), console, context)
            if desk.used_before(stage):
                raise InvalidInput(f"{arguments.sandbox}: the demo needs a fresh sandbox: --fresh")
            play(stage)
            stage.report.seconds = time.monotonic() - began
            tell(stage, arguments.report, arguments.page)
    except RxoutflowError as error:
        console.print(f"the demo cannot go on: {error}. {error.advice}", style="red", markup=False)
        return 2 if isinstance(error, InvalidInput) else 1
    return 0 if stage.report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
