"""What must never happen, as code: every layer of tests asks the same questions.

Each check takes plain values, from whatever store or model they come, and raises ``Violation`` with
the number of the invariant that does not hold:

    I1 entitlement     I2 one live attempt   I3 no timer after commit     ``home``, ``evidence``
    I4 settle once     I5 money              I6 reversal                  ``money``
    I7 durability      I8 idempotency        I10 authority                ``answers``
    I9 log                                                                ``log``
    I11 chain                                                             ``chain``
    I12 trace code                                                        ``evidence``
    I13 accumulators                                                      ``money``
    I14 convergence                                                       ``agreement``

They recompute what they check from attempts, settlements and signed statements themselves, and take
no ledger's word for it. They change nothing. ``check_always`` and ``check_quiescent`` ask them all
of a federation of regions that ``read_region`` has read.
"""

from support.invariants.accounts import check_accounts, check_entries
from support.invariants.agreement import (
    check_adjudicated,
    check_agreement,
    check_delivered,
    check_index,
    check_leases,
)
from support.invariants.answers import (
    Answer,
    check_actors,
    check_authority,
    check_durable,
    check_no_second_effect,
    check_same_answers,
    check_unaltered,
)
from support.invariants.chain import check_chain, check_chains
from support.invariants.evidence import check_grounds, check_trace_codes, normalised
from support.invariants.federation import check_always, check_quiescent, check_region
from support.invariants.home import (
    check_entitlement,
    check_handed_over,
    check_home,
    check_one_live_attempt,
    check_step,
)
from support.invariants.log import check_grown, check_log, check_receipts, roots_of
from support.invariants.money import (
    check_accumulators,
    check_amounts,
    check_books,
    check_ended,
    check_not_overdrawn,
    check_nothing_in_flight,
    check_nothing_lost,
    check_one_payment,
    check_paid_on_evidence,
    check_returned,
    check_reversals,
    check_reversed,
    check_settled_once,
    check_stated_once,
    reversed_amounts,
)
from support.invariants.records import RegionRecords, Waiting, read_region
from support.invariants.violation import Violation

__all__ = [
    "Answer",
    "RegionRecords",
    "Violation",
    "Waiting",
    "check_accounts",
    "check_accumulators",
    "check_actors",
    "check_adjudicated",
    "check_agreement",
    "check_always",
    "check_amounts",
    "check_authority",
    "check_books",
    "check_chain",
    "check_chains",
    "check_delivered",
    "check_durable",
    "check_ended",
    "check_entitlement",
    "check_entries",
    "check_grounds",
    "check_grown",
    "check_handed_over",
    "check_home",
    "check_index",
    "check_leases",
    "check_log",
    "check_no_second_effect",
    "check_not_overdrawn",
    "check_nothing_in_flight",
    "check_nothing_lost",
    "check_one_live_attempt",
    "check_one_payment",
    "check_paid_on_evidence",
    "check_quiescent",
    "check_receipts",
    "check_region",
    "check_returned",
    "check_reversals",
    "check_reversed",
    "check_same_answers",
    "check_settled_once",
    "check_stated_once",
    "check_step",
    "check_trace_codes",
    "check_unaltered",
    "normalised",
    "read_region",
    "reversed_amounts",
    "roots_of",
]
