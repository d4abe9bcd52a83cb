"""The benefit formula: what the fund pays and what the person pays, to the fen.

``benefit`` is one pure function of a tariff and a case; the same input gives the same result on any
machine on any day. Amounts are fen, unit prices 10⁻⁶ yuan, ratios basis points. Rounding is half-up
and happens four times only: the amount, the limit amount and the first self-pay of a line, and the
pool of each scheme and of ordinary care. Every result proves its identities when it is built and
cannot exist without them. ``apportion_to_lines`` says what each line took from each funding source,
so that a return can give back exactly that.

A line belongs to one scheme or to ordinary care (R15): to the tariff's first scheme that lists the
prescription's special disease and the line's drug, and that the person is enrolled in. Each scheme
has a deductible and a cap of its own; what its cap leaves over stays with the person.

What holds under this rounding, for a tariff that pays at most 100 %: raising a unit price never
lowers what the person pays, exactly. Raising a quantity can, by at most one fen for each line with
a limit price, because the amount and the limit amount are rounded apart.

Delivery fees are no input here: they stand beside the settlement and are always cash (R12).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum, unique
from functools import cache
from typing import TypeAlias

from rxoutflow_server.domain.errors import InvariantBroken, Reason, Refusal
from rxoutflow_server.domain.money import (
    WHOLE_BP,
    apportion,
    half_up,
    line_amount_fen,
    spread,
)
from rxoutflow_server.domain.tariff import (
    ANY_PART,
    TIERS,
    AccountRules,
    AreaStatus,
    Part,
    PersonType,
    Scheme,
    Tariff,
    Terms,
)


@unique
class Category(StrEnum):
    """The catalogue's categories: 甲 full range, 乙 with a first self-pay, 丙 own cost."""

    A = "A"
    B = "B"
    C = "C"


@dataclass(frozen=True, slots=True)
class Line:
    """What was dispensed, priced with the dispensing region's catalogue (R13).

    ``drug_code`` decides only whether a scheme covers the line.

    Raises:
        Refusal: FIELD_INVALID, a figure is out of range; ``detail["field"]`` names it.
    """

    quantity: int
    unit_price_micro_yuan: int
    category: Category
    first_self_pay_bp: int = 0
    limit_price_micro_yuan: int | None = None
    limited_use_unmet: bool = False
    drug_code: str = ""

    def __post_init__(self) -> None:
        if self.quantity < 1:
            raise _field_invalid("quantity", "must be at least 1")
        if self.unit_price_micro_yuan < 0:
            raise _field_invalid("unit_price_micro_yuan", "must not be negative")
        if not 0 <= self.first_self_pay_bp <= WHOLE_BP:
            raise _field_invalid("first_self_pay_bp", "must be 0 to 10000")
        if self.limit_price_micro_yuan is not None and self.limit_price_micro_yuan < 0:
            raise _field_invalid("limit_price_micro_yuan", "must not be negative")

    @property
    def is_own_cost(self) -> bool:
        """Category C, or a limited-use drug outside its limit (R16)."""
        return self.category is Category.C or self.limited_use_unmet


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A person's enrolment in a scheme, and what of its deductible and cap this year has used.

    Raises:
        Refusal: FIELD_INVALID, a figure is out of range; ``detail["field"]`` names it.
    """

    scheme_code: str
    used_deductible_fen: int = 0
    used_cap_fen: int = 0

    def __post_init__(self) -> None:
        if self.used_deductible_fen < 0:
            raise _field_invalid("used_deductible_fen", "must not be negative")
        if self.used_cap_fen < 0:
            raise _field_invalid("used_cap_fen", "must not be negative")


@dataclass(frozen=True, slots=True)
class Standing:
    """Who the person is to the payer, and what of this year's deductible and cap is used.

    The figures here are those of ordinary care; each enrolment has its own. ``area_status`` is none
    at home: where the medicine is dispensed in the payer region (R14).

    Raises:
        Refusal: FIELD_INVALID, a figure is out of range; ``detail["field"]`` names it.
    """

    person_type: PersonType
    issuing_tier: int
    area_status: AreaStatus | None
    used_deductible_fen: int = 0
    used_cap_fen: int = 0
    enrolments: tuple[Enrolment, ...] = ()

    def __post_init__(self) -> None:
        if self.issuing_tier not in TIERS:
            raise _field_invalid("issuing_tier", "must be 1, 2 or 3")
        if self.used_deductible_fen < 0:
            raise _field_invalid("used_deductible_fen", "must not be negative")
        if self.used_cap_fen < 0:
            raise _field_invalid("used_cap_fen", "must not be negative")


@dataclass(frozen=True, slots=True)
class Funding:
    """What the accounts grant for this settlement; family accounts pay in the order given.

    Raises:
        Refusal: FIELD_INVALID, a grant is negative; ``detail["field"]`` names it.
    """

    own_account_fen: int = 0
    family_accounts_fen: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.own_account_fen < 0:
            raise _field_invalid("own_account_fen", "must not be negative")
        for index, granted in enumerate(self.family_accounts_fen):
            if granted < 0:
                raise _field_invalid(f"family_accounts_fen[{index}]", "must not be negative")


@dataclass(frozen=True, slots=True)
class Case:
    """Everything besides the tariff that decides a settlement.

    ``special_disease_code`` is what the prescription names, or empty.
    """

    lines: tuple[Line, ...]
    standing: Standing
    funding: Funding
    special_disease_code: str = ""


@dataclass(frozen=True, slots=True)
class LineParts:
    """How one line's amount divides: own + excess + first self-pay + inscope."""

    amount_fen: int
    own_fen: int
    excess_fen: int
    first_self_pay_fen: int
    inscope_fen: int

    def __post_init__(self) -> None:
        parts = self.own_fen + self.excess_fen + self.first_self_pay_fen + self.inscope_fen
        _hold(self.amount_fen == parts, "a line's parts add up to its amount")
        _hold(
            self.own_fen >= 0
            and self.excess_fen >= 0
            and self.first_self_pay_fen >= 0
            and self.inscope_fen >= 0,
            "no part of a line is negative",
        )


