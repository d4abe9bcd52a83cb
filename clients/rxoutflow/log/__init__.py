"""The verifiable log of a region, as its clients see it: proofs, checkpoints and receipts.

A region's platform keeps every statement in a Merkle log (RFC 6962) and signs its head (C2SP
tlog-checkpoint). Whoever holds the region's trust list can verify here, without asking anybody,
that a statement is in the log and that the log was only ever added to.
"""

from rxoutflow.log.checkpoint import CheckpointWrong, Head, origin_of, sign_head, verify_checkpoint
from rxoutflow.log.merkle import ProofWrong, verify_consistency, verify_inclusion
from rxoutflow.log.receipts import LoggedAt, ReceiptWrong, leaf_data, verify_receipt

__all__ = [
    "CheckpointWrong",
    "Head",
    "LoggedAt",
    "ProofWrong",
    "ReceiptWrong",
    "leaf_data",
    "origin_of",
    "sign_head",
    "verify_checkpoint",
    "verify_consistency",
    "verify_inclusion",
    "verify_receipt",
]
