"""R18: counting what is paid for each institution of this region, and telling who is above a quota.

The dispensing region counts for its pharmacies, the home region for its hospitals, each when it
hears a payer's Settlement or Reversal: what funds and accounts paid, on the day on which the payer
paid or gave back. What is counted does not depend on what the agreement says, so that an agreement
made in the middle of a period holds for all of it. Nothing here refuses anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date, timedelta

from rxoutflow.trust import RegionNotTrusted
from rxoutflow.v1 import settlement_pb2, trust_pb2
from rxoutflow_server.application.clearing.books import local_day
from rxoutflow_server.application.exchange.evidence import tell_institution
from rxoutflow_server.application.messages import instant
from rxoutflow_server.application.ports import AgreementUse, Store, Transaction
from rxoutflow_server.application.region import Region
from rxoutflow_server.domain.agreements import Agreement, QuotaAlert, QuotaPeriod, quota_alert

_PERIODS = {
    trust_pb2.Agreement.PERIOD_YEAR: QuotaPeriod.YEAR,
    trust_pb2.Agreement.PERIOD_MONTH: QuotaPeriod.MONTH,
}


def agreements_of(institutions: Iterable[trust_pb2.Institution]) -> Iterator[Agreement]:
    """The agreements with a quota, as the region's trust list has them now."""
    for each in institutions:
        terms = each.agreement
        if terms.period in _PERIODS and terms.quota_fen > 0:
            period = _PERIODS[terms.period]
            yield Agreement(each.institution_code, terms.document, terms.quota_fen, period)


def count_settlement(
    tx: Transaction, institution_code: str, content: settlement_pb2.Settlement, sha256: bytes
) -> None:
    """Count what a settlement paid for an institution. Other states than posted count nothing."""
    if content.state != settlement_pb2.Settlement.STATE_POSTED:
        return
    tx.agreements.add_use(
        AgreementUse(
            institution_code,
            local_day(instant(content.update_time)),
            content.prescription_number,
            content.settlement_id,
            "",
            _paid_fen(content.amounts),
            sha256,
        )
    )


def count_reversal(
    tx: Transaction, institution_code: str, content: settlement_pb2.Reversal, sha256: bytes
) -> None:
    """Count what a reversal gave back, on its own day: a period that is over never changes."""
    tx.agreements.add_use(
        AgreementUse(
            institution_code,
            local_day(instant(content.reverse_time)),
            content.prescription_number,
            content.settlement_id,
            content.reversal_id,
            -_paid_fen(content.amounts),
            sha256,
        )
    )


def alerts_of_day(tx: Transaction, agreements: Iterable[Agreement], day: date) -> list[QuotaAlert]:
    """Whose quota is exceeded at the end of a local day, in the period that the day falls in."""
    end = day + timedelta(days=1)
    found = [
        quota_alert(each, begin, tx.agreements.used_fen(each.institution_code, begin, end))
        for each in agreements
        for begin, _ in [each.days(day)]
    ]
    return [alert for alert in found if alert is not None]


async def tell_crossings(region: Region, store: Store) -> None:
    """Send a notice to each institution that has come above its quota since the last look."""
    now = region.now()
    try:
        listed = region.trust.region(region.code, now).institutions.values()
    except RegionNotTrusted:
        return  # the lapsed list is an alarm of its own
    day = local_day(now)
    for each in agreements_of(listed):
        changed = await store.read(lambda tx, each=each: _has_crossed(tx, each, day))  # type: ignore[misc] # mypy cannot infer a lambda with a default
        if changed:
            await store.transact(lambda tx, each=each: tell_crossing(tx, region, each, day))  # type: ignore[misc] # mypy cannot infer a lambda with a default


def tell_crossing(tx: Transaction, region: Region, agreement: Agreement, day: date) -> None:
    """A notice, once for each time that the use of a period comes above the quota.

    Reversals may bring it below again; the next time that it comes above is another crossing.
    """
    begin, end = agreement.days(day)
    code, document = agreement.institution_code, agreement.document
    alert = quota_alert(agreement, begin, tx.agreements.used_fen(code, begin, end))
    if not tx.agreements.set_above(code, document, begin, above=alert is not None):
        return
    newest = tx.agreements.newest_use(code, begin, end)
    if alert is not None and newest is not None:
        number, sha256 = newest.prescription_number, newest.statement_sha256
        kind = "QUOTA_EXCEEDED"
        tell_institution(tx, code, kind, number, "", sha256, alert.words, region.now())


def _has_crossed(tx: Transaction, agreement: Agreement, day: date) -> bool:
    begin, end = agreement.days(day)
    code = agreement.institution_code
    above = quota_alert(agreement, begin, tx.agreements.used_fen(code, begin, end)) is not None
    return above != tx.agreements.is_above(code, agreement.document, begin)


def _paid_fen(amounts: settlement_pb2.Amounts) -> int:
    return amounts.pool_fen + amounts.account_fen + amounts.family_fen
