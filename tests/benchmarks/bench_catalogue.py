"""Load a catalogue of 50,000 drugs, look drugs up, settle five lines; prints times. Run it by hand:

    .venv/bin/python tests/benchmarks/bench_catalogue.py [DRUGS]

Loading is what a platform does once, when it starts. Looking up and pricing a line, and the benefit
of a settlement, are on the path of every quote.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import click

from rxoutflow_server.domain.benefit import (
    Benefit,
    Case,
    Category,
    Enrolment,
    Funding,
    Line,
    Standing,
    apportion_to_lines,
    benefit,
)
from rxoutflow_server.domain.tariff import (
    AccountRules,
    AnnualDeductible,
    ByAreaStatus,
    ByPerson,
    ByTier,
    Part,
    PersonType,
    Scheme,
    SchemeKind,
    Tariff,
)
from rxoutflow_server.reference.catalogues import COLUMNS, OPTIONAL_COLUMNS, load_catalogue

DRUGS = 50_000
CALLS = 20_000
TERMS: dict[str, Any] = {
    "deductible": AnnualDeductible(ByPerson(80_000, 50_000)),
    "ratio_bp": ByTier(7_500, 6_500, 5_500),
    "retired_bonus_bp": 1_000,
    "cap_fen": ByPerson(1_000_000, 1_000_000),
    "area_factor_bp": ByAreaStatus(unfiled=7_000),
}


def code(number: int) -> str:
    """The synthetic code of a drug."""
    return f"SYNW{number:019}"


def write_catalogue(path: Path, drugs: int) -> None:
    """A synthetic file with every column filled."""
    rows = [
        f"{code(number)},合成药{number},GROUP-{number // 3},片剂,5mg×28片,片,{number % 97}.05,"
        f"B,1000,{number % 90}.5,限二线用药,ANTIMICROBIAL SPECIAL_STORAGE,盒,28"
        for number in range(drugs)
    ]
    lines = [",".join((*COLUMNS, *OPTIONAL_COLUMNS)), *rows, f"# rows: {drugs}", ""]
    path.write_text("\n".join(lines), "utf-8")


def measure_catalogue(drugs: int) -> None:
    """Load, look up and price."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "350500.csv"
        write_catalogue(path, drugs)
        click.echo(f"{drugs:,} drugs, {path.stat().st_size / 1e6:.1f} MB")
        started = time.perf_counter()
        catalogue = load_catalogue(path)
        click.echo(f"  loaded in {time.perf_counter() - started:.2f} s")
    codes = [code(number * 7919 % drugs) for number in range(CALLS)]
    wanted = iter(codes)
    _timed("looked up", lambda: catalogue.drug(next(wanted)))
    priced = iter(codes)
    _timed("priced a line", lambda: catalogue.price(next(priced), 1, quantity=28))


def measure_benefit() -> None:
    """Five lines: in ordinary care, under two schemes, and with account rules."""
    lines = tuple(
        Line(28, 1_234_567 + i, Category.B, 1_000, 1_200_000, drug_code=code(i)) for i in range(5)
    )
    standing = Standing(
        PersonType.ACTIVE, 3, None, 10_000, 20_000, (Enrolment("S1"), Enrolment("S2"))
    )
    plain = Case(lines, standing, Funding(1_000, (200, 300)))
    special = Case(lines, standing, Funding(1_000, (200, 300)), "M03900")
    ordinary, with_schemes = _tariff(), _tariff(_scheme("S1", 0, 1), _scheme("S2", 2))
    limited = _tariff(accounts=AccountRules(family=frozenset({Part.DEDUCTIBLE, Part.RATIO_SELF})))
    _timed("benefit of five lines", lambda: benefit(ordinary, plain))
    _timed("the same under two schemes", lambda: benefit(with_schemes, special))
    _timed("the same with account rules", lambda: benefit(limited, plain))
    result: Benefit = benefit(with_schemes, special)
    _timed("divided over its lines", lambda: apportion_to_lines(result))


def _timed(name: str, call: Callable[[], object]) -> None:
    started = time.perf_counter()
    for _ in range(CALLS):
        call()
    microseconds = (time.perf_counter() - started) / CALLS * 1e6
    click.echo(f"  {name}: {microseconds:.2f} µs")


def _tariff(*schemes: Scheme, accounts: AccountRules | None = None) -> Tariff:
    changes: dict[str, Any] = {} if accounts is None else {"accounts": accounts}
    return Tariff(
        version_id="bench",
        region_code="350500",
        document="none",
        unverified=True,
        valid_from=date(2026, 1, 1),
        valid_until=None,
        schemes=schemes,
        **TERMS,
        **changes,
    )


def _scheme(scheme_code: str, *drugs: int) -> Scheme:
    return Scheme(
        scheme_code=scheme_code,
        name="bench",
        kind=SchemeKind.SPECIAL_DISEASE,
        document="none",
        disease_codes=frozenset({"M03900"}),
        drug_codes=frozenset(map(code, drugs)),
        **TERMS,
    )


def main() -> None:
    """Run both measurements."""
    measure_catalogue(int(sys.argv[1]) if len(sys.argv) > 1 else DRUGS)
    measure_benefit()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    click.echo(f"  at most {peak:.0f} MiB")


if __name__ == "__main__":
    main()
