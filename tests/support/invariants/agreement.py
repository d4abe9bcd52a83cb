"""I14 convergence: once faults have healed and nothing is under way, all regions tell one story.

Home, dispensing and payer region keep facts of their own about the same attempt. Here they are laid
side by side; what one of them says must be what the other two have heard.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timedelta

from rxoutflow_server.domain.attempt import Attempt, AttemptState
from rxoutflow_server.domain.dispense import Dispense, DispenseState
from rxoutflow_server.domain.settlement import Settlement, SettlementState
from support.invariants.records import RegionRecords
from support.invariants.violation import hold

Regions = Mapping[str, RegionRecords]

_UNDECIDED = (DispenseState.COMMITTING, DispenseState.HELD)
_PAID = (SettlementState.POSTED, SettlementState.REVERSED)
_HANDED_OVER = (DispenseState.DISPENSED, DispenseState.COMPLETED)
_DISPENSE_OF = {
    AttemptState.RESERVED: (DispenseState.REFUSED,),
    AttemptState.COMMITTED: (DispenseState.COMMITTED, DispenseState.RELEASED),
    AttemptState.DISPENSED: (DispenseState.COMPLETED,),
    AttemptState.RELEASED: (DispenseState.RELEASED, DispenseState.REFUSED),
    AttemptState.EXPIRED: (DispenseState.RELEASED, DispenseState.REFUSED),
}
"""What the dispensing region may say of a dispense whose attempt is in this state at home."""

_SETTLEMENT_OF = {
    AttemptState.RESERVED: (SettlementState.HELD, SettlementState.VOIDED),
    AttemptState.COMMITTED: (SettlementState.HELD,),
    AttemptState.DISPENSED: _PAID,
    AttemptState.RELEASED: (SettlementState.VOIDED,),
    AttemptState.EXPIRED: (SettlementState.VOIDED,),
}
"""What the payer may say of the settlement that an attempt is committed with, or was."""


def check_delivered(regions: Regions) -> None:
    """I14: nothing waits in any outbox, and nothing was set aside."""
    for region in regions.values():
        for event in region.outbox:
            what = f"{region.code} has an event for {event.peer_region_code} that is {event.state}"
            hold("I14", False, f"{what}: {event.prescription_number} {event.error}".rstrip())


def check_leases(home: RegionRecords, now: datetime) -> None:
    """I14: no attempt is reserved past its lease."""
    for attempt in home.attempts:
        what = f"attempt {attempt.attempt_id} is reserved past its lease"
        hold("I14", not attempt.lease_is_over(now), what)


def check_adjudicated(
    home: RegionRecords, now: datetime, silence: timedelta, listed: Collection[str]
) -> None:
    """I14: every attempt committed longer ago than ``silence`` is on the adjudication list."""
    for attempt in home.attempts:
        overdue = attempt.state is AttemptState.COMMITTED and now - attempt.update_time >= silence
        what = f"attempt {attempt.attempt_id} is committed and silent, and on no list"
        hold("I14", not overdue or attempt.attempt_id in listed, what)


def check_agreement(regions: Regions) -> None:
    """I14: home, dispensing and payer region say the same of every attempt."""
    for home in regions.values():
        for attempt in home.attempts:
            _check_attempt(regions, home, attempt)
    for region in regions.values():
        _check_dispenses(regions, region)
        for settlement in region.settlements:
            _check_settlement(regions, region, settlement)


def check_index(regions: Regions) -> None:
    """I14: the payer's index knows every prescription of its insured, and none newer than home."""
    versions = {
        each.number: (each.payer_region_code, each.version)
        for region in regions.values()
        for each in region.prescriptions
    }
    for region in regions.values():
        indexed = {each.prescription_number: each.version for each in region.index}
        known = {person.insured_person_id for person in region.persons}
        for number, version in indexed.items():
            newest = versions.get(number, ("", 0))[1]
            hold("I14", version <= newest, f"{number} is indexed newer than home has it")
        for home in regions.values():
            for each in home.prescriptions:
                mine = each.payer_region_code == region.code and each.insured_person_id in known
                hold("I14", not mine or each.number in indexed, f"{each.number} is not indexed")


