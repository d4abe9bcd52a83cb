"""Settlements as the payer region keeps them: money set aside, paid, or set free.

The payer region is the only writer of these facts. A hold consumes deductible, cap and account
balances at once, so that two dispensing regions can never spend the same fen; voiding gives all of
it back. A hold never ends by a timer: it is posted when the pharmacy's record and the home region's
booking of it are both there, or voided when home shows that the attempt came to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

from rxoutflow_server.domain.benefit import (
    Benefit,
    Enrolment,
    Funding,
    LineShare,
    SchemeShare,
    Standing,
)
from rxoutflow_server.domain.errors import InvariantBroken, Reason, Refusal
from rxoutflow_server.domain.tariff import AreaStatus, PersonType


class SettlementState(StrEnum):
    """Where a settlement stands."""

    HELD = "held"
    POSTED = "posted"
    VOIDED = "voided"
    REVERSED = "reversed"


@dataclass(frozen=True, slots=True)
class Amounts:
    """The amounts of a settlement in fen, as parties see them."""

    total_fen: int
    own_fen: int
    excess_fen: int
    first_self_pay_fen: int
    inscope_fen: int
    deductible_fen: int
    pool_fen: int
    ratio_self_fen: int
    person_fen: int
    account_fen: int
    family_fen: int
    cash_fen: int

    @classmethod
    def of(cls, benefit: Benefit) -> Amounts:
        """The header of a computed benefit."""
        return cls(**{name: getattr(benefit, name) for name in cls.__slots__})

    @classmethod
    def of_lines(cls, shares: Iterable[LineShare]) -> Amounts:
        """What lines, or returned parts of them, took together."""
        figures = dict.fromkeys(cls.__slots__, 0)
        for share in shares:
            for name, fen in _figures_of(share).items():
                figures[name] += fen
        return cls(**figures)

    def plus(self, other: Amounts) -> Amounts:
        """Both together."""
        return Amounts(
            **{name: getattr(self, name) + getattr(other, name) for name in self.__slots__}
        )

    def is_within(self, limit: Amounts) -> bool:
        """Whether no amount is larger than that of the limit."""
        return all(getattr(self, name) <= getattr(limit, name) for name in self.__slots__)


NOTHING = Amounts(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
"""No fen of anything."""


def _figures_of(share: LineShare) -> dict[str, int]:
    return {
        "total_fen": share.amount_fen,
        "own_fen": share.own_fen,
        "excess_fen": share.excess_fen,
        "first_self_pay_fen": share.first_self_pay_fen,
        "inscope_fen": share.deductible_fen + share.pool_fen + share.ratio_self_fen,
        "deductible_fen": share.deductible_fen,
        "pool_fen": share.pool_fen,
        "ratio_self_fen": share.ratio_self_fen,
        "person_fen": share.amount_fen - share.pool_fen,
        "account_fen": share.account_fen,
        "family_fen": share.family_fen,
        "cash_fen": share.cash_fen,
    }


@dataclass(frozen=True, slots=True)
class SettledLine:
    """A line of a settlement, and what it took from whom: a return gives back exactly that."""

    line_id: int
    quantity: int
    share: LineShare


@dataclass(frozen=True, slots=True)
class InsuredPerson:
    """An insured person: standing, accounts, and what of the year's benefit is used.

    ``year`` is the benefit year of the accumulators, here and in the enrolments; another one begins
    at zero.
    """

    insured_person_id: str
    person_type: PersonType
    area_status: AreaStatus
    own_account_fen: int
    family_accounts_fen: tuple[int, ...]
    year: int
    used_deductible_fen: int
    used_cap_fen: int
    direct_settlement_suspended: bool = False
    enrolments: tuple[Enrolment, ...] = ()

    def in_year(self, year: int) -> InsuredPerson:
        """The person with the accumulators of a benefit year.

        Raises:
            Refusal: TARIFF_NOT_IN_FORCE for a year that is over: its accumulators are closed.
        """
        if year == self.year:
            return self
        if year < self.year:
            raise Refusal(
                Reason.TARIFF_NOT_IN_FORCE,
                f"the benefit year {year} is closed for this person; settle as self-pay",
                day=str(year),
            )
        return replace(
            self,
            year=year,
            used_deductible_fen=0,
            used_cap_fen=0,
            enrolments=tuple(Enrolment(each.scheme_code) for each in self.enrolments),
        )

    def standing(self, issuing_tier: int, *, away: bool) -> Standing:
        """What the benefit formula needs to know of the person.

        ``away`` tells whether the medicine is dispensed outside the payer region (R14): at home the
        person's away-from-home status says nothing.
        """
        return Standing(
            person_type=self.person_type,
            issuing_tier=issuing_tier,
            area_status=self.area_status if away else None,
            used_deductible_fen=self.used_deductible_fen,
            used_cap_fen=self.used_cap_fen,
            enrolments=self.enrolments,
        )

    @property
    def funding(self) -> Funding:
        """What the accounts can give: the own account first, then the family's in order."""
        return Funding(self.own_account_fen, self.family_accounts_fen)


