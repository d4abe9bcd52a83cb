"""How an operator's lists and decisions look at the terminal, and as JSON.

Only shows what is handed in; computes nothing but layout.
"""

from __future__ import annotations

from collections.abc import Iterable

from rich.markup import escape
from rich.table import Table

from rxoutflow.client import Overdue
from rxoutflow.client.evidence import Evidence
from rxoutflow.plain import Plain, plain, short_name
from rxoutflow.v1.administration_service_pb2 import DeadLetter
from rxoutflow.v1.attempt_pb2 import Adjudication


def overdue_table(attempts: Iterable[Overdue]) -> Table:
    """The adjudication list."""
    table = Table("attempt", "prescription", "committed since", "pharmacy", "hospital", "held")
    for each in attempts:
        attempt = each.attempt.content
        amounts = each.settlement.content.amounts if each.settlement else None
        table.add_row(
            attempt.attempt_id,
            attempt.prescription_number,
            f"{each.commit_time:%Y-%m-%d %H:%M} UTC",
            f"{_safe(each.pharmacy_name)}\n{attempt.pharmacy_code} {_safe(each.pharmacy_phone)}",
            each.issuer_institution_code,
            f"{amounts.pool_fen} of {amounts.total_fen} fen" if amounts else "patient pays alone",
        )
    return table


def overdue_values(overdue: Overdue) -> Plain:
    """An entry of the adjudication list as JSON."""
    return {
        "attempt": plain(overdue.attempt.content),
        "commitment": plain(overdue.commitment.content),
        "settlement": plain(overdue.settlement.content) if overdue.settlement else None,
        "pharmacy_name": overdue.pharmacy_name,
        "pharmacy_phone": overdue.pharmacy_phone,
        "issuer_institution_code": overdue.issuer_institution_code,
        "commit_time": overdue.commit_time.isoformat(),
    }


def adjudication_table(decision: Evidence[Adjudication]) -> Table:
    """A decision, and who has signed it so far."""
    content = decision.content
    table = Table("", "", show_header=False)
    table.add_row("prescription", content.prescription_number)
    table.add_row("attempt", f"{content.attempt_id}, fence {content.fence}")
    table.add_row("finding", short_name(content, "finding"))
    table.add_row("evidence", _safe(content.evidence))
    for digest in content.document_sha256:
        table.add_row("document (SHA-256)", digest.hex())
    for signer in decision.signers:
        when = f"{signer.sign_time:%Y-%m-%d %H:%M} UTC"
        table.add_row("signed by", f"{_safe(signer.display_name)} ({signer.person_code}), {when}")
    return table


def dead_letter_table(dead_letters: Iterable[DeadLetter]) -> Table:
    """Events that were set aside."""
    table = Table("event", "for region", "prescription", "what", "since", "tries", "why")
    for each in dead_letters:
        table.add_row(
            each.event_id,
            each.peer_region_code,
            each.prescription_number,
            _kind(each),
            each.create_time.ToJsonString(),
            str(each.tries),
            _safe(each.error),
        )
    return table


def dead_letter_values(dead: DeadLetter) -> Plain:
    """An event that was set aside as JSON."""
    return {
        "event_id": dead.event_id,
        "peer_region_code": dead.peer_region_code,
        "prescription_number": dead.prescription_number,
        "kind": _kind(dead),
        "create_time": dead.create_time.ToJsonString(),
        "tries": dead.tries,
        "error": dead.error,
    }


def _safe(text: str) -> str:
    """Somebody else's words, without anything that a terminal or a table would act on."""
    shown = (each if each.isprintable() or each == "\n" else "\ufffd" for each in text)
    return escape("".join(shown))


def _kind(dead: DeadLetter) -> str:
    return dead.statement.payload_type.removeprefix("application/vnd.rxoutflow.").partition(".")[0]
