"""The clearing of a period as a page for people, and the statements that it rests on.

The page is made from signed statements: those of the own region and any that other regions have
handed over, each verified. It counts only what both sides have signed; everything else is listed
as open, so that nobody pays on one side's word.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from google.protobuf.message import DecodeError

from rxoutflow.statements import StatementError, Verifier, statement_sha256
from rxoutflow.trust import RegionNotTrusted
from rxoutflow.v1.clearing_pb2 import ClearingAcceptance, ClearingStatement
from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow_server.domain.clearing import (
    Obligation,
    Period,
    bilateral_nets,
    net_positions,
)

STATEMENT_SUFFIX = ".statement"
ACCEPTANCE_SUFFIX = ".acceptance"


@dataclass(frozen=True, slots=True)
class Cleared:
    """A verified clearing statement, and whether a verified acceptance of it is there."""

    content: ClearingStatement
    accepted: bool

    @property
    def obligation(self) -> Obligation:
        """What is owed."""
        content = self.content
        return Obligation(
            content.payer_region_code, content.dispensing_region_code, content.owed_fen
        )


@dataclass(frozen=True, slots=True)
class Unusable:
    """A file that was left out, and why."""

    file: str
    problem: str


def stem(period: Period, payer: str, dispensing: str) -> str:
    """The name of the files of a pair, without their endings."""
    return f"{period}-{payer}-{dispensing}"


def collect(
    folder: Path, period: Period, verifier: Verifier, now: datetime
) -> tuple[list[Cleared], list[Unusable]]:
    """Every statement of a period in a folder, verified, with its acceptance if there is one."""
    found: list[Cleared] = []
    unusable: list[Unusable] = []
    for file in sorted(folder.glob(f"{period}-*{STATEMENT_SUFFIX}")):
        try:
            found.append(_cleared(file, period, verifier, now))
        except (StatementError, RegionNotTrusted, DecodeError, ValueError) as error:
            unusable.append(Unusable(file.name, str(error)))
    return found, unusable


def page(
    period: Period, region_code: str, cleared: Sequence[Cleared], unusable: Sequence[Unusable]
) -> str:
    """The page in Markdown. Amounts are in yuan."""
    obligations = [each.obligation for each in cleared if each.accepted]
    return "\n".join(
        [
            f"# Clearing {period}",
            "",
            f"Made by region {region_code}. Amounts in yuan; days are local days of Asia/Shanghai.",
            "Only what payer and dispensing region have both signed counts in the nets.",
            "",
            *_positions(obligations),
            *_bilateral(obligations),
            *_list(period, cleared),
            *_left_out(unusable),
        ]
    )


def yuan_of(fen: int) -> str:
    """An amount for people: yuan with two decimals, exact, and a sign where it is negative."""
    whole, part = divmod(abs(fen), 100)
    return f"{'-' if fen < 0 else ''}{whole:,}.{part:02}"


def _cleared(file: Path, period: Period, verifier: Verifier, now: datetime) -> Cleared:
    statement = SignedStatement.FromString(file.read_bytes())
    content = verifier.verify(statement, ClearingStatement, now).content
    named = stem(period, content.payer_region_code, content.dispensing_region_code)
    if content.period != str(period) or file.stem != named:
        raise ValueError(f"it is the statement {content.period} of another pair")
    beside = file.with_suffix(ACCEPTANCE_SUFFIX)
    if not beside.exists():
        return Cleared(content, accepted=False)
    signed = SignedStatement.FromString(beside.read_bytes())
    acceptance = verifier.verify(signed, ClearingAcceptance, now).content
    by_owed_region = acceptance.dispensing_region_code == content.dispensing_region_code
    if not by_owed_region or acceptance.statement_sha256 != statement_sha256(statement):
        raise ValueError(f"{beside.name} accepts another statement")
    return Cleared(content, accepted=True)


def _positions(obligations: Sequence[Obligation]) -> Iterable[str]:
    positions = net_positions(obligations)
    yield from _table("Multilateral", ("region", "gets", "pays"), _sides(positions))
    yield f"The positions sum to {yuan_of(sum(positions.values()))}."
    yield ""


def _sides(positions: dict[str, int]) -> Iterable[Sequence[str]]:
    for region, net in positions.items():
        yield region, yuan_of(max(net, 0)), yuan_of(max(-net, 0))


def _bilateral(obligations: Sequence[Obligation]) -> Iterable[str]:
    return _table(
        "Bilateral",
        ("first", "second", "first owes", "second owes", "first pays net"),
        (
            (
                each.first,
                each.second,
                yuan_of(each.first_owes_fen),
                yuan_of(each.second_owes_fen),
                yuan_of(each.net_fen),
            )
            for each in bilateral_nets(obligations)
        ),
    )


def _list(period: Period, cleared: Sequence[Cleared]) -> Iterable[str]:
    yield from _table(
        "Statements",
        ("payer", "dispensing", "posted", "reversed", "fund", "accounts", "of it adjustments",
         "owed", "state", "list"),
        (_row(period, each) for each in cleared),
    )  # fmt: skip
    yield from _table(
        "Lists",
        ("file", "SHA-256"),
        ((_list_name(period, each.content), each.content.list_sha256.hex()) for each in cleared),
    )


def _row(period: Period, each: Cleared) -> Sequence[str]:
    content, totals = each.content, each.content.totals
    return (
        content.payer_region_code,
        content.dispensing_region_code,
        str(content.posting_count),
        str(content.reversal_count),
        yuan_of(totals.pool_fen),
        yuan_of(totals.account_fen + totals.family_fen),
        yuan_of(content.adjustment_fen),
        yuan_of(content.owed_fen),
        "accepted" if each.accepted else "OPEN",
        _list_name(period, content),
    )


def _list_name(period: Period, content: ClearingStatement) -> str:
    return f"{stem(period, content.payer_region_code, content.dispensing_region_code)}.csv"


def _left_out(unusable: Sequence[Unusable]) -> Iterable[str]:
    if not unusable:
        return ()
    rows = ((each.file, each.problem) for each in unusable)
    return _table("Left out", ("file", "problem"), rows)


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterable[str]:
    yield f"## {title}"
    yield ""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    if lines:
        yield f"| {' | '.join(columns)} |"
        yield "|" + "---|" * len(columns)
        yield from lines
    else:
        yield "Nothing."
    yield ""
