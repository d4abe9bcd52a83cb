"""The benefit formula: what the fund pays and what the person pays, to the fen.

``benefit`` is one pure function of a tariff and a case; the same input gives the same result on any
machine on any day. Amounts are fen, unit prices 10⁻⁶ yuan, ratios basis points. Rounding is half-up
and happens four times only: the amount, the limit amount and the first self-pay of a line, and the
pool of the settlement. Every result proves its identities when it is built and cannot exist
without them. ``apportion_to_lines`` says what each line took from each funding source, so that a
return can give back exactly that.

What holds under this rounding, for a tariff that pays at most 100 %: raising a unit price never
lowers what the person pays, exactly. Raising a quantity can, by at most one fen for each line with
a limit price, because the amount and the limit amount are rounded apart.

Delivery fees are no input here: they stand beside the settlement and are always cash (R12).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum, unique

from rxoutflow_server.domain.errors import InvariantBroken, Reason, Refusal
from rxoutflow_server.domain.money import WHOLE_BP, apportion, half_up, line_amount_fen, yuan
from rxoutflow_server.domain.tariff import TIERS, AreaStatus, PersonType, Tariff


@unique
class Category(StrEnum):
    """The catalogue's categories: 甲 full range, 乙 with a first self-pay, 丙 own cost."""

    A = "A"
    B = "B"
    C = "C"


