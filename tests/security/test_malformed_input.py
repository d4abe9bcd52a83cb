"""L9: malformed input at every method of the contract.

Some three hundred mutants of a request that would succeed, for each method and each of its
variants: spoiled bytes, spoiled envelopes, contents that all the right people signed though they
make no sense, and fields with values that their type allows and their meaning does not. Of each is
required:

- a typed refusal of the catalogue, never INTERNAL and never gRPC's own;
- no effect: the stores are as they were, but for what :data:`RESIDUE` names and why;
- or it is answered, and then it says what the request said from which it was made, but for fields
  that are meant to be free (``support.leniency``).

The requests are made at the servers' doors without a socket; a sample goes over real TLS and has to
come to the same.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import process_time
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from google.protobuf.message import Message

from rxoutflow.v1.clearing_service_pb2 import ProposeClearingResponse
from rxoutflow.v1.error_reason_pb2 import ErrorReason
from rxoutflow.v1.hospital_service_pb2 import (
    BatchRegisterPrescriptionsResponse,
    StreamRegisterPrescriptionsResponse,
)
from rxoutflow.v1.peer_service_pb2 import DeliverEventsResponse
from rxoutflow.v1.pharmacy_service_pb2 import FindPrescriptionRequest
from rxoutflow_server.domain.errors import Reason
from rxoutflow_server.transport.channels import platform_server_name
from rxoutflow_server.transport.errors import error_info
from rxoutflow_server.transport.server import build_server
from support import doors, live, pki
from support.board import Ran
from support.doors import LIMITS, Answer, reason_in
from support.leniency import Comparison
from support.members import contract, methods
from support.mutant_statements import SIGNED_ANEW, mutants
from support.mutants import Mutant
from support.premises import DISPENSING, HIS, HOME, POS, Call, Premises, signers

pytestmark = pytest.mark.asyncio(loop_scope="session")

SEED = 20260302
MOST, AGAIN = 320, 160
"""Mutants of each method's first request, and of each of its variants, about."""
FLOOR = 200
"""Mutants of each method, at least."""
OF_NUMBERS = {
    "PeerService/GetCheckpoint",
    "SupervisionService/GetCheckpoint",
    "SupervisionService/GetConsistencyProof",
    "SupervisionService/ListLogEntries",
}
"""Methods whose requests are a number or two, or nothing: there is less to be wrong with them."""

REASONS = {name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()}  # noqa: SIM118 - an enum wrapper is no dict

DIFFERS = "DIFFERS"
"""What stands for the answer that two books are not the same: nothing was accepted."""

_WRONG_CODES = {f"{HOME}.pickup_tries"}
_SEALED = {"certificates", "outcomes", "statements"}
_LOGGED = {"log_leaves", "log_checkpoints", "log_signers"}
_INTENDED = {"certificates", "dispenses", "statements", "steps"} | _LOGGED
RESIDUE: dict[str, set[str]] = {
    # Wrong codes are counted, so that nobody can go on guessing.
    "PharmacyService/FindPrescription": _WRONG_CODES,
    "PharmacyService/ClaimPrescription": _WRONG_CODES,
    "PharmacyService/QuoteSettlement": _WRONG_CODES,
    "HomeService/OpenPrescription": _WRONG_CODES,
    "HomeService/GrantClaim": _WRONG_CODES,
    "PosService/FindPrescription": _WRONG_CODES,
    "PosService/QuoteSettlement": _WRONG_CODES,
    # The dispensing region stores a commitment before it asks anybody, and that it was refused.
    "PharmacyService/CommitClaim": {f"{DISPENSING}.{table}" for table in _INTENDED},
    # An edge keeps what it sealed, and that the platform refused it.
    "HisService/IssuePrescription": {
        f"{HIS}.{table}" for table in (*_SEALED, "issued_prescriptions")
    },
    "HisService/RevokePrescription": {f"{HIS}.{table}" for table in _SEALED},
    "PosService/ClaimPrescription": _WRONG_CODES | {f"{POS}.{table}" for table in _SEALED},
    "PosService/ReleaseClaim": {f"{POS}.{table}" for table in _SEALED},
    "PosService/CorrectCall": {f"{POS}.{table}" for table in _SEALED},
    "PosService/CommitClaim": {f"{POS}.{table}" for table in _SEALED}
    | {f"{DISPENSING}.{table}" for table in _INTENDED},
    "PosService/RecordDispense": {f"{POS}.{table}" for table in (*_SEALED, "handovers")},
    "PosService/ReturnDispense": {f"{POS}.{table}" for table in (*_SEALED, "goods_returns")},
    "PosService/UpdateDelivery": {f"{POS}.{table}" for table in _SEALED},
}
"""What a refused request may leave behind, and why."""

CHANGES_NOTHING = re.compile(
    r".*/(Precheck|Get|List|Watch|Find|Open|Quote|Reconcile|Trace|Export)\w+( \(.*\))?"
)
"""Methods that change nothing when they succeed, either."""


