"""``store``: what an operator does with a store: back it up, verify, rebuild, move it.

``backup`` and ``verify`` work beside the running service and change nothing. ``rebuild`` and
``move`` take its place: stop it first. Exit status 0: as it should be; 1: something is not as the
evidence says; 2: it could not be done, and the message says what to do.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from rxoutflow.statements import Verifier
from rxoutflow.trust import TrustListRefused
from rxoutflow_server.application.log.auditing import audit
from rxoutflow_server.application.recompute.payer import Formula
from rxoutflow_server.config import DEFAULT_SCHEMA, ConfigError, PlatformConfig, load_platform
from rxoutflow_server.reference import ReferenceDataError
from rxoutflow_server.reference.tariffs import load_tariffs
from rxoutflow_server.storage.copying import Holding, back_up
from rxoutflow_server.storage.errors import StoreError
from rxoutflow_server.storage.maintenance import Records, looking, writing
from rxoutflow_server.storage.platform_stores import driver_needed
from rxoutflow_server.storage.recomputing import Finding, Recomputation, Report
from rxoutflow_server.wiring import hospital_tiers, load_trust, utc_now

DIFFERENT = 1
MOST_SHOWN = 200
_MEBIBYTE = 1 << 20
_BY_ITS_OWN_MEANS = (
    "a database is backed up by its own means: pg_dump --format=custom --schema=..., or"
    " pg_basebackup of the whole cluster"
)

_config = click.option(
    "--config",
    "file",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Configuration of the service whose store it is.",
)


class StoreProblem(click.ClickException):
    """It could not be done; the message says what to do."""

    exit_code = 2


@click.group("store")
def store_group() -> None:
    """Back up, verify, rebuild and move a store."""


@store_group.command()
@_config
@click.argument("target", type=click.Path(path_type=Path, dir_okay=False))
def backup(file: Path, target: Path) -> None:
    """Copy the store to TARGET while its service runs, and check the copy."""
    with _told():
        source = _file_of(file, _BY_ITS_OWN_MEANS)
        with _progress("copying") as bar:
            task = bar.add_task("pages", total=None)
            held = back_up(
                source, target, lambda done, of: bar.update(task, completed=done, total=of)
            )
    _show_holding(target, held)


@store_group.command()
@_config
def verify(file: Path) -> None:
    """Compute the state again from the evidence, and compare; audit the log."""
    with _told():
        config = load_platform(file, utc_now())
        with looking(config.records) as records:
            report = _recomputed(records, config)
            log = _audited(records, config)
    _show_report(report)
    for problem in log:
        click.echo(f"log: {problem}", err=True)
    if report.findings or log:
        sys.exit(DIFFERENT)
    click.echo("every state follows from what is kept, and the log is whole")


@store_group.command()
@_config
@click.option(
    "--backup",
    "target",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where the file is copied before; by default beside it.",
)
@click.option("--backed-up", is_flag=True, help="PostgreSQL: a dump of the schema has been made.")
def rebuild(file: Path, target: Path | None, backed_up: bool) -> None:
    """Write the state anew from the evidence, with the service stopped."""
    with _told():
        config = load_platform(file, utc_now())
        with looking(config.records) as records:
            report = _recomputed(records, config)
            log = _audited(records, config)
        if log:
            raise StoreProblem(
                f"the evidence itself is not what it was: {log[0]}; nothing is written from it:"
                " restore a backup, and see what verify says of it"
            )
        if all(not each.derived for each in report.findings):
            _show_report(report)
            click.echo("there is nothing to write")
            sys.exit(DIFFERENT if report.findings else 0)
        copy = _backup_before(config, target, backed_up)
        with writing(config.records, copy) as records:
            report = _recomputed(records, config, mending=True)
    if copy is not None:
        click.echo(f"the store as it was is in {copy}")
    click.echo("written anew:")
    _show_report(report)
    sys.exit(DIFFERENT if report.beyond_repair else 0)


@store_group.command()
@_config
@click.option("--to", "address", required=True, help="Connection string of libpq, no password.")
@click.option("--schema", default=DEFAULT_SCHEMA, show_default=True, help="Made if need be.")
def move(file: Path, address: str, schema: str) -> None:
    """Move a region's file to PostgreSQL, with the service stopped, and show that it is equal."""
    with _told():
        source = _file_of(file, "it is in a database already; nothing was moved")
        with driver_needed():
            from rxoutflow_server.storage.moving import move as moving
        with _progress("moving") as bar:
            task = bar.add_task("rows", total=None)
            moved = moving(source, address, schema, lambda name, rows: bar.advance(task, rows))
    table = Table("table", "rows", "SHA-256 on both sides", title=f"moved to schema {schema}")
    for each in moved.tables:
        table.add_row(each.name, str(each.rows), each.sha256.hex()[:16])
    _console().print(table)
    click.echo(f"the log has {moved.log_size} leaves and root {moved.log_root.hex()} on both sides")
    click.echo(f"{source} is as it was. In [store] of {file} write, in the place of path:")
    click.echo(f'postgres = "{address}"')
    if schema != DEFAULT_SCHEMA:
        click.echo(f'schema = "{schema}"')


