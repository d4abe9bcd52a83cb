"""``catalogue``: check, look into, compare and load drug catalogues.

A bad file is reported with every bad row at once: row, column and reason. ``load`` puts a file in
place whole or not at all, and only if it is known to be complete. Exit status 0: as it should be;
1: something differs; 2: it could not be done.
"""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import click

from rxoutflow_server.config import ConfigError, load_platform
from rxoutflow_server.domain.catalogue import Catalogue, Drug
from rxoutflow_server.domain.catalogue_changes import CatalogueChanges, compare, in_words
from rxoutflow_server.domain.errors import Refusal
from rxoutflow_server.domain.money import yuan
from rxoutflow_server.reference import Problem, ReferenceDataError
from rxoutflow_server.reference.catalogues import load_catalogue
from rxoutflow_server.reference.rows import has_trailer, read_bytes
from rxoutflow_server.trust_folder import write_whole
from rxoutflow_server.wiring import utc_now

DIFFERENT = 1
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_ROW = re.compile(r"row ([0-9]+)(?:, column (.+))?")


class CatalogueProblem(click.ClickException):
    """It could not be done; the message says what to do."""

    exit_code = 2


@click.group("catalogue")
def catalogue_group() -> None:
    """Check, look into, compare and load the drug catalogue of a dispensing region."""


@catalogue_group.command()
@click.argument("file", metavar="FILE", type=_FILE)
@click.option("--csv", "report", type=click.Path(path_type=Path), help="Write bad rows here.")
def check(file: Path, report: Path | None) -> None:
    """Check a catalogue and report every bad row: row, column, reason."""
    try:
        catalogue = load_catalogue(file)
    except ReferenceDataError as error:
        if report is not None:
            _write_report(report, error.problems)
        for problem in error.problems:
            click.echo(str(problem))
        rows = {_place(problem)[0] for problem in error.problems}
        raise CatalogueProblem(
            f"{file} cannot be used: {len(error.problems)} faults in {len(rows)} rows"
        ) from error
    click.echo(f"ok: {len(catalogue)} drugs, version {catalogue.version_id}")


@catalogue_group.command()
@click.argument("file", metavar="FILE", type=_FILE)
@click.argument("drug_code", metavar="CODE")
def show(file: Path, drug_code: str) -> None:
    """Show one drug, with the price of a package where the catalogue knows packages."""
    try:
        drug = _load(file).drug(drug_code)
    except Refusal as refusal:
        raise CatalogueProblem(refusal.message) from refusal
    for field in fields(Drug):
        click.echo(f"{field.name:24} {in_words(drug, field.name)}")
    if drug.units_per_package is not None:
        price = yuan(drug.price_micro_yuan * drug.units_per_package)
        click.echo(f"{'price of a package':24} {price} yuan")


@catalogue_group.command()
@click.argument("old", metavar="OLD", type=_FILE)
@click.argument("new", metavar="NEW", type=_FILE)
def diff(old: Path, new: Path) -> None:
    """Show what changes from one catalogue to another, drug by drug and field by field."""
    found = compare(_load(old), _load(new))
    _show(found)
    if found:
        sys.exit(DIFFERENT)


@catalogue_group.command()
@click.argument("file", metavar="FILE", type=_FILE)
@click.option(
    "--to", "target", type=click.Path(dir_okay=False, path_type=Path), help="The file to replace."
)
@click.option("--config", type=_FILE, help="Or: the platform whose catalogue it is.")
@click.option(
    "--rows", type=int, help="How many drugs it must hold; needed for a file without a trailer."
)
@click.option("--dry-run", is_flag=True, help="Check and compare only.")
def load(
    file: Path, target: Path | None, config: Path | None, rows: int | None, *, dry_run: bool
) -> None:
    """Check FILE and put it in the place of a platform's catalogue in one step."""
    present = _target(target, config)
    new = _load(file)
    content = read_bytes(file)
    _require_complete(file, content, new, rows)
    if present.stem != new.region_code:
        raise CatalogueProblem(
            f"{present} is for region {present.stem}, {file} for region {new.region_code}"
        )
    old = _load(present) if present.exists() else Catalogue(new.region_code, "", ())
    _show(compare(old, new))
    if not dry_run:
        _write(present, content)
    click.echo(f"{'checked for' if dry_run else 'written to'} {present}: version {new.version_id}")
    click.echo("a running platform reads it at its next start")


def _require_complete(file: Path, content: bytes, catalogue: Catalogue, rows: int | None) -> None:
    if rows is None and not has_trailer(content):
        raise CatalogueProblem(
            f"{file} does not say how many rows it holds: end it with the line"
            f" '# rows: {len(catalogue)}', or say it with --rows, if {len(catalogue)} is right"
        )
    if rows is not None and rows != len(catalogue):
        raise CatalogueProblem(f"{file} holds {len(catalogue)} drugs, not {rows}")


def _target(target: Path | None, config: Path | None) -> Path:
    if target is not None and config is None:
        return target
    if config is not None and target is None:
        try:
            return load_platform(config, utc_now()).reference.catalogue
        except ConfigError as error:
            raise CatalogueProblem(str(error)) from error
    raise CatalogueProblem("name the file with --to, or the platform with --config")


def _load(file: Path) -> Catalogue:
    try:
        return load_catalogue(file)
    except ReferenceDataError as error:
        raise CatalogueProblem(str(error)) from error


def _write(path: Path, content: bytes) -> None:
    try:
        write_whole(path, content)
    except OSError as error:
        raise CatalogueProblem(f"{path} cannot be written: {error}; it is as it was") from error


def _write_report(path: Path, problems: Sequence[Problem]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("row", "column", "reason"))
        writer.writerows((*_place(problem), problem.problem) for problem in problems)


def _place(problem: Problem) -> tuple[str, str]:
    match = _ROW.fullmatch(problem.where)
    return (match[1], match[2] or "") if match else (problem.where, "")


def _show(found: CatalogueChanges) -> None:
    for drug in found.added:
        click.echo(f"+ {drug.drug_code} {drug.generic_name} {in_words(drug, 'price_micro_yuan')}")
    for drug in found.removed:
        click.echo(f"- {drug.drug_code} {drug.generic_name}")
    for change in found.changed:
        click.echo(
            f"~ {change.drug_code} {change.generic_name}"
            f" {change.field}: {change.old} → {change.new}"
        )
    changed = len({change.drug_code for change in found.changed})
    click.echo(f"{len(found.added)} added, {len(found.removed)} removed, {changed} changed")
