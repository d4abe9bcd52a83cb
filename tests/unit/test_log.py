"""The region's log: receipts, what a commit leaves behind, audits, and the watch over others."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from rxoutflow.log import (
    CheckpointWrong,
    Head,
    ReceiptWrong,
    leaf_data,
    sign_head,
    verify_checkpoint,
    verify_receipt,
)
from rxoutflow.statements import SignerUnavailable, statement_sha256
from rxoutflow.v1 import hospital_service_pb2
from rxoutflow.v1.peer_service_pb2 import GetCheckpointRequest, GetCheckpointResponse
from rxoutflow.v1.statement_pb2 import Checkpoint, Receipt
from rxoutflow_server.application.exchange import evidence
from rxoutflow_server.application.home import registration
from rxoutflow_server.application.log import proofs, witnessing
from rxoutflow_server.application.log.auditing import audit
from rxoutflow_server.application.log.region_log import RegionLog
from rxoutflow_server.application.log.witnessing import Verdict
from rxoutflow_server.application.ports import Transaction
from rxoutflow_server.application.region import receipted
from rxoutflow_server.domain.errors import Refusal
from rxoutflow_server.storage.memory import MemoryStore
from rxoutflow_server.storage.sqlite import SqliteStore
from support.world import Platform, World

HOME, DISPENSING, PAYER = "350200", "350500", "320600"
Registration = hospital_service_pb2.RegisterPrescriptionRequest


@pytest.fixture
def world() -> World:
    return World.create(HOME, DISPENSING, PAYER)


def registration_request(world: World) -> Registration:
    return Registration(
        request_id=world.request_id(),
        prescription=world.signed(HOME, world.prescription(HOME, PAYER)),
        pickup_secret="0" * 16,
    )


async def register(platform: Platform, request: Registration) -> Receipt:
    """The receipt of the answer that a hospital gets."""
    response = await platform.store.transact(
        lambda tx: registration.register(tx, platform.region, platform.hospital, request)
    )
    return (
        await receipted(platform.region, platform.store, response, request.prescription)
    ).receipt


async def audited(platform: Platform) -> tuple[str, ...]:
    region = platform.region
    found = await platform.store.read(
        lambda tx: audit(tx, region.code, region.verifier, region.now())
    )
    return found.problems


# --- receipts ---


async def test_an_answer_carries_a_receipt_that_verifies_offline(world: World) -> None:
    home, request = world.platforms[HOME], registration_request(world)
    receipt = await register(home, request)
    elsewhere = world.platforms[PAYER].region.verifier
    logged = verify_receipt(receipt, request.prescription, elsewhere, world.clock.now)
    assert (logged.head.region_code, logged.leaf_index) == (HOME, 0)
    assert logged.keep_time == world.clock.now


async def test_the_same_request_again_gets_a_newer_receipt_of_the_same_leaf(world: World) -> None:
    home, request = world.platforms[HOME], registration_request(world)
    first = await register(home, request)
    for _ in range(3):
        await register(home, registration_request(world))
    again = RegionLog(HOME, home.cast.platform_seal.signer, world.clock)
    fresh = replace(home, region=replace(home.region, log=again))
    second = await register(fresh, request)
    assert second.leaf_index == first.leaf_index
    assert second.checkpoint != first.checkpoint
    for receipt in (first, second):
        verify_receipt(receipt, request.prescription, home.region.verifier, world.clock.now)


async def test_claim_release_and_revocation_are_receipted_by_home(world: World) -> None:
    home, dispensing = world.platforms[HOME], world.platforms[DISPENSING]
    number, code = await world.issue(HOME, PAYER)
    request = world.claim_request(DISPENSING, code)
    from rxoutflow_server.application.dispensing import claims

    answer = await claims.claim(dispensing.exchange, dispensing.pharmacy, request)
    verifier, now = dispensing.region.verifier, world.clock.now
    logged = verify_receipt(answer.receipt, request.claim, verifier, now, region_code=HOME)
    kept = await home.store.read(lambda tx: tx.log.leaf(number, statement_sha256(request.claim)))
    assert kept is not None
    assert kept.index == logged.leaf_index


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda receipt: receipt.ClearField("checkpoint"), "no signed note"),
        (lambda receipt: setattr(receipt, "leaf_index", 1), "does not keep it"),
        (lambda receipt: setattr(receipt, "leaf_index", 99), "has no leaf 99"),
        (lambda receipt: receipt.inclusion_path.pop(), "too short"),
        (lambda receipt: receipt.inclusion_path.append(bytes(32)), "too long"),
        (lambda receipt: setattr(receipt.keep_time, "seconds", 1), "does not lead"),
        (lambda receipt: setattr(receipt.keep_time, "nanos", 1), "whole microseconds"),
        (lambda receipt: setattr(receipt, "statement_sha256", bytes(32)), "another statement"),
        (lambda receipt: receipt.checkpoint.ClearField("certificate_chain"), "is missing"),
    ],
)
async def test_a_changed_receipt_is_refused_with_what_is_wrong(
    world: World, change: Callable[[Receipt], object], problem: str
) -> None:
    home, request = world.platforms[HOME], registration_request(world)
    receipt = await register(home, request)
    change(receipt)
    with pytest.raises(ReceiptWrong, match=problem):
        verify_receipt(receipt, request.prescription, home.region.verifier, world.clock.now)


async def test_a_receipt_is_not_one_for_another_statement_or_region(world: World) -> None:
    home, request, other = (
        world.platforms[HOME],
        registration_request(world),
        registration_request(world),
    )
    receipt = await register(home, request)
    verifier, now = home.region.verifier, world.clock.now
    with pytest.raises(ReceiptWrong, match="another statement"):
        verify_receipt(receipt, other.prescription, verifier, now)
    with pytest.raises(ReceiptWrong, match="not of the log of region 320600"):
        verify_receipt(receipt, request.prescription, verifier, now, region_code=PAYER)


# --- checkpoints ---


def head(size: int = 5) -> Head:
    return Head(HOME, size, sha256(b"root").digest())


def test_a_checkpoint_is_a_signed_note_as_others_read_it(world: World) -> None:
    """Read here by the words of c2sp.org/signed-note and tlog-checkpoint, not by the library."""
    signer = world.platforms[HOME].cast.platform_seal.signer
    note = sign_head(head(), signer).note
    text, _, line = note.rpartition("\n\n")
    text += "\n"
    assert text.split("\n")[:3] == [
        "350200.rxoutflow/log",
        "5",
        b64encode(sha256(b"root").digest()).decode(),
    ]
    dash, name, encoded = line.rstrip("\n").split(" ")
    key_id, value = b64decode(encoded)[:4], b64decode(encoded)[4:]
    key: Any = x509.load_der_x509_certificate(signer.certificate_chain[0]).public_key()
    assert (dash, name) == ("—", "350200.rxoutflow/log")
    if isinstance(key, ec.EllipticCurvePublicKey):
        spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        assert key_id == sha256(spki).digest()[:4]
        key.verify(value, text.encode(), ec.ECDSA(hashes.SHA256()))
        with pytest.raises(InvalidSignature):
            key.verify(value, text.encode() + b"\n", ec.ECDSA(hashes.SHA256()))
    else:
        assert isinstance(key, ed25519.Ed25519PublicKey)
        raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
        assert key_id == sha256(name.encode() + b"\n\x01" + raw).digest()[:4]
        key.verify(value, text.encode())


def test_lines_of_other_keys_are_ignored_and_do_not_help(world: World) -> None:
    region = world.platforms[HOME].region
    signed = sign_head(head(), world.platforms[HOME].cast.platform_seal.signer)
    witness = f"— witness.example {b64encode(bytes(68)).decode()}\n"
    verify = region.verifier
    cosigned = Checkpoint(note=signed.note + witness, certificate_chain=signed.certificate_chain)
    assert verify_checkpoint(cosigned, verify, world.clock.now) == head()
    text = signed.note.rpartition("\n\n")[0]
    alone = Checkpoint(note=f"{text}\n\n{witness}", certificate_chain=signed.certificate_chain)
    with pytest.raises(CheckpointWrong, match="no signature by the key"):
        verify_checkpoint(alone, verify, world.clock.now)


@pytest.mark.parametrize(
    "change",
    [
        lambda note: note.replace("\n5\n", "\n05\n"),
        lambda note: note.replace("\n5\n", "\n6\n"),
        lambda note: note.replace("350200", "350500", 1),
        lambda note: note.replace("\n5\n", "\n5\r\n"),
        lambda note: note.replace("\n\n", "\nextension\n\n"),
        lambda note: note[:-1],
        lambda note: note.replace("—", "-"),
        lambda note: note.replace("=\n\n", "\n\n"),
        lambda note: "",
    ],
)
def test_a_changed_checkpoint_is_refused(world: World, change: Callable[[str], str]) -> None:
    signed = sign_head(head(), world.platforms[HOME].cast.platform_seal.signer)
    signed.note = change(signed.note)
    verifier = world.platforms[HOME].region.verifier
    with pytest.raises(CheckpointWrong):
        verify_checkpoint(signed, verifier, world.clock.now)


def test_no_other_signer_of_the_region_can_sign_its_log(world: World) -> None:
    cast = world.platforms[HOME].cast
    verifier = world.platforms[HOME].region.verifier
    for signer in (cast.hospital_seal.signer, world.platforms[PAYER].cast.platform_seal.signer):
        with pytest.raises(CheckpointWrong, match="not on the trust list"):
            verify_checkpoint(sign_head(head(), signer), verifier, world.clock.now)


def test_a_leaf_holds_digest_type_and_time_and_nothing_else(world: World) -> None:
    data = leaf_data(bytes(32), "application/x", world.clock.now)
    micros = int(world.clock.now.timestamp() * 1_000_000)
    assert data == f"rxoutflow-leaf-v1 {micros} application/x {'00' * 32}\n".encode()


# --- commits ---


async def test_what_a_refusal_undoes_leaves_no_leaf(world: World) -> None:
    home, request = world.platforms[HOME], registration_request(world)

    def refused(tx: Transaction) -> None:
        registration.register(tx, home.region, home.hospital, request)
        raise Refusal("OVERLOADED", "after everything was written")  # type: ignore[arg-type] # any reason

    with pytest.raises(Refusal):
        await home.store.transact(refused)
    assert await home.store.read(lambda tx: (tx.log.size(), tx.log.waiting(9))) == (0, [])
    assert await audited(home) == ()


async def test_a_statement_that_is_kept_again_is_one_leaf(world: World) -> None:
    home, request = world.platforms[HOME], registration_request(world)
    await register(home, request)
    number = proofs.number_in(request.prescription)
    now, before = world.clock.now, await home.store.read(lambda tx: tx.log.size())
    await home.store.transact(lambda tx: evidence.keep(tx, number, request.prescription, now))
    assert await home.store.read(lambda tx: tx.log.size()) == before


async def test_many_commands_in_one_commit_are_under_one_checkpoint(
    world: World, tmp_path: Path
) -> None:
    """On the store with one writer, whose commits take many commands."""
    import asyncio

    home = world.platforms[HOME]
    log = RegionLog(HOME, home.cast.platform_seal.signer, world.clock)
    commits: list[int] = []
    path = tmp_path / "platform.db"
    async with SqliteStore.open(
        path, "platform", on_commit=commits.append, before_commit=log.grow_now
    ) as store:
        platform = replace(home, region=replace(home.region, log=log), store=store)  # type: ignore[arg-type] # any store
        requests = [registration_request(world) for _ in range(40)]
        receipts = await asyncio.gather(*(register(platform, each) for each in requests))
        for receipt, request in zip(receipts, requests, strict=True):
            verify_receipt(receipt, request.prescription, home.region.verifier, world.clock.now)
        stored = await store.read(lambda tx: tx.log.checkpoints(0, 100))
        assert len(stored) <= len(commits) < 40
        assert await audited(platform) == ()
    async with SqliteStore.open(path, "platform") as reopened:
        assert await reopened.read(lambda tx: tx.log.size()) == 80


class Broken:
    """A seal whose device does not answer."""

    def __init__(self, signer: Any) -> None:
        self._signer, self.works = signer, False

    @property
    def certificate_chain(self) -> Any:
        return self._signer.certificate_chain

    @property
    def algorithm(self) -> Any:
        return self._signer.algorithm

    def sign(self, data: bytes) -> bytes:
        if not self.works:
            raise SignerUnavailable("the token was pulled out")
        return bytes(self._signer.sign(data))


async def test_without_a_working_key_answers_go_without_and_the_next_commit_signs_for_all(
    world: World,
) -> None:
    home = world.platforms[HOME]
    signer = Broken(home.cast.platform_seal.signer)
    log = RegionLog(HOME, signer, world.clock)
    region = replace(home.region, log=log)
    platform = replace(
        home, region=region, store=MemoryStore.open("platform", before_commit=log.grow_now)
    )
    first, second = registration_request(world), registration_request(world)
    assert not (await register(platform, first)).ByteSize()
    signer.works = True
    assert (await register(platform, second)).leaf_index == 2
    late = await register(platform, first)
    assert verify_receipt(late, first.prescription, region.verifier, world.clock.now)


async def test_a_store_with_many_writers_grows_for_whoever_waits(world: World) -> None:
    home = world.platforms[HOME]
    log = RegionLog(HOME, home.cast.platform_seal.signer, world.clock, with_commits=False)
    region = replace(home.region, log=log)
    platform = replace(home, region=region, store=MemoryStore.open("platform"))
    for _ in range(3):
        request = registration_request(world)
        receipt = await register(platform, request)
        verify_receipt(receipt, request.prescription, region.verifier, world.clock.now)
    assert await audited(platform) == ()


async def test_a_new_key_signs_the_head_anew(world: World) -> None:
    home = world.platforms[HOME]
    await register(home, registration_request(world))
    log = RegionLog(HOME, home.cast.hospital_seal.signer, world.clock)
    world.clock.now += world.platforms[HOME].region.lease
    await home.store.transact(log.grow_now)
    newest = await home.store.read(lambda tx: tx.log.checkpoint())
    assert newest is not None
    assert newest.certificate_chain[0] == home.cast.hospital_seal.signer.certificate_chain[0]
    assert newest.size == 2


# --- the audit of a store ---

TAMPERING = {
    "statement edited": (
        "UPDATE statements SET statement = (SELECT statement FROM statements ORDER BY sha256"
        " LIMIT 1) WHERE sha256 = (SELECT MAX(sha256) FROM statements)",
        "is not what it was when it was kept",
    ),
    "statement deleted": (
        "DELETE FROM statements WHERE sha256 = (SELECT MAX(sha256) FROM statements)",
        "is not kept any more",
    ),
    "statement put in": (
        "INSERT INTO statements SELECT prescription_number, zeroblob(32), payload_type, statement,"
        " keep_time FROM statements LIMIT 1",
        "was never in the log",
    ),
    "leaf edited": (
        "UPDATE log_leaves SET keep_time = keep_time + 1 WHERE leaf_index = 1",
        "leaf 1 is not what it was when it was placed",
    ),
    "leaf deleted": ("DELETE FROM log_leaves WHERE leaf_index = 1", "leaves are missing"),
    "log cut off": (
        "DELETE FROM log_leaves WHERE leaf_index >= 2",
        "it was cut off, or rolled back",
    ),
    "hashes edited": (
        "UPDATE log_leaves SET hashes = zeroblob(length(hashes)) WHERE leaf_index = 0",
        "leaf 0 is not what it was",
    ),
    "checkpoint edited": (
        "UPDATE log_checkpoints SET root = zeroblob(32)",
        "the row says something else than what was signed",
    ),
}


@pytest.mark.parametrize("how", TAMPERING)
async def test_the_audit_names_what_was_done_to_the_records(world: World, how: str) -> None:
    home = world.platforms[HOME]
    await register(home, registration_request(world))
    await register(home, registration_request(world))
    assert await audited(home) == ()
    sql, problem = TAMPERING[how]
    home.store.connection.execute(sql)
    assert any(problem in each for each in await audited(home)), await audited(home)


async def test_every_checkpoint_ever_signed_is_consistent_with_the_log(world: World) -> None:
    home = world.platforms[HOME]
    for _ in range(5):
        await register(home, registration_request(world))
    found = await home.store.read(lambda tx: audit(tx, HOME, home.region.verifier, world.clock.now))
    assert (found.leaves, found.checkpoints, found.problems) == (10, 5, ())


# --- watching the logs of others ---


async def watch(world: World) -> Verdict:
    return await witnessing.watch(world.platforms[PAYER].exchange, HOME)


async def test_a_log_that_only_grows_is_consistent(world: World) -> None:
    home, payer = world.platforms[HOME], world.platforms[PAYER]
    assert await watch(world) is Verdict.CONSISTENT  # nothing there yet
    for _ in range(3):
        await register(home, registration_request(world))
        assert await watch(world) is Verdict.CONSISTENT
    (seen,) = await payer.store.read(lambda tx: tx.log.all_seen())
    assert (seen.region_code, seen.checkpoint.size, seen.contradicts) == (HOME, 6, False)


async def test_a_restored_backup_is_a_rollback_and_both_heads_are_kept(world: World) -> None:
    home, payer = world.platforms[HOME], world.platforms[PAYER]
    await register(home, registration_request(world))
    backup = list(home.store.connection.iterdump())
    await register(home, registration_request(world))
    assert await watch(world) is Verdict.CONSISTENT
    _restore(home, backup)
    assert await watch(world) is Verdict.ROLLBACK
    seen = await payer.store.read(lambda tx: tx.log.all_seen())
    assert [(each.checkpoint.size, each.contradicts) for each in seen] == [(4, False), (2, True)]


async def test_a_log_that_goes_another_way_after_a_backup_is_a_fork(world: World) -> None:
    home = world.platforms[HOME]
    await register(home, registration_request(world))
    backup = list(home.store.connection.iterdump())
    await register(home, registration_request(world))
    assert await watch(world) is Verdict.CONSISTENT
    _restore(home, backup)
    for _ in range(2):
        await register(home, registration_request(world))
    assert await watch(world) is Verdict.FORK
    assert await watch(world) is Verdict.FORK  # for as long as it lasts


async def test_a_log_that_has_vanished_is_a_rollback(world: World) -> None:
    await register(world.platforms[HOME], registration_request(world))
    assert await watch(world) is Verdict.CONSISTENT
    _empty(world.platforms[HOME])
    assert await watch(world) is Verdict.ROLLBACK


async def test_a_head_that_is_not_signed_by_the_region_counts_as_none(world: World) -> None:
    home, payer = world.platforms[HOME], world.platforms[PAYER]
    await register(home, registration_request(world))
    log = RegionLog(HOME, payer.cast.platform_seal.signer, world.clock)
    world.clock.now += home.region.lease
    await home.store.transact(log.grow_now)
    assert await watch(world) is Verdict.UNSIGNED
    assert await payer.store.read(lambda tx: tx.log.seen(HOME)) is None


async def test_a_platform_proves_its_growth_to_whoever_asks(world: World) -> None:
    home, caller = world.platforms[HOME], world.platforms[PAYER].cast.region.platform
    await register(home, registration_request(world))
    empty = await home.desk.get_checkpoint(caller, GetCheckpointRequest(held_size=99))
    assert not empty.consistency_path
    with pytest.raises(Refusal, match="held_size"):
        await home.desk.get_checkpoint(caller, GetCheckpointRequest(held_size=-1))
    assert GetCheckpointResponse() != empty


def _restore(platform: Platform, dump: list[str]) -> None:
    """Put yesterday's database in the place of today's."""
    connection = platform.store.connection
    _drop_everything(platform)
    connection.executescript("\n".join(dump))
    if platform.region.log is not None:
        platform.region.log._signed_size = None  # as after a start


def _empty(platform: Platform) -> None:
    for table in ("log_checkpoints", "log_leaves"):
        platform.store.connection.execute(f"DELETE FROM {table}")  # noqa: S608 - constants


def _drop_everything(platform: Platform) -> None:
    connection = platform.store.connection
    connection.execute("PRAGMA foreign_keys = OFF")
    rows = connection.execute(
        "SELECT type, name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    )
    for kind, name in rows.fetchall():
        connection.execute(f'DROP {kind} "{name}"')
