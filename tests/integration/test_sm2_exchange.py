"""A prescription crosses regions whose hospital and pharmacies sign with SM2, on real servers."""

from __future__ import annotations

import pytest

pytest.importorskip("gmssl_pyx", reason="SM2 is missing: pip install 'rxoutflow[sm2]'")

from rxoutflow.v1.statement_pb2 import (
    SIGNATURE_ALGORITHM_ECDSA_P256_SHA256,
    SIGNATURE_ALGORITHM_SM2_SM3,
    ProtectedHeader,
)
from support.exchanges import Exchange, Route, require_agreement
from support.sandbox import run_sandbox
from support.sm2 import sm2_data


def test_a_prescription_signed_with_sm2_is_filled_and_all_regions_agree(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("sm2")
    with run_sandbox(folder, sm2_data(folder, "350200", "320600")) as sandbox:
        exchange = Exchange(sandbox, Route("long-twelve-weeks", "xiamen", "nantong"))
        exchange.up_to(4)
        require_agreement(exchange)
        events = sandbox.trace(exchange.number)
    headers = [
        ProtectedHeader.FromString(signature.protected)
        for event in events
        for signature in event.statement.signatures
    ]
    people = {each.algorithm for each in headers if len(each.institution_code) > 6}
    platforms = {each.algorithm for each in headers if len(each.institution_code) == 6}
    assert people == {SIGNATURE_ALGORITHM_SM2_SM3}
    assert platforms == {SIGNATURE_ALGORITHM_ECDSA_P256_SHA256}
