"""An insured person at the payer, replayed: holds, payments, voids, reversals, and what they move.

The payer states each settlement and each reversal, signed. What is not in these statements is what
each line and each scheme took: that comes out of the formula again, from the pricing that is kept,
the tariff version that is named, and what the person had used by then. Where it does not come out
again, because the tariff or the hospital is not on record any more, the stored shares count if they
add up to what was signed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime

from rxoutflow.v1 import attempt_pb2, dispense_pb2, settlement_pb2
from rxoutflow.v1.prescription_pb2 import Prescription as PrescriptionSheet
from rxoutflow_server.application.clearing.books import book_reversal, book_settlement
from rxoutflow_server.application.messages import (
    amounts,
    benefit_lines,
    instant,
    returned_lines,
    reversal_message,
    settlement_message,
)
from rxoutflow_server.application.ports import Transaction
from rxoutflow_server.application.recompute.evidence import Evidence, NotReplayable
from rxoutflow_server.domain import accounts
from rxoutflow_server.domain import settlement as transitions
from rxoutflow_server.domain.accounts import AccountEntry, AccountMovement, OpeningBalances
from rxoutflow_server.domain.benefit import (
    Case,
    Enrolment,
    Funding,
    SchemeShare,
    apportion_to_lines,
    benefit,
)
from rxoutflow_server.domain.errors import InvariantBroken, Refusal
from rxoutflow_server.domain.ledger import Book
from rxoutflow_server.domain.returns import quantities, returned_before
from rxoutflow_server.domain.reversal import Reversal, restored, reverse
from rxoutflow_server.domain.settlement import (
    Amounts,
    InsuredPerson,
    SettledLine,
    Settlement,
    SettlementState,
)
from rxoutflow_server.domain.tariff import Tariffs

_State = settlement_pb2.Settlement
TierOf = Callable[[str, str], int | None]
"""The tier of a hospital, by region and institution code; none if it is not known any more."""


@dataclass(frozen=True, slots=True)
class BenefitOpening:
    """What a person had used of a benefit year before what the replay counts."""

    year: int
    ordinary: tuple[int, int]
    """Deductible and cap, in fen."""
    schemes: tuple[Enrolment, ...]
    since: datetime
    """What was decided up to then is in these figures."""


@dataclass(frozen=True, slots=True)
class Formula:
    """What the formula is computed with."""

    region_code: str
    tariffs: Tariffs
    tier_of: TierOf


@dataclass(frozen=True, slots=True)
class Person:
    """A person as stored, and how the person's accounts and accumulators began."""

    stored: InsuredPerson
    accounts: OpeningBalances
    benefit: BenefitOpening
    settlements: Sequence[Settlement]
    """As stored."""
    entries: Sequence[AccountEntry]
    """As stored."""


def replay_person(fresh: Transaction, person: Person, evidence: Evidence, formula: Formula) -> None:
    """Write the state to which the evidence leads into an empty store.

    Args:
        fresh: where to.
        person: what is stored, and how it began.
        evidence: everything that is kept about the prescriptions that this person was paid for.
        formula: tariffs and tiers.

    Raises:
        NotReplayable: a statement is missing, or the payer has stated what no transition gives.
    """
    try:
        _Replay(fresh, person, evidence, formula).run()
    except (Refusal, InvariantBroken, ValueError) as error:
        raise NotReplayable(f"the statements contradict the rules: {error}") from error


