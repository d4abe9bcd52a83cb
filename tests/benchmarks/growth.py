"""Does a platform stay fast as its store grows? What a call costs at so many prescriptions.

    .venv/bin/python tests/benchmarks/growth.py --out growth.json --plot growth.png [--size N]...

The store of one region is filled in bulk while its platform is stopped, with rows like those of
real prescriptions; then the platform is started and measured: registrations of new prescriptions,
and claims of them. CPU per call is of that platform alone and does not depend on what else the
machine does; rates do. Stays within a share of the free disk, and says so when it stops early.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import click
import uvloop
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.exchange import drawing
from benchmarks.exchange.filling import Filler
from benchmarks.exchange.load import Measured, measure
from benchmarks.exchange.setting import documented, job_of, warm_up, warning
from benchmarks.exchange.site import Site, running_site
from benchmarks.exchange.work import Job

REGION = "350500"
STORE = f"site/platforms/{REGION}/platform.db"
SIZES = (10_000, 100_000, 1_000_000, 5_000_000)
SHARE_OF_FREE = 0.6
OPERATIONS = {"register": drawing.BLUE, "claim": drawing.ORANGE}
SETTLE_SECONDS = 3.0
"""What a platform may still do for the templates after their exchange."""

Found = dict[str, Any]


@click.command()
@click.option("--size", "sizes", type=int, multiple=True, default=SIZES, help="Prescriptions.")
@click.option("--exchanged", default=10, help="Per cent of them that were dispensed and paid.")
@click.option("--calls", default=1500, help="Calls of each operation in a round.")
@click.option("--rounds", default=3, help="Rounds at each size; medians are reported.")
@click.option("--concurrency", default=64, help="Calls on their way at any time.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where the store grows.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="JSON of the results.")
@click.option("--plot", type=click.Path(path_type=Path), help="PNG of cost and rate by size.")
def main(
    sizes: tuple[int, ...],
    exchanged: int,
    calls: int,
    rounds: int,
    concurrency: int,
    folder: Path | None,
    out: Path,
    plot: Path | None,
) -> None:
    """Fill, start, measure, at each size; print a table, and write the results."""
    options = {"exchanged_percent": exchanged, "calls": calls, "concurrency": concurrency}
    with (
        documented(out, **options, rounds=rounds) as document,
        tempfile.TemporaryDirectory(prefix="rxgrowth-", dir=folder) as name,
    ):
        growth = Growth(Path(name), calls, rounds, concurrency)
        document["sizes"] = growth.measure(sorted(sizes), exchanged)
    if noise := warning(document):
        click.echo(noise)
    _show(document["sizes"])
    if plot is not None:
        _draw(document, plot)


class Growth:
    """One store through all of its sizes."""

    def __init__(self, folder: Path, calls: int, rounds: int, concurrency: int) -> None:
        self._folder, self._store = folder, folder / STORE
        self._calls, self._rounds, self._concurrency = calls, rounds, concurrency

    def measure(self, sizes: list[int], exchanged: int) -> list[Found]:
        """What was found at each size that the disk has room for."""
        registered, dispensed = self._templates()
        filler = Filler(self._store, registered, dispensed, exchanged, sizes[-1])
        found: list[Found] = []
        for size in sizes:
            if found and not self._fits(size, found[-1]):
                break
            begin = time.monotonic()
            filler.fill(size)
            seconds = time.monotonic() - begin
            found.append({"prescriptions": size, "fill_seconds": seconds, **self._at_size()})
        for each in found:
            for operation in OPERATIONS:
                base = found[0][operation]["cpu_us"]
                each[operation]["cpu_to_smallest"] = each[operation]["cpu_us"] / base
            click.echo(
                f"{each['prescriptions']} prescriptions: store {each['store_mib']:.0f} MiB",
                err=True,
            )
        return found

    def _templates(self) -> tuple[str, str]:
        """A prescription that was registered, and one that went all the way."""
        with (
            running_site(self._folder, self._calls, REGION, "") as site,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            return runner.run(_make_templates(site))

    def _at_size(self) -> Found:
        size_mib = self._store.stat().st_size / 1024**2
        shutil.rmtree(self._folder / "data")  # is made anew at each start
        begin = time.monotonic()
        with (
            running_site(self._folder, 0, REGION, "") as site,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            start_seconds = time.monotonic() - begin
            measured = runner.run(self._rounds_of(site))
        found: Found = {"store_mib": size_mib, "start_seconds": start_seconds}
        for operation in OPERATIONS:
            rounds = measured[operation]
            found[operation] = {
                key: median(getattr(each, key) for each in rounds)
                for key in ("per_second", "p50_ms", "p99_ms", "cpu_us")
            } | {"rounds": [asdict(each) for each in rounds]}
        return found

    async def _rounds_of(self, site: Site) -> dict[str, list[Measured]]:
        job, measured = job_of(site, "one region"), defaultdict(list)
        for index in range(self._rounds + 1):
            calls = self._calls if index else 2 * self._concurrency  # the first connects
            for found in await self._round(site, job, calls):
                measured[found.name].append(found)
        return {name: rounds[1:] for name, rounds in measured.items()}

    async def _round(self, site: Site, job: Job, calls: int) -> tuple[Measured, Measured]:
        pids = [site.pids[f"platform-{REGION}"]]
        cases = [job.case(index) for index in range(calls)]
        registers = [job.register(case) for case in cases]
        registered, _ = await measure("register", registers, self._concurrency, pids)
        claims = [job.claim(case) for case in cases]
        claimed, _ = await measure("claim", claims, self._concurrency, pids)
        return registered, claimed

    def _fits(self, size: int, before: Found) -> bool:
        """Whether the disk has room for so many, as the store before was."""
        added = before["store_mib"] / before["prescriptions"] * size - before["store_mib"]
        free = shutil.disk_usage(self._folder).free / 1024**2
        if added <= free * SHARE_OF_FREE:
            return True
        click.echo(f"no room for {size} prescriptions: {added:.0f} MiB, {free:.0f} free", err=True)
        return False


async def _make_templates(site: Site) -> tuple[str, str]:
    job = job_of(site, "one region")
    registered = job.case(1)
    await job.register(registered)()
    dispensed = await warm_up(job, exchanges=1)
    await asyncio.sleep(SETTLE_SECONDS)
    return registered.number, dispensed.number


def _show(found: list[Found]) -> None:
    table = Table(title="the platform as its store grows; µs: its CPU a call, ×: to the smallest")
    table.add_column("prescriptions", justify="right")
    for column in ("store MiB", "start s"):
        table.add_column(column, justify="right")
    for operation in OPERATIONS:
        for column in ("µs", "×", "calls/s", "p99 ms"):
            table.add_column(f"{operation} {column}", justify="right")
    for each in found:
        cells = [f"{each['prescriptions']:,}", f"{each['store_mib']:,.0f}"]
        cells.append(f"{each['start_seconds']:.1f}")
        for operation in OPERATIONS:
            figures = each[operation]
            cells.append(f"{figures['cpu_us']:.0f}")
            cells.append(f"{figures['cpu_to_smallest']:.2f}")
            cells.append(f"{figures['per_second']:.0f}")
            cells.append(f"{figures['p99_ms']:.0f}")
        table.add_row(*cells)
    Console(width=140).print(table)


def _draw(document: dict[str, Any], target: Path) -> None:
    found = document["sizes"]
    largest = found[-1]
    figure, (costs, rates) = drawing.panels(
        f"A store of up to {largest['prescriptions']:,} prescriptions"
        f" ({largest['store_mib'] / 1024:.1f} GiB)",
        2,
    )
    sizes = [each["prescriptions"] for each in found]
    for (operation, colour), offset in zip(OPERATIONS.items(), (9, -16), strict=True):
        for axes, key in ((costs, "cpu_us"), (rates, "per_second")):
            values = [each[operation][key] for each in found]
            axes.plot(sizes, values, "o-", color=colour, label=operation)
        for each in found:
            point = (each["prescriptions"], each[operation]["cpu_us"])
            label = f"{each[operation]['cpu_to_smallest']:.2f}×"
            costs.annotate(
                label,
                point,
                (0, offset),
                textcoords="offset points",
                color=colour,
                fontsize=8,
                ha="center",
            )
    drawing.named(costs, "CPU of the platform, µs a call, and its ratio to the smallest store")
    drawing.named(rates, f"calls a second, {document['concurrency']} at once")
    for axes in (costs, rates):
        axes.set_xscale("log")
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.set_xticks([], minor=True)
        axes.set_ylim(0, 1.25 * axes.dataLim.y1)
    costs.legend(frameon=False, fontsize=9, loc="lower right")
    rates.set_xlabel("prescriptions in the store", fontsize=9)
    drawing.save(figure, document, target)


if __name__ == "__main__":
    main()
