"""``tariff``: check, show, compare and load tariff files, and list what a late change means.

Only ``load`` writes to a platform's reference data, and it writes a file whole or not at all.
``adjust`` only reads the store. Exit status 0: as it should be; 1: something differs; 2: it could
not be done, and the message names file, line and key.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import click

from rxoutflow.trust import TrustListRefused
from rxoutflow_server.adjustment_report import page, write_csv
from rxoutflow_server.application.payer.adjusting import Review, review
from rxoutflow_server.application.region import LOCAL_TIME
from rxoutflow_server.config import ConfigError, PlatformConfig, load_platform
from rxoutflow_server.domain.tariff import Tariff, Tariffs
from rxoutflow_server.domain.tariff_changes import Span, changes, rows
from rxoutflow_server.reference import ReferenceDataError
from rxoutflow_server.reference.rows import read_bytes
from rxoutflow_server.reference.tariffs import (
    Placed,
    load_tariffs,
    read_tariff_file,
    refuse_changed_versions,
    refuse_gaps,
    tariff_files,
    together,
)
from rxoutflow_server.storage.errors import StoreError
from rxoutflow_server.storage.platform_stores import reading_platform
from rxoutflow_server.trust_folder import write_whole
from rxoutflow_server.wiring import hospital_tiers, load_trust, utc_now

DIFFERENT = 1

_PATH = click.Path(exists=True, path_type=Path)
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_DAY = click.DateTime(["%Y-%m-%d"])


class TariffProblem(click.ClickException):
    """It could not be done; the message says what to do."""

    exit_code = 2


@click.group("tariff")
def tariff_group() -> None:
    """Check, show, compare and load the tariffs of payer regions."""


@tariff_group.command()
@click.argument("path", metavar="FILE|FOLDER", type=_PATH)
def check(path: Path) -> None:
    """Check tariff files: form, figures, and that versions neither overlap nor leave gaps."""
    with _told():
        placed = _read(path)
        together(placed)
        refuse_gaps(placed)
    for each in placed:
        click.echo(f"{each.file.name}: {_version_line(each.tariff)}")
    click.echo(f"ok: {len(placed)} versions")


@tariff_group.command()
@click.argument("path", metavar="FILE|FOLDER", type=_PATH)
@click.option("--region", default="", help="Only this payer region.")
@click.option("--on", "day", type=_DAY, help="Only what is in force on this day, YYYY-MM-DD.")
def show(path: Path, region: str, day: date | None) -> None:
    """Show every figure, in words and for whom."""
    with _told():
        tariffs = together(_read(path))
    shown = [
        each
        for each in tariffs
        if (not region or each.region_code == region)
        and (day is None or each.in_force_on(_day(day)))
    ]
    if not shown:
        raise TariffProblem("no such version: name another region or day")
    for each in shown:
        click.echo(_version_line(each))
        for row in rows(each):
            click.echo(f"  {row.figure:44} {row.whom:28} {row.value}")


@tariff_group.command()
@click.argument("old", metavar="OLD", type=_PATH)
@click.argument("new", metavar="NEW", type=_PATH)
def diff(old: Path, new: Path) -> None:
    """Show what changes from one file or folder to another, row by row: what, when, for whom."""
    with _told():
        spans = changes(together(_read(old)), together(_read(new)))
    _show_spans(spans)
    if spans:
        sys.exit(DIFFERENT)
    click.echo("no figure changes on any day")


@tariff_group.command()
@click.argument("file", metavar="FILE", type=_FILE)
@click.option("--to", "folder", type=_FOLDER, help="The reference folder to load into.")
@click.option("--config", type=_FILE, help="Or: the platform whose reference folder it is.")
@click.option("--dry-run", is_flag=True, help="Check and compare only.")
def load(file: Path, folder: Path | None, config: Path | None, *, dry_run: bool) -> None:
    """Check FILE together with a platform's other tariffs, and put it there in one step.

    Refused: overlaps, gaps, and a change of a version that has begun, because settlements refer to
    it. Only its end, its document and whether it is verified may change; add a version instead.
    """
    with _told():
        target = _target(folder, config)
        content = read_bytes(file)
        placed = read_tariff_file(file)
        region_code = placed[0].tariff.region_code
        present = target / f"{region_code}.toml"
        others = [each for each in sorted(target.glob("*.toml")) if each != present]
        known = read_tariff_file(present) if present.exists() else []
        begun = [each for each in known if each.tariff.valid_from <= _today()]
        refuse_changed_versions(begun, placed)
        kept = [each for other in others for each in read_tariff_file(other)]
        new = together([*kept, *placed])
        refuse_gaps(placed)
    spans = changes(together([*kept, *known]), new)
    _show_spans(spans)
    if not dry_run:
        _write(present, content)
    click.echo(f"{'checked for' if dry_run else 'written to'} {present}")
    click.echo("a running platform reads it at its next start")
    _warn_of_the_past(spans)


@tariff_group.command()
@click.option("--config", "file", required=True, type=_FILE, help="The payer region's platform.")
@click.option("--from", "begin", required=True, type=_DAY, help="First day of dispensing.")
@click.option("--until", "end", type=_DAY, help="First day that is left out; default: none.")
@click.option("--tariffs", "folder", type=_FOLDER, help="Other tariffs than the platform's.")
@click.option("--csv", "csv_file", type=click.Path(path_type=Path), help="Write the list here.")
@click.option("--report", type=click.Path(path_type=Path), help="Write a page in Markdown here.")
def adjust(
    file: Path,
    begin: date,
    end: date | None,
    folder: Path | None,
    csv_file: Path | None,
    report: Path | None,
) -> None:
    """List what settlements of past days would be under the tariffs as they are now.

    Reads the store beside the running platform and changes nothing: booking the differences is the
    operator's decision. Exit status 1 if there are any.
    """
    with _told():
        config = load_platform(file, utc_now())
        tariffs = load_tariffs(folder or config.reference.tariffs)
        found = _reviewed(config, tariffs, _day(begin), None if end is None else _day(end))
    if csv_file is not None:
        with csv_file.open("w", encoding="utf-8", newline="") as stream:
            write_csv(stream, found.adjustments)
    text = page(config.region_code, found)
    if report is not None:
        report.write_text(text, "utf-8")
    click.echo(text)
    if found.adjustments:
        sys.exit(DIFFERENT)


def _reviewed(config: PlatformConfig, tariffs: Tariffs, begin: date, end: date | None) -> Review:
    tier = hospital_tiers(load_trust(config), utc_now)
    with reading_platform(config.records) as books:
        return asyncio.run(
            books.read(lambda tx: review(tx, config.region_code, tariffs, tier, begin, end))
        )


@contextmanager
def _told() -> Iterator[None]:
    """Turn what an operator can put right into a message and exit status 2."""
    try:
        yield
    except (ReferenceDataError, ConfigError, StoreError, TrustListRefused) as error:
        raise TariffProblem(str(error)) from error


def _read(path: Path) -> list[Placed]:
    """The versions of a file, or of all files of a folder, with the faults of all of them."""
    files = tariff_files(path) if path.is_dir() else [path]
    placed: list[Placed] = []
    faults: list[str] = []
    for file in files:
        try:
            placed += read_tariff_file(file)
        except ReferenceDataError as error:
            faults.append(str(error))
    if faults:
        raise TariffProblem("\n".join(faults))
    return placed


def _target(folder: Path | None, config: Path | None) -> Path:
    if folder is not None and config is None:
        return folder
    if config is not None and folder is None:
        return load_platform(config, utc_now()).reference.tariffs
    raise TariffProblem("name the folder with --to, or the platform with --config")


def _write(path: Path, content: bytes) -> None:
    try:
        write_whole(path, content)
    except OSError as error:
        raise TariffProblem(f"{path} cannot be written: {error}; it is as it was") from error


def _warn_of_the_past(spans: Sequence[Span]) -> None:
    past = [span.begin for span in spans if span.begin < _today()]
    if past:
        click.echo(
            f"figures change for days that are over, from {min(past)} on; list what that means for"
            f" settlements with: tariff adjust --config PLATFORM.toml --from {min(past)}"
        )


def _show_spans(spans: Sequence[Span]) -> None:
    for span in spans:
        until = f"up to, not including, {span.end}" if span.end else "on"
        click.echo(
            f"{span.region_code} from {span.begin} {until}: {span.old_version} → {span.new_version}"
        )
        for change in span.changes:
            click.echo(f"  {change.figure:44} {change.whom:28} {change.old} → {change.new}")


def _version_line(tariff: Tariff) -> str:
    until = f"up to, not including, {tariff.valid_until}" if tariff.valid_until else "on"
    verified = ", UNVERIFIED" if tariff.unverified else ""
    codes = ", ".join(scheme.scheme_code for scheme in tariff.schemes)
    schemes = f", schemes: {codes}" if codes else ""
    return (
        f"{tariff.region_code} {tariff.version_id} from {tariff.valid_from} {until}"
        f" ({tariff.document}{verified}){schemes}"
    )


def _today() -> date:
    return utc_now().astimezone(LOCAL_TIME).date()


def _day(value: date) -> date:
    """Click gives a day as a time at midnight."""
    return date(value.year, value.month, value.day)