@dataclass
class Tally:
    """What came of the mutants of a service."""

    outcomes: Counter[str] = field(default_factory=Counter)
    by_method: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def note(self, call: Call, mutant: Mutant, problem: str) -> None:
        self.wrong.append(f"{call.name} [{mutant.family}: {mutant.what}]: {problem}")


@pytest.mark.parametrize("service", sorted(contract()))
async def test_a_malformed_request_is_refused_by_type_and_changes_nothing(
    service: str, premises: Premises, ran: Ran
) -> None:
    tally = Tally()
    people = signers(premises)
    for call in premises.all_calls():
        if call.name.startswith(f"{service}/"):
            most = MOST if call in firsts(premises) else AGAIN
            for mutant, data in mutants(call.request, people, SEED, most):
                await _judge(premises, call, mutant, data, tally)
                premises.restore()
    assert tally.wrong == []
    least = min(
        tally.by_method[each]
        for each in methods()
        if each.startswith(f"{service}/") and each not in OF_NUMBERS
    )
    assert least >= FLOOR
    cases = sum(tally.by_method.values())
    ran(f"L9 mutants at {service}", cases, FLOOR * len(tally.by_method))


def firsts(premises: Premises) -> list[Call]:
    """One request of each method."""
    return [calls[0] for calls in premises.calls.values()]


async def _judge(premises: Premises, call: Call, mutant: Mutant, data: bytes, tally: Tally) -> None:
    doors.defects.clear()
    answer = await premises.make(call, data)
    reason = outcome(answer)
    method = call.method.removeprefix("/rxoutflow.v1.")
    tally.outcomes[reason] += 1
    tally.by_method[method] += 1
    if reason == Reason.INTERNAL or doors.defects:
        where = [f"{each['exception']} at {each['trace'][-1]}" for each in doors.defects]
        tally.note(call, mutant, f"a defect: {where}")
    elif reason == "OK":
        request = type(call.request).FromString(data)
        comparison = Comparison(call.name, SIGNED_ANEW in mutant.what)
        if differing := comparison.differences(request, call.request):
            tally.note(call, mutant, f"accepted though {differing} differ")
        if CHANGES_NOTHING.fullmatch(call.name) and (effects := premises.effects()):
            tally.note(call, mutant, f"only looks, but changed {effects}")
    elif reason == DIFFERS:
        if effects := premises.effects():
            tally.note(call, mutant, f"said that books differ, but changed {effects}")
    elif reason not in REASONS:
        tally.note(call, mutant, f"unknown reason {reason}")
    elif not (effects := premises.effects()) <= RESIDUE.get(method, set()):
        tally.note(call, mutant, f"refused with {reason}, but changed {effects}")


def outcome(answer: Answer) -> str:
    """The reason of the call; of calls that decide on several things, of the first refused."""
    match answer.response:
        case BatchRegisterPrescriptionsResponse():
            errors = [each.error for each in answer.response.results if each.HasField("error")]
        case StreamRegisterPrescriptionsResponse():
            errors = [answer.response.error] if answer.response.HasField("error") else []
        case DeliverEventsResponse():
            errors = [
                each.error for each in answer.response.acknowledgements if each.HasField("error")
            ]
        case ProposeClearingResponse() if not answer.response.HasField("acceptance"):
            return DIFFERS
        case _:
            return answer.reason
    return reason_in(errors[0]) if errors else answer.reason


async def test_every_method_has_a_request_that_would_succeed(premises: Premises) -> None:
    """Else its mutants would be refused for another reason than what is wrong with them."""
    assert {call.method.removeprefix("/rxoutflow.v1.") for call in premises.all_calls()} == set(
        methods()
    )


