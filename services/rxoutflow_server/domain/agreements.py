"""R18: the quota of an institution's supplementary agreement (补充协议), and when it is exceeded.

A quota (总额) limits what funds and accounts pay for an institution in a year or a month of local
days. To be above it is an alert and never a refusal: nobody who is ill is sent away because others
came before. Exactly the quota is not above it. What an agreement covers (its scope) is another
matter, and refused where it is claimed or issued.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from rxoutflow_server.domain.clearing import Period


class QuotaPeriod(StrEnum):
    """How often a quota begins anew."""

    YEAR = "year"
    MONTH = "month"


@dataclass(frozen=True, slots=True)
class Agreement:
    """What an institution's agreement says of money. ``quota_fen`` is at least 1."""

    institution_code: str
    document: str
    quota_fen: int
    period: QuotaPeriod

    def days(self, day: date) -> tuple[date, date]:
        """The period that a day falls in: its first day, and the day after its last one."""
        if self.period is QuotaPeriod.YEAR:
            return date(day.year, 1, 1), date(day.year + 1, 1, 1)
        month = Period.of(day)
        return month.first_day, month.end_day


@dataclass(frozen=True, slots=True)
class QuotaAlert:
    """An agreement whose quota is exceeded in the period that began on ``begin``."""

    agreement: Agreement
    begin: date
    used_fen: int

    @property
    def over_fen(self) -> int:
        """By how much."""
        return self.used_fen - self.agreement.quota_fen

    @property
    def words(self) -> str:
        """What there is to say about it."""
        terms = self.agreement
        return (
            f"{self.used_fen} fen were paid since {self.begin}, {self.over_fen} fen above the quota"
            f" of {terms.quota_fen} fen a {terms.period} ({terms.document})"
        )


def quota_alert(agreement: Agreement, begin: date, used_fen: int) -> QuotaAlert | None:
    """The alert, if more than the quota was paid in the period that began on ``begin``."""
    if used_fen <= agreement.quota_fen:
        return None
    return QuotaAlert(agreement, begin, used_fen)
