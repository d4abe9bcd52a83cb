"""What commands need from the outside: records, evidence, seals, clocks and other regions.

The records are grouped by the role that writes them. A transaction offers all groups and commits
them together; each method that loads an object for change locks it. Adapters live in ``storage/``,
``transport/`` and the composition roots.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
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
    CorrectAttemptRequest,
    CorrectAttemptResponse,
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
from rxoutflow.v1.peer_service_pb2 import (
    DeliverEventsRequest,
    DeliverEventsResponse,
    GetCheckpointRequest,
    GetCheckpointResponse,
    SellTraceCodesRequest,
    SellTraceCodesResponse,
    TakeBackTraceCodesRequest,
    TakeBackTraceCodesResponse,
)
from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow_server.domain.accounts import AccountEntry, OpeningBalances
from rxoutflow_server.domain.attempt import Attempt
from rxoutflow_server.domain.clearing import Period
from rxoutflow_server.domain.delivery import Delivery
from rxoutflow_server.domain.dispense import Dispense
from rxoutflow_server.domain.ledger import Book, Entry, EntryKey
from rxoutflow_server.domain.prescription import Change, Prescription
from rxoutflow_server.domain.returns import BookedReturn, Return
from rxoutflow_server.domain.reversal import Reversal
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
class AgreementUse:
    """What funds and accounts paid for an institution on a local day; less than zero: came back.

    ``reversal_id`` is empty for a payment. The statement is the payer's Settlement or Reversal.
    """

    institution_code: str
    day: date
    prescription_number: str
    settlement_id: str
    reversal_id: str
    fen: int
    statement_sha256: bytes


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
    pending_since: datetime | None = None
    """When it was last given back to be sent; nothing for one that was never set aside."""

    def waiting_at(self, now: datetime) -> timedelta:
        """For how long it has been waiting to be delivered."""
        return now - (self.pending_since or self.create_time)


@dataclass(frozen=True, slots=True)
class DeadEvent:
    """An event that was set aside for an operator, and why."""

    event: OutgoingEvent
    error: str


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
class BoxSale:
    """A box that an attempt sells, or a part of it (拆零)."""

    code: str
    loose: bool
    prescription_number: str
    attempt_id: str
    pharmacy_code: str


@dataclass(frozen=True, slots=True)
class OpenBox:
    """A box about which another region, its registrar, is being asked.

    ``unwanted`` boxes are to be taken back; for the others that depends on what becomes of the
    handover.
    """

    prescription_number: str
    attempt_id: str
    code: str
    unwanted: bool
    update_time: datetime


@dataclass(frozen=True, slots=True)
class PickupTries:
    """Wrong pickup codes tried on a prescription, and until when no code is taken."""

    prescription_number: str
    wrong: int
    locked_until: datetime | None


@dataclass(frozen=True, slots=True)
class BarredNumber:
    """A number that its issuer revoked before it was registered, so that it never will be."""

    prescription_number: str
    issuer_code: str
    revocation_sha256: bytes
    time: datetime


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


@dataclass(frozen=True, slots=True)
class LogLeaf:
    """A leaf of the region's log: that a statement is kept, and since when.

    The number is how the leaf is found; it is no part of what is hashed.
    """

    index: int
    prescription_number: str
    statement_sha256: bytes
    payload_type: str
    keep_time: datetime


@dataclass(frozen=True, slots=True)
class WaitingLeaf:
    """A leaf that a command has appended, before the tree has grown over it."""

    prescription_number: str
    position: int
    """Among those of the prescription that wait."""
    statement_sha256: bytes
    payload_type: str
    keep_time: datetime


@dataclass(frozen=True, slots=True)
class LogCheckpoint:
    """A signed head of a log. ``note`` and certificates are the contract's Checkpoint."""

    size: int
    root: bytes
    time: datetime
    note: str
    certificate_chain: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class SeenCheckpoint:
    """A checkpoint of another region's log, and whether it contradicts what was seen before."""

    region_code: str
    checkpoint: LogCheckpoint
    contradicts: bool = False