def _recomputed(records: Records, config: PlatformConfig, *, mending: bool = False) -> Report:
    formula = Formula(
        config.region_code,
        load_tariffs(config.reference.tariffs),
        hospital_tiers(load_trust(config), utc_now),
    )
    with _progress("computing") as bar:
        task = bar.add_task("prescriptions", total=None)
        return Recomputation(
            records, formula, mending=mending, progress=lambda done: bar.advance(task, done)
        ).run()


def _audited(records: Records, config: PlatformConfig) -> tuple[str, ...]:
    verifier = Verifier(load_trust(config))
    with records.snapshot():
        return audit(records.tables, config.region_code, verifier, utc_now()).problems


def _backup_before(config: PlatformConfig, target: Path | None, backed_up: bool) -> Path | None:
    place = config.records
    if isinstance(place, Path):
        stamp = utc_now().strftime("%Y%m%dT%H%M%SZ")
        return target or place.with_name(f"{place.name}.before-rebuild-{stamp}")
    if not backed_up:
        raise StoreProblem(
            f"make a dump of schema {place.schema} first (pg_dump --schema={place.schema}), then"
            " say --backed-up"
        )
    return None


def _file_of(file: Path, advice: str) -> Path:
    """The store's file, from the configuration of any server, of which nothing else is needed.

    Raises:
        StoreProblem: the configuration cannot be read, or names a database; then with the advice.
    """
    try:
        store = tomllib.loads(file.read_text(encoding="utf-8")).get("store", {})
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise StoreProblem(f"{file} cannot be read: {error}") from error
    if not isinstance(store, dict):
        raise StoreProblem(f"{file}: store: is no table; name the configuration of a server")
    if "postgres" in store:
        raise StoreProblem(f"{file}: store.postgres: {advice}")
    if not isinstance(store.get("path"), str):
        raise StoreProblem(f"{file}: store.path: is missing; name the configuration of a server")
    return file.parent / str(store["path"])


def _show_holding(target: Path, held: Holding) -> None:
    table = Table("table", "rows", title=f"{target}: a whole store of kind {held.kind}")
    for name, rows in held.rows.items():
        if rows:
            table.add_row(name, str(rows))
    _console().print(table)
    click.echo(f"{held.bytes / _MEBIBYTE:.1f} MiB, checked: every page can be read")


def _show_report(report: Report) -> None:
    click.echo(
        f"{report.prescriptions} prescriptions, {report.persons} insured persons and"
        f" {report.outcomes} outcomes; {len(report.findings)} differences"
    )
    if report.findings:
        _console().print(_table_of(report.findings[:MOST_SHOWN]))
    if len(report.findings) > MOST_SHOWN:
        click.echo(f"and {len(report.findings) - MOST_SHOWN} more")


def _table_of(findings: Iterable[Finding]) -> Table:
    table = Table("whose", "table", "row", "difference", "rebuild", title="differences")
    for each in findings:
        mends = "writes it" if each.derived else "cannot"
        table.add_row(each.subject, each.table, each.row, each.problem, mends)
    return table


def _console() -> Console:
    return Console(soft_wrap=not sys.stdout.isatty(), width=None if sys.stdout.isatty() else 400)


@contextmanager
def _progress(what: str) -> Iterator[Progress]:
    columns = (TextColumn(what), BarColumn(), TextColumn("{task.completed}"), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        yield bar


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except (ConfigError, ReferenceDataError, StoreError, TrustListRefused) as error:
        raise StoreProblem(str(error)) from error
