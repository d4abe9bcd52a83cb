"""What a prescription brought into the books of sales and receivables, and to the counts, replayed.

A region that is home, payer and dispensing region at once keeps a payer's word once, and each role
hears of it in its own time. So the steps, which are appended in the transaction in which a role
acts on a statement, say what was acted on and in which order; the statements that they name say
what it was. Each is booked and counted again by the functions that did it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rxoutflow.v1 import attempt_pb2, dispense_pb2, settlement_pb2
from rxoutflow.v1.prescription_pb2 import Prescription as PrescriptionSheet
from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow_server.application.agreements import count_reversal, count_settlement
from rxoutflow_server.application.clearing.books import (
    book_returned_sale,
    book_reversal,
    book_sale,
    book_settlement,
    local_day,
    price_back,
)
from rxoutflow_server.application.messages import (
    amounts,
    committed_lines,
    instant,
    returned_lines,
)
from rxoutflow_server.application.ports import RegionRole, TraceStep, Transaction
from rxoutflow_server.application.recompute.evidence import Evidence, M, NotReplayable
from rxoutflow_server.domain.attempt import LineQuantity
from rxoutflow_server.domain.dispense import Dispense, DispenseState
from rxoutflow_server.domain.errors import InvariantBroken, Refusal
from rxoutflow_server.domain.ledger import Book
from rxoutflow_server.domain.returns import quantities, returned_before


def replay_books(
    fresh: Transaction,
    region_code: str,
    number: str,
    evidence: Evidence,
    steps: Sequence[TraceStep],
) -> None:
    """Write into an empty store what a region sold, is owed and counted for a prescription.

    Args:
        fresh: where to.
        region_code: whose books they are.
        number: of any prescription of which something is kept.
        evidence: everything that is kept about it.
        steps: what the roles of the region did for it, in order.

    Raises:
        NotReplayable: a statement is missing, or a step names what cannot have led to it.
    """
    try:
        _Replay(fresh, region_code, number, evidence).run(steps)
    except (Refusal, InvariantBroken, KeyError) as error:
        raise NotReplayable(f"the books contradict the statements: {error}") from error


class _Replay:
    def __init__(
        self, fresh: Transaction, region_code: str, number: str, evidence: Evidence
    ) -> None:
        self._fresh = fresh
        self._region_code = region_code
        self._number = number
        self._evidence = evidence
        self._heard: dict[str, bytes] = {}
        """The payer's newest word that the dispensing region had, by settlement."""
        self._back: dict[str, list[tuple[LineQuantity, ...]]] = {}
        """What came back so far, by settlement."""

    def run(self, steps: Sequence[TraceStep]) -> None:
        for step in steps:
            effect = _EFFECTS.get((step.role, step.action))
            if effect is not None:
                effect(self, step)
        self._require_all_steps({(step.role, step.statement_sha256) for step in steps})

    def _require_all_steps(self, acted: set[tuple[RegionRole, bytes]]) -> None:
        """What only the dispensing role can have kept has its step, whichever is the last one."""
        attempts = self._evidence.of_kind(attempt_pb2.Attempt)
        code = self._region_code
        own = {each.attempt_id for each in attempts if each.dispensing_region_code == code}
        for kept in self._evidence.kept:
            content = kept.read(dispense_pb2.DispenseRecord) or kept.read(
                dispense_pb2.DispenseReturn
            )
            if content is None or content.attempt_id not in own:
                continue
            if (RegionRole.DISPENSING, kept.sha256) not in acted:
                raise NotReplayable("a step after a handover or a return is not kept any more")

    def _held(self, step: TraceStep) -> None:
        content = self._named(step, settlement_pb2.Settlement)
        self._heard[content.settlement_id] = step.statement_sha256

    def _sold(self, step: TraceStep) -> None:
        record = self._named(step, dispense_pb2.DispenseRecord)
        book_sale(self._fresh, self._dispense(record.settlement_id), record)

    def _paid(self, step: TraceStep) -> None:
        content, sha256 = self._named(step, settlement_pb2.Settlement), step.statement_sha256
        self._heard[content.settlement_id] = sha256
        pharmacy = self._dispense(content.settlement_id).pharmacy_code
        book_settlement(self._fresh, Book.RECEIVABLE, step.actor_code, content)
        count_settlement(self._fresh, pharmacy, content, sha256)

    def _taken_back(self, step: TraceStep) -> None:
        """Book at once what goes back where the patient paid alone; else the payer says it."""
        content = self._named(step, dispense_pb2.DispenseReturn)
        dispense = self._dispense(content.settlement_id)
        back = quantities(returned_lines(content))
        earlier = self._back.setdefault(content.settlement_id, [])
        if not dispense.insured:
            cash = price_back(self._fresh, dispense, returned_before(earlier), back)
            day = local_day(instant(content.return_time))
            book_returned_sale(self._fresh, dispense, content.reversal_id, cash, day)
        earlier.append(back)

    def _reversed(self, step: TraceStep) -> None:
        content = self._named(step, settlement_pb2.Reversal)
        dispense = self._dispense(content.settlement_id)
        book_reversal(self._fresh, Book.RECEIVABLE, step.actor_code, content)
        count_reversal(self._fresh, dispense.pharmacy_code, content, step.statement_sha256)
        returned = self._evidence.named(content.cause_sha256, "a return").read(
            dispense_pb2.DispenseReturn
        )
        if returned is None:
            raise NotReplayable(f"reversal {content.reversal_id} is for no return")
        day, cash = local_day(instant(returned.return_time)), amounts(content.amounts)
        book_returned_sale(self._fresh, dispense, content.reversal_id, cash, day)

    def _payment_counted(self, step: TraceStep) -> None:
        content = self._named(step, settlement_pb2.Settlement)
        count_settlement(self._fresh, self._issuer(), content, step.statement_sha256)

    def _reversal_counted(self, step: TraceStep) -> None:
        content = self._named(step, settlement_pb2.Reversal)
        count_reversal(self._fresh, self._issuer(), content, step.statement_sha256)

    def _issuer(self) -> str:
        for sheet in self._evidence.of_kind(PrescriptionSheet):
            return sheet.issuer.institution_code
        raise NotReplayable("the prescription itself is not kept any more")

    def _named(self, step: TraceStep, kind: type[M]) -> M:
        what = f'what step "{step.action}" was about'
        content = self._evidence.named(step.statement_sha256, what).read(kind)
        if content is None:
            raise NotReplayable(f'step "{step.action}" names a statement of another kind')
        return content

    def _dispense(self, settlement_id: str) -> Dispense:
        """As the commitment has it, with the statements that booking reads."""
        for kept in self._evidence.kept:
            content = kept.read(attempt_pb2.Commitment)
            if content is not None and content.settlement_id == settlement_id:
                break
        else:
            raise NotReplayable(
                f"the commitment of settlement {settlement_id} is not kept any more"
            )
        heard = self._heard.get(settlement_id, b"")
        for sha256 in (kept.sha256, heard):
            self._show(sha256)
        return Dispense(
            prescription_number=self._number,
            settlement_id=settlement_id,
            attempt_id=content.attempt_id,
            fence=content.fence,
            pharmacy_code=content.pharmacy_code,
            payer_region_code="",
            insured_person_id="",
            insured=content.mode != settlement_pb2.SETTLEMENT_MODE_SELF_PAY,
            lines=committed_lines(content.lines),
            state=DispenseState.DISPENSED,
            create_time=kept.keep_time,
            update_time=kept.keep_time,
            request_id="",
            commitment_sha256=kept.sha256,
            pricing_sha256=b"",
            settlement_sha256=heard,
        )

    def _show(self, sha256: bytes) -> None:
        """Have a statement in the journal that booking reads; only its content counts there."""
        kept = self._evidence.find(sha256)
        if kept is not None:
            statement = SignedStatement(payload_type=kept.payload_type, payload=kept.payload)
            self._fresh.journal.keep_statement(self._number, sha256, statement, kept.keep_time)


_EFFECTS: dict[tuple[RegionRole, str], Callable[[_Replay, TraceStep], None]] = {
    (RegionRole.DISPENSING, "hold confirmed"): _Replay._held,
    (RegionRole.DISPENSING, "handed over"): _Replay._sold,
    (RegionRole.DISPENSING, "payment known"): _Replay._paid,
    (RegionRole.DISPENSING, "taken back"): _Replay._taken_back,
    (RegionRole.DISPENSING, "reversal known"): _Replay._reversed,
    (RegionRole.HOME, "settlement known"): _Replay._payment_counted,
    (RegionRole.HOME, "reversal known"): _Replay._reversal_counted,
}
"""The steps that come with an entry in a book or a count."""
