"""All groups of records on one connection: what a command of a platform or of an edge sees.

Holds no state of its own, so one value serves every transaction of its connection.
"""

from __future__ import annotations

from datetime import datetime

from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow_server.storage.tables.agreements import AgreementTables
from rxoutflow_server.storage.tables.clearing import ClearingTables
from rxoutflow_server.storage.tables.connection import Connection
from rxoutflow_server.storage.tables.dispensing import DispensingTables
from rxoutflow_server.storage.tables.edge import EdgeTables
from rxoutflow_server.storage.tables.home import HomeTables
from rxoutflow_server.storage.tables.journal import JournalTables
from rxoutflow_server.storage.tables.log import LogTables
from rxoutflow_server.storage.tables.payer import PayerTables
from rxoutflow_server.storage.tables.trace_codes import TraceCodeTables


class PlatformTables:
    """The port ``Transaction``: the records of all roles of a region.

    ``lock`` is appended to the loads that precede a change; see ``connection``. ``journal`` is one
    of the connection's that knows more than its tables.
    """

    def __init__(
        self, connection: Connection, lock: str = "", *, journal: JournalTables | None = None
    ) -> None:
        self.journal = journal or JournalTables(connection, lock)
        self.home = HomeTables(connection, lock)
        self.payer = PayerTables(connection, lock)
        self.dispensing = DispensingTables(connection, lock)
        self.trace_codes = TraceCodeTables(connection, lock)
        self.clearing = ClearingTables(connection)
        self.agreements = AgreementTables(connection)
        self.log = LogTables(connection, lock)

    def keep(self, number: str, sha256: bytes, statement: SignedStatement, time: datetime) -> None:
        """Keep a statement byte for byte; a leaf of the log, if it was not kept before."""
        if self.journal.keep_statement(number, sha256, statement, time):
            self.log.append(number, sha256, statement.payload_type, time)


class EdgeTransactionTables:
    """The port ``EdgeTransaction``: the records of an edge."""

    def __init__(self, connection: Connection, *, journal: JournalTables | None = None) -> None:
        self.journal = journal or JournalTables(connection)
        self.edge = EdgeTables(connection)
