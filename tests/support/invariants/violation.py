"""What every check raises, and the one way to raise it.

A check names the invariant that does not hold and says in a sentence what was found instead. It
names prescriptions, attempts, settlements and regions; never a person.
"""

from __future__ import annotations


class Violation(AssertionError):
    """An invariant does not hold."""

    def __init__(self, invariant: str, what: str) -> None:
        super().__init__(f"{invariant}: {what}")
        self.invariant = invariant


def hold(invariant: str, holds: bool, what: str) -> None:
    """Raise unless it holds.

    Raises:
        Violation: it does not.
    """
    if not holds:
        raise Violation(invariant, what)
