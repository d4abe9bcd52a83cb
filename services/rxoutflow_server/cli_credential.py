"""``rxoutflow-server credential``: what the e-credential app of an insured person would show.

In production the payer region's credential system makes these codes and the national app shows
them. In a sandbox this command stands in for both: it needs the platform's configuration, because
only who has the region's key can make a code.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import click
import segno

from rxoutflow_server.config import ConfigError, load_platform, read_pickup_key
from rxoutflow_server.credential_codes import CODE_LIFE, CredentialCodes


@click.command()
@click.option(
    "--config",
    "file",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Configuration of the payer region's platform.",
)
@click.option("--person", required=True, help="Number of the insured person.")
@click.option("--qr", "picture", type=click.Path(path_type=Path), help="Write the QR code as PNG.")
def credential(file: Path, person: str, picture: Path | None) -> None:
    """Show an e-credential code for an insured person, as the person's app would."""
    now = datetime.now(UTC)
    try:
        config = load_platform(file, now)
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(2)
    codes = CredentialCodes(config.region_code, read_pickup_key(config.pickup_key_file))
    code = codes.show(person, now)
    click.echo(code)
    qr = segno.make(code, micro=False)
    if picture is not None:
        qr.save(str(picture), kind="png", scale=6)
    elif sys.stdout.isatty():
        qr.terminal(out=sys.stdout, compact=True)
    minutes = int(CODE_LIFE.total_seconds() // 60)
    click.echo(f"good for {minutes} minutes, at one pharmacy", err=True)
