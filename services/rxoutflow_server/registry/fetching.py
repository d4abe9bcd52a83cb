"""Keeping a server's trust lists current: from other platforms, and from its own folder.

A platform asks the platform of each region for that region's list, and its peers in turn for its
own: they still know of a denial that a restored backup has forgotten. An edge asks its own platform
for that platform's list, is told by the answer which others are new, and asks for those. Whoever is
asked can only pass on what a pinned registry signed.

Each region is asked for by itself, so that one that does not answer delays no other. A fetch uses
the address and the anchors of the list held even if that has lapsed: the answer is judged by its
signature alone. A list that was accepted takes effect with the next call and is kept in the folder.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import datetime, timedelta
from itertools import cycle
from typing import Final, Protocol

import grpc
import structlog

from rxoutflow.trust import TrustStore
from rxoutflow.v1.peer_service_pb2 import GetTrustListRequest, GetTrustListResponse
from rxoutflow.v1.peer_service_pb2_grpc import PeerServiceStub
from rxoutflow_server.config import ServerConfig
from rxoutflow_server.domain.errors import Reason, Refusal, Unavailable
from rxoutflow_server.registry.alarms import Hourly, LapseAlarm
from rxoutflow_server.transport.channels import PeerChannels
from rxoutflow_server.transport.errors import reason_of, refusal_of
from rxoutflow_server.transport.tls import KeyFileError
from rxoutflow_server.trust_folder import TrustFolder, log_rollback

CALL_SECONDS: Final = 30.0
"""How long one fetch may take: enough for the list of a large region over a slow line."""

LOOK_SECONDS: Final = 1.0
"""How often the folder is looked at."""

ALARM_SECONDS: Final = 60.0

log = structlog.get_logger()


class Source(Protocol):
    """Whom a server asks for trust lists."""

    @property
    def regions(self) -> Sequence[str]:
        """The regions whose lists are asked for again and again."""
        ...

    @property
    def passed_on(self) -> Collection[str]:
        """The regions whose lists are asked for when an answer tells that they are new."""
        ...

    @property
    def first_here(self) -> str | None:
        """The region whose list is here before it is elsewhere: others may be behind with it."""
        ...

    async def ask(self, region_code: str, held_sequence: int) -> GetTrustListResponse:
        """Ask for the list of a region, if it is newer than the one held.

        Raises:
            Refusal: there is nobody to ask, or who was asked has no list of the region.
            Unavailable: no answer.
            KeyFileError: the server's own certificate cannot be read.
        """
        ...


class Platforms:
    """The platforms that a server asks. Made by :func:`peers_of` and :func:`own_platform`.

    Args:
        regions: the regions whose lists are asked for again and again.
        passed_on: those whose lists are asked for when an answer tells that they are new.
        asked: the region whose platform is asked for the list of a region.
        first_here: the region whose list is here before it is elsewhere.
        trust: the lists held, which say where platforms are.
        channels: the connections to platforms.
    """

    def __init__(
        self,
        regions: Sequence[str],
        passed_on: Collection[str],
        asked: Callable[[str], str],
        first_here: str | None,
        trust: TrustStore,
        channels: PeerChannels,
    ) -> None:
        self.regions = tuple(regions)
        self.passed_on = frozenset(passed_on)
        self.first_here = first_here
        self._asked = asked
        self._trust = trust
        self._channels = channels

    async def ask(self, region_code: str, held_sequence: int) -> GetTrustListResponse:
        """See :class:`Source`."""
        asked = self._asked(region_code)
        held = self._trust.held(asked)
        if held is None:
            raise Refusal(
                Reason.REGION_UNKNOWN,
                f"no trust list of region {asked} is here to say where its platform is",
                region=asked,
            )
        request = GetTrustListRequest(region_code=region_code, held_sequence=held_sequence)
        stub = PeerServiceStub(self._channels.channel_of(held))
        try:
            # A platform that is just starting, too, is worth waiting for.
            return await stub.GetTrustList(request, timeout=CALL_SECONDS, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            raise refusal_of(error, asked) from error


def peers_of(config: ServerConfig, trust: TrustStore, channels: PeerChannels) -> Platforms:
    """For a platform: each region's own platform; for its own list, its peers in turn."""
    own = config.region_code
    others = [code for code in config.trust.registry_roots if code != own]
    turn = cycle(others)
    regions = (own, *others) if others else ()

    def asked(region_code: str) -> str:
        return next(turn) if region_code == own else region_code

    return Platforms(regions, (), asked, own, trust, channels)


