"""Receipts of what this client sent: verified when they come, and kept if there is a folder.

An answer is an answer whatever its receipt: one that is wrong is logged and handed out as wrong,
with the answer beside it, because what was answered has taken effect. A receipt that is missing is
no fault either; the same request, sent again later, gets one.

A file holds the contract's ``KeptReceipt``: the statement and its receipt, good for ever.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from google.protobuf.message import DecodeError

from rxoutflow.client.evidence import EvidenceReader
from rxoutflow.errors import InvalidInput
from rxoutflow.log.receipts import LoggedAt, ReceiptWrong
from rxoutflow.statements import StatementError, check_wire
from rxoutflow.v1.evidence_pb2 import KeptReceipt
from rxoutflow.v1.statement_pb2 import Receipt, SignedStatement

SUFFIX = ".rxreceipt"
WRONG_SUFFIX = ".rxreceipt-wrong"

_log = logging.getLogger("rxoutflow.receipts")


class Answer(Protocol):
    """An answer that may carry a receipt."""

    @property
    def receipt(self) -> Receipt:
        """The receipt."""


@dataclass(frozen=True, slots=True)
class CheckedReceipt:
    """A receipt and what it is about; ``logged`` if it verified, else ``problem`` says why not."""

    receipt: Receipt
    statement: SignedStatement
    logged: LoggedAt | None
    problem: str = ""


class ReceiptBook:
    """The receipts of one client.

    Args:
        evidence: whom to trust.
        folder: where to keep them; nowhere if ``None``.
    """

    def __init__(self, evidence: EvidenceReader, folder: Path | None) -> None:
        self._evidence = evidence
        self._folder = folder
        self.last: CheckedReceipt | None = None
        """The receipt of the last answer; ``None`` if it came without one."""

    def take(
        self,
        answer: Answer,
        sealed: SignedStatement,
        sent: SignedStatement,
        region_code: str,
    ) -> CheckedReceipt | None:
        """Verify and keep the receipt of an answer, if it has one. Raises nothing.

        ``sealed`` is what was ``sent`` with the institution's seal, and what the receipt is about;
        ``region_code`` is the region whose log must keep it.
        """
        self.last = None
        if answer.receipt.ByteSize():
            self.last = self._checked(answer.receipt, sealed, sent, region_code)
            self._keep(self.last)
        return self.last

    def _checked(
        self, receipt: Receipt, statement: SignedStatement, sent: SignedStatement, region_code: str
    ) -> CheckedReceipt:
        try:
            _require_sent(statement, sent)
            logged = self._evidence.logged(receipt, statement, region_code)
        except ReceiptWrong as error:
            _log.error(
                "region %s gave a wrong receipt: %s; keep it and tell the region's supervision",
                region_code,
                error,
            )
            return CheckedReceipt(receipt, statement, None, str(error))
        return CheckedReceipt(receipt, statement, logged)

    def _keep(self, checked: CheckedReceipt) -> None:
        if self._folder is None:
            return
        suffix = WRONG_SUFFIX if checked.logged is None else SUFFIX
        kept = KeptReceipt(statement=checked.statement, receipt=checked.receipt)
        name = checked.receipt.statement_sha256[:16].hex() or "unknown"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self._folder / f"{name}{suffix}").write_bytes(kept.SerializeToString())
        except OSError as error:
            _log.error("a receipt could not be kept in %s: %s", self._folder, error.strerror)


def _require_sent(sealed: SignedStatement, sent: SignedStatement) -> None:
    """The edge sealed what it was sent, and nothing else."""
    if sealed.payload != sent.payload:
        raise ReceiptWrong("the receipt is about another statement than was sent")


def read_kept(path: Path) -> KeptReceipt:
    """A receipt that was kept in a file.

    Raises:
        InvalidInput: the file cannot be read or holds something else.
    """
    try:
        data = path.read_bytes()
        check_wire(data, KeptReceipt.DESCRIPTOR)
        return KeptReceipt.FromString(data)
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read: {error.strerror}") from None
    except (StatementError, DecodeError):
        raise InvalidInput(f"{path}: is no receipt of the exchange") from None
