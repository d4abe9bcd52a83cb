"""The records of a platform in PostgreSQL: the common tables, and what is gathered on top of them.

Every command keeps statements, and each has a leaf in the log if it was not kept before. Asking for
that one by one would be a round trip a statement, so both are sent together, for all of them.
"""

from __future__ import annotations

from datetime import datetime

from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow_server.storage.known import RememberingJournal
from rxoutflow_server.storage.postgres.appends import KEEP_WITH_LEAF
from rxoutflow_server.storage.postgres.pipeline import Pipeline
from rxoutflow_server.storage.tables.certificates import CertificateTables
from rxoutflow_server.storage.tables.transaction import PlatformTables
from rxoutflow_server.storage.tables.values import micros


class GatheredCertificates(CertificateTables):
    """Certificates, of which those that are new leave together."""

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__(pipeline, pipeline.known.certificates)
        self._pipeline = pipeline

    def add(self, sha256: bytes, certificate: bytes) -> None:
        """Have a certificate kept before the transaction ends."""
        self._pipeline.gather_certificate(sha256, certificate)


class PostgresTables(PlatformTables):
    """The port ``Transaction`` on a pipeline."""

    def __init__(self, pipeline: Pipeline, lock: str = "") -> None:
        """``lock`` is appended to the loads that precede a change."""
        certificates = GatheredCertificates(pipeline)
        journal = RememberingJournal(pipeline, pipeline.known, lock, certificates)
        super().__init__(pipeline, lock, journal=journal)
        self._pipeline = pipeline

    def keep(self, number: str, sha256: bytes, statement: SignedStatement, time: datetime) -> None:
        """Keep a statement byte for byte; one that was not kept before becomes a leaf."""
        if not self._pipeline.gathered.takes(KEEP_WITH_LEAF):
            super().keep(number, sha256, statement, time)
            return
        statements = self._pipeline.known.statements
        if statements.get((number, sha256)) is not None:
            return
        whole = statement.SerializeToString()
        statements.note_kept((number, sha256), whole)
        kept = self.journal.certificates.take_out(whole)
        row = (number, sha256, statement.payload_type, kept, micros(time))
        self._pipeline.gather(KEEP_WITH_LEAF, row)
