"""The kinds of statements: who signs them, in which order, for whom, and what must agree.

One table holds the rules; each stands where the contract declares the message, and its ground is:

- the order prescriber, reviewing pharmacist, hospital seal: Prescription Administration Measures
  (处方管理办法) art. 6 and 35, and the national prescription centre's interface, which wants the
  review before the seal;
- prescriber is not reviewer, reviewer is not dispenser, dispenser is not checker: the four-eyes
  rules of the same Measures (art. 29 to 37) and the national interface's fields;
- a fact is stated by the platform of the region that alone decides it: home the attempt and the
  prescription's status, dispensing the pricing and the acceptance of a clearing, payer quote,
  settlement, reversal, e-credential and clearing statement, a registrar which boxes it noted as
  sold;
- an adjudication takes two people of the home region's platform: it moves medicine and money
  without the pharmacy's word;
- audience: what one region decides on names that region, so that it cannot be replayed to another;
  what is evidence for all is addressed to ``*``.

This module knows rules, not trust: whether a signer may sign is judged in ``verification``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property
from operator import attrgetter
from typing import TypeAlias, cast

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from rxoutflow.identity import CallerKind, KeyPurpose
from rxoutflow.statements.wire import DEFAULT_BOUNDS, Bounds
from rxoutflow.v1.attempt_pb2 import (
    Adjudication,
    Attempt,
    Claim,
    ClaimRelease,
    Commitment,
    Correction,
)
from rxoutflow.v1.clearing_pb2 import ClearingAcceptance, ClearingStatement
from rxoutflow.v1.credential_pb2 import ECredential
from rxoutflow.v1.dispense_pb2 import DeliveryUpdate, DispenseRecord, DispenseReturn, TraceCodeSale
from rxoutflow.v1.prescription_pb2 import Prescription
from rxoutflow.v1.prescription_status_pb2 import PrescriptionStatus, Revocation
from rxoutflow.v1.settlement_pb2 import Pricing, Quote, Reversal, Settlement
from rxoutflow.v1.statement_pb2 import (
    SIGNER_ROLE_ADJUDICATOR,
    SIGNER_ROLE_CHECKER,
    SIGNER_ROLE_DISPENSER,
    SIGNER_ROLE_HOSPITAL_SEAL,
    SIGNER_ROLE_PHARMACY_SEAL,
    SIGNER_ROLE_PLATFORM,
    SIGNER_ROLE_PRESCRIBER,
    SIGNER_ROLE_REGISTRY,
    SIGNER_ROLE_REVIEWING_PHARMACIST,
    SignerRole,
)
from rxoutflow.v1.trust_pb2 import TrustList

ANYBODY = "*"
"""The audience of a statement that is evidence for everyone."""

Role: TypeAlias = SignerRole.ValueType
Roles: TypeAlias = tuple[tuple[Role, ...], ...]
"""The signatures that are needed, in order; each place lists the roles that may fill it."""


class Audience(Enum):
    """For whom a statement must be meant."""

    HOME = auto()
    """The home region: the first six digits of ``prescription_number``."""
    NAMED = auto()
    """One region that the content does not name."""
    ANYBODY = auto()
    """``*``."""


class Agreement(Enum):
    """What a field of the content must agree with."""

    INSTITUTION = auto()
    """It is the code of the signers' institution."""
    REGION = auto()
    """It is the code of the signers' region."""
    REGION_OF_NUMBER = auto()
    """It is a prescription number, which begins with the code of its home: the signers' region."""
    REGION_OF_INSTITUTION = auto()
    """It is the code of an institution of the signers' region."""
    PERSON = auto()
    """It is the code of the person who signed in the binding's role."""


@dataclass(frozen=True, slots=True)
class Binding:
    """A field of the content, by its dotted path, that must agree with the signers."""

    field: str
    agreement: Agreement
    role: Role | None = None


@dataclass(frozen=True)
class PayloadRule:
    """The rules of one kind of statement."""

    name: str
    message: type[Message]
    roles: Roles
    signer_kind: CallerKind
    audience: Audience
    bindings: tuple[Binding, ...]
    different_people: tuple[tuple[Role, Role], ...] = ()
    bounds: Bounds = DEFAULT_BOUNDS

    @cached_property
    def payload_type(self) -> str:
        """The media type that separates this kind from all others."""
        return f"application/vnd.rxoutflow.{self.name}.v1+protobuf"

    @property
    def descriptor(self) -> Descriptor:
        """The description of the message's fields."""
        return cast(Descriptor, self.message.DESCRIPTOR)  # one class under two names in the stubs


