"""Commands of a hospital: precheck, issue, revoke."""

from __future__ import annotations

from pathlib import Path

import click

from rxoutflow.cli import show
from rxoutflow.cli.desk import REFUSED, Desk
from rxoutflow.cli.options import answers_json
from rxoutflow.client import IssuedPrescription
from rxoutflow.documents import read_draft
from rxoutflow.errors import InvalidInput
from rxoutflow.numbers import PrescriptionNumber
from rxoutflow.plain import plain, short_name
from rxoutflow.v1.finding_pb2 import RuleFinding
from rxoutflow.v1.his_service_pb2 import (
    HisServiceRevokePrescriptionRequest,
    IssuePrescriptionRequest,
)
from rxoutflow.v1.prescription_status_pb2 import RevocationOutcome

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("file", type=_FILE)
@answers_json
def precheck(desk: Desk, file: Path) -> None:
    """Say what the rules have against the prescription in FILE, without issuing it.

    Exit status 1 if it would be refused.
    """
    draft, client = read_draft(file), desk.hospital
    findings = client.precheck(client.complete(draft))

    def tell() -> None:
        desk.console.print(show.findings_table(findings) if findings else "no findings")

    desk.say([plain(finding) for finding in findings], tell)
    if any(finding.severity == RuleFinding.SEVERITY_REFUSE for finding in findings):
        raise click.exceptions.Exit(REFUSED)


@click.command()
@click.argument("file", type=_FILE)
@click.option("--qr", "picture", type=_FILE, help="Also write the QR code to this PNG file.")
@answers_json
def issue(desk: Desk, file: Path, picture: Path | None) -> None:
    """Sign and issue the prescription in FILE; prints the patient's pickup code."""
    draft, client = read_draft(file), desk.hospital
    issued = desk.send(
        f"issue {file}",
        lambda: client.issue_request(client.complete(draft)),
        IssuePrescriptionRequest,
        client.send_issue,
    )
    if picture is not None:
        _write_picture(issued, picture)

    def tell() -> None:
        registration = short_name(issued.response, "registration")
        desk.console.print(f"prescription {issued.number}: {registration}")
        show.say_qr(desk.console, issued.pickup_code, picture)

    desk.say(
        {
            "prescription_number": str(issued.number),
            "pickup_code": str(issued.pickup_code),
            "registration": short_name(issued.response, "registration"),
            "status": plain(issued.status.content) if issued.status else None,
        },
        tell,
    )


@click.command()
@click.argument("number")
@click.option("--reason", required=True, help="Why, for people.")
@answers_json
def revoke(desk: Desk, number: str, reason: str) -> None:
    """Take prescription NUMBER back; says what that came to."""
    parsed, client = PrescriptionNumber.parse(number), desk.hospital
    revoked = desk.send(
        f"revoke {parsed}",
        lambda: client.revoke_request(parsed, reason),
        HisServiceRevokePrescriptionRequest,
        client.send_revoke,
    )
    outcome = RevocationOutcome.Name(revoked.outcome).removeprefix("REVOCATION_OUTCOME_")

    def tell() -> None:
        desk.console.print(f"prescription {parsed}: {outcome}")
        if revoked.status is not None:
            desk.console.print(show.status_line(revoked.status.content), markup=False)

    status = plain(revoked.status.content) if revoked.status else None
    desk.say({"outcome": outcome, "status": status}, tell)


def _write_picture(issued: IssuedPrescription, picture: Path) -> None:
    try:
        show.qr_to_file(issued.pickup_code, picture)
    except OSError as error:
        raise InvalidInput(
            f"{picture}: cannot be written: {error.strerror}. The prescription was issued: "
            f"{issued.number}, pickup code {issued.pickup_code}"
        ) from error