@dataclass(frozen=True, slots=True)
class SchemeShare:
    """What of a settlement falls to one scheme, or to ordinary care (an empty code), in fen.

    ``lines`` are positions from 0, ascending. What the person pays of it is ``inscope_fen`` less
    ``pool_fen``.
    """

    scheme_code: str
    lines: tuple[int, ...]
    inscope_fen: int
    deductible_fen: int
    pool_fen: int

    def __post_init__(self) -> None:
        left = self.inscope_fen - self.deductible_fen - self.pool_fen
        _hold(
            self.deductible_fen >= 0 and self.pool_fen >= 0 and left >= 0,
            "a scheme deducts and pays no more than is in its scope",
        )


@dataclass(frozen=True, slots=True)
class Benefit:
    """A settlement's figures in fen, under one tariff version.

    ``lines`` and ``family_accounts_fen`` are in the order of the case. The figures are those of the
    whole settlement; ``schemes`` says what of them falls to which scheme, and the rest is
    ``ordinary`` care.

    Raises:
        InvariantBroken: an identity of the formula does not hold.
    """

    tariff_version_id: str
    lines: tuple[LineParts, ...]
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
    family_accounts_fen: tuple[int, ...]
    cash_fen: int
    schemes: tuple[SchemeShare, ...] = ()
    accounts: AccountRules = ANY_PART

    def __post_init__(self) -> None:
        self._hold_sums_of_lines()
        self._hold_identities()
        if self.schemes:
            self._hold_schemes()
        if self.accounts is not ANY_PART:
            self._hold_account_rules()
        _hold(
            self.deductible_fen >= 0
            and self.pool_fen >= 0
            and self.ratio_self_fen >= 0
            and self.account_fen >= 0
            and self.cash_fen >= 0
            and min(self.family_accounts_fen, default=0) >= 0,
            "no amount is negative",
        )

    @property
    def ordinary(self) -> SchemeShare:
        """What falls to no scheme."""
        taken = {index for share in self.schemes for index in share.lines}
        return SchemeShare(
            scheme_code="",
            lines=tuple([index for index in range(len(self.lines)) if index not in taken]),
            inscope_fen=self.inscope_fen - sum(share.inscope_fen for share in self.schemes),
            deductible_fen=self.deductible_fen
            - sum(share.deductible_fen for share in self.schemes),
            pool_fen=self.pool_fen - sum(share.pool_fen for share in self.schemes),
        )

    def _hold_schemes(self) -> None:
        shares = (self.ordinary, *self.schemes)
        positions = sorted(index for share in shares for index in share.lines)
        _hold(positions == list(range(len(self.lines))), "every line falls to one scheme")
        for share in shares:
            inscope = sum(self.lines[index].inscope_fen for index in share.lines)
            _hold(share.inscope_fen == inscope, "a scheme's scope is that of its lines")

    def _hold_account_rules(self) -> None:
        room = _account_room_fen(self.accounts, _parts(self), self.account_fen)
        _hold(
            self.account_fen <= room.own and self.family_fen <= room.family,
            "accounts pay only the parts that they may",
        )

    def _hold_sums_of_lines(self) -> None:
        total = own = excess = first = inscope = 0
        for line in self.lines:
            total += line.amount_fen
            own += line.own_fen
            excess += line.excess_fen
            first += line.first_self_pay_fen
            inscope += line.inscope_fen
        _hold(
            self.total_fen == total
            and self.own_fen == own
            and self.excess_fen == excess
            and self.first_self_pay_fen == first
            and self.inscope_fen == inscope,
            "the totals are the sums of the lines",
        )

    def _hold_identities(self) -> None:
        outside = self.own_fen + self.excess_fen + self.first_self_pay_fen
        _hold(
            self.total_fen == outside + self.inscope_fen,
            "total = own + excess + first self-pay + inscope",
        )
        _hold(
            self.inscope_fen == self.deductible_fen + self.pool_fen + self.ratio_self_fen,
            "inscope = deductible + pool + ratio self-pay",
        )
        _hold(
            self.person_fen == outside + self.deductible_fen + self.ratio_self_fen,
            "person = own + excess + first self-pay + deductible + ratio self-pay",
        )
        _hold(self.family_fen == sum(self.family_accounts_fen), "family = its accounts")
        _hold(
            self.total_fen == self.pool_fen + self.account_fen + self.family_fen + self.cash_fen,
            "total = pool + account + family + cash",
        )


