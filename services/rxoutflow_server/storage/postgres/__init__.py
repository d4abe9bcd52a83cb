"""A platform's records in PostgreSQL, for a region that outgrows one file.

The same tables, statements and promises as on SQLite; what differs is below ``transact``.
"""

from rxoutflow_server.storage.postgres.store import Options, PostgresStore

__all__ = ["Options", "PostgresStore"]
