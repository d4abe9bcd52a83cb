"""What commands need from the outside: records, evidence, seals, clocks and other regions.

The records are grouped by the role that writes them. A transaction offers all groups and commits
them together; each method that loads an object for change locks it. Adapters live in ``storage/``,
``transport/`` and the composition roots.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Protocol, TypeVar

from google.protobuf.message import Message

from rxoutflow.v1.clearing_service_pb2 import (
    ClearingServiceReconcileDayRequest,
    ClearingServiceReconcileDayResponse,
    ProposeClearingRequest,
    ProposeClearingResponse,
)
from rxoutflow.v1.home_service_pb2 import (
    CommitAttemptRequest,
    CommitAttemptResponse,
    GetAttemptRequest,
    GetAttemptResponse,
    GrantClaimRequest,
    GrantClaimResponse,
    OpenPrescriptionRequest,
    OpenPrescriptionResponse,
    ReleaseAttemptRequest,
    ReleaseAttemptResponse,
)
from rxoutflow.v1.payer_service_pb2 import (
    HoldBenefitRequest,
    HoldBenefitResponse,
    IssueECredentialRequest,
    IssueECredentialResponse,
    QuoteBenefitRequest,
    QuoteBenefitResponse,
)
from rxoutflow.v1.peer_service_pb2 import DeliverEventsRequest, DeliverEventsResponse
from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow_server.domain.attempt import Attempt
from rxoutflow_server.domain.clearing import Period
from rxoutflow_server.domain.dispense import Dispense
from rxoutflow_server.domain.ledger import Book, Entry, EntryKey
from rxoutflow_server.domain.prescription import Change, Prescription
from rxoutflow_server.domain.settlement import InsuredPerson, Settlement

T = TypeVar("T")


class RegionRole(StrEnum):
    """The role in which a region took part in a step."""

    HOME = "home"
    DISPENSING = "dispensing"
    PAYER = "payer"


class Flow(StrEnum):
    """What supervision distinguishes: 信息流, 资金流, 物流."""

    INFORMATION = "information"
    MONEY = "money"
    GOODS = "goods"


@dataclass(frozen=True, slots=True)
class StoredOutcome:
    """The first answer to a mutating request, kept as long as the prescription."""

    method: str
    request_sha256: bytes
    response_type: str
    response: bytes
    effect_time: datetime


@dataclass(frozen=True, slots=True)
class TraceStep:
    """One step in the life of a prescription as this region saw it."""

    time: datetime
    role: RegionRole
    flow: Flow
    action: str
    actor_code: str
    statement_sha256: bytes


@dataclass(frozen=True, slots=True)
class NoticeRecord:
    """A notice for an institution. ``kind`` is a name of the contract's Notice.Kind."""

    institution_code: str
    kind: str
    prescription_number: str
    other_institution_code: str
    statement_sha256: bytes
    summary: str
    time: datetime
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class OutgoingEvent:
    """A fact on its way to another region, written with the fact itself."""

    event_id: str
    peer_region_code: str
    prescription_number: str
    insured_person_id: str
    statement_sha256: bytes
    create_time: datetime
    tries: int = 0


@dataclass(frozen=True, slots=True)
class ClaimCopy:
    """What the dispensing region keeps of a claim of one of its pharmacies."""

    prescription_number: str
    attempt_id: str
    pharmacy_code: str
    prescription_sha256: bytes
    attempt_sha256: bytes
    update_time: datetime


@dataclass(frozen=True, slots=True)
class PickupTries:
    """Wrong pickup codes tried on a prescription, and until when no code is taken."""

    prescription_number: str
    wrong: int
    locked_until: datetime | None


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """A reference to a prescription of an insured person, wherever it was issued."""

    insured_person_id: str
    prescription_number: str
    version: int
    status_sha256: bytes


@dataclass(frozen=True, slots=True)
class Clearing:
    """A clearing statement, and the acceptance of it if there is one.

    ``role`` is that of this region: payer of what it stated itself, dispensing of what it accepted.
    """

    role: RegionRole
    peer_region_code: str
    period: Period
    revision: int
    statement: SignedStatement
    acceptance: SignedStatement | None
    time: datetime


