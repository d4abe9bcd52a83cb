"""What supervision and other platforms see of the region's log.

Everything here can be checked by whoever asked: a checkpoint is signed, a proof leads to it, and
leaves are what the root is computed from. Only supervision sees leaves and statements; platforms
see how long the log is and its root.
"""

from __future__ import annotations

from collections.abc import Iterable

from rxoutflow.identity import CallerName
from rxoutflow.log.merkle import HASH_BYTES
from rxoutflow.v1.evidence_pb2 import EvidenceBundle, LoggedStatement
from rxoutflow.v1.peer_service_pb2 import GetCheckpointRequest, GetCheckpointResponse
from rxoutflow.v1.statement_pb2 import ProtectedHeader, SignedStatement
from rxoutflow.v1.supervision_service_pb2 import (
    ExportEvidenceRequest,
    ExportEvidenceResponse,
    GetConsistencyProofRequest,
    GetConsistencyProofResponse,
    GetInclusionProofRequest,
    GetInclusionProofResponse,
    ListLogEntriesRequest,
    ListLogEntriesResponse,
    LogEntry,
    SupervisionServiceGetCheckpointRequest,
    SupervisionServiceGetCheckpointResponse,
)
from rxoutflow_server.application.log import proofs
from rxoutflow_server.application.messages import timestamp
from rxoutflow_server.application.ports import LogCheckpoint, LogRecords, Transaction
from rxoutflow_server.application.region import Region, routed
from rxoutflow_server.application.validation import invalid
from rxoutflow_server.domain.errors import Reason, Refusal, Unavailable

MAX_ENTRIES = 1000
"""Leaves to an answer, at most."""


def checkpoint_for_platform(
    tx: Transaction, region: Region, caller: CallerName, request: GetCheckpointRequest
) -> GetCheckpointResponse:
    """The newest checkpoint, with the proof that it contains what the caller saw before.

    Raises:
        Refusal: FIELD_INVALID.
    """
    if request.held_size < 0:
        raise invalid("held_size", "must be the size of a checkpoint, or 0")
    newest = tx.log.checkpoint()
    if newest is None:
        return GetCheckpointResponse()
    path = []
    if 0 < request.held_size < newest.size:
        path = proofs.consistency_path(tx.log, request.held_size, newest.size)
    return GetCheckpointResponse(
        checkpoint=proofs.checkpoint_message(newest), consistency_path=path
    )


def checkpoint(
    tx: Transaction, region: Region, request: SupervisionServiceGetCheckpointRequest
) -> SupervisionServiceGetCheckpointResponse:
    """The newest checkpoint, and what this platform saw of others' logs."""
    newest = tx.log.checkpoint()
    return SupervisionServiceGetCheckpointResponse(
        checkpoint=None if newest is None else proofs.checkpoint_message(newest),
        seen_checkpoints=[
            SupervisionServiceGetCheckpointResponse.SeenCheckpoint(
                region_code=seen.region_code,
                checkpoint=proofs.checkpoint_message(seen.checkpoint),
                see_time=timestamp(seen.checkpoint.time),
                contradicts=seen.contradicts,
            )
            for seen in tx.log.all_seen()
        ],
    )


def consistency_proof(
    tx: Transaction, region: Region, request: GetConsistencyProofRequest
) -> GetConsistencyProofResponse:
    """That the log at one size is the beginning of the log at another.

    Raises:
        Refusal: FIELD_INVALID for sizes that the log has not reached.
    """
    newest = _newest_size(tx.log)
    second = request.second_size or newest
    if not 1 <= second <= newest:
        raise invalid("second_size", f"must be 1 to {newest}, the size of the newest checkpoint")
    if not 1 <= request.first_size <= second:
        raise invalid("first_size", f"must be 1 to {second}")
    path = proofs.consistency_path(tx.log, request.first_size, second)
    return GetConsistencyProofResponse(consistency_path=path, second_size=second)


