"""The payer region's tariff: deductible, ratios, caps and away-from-home factors, as dated data.

A tariff names the document it comes from and the days on which it is in force; the version that
applies is the one in force on the day of dispensing (R20). It holds the terms of ordinary care, the
schemes for listed diseases with terms of their own (R15), and what the accounts may pay. Nothing
here knows a figure of any region: figures come from reference data. A tariff that could pay more
than the bill (a ratio or a factor above 100 %) cannot be built, and neither can two versions of a
region that overlap.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from enum import StrEnum, unique
from itertools import chain, pairwise
from operator import attrgetter

from rxoutflow_server.domain.errors import Reason, Refusal
from rxoutflow_server.domain.money import WHOLE_BP

TIERS = (1, 2, 3)
"""Tiers of hospitals, the lowest first (一级, 二级, 三级)."""


@unique
class PersonType(StrEnum):
    """Whether the insured still works (在职) or has retired (退休)."""

    ACTIVE = "active"
    RETIRED = "retired"


@unique
class AreaStatus(StrEnum):
    """The person's away-from-home status (异地备案)."""

    FILED = "filed"
    REFERRED = "referred"
    EMERGENCY = "emergency"
    UNFILED = "unfiled"


@dataclass(frozen=True, slots=True)
class ByPerson:
    """An amount in fen for each person type."""

    active: int
    retired: int

    def of(self, person_type: PersonType) -> int:
        """The amount for this person type."""
        return self.retired if person_type is PersonType.RETIRED else self.active


@dataclass(frozen=True, slots=True)
class ByTier:
    """A figure for each tier of the issuing hospital (R11)."""

    tier_1: int
    tier_2: int
    tier_3: int

    def of(self, tier: int) -> int:
        """The figure for this tier, 1 to 3."""
        return (self.tier_1, self.tier_2, self.tier_3)[TIERS.index(tier)]


@dataclass(frozen=True, slots=True)
class ByAreaStatus:
    """A factor in basis points for each away-from-home status (R14).

    A status that the document does not name is not reduced. At home there is no such status, and
    nothing is reduced.
    """

    filed: int = WHOLE_BP
    referred: int = WHOLE_BP
    emergency: int = WHOLE_BP
    unfiled: int = WHOLE_BP

    def of(self, status: AreaStatus | None) -> int:
        """The factor for this status; for none, at home, the whole."""
        match status:
            case None:
                return WHOLE_BP
            case AreaStatus.FILED:
                return self.filed
            case AreaStatus.REFERRED:
                return self.referred
            case AreaStatus.EMERGENCY:
                return self.emergency
            case AreaStatus.UNFILED:
                return self.unfiled


@dataclass(frozen=True, slots=True)
class AnnualDeductible:
    """A deductible that is used up once a year; it differs by person type."""

    amount_fen: ByPerson

    def left_fen(self, person_type: PersonType, tier: int, used_fen: int) -> int:
        """What this settlement may still deduct; the tier plays no part."""
        return max(0, self.amount_fen.of(person_type) - used_fen)


@dataclass(frozen=True, slots=True)
class PerVisitDeductible:
    """A deductible for every visit, by tier of the hospital, up to a maximum a year."""

    amount_fen: ByTier
    yearly_maximum_fen: int

    def left_fen(self, person_type: PersonType, tier: int, used_fen: int) -> int:
        """What this settlement may still deduct; the person type plays no part."""
        return min(self.amount_fen.of(tier), max(0, self.yearly_maximum_fen - used_fen))


Deductible = AnnualDeductible | PerVisitDeductible


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the fund takes over of inscope costs: after a deductible, by a ratio, up to a cap.

    Raises:
        ValueError: the figures contradict each other or could pay more than the bill.
    """

    deductible: Deductible
    ratio_bp: ByTier
    retired_bonus_bp: int
    cap_fen: ByPerson
    area_factor_bp: ByAreaStatus

    def __post_init__(self) -> None:
        if not all(amount >= 0 for amount in self._amounts_fen()):
            raise ValueError("amounts must not be negative")
        if not all(0 <= ratio <= WHOLE_BP for ratio in self._ratios_bp()):
            raise ValueError("ratios, with the retired bonus, and factors must be 0 to 10000 bp")

    def ratio_for(self, person_type: PersonType, tier: int) -> int:
        """Share of the base that the fund pays at home, in basis points."""
        bonus = self.retired_bonus_bp if person_type is PersonType.RETIRED else 0
        return self.ratio_bp.of(tier) + bonus

    def cap_left_fen(self, person_type: PersonType, used_fen: int) -> int:
        """What the fund may still pay this year."""
        return max(0, self.cap_fen.of(person_type) - used_fen)

    def _amounts_fen(self) -> Iterator[int]:
        yield from (self.cap_fen.active, self.cap_fen.retired)
        match self.deductible:
            case AnnualDeductible(amount):
                yield from (amount.active, amount.retired)
            case PerVisitDeductible(by_tier, yearly_maximum):
                yield from (by_tier.tier_1, by_tier.tier_2, by_tier.tier_3, yearly_maximum)

    def _ratios_bp(self) -> Iterator[int]:
        yield self.retired_bonus_bp
        yield from (self.ratio_for(person, tier) for person in PersonType for tier in TIERS)
        yield from (self.area_factor_bp.of(status) for status in AreaStatus)


@unique
class SchemeKind(StrEnum):
    """Which policy a scheme comes from; the terms are in the scheme, whatever its kind."""

    SPECIAL_DISEASE = "special_disease"
    """Outpatient chronic and special diseases (门诊慢特病)."""
    TWO_DISEASES = "two_diseases"
    """Outpatient drugs for hypertension and diabetes (两病)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme(Terms):
    """Terms of their own for enrolled persons, listed diseases and listed drugs (R15).

    Deductible and cap are the scheme's: they are used up beside those of ordinary care.
    ``drug_codes`` are those of the insurance catalogue.

    Raises:
        ValueError: it lists nothing, or its terms are not possible.
    """

    scheme_code: str
    name: str
    kind: SchemeKind
    document: str
    disease_codes: frozenset[str]
    drug_codes: frozenset[str]

    def __post_init__(self) -> None:
        Terms.__post_init__(self)
        if not self.disease_codes or not self.drug_codes:
            raise ValueError("a scheme must list at least one disease and one drug")