@dataclass(frozen=True, slots=True)
class Settlement:
    """One settlement of one attempt. ``cause_sha256`` names the statement that led to its state.

    A handover is shown by two: the pharmacy by its record (``record_sha256``), in whose place two
    people of the home region may find it if the pharmacy stays silent, and the home region,
    which says that it booked this very record for this very settlement (``booked_sha256``). Neither
    alone is paid, so a pharmacy and its region cannot be paid for what home never committed.

    ``schemes`` says what of the figures belongs to which scheme; ``pricing_sha256`` names the
    pricing whose lines, in their order, the figures were computed from. ``lines`` says what of them
    each line took, fixed with the hold, so that no later tariff changes what a return gives back.
    ``reversed`` is what reversals have given back so far; while it is not everything, the
    settlement stays posted.
    """

    settlement_id: str
    attempt_id: str
    prescription_number: str
    insured_person_id: str
    dispensing_region_code: str
    pharmacy_code: str
    state: SettlementState
    amounts: Amounts
    family_accounts_fen: tuple[int, ...]
    tariff_version: str
    year: int
    create_time: datetime
    update_time: datetime
    cause_sha256: bytes
    record_sha256: bytes = b""
    booked_sha256: bytes = b""
    schemes: tuple[SchemeShare, ...] = ()
    pricing_sha256: bytes = b""
    lines: tuple[SettledLine, ...] = ()
    reversed: Amounts = NOTHING

    @property
    def is_payable(self) -> bool:
        """Whether money is held and both have shown the handover."""
        shown = bool(self.record_sha256) and self.record_sha256 == self.booked_sha256
        return shown and self.state is SettlementState.HELD


def require_direct_settlement(person: InsuredPerson) -> None:
    """R19: a suspended person has no direct settlement; self-pay remains possible.

    Raises:
        Refusal: DIRECT_SETTLEMENT_SUSPENDED.
    """
    if person.direct_settlement_suspended:
        raise Refusal(
            Reason.DIRECT_SETTLEMENT_SUSPENDED,
            "direct settlement is suspended for this person; the patient may pay alone",
        )


def require_accepted(computed: Amounts, accepted: Amounts) -> None:
    """Hold nothing that the patient did not agree to.

    Raises:
        Refusal: QUOTE_CHANGED, with the amounts as they would be now.
    """
    if computed != accepted:
        raise Refusal(
            Reason.QUOTE_CHANGED,
            f"the fund now pays {computed.pool_fen} fen and the person {computed.person_fen} fen;"
            " quote again, ask the patient, and commit with the new amounts and a new settlement",
            total_fen=str(computed.total_fen),
            pool_fen=str(computed.pool_fen),
            person_fen=str(computed.person_fen),
        )


def consume(person: InsuredPerson, settlement: Settlement) -> InsuredPerson:
    """The person after a hold: its deductible, pool and account money are set aside."""
    return _moved(person, settlement, lambda balance, part: balance - part)