def benefit(tariff: Tariff, case: Case) -> Benefit:
    """Apply the tariff to the case.

    Raises:
        InvariantBroken: the result breaks an identity; a defect, never bad input.
    """
    lines = tuple([_line_parts(line) for line in case.lines])
    total = own = excess = first = inscope = 0
    for line in lines:
        total += line.amount_fen
        own += line.own_fen
        excess += line.excess_fen
        first += line.first_self_pay_fen
        inscope += line.inscope_fen
    schemes = _scheme_shares(tariff, case, lines)
    deductible, pool = _terms_applied(
        tariff,
        case.standing,
        inscope - sum([share.inscope_fen for share in schemes]),
        case.standing.used_deductible_fen,
        case.standing.used_cap_fen,
    )
    deductible += sum([share.deductible_fen for share in schemes])
    pool += sum([share.pool_fen for share in schemes])
    parts = (own, excess, first, deductible, inscope - deductible - pool)
    account, family_accounts = _accounts_draw(tariff.accounts, parts, case.funding)
    person, family = total - pool, sum(family_accounts)
    return Benefit(
        tariff_version_id=tariff.version_id,
        lines=lines,
        total_fen=total,
        own_fen=own,
        excess_fen=excess,
        first_self_pay_fen=first,
        inscope_fen=inscope,
        deductible_fen=deductible,
        pool_fen=pool,
        ratio_self_fen=inscope - deductible - pool,
        person_fen=person,
        account_fen=account,
        family_fen=family,
        family_accounts_fen=family_accounts,
        cash_fen=person - account - family,
        schemes=schemes,
        accounts=tariff.accounts,
    )


def _line_parts(line: Line) -> LineParts:
    amount = line_amount_fen(line.quantity, line.unit_price_micro_yuan)
    if line.is_own_cost:
        return LineParts(amount, amount, 0, 0, 0)
    excess = _excess_fen(line, amount)
    first = _first_self_pay_fen(line, amount - excess)
    return LineParts(amount, 0, excess, first, amount - excess - first)


