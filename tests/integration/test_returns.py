"""Medicine comes back between real servers: in part and in whole, money and all."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC
from functools import partial
from zoneinfo import ZoneInfo

import pytest

from rxoutflow.client import returned_sale, sale
from rxoutflow.errors import StepRefused
from rxoutflow.v1.dispense_pb2 import (
    DispenseRecord,
    DispenseReturn,
    ReturnedLine,
    ReturnProgress,
)
from rxoutflow.v1.settlement_pb2 import Amounts
from support.exchanges import Exchange, Route
from support.sandbox import LiveSandbox, eventually, run_sandbox

MONEY = ("total_fen", "pool_fen", "account_fen", "family_fen", "cash_fen")


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveSandbox]:
    with run_sandbox(tmp_path_factory.mktemp("returns")) as sandbox:
        yield sandbox


def returns(exchange: Exchange) -> list[ReturnProgress]:
    return list(exchange.pharmacy.progress(exchange.attempt.content).progress.returns)


def take_back(
    exchange: Exchange,
    quantities: dict[int, int],
    cause: DispenseReturn.Cause.ValueType = DispenseReturn.CAUSE_DISPENSING_ERROR,
) -> None:
    lines = [ReturnedLine(line_id=key, quantity=value) for key, value in quantities.items()]
    settlement_id = exchange.committed.settlement_id
    exchange.pharmacy.return_dispense(
        exchange.attempt.content, settlement_id, lines, cause, "剂量错误（合成）"
    )


def all_are_back(exchange: Exchange) -> bool:
    return all(each.booked_by_home and each.reversed_by_payer for each in returns(exchange))


def summed(back: list[ReturnProgress], name: str) -> int:
    return sum(getattr(each.amounts, name) for each in back)


@pytest.mark.parametrize(
    "route",
    [
        pytest.param(Route("hypertension-chronic", "xiamen", "quanzhou"), id="three regions"),
        pytest.param(Route("one-region", "quanzhou", "quanzhou"), id="one region"),
    ],
)
def test_a_part_and_then_the_rest_comes_back_with_its_money(
    sandbox: LiveSandbox, route: Route
) -> None:
    exchange = Exchange(sandbox, route).up_to(4)
    eventually(exchange.completed, "completed")
    lines = {line.line_id: line.quantity for line in exchange.committed.lines}
    first = min(lines)
    part = lines[first] // 3
    take_back(exchange, {first: part})
    eventually(partial(all_are_back, exchange), "the part is booked and reversed")
    take_back(exchange, {**lines, first: lines[first] - part})
    eventually(partial(all_are_back, exchange), "the rest is booked and reversed")

    settled = exchange.amounts or Amounts()
    for name in MONEY:
        assert summed(returns(exchange), name) == getattr(settled, name)
    with pytest.raises(StepRefused) as caught:
        take_back(exchange, {first: 1})
    assert caught.value.reason == "RETURN_EXCEEDED"
    told = [(event.region_code, event.action) for event in sandbox.trace(exchange.number)]
    actions = [action for _, action in told]
    for action in ("taken back", "return booked", "reversed", "reversal known"):
        assert actions.count(action) >= 2

    again = Exchange(sandbox, Route(route.file, route.hospital, "nantong"))
    again.issued = exchange.issued
    again.claim().commit().record()
    eventually(again.completed, "what came back is filled again elsewhere")


def test_the_pharmacys_book_agrees_after_a_return(sandbox: LiveSandbox) -> None:
    exchange = Exchange(sandbox, Route("diabetes", "xiamen", "xiamen")).up_to(4)
    eventually(exchange.completed, "completed")
    line = exchange.committed.lines[0]
    take_back(exchange, {line.line_id: line.quantity}, DispenseReturn.CAUSE_PATIENT)
    eventually(partial(all_are_back, exchange), "booked and reversed")
    (back,) = returns(exchange)
    sold = sale(exchange.committed)
    record = DispenseRecord.FromString(exchange.record_request.dispense_record.payload)
    day = record.dispense_time.ToDatetime(tzinfo=UTC).astimezone(ZoneInfo("Asia/Shanghai")).date()
    found = exchange.pharmacy.reconcile(day, [sold, returned_sale(sold, back)])
    assert found.agreed, found
    missing = exchange.pharmacy.reconcile(day, [sold])
    assert [each.reversal_id for each in missing.differences] == [back.reversal_id]


def test_a_return_made_while_the_payer_is_down_is_reversed_when_it_is_back(
    sandbox: LiveSandbox,
) -> None:
    exchange = Exchange(sandbox, Route("hypertension-chronic", "xiamen", "quanzhou")).up_to(4)
    eventually(exchange.completed, "completed")
    line = exchange.committed.lines[0]
    with sandbox.servers.killed("platform-320600"):
        take_back(exchange, {line.line_id: line.quantity})
        eventually(lambda: returns(exchange)[0].booked_by_home, "home books it")
        assert not returns(exchange)[0].reversed_by_payer
    eventually(partial(all_are_back, exchange), "the payer reverses it")
