"""R23: what deserves a second look. It flags and never blocks.

The patterns come from the supervision regulation of 2021 (医疗保障基金使用监督管理条例) and from
published cases: one visit split over several prescriptions, a prescriber who writes faster than
anybody can, medicine handed over before it was prescribed, one person signing in two places at
once, a drug prescribed again long before the last supply can be used up, returns that pile up.

Each pattern is a function of plain facts; thresholds are dated data of a region. A suspicion names
prescriptions, people by their staff codes, and institutions; never a patient.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum, unique
from itertools import pairwise
from typing import TypeVar

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


@unique
class Pattern(StrEnum):
    """What was seen."""

    SPLIT_ENCOUNTER = "split_encounter"
    """One encounter on more prescriptions than usual."""
    PRESCRIBER_VELOCITY = "prescriber_velocity"
    """One prescriber with more prescriptions in an hour than usual."""
    DISPENSED_BEFORE_ISSUE = "dispensed_before_issue"
    """Handed over at a time before the prescription was written."""
    TWO_PLACES_AT_ONCE = "two_places_at_once"
    """One person's signatures at two institutions within a short time."""
    EARLY_REFILL = "early_refill"
    """The same drug for the same person long before the last supply is used up."""
    REPEATED_RETURNS = "repeated_returns"
    """More returns by one pharmacy, or for one person, than usual."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From where on a pattern is flagged. Synthetic defaults: regions set their own."""

    encounter_prescriptions: int = 3
    """Prescriptions of one encounter."""
    prescriptions_an_hour: int = 40
    """Prescriptions of one prescriber within 60 minutes."""
    places_minutes: int = 30
    """Minutes between signatures of one person at two institutions."""
    early_refill_days: int = 7
    """Days of supply still left when the same drug is prescribed again."""
    returns_a_day: int = 5
    """Returns at one pharmacy on one local day."""
    returns_a_person: int = 3
    """Returns for one person among what is looked at."""


DEFAULT_THRESHOLDS = Thresholds()


@dataclass(frozen=True, slots=True)
class Issued:
    """A prescription as its home region knows it. ``supplies``: drug code and days of each line."""

    prescription_number: str
    issuer_code: str
    prescriber_code: str
    encounter_number: str
    insured_person_id: str
    issue_time: datetime
    supplies: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class HandedOver:
    """A handover as the dispensing region knows it."""

    prescription_number: str
    pharmacy_code: str
    issue_time: datetime
    dispense_time: datetime


@dataclass(frozen=True, slots=True)
class Signed:
    """That a person signed something somewhere."""

    person_code: str
    institution_code: str
    prescription_number: str
    sign_time: datetime