@unique
class Part(StrEnum):
    """The parts of a bill that the person pays, by which accounts are limited."""

    OWN = "own"
    EXCESS = "excess"
    FIRST_SELF_PAY = "first_self_pay"
    DEDUCTIBLE = "deductible"
    RATIO_SELF = "ratio_self"


ALL_PARTS = frozenset(Part)


@dataclass(frozen=True, slots=True)
class AccountRules:
    """Which parts the person's own account may pay, and which the family's (家庭共济).

    An empty set keeps that kind of account out. A delivery fee is no part: no account ever pays it
    (R12).
    """

    own: frozenset[Part] = ALL_PARTS
    family: frozenset[Part] = ALL_PARTS


ANY_PART = AccountRules()
"""Accounts may pay whatever the person owes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tariff(Terms):
    """One version of a region's outpatient benefit, in force from a day until another day.

    ``valid_until`` is the first day on which the version is no longer in force; None leaves it
    open. ``unverified`` marks figures that nobody has held against the document they cite. The
    order of ``schemes`` matters: a drug falls to the first that applies and lists it.

    Raises:
        ValueError: the figures contradict each other or could pay more than the bill.
    """

    version_id: str
    region_code: str
    document: str
    unverified: bool
    valid_from: date
    valid_until: date | None
    schemes: tuple[Scheme, ...] = ()
    accounts: AccountRules = ANY_PART

    def __post_init__(self) -> None:
        Terms.__post_init__(self)
        if self.valid_until is not None and self.valid_until <= self.valid_from:
            raise ValueError("valid_until must be after valid_from")
        codes = [scheme.scheme_code for scheme in self.schemes]
        if len(set(codes)) < len(codes):
            raise ValueError("two schemes must not share a scheme_code")

    def in_force_on(self, day: date) -> bool:
        """Whether this version applies to what is dispensed on that day."""
        return self.valid_from <= day and (self.valid_until is None or day < self.valid_until)

    def scheme(self, scheme_code: str) -> Scheme | None:
        """The scheme with this code, if this version has it."""
        return next((each for each in self.schemes if each.scheme_code == scheme_code), None)


class Tariffs:
    """All tariff versions a payer knows, of one region or many."""

    def __init__(self, tariffs: Iterable[Tariff]) -> None:
        """Order the versions.

        Raises:
            ValueError: two versions of one region overlap, or two share a version id.
        """
        self._by_region: dict[str, list[Tariff]] = defaultdict(list)
        for tariff in sorted(tariffs, key=attrgetter("valid_from")):
            self._by_region[tariff.region_code].append(tariff)
        for versions in self._by_region.values():
            _refuse_overlap(versions)
        _refuse_shared_ids(list(self))

    def __iter__(self) -> Iterator[Tariff]:
        return chain.from_iterable(self._by_region.values())

    def regions(self) -> list[str]:
        """Codes of the regions that have a version, in order."""
        return sorted(self._by_region)

    def of_region(self, region_code: str) -> list[Tariff]:
        """A region's versions, the oldest first."""
        return list(self._by_region.get(region_code, []))

    def version(self, version_id: str) -> Tariff | None:
        """The version with this id, whether it is in force or not."""
        return next((each for each in self if each.version_id == version_id), None)

    def gaps(self) -> list[Gap]:
        """Where a version ends before the next one begins."""
        return [
            Gap(region_code, earlier, later, earlier.valid_until, later.valid_from)
            for region_code, versions in sorted(self._by_region.items())
            for earlier, later in pairwise(versions)
            if earlier.valid_until is not None and earlier.valid_until < later.valid_from
        ]

    def in_force(self, region_code: str, day: date) -> Tariff:
        """The version that decides what is dispensed on that day (R20).

        Raises:
            Refusal: TARIFF_NOT_IN_FORCE, no version of the region covers the day.
        """
        versions = self._by_region.get(region_code, [])
        position = bisect_right(versions, day, key=attrgetter("valid_from"))
        if position and versions[position - 1].in_force_on(day):
            return versions[position - 1]
        raise Refusal(
            Reason.TARIFF_NOT_IN_FORCE,
            f"no tariff of region {region_code} is in force on {day.isoformat()}: "
            "check the payer region and the day, or load the version that covers it",
            region_code=region_code,
            day=day.isoformat(),
        )


@dataclass(frozen=True, slots=True)
class Gap:
    """Days between two versions of a region on which nothing is in force."""

    region_code: str
    earlier: Tariff
    later: Tariff
    begin: date
    end: date


def _refuse_overlap(versions: list[Tariff]) -> None:
    for earlier, later in pairwise(versions):
        if earlier.in_force_on(later.valid_from):
            raise ValueError(
                f"versions {earlier.version_id} and {later.version_id} of region "
                f"{later.region_code} are both in force on {later.valid_from.isoformat()}"
            )


def _refuse_shared_ids(tariffs: list[Tariff]) -> None:
    seen: set[str] = set()
    for tariff in tariffs:
        if tariff.version_id in seen:
            raise ValueError(f"version id {tariff.version_id} is used twice")
        seen.add(tariff.version_id)
