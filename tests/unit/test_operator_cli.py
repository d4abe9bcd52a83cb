"""An operator's commands at a terminal, without servers: what is shown, and what is asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from rxoutflow.cli import cli
from rxoutflow.cli.desk import Desk
from rxoutflow.cli.operator_tables import adjudication_table
from rxoutflow.client import Evidence, OperatorClient, Overdue
from rxoutflow.errors import InvalidInput
from rxoutflow.v1.administration_service_pb2 import DeadLetter
from rxoutflow.v1.attempt_pb2 import Adjudication, Attempt, Commitment
from rxoutflow.v1.settlement_pb2 import Settlement
from rxoutflow.v1.statement_pb2 import SignedStatement
from support.pki import NOW

BOTH = ("--handed-over", "--not-handed-over")
LETTER = DeadLetter(
    event_id="019cade2-11c0-7cbb-a30e-09148cbbd142",
    peer_region_code="320600",
    prescription_number="350200177244380000000001044813",
    statement=SignedStatement(payload_type="application/vnd.rxoutflow.attempt.v1+protobuf"),
    tries=7,
    error="not delivered within 72 hours",
)


class Desked(OperatorClient):
    """A client of a platform with one overdue attempt and one dead letter."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    def overdue(self) -> Iterator[Overdue]:
        attempt = Attempt(attempt_id="A1", prescription_number="N1", pharmacy_code="P1")
        held = Settlement()
        held.amounts.total_fen, held.amounts.pool_fen = 1000, 600
        for settlement in (Evidence(held, (), SignedStatement()), None):
            yield Overdue(
                Evidence(attempt, (), SignedStatement()),
                Evidence(Commitment(), (), SignedStatement()),
                settlement,
                "示范药店",
                "0595-5550101",
                "H1",
                NOW - timedelta(days=3),
            )

    def dead_letters(self) -> Iterator[DeadLetter]:
        yield LETTER

    def retry(self, dead: DeadLetter) -> None:
        self.asked.append(("retry", dead.event_id))

    def discard(self, dead: DeadLetter, reason: str) -> None:
        self.asked.append(("discard", dead.event_id, reason))


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Desked:
    client = Desked()
    monkeypatch.setattr(Desk, "operator", property(lambda _: client))
    return client


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


def shown(*arguments: str) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def answered(*arguments: str) -> Any:
    return json.loads(shown(*arguments, "--json"))


def test_the_adjudication_list_says_whom_to_call(client: Desked) -> None:
    table = shown("overdue", "list")
    for part in ("A1", "N1", "示范药店", "0595-5550101", "600 of 1000 fen", "patient pays alone"):
        assert part in table
    first, alone = answered("overdue", "list")
    assert first["settlement"]["amounts"]["pool_fen"] == 600
    assert alone["settlement"] is None


def test_an_empty_list_says_so(client: Desked, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("overdue", "dead_letters"):
        monkeypatch.setattr(client, name, lambda: iter(()))
    assert "nothing is overdue" in shown("overdue", "list")
    assert "nothing is set aside" in shown("dead-letters", "list")


def test_dead_letters_say_what_for_whom_and_why(client: Desked) -> None:
    table = " ".join(shown("dead-letters", "list").split())
    for part in (LETTER.event_id[:8], "320600", "attempt", "7", "not delivered"):
        assert part in table
    (letter,) = answered("dead-letters", "list")
    assert (letter["kind"], letter["error"]) == ("attempt", LETTER.error)


def test_a_dead_letter_is_sent_again_or_given_up(client: Desked) -> None:
    assert "320600 again" in shown("dead-letters", "retry", LETTER.event_id)
    assert "given up" in shown("dead-letters", "discard", LETTER.event_id, "--reason", "by letter")
    assert client.asked == [
        ("retry", LETTER.event_id),
        ("discard", LETTER.event_id, "by letter"),
    ]


def test_what_is_not_listed_is_wrong_input(client: Desked) -> None:
    for find in (client.find_overdue, client.find_dead_letter):
        with pytest.raises(InvalidInput):
            find("another")


@pytest.mark.parametrize(
    "arguments",
    [
        ("overdue", "decide", "A1", "--evidence", "e", "-o", "f"),
        ("overdue", "decide", "A1", "--handed-over", "-o", "f"),
        ("overdue", "decide", "A1", "--handed-over", "--evidence", "e"),
        ("overdue", "decide", "A1", "--evidence", "e", "-o", "f", *BOTH),
        ("dead-letters", "discard", "E1"),
    ],
)
def test_what_has_to_be_said_is_asked_for(client: Desked, arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Missing option" in result.stderr or "say what was found" in result.stderr


def test_nobody_s_words_reach_the_terminal_as_commands() -> None:
    words = "[bold]\x1b[31mseen[/bold]"
    content = Adjudication(evidence=words, prescription_number="N1")
    console = Console(file=StringIO(), width=100)
    console.print(adjudication_table(Evidence(content, (), SignedStatement())))
    assert isinstance(console.file, StringIO)
    assert "[bold]\ufffd[31mseen[/bold]" in console.file.getvalue()
