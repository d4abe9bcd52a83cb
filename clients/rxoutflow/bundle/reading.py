"""From the bytes of a bundle to statements that somebody answers for, and that a log keeps.

Every statement is verified as of the time at which the log received it, so signatures stay good
when certificates expire. Trust comes from the caller's store; lists in the bundle are offered to it
and count only if the pinned registries signed them. Nothing is read, fetched or looked up here.
"""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise

from google.protobuf.message import DecodeError

from rxoutflow.bundle.chain import check_chain
from rxoutflow.bundle.model import BundleReason, BundleRefused, LoggedContent, VerifiedBundle
from rxoutflow.log.checkpoint import CheckpointWrong, Head, verify_checkpoint
from rxoutflow.log.receipts import ReceiptWrong, verify_leaf
from rxoutflow.statements import Bounds, StatementError, Verifier, check_wire
from rxoutflow.statements.payloads import RULES
from rxoutflow.trust import TrustListRefused, TrustListRollback, TrustStore
from rxoutflow.v1.evidence_pb2 import EvidenceBundle, LoggedStatement
from rxoutflow.v1.statement_pb2 import SignedStatement

_BOUNDS = Bounds(max_bytes=128 << 20, max_elements=16_000_000)
_RULES = {rule.payload_type: rule for rule in RULES}


def read_bundle(data: bytes) -> EvidenceBundle:
    """Parse a bundle, without judging it.

    Raises:
        BundleRefused: it is not in plain wire form.
    """
    try:
        check_wire(data, EvidenceBundle.DESCRIPTOR, _BOUNDS)
        return EvidenceBundle.FromString(data)
    except (StatementError, DecodeError) as error:
        raise BundleRefused(BundleReason.MALFORMED, str(error)) from None


def verify_bundle(bundle: EvidenceBundle, trust: TrustStore, now: datetime) -> VerifiedBundle:
    """What a bundle shows, if everything in it verifies and fits together.

    Args:
        bundle: as it was received.
        trust: whom to trust. Newer lists of the bundle are taken into it.
        now: the time, aware; trust lists are judged as of it.

    Raises:
        BundleRefused: saying what does not hold.
    """
    for trust_list in bundle.trust_lists:
        _take(trust_list, trust, now)
    verifier = Verifier(trust)
    head = _head(bundle, verifier, now)
    _require_order(bundle)
    number = bundle.prescription_number
    statements = tuple(_verified(each, head, verifier, now) for each in bundle.statements)
    verified = VerifiedBundle(number, head, statements)
    check_chain(verified)
    return verified


def _take(trust_list: SignedStatement, trust: TrustStore, now: datetime) -> None:
    """Offer a list to the store. An older one than is held is authentic all the same."""
    try:
        trust.offer(trust_list, now)
    except TrustListRollback:
        return
    except TrustListRefused as error:
        raise BundleRefused(BundleReason.TRUST_LIST, str(error)) from None


def _head(bundle: EvidenceBundle, verifier: Verifier, now: datetime) -> Head:
    try:
        return verify_checkpoint(bundle.checkpoint, verifier, now, region_code=bundle.region_code)
    except CheckpointWrong as error:
        raise BundleRefused(BundleReason.CHECKPOINT, str(error)) from None


def _require_order(bundle: EvidenceBundle) -> None:
    """The statements stand in the order of the log, and none twice."""
    if any(one.leaf_index >= other.leaf_index for one, other in pairwise(bundle.statements)):
        raise BundleRefused(
            BundleReason.NOT_LOGGED, "the statements must stand in the order of the log, each once"
        )


def _verified(
    logged: LoggedStatement, head: Head, verifier: Verifier, now: datetime
) -> LoggedContent:
    """A statement that the log keeps, verified as of then."""
    statement = logged.statement
    rule = _RULES.get(statement.payload_type)
    if rule is None:
        raise BundleRefused(BundleReason.STATEMENT, "a statement is of an unknown kind")
    where = f"{rule.name} at leaf {logged.leaf_index}"
    path = logged.inclusion_path
    try:
        time = verify_leaf(statement, logged.leaf_index, logged.keep_time, path, head)
        verified = verifier.verify(statement, rule.message, now, at=time)
    except ReceiptWrong as error:
        raise BundleRefused(BundleReason.NOT_LOGGED, f"{where}: {error}") from None
    except StatementError as error:
        reason = f"{where}: {error.reason}: {error.message}"
        raise BundleRefused(BundleReason.STATEMENT, reason) from None
    return LoggedContent(
        rule.name, verified.content, verified.signers, verified.sha256, logged.leaf_index, time
    )