def _check_attempt(regions: Regions, home: RegionRecords, attempt: Attempt) -> None:
    """What the dispensing region and the payer say of an attempt of this home region."""
    payer = _payer_of(regions, home, attempt)
    name = f"attempt {attempt.attempt_id} is {attempt.state} at home"
    dispensing = regions.get(attempt.dispensing_region_code)
    for dispense in _dispenses_of(dispensing, attempt):
        fits = dispense.state in _DISPENSE_OF[attempt.state] or _was_refused(dispense)
        hold("I14", fits, f"{name}, its dispense is {dispense.state}")
    if attempt.state in (AttemptState.COMMITTED, AttemptState.DISPENSED) and dispensing is not None:
        known = any(True for _ in _dispenses_of(dispensing, attempt))
        hold("I14", known, f"{name}, its dispensing region knows of no dispense")
    if payer is None or not attempt.settlement_id:
        return
    paying = [each for each in payer.settlements if each.settlement_id == attempt.settlement_id]
    hold("I14", bool(paying), f"{name}, its payer knows of no settlement")
    for settlement in paying:
        fits = settlement.state in _SETTLEMENT_OF[attempt.state]
        hold("I14", fits, f"{name}, its settlement is {settlement.state}")


def _check_dispenses(regions: Regions, region: RegionRecords) -> None:
    for dispense in region.dispenses:
        name = f"dispense {dispense.settlement_id} in {region.code}"
        hold("I14", dispense.state not in _UNDECIDED, f"{name} is still {dispense.state}")
        attempt = _attempt_of(regions, dispense.prescription_number, dispense.attempt_id)
        if dispense.state not in _HANDED_OVER:
            continue
        booked = attempt is not None and attempt.state is AttemptState.DISPENSED
        hold("I14", booked, f"{name} was handed over, and home has not booked it")
        hold("I14", dispense.state is DispenseState.COMPLETED, f"{name} has heard no end")


def _check_settlement(regions: Regions, payer: RegionRecords, settlement: Settlement) -> None:
    """A payment has a handover that home booked for it; a hold has a live attempt."""
    attempt = _attempt_of(regions, settlement.prescription_number, settlement.attempt_id)
    if attempt is None:
        return
    name = f"settlement {settlement.settlement_id} is {settlement.state} in {payer.code}"
    what = f"{name}, its attempt is {attempt.state}"
    if settlement.state in _PAID:
        booked = attempt.state is AttemptState.DISPENSED
        hold("I14", booked and attempt.settlement_id == settlement.settlement_id, what)
    elif settlement.state is SettlementState.HELD:
        hold("I14", attempt.state.is_live, what)
    else:
        committed = attempt.settlement_id == settlement.settlement_id
        needed = committed and attempt.state in (AttemptState.COMMITTED, AttemptState.DISPENSED)
        hold("I14", not needed, what)


def _payer_of(regions: Regions, home: RegionRecords, attempt: Attempt) -> RegionRecords | None:
    for each in home.prescriptions:
        if each.number == attempt.prescription_number:
            return regions.get(each.payer_region_code)
    return None


def _attempt_of(regions: Regions, number: str, attempt_id: str) -> Attempt | None:
    home = regions.get(number[:6])
    for attempt in home.attempts if home is not None else ():
        if attempt.attempt_id == attempt_id:
            return attempt
    return None


def _dispenses_of(dispensing: RegionRecords | None, attempt: Attempt) -> Iterator[Dispense]:
    for dispense in dispensing.dispenses if dispensing is not None else ():
        if dispense.attempt_id == attempt.attempt_id:
            yield dispense


def _was_refused(dispense: Dispense) -> bool:
    """A commitment that was refused says nothing of the attempt: another one may have followed."""
    return dispense.state is DispenseState.REFUSED
