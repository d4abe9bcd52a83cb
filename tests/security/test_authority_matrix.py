"""L8: who may call what, cell by cell.

Every kind of caller, of its own or another institution, of the server's region or another, in every
standing, with a certificate in every state, calls every method of the contract. What has to come of
a cell is computed from :data:`POLICY`, which is written here by hand, method by method: whoever
changes an option of the contract has to change this table, too, and think twice.

A cell that is refused must be refused for a reason that holds in it; which of several comes first
is not decided here. What lies behind the gate is in ``test_not_a_party``.
"""

from __future__ import annotations

from collections import Counter
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from rxoutflow.identity import CallerKind
from rxoutflow.v1 import annotations_pb2
from rxoutflow_server.domain.errors import Reason
from rxoutflow_server.transport.channels import open_channel, platform_server_name
from rxoutflow_server.transport.errors import error_info
from rxoutflow_server.transport.policy import Place
from rxoutflow_server.transport.server import Server, build_server
from support import live, pki
from support.board import Ran
from support.doors import Door, connection, keep_quiet
from support.members import (
    EDGE_SERVICES,
    HERE,
    Certificate,
    Member,
    Membership,
    State,
    methods,
    platform_services,
    welcoming,
)

HOSPITAL, PHARMACY = CallerKind.HOSPITAL, CallerKind.PHARMACY
PLATFORM, REGULATOR = CallerKind.PLATFORM, CallerKind.REGULATOR
OPERATOR = CallerKind.OPERATOR
OWN_REGION, ANY_REGION, OWN_INSTITUTION = "own region", "any region", "own institution"

Row = tuple[frozenset[CallerKind], str, str]
"""Who may call, from where, and what must tie the caller to the object."""


def row(relation: str, scope: str, *kinds: CallerKind) -> Row:
    return frozenset(kinds), scope, relation


