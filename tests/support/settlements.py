"""An insured person and settlements for tests of the payer's side."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from rxoutflow_server.domain.settlement import (
    Amounts,
    InsuredPerson,
    Settlement,
    SettlementState,
)
from rxoutflow_server.domain.tariff import AreaStatus, PersonType

NOW = datetime(2024, 5, 1, 8, tzinfo=UTC)
YEAR = 2024

PERSON = InsuredPerson(
    insured_person_id="3502000001",
    person_type=PersonType.ACTIVE,
    area_status=AreaStatus.FILED,
    own_account_fen=10_000,
    family_accounts_fen=(500, 300),
    year=YEAR,
    used_deductible_fen=20_000,
    used_cap_fen=70_000,
)
# A total of 100.00 yuan: 10 own, 5 above the limit, 5 first self-pay, and 80 inscope.
AMOUNTS = Amounts(
    total_fen=10_000,
    own_fen=1_000,
    excess_fen=500,
    first_self_pay_fen=500,
    inscope_fen=8_000,
    deductible_fen=3_000,
    pool_fen=4_000,
    ratio_self_fen=1_000,
    person_fen=6_000,
    account_fen=5_000,
    family_fen=600,
    cash_fen=400,
)
HELD = Settlement(
    settlement_id="settlement-1",
    attempt_id="attempt-1",
    prescription_number="350500000000000017",
    insured_person_id=PERSON.insured_person_id,
    dispensing_region_code="350100",
    pharmacy_code="P35010000001",
    state=SettlementState.HELD,
    amounts=AMOUNTS,
    family_accounts_fen=(500, 100),
    tariff_version="350200-2024",
    year=YEAR,
    create_time=NOW,
    update_time=NOW,
    cause_sha256=b"pricing",
)


def settlement_in(state: SettlementState) -> Settlement:
    """The settlement of these tests, in any state."""
    return replace(HELD, state=state)
