"""Reversals (撤销/退费): the payer gives back what a return undoes, and no more than was paid.

A reversal takes from each source, per line, what that line took from it, in proportion to the
quantity that comes back. What each line took was fixed with the hold. Reversals of all lines, in
any portions and any order, add up to the settlement exactly; deductible and cap of the benefit year
of the settlement are restored with them, and accounts always.

    posted ─part comes back─▶ posted ─the rest comes back─▶ reversed
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from operator import add

from rxoutflow_server.domain.attempt import LineQuantity
from rxoutflow_server.domain.benefit import LineShare, return_of_line
from rxoutflow_server.domain.errors import InvariantBroken, Reason, Refusal
from rxoutflow_server.domain.returns import require_returnable
from rxoutflow_server.domain.settlement import (
    Amounts,
    InsuredPerson,
    Settlement,
    SettlementState,
    use_of_lines,
    with_use,
)


@dataclass(frozen=True, slots=True)
class Reversal:
    """What a return gave back. ``cause_sha256`` is the digest of the return."""

    reversal_id: str
    settlement_id: str
    insured_person_id: str
    lines: tuple[LineQuantity, ...]
    amounts: Amounts
    cause_sha256: bytes
    time: datetime


def reverse(
    settlement: Settlement,
    before: Mapping[int, int],
    returning: Sequence[LineQuantity],
    *,
    cause_sha256: bytes,
    now: datetime,
) -> tuple[Settlement, tuple[LineShare, ...]]:
    """Give back what lines, or parts of them, took; the settlement after it, and the parts.

    Args:
        settlement: what was paid.
        before: the quantities that earlier reversals gave back, by line.
        returning: the quantities that come back now.
        cause_sha256: the return.
        now: when it is reversed.

    Raises:
        Refusal: EARLIER_FACT_MISSING while nothing is paid yet, SETTLEMENT_ENDED if nothing ever
            will be, LINE_UNKNOWN or RETURN_EXCEEDED.
        InvariantBroken: more would go back than was paid: a defect.
    """
    _require_paid(settlement)
    require_returnable(
        (LineQuantity(line.line_id, line.quantity) for line in settlement.lines), before, returning
    )
    parts = tuple(_parts(settlement, before, returning))
    reversed_so_far = settlement.reversed.plus(Amounts.of_lines(parts))
    if not reversed_so_far.is_within(settlement.amounts):
        raise InvariantBroken(f"settlement {settlement.settlement_id}: more back than was paid")
    after = replace(settlement, reversed=reversed_so_far)
    if not _is_whole(settlement, before, returning):
        return after, parts
    return replace(
        after, state=SettlementState.REVERSED, cause_sha256=cause_sha256, update_time=now
    ), parts


def restored(
    person: InsuredPerson, settlement: Settlement, parts: Iterable[LineShare]
) -> InsuredPerson:
    """The person after a reversal: account money is back, and what was used of the year.

    Accumulators of a year that is over are not touched.
    """
    parts = list(parts)
    family = person.family_accounts_fen
    for part in parts:
        back = zip(family, part.family_accounts_fen, strict=True)
        family = tuple([balance + fen for balance, fen in back])
    after = replace(
        person,
        own_account_fen=person.own_account_fen + sum(part.account_fen for part in parts),
        family_accounts_fen=family,
    )
    return with_use(after, use_of_lines(parts), add) if settlement.year == person.year else after


def _require_paid(settlement: Settlement) -> None:
    if settlement.state is SettlementState.HELD:
        raise Refusal(
            Reason.EARLIER_FACT_MISSING,
            "the settlement is not paid yet; its handover or home's booking is on its way",
        )
    if settlement.state is SettlementState.VOIDED:
        raise Refusal(
            Reason.SETTLEMENT_ENDED,
            "the settlement was voided: nothing was paid that could go back",
            state=settlement.state,
        )


def _parts(
    settlement: Settlement, before: Mapping[int, int], returning: Sequence[LineQuantity]
) -> Iterable[LineShare]:
    settled = {line.line_id: line for line in settlement.lines}
    for each in returning:
        line = settled[each.line_id]
        yield return_of_line(line.share, line.quantity, before.get(line.line_id, 0), each.quantity)


def _is_whole(
    settlement: Settlement, before: Mapping[int, int], returning: Sequence[LineQuantity]
) -> bool:
    now = {line.line_id: line.quantity for line in returning}
    return all(
        before.get(line.line_id, 0) + now.get(line.line_id, 0) == line.quantity
        for line in settlement.lines
    )
