"""What outlives the servers: receipts of their logs, and bundles that verify offline."""

from __future__ import annotations

from datetime import UTC, datetime

from demonstration.stage import CITIES, Stage, until
from rxoutflow.bundle import BundleRefused, read_bundle, verify_bundle
from rxoutflow.client import RegulatorClient
from rxoutflow.client.receipts import SUFFIX, WRONG_SUFFIX, read_kept
from rxoutflow.errors import Unavailable
from rxoutflow.log import ReceiptWrong, verify_receipt
from rxoutflow.numbers import PrescriptionNumber
from rxoutflow.statements import Verifier
from rxoutflow.trust import TrustStore
from rxoutflow.v1.dispense_pb2 import DispenseRecord
from rxoutflow.v1.settlement_pb2 import Settlement


def play(stage: Stage) -> None:
    """Verify every receipt of the demo again, and the main case from one file a region."""
    profile, now = stage.regulators["xiamen"].profile, datetime.now(UTC)
    trust = TrustStore.load(profile.trust.folder, profile.trust.registry_roots, now)
    _receipts(stage, trust)
    main, scene = stage.report.filled[0], stage.report.scene("the main case as a file")
    for city, code in list(CITIES.items())[:3]:
        data = _exported(stage.regulators[city], main.issued.number)
        verified, words = _judged(data, trust)
        report = stage.report
        report.check(f"the bundle of {code} verifies offline", verified > 0, words)
        damaged = bytearray(data)
        damaged[len(damaged) // 2] ^= 1
        still, refusal = _judged(bytes(damaged), trust)
        report.check(f"the bundle of {code} with one bit changed is refused", not still, refusal)
        scene.note(f"exported by {code}", f"{words}; refused with one bit changed")


def _receipts(stage: Stage, trust: TrustStore) -> None:
    kept = sorted(stage.receipts.glob(f"*{SUFFIX}"))
    wrong = list(stage.receipts.glob(f"*{WRONG_SUFFIX}"))
    verifier, now, good = Verifier(trust), datetime.now(UTC), 0
    for file in kept:
        found = read_kept(file)
        try:
            verify_receipt(found.receipt, found.statement, verifier, now)
        except ReceiptWrong:
            continue
        good += 1
    name = "every receipt proves that its region's log keeps the statement"
    stage.report.check(name, 0 < good == len(kept) and not wrong, f"{good} of {len(kept)}")
    scene = stage.report.scene("receipts")
    words = "all of them" if good == len(kept) else f"{good} of {len(kept)}"
    scene.note("those that hospitals and pharmacies kept", f"{words} verify offline")


def _exported(regulator: RegulatorClient, number: PrescriptionNumber) -> bytes:
    """The region's bundle, once its log has a signed head over the newest statement."""
    found: list[bytes] = []

    def asked() -> bool:
        try:
            found.append(regulator.export(number).SerializeToString())
        except Unavailable:
            return False
        return True

    until(asked)
    return found[0] if found else b""


def _judged(data: bytes, trust: TrustStore) -> tuple[int, str]:
    """How many statements verify, with what they settle; or none, and why."""
    try:
        verified = verify_bundle(read_bundle(data), trust, datetime.now(UTC))
    except BundleRefused as refused:
        return 0, str(refused.reason)
    records, settled = (len(list(verified.of(kind))) for kind in (DispenseRecord, Settlement))
    words = f"{records} statement of the handover, {settled} of its settlement, and what led there"
    return len(verified.statements), words
