"""The command ``rxoutflow``: what hospital, pharmacy, regulator and operator do, at a terminal.

    rxoutflow --sandbox DIR --as xiamen-hospital issue FILE.json
    rxoutflow --sandbox DIR --as quanzhou-pharmacy claim CODE
    rxoutflow --sandbox DIR --as quanzhou-pharmacy quote

Exit status: 0 done, 1 refused, 2 wrong input, 3 no certain answer (give the same command again).
"""

from __future__ import annotations

import os
from pathlib import Path

import click

from rxoutflow.cli import both, evidence, hospital, operator, pharmacy
from rxoutflow.cli.desk import Desk, Group, Selection

_PATH = click.Path(path_type=Path)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="rxoutflow")
@click.option("--profile", type=_PATH, envvar="RXOUTFLOW_PROFILE", help="Profile (JSON file).")
@click.option("--sandbox", type=_PATH, envvar="RXOUTFLOW_SANDBOX", help="Folder of a sandbox ...")
@click.option("--as", "actor", envvar="RXOUTFLOW_AS", help="... and who to be in it.")
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
@click.pass_context
def cli(
    ctx: click.Context, profile: Path | None, sandbox: Path | None, actor: str | None, as_json: bool
) -> None:
    """Issue, collect and trace outflow prescriptions (外配处方).

    Exit status: 0 done, 1 refused, 2 wrong input, 3 no certain answer: give the same command again.
    """
    ctx.obj = Desk(Selection(profile, sandbox, actor, as_json))


for _command in (
    hospital.precheck,
    hospital.issue,
    hospital.revoke,
    pharmacy.present,
    pharmacy.find,
    pharmacy.claim,
    pharmacy.quote,
    pharmacy.commit,
    pharmacy.dispense,
    pharmacy.deliver,
    pharmacy.take_back,
    pharmacy.release,
    pharmacy.correct,
    pharmacy.forget,
    both.status,
    both.history,
    both.watch,
    both.trace,
    evidence.receipt,
    evidence.export,
    evidence.verify_file,
    operator.overdue,
    operator.dead_letters,
):
    cli.add_command(_command)


def main() -> None:
    """Run the command line."""
    # What gRPC's core writes to standard error repeats what the errors say, in its own words.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    cli()
