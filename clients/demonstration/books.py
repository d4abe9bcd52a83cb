"""The end of the day and of the month: books compared, differences named, regions cleared."""

from __future__ import annotations

from datetime import date

from demonstration import desk
from demonstration.cases import OWED_FEN
from demonstration.stage import Stage, until
from rxoutflow.client import PharmacyClient, Reconciled
from rxoutflow.v1.clearing_pb2 import DayDifference, LedgerEntry

PLANTED_FEN = 100


def pharmacies(stage: Stage) -> None:
    """Each pharmacy compares its day with its platform's; then with two faults in its own book."""
    for (city, day), book in sorted(stage.books.items()):
        client = stage.pharmacies[city]
        agreed = until(lambda c=client, d=day, b=book: c.reconcile(d, b).agreed)  # type: ignore[misc] # mypy cannot infer a lambda with a default
        stage.report.check(f"{city}: the books of {day} agree", agreed, f"{len(book)} entries")
    (city, day), book = max(stage.books.items(), key=lambda entry: len(entry[1]))
    _planted(stage, stage.pharmacies[city], day, book)


def regions(stage: Stage) -> None:
    """What regions owe each other this month, from everybody's lists; nets sum to nothing."""
    pairs = desk.cleared(stage)
    for each in pairs:
        name = f"{each.payer} owes {each.dispensing}: both lists are the same, byte for byte"
        stage.report.check(name, each.agreed)
    owed = {(each.payer, each.dispensing): each.owed_fen for each in pairs}
    stage.report.check("what is owed is what was worked out by hand", owed == OWED_FEN, str(owed))
    net = desk.nets(pairs)
    stage.report.pairs, stage.report.nets = pairs, dict(net)
    stage.report.check("all five regions are in it", all(net.values()), str(net))
    stage.report.check("the net positions sum to zero", sum(net.values()) == 0, str(net))
    told = desk.month_is_open(stage)
    stage.report.check("a month that is not over is not stated", "is not over" in told, told)
    stage.report.open_month = told


def _planted(stage: Stage, client: PharmacyClient, day: date, book: list[LedgerEntry]) -> None:
    """A sale that is missing and another one with a wrong amount; both are found, no other."""
    missing, *rest = book
    wrong = LedgerEntry.FromString(rest[0].SerializeToString())
    wrong.cash_fen += PLANTED_FEN
    wrong.total_fen += PLANTED_FEN
    found = client.reconcile(day, [wrong, *rest[1:]])
    kinds = {each.settlement_id: each.kind for each in found.differences}
    expected = {
        missing.settlement_id: DayDifference.KIND_MISSING_HERE,
        wrong.settlement_id: DayDifference.KIND_AMOUNT_DIFFERS,
    }
    name = "a sale left out and a wrong amount are found and named, and nothing else"
    stage.report.check(name, kinds == expected, str(kinds))
    scene = stage.report.scene(f"a pharmacy's day of {len(book)} entries, two faults planted")
    files = {each.committed.settlement_id: each.file for each in stage.report.filled}
    for settlement_id, words in _words(found):
        scene.note(files[settlement_id], words)


def _words(found: Reconciled) -> list[tuple[str, str]]:
    return [
        (
            each.settlement_id,
            "; ".join(
                [
                    DayDifference.Kind.Name(each.kind)
                    .removeprefix("KIND_")
                    .replace("_", " ")
                    .lower(),
                    *(
                        f"{amount.field} {amount.here_fen} here, {amount.there_fen} there"
                        for amount in each.amounts
                    ),
                ]
            ),
        )
        for each in found.differences
    ]
