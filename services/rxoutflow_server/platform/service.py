"""The composition root of a regional platform: from a checked configuration to a service."""

from __future__ import annotations

import hmac
import random
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from hashlib import sha256
from typing import Any

from rxoutflow.identity import CallerKind, CallerName
from rxoutflow.statements import Verifier
from rxoutflow.trust import TrustStore
from rxoutflow.v1 import (
    administration_service_pb2,
    administration_service_pb2_grpc,
    clearing_service_pb2,
    clearing_service_pb2_grpc,
    home_service_pb2,
    home_service_pb2_grpc,
    hospital_service_pb2,
    hospital_service_pb2_grpc,
    payer_service_pb2,
    payer_service_pb2_grpc,
    peer_service_pb2,
    peer_service_pb2_grpc,
    pharmacy_service_pb2,
    pharmacy_service_pb2_grpc,
    supervision_service_pb2,
    supervision_service_pb2_grpc,
)
from rxoutflow_server.application.dispensing.exchange import Exchange
from rxoutflow_server.application.exchange.outbox import Pauses
from rxoutflow_server.application.log.region_log import RegionLog
from rxoutflow_server.application.ports import Store, Transaction
from rxoutflow_server.application.region import LOCAL_TIME, Region
from rxoutflow_server.config import PlatformConfig, read_pickup_key
from rxoutflow_server.credential_codes import CredentialCodes
from rxoutflow_server.domain.rule_book import RuleBook
from rxoutflow_server.domain.settlement import InsuredPerson
from rxoutflow_server.platform import tasks
from rxoutflow_server.platform.changes import AnnouncingStore, Changes
from rxoutflow_server.platform.desk import Desk, LocalPeer, RolesHere
from rxoutflow_server.platform.peers import RegionalPeers
from rxoutflow_server.platform.servicers import (
    AdministrationServicer,
    ClearingServicer,
    HomeServicer,
    HospitalServicer,
    PayerServicer,
    PeerServicer,
    PharmacyServicer,
    SupervisionServicer,
)
from rxoutflow_server.reference.catalogues import load_catalogue
from rxoutflow_server.reference.family import load_authorisations
from rxoutflow_server.reference.insured import load_insured
from rxoutflow_server.reference.rules import load_rules
from rxoutflow_server.reference.tariffs import load_tariffs
from rxoutflow_server.registry.fetching import keep_trust, peers_of
from rxoutflow_server.storage.platform_stores import commits_alone, open_when_free
from rxoutflow_server.transport.channels import PeerChannels
from rxoutflow_server.transport.interceptor import CallLimits
from rxoutflow_server.transport.rates import Rate
from rxoutflow_server.transport.server import Service, build_server, serve
from rxoutflow_server.wiring import (
    StoreFailure,
    fresh_id,
    load_signer,
    load_trust,
    platform_seal,
    running,
    utc_now,
)
from rxoutflow_server.workers import Line


async def serve_platform(config: PlatformConfig) -> None:
    """Run a regional platform until it is told to stop, or its store fails.

    Raises:
        StoreError: the store cannot be opened.
        ReferenceDataError: tariffs, catalogue or insured persons cannot be used.
        ListenError: the address cannot be opened.
    """
    async with AsyncExitStack() as stack:
        region = build_region(config, load_trust(config))
        failure = StoreFailure()
        shared = not commits_alone(config.records)
        disk = await open_when_free(
            config.records,
            on_failure=failure,
            before_commit=growing(region),
            with_commit=region.log.grow_with if region.log is not None else None,
        )
        changes = Changes()
        plain = await stack.enter_async_context(disk)
        store = AnnouncingStore(plain, changes)
        await _admit_insured(store, config)
        channels = PeerChannels(region.trust, config.tls, utc_now)
        stack.push_async_callback(channels.close)
        desk = Desk(region, store)
        itself = CallerName(region.code, CallerKind.PLATFORM, region.code)
        peers = RegionalPeers(region.code, LocalPeer(desk, itself), channels)
        exchange, pauses = Exchange(region, store, peers, RolesHere(region)), Pauses()
        server = build_server(
            _services(exchange, desk, changes),
            listen=config.listen,
            tls=config.tls,
            trust=region.trust,
            place=config.place,
            clock=utc_now,
            limits=_limits(config),
            share_port=shared,
        )
        turns = tasks.Turns(plain, fresh_id(utc_now()), utc_now) if shared else None
        line = Line.of_this_process()
        if line is not None:
            line.when_broken(failure.happened.set)
        async with running(
            tasks.repeat(
                "outbox",
                lambda: tasks.deliver_facts(exchange, _jitter, pauses, shared=shared),
                changes,
            ),
            *_tasks_in_turn(exchange, turns),
            *([tasks.repeat("others", tasks.Others(plain, changes).look)] if shared else []),
            keep_trust(config, region.trust, peers_of(config, region.trust, channels), utc_now),
        ):
            await serve(server, failure.happened, line.say_ready if line else lambda: None)
        failure.raise_if_happened()


