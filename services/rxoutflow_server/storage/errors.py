"""What an operator hears when a store cannot be opened or copied.

These errors happen at start or at maintenance, never while a command runs: a store that fails at
work answers ``Unavailable`` instead. Messages name the file and say what to do next.
"""

from __future__ import annotations


class StoreError(Exception):
    """A store cannot be opened or copied as asked. The message names the file and the remedy."""


class StoreInUse(StoreError):
    """Another process has the store open."""
