"""Servers that die, hang or are away: nothing acknowledged is lost, and the job comes to its end.

Real processes are ended with SIGKILL and frozen with SIGSTOP. What a client was told before must
still be so afterwards (I7, I8), and when all servers are back, all regions agree (I4, I14).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import pytest

from rxoutflow.client import HospitalClient, PharmacyClient
from rxoutflow.errors import Indefinite, NotFound, Unavailable
from rxoutflow.v1.dispense_pb2 import DispenseProgress
from rxoutflow.v1.his_service_pb2 import (
    REGISTRATION_QUEUED,
    REGISTRATION_REFUSED,
    REGISTRATION_WITHDRAWN,
)
from rxoutflow.v1.prescription_status_pb2 import REVOCATION_OUTCOME_REVOKED
from support.exchanges import (
    THREE_REGIONS,
    Exchange,
    Route,
    heard_all,
    heard_of_money,
    require_agreement,
)
from support.sandbox import HASTY, SERVERS, LiveSandbox, draft, eventually, run_sandbox

HOME, DISPENSING, PAYER = "platform-350200", "platform-350500", "platform-320600"
"""The platforms of the three regions' route."""

THROUGH_QUANZHOU = Route("one-region", "quanzhou", "xiamen")
ROUTES = {
    "quanzhou-hospital": THROUGH_QUANZHOU,
    "xiamen-pharmacy": THROUGH_QUANZHOU,
    "nantong-pharmacy": Route("long-twelve-weeks", "xiamen", "nantong"),
}
"""A route through each server that is not on that of the three regions."""


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveSandbox]:
    with run_sandbox(tmp_path_factory.mktemp("crashes")) as sandbox:
        yield sandbox


# --- killed --------------------------------------------------------------------------------------


@pytest.mark.parametrize("server", SERVERS)
def test_a_killed_server_has_lost_nothing_that_it_acknowledged(
    sandbox: LiveSandbox, server: str
) -> None:
    """Four prescriptions, at four stages, when it dies."""
    exchanges = [Exchange(sandbox, ROUTES.get(server, THREE_REGIONS)) for _ in range(4)]
    with ExitStack() as listening:
        hospital, pharmacy = (
            listening.enter_context(sandbox.listening(client))
            for client in (exchanges[0].hospital, exchanges[0].pharmacy)
        )
        for steps, exchange in enumerate(exchanges, start=1):
            exchange.up_to(steps)
        with sandbox.servers.killed(server):
            pass
        for exchange in exchanges:
            exchange.require_kept()
            exchange.up_to(4)
        for exchange in exchanges:
            require_agreement(exchange)
            eventually(partial(heard_all, hospital, exchange), "the hospital's stream goes on")
            eventually(partial(heard_of_money, pharmacy, exchange), "the pharmacy's goes on")
    eventually(lambda: sandbox.undelivered() == 0, "nothing waits in any outbox")


def test_all_servers_killed_at_once_go_on_where_they_were(sandbox: LiveSandbox) -> None:
    exchanges = [Exchange(sandbox).up_to(steps) for steps in range(1, 5)]
    with sandbox.servers.killed(*SERVERS):
        pass
    for exchange in exchanges:
        exchange.require_kept()
        exchange.up_to(4)
    for exchange in exchanges:
        require_agreement(exchange)


def test_a_payer_that_dies_before_the_commit_holds_once_it_is_back(sandbox: LiveSandbox) -> None:
    exchange = Exchange(sandbox).up_to(2).prepare_commit()
    hasty = hasty_pharmacy(sandbox, exchange)
    with hasty, sandbox.servers.killed(PAYER), pytest.raises(Unavailable):
        hasty.send_commit(exchange.commit_request)
    exchange.send_commit().record()
    require_agreement(exchange)


def test_a_payer_that_dies_in_the_middle_of_a_settlement_posts_once_it_is_back(
    sandbox: LiveSandbox,
) -> None:
    exchange = Exchange(sandbox).up_to(3)
    with sandbox.servers.killed(PAYER):
        exchange.record(registrar=exchange.route.dispensing)
        eventually(lambda: exchange.progress().booked_by_home, "home has booked it")
        progress = exchange.progress()
        assert not progress.posted_by_payer
        assert progress.state == DispenseProgress.STATE_DISPENSED
    require_agreement(exchange)


def test_nobody_pays_for_a_handover_before_the_home_that_died_has_booked_it(
    sandbox: LiveSandbox,
) -> None:
    exchange = Exchange(sandbox).up_to(3)
    with sandbox.servers.killed(HOME):
        exchange.record(registrar=exchange.route.dispensing)
        progress = exchange.progress()
        assert progress.state == DispenseProgress.STATE_DISPENSED
        assert not progress.booked_by_home
        assert not progress.posted_by_payer
    times = {
        event.action: event.event_time.ToNanoseconds() for event in require_agreement(exchange)
    }
    assert times["handed over"] < times["dispense booked"] < times["posted"]


def test_a_handover_waits_at_the_edge_for_the_registrar_of_its_boxes(sandbox: LiveSandbox) -> None:
    exchange = Exchange(sandbox).up_to(3)
    with sandbox.servers.killed(HOME):
        exchange.record(registrar=exchange.route.home)
        assert exchange.recorded is None
        assert exchange.state == DispenseProgress.STATE_COMMITTED
    require_agreement(exchange)


