"""What all measurements share: who takes part, on which machine, and whether it was quiet."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc

from benchmarks.exchange.site import Site
from benchmarks.exchange.work import Case, Job

ROOT = Path(__file__).resolve().parents[3]
ECHO_BYTES = 1500
READY_SECONDS = 60.0
"""How long platforms that were started may take to find each other."""

CONSTELLATIONS = {
    "one region": ("quanzhou-hospital", "quanzhou-pharmacy", "350500"),
    "three regions": ("xiamen-hospital", "quanzhou-pharmacy", "320600"),
}
"""Who issues, who dispenses, who pays."""

HOME = {"xiamen-hospital": "350200", "quanzhou-hospital": "350500"}
"""The region of a hospital, where the echo stands too."""

QUIET_LOAD = 0.5
"""Load average before the measurement above which its figures are not to be trusted."""


def job_of(site: Site, constellation: str) -> Job:
    """The calls of a constellation."""
    hospital, pharmacy, payer = CONSTELLATIONS[constellation]
    return Job(site, hospital, pharmacy, payer)


async def warm_up(job: Job, exchanges: int = 20) -> Case:
    """Whole exchanges one after the other, once the platforms have found each other; the last.

    Raises:
        grpc.aio.AioRpcError: they do not find each other; see their logs.
    """
    end = time.monotonic() + READY_SECONDS
    done = list[Case]()
    while len(done) < exchanges:
        case = job.case(len(done))
        try:
            await job.exchange(case)()
        except grpc.aio.AioRpcError as error:  # a peer that started later is dialled again soon
            if error.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > end:
                raise
            await asyncio.sleep(0.1)
        else:
            done.append(case)
    return done[-1]


def echo_region(constellation: str) -> str:
    """Where the echo of a constellation stands."""
    return HOME[CONSTELLATIONS[constellation][0]]


@contextmanager
def documented(out: Path, **options: object) -> Iterator[dict[str, Any]]:
    """A document that is written at the end, with the circumstances of the measurement."""
    document: dict[str, Any] = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": _machine(),
        "versions": _versions(),
        "load_before": os.getloadavg()[0],
        **options,
    }
    yield document
    document["load_after"] = os.getloadavg()[0]
    document["quiet"] = document["load_before"] <= QUIET_LOAD
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(document, indent=2) + "\n", "utf-8")


def warning(document: dict[str, Any]) -> str:
    """What a reader must know of a machine that did other work; empty when it did not."""
    if document["load_before"] <= QUIET_LOAD:
        return ""
    return (
        f"the machine was not quiet (load average {document['load_before']:.1f} before the start):"
        " trust CPU per call, not rates"
    )


def caption(document: dict[str, Any]) -> str:
    """One line on the circumstances, for under a plot."""
    machine, versions = document["machine"], document["versions"]
    parts = [
        f"{machine['cores']} cores of {machine['processor']}",
        *(f"{name} {versions[name]}" for name in ("python", "grpcio", "sqlite")),
        f"commit {document['commit']}",
        document["time"][:10],
    ]
    noise = "" if document.get("quiet", True) else "  ·  MACHINE NOT QUIET"
    return "  ·  ".join(parts) + noise


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    return done.stdout.strip() or "unknown"


def _machine() -> dict[str, object]:
    processor = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
            break
    cores = len(os.sched_getaffinity(0))
    return {"cores": cores, "processor": processor, "system": platform.platform()}


def _versions() -> dict[str, str]:
    libraries = ("grpcio", "protobuf", "cryptography", "uvloop", "psycopg")
    return {
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        **{each: version(each) for each in libraries},
    }