def _excess_fen(line: Line, amount: int) -> int:
    if line.limit_price_micro_yuan is None:
        return 0
    return max(0, amount - line_amount_fen(line.quantity, line.limit_price_micro_yuan))


def _first_self_pay_fen(line: Line, within_limit: int) -> int:
    if line.category is not Category.B:
        return 0
    return half_up(within_limit * line.first_self_pay_bp, WHOLE_BP)


def _scheme_shares(
    tariff: Tariff, case: Case, lines: tuple[LineParts, ...]
) -> tuple[SchemeShare, ...]:
    """R15: the schemes that apply and cover a line, in the order of the tariff."""
    if not case.special_disease_code or not tariff.schemes or not case.standing.enrolments:
        return ()
    shares = []
    left = list(range(len(lines)))
    for scheme, enrolment in _applicable(tariff, case):
        covered = [index for index in left if case.lines[index].drug_code in scheme.drug_codes]
        if covered:
            shares.append(_scheme_share(scheme, enrolment, case.standing, lines, covered))
            left = [index for index in left if index not in covered]
    return tuple(shares)


def _applicable(tariff: Tariff, case: Case) -> list[tuple[Scheme, Enrolment]]:
    enrolled = {enrolment.scheme_code: enrolment for enrolment in case.standing.enrolments}
    return [
        (scheme, enrolled[scheme.scheme_code])
        for scheme in tariff.schemes
        if scheme.scheme_code in enrolled and case.special_disease_code in scheme.disease_codes
    ]


def _scheme_share(
    scheme: Scheme,
    enrolment: Enrolment,
    standing: Standing,
    lines: tuple[LineParts, ...],
    covered: list[int],
) -> SchemeShare:
    inscope = sum([lines[index].inscope_fen for index in covered])
    deductible, pool = _terms_applied(
        scheme, standing, inscope, enrolment.used_deductible_fen, enrolment.used_cap_fen
    )
    return SchemeShare(scheme.scheme_code, tuple(covered), inscope, deductible, pool)


def _terms_applied(
    terms: Terms, standing: Standing, inscope: int, used_deductible: int, used_cap: int
) -> tuple[int, int]:
    """Deductible and pool of what is in scope under these terms."""
    left = terms.deductible.left_fen(standing.person_type, standing.issuing_tier, used_deductible)
    deductible = min(inscope, left)
    ratio = terms.ratio_for(standing.person_type, standing.issuing_tier)
    factor = terms.area_factor_bp.of(standing.area_status)
    share = half_up((inscope - deductible) * ratio * factor, WHOLE_BP * WHOLE_BP)
    return deductible, min(share, terms.cap_left_fen(standing.person_type, used_cap))


_Parts: TypeAlias = tuple[int, int, int, int, int]
"""What the person owes, in the order of ``Part``."""


def _parts(bill: Benefit) -> _Parts:
    return (
        bill.own_fen,
        bill.excess_fen,
        bill.first_self_pay_fen,
        bill.deductible_fen,
        bill.ratio_self_fen,
    )


def _sum_of(parts: _Parts, allowed: frozenset[Part]) -> int:
    return sum([parts[place] for place in _places(allowed)])


@cache
def _places(allowed: frozenset[Part]) -> tuple[int, ...]:
    """Where these parts are in a bill; there are 32 sets of them in all."""
    return tuple([place for place, part in enumerate(Part) if part in allowed])


@dataclass(frozen=True, slots=True)
class _Room:
    """How much of a bill the accounts may pay at most."""

    own: int
    family: int


def _account_room_fen(rules: AccountRules, parts: _Parts, account: int | None = None) -> _Room:
    """The room for the own account, and for the family's once the own one has paid ``account``.

    The own account pays first what the family's may not, so that it takes no room from them.
    """
    own = _sum_of(parts, rules.own)
    alone = _sum_of(parts, rules.own - rules.family)
    shared = max(0, (own if account is None else account) - alone)
    return _Room(own, _sum_of(parts, rules.family) - shared)


