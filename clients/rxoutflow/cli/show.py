"""How things look at the terminal: yuan, tables, and the pickup code as a QR code.

Only shows what is handed in; computes nothing but layout.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import UTC
from pathlib import Path

import segno
from rich.console import Console
from rich.table import Table

from rxoutflow.documents import CHINA
from rxoutflow.numbers import PickupCode
from rxoutflow.plain import short_name
from rxoutflow.v1.attempt_pb2 import Attempt
from rxoutflow.v1.dispense_pb2 import ReturnProgress
from rxoutflow.v1.finding_pb2 import RuleFinding
from rxoutflow.v1.notice_pb2 import Notice
from rxoutflow.v1.prescription_pb2 import Prescription
from rxoutflow.v1.prescription_status_pb2 import LineUse, PrescriptionStatus
from rxoutflow.v1.settlement_pb2 import Amounts, PricedLine, Settlement
from rxoutflow.v1.trace_pb2 import TraceEvent

_AMOUNTS = (
    ("total", "总额", "total_fen"),
    ("own cost", "全自费", "own_fen"),
    ("above limit price", "超限价", "excess_fen"),
    ("first self-pay", "先行自付", "first_self_pay_fen"),
    ("in scope", "符合范围", "inscope_fen"),
    ("deductible", "起付线", "deductible_fen"),
    ("pooled fund pays", "统筹基金支付", "pool_fen"),
    ("ratio self-pay", "比例自付", "ratio_self_fen"),
    ("person pays in all", "个人负担", "person_fen"),
    ("- own account", "个人账户", "account_fen"),
    ("- family accounts", "家庭共济", "family_fen"),
    ("- cash", "现金", "cash_fen"),
)


_TYPE_PREFIX = "application/vnd.rxoutflow."


def yuan(fen: int) -> str:
    """Fen as yuan with two decimals."""
    return f"{fen // 100}.{fen % 100:02}"


def qr_to_terminal(code: PickupCode) -> None:
    """Draw the pickup code."""
    segno.make_qr(str(code), error="m").terminal(sys.stdout, compact=True)


def qr_to_file(code: PickupCode, path: Path) -> None:
    """Write the pickup code as a PNG picture.

    Raises:
        OSError: the file cannot be written.
    """
    segno.make_qr(str(code), error="m").save(str(path), kind="png", scale=8, border=4)


def amounts_table(amounts: Amounts) -> Table:
    """The amounts in yuan, with the field's words."""
    table = Table("", "", "yuan")
    table.columns[2].justify = "right"
    for english, chinese, name in _AMOUNTS:
        table.add_row(english, chinese, yuan(getattr(amounts, name)))
    return table


def settlement_line(settlement: Settlement) -> str:
    """Where a settlement stands, in one line."""
    state = short_name(settlement, "state")
    return f"settlement {settlement.settlement_id}: {state}, tariff {settlement.tariff_version}"


def return_line(returned: ReturnProgress) -> str:
    """Where a return stands, in one line."""
    home = "booked by home" if returned.booked_by_home else "on its way to home"
    money = "on its way to the payer"
    if returned.HasField("amounts"):
        back = returned.amounts
        money = f"{yuan(back.total_fen)} yuan back, {yuan(back.pool_fen)} of it to the fund"
    return f"return {returned.reversal_id}: {home}; {money}"


def prescription_table(prescription: Prescription, status: PrescriptionStatus) -> Table:
    """The lines of a prescription and what can still be claimed."""
    left = {line.line_id: _left(line) for line in status.lines}
    title = f"{prescription.prescription_number} · {prescription.issuer.institution_name}"
    table = Table("line", "drug", "usage", "quantity", "left", title=title, title_justify="left")
    for line in prescription.lines:
        table.add_row(
            str(line.line_id),
            f"{line.generic_name} {line.specification}\n{line.drug_code}",
            f"{line.route} {line.frequency}\n{line.supply_days} days".strip(),
            f"{line.quantity} {line.unit}",
            left.get(line.line_id, "0"),
        )
    return table


def _left(line: LineUse) -> str:
    """What can still be claimed, and how much of it now, if that is less."""
    now = f" ({line.open} now)" if line.open != line.available else ""
    return f"{line.available}{now}"


