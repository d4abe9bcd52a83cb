"""What settlements of past days would be under other tariffs: a list for an operator to decide on.

Every settlement of a benefit year is computed again, person by person in the order in which they
began, so that a deductible or a cap that moves in one of them moves the later ones too. Accounts
are taken to grant again what they paid. It reads and changes nothing.

What it cannot know it says: a settlement whose recorded figures do not come out again under its own
tariff version carries a note, and so does one that was partly returned. A person's status and an
institution's tier are taken as they are now; of a year that is over, nothing is taken to have been
used before its first settlement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import groupby
from operator import attrgetter
from typing import TypeVar

from google.protobuf.message import Message

from rxoutflow.statements.payloads import rule_for
from rxoutflow.v1 import prescription_pb2, settlement_pb2
from rxoutflow_server.application.messages import benefit_lines
from rxoutflow_server.application.ports import Transaction
from rxoutflow_server.domain.benefit import Benefit, Case, Enrolment, Funding, Standing, benefit
from rxoutflow_server.domain.errors import Refusal
from rxoutflow_server.domain.settlement import (
    NOTHING,
    Amounts,
    InsuredPerson,
    Settlement,
    SettlementState,
    use_of,
)
from rxoutflow_server.domain.tariff import Tariff, Tariffs

M = TypeVar("M", bound=Message)

TierOf = Callable[[str, str], int | None]
"""The tier of a hospital, by region and institution code; none if it is not known any more."""

NOT_REPRODUCED = "the recorded figures do not come out again under the version that was applied"
PARTLY_RETURNED = "partly returned since: what goes back for the rest has to be worked out by hand"
HELD = "held, not posted yet"
NO_TARIFF = "no tariff is in force on this day any more"
INCOMPLETE = "prescription, pricing or hospital are not on record, so it was not computed again"

_CONSUMING = (SettlementState.HELD, SettlementState.POSTED)


@dataclass(frozen=True, slots=True)
class Adjustment:
    """A settlement whose figures would be others; ``new`` is none where that cannot be said."""

    settlement: Settlement
    day: date
    new_version: str
    new: Amounts | None
    notes: tuple[str, ...]

    @property
    def pool_difference_fen(self) -> int:
        """What the fund would pay more; negative: less."""
        return 0 if self.new is None else self.new.pool_fen - self.settlement.amounts.pool_fen


@dataclass(frozen=True, slots=True)
class Review:
    """The outcome: how many settlements were computed again, and those that differ."""

    begin: date
    end: date | None
    reviewed: int
    adjustments: tuple[Adjustment, ...]


def review(
    tx: Transaction,
    region_code: str,
    tariffs: Tariffs,
    tier_of: TierOf,
    begin: date,
    end: date | None,
) -> Review:
    """Compute again the settlements of days of dispensing from a day up to, not including, another.

    A settlement of an earlier day counts with what it took and is not computed again.
    """
    reviewed, adjustments = 0, []
    for year in range(begin.year, (end or date.max).year + 1):
        settlements = tx.payer.settlements_of_year(year)
        if not settlements and end is None and year > begin.year:
            break
        for person_id, group in groupby(settlements, attrgetter("insured_person_id")):
            person = tx.payer.person(person_id)
            if person is None:
                continue
            replay = _Replay(tx, region_code, tariffs, tier_of, person, year)
            for each in replay.run([s for s in group if s.state in _CONSUMING], begin, end):
                reviewed += 1
                if each.new != each.settlement.amounts:
                    adjustments.append(each)
    return Review(begin, end, reviewed, tuple(adjustments))


_Use = dict[str, tuple[int, int]]


@dataclass(slots=True)
class _Replay:
    """One person's year, once as it was and once as it would be."""

    tx: Transaction
    region_code: str
    tariffs: Tariffs
    tier_of: TierOf
    person: InsuredPerson
    year: int
    was: _Use = field(default_factory=dict)
    would_be: _Use = field(default_factory=dict)

    def run(
        self, settlements: Sequence[Settlement], begin: date, end: date | None
    ) -> Iterator[Adjustment]:
        self.was = self._opening(settlements)
        self.would_be = dict(self.was)
        for settlement in settlements:
            papers = _papers(self.tx, settlement)
            day = papers.day if papers else settlement.create_time.date()
            if day >= begin and (end is None or day < end):
                yield self._again(settlement, day, papers)
            else:
                _add(self.would_be, _kept_use(settlement))
            _add(self.was, _kept_use(settlement))

    def _opening(self, settlements: Sequence[Settlement]) -> _Use:
        """What was used before the first settlement: what is used now, less what they took."""
        if self.person.year != self.year:
            return {}
        used: _Use = {"": (self.person.used_deductible_fen, self.person.used_cap_fen)}
        for each in self.person.enrolments:
            used[each.scheme_code] = (each.used_deductible_fen, each.used_cap_fen)
        for settlement in settlements:
            _add(used, _kept_use(settlement), sign=-1)
        return {code: (max(0, taken), max(0, paid)) for code, (taken, paid) in used.items()}

    def _again(self, settlement: Settlement, day: date, papers: _Papers | None) -> Adjustment:
        notes = [HELD] if settlement.state is SettlementState.HELD else []
        if settlement.reversed != NOTHING:
            notes.append(PARTLY_RETURNED)
        tier = papers and self.tier_of(papers.home, papers.institution_code)
        new, version = None, ""
        if papers is None or not tier:
            notes.append(INCOMPLETE)
        else:
            if not self._reproduced(settlement, papers, tier):
                notes.append(NOT_REPRODUCED)
            new, version = self._under_the_present(settlement, papers, tier, notes)
        _add(self.would_be, _kept_use(settlement) if new is None else _use_of_benefit(new))
        amounts = None if new is None else Amounts.of(new)
        return Adjustment(settlement, day, version, amounts, tuple(notes))

    def _reproduced(self, settlement: Settlement, papers: _Papers, tier: int) -> bool:
        tariff = self.tariffs.version(settlement.tariff_version)
        if tariff is None:
            return False
        again = benefit(tariff, self._case(settlement, papers, tier, self.was))
        return Amounts.of(again) == settlement.amounts

    def _under_the_present(
        self, settlement: Settlement, papers: _Papers, tier: int, notes: list[str]
    ) -> tuple[Benefit | None, str]:
        try:
            tariff: Tariff = self.tariffs.in_force(self.region_code, papers.day)
        except Refusal:
            notes.append(NO_TARIFF)
            return None, ""
        case = self._case(settlement, papers, tier, self.would_be)
        return benefit(tariff, case), tariff.version_id

    def _case(self, settlement: Settlement, papers: _Papers, tier: int, used: _Use) -> Case:
        deductible, pool = used.get("", (0, 0))
        away = settlement.pharmacy_code[1:7] != self.region_code
        standing = Standing(
            person_type=self.person.person_type,
            issuing_tier=tier,
            area_status=self.person.area_status if away else None,
            used_deductible_fen=deductible,
            used_cap_fen=pool,
            enrolments=tuple(
                Enrolment(each.scheme_code, *used.get(each.scheme_code, (0, 0)))
                for each in self.person.enrolments
            ),
        )
        funding = Funding(settlement.amounts.account_fen, settlement.family_accounts_fen)
        lines = benefit_lines(papers.pricing)
        return Case(lines, standing, funding, papers.special_disease_code)


