"""Family mutual aid (家庭共济): who may draw on whose money, in which order, up to which limit.

Money that a family member has set apart stands as an *allotment* under the beneficiary, numbered
from 1 as the insured file lists it, so that a settlement touches one person's records only. An
authorisation (家庭共济授权) says for which days such an allotment may be drawn. An allotment that
nobody authorises on the day of dispensing is not drawn; what was drawn before is not undone, and
what comes back goes back to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import combinations
from operator import attrgetter
from typing import TypeAlias

from rxoutflow_server.domain.benefit import Benefit


@dataclass(frozen=True, slots=True)
class Authorisation:
    """One grantor's word. It holds from ``valid_from`` up to, not including, ``valid_until``.

    ``limit_fen`` is what may be drawn under it in all, less what came back; none: no limit but the
    allotment itself. Revoking it is to set ``valid_until`` to the day on which it ends.

    Raises:
        ValueError: it grants to the grantor, holds on no day, or a figure is out of range.
    """

    grantor_person_id: str
    beneficiary_person_id: str
    allotment: int
    order: int
    limit_fen: int | None
    valid_from: date
    valid_until: date | None

    def __post_init__(self) -> None:
        if self.grantor_person_id == self.beneficiary_person_id:
            raise ValueError("the grantor cannot be the beneficiary: that is the own account")
        if self.valid_until is not None and self.valid_until <= self.valid_from:
            raise ValueError("valid_until must be after valid_from")
        if self.allotment < 1 or self.order < 1 or (self.limit_fen or 0) < 0:
            raise ValueError("allotment and order begin at 1, a limit at 0")

    def in_force_on(self, day: date) -> bool:
        """Whether it holds on a day."""
        return self.valid_from <= day and (self.valid_until is None or day < self.valid_until)

    def overlaps(self, other: Authorisation) -> bool:
        """Whether both hold on some day."""
        return self.in_force_on(max(self.valid_from, other.valid_from)) and other.in_force_on(
            max(self.valid_from, other.valid_from)
        )


class Authorisations:
    """All authorisations that a payer region knows.

    Raises:
        ValueError: on some day two of one beneficiary name the same allotment, or the same order.
    """

    def __init__(self, authorisations: Iterable[Authorisation]) -> None:
        self._by_beneficiary: dict[str, list[Authorisation]] = {}
        for each in sorted(authorisations, key=attrgetter("valid_from")):
            self._by_beneficiary.setdefault(each.beneficiary_person_id, []).append(each)
        for of_one in self._by_beneficiary.values():
            for one, other in combinations(of_one, 2):
                _require_apart(one, other)

    def in_force(self, beneficiary_person_id: str, day: date) -> tuple[Authorisation, ...]:
        """Those that hold for a person on a day, in the order in which they are drawn."""
        found = self._by_beneficiary.get(beneficiary_person_id, [])
        return tuple(sorted((a for a in found if a.in_force_on(day)), key=attrgetter("order")))


@dataclass(frozen=True, slots=True)
class Grant:
    """What may be drawn from an allotment for a settlement, in fen."""

    allotment: int
    fen: int


DrawnUnder: TypeAlias = Callable[[Authorisation], int]
"""What was drawn under an authorisation so far, in fen, less what came back."""


def grants(
    allotments_fen: Sequence[int], in_force: Iterable[Authorisation], drawn: DrawnUnder
) -> tuple[Grant, ...]:
    """What each authorised allotment can give, in order: what it holds, within the limit."""
    given = []
    for each in in_force:
        if each.allotment > len(allotments_fen):
            continue
        fen = allotments_fen[each.allotment - 1]
        if each.limit_fen is not None:
            fen = min(fen, max(0, each.limit_fen - drawn(each)))
        given.append(Grant(each.allotment, fen))
    return tuple(given)


def in_place(result: Benefit, given: Sequence[Grant], allotments: int) -> Benefit:
    """The benefit with what each allotment paid in the place of that allotment."""
    paid = {
        grant.allotment: fen for grant, fen in zip(given, result.family_accounts_fen, strict=True)
    }
    by_allotment = tuple(paid.get(number, 0) for number in range(1, allotments + 1))
    return replace(result, family_accounts_fen=by_allotment)


def _require_apart(one: Authorisation, other: Authorisation) -> None:
    if not one.overlaps(other):
        return
    day = max(one.valid_from, other.valid_from).isoformat()
    if one.allotment == other.allotment:
        raise ValueError(f"allotment {one.allotment} is authorised twice on {day}")
    if one.order == other.order:
        raise ValueError(f"order {one.order} is given twice on {day}")