class Journal(Protocol):
    """Evidence and messages: what every role writes."""

    def keep_statement(
        self, number: str, sha256: bytes, statement: SignedStatement, time: datetime
    ) -> None:
        """Keep a statement byte for byte. Keeping it again changes nothing."""

    def statement(self, number: str, sha256: bytes) -> SignedStatement:
        """A statement that was kept."""

    def outcome(self, number: str, caller: str, request_id: str) -> StoredOutcome | None:
        """The stored outcome of a request."""

    def keep_outcome(
        self, number: str, caller: str, request_id: str, outcome: StoredOutcome
    ) -> None:
        """Store the outcome of a request, once."""

    def add_step(self, number: str, step: TraceStep) -> None:
        """Append a step to the life of a prescription."""

    def steps(self, number: str) -> Sequence[TraceStep]:
        """The life of a prescription in the order in which it was stored."""

    def add_notice(self, notice: NoticeRecord) -> None:
        """Append a notice for an institution; the store numbers it."""

    def notices(self, institution_code: str, after: int, limit: int) -> Sequence[NoticeRecord]:
        """Notices for an institution after a sequence number, oldest first."""

    def add_event(self, event: OutgoingEvent) -> None:
        """Put a fact into the outbox."""

    def due_events(self, peer: str, now: datetime, limit: int) -> Sequence[OutgoingEvent]:
        """Events for a peer that are to be sent now, oldest first."""

    def peers_with_due_events(self, now: datetime) -> Sequence[str]:
        """Regions for which something is to be sent now."""

    def event_acknowledged(self, event: OutgoingEvent) -> None:
        """Take an event out of the outbox."""

    def event_refused(self, event: OutgoingEvent, reason: str) -> None:
        """Set an event aside for an operator, with the reason."""

    def event_delayed(self, event: OutgoingEvent, until: datetime) -> None:
        """Send the event again later."""

    def receive_event(self, number: str, origin: str, event_id: str, time: datetime) -> bool:
        """Note an event of another region; false if it was noted before."""


class HomeRecords(Protocol):
    """What the home region alone writes."""

    def prescription(self, number: str) -> Prescription | None:
        """A prescription with its live attempt, locked for change."""

    def attempt(self, number: str, attempt_id: str) -> Attempt | None:
        """Any attempt of a prescription."""

    def add_prescription(self, prescription: Prescription) -> bool:
        """Store a new prescription; false if its number or the hospital's own number is taken."""

    def save(self, change: Change) -> None:
        """Store the outcome of a transition."""

    def prescriptions_of(self, issuer_code: str, before: str, limit: int) -> Sequence[Prescription]:
        """A hospital's prescriptions with numbers below ``before`` (empty: all), newest first."""

    def pickup_tries(self, number: str) -> PickupTries | None:
        """Wrong pickup codes tried on a prescription, if any."""

    def save_pickup_tries(self, tries: PickupTries) -> None:
        """Store the count of wrong pickup codes."""

    def overdue_leases(self, now: datetime, limit: int) -> Sequence[str]:
        """Numbers of prescriptions whose reserved attempt has run out."""


class PayerRecords(Protocol):
    """What the payer region alone writes."""

    def person(self, insured_person_id: str) -> InsuredPerson | None:
        """An insured person, locked for change."""

    def add_person(self, person: InsuredPerson) -> bool:
        """Store a person; false if the person is there already."""

    def save_person(self, person: InsuredPerson) -> None:
        """Store the person's standing, accounts and accumulators."""

    def settlement(self, insured_person_id: str, settlement_id: str) -> Settlement | None:
        """A settlement of a person."""

    def settlements_of_attempt(
        self, insured_person_id: str, attempt_id: str
    ) -> Sequence[Settlement]:
        """All settlements that were begun for an attempt."""

    def add_settlement(self, settlement: Settlement) -> None:
        """Store a new settlement."""

    def save_settlement(self, settlement: Settlement) -> None:
        """Store a settlement's new state."""

    def attempt_end(self, insured_person_id: str, attempt_id: str) -> str | None:
        """The final state of an attempt that the home region has reported, if any."""

    def note_attempt_end(self, insured_person_id: str, attempt_id: str, state: str) -> None:
        """Remember that an attempt has ended, so that no hold can be placed for it any more."""

    def use_credential_code(
        self, insured_person_id: str, code_sha256: bytes, pharmacy_code: str
    ) -> bool:
        """Bind a code to the pharmacy that used it first; false if another one did."""

    def index(self, entry: IndexEntry) -> None:
        """Keep the newest reference to a prescription of an insured person."""

    def indexed(self, insured_person_id: str) -> Sequence[IndexEntry]:
        """References to a person's prescriptions."""


class DispensingRecords(Protocol):
    """What the dispensing region alone writes."""

    def claim(self, number: str, attempt_id: str) -> ClaimCopy | None:
        """The copy of a claim."""

    def save_claim(self, claim: ClaimCopy) -> None:
        """Store or renew the copy of a claim."""

    def dispense(self, number: str, settlement_id: str) -> Dispense | None:
        """A dispense, locked for change."""

    def dispense_of_attempt(self, number: str, attempt_id: str) -> Dispense | None:
        """The dispense of an attempt that stands, or the newest refused one; locked for change."""

    def add_dispense(self, dispense: Dispense) -> None:
        """Store a new dispense."""

    def save_dispense(self, dispense: Dispense) -> None:
        """Store a dispense's new step."""

    def undecided(self, limit: int) -> Sequence[Dispense]:
        """Dispenses whose hold or commit is still to be asked for, longest untouched first."""

    def dispenses_of(self, pharmacy_code: str, before: str, limit: int) -> Sequence[Dispense]:
        """A pharmacy's dispenses, newest first, with settlement ids below ``before`` if given."""

    def sell_trace_code(self, code: str, number: str, attempt_id: str, *, loose: bool) -> bool:
        """Note a box as sold; false if it was sold before, unless both were loose sales."""


