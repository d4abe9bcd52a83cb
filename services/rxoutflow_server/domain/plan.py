"""How a signed prescription wants to be filled: in how many fills, and in how many doses.

A repeat prescription opens one share of its lines after the other. The next share opens some local
days after the present one was begun, so that nobody collects three months of medicine at once (R2,
R6). A herbal formula leaves in whole doses of all its herbs. Nothing here knows who holds what: the
ledger is in ``prescription.py``. What cannot be shared out is refused at registration by the rules.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta

from rxoutflow_server.domain.attempt import LineQuantity


@dataclass(frozen=True, slots=True)
class Plan:
    """What the sheet says about fills and doses.

    ``fill_count`` is 1 unless it is a repeat prescription. ``dose_count`` is the number of doses of
    a herbal formula, 0 where each line goes by itself.
    """

    fill_count: int = 1
    fill_interval_days: int = 0
    dose_count: int = 0

    def opened(self, authorised: int, fills: int) -> int:
        """How much of a line the first so many fills open: equal shares, the rest with the last.

        A formula is shared out by doses, so that a fill opens whole ones.
        """
        if fills >= self.fill_count:
            return authorised
        if self.dose_count:
            return authorised // self.dose_count * (self.dose_count // self.fill_count * fills)
        return authorised // self.fill_count * fills

    def next_fill_day(self, opened_fills: int, begin_day: date | None) -> date | None:
        """The local day on which the next fill opens; None if there is none, or nobody knows yet.

        Args:
            opened_fills: how many fills are open or done.
            begin_day: when the last of them was first handed over, if it was.
        """
        if begin_day is None or opened_fills >= self.fill_count:
            return None
        return begin_day + timedelta(days=self.fill_interval_days)

    def line_out_of_dose(
        self, authorised: Iterable[LineQuantity], taken: Iterable[LineQuantity]
    ) -> LineQuantity | None:
        """The first herb of which other than the same whole number of doses is taken, if any.

        Args:
            authorised: every line of the prescription with its whole quantity.
            taken: what is claimed, committed or brought back.

        Returns:
            The line with the quantity of one dose. Always None without doses.
        """
        if not self.dose_count:
            return None
        one_dose = [
            LineQuantity(line.line_id, line.quantity // self.dose_count) for line in authorised
        ]
        quantities = {line.line_id: line.quantity for line in taken}
        doses = max(
            (quantities.get(each.line_id, 0) // each.quantity for each in one_dose), default=0
        )
        for each in one_dose:
            if doses == 0 or quantities.get(each.line_id, 0) != doses * each.quantity:
                return each
        return None


ONCE = Plan()
"""Filled once, line by line: the plan of most prescriptions."""