POLICY: dict[str, Row] = {
    "HospitalService/PrecheckPrescription": row("SAME_REGION", OWN_REGION, HOSPITAL),
    "HospitalService/RegisterPrescription": row("ISSUER", OWN_REGION, HOSPITAL),
    "HospitalService/BatchRegisterPrescriptions": row("ISSUER", OWN_REGION, HOSPITAL),
    "HospitalService/StreamRegisterPrescriptions": row("ISSUER", OWN_REGION, HOSPITAL),
    "HospitalService/RevokePrescription": row("ISSUER", OWN_REGION, HOSPITAL),
    "HospitalService/GetPrescription": row("ISSUER", OWN_REGION, HOSPITAL),
    "HospitalService/ListStatements": row("ISSUER", OWN_REGION, HOSPITAL),
    "HospitalService/ListPrescriptions": row("ISSUER", OWN_REGION, HOSPITAL),
    "HospitalService/WatchNotices": row("ISSUER", OWN_REGION, HOSPITAL),
    "HospitalService/GetOutcome": row("ISSUER", OWN_REGION, HOSPITAL),
    "PharmacyService/PresentECredential": row("COLLECTOR", OWN_REGION, PHARMACY),
    "PharmacyService/FindPrescription": row("COLLECTOR", OWN_REGION, PHARMACY),
    "PharmacyService/ClaimPrescription": row("COLLECTOR", OWN_REGION, PHARMACY),
    "PharmacyService/ReleaseClaim": row("CLAIMANT", OWN_REGION, PHARMACY),
    "PharmacyService/QuoteSettlement": row("COLLECTOR", OWN_REGION, PHARMACY),
    "PharmacyService/CommitClaim": row("CLAIMANT", OWN_REGION, PHARMACY),
    "PharmacyService/RecordDispense": row("CLAIMANT", OWN_REGION, PHARMACY),
    "PharmacyService/CorrectCall": row("CLAIMANT", OWN_REGION, PHARMACY),
    "PharmacyService/ReturnDispense": row("CLAIMANT", OWN_REGION, PHARMACY),
    "PharmacyService/UpdateDelivery": row("CLAIMANT", OWN_REGION, PHARMACY),
    "PharmacyService/GetDispense": row("CLAIMANT", OWN_REGION, PHARMACY),
    "PharmacyService/ListStatements": row("CLAIMANT", OWN_REGION, PHARMACY),
    "PharmacyService/ListDispenses": row("CLAIMANT", OWN_REGION, PHARMACY),
    "PharmacyService/ReconcileDay": row("CLAIMANT", OWN_REGION, PHARMACY),
    "PharmacyService/WatchNotices": row("CLAIMANT", OWN_REGION, PHARMACY),
    "PharmacyService/GetOutcome": row("CLAIMANT", OWN_REGION, PHARMACY),
    "HomeService/OpenPrescription": row("PEER", ANY_REGION, PLATFORM),
    "HomeService/GrantClaim": row("PEER", ANY_REGION, PLATFORM),
    "HomeService/CommitAttempt": row("DISPENSING_REGION", ANY_REGION, PLATFORM),
    "HomeService/ReleaseAttempt": row("DISPENSING_REGION", ANY_REGION, PLATFORM),
    "HomeService/CorrectAttempt": row("DISPENSING_REGION", ANY_REGION, PLATFORM),
    "HomeService/GetAttempt": row("PARTY_REGION", ANY_REGION, PLATFORM),
    "PayerService/IssueECredential": row("PEER", ANY_REGION, PLATFORM),
    "PayerService/QuoteBenefit": row("PEER", ANY_REGION, PLATFORM),
    "PayerService/HoldBenefit": row("PEER", ANY_REGION, PLATFORM),
    "PayerService/GetSettlement": row("PARTY_REGION", ANY_REGION, PLATFORM),
    "PeerService/DeliverEvents": row("PEER", ANY_REGION, PLATFORM),
    "PeerService/SellTraceCodes": row("PEER", ANY_REGION, PLATFORM),
    "PeerService/TakeBackTraceCodes": row("PEER", ANY_REGION, PLATFORM),
    "PeerService/GetCheckpoint": row("PEER", ANY_REGION, PLATFORM),
    "PeerService/GetTrustList": row("PEER", ANY_REGION, PLATFORM, HOSPITAL, PHARMACY, REGULATOR),
    "ClearingService/ReconcileDay": row("PEER", ANY_REGION, PLATFORM),
    "ClearingService/ProposeClearing": row("PEER", ANY_REGION, PLATFORM),
    "ClearingService/ClearPeriod": row("SAME_REGION", OWN_REGION, OPERATOR, PLATFORM),
    "SupervisionService/TracePrescription": row("SAME_REGION", OWN_REGION, REGULATOR),
    "SupervisionService/ExportEvidence": row("SAME_REGION", OWN_REGION, REGULATOR),
    "SupervisionService/GetCheckpoint": row("SAME_REGION", OWN_REGION, REGULATOR),
    "SupervisionService/GetConsistencyProof": row("SAME_REGION", OWN_REGION, REGULATOR),
    "SupervisionService/GetInclusionProof": row("SAME_REGION", OWN_REGION, REGULATOR),
    "SupervisionService/ListLogEntries": row("SAME_REGION", OWN_REGION, REGULATOR),
    "AdministrationService/ListOverdueAttempts": row("SAME_REGION", OWN_REGION, OPERATOR),
    "AdministrationService/AdjudicateAttempt": row("SAME_REGION", OWN_REGION, OPERATOR),
    "AdministrationService/ListDeadLetters": row("SAME_REGION", OWN_REGION, OPERATOR),
    "AdministrationService/RetryDeadLetter": row("SAME_REGION", OWN_REGION, OPERATOR),
    "AdministrationService/DiscardDeadLetter": row("SAME_REGION", OWN_REGION, OPERATOR),
    "HisService/PrecheckPrescription": row("SAME_INSTITUTION", OWN_INSTITUTION, HOSPITAL),
    "HisService/IssuePrescription": row("SAME_INSTITUTION", OWN_INSTITUTION, HOSPITAL),
    "HisService/RevokePrescription": row("SAME_INSTITUTION", OWN_INSTITUTION, HOSPITAL),
    "HisService/GetPrescription": row("SAME_INSTITUTION", OWN_INSTITUTION, HOSPITAL),
    "HisService/ListStatements": row("SAME_INSTITUTION", OWN_INSTITUTION, HOSPITAL),
    "HisService/WatchNotices": row("SAME_INSTITUTION", OWN_INSTITUTION, HOSPITAL),
    "HisService/GetOutcome": row("SAME_INSTITUTION", OWN_INSTITUTION, HOSPITAL),
    "PosService/PresentECredential": row("SAME_INSTITUTION", OWN_INSTITUTION, PHARMACY),
    "PosService/FindPrescription": row("SAME_INSTITUTION", OWN_INSTITUTION, PHARMACY),
    "PosService/ClaimPrescription": row("SAME_INSTITUTION", OWN_INSTITUTION, PHARMACY),
    "PosService/ReleaseClaim": row("SAME_INSTITUTION", OWN_INSTITUTION, PHARMACY),
    "PosService/QuoteSettlement": row("SAME_INSTITUTION", OWN_INSTITUTION, PHARMACY),
    "PosService/CommitClaim": row("SAME_INSTITUTION", OWN_INSTITUTION, PHARMACY),
    "PosService/RecordDispense": row("SAME_INSTITUTION", OWN_INSTITUTION, PHARMACY),
    "PosService/CorrectCall": row("SAME_INSTITUTION", OWN_INSTITUTION, PHARMACY),
    "PosService/ReturnDispense": row("SAME_INSTITUTION", OWN_INSTITUTION, PHARMACY),
    "PosService/UpdateDelivery": row("SAME_INSTITUTION", OWN_INSTITUTION, PHARMACY),
    "PosService/GetDispense": row("SAME_INSTITUTION", OWN_INSTITUTION, PHARMACY),
    "PosService/ListStatements": row("SAME_INSTITUTION", OWN_INSTITUTION, PHARMACY),
    "PosService/ReconcileDay": row("SAME_INSTITUTION", OWN_INSTITUTION, PHARMACY),
    "PosService/WatchNotices": row("SAME_INSTITUTION", OWN_INSTITUTION, PHARMACY),
    "PosService/GetOutcome": row("SAME_INSTITUTION", OWN_INSTITUTION, PHARMACY),
}

