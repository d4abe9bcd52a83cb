"""Make the development PKIs of a constellation in a new directory.

The same certificates that ``rxoutflow-server sandbox`` makes for itself, for those who lay out
their own development constellation. It prints the digest of each registry certificate, which
configurations pin. It refuses a directory that holds anything: keys are never overwritten.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from rxoutflow_server.devpki import make_private_folder
from rxoutflow_server.reference import ReferenceDataError
from rxoutflow_server.sandbox.constellation import CONSTELLATION_FILE, DATA, load_constellation
from rxoutflow_server.sandbox.pki import issue_pki, region_pki


class BadInput(click.ClickException):
    """The constellation or the directory cannot be used."""

    exit_code = 2


@click.command()
@click.option(
    "--dir",
    "directory",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where to make the PKIs: a new or empty directory.",
)
@click.option(
    "--constellation",
    "file",
    metavar="FILE.toml",
    default=DATA / CONSTELLATION_FILE,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Regions, institutions and people; those of the sandbox by default.",
)
def main(directory: Path, file: Path) -> None:
    """Make two PKIs a region, for development only."""
    try:
        constellation = load_constellation(file)
    except ReferenceDataError as error:
        raise BadInput(str(error)) from error
    if directory.exists() and any(directory.iterdir()):
        raise BadInput(f"{directory} is not empty: name a new directory")
    make_private_folder(directory)
    issue_pki(constellation, directory, datetime.now(UTC))
    for region in constellation.regions:
        digest = region_pki(directory, region).registry_sha256()
        click.echo(f"{region.code} registry certificate sha256 {digest}")


if __name__ == "__main__":
    main()
