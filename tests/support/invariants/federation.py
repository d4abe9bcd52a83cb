"""All checks at once, for whoever has all regions before them.

``check_always`` holds at every moment, whatever is lost, late or broken. ``check_quiescent`` adds
what must be so once faults have healed and nothing is under way any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

from support.invariants.accounts import check_accounts
from support.invariants.agreement import (
    check_agreement,
    check_delivered,
    check_index,
    check_leases,
)
from support.invariants.answers import (
    Answer,
    check_actors,
    check_authority,
    check_durable,
    check_no_second_effect,
    check_same_answers,
    check_unaltered,
)
from support.invariants.evidence import check_grounds, check_trace_codes
from support.invariants.home import check_home
from support.invariants.log import check_log, check_receipts
from support.invariants.money import (
    check_amounts,
    check_books,
    check_not_overdrawn,
    check_nothing_in_flight,
    check_one_payment,
    check_paid_on_evidence,
    check_reversals,
    check_stated_once,
)
from support.invariants.records import RegionRecords

Regions = Mapping[str, RegionRecords]
Check = Callable[[RegionRecords], None]


def check_region(records: RegionRecords) -> None:
    """What one region's records must be at every moment: I1 to I5 and I7 to I10."""
    check_unaltered(records)
    for prescription in records.prescriptions:
        check_home(prescription, records.attempts_of(prescription.number))
    for person in records.persons:
        check_not_overdrawn(person)
    for settlement in records.settlements:
        check_amounts(settlement.amounts)
    checks: tuple[Check, ...] = (
        check_grounds,
        check_stated_once,
        check_one_payment,
        check_paid_on_evidence,
        check_books,
        check_accounts,
        check_no_second_effect,
        check_actors,
        check_log,
    )
    for check in checks:
        check(records)


def check_always(regions: Regions, answers: Iterable[Answer] = ()) -> None:
    """What must be so at every moment, between regions and towards their clients."""
    answers = list(answers)
    check_same_answers(answers)
    check_authority(answers)
    for records in regions.values():
        check_region(records)
        check_durable(answers, records)
        check_receipts(answers, records)
    check_trace_codes(regions.values())
    check_reversals(regions, quiescent=False)


def check_quiescent(regions: Regions, now: datetime, answers: Iterable[Answer] = ()) -> None:
    """What must be so when nothing is under way: besides all that, I4, I5, I6 and I14 in full."""
    check_always(regions, answers)
    check_delivered(regions)
    for records in regions.values():
        check_leases(records, now)
    check_agreement(regions)
    check_index(regions)
    check_nothing_in_flight(regions)
    check_reversals(regions, quiescent=True)
