"""The identities that the amounts of a quote or settlement always fulfil, in fen.

    total   = own + excess + first_self_pay + inscope
    inscope = deductible + pool + ratio_self
    person  = total − pool
    total   = pool + account + family + cash

A receiver checks them before anybody acts on the amounts. How they come about is the payer region's
business; nothing is computed here.
"""

from __future__ import annotations

from rxoutflow.v1.settlement_pb2 import Amounts


def broken_identities(amounts: Amounts) -> tuple[str, ...]:
    """The identities that do not hold, in words; empty if the amounts add up."""
    outside = amounts.own_fen + amounts.excess_fen + amounts.first_self_pay_fen
    covered = amounts.deductible_fen + amounts.pool_fen + amounts.ratio_self_fen
    paid = amounts.pool_fen + amounts.account_fen + amounts.family_fen + amounts.cash_fen
    parts = (value for field, value in amounts.ListFields())
    holds = {
        "total = own + excess + first self-pay + inscope": (
            amounts.total_fen == outside + amounts.inscope_fen
        ),
        "inscope = deductible + pool + ratio self-pay": amounts.inscope_fen == covered,
        "person = total - pool": amounts.person_fen == amounts.total_fen - amounts.pool_fen,
        "total = pool + account + family + cash": amounts.total_fen == paid,
        "no amount is negative": all(value >= 0 for value in parts),
    }
    return tuple(words for words, is_so in holds.items() if not is_so)
