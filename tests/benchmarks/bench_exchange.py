"""Measure the platform against a bare mTLS echo of the same run. ``make bench`` runs it.

    .venv/bin/python tests/benchmarks/bench_exchange.py --out bench.json [--calls N] [--rounds N]

One region plays all roles first, then three regions one each. Every round measures the echo and
each operation once; what is printed are medians over the rounds and ratios to the echo of the same
round.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import click
import uvloop
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
        )
        return answers


@click.command()
@click.option("--calls", default=2000, help="Calls of each operation in a round.")
@click.option("--rounds", default=3, help="Rounds; medians over them are reported.")
@click.option("--concurrency", default=64, help="Calls on their way at any time.")
@click.option("--postgres", is_flag=True, help="Keep records in PostgreSQL instead of SQLite.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="JSON of the results.")
def main(calls: int, rounds: int, concurrency: int, postgres: bool, out: Path) -> None:
    """Measure everything, print a table, and write the results."""
    console = Console(stderr=True)
    server = Server.start() if postgres else None
    address = server.address if server is not None else ""
    engine = "postgresql" if postgres else "sqlite"
    options = {"calls": calls, "rounds": rounds, "concurrency": concurrency, "engine": engine}
    with documented(out, **options) as document:
        results = document["results"] = {
            name: _run(name, calls, rounds, concurrency, address, console)
            for name in CONSTELLATIONS
        }
    for name, figures in results.items():
        _show(Console(), name, figures)
    console.print(warning(document), style="yellow")


def _run(
    name: str, calls: int, rounds: int, concurrency: int, postgres: str, console: Console
) -> dict[str, dict[str, float]]:
    async def work(site: Site) -> dict[str, list[Measured]]:
        job = job_of(site, name)
        measuring = Rounds(site, job, name, concurrency, console)
        await warm_up(job)
        await measuring.one(max(calls // 10, 2 * concurrency))  # connects, fills caches
        measuring.measured.clear()
        for _ in range(rounds):
            await measuring.one(calls)
            await measuring.lone(max(calls // 10, 100))
        return measuring.measured

    with (
        tempfile.TemporaryDirectory(prefix="rxbench-") as folder,
        running_site(Path(folder) / "site", calls, echo_region(name), postgres) as site,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        return _figures(runner.run(work(site)))


def _figures(measured: dict[str, list[Measured]]) -> dict[str, dict[str, float]]:
    """Medians over the rounds, and medians of the ratios to the echo of the same round."""
    figures: dict[str, dict[str, float]] = {}
    for name, found in measured.items():
        echo = measured["echo, alone" if name.endswith("alone") else "echo"]
        pick: Callable[[str], float] = lambda key, found=found: median(  # type: ignore[misc] # noqa: E731
            getattr(each, key) for each in found
        )
        pairs = list(zip(found, echo, strict=True))
        figures[name] = {
            **{key: pick(key) for key in ("per_second", "p50_ms", "p95_ms", "p99_ms", "cpu_us")},
            "rate_to_echo": median(each.per_second / base.per_second for each, base in pairs),
            "p50_to_echo": median(each.p50_ms / base.p50_ms for each, base in pairs),
        }
    return figures


def _show(console: Console, name: str, figures: dict[str, dict[str, float]]) -> None:
    table = Table(title=name)
    for column in ("operation", "calls/s", "to echo", "p50 ms", "p95 ms", "p99 ms", "CPU µs/call"):
        table.add_column(column, justify="left" if column == "operation" else "right")
    for operation, each in figures.items():
        table.add_row(
            operation,
            f"{each['per_second']:.0f}",
            f"{each['rate_to_echo']:.2f}",
            f"{each['p50_ms']:.1f}",
            f"{each['p95_ms']:.1f}",
            f"{each['p99_ms']:.1f}",
            f"{each['cpu_us']:.0f}",
        )
    console.print(table)


if __name__ == "__main__":
    main()
