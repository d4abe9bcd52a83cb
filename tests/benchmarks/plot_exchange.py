"""Draw the results of ``bench_exchange.py``: rates as ratios to the echo, and CPU per call.

.venv/bin/python tests/benchmarks/plot_exchange.py bench.png RESULTS.json
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.axes import Axes

OPERATIONS = (
    "echo",
    "register",
    "register by 32",
    "register over a stream",
    "claim",
    "quote",
    "commit",
    "dispense",
    "exchange",
)
HEIGHT = 0.8


@click.command()
@click.argument("target", type=click.Path(path_type=Path))
@click.argument("results", type=click.Path(exists=True, path_type=Path))
def main(target: Path, results: Path) -> None:
    """Draw RESULTS, one bar an engine, into TARGET."""
    document = json.loads(results.read_text("utf-8"))
    found = document["results"]
    figure, rows = pyplot.subplots(len(found), 2, figsize=(11, 4 * len(found)), squeeze=False)
    for (name, engines), (rates, costs) in zip(found.items(), rows, strict=True):
        _bars(rates, engines, "rate_to_echo", f"{name}: rate, as a ratio to the echo")
        _bars(costs, engines, "cpu_us", f"{name}: CPU of all platforms, µs a call")
    figure.suptitle(_circumstances(document), fontsize=9)
    figure.tight_layout()
    figure.savefig(target, dpi=110)


def _bars(axes: Axes, engines: dict[str, Any], key: str, title: str) -> None:
    for index, (engine, figures) in enumerate(engines.items()):
        width = HEIGHT / len(engines)
        places = [place - index * width for place in range(len(OPERATIONS), 0, -1)]
        values = [figures[operation][key] for operation in OPERATIONS]
        bars = axes.barh(places, values, height=width * 0.9, label=engine)
        axes.bar_label(bars, fmt="%.2f" if key == "rate_to_echo" else "%.0f", fontsize=7, padding=2)
    axes.set_yticks(range(len(OPERATIONS), 0, -1), OPERATIONS, fontsize=8)
    axes.set_title(title, fontsize=9)
    axes.margins(x=0.14)
    axes.spines[["top", "right"]].set_visible(False)
    if key == "cpu_us":
        axes.legend(fontsize=8, loc="upper right", frameon=False)


def _circumstances(document: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {value}" for name, value in document["versions"].items())
    return (
        f"{document['concurrency']} calls at once, medians of {document['rounds']} rounds, "
        f"{document['machine']['cores']} cores, commit {document['commit']}\n{versions}"
    )


if __name__ == "__main__":
    main()
