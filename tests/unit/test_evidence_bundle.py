"""Evidence bundles: what dispensed prescriptions leave behind verifies offline, alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from rxoutflow.bundle import BundleReason, BundleRefused, VerifiedBundle, read_bundle, verify_bundle
from rxoutflow.trust import TrustStore
from rxoutflow.v1.attempt_pb2 import Attempt
from rxoutflow.v1.dispense_pb2 import DispenseRecord
from rxoutflow.v1.evidence_pb2 import EvidenceBundle
from rxoutflow.v1.prescription_status_pb2 import PrescriptionStatus
from rxoutflow.v1.settlement_pb2 import Settlement
from rxoutflow.v1.supervision_service_pb2 import ExportEvidenceRequest
from rxoutflow_server.application.exchange import evidence
from rxoutflow_server.application.log import showing
from rxoutflow_server.domain.errors import Reason, Refusal
from support.pki import NOW, trust_store
from support.world import World, content_of

HOME, DISPENSING, PAYER = "350200", "350500", "320600"


async def export(world: World, region: str, number: str) -> EvidenceBundle:
    platform = world.platforms[region]
    request = ExportEvidenceRequest(prescription_number=number)
    answer = await platform.store.read(lambda tx: showing.export(tx, platform.region, request))
    return answer.bundle


def trusting(world: World) -> TrustStore:
    """What an auditor holds: the pinned registries and their lists."""
    return trust_store(*(each.cast.region for each in world.platforms.values()))


async def settled(world: World) -> str:
    number, code = await world.issue(HOME, PAYER, lines=2)
    await world.dispense(DISPENSING, code)
    await world.settle()
    return number


@pytest.fixture(scope="module")
def world() -> World:
    return World.create(HOME, DISPENSING, PAYER)


@pytest.fixture(scope="module")
def bundle(world: World) -> EvidenceBundle:
    async def exported() -> EvidenceBundle:
        return await export(world, HOME, await settled(world))

    return asyncio.run(exported())


@pytest.fixture(scope="module")
def trust(world: World) -> TrustStore:
    return trusting(world)


def names(verified: VerifiedBundle) -> list[str]:
    return [each.name for each in verified.statements]


def refused(bundle: EvidenceBundle, trust: TrustStore) -> BundleReason:
    with pytest.raises(BundleRefused) as caught:
        verify_bundle(read_bundle(bundle.SerializeToString()), trust, NOW)
    return caught.value.reason


@pytest.mark.parametrize("region", [HOME, DISPENSING, PAYER])
async def test_what_a_region_keeps_of_a_settled_prescription_verifies(region: str) -> None:
    world = World.create(HOME, DISPENSING, PAYER)
    bundle = await export(world, region, await settled(world))
    verified = verify_bundle(read_bundle(bundle.SerializeToString()), trusting(world), NOW)
    assert {"prescription", "commitment", "dispense-record", "settlement"} <= set(names(verified))
    assert verified.head.region_code == region


async def test_a_prescription_that_the_patient_paid_alone_verifies() -> None:
    world = World.create(HOME, DISPENSING, PAYER)
    number, code = await world.issue(HOME, PAYER)
    attempt = await world.claim(DISPENSING, code)
    request = world.commit_request(DISPENSING, attempt, None)
    await world.commit(DISPENSING, request)
    await world.record(DISPENSING, world.record_request(DISPENSING, request.commitment))
    await world.settle()
    verified = verify_bundle(await export(world, HOME, number), trusting(world), NOW)
    assert "dispense-record" in names(verified)
    assert "settlement" not in names(verified)


async def test_a_release_an_expiry_and_a_voided_hold_verify() -> None:
    world = World.create(HOME, DISPENSING, PAYER)
    number, code = await world.issue(HOME, PAYER)
    attempt = await world.claim(DISPENSING, code)
    await world.claim(DISPENSING, code)
    amounts = await world.quote(DISPENSING, attempt)
    await world.commit(DISPENSING, world.commit_request(DISPENSING, attempt, amounts))
    await world.release(DISPENSING, attempt)
    await world.settle()
    await world.claim(DISPENSING, code)
    world.clock.now += world.platforms[HOME].region.lease
    await world.expire_leases(HOME)
    await world.settle()
    for region in (HOME, DISPENSING, PAYER):
        verify_bundle(await export(world, region, number), trusting(world), world.clock.now)


async def test_only_what_is_kept_is_exported(world: World) -> None:
    number, _ = await world.issue(HOME, PAYER)
    with pytest.raises(Refusal) as caught:
        await export(world, DISPENSING, number)
    assert caught.value.reason is Reason.PRESCRIPTION_NOT_FOUND


# --- tampering ---


def test_every_byte_counts(bundle: EvidenceBundle, trust: TrustStore) -> None:
    """One byte changed, at places all over the file."""
    data = bundle.SerializeToString()
    accepted = []
    for position in range(0, len(data), 97):
        changed = bytearray(data)
        changed[position] ^= 1 << (position % 8)
        try:
            verify_bundle(read_bundle(bytes(changed)), trust, NOW)
        except BundleRefused:
            continue
        accepted.append(position)
    assert accepted == []


@pytest.mark.parametrize("cut", [1, 1000, 10_000])
def test_a_file_that_was_cut_off_is_refused(
    bundle: EvidenceBundle, trust: TrustStore, cut: int
) -> None:
    with pytest.raises(BundleRefused):
        verify_bundle(read_bundle(bundle.SerializeToString()[:-cut]), trust, NOW)


def fields(message: Message, path: str = "") -> list[str]:
    """The paths of everything that is set in a message, down to the payloads."""
    found: list[str] = []
    for field, value in message.ListFields():
        values = value if field.is_repeated else [value]
        for at, each in enumerate(values):
            here = f"{path}{field.name}[{at}]" if field.is_repeated else f"{path}{field.name}"
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                found += fields(each, f"{here}.")
            else:
                found.append(here)
    return found


def altered(value: object) -> object:
    if isinstance(value, bytes):
        return value[:-1] + bytes([value[-1] ^ 1]) if value else b"x"
    if isinstance(value, str):
        return value[:-1] + ("0" if value[-1:] != "0" else "1")
    assert isinstance(value, int)
    return value + 1


def test_every_field_counts(bundle: EvidenceBundle, trust: TrustStore) -> None:
    """Each field of the file changed by itself, and named in the refusal's reason."""
    paths = fields(bundle)
    accepted = []
    for path in paths[:: max(1, len(paths) // 150)]:
        changed = EvidenceBundle.FromString(bundle.SerializeToString())
        *holders, last = path.split(".")
        target: object = changed
        for part in holders:
            name, _, at = part.rstrip("]").partition("[")
            target = getattr(target, name)[int(at)] if at else getattr(target, name)
        name, _, at = last.rstrip("]").partition("[")
        if at:
            values = getattr(target, name)
            values[int(at)] = altered(values[int(at)])
        else:
            setattr(target, name, altered(getattr(target, name)))
        try:
            verify_bundle(read_bundle(changed.SerializeToString()), trust, NOW)
        except BundleRefused:
            continue
        accepted.append(path)
    assert accepted == []


REASONS: dict[str, tuple[Callable[[EvidenceBundle], object], BundleReason]] = {
    "another number": (
        lambda each: setattr(each, "prescription_number", "350200" + "0" * 25),
        BundleReason.OTHER_PRESCRIPTION,
    ),
    "another region": (
        lambda each: setattr(each, "region_code", PAYER),
        BundleReason.CHECKPOINT,
    ),
    "no checkpoint": (lambda each: each.ClearField("checkpoint"), BundleReason.CHECKPOINT),
    "a statement twice": (
        lambda each: each.statements.append(each.statements[-1]),
        BundleReason.NOT_LOGGED,
    ),
    "another order": (
        lambda each: each.statements.sort(key=lambda one: -one.leaf_index),
        BundleReason.NOT_LOGGED,
    ),
    "another time": (
        lambda each: setattr(each.statements[0].keep_time, "seconds", 1),
        BundleReason.NOT_LOGGED,
    ),
    "a list of nobody": (
        lambda each: setattr(each.trust_lists[0].signatures[0], "value", b"nobody's"),
        BundleReason.TRUST_LIST,
    ),
    "an empty bundle": (
        lambda each: each.ClearField("statements"),
        BundleReason.CHAIN_BROKEN,
    ),
}


@pytest.mark.parametrize("how", REASONS)
def test_tampering_is_refused_by_name(bundle: EvidenceBundle, trust: TrustStore, how: str) -> None:
    changed = EvidenceBundle.FromString(bundle.SerializeToString())
    change, reason = REASONS[how]
    change(changed)
    assert refused(changed, trust) is reason


@pytest.mark.parametrize("name", ["prescription", "claim", "commitment", "dispense-record"])
def test_no_step_of_the_chain_can_be_left_out(
    bundle: EvidenceBundle, trust: TrustStore, name: str
) -> None:
    changed = EvidenceBundle.FromString(bundle.SerializeToString())
    kept = [each for each in changed.statements if f".{name}.v1" not in each.statement.payload_type]
    assert len(kept) == len(changed.statements) - 1
    del changed.statements[:]
    changed.statements.extend(kept)
    assert refused(changed, trust) is BundleReason.CHAIN_BROKEN


# --- platforms that sign lies: signatures and log are good, the chain is not ---


async def lied(
    change: Callable[[World, str], Message],
) -> tuple[EvidenceBundle, TrustStore]:
    """A bundle in which home has signed and logged one thing more."""
    world = World.create(HOME, DISPENSING, PAYER)
    number = await settled(world)
    statement = world.signed(HOME, change(world, number))
    home = world.platforms[HOME]
    await home.store.transact(lambda tx: evidence.keep(tx, number, statement, world.clock.now))
    return await export(world, HOME, number), trusting(world)


async def test_more_than_was_prescribed_is_refused() -> None:
    def change(world: World, number: str) -> Message:
        attempt = Attempt(
            attempt_id=world.request_id(),
            prescription_number=number,
            fence=7,
            state=Attempt.STATE_EXPIRED,
            pharmacy_code=world.platforms[DISPENSING].pharmacy.institution_code,
            dispensing_region_code=DISPENSING,
            payer_region_code=PAYER,
        )
        attempt.lines.add(line_id=1, quantity=21)
        return attempt

    assert refused(*await lied(change)) is BundleReason.QUANTITY_EXCEEDED


async def test_an_attempt_without_its_cause_is_refused() -> None:
    def change(world: World, number: str) -> Message:
        return Attempt(
            attempt_id=world.request_id(),
            prescription_number=number,
            fence=7,
            state=Attempt.STATE_RESERVED,
            pharmacy_code=world.platforms[DISPENSING].pharmacy.institution_code,
            dispensing_region_code=DISPENSING,
            payer_region_code=PAYER,
            cause_sha256=bytes(32),
        )

    assert refused(*await lied(change)) is BundleReason.CHAIN_BROKEN


async def _contents(world: World, number: str, kind: type[Message]) -> list[Message]:
    true = await world.platforms[HOME].store.read(lambda tx: tx.journal.statements(number))
    wanted = kind.DESCRIPTOR.name.lower()
    return [
        content_of(each, kind)
        for _, each in true
        if each.payload_type.rpartition("vnd.rxoutflow.")[2].partition(".")[0].replace("-", "")
        == wanted
    ]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"total_fen": 1}, BundleReason.AMOUNTS_BROKEN),
        (
            {"pool_fen": 1, "person_fen": -1, "ratio_self_fen": -1, "cash_fen": -1},
            BundleReason.AMOUNTS_BROKEN,
        ),
    ],
)
async def test_a_payment_of_other_amounts_is_refused(
    changes: dict[str, int], reason: BundleReason
) -> None:
    """Amounts that do not add up, and amounts that do but are not those that were accepted."""
    world = World.create(HOME, DISPENSING, PAYER)
    number = await settled(world)
    paid = (await _contents(world, number, Settlement))[-1]
    assert isinstance(paid, Settlement)
    for name, more in changes.items():
        setattr(paid.amounts, name, getattr(paid.amounts, name) + more)
    statement = world.signed(PAYER, paid)
    home = world.platforms[HOME]
    await home.store.transact(lambda tx: evidence.keep(tx, number, statement, world.clock.now))
    assert refused(await export(world, HOME, number), trusting(world)) is reason


