"""Commands that several kinds of actors have: status, history, watch, trace."""

from __future__ import annotations

import json

import click

from rxoutflow.cli import show
from rxoutflow.cli.desk import Desk
from rxoutflow.cli.options import answers_json
from rxoutflow.errors import InvalidInput
from rxoutflow.identity import CallerKind
from rxoutflow.numbers import PrescriptionNumber
from rxoutflow.plain import plain, short_name
from rxoutflow.v1.his_service_pb2 import Registration


@click.command()
@click.argument("number", required=False)
@answers_json
def status(desk: Desk, number: str | None) -> None:
    """Where prescription NUMBER stands (hospital), or the current claim (pharmacy)."""
    if desk.profile.name.kind is CallerKind.PHARMACY:
        _claim_status(desk)
        return
    if number is None:
        raise InvalidInput("status: give the prescription's number")
    known = desk.hospital.get(PrescriptionNumber.parse(number))
    registration = Registration.Name(known.registration).removeprefix("REGISTRATION_")
    state = known.status.content if known.status else None

    def tell() -> None:
        desk.console.print(f"at the edge: {registration}")
        if state is not None:
            desk.console.print(show.prescription_table(known.prescription.content, state))
            desk.console.print(show.status_line(state), markup=False)

    desk.say({"registration": registration, "status": plain(state) if state else None}, tell)


def _claim_status(desk: Desk) -> None:
    progress = desk.pharmacy.progress(desk.session.current())
    attempt = progress.attempt.content
    settlement = progress.settlement.content if progress.settlement else None

    def tell() -> None:
        desk.console.print(show.attempt_line(attempt), markup=False)
        step = short_name(progress.progress, "state")
        desk.console.print(f"dispense: {step}")
        if settlement is not None:
            desk.console.print(show.settlement_line(settlement), markup=False)
            desk.console.print(show.amounts_table(settlement.amounts))
        for returned in progress.progress.returns:
            desk.console.print(show.return_line(returned), markup=False)

    desk.say(
        {
            "progress": plain(progress.progress),
            "attempt": plain(attempt),
            "settlement": plain(settlement) if settlement is not None else None,
        },
        tell,
    )


@click.command()
@click.argument("number")
@answers_json
def history(desk: Desk, number: str) -> None:
    """The signed statements behind where prescription NUMBER stands, verified.

    A hospital sees all of its prescription, a pharmacy what concerns its own claims.
    """
    parsed = PrescriptionNumber.parse(number)
    if desk.profile.name.kind is CallerKind.PHARMACY:
        events = desk.pharmacy.history(str(parsed))
    else:
        events = desk.hospital.history(parsed)
    desk.say(
        [plain(event) for event in events],
        lambda: desk.console.print(show.history_table(events)),
    )


@click.command()
@click.option("--resume-token", default="", help="Go on after this notice.")
@answers_json
def watch(desk: Desk, resume_token: str) -> None:
    """Show notices as they come, until Ctrl-C."""
    is_hospital = desk.profile.name.kind is CallerKind.HOSPITAL
    client = desk.hospital if is_hospital else desk.pharmacy
    with client.watch(resume_token) as stream:
        try:
            for notice in stream:
                if desk.selection.as_json:
                    click.echo(json.dumps(plain(notice), ensure_ascii=False))
                else:
                    desk.console.print(show.notice_line(notice), markup=False)
        except KeyboardInterrupt:
            return


@click.command()
@click.argument("number")
@answers_json
def trace(desk: Desk, number: str) -> None:
    """What this regulator's region stored about prescription NUMBER, verified."""
    events = desk.regulator.trace(PrescriptionNumber.parse(number))
    desk.say(
        [plain(event) for event in events],
        lambda: desk.console.print(show.trace_table(events)),
    )
