"""I11 chain: what a region exports about a prescription stands by itself, without its database.

The bundle is verified from nothing but itself and the pinned registries: who signed what, that the
log kept it, and that each step names the one that led to it. A prescription that was dispensed and
paid must show the whole chain, from the sheet to the money.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from google.protobuf.message import Message

from rxoutflow.log.checkpoint import CheckpointWrong, verify_checkpoint
from rxoutflow.log.receipts import ReceiptWrong, verify_leaf
from rxoutflow.statements import StatementError, Verifier, statement_sha256
from rxoutflow.statements.payloads import RULES
from rxoutflow.trust import TrustListRefused, TrustStore
from rxoutflow.v1 import attempt_pb2, dispense_pb2, prescription_pb2
from rxoutflow.v1.attempt_pb2 import Attempt
from rxoutflow.v1.evidence_pb2 import EvidenceBundle
from rxoutflow.v1.settlement_pb2 import Settlement
from support.invariants.records import RegionRecords
from support.invariants.violation import Violation, hold

_MESSAGES = {rule.payload_type: rule.message for rule in RULES}
_CAUSES: Mapping[Attempt.State.ValueType, tuple[type[Message], ...]] = {
    Attempt.STATE_RESERVED: (attempt_pb2.Claim,),
    Attempt.STATE_COMMITTED: (attempt_pb2.Commitment,),
    Attempt.STATE_DISPENSED: (dispense_pb2.DispenseRecord, attempt_pb2.Adjudication),
    Attempt.STATE_RELEASED: (
        attempt_pb2.ClaimRelease,
        attempt_pb2.Correction,
        attempt_pb2.Adjudication,
    ),
}

Export = Callable[[str], EvidenceBundle]
"""What a region exports about a prescription, by its number."""


def check_chain(bundle: EvidenceBundle, registries: Mapping[str, str], now: datetime) -> None:
    """I11: every statement verifies and is in the log, and every step has its cause beside it.

    ``registries`` are the pins by which anybody trusts a region; see ``TrustStore``.
    """
    contents = _verified(bundle, registries, now)
    number = bundle.prescription_number
    for digest, content in contents.items():
        mine = getattr(content, "prescription_number", number) == number
        hold("I11", mine, f"the bundle of {number} holds {digest.hex()}, which is of another one")
        if isinstance(content, Attempt):
            _check_cause(content, contents)
    sheets = [each for each in contents.values() if isinstance(each, prescription_pb2.Prescription)]
    hold("I11", len(sheets) == 1, f"the bundle of {number} holds {len(sheets)} prescriptions")


def check_chains(
    home: RegionRecords, export: Export, registries: Mapping[str, str], now: datetime
) -> int:
    """I11, of a home region: the bundles of all that was dispensed; how many there are.

    Each shows for a dispensed attempt the commit, the record and, if the fund pays, the payment.
    """
    dispensed = [each for each in home.attempts if each.state.value == "dispensed"]
    for attempt in dispensed:
        bundle = export(attempt.prescription_number)
        check_chain(bundle, registries, now)
        _check_whole(bundle, attempt.attempt_id, attempt.settlement_id)
    return len(dispensed)


def _check_whole(bundle: EvidenceBundle, attempt_id: str, settlement_id: str) -> None:
    contents = list(_contents(bundle).values())
    states = {
        each.state
        for each in contents
        if isinstance(each, Attempt) and each.attempt_id == attempt_id
    }
    wanted = {Attempt.STATE_RESERVED, Attempt.STATE_COMMITTED, Attempt.STATE_DISPENSED}
    hold("I11", wanted <= states, f"the bundle tells of attempt {attempt_id} only {states}")
    paid = any(
        isinstance(each, Settlement)
        and (each.settlement_id, each.state) == (settlement_id, Settlement.STATE_POSTED)
        for each in contents
    )
    hold("I11", paid or not settlement_id, f"the bundle shows no payment of {settlement_id}")


def _check_cause(attempt: Attempt, contents: Mapping[bytes, Message]) -> None:
    wanted = _CAUSES.get(attempt.state)
    if wanted is None:
        return
    cause = contents.get(attempt.cause_sha256)
    state = Attempt.State.Name(attempt.state)
    fits = isinstance(cause, wanted)
    hold("I11", fits, f"attempt {attempt.attempt_id} is {state}, and its cause is not there")


def _verified(
    bundle: EvidenceBundle, registries: Mapping[str, str], now: datetime
) -> dict[bytes, Message]:
    """What the statements say, once all that can be verified of them has been."""
    trust = TrustStore(registries)
    verifier = Verifier(trust)
    try:
        for each in bundle.trust_lists:
            trust.offer(each, now)
        head = verify_checkpoint(bundle.checkpoint, verifier, now, region_code=bundle.region_code)
        for logged in bundle.statements:
            kept = logged.keep_time.ToDatetime(UTC)
            kind = _MESSAGES[logged.statement.payload_type]
            verifier.verify(logged.statement, kind, now, at=kept)
            path = logged.inclusion_path
            verify_leaf(logged.statement, logged.leaf_index, logged.keep_time, path, head)
    except (StatementError, TrustListRefused, CheckpointWrong, ReceiptWrong) as error:
        what = f"the bundle of {bundle.prescription_number} does not verify: {error}"
        raise Violation("I11", what) from error
    return _contents(bundle)


def _contents(bundle: EvidenceBundle) -> dict[bytes, Message]:
    return {
        statement_sha256(each.statement): _MESSAGES[each.statement.payload_type].FromString(
            each.statement.payload
        )
        for each in bundle.statements
    }