def _tasks_in_turn(
    exchange: Exchange, turns: tasks.Turns | None
) -> list[Coroutine[Any, Any, None]]:
    """What one process does for all, if there are several."""
    work: dict[str, tuple[tasks.Round, float]] = {
        "work_for_people": (tasks.WorkForPeople(exchange).tell, tasks.TICK_SECONDS),
        "leases": (lambda: tasks.end_leases(exchange), tasks.TICK_SECONDS),
        "logs": (lambda: tasks.watch_logs(exchange), tasks.WATCHING_SECONDS),
        "commitments": (lambda: tasks.finish_commitments(exchange), tasks.TICK_SECONDS),
        "boxes": (lambda: tasks.finish_boxes(exchange), tasks.TICK_SECONDS),
        "holds": (lambda: tasks.ask_about_holds(exchange), tasks.HOLDS_SECONDS),
        "quotas": (lambda: tasks.look_at_quotas(exchange), tasks.QUOTAS_SECONDS),
    }
    return [
        tasks.repeat(
            name, turns.of(name, each, seconds) if turns is not None else each, seconds=seconds
        )
        for name, (each, seconds) in work.items()
    ]


def build_region(config: PlatformConfig, trust: TrustStore) -> Region:
    """The region of a checked configuration, with its reference data.

    Raises:
        ReferenceDataError: tariffs, catalogue, rules or authorisations cannot be used.
    """
    key, signer = read_pickup_key(config.pickup_key_file), load_signer(config.signing)
    verifier = Verifier(trust)
    return Region(
        code=config.region_code,
        trust=trust,
        verifier=verifier,
        seal=platform_seal(signer, verifier),
        now=utc_now,
        new_id=fresh_id,
        hash_pickup_secret=pickup_hasher(key),
        holder_of_credential=CredentialCodes(config.region_code, key).holder,
        lease=timedelta(seconds=config.lease_seconds),
        overdue=timedelta(hours=config.overdue_hours),
        registrars=config.trace_code_registrars,
        give_up=timedelta(hours=config.give_up_hours),
        tariffs=load_tariffs(config.reference.tariffs),
        catalogue=load_catalogue(config.reference.catalogue),
        rules=load_region_rules(config),
        family=load_authorisations(config.reference.family) if config.reference.family else None,
        log=RegionLog(
            config.region_code, signer, utc_now, with_commits=commits_alone(config.records)
        ),
    )


def growing(region: Region) -> Callable[[Transaction], None]:
    """What a region's store does before each commit: the log grows, and its head is signed."""
    return region.log.grow_now if region.log is not None else lambda tx: None


def _limits(config: PlatformConfig) -> CallLimits:
    """The configured rate of an institution, and twice as much at once after a pause.

    Each of several processes counts for itself what reaches it, so each has its share.
    """
    share = max(1, config.calls_per_second // config.workers)
    rate = Rate(share, 2 * share)
    return CallLimits(institution_rate=rate)


def load_region_rules(config: PlatformConfig) -> RuleBook:
    """The region's own figures of the rules, if it has set any.

    Raises:
        ReferenceDataError: the rules file cannot be used.
    """
    file = config.reference.rules
    return RuleBook() if file is None else load_rules(file, config.region_code)


def pickup_hasher(key: bytes) -> Callable[[str, str], bytes]:
    """The keyed hash of a pickup secret, bound to its prescription number."""

    def hashed(number: str, secret: str) -> bytes:
        return hmac.new(key, f"{number}.{secret}".encode(), sha256).digest()

    return hashed


async def _admit_insured(store: Store, config: PlatformConfig) -> None:
    """Take in the insured persons of the reference data whom the store does not know yet."""
    if config.reference.insured is None:
        return
    year = utc_now().astimezone(LOCAL_TIME).year
    people = load_insured(config.reference.insured, year)
    await store.transact(lambda tx: _add_people(tx, people))


def _add_people(tx: Transaction, people: Sequence[InsuredPerson]) -> None:
    for person in people:
        tx.payer.add_person(person)


def _services(exchange: Exchange, desk: Desk, changes: Changes) -> list[Service]:
    region, store = exchange.region, exchange.store
    return [
        Service(
            hospital_service_pb2_grpc.add_HospitalServiceServicer_to_server,
            HospitalServicer(region, store, changes),
            hospital_service_pb2.DESCRIPTOR.services_by_name["HospitalService"],
        ),
        Service(
            pharmacy_service_pb2_grpc.add_PharmacyServiceServicer_to_server,
            PharmacyServicer(exchange, changes),
            pharmacy_service_pb2.DESCRIPTOR.services_by_name["PharmacyService"],
        ),
        Service(
            home_service_pb2_grpc.add_HomeServiceServicer_to_server,
            HomeServicer(desk),
            home_service_pb2.DESCRIPTOR.services_by_name["HomeService"],
        ),
        Service(
            payer_service_pb2_grpc.add_PayerServiceServicer_to_server,
            PayerServicer(desk),
            payer_service_pb2.DESCRIPTOR.services_by_name["PayerService"],
        ),
        Service(
            peer_service_pb2_grpc.add_PeerServiceServicer_to_server,
            PeerServicer(region, desk),
            peer_service_pb2.DESCRIPTOR.services_by_name["PeerService"],
        ),
        Service(
            clearing_service_pb2_grpc.add_ClearingServiceServicer_to_server,
            ClearingServicer(exchange, desk),
            clearing_service_pb2.DESCRIPTOR.services_by_name["ClearingService"],
        ),
        Service(
            supervision_service_pb2_grpc.add_SupervisionServiceServicer_to_server,
            SupervisionServicer(region, store),
            supervision_service_pb2.DESCRIPTOR.services_by_name["SupervisionService"],
        ),
        Service(
            administration_service_pb2_grpc.add_AdministrationServiceServicer_to_server,
            AdministrationServicer(region, store),
            administration_service_pb2.DESCRIPTOR.services_by_name["AdministrationService"],
        ),
    ]


def _jitter() -> float:
    return random.uniform(0.5, 1.5)  # noqa: S311 - spreads retries, keeps no secret