def inclusion_proof(
    tx: Transaction, region: Region, request: GetInclusionProofRequest
) -> GetInclusionProofResponse:
    """That the log keeps a statement.

    Raises:
        Refusal: FIELD_INVALID, PRESCRIPTION_NUMBER_INVALID, or PRESCRIPTION_NOT_FOUND if it does
            not keep it.
    """
    routed(request.prescription_number)
    if len(request.statement_sha256) != HASH_BYTES:
        raise invalid("statement_sha256", f"must be {HASH_BYTES} bytes")
    receipt = proofs.receipt(tx.log, request.prescription_number, request.statement_sha256)
    if receipt is None:
        raise _not_kept()
    return GetInclusionProofResponse(receipt=receipt)


def list_entries(
    tx: Transaction, region: Region, request: ListLogEntriesRequest
) -> ListLogEntriesResponse:
    """Leaves in the order of the log.

    Raises:
        Refusal: FIELD_INVALID.
    """
    if request.start_index < 0:
        raise invalid("start_index", "must be at least 0")
    if not 0 <= request.page_size <= MAX_ENTRIES:
        raise invalid("page_size", f"must be 1 to {MAX_ENTRIES}, or 0")
    leaves = tx.log.leaves(request.start_index, request.page_size or MAX_ENTRIES)
    return ListLogEntriesResponse(
        entries=[
            LogEntry(
                leaf_index=leaf.index,
                statement_sha256=leaf.statement_sha256,
                payload_type=leaf.payload_type,
                keep_time=timestamp(leaf.keep_time),
            )
            for leaf in leaves
        ]
    )


def export(
    tx: Transaction, region: Region, request: ExportEvidenceRequest
) -> ExportEvidenceResponse:
    """Everything that this region keeps about a prescription, as a sheet that proves itself.

    Raises:
        Refusal: PRESCRIPTION_NUMBER_INVALID, or PRESCRIPTION_NOT_FOUND if nothing is kept.
        Unavailable: SIGNER_UNAVAILABLE while the newest statements are under no signed checkpoint.
    """
    number = request.prescription_number
    routed(number)
    kept, newest = tx.journal.statements(number), tx.log.checkpoint()
    if not kept:
        raise _not_kept()
    if newest is None:
        raise _not_signed()
    logged = [_logged(tx.log, number, sha256, each, newest) for sha256, each in kept]
    logged.sort(key=lambda each: each.leaf_index)
    bundle = EvidenceBundle(
        prescription_number=number,
        region_code=region.code,
        checkpoint=proofs.checkpoint_message(newest),
        statements=logged,
        trust_lists=_trust_lists(region, (each for _, each in kept)),
    )
    return ExportEvidenceResponse(bundle=bundle)


def _logged(
    records: LogRecords,
    number: str,
    sha256: bytes,
    statement: SignedStatement,
    newest: LogCheckpoint,
) -> LoggedStatement:
    leaf = records.leaf(number, sha256)
    if leaf is None or leaf.index >= newest.size:
        raise _not_signed()
    return LoggedStatement(
        statement=statement,
        leaf_index=leaf.index,
        keep_time=timestamp(leaf.keep_time),
        inclusion_path=proofs.inclusion_path(records, leaf.index, newest.size),
    )


def _trust_lists(region: Region, statements: Iterable[SignedStatement]) -> list[SignedStatement]:
    """The lists of everybody who signed, and of this region, whose platform signs the log."""
    codes = {region.code} | {
        ProtectedHeader.FromString(signature.protected).region_code
        for statement in statements
        for signature in statement.signatures
    }
    lists = [region.trust.statement(code) for code in sorted(codes)]
    return [each for each in lists if each is not None]


def _newest_size(records: LogRecords) -> int:
    newest = records.checkpoint()
    return 0 if newest is None else newest.size


def _not_kept() -> Refusal:
    return Refusal(Reason.PRESCRIPTION_NOT_FOUND, "this region keeps no such statement in its log")


def _not_signed() -> Unavailable:
    return Unavailable(
        Reason.SIGNER_UNAVAILABLE,
        "the newest statements are under no signed checkpoint yet; try again in a minute",
    )