MAY_CALL = (State.ACTIVE, State.SUSPENDED)
LAYER = "L8 authority"


def reasons(method: str, member: Member) -> set[str]:
    """Every reason for which the cell must be refused; none if it must be served."""
    kinds, scope, _ = POLICY[method]
    elsewhere = {
        OWN_REGION: not member.own_region,
        OWN_INSTITUTION: not (member.own_region and member.own_institution),
        ANY_REGION: False,
    }[scope]
    of_platform = member.name.kind is PLATFORM
    unknown = Reason.CALLER_CERTIFICATE_UNTRUSTED if of_platform else Reason.INSTITUTION_NOT_ACTIVE
    judged = {
        Reason.CALLER_CERTIFICATE_EXPIRED: member.certificate is Certificate.EXPIRED,
        Reason.CALLER_CERTIFICATE_REVOKED: member.certificate is Certificate.DENIED,
        unknown: member.state not in MAY_CALL,
        Reason.CALLER_KIND_NOT_ALLOWED: member.name.kind not in kinds,
        Reason.CALLER_REGION_NOT_ALLOWED: elsewhere,
    }
    return {str(reason) for reason, holds in judged.items() if holds}


def test_the_contract_says_what_this_table_says() -> None:
    stated = {}
    for name, method in methods().items():
        policy = method.GetOptions().Extensions[annotations_pb2.policy]
        kinds = [annotations_pb2.CallerKind.Name(each) for each in policy.callers]
        relation = annotations_pb2.Relation.Name(policy.relation).removeprefix("RELATION_")
        stated[name] = ({each.removeprefix("CALLER_KIND_").lower() for each in kinds}, relation)
    written = {name: (set(map(str, kinds)), tie) for name, (kinds, _, tie) in POLICY.items()}
    assert stated == written


NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def membership() -> Membership:
    return Membership(NOW)


def doors_of(membership: Membership) -> dict[tuple[str, State], Door]:
    """The door at which a caller in some standing calls a service.

    Edges belong to an institution; a caller meets the edge of its own institution, whatever its
    standing is, or another's.
    """
    platform = Door(welcoming(*platform_services()), membership.trust, Place(HERE), lambda: NOW)
    doors = {(service, state): platform for service in platform_services() for state in State}
    for service, kind in zip(EDGE_SERVICES, (HOSPITAL, PHARMACY), strict=True):
        for state in State:
            place = Place(HERE, membership.own(kind, state).institution_code)
            services = welcoming(service)
            doors[service, state] = Door(services, membership.trust, place, lambda: NOW)
    return doors