class ClearingRecords(Protocol):
    """Books of entries, and what was cleared by them. Each role writes books of its own."""

    def add_entry(self, book: Book, counterpart: str, entry: Entry) -> None:
        """Append an entry. Adding it again changes nothing."""

    def entry(self, book: Book, number: str, key: EntryKey) -> Entry | None:
        """An entry of any day."""

    def entries(
        self, book: Book, counterpart: str, begin: date, end: date, after: EntryKey, limit: int
    ) -> Sequence[Entry]:
        """Entries from the first day up to, not including, the end.

        In the order of days and keys; on the first day only those after the key.
        """

    def counterparts(self, book: Book) -> Sequence[str]:
        """Whom the entries of a book are about."""

    def add_clearing(self, clearing: Clearing) -> None:
        """Store a new statement."""

    def accept_clearing(self, clearing: Clearing) -> None:
        """Store the acceptance of a statement that is stored."""

    def clearing(self, role: RegionRole, peer: str, period: Period) -> Clearing | None:
        """The newest statement of a period."""

    def last_cleared(self, role: RegionRole, peer: str) -> Period | None:
        """The last period for which a statement is stored."""

    def clearings(self, period: Period) -> Sequence[Clearing]:
        """Every statement of a period, by role, peer and revision."""


class Transaction(Protocol):
    """Everything that one command sees and changes; committed as a whole or not at all."""

    @property
    def journal(self) -> Journal:
        """Evidence and messages."""

    @property
    def home(self) -> HomeRecords:
        """Records of the home role."""

    @property
    def payer(self) -> PayerRecords:
        """Records of the payer role."""

    @property
    def dispensing(self) -> DispensingRecords:
        """Records of the dispensing role."""

    @property
    def clearing(self) -> ClearingRecords:
        """Books, and what was cleared by them."""


class Reader(Protocol):
    """A region's store, for queries."""

    async def read(self, query: Callable[[Transaction], T]) -> T:
        """Run a query on a consistent snapshot; it must not write."""


class Store(Reader, Protocol):
    """A region's store."""

    async def transact(self, command: Callable[[Transaction], T]) -> T:
        """Run a command and commit it durably before returning. Exceptions undo it."""


class Seal(Protocol):
    """Signs for an institution or a platform."""

    def __call__(
        self, message: Message, *, now: datetime, audience: str | None = None
    ) -> SignedStatement:
        """A new statement with this seal's signature.

        Only a pricing and a quote name an audience; for all others it follows from the type.
        """


class HomeGateway(Protocol):
    """The home region of a prescription, here or elsewhere."""

    async def open_prescription(self, request: OpenPrescriptionRequest) -> OpenPrescriptionResponse:
        """See HomeService.OpenPrescription."""

    async def grant_claim(self, request: GrantClaimRequest) -> GrantClaimResponse:
        """See HomeService.GrantClaim."""

    async def commit_attempt(self, request: CommitAttemptRequest) -> CommitAttemptResponse:
        """See HomeService.CommitAttempt."""

    async def release_attempt(self, request: ReleaseAttemptRequest) -> ReleaseAttemptResponse:
        """See HomeService.ReleaseAttempt."""

    async def get_attempt(self, request: GetAttemptRequest) -> GetAttemptResponse:
        """See HomeService.GetAttempt."""


class PayerGateway(Protocol):
    """The payer region of a person, here or elsewhere."""

    async def issue_e_credential(
        self, request: IssueECredentialRequest
    ) -> IssueECredentialResponse:
        """See PayerService.IssueECredential."""

    async def quote_benefit(self, request: QuoteBenefitRequest) -> QuoteBenefitResponse:
        """See PayerService.QuoteBenefit."""

    async def hold_benefit(self, request: HoldBenefitRequest) -> HoldBenefitResponse:
        """See PayerService.HoldBenefit."""


class ClearingGateway(Protocol):
    """The other region of a pair that reconciles and clears, here or elsewhere."""

    async def reconcile_day(
        self, request: ClearingServiceReconcileDayRequest
    ) -> ClearingServiceReconcileDayResponse:
        """See ClearingService.ReconcileDay."""

    async def propose_clearing(self, request: ProposeClearingRequest) -> ProposeClearingResponse:
        """See ClearingService.ProposeClearing."""


class PeerGateway(HomeGateway, PayerGateway, ClearingGateway, Protocol):
    """A regional platform in all its roles.

    Calls raise a Refusal if the region refused, and Unavailable if it may or may not have acted.
    """

    async def deliver_events(self, request: DeliverEventsRequest) -> DeliverEventsResponse:
        """See PeerService.DeliverEvents."""


class Peers(Protocol):
    """The way to every region, this one included."""

    def region(self, region_code: str) -> PeerGateway:
        """The platform of a region. Raises Refusal REGION_UNKNOWN."""
