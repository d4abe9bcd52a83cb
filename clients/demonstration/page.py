"""The outcome of the demo as a part of a page in Markdown, the same for every run that goes well.

It has no times and no numbers of prescriptions, so a page in version control changes only when what
the demo shows changes. What is around the two marks in the page is left as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from demonstration.cases import Figures
from demonstration.report import Filled, Report, signed
from rxoutflow.cli.show import yuan
from rxoutflow.errors import InvalidInput

BEGIN, END = "<!-- outcome: generated -->", "<!-- end of outcome -->"


def put(report: Report, page: Path) -> None:
    """Replace what is between the marks.

    Raises:
        InvalidInput: the page cannot be read, or lacks the marks.
    """
    try:
        before, _, rest = page.read_text("utf-8").partition(BEGIN)
    except OSError as error:
        raise InvalidInput(f"{page}: cannot be read: {error.strerror}") from error
    _, mark, after = rest.partition(END)
    if not mark:
        raise InvalidInput(f"{page}: lacks the marks {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n\n{_outcome(report)}\n{END}{after}", "utf-8")


def _outcome(report: Report) -> str:
    held = sum(check["ok"] is True for check in report.checks)
    parts = [
        f"{report.issued} prescriptions issued, {len(report.filled)} filled, "
        f"{len(report.refusals)} attempts refused; {held}/{len(report.checks)} checks.\n",
        "### Filled\n\nAmounts in yuan; every one of them is checked against the arithmetic.\n",
        _filled(report),
        "### Played out\n",
        *(_table((scene.title, ""), scene.steps) for scene in report.scenes),
        "### Refused\n",
        _table(
            ("attempt", "reason"),
            ((str(each["title"]), f"`{each['reason']}`") for each in report.refusals),
        ),
        "### Owed this month\n",
        _owed(report),
    ]
    return "\n".join(parts)


def _filled(report: Report) -> str:
    heads = ("prescription", "home", "dispensing", "payer", *_names(), "arithmetic")
    names = report.region_names
    rows = [
        (each.file, *(names[code] for code in each.regions), *_cells(each), each.case.why)
        for each in report.filled
    ]
    return _table(heads, rows)


def _names() -> Sequence[str]:
    return [name.replace("_", " ") for name in Figures._fields]


def _cells(filled: Filled) -> Sequence[str]:
    if filled.amounts is None:
        return [*[""] * (len(Figures._fields) - 1), "alone"]
    return [yuan(fen) for fen in Figures.of(filled.amounts)]


def _owed(report: Report) -> str:
    names = report.region_names
    pairs = _table(
        ("payer", "dispensing", "posted", "reversed", "owed"),
        (
            (
                names[each.payer],
                names[each.dispensing],
                str(each.postings),
                str(each.reversals),
                signed(each.owed_fen),
            )
            for each in report.pairs
        ),
    )
    nets = {names[code]: fen for code, fen in report.nets.items()}
    words = ", ".join(f"{name} {signed(fen)}" for name, fen in nets.items())
    return f"{pairs}\nNet positions: {words}; their sum is {signed(sum(nets.values()))}.\n"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
