"""What really happened, whatever any computer stored: medicine in hands, answers heard."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rxoutflow.v1 import attempt_pb2, dispense_pb2
from rxoutflow_server.domain.attempt import AttemptState
from support import invariants
from support.invariants import Answer

if TYPE_CHECKING:
    from simulation.world import World

Finding = attempt_pb2.Adjudication.Finding


class Truth:
    """The patients' view, and what clients were promised."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.handed_over: dict[str, Counter[int]] = {}
        """By attempt: quantities by line."""
        self.carried_home: Counter[tuple[str, int]] = Counter()
        """By prescription and line, less what was brought back."""
        self.brought_back: dict[str, None] = {}
        """Returns by their id."""
        self.records: dict[str, None] = {}
        """Settlements whose record was accepted."""
        self.released: dict[str, None] = {}
        """Attempts of which a pharmacy has signed, or is about to sign, that nothing was given."""
        self.heard: list[Answer] = []
        """Every OK to a request whose outcome has to be stored."""
        self.acknowledged: list[tuple[str, str, str]] = []
        """Events: sender, receiver and id."""

    def hand_over(self, pharmacy: str, case_id: str, commitment: attempt_pb2.Commitment) -> None:
        """A patient gets the medicine of a commitment; the same commitment only once.

        Raises:
            Violation: I3, if home has not committed the attempt; I1, if it is more than authorised.
        """
        attempt_id, number = commitment.attempt_id, commitment.prescription_number
        if attempt_id in self.handed_over:
            return
        if attempt_id in self.released:
            raise AssertionError("a script hands over what it released")
        self._world.note(pharmacy, "handover", f"{case_id} {attempt_id}")
        prescription, attempts = self._world.ledgers[number[:6]].prescription(number)
        attempt = attempts.get(attempt_id)
        state = attempt.state if attempt is not None else None
        if prescription is None or state is not AttemptState.COMMITTED:
            raise invariants.Violation("I3", f"handed over for an attempt that is {state} at home")
        self.handed_over[attempt_id] = Counter()
        authorised = {line.line_id: line.authorised for line in prescription.lines}
        for line in commitment.lines:
            self.handed_over[attempt_id][line.line_id] += line.quantity
            self.carried_home[number, line.line_id] += line.quantity
            carried = self.carried_home[number, line.line_id]
            invariants.check_handed_over(authorised[line.line_id], carried)

    def bring_back(self, pharmacy: str, content: dispense_pb2.DispenseReturn) -> None:
        """A patient brings medicine back."""
        if content.reversal_id in self.brought_back:
            return
        self.brought_back[content.reversal_id] = None
        self._world.note(pharmacy, "back", content.reversal_id)
        for line in content.lines:
            self.carried_home[content.prescription_number, line.line_id] -= line.quantity

    def recorded(self, commitment: attempt_pb2.Commitment) -> None:
        """The record of a handover was accepted."""
        self.records[commitment.settlement_id] = None

    def let_go(self, attempt_id: str) -> None:
        """A pharmacy decides to release: it will hand nothing over."""
        if attempt_id in self.handed_over:
            raise AssertionError("a script releases what it handed over")
        self.released[attempt_id] = None

    def finding(self, attempt: attempt_pb2.Attempt) -> Finding.ValueType | None:
        """What two people find out about an attempt; nothing while its pharmacy is still at it."""
        if attempt.attempt_id in self.handed_over:
            return attempt_pb2.Adjudication.FINDING_HANDED_OVER
        client = self._world.clients[attempt.pharmacy_code]
        if any(
            not case.end and case.facts.get("number") == attempt.prescription_number
            for case in client.cases.values()
        ):
            return None
        self.let_go(attempt.attempt_id)
        return attempt_pb2.Adjudication.FINDING_NOT_HANDED_OVER
