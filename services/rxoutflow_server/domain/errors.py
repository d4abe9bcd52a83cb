"""Refusals: what the rules of the exchange can say no to.

A refusal is *definite*: the command had no effect and repeating it unchanged gives the same answer
until something else changes. Its reason is a name of the contract's ``ErrorReason`` enum, without
the prefix; ``transport/errors.py`` is the only place that turns it into a status code.

A message says what to do next. It never contains personal data: name lines, rules, institutions and
amounts, but not patients.
"""

from __future__ import annotations

from enum import StrEnum, auto, unique


@unique
class Reason(StrEnum):
    """Why something was refused. A test holds this list and the contract's enum together."""

    @staticmethod
    def _generate_next_value_(name: str, start: int, count: int, last_values: list[str]) -> str:
        return name

    # who is calling
    CALLER_IDENTITY_INVALID = auto()
    CALLER_CERTIFICATE_UNTRUSTED = auto()
    CALLER_CERTIFICATE_EXPIRED = auto()
    CALLER_CERTIFICATE_REVOKED = auto()
    CALLER_KIND_NOT_ALLOWED = auto()
    CALLER_REGION_NOT_ALLOWED = auto()
    INSTITUTION_NOT_ACTIVE = auto()
    INSTITUTION_OUT_OF_SCOPE = auto()

    # what was sent
    FIELD_INVALID = auto()
    REQUEST_ID_REUSED = auto()
    STATEMENT_MALFORMED = auto()
    STATEMENT_TYPE_UNEXPECTED = auto()
    SIGNATURE_MISSING = auto()
    SIGNATURE_INVALID = auto()
    SIGNER_UNTRUSTED = auto()
    SIGNERS_NOT_DISTINCT = auto()
    SIGNED_CONTENT_MISMATCH = auto()

    # the prescription
    PRESCRIPTION_NOT_FOUND = auto()
    PRESCRIPTION_NUMBER_INVALID = auto()
    PRESCRIPTION_ALREADY_REGISTERED = auto()
    PRESCRIPTION_RULE_VIOLATED = auto()
    PRESCRIPTION_EXPIRED = auto()
    PRESCRIPTION_REVOKED = auto()
    PRESCRIPTION_HELD = auto()
    PRESCRIPTION_USED_UP = auto()
    PICKUP_CODE_INVALID = auto()
    E_CREDENTIAL_NOT_ACCEPTED = auto()
    PICKUP_CODE_LOCKED = auto()
    FILL_TOO_EARLY = auto()
    DOSES_INCOMPLETE = auto()

    # the attempt
    ATTEMPT_NOT_FOUND = auto()
    ATTEMPT_ENDED = auto()
    ATTEMPT_NOT_COMMITTED = auto()
    ATTEMPT_ALREADY_COMMITTED = auto()
    FENCE_STALE = auto()
    LINE_UNKNOWN = auto()
    QUANTITY_EXCEEDED = auto()
    DISPENSE_MISMATCH = auto()
    TRACE_CODE_MISSING = auto()
    TRACE_CODE_ALREADY_SOLD = auto()
    ATTEMPT_NOT_OVERDUE = auto()
    DELIVERY_NOT_POSSIBLE = auto()

    # the money
    DRUG_NOT_IN_CATALOGUE = auto()
    PRICE_ABOVE_CATALOGUE = auto()
    PERSON_NOT_INSURED = auto()
    DIRECT_SETTLEMENT_SUSPENDED = auto()
    TARIFF_NOT_IN_FORCE = auto()
    QUOTE_CHANGED = auto()
    SETTLEMENT_NOT_FOUND = auto()
    SETTLEMENT_ENDED = auto()
    RETURN_EXCEEDED = auto()

    # the exchange itself
    REGION_UNKNOWN = auto()
    OUTCOME_NOT_FOUND = auto()
    PEER_UNAVAILABLE = auto()
    STORE_UNAVAILABLE = auto()
    SIGNER_UNAVAILABLE = auto()
    OVERLOADED = auto()
    INTERNAL = auto()
    REQUEST_CORRECTED = auto()
    EARLIER_FACT_MISSING = auto()
    EVENT_NOT_FOUND = auto()


class Refusal(Exception):
    """A definite no.

    ``detail`` becomes the ErrorInfo metadata: short machine-readable facts a client can branch on,
    for instance ``holder_name`` for PRESCRIPTION_HELD or ``field`` for FIELD_INVALID.
    """

    def __init__(self, reason: Reason, message: str, **detail: str) -> None:
        """Keep the reason, the message for people and the detail for programs."""
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.detail = detail


class InvariantBroken(Exception):
    """A rule of the exchange that code must never break was about to be broken: a defect here.

    The transaction that raised it is rolled back and the caller sees INTERNAL.
    """


class Unavailable(Exception):
    """An *indefinite* failure: whoever decides could not answer, so it may have happened.

    Ask for the outcome, or repeat the command with the same request id. The reason is
    PEER_UNAVAILABLE (detail ``region``) or STORE_UNAVAILABLE.
    """

    def __init__(self, reason: Reason, message: str, **detail: str) -> None:
        """Keep the reason, the message for people and the detail for programs."""
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.detail = detail
