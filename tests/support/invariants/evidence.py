"""I3 by evidence, I12 trace codes, and the signed grounds that every state rests on.

These checks read the statements that regions keep, not their tables: what moved an attempt after
its commit, and which boxes were handed over where.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from unicodedata import normalize

from cryptography import x509

from rxoutflow.identity import signer_name
from rxoutflow.v1 import attempt_pb2, dispense_pb2
from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow_server.domain.attempt import Attempt, AttemptState
from support.invariants.records import RegionRecords, payload_type
from support.invariants.violation import hold

ADJUDICATION = payload_type(attempt_pb2.Adjudication)
CORRECTION = payload_type(attempt_pb2.Correction)

_GROUNDS = {
    AttemptState.RESERVED: (payload_type(attempt_pb2.Claim),),
    AttemptState.COMMITTED: (payload_type(attempt_pb2.Commitment),),
    AttemptState.DISPENSED: (payload_type(dispense_pb2.DispenseRecord), ADJUDICATION),
    AttemptState.RELEASED: (
        payload_type(attempt_pb2.ClaimRelease),
        ADJUDICATION,
        CORRECTION,
    ),
}
_SOLD_AGAIN = (
    dispense_pb2.DispenseReturn.CAUSE_DISPENSING_ERROR,
    dispense_pb2.DispenseReturn.CAUSE_NOT_DELIVERED,
)
"""Why a box may come back that may be sold again; see ``DispenseReturn``."""


def check_grounds(home: RegionRecords) -> None:
    """I3: every state of an attempt rests on a statement of the right kind, which is kept.

    No attempt ran out that was ever committed, and whatever was adjudicated was signed by two.
    """
    committed = {
        each.attempt_id
        for each in home.stated(attempt_pb2.Attempt)
        if each.state == attempt_pb2.Attempt.STATE_COMMITTED
    }
    for attempt in home.attempts:
        name = f"attempt {attempt.attempt_id}"
        if attempt.state is AttemptState.EXPIRED:
            hold("I3", attempt.attempt_id not in committed, f"{name} ran out after its commit")
            continue
        ground = home.statements.get((attempt.prescription_number, attempt.cause_sha256))
        if ground is None:
            hold("I3", False, f"{name} is {attempt.state} on no ground that is kept")
            continue
        fits = ground.payload_type in _GROUNDS[attempt.state]
        hold("I3", fits, f"{name} is {attempt.state} by a {ground.payload_type}")
        _check_two_people(attempt, ground)


def check_trace_codes(regions: Iterable[RegionRecords]) -> None:
    """I12: a box is in one handover at most, all regions together, unless it came back for sale.

    Parts of a box may be sold apart from each other (拆零), never beside the whole box.
    """
    regions = list(regions)
    sold, loose = Counter(_sold(regions, loose=False)), set(_sold(regions, loose=True))
    back = Counter(_taken_back(regions))
    for code, times in sold.items():
        out = times - back[code]
        hold("I12", out <= 1, f"box {code} was handed over {out} times")
        hold("I12", out < 1 or code not in loose, f"box {code} was handed over whole and in parts")


def normalised(code: str) -> str:
    """A trace code as its box carries it, however it was typed or scanned."""
    return "".join(each for each in normalize("NFKC", code) if each.isalnum()).upper()


def _check_two_people(attempt: Attempt, ground: SignedStatement) -> None:
    if ground.payload_type != ADJUDICATION:
        return
    people = {
        signer_name(x509.load_der_x509_certificate(each.certificate_chain[0])).person_code
        for each in ground.signatures
    }
    enough = len(ground.signatures) == 2 and len(people - {""}) == 2
    hold("I3", enough, f"attempt {attempt.attempt_id} was adjudicated by {len(people)}")


def _records(regions: Iterable[RegionRecords]) -> Iterator[dispense_pb2.DispenseRecord]:
    """Every handover that a dispensing region recorded, once."""
    for region in regions:
        accepted: Mapping[bytes, bool] = {
            each.record_sha256: True for each in region.dispenses if each.record_sha256
        }
        for digest, record in region.stated_with_digests(dispense_pb2.DispenseRecord):
            if digest in accepted:
                yield record


def _sold(regions: Iterable[RegionRecords], *, loose: bool) -> Iterator[str]:
    for record in _records(regions):
        for line in record.lines:
            for trace_code in line.trace_codes:
                if trace_code.loose_sale is loose:
                    yield normalised(trace_code.code)


def _taken_back(regions: Iterable[RegionRecords]) -> Iterator[str]:
    returns = {
        each.reversal_id: each
        for region in regions
        for each in region.stated(dispense_pb2.DispenseReturn)
    }
    for each in returns.values():
        if each.cause in _SOLD_AGAIN:
            for line in each.lines:
                yield from map(normalised, line.trace_codes)