async def test_every_cell_is_decided_as_the_table_says(membership: Membership, ran: Ran) -> None:
    keep_quiet()
    doors = doors_of(membership)
    seen = {each.credential.sha256: connection(each.credential) for each in membership.members}
    outcomes: Counter[str] = Counter()
    wrong = []
    for method in methods():
        service = method.partition("/")[0]
        for member in membership.members:
            door = doors[service, member.state]
            answer = await door.call(f"/rxoutflow.v1.{method}", b"", seen[member.credential.sha256])
            expected = reasons(method, member) or {"OK"}
            outcomes[answer.reason] += 1
            if answer.reason not in expected:
                wrong.append((method, member.name, member.state, member.certificate, answer.reason))
    assert wrong == []
    allowed = sum(not reasons(method, each) for method in methods() for each in membership.members)
    assert outcomes["OK"] == allowed > 100
    cells = sum(outcomes.values())
    assert cells == len(methods()) * len(membership.members)
    ran(f"{LAYER}: cells", cells, 9_000)
    ran(f"{LAYER}: cells served", outcomes["OK"], 100)
    ran(f"{LAYER}: cells refused", cells - outcomes["OK"], 3_000)


async def test_every_method_decides_the_same_over_real_tls(
    membership: Membership, tmp_path: Path, ran: Ran
) -> None:
    keep_quiet()
    region = membership.regions[HERE]
    calls = 0
    async with AsyncExitStack() as stack:
        addresses = {}
        for service, place in places(membership).items():
            server = serve(membership, service, place, tmp_path)
            await server.start()
            stack.push_async_callback(server.stop, 0)
            addresses[service] = server.address
        roots = region.transport.certificate.public_bytes(Encoding.PEM)
        for member in callers_over_tls(membership):
            pair = live.key_pair(member.credential)
            opened = {
                address: await stack.enter_async_context(
                    open_channel(address, platform_server_name(HERE), pair, roots)
                )
                for address in set(addresses.values())
            }
            for method in methods():
                channel = opened[addresses[method.partition("/")[0]]]
                outcome = await outcome_over_tls(channel, method)
                assert outcome in (reasons(method, member) or {"OK"}), (method, member.name)
                calls += 1
    ran(f"{LAYER}: calls over TLS", calls, 5 * len(POLICY))


def places(membership: Membership) -> dict[str, Place]:
    """Where each service stands; all of a platform's at one place."""
    platform = Place(HERE)
    his, pos = (membership.own(kind, State.ACTIVE) for kind in (HOSPITAL, PHARMACY))
    return {
        **dict.fromkeys(platform_services(), platform),
        "HisService": Place(HERE, his.institution_code),
        "PosService": Place(HERE, pos.institution_code),
    }


def serve(membership: Membership, service: str, place: Place, folder: Path) -> Server:
    region = membership.regions[HERE]
    usages = (*pki.SERVER, *pki.CLIENT)
    name = platform_server_name(HERE)
    own = live.issue(region.transport, region.platform, usages=usages, dns=(name,))
    return build_server(
        welcoming(service),
        listen="127.0.0.1:0",
        tls=live.write_pair(folder, service, own),
        trust=membership.trust,
        place=place,
        clock=lambda: NOW,
    )


def callers_over_tls(membership: Membership) -> list[Member]:
    """One caller of every kind whom a handshake admits: active, valid, here."""
    found = {}
    for member in membership.members:
        good = member.state is State.ACTIVE and member.certificate is Certificate.VALID
        if good and member.own_region and member.own_institution:
            found[member.name.kind] = member
    assert set(found) == set(CallerKind)
    return list(found.values())


async def outcome_over_tls(channel: Any, method: str) -> str:
    path = f"/rxoutflow.v1.{method}"
    try:
        if methods()[method].server_streaming:
            if methods()[method].client_streaming:
                stream = channel.stream_stream(path)([b""], timeout=20)
            else:
                stream = channel.unary_stream(path)(b"", timeout=20)
            async for _ in stream:
                break
            await stream.code()
        else:
            await channel.unary_unary(path)(b"", timeout=20)
    except grpc.aio.AioRpcError as error:
        info = error_info(error)
        return info.reason if info else error.code().name
    return "OK"
