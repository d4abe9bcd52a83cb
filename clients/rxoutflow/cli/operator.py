"""Commands of an operator: decide on silent pharmacies, see to events that were set aside.

rxoutflow --profile operator.json overdue list
rxoutflow --profile operator.json overdue decide ATTEMPT --handed-over --evidence TEXT -o FILE
rxoutflow --profile operator.json overdue countersign FILE
rxoutflow --profile operator.json dead-letters list
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import click

from rxoutflow.cli import operator_tables, show
from rxoutflow.cli.desk import Desk
from rxoutflow.cli.options import answers_json
from rxoutflow.client.evidence import Evidence
from rxoutflow.errors import InvalidInput
from rxoutflow.plain import plain
from rxoutflow.statements import StatementError
from rxoutflow.statements.envelope import read_statement
from rxoutflow.v1.administration_service_pb2 import AdjudicateAttemptRequest
from rxoutflow.v1.attempt_pb2 import Adjudication
from rxoutflow.v1.statement_pb2 import SignedStatement

_FILE = click.Path(path_type=Path, dir_okay=False)
_WHO = click.Choice(["first", "second"])


@click.group()
def overdue() -> None:
    """Commitments whose pharmacy is silent: list them, decide, countersign."""


@overdue.command("list")
@answers_json
def list_overdue(desk: Desk) -> None:
    """Show the adjudication list, oldest commit first."""
    found = list(desk.operator.overdue())

    def tell() -> None:
        desk.console.print(operator_tables.overdue_table(found) if found else "nothing is overdue")

    desk.say([operator_tables.overdue_values(each) for each in found], tell)


@overdue.command()
@click.argument("attempt")
@click.option("--handed-over", is_flag=True, help="All that was committed was handed over ...")
@click.option("--not-handed-over", is_flag=True, help="... or nothing was.")
@click.option("--evidence", required=True, help="What that rests on; no personal data.")
@click.option(
    "--document", "documents", type=_FILE, multiple=True, help="Name a document by its SHA-256."
)
@click.option("--as", "who", type=_WHO, default="first", help="Who signs, of the profile's people.")
@click.option("-o", "--output", type=_FILE, required=True, help="Where to put the decision.")
@answers_json
def decide(
    desk: Desk,
    attempt: str,
    handed_over: bool,
    not_handed_over: bool,
    evidence: str,
    documents: tuple[Path, ...],
    who: str,
    output: Path,
) -> None:
    """Decide on ATTEMPT and sign; the decision counts when a second person countersigned it."""
    if handed_over == not_handed_over:
        raise click.UsageError("say what was found: either --handed-over or --not-handed-over")
    client = desk.operator
    decided = client.decide(
        client.find_overdue(attempt),
        Adjudication.FINDING_HANDED_OVER if handed_over else Adjudication.FINDING_NOT_HANDED_OVER,
        evidence,
        f"{who}_adjudicator",
        [sha256(_read(each)).digest() for each in documents],
    )
    _write(output, decided)
    decision = client.read_decision(decided)

    def tell() -> None:
        desk.console.print(operator_tables.adjudication_table(decision))
        desk.console.print(f"signed once: {output}. It takes a second person:", markup=False)
        desk.console.print(f"  rxoutflow ... overdue countersign {output}", markup=False)

    desk.say({"file": str(output), "adjudication": plain(decision.content)}, tell)


@overdue.command()
@click.argument("file", type=_FILE)
@click.option("--as", "who", type=_WHO, default="second", help="Who signs, as above.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@answers_json
def countersign(desk: Desk, file: Path, who: str, yes: bool) -> None:
    """Read the decision in FILE, sign it as the second person and hand it in."""
    client = desk.operator
    decision = client.read_decision(_statement(file))
    if not yes:
        _ask(desk, decision)
    ended = desk.send(
        f"overdue countersign {decision.content.adjudication_id}",
        lambda: client.adjudicate_request(decision, f"{who}_adjudicator"),
        AdjudicateAttemptRequest,
        client.send_adjudicate,
    )
    desk.say(
        {"attempt": plain(ended.content)},
        lambda: desk.console.print(show.attempt_line(ended.content), markup=False),
    )


@click.group("dead-letters")
def dead_letters() -> None:
    """Events that other regions refused or that could not be delivered."""


@dead_letters.command("list")
@answers_json
def list_dead_letters(desk: Desk) -> None:
    """Show them, oldest first."""
    found = list(desk.operator.dead_letters())

    def tell() -> None:
        desk.console.print(
            operator_tables.dead_letter_table(found) if found else "nothing is set aside"
        )

    desk.say([operator_tables.dead_letter_values(each) for each in found], tell)


@dead_letters.command()
@click.argument("event")
@answers_json
def retry(desk: Desk, event: str) -> None:
    """Send EVENT again, when whatever stopped it has been put right."""
    dead = desk.operator.find_dead_letter(event)
    desk.operator.retry(dead)
    desk.say(
        {"event_id": event},
        lambda: desk.console.print(f"event {event} is on its way to {dead.peer_region_code} again"),
    )


@dead_letters.command()
@click.argument("event")
@click.option("--reason", required=True, help="Why nobody needs it any more; no personal data.")
@answers_json
def discard(desk: Desk, event: str, reason: str) -> None:
    """Give EVENT up. Its statement is kept, and so is the reason."""
    desk.operator.discard(desk.operator.find_dead_letter(event), reason)
    desk.say({"event_id": event}, lambda: desk.console.print(f"event {event} is given up"))


def _ask(desk: Desk, decision: Evidence[Adjudication]) -> None:
    """Show what is about to be signed, and go on only if the person stands for it."""
    if desk.selection.as_json:
        raise InvalidInput("--json: nobody can be asked; read the decision and add --yes")
    desk.console.print(operator_tables.adjudication_table(decision))
    click.confirm("Do you come to the same finding, and sign it?", abort=True)


def _statement(file: Path) -> SignedStatement:
    try:
        return read_statement(_read(file))
    except StatementError as error:
        raise InvalidInput(f"{file}: is no decision: {error.message}") from error


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{file}: cannot be read: {error.strerror}") from error


def _write(file: Path, statement: SignedStatement) -> None:
    try:
        file.write_bytes(statement.SerializeToString())
    except OSError as error:
        raise InvalidInput(f"{file}: cannot be written: {error.strerror}") from error