async def test_another_handover_than_was_committed_is_refused() -> None:
    world = World.create(HOME, DISPENSING, PAYER)
    number = await settled(world)
    record = (await _contents(world, number, DispenseRecord))[0]
    assert isinstance(record, DispenseRecord)
    record.lines[0].quantity += 1
    statement = world.signed(DISPENSING, record)
    home = world.platforms[HOME]
    await home.store.transact(lambda tx: evidence.keep(tx, number, statement, world.clock.now))
    bundle = await export(world, HOME, number)
    assert refused(bundle, trusting(world)) is BundleReason.QUANTITY_EXCEEDED


async def test_a_status_of_another_sheet_is_refused() -> None:
    world = World.create(HOME, DISPENSING, PAYER)
    number = await settled(world)
    status = (await _contents(world, number, PrescriptionStatus))[0]
    assert isinstance(status, PrescriptionStatus)
    status.prescription_sha256 = bytes(32)
    statement = world.signed(HOME, status)
    home = world.platforms[HOME]
    await home.store.transact(lambda tx: evidence.keep(tx, number, statement, world.clock.now))
    assert refused(await export(world, HOME, number), trusting(world)) is BundleReason.CHAIN_BROKEN


async def test_an_auditor_with_older_lists_takes_the_newer_ones_of_the_bundle() -> None:
    world = World.create(HOME, DISPENSING, PAYER)
    number = await settled(world)
    held = trusting(world)
    cast = world.platforms[HOME].cast
    cast.region.trust_list.sequence += 1
    for platform in world.platforms.values():
        platform.region.trust.offer(cast.region.signed_list(), world.clock.now)
    verify_bundle(await export(world, HOME, number), held, NOW)
    taken = held.held(HOME)
    assert taken is not None
    assert taken.sequence == cast.region.trust_list.sequence
