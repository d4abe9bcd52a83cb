"""What happened, a line an event; its digest tells whether two runs were the same.

The digest covers every line; only the newest lines are kept to be shown. An event is a message
sent, delivered, dropped or duplicated, a background round, a transaction, a sync, a crash, a
restart, a change of the network, of a clock or of trust, or a step of a client.
"""

from __future__ import annotations

from collections import Counter, deque
from hashlib import sha256

KEPT = 4000
"""Lines kept to be shown."""


class Trace:
    """The events of one run."""

    def __init__(self) -> None:
        self._digest = sha256()
        self.tail: deque[str] = deque(maxlen=KEPT)
        self.kinds: Counter[str] = Counter()

    def add(self, time: float, node: str, kind: str, detail: str = "") -> None:
        """Append an event."""
        line = f"{time:11.6f} {node:<12} {kind:<10} {detail}"
        self.kinds[kind] += 1
        self.tail.append(line)
        self._digest.update(line.encode())

    @property
    def events(self) -> int:
        """How many there were."""
        return self.kinds.total()

    @property
    def hash(self) -> str:
        """The digest of all lines."""
        return self._digest.hexdigest()