def _accounts_draw(
    rules: AccountRules, parts: _Parts, funding: Funding
) -> tuple[int, tuple[int, ...]]:
    if rules is ANY_PART:
        person = sum(parts)
        account = min(funding.own_account_fen, person)
        return account, _drawn_in_order(funding.family_accounts_fen, person - account)
    account = min(funding.own_account_fen, _account_room_fen(rules, parts).own)
    room = _account_room_fen(rules, parts, account).family
    return account, _drawn_in_order(funding.family_accounts_fen, room)


def _drawn_in_order(granted: tuple[int, ...], needed: int) -> tuple[int, ...]:
    drawn = []
    for limit in granted:
        part = min(limit, needed)
        drawn.append(part)
        needed -= part
    return tuple(drawn)


@dataclass(frozen=True, slots=True)
class LineShare:
    """What one line, or a returned part of it, took from each funding source, in fen.

    ``deductible_fen`` is not a source beside the others: it is what a return restores to this
    year's deductible. ``pool_fen`` is also what a return restores to the cap. Both are those of the
    scheme ``scheme_code``, or of ordinary care where that is empty. Own cost, excess, first
    self-pay, deductible and ratio self-pay together are what the person's sources paid.
    """

    amount_fen: int
    deductible_fen: int
    pool_fen: int
    account_fen: int
    family_accounts_fen: tuple[int, ...]
    cash_fen: int
    scheme_code: str = ""
    own_fen: int = 0
    excess_fen: int = 0
    first_self_pay_fen: int = 0

    def __post_init__(self) -> None:
        paid = self.pool_fen + self.account_fen + self.family_fen + self.cash_fen
        _hold(self.amount_fen == paid, "a line's share adds up to its amount")
        _hold(
            min(self.own_fen, self.excess_fen, self.first_self_pay_fen, self.ratio_self_fen) >= 0
            and self.deductible_fen >= 0
            and self.pool_fen >= 0
            and self.account_fen >= 0
            and self.cash_fen >= 0
            and min(self.family_accounts_fen, default=0) >= 0,
            "no share is negative",
        )

    @property
    def family_fen(self) -> int:
        """What all family accounts paid together."""
        return sum(self.family_accounts_fen)

    @property
    def ratio_self_fen(self) -> int:
        """The person's share by ratio and cap: what no other part of the amount is."""
        outside = self.own_fen + self.excess_fen + self.first_self_pay_fen
        return self.amount_fen - self.pool_fen - outside - self.deductible_fen


def apportion_to_lines(result: Benefit) -> tuple[LineShare, ...]:
    """Divide a settlement over its lines, per funding source, to the fen.

    Each line's shares add up to its amount, and each source's shares add up to what it paid. Both
    hold at once because the sources are divided one after the other, each in proportion to what the
    sources before it left: per scheme, deductible by inscope and pool by base; then the account by
    those parts of the line that it may pay, first the ones that only it may pay; then each family
    account by what it may pay and is still unpaid; the rest of a line is cash.
    """
    deductible, pool = _fund_by_line(result)
    owed = [
        (
            line.own_fen,
            line.excess_fen,
            line.first_self_pay_fen,
            deductible[index],
            line.inscope_fen - deductible[index] - pool[index],
        )
        for index, line in enumerate(result.lines)
    ]
    account, family = _accounts_by_line(result, owed)
    paid = [sum(drawn) for drawn in zip(pool, account, *family, strict=True)]
    scheme_of = {index: share.scheme_code for share in result.schemes for index in share.lines}
    return tuple(
        LineShare(
            amount_fen=line.amount_fen,
            deductible_fen=deductible[index],
            pool_fen=pool[index],
            account_fen=account[index],
            family_accounts_fen=tuple([drawn[index] for drawn in family]),
            cash_fen=line.amount_fen - paid[index],
            scheme_code=scheme_of.get(index, ""),
            own_fen=line.own_fen,
            excess_fen=line.excess_fen,
            first_self_pay_fen=line.first_self_pay_fen,
        )
        for index, line in enumerate(result.lines)
    )