def hasty_pharmacy(sandbox: LiveSandbox, exchange: Exchange) -> PharmacyClient:
    return PharmacyClient(exchange.pharmacy.profile, patience=HASTY)


# --- frozen --------------------------------------------------------------------------------------


def test_a_claim_at_a_frozen_home_is_indefinite_and_makes_one_attempt(
    sandbox: LiveSandbox,
) -> None:
    exchange = Exchange(sandbox).up_to(1)
    exchange.claim_request = exchange.pharmacy.claim_request(exchange.issued.pickup_code)
    hasty = hasty_pharmacy(sandbox, exchange)
    with hasty, sandbox.servers.frozen(HOME), pytest.raises(Indefinite):
        hasty.send_claim(exchange.claim_request)
    exchange.attempt = exchange.pharmacy.send_claim(exchange.claim_request)
    exchange.steps = 2
    exchange.require_kept()
    exchange.up_to(4)
    require_agreement(exchange)


@pytest.mark.parametrize("server", [HOME, PAYER, DISPENSING, "quanzhou-pharmacy"])
def test_a_commit_at_a_frozen_server_is_indefinite_and_holds_the_money_once(
    sandbox: LiveSandbox, server: str
) -> None:
    exchange = Exchange(sandbox).up_to(2).prepare_commit()
    hasty = hasty_pharmacy(sandbox, exchange)
    with hasty, sandbox.servers.frozen(server), pytest.raises(Indefinite):
        hasty.send_commit(exchange.commit_request)
    exchange.send_commit().record()
    require_agreement(exchange)


def test_a_commit_that_the_pharmacy_never_asks_for_again_is_decided_all_the_same(
    sandbox: LiveSandbox,
) -> None:
    exchange = Exchange(sandbox).up_to(2).prepare_commit()
    hasty = hasty_pharmacy(sandbox, exchange)
    with hasty, sandbox.servers.frozen(HOME), pytest.raises(Indefinite):
        hasty.send_commit(exchange.commit_request)
    committed = DispenseProgress.STATE_COMMITTED
    eventually(lambda: exchange.state == committed, "the dispensing region finishes it")
    exchange.send_commit().record()
    require_agreement(exchange)


# --- away ----------------------------------------------------------------------------------------


def test_a_hospital_issues_while_its_platform_is_away(sandbox: LiveSandbox) -> None:
    hospital = sandbox.hospital("xiamen")
    taken_back, against_the_rules = Exchange(sandbox), hospital.complete(draft("six-drugs"))
    exchange = Exchange(sandbox)
    with sandbox.listening(hospital) as ear:
        with sandbox.servers.killed(HOME):
            for each in (exchange, taken_back):
                assert each.issue().issued.registration == REGISTRATION_QUEUED
                assert each.issued.status is None
            wrong = hospital.issue(against_the_rules)
            revoked = hospital.revoke(taken_back.number, "开错药（合成）")
            assert revoked.outcome == REVOCATION_OUTCOME_REVOKED
            sandbox.servers.kill("xiamen-hospital")
        sandbox.servers.restart("xiamen-hospital")
        exchange.up_to(4)
        require_agreement(exchange)
        eventually(partial(heard_all, ear, exchange), "the notices arrive")
        refused = ["REGISTRATION_REFUSED"]
        eventually(lambda: ear.kinds(wrong.number) == refused, "so does the refusal")
    assert hospital.get(wrong.number).registration == REGISTRATION_REFUSED
    assert hospital.get(taken_back.number).registration == REGISTRATION_WITHDRAWN
    with pytest.raises(NotFound):
        sandbox.regulator("xiamen").trace(taken_back.number)


def test_a_handover_is_recorded_while_the_platform_is_away(sandbox: LiveSandbox) -> None:
    exchange = Exchange(sandbox).up_to(3)
    with sandbox.servers.killed(DISPENSING):
        assert exchange.record().recorded is None, "it waits at the edge"
        sandbox.servers.kill("quanzhou-pharmacy")
    sandbox.servers.restart("quanzhou-pharmacy")
    require_agreement(exchange)
    exchange.require_kept()
    eventually(lambda: sandbox.undelivered() == 0, "nothing waits at the edge")


def test_a_claim_fails_without_effect_while_the_platform_is_away(sandbox: LiveSandbox) -> None:
    exchange = Exchange(sandbox).up_to(1)
    exchange.claim_request = exchange.pharmacy.claim_request(exchange.issued.pickup_code)
    hasty = hasty_pharmacy(sandbox, exchange)
    with hasty, sandbox.servers.killed(DISPENSING), pytest.raises(Unavailable) as caught:
        hasty.send_claim(exchange.claim_request)
    assert caught.value.reason == "PEER_UNAVAILABLE"
    assert exchange.hospital.get(exchange.number).status is not None
    exchange.up_to(4)
    require_agreement(exchange)


def test_a_hospital_sees_what_it_heard_last_while_its_platform_is_away(
    sandbox: LiveSandbox,
) -> None:
    exchange = Exchange(sandbox).up_to(4)
    require_agreement(exchange)
    before = exchange.hospital.get(exchange.number)
    hasty = HospitalClient(exchange.hospital.profile, patience=HASTY)
    with hasty, sandbox.servers.killed(HOME):
        known = hasty.get(exchange.number)
    assert before.status is not None
    assert known.status is not None
    assert known.status.content == before.status.content