@dataclass(frozen=True, slots=True)
class _Papers:
    """What the payer keeps of the goods and the prescription."""

    pricing: settlement_pb2.Pricing
    home: str
    institution_code: str
    special_disease_code: str

    @property
    def day(self) -> date:
        return date.fromisoformat(self.pricing.dispense_day)


def _papers(tx: Transaction, settlement: Settlement) -> _Papers | None:
    number = settlement.prescription_number
    pricing = [
        each
        for each in _kept(tx, number, settlement_pb2.Pricing)
        if each.settlement_id == settlement.settlement_id
    ]
    prescriptions = _kept(tx, number, prescription_pb2.Prescription)
    if not pricing or not prescriptions:
        return None
    prescription = prescriptions[0]
    return _Papers(
        pricing=pricing[0],
        home=number[:6],
        institution_code=prescription.issuer.institution_code,
        special_disease_code=prescription.encounter.special_disease_code,
    )


def _kept(tx: Transaction, number: str, kind: type[M]) -> list[M]:
    statements = tx.journal.statements_of(number, rule_for(kind).payload_type)
    return [kind.FromString(statement.payload) for statement in statements]


def _kept_use(settlement: Settlement) -> _Use:
    """What it took and has not given back; returns are counted to ordinary care first."""
    deductible, pool = settlement.reversed.deductible_fen, settlement.reversed.pool_fen
    kept: _Use = {}
    for code, (taken, paid) in use_of(settlement).items():
        kept[code] = (max(0, taken - deductible), max(0, paid - pool))
        deductible, pool = max(0, deductible - taken), max(0, pool - paid)
    return kept


def _use_of_benefit(result: Benefit) -> _Use:
    shares = (result.ordinary, *result.schemes)
    return {share.scheme_code: (share.deductible_fen, share.pool_fen) for share in shares}


def _add(used: _Use, more: Mapping[str, tuple[int, int]], sign: int = 1) -> None:
    for code, (deductible, pool) in more.items():
        taken, paid = used.get(code, (0, 0))
        used[code] = (taken + sign * deductible, paid + sign * pool)
