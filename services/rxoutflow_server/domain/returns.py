"""Medicine that comes back: what may come back, and what follows from it.

Medicine that was handed over is in general not taken back (医疗机构药事管理规定, art. 28), so
the cause decides whether the prescription can be filled again and whether a box may be sold again.
Of no line comes more back than was handed over, whatever the cause; the three regions each hold
returns to that by what they themselves know was handed over.

    stored ─home books─▶ booked ┐
       └─payer reverses─▶ reversed ┴▶ both: nothing more is to come
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum, unique

from rxoutflow_server.domain.attempt import LineQuantity
from rxoutflow_server.domain.errors import Reason, Refusal
from rxoutflow_server.domain.settlement import Amounts


@unique
class Cause(StrEnum):
    """Why medicine comes back."""

    QUALITY = "quality"
    DISPENSING_ERROR = "dispensing_error"
    NOT_DELIVERED = "not_delivered"
    PATIENT = "patient"

    @property
    def re_entitles(self) -> bool:
        """Whether the prescription can be filled again for it, while it is valid."""
        return self is not Cause.PATIENT

    @property
    def is_resaleable(self) -> bool:
        """Whether its boxes may be sold again: those that no patient could have opened."""
        return self in (Cause.DISPENSING_ERROR, Cause.NOT_DELIVERED)


@dataclass(frozen=True, slots=True)
class ReturnedLine:
    """A line, or part of one, that comes back, with the trace codes of its whole boxes."""

    line_id: int
    quantity: int
    trace_codes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HandedOver:
    """What was handed over of a line, with the trace codes of its boxes."""

    line_id: int
    quantity: int
    boxes: frozenset[str] = frozenset()
    loose_boxes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class BookedReturn:
    """A return as the home region keeps it, and whether it made the medicine available again."""

    reversal_id: str
    prescription_number: str
    attempt_id: str
    lines: tuple[LineQuantity, ...]
    re_entitled: bool
    statement_sha256: bytes
    time: datetime


@dataclass(frozen=True, slots=True)
class Return:
    """A return as the dispensing region keeps it.

    ``amounts`` are known once the payer has reversed; where the patient paid alone, at once.
    """

    reversal_id: str
    prescription_number: str
    settlement_id: str
    lines: tuple[ReturnedLine, ...]
    statement_sha256: bytes
    create_time: datetime
    update_time: datetime
    booked: bool = False
    amounts: Amounts | None = None

    def booked_by_home(self, now: datetime) -> Return:
        """The return after home booked it. Hearing it again changes nothing."""
        return self if self.booked else replace(self, booked=True, update_time=now)

    def reversed_by_payer(self, amounts: Amounts, now: datetime) -> Return:
        """The return after the payer gave this back. Hearing it again changes nothing."""
        if self.amounts is not None:
            return self
        return replace(self, amounts=amounts, update_time=now)


def quantities(lines: Iterable[ReturnedLine]) -> tuple[LineQuantity, ...]:
    """What ledgers and money go by."""
    return tuple(LineQuantity(line.line_id, line.quantity) for line in lines)


def returned_before(returns: Iterable[Iterable[LineQuantity]]) -> Counter[int]:
    """What earlier returns took back, by line."""
    before: Counter[int] = Counter()
    for lines in returns:
        for line in lines:
            before[line.line_id] += line.quantity
    return before


def require_returnable(
    handed_over: Iterable[LineQuantity],
    before: Mapping[int, int],
    returning: Iterable[LineQuantity],
) -> None:
    """Of no line comes more back than was handed over and has not come back already.

    Raises:
        Refusal: LINE_UNKNOWN or RETURN_EXCEEDED.
    """
    given = {line.line_id: line.quantity for line in handed_over}
    seen: set[int] = set()
    for line in returning:
        if line.line_id not in given or line.line_id in seen:
            raise Refusal(
                Reason.LINE_UNKNOWN,
                f"line {line.line_id}: it was not handed over, or is named twice",
                line_id=str(line.line_id),
            )
        seen.add(line.line_id)
        left = given[line.line_id] - before.get(line.line_id, 0)
        if not 1 <= line.quantity <= left:
            raise Refusal(
                Reason.RETURN_EXCEEDED,
                f"line {line.line_id}: {line.quantity} would come back, {left} still can",
                line_id=str(line.line_id),
                returnable=str(left),
            )


def require_boxes(
    handed_over: Iterable[HandedOver],
    before: Iterable[ReturnedLine],
    returning: Iterable[ReturnedLine],
) -> None:
    """The boxes that come back are of the handover, come back once, and fit the quantity.

    Nobody can say here how many units a box holds, so the boxes of a line count alike: with half of
    its quantity, half of its boxes may have come back. A box of which a part was sold loose may
    come back in parts.

    Raises:
        Refusal: SIGNED_CONTENT_MISMATCH naming the line.
    """
    given = {line.line_id: line for line in handed_over}
    earlier = list(before)
    for line in returning:
        sold = given[line.line_id]
        of_line = [each for each in earlier if each.line_id == line.line_id] + [line]
        codes = [code for each in of_line for code in each.trace_codes]
        whole = [code for code in codes if code not in sold.loose_boxes]
        if not set(codes) <= sold.boxes | sold.loose_boxes or len(set(whole)) != len(whole):
            raise _boxes_refused(line, "was not handed over, or has come back already")
        back = sum(each.quantity for each in of_line)
        if len(whole) * sold.quantity > len(sold.boxes) * back:
            raise _boxes_refused(line, "cannot be whole: less came back than that many boxes hold")


def _boxes_refused(line: ReturnedLine, problem: str) -> Refusal:
    return Refusal(
        Reason.SIGNED_CONTENT_MISMATCH,
        f"line {line.line_id}: a box that is named by its trace code {problem}",
        field="lines.trace_codes",
    )
