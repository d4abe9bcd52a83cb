"""What comes back in the demo: a part of one prescription, all of another, and their money.

The wrong strength is taken back in part and can be filled again; a patient who does not bear the
medicine brings all of it back, and it cannot.
"""

from __future__ import annotations

from typing import NamedTuple

from demonstration.report import Filled, Returned
from demonstration.stage import Stage, until
from rxoutflow.amounts import broken_identities
from rxoutflow.client import PharmacyClient, returned_sale, sale
from rxoutflow.documents import CHINA
from rxoutflow.v1.dispense_pb2 import DispenseReturn, ReturnedLine, ReturnProgress

PART, WHOLE = "diabetes", "unfiled-traveller"


class Back(NamedTuple):
    """What goes back to whom, in fen."""

    total: int
    pool: int
    account: int
    family: int
    cash: int


PART_BACK = Back(735, 301, 75, 100, 259)
"""Half of the first line, 14.69 of 137.92 in all. The line took 50.84 x 13.96 / 117.78 = 6.03 from
the fund; the other 8.66 of 87.08 took 1.49 of 15.00, 1.99 of 20.00, 5.18 of 52.08. Half of each."""


def play(stage: Stage) -> None:
    """Take both back, and wait for home and payer."""
    for filled in [each for each in stage.report.filled if each.file in (PART, WHOLE)]:
        _take_back(stage, stage.pharmacies[filled.case.pharmacy], filled)


def _take_back(stage: Stage, client: PharmacyClient, filled: Filled) -> None:
    whole, committed = filled.file == WHOLE, filled.committed
    cause = DispenseReturn.CAUSE_PATIENT if whole else DispenseReturn.CAUSE_DISPENSING_ERROR
    lines = [ReturnedLine(line_id=line.line_id, quantity=line.quantity) for line in committed.lines]
    if not whole:
        del lines[1:]
        lines[0].quantity -= lines[0].quantity // 2
    attempt, settlement_id = committed.attempt.content, committed.settlement_id
    reason = "演示退药（合成）"
    request = client.return_request(attempt, settlement_id, lines, cause, reason)
    client.send_return(request)
    back = _awaited(client, filled)
    stage.report.returned.append(Returned(filled, back, DispenseReturn.Cause.Name(cause)))
    _check(stage, filled, back, whole=whole)
    if back.HasField("amounts"):
        content = DispenseReturn.FromString(request.dispense_return.payload)
        day = content.return_time.ToDatetime(CHINA).date()
        stage.books[filled.case.pharmacy, day].append(returned_sale(sale(committed), back))
    lines[0].quantity = committed.lines[0].quantity
    stage.report.refused(
        f"{filled.file}: more comes back than is out",
        "RETURN_EXCEEDED",
        lambda: client.return_dispense(attempt, settlement_id, lines, cause, "多退（合成）"),
    )


def _awaited(client: PharmacyClient, filled: Filled) -> ReturnProgress:
    """The return, once home has booked it and the payer has reversed the money."""
    attempt = filled.committed.attempt.content

    def back() -> ReturnProgress:
        (progress,) = client.progress(attempt).progress.returns
        return progress

    until(lambda: back().booked_by_home and back().reversed_by_payer)
    return back()


def _check(stage: Stage, filled: Filled, back: ReturnProgress, *, whole: bool) -> None:
    check, paid = stage.report.check, filled.amounts
    done = back.booked_by_home and back.reversed_by_payer
    check(f"{filled.file}: the return is booked by home and reversed by the payer", done)
    broken = broken_identities(back.amounts)
    check(f"{filled.file}: what goes back adds up", not broken, "; ".join(broken))
    if whole:
        name = f"{filled.file}: all of it goes back, to the fen"
        check(name, back.amounts == paid, f"{back.amounts} of {paid}")
    else:
        as_worked_out = Back(*(getattr(back.amounts, f"{name}_fen") for name in Back._fields))
        name = f"{filled.file}: a part of it goes back, as worked out by hand"
        check(name, as_worked_out == PART_BACK, f"{as_worked_out}, by hand {PART_BACK}")
