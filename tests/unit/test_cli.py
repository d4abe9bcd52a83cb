"""The command line: a mistake costs one readable line and exit status 2, never a traceback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rxoutflow.cli import cli
from rxoutflow.cli.session import Session
from rxoutflow.errors import InvalidInput

COMMANDS = (
    *("precheck", "issue", "revoke", "find", "claim", "quote", "commit", "dispense", "release"),
    "return",
    *("correct", "forget", "status", "history", "watch", "trace"),
)
NUMBER = "350200177244380012300001000424"
CODE = f"{NUMBER}.0123456789ABCDEF"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments), env={"RXOUTFLOW_PROFILE": ""})


def told(result: Result) -> str:
    """The one line on standard error of a command that failed."""
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert "Traceback" not in line
    return line


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    """A pharmacy's profile; its keys cannot be read, so no command gets as far as the network."""
    for name in ("a.pem", "a.key"):
        (tmp_path / name).write_text("", encoding="utf-8")
    (tmp_path / "trust").mkdir()
    person = {"person_code": "A1", "name": "合成", "certificate": "a.pem", "key": "a.key"}
    values = {
        "actor": "quanzhou-pharmacy",
        "kind": "pharmacy",
        "region_code": "350500",
        "institution_code": "P35050000001",
        "institution_name": "泉州示范药店（合成）",
        "endpoint": {"target": "127.0.0.1:1", "server_name": "p35050000001.350500.rxoutflow"},
        "tls": {"certificate": "a.pem", "key": "a.key", "roots": "a.pem"},
        "people": {"reviewing_pharmacist": person, "dispenser": person, "checker": person},
        "trust": {"folder": "trust", "registry_roots": {"350500": "ab" * 32}},
    }
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


def test_help_names_every_command_and_the_exit_statuses() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for name in COMMANDS:
        assert f"\n  {name} " in result.stdout
    assert "1 refused" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "say who you are: --profile FILE, or --sandbox DIR --as ACTOR"),
        (("--sandbox", "here"), "say who you are"),
        (("--profile", "gone.json"), "gone.json: cannot be read"),
        (("--profile", "gone.json", "--as", "somebody"), "say who you are"),
        (("--sandbox", "gone", "--as", "somebody"), "gone: cannot be read"),
    ],
)
def test_who_cannot_be_found_is_wrong_input(arguments: tuple[str, ...], words: str) -> None:
    result = run(*arguments, "status")
    assert result.exit_code == 2
    assert words in told(result)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("find", "12345"), "a pickup code has 30 digits, a dot and 16 characters"),
        (("find", f"{NUMBER[:-1]}5.0123456789ABCDEF"), "the check digit"),
        (("claim", CODE, "--line", "1"), "--line: must be LINE:QUANTITY"),
        (("claim", CODE, "--line", "1:0"), "--line: must be LINE:QUANTITY"),
        (("quote",), "there is no current claim here: begin with `rxoutflow claim CODE`"),
        (("commit",), "there is no current claim"),
        (("dispense", "--invent-boxes"), "there is no current claim"),
        (("release", "--reason", "x"), "there is no current claim"),
        (("correct", "--reason", "x"), "say which: rxoutflow correct REQUEST_ID --number NUMBER"),
        (("correct", "R", "--reason", "x"), "say which: rxoutflow correct REQUEST_ID"),
        (("correct", "R", "--number", "1", "--reason", "x"), "a prescription number has 30 digits"),
        (("status",), "there is no current claim"),
        (("history", "12345"), "a prescription number has 30 digits"),
        (("issue", "gone.json"), "gone.json: cannot be read"),
        (("revoke", NUMBER, "--reason", "x"), "this needs a hospital, not a pharmacy"),
        (("trace", NUMBER), "this needs a regulator, not a pharmacy"),
    ],
)
def test_wrong_input_is_told_in_one_line(
    profile: Path, arguments: tuple[str, ...], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rxoutflow.client.base.EvidenceReader", lambda *_: None)
    result = run("--profile", str(profile), *arguments)
    assert result.exit_code == 2
    line = told(result)
    assert line.startswith("wrong input: ")
    assert words in line


def test_an_unacceptable_trust_folder_is_named(profile: Path) -> None:
    (profile.parent / "trust" / "350500.trustlist").write_bytes(b"\xff")
    result = run("--profile", str(profile), "find", CODE)
    assert result.exit_code == 2
    assert "350500.trustlist" in told(result)


def test_with_json_an_error_is_json_too(profile: Path) -> None:
    result = run("--profile", str(profile), "quote", "--json")
    assert result.exit_code == 2
    error = json.loads(told(result))
    assert error["error"] == "bad_input"
    assert "no current claim" in error["message"]


def test_an_option_that_does_not_exist_is_wrong_input() -> None:
    result = run("find", CODE, "--insecure")
    assert result.exit_code == 2
    assert "No such option" in result.stderr


def test_a_session_remembers_the_claim_for_its_owner_only(profile: Path) -> None:
    session = Session.load(profile)
    session.attempt.attempt_id = "0198"
    session.pending_step, session.pending_request = "commit 0198", b"\x00signed"
    session.save()
    again = Session.load(profile)
    assert again.current().attempt_id == "0198"
    assert (again.pending_step, again.pending_request) == ("commit 0198", b"\x00signed")
    assert session.path.stat().st_mode & 0o077 == 0
    assert not list(profile.parent.glob("*.tmp"))


def test_forgetting_a_claim_leaves_nothing_of_it(profile: Path) -> None:
    session = Session.load(profile)
    session.attempt.attempt_id = "0198"
    session.forget_claim()
    with pytest.raises(InvalidInput):
        session.current()


@pytest.mark.parametrize("content", ["{}", '{"attempt": 1}', "not json"])
def test_a_damaged_session_is_named_and_not_used(profile: Path, content: str) -> None:
    profile.with_suffix(".session.json").write_text(content, encoding="utf-8")
    result = run("--profile", str(profile), "quote")
    assert result.exit_code == 2
    assert "profile.session.json" in told(result)
