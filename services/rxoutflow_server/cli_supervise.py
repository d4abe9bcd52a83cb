"""``supervise``: what deserves a second look of one day (R23), and whose quota is exceeded (R18).

Reads the platform's store beside the running service and changes nothing. Exit status 0: nothing
found; 1: something found; 2: it could not be done.
"""

from __future__ import annotations

import asyncio
import csv
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from rxoutflow.trust import RegionNotTrusted
from rxoutflow.v1.trust_pb2 import Signer
from rxoutflow_server.application.agreements import agreements_of, alerts_of_day
from rxoutflow_server.application.clearing.messages import day_of
from rxoutflow_server.application.second_look import suspicions_of_day
from rxoutflow_server.config import ConfigError, load_platform
from rxoutflow_server.domain.agreements import QuotaAlert
from rxoutflow_server.domain.errors import Refusal
from rxoutflow_server.domain.suspicions import Suspicion
from rxoutflow_server.platform.service import load_region_rules
from rxoutflow_server.reference import ReferenceDataError
from rxoutflow_server.storage.errors import StoreError
from rxoutflow_server.storage.platform_stores import reading_platform
from rxoutflow_server.wiring import load_trust, utc_now

FOUND = 1
COLUMNS = ("pattern", "subject", "time", "words", "prescription_numbers")
QUOTA = "quota_exceeded"
"""What stands under ``pattern`` for an agreement whose quota is exceeded."""


class SuperviseProblem(click.ClickException):
    """It could not be done; the message says what to do."""

    exit_code = 2


@click.command("supervise")
@click.option(
    "--config",
    "file",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Configuration of the region's platform.",
)
@click.option("--day", "text", required=True, help="The local day, as YYYY-MM-DD.")
@click.option(
    "--csv",
    "target",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write what was found to this file as well.",
)
def supervise(file: Path, text: str, target: Path | None) -> None:
    """Show patterns that deserve a second look, and quotas exceeded (R23, R18). None blocks."""
    try:
        found, alerts = _found(file, text)
        if target is not None:
            _write(target, found, alerts)
    except Refusal as error:
        raise SuperviseProblem(error.message) from error
    except (ConfigError, ReferenceDataError, RegionNotTrusted, StoreError, OSError) as error:
        raise SuperviseProblem(str(error)) from error
    _show(text, found)
    _show_alerts(text, alerts)
    if found or alerts:
        sys.exit(FOUND)


def _found(file: Path, text: str) -> tuple[list[Suspicion], list[QuotaAlert]]:
    day = day_of(text, "--day")
    config = load_platform(file, utc_now())
    trust = load_trust(config)
    rules = load_region_rules(config)

    def listed(region_code: str, certificate_sha256: bytes) -> Signer | None:
        try:
            return trust.region(region_code, utc_now()).signer(certificate_sha256)
        except RegionNotTrusted:
            return None

    agreements = list(
        agreements_of(trust.region(config.region_code, utc_now()).institutions.values())
    )
    with reading_platform(config.records) as store:
        return asyncio.run(
            store.read(
                lambda tx: (
                    suspicions_of_day(tx, listed, day, rules.thresholds_on(day)),
                    alerts_of_day(tx, agreements, day),
                )
            )
        )


def _show(day: str, found: list[Suspicion]) -> None:
    console = Console()
    if not found:
        console.print(f"{day}: nothing that deserves a second look")
        return
    table = Table(title=f"To look at again, {day}")
    for column in ("pattern", "subject", "what", "prescriptions"):
        table.add_column(column, overflow="fold")
    for each in found:
        numbers = ", ".join(each.prescription_numbers[:3])
        more = len(each.prescription_numbers) - 3
        table.add_row(
            each.pattern,
            each.subject,
            each.words,
            numbers + (f" and {more} more" if more > 0 else ""),
        )
    console.print(table)


def _show_alerts(day: str, alerts: list[QuotaAlert]) -> None:
    if not alerts:
        return
    table = Table(title=f"Quotas exceeded, {day}")
    for column in ("institution", "document", "since", "quota fen", "paid fen", "above by fen"):
        table.add_column(column, overflow="fold")
    for each in alerts:
        terms = each.agreement
        figures = (terms.quota_fen, each.used_fen, each.over_fen)
        about = (terms.institution_code, terms.document, str(each.begin))
        table.add_row(*about, *map(str, figures))
    Console().print(table)


def _write(target: Path, found: list[Suspicion], alerts: list[QuotaAlert]) -> None:
    with target.open("w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(COLUMNS)
        for each in found:
            time = each.time.isoformat() if each.time is not None else ""
            numbers = " ".join(each.prescription_numbers)
            rows.writerow((each.pattern, each.subject, time, each.words, numbers))
        for alert in alerts:
            rows.writerow((QUOTA, alert.agreement.institution_code, "", alert.words, ""))