class Journal(Protocol):
    """Evidence and messages: what every role writes."""

    def keep_statement(
        self, number: str, sha256: bytes, statement: SignedStatement, time: datetime
    ) -> bool:
        """Keep a statement byte for byte; false if it was kept before, which changes nothing.

        A platform makes a leaf of its log of every statement that it did not keep before: there,
        use ``exchange.evidence.keep``.
        """

    def statements(self, number: str) -> Sequence[tuple[bytes, SignedStatement]]:
        """Every statement that is kept about a prescription, with its digest."""

    def statement(self, number: str, sha256: bytes) -> SignedStatement:
        """A statement that was kept."""

    def find_statement(self, number: str, sha256: bytes) -> SignedStatement | None:
        """A statement, if it was kept."""

    def statements_of(self, number: str, payload_type: str) -> Sequence[SignedStatement]:
        """Statements of a type that were kept for a prescription, in the order of keeping."""

    def statements_kept(
        self, payload_type: str, begin: datetime, end: datetime
    ) -> Sequence[SignedStatement]:
        """What pharmacies and hospitals signed of this type, kept from a time up to another one.

        Only prescriptions, dispense records and returns can be found by time.
        """

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

    def count_notices(self) -> int:
        """How many notices there are, for all institutions."""

    def add_event(self, event: OutgoingEvent) -> None:
        """Put a fact into the outbox."""

    def due_events(self, peer: str, now: datetime, limit: int) -> Sequence[OutgoingEvent]:
        """Events for a peer that are to be sent now, oldest first."""

    def take_events(
        self, peer: str, now: datetime, until: datetime, limit: int
    ) -> Sequence[OutgoingEvent]:
        """The same, for one of several senders: no other is given them before ``until``.

        There may be more than ``limit``, because those of a prescription are taken together.
        """

    def event_let_go(self, event: OutgoingEvent, now: datetime) -> None:
        """Let anybody take an event again that was taken and not sent."""

    def take_turn(self, task: str, holder: str, until: datetime, now: datetime) -> bool:
        """Have a task to oneself for a while, or for longer; false if somebody else has it."""

    def peers_with_due_events(self, now: datetime) -> Sequence[str]:
        """Regions for which something is to be sent now."""

    def event_acknowledged(self, event: OutgoingEvent) -> None:
        """Take an event out of the outbox."""

    def event_refused(self, event: OutgoingEvent, reason: str) -> None:
        """Set an event aside for an operator, with the reason."""

    def event_delayed(self, event: OutgoingEvent, until: datetime) -> None:
        """Send the event again later."""

    def event_put_back(self, event: OutgoingEvent, until: datetime) -> None:
        """Send the event again later, behind all that waits by then on its prescription.

        For an event that follows another one: that one must not wait behind it.
        """

    def dead_events(self, after: str, limit: int) -> Sequence[DeadEvent]:
        """Events that were set aside, with ids above ``after`` (empty: all), oldest first."""

    def dead_event(self, number: str, peer: str, event_id: str) -> DeadEvent | None:
        """An event that was set aside."""

    def count_dead_events(self) -> int:
        """How many events were set aside."""

    def event_revived(self, event: OutgoingEvent, now: datetime) -> None:
        """Give an event that was set aside back to be sent."""

    def receive_event(self, number: str, origin: str, event_id: str, time: datetime) -> bool:
        """Note an event of another region; false if it was noted before."""


class HomeRecords(Protocol):
    """What the home region alone writes."""

    def prescription(self, number: str) -> Prescription | None:
        """A prescription with its live attempt, locked for change."""

    def attempt(self, number: str, attempt_id: str) -> Attempt | None:
        """Any attempt of a prescription."""

    def add_prescription(self, prescription: Prescription) -> bool:
        """Store a new prescription; false if its number or the hospital's own number is taken.

        A number is also taken when it was barred.
        """

    def save(self, change: Change) -> None:
        """Store the outcome of a transition."""

    def bar(self, barred: BarredNumber) -> bool:
        """Note a number that is never to be registered; false if it is registered.

        Of a registration and this, at the same time, one finds the other. What was noted first
        stays.
        """

    def barred(self, number: str) -> BarredNumber | None:
        """What is noted of a number that is never to be registered, if it is one."""

    def prescriptions_of(self, issuer_code: str, before: str, limit: int) -> Sequence[Prescription]:
        """A hospital's prescriptions with numbers below ``before`` (empty: all), newest first."""

    def booked_return(self, number: str, reversal_id: str) -> BookedReturn | None:
        """A return that was booked."""

    def booked_returns(self, number: str, attempt_id: str) -> Sequence[BookedReturn]:
        """What was booked as returned of an attempt."""

    def add_booked_return(self, booked: BookedReturn) -> None:
        """Store a new return."""

    def pickup_tries(self, number: str) -> PickupTries | None:
        """Wrong pickup codes tried on a prescription, if any."""

    def save_pickup_tries(self, tries: PickupTries) -> None:
        """Store the count of wrong pickup codes."""

    def overdue_leases(self, now: datetime, limit: int) -> Sequence[str]:
        """Numbers of prescriptions whose reserved attempt has run out."""

    def commits_until(
        self, end: datetime, after: tuple[datetime, str] | None, limit: int
    ) -> Sequence[Attempt]:
        """Attempts that have been committed since before or at a time, oldest commit first.

        ``after`` is commit time and prescription number of the last one that is known already.
        """

    def count_commits_until(self, end: datetime) -> int:
        """How many those are."""