@pytest.mark.parametrize("character", ["\ufdfa", "1", " ", "a\u0301"])
async def test_a_code_as_long_as_a_request_can_be_is_refused_at_once(
    premises: Premises, character: str
) -> None:
    """Normalising a mebibyte of it would hold everybody else up for seconds."""
    call = premises.calls["/rxoutflow.v1.PharmacyService/FindPrescription"][0]
    endless = FindPrescriptionRequest(
        pickup_code=character * (1_000_000 // len(character.encode()))
    )
    begun = process_time()
    answer = await premises.make(call, endless.SerializeToString())
    assert answer.reason == Reason.PICKUP_CODE_INVALID
    assert process_time() - begun < 0.5


# over real TLS

SAMPLE = 3
"""Mutants of each family and method that go over TLS."""


async def test_over_tls_malformed_requests_come_to_the_same(
    premises: Premises, tmp_path: Path, ran: Ran
) -> None:
    people, calls, wrong = signers(premises), 0, []
    async with serving(premises, tmp_path) as channels:
        for call in firsts(premises):
            for mutant, data in sample(call, people):
                expected = outcome(await premises.make(call, data))
                premises.restore()
                found = await over_tls(channels(call), call, data, expected)
                premises.restore()
                calls += 1
                if found != expected:
                    wrong.append((call.name, mutant.what, expected, found))
    assert wrong == []
    ran("L9 mutants over TLS", calls, 400)


def sample(call: Call, people: Any) -> list[tuple[Mutant, bytes]]:
    """A few mutants of each family, none too large for gRPC."""
    taken: Counter[str] = Counter()
    found = []
    for mutant, data in mutants(call.request, people, SEED + 1, 40):
        if taken[mutant.family] < SAMPLE and len(data) < 1 << 20:
            taken[mutant.family] += 1
            found.append((mutant, data))
    return found


async def test_over_tls_a_request_that_is_too_large_is_turned_away(
    premises: Premises, tmp_path: Path
) -> None:
    firsts = {call.method.rpartition("/")[0]: call for call in premises.all_calls()}
    async with serving(premises, tmp_path) as channels:
        for call in firsts.values():
            found = await over_tls(channels(call), call, bytes((1 << 20) + 1), "refused")
            assert found == "RESOURCE_EXHAUSTED", call.name
            assert premises.effects() == set()


@asynccontextmanager
async def serving(premises: Premises, folder: Path) -> AsyncIterator[Any]:
    """Real servers in front of the same services, and a channel for each caller."""
    async with AsyncExitStack() as stack:
        addresses = {}
        for name in premises.doors:
            server = _server(premises, name, folder)
            await server.start()
            stack.push_async_callback(server.stop, 0)
            addresses[name] = (server.address, _region_of(name))
        opened: dict[Any, grpc.aio.Channel] = {}

        def channel(call: Call) -> grpc.aio.Channel:
            key = (call.door, call.caller)
            if key not in opened:
                address, region = addresses[call.door]
                roots = premises.region(region).transport.certificate.public_bytes(Encoding.PEM)
                pair = live.key_pair(premises.credential(call.caller))
                opened[key] = _unlimited(address, region, pair, roots)
            return opened[key]

        try:
            yield channel
        finally:
            for each in opened.values():
                await each.close()


def _region_of(door: str) -> str:
    return {HIS: HOME, POS: DISPENSING}.get(door, door)


def _server(premises: Premises, name: str, folder: Path) -> Any:
    region = premises.region(_region_of(name))
    usages = (*pki.SERVER, *pki.CLIENT)
    dns = platform_server_name(region.code)
    own = live.issue(region.transport, region.platform, usages=usages, dns=(dns,))
    door = premises.doors[name]
    return build_server(
        door.services,
        listen="127.0.0.1:0",
        tls=live.write_pair(folder, name, own),
        trust=premises.world.platforms[region.code].region.trust,
        place=door.place,
        clock=premises.world.clock,
        limits=LIMITS,
    )


def _unlimited(address: str, region: str, pair: Any, roots: bytes) -> grpc.aio.Channel:
    """A channel of a client that sends what it likes."""
    credentials = grpc.ssl_channel_credentials(roots, pair.key_pem, pair.certificate_pem)
    options = [
        ("grpc.ssl_target_name_override", platform_server_name(region)),
        ("grpc.max_send_message_length", -1),
    ]
    return grpc.aio.secure_channel(address, credentials, options)


async def over_tls(channel: Any, call: Call, data: bytes, expected: str) -> str:
    """What comes of the call over TLS, in the words of :func:`outcome`.

    A stream that is let in may have nothing to say, so it is not waited for as long.
    """
    method = methods()[call.method.removeprefix("/rxoutflow.v1.")]
    try:
        if method.client_streaming:
            answers = channel.stream_stream(
                call.method, response_deserializer=_response_type(call.method).FromString
            )([data], timeout=20)
            return outcome(Answer(response=await answers.read()))
        if method.server_streaming:
            seconds = 0.3 if expected == "OK" else 20
            stream = channel.unary_stream(call.method)(data, timeout=seconds)
            return await _first_of(stream)
        response: Any = await channel.unary_unary(
            call.method, response_deserializer=_response_type(call.method).FromString
        )(data, timeout=20)
    except grpc.aio.AioRpcError as error:
        return _reason_of(error)
    return outcome(Answer(response=response))


async def _first_of(stream: Any) -> str:
    """OK if the stream sends something or stays open; else why it ended."""
    try:
        await stream.read()
    except grpc.aio.AioRpcError as error:
        quiet = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        return "OK" if quiet else _reason_of(error)
    stream.cancel()
    return "OK"


def _reason_of(error: grpc.aio.AioRpcError) -> str:
    info = error_info(error)
    return str(info.reason) if info is not None else error.code().name


def _response_type(method: str) -> type[Message]:
    from google.protobuf.message_factory import GetMessageClass

    return GetMessageClass(methods()[method.removeprefix("/rxoutflow.v1.")].output_type)
