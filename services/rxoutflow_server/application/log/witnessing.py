"""Watching the logs of other regions: what was seen once must be there ever after.

A platform keeps the newest checkpoint that it saw of each peer, and takes a newer one only with the
proof that it contains the one before. A log that was rewritten (a *fork*) or cut off (a
*rollback*) is reported to the operator; the checkpoint that shows it is kept beside the one that it
contradicts. Both are signed, so they convict the platform that signed them before anybody.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import structlog

from rxoutflow.log.checkpoint import CheckpointWrong, Head, verify_checkpoint
from rxoutflow.log.merkle import ProofWrong, verify_consistency
from rxoutflow.v1.peer_service_pb2 import GetCheckpointRequest, GetCheckpointResponse
from rxoutflow_server.application.dispensing.exchange import Exchange
from rxoutflow_server.application.ports import LogCheckpoint, SeenCheckpoint

log = structlog.get_logger()


class Verdict(StrEnum):
    """What a peer's newest checkpoint is, beside the one that was seen before."""

    CONSISTENT = "consistent"
    FORK = "fork"
    """It does not contain what was seen before."""
    ROLLBACK = "rollback"
    """It is smaller than what was seen before, or gone."""
    UNSIGNED = "unsigned"
    """It is not signed by the platform of that region."""


async def watch(exchange: Exchange, peer: str) -> Verdict:
    """Ask a peer for its newest checkpoint and judge it.

    Raises:
        Refusal, Unavailable: the peer was not reached, or does not answer this.
    """
    store = exchange.store
    held = await store.read(lambda tx: tx.log.seen(peer))
    request = GetCheckpointRequest(held_size=0 if held is None else held.size)
    response = await exchange.peers.region(peer).get_checkpoint(request)
    now = exchange.region.now()
    if not response.HasField("checkpoint"):
        return _reported(peer, Verdict.CONSISTENT if held is None else Verdict.ROLLBACK, held, 0)
    try:
        head = verify_checkpoint(
            response.checkpoint, exchange.region.verifier, now, region_code=peer
        )
    except CheckpointWrong:
        return _reported(peer, Verdict.UNSIGNED, held, 0)
    verdict = _judged(held, head, response)
    seen = SeenCheckpoint(peer, _seen(head, response, now), verdict is not Verdict.CONSISTENT)
    if held is None or seen.checkpoint.note != held.note:
        await store.transact(lambda tx: tx.log.see(seen))
    return _reported(peer, verdict, held, head.size)


def _judged(held: LogCheckpoint | None, head: Head, response: GetCheckpointResponse) -> Verdict:
    if held is None:
        return Verdict.CONSISTENT
    if head.size < held.size:
        return Verdict.ROLLBACK
    try:
        verify_consistency(held.size, head.size, held.root, head.root, response.consistency_path)
    except ProofWrong:
        return Verdict.FORK
    return Verdict.CONSISTENT


def _seen(head: Head, response: GetCheckpointResponse, now: datetime) -> LogCheckpoint:
    checkpoint = response.checkpoint
    chain = tuple(checkpoint.certificate_chain)
    return LogCheckpoint(head.size, head.root, now, checkpoint.note, chain)


def _reported(peer: str, verdict: Verdict, held: LogCheckpoint | None, size: int) -> Verdict:
    """The verdict; the operator hears of every one but the good, for as long as it lasts."""
    if verdict is not Verdict.CONSISTENT:
        held_size = 0 if held is None else held.size
        log.error(
            "peer_log_contradicts", peer=peer, kind=str(verdict), size=size, held_size=held_size
        )
    return verdict
