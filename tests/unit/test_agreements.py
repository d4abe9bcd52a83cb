"""R18: whose quota is exceeded, who is told, and that nobody is refused for it."""

from __future__ import annotations

import csv
from datetime import date, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from rxoutflow.v1 import dispense_pb2, settlement_pb2
from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow.v1.trust_pb2 import Agreement as AgreementMessage
from rxoutflow.v1.trust_pb2 import Institution
from rxoutflow_server import cli_supervise
from rxoutflow_server.application.agreements import (
    agreements_of,
    alerts_of_day,
    tell_crossings,
)
from rxoutflow_server.application.clearing.books import local_day
from rxoutflow_server.application.ports import NoticeRecord
from rxoutflow_server.domain.agreements import Agreement, QuotaAlert, QuotaPeriod, quota_alert
from rxoutflow_server.platform import notices
from rxoutflow_server.platform.changes import Changes
from support.world import World

HOME, DISPENSING, PAYER = "350200", "350500", "350100"
QUOTA = 1_000
MONTH, YEAR = AgreementMessage.PERIOD_MONTH, AgreementMessage.PERIOD_YEAR
TERMS = Agreement("P35050000001", "协议〔2026〕1号", QUOTA, QuotaPeriod.MONTH)


# --- the rule -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("used_fen", "over_fen"), [(-5, None), (QUOTA - 1, None), (QUOTA, None), (QUOTA + 1, 1)]
)
def test_r18_the_quota_is_exceeded_from_one_fen_above_it(
    used_fen: int, over_fen: int | None
) -> None:
    alert = quota_alert(TERMS, date(2026, 3, 1), used_fen)
    assert (alert and alert.over_fen) == over_fen


@pytest.mark.parametrize(
    ("period", "day", "begin", "end"),
    [
        (QuotaPeriod.MONTH, date(2026, 2, 1), date(2026, 2, 1), date(2026, 3, 1)),
        (QuotaPeriod.MONTH, date(2026, 2, 28), date(2026, 2, 1), date(2026, 3, 1)),
        (QuotaPeriod.MONTH, date(2026, 12, 31), date(2026, 12, 1), date(2027, 1, 1)),
        (QuotaPeriod.YEAR, date(2026, 1, 1), date(2026, 1, 1), date(2027, 1, 1)),
        (QuotaPeriod.YEAR, date(2026, 12, 31), date(2026, 1, 1), date(2027, 1, 1)),
    ],
)
def test_a_period_is_from_its_first_day_up_to_that_of_the_next(
    period: QuotaPeriod, day: date, begin: date, end: date
) -> None:
    assert Agreement("P", "d", 1, period).days(day) == (begin, end)


def test_only_an_agreement_with_a_quota_and_a_known_period_is_watched() -> None:
    entries = [
        Institution(institution_code="none"),
        Institution(institution_code="zero", agreement=AgreementMessage(period=YEAR)),
        Institution(institution_code="unknown", agreement=AgreementMessage(quota_fen=1)),
        Institution(
            institution_code="right",
            agreement=AgreementMessage(document="d", quota_fen=1, period=YEAR),
        ),
    ]
    assert list(agreements_of(entries)) == [Agreement("right", "d", 1, QuotaPeriod.YEAR)]


# --- on real evidence -----------------------------------------------------------------------------


@pytest.fixture
def world() -> World:
    return World.create(HOME, DISPENSING, PAYER)


async def hand_over(world: World) -> tuple[SignedStatement, int]:
    """A handover that was paid: its record, and what funds and accounts paid."""
    _, code = await world.issue(HOME, PAYER)
    attempt = await world.claim(DISPENSING, code)
    amounts = await world.quote(DISPENSING, attempt)
    commitment = world.commit_request(DISPENSING, attempt, amounts)
    await world.commit(DISPENSING, commitment)
    request = world.record_request(DISPENSING, commitment.commitment)
    await world.record(DISPENSING, request)
    await world.settle()
    return request.dispense_record, paid_fen(amounts)


def paid_fen(amounts: settlement_pb2.Amounts) -> int:
    return amounts.pool_fen + amounts.account_fen + amounts.family_fen


def code_of(world: World, region: str, holder: str) -> str:
    cast = world.platforms[region].cast
    return (cast.hospital if holder == "hospital" else cast.pharmacy).institution_code


