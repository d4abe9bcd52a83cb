"""Write the sandbox's demonstration catalogues from one list of drugs: ``generate``, ``check``.

``demonstration_drugs.csv`` beside this file is the list, with the prices of region 350500. Generic
names are real; codes (they begin with ``SYN``), prices, limit prices, categories, shares and limits
of use are invented. The other regions' prices differ by an invented factor, so that it shows whose
catalogue is used. Nothing here comes from any real catalogue.
"""

from __future__ import annotations

import csv
import io
import sys
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

LIST = Path(__file__).parent / "demonstration_drugs.csv"
FOLDER = Path(__file__).parents[1] / "services/rxoutflow_server/sandbox/data/catalogues"
FACTORS = {
    "320600": Decimal("1.01"),
    "350200": Decimal("1.03"),
    "350500": Decimal("1.00"),
    "430400": Decimal("0.96"),
    "610900": Decimal("0.94"),
}
PRICES = ("price_yuan", "limit_price_yuan")
MILLIONTH, TEN_THOUSANDTH = Decimal("0.000001"), Decimal("0.0001")


def catalogue(region_code: str) -> str:
    """The catalogue of a region, with a trailer that says how many rows it holds."""
    with LIST.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        for column in PRICES:
            row[column] = _priced(row[column], FACTORS[region_code])
    written = io.StringIO()
    writer = csv.DictWriter(written, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return f"{written.getvalue()}# rows: {len(rows)}\n"


def _priced(text: str, factor: Decimal) -> str:
    if not text:
        return ""
    price = Decimal(text)
    step = MILLIONTH if price < Decimal("0.01") else TEN_THOUSANDTH
    price = (price * factor).quantize(step, ROUND_HALF_UP)
    return f"{price.normalize():f}"


def main() -> int:
    """Generate, or check what is committed."""
    stale = []
    for region_code in FACTORS:
        path, text = FOLDER / f"{region_code}.csv", catalogue(region_code)
        if sys.argv[1:] == ["generate"]:
            path.write_text(text, "utf-8")
        elif path.read_text("utf-8") != text:
            stale.append(path.name)
    if stale:
        sys.stderr.write(f"stale: {', '.join(stale)}; run this with generate\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
