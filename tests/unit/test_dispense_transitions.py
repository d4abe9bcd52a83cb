"""A dispense at its dispensing region: every step from every step, records, acknowledgements."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from rxoutflow_server.domain.attempt import LineQuantity
from rxoutflow_server.domain.dispense import (
    CommittedLine,
    Dispense,
    DispenseState,
    acknowledged,
    advanced,
    corrected,
    recorded,
)
from rxoutflow_server.domain.errors import InvariantBroken, Reason, Refusal

NOW = datetime(2024, 5, 1, 8, tzinfo=UTC)
LATER = NOW + timedelta(days=30)
LINES = (CommittedLine(1, "SYNW1", 2), CommittedLine(3, "SYNW2", 28))
DISPENSE = Dispense(
    prescription_number="350500000000000017",
    settlement_id="settlement-1",
    attempt_id="attempt-1",
    fence=4,
    pharmacy_code="P35010000001",
    payer_region_code="350200",
    insured_person_id="3502000001",
    insured=True,
    lines=LINES,
    state=DispenseState.COMMITTING,
    create_time=NOW,
    update_time=NOW,
    request_id="request-1",
    commitment_sha256=b"commitment",
    pricing_sha256=b"pricing",
)

# From the state of the row to the state of the column: yes, or a defect in whoever asks.
STEPS = """
            committing  held  committed  refused  dispensed  completed  released
committing  no          yes   no         yes      no         no         yes
held        no          no    yes        yes      no         no         yes
committed   no          no    no         no       yes        no         yes
refused     no          no    no         no       no         no         no
dispensed   no          no    no         no       no         no         no
completed   no          no    no         no       no         no         no
released    no          no    no         no       no         no         no
"""


CORRECTED = {
    "committing": "refused",
    "held": "refused",
    "committed": "released",
}
"""What the correction of a commit makes of each state; the others stay as they are."""


@pytest.mark.parametrize("state", list(DispenseState))
def test_a_commit_that_was_corrected_is_driven_and_recorded_no_more(state: str) -> None:
    after = corrected(in_state(state), now=LATER)
    assert after.state == CORRECTED.get(state, state)
    assert (after.update_time == LATER) is (state in CORRECTED)


def steps() -> Iterator[tuple[str, str, bool]]:
    header, *rows = (line.split() for line in STEPS.strip().splitlines())
    for state, *cells in rows:
        for to, cell in zip(header, cells, strict=True):
            yield state, to, cell == "yes"


def in_state(state: str, *, insured: bool = True) -> Dispense:
    return replace(DISPENSE, state=DispenseState(state), insured=insured)


def test_the_table_covers_every_pair_of_states() -> None:
    assert {state for state, _, _ in steps()} == set(DispenseState)
    assert len(list(steps())) == len(DispenseState) ** 2


@pytest.mark.parametrize(("state", "to", "possible"), list(steps()))
def test_a_dispense_takes_only_the_steps_of_its_life(state: str, to: str, possible: bool) -> None:
    before = in_state(state)
    if possible:
        after = advanced(before, DispenseState(to), now=LATER)
        assert after == replace(before, state=DispenseState(to), update_time=LATER)
        return
    with pytest.raises(InvariantBroken, match=f"{state} cannot become {to}"):
        advanced(before, DispenseState(to), now=LATER)


@pytest.mark.parametrize(("insured", "posted"), [(True, False), (False, True)])
def test_a_record_of_what_was_committed_is_kept_and_without_insurance_nothing_is_left_to_post(
    insured: bool, posted: bool
) -> None:
    before = in_state("committed", insured=insured)
    after = recorded(before, 4, LINES, now=LATER)
    assert after == replace(
        before, state=DispenseState.DISPENSED, update_time=LATER, posted=posted, booked=False
    )


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ("committing", Reason.ATTEMPT_NOT_COMMITTED),
        ("held", Reason.ATTEMPT_NOT_COMMITTED),
        ("refused", Reason.ATTEMPT_ENDED),
        ("dispensed", Reason.ATTEMPT_ENDED),
        ("completed", Reason.ATTEMPT_ENDED),
        ("released", Reason.ATTEMPT_ENDED),
    ],
)
def test_a_record_is_refused_in_every_other_state(state: str, reason: Reason) -> None:
    with pytest.raises(Refusal) as refused:
        recorded(in_state(state), 4, LINES, now=LATER)
    assert refused.value.reason is reason
    if reason is Reason.ATTEMPT_ENDED:
        assert refused.value.detail == {"state": state}


@pytest.mark.parametrize("fence", [3, 5])
def test_a_record_with_another_fence_is_refused(fence: int) -> None:
    with pytest.raises(Refusal) as refused:
        recorded(in_state("committed"), fence, LINES, now=LATER)
    assert refused.value.reason is Reason.FENCE_STALE


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param((), id="nothing"),
        pytest.param(LINES[:1], id="one line missing"),
        pytest.param((*LINES, CommittedLine(4, "SYNW3", 1)), id="one line more"),
        pytest.param((replace(LINES[0], quantity=1), LINES[1]), id="less"),
        pytest.param((replace(LINES[0], quantity=3), LINES[1]), id="more"),
        pytest.param((replace(LINES[0], drug_code="SYNW9"), LINES[1]), id="another product"),
        pytest.param((replace(LINES[0], line_id=2), LINES[1]), id="another line"),
    ],
)
def test_a_record_that_differs_from_the_commitment_is_refused(
    lines: tuple[CommittedLine, ...],
) -> None:
    with pytest.raises(Refusal) as refused:
        recorded(in_state("committed"), 4, lines, now=LATER)
    assert refused.value.reason is Reason.DISPENSE_MISMATCH
    assert refused.value.detail == {"field": "lines"}


@pytest.mark.parametrize("first", ["booked", "posted"])
def test_an_insured_dispense_completes_when_both_have_answered_in_either_order(first: str) -> None:
    second = {"booked": "posted", "posted": "booked"}[first]
    dispensed = recorded(in_state("committed"), 4, LINES, now=NOW)
    half = acknowledged(dispensed, **{first: True}, now=NOW)
    assert (half.state, half.booked, half.posted) == (
        "dispensed",
        first == "booked",
        first == "posted",
    )
    again = acknowledged(half, **{first: True}, now=NOW)
    assert again == half
    whole = acknowledged(again, **{second: True}, now=LATER)
    assert (whole.state, whole.booked, whole.posted) == ("completed", True, True)
    assert whole.update_time == LATER


def test_a_dispense_that_the_patient_paid_completes_with_the_booking() -> None:
    dispensed = recorded(in_state("committed", insured=False), 4, LINES, now=NOW)
    assert acknowledged(dispensed, now=LATER).state is DispenseState.DISPENSED
    assert acknowledged(dispensed, booked=True, now=LATER).state is DispenseState.COMPLETED


@pytest.mark.parametrize("state", ["committing", "held", "committed", "refused", "released"])
def test_an_acknowledgement_completes_nothing_that_was_not_handed_over(state: str) -> None:
    heard = acknowledged(in_state(state), booked=True, posted=True, now=LATER)
    assert heard.state == state


@pytest.mark.parametrize("flags", [{"booked": True}, {"posted": True}, {}])
def test_a_completed_dispense_stays_completed(flags: dict[str, bool]) -> None:
    before = replace(in_state("completed"), booked=True, posted=True)
    assert acknowledged(before, **flags, now=LATER) == replace(before, update_time=LATER)


def test_the_ledger_hears_lines_and_quantities_without_products() -> None:
    assert DISPENSE.quantities == (LineQuantity(1, 2), LineQuantity(3, 28))
