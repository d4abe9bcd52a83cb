"""Sends prepared calls at a fixed concurrency, and measures what the servers spend on them."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import Any, TypeVar

T = TypeVar("T")
Call = Callable[[], Awaitable[Any]]

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Measured:
    """One round of one operation. Latencies are in milliseconds, CPU in microseconds a call."""

    name: str
    calls: int
    per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    cpu_us: float


async def measure(
    name: str, calls: Sequence[Call], concurrency: int, servers: Iterable[int]
) -> tuple[Measured, list[Any]]:
    """Make every call, so many at once; the figures, and the answers in the order of the calls.

    Args:
        name: of the operation.
        calls: each makes one call and gives its answer; an error ends the measurement.
        concurrency: how many are on their way at any time.
        servers: process ids whose CPU time counts.
    """
    answers: list[Any] = [None] * len(calls)
    latencies: list[float] = []
    waiting = iter(enumerate(calls))
    pids = tuple(servers)

    async def work() -> None:
        for index, call in waiting:
            begin = time.perf_counter()
            answers[index] = await call()
            latencies.append(time.perf_counter() - begin)

    before, begin = _cpu_seconds(pids), time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(work())
    seconds, spent = time.perf_counter() - begin, _cpu_seconds(pids) - before
    cuts = quantiles(latencies, n=100)
    measured = Measured(
        name=name,
        calls=len(calls),
        per_second=len(calls) / seconds,
        p50_ms=cuts[49] * 1000,
        p95_ms=cuts[94] * 1000,
        p99_ms=cuts[98] * 1000,
        cpu_us=spent / len(calls) * 1e6,
    )
    return measured, answers


async def until_idle(servers: Iterable[int], busy: float = 0.1, most_seconds: float = 60) -> None:
    """Wait until the servers take less than this share of a core, but not for ever."""
    pids = tuple(servers)
    for _ in range(int(most_seconds)):
        before = _cpu_seconds(pids)
        await asyncio.sleep(1)
        if _cpu_seconds(pids) - before < busy:
            return


def _cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of processes so far."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS
