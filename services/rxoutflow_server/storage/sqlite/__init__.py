"""A store in one SQLite file, for one process: the default for a region and for every edge.

Commands queue for one writer thread, which commits many at a time to a disk that has been told to
really write. Queries run beside it on snapshots of their own.
"""

from rxoutflow_server.storage.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
