"""What every command shares: the chosen actor, the session, how to answer, how to fail.

Errors become one readable line and an exit status: 1 refused, 2 bad input, 3 outcome unknown. With
``--json`` answers are one JSON value on standard output, errors one JSON object on standard error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import click
from google.protobuf.message import Message
from rich.console import Console

from rxoutflow.cli.session import Session
from rxoutflow.client import HospitalClient, OperatorClient, PharmacyClient, RegulatorClient
from rxoutflow.errors import (
    AnswerUntrusted,
    Indefinite,
    InvalidInput,
    Refused,
    RxoutflowError,
    ServerError,
)
from rxoutflow.numbers import NumberInvalid
from rxoutflow.plain import Plain
from rxoutflow.profile import Profile, load_profile, load_sandbox

REFUSED, BAD_INPUT, UNKNOWN = 1, 2, 3

WIDE = 160
"""Columns of what is printed into a file or pipe, so that tables do not wrap."""

_Request = TypeVar("_Request", bound=Message)
_Answer = TypeVar("_Answer")


@dataclass
class Selection:
    """Who the user wants to be, as given on the command line."""

    profile: Path | None
    sandbox: Path | None
    actor: str | None
    as_json: bool = False

    def load(self) -> Profile:
        """The chosen profile.

        Raises:
            InvalidInput: none or too much was chosen, or it is wrong.
        """
        if self.profile and not (self.sandbox or self.actor):
            return load_profile(self.profile)
        if self.sandbox and self.actor and not self.profile:
            return load_sandbox(self.sandbox).profile(self.actor)
        raise InvalidInput("say who you are: --profile FILE, or --sandbox DIR --as ACTOR")


class Desk:
    """A command's way to profile, session, clients and the user."""

    def __init__(self, selection: Selection) -> None:
        self.selection = selection
        self.console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)

    @cached_property
    def profile(self) -> Profile:
        """The chosen profile."""
        return self.selection.load()

    @cached_property
    def session(self) -> Session:
        """The session of the chosen profile."""
        return Session.load(self.profile.path)

    @property
    def receipts(self) -> Path:
        """Where receipts of the chosen profile are kept: ``<profile>.receipts`` beside it."""
        return self.profile.path.with_suffix(".receipts")

    @cached_property
    def hospital(self) -> HospitalClient:
        """The client of a hospital's profile."""
        return HospitalClient(self.profile, receipts=self.receipts)

    @cached_property
    def pharmacy(self) -> PharmacyClient:
        """The client of a pharmacy's profile."""
        return PharmacyClient(self.profile, receipts=self.receipts)

    @cached_property
    def regulator(self) -> RegulatorClient:
        """The client of a regulator's profile."""
        return RegulatorClient(self.profile)

    @cached_property
    def operator(self) -> OperatorClient:
        """The client of an operator's profile."""
        return OperatorClient(self.profile)

    def say(self, values: Mapping[str, Plain] | list[Plain], show: Callable[[], None]) -> None:
        """Answer: the values as JSON, or what ``show`` prints for people."""
        if self.selection.as_json:
            click.echo(json.dumps(values, ensure_ascii=False))
        else:
            show()

    def send(
        self,
        step: str,
        build: Callable[[], _Request],
        kind: type[_Request],
        send: Callable[[_Request], _Answer],
    ) -> _Answer:
        """Send a mutating request so that it can be sent again, by the same command.

        Args:
            step: command and object, such as ``commit 0198...``.
            build: makes the request, if none is waiting for its answer.
            kind: the request's class.
            send: sends it.

        Raises:
            InvalidInput: another command's request still waits for its answer.
            RxoutflowError: whatever sending raises.
        """
        session = self.session
        if session.pending_step not in ("", step):
            raise InvalidInput(
                f"`{session.pending_step}` has no answer yet: give that command again first, or "
                "`rxoutflow forget` it"
            )
        if session.pending_step:
            request = kind.FromString(session.pending_request)
        else:
            request = build()
            session.pending_step = step
            session.pending_request = request.SerializeToString()
            session.save()
        try:
            answer = send(request)
        except Refused:
            self._settle()
            raise
        self._settle()
        return answer

    def _settle(self) -> None:
        self.session.pending_step, self.session.pending_request = "", b""
        self.session.save()


class Group(click.Group):
    """Commands whose errors are told, never shown as tracebacks."""

    def invoke(self, ctx: click.Context) -> object:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except (RxoutflowError, NumberInvalid) as error:
            desk = ctx.find_object(Desk)
            as_json = desk is not None and desk.selection.as_json
            described = json.dumps(_described(error), ensure_ascii=False)
            click.echo(described if as_json else _line(error), err=True)
            ctx.exit(_exit_status(error))


def _exit_status(error: Exception) -> int:
    if isinstance(error, Refused):
        return REFUSED
    return UNKNOWN if isinstance(error, Indefinite | AnswerUntrusted) else BAD_INPUT


def _line(error: RxoutflowError | NumberInvalid) -> str:
    word = {REFUSED: "refused", BAD_INPUT: "wrong input", UNKNOWN: "no certain answer"}
    line = f"{word[_exit_status(error)]}: {error}"
    advice = getattr(error, "advice", "")
    return " ".join((f"{line}. Next: {advice}" if advice else line).split())


def _described(error: RxoutflowError | NumberInvalid) -> dict[str, Plain]:
    status = _exit_status(error)
    described: dict[str, Plain] = {
        "error": {REFUSED: "refused", BAD_INPUT: "bad_input", UNKNOWN: "indefinite"}[status],
        "message": str(error),
        "advice": str(getattr(error, "advice", "")),
    }
    if isinstance(error, ServerError):
        described["reason"] = error.reason
        described["message"] = error.message
        described["metadata"] = dict(error.metadata)
    return described
