"""Receipts, bundles and audits over real servers, and receipts from an edge that is wrong."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from rxoutflow.client import HospitalClient
from rxoutflow.client.receipts import SUFFIX, WRONG_SUFFIX, CheckedReceipt
from rxoutflow.documents import read_draft
from rxoutflow.log import Head, sign_head
from rxoutflow.log.merkle import leaf_hash
from rxoutflow.log.receipts import leaf_data
from rxoutflow.statements import add_signature, statement_sha256
from rxoutflow.v1 import his_service_pb2 as his
from rxoutflow.v1.prescription_pb2 import Prescription
from rxoutflow.v1.prescription_status_pb2 import PrescriptionStatus
from rxoutflow.v1.statement_pb2 import SIGNER_ROLE_HOSPITAL_SEAL, Receipt, SignedStatement
from support.exchanges import THREE_REGIONS, Exchange
from support.fake_edge import FakeEdge
from support.pki import NOW
from support.sandbox import LiveSandbox, eventually, run_program, run_sandbox

DRAFT = Path(__file__).parents[2] / "clients/prescriptions/one-region.json"
REGULATORS = {"350200": "xiamen", "350500": "quanzhou", "320600": "nantong"}


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveSandbox]:
    with run_sandbox(tmp_path_factory.mktemp("evidence")) as sandbox:
        yield sandbox


def logged(receipt: CheckedReceipt | None) -> str:
    """The region whose log keeps it, by a receipt that verified."""
    assert receipt is not None
    assert receipt.logged is not None, receipt.problem
    return receipt.logged.head.region_code


def test_every_step_is_receipted_and_the_whole_verifies_offline(
    sandbox: LiveSandbox, tmp_path: Path
) -> None:
    exchange = Exchange(sandbox, THREE_REGIONS).issue()
    assert logged(exchange.hospital.receipts.last) == "350200"
    exchange.claim()
    assert logged(exchange.pharmacy.receipts.last) == "350200"
    exchange.commit().record()
    assert logged(exchange.pharmacy.receipts.last) == "350500"
    eventually(exchange.completed, "completed")
    before = {city: sandbox.regulator(city).checkpoint() for city in REGULATORS.values()}
    for region, city in REGULATORS.items():
        file = tmp_path / f"{city}.rxevidence"
        who = ("--sandbox", sandbox.layout.announcement, "--as", f"{city}-regulator")
        number = str(exchange.number)
        exported = run_program("rxoutflow", *who, "export", number, "-o", file)
        assert exported.returncode == 0, exported.stderr
        shown = run_program("rxoutflow", *who, "verify-bundle", file)
        assert shown.returncode == 0, shown.stderr
        assert f"log of {region}" in shown.stdout
        assert "dispense-record" in shown.stdout
        damaged = bytearray(file.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        file.write_bytes(damaged)
        refused = run_program("rxoutflow", *who, "--json", "verify-bundle", file)
        assert refused.returncode == 1
        assert json.loads(refused.stdout)["reason"]
    Exchange(sandbox, THREE_REGIONS).issue().claim()
    for city in ("xiamen", "quanzhou"):
        regulator = sandbox.regulator(city)
        regulator.require_consistent(before[city].checkpoint, regulator.checkpoint().checkpoint)


def test_the_audit_finds_a_running_platform_whole(sandbox: LiveSandbox) -> None:
    (config,) = sandbox.layout.directory.glob("platforms/350200/*.toml")
    audited = run_program("rxoutflow-server", "log", "verify", "--config", config)
    assert audited.returncode == 0, audited.stderr
    assert "the log is whole" in audited.stdout


def test_a_running_platform_is_verified_and_backed_up(sandbox: LiveSandbox, tmp_path: Path) -> None:
    (config,) = sandbox.layout.directory.glob("platforms/350200/*.toml")
    verified = run_program("rxoutflow-server", "store", "verify", "--config", config)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert "0 differences" in verified.stdout
    copied = run_program(
        "rxoutflow-server", "store", "backup", "--config", config, tmp_path / "copy.db"
    )
    assert copied.returncode == 0, copied.stderr
    assert "of kind platform" in copied.stdout


def test_platforms_have_seen_each_others_logs(sandbox: LiveSandbox) -> None:
    # A platform looks when it starts, and then every minute: when all started, few were there yet.
    sandbox.servers.kill("platform-320600")
    sandbox.servers.restart("platform-320600")

    def seen() -> set[str]:
        found = sandbox.regulator("nantong").checkpoint().seen_checkpoints
        assert not [each for each in found if each.contradicts]
        return {each.region_code for each in found}

    eventually(lambda: seen() >= {"350200", "350500"}, "two logs seen", seconds=90)


# --- an edge that passes on something wrong -------------------------------------------------------


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[FakeEdge]:
    edge = FakeEdge(tmp_path)
    with edge.serving():
        yield edge


def receipt_of(edge: FakeEdge, statement: SignedStatement) -> Receipt:
    """A receipt from a log that has this one leaf."""
    sha256 = statement_sha256(statement)
    root = leaf_hash(leaf_data(sha256, statement.payload_type, NOW))
    head = Head(edge.cast.region.code, 1, root)
    checkpoint = sign_head(head, edge.cast.platform_seal.signer)
    receipt = Receipt(statement_sha256=sha256, checkpoint=checkpoint)
    receipt.keep_time.FromDatetime(NOW)
    return receipt


def issued(edge: FakeEdge, client: HospitalClient, change: bool) -> None:
    def answer(request: his.IssuePrescriptionRequest) -> his.IssuePrescriptionResponse:
        seal = edge.cast.hospital_seal.signer
        sealed = add_signature(request.prescription, seal, SIGNER_ROLE_HOSPITAL_SEAL, NOW)
        number = Prescription.FromString(sealed.payload).prescription_number
        receipt = receipt_of(edge, sealed)
        receipt.leaf_index += change
        return his.IssuePrescriptionResponse(
            prescription_number=number,
            pickup_code=f"{number}.0123456789ABCDEF",
            registration=his.REGISTRATION_REGISTERED,
            prescription=sealed,
            status=edge.stated(PrescriptionStatus(prescription_number=number)),
            receipt=receipt,
        )

    edge.answers["IssuePrescription"] = answer
    answered = client.issue(client.complete(read_draft(DRAFT)))
    assert answered.status is not None


def test_a_good_receipt_is_kept_in_a_file(edge: FakeEdge, tmp_path: Path) -> None:
    with edge.hospital() as client:
        client.receipts._folder = tmp_path / "receipts"
        issued(edge, client, change=False)
        assert logged(client.receipts.last) == edge.cast.region.code
    (file,) = (tmp_path / "receipts").iterdir()
    assert file.suffix == SUFFIX


def test_a_wrong_receipt_is_told_and_the_answer_is_not_lost(
    edge: FakeEdge, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with edge.hospital() as client, caplog.at_level(logging.ERROR, "rxoutflow.receipts"):
        client.receipts._folder = tmp_path / "receipts"
        issued(edge, client, change=True)
        assert client.receipts.last is not None
        assert client.receipts.last.logged is None
        assert "does not keep it" in client.receipts.last.problem
    assert "gave a wrong receipt" in caplog.text
    (file,) = (tmp_path / "receipts").iterdir()
    assert file.suffix == WRONG_SUFFIX
