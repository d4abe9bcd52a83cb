"""What a slow disk costs: registrations while every sync of the platforms takes longer.

    .venv/bin/python tests/benchmarks/slow_disk.py --out slow-disk.json

A few lines of C stand before ``fsync`` and ``fdatasync`` of the platforms and wait first, while a
file is there; so slow and normal rounds alternate on the same processes. A platform that commits
many calls with one sync loses little of its rate. One call alone at a time is measured beside, as
proof that the disk is slow: it has to wait for its sync. Needs Linux and a C compiler.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import median

import click
import uvloop
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.exchange.load import Call, Measured, measure
from benchmarks.exchange.setting import documented, job_of, warning
from benchmarks.exchange.site import Site, running_site
from benchmarks.exchange.work import Job

REGION = "350500"
SWITCH = "RXOUTFLOW_BENCHMARK_SLOW"
SHIM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static void wait_first(void) {
    const char *file = getenv("RXOUTFLOW_BENCHMARK_SLOW");
    if (file && access(file, F_OK) == 0) {
        struct timespec pause = {0, DELAY_MICROSECONDS * 1000L};
        nanosleep(&pause, NULL);
    }
}

int fsync(int file) {
    int (*real)(int) = (int (*)(int)) dlsym(RTLD_NEXT, "fsync");
    wait_first();
    return real(file);
}

int fdatasync(int file) {
    int (*real)(int) = (int (*)(int)) dlsym(RTLD_NEXT, "fdatasync");
    wait_first();
    return real(file);
}
"""

Rounds = dict[str, list[Measured]]


@click.command()
@click.option("--calls", default=2000, help="Registrations in a round.")
@click.option("--rounds", default=3, help="Rounds on each disk, alternating.")
@click.option("--concurrency", default=256, help="Registrations on their way at any time.")
@click.option("--delay-ms", default=5.0, help="How much longer a sync takes.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="JSON of the results.")
def main(calls: int, rounds: int, concurrency: int, delay_ms: float, out: Path) -> None:
    """Measure registrations on both disks, print a table, and write the results."""
    options = {"calls": calls, "rounds": rounds, "concurrency": concurrency, "delay_ms": delay_ms}
    with (
        documented(out, **options) as document,
        tempfile.TemporaryDirectory(prefix="rxslow-") as name,
        _slowed(Path(name), delay_ms) as switch,
        running_site(Path(name) / "site", calls, REGION, "") as site,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        measured = runner.run(_alternate(site, switch, calls, rounds, concurrency))
        document["rounds_of"] = {key: [asdict(each) for each in measured[key]] for key in measured}
        document["ratio"] = _ratio(measured, "")
        document["ratio_alone"] = _ratio(measured, ", alone")
    if noise := warning(document):
        click.echo(noise)
    _show(measured, document["ratio"])


@contextmanager
def _slowed(folder: Path, delay_ms: float) -> Iterator[Path]:
    """Have processes that start from now on wait before every sync while a file is there."""
    switch, library = folder / "slow", _compiled(folder, delay_ms)
    before = os.environ.get("LD_PRELOAD")
    os.environ.update({SWITCH: str(switch), "LD_PRELOAD": str(library)})
    try:
        yield switch
    finally:
        del os.environ[SWITCH], os.environ["LD_PRELOAD"]
        if before is not None:
            os.environ["LD_PRELOAD"] = before


def _compiled(folder: Path, delay_ms: float) -> Path:
    """The shim as a library.

    Raises:
        click.ClickException: there is no compiler, no Linux, or it does not compile.
    """
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or sys.platform != "linux":
        raise click.ClickException(
            "slowing the disk needs Linux and a C compiler (cc): install one, for instance gcc"
        )
    source, library = folder / "shim.c", folder / "shim.so"
    source.write_text(SHIM, "utf-8")
    delay = f"-DDELAY_MICROSECONDS={round(delay_ms * 1000)}"
    command = [compiler, "-O2", "-shared", "-fPIC", delay, "-o", str(library), str(source), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise click.ClickException(f"{compiler} does not compile the shim:\n{done.stderr}")
    return library


async def _alternate(site: Site, switch: Path, calls: int, rounds: int, concurrency: int) -> Rounds:
    """Rounds on the disk as it is and on the slow one, turn by turn."""
    job = job_of(site, "one region")
    pids = [site.pids[f"platform-{REGION}"]]
    await measure("warm", _registrations(job, 2 * concurrency), concurrency, pids)
    measured: Rounds = defaultdict(list)
    for _ in range(rounds):
        for disk in ("normal", "slow"):
            _turn(switch, disk == "slow")
            many, alone = _registrations(job, calls), _registrations(job, max(calls // 20, 20))
            measured[disk].append((await measure(disk, many, concurrency, pids))[0])
            name = f"{disk}, alone"
            measured[name].append((await measure(name, alone, 1, pids))[0])
    return measured


def _registrations(job: Job, count: int) -> list[Call]:
    return [job.register(job.case(index)) for index in range(count)]


def _turn(switch: Path, slow: bool) -> None:
    if slow:
        switch.touch()
    else:
        switch.unlink(missing_ok=True)


def _ratio(measured: Rounds, suffix: str) -> float:
    """The rate on the slow disk to that on the normal one; median over pairs of rounds."""
    pairs = zip(measured[f"slow{suffix}"], measured[f"normal{suffix}"], strict=True)
    return median(slow.per_second / normal.per_second for slow, normal in pairs)


def _show(measured: Rounds, ratio: float) -> None:
    table = Table(title=f"register: rate on the slow disk {ratio:.2f} of that on the normal one")
    for column in ("disk", "calls/s", "p50 ms", "p99 ms", "CPU µs/call"):
        table.add_column(column, justify="left" if column == "disk" else "right")
    for disk, found in measured.items():
        columns = (("per_second", 0), ("p50_ms", 1), ("p99_ms", 1), ("cpu_us", 0))
        values = [f"{median(getattr(each, key) for each in found):.{n}f}" for key, n in columns]
        table.add_row(disk, *values)
    Console().print(table)


if __name__ == "__main__":
    main()