class PayerRecords(Protocol):
    """What the payer region alone writes."""

    def person(self, insured_person_id: str) -> InsuredPerson | None:
        """An insured person, locked for change."""

    def add_person(self, person: InsuredPerson) -> bool:
        """Store a person and open the accounts; false if the person is there already."""

    def save_person(self, person: InsuredPerson) -> None:
        """Store the person's standing, accounts, enrolments and accumulators."""

    def settlement(self, insured_person_id: str, settlement_id: str) -> Settlement | None:
        """A settlement of a person."""

    def settlements_of_attempt(
        self, insured_person_id: str, attempt_id: str
    ) -> Sequence[Settlement]:
        """All settlements that were begun for an attempt."""

    def settlements_of_year(self, year: int) -> Sequence[Settlement]:
        """All settlements of a benefit year, by person, in the order in which they began."""

    def holds_until(
        self, end: datetime, after: tuple[datetime, str] | None, limit: int
    ) -> Sequence[Settlement]:
        """Holds from before or at a time whose attempts have not ended, longest held first.

        ``after`` is time and settlement id of the last one that is known already.
        """

    def count_holds_until(self, end: datetime) -> int:
        """How many holds there are from before or at a time, whatever became of the attempts."""

    def add_settlement(self, settlement: Settlement) -> None:
        """Store a new settlement."""

    def save_settlement(self, settlement: Settlement) -> None:
        """Store a settlement's new state."""

    def settlements_of(self, insured_person_id: str) -> Sequence[Settlement]:
        """All settlements of a person, in the order of the ids."""

    def persons(self, after: str, limit: int) -> Sequence[str]:
        """The ids of the insured persons behind this one, in order."""

    def opening(self, insured_person_id: str) -> OpeningBalances | None:
        """What the person's accounts held before the first entry."""

    def account_entries(self, insured_person_id: str) -> Sequence[AccountEntry]:
        """What moved on the person's accounts, by settlement, movement and reversal."""

    def add_account_entries(self, entries: Iterable[AccountEntry]) -> None:
        """Append entries. A movement that was written before is a defect and is refused."""

    def reversal(
        self, insured_person_id: str, settlement_id: str, reversal_id: str
    ) -> Reversal | None:
        """A reversal. Pharmacies make its id, so it is unique within a settlement only."""

    def reversals(self, insured_person_id: str, settlement_id: str) -> Sequence[Reversal]:
        """What was reversed of a settlement."""

    def add_reversal(self, reversal: Reversal) -> None:
        """Store a new reversal."""

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

    def dispense_of_request(self, number: str, request_id: str) -> Dispense | None:
        """The dispense that a commit with this id began; locked for change."""

    def add_dispense(self, dispense: Dispense) -> None:
        """Store a new dispense."""

    def save_dispense(self, dispense: Dispense) -> None:
        """Store a dispense's new step."""

    def undecided(self, limit: int) -> Sequence[Dispense]:
        """Dispenses whose hold or commit is still to be asked for, longest untouched first."""

    def dispenses_of(self, pharmacy_code: str, before: str, limit: int) -> Sequence[Dispense]:
        """A pharmacy's dispenses, newest first, with settlement ids below ``before`` if given."""

    def open_box(self, box: OpenBox) -> None:
        """Store that another region is asked about a box."""

    def put_off_box(self, box: OpenBox) -> None:
        """Let a box that is still open wait behind the others."""

    def close_boxes(self, number: str, attempt_id: str, codes: Iterable[str]) -> None:
        """Forget boxes of an attempt about which nobody has to be asked any more."""

    def open_boxes(self, before: datetime, limit: int) -> Sequence[OpenBox]:
        """Boxes that were not touched since that time, longest untouched first."""

    def goods_return(self, number: str, reversal_id: str) -> Return | None:
        """A return."""

    def returns(self, number: str, settlement_id: str) -> Sequence[Return]:
        """What came back of a dispense, in the order of the ids."""

    def add_return(self, returned: Return) -> None:
        """Store a new return."""

    def save_return(self, returned: Return) -> None:
        """Store how far a return has come."""

    def delivery(self, number: str, settlement_id: str) -> Delivery | None:
        """The delivery of a dispense, if it has one."""

    def save_delivery(self, delivery: Delivery) -> None:
        """Store a delivery, or its new state."""


class TraceCodeRecords(Protocol):
    """The register of the trace codes that this region keeps for everybody."""

    def sell(self, sale: BoxSale) -> bool:
        """Note a sale. False if another attempt has sold the box, unless both sell parts of it."""

    def take_back(self, code: str, number: str, attempt_id: str, pharmacy_code: str) -> None:
        """Undo a sale of a box, if this attempt of this pharmacy made it."""


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