def status_line(status: PrescriptionStatus) -> str:
    """Validity, reviews, fills and holder in one line."""
    validity = short_name(status, "validity")
    if not status.HasField("register_time"):
        return f"{validity} · never registered"
    review = short_name(status, "hospital_review")
    until = status.expire_time.ToJsonString()
    fills = f" · fill {status.opened_fills} open or done" if status.opened_fills else ""
    opens = f", the next opens on {status.next_fill_day}" if status.next_fill_day else ""
    held = f" · held by {status.holder_name}" if status.holder_name else ""
    return f"{validity} · hospital review {review} · valid until {until}{fills}{opens}{held}"


def attempt_line(attempt: Attempt) -> str:
    """Where an attempt stands, in one line."""
    state = short_name(attempt, "state")
    lease = attempt.HasField("lease_expire_time") and attempt.state == Attempt.STATE_RESERVED
    until = f" until {attempt.lease_expire_time.ToJsonString()}" if lease else ""
    return f"attempt {attempt.attempt_id} of {attempt.prescription_number}: {state}{until}"


def priced_table(lines: Iterable[PricedLine], goods: Prescription) -> Table:
    """Lines with their prices."""
    drugs = {line.line_id: line for line in goods.lines}
    table = Table("line", "drug", "generic name", "quantity", "unit price (yuan)")
    for line in lines:
        drug = drugs[line.line_id]
        whole, part = divmod(line.unit_price_micro_yuan, 1_000_000)
        quantity = f"{line.quantity} {drug.unit}"
        table.add_row(
            str(line.line_id), line.drug_code, drug.generic_name, quantity, f"{whole}.{part:06}"
        )
    return table


def findings_table(findings: Iterable[RuleFinding]) -> Table:
    """What the rules have to say."""
    table = Table("rule", "severity", "field", "what to do", "source")
    for finding in findings:
        severity = short_name(finding, "severity")
        table.add_row(finding.rule_id, severity, finding.field, finding.message, finding.source)
    return table


def notice_line(notice: Notice) -> str:
    """A notice in one line."""
    kind = short_name(notice, "kind")
    who = f" · {notice.institution_name}" if notice.institution_name else ""
    when = notice.event_time.ToJsonString()
    return f"{when}  {kind}  {notice.prescription_number}{who}  {notice.summary}".rstrip()


def trace_table(events: Iterable[TraceEvent]) -> Table:
    """The life of a prescription, step by step."""
    table = Table("time", "region", "as", "flow", "what", "by", "signed by", "pool / person")
    for event in events:
        table.add_row(
            event.event_time.ToDatetime().strftime("%H:%M:%S.%f")[:-3],
            event.region_code,
            short_name(event, "region_role").lower(),
            short_name(event, "flow").lower(),
            event.action,
            event.actor_code,
            signers(event),
            _moved(event),
        )
    return table


def history_table(events: Iterable[TraceEvent]) -> Table:
    """The statements behind a status, in the order of time; times are China's."""
    table = Table("time", "what", "statement", "by", "signed by")
    for event in events:
        when = event.event_time.ToDatetime(UTC).astimezone(CHINA)
        name = event.statement.payload_type.removeprefix(_TYPE_PREFIX).partition(".")[0]
        table.add_row(
            when.strftime("%Y-%m-%d %H:%M:%S"), event.action, name, event.actor_code, signers(event)
        )
    return table


def signers(event: TraceEvent) -> str:
    """Who signed the statement behind an event, in order."""
    return ", ".join(
        f"{each.display_name} ({short_name(each, 'role').lower()})" for each in event.signers
    )


def _moved(event: TraceEvent) -> str:
    if not event.HasField("amounts"):
        return ""
    return f"{yuan(event.amounts.pool_fen)} / {yuan(event.amounts.person_fen)}"


def say_qr(console: Console, code: PickupCode, picture: Path | None) -> None:
    """Tell the patient's code as text and QR, and where the picture went."""
    console.print(f"pickup code  {code.readable}", markup=False)
    qr_to_terminal(code)
    if picture is not None:
        console.print(f"QR code written to {picture}", markup=False)
