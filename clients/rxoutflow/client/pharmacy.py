"""For pharmacy systems: find, claim, quote, commit, hand over, record.

Speaks PosService at the pharmacy's edge service. The order of a handover is find, claim, quote,
commit, hand over, dispense record. **Nothing may be handed over before** ``commit`` **returned.**

As for hospitals, every mutating call comes in two halves, ``*_request`` and ``send_*``, so that a
signed request can be stored before it is sent and sent again after a crash.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date

from rxoutflow.client.base import Client
from rxoutflow.client.collecting import Presented, Proof, number_of, put
from rxoutflow.client.evidence import Evidence, require, require_sound
from rxoutflow.client.history import Page, read_history
from rxoutflow.client.notices import NoticeStream
from rxoutflow.client.reconciling import Reconciled, reconcile
from rxoutflow.errors import InvalidInput
from rxoutflow.identity import CallerKind
from rxoutflow.v1.attempt_pb2 import (
    CORRECTION_OUTCOME_NOTHING_TO_UNDO,
    Attempt,
    Claim,
    ClaimRelease,
    Collector,
    Commitment,
    Correction,
    CorrectionOutcome,
    LineQuantity,
)
from rxoutflow.v1.clearing_pb2 import DayBook, DayComparison, LedgerEntry
from rxoutflow.v1.credential_pb2 import ECredential
from rxoutflow.v1.dispense_pb2 import (
    Delivery,
    DeliveryProgress,
    DeliveryUpdate,
    DispensedLine,
    DispenseProgress,
    DispenseRecord,
    DispenseReturn,
    ReturnedLine,
    ReturnProgress,
)
from rxoutflow.v1.outcome_pb2 import Outcome
from rxoutflow.v1.pos_service_pb2 import (
    PosServiceClaimPrescriptionRequest,
    PosServiceCommitClaimRequest,
    PosServiceCorrectCallRequest,
    PosServiceFindPrescriptionRequest,
    PosServiceGetDispenseRequest,
    PosServiceGetOutcomeRequest,
    PosServiceListStatementsRequest,
    PosServicePresentECredentialRequest,
    PosServiceQuoteSettlementRequest,
    PosServiceQuoteSettlementResponse,
    PosServiceReconcileDayRequest,
    PosServiceRecordDispenseRequest,
    PosServiceReleaseClaimRequest,
    PosServiceReturnDispenseRequest,
    PosServiceUpdateDeliveryRequest,
    PosServiceWatchNoticesRequest,
)
from rxoutflow.v1.pos_service_pb2_grpc import PosServiceStub
from rxoutflow.v1.prescription_pb2 import Prescription
from rxoutflow.v1.prescription_status_pb2 import PrescriptionStatus
from rxoutflow.v1.settlement_pb2 import (
    SETTLEMENT_MODE_INSURANCE,
    SETTLEMENT_MODE_SELF_PAY,
    Amounts,
    PricedLine,
    Quote,
    Settlement,
)
from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow.v1.trace_pb2 import TraceEvent


@dataclass(frozen=True, slots=True)
class FoundPrescription:
    """A prescription that a pickup code opened, and where it stands."""

    prescription: Evidence[Prescription]
    status: Evidence[PrescriptionStatus]


@dataclass(frozen=True, slots=True)
class Committed:
    """Permission to hand over. ``settlement`` is None when the patient pays alone."""

    attempt: Evidence[Attempt]
    settlement: Evidence[Settlement] | None
    settlement_id: str
    lines: tuple[PricedLine, ...]


@dataclass(frozen=True, slots=True)
class Corrected:
    """What a correction came to. ``attempt`` is None when the call had led to nothing."""

    outcome: CorrectionOutcome.ValueType
    attempt: Evidence[Attempt] | None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a dispense has come, with the latest word of home and payer."""

    progress: DispenseProgress
    attempt: Evidence[Attempt]
    settlement: Evidence[Settlement] | None


