"""A prescription of this region, replayed: registration, attempts, revocation, returns.

Home states each attempt that changes, signed, with the statement that led to it as its cause. So
the stated attempts say which transition came when, and the causes say what was asked for. Each is
made again by the domain's own function, and must give the very attempt that was stated. A lease
that ran out has no cause but time: home's statement of it says when.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from rxoutflow.v1 import attempt_pb2, dispense_pb2, prescription_status_pb2, settlement_pb2
from rxoutflow.v1.prescription_pb2 import Prescription as PrescriptionSheet
from rxoutflow_server.application.home.registration import prescribed
from rxoutflow_server.application.messages import (
    attempt_message,
    cause_of,
    committed_lines,
    instant,
    line_quantities,
    priced_quantities,
    returned_lines,
)
from rxoutflow_server.application.ports import BarredNumber, Transaction
from rxoutflow_server.application.recompute.evidence import Evidence, Kept, M, NotReplayable
from rxoutflow_server.domain import prescription as transitions
from rxoutflow_server.domain.attempt import Attempt, LineQuantity
from rxoutflow_server.domain.errors import InvariantBroken, Refusal
from rxoutflow_server.domain.prescription import (
    AttemptReference,
    Change,
    ClaimTerms,
    Prescription,
    Ruling,
)
from rxoutflow_server.domain.returns import BookedReturn, quantities, returned_before

_State = attempt_pb2.Attempt
_AT_ONCE = timedelta(0)


def replay_prescription(
    fresh: Transaction, number: str, evidence: Evidence, pickup_hash: bytes
) -> None:
    """Write the state to which the evidence leads into an empty store.

    Args:
        fresh: where to.
        number: of a prescription of this region.
        evidence: everything that is kept about it.
        pickup_hash: what is stored; it can be computed from nothing that is kept.

    Raises:
        NotReplayable: a statement is missing, or home has stated what no transition gives.
    """
    try:
        _Replay(fresh, number, evidence, pickup_hash).run()
    except (Refusal, InvariantBroken) as error:
        raise NotReplayable(f"the statements contradict the rules: {error}") from error


class _Replay:
    def __init__(
        self, fresh: Transaction, number: str, evidence: Evidence, pickup_hash: bytes
    ) -> None:
        self._fresh = fresh
        self._number = number
        self._evidence = evidence
        self._pickup_hash = pickup_hash
        self._stated: dict[tuple[str, int], attempt_pb2.Attempt] = {}
        self._wanted_back = False

    def run(self) -> None:
        for each in self._evidence.kept:
            if (sheet := each.read(PrescriptionSheet)) is not None:
                self._register(sheet, each)
            elif (revocation := each.read(prescription_status_pb2.Revocation)) is not None:
                self._revoke(revocation, each)
            elif (attempt := each.read(attempt_pb2.Attempt)) is not None:
                self._attempt(attempt)
            elif (status := each.read(prescription_status_pb2.PrescriptionStatus)) is not None:
                self._status(status)

    @property
    def _prescription(self) -> Prescription | None:
        return self._fresh.home.prescription(self._number)

    def _registered(self) -> Prescription:
        prescription = self._prescription
        if prescription is None:
            raise NotReplayable("the prescription itself is not kept any more")
        return prescription

    def _register(self, sheet: PrescriptionSheet, kept: Kept) -> None:
        if self._prescription is None:
            fresh = prescribed(sheet, kept.sha256, self._pickup_hash, kept.keep_time)
            self._fresh.home.add_prescription(fresh)

    def _revoke(self, revocation: prescription_status_pb2.Revocation, kept: Kept) -> None:
        self._wanted_back = True
        prescription = self._prescription
        if prescription is None:
            issuer = revocation.institution_code
            barred = BarredNumber(self._number, issuer, kept.sha256, kept.keep_time)
            self._fresh.home.bar(barred)
            return
        change, _ = transitions.revoke(prescription, now=kept.keep_time)
        if change.prescription is not prescription:
            self._fresh.home.save(change)

    def _attempt(self, stated: attempt_pb2.Attempt) -> None:
        """Make the transition that led to a stated attempt, at its first statement."""
        key = (stated.attempt_id, stated.state)
        if key in self._stated:
            if self._stated[key] != stated:
                raise NotReplayable(f"attempt {stated.attempt_id} is stated in two ways")
            return
        self._stated[key] = stated
        prescription = self._registered()
        change = _TRANSITIONS[stated.state](self, prescription, stated)
        if attempt_message(change.attempt, prescription.payer_region_code) != stated:
            raise NotReplayable(
                f"attempt {stated.attempt_id} is stated as something else than its cause leads to"
            )
        self._fresh.home.save(change)

    def _claimed(self, prescription: Prescription, stated: attempt_pb2.Attempt) -> Change:
        claim = self._cause(stated, attempt_pb2.Claim)
        terms = ClaimTerms(
            claim.pharmacy_code,
            stated.dispensing_region_code,
            line_quantities(claim.lines),
            stated.cause_sha256,
        )
        begin = instant(stated.create_time)
        lease = instant(stated.lease_expire_time) - begin
        return transitions.claim(
            prescription, terms, attempt_id=stated.attempt_id, now=begin, lease=lease
        )

    def _expired(self, prescription: Prescription, stated: attempt_pb2.Attempt) -> Change:
        change = transitions.expire_lease(prescription, now=instant(stated.update_time))
        if not change.attempts:
            raise NotReplayable(f"the lease of attempt {stated.attempt_id} cannot have run out")
        return change

    def _committed(self, prescription: Prescription, stated: attempt_pb2.Attempt) -> Change:
        content = self._cause(stated, attempt_pb2.Commitment)
        insured = content.mode != settlement_pb2.SETTLEMENT_MODE_SELF_PAY
        return transitions.commit(
            prescription,
            self._known(stated),
            _reference(stated, content.fence),
            priced_quantities(content.lines),
            settlement_id=content.settlement_id if insured else "",
            now=instant(stated.update_time),
        )

    def _dispensed(self, prescription: Prescription, stated: attempt_pb2.Attempt) -> Change:
        cause = self._evidence.named(stated.cause_sha256, "the record of a handover")
        record = cause.read(dispense_pb2.DispenseRecord)
        if record is None:
            return self._adjudicated(prescription, stated)
        return transitions.dispense(
            prescription,
            self._known(stated),
            _reference(stated, record.fence),
            _lines(record),
            now=instant(stated.update_time),
            handover_time=instant(record.dispense_time),
        )

    def _released(self, prescription: Prescription, stated: attempt_pb2.Attempt) -> Change:
        cause = self._evidence.named(stated.cause_sha256, "the release of an attempt")
        if cause.read(attempt_pb2.Adjudication) is not None:
            return self._adjudicated(prescription, stated)
        reference = _reference(stated, stated.fence)
        return transitions.release(
            prescription, self._known(stated), reference, now=instant(stated.update_time)
        )

    def _adjudicated(self, prescription: Prescription, stated: attempt_pb2.Attempt) -> Change:
        content = self._cause(stated, attempt_pb2.Adjudication)
        handed_over = content.finding == attempt_pb2.Adjudication.FINDING_HANDED_OVER
        ruling = Ruling(content.attempt_id, content.fence, handed_over, stated.cause_sha256)
        now = instant(stated.update_time)
        attempt = self._known(stated)
        return transitions.adjudicate(prescription, attempt, ruling, now=now, overdue=_AT_ONCE)

    def _status(self, status: prescription_status_pb2.PrescriptionStatus) -> None:
        """Of all statuses only that after a return has a cause."""
        if not status.cause_sha256:
            return
        content = self._evidence.named(status.cause_sha256, "a return").read(
            dispense_pb2.DispenseReturn
        )
        if content is None:
            raise NotReplayable("the status after a return names another statement as its cause")
        now, attempt_id = instant(status.update_time), content.attempt_id
        back = quantities(returned_lines(content))
        earlier = self._fresh.home.booked_returns(self._number, attempt_id)
        change, again = transitions.take_back(
            self._registered(),
            self._require_attempt(attempt_id),
            back,
            returned_before(each.lines for each in earlier),
            cause_of(content),
            now=now,
            wanted_back=self._wanted_back,
        )
        self._fresh.home.save(change)
        booked = BookedReturn(
            content.reversal_id, self._number, attempt_id, back, again, status.cause_sha256, now
        )
        self._fresh.home.add_booked_return(booked)

    def _known(self, stated: attempt_pb2.Attempt) -> Attempt:
        return self._require_attempt(stated.attempt_id)

    def _require_attempt(self, attempt_id: str) -> Attempt:
        attempt = self._fresh.home.attempt(self._number, attempt_id)
        if attempt is None:
            raise NotReplayable(f"how attempt {attempt_id} began is not kept any more")
        return attempt

    def _cause(self, stated: attempt_pb2.Attempt, kind: type[M]) -> M:
        content = self._evidence.named(stated.cause_sha256, "the cause of an attempt").read(kind)
        if content is None:
            raise NotReplayable(
                f"attempt {stated.attempt_id} names a statement of another kind as its cause"
            )
        return content


def _reference(stated: attempt_pb2.Attempt, fence: int) -> AttemptReference:
    return AttemptReference(stated.attempt_id, fence, stated.pharmacy_code, stated.cause_sha256)


def _lines(record: dispense_pb2.DispenseRecord) -> tuple[LineQuantity, ...]:
    lines = committed_lines(record.lines)
    return tuple(LineQuantity(each.line_id, each.quantity) for each in lines)


_TRANSITIONS: dict[
    attempt_pb2.Attempt.State.ValueType,
    Callable[[_Replay, Prescription, attempt_pb2.Attempt], Change],
] = {
    _State.STATE_RESERVED: _Replay._claimed,
    _State.STATE_EXPIRED: _Replay._expired,
    _State.STATE_COMMITTED: _Replay._committed,
    _State.STATE_DISPENSED: _Replay._dispensed,
    _State.STATE_RELEASED: _Replay._released,
}
