"""Where the CPU of the platforms goes, component by component. ``make bench`` runs it.

    .venv/bin/python tests/benchmarks/profile_exchange.py --out profile.json [--seconds N]

py-spy looks at every platform process 100 times a second, native frames included, while a load of
64 calls at once runs; the platforms themselves run as in production. The stacks say how each
Python thread divides its CPU time, the kernel (``/proc``) how much CPU time each thread used; the
two are multiplied. Threads without Python frames belong to gRPC. Waiting (for the interpreter
lock, for a queue, for the disk) costs no CPU; the time that the writer waits for the disk is
printed apart, as a share of wall time. A profiler slows what it looks at: only the division within
a thread is taken from it, the CPU of each thread from a run of like calls without it just before.

Reading another process needs the right to trace it: on Linux run as root, or as the same user with
``kernel.yama.ptrace_scope`` 0.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import uvloop
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.exchange.load import Call, measure
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

RATE = 100
"""Samples a second."""

GRPC = "TLS, HTTP/2, gRPC"
LOOP = "event loop and threads"
OTHER = "other"
WAITING = "waiting"
DISK = "waiting for the disk"

INCLUSIVE: tuple[tuple[str, str], ...] = (
    (r"telemetry\.py|structlog/|logging/__init__", "logging"),
    (r"application/log/|rxoutflow/log/|storage/tables/log\.py", "log tree and receipts"),
    (r"statements/verification\.py|statements/envelope\.py|rxoutflow/trust\.py", "verification"),
    (r"statements/signing\.py|statements/signers\.py", "signing what is stated"),
    (r"statements/wire\.py|application/validation\.py", "wire check and validation"),
)
"""A component has everything below the first frame of its own, whoever does the work."""

EXCLUSIVE: tuple[tuple[str, str], ...] = (
    (r"libsqlite3|_sqlite3|\(cursor\.c|\(connection\.c|\(statement\.c|storage/", "SQL"),
    (r"_message\.abi3|_upb|google/protobuf/|protobuf/internal", "protobuf"),
    (r"application/messages\.py", "protobuf"),
    (r"domain/|application/|reference/|rxoutflow/numbers|stdnum/", "commands and rules"),
    (r"_rust\.abi3|libcrypto|_hashopenssl|hmac\.py", "hashes and keys"),
    (r"transport/|platform/", "identity, policy, limits"),
    (r"cygrpc|grpc/", GRPC),
    (r"uvloop|\(loop\.c|\(core\.c|asyncio|threading\.py|concurrent/|_queuemodule", LOOP),
)
"""Otherwise the innermost frame that is known decides."""

COMPONENTS: tuple[str, ...] = (
    GRPC,
    "identity, policy, limits",
    "protobuf",
    "wire check and validation",
    "verification",
    "commands and rules",
    "signing what is stated",
    "log tree and receipts",
    "SQL",
    "hashes and keys",
    "logging",
    LOOP,
    OTHER,
)
_WAITS = re.compile(
    r"pthread_cond_(timed)?wait|epoll_p?wait|sem_(timed|clock)?wait|futex|^poll |^select |"
    r"clock_nanosleep|pthread_cond_clockwait"
)
_SYNCS = re.compile(r"fdatasync|^fsync")
_LOCKS = re.compile(r"PyThread_acquire_lock_timed|take_gil|sem_clockwait")


@dataclass(frozen=True, slots=True)
class Profile:
    """The CPU of one kind of call, in microseconds by component, and what the writer waits."""

    cpu_us: float
    components: dict[str, float]
    disk_share: float
    per_second: float


def component_of(frames: list[str]) -> str:
    """What a stack, outermost frame first, was doing."""
    inner = frames[-3:]
    if any(_SYNCS.search(each) for each in inner):
        return DISK
    if _WAITS.search(frames[-1]) or any(
        _LOCKS.search(each) or _WAITS.search(each) for each in inner
    ):
        return WAITING
    for frame in frames:
        for pattern, name in INCLUSIVE:
            if re.search(pattern, frame):
                return name
    for frame in reversed(frames):
        for pattern, name in EXCLUSIVE:
            if re.search(pattern, frame):
                return name
    return OTHER


def thread_seconds(pid: int) -> dict[int, float]:
    """CPU time of every thread of a process so far."""
    found = {}
    for each in Path(f"/proc/{pid}/task").iterdir():
        nanoseconds = (each / "schedstat").read_text("ascii").split()[0]
        found[int(each.name)] = int(nanoseconds) / 1e9
    return found


def read_stacks(path: Path) -> dict[int, Counter[str]]:
    """How often each thread was seen in each component."""
    if not path.exists():
        raise click.ClickException(
            "py-spy could not read a platform: run as root, or set kernel.yama.ptrace_scope to 0"
        )
    threads: dict[int, Counter[str]] = {}
    for line in path.read_text("utf-8").splitlines():
        stack, _, count = line.rpartition(" ")
        head, *frames = stack.split(";")
        found = re.match(r"thread \((\d+)\)", head)
        if found is None or not frames:
            continue
        seen = threads.setdefault(int(found.group(1)), Counter())
        seen[component_of(frames)] += int(count)
    return threads


class Observed:
    """Samples processes while calls are made."""

    def __init__(self, pids: Iterable[int], folder: Path, seconds: int) -> None:
        self._pids, self._folder, self._seconds = tuple(pids), folder, seconds

    async def during(self, name: str, calls: list[Call], concurrency: int) -> Profile:
        """Make the calls twice over: the first half alone, the second half under the profiler."""
        half = len(calls) // 2
        before = {pid: thread_seconds(pid) for pid in self._pids}
        alone, _ = await measure(name, calls[:half], concurrency, self._pids)
        after = {pid: thread_seconds(pid) for pid in self._pids}
        profilers = [self._profiler(pid) for pid in self._pids]
        await asyncio.sleep(1)  # until the profilers have read the processes' symbols
        await measure(name, calls[half:], concurrency, self._pids)
        for each in profilers:
            each.send_signal(2)
            await asyncio.to_thread(each.wait)
        shares, disk = self._shares(before, after)
        components = {each: alone.cpu_us * shares[each] for each in COMPONENTS}
        return Profile(alone.cpu_us, components, disk, alone.per_second)

    def _profiler(self, pid: int) -> subprocess.Popen[bytes]:
        target = self._folder / f"{pid}.raw"
        options = ["--native", "--threads", "-f", "raw", "-r", str(RATE)]
        program = Path(sys.executable).with_name("py-spy")
        command = [str(program), "record", "-p", str(pid), *options, "-d", str(self._seconds)]
        silent = subprocess.DEVNULL
        return subprocess.Popen([*command, "-o", str(target)], stdout=silent, stderr=silent)

    def _shares(
        self, before: dict[int, dict[int, float]], after: dict[int, dict[int, float]]
    ) -> tuple[dict[str, float], float]:
        """The share of each component in the CPU of all threads; the writers' wait for the disk."""
        total: dict[str, float] = dict.fromkeys(COMPONENTS, 0.0)
        synced = seen = 0
        for pid in self._pids:
            stacks = read_stacks(self._folder / f"{pid}.raw")
            for thread, seconds in after[pid].items():
                spent = seconds - before[pid].get(thread, 0.0)
                found = stacks.get(thread)
                if found is None:  # a thread of the library, without a Python frame
                    total[GRPC] += spent
                    continue
                synced += found[DISK]
                seen += sum(found.values()) if found[DISK] else 0
                _divide(total, spent, found)
        whole = sum(total.values()) or 1.0
        shares = {name: spent / whole for name, spent in total.items()}
        return shares, synced / max(seen, 1)