def give_back(person: InsuredPerson, settlement: Settlement) -> InsuredPerson:
    """The person after a void or reversal: everything that the settlement consumed is back.

    Accumulators of a year that is over are not touched; account money always returns.
    """
    return _moved(person, settlement, lambda balance, part: balance + part)


def post(settlement: Settlement, *, cause_sha256: bytes, now: datetime) -> Settlement:
    """Pay. Posting again changes nothing, also after it was given back.

    Raises:
        Refusal: SETTLEMENT_ENDED if it was voided.
    """
    if settlement.state in (SettlementState.POSTED, SettlementState.REVERSED):
        return settlement
    if settlement.state is not SettlementState.HELD:
        raise Refusal(
            Reason.SETTLEMENT_ENDED,
            f"the settlement is {settlement.state}; it cannot be posted; an operator must decide",
            state=settlement.state,
        )
    return replace(
        settlement, state=SettlementState.POSTED, cause_sha256=cause_sha256, update_time=now
    )


def void(settlement: Settlement, *, cause_sha256: bytes, now: datetime) -> Settlement:
    """Set a hold free; the caller checks the evidence.

    Raises:
        InvariantBroken: it is no hold: what was paid or set free before is never set free again.
    """
    if settlement.state is not SettlementState.HELD:
        raise InvariantBroken(f"a settlement that is {settlement.state} cannot be voided")
    return replace(
        settlement, state=SettlementState.VOIDED, cause_sha256=cause_sha256, update_time=now
    )


def _moved(
    person: InsuredPerson, settlement: Settlement, apply: Callable[[int, int], int]
) -> InsuredPerson:
    amounts = settlement.amounts
    moved = replace(
        person,
        own_account_fen=apply(person.own_account_fen, amounts.account_fen),
        family_accounts_fen=tuple(
            apply(balance, part)
            for balance, part in zip(
                person.family_accounts_fen, settlement.family_accounts_fen, strict=True
            )
        ),
    )
    if settlement.year != person.year:
        return moved
    return with_use(moved, use_of(settlement), apply)


Use: TypeAlias = Mapping[str, tuple[int, int]]
"""Deductible and pool in fen, of each scheme by its code; of ordinary care under an empty code."""


def use_of(settlement: Settlement) -> Use:
    """What a settlement took of this year's deductibles and caps."""
    deductible, pool = settlement.amounts.deductible_fen, settlement.amounts.pool_fen
    used = {}
    for share in settlement.schemes:
        used[share.scheme_code] = (share.deductible_fen, share.pool_fen)
        deductible, pool = deductible - share.deductible_fen, pool - share.pool_fen
    return {"": (deductible, pool), **used}


def use_of_lines(shares: Iterable[LineShare]) -> Use:
    """What lines, or returned parts of them, took of this year's deductibles and caps."""
    used: dict[str, tuple[int, int]] = {}
    for share in shares:
        deductible, pool = used.get(share.scheme_code, (0, 0))
        used[share.scheme_code] = (deductible + share.deductible_fen, pool + share.pool_fen)
    return used


def with_use(person: InsuredPerson, use: Use, apply: Callable[[int, int], int]) -> InsuredPerson:
    """The person with accumulators moved by what was used, or is given back.

    ``apply`` is what happens to a balance: a part is taken off when it is consumed, and added when
    it is given back. What is used moves the other way. A scheme that the person is no longer
    enrolled in has no accumulator.
    """
    deductible, pool = use.get("", (0, 0))
    return replace(
        person,
        used_deductible_fen=-apply(-person.used_deductible_fen, deductible),
        used_cap_fen=-apply(-person.used_cap_fen, pool),
        enrolments=tuple(
            _enrolment_with(each, use.get(each.scheme_code, (0, 0)), apply)
            for each in person.enrolments
        ),
    )


def _enrolment_with(
    enrolment: Enrolment, used: tuple[int, int], apply: Callable[[int, int], int]
) -> Enrolment:
    deductible, pool = used
    return replace(
        enrolment,
        used_deductible_fen=-apply(-enrolment.used_deductible_fen, deductible),
        used_cap_fen=-apply(-enrolment.used_cap_fen, pool),
    )
