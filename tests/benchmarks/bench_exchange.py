"""Measure the platform against a bare mTLS echo of the same run. ``make bench`` runs it.

    .venv/bin/python tests/benchmarks/bench_exchange.py --out bench.json [--calls N] [--rounds N]

One region plays all roles first, then three regions one each. Every round measures the echo and
each operation once, on one engine and then on the other; what is printed are medians over the
rounds and ratios to the echo of the same round, and to SQLite of the same round.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import click
import uvloop
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.exchange.load import Call, Measured, measure, until_idle
from benchmarks.exchange.setting import (
    CONSTELLATIONS,
    ECHO_BYTES,
    documented,
    echo_region,
    job_of,
    warm_up,
    warning,
)
from benchmarks.exchange.site import Site, running_site
from benchmarks.exchange.work import Case, Job, amounts_of
from support.postgres import Server

SQLITE, POSTGRESQL = ENGINES = ("sqlite", "postgresql")
BATCH = 32
AT_ONCE_IN_A_STREAM = 64
"""Registrations of a stream that a platform works on; see the contract."""


class Rounds:
    """Measures operations round by round, each beside the echo."""

    def __init__(self, site: Site, job: Job, name: str, concurrency: int, console: Console) -> None:
        self._site, self._job, self._name = site, job, name
        self._concurrency, self._console = concurrency, console
        self._platforms = [pid for each, pid in site.pids.items() if each != "echo"]
        self.measured: dict[str, list[Measured]] = defaultdict(list)

    async def one(self, calls: int) -> None:
        """One round of everything."""
        job = self._job
        cases = [job.case(index) for index in range(calls)]
        await self._measure("echo", [job.echo(bytes(ECHO_BYTES)) for _ in range(calls)])
        await self._measure("register", [job.register(case) for case in cases])
        answers = await self._measure("claim", [job.claim(case) for case in cases])
        for case, answer in zip(cases, answers, strict=True):
            job.claimed(case, answer)
        quotes = await self._measure("quote", [job.quote(case) for case in cases])
        commits = [
            job.commit(case, amounts_of(quote)) for case, quote in zip(cases, quotes, strict=True)
        ]
        await self._measure("commit", commits)
        await self._measure("dispense", [job.record(case) for case in cases])
        await self._batches(job, calls)
        await self._streams(job, calls)
        exchanges = [job.exchange(job.case(index)) for index in range(calls // 4)]
        await self._measure("exchange", exchanges)

    async def lone(self, calls: int) -> None:
        """What one caller alone sees."""
        job, concurrency = self._job, self._concurrency
        await until_idle(self._platforms)  # what the load has left to deliver is not this caller's
        self._concurrency = 1
        echoes = [job.echo(bytes(ECHO_BYTES)) for _ in range(calls)]
        await self._measure("echo, alone", echoes)
        cases = [job.case(index) for index in range(calls)]
        await self._measure("register, alone", [job.register(case) for case in cases])
        self._concurrency = concurrency

    async def _batches(self, job: Job, calls: int) -> None:
        cases: list[Case] = [job.case(index) for index in range(calls)]
        batches: list[Call] = [
            job.register_batch(cases[index : index + BATCH]) for index in range(0, calls, BATCH)
        ]
        await self._measure(f"register by {BATCH}", batches, per_call=BATCH)

    async def _streams(self, job: Job, calls: int) -> None:
        """As many under way as a platform works on in one stream, on each of a few streams."""
        cases: list[Case] = [job.case(index) for index in range(calls)]
        async with job.streams() as streams:
            registrations = [
                job.register_streamed(case, streams[index % len(streams)])
                for index, case in enumerate(cases)
            ]
            name, at_once = "register over a stream", AT_ONCE_IN_A_STREAM * len(streams)
            await self._measure(name, registrations, at_once=at_once)

    async def _measure(
        self, name: str, calls: list[Call], per_call: int = 1, at_once: int = 0
    ) -> list[Any]:
        servers = [self._site.pids["echo"]] if name.startswith("echo") else self._platforms
        at_once = min(at_once or self._concurrency, len(calls))
        found, answers = await measure(name, calls, at_once, servers)
        if per_call > 1:
            scaled = {"per_second": found.per_second * per_call, "cpu_us": found.cpu_us / per_call}
            found = Measured(**{**asdict(found), **scaled})
        self.measured[name].append(found)
        self._console.print(
            f"{self._name}: {name:22} {found.per_second:8.0f}/s  p50 {found.p50_ms:6.1f} ms"
            f"  p99 {found.p99_ms:6.1f} ms  {found.cpu_us:6.0f} µs CPU",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        return answers


@click.command()
@click.option("--calls", default=2000, help="Calls of each operation in a round.")
@click.option("--rounds", default=3, help="Rounds; medians over them are reported.")
@click.option("--concurrency", default=64, help="Calls on their way at any time.")
@click.option(
    "--engine",
    "engines",
    multiple=True,
    default=ENGINES,
    type=click.Choice(ENGINES),
    help="Where records are kept: each in turn.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="JSON of the results.")
def main(calls: int, rounds: int, concurrency: int, engines: tuple[str, ...], out: Path) -> None:
    """Measure everything, print a table, and write the results."""
    console = Console(stderr=True)
    server = Server.start() if POSTGRESQL in engines else None
    addresses = {
        engine: server.address if engine == POSTGRESQL and server is not None else ""
        for engine in engines
    }
    options = {"calls": calls, "rounds": rounds, "concurrency": concurrency, "engines": engines}
    with documented(out, **options) as document:
        results = document["results"] = {
            name: _run(name, calls, rounds, concurrency, addresses, console)
            for name in CONSTELLATIONS
        }
    for name, by_engine in results.items():
        for engine, figures in by_engine.items():
            _show(Console(), f"{name}, {engine}", figures)
    console.print(warning(document), style="yellow")


def _run(
    name: str,
    calls: int,
    rounds: int,
    concurrency: int,
    addresses: Mapping[str, str],
    console: Console,
) -> dict[str, dict[str, dict[str, float]]]:
    """The figures of a constellation, by engine; rounds on one engine alternate with the other."""

    async def work(sites: Mapping[str, Site]) -> dict[str, dict[str, list[Measured]]]:
        measuring: dict[str, Rounds] = {}
        for engine, site in sites.items():
            job = job_of(site, name)
            measuring[engine] = Rounds(site, job, f"{name}, {engine}", concurrency, console)
            await warm_up(job)
            await measuring[engine].one(max(calls // 10, 2 * concurrency))  # fills caches
            measuring[engine].measured.clear()
        for _ in range(rounds):
            for each in measuring.values():
                await each.one(calls)
                await each.lone(max(calls // 10, 100))
        return {engine: each.measured for engine, each in measuring.items()}

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rxbench-")))
        sites = {
            engine: stack.enter_context(
                running_site(folder / engine, calls, echo_region(name), address)
            )
            for engine, address in addresses.items()
        }
        runner = stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
        measured = runner.run(work(sites))
    return {engine: _figures(found, measured.get(SQLITE)) for engine, found in measured.items()}


def _figures(
    measured: dict[str, list[Measured]], sqlite: dict[str, list[Measured]] | None
) -> dict[str, dict[str, float]]:
    """Medians over the rounds, and medians of the ratios to others of the same round."""
    figures: dict[str, dict[str, float]] = {}
    for name, found in measured.items():
        echo = measured["echo, alone" if name.endswith("alone") else "echo"]
        keys = ("per_second", "p50_ms", "p95_ms", "p99_ms", "cpu_us")
        figures[name] = {
            **{key: median(getattr(each, key) for each in found) for key in keys},
            "rate_to_echo": _ratio(found, echo, "per_second"),
            "p50_to_echo": _ratio(found, echo, "p50_ms"),
        }
        if sqlite is not None:
            figures[name]["rate_to_sqlite"] = _ratio(found, sqlite[name], "per_second")
    return figures


def _ratio(found: list[Measured], base: list[Measured], key: str) -> float:
    pairs = zip(found, base, strict=True)
    return float(median(getattr(one, key) / getattr(other, key) for one, other in pairs))


def _show(console: Console, name: str, figures: dict[str, dict[str, float]]) -> None:
    table = Table(title=name, box=SIMPLE)
    columns = ("operation", "calls/s", "to echo", "to SQLite", "p50 ms", "p99 ms", "CPU µs")
    for column in columns:
        table.add_column(column, justify="left" if column == "operation" else "right")
    for operation, each in figures.items():
        table.add_row(
            operation,
            f"{each['per_second']:.0f}",
            f"{each['rate_to_echo']:.2f}",
            f"{each['rate_to_sqlite']:.2f}" if "rate_to_sqlite" in each else "",
            f"{each['p50_ms']:.1f}",
            f"{each['p99_ms']:.1f}",
            f"{each['cpu_us']:.0f}",
        )
    console.print(table)


if __name__ == "__main__":
    main()
