"""Where a region and an edge keep their records: the only place with SQL.

``tables`` holds the statements, written so that any SQL engine can run them; ``sqlite`` opens a
file, keeps its schema, and runs commands many to a commit. A store promises that what it answered
is on the disk, that a command takes effect as a whole or not at all, and that it stops rather than
guess when the disk fails. It decides nothing: rules are in ``domain``.
"""