class _Replay:
    def __init__(
        self, fresh: Transaction, person: Person, evidence: Evidence, formula: Formula
    ) -> None:
        self._fresh = fresh
        self._before = person
        self._evidence = evidence
        self._formula = formula
        self._person = _at_the_beginning(person)
        self._settlements: dict[str, Settlement] = {}
        self._reversals: dict[tuple[str, str], Reversal] = {}
        self._entries: list[AccountEntry] = []
        self._written = {
            (each.settlement_id, each.movement, each.reversal_id) for each in person.entries
        }

    def run(self) -> None:
        for each in self._evidence.kept:
            if (settlement := each.read(settlement_pb2.Settlement)) is not None:
                if settlement.payer_region_code == self._formula.region_code:
                    self._settlement(settlement)
            elif (reversal := each.read(settlement_pb2.Reversal)) is not None and (
                reversal.payer_region_code == self._formula.region_code
            ):
                self._reverse(reversal)
        self._write()

    def _settlement(self, stated: settlement_pb2.Settlement) -> None:
        known = self._settlements.get(stated.settlement_id)
        if known is None and stated.state == _State.STATE_HELD:
            self._hold(stated)
        elif known is not None and known.state is SettlementState.HELD:
            if stated.state == _State.STATE_POSTED:
                self._post(known, stated)
            elif stated.state == _State.STATE_VOIDED:
                self._void(known, stated)
        elif known is None:
            raise NotReplayable(f"the hold of settlement {stated.settlement_id} is not kept")

    def _hold(self, stated: settlement_pb2.Settlement) -> None:
        pricing = self._evidence.named(stated.cause_sha256, "the pricing of a hold").read(
            settlement_pb2.Pricing
        )
        if pricing is None:
            raise NotReplayable(f"the hold of settlement {stated.settlement_id} has no pricing")
        day, now = date.fromisoformat(pricing.dispense_day), instant(stated.create_time)
        counted = now > self._before.benefit.since
        if counted:
            self._person = self._person.in_year(day.year)
        settlement = self._with_shares(self._bare(stated, day.year), pricing)
        if settlement_message(settlement, self._formula.region_code) != stated:
            raise NotReplayable(f"settlement {stated.settlement_id} is stated in another way")
        self._settlements[settlement.settlement_id] = settlement
        self._move(transitions.consume(self._person, settlement), now)
        self._book(accounts.held(settlement))

    def _bare(self, stated: settlement_pb2.Settlement, year: int) -> Settlement:
        """The hold without what each line, scheme and allotment took."""
        now = instant(stated.create_time)
        return Settlement(
            settlement_id=stated.settlement_id,
            attempt_id=stated.attempt_id,
            prescription_number=stated.prescription_number,
            insured_person_id=self._person.insured_person_id,
            dispensing_region_code=stated.dispensing_region_code,
            pharmacy_code=stated.pharmacy_code,
            state=SettlementState.HELD,
            amounts=amounts(stated.amounts),
            family_accounts_fen=self._allotments(stated),
            tariff_version=stated.tariff_version,
            year=year,
            create_time=now,
            update_time=now,
            cause_sha256=stated.cause_sha256,
            pricing_sha256=stated.cause_sha256,
        )

    def _allotments(self, stated: settlement_pb2.Settlement) -> tuple[int, ...]:
        """What each allotment gave: from the entries of the hold, or else as stored."""
        size = len(self._person.family_accounts_fen)
        taken = {
            each.debit_account: each.fen
            for each in self._before.entries
            if (each.settlement_id, each.movement) == (stated.settlement_id, AccountMovement.HOLD)
        }
        found = tuple(taken.get(accounts.family(number), 0) for number in range(1, size + 1))
        stored = self._stored(stated.settlement_id)
        for candidate in (found, stored.family_accounts_fen if stored else ()):
            if len(candidate) == size and sum(candidate) == stated.amounts.family_fen:
                return candidate
        raise NotReplayable(
            f"which allotments paid for settlement {stated.settlement_id} is not on record;"
            " restore it from a backup"
        )

    def _with_shares(self, settlement: Settlement, pricing: settlement_pb2.Pricing) -> Settlement:
        computed = self._computed(settlement, pricing)
        if computed is not None:
            return computed
        stored = self._stored(settlement.settlement_id)
        if stored is None or not _adds_up(stored, settlement.amounts):
            raise NotReplayable(
                f"what the lines of settlement {settlement.settlement_id} took does not come out"
                " again under its tariff version; restore it from a backup"
            )
        return replace(
            settlement,
            schemes=stored.schemes,
            lines=stored.lines,
            pricing_sha256=stored.pricing_sha256,
        )

    def _computed(
        self, settlement: Settlement, pricing: settlement_pb2.Pricing
    ) -> Settlement | None:
        """The settlement by the formula; none if its figures are not those that were signed."""
        tariff = self._formula.tariffs.version(settlement.tariff_version)
        sheet = self._sheet(settlement.prescription_number)
        home = settlement.prescription_number[:6]
        tier = self._formula.tier_of(home, sheet.issuer.institution_code)
        if tariff is None or tier is None:
            return None
        away = settlement.pharmacy_code[1:7] != self._formula.region_code
        standing = self._person.standing(tier, away=away)
        funding = Funding(settlement.amounts.account_fen, settlement.family_accounts_fen)
        disease = sheet.encounter.special_disease_code
        result = benefit(tariff, Case(benefit_lines(pricing), standing, funding, disease))
        if Amounts.of(result) != settlement.amounts:
            return None
        shares = zip(pricing.lines, apportion_to_lines(result), strict=True)
        lines = [SettledLine(each.line.line_id, each.line.quantity, part) for each, part in shares]
        return replace(settlement, schemes=result.schemes, lines=tuple(lines))

    def _sheet(self, number: str) -> PrescriptionSheet:
        for sheet in self._evidence.of_kind(PrescriptionSheet):
            if sheet.prescription_number == number:
                return sheet
        raise NotReplayable(f"prescription {number} is not kept any more")

    def _post(self, held: Settlement, stated: settlement_pb2.Settlement) -> None:
        cause, now = stated.cause_sha256, instant(stated.update_time)
        self._evidence.named(cause, "the record of a handover that was paid")
        shown = replace(held, record_sha256=cause, booked_sha256=cause)
        posted = transitions.post(shown, cause_sha256=cause, now=now)
        self._ended(posted, stated)
        self._book(accounts.posted(posted))

    def _void(self, held: Settlement, stated: settlement_pb2.Settlement) -> None:
        cause, now = stated.cause_sha256, instant(stated.update_time)
        ended = self._evidence.named(cause, "the end of an attempt").read(attempt_pb2.Attempt)
        if ended is None or ended.attempt_id != held.attempt_id:
            raise NotReplayable(f"settlement {held.settlement_id} was voided without a reason")
        voided = transitions.void(held, cause_sha256=cause, now=now)
        self._ended(voided, stated)
        self._move(transitions.give_back(self._person, held), now)
        self._book(accounts.voided(voided))

    def _ended(self, settlement: Settlement, stated: settlement_pb2.Settlement) -> None:
        message = settlement_message(settlement, self._formula.region_code)
        if message != stated:
            raise NotReplayable(f"settlement {stated.settlement_id} is stated in another way")
        book_settlement(self._fresh, Book.PAYABLE, settlement.dispensing_region_code, message)
        self._settlements[settlement.settlement_id] = settlement

    def _reverse(self, stated: settlement_pb2.Reversal) -> None:
        key = (stated.settlement_id, stated.reversal_id)
        paid = self._settlements.get(stated.settlement_id)
        if key in self._reversals:
            return
        content = self._evidence.named(stated.cause_sha256, "a return").read(
            dispense_pb2.DispenseReturn
        )
        if paid is None or content is None:
            raise NotReplayable(f"what reversal {stated.reversal_id} gives back is not on record")
        back, now = quantities(returned_lines(content)), instant(stated.reverse_time)
        earlier = [each for (of, _), each in self._reversals.items() if of == paid.settlement_id]
        after, parts = reverse(
            paid,
            returned_before(each.lines for each in earlier),
            back,
            cause_sha256=stated.cause_sha256,
            now=now,
        )
        reversal = Reversal(
            reversal_id=stated.reversal_id,
            settlement_id=paid.settlement_id,
            insured_person_id=self._person.insured_person_id,
            lines=back,
            amounts=Amounts.of_lines(parts),
            cause_sha256=stated.cause_sha256,
            time=now,
        )
        message = reversal_message(reversal, after, self._formula.region_code)
        if message != stated:
            raise NotReplayable(f"reversal {stated.reversal_id} is stated in another way")
        self._settlements[paid.settlement_id] = after
        self._reversals[key] = reversal
        self._move(restored(self._person, paid, parts), now)
        self._book(accounts.reversed_by(paid, reversal.reversal_id, parts, now))
        book_reversal(self._fresh, Book.PAYABLE, paid.dispensing_region_code, message)

    def _move(self, after: InsuredPerson, now: datetime) -> None:
        """The person after a transition; what the opening figures contain moves none of them."""
        if now > self._before.benefit.since:
            self._person = after

    def _book(self, entries: Iterable[AccountEntry]) -> None:
        """Entries that are written with a transition; there were none before accounts were kept."""
        opening = self._before.accounts
        always = not (opening.held_fen or opening.payable_fen or opening.pool_fen)
        self._entries += [
            each
            for each in entries
            if always or (each.settlement_id, each.movement, each.reversal_id) in self._written
        ]

    def _stored(self, settlement_id: str) -> Settlement | None:
        for each in self._before.settlements:
            if each.settlement_id == settlement_id:
                return each
        return None

    def _write(self) -> None:
        after = accounts.balances(self._before.accounts, self._entries)
        size = len(self._before.accounts.family_accounts_fen)
        allotments = tuple(after[accounts.family(number)] for number in range(1, size + 1))
        person = replace(
            self._person, own_account_fen=after[accounts.OWN], family_accounts_fen=allotments
        )
        self._fresh.payer.add_person(person)
        for settlement in self._settlements.values():
            self._fresh.payer.add_settlement(self._shown(settlement))
        for reversal in self._reversals.values():
            self._fresh.payer.add_reversal(reversal)
        self._fresh.payer.add_account_entries(self._entries)

    def _shown(self, settlement: Settlement) -> Settlement:
        """What was shown of a handover that is not paid: as stored, if that is kept."""
        stored = self._stored(settlement.settlement_id)
        if settlement.state in (SettlementState.POSTED, SettlementState.REVERSED) or not stored:
            return settlement
        record = stored.record_sha256 if self._evidence.find(stored.record_sha256) else b""
        causes = {
            each.cause_sha256
            for each in self._evidence.of_kind(attempt_pb2.Attempt)
            if each.attempt_id == settlement.attempt_id
        }
        booked = stored.booked_sha256 if stored.booked_sha256 in causes else b""
        return replace(settlement, record_sha256=record, booked_sha256=booked)


def _at_the_beginning(person: Person) -> InsuredPerson:
    deductible, cap = person.benefit.ordinary
    return replace(
        person.stored,
        own_account_fen=person.accounts.own_account_fen,
        family_accounts_fen=person.accounts.family_accounts_fen,
        year=person.benefit.year,
        used_deductible_fen=deductible,
        used_cap_fen=cap,
        enrolments=person.benefit.schemes,
    )


def _adds_up(stored: Settlement, signed: Amounts) -> bool:
    """Whether stored shares of lines and schemes are those of the amounts that were signed."""
    of_schemes: Sequence[SchemeShare] = stored.schemes
    return (
        Amounts.of_lines(line.share for line in stored.lines) == signed
        and sum(each.pool_fen for each in of_schemes) <= signed.pool_fen
        and sum(each.deductible_fen for each in of_schemes) <= signed.deductible_fen
    )
