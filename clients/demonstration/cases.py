"""Who fills what in the demo, and what each settlement comes to, worked out by hand.

The figures are numbers, not code: nothing here knows the benefit formula, so that a mistake in the
platforms cannot repeat itself in what they are held against. ``why`` is the arithmetic, in yuan;
drugs are counted in their smallest units at the pharmacy's prices. People begin with the accounts
and accumulators of the sandbox's ``insured`` files and are named in the order in which they settle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from rxoutflow.v1.settlement_pb2 import Amounts


class Figures(NamedTuple):
    """The amounts of a settlement, in fen."""

    total: int
    own: int
    excess: int
    first_self_pay: int
    inscope: int
    deductible: int
    pool: int
    ratio_self: int
    account: int
    family: int
    cash: int

    @classmethod
    def of(cls, amounts: Amounts) -> Figures:
        """Those of a message; ``person`` is left out, being total less pool."""
        return cls(*(getattr(amounts, f"{name}_fen") for name in cls._fields))


@dataclass(frozen=True)
class Case:
    """Who fills what; ``refusal`` is what the payer answers where it does not pay.

    ``prices`` are in 10⁻⁶ yuan, line by line, where the pharmacy sells at other prices than those
    of its list. ``shows`` is the rule of the payer's tariff that the case is about.
    """

    file: str
    hospital: str
    pharmacy: str
    figures: Figures | None = None
    why: str = ""
    shows: str = ""
    refusal: str = ""
    substitute: str = ""
    prices: tuple[int, ...] = ()
    delivery_fee_fen: int = 0


MAIN = Case(
    "hypertension-chronic",
    "xiamen",
    "quanzhou",
    Figures(11552, 0, 904, 844, 9804, 4215, 4751, 838, 3000, 0, 3801),
    "10.43 + 30.73 + 51.04 + 23.32; for the special disease (75.89 - 20.00) at 80 + 5 % = 47.51; "
    "the rest, 22.15, is below what is left of the ordinary deductible",
    shows="a scheme for a special disease beside the ordinary terms",
)
REPEAT = Case(
    "long-twelve-weeks",
    "xiamen",
    "nantong",
    Figures(4378, 0, 0, 100, 4278, 0, 2781, 1497, 0, 1597, 0),
    "16.07 + 7.76 + 19.95, of that 5 % first; 42.78 at 55 + 10 %; the family's account pays 15.97",
    shows="retired, family account",
)
DELIVERED = Case(
    "internet-follow-up",
    "xiamen",
    "nantong",
    Figures(2217, 0, 237, 297, 1683, 0, 926, 757, 1291, 0, 0),
    "7 at 3.1673, limit 2.828: 22.17 - 2.37 - 15 % of 19.80 = 16.83 at 55 %; the fee of 12.00 is "
    "beside all this",
    delivery_fee_fen=1200,
)
HERBS = Case(
    "herbal-weights-ankang",
    "xiamen",
    "quanzhou",
    Figures(18415, 0, 0, 1240, 17175, 0, 8588, 8587, 0, 0, 9827),
    "150 000 mg at 0.00035 = 52.50, 100 000 at 0.00124 = 124.00 less 10 %, 90 000 at 0.000085 = "
    "7.65; 171.75 at 50 % = 85.875, rounded up; deductible of 200 used up",
    shows="herbs by the milligram",
    prices=(350, 1_240, 85),
)
TARIFFS = (
    Case(
        "year-deductible-nantong",
        "xiamen",
        "quanzhou",
        Figures(88870, 5970, 1500, 3560, 77840, 77840, 0, 0, 20000, 0, 68870),
        "6 at 32.50 B, limit 30.00: 195.00 - 15.00 - 18.00; 10 at 45.80 A: 458.00; 2 at 88.00 B: "
        "176.00 - 17.60; 3 at 19.90 C: 59.70 own; 778.40 is below the yearly 800",
        shows="a yearly deductible, first use",
        prices=(32_500_000, 45_800_000, 88_000_000, 19_900_000),
    ),
    Case(
        "unfiled-quanzhou",
        "quanzhou",
        "xiamen",
        Figures(102565, 0, 0, 2417, 100148, 40000, 33683, 26465, 10000, 30000, 28882),
        "5 at 48.33 B: 241.65 - 24.17; 14 at 56.00 A: 784.00; 1001.48 - (600 - 200) = 601.48 at "
        "80 % x 0.70 = 336.83; 100.00 own account, 300.00 family account",
        shows="unfiled traveller, family account",
        prices=(48_330_000, 56_000_000),
    ),
    Case(
        "visit-deductible-hengyang",
        "quanzhou",
        "quanzhou",
        Figures(40843, 12850, 0, 0, 27993, 3000, 5000, 19993, 5000, 0, 30843),
        "7 at 39.99 A: 279.93; 128.50 own, limited use not met; 50 a visit in tier 2, but 300 - "
        "270 = 30 left of the year; 249.93 at 65 % x 0.90 = 146.21, but 2000 - 1950 = 50 of the "
        "cap are left",
        shows="a deductible per visit, with its yearly maximum",
        prices=(39_990_000, 128_500_000),
    ),
    HERBS,
)
"""One case for each tariff that the demo settles under."""

CASES = (
    MAIN,
    *TARIFFS,
    Case(
        "diabetes",
        "xiamen",
        "xiamen",
        Figures(13792, 0, 787, 1227, 11778, 5000, 5084, 1694, 1500, 2000, 5208),
        "14.69 B 5 %; 123.23 B 10 %, limit 4.12: - 7.87; 117.78 - (600 - 550) = 67.78 at 75 %",
    ),
    Case(
        "acute-infection",
        "quanzhou",
        "quanzhou",
        Figures(5869, 0, 0, 165, 5704, 0, 2000, 3704, 0, 0, 3869),
        "22.54 + 32.92 - 1.65 + 3.23 = 57.04 at 80 % = 45.63, but 20.00 is left of the cap",
    ),
    REPEAT,
    Case(
        "herbal-formula",
        "xiamen",
        "quanzhou",
        Figures(8113, 0, 0, 0, 8113, 2500, 4210, 1403, 3903, 0, 0),
        "nine herbs, all A, each rounded once: 81.13 - (600 - 575) = 56.13 at 75 %",
    ),
    DELIVERED,
    Case("child-with-weight", "quanzhou", "quanzhou", refusal="PERSON_NOT_INSURED"),
    Case(
        "patent-medicine",
        "xiamen",
        "xiamen",
        Figures(12548, 0, 274, 910, 11364, 0, 6250, 5114, 2500, 3798, 0),
        "31.79 A; 58.50 B 10 %; 35.19 B 10 %, limit 0.7725: - 2.74; 113.64 at 55 %; own account "
        "25.00, then two family accounts: 15.00 and 22.98",
    ),
    Case("self-pay", "xiamen", "xiamen", refusal="TARIFF_NOT_IN_FORCE"),
    Case(
        "one-region",
        "quanzhou",
        "quanzhou",
        Figures(6565, 5557, 0, 36, 972, 0, 778, 194, 0, 0, 5787),
        "2.88 A + 7.20 B 5 % + 55.57 C, own; 9.72 at 80 %",
    ),
    Case(
        "unfiled-traveller",
        "xiamen",
        "nantong",
        Figures(18638, 0, 1528, 1515, 15595, 0, 8733, 6862, 5000, 4905, 0),
        "166.78 B, limit 151.50: - 15.28 - 15.15; 19.60 A; 155.95 at (75 + 5) % x 0.70",
    ),
    Case(
        "limited-use-unmet",
        "xiamen",
        "quanzhou",
        Figures(1934, 1742, 0, 0, 192, 0, 106, 86, 100, 0, 1728),
        "17.42 own, limited use not met; 1.92 A at 55 %",
    ),
    Case("suspended-person", "quanzhou", "quanzhou", refusal="DIRECT_SETTLEMENT_SUSPENDED"),
    Case(
        "substitution",
        "quanzhou",
        "xiamen",
        Figures(268, 0, 0, 0, 268, 0, 0, 268, 0, 0, 268),
        "7 at 0.3835 A; nothing is left of the cap",
        substitute="SYNW0000000000000000002",
    ),
)
"""Those that are filled one after another, the main case first."""

PAYER_AWAY = Case(
    MAIN.file,
    MAIN.hospital,
    MAIN.pharmacy,
    Figures(11552, 0, 904, 844, 9804, 2215, 6451, 1138, 0, 0, 5101),
    "as the main case, but the deductible of the special disease and the account are used up: "
    "75.89 at 85 %; 22.15 is below what is left of the ordinary deductible",
)
HOME_AWAY = HERBS
"""Settles to the same figures again: neither deductible nor cap nor account stands in between."""

OWED_FEN = {
    ("320600", "350200"): 12548,
    ("320600", "350500"): 38500,
    ("350500", "320600"): 0,
    ("350500", "350200"): 81791,
    ("430400", "350500"): 10000,
    ("610900", "350500"): 17176,
}
"""What payers owe dispensing regions in the end, worked out by hand: the fund's and the accounts'.

    南通 to 厦门: patent-medicine 62.50 + 25.00 + 37.98
    南通 to 泉州: the main case 47.51 + 30.00, and again 64.51; year-deductible-nantong 200.00;
                 limited-use-unmet 1.06 + 1.00; one that was adjudicated, 26.60 + 14.32
    泉州 to 南通: unfiled-traveller, all of which came back
    泉州 to 厦门: unfiled-quanzhou 336.83 + 100.00 + 300.00; diabetes 50.84 + 15.00 + 20.00, of
                 which 3.01 + 0.75 + 1.00 came back; substitution 0.00
    衡阳 to 泉州: visit-deductible-hengyang 50.00 + 50.00
    安康 to 泉州: herbal-weights-ankang 85.88, twice
"""
