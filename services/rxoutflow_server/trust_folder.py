"""The folder of trust lists: what operators put there counts, without a restart.

A list is offered to the trust store whenever its file changes. The store refuses what is not
authentic or is older than what it holds; the refusal is logged, and the list held stays in force.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import structlog
from google.protobuf.message import DecodeError

from rxoutflow.trust import SUFFIX, Offer, TrustListRefused, TrustStore
from rxoutflow.v1.statement_pb2 import SignedStatement

log = structlog.get_logger()


class TrustFolder:
    """Watches a folder of trust lists for a trust store that was loaded from it."""

    def __init__(self, folder: Path, trust: TrustStore, now: Callable[[], datetime]) -> None:
        self._folder = folder
        self._trust = trust
        self._now = now
        self._seen = self._stamps()

    async def offer_changed(self) -> None:
        """Offer every list whose file has changed since the last look."""
        stamps = self._stamps()
        for path, stamp in stamps.items():
            if self._seen.get(path) != stamp:
                self._offer(path)
        self._seen = stamps

    def _stamps(self) -> dict[Path, tuple[int, int]]:
        stamps = {}
        for path in self._folder.glob(f"*{SUFFIX}"):
            status = path.stat()
            stamps[path] = (status.st_mtime_ns, status.st_size)
        return stamps

    def _offer(self, path: Path) -> None:
        try:
            offer = self._trust.offer(SignedStatement.FromString(path.read_bytes()), self._now())
        except (TrustListRefused, DecodeError, OSError) as error:
            log.warning("trust_list_refused", file=str(path), error=type(error).__name__)
            return
        if offer is Offer.ACCEPTED:
            log.info("trust_list_accepted", file=str(path), region=path.stem)
