"""What the composition roots of platform and edges share: trust, seals, ids, tasks, the store."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import structlog
from google.protobuf.message import Message

from rxoutflow.numbers import new_id
from rxoutflow.statements import Signer, Verifier, new_statement
from rxoutflow.trust import RegionNotTrusted, TrustStore
from rxoutflow.v1.statement_pb2 import SIGNER_ROLE_PLATFORM, SignedStatement
from rxoutflow_server.application.ports import Seal
from rxoutflow_server.config import ServerConfig
from rxoutflow_server.signing_keys import load_signer as load_signer
from rxoutflow_server.storage.errors import StoreError

log = structlog.get_logger()


def utc_now() -> datetime:
    """The time of this machine, aware."""
    return datetime.now(UTC)


def fresh_id(now: datetime) -> str:
    """A UUIDv7 that nobody else makes."""
    return new_id(now, secrets.token_bytes)


def load_trust(config: ServerConfig) -> TrustStore:
    """The trust lists of a configuration that has been checked."""
    trust = config.trust
    return TrustStore.load(trust.folder, trust.registry_roots, utc_now(), trust.grace)


def hospital_tiers(
    trust: TrustStore, now: Callable[[], datetime]
) -> Callable[[str, str], int | None]:
    """The tier of a hospital, as its region's trust list has it now; none if it has not."""

    def tier(home: str, institution_code: str) -> int | None:
        try:
            institution = trust.region(home, now()).institution(institution_code)
        except RegionNotTrusted:
            return None
        return institution.tier if institution is not None else None

    return tier


def platform_seal(signer: Signer, verifier: Verifier) -> Seal:
    """The seal of a platform. What it signs comes back to ``verifier`` before long."""

    def seal(message: Message, *, now: datetime, audience: str | None = None) -> SignedStatement:
        statement = new_statement(message, signer, SIGNER_ROLE_PLATFORM, now, audience)
        verifier.signed_here(statement, type(message))
        return statement

    return seal


@asynccontextmanager
async def running(*work: Coroutine[Any, Any, None]) -> AsyncGenerator[None, None]:
    """Run tasks beside what happens inside, and cancel them at its end."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)


class StoreFailure:
    """Ends the service when its store has stopped: nothing may be written to a failing disk."""

    def __init__(self) -> None:
        self.happened = asyncio.Event()
        self._error: StoreError | None = None

    def __call__(self, error: StoreError) -> None:
        """Note the failure; called by the store, once."""
        log.error("store_failed", exception=type(error).__name__)
        self._error = error
        self.happened.set()

    def raise_if_happened(self) -> None:
        """End with an error, so that whoever restarts services does, and an operator looks.

        Raises:
            StoreError: what the store said.
        """
        if self._error is not None:
            raise self._error
