"""One look for all plots of measurements: plain axes, quiet grid, circumstances underneath."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.exchange.setting import caption

BLUE, ORANGE, GREEN, GREY = "#1f5fa8", "#c8642c", "#3a8a5f", "#777777"


def panels(title: str, count: int) -> tuple[Figure, list[Axes]]:
    """So many plots above each other under one title."""
    figure, rows = pyplot.subplots(
        count, 1, figsize=(9, 1.2 + 2.7 * count), squeeze=False, layout="constrained"
    )
    figure.suptitle(title, fontsize=13, fontweight="bold", x=0.02, ha="left")
    axes = [row[0] for row in rows]
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
        each.grid(axis="y", color="#e4e4e4", linewidth=0.8)
        each.set_axisbelow(True)
    return figure, axes


def named(axes: Axes, what: str) -> None:
    """Say above an axis what it shows, where nobody has to turn the head."""
    axes.set_title(what, loc="left", fontsize=10, color=GREY)


def save(figure: Figure, document: dict[str, Any], target: Path) -> None:
    """Write the plot, with the circumstances of its measurement underneath."""
    figure.supxlabel(caption(document), fontsize=7, color=GREY)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=130)
    pyplot.close(figure)
