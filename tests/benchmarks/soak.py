"""A steady load for a long time: does the platform keep its rate, and does its memory level off?

    .venv/bin/python tests/benchmarks/soak.py --minutes 10 --out soak.json --plot soak.png
    .venv/bin/python tests/benchmarks/soak.py --exchanges 1000000 --out soak.json   # some hours

One region issues, dispenses and pays; the others run because they keep trace codes. Every exchange
is a registration, a claim, a quote, a commitment and a record of the handover, each signed on the
way by this process, which uses cores too: the rate is that of both together. Lines are fitted to
memory over the second half, when caches are full. Judges nothing: it says what it saw.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import count, pairwise
from math import inf
from pathlib import Path
from statistics import linear_regression, mean
from typing import Any

import click
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.exchange import drawing
from benchmarks.exchange.setting import documented, job_of, warm_up, warning
from benchmarks.exchange.site import Site, running_site
from benchmarks.exchange.work import Job

REGION = "350500"
EVERY_SECONDS = 5.0
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Sample:
    """What was seen at a moment: seconds since the start, and sizes in MiB."""

    seconds: float
    exchanges: int
    rss_mib: dict[str, float]
    wal_mib: float
    store_mib: float


class Soak:
    """Keeps so many exchanges on their way, and takes samples."""

    def __init__(self, site: Site, job: Job, people: int) -> None:
        self._site, self._job, self._people = site, job, people
        self._done = 0
        self._begun = 0
        self.samples: list[Sample] = []

    async def run(self, seconds: float, exchanges: float, concurrency: int) -> None:
        """Load the platform for so long, or until it has done so many."""
        await warm_up(self._job, exchanges=1)
        begin = time.monotonic()
        self._sample(begin)
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(self._watch(begin))
            async with asyncio.TaskGroup() as work:
                for _ in range(concurrency):
                    work.create_task(self._work(begin + seconds, exchanges))
            watch.cancel()

    async def _work(self, end: float, exchanges: float) -> None:
        while time.monotonic() < end and self._done < exchanges:
            self._begun += 1
            await self._job.exchange(self._job.case(self._begun % self._people))()
            self._done += 1

    async def _watch(self, begin: float) -> None:
        for index in count(1):
            await asyncio.sleep(begin + index * EVERY_SECONDS - time.monotonic())
            self._sample(begin)

    def _sample(self, begin: float) -> None:
        region = self._site.region(REGION)
        store = self._site.layout.platform(region) / "platform.db"
        self.samples.append(
            Sample(
                seconds=time.monotonic() - begin,
                exchanges=self._done,
                rss_mib={name: _rss_mib(pid) for name, pid in self._platforms()},
                wal_mib=_size_mib(store.with_name("platform.db-wal")),
                store_mib=_size_mib(store),
            )
        )

    def _platforms(self) -> list[tuple[str, int]]:
        return [(name, pid) for name, pid in self._site.pids.items() if name != "echo"]


@click.command()
@click.option("--minutes", default=10.0, help="How long the load lasts.")
@click.option(
    "--exchanges", type=click.IntRange(1000), help="So many instead, however long they take."
)
@click.option("--concurrency", default=32, help="Exchanges on their way at any time.")
@click.option("--people", default=2000, help="Insured persons who take turns.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="JSON of the samples.")
@click.option("--plot", type=click.Path(path_type=Path), help="PNG of rate and memory.")
def main(
    minutes: float,
    exchanges: int | None,
    concurrency: int,
    people: int,
    out: Path,
    plot: Path | None,
) -> None:
    """Load a platform, tell what became of its rate and memory, and write it down."""
    with documented(out, concurrency=concurrency, people=people) as document:
        if exchanges is None:
            samples = _soak(minutes * 60, inf, concurrency, people)
        else:
            samples = _soak(inf, exchanges, concurrency, people)
        document["samples"] = [asdict(each) for each in samples]
        document["verdict"] = _verdict(samples)
    for line in filter(None, (warning(document), *_told(document["verdict"]))):
        click.echo(line)
    if plot is not None:
        _draw(document, samples, plot)


def _soak(seconds: float, exchanges: float, concurrency: int, people: int) -> list[Sample]:
    with (
        tempfile.TemporaryDirectory(prefix="rxsoak-") as folder,
        running_site(Path(folder) / "site", people, REGION, "") as site,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):

        async def load() -> list[Sample]:
            soak = Soak(site, job_of(site, "one region"), people)
            await soak.run(seconds, exchanges, concurrency)
            return soak.samples

        return runner.run(load())


def _verdict(samples: Sequence[Sample]) -> dict[str, Any]:
    """The first full minute against the last, and how memory grows in the second half.

    The first minute begins one sample after the start, when everything is on its way. A run of less
    than two minutes is cut in thirds instead.
    """
    minute = min(int(60 / EVERY_SECONDS), (len(samples) - 1) // 3)
    first, last = _rate(samples[1 : minute + 2]), _rate(samples[-minute - 1 :])
    second_half = samples[len(samples) // 2 :]
    return {
        "exchanges": samples[-1].exchanges,
        "first_per_second": first,
        "last_per_second": last,
        "last_to_first": last / first,
        "rss_mib_per_1000_exchanges": {
            name: _slope(second_half, name) for name in samples[0].rss_mib
        },
        "rss_mib_at_end": samples[-1].rss_mib,
        "wal_mib_at_most": max(each.wal_mib for each in samples),
        "wal_mib_mean": mean(each.wal_mib for each in samples),
        "store_mib_at_end": samples[-1].store_mib,
    }


def _rate(samples: Sequence[Sample]) -> float:
    begin, end = samples[0], samples[-1]
    return (end.exchanges - begin.exchanges) / (end.seconds - begin.seconds)


def _slope(samples: Sequence[Sample], name: str) -> float:
    """How many MiB of memory a thousand exchanges add."""
    thousands = [each.exchanges / 1000 for each in samples]
    return linear_regression(thousands, [each.rss_mib[name] for each in samples]).slope


def _told(verdict: dict[str, Any]) -> list[str]:
    slopes = verdict["rss_mib_per_1000_exchanges"]
    return [
        f"{verdict['exchanges']} exchanges; {verdict['first_per_second']:.1f}/s in the first full"
        f" minute, {verdict['last_per_second']:.1f}/s in the last"
        f" ({verdict['last_to_first']:.0%})",
        f"write-ahead log at most {verdict['wal_mib_at_most']:.1f} MiB,"
        f" store {verdict['store_mib_at_end']:.0f} MiB at the end",
        *(
            f"{name}: {verdict['rss_mib_at_end'][name]:.0f} MiB at the end,"
            f" {slope:+.2f} MiB per 1,000 exchanges over the second half"
            for name, slope in slopes.items()
        ),
    ]


def _draw(document: dict[str, Any], samples: Sequence[Sample], target: Path) -> None:
    figure, (rates, memory, log) = drawing.panels(
        f"{document['concurrency']} exchanges at once for {samples[-1].seconds / 60:.0f} minutes", 3
    )
    minutes = [each.seconds / 60 for each in samples]
    per_second = [_rate(pair) for pair in pairwise(samples)]
    rates.plot(minutes[1:], per_second, color=drawing.BLUE, linewidth=1.4)
    drawing.named(rates, f"exchanges a second, over {EVERY_SECONDS:g} s each")
    styles = ((drawing.BLUE, "-"), (drawing.ORANGE, "-"), (drawing.GREEN, "--"))
    names = sorted(samples[0].rss_mib, key=lambda name: -samples[-1].rss_mib[name])
    for name, (colour, line) in zip(names, styles, strict=False):
        values = [each.rss_mib[name] for each in samples]
        memory.plot(minutes, values, line, color=colour, label=name)
    memory.legend(frameon=False, fontsize=8, ncols=3, loc="lower right")
    drawing.named(memory, "resident memory, MiB")
    log.plot(minutes, [each.wal_mib for each in samples], color=drawing.GREY, linewidth=1.2)
    drawing.named(log, f"write-ahead log of platform-{REGION}, MiB")
    log.set_xlabel("minutes", fontsize=9)
    for axes in (rates, memory, log):
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
    drawing.save(figure, document, target)


def _rss_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


def _size_mib(file: Path) -> float:
    try:
        return file.stat().st_size / MIB
    except FileNotFoundError:
        return 0.0


if __name__ == "__main__":
    main()