class PharmacyClient(Client):
    """A pharmacy's system at its edge service."""

    kind = CallerKind.PHARMACY

    def present(self, credential_code: str) -> Presented:
        """Turn the code on the patient's app into the right to collect, and list what there is.

        Raises:
            ProofRefused: the code is too old, or not good.
        """
        request = PosServicePresentECredentialRequest(credential_code=credential_code)
        response = self.connection.call(self._stub.PresentECredential, request)
        token = self.evidence.read(response.token, ECredential)
        require(
            token.content.pharmacy_code == self.profile.institution_code,
            "the e-credential was made for another pharmacy",
        )
        return Presented(
            token,
            tuple(self.evidence.read(each, PrescriptionStatus) for each in response.statuses),
        )

    def find(self, proof: Proof) -> FoundPrescription:
        """Open a prescription. Its signatures have been verified here again (R10).

        Raises:
            NotFound: the pickup code opens nothing.
            ProofRefused: the e-credential is not good, or too many wrong codes were tried.
        """
        request = PosServiceFindPrescriptionRequest()
        put(request, proof)
        response = self.connection.call(self._stub.FindPrescription, request)
        found = FoundPrescription(
            self.evidence.read(response.prescription, Prescription),
            self.evidence.read(response.status, PrescriptionStatus),
        )
        for part in (found.prescription.content, found.status.content):
            _require_number(part.prescription_number, number_of(proof))
        return found

    def price(
        self, prescription: Prescription, quantities: Iterable[LineQuantity]
    ) -> tuple[PricedLine, ...]:
        """What would be handed over, as prescribed, at the prices of the profile's price list.

        Raises:
            InvalidInput: a line is unknown, or its drug has no price.
        """
        drugs = {line.line_id: line.drug_code for line in prescription.lines}
        return tuple(
            PricedLine(
                line_id=each.line_id,
                drug_code=drugs.get(each.line_id, ""),
                quantity=each.quantity,
                unit_price_micro_yuan=self._price(each.line_id, drugs),
            )
            for each in quantities
        )

    def claim(
        self,
        proof: Proof,
        lines: Sequence[LineQuantity] = (),
        collector: Collector | None = None,
    ) -> Evidence[Attempt]:
        """Claim these lines, or all that is open now; the patient collects unless stated.

        Claiming again while the claim lives gives the same attempt.

        Raises:
            PrescriptionHeld: another pharmacy holds it.
            PrescriptionClosed: it expired, was revoked or is used up.
            Indefinite: it may have happened; send the same request again.
        """
        return self.send_claim(self.claim_request(proof, lines, collector))

    def claim_request(
        self,
        proof: Proof,
        lines: Sequence[LineQuantity] = (),
        collector: Collector | None = None,
    ) -> PosServiceClaimPrescriptionRequest:
        """The request, signed by the reviewing pharmacist."""
        claim = Claim(
            prescription_number=number_of(proof),
            pharmacy_code=self.profile.institution_code,
            lines=lines,
            collector=collector or Collector(kind=Collector.KIND_PATIENT),
        )
        request = PosServiceClaimPrescriptionRequest(
            request_id=self.new_id(), claim=self.sign(claim, "reviewing_pharmacist")
        )
        put(request, proof)
        return request

    def send_claim(self, request: PosServiceClaimPrescriptionRequest) -> Evidence[Attempt]:
        """Send a claim, for the first time or again."""
        number = Claim.FromString(request.claim.payload).prescription_number
        response = self.connection.call(self._stub.ClaimPrescription, request)
        attempt = self._attempt(response.attempt, number)
        self.receipts.take(response, response.claim, request.claim, number[:6])
        return attempt

    def release(self, attempt: Attempt, reason: str) -> Evidence[Attempt]:
        """Let go, before or after commit, if nothing was handed over: signing says so.

        Raises:
            StepRefused: the attempt has ended.
            Indefinite: it may have happened; send the same request again.
        """
        return self.send_release(self.release_request(attempt, reason))

    def release_request(self, attempt: Attempt, reason: str) -> PosServiceReleaseClaimRequest:
        """The request, signed by the reviewing pharmacist."""
        release = ClaimRelease(
            prescription_number=attempt.prescription_number,
            attempt_id=attempt.attempt_id,
            fence=attempt.fence,
            pharmacy_code=self.profile.institution_code,
            reason=reason,
        )
        return PosServiceReleaseClaimRequest(
            request_id=self.new_id(), release=self.sign(release, "reviewing_pharmacist")
        )

    def send_release(self, request: PosServiceReleaseClaimRequest) -> Evidence[Attempt]:
        """Send a release, for the first time or again."""
        release = ClaimRelease.FromString(request.release.payload)
        response = self.connection.call(self._stub.ReleaseClaim, request)
        number, attempt_id = release.prescription_number, release.attempt_id
        attempt = self._attempt(response.attempt, number, attempt_id)
        self.receipts.take(response, response.release, request.release, number[:6])
        return attempt

    def quote(self, attempt: Attempt, lines: Sequence[PricedLine]) -> Evidence[Quote]:
        """What patient and fund would pay. Binds nobody.

        Raises:
            InsuranceUnavailable: the payer will not pay; the patient may pay alone.
            StepRefused: a drug or price is outside the catalogue.
        """
        return self._quote(
            PosServiceQuoteSettlementRequest(
                prescription_number=attempt.prescription_number,
                attempt_id=attempt.attempt_id,
                lines=lines,
            )
        )

    def quote_before_claim(self, proof: Proof, lines: Sequence[PricedLine]) -> Evidence[Quote]:
        """The same before a claim, by the right to collect."""
        request = PosServiceQuoteSettlementRequest(
            prescription_number=number_of(proof), lines=lines
        )
        put(request, proof)
        return self._quote(request)

    def commit(
        self, attempt: Attempt, lines: Sequence[PricedLine], accepted: Amounts | None
    ) -> Committed:
        """Commit to hand these lines over. Hand over only after this returned.

        Args:
            attempt: the claim.
            lines: what will be handed over, and its prices.
            accepted: the quoted amounts that the patient accepted; None if the patient pays alone.

        Raises:
            QuoteChanged: the payer arrives at other amounts; nothing was held.
            StepRefused: the attempt has ended, or is committed with other content.
            Indefinite: it may have happened; send the same request again, hand nothing over.
        """
        return self.send_commit(self.commit_request(attempt, lines, accepted))

    def commit_request(
        self, attempt: Attempt, lines: Sequence[PricedLine], accepted: Amounts | None
    ) -> PosServiceCommitClaimRequest:
        """The request, signed by the reviewing pharmacist, with a fresh settlement id."""
        commitment = Commitment(
            prescription_number=attempt.prescription_number,
            attempt_id=attempt.attempt_id,
            fence=attempt.fence,
            pharmacy_code=self.profile.institution_code,
            settlement_id=self.new_id(),
            mode=SETTLEMENT_MODE_SELF_PAY if accepted is None else SETTLEMENT_MODE_INSURANCE,
            lines=lines,
            accepted_amounts=accepted,
        )
        return PosServiceCommitClaimRequest(
            request_id=self.new_id(), commitment=self.sign(commitment, "reviewing_pharmacist")
        )

    def send_commit(self, request: PosServiceCommitClaimRequest) -> Committed:
        """Send a commitment, for the first time or again."""
        commitment = Commitment.FromString(request.commitment.payload)
        response = self.connection.call(self._stub.CommitClaim, request)
        number, attempt_id = commitment.prescription_number, commitment.attempt_id
        attempt = self._attempt(response.attempt, number, attempt_id)
        require(
            attempt.content.state in (Attempt.STATE_COMMITTED, Attempt.STATE_DISPENSED),
            "the attempt is not committed: hand nothing over",
        )
        settlement = None
        if commitment.mode == SETTLEMENT_MODE_INSURANCE:
            settlement = self._settlement(response.settlement, commitment)
        return Committed(attempt, settlement, commitment.settlement_id, tuple(commitment.lines))

    def dispense(
        self, committed: Committed, lines: Sequence[DispensedLine], delivery: Delivery | None = None
    ) -> DispenseProgress | None:
        """Record what was handed over; None if the edge keeps it until the platform is reached.

        Raises:
            StepRefused: not committed, other than committed, or trace codes missing or sold.
            Indefinite: it may have happened; send the same request again.
        """
        attempt = committed.attempt.content
        return self.send_dispense(
            self.dispense_request(attempt, committed.settlement_id, lines, delivery)
        )

    def dispense_request(
        self,
        attempt: Attempt,
        settlement_id: str,
        lines: Sequence[DispensedLine],
        delivery: Delivery | None = None,
    ) -> PosServiceRecordDispenseRequest:
        """The request, signed by reviewing pharmacist, dispenser and checker."""
        record = DispenseRecord(
            prescription_number=attempt.prescription_number,
            attempt_id=attempt.attempt_id,
            fence=attempt.fence,
            pharmacy_code=self.profile.institution_code,
            settlement_id=settlement_id,
            lines=lines,
            delivery=delivery,
        )
        record.dispense_time.FromDatetime(self.surroundings.now())
        signed = self.sign(record, "reviewing_pharmacist", "dispenser", "checker")
        return PosServiceRecordDispenseRequest(request_id=self.new_id(), dispense_record=signed)

    def send_dispense(self, request: PosServiceRecordDispenseRequest) -> DispenseProgress | None:
        """Send a dispense record, for the first time or again."""
        response = self.connection.call(self._stub.RecordDispense, request)
        self.receipts.take(
            response, response.dispense_record, request.dispense_record, self.profile.region_code
        )
        return response.progress if response.HasField("progress") else None

    def return_dispense(
        self,
        attempt: Attempt,
        settlement_id: str,
        lines: Sequence[ReturnedLine],
        cause: DispenseReturn.Cause.ValueType,
        reason: str,
    ) -> ReturnProgress | None:
        """Take medicine back, in whole or in part (撤销/退费); None if the edge keeps it for later.

        The cause decides whether the prescription can be filled again, and the named boxes sold
        again; see DispenseReturn. What fund and accounts paid goes back to them: ``progress`` shows
        the amounts once the payer has stated them.

        Args:
            attempt: the attempt that was dispensed.
            settlement_id: of its dispense record.
            lines: what comes back, with the trace codes of whole boxes.
            cause: why it comes back.
            reason: for people.

        Raises:
            StepRefused: nothing was recorded as handed over, or more comes back than was.
            Indefinite: it may have happened; send the same request again.
        """
        return self.send_return(self.return_request(attempt, settlement_id, lines, cause, reason))

    def return_request(
        self,
        attempt: Attempt,
        settlement_id: str,
        lines: Sequence[ReturnedLine],
        cause: DispenseReturn.Cause.ValueType,
        reason: str,
    ) -> PosServiceReturnDispenseRequest:
        """The request, signed by the reviewing pharmacist, with a fresh reversal id."""
        content = DispenseReturn(
            reversal_id=self.new_id(),
            prescription_number=attempt.prescription_number,
            attempt_id=attempt.attempt_id,
            pharmacy_code=self.profile.institution_code,
            settlement_id=settlement_id,
            cause=cause,
            lines=lines,
            reason=reason,
        )
        content.return_time.FromDatetime(self.surroundings.now())
        return PosServiceReturnDispenseRequest(
            request_id=self.new_id(), dispense_return=self.sign(content, "reviewing_pharmacist")
        )

    def send_return(self, request: PosServiceReturnDispenseRequest) -> ReturnProgress | None:
        """Send a return, for the first time or again."""
        response = self.connection.call(self._stub.ReturnDispense, request)
        return response.progress if response.HasField("progress") else None

    def correct_call(self, number: str, request_id: str, reason: str) -> Corrected:
        """Undo a claim or commit whose outcome is not known (冲正): it has no effect from now on.

        Signing says that nothing was handed over on the strength of that call. While the patient
        waits, sending the same request again is better.

        Args:
            number: the prescription.
            request_id: of the claim or commit to be corrected.
            reason: for people.

        Raises:
            StepRefused: a claim was committed since; correct the commit, or release.
            Indefinite: it may have happened; send the same request again.
        """
        return self.send_correction(self.correction_request(number, request_id, reason))

    def correction_request(
        self, number: str, request_id: str, reason: str
    ) -> PosServiceCorrectCallRequest:
        """The request, signed by the reviewing pharmacist."""
        correction = Correction(
            prescription_number=number,
            corrected_request_id=request_id,
            pharmacy_code=self.profile.institution_code,
            reason=reason,
        )
        return PosServiceCorrectCallRequest(
            request_id=self.new_id(), correction=self.sign(correction, "reviewing_pharmacist")
        )

    def send_correction(self, request: PosServiceCorrectCallRequest) -> Corrected:
        """Send a correction, for the first time or again."""
        number = Correction.FromString(request.correction.payload).prescription_number
        response = self.connection.call(self._stub.CorrectCall, request)
        if not response.HasField("attempt"):
            nothing = response.outcome == CORRECTION_OUTCOME_NOTHING_TO_UNDO
            require(nothing, "the answer lacks the attempt that it speaks of")
            return Corrected(response.outcome, None)
        return Corrected(response.outcome, self._attempt(response.attempt, number))

    def update_delivery(
        self,
        number: str,
        settlement_id: str,
        state: Delivery.State.ValueType,
        carrier: str = "",
        parcel_number: str = "",
    ) -> DeliveryProgress:
        """Say where a delivery stands now: dispatched, then signed for.

        Args:
            number: the prescription.
            settlement_id: of the dispense record that names the delivery.
            state: the new state; it moves forward only.
            carrier: the courier; required when it leaves, unless the record named one.
            parcel_number: the courier's number of the parcel.

        Raises:
            StepRefused: the record names no delivery, or it has gone further already.
            Indefinite: it may have happened; say the same again.
        """
        update = DeliveryUpdate(
            prescription_number=number,
            settlement_id=settlement_id,
            pharmacy_code=self.profile.institution_code,
            state=state,
            carrier=carrier,
            parcel_number=parcel_number,
        )
        update.state_time.FromDatetime(self.surroundings.now())
        request = PosServiceUpdateDeliveryRequest(
            request_id=self.new_id(), delivery_update=self.sign(update, "dispenser")
        )
        return self.connection.call(self._stub.UpdateDelivery, request).delivery

    def progress(self, attempt: Attempt) -> Progress:
        """How far the dispense has come.

        Raises:
            NotFound: there is no such attempt of this pharmacy.
        """
        request = PosServiceGetDispenseRequest(
            prescription_number=attempt.prescription_number, attempt_id=attempt.attempt_id
        )
        response = self.connection.call(self._stub.GetDispense, request)
        settlement = None
        if response.HasField("settlement"):
            settlement = self.evidence.read(response.settlement, Settlement)
            _require_number(settlement.content.prescription_number, attempt.prescription_number)
        return Progress(
            response.progress,
            self._attempt(response.attempt, attempt.prescription_number, attempt.attempt_id),
            settlement,
        )

    def history(self, prescription_number: str) -> tuple[TraceEvent, ...]:
        """The prescription and the statements behind this pharmacy's attempts on it, each verified.

        Raises:
            NotFound: this pharmacy never had a claim on it.
            AnswerUntrusted: a statement does not verify, or is not the one named.
        """

        def ask(token: str) -> Page:
            request = PosServiceListStatementsRequest(
                prescription_number=prescription_number, page_token=token
            )
            answer = self.connection.call(self._stub.ListStatements, request)
            return answer.events, answer.next_page_token

        return read_history(self.evidence, prescription_number, ask)

    def reconcile(self, day: date, sales: Iterable[LedgerEntry]) -> Reconciled:
        """Compare the pharmacy's sales of a local day with the platform's book. Do it every day.

        A sale is of the local day of its dispense record's ``dispense_time``; see ``sale``.

        Raises:
            InvalidInput: a sale occurs twice, or its amounts do not add up.
            Unavailable: the platform cannot be reached; ask again later.
        """
        return reconcile(day, sales, self._compare)

    def outcome(self, prescription_number: str, request_id: str) -> Outcome:
        """What became of a request whose answer was lost.

        Raises:
            NotFound: it had no effect so far.
        """
        request = PosServiceGetOutcomeRequest(
            prescription_number=prescription_number, request_id=request_id
        )
        return self.connection.call(self._stub.GetOutcome, request).outcome

    def watch(self, resume_token: str = "") -> NoticeStream:
        """Notices about this pharmacy's claims, after ``resume_token``."""
        limit = self.connection.patience.stream_timeout
        return NoticeStream(
            lambda token: self._stub.WatchNotices(
                PosServiceWatchNoticesRequest(resume_token=token), timeout=limit
            ),
            self.connection,
            self.evidence,
            resume_token,
        )

    @property
    def _stub(self) -> PosServiceStub:
        return self.connection.stub(PosServiceStub)

    def _compare(self, book: DayBook) -> DayComparison:
        request = PosServiceReconcileDayRequest(book=book)
        return self.connection.call(self._stub.ReconcileDay, request).comparison

    def _quote(self, request: PosServiceQuoteSettlementRequest) -> Evidence[Quote]:
        response: PosServiceQuoteSettlementResponse = self.connection.call(
            self._stub.QuoteSettlement, request
        )
        quote = self.evidence.read(response.quote, Quote)
        _require_number(quote.content.prescription_number, request.prescription_number)
        require_sound(quote.content.amounts)
        return quote

    def _attempt(
        self, statement: SignedStatement, number: str, attempt_id: str = ""
    ) -> Evidence[Attempt]:
        attempt = self.evidence.read(statement, Attempt)
        _require_number(attempt.content.prescription_number, number)
        require(
            attempt.content.pharmacy_code == self.profile.institution_code
            and attempt_id in ("", attempt.content.attempt_id),
            "the answer is about another attempt than was asked for",
        )
        return attempt

    def _settlement(
        self, statement: SignedStatement, commitment: Commitment
    ) -> Evidence[Settlement]:
        settlement = self.evidence.read(statement, Settlement)
        content = settlement.content
        _require_number(content.prescription_number, commitment.prescription_number)
        require(
            content.settlement_id == commitment.settlement_id
            and content.amounts == commitment.accepted_amounts,
            "the settlement is another than was accepted",
        )
        require_sound(content.amounts)
        return settlement

    def _price(self, line_id: int, drugs: dict[int, str]) -> int:
        if line_id not in drugs:
            raise InvalidInput(f"lines: the prescription has no line {line_id}")
        drug_code = drugs[line_id]
        if drug_code not in self.profile.prices:
            raise InvalidInput(f"{self.profile.path}: price_list: no price for drug {drug_code}")
        return self.profile.prices[drug_code]