def _divide(total: dict[str, float], spent: float, found: Counter[str]) -> None:
    """Divide what a thread spent by what it was seen doing; one that only waited was a thread."""
    busy = {name: count for name, count in found.items() if name not in (WAITING, DISK)}
    whole = sum(busy.values())
    for name, count in (busy or {LOOP: 1}).items():
        total[name] += spent * count / (whole or 1)


async def profiles(site: Site, name: str, calls: int, seconds: int) -> dict[str, Profile]:
    """The profile of each operation of a constellation."""
    job = job_of(site, name)
    pids = [pid for each, pid in site.pids.items() if each != "echo"]
    await warm_up(job)
    found: dict[str, Profile] = {}
    with tempfile.TemporaryDirectory(prefix="rxprofile-") as folder:
        observed = Observed(pids, Path(folder), seconds)
        if name == "one region":
            echoes = [job.echo(bytes(ECHO_BYTES)) for _ in range(calls)]
            echo, _ = await measure("echo", echoes, 64, [site.pids["echo"]])
            found["echo"] = Profile(echo.cpu_us, {GRPC: echo.cpu_us}, 0.0, echo.per_second)
            cases = [job.case(index) for index in range(calls)]
            registers = [job.register(case) for case in cases]
            found["register"] = await observed.during("register", registers, 64)
            claims = [job.claim(case) for case in cases]
            found["claim"] = await observed.during("claim", claims, 64)
        exchanges = [job.exchange(job.case(index)) for index in range(calls // 4)]
        key = f"exchange, {name}"
        found[key] = await observed.during(key, exchanges, 32)
    return found


@click.command()
@click.option("--calls", default=4000, help="Calls of each operation; a quarter of exchanges.")
@click.option("--seconds", default=60, help="Longest time under the profiler.")
@click.option("--only", type=click.Choice(list(CONSTELLATIONS)), help="One constellation alone.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="JSON of the results.")
def main(calls: int, seconds: int, only: str | None, out: Path) -> None:
    """Profile register, claim and whole exchanges; print a table and write the results."""
    results: dict[str, Profile] = {}
    with documented(out, kind="profile", calls=calls, samples_per_second=RATE) as document:
        for name in [only] if only else CONSTELLATIONS:
            with (
                tempfile.TemporaryDirectory(prefix="rxbench-") as folder,
                running_site(Path(folder) / "site", calls, echo_region(name), "") as site,
                asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
            ):
                results |= runner.run(profiles(site, name, calls, seconds))
        document["results"] = {name: _plain(each) for name, each in results.items()}
    show(Console(width=120), results, warning(document))


def _plain(profile: Profile) -> dict[str, Any]:
    return {
        "cpu_us": profile.cpu_us,
        "components": profile.components,
        "disk_share": profile.disk_share,
        "per_second": profile.per_second,
    }


def show(console: Console, results: dict[str, Profile], noise: str) -> None:
    """Print the table."""
    table = Table(title="CPU of the platforms, µs a call (share)", caption=noise or None)
    table.add_column("component")
    for name in results:
        table.add_column(name, justify="right")
    for component in COMPONENTS:
        cells = []
        for each in results.values():
            spent = each.components.get(component, 0.0)
            cells.append(f"{spent:.0f} ({spent / each.cpu_us:.0%})" if spent else "–")
        table.add_row(component, *cells)
    table.add_section()
    table.add_row("all", *(f"{each.cpu_us:.0f}" for each in results.values()))
    disk = [f"{each.disk_share:.0%}" if each.disk_share else "–" for each in results.values()]
    table.add_row("writer waits for disk, of wall time", *disk)
    console.print(table)


if __name__ == "__main__":
    main()