def own_platform(config: ServerConfig, trust: TrustStore, channels: PeerChannels) -> Platforms:
    """For an edge: the platform of its region, for the lists of all regions."""
    own = config.region_code
    others = [code for code in config.trust.registry_roots if code != own]
    return Platforms((own,), others, lambda _code: own, None, trust, channels)


class TrustFetcher:
    """Fetches lists and offers them to the trust store."""

    def __init__(
        self,
        trust: TrustStore,
        folder: TrustFolder,
        source: Source,
        now: Callable[[], datetime],
    ) -> None:
        self._trust = trust
        self._folder = folder
        self._source = source
        self._now = now
        self._hourly = Hourly()

    async def fetch(self, region_code: str) -> None:
        """Bring the region's list up to date, and those of which its platform tells.

        What prevents it is logged and changes nothing.
        """
        response = await self._fetch(region_code)
        if response is None or not self._source.passed_on:
            return
        others = {each.region_code: each.sequence for each in response.other_lists}
        for other in self._source.passed_on:
            if other not in others:
                self._note_not_fetched(other, Reason.REGION_UNKNOWN)
            elif others[other] > self._sequence(other):
                await self._fetch(other)
            else:
                self._compare(other, others[other])

    async def _fetch(self, region_code: str) -> GetTrustListResponse | None:
        """Ask for one list and offer what comes; nothing if there was no answer."""
        try:
            response = await self._source.ask(region_code, self._sequence(region_code))
        except (Refusal, Unavailable, KeyFileError) as error:
            self._note_not_fetched(region_code, _reason(error))
            return None
        if response.HasField("trust_list"):
            await self._folder.offer(response.trust_list, region_code)
        else:
            self._compare(region_code, response.sequence)
        return response

    def _sequence(self, region_code: str) -> int:
        held = self._trust.held(region_code)
        return held.sequence if held is not None else 0

    def _compare(self, region_code: str, sequence: int) -> None:
        """Report somebody who holds an older list than this server, and should not."""
        held = self._sequence(region_code)
        if sequence >= held or region_code == self._source.first_here:
            return
        if self._is_due("rollback", region_code):
            log_rollback(region_code, sequence, held)

    def _note_not_fetched(self, region_code: str, reason: str) -> None:
        if self._is_due("not_fetched", region_code):
            log.warning("trust_list_not_fetched", region=region_code, reason=reason)

    def _is_due(self, event: str, region_code: str) -> bool:
        return self._hourly.is_due(event, region_code, self._now())


async def keep_trust(
    config: ServerConfig, trust: TrustStore, source: Source, now: Callable[[], datetime]
) -> None:
    """Keep a server's trust lists current until cancelled: to be run beside the server.

    Args:
        config: the server's configuration.
        trust: the store that was loaded from the configured folder.
        source: whom to ask for lists.
        now: gives the time, aware.
    """
    folder = TrustFolder(config.trust.folder, trust, now)
    fetcher = TrustFetcher(trust, folder, source, now)
    alarm = LapseAlarm(trust, timedelta(days=config.trust.alarm_days))

    async def raise_alarms() -> None:
        alarm.check(now())

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_again_and_again(folder.offer_changed, lambda: LOOK_SECONDS))
        tasks.create_task(_again_and_again(raise_alarms, lambda: ALARM_SECONDS))
        for region_code in source.regions:
            fetch = _fetch_of(fetcher, region_code)
            tasks.create_task(_again_and_again(fetch, lambda: _pause(config.trust.fetch_seconds)))


def _fetch_of(fetcher: TrustFetcher, region_code: str) -> Callable[[], Awaitable[None]]:
    return lambda: fetcher.fetch(region_code)


async def _again_and_again(work: Callable[[], Awaitable[None]], pause: Callable[[], float]) -> None:
    """Do the work until cancelled; a round that fails is logged and does not end it."""
    while True:
        try:
            await work()
        except Exception as error:  # a defect in one round must not end trust in all regions
            log.warning("task_failed", component="trust", reason=reason_of(error))
        await asyncio.sleep(pause())


def _pause(seconds: float) -> float:
    """At most the time configured, and never the same for all, so that fetches spread."""
    return seconds * random.uniform(0.7, 1.0)  # noqa: S311 - spreads load, keeps no secret


def _reason(error: Exception) -> str:
    return "KEY_FILE_UNUSABLE" if isinstance(error, KeyFileError) else reason_of(error)