def sale(committed: Committed) -> LedgerEntry:
    """What a commitment is in the pharmacy's book once it has been handed over."""
    mode = SETTLEMENT_MODE_INSURANCE
    amounts = committed.settlement.content.amounts if committed.settlement else None
    if amounts is None:
        total = sum(_line_fen(line) for line in committed.lines)
        mode, amounts = SETTLEMENT_MODE_SELF_PAY, Amounts(total_fen=total, cash_fen=total)
    return LedgerEntry(
        settlement_id=committed.settlement_id,
        movement=LedgerEntry.MOVEMENT_POSTING,
        prescription_number=committed.attempt.content.prescription_number,
        mode=mode,
        total_fen=amounts.total_fen,
        pool_fen=amounts.pool_fen,
        account_fen=amounts.account_fen,
        family_fen=amounts.family_fen,
        cash_fen=amounts.cash_fen,
    )


def _line_fen(line: PricedLine) -> int:
    """Quantity times price, rounded half up to the fen."""
    return (2 * line.quantity * line.unit_price_micro_yuan + 10_000) // 20_000


def _require_number(stated: str, asked: str) -> None:
    require(stated == asked, "the answer is about another prescription than was asked for")


def returned_sale(sold: LedgerEntry, back: ReturnProgress) -> LedgerEntry:
    """What a return is in the pharmacy's book, on the local day of its ``return_time``.

    Args:
        sold: the sale that it takes back, in part or in whole.
        back: the return, as far as the platform has brought it.

    Raises:
        InvalidInput: the amounts are not known yet; until then the platform has not booked it.
    """
    if not back.HasField("amounts"):
        raise InvalidInput(f"return {back.reversal_id}: the payer has not said yet what goes back")
    entry = LedgerEntry.FromString(sold.SerializeToString())
    entry.movement = LedgerEntry.MOVEMENT_REVERSAL
    entry.reversal_id = back.reversal_id
    entry.total_fen = back.amounts.total_fen
    entry.pool_fen = back.amounts.pool_fen
    entry.account_fen = back.amounts.account_fen
    entry.family_fen = back.amounts.family_fen
    entry.cash_fen = back.amounts.cash_fen
    return entry
