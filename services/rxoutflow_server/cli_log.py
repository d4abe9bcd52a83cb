"""``log``: the audit of a platform's verifiable log, for operators and auditors.

Only reads, beside the running platform. Exit status 0: the log is whole; 1: it
is not; 2: it could not be read.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import datetime
from pathlib import Path

import click

from rxoutflow.statements import Verifier
from rxoutflow.trust import TrustListRefused
from rxoutflow_server.application.log.auditing import Audit, audit
from rxoutflow_server.config import ConfigError, PlatformConfig, load_platform
from rxoutflow_server.storage.errors import StoreError
from rxoutflow_server.storage.platform_stores import reading_platform
from rxoutflow_server.wiring import load_trust, utc_now

BROKEN = 1
UNREADABLE = 2


@click.group("log")
def log_group() -> None:
    """The region's verifiable log."""


@log_group.command()
@click.option(
    "--config",
    "file",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Configuration of the region's platform.",
)
def verify(file: Path) -> None:
    """Compute the log anew from its leaves; compare it with statements and checkpoints."""
    try:
        config = load_platform(file, utc_now())
        found = asyncio.run(_audited(config, utc_now()))
    except (ConfigError, StoreError, TrustListRefused) as error:
        click.echo(str(error), err=True)
        sys.exit(UNREADABLE)
    click.echo(f"{found.leaves} leaves, {found.checkpoints} checkpoints")
    for problem in found.problems:
        click.echo(problem, err=True)
    if found.problems:
        sys.exit(BROKEN)
    click.echo("the log is whole")


async def _audited(config: PlatformConfig, now: datetime) -> Audit:
    verifier = Verifier(load_trust(config))
    with reading_platform(config.records) as store:
        return await store.read(lambda tx: audit(tx, config.region_code, verifier, now))
