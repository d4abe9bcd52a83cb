"""What the clients of hospitals, pharmacies, supervision and operators have in common.

A client belongs to one profile and one server. It signs with the people of the profile, whose keys
are read when they are first needed unless a signer is passed for them, and makes the ids of
requests. The seal is not here: the institution's edge service adds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Self

from google.protobuf.message import Message

from rxoutflow.client.channel import PATIENT, REAL, Connection, Patience, Surroundings
from rxoutflow.client.evidence import EvidenceReader
from rxoutflow.client.receipts import ReceiptBook
from rxoutflow.errors import InvalidInput
from rxoutflow.identity import CallerKind
from rxoutflow.numbers import new_id
from rxoutflow.passwords import PasswordUnusable
from rxoutflow.profile import Profile
from rxoutflow.statements import (
    FileSigner,
    Signer,
    SignerUnusable,
    add_signature,
    new_statement,
)
from rxoutflow.statements.payloads import Role
from rxoutflow.v1.statement_pb2 import (
    SIGNER_ROLE_ADJUDICATOR,
    SIGNER_ROLE_CHECKER,
    SIGNER_ROLE_DISPENSER,
    SIGNER_ROLE_PRESCRIBER,
    SIGNER_ROLE_REVIEWING_PHARMACIST,
    SignedStatement,
)

ROLES: dict[str, Role] = {
    "prescriber": SIGNER_ROLE_PRESCRIBER,
    "reviewing_pharmacist": SIGNER_ROLE_REVIEWING_PHARMACIST,
    "dispenser": SIGNER_ROLE_DISPENSER,
    "checker": SIGNER_ROLE_CHECKER,
    "first_adjudicator": SIGNER_ROLE_ADJUDICATOR,
    "second_adjudicator": SIGNER_ROLE_ADJUDICATOR,
}
"""The people of a profile, and the roles in which they sign."""


class Client:
    """Base of the clients. Close it, or use it as a context.

    Args:
        profile: who acts, where, and whom to trust.
        surroundings: clock, randomness and sleep.
        patience: how long to try.
        signers: how people sign whose keys are in no file of the profile, by their names in it.
        receipts: the folder in which receipts of the region's log are kept; none if ``None``.

    Raises:
        InvalidInput: the profile is of another kind, or a file that it names cannot be used.
    """

    kind: ClassVar[CallerKind]

    def __init__(
        self,
        profile: Profile,
        surroundings: Surroundings = REAL,
        patience: Patience = PATIENT,
        signers: Mapping[str, Signer] | None = None,
        receipts: Path | None = None,
    ) -> None:
        profile.expect_kind(self.kind)
        self.profile = profile
        self.surroundings = surroundings
        self.evidence = EvidenceReader(profile, surroundings.now)
        self.receipts = ReceiptBook(self.evidence, receipts)
        self.connection = Connection(profile, surroundings, patience)
        self._signers: dict[str, Signer] = dict(signers or {})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the calls that run and let go of the connection."""
        self.connection.close()

    def new_id(self) -> str:
        """A fresh UUIDv7, for a request or a settlement."""
        return new_id(self.surroundings.now(), self.surroundings.random_bytes)

    def sign(self, content: Message, *people: str) -> SignedStatement:
        """Put these people's signatures on the content, in this order.

        Raises:
            InvalidInput: the profile has no such person, or the key cannot be used.
            SignerUnavailable: a token or signature service does not sign at the moment.
        """
        now = self.surroundings.now()
        first, *others = people
        statement = new_statement(content, self._signer(first), ROLES[first], now)
        for person in others:
            statement = self.countersign(statement, person)
        return statement

    def countersign(self, statement: SignedStatement, person: str) -> SignedStatement:
        """Put this person's signature on a statement too. Verify and read it before.

        Raises:
            InvalidInput: the profile has no such person, or the key cannot be used.
            SignerUnavailable: a token or signature service does not sign at the moment.
        """
        now = self.surroundings.now()
        return add_signature(statement, self._signer(person), ROLES[person], now)

    def _signer(self, person: str) -> Signer:
        if person not in self._signers:
            self._signers[person] = self._load_signer(person)
        return self._signers[person]

    def _load_signer(self, person: str) -> Signer:
        path = self.profile.path
        if person not in self.profile.people:
            raise InvalidInput(f"{path}: people.{person}: is missing")
        signer = self.profile.people[person]
        if signer.key is None:
            raise InvalidInput(
                f"{path}: people.{person}.key: is missing; name the key's file, or pass a signer"
            )
        try:
            return FileSigner.load(signer.certificate, signer.key, signer.key_password.read())
        except (PasswordUnusable, SignerUnusable) as error:
            raise InvalidInput(f"{path}: people.{person}: {error}") from error