@dataclass(frozen=True, slots=True)
class Line:
    """What was dispensed, priced with the dispensing region's catalogue (R13).

    Raises:
        Refusal: FIELD_INVALID, a figure is out of range; ``detail["field"]`` names it.
    """

    quantity: int
    unit_price_micro_yuan: int
    category: Category
    first_self_pay_bp: int = 0
    limit_price_micro_yuan: int | None = None
    limited_use_unmet: bool = False

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
class Standing:
    """Who the person is to the payer, and what of this year's deductible and cap is used.

    ``area_status`` is none at home: where the medicine is dispensed in the payer region (R14).

    Raises:
        Refusal: FIELD_INVALID, a figure is out of range; ``detail["field"]`` names it.
    """

    person_type: PersonType
    issuing_tier: int
    area_status: AreaStatus | None
    used_deductible_fen: int = 0
    used_cap_fen: int = 0

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
    """Everything besides the tariff that decides a settlement."""

    lines: tuple[Line, ...]
    standing: Standing
    funding: Funding


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
class Benefit:
    """A settlement's figures in fen, under one tariff version.

    ``lines`` and ``family_accounts_fen`` are in the order of the case.

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

    def __post_init__(self) -> None:
        self._hold_sums_of_lines()
        self._hold_identities()
        _hold(
            self.deductible_fen >= 0
            and self.pool_fen >= 0
            and self.ratio_self_fen >= 0
            and self.account_fen >= 0
            and self.cash_fen >= 0
            and min(self.family_accounts_fen, default=0) >= 0,
            "no amount is negative",
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
    deductible = min(inscope, _deductible_left_fen(tariff, case.standing))
    pool = _pool_fen(tariff, case.standing, inscope - deductible)
    person = total - pool
    account = min(case.funding.own_account_fen, person)
    family_accounts = _drawn_in_order(case.funding.family_accounts_fen, person - account)
    family = sum(family_accounts)
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


def _deductible_left_fen(tariff: Tariff, standing: Standing) -> int:
    return tariff.deductible.left_fen(
        standing.person_type, standing.issuing_tier, standing.used_deductible_fen
    )


def _pool_fen(tariff: Tariff, standing: Standing, base: int) -> int:
    ratio = tariff.ratio_for(standing.person_type, standing.issuing_tier)
    factor = tariff.area_factor_bp.of(standing.area_status)
    return min(half_up(base * ratio * factor, WHOLE_BP * WHOLE_BP), _cap_left_fen(tariff, standing))


def _cap_left_fen(tariff: Tariff, standing: Standing) -> int:
    return max(0, tariff.cap_fen.of(standing.person_type) - standing.used_cap_fen)


def _drawn_in_order(granted: tuple[int, ...], needed: int) -> tuple[int, ...]:
    drawn = []
    for limit in granted:
        part = min(limit, needed)
        drawn.append(part)
        needed -= part
    return tuple(drawn)


@dataclass(frozen=True, slots=True)
class Step:
    """One figure of a settlement and the rule that gave it."""

    name: str
    fen: int
    because: str


def explain(tariff: Tariff, case: Case, result: Benefit) -> list[Step]:
    """Say where each figure comes from: which line, or which row of which tariff.

    Reads the figures of ``result`` and computes none of its own, so it can never disagree.
    """
    steps: list[Step] = []
    for number, (line, parts) in enumerate(zip(case.lines, result.lines, strict=True), start=1):
        steps += _explain_line(f"line {number}", line, parts)
    return steps + _explain_payer(tariff, case.standing, result) + _explain_person(result)


def _explain_line(name: str, line: Line, parts: LineParts) -> list[Step]:
    price = f"{line.quantity} × {yuan(line.unit_price_micro_yuan)} yuan"
    steps = [Step(f"{name} amount", parts.amount_fen, price)]
    if line.is_own_cost:
        why = "category C" if line.category is Category.C else "limited use not met"
        return [*steps, Step(f"{name} own", parts.own_fen, why)]
    if line.limit_price_micro_yuan is not None and parts.excess_fen:
        limit = f"above the limit price of {yuan(line.limit_price_micro_yuan)} yuan"
        steps.append(Step(f"{name} excess", parts.excess_fen, limit))
    if parts.first_self_pay_fen:
        first = f"category B, {_percent(line.first_self_pay_bp)} before the ratio"
        steps.append(Step(f"{name} first self-pay", parts.first_self_pay_fen, first))
    return [*steps, Step(f"{name} inscope", parts.inscope_fen, f"category {line.category}")]


def _explain_payer(tariff: Tariff, standing: Standing, result: Benefit) -> list[Step]:
    source = f"tariff {tariff.version_id} ({tariff.document}"
    source += ", unverified)" if tariff.unverified else ")"
    left = _deductible_left_fen(tariff, standing)
    base = result.inscope_fen - result.deductible_fen
    ratio = tariff.ratio_for(standing.person_type, standing.issuing_tier)
    factor = tariff.area_factor_bp.of(standing.area_status)
    cap_left = _cap_left_fen(tariff, standing)
    pays = (
        f"{source}: {_percent(ratio)} for {standing.person_type}, tier {standing.issuing_tier}, "
        f"× {_percent(factor)} {_where(standing)}, of {base} fen"
    )
    if result.pool_fen == cap_left:
        pays += f", capped at the {cap_left} fen left of the yearly cap"
    return [
        Step("deductible", result.deductible_fen, f"{source}: {left} fen left to deduct"),
        Step("pool", result.pool_fen, pays),
        Step("ratio self-pay", result.ratio_self_fen, "inscope, less deductible, less pool"),
    ]


def _explain_person(result: Benefit) -> list[Step]:
    return [
        Step("person", result.person_fen, "total less pool"),
        Step("account", result.account_fen, "own account, up to what it grants"),
        Step("family", result.family_fen, "family accounts in order, up to what they grant"),
        Step("cash", result.cash_fen, "the rest"),
    ]


def _where(standing: Standing) -> str:
    return "at home" if standing.area_status is None else f"for {standing.area_status}"


def _percent(basis_points: int) -> str:
    whole, part = divmod(basis_points, 100)
    return f"{whole}.{part:02d} %" if part else f"{whole} %"


@dataclass(frozen=True, slots=True)
class LineShare:
    """What one line, or a returned part of it, took from each funding source, in fen.

    ``deductible_fen`` is not a source beside the others: it is what a return restores to this
    year's deductible. ``pool_fen`` is also what a return restores to the cap.
    """

    amount_fen: int
    deductible_fen: int
    pool_fen: int
    account_fen: int
    family_accounts_fen: tuple[int, ...]
    cash_fen: int

    def __post_init__(self) -> None:
        paid = self.pool_fen + self.account_fen + self.family_fen + self.cash_fen
        _hold(self.amount_fen == paid, "a line's share adds up to its amount")
        _hold(
            self.deductible_fen >= 0
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


def apportion_to_lines(result: Benefit) -> tuple[LineShare, ...]:
    """Divide a settlement over its lines, per funding source, to the fen.

    Each line's shares add up to its amount, and each source's shares add up to what it paid. Both
    hold at once because the sources are divided one after the other, each in proportion to what the
    sources before it left: deductible by inscope, pool by base, account by the person's part, then
    each family account by what is still unpaid; the rest of a line is cash.
    """
    inscope = [line.inscope_fen for line in result.lines]
    deductible = apportion(result.deductible_fen, inscope)
    pool = apportion(result.pool_fen, _less(inscope, deductible))
    unpaid = _less([line.amount_fen for line in result.lines], pool)
    account = apportion(result.account_fen, unpaid)
    unpaid = _less(unpaid, account)
    family = []
    for drawn in result.family_accounts_fen:
        family.append(apportion(drawn, unpaid))
        unpaid = _less(unpaid, family[-1])
    return tuple(
        LineShare(
            amount_fen=line.amount_fen,
            deductible_fen=deductible[index],
            pool_fen=pool[index],
            account_fen=account[index],
            family_accounts_fen=tuple([drawn[index] for drawn in family]),
            cash_fen=unpaid[index],
        )
        for index, line in enumerate(result.lines)
    )


def return_of_line(
    share: LineShare, quantity: int, returned_before: int, returning: int
) -> LineShare:
    """What a return of part of a line gives back to each source.

    Args:
        share: what the whole line took.
        quantity: the line's dispensed quantity.
        returned_before: what earlier returns of this line took back.
        returning: what comes back now; at least 1.

    Each source gives back its rounded share of all that has been returned so far, less what it gave
    back before. So the returns of a line, in any portions, add up to the line exactly, and none is
    negative. One portion differs from its exact value by less than a fen a source.

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

    def back(fen: int) -> int:
        after = half_up(fen * (returned_before + returning), quantity)
        return after - half_up(fen * returned_before, quantity)

    pool, account, cash = back(share.pool_fen), back(share.account_fen), back(share.cash_fen)
    family = tuple([back(drawn) for drawn in share.family_accounts_fen])
    return LineShare(
        amount_fen=pool + account + sum(family) + cash,
        deductible_fen=back(share.deductible_fen),
        pool_fen=pool,
        account_fen=account,
        family_accounts_fen=family,
        cash_fen=cash,
    )


def _less(amounts: list[int], taken: tuple[int, ...]) -> list[int]:
    return [amount - part for amount, part in zip(amounts, taken, strict=True)]


def _hold(condition: bool, identity: str) -> None:
    if not condition:
        raise InvariantBroken(f"benefit: {identity}")


def _field_invalid(field: str, problem: str) -> Refusal:
    return Refusal(Reason.FIELD_INVALID, f"{field} {problem}", field=field)