@dataclass(frozen=True, slots=True)
class Returned:
    """A return as the dispensing region knows it. ``day`` is the local day, ISO 8601."""

    prescription_number: str
    pharmacy_code: str
    insured_person_id: str
    day: str


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that is looked at together, in any order."""

    issued: Sequence[Issued] = ()
    handed_over: Sequence[HandedOver] = ()
    signed: Sequence[Signed] = ()
    returned: Sequence[Returned] = ()


@dataclass(frozen=True, slots=True)
class Suspicion:
    """Something that deserves a second look.

    ``subject`` is an institution's or a staff member's code; ``time`` that of the latest of the
    ``prescription_numbers``, or the earliest time at which the pattern was complete.
    """

    pattern: Pattern
    subject: str
    prescription_numbers: tuple[str, ...]
    time: datetime | None
    words: str


def suspicions(facts: Facts, thresholds: Thresholds = DEFAULT_THRESHOLDS) -> list[Suspicion]:
    """Every pattern that the facts show, by pattern and then by subject."""
    found = [each for look in _LOOKS for each in look(facts, thresholds)]
    return sorted(found, key=lambda each: (each.pattern, each.subject, each.prescription_numbers))


def _split_encounters(facts: Facts, thresholds: Thresholds) -> Iterator[Suspicion]:
    encounters = _grouped(
        facts.issued, lambda each: (each.issuer_code, each.insured_person_id, each.encounter_number)
    )
    for (issuer, _, _), issued in encounters.items():
        if len(issued) >= thresholds.encounter_prescriptions:
            yield Suspicion(
                Pattern.SPLIT_ENCOUNTER,
                issuer,
                _numbers(issued),
                max(each.issue_time for each in issued),
                f"one encounter on {len(issued)} prescriptions",
            )


def _fast_prescribers(facts: Facts, thresholds: Thresholds) -> Iterator[Suspicion]:
    for person, issued in _grouped(facts.issued, lambda each: each.prescriber_code).items():
        busiest = _busiest_hour(sorted(issued, key=lambda each: each.issue_time))
        if len(busiest) >= thresholds.prescriptions_an_hour:
            yield Suspicion(
                Pattern.PRESCRIBER_VELOCITY,
                person,
                _numbers(busiest),
                busiest[-1].issue_time,
                f"{len(busiest)} prescriptions within an hour",
            )


def _busiest_hour(issued: Sequence[Issued]) -> Sequence[Issued]:
    """The longest run within 60 minutes, the end excluded; the earliest of several."""
    busiest: Sequence[Issued] = ()
    begin = 0
    for end, each in enumerate(issued):
        while each.issue_time - issued[begin].issue_time >= timedelta(hours=1):
            begin += 1
        if end + 1 - begin > len(busiest):
            busiest = issued[begin : end + 1]
    return busiest


def _before_issue(facts: Facts, _: Thresholds) -> Iterator[Suspicion]:
    for each in facts.handed_over:
        if each.dispense_time < each.issue_time:
            yield Suspicion(
                Pattern.DISPENSED_BEFORE_ISSUE,
                each.pharmacy_code,
                (each.prescription_number,),
                each.dispense_time,
                "handed over before the prescription was written",
            )


def _two_places(facts: Facts, thresholds: Thresholds) -> Iterator[Suspicion]:
    within = timedelta(minutes=thresholds.places_minutes)
    for person, signed in _grouped(facts.signed, lambda each: each.person_code).items():
        in_order = sorted(signed, key=lambda each: (each.sign_time, each.institution_code))
        for earlier, later in pairwise(in_order):
            apart = earlier.institution_code != later.institution_code
            if apart and later.sign_time - earlier.sign_time < within:
                yield Suspicion(
                    Pattern.TWO_PLACES_AT_ONCE,
                    person,
                    tuple(dict.fromkeys((earlier.prescription_number, later.prescription_number))),
                    later.sign_time,
                    f"signed at {earlier.institution_code} and {later.institution_code} within"
                    f" {thresholds.places_minutes} minutes",
                )


def _early_refills(facts: Facts, thresholds: Thresholds) -> Iterator[Suspicion]:
    supplies = [
        (each, drug_code, days) for each in facts.issued for drug_code, days in each.supplies
    ]
    by_drug = _grouped(supplies, lambda each: (each[0].insured_person_id, each[1]))
    for (_, drug_code), given in by_drug.items():
        given.sort(key=lambda each: (each[0].issue_time, each[0].prescription_number))
        for (earlier, _, days), (later, _, _) in pairwise(given):
            left = days - (later.issue_time - earlier.issue_time).days
            renewed = later.prescription_number != earlier.prescription_number
            if renewed and left >= thresholds.early_refill_days:
                yield Suspicion(
                    Pattern.EARLY_REFILL,
                    later.issuer_code,
                    (earlier.prescription_number, later.prescription_number),
                    later.issue_time,
                    f"drug {drug_code} again with {left} days of supply left",
                )


def _many_returns(facts: Facts, thresholds: Thresholds) -> Iterator[Suspicion]:
    at_pharmacies = _grouped(facts.returned, lambda each: (each.pharmacy_code, each.day))
    for (pharmacy, day), returned in at_pharmacies.items():
        if len(returned) >= thresholds.returns_a_day:
            words = f"{len(returned)} returns on {day}"
            yield _of_returns(pharmacy, returned, words)
    for returned in _grouped(facts.returned, lambda each: each.insured_person_id).values():
        if len(returned) >= thresholds.returns_a_person:
            words = f"{len(returned)} returns for one person"
            yield _of_returns(returned[0].pharmacy_code, returned, words)


def _of_returns(subject: str, returned: Iterable[Returned], words: str) -> Suspicion:
    numbers = tuple(sorted({each.prescription_number for each in returned}))
    return Suspicion(Pattern.REPEATED_RETURNS, subject, numbers, None, words)


def _numbers(issued: Iterable[Issued]) -> tuple[str, ...]:
    return tuple(sorted(each.prescription_number for each in issued))


def _grouped(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    groups: dict[K, list[T]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups


_LOOKS = (
    _split_encounters,
    _fast_prescribers,
    _before_issue,
    _two_places,
    _early_refills,
    _many_returns,
)
