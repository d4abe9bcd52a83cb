"""``rxoutflow-server``: what operators run."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from rxoutflow.statements import SignerUnusable
from rxoutflow.trust import TrustListRefused
from rxoutflow_server import telemetry
from rxoutflow_server.cli_benefit import benefit_group
from rxoutflow_server.cli_catalogue import catalogue_group
from rxoutflow_server.cli_clearing import clearing_group
from rxoutflow_server.cli_credential import credential
from rxoutflow_server.cli_keys import keys_group
from rxoutflow_server.cli_log import log_group
from rxoutflow_server.cli_registry import registry
from rxoutflow_server.cli_store import store_group
from rxoutflow_server.cli_supervise import supervise
from rxoutflow_server.cli_tariff import tariff_group
from rxoutflow_server.config import (
    ConfigError,
    HospitalConfig,
    PharmacyConfig,
    PlatformConfig,
    ServerConfig,
    load_hospital,
    load_pharmacy,
    load_platform,
)
from rxoutflow_server.hospital.service import serve_hospital
from rxoutflow_server.pharmacy.service import serve_pharmacy
from rxoutflow_server.platform.service import build_region, serve_platform
from rxoutflow_server.reference import ReferenceDataError
from rxoutflow_server.sandbox.command import sandbox, sandbox_region
from rxoutflow_server.storage.errors import StoreError
from rxoutflow_server.transport.server import ListenError, run
from rxoutflow_server.transport.tls import KeyFileError
from rxoutflow_server.wiring import load_trust
from rxoutflow_server.workers import LINE_VARIABLE, WorkerError, Workers

UNUSABLE = 2
"""Exit code for a configuration or an environment that cannot be used."""

UNUSABLE_INPUT = (
    ConfigError,
    ReferenceDataError,
    StoreError,
    ListenError,
    KeyFileError,
    SignerUnusable,
    TrustListRefused,
)
"""What an operator can put right; the message says how."""

C = TypeVar("C", bound=ServerConfig)
Command = Callable[[Path, bool], None]

_config = click.option(
    "--config",
    "file",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="TOML configuration; see docs/operators.",
)
_check = click.option("--check", is_flag=True, help="Only check the configuration, then exit.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="rxoutflow")
def main() -> None:
    """Run the servers of rxoutflow, the exchange for outflow prescriptions."""


@main.command()
@_config
@_check
def platform(file: Path, check: bool) -> None:
    """Run the platform of a pooling region."""
    _run(file, check, load_platform, _check_platform, _serve_platform)


@main.command()
@_config
@_check
def hospital(file: Path, check: bool) -> None:
    """Run the edge service of a hospital."""
    _run(file, check, load_hospital, _check_nothing_more, serve_hospital)


@main.command()
@_config
@_check
def pharmacy(file: Path, check: bool) -> None:
    """Run the edge service of a pharmacy."""
    _run(file, check, load_pharmacy, _check_nothing_more, serve_pharmacy)


main.add_command(benefit_group)
main.add_command(catalogue_group)
main.add_command(clearing_group)
main.add_command(credential)
main.add_command(keys_group)
main.add_command(log_group)
main.add_command(registry)
main.add_command(sandbox)
main.add_command(sandbox_region)
main.add_command(store_group)
main.add_command(supervise)
main.add_command(tariff_group)


def _run(
    file: Path,
    check: bool,
    load: Callable[[Path, datetime], C],
    check_more: Callable[[C], None],
    serve: Callable[[C], Coroutine[Any, Any, None]],
) -> None:
    """Load, check, and serve unless only the check was asked for."""
    try:
        config = load(file, datetime.now(UTC))
        check_more(config)
        if check:
            click.echo("ok")
            return
        telemetry.configure(config.log_level)
        run(serve(config))
    except WorkerError as error:
        sys.exit(error.code)
    except UNUSABLE_INPUT as error:
        click.echo(str(error), err=True)
        sys.exit(UNUSABLE)


async def _serve_platform(config: PlatformConfig) -> None:
    """One process, or several that this one watches; each of those comes here too."""
    if config.workers == 1 or LINE_VARIABLE in os.environ:
        await serve_platform(config)
    else:
        command = (sys.executable, "-m", __package__, "platform", "--config", str(config.file))
        await Workers(command, config.workers).run()


def _check_platform(config: PlatformConfig) -> None:
    build_region(config, load_trust(config))


def _check_nothing_more(config: HospitalConfig | PharmacyConfig) -> None:
    """An edge has nothing to check beyond its configuration."""
