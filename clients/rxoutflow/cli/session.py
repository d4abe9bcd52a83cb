"""What a terminal remembers between commands: the current claim, and a request without an answer.

Kept in ``<profile>.session.json`` beside the profile, readable by its owner only. A request is kept
before it is sent and dropped when a definite answer came, so that the same command, given again
after a lost answer, sends the very same request. Until then a kept claim request holds the pickup
code, and until the claim a presented e-credential names the insured; nothing personal is kept
besides.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from dataclasses import dataclass, field, fields
from pathlib import Path

from google.protobuf.message import DecodeError, Message

from rxoutflow.errors import InvalidInput
from rxoutflow.json_files import read_object
from rxoutflow.v1.attempt_pb2 import Attempt, Commitment
from rxoutflow.v1.prescription_pb2 import Prescription
from rxoutflow.v1.settlement_pb2 import Amounts
from rxoutflow.v1.statement_pb2 import SignedStatement


@dataclass
class Session:
    """The memory of one profile at one terminal.

    ``goods`` is the claimed prescription without anything personal: type, and the lines' drugs.
    ``commitment`` holds the lines as priced, and after the commit also the settlement id. ``token``
    is the e-credential that was presented last; it opens nothing after some minutes.
    """

    path: Path
    attempt: Attempt = field(default_factory=Attempt)
    goods: Prescription = field(default_factory=Prescription)
    commitment: Commitment = field(default_factory=Commitment)
    accepted: Amounts = field(default_factory=Amounts)
    token: SignedStatement = field(default_factory=SignedStatement)
    pending_step: str = ""
    pending_request: bytes = b""

    @classmethod
    def load(cls, profile: Path) -> Session:
        """The session beside this profile; an empty one if there is none.

        Raises:
            InvalidInput: the file is not a session.
        """
        session = cls(profile.with_suffix(".session.json"))
        if session.path.exists():
            session._read(read_object(session.path))
        return session

    def save(self) -> None:
        """Store it, whole or not at all."""
        values = {each.name: _text(getattr(self, each.name)) for each in fields(self)[1:]}
        fresh = self.path.with_suffix(f".{os.getpid()}.tmp")
        fresh.touch(mode=0o600)
        fresh.write_text(json.dumps(values, indent=2), encoding="utf-8")
        fresh.replace(self.path)

    def forget_claim(self) -> None:
        """Drop the current claim, once it is over."""
        for part in (self.attempt, self.goods, self.commitment, self.accepted, self.token):
            part.Clear()

    def current(self) -> Attempt:
        """The current claim.

        Raises:
            InvalidInput: there is none.
        """
        if not self.attempt.attempt_id:
            raise InvalidInput("there is no current claim here: begin with `rxoutflow claim CODE`")
        return self.attempt

    def _read(self, values: dict[str, object]) -> None:
        for each in fields(self)[1:]:
            value = values.get(each.name)
            if not isinstance(value, str):
                raise self._damaged()
            self._set(each.name, value)

    def _set(self, name: str, value: str) -> None:
        part = getattr(self, name)
        try:
            if isinstance(part, Message):
                part.ParseFromString(base64.b64decode(value, validate=True))
            elif isinstance(part, bytes):
                setattr(self, name, base64.b64decode(value, validate=True))
            else:
                setattr(self, name, value)
        except (binascii.Error, ValueError, DecodeError) as error:
            raise self._damaged() from error

    def _damaged(self) -> InvalidInput:
        return InvalidInput(f"{self.path}: not a session of this version: remove the file")


def _text(part: object) -> str:
    if isinstance(part, Message):
        part = part.SerializeToString()
    return base64.b64encode(part).decode() if isinstance(part, bytes) else str(part)