PURPOSES: dict[Role, KeyPurpose] = {
    SIGNER_ROLE_PRESCRIBER: KeyPurpose.PERSON,
    SIGNER_ROLE_REVIEWING_PHARMACIST: KeyPurpose.PERSON,
    SIGNER_ROLE_DISPENSER: KeyPurpose.PERSON,
    SIGNER_ROLE_CHECKER: KeyPurpose.PERSON,
    SIGNER_ROLE_HOSPITAL_SEAL: KeyPurpose.SEAL,
    SIGNER_ROLE_PHARMACY_SEAL: KeyPurpose.SEAL,
    SIGNER_ROLE_PLATFORM: KeyPurpose.SEAL,
    SIGNER_ROLE_REGISTRY: KeyPurpose.REGISTRY,
    SIGNER_ROLE_ADJUDICATOR: KeyPurpose.PERSON,
}
"""What the key of a signer in each role must be for."""

_PHARMACIST = (SIGNER_ROLE_REVIEWING_PHARMACIST, SIGNER_ROLE_DISPENSER)
_NUMBER_OF_OWN_REGION = Binding("prescription_number", Agreement.REGION_OF_NUMBER)
_OWN_PHARMACY = Binding("pharmacy_code", Agreement.INSTITUTION)

RULES: tuple[PayloadRule, ...] = (
    PayloadRule(
        "prescription",
        Prescription,
        (
            (SIGNER_ROLE_PRESCRIBER,),
            (SIGNER_ROLE_REVIEWING_PHARMACIST,),
            (SIGNER_ROLE_HOSPITAL_SEAL,),
        ),
        CallerKind.HOSPITAL,
        Audience.HOME,
        (
            _NUMBER_OF_OWN_REGION,
            Binding("issuer.institution_code", Agreement.INSTITUTION),
            Binding("issuer.prescriber.person_code", Agreement.PERSON, SIGNER_ROLE_PRESCRIBER),
            Binding(
                "issuer.reviewing_pharmacist.person_code",
                Agreement.PERSON,
                SIGNER_ROLE_REVIEWING_PHARMACIST,
            ),
        ),
        different_people=((SIGNER_ROLE_PRESCRIBER, SIGNER_ROLE_REVIEWING_PHARMACIST),),
    ),
    PayloadRule(
        "revocation",
        Revocation,
        ((SIGNER_ROLE_PRESCRIBER,), (SIGNER_ROLE_HOSPITAL_SEAL,)),
        CallerKind.HOSPITAL,
        Audience.HOME,
        (_NUMBER_OF_OWN_REGION, Binding("institution_code", Agreement.INSTITUTION)),
    ),
    PayloadRule(
        "claim",
        Claim,
        (_PHARMACIST, (SIGNER_ROLE_PHARMACY_SEAL,)),
        CallerKind.PHARMACY,
        Audience.HOME,
        (_OWN_PHARMACY,),
    ),
    PayloadRule(
        "claim-release",
        ClaimRelease,
        (_PHARMACIST, (SIGNER_ROLE_PHARMACY_SEAL,)),
        CallerKind.PHARMACY,
        Audience.HOME,
        (_OWN_PHARMACY,),
    ),
    PayloadRule(
        "correction",
        Correction,
        (_PHARMACIST, (SIGNER_ROLE_PHARMACY_SEAL,)),
        CallerKind.PHARMACY,
        Audience.HOME,
        (_OWN_PHARMACY,),
    ),
    PayloadRule(
        "commitment",
        Commitment,
        ((SIGNER_ROLE_REVIEWING_PHARMACIST,), (SIGNER_ROLE_PHARMACY_SEAL,)),
        CallerKind.PHARMACY,
        Audience.HOME,
        (_OWN_PHARMACY,),
    ),
    PayloadRule(
        "dispense-record",
        DispenseRecord,
        (
            (SIGNER_ROLE_REVIEWING_PHARMACIST,),
            (SIGNER_ROLE_DISPENSER,),
            (SIGNER_ROLE_CHECKER,),
            (SIGNER_ROLE_PHARMACY_SEAL,),
        ),
        CallerKind.PHARMACY,
        Audience.ANYBODY,
        (_OWN_PHARMACY,),
        different_people=(
            (SIGNER_ROLE_REVIEWING_PHARMACIST, SIGNER_ROLE_DISPENSER),
            (SIGNER_ROLE_DISPENSER, SIGNER_ROLE_CHECKER),
        ),
    ),
    PayloadRule(
        "delivery-update",
        DeliveryUpdate,
        (_PHARMACIST, (SIGNER_ROLE_PHARMACY_SEAL,)),
        CallerKind.PHARMACY,
        Audience.ANYBODY,
        (_OWN_PHARMACY,),
    ),
    PayloadRule(
        "dispense-return",
        DispenseReturn,
        (_PHARMACIST, (SIGNER_ROLE_PHARMACY_SEAL,)),
        CallerKind.PHARMACY,
        Audience.ANYBODY,
        (_OWN_PHARMACY,),
    ),
    PayloadRule(
        "adjudication",
        Adjudication,
        ((SIGNER_ROLE_ADJUDICATOR,), (SIGNER_ROLE_ADJUDICATOR,)),
        CallerKind.PLATFORM,
        Audience.ANYBODY,
        (_NUMBER_OF_OWN_REGION,),
        different_people=((SIGNER_ROLE_ADJUDICATOR, SIGNER_ROLE_ADJUDICATOR),),
    ),
    PayloadRule(
        "attempt",
        Attempt,
        ((SIGNER_ROLE_PLATFORM,),),
        CallerKind.PLATFORM,
        Audience.ANYBODY,
        (_NUMBER_OF_OWN_REGION,),
    ),
    PayloadRule(
        "prescription-status",
        PrescriptionStatus,
        ((SIGNER_ROLE_PLATFORM,),),
        CallerKind.PLATFORM,
        Audience.ANYBODY,
        (_NUMBER_OF_OWN_REGION,),
    ),
    PayloadRule(
        "pricing",
        Pricing,
        ((SIGNER_ROLE_PLATFORM,),),
        CallerKind.PLATFORM,
        Audience.NAMED,
        (Binding("pharmacy_code", Agreement.REGION_OF_INSTITUTION),),
    ),
    PayloadRule(
        "quote",
        Quote,
        ((SIGNER_ROLE_PLATFORM,),),
        CallerKind.PLATFORM,
        Audience.NAMED,
        (Binding("payer_region_code", Agreement.REGION),),
    ),
    PayloadRule(
        "settlement",
        Settlement,
        ((SIGNER_ROLE_PLATFORM,),),
        CallerKind.PLATFORM,
        Audience.ANYBODY,
        (Binding("payer_region_code", Agreement.REGION),),
    ),
    PayloadRule(
        "reversal",
        Reversal,
        ((SIGNER_ROLE_PLATFORM,),),
        CallerKind.PLATFORM,
        Audience.ANYBODY,
        (Binding("payer_region_code", Agreement.REGION),),
    ),
    PayloadRule(
        "e-credential",
        ECredential,
        ((SIGNER_ROLE_PLATFORM,),),
        CallerKind.PLATFORM,
        Audience.ANYBODY,
        (Binding("payer_region_code", Agreement.REGION),),
    ),
    PayloadRule(
        "trace-code-sale",
        TraceCodeSale,
        ((SIGNER_ROLE_PLATFORM,),),
        CallerKind.PLATFORM,
        Audience.ANYBODY,
        (Binding("registrar_region_code", Agreement.REGION),),
    ),
    PayloadRule(
        "clearing-statement",
        ClearingStatement,
        ((SIGNER_ROLE_PLATFORM,),),
        CallerKind.PLATFORM,
        Audience.ANYBODY,
        (Binding("payer_region_code", Agreement.REGION),),
    ),
    PayloadRule(
        "clearing-acceptance",
        ClearingAcceptance,
        ((SIGNER_ROLE_PLATFORM,),),
        CallerKind.PLATFORM,
        Audience.ANYBODY,
        (Binding("dispensing_region_code", Agreement.REGION),),
    ),
    PayloadRule(
        "trust-list",
        TrustList,
        ((SIGNER_ROLE_REGISTRY,),),
        CallerKind.PLATFORM,
        Audience.ANYBODY,
        (Binding("region_code", Agreement.REGION),),
        bounds=Bounds(max_bytes=64 << 20, max_elements=8_000_000),
    ),
)

_BY_MESSAGE = {rule.message: rule for rule in RULES}


def rule_for(message: type[Message]) -> PayloadRule:
    """Return the rules of a kind of statement.

    Raises:
        TypeError: if messages of this type are never signed.
    """
    try:
        return _BY_MESSAGE[message]
    except KeyError:
        raise TypeError(f"{message.__name__} is not a statement") from None


def role_name(role: Role) -> str:
    """Name of a role as messages show it, for instance ``HOSPITAL_SEAL``."""
    return SignerRole.Name(role).removeprefix("SIGNER_ROLE_")


def home_region(content: Message) -> str:
    """The home region of a content with a prescription number: its first six digits."""
    return str(attrgetter("prescription_number")(content))[:6]
