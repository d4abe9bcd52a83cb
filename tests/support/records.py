"""Samples of everything that a store keeps, with no field left at its default.

A field that storage forgets therefore shows in the first round trip.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from rxoutflow.v1.statement_pb2 import Signature, SignedStatement
from rxoutflow_server.application.edge_ports import (
    GoodsReturn,
    Handover,
    IssuedPrescription,
    Registration,
)
from rxoutflow_server.application.ports import (
    ClaimCopy,
    Flow,
    IndexEntry,
    NoticeRecord,
    OutgoingEvent,
    RegionRole,
    StoredOutcome,
    TraceStep,
)
from rxoutflow_server.domain.attempt import LineQuantity
from rxoutflow_server.domain.benefit import Enrolment, LineShare
from rxoutflow_server.domain.dispense import CommittedLine, Dispense, DispenseState
from rxoutflow_server.domain.prescription import ClaimTerms, LineUse, Prescription
from rxoutflow_server.domain.returns import BookedReturn, Return, ReturnedLine
from rxoutflow_server.domain.reversal import Reversal
from rxoutflow_server.domain.settlement import (
    Amounts,
    InsuredPerson,
    SettledLine,
    Settlement,
    SettlementState,
)
from rxoutflow_server.domain.tariff import AreaStatus, PersonType

NOW = datetime(2026, 3, 1, 2, 30, 0, 123457, tzinfo=UTC)
LEASE = timedelta(minutes=30)
NUMBER = "350200260301000000000000000017"
HOSPITAL = "H35020000001"
PHARMACY = "P35050000002"
PERSON = "insured-1"
ATTEMPT = "0195-attempt-1"
SETTLEMENT = "0195-settlement-1"
PICKUP_SECRET = "ABCDEFGHJK"


def digest(*of: object) -> bytes:
    """Some SHA-256, different for different arguments."""
    return sha256(repr(of).encode()).digest()


def certificate(*of: object, size: int = 500) -> bytes:
    """What a store takes for a certificate: a DER sequence of this size."""
    return (b"\x30\x82" + (size - 4).to_bytes(2, "big") + digest(*of) * size)[:size]


def later(**amount: float) -> datetime:
    """A time after ``NOW``."""
    return NOW + timedelta(**amount)


def prescription(number: str = NUMBER, hospital_number: str | None = None) -> Prescription:
    return Prescription(
        number=number,
        issuer_code=HOSPITAL,
        hospital_prescription_number=hospital_number or f"HIS-{number}",
        payer_region_code="350500",
        insured_person_id=PERSON,
        issue_time=NOW - timedelta(hours=1),
        expire_time=later(days=3),
        register_time=NOW,
        update_time=later(microseconds=1),
        statement_sha256=digest("sheet", number),
        pickup_hash=digest("pickup", number),
        lines=(LineUse(2, 30), LineUse(1, 20)),
    )


def terms(pharmacy: str = PHARMACY) -> ClaimTerms:
    return ClaimTerms(pharmacy, "350500", (), digest("claim", pharmacy))


def statement(content: str = "a statement") -> SignedStatement:
    return SignedStatement(
        payload=content.encode(),
        payload_type="application/vnd.rxoutflow.prescription.v1+protobuf",
        signatures=[
            Signature(protected=b"\x00\xff", value=b"value", certificate_chain=[b"a", b"b"])
        ],
    )


def outcome(response: bytes = b"\x0a\x00") -> StoredOutcome:
    return StoredOutcome(
        "GrantClaim", digest("request"), "rxoutflow.v1.GrantClaimResponse", response, NOW
    )


def step(action: str) -> TraceStep:
    return TraceStep(NOW, RegionRole.PAYER, Flow.MONEY, action, PHARMACY, digest(action))


def notice(institution: str, summary: str) -> NoticeRecord:
    return NoticeRecord(
        institution, "CLAIMED", NUMBER, PHARMACY, digest(summary), summary, NOW, sequence=1
    )


def event(
    event_id: str, *, peer: str = "350500", number: str = NUMBER, create_time: datetime = NOW
) -> OutgoingEvent:
    return OutgoingEvent(event_id, peer, number, PERSON, digest(event_id), create_time)


def person(person_id: str = PERSON) -> InsuredPerson:
    return InsuredPerson(
        insured_person_id=person_id,
        person_type=PersonType.RETIRED,
        area_status=AreaStatus.EMERGENCY,
        own_account_fen=12_345,
        family_accounts_fen=(500, 0, 70),
        year=2026,
        used_deductible_fen=30_000,
        used_cap_fen=9_999_999,
        direct_settlement_suspended=True,
        enrolments=(Enrolment("SCHEME-1", 2_000, 777), Enrolment("SCHEME-2")),
    )


def settlement(settlement_id: str = SETTLEMENT, attempt_id: str = ATTEMPT) -> Settlement:
    return Settlement(
        settlement_id=settlement_id,
        attempt_id=attempt_id,
        prescription_number=NUMBER,
        insured_person_id=PERSON,
        dispensing_region_code="350500",
        pharmacy_code=PHARMACY,
        state=SettlementState.HELD,
        amounts=Amounts(
            total_fen=1_000,
            own_fen=10,
            excess_fen=20,
            first_self_pay_fen=30,
            inscope_fen=940,
            deductible_fen=40,
            pool_fen=700,
            ratio_self_fen=200,
            person_fen=300,
            account_fen=150,
            family_fen=100,
            cash_fen=50,
        ),
        family_accounts_fen=(60, 40),
        tariff_version="350500-2026-1",
        year=2026,
        create_time=NOW,
        update_time=later(seconds=1),
        cause_sha256=digest("commitment"),
    )


def settled_lines() -> tuple[SettledLine, ...]:
    share = LineShare(1_000, 40, 700, 150, (60, 40), 50, "MZ01", 10, 20, 30)
    return (SettledLine(2, 30, share), SettledLine(1, 20, replace(share, scheme_code="")))


def booked_return(reversal_id: str = "R1", attempt_id: str = ATTEMPT) -> BookedReturn:
    lines = (LineQuantity(2, 5), LineQuantity(1, 3))
    return BookedReturn(
        reversal_id, NUMBER, attempt_id, lines, True, digest("return", reversal_id), NOW
    )


def reversal(reversal_id: str = "R1", settlement_id: str = SETTLEMENT) -> Reversal:
    lines, cause = (LineQuantity(2, 5), LineQuantity(1, 3)), digest("return", reversal_id)
    amounts = settlement().amounts
    return Reversal(reversal_id, settlement_id, PERSON, lines, amounts, cause, later(days=2))


def returned(reversal_id: str = "R1", settlement_id: str = SETTLEMENT) -> Return:
    return Return(
        reversal_id=reversal_id,
        prescription_number=NUMBER,
        settlement_id=settlement_id,
        lines=(ReturnedLine(2, 5, ("1" * 20, "2" * 20)), ReturnedLine(1, 3)),
        statement_sha256=digest("return", reversal_id),
        create_time=NOW,
        update_time=NOW,
    )


def goods_return(
    reversal_id: str = "R1", create_time: datetime = NOW, attempt_id: str = ATTEMPT
) -> GoodsReturn:
    sha256 = digest("return", reversal_id)
    return GoodsReturn(NUMBER, reversal_id, attempt_id, "0195-return", sha256, False, create_time)


def claim_copy(attempt_id: str = ATTEMPT) -> ClaimCopy:
    return ClaimCopy(NUMBER, attempt_id, PHARMACY, digest("sheet"), digest("attempt"), NOW)


def dispense(
    settlement_id: str = SETTLEMENT, *, attempt_id: str = ATTEMPT, create_time: datetime = NOW
) -> Dispense:
    return Dispense(
        prescription_number=NUMBER,
        settlement_id=settlement_id,
        attempt_id=attempt_id,
        fence=3,
        pharmacy_code=PHARMACY,
        payer_region_code="350200",
        insured_person_id=PERSON,
        insured=True,
        lines=(CommittedLine(2, "药-XA01", 30), CommittedLine(1, "XB02", 20)),
        state=DispenseState.COMMITTING,
        create_time=create_time,
        update_time=create_time,
        request_id="0195-request",
        commitment_sha256=digest("commitment"),
        pricing_sha256=digest("pricing"),
    )


def completed(begun: Dispense) -> Dispense:
    """The same dispense at its end, with every field that changes on the way."""
    return replace(
        begun,
        state=DispenseState.COMPLETED,
        update_time=later(hours=1),
        settlement_sha256=digest("settlement"),
        record_sha256=digest("record"),
        booked=True,
        posted=True,
    )


def index_entry(version: int, number: str = NUMBER) -> IndexEntry:
    return IndexEntry(PERSON, number, version, digest("status", version))


def issued(number: str = NUMBER, create_time: datetime = NOW) -> IssuedPrescription:
    return IssuedPrescription(
        prescription_number=number,
        request_id="0195-issue",
        statement_sha256=digest("sheet"),
        pickup_secret=PICKUP_SECRET,
        registration=Registration.QUEUED,
        create_time=create_time,
    )


def handover(attempt_id: str = ATTEMPT, create_time: datetime = NOW) -> Handover:
    return Handover(NUMBER, attempt_id, "0195-record", digest("record"), False, create_time)
