"""What a late change of a tariff means for settlements: a CSV file to work with, a page to read.

The CSV names the insured person by the payer's own number, because somebody has to be paid; the
page does not. Amounts are fen in the file and yuan on the page.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from typing import TextIO

from rxoutflow_server.application.payer.adjusting import Adjustment, Review
from rxoutflow_server.clearing_report import yuan_of

COLUMNS = (
    "settlement_id",
    "prescription_number",
    "insured_person_id",
    "dispensing_region",
    "day",
    "state",
    "old_version",
    "new_version",
    "old_deductible_fen",
    "new_deductible_fen",
    "old_pool_fen",
    "new_pool_fen",
    "old_person_fen",
    "new_person_fen",
    "pool_difference_fen",
    "notes",
)


def write_csv(stream: TextIO, adjustments: Iterable[Adjustment]) -> None:
    """One row for each settlement that differs; new figures are empty where they are not known."""
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(_cells(each) for each in adjustments)


def _cells(each: Adjustment) -> list[str | int]:
    settlement, old, new = each.settlement, each.settlement.amounts, each.new
    return [
        settlement.settlement_id,
        settlement.prescription_number,
        settlement.insured_person_id,
        settlement.dispensing_region_code,
        each.day.isoformat(),
        settlement.state,
        settlement.tariff_version,
        each.new_version,
        old.deductible_fen,
        new.deductible_fen if new else "",
        old.pool_fen,
        new.pool_fen if new else "",
        old.person_fen,
        new.person_fen if new else "",
        each.pool_difference_fen if new else "",
        "; ".join(each.notes),
    ]


def page(region_code: str, found: Review) -> str:
    """The page in Markdown."""
    until = f"up to, not including, {found.end}" if found.end else "on"
    fund_pays = sum(max(each.pool_difference_fen, 0) for each in found.adjustments)
    fund_gets = sum(max(-each.pool_difference_fen, 0) for each in found.adjustments)
    return "\n".join(
        [
            f"# Adjustments, payer region {region_code}, from {found.begin} {until}",
            "",
            "Nothing was changed. This lists what settlements would be under the tariffs of now.",
            "",
            f"{found.reviewed} settlements were computed again, {len(found.adjustments)} differ."
            f" The fund would pay {yuan_of(fund_pays)} yuan more for some,"
            f" and {yuan_of(fund_gets)} yuan less for others.",
            "",
            *_table(found.adjustments),
        ]
    )


def _table(adjustments: Iterable[Adjustment]) -> Iterator[str]:
    lines = [_line(each) for each in adjustments]
    if lines:
        yield "| day | settlement | old version | new version | fund was | now | more | notes |"
        yield "|---|---|---|---|---:|---:|---:|---|"
        yield from lines


def _line(each: Adjustment) -> str:
    pool = each.settlement.amounts.pool_fen
    new = yuan_of(each.new.pool_fen) if each.new else "?"
    difference = yuan_of(each.pool_difference_fen) if each.new else "?"
    return (
        f"| {each.day} | {each.settlement.settlement_id} | {each.settlement.tariff_version}"
        f" | {each.new_version or '?'} | {yuan_of(pool)} | {new} | {difference}"
        f" | {'; '.join(each.notes)} |"
    )
