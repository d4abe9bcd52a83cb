"""The dispensing region's drug catalogue: what may be sold, at what price, and how it counts.

The catalogue of the region where the pharmacy is decides (就医地目录, R13): price ceiling,
category, first self-pay, limit price, limited use. It prices a line or refuses it: a drug or a
price outside the catalogue is never passed on to the payer (R21). A catalogue does not change; new
prices are a new version.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum, auto, unique

from rxoutflow_server.domain.benefit import Category, Line
from rxoutflow_server.domain.errors import Reason, Refusal
from rxoutflow_server.domain.money import yuan

DRUG_CODE_LENGTH = 23
"""Characters of a drug code in the insurance catalogue (医保药品编码)."""


@unique
class DrugFlag(StrEnum):
    """Properties of a drug that prescription rules ask for."""

    @staticmethod
    def _generate_next_value_(name: str, start: int, count: int, last_values: list[str]) -> str:
        return name

    NARCOTIC = auto()
    PSYCHOTROPIC_1 = auto()
    PSYCHOTROPIC_2 = auto()
    TOXIC = auto()
    RADIOACTIVE = auto()
    PRECURSOR = auto()
    ANTIMICROBIAL = auto()
    SPECIAL_STORAGE = auto()
    HERBAL = auto()


@dataclass(frozen=True, slots=True)
class Drug:
    """One catalogue entry; prices are for one ``unit``, the smallest that is dispensed.

    ``units_per_package`` of them make one ``package_unit``, where the catalogue says so.
    """

    drug_code: str
    generic_name: str
    generic_group: str
    dosage_form: str
    specification: str
    unit: str
    price_micro_yuan: int
    category: Category
    first_self_pay_bp: int = 0
    limit_price_micro_yuan: int | None = None
    limited_use: str | None = None
    flags: frozenset[DrugFlag] = frozenset()
    package_unit: str | None = None
    units_per_package: int | None = None

    def packages(self, quantity: int) -> tuple[int, int]:
        """How many whole packages a quantity is, and how many units of a broken one (拆零)."""
        if self.units_per_package is None:
            return 0, quantity
        return divmod(quantity, self.units_per_package)


class Catalogue:
    """One version of a region's catalogue, looked up by drug code."""

    def __init__(self, region_code: str, version_id: str, drugs: Iterable[Drug]) -> None:
        """Index the drugs.

        Raises:
            ValueError: two drugs share a code.
        """
        self.region_code = region_code
        self.version_id = version_id
        self._by_code: dict[str, Drug] = {}
        for drug in drugs:
            if drug.drug_code in self._by_code:
                raise ValueError(f"drug code {drug.drug_code} is used twice")
            self._by_code[drug.drug_code] = drug

    def __iter__(self) -> Iterator[Drug]:
        return iter(self._by_code.values())

    def __len__(self) -> int:
        return len(self._by_code)

    def drug(self, drug_code: str) -> Drug:
        """The entry with this code.

        Raises:
            Refusal: DRUG_NOT_IN_CATALOGUE.
        """
        try:
            return self._by_code[drug_code]
        except KeyError:
            raise Refusal(
                Reason.DRUG_NOT_IN_CATALOGUE,
                f"drug {drug_code} is not in catalogue {self.version_id} of region "
                f"{self.region_code}: choose a drug that the dispensing region lists",
                drug_code=drug_code,
                catalogue_version_id=self.version_id,
            ) from None

    def flags(self) -> dict[str, frozenset[DrugFlag]]:
        """The flags of every drug by code, as the prescription rules take them."""
        return {drug.drug_code: drug.flags for drug in self}

    def is_limited(self, drug_code: str) -> bool:
        """Whether this catalogue limits the drug's use (R16); false if it is not listed."""
        drug = self._by_code.get(drug_code)
        return drug is not None and drug.limited_use is not None

    def flags_of(self, drug_code: str) -> frozenset[DrugFlag]:
        """The flags of a drug; none if it is not, or no longer, listed."""
        drug = self._by_code.get(drug_code)
        return drug.flags if drug is not None else frozenset()

    def price(
        self,
        drug_code: str,
        unit_price_micro_yuan: int,
        *,
        quantity: int,
        limited_use_unmet: bool = False,
    ) -> Line:
        """Price a dispensed line, ready for the benefit formula.

        ``limited_use_unmet`` counts only where this catalogue limits the drug's use (R16): another
        region's limit says nothing here (R13).

        Raises:
            Refusal: DRUG_NOT_IN_CATALOGUE, PRICE_ABOVE_CATALOGUE, or FIELD_INVALID for a figure
                that is out of range.
        """
        drug = self.drug(drug_code)
        if unit_price_micro_yuan > drug.price_micro_yuan:
            raise _above_ceiling(drug, unit_price_micro_yuan)
        return Line(
            quantity=quantity,
            unit_price_micro_yuan=unit_price_micro_yuan,
            category=drug.category,
            first_self_pay_bp=drug.first_self_pay_bp,
            limit_price_micro_yuan=drug.limit_price_micro_yuan,
            limited_use_unmet=limited_use_unmet and drug.limited_use is not None,
            drug_code=drug_code,
        )


def _above_ceiling(drug: Drug, unit_price_micro_yuan: int) -> Refusal:
    asked, ceiling = yuan(unit_price_micro_yuan), yuan(drug.price_micro_yuan)
    return Refusal(
        Reason.PRICE_ABOVE_CATALOGUE,
        f"drug {drug.drug_code}: {asked} yuan per {drug.unit} is above the ceiling of "
        f"{ceiling} yuan; sell it at the ceiling or below",
        drug_code=drug.drug_code,
        ceiling_micro_yuan=str(drug.price_micro_yuan),
    )
