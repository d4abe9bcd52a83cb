"""An edge at work: whose it is, what it stores in, whom it trusts, and who waits for what.

One value, built by the composition root. Time, randomness and pauses come in through it, so a test
decides them. It belongs to one process and one event loop, as its store does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from weakref import WeakValueDictionary

from rxoutflow.identity import CallerName
from rxoutflow.numbers import RandomBytes
from rxoutflow.statements import Signer, Verifier
from rxoutflow.trust import RegionNotTrusted, TrustStore
from rxoutflow_server.application.edge_ports import EdgeStore
from rxoutflow_server.application.exchange.idempotency import RequestKey

Pause = Callable[[int], Awaitable[None]]
"""Waits before the next try; given how many tries have failed in a row."""


class Bell:
    """Wakes whoever listened before it rang."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def listen(self) -> asyncio.Event:
        """Set when the bell rings next. Listen before looking, so that nothing is missed."""
        return self._next

    def ring(self) -> None:
        """Wake all who listen."""
        self._next.set()
        self._next = asyncio.Event()


class Turns:
    """One at a time for each prescription, so that register and revoke never cross."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def of(self, number: str) -> asyncio.Lock:
        """The lock of a prescription. It lives for as long as somebody holds or awaits it."""
        lock = self._locks.get(number)
        if lock is None:
            self._locks[number] = lock = asyncio.Lock()
        return lock


@dataclass(frozen=True)
class Edge:
    """What the use cases of an edge need: who we are, our seal, our records, whom we trust."""

    institution: CallerName
    trust: TrustStore
    verifier: Verifier
    seal: Signer
    store: EdgeStore
    now: Callable[[], datetime]
    random_bytes: RandomBytes
    pause: Pause
    noticed: Bell = field(default_factory=Bell)
    """Rings when a notice has been stored."""
    due: Bell = field(default_factory=Bell)
    """Rings when something waits for the platform."""
    turns: Turns = field(default_factory=Turns)

    @property
    def code(self) -> str:
        """The institution's code."""
        return self.institution.institution_code

    def key(self, number: str, request_id: str, method: str) -> RequestKey:
        """The key of a request; only the institution itself calls its edge."""
        return RequestKey(number, str(self.institution), request_id, method)

    def name_of(self, institution_code: str) -> str:
        """Name of an institution for people; its code if no trust list here has it."""
        try:
            region = self.trust.region(institution_code[1:7], self.now())
        except RegionNotTrusted:
            return institution_code
        institution = region.institution(institution_code)
        return institution.name if institution is not None else institution_code
