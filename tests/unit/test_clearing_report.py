"""The page on a month's clearing counts what both sides have signed, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from rxoutflow.statements import Verifier
from rxoutflow.v1.clearing_pb2 import ClearingAcceptance, ClearingStatement
from rxoutflow.v1.clearing_service_pb2 import ClearPeriodRequest, ClearPeriodResponse
from rxoutflow_server.application.clearing.stating import clear_period
from rxoutflow_server.clearing_report import Cleared, Unusable, collect, page, yuan_of
from rxoutflow_server.domain.ledger import Book
from support.ledgers import PERIOD, posting
from support.pki import NOW
from support.world import World, content_of

FIRST, SECOND, THIRD = "320600", "350200", "350500"


@pytest.fixture
def world() -> World:
    return World.create(FIRST, SECOND, THIRD)


async def cleared(world: World, payer: str, owed: str, pool: int) -> ClearPeriodResponse:
    entry = posting(f"{payer}{owed}", pool=pool, account=0, family=0)
    for region, book, other in ((payer, Book.PAYABLE, owed), (owed, Book.RECEIVABLE, payer)):
        await world.platforms[region].store.transact(
            lambda tx, book=book, other=other: tx.clearing.add_entry(book, other, entry)  # type: ignore[misc] # mypy cannot infer a lambda with defaults
        )
    request = ClearPeriodRequest(period=str(PERIOD), dispensing_region_code=owed)
    return await clear_period(world.platforms[payer].exchange, request)


def write(folder: Path, signed: ClearPeriodResponse, name: str = "") -> Path:
    content = content_of(signed.statement, ClearingStatement)
    pair = f"{content.payer_region_code}-{content.dispensing_region_code}"
    base = folder / (name or f"{content.period}-{pair}")
    base.with_suffix(".statement").write_bytes(signed.statement.SerializeToString())
    base.with_suffix(".acceptance").write_bytes(signed.acceptance.SerializeToString())
    return base


def read(world: World, folder: Path) -> tuple[list[Cleared], list[Unusable]]:
    return collect(folder, PERIOD, Verifier(world.platforms[FIRST].region.trust), NOW)


async def test_the_page_shows_nets_that_sum_to_zero(world: World, tmp_path: Path) -> None:
    write(tmp_path, await cleared(world, FIRST, THIRD, 123_456))
    write(tmp_path, await cleared(world, THIRD, FIRST, 3_456))
    write(tmp_path, await cleared(world, SECOND, THIRD, 5))
    found, unusable = read(world, tmp_path)
    text = page(PERIOD, FIRST, found, unusable)
    assert unusable == []
    assert f"| {FIRST} | 0.00 | 1,200.00 |" in text
    assert f"| {SECOND} | 0.00 | 0.05 |" in text
    assert f"| {THIRD} | 1,200.05 | 0.00 |" in text
    assert f"| {FIRST} | {THIRD} | 1,234.56 | 34.56 | 1,200.00 |" in text
    assert "The positions sum to 0.00." in text
    assert "Left out" not in text


async def test_what_only_the_payer_has_signed_is_open_and_in_no_net(
    world: World, tmp_path: Path
) -> None:
    base = write(tmp_path, await cleared(world, FIRST, THIRD, 700))
    base.with_suffix(".acceptance").unlink()
    found, unusable = read(world, tmp_path)
    text = page(PERIOD, FIRST, found, unusable)
    assert "| OPEN |" in text
    assert "## Bilateral\n\nNothing." in text


async def test_files_that_do_not_hold_are_left_out_and_named(world: World, tmp_path: Path) -> None:
    good = await cleared(world, FIRST, THIRD, 700)
    other = await cleared(world, FIRST, SECOND, 800)
    write(tmp_path, good, f"{PERIOD}-{FIRST}-{SECOND}")  # under another pair's name
    base = write(tmp_path, good)
    base.with_suffix(".acceptance").write_bytes(other.acceptance.SerializeToString())
    forged = content_of(good.statement, ClearingStatement)
    forged.payer_region_code, forged.owed_fen = SECOND, 10**9
    statement = world.signed(THIRD, forged)  # the dispensing region states what it wants
    (tmp_path / f"{PERIOD}-{SECOND}-{THIRD}.statement").write_bytes(statement.SerializeToString())
    (tmp_path / f"{PERIOD}-x.statement").write_bytes(b"no statement")
    found, unusable = read(world, tmp_path)
    assert found == []
    assert len(unusable) == 4
    text = page(PERIOD, FIRST, found, unusable)
    assert all(each.file in text for each in unusable)


async def test_an_acceptance_counts_only_from_the_region_that_is_owed(
    world: World, tmp_path: Path
) -> None:
    good = await cleared(world, FIRST, THIRD, 700)
    content = content_of(good.acceptance, ClearingAcceptance)
    content.dispensing_region_code = SECOND
    good.acceptance.CopyFrom(world.signed(SECOND, content))
    write(tmp_path, good)
    found, (unusable,) = read(world, tmp_path)
    assert found == []
    assert "accepts another statement" in unusable.problem


@pytest.mark.parametrize(
    ("fen", "text"), [(0, "0.00"), (5, "0.05"), (-5, "-0.05"), (-123_456_789, "-1,234,567.89")]
)
def test_amounts_are_shown_to_the_fen(fen: int, text: str) -> None:
    assert yuan_of(fen) == text
