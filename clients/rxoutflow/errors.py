"""What can go wrong, as exceptions that a program can branch on.

    RxoutflowError
    ├── InvalidInput              a file, field or code given to this library is wrong; nothing sent
    ├── Refused                   definite: nothing happened; same question, same answer
    │   ├── NotFound              no such thing, or not yours
    │   ├── ProofRefused          the right to collect is not proven now
    │   ├── CallerRefused         this certificate, kind, region or institution may not call
    │   ├── FieldInvalid          .field names it
    │   ├── SignatureRefused      missing, invalid, untrusted or contradicting signatures
    │   ├── RuleViolated          .rules names the rules of prescribing
    │   ├── PrescriptionClosed    expired, revoked or used up
    │   ├── PrescriptionHeld      .holder_name and .holder_phone say by whom
    │   ├── FillTooEarly          .open_day says when the next fill of a repeat prescription opens
    │   ├── StepRefused           the attempt or settlement does not allow this step now
    │   ├── QuoteChanged          .total_fen .pool_fen .person_fen are the new amounts
    │   ├── InsuranceUnavailable  the payer will not pay; the patient may still pay alone
    │   └── Overloaded            .retry_after says how long to wait
    ├── Indefinite                it may have happened: repeat with the same request_id
    │   └── Unavailable           not reached at all, or not now
    └── AnswerUntrusted           the answer's signature or content does not fit; do not act

Every ``Refused`` and ``Indefinite`` has ``reason``, a name of the contract's ``ErrorReason``
without its prefix, ``message`` from the server and ``metadata``. ``advice`` says what to do next.
There is no grpc here: :mod:`rxoutflow.client.failures` turns what the wire says into these.
"""

from __future__ import annotations

from collections.abc import Mapping

from rxoutflow.v1.error_reason_pb2 import ErrorReason

DOMAIN = "rxoutflow.v1"
"""The domain of every ErrorInfo of the contract."""

PREFIX = "ERROR_REASON_"
"""What ErrorInfo.reason leaves out of the enum's names."""


class RxoutflowError(Exception):
    """Base of everything that this library raises on purpose."""

    advice: str = ""


class InvalidInput(RxoutflowError, ValueError):
    """A file, field or code given to this library is wrong. The message says where and what."""


class AnswerUntrusted(RxoutflowError):
    """A server's signed answer does not verify, or speaks of something else than was asked."""

    advice = "do not act on the answer; check the trust folder, then call the region's operator"