def _fund_by_line(result: Benefit) -> tuple[list[int], list[int]]:
    """Deductible and pool of each line: each scheme's own, divided over its own lines."""
    deductible, pool = [0] * len(result.lines), [0] * len(result.lines)
    for share in (result.ordinary, *result.schemes):
        inscope = [result.lines[index].inscope_fen for index in share.lines]
        deducted = apportion(share.deductible_fen, inscope)
        paid = apportion(share.pool_fen, _less(inscope, deducted))
        for index, taken, given in zip(share.lines, deducted, paid, strict=True):
            deductible[index], pool[index] = taken, given
    return deductible, pool


def _accounts_by_line(
    result: Benefit, owed: Sequence[_Parts]
) -> tuple[list[int], list[tuple[int, ...]]]:
    """What the own account, and each family account, paid of each line."""
    rules = result.accounts
    only_own, both = rules.own - rules.family, rules.own & rules.family
    alone = [_sum_of(parts, only_own) for parts in owed]
    common = [_sum_of(parts, both) for parts in owed]
    paid_alone = apportion(min(result.account_fen, sum(alone)), alone)
    paid_common = apportion(result.account_fen - sum(paid_alone), common)
    unpaid = _less([_sum_of(parts, rules.family) for parts in owed], paid_common)
    family = []
    for drawn in result.family_accounts_fen:
        family.append(apportion(drawn, unpaid))
        unpaid = _less(unpaid, family[-1])
    return [a + b for a, b in zip(paid_alone, paid_common, strict=True)], family


def return_of_line(
    share: LineShare, quantity: int, returned_before: int, returning: int
) -> LineShare:
    """What a return of part of a line gives back to each source.

    Args:
        share: what the whole line took.
        quantity: the line's dispensed quantity.
        returned_before: what earlier returns of this line took back.
        returning: what comes back now; at least 1.

    What has been returned so far, rounded once, is spread over what the line took: over its
    sources, and the person's part over own cost, excess, first self-pay, deductible and ratio
    self-pay. A return gives back what that spread has grown by. So the returns of a line, in any
    portions, add up to the line exactly, every portion keeps the identities of a settlement, and
    none is negative.

    Raises:
        Refusal: FIELD_INVALID or QUANTITY_EXCEEDED, more comes back than went out.
    """
    if returned_before < 0 or returning < 1:
        raise _field_invalid("quantity", "must be at least 1 in a return")
    if returned_before + returning > quantity:
        raise Refusal(
            Reason.QUANTITY_EXCEEDED,
            f"{quantity - returned_before} of this line can still be returned, not {returning}",
            returnable=str(quantity - returned_before),
        )

    before = _returned_so_far(share, quantity, returned_before)
    after = _returned_so_far(share, quantity, returned_before + returning)
    own, excess, first, deductible, _, pool, account, *family, cash = _less(list(after), before)
    return LineShare(
        amount_fen=pool + account + sum(family) + cash,
        deductible_fen=deductible,
        pool_fen=pool,
        account_fen=account,
        family_accounts_fen=tuple(family),
        cash_fen=cash,
        scheme_code=share.scheme_code,
        own_fen=own,
        excess_fen=excess,
        first_self_pay_fen=first,
    )


def _returned_so_far(share: LineShare, quantity: int, returned: int) -> tuple[int, ...]:
    """The person's parts and then the sources of what a quantity of a line took."""
    amount = half_up(share.amount_fen * returned, quantity)
    sources = spread(
        amount, (share.pool_fen, share.account_fen, *share.family_accounts_fen, share.cash_fen)
    )
    parts = (
        share.own_fen,
        share.excess_fen,
        share.first_self_pay_fen,
        share.deductible_fen,
        share.ratio_self_fen,
    )
    return spread(amount - sources[0], parts) + sources


def _less(amounts: list[int], taken: tuple[int, ...]) -> list[int]:
    return [amount - part for amount, part in zip(amounts, taken, strict=True)]


def _hold(condition: bool, identity: str) -> None:
    if not condition:
        raise InvariantBroken(f"benefit: {identity}")


def _field_invalid(field: str, problem: str) -> Refusal:
    return Refusal(Reason.FIELD_INVALID, f"{field} {problem}", field=field)