class AgreementRecords(Protocol):
    """What was paid for the institutions of this region, against the quotas of their agreements."""

    def add_use(self, use: AgreementUse) -> None:
        """Count a payment or what came back of it. Counting it again changes nothing."""

    def used_fen(self, institution_code: str, begin: date, end: date) -> int:
        """What was paid for an institution from a day up to, not including, another one."""

    def newest_use(self, institution_code: str, begin: date, end: date) -> AgreementUse | None:
        """The last that was counted for an institution in a period."""

    def is_above(self, institution_code: str, document: str, begin: date) -> bool:
        """Whether the institution was last known to be above the quota of a period."""

    def set_above(self, institution_code: str, document: str, begin: date, *, above: bool) -> bool:
        """Note whether it is above; false if that was known."""


class LogRecords(Protocol):
    """The region's verifiable log: one for all its statements, so it has no key to shard by.

    A command appends leaves; once for each commit, and before it, the store lets the tree grow over
    all leaves that wait. Nothing is ever changed or removed.
    """

    def append(self, number: str, sha256: bytes, payload_type: str, keep_time: datetime) -> None:
        """Append the leaf of a statement that was kept in this transaction; it waits for a place.

        Leaves of one prescription get their places in the order in which they were appended.
        """

    def take_turn(self) -> None:
        """Wait until no other transaction lets the tree grow, and keep others waiting."""

    def waiting(self, limit: int) -> Sequence[WaitingLeaf]:
        """Leaves that wait for a place, in the order of their places to come."""

    def place(self, leaf: WaitingLeaf, index: int, hashes: bytes) -> None:
        """Give a leaf its place, with the hashes of subtrees that end with it, its own first."""

    def placed(self, number: str, position: int) -> None:
        """The leaves of a prescription wait no more, up to a position."""

    def size(self) -> int:
        """How many leaves have a place: the size of the tree."""

    def leaf(self, number: str, sha256: bytes) -> LogLeaf | None:
        """The leaf of a statement; none before it has a place."""

    def leaves(self, begin: int, limit: int) -> Sequence[LogLeaf]:
        """Leaves from an index on, in order."""

    def hashes(self, subtrees: Sequence[tuple[int, int]]) -> dict[tuple[int, int], bytes]:
        """The hashes of full subtrees of the tree, each by level and position."""

    def unlogged(self, limit: int) -> Sequence[tuple[str, bytes]]:
        """Statements that are kept without a leaf, by number and digest. There must be none."""

    def add_checkpoint(self, checkpoint: LogCheckpoint) -> None:
        """Store a signed head."""

    def checkpoint(self) -> LogCheckpoint | None:
        """The newest checkpoint."""

    def checkpoints(self, after: int, limit: int) -> Sequence[LogCheckpoint]:
        """Checkpoints of sizes above ``after``, smallest first."""

    def seen(self, region_code: str) -> LogCheckpoint | None:
        """The newest checkpoint of another region's log that was found consistent."""

    def see(self, seen: SeenCheckpoint) -> bool:
        """Keep a checkpoint of another region; false if this one was kept before.

        A consistent one takes the place of the one before; a contradicting one is kept beside it.
        """

    def all_seen(self) -> Sequence[SeenCheckpoint]:
        """The newest checkpoint of every other region, and all that contradict."""


class Transaction(Protocol):
    """Everything that one command sees and changes; committed as a whole or not at all."""

    def keep(self, number: str, sha256: bytes, statement: SignedStatement, time: datetime) -> None:
        """Keep a statement byte for byte; one that was not kept before becomes a leaf of the log.

        Keeping it again changes nothing. Use ``exchange.evidence.keep``.
        """

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
    def trace_codes(self) -> TraceCodeRecords:
        """Records of the registrar of trace codes."""

    @property
    def clearing(self) -> ClearingRecords:
        """Books, and what was cleared by them."""

    @property
    def agreements(self) -> AgreementRecords:
        """What counts against the quotas of institutions."""

    @property
    def log(self) -> LogRecords:
        """The region's verifiable log."""


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

    async def correct_attempt(self, request: CorrectAttemptRequest) -> CorrectAttemptResponse:
        """See HomeService.CorrectAttempt."""

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

    async def sell_trace_codes(self, request: SellTraceCodesRequest) -> SellTraceCodesResponse:
        """See PeerService.SellTraceCodes."""

    async def take_back_trace_codes(
        self, request: TakeBackTraceCodesRequest
    ) -> TakeBackTraceCodesResponse:
        """See PeerService.TakeBackTraceCodes."""

    async def get_checkpoint(self, request: GetCheckpointRequest) -> GetCheckpointResponse:
        """See PeerService.GetCheckpoint."""


class Peers(Protocol):
    """The way to every region, this one included."""

    def region(self, region_code: str) -> PeerGateway:
        """The platform of a region. Raises Refusal REGION_UNKNOWN."""