class ServerError(RxoutflowError):
    """An error of the contract's catalogue, or of the way to the server."""

    def __init__(
        self, reason: str, message: str, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Keep the catalogue's name of the reason, the words, and what programs branch on."""
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
        self.metadata = dict(metadata or {})


class Refused(ServerError):
    """Definite: the request had no effect."""


class NotFound(Refused):
    """There is no such thing, or the caller is not a party to it."""

    advice = "check the number or code, and that this actor is a party to it"


class ProofRefused(Refused):
    """The right to collect is not proven now: e-credential not good, or pickup code locked."""

    advice = "ask the patient for a fresh e-credential code, or for the other proof"


class CallerRefused(Refused):
    """This certificate, kind of caller, region or institution may not call this."""

    advice = "check the profile's certificate and endpoint, and the region's trust list"


class FieldInvalid(Refused):
    """A field is missing or out of range, or a number is mistyped."""

    advice = "correct the field and send a new request"

    @property
    def field(self) -> str:
        """Path of the field in the request."""
        return self.metadata.get("field", "")


class SignatureRefused(Refused):
    """The signatures are not those that the statement needs."""

    advice = "sign anew with the people and seal that the trust list names for these roles"


class RuleViolated(Refused):
    """The rules of prescribing forbid it."""

    advice = "pre-check lists every finding at once; correct the prescription and issue it anew"

    @property
    def rules(self) -> tuple[str, ...]:
        """Ids of the rules, such as ``R3``."""
        named = self.metadata.get("rules") or self.metadata.get("rule", "")
        return tuple(named.replace(",", " ").split())


class PrescriptionClosed(Refused):
    """It expired, was revoked, or nothing is left to dispense."""

    advice = "hand nothing over; the patient needs a new prescription"


class PrescriptionHeld(Refused):
    """Another pharmacy holds it."""

    def __init__(
        self, reason: str, message: str, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Say whom to ask."""
        super().__init__(reason, message, metadata)
        self.advice = f"ask {self.holder_name or 'the holder'} {self.holder_phone}".rstrip()

    @property
    def holder_code(self) -> str:
        """Code of the pharmacy that holds it."""
        return self.metadata.get("holder_code", "")

    @property
    def holder_name(self) -> str:
        """Its name, to tell the patient."""
        return self.metadata.get("holder_name", "")

    @property
    def holder_phone(self) -> str:
        """Its telephone."""
        return self.metadata.get("holder_phone", "")


class FillTooEarly(Refused):
    """Of a repeat prescription no more is open yet."""

    def __init__(
        self, reason: str, message: str, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Say when to come again."""
        super().__init__(reason, message, metadata)
        when = f"on {self.open_day}" if self.open_day else "once the present fill was collected"
        self.advice = f"hand nothing over; the patient may come again {when}, or claim less"

    @property
    def open_day(self) -> str:
        """The local day on which the next fill opens (ISO 8601); empty if nobody knows yet."""
        return self.metadata.get("open_day", "")


class StepRefused(Refused):
    """The attempt, its quantities, goods or settlement do not allow this step now."""

    advice = "look at the state with `progress`, then take the step that it allows"


class QuoteChanged(Refused):
    """The payer arrives at other amounts than were accepted; nothing was held."""

    advice = "quote again, ask the patient, and commit with the new amounts"

    @property
    def total_fen(self) -> int:
        """The new total, in fen."""
        return int(self.metadata.get("total_fen", 0))

    @property
    def pool_fen(self) -> int:
        """What the pooled fund would pay now, in fen."""
        return int(self.metadata.get("pool_fen", 0))

    @property
    def person_fen(self) -> int:
        """What the person would pay now, in fen."""
        return int(self.metadata.get("person_fen", 0))


class InsuranceUnavailable(Refused):
    """The payer region does not pay for this person, on this day."""

    advice = "the patient may pay alone: commit as self-pay"


class Overloaded(Refused):
    """Too much at once."""

    advice = "wait, then send the same request again"

    def __init__(
        self,
        reason: str,
        message: str,
        metadata: Mapping[str, str] | None = None,
        retry_after: float | None = None,
    ) -> None:
        """Keep how many seconds the server asks to wait, where it says so."""
        super().__init__(reason, message, metadata)
        self.retry_after = retry_after


class Indefinite(ServerError):
    """It may have happened. Only the same request, with the same request_id, is safe to repeat."""

    advice = "it may have happened: repeat the same command, which sends the same request again"


class Unavailable(Indefinite):
    """The server, or the region that has to decide, was not reached."""

    advice = "wait a little and repeat the same command, which sends the same request again"


INDEFINITE: Mapping[str, type[Indefinite]] = {
    "PEER_UNAVAILABLE": Unavailable,
    "STORE_UNAVAILABLE": Unavailable,
    "SIGNER_UNAVAILABLE": Unavailable,
    "INTERNAL": Indefinite,
}
"""The catalogue's indefinite reasons. Every other reason is definite."""

_NAMES: Mapping[type[Refused], str] = {
    NotFound: """PRESCRIPTION_NOT_FOUND PICKUP_CODE_INVALID ATTEMPT_NOT_FOUND
        SETTLEMENT_NOT_FOUND OUTCOME_NOT_FOUND EVENT_NOT_FOUND""",
    ProofRefused: "PICKUP_CODE_LOCKED E_CREDENTIAL_NOT_ACCEPTED",
    CallerRefused: """CALLER_IDENTITY_INVALID CALLER_CERTIFICATE_UNTRUSTED
        CALLER_CERTIFICATE_EXPIRED CALLER_CERTIFICATE_REVOKED CALLER_KIND_NOT_ALLOWED
        CALLER_REGION_NOT_ALLOWED INSTITUTION_NOT_ACTIVE""",
    FieldInvalid: "FIELD_INVALID PRESCRIPTION_NUMBER_INVALID LINE_UNKNOWN",
    SignatureRefused: """STATEMENT_MALFORMED STATEMENT_TYPE_UNEXPECTED SIGNATURE_MISSING
        SIGNATURE_INVALID SIGNER_UNTRUSTED SIGNERS_NOT_DISTINCT SIGNED_CONTENT_MISMATCH""",
    RuleViolated: "PRESCRIPTION_RULE_VIOLATED",
    PrescriptionClosed: "PRESCRIPTION_EXPIRED PRESCRIPTION_REVOKED PRESCRIPTION_USED_UP",
    PrescriptionHeld: "PRESCRIPTION_HELD",
    FillTooEarly: "FILL_TOO_EARLY",
    StepRefused: """ATTEMPT_ENDED ATTEMPT_NOT_COMMITTED ATTEMPT_ALREADY_COMMITTED FENCE_STALE
        QUANTITY_EXCEEDED DISPENSE_MISMATCH TRACE_CODE_MISSING TRACE_CODE_ALREADY_SOLD
        DRUG_NOT_IN_CATALOGUE PRICE_ABOVE_CATALOGUE SETTLEMENT_ENDED RETURN_EXCEEDED
        DOSES_INCOMPLETE ATTEMPT_NOT_OVERDUE DELIVERY_NOT_POSSIBLE REQUEST_CORRECTED
        EARLIER_FACT_MISSING""",
    QuoteChanged: "QUOTE_CHANGED",
    InsuranceUnavailable: """PERSON_NOT_INSURED DIRECT_SETTLEMENT_SUSPENDED
        TARIFF_NOT_IN_FORCE""",
    Overloaded: "OVERLOADED",
}
_REFUSALS: Mapping[str, type[Refused]] = {
    name: refusal for refusal, names in _NAMES.items() for name in names.split()
}


def from_reason(
    reason: str, message: str, metadata: Mapping[str, str]
) -> Refused | Indefinite | None:
    """The exception for a reason of the catalogue; None if this version does not know it."""
    if PREFIX + reason not in ErrorReason.keys():  # noqa: SIM118 - an enum wrapper is no mapping
        return None
    kind: type[Refused | Indefinite] = INDEFINITE.get(reason) or _REFUSALS.get(reason, Refused)
    return kind(reason, message, metadata)