async def alerts(world: World, region: str, day: date) -> list[QuotaAlert]:
    platform = world.platforms[region]
    listed = platform.region.trust.region(region, world.clock.now).institutions.values()
    return await platform.store.read(lambda tx: alerts_of_day(tx, agreements_of(listed), day))


async def told(world: World, region: str, institution: str) -> list[NoticeRecord]:
    """The notices about the quota, after a look at it."""
    platform = world.platforms[region]
    await tell_crossings(platform.region, platform.store)
    found = await platform.store.read(lambda tx: tx.journal.notices(institution, 0, 1000))
    return [each for each in found if each.kind == "QUOTA_EXCEEDED"]


HOLDERS = [(DISPENSING, "pharmacy"), (HOME, "hospital")]


@pytest.mark.parametrize(("region", "holder"), HOLDERS)
async def test_r18_what_is_paid_for_an_institution_counts_against_its_quota(
    world: World, region: str, holder: str
) -> None:
    _, paid = await hand_over(world)
    assert paid > 0
    today, institution = local_day(world.clock.now), code_of(world, region, holder)
    for quota in (paid + 1, paid):
        world.agree(region, holder, AgreementMessage(document="d", quota_fen=quota, period=MONTH))
        assert await alerts(world, region, today) == []
        assert await told(world, region, institution) == []
    world.agree(region, holder, AgreementMessage(document="d", quota_fen=paid - 1, period=MONTH))
    (alert,) = await alerts(world, region, today)
    assert (alert.agreement.institution_code, alert.used_fen) == (institution, paid)
    assert await alerts(world, region, today - timedelta(days=1)) == []
    assert await alerts(world, region, today + timedelta(days=62)) == []
    (notice,) = await told(world, region, institution)
    assert f"{paid} fen" in notice.summary


@pytest.mark.parametrize(("region", "holder"), HOLDERS)
async def test_r18_over_quota_is_told_once_for_each_crossing_and_refuses_nothing(
    world: World, region: str, holder: str
) -> None:
    record, paid = await hand_over(world)
    institution = code_of(world, region, holder)
    world.agree(region, holder, AgreementMessage(document="d", quota_fen=paid - 1, period=YEAR))
    assert len(await told(world, region, institution)) == 1
    await world.take_back(DISPENSING, world.return_request(DISPENSING, record))
    await world.settle()
    assert len(await told(world, region, institution)) == 1, "it is below again"
    await hand_over(world)
    assert len(await told(world, region, institution)) == 2, "another crossing"
    await hand_over(world)
    assert len(await told(world, region, institution)) == 2, "it was above before"


async def test_the_notice_carries_what_was_paid_last_as_evidence(world: World) -> None:
    record, paid = await hand_over(world)
    institution = code_of(world, DISPENSING, "pharmacy")
    terms = AgreementMessage(document="d", quota_fen=paid - 1, period=YEAR)
    world.agree(DISPENSING, "pharmacy", terms)
    (kept,) = await told(world, DISPENSING, institution)
    platform = world.platforms[DISPENSING]
    before = str(kept.sequence - 1)
    stream = notices.watch(platform.region, platform.store, Changes(), institution, before)
    notice = await anext(stream)
    await stream.aclose()
    settlement = settlement_pb2.Settlement.FromString(notice.evidence.payload)
    sold = dispense_pb2.DispenseRecord.FromString(record.payload)
    assert settlement.settlement_id == sold.settlement_id
    assert settlement.state == settlement_pb2.Settlement.STATE_POSTED


# --- supervise ------------------------------------------------------------------------------------


def test_supervise_lists_who_is_above_a_quota(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    alert = QuotaAlert(TERMS, date(2026, 3, 1), QUOTA + 7)
    monkeypatch.setattr(cli_supervise, "_found", lambda file, text: ([], [alert]))
    monkeypatch.setenv("COLUMNS", "200")
    target = tmp_path / "found.csv"
    options = ["--config", "any", "--day", "2026-03-05", "--csv", str(target)]
    result = CliRunner().invoke(cli_supervise.supervise, options)
    assert result.exit_code == cli_supervise.FOUND
    for text in (TERMS.institution_code, TERMS.document, "1000", "1007", "2026-03-01"):
        assert text in result.output
    _, row = csv.reader(target.read_text(encoding="utf-8").splitlines())
    assert row[:2] == ["quota_exceeded", TERMS.institution_code]
    assert "7 fen above the quota" in row[3]
