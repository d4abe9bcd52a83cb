"""The records as tables: the ports of the application in portable SQL.

Every class here works on a ``Connection`` with ``?`` placeholders and statements that SQLite and
PostgreSQL both understand: ``ON CONFLICT``, no triggers, no generated keys, no clock. A statement
that runs for every command names the shard key of each table it touches; those that must look
across keys are called ``_SWEEP_…``. Nothing here begins or commits a transaction.
"""
