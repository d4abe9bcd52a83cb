"""A dispense as the dispensing region keeps it: how far its pharmacy's work has come.

The dispensing region coordinates but decides nothing for others: it asks the payer to hold and the
home region to commit, and stores each answer before it goes on. After a crash it resumes from the
last stored step; every request it repeats is idempotent at its receiver.

    committing ─hold─▶ held ─commit─▶ committed ─record─▶ dispensed ─booked, posted─▶ completed
        └───────────────┴───────────────┴─release─▶ released
        └───────────────┴─refusal, correction─▶ refused

A pharmacy that stays silent after its commit is adjudicated at home: released, or found dispensed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from rxoutflow_server.domain.attempt import LineQuantity
from rxoutflow_server.domain.errors import InvariantBroken, Reason, Refusal


class DispenseState(StrEnum):
    """Steps, each stored before the next one begins."""

    COMMITTING = "committing"
    HELD = "held"
    COMMITTED = "committed"
    REFUSED = "refused"
    DISPENSED = "dispensed"
    COMPLETED = "completed"
    RELEASED = "released"


@dataclass(frozen=True, slots=True)
class CommittedLine:
    """A line with the product and quantity that the pharmacy committed to hand over."""

    line_id: int
    drug_code: str
    quantity: int


@dataclass(frozen=True, slots=True)
class Dispense:
    """One commitment of one pharmacy and what became of it.

    ``insured`` tells whether the payer region takes a share; without it there is no hold and
    nothing to post. The digests name the statements that a repeated request needs again.
    """

    prescription_number: str
    settlement_id: str
    attempt_id: str
    fence: int
    pharmacy_code: str
    payer_region_code: str
    insured_person_id: str
    insured: bool
    lines: tuple[CommittedLine, ...]
    state: DispenseState
    create_time: datetime
    update_time: datetime
    request_id: str
    commitment_sha256: bytes
    pricing_sha256: bytes
    settlement_sha256: bytes = b""
    record_sha256: bytes = b""
    booked: bool = False
    posted: bool = False

    @property
    def quantities(self) -> tuple[LineQuantity, ...]:
        """What the ledger of the home region moves."""
        return tuple(LineQuantity(line.line_id, line.quantity) for line in self.lines)


_NEXT = {
    DispenseState.COMMITTING: (DispenseState.HELD, DispenseState.REFUSED, DispenseState.RELEASED),
    DispenseState.HELD: (DispenseState.COMMITTED, DispenseState.REFUSED, DispenseState.RELEASED),
    DispenseState.COMMITTED: (DispenseState.DISPENSED, DispenseState.RELEASED),
}
"""A pharmacy may release while the answer to its commit is lost, so from every step before."""

_OPEN = (DispenseState.COMMITTING, DispenseState.HELD, DispenseState.COMMITTED)


def advanced(dispense: Dispense, state: DispenseState, *, now: datetime) -> Dispense:
    """The dispense at its next step.

    Raises:
        InvariantBroken: the step does not follow; the caller must look at the state first.
    """
    if state not in _NEXT.get(dispense.state, ()):
        raise InvariantBroken(f"a dispense that is {dispense.state} cannot become {state}")
    return replace(dispense, state=state, update_time=now)


def let_go(dispense: Dispense, *, now: datetime) -> Dispense:
    """The dispense after its attempt ended without a handover; what was decided otherwise stays.

    Also one whose commit was still being asked for: its answer may have been lost, and whatever
    home answers now is about an attempt that is over.
    """
    if dispense.state not in _OPEN:
        return dispense
    return advanced(dispense, DispenseState.RELEASED, now=now)


def found(dispense: Dispense, *, now: datetime) -> Dispense:
    """The dispense after two people of the home region found the handover.

    From any step but those after the pharmacy's own record: the answer to the commit may have been
    lost here, and a release or a correction that stopped the dispense came too late at home.
    """
    if dispense.state in (DispenseState.DISPENSED, DispenseState.COMPLETED):
        return dispense
    return replace(
        dispense,
        state=DispenseState.DISPENSED,
        posted=dispense.posted or not dispense.insured,
        update_time=now,
    )


def require_as_found(dispense: Dispense, fence: int, lines: tuple[CommittedLine, ...]) -> None:
    """A record that comes after the handover was found says what was committed. It moves nothing.

    Raises:
        Refusal: FENCE_STALE or DISPENSE_MISMATCH.
    """
    if fence != dispense.fence:
        raise Refusal(Reason.FENCE_STALE, f"the attempt's fence is {dispense.fence}, not {fence}")
    if lines != dispense.lines:
        raise Refusal(
            Reason.DISPENSE_MISMATCH,
            "lines, products and quantities must be those of the commitment",
            field="lines",
        )


def corrected(dispense: Dispense, *, now: datetime) -> Dispense:
    """The dispense after its commit was corrected: nobody drives or records it any further.

    Before home has confirmed the commit, the attempt may go on without it, with another commit.
    Afterwards the attempt ends with it.
    """
    if dispense.state in (DispenseState.COMMITTING, DispenseState.HELD):
        return advanced(dispense, DispenseState.REFUSED, now=now)
    return let_go(dispense, now=now)


def recorded(
    dispense: Dispense, fence: int, lines: tuple[CommittedLine, ...], *, now: datetime
) -> Dispense:
    """The dispense after its record, which must say exactly what was committed.

    Raises:
        Refusal: ATTEMPT_NOT_COMMITTED, ATTEMPT_ENDED, FENCE_STALE or DISPENSE_MISMATCH.
    """
    if dispense.state in (DispenseState.COMMITTING, DispenseState.HELD):
        raise Refusal(
            Reason.ATTEMPT_NOT_COMMITTED,
            "the commit has not been confirmed; repeat CommitClaim with its request_id",
        )
    if dispense.state is not DispenseState.COMMITTED:
        raise Refusal(
            Reason.ATTEMPT_ENDED, f"this dispense is {dispense.state}", state=dispense.state
        )
    require_as_found(dispense, fence, lines)
    handed_over = advanced(dispense, DispenseState.DISPENSED, now=now)
    return acknowledged(handed_over, posted=not dispense.insured, now=now)


def acknowledged(
    dispense: Dispense, *, booked: bool = False, posted: bool = False, now: datetime
) -> Dispense:
    """The dispense after home booked it or the payer posted its share; completed after both."""
    booked, posted = dispense.booked or booked, dispense.posted or posted
    completes = dispense.state is DispenseState.DISPENSED and booked and posted
    return replace(
        dispense,
        state=DispenseState.COMPLETED if completes else dispense.state,
        booked=booked,
        posted=posted,
        update_time=now,
    )
