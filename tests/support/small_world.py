"""A small exchange that can be searched completely, made of the real transition functions.

One prescription of one line, maybe in several fills, two pharmacies, a few attempts, a clock that
ticks by days, a hospital that may revoke and, if insured, a payer. The network is a set of
messages: what was ever sent can arrive at any time, any number of times, in any order, or never.
Honest pharmacies hand over only after the answer to a commit, and never what they released. If
there are returns, they take packs back one by one, which can then be filled again.

``search`` visits every state that this allows, and checks the invariants in each. A subclass of
``World`` may do one thing wrong; the search then tells the shortest story that breaks something.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from time import perf_counter
from typing import Generic, TypeVar

from rxoutflow_server.domain import prescription as transitions
from rxoutflow_server.domain.attempt import Attempt, AttemptState, LineQuantity
from rxoutflow_server.domain.benefit import LineShare
from rxoutflow_server.domain.errors import Refusal
from rxoutflow_server.domain.plan import ONCE, Plan
from rxoutflow_server.domain.prescription import AttemptReference, Change, Prescription
from rxoutflow_server.domain.returns import Cause
from rxoutflow_server.domain.reversal import restored, reverse
from rxoutflow_server.domain.settlement import (
    NOTHING,
    Amounts,
    InsuredPerson,
    SettledLine,
    Settlement,
    SettlementState,
    consume,
    give_back,
    post,
    void,
)
from support.home_book import START, claim_terms, new_prescription, pharmacy_code
from support.invariants import (
    Violation,
    check_handed_over,
    check_home,
    check_nothing_lost,
    check_settled_once,
    check_step,
)
from support.settlements import HELD, PERSON

TICK = timedelta(days=1)
LEASE = TICK
PHARMACIES = "AB"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Scope:
    """How much there is; the validity ends after ``valid_ticks``, and time after ``ticks``.

    A repeat prescription has several ``fills``, a tick apart.
    """

    packs: int
    attempts: int
    ticks: int
    valid_ticks: int
    insured: bool = False
    fills: int = 1
    returns: bool = False

    @property
    def plan(self) -> Plan:
        """What the prescription says about its fills."""
        return ONCE if self.fills == 1 else Plan(self.fills, fill_interval_days=1)


@dataclass(frozen=True, slots=True)
class Home:
    """What the home region stores; attempts in the order of their ids, returns by attempt."""

    prescription: Prescription
    attempts: tuple[Attempt, ...] = ()
    returned: frozenset[tuple[str, int]] = frozenset()

    def after(self, change: Change) -> Home:
        """What it stores after a transition, without what only tells when and how often."""
        attempts = {each.attempt_id: each for each in (*self.attempts, *change.attempts)}
        live = change.prescription.live_attempt
        prescription = replace(
            change.prescription,
            live_attempt=_timeless(live) if live else None,
            update_time=START,
            version=1,
        )
        in_order = tuple(_timeless(attempts[each]) for each in sorted(attempts))
        return Home(prescription, in_order, self.returned)

    @property
    def by_id(self) -> dict[str, Attempt]:
        """The attempts by their ids."""
        return {attempt.attempt_id: attempt for attempt in self.attempts}


@dataclass(frozen=True, slots=True)
class Payer:
    """What the payer region stores: the person, settlements, and attempts that it knows ended.

    ``decided`` are returns that it will not look at again: by settlement, and which of them.
    """

    person: InsuredPerson
    settlements: tuple[Settlement, ...] = ()
    ended: frozenset[str] = frozenset()
    decided: frozenset[tuple[str, int]] = frozenset()


@dataclass(frozen=True, slots=True)
class Move:
    """Something that can happen while all bits of ``needs`` and none of ``unless`` are set.

    ``home``, ``payer`` and ``clock`` are what it changes them to; None leaves them alone.
    """

    what: str
    needs: int = 0
    unless: int = 0
    sets: int = 0
    clears: int = 0
    home: int | None = None
    payer: int | None = None
    clock: int | None = None


def time_at(clock: int) -> datetime:
    """The home region's time after so many ticks."""
    return START + clock * TICK


class Bits:
    """A bit for each message that was ever sent and each thing that a pharmacy remembers."""

    def __init__(self, scope: Scope) -> None:
        self._packs = scope.packs
        self._width = (5 if scope.returns else 4) * scope.packs + 2
        self._slots = range(scope.attempts)
        self.quantities = range(1, scope.packs + 1)
        self.count = self._width * scope.attempts
        self.handovers = [
            (self.handed_over(slot, packs), packs)
            for slot in self._slots
            for packs in self.quantities
        ]
        self.any_handover = sum(bit for bit, _ in self.handovers)
        self.any_return = sum(
            self.taken_back(slot, nth)
            for slot in self._slots
            for nth in self.quantities
            if scope.returns
        )

    def asked(self, slot: int, packs: int) -> int:
        """Message: the pharmacy's commitment to so many packs."""
        return self._bit(slot, packs - 1)

    def held(self, slot: int, packs: int) -> int:
        """Message: the payer's statement that it holds the money for that commitment."""
        return self._bit(slot, self._packs + packs - 1)

    def confirmed(self, slot: int, packs: int) -> int:
        """Message: the home region's answer that it committed."""
        return self._bit(slot, 2 * self._packs + packs - 1)

    def handed_over(self, slot: int, packs: int) -> int:
        """Message: the record of a handover; the pharmacy remembers it too."""
        return self._bit(slot, 3 * self._packs + packs - 1)

    def released(self, slot: int) -> int:
        """Message: the pharmacy's release."""
        return self._bit(slot, 4 * self._packs)

    def let_go(self, slot: int) -> int:
        """Memory: the pharmacy released this attempt and will hand nothing over for it."""
        return self._bit(slot, 4 * self._packs + 1)

    def taken_back(self, slot: int, nth: int) -> int:
        """Message: the nth return of one pack; the pharmacy remembers it too."""
        return self._bit(slot, 4 * self._packs + 1 + nth)

    def handed_over_at_all(self, slot: int) -> int:
        """Memory: the pharmacy handed something over for this attempt."""
        return sum(self.handed_over(slot, packs) for packs in self.quantities)

    def _bit(self, slot: int, index: int) -> int:
        return 1 << (slot * self._width + index)


class Numbered(Generic[T]):
    """Large values by small numbers, the same number for the same value."""

    def __init__(self) -> None:
        self.values: list[T] = []
        self._numbers: dict[T, int] = {}

    def number(self, value: T) -> int:
        """The number of a value."""
        found = self._numbers.setdefault(value, len(self.values))
        if found == len(self.values):
            self.values.append(value)
        return found


class World:
    """The protocol in a scope: what can happen next, and what must hold.

    A state is an integer: the numbers of home and payer, the clock, and the bits. The moves that a
    home state or payer state allows are computed once, by the real functions, and kept.
    """

    checks_everything = True

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.bits = Bits(scope)
        self._homes: Numbered[Home] = Numbered()
        self._payers: Numbered[Payer] = Numbered()
        self._home_moves: dict[tuple[int, int], list[Move]] = {}
        self._payer_moves: dict[tuple[int, int], list[Move]] = {}
        self._covered: dict[tuple[int, int], int] = {}
        self._clock_at = self.bits.count
        self._payer_at = self._clock_at + 4
        self._home_at = self._payer_at + 24
        self._bits_mask = (1 << self.bits.count) - 1

    def start(self) -> int:
        """A registered prescription, and nothing sent yet."""
        end = START + self.scope.valid_ticks * TICK
        plan = self.scope.plan
        home = Home(new_prescription(self.scope.packs, expire_time=end, plan=plan))
        payer = Payer(PERSON)
        return self._state(self._homes.number(home), self._payers.number(payer), 0, 0)

    def successors(self, state: int) -> Iterator[tuple[str, int]]:
        """What can happen in a state, and the state after it."""
        bits = state & self._bits_mask
        clock = state >> self._clock_at & 0xF
        payer = state >> self._payer_at & 0xFFFFFF
        home = state >> self._home_at
        for move in self._moves(home, payer, clock):
            if bits & move.needs != move.needs or bits & move.unless:
                continue
            yield (
                move.what,
                self._state(
                    home if move.home is None else move.home,
                    payer if move.payer is None else move.payer,
                    clock if move.clock is None else move.clock,
                    bits & ~move.clears | move.sets,
                ),
            )

    def check(self, state: int) -> None:
        """What must hold at every counter, and between counters and stores.

        Raises:
            Violation: it does not.
        """
        bits = state & self._bits_mask
        if not bits & self.bits.any_handover:
            return
        packs = sum(packs for bit, packs in self.bits.handovers if bits & bit)
        packs -= (bits & self.bits.any_return).bit_count()
        days = state >> self._clock_at & 0xF
        check_handed_over(self.scope.plan.opened(self.scope.packs, 1 + days), packs)
        if bits & self.bits.any_return:
            payer = self._payers.values[state >> self._payer_at & 0xFFFFFF]
            for settlement in payer.settlements:
                _check_given_back(settlement, payer.decided)
        if self.checks_everything:
            key = (state >> self._home_at, state >> self._payer_at & 0xFFFFFF)
            covered = self._covered.get(key)
            if covered is None:
                covered = self._covered[key] = self._handovers_covered(*key)
            if bits & self.bits.any_handover & ~covered:
                raise Violation("I3", "what was handed over can no longer be booked and paid")

    # --- what a wrong protocol does otherwise ---------------------------------------------------

    def claim(self, home: Home, letter: str, lines: dict[int, int], clock: int) -> Change:
        """The home region decides on a claim."""
        return transitions.claim(
            home.prescription,
            claim_terms(letter, lines, letter.encode()),
            attempt_id=f"attempt-{len(home.attempts) + 1}",
            now=time_at(clock),
            lease=LEASE,
        )

    def lease_timer(self, home: Home, clock: int) -> Change:
        """The home region ends what has run out."""
        return transitions.expire_lease(home.prescription, now=time_at(clock))

    def already_booked(self, home: Home, name: str, nth: int) -> bool:
        """Whether the home region knows this return of an attempt."""
        return (name, nth) in home.returned

    def take_back(self, home: Home, attempt: Attempt, before: int, clock: int) -> Change:
        """The home region books one pack that came back."""
        change, _ = transitions.take_back(
            home.prescription,
            attempt,
            (LineQuantity(1, 1),),
            {1: before},
            Cause.DISPENSING_ERROR,
            now=time_at(clock),
        )
        return change

    def may_hand_over(self, attempt: Attempt, slot: int, packs: int) -> tuple[int, int]:
        """What a pharmacy must have received to hand over, and what it must not remember."""
        return self.bits.confirmed(slot, packs), self.bits.let_go(slot)

    # --- moves of the clock, pharmacies, home region, payer -------------------------------------

    def _moves(self, home: int, payer: int, clock: int) -> list[Move]:
        moves = self._home_moves.get((home, clock))
        if moves is None:
            moves = self._home_moves[home, clock] = list(self._moves_at_home(home, clock))
        if not self.scope.insured:
            return moves
        payments = self._payer_moves.get((home, payer))
        if payments is None:
            payments = self._payer_moves[home, payer] = list(self.payments(home, payer))
        return moves + payments

    def _moves_at_home(self, number: int, clock: int) -> Iterator[Move]:
        home = self._homes.values[number]
        now = time_at(clock)
        if clock < self.scope.ticks:
            yield Move("time passes", clock=clock + 1)
        yield from self._claims(home, clock)
        timer = partial(self.lease_timer, home, clock)
        yield from self._step(home, Move("the lease timer runs"), timer, signed=False)
        revoke = partial(_revoke, home.prescription, now)
        yield from self._step(home, Move("the hospital revokes"), revoke, signed=False)
        for attempt in home.attempts:
            yield from self._moves_of_pharmacy(attempt)
            yield from self._follow_ups(home, attempt, clock)

    def _claims(self, home: Home, clock: int) -> Iterator[Move]:
        for letter in PHARMACIES:
            for packs in self.bits.quantities:
                what = f"a claim of {letter} for {packs} arrives"
                step = partial(self.claim, home, letter, {1: packs}, clock)
                for move in self._step(home, Move(what), step):
                    yield self._granted(home, move)

    def _granted(self, home: Home, move: Move) -> Move:
        """A fresh grant is a fresh start: its pharmacy remembers no release of it."""
        after = self._homes.values[move.home or 0]
        live = after.prescription.live_attempt
        if live is None or live == home.prescription.live_attempt:
            return move
        return replace(move, clears=self.bits.let_go(_slot(live)))

    def _moves_of_pharmacy(self, attempt: Attempt) -> Iterator[Move]:
        """It may ask for any quantity and ask again; it hands over or lets go, never both."""
        slot, name = _slot(attempt), f"{attempt.attempt_id} ({_letter(attempt)})"
        ended = self.bits.handed_over_at_all(slot) | self.bits.let_go(slot)
        for packs in self.bits.quantities:
            yield Move(
                f"commitment to {packs} of {name} is sent",
                unless=ended,
                sets=self.bits.asked(slot, packs),
            )
            needs, unless = self.may_hand_over(attempt, slot, packs)
            yield Move(
                f"{packs} are HANDED OVER for {name}",
                needs=needs,
                unless=unless | self.bits.handed_over_at_all(slot),
                sets=self.bits.handed_over(slot, packs),
            )
        yield from self._takes_back(slot, name)
        yield Move(
            f"release of {name} is sent",
            unless=ended,
            sets=self.bits.released(slot) | self.bits.let_go(slot),
        )

    def _takes_back(self, slot: int, name: str) -> Iterator[Move]:
        """Of what it handed over, a pharmacy takes one pack back after the other."""
        if not self.scope.returns:
            return
        for packs in self.bits.quantities:
            for nth in range(1, packs + 1):
                back = self.bits.taken_back(slot, nth)
                before = self.bits.taken_back(slot, nth - 1) if nth > 1 else 0
                yield Move(
                    f"pack {nth} of {packs} of {name} is TAKEN BACK",
                    needs=self.bits.handed_over(slot, packs) | before,
                    unless=back,
                    sets=back,
                )

    def _returns(self, home: Home, attempt: Attempt, clock: int) -> Iterator[Move]:
        """The home region receives returns: each once, and none before its handover is booked."""
        if not self.scope.returns:
            return
        name, slot = attempt.attempt_id, _slot(attempt)
        before = sum(each == name for each, _ in home.returned)
        for nth in self.bits.quantities:
            if self.already_booked(home, name, nth):
                continue
            booking = partial(self.take_back, home, attempt, before, clock)
            noted = replace(home, returned=home.returned | {(name, nth)})
            needs = self.bits.taken_back(slot, nth)
            yield from self._step(noted, Move(f"return {nth} of {name} arrives", needs), booking)

    def _follow_ups(self, home: Home, attempt: Attempt, clock: int) -> Iterator[Move]:
        """The home region receives commitments, records and releases of an attempt."""
        slot, now, given = _slot(attempt), time_at(clock), home.prescription
        name = attempt.attempt_id

        def reference(cause: str) -> AttemptReference:
            return AttemptReference(name, slot + 1, attempt.pharmacy_code, cause.encode())

        for packs in self.bits.quantities:
            lines = (LineQuantity(1, packs),)
            asked, held = self.bits.asked(slot, packs), self.bits.held(slot, packs)
            committing = Move(
                f"commitment to {packs} of {name} arrives",
                needs=asked | held if self.scope.insured else asked,
                sets=self.bits.confirmed(slot, packs),
            )
            commit = partial(
                transitions.commit,
                given,
                attempt,
                reference(f"commitment-{packs}"),
                lines,
                settlement_id=_settlement_id(slot, packs),
                now=now,
            )
            yield from self._step(home, committing, commit)
            booking = Move(
                f"record of {packs} of {name} arrives", needs=self.bits.handed_over(slot, packs)
            )
            dispense = partial(
                transitions.dispense,
                given,
                attempt,
                reference("record"),
                lines,
                now=now,
                handover_time=now,
            )
            yield from self._step(home, booking, dispense)
        yield from self._returns(home, attempt, clock)
        releasing = Move(f"release of {name} arrives", needs=self.bits.released(slot))
        release = partial(transitions.release, given, attempt, reference("release"), now=now)
        yield from self._step(home, releasing, release)

    def _step(
        self, home: Home, move: Move, step: Callable[[], Change], *, signed: bool = True
    ) -> Iterator[Move]:
        """The move with its outcome, unless it is refused or out of scope."""
        try:
            after = home.after(step())
        except Refusal:
            return
        if len(after.attempts) > self.scope.attempts:
            return
        if self.checks_everything:
            check_home(after.prescription, after.attempts)
            check_step(home.by_id, after.by_id, signed=signed)
        yield replace(move, home=self._homes.number(after))

    def payments(self, home: int, number: int) -> Iterator[Move]:
        """What can happen at the payer region."""
        payer = self._payers.values[number]
        for attempt in self._homes.values[home].attempts:
            slot = _slot(attempt)
            for packs in self.bits.quantities:
                yield from self._hold(payer, slot, packs)
                yield from self._post(payer, slot, packs)
                if self.scope.returns:
                    yield from self.reversals(payer, slot, packs)
            if not attempt.state.is_live and attempt.attempt_id not in payer.ended:
                after = self._kept(payer, _told_of_end(payer, attempt))
                yield Move(f"payer hears that {attempt.attempt_id} is {attempt.state}", payer=after)

    def voids_by_timer(self, number: int) -> Iterator[Move]:
        """What no payer may do: set a hold free without the home region's word."""
        payer = self._payers.values[number]
        for settlement in payer.settlements:
            if settlement.state is SettlementState.HELD:
                freed = replace(payer, person=give_back(payer.person, settlement))
                after = _with(freed, void(settlement, cause_sha256=b"timer", now=START))
                what = f"payer voids {settlement.settlement_id} by a timer"
                yield Move(what, payer=self._kept(payer, after))

    def _hold(self, payer: Payer, slot: int, packs: int) -> Iterator[Move]:
        """Money is set aside once for a settlement, and not for attempts that ended."""
        settlement = _hold_for(slot, packs)
        asked, held = self.bits.asked(slot, packs), self.bits.held(slot, packs)
        known = {each.settlement_id for each in payer.settlements}
        if settlement.settlement_id in known or settlement.attempt_id in payer.ended:
            return
        settlements = (*payer.settlements, settlement)
        person = consume(payer.person, settlement)
        after = replace(payer, person=person, settlements=_ordered(settlements))
        number = self._kept(payer, after)
        yield Move(f"payer holds {settlement.settlement_id}", needs=asked, sets=held, payer=number)

    def _post(self, payer: Payer, slot: int, packs: int) -> Iterator[Move]:
        """A record arrives. A refusal here would be a handover that nobody pays: let it fail."""
        for settlement in payer.settlements:
            if settlement.settlement_id != _settlement_id(slot, packs):
                continue
            if settlement.state is SettlementState.VOIDED:
                continue  # found by ``check`` if it was handed over; else there is no record
            posted = post(settlement, cause_sha256=b"record", now=START)
            after = self._kept(payer, _with(payer, posted))
            needs = self.bits.handed_over(slot, packs)
            yield Move(f"payer posts {settlement.settlement_id}", needs=needs, payer=after)

    def reversals(self, payer: Payer, slot: int, packs: int) -> Iterator[Move]:
        """Returns arrive. What is not paid yet is told again later: nothing changes."""
        for settlement in payer.settlements:
            if settlement.settlement_id != _settlement_id(slot, packs):
                continue
            for nth in range(1, packs + 1):
                if (settlement.settlement_id, nth) not in payer.decided:
                    yield from self.reversal(payer, settlement, slot, packs, nth)

    def reversal(
        self, payer: Payer, settlement: Settlement, slot: int, packs: int, nth: int
    ) -> Iterator[Move]:
        """The nth return of one pack is reversed, unless the rules say no."""
        before = sum(each == settlement.settlement_id for each, _ in payer.decided)
        try:
            after, parts = reverse(
                settlement,
                {1: before},
                (LineQuantity(1, 1),),
                cause_sha256=b"return",
                now=START,
            )
        except Refusal:
            return
        person = restored(payer.person, settlement, parts)
        given_back = replace(_with(payer, after), person=person)
        yield self.decided(payer, given_back, settlement, slot, packs, nth)

    def decided(
        self, before: Payer, after: Payer, settlement: Settlement, slot: int, packs: int, nth: int
    ) -> Move:
        """The payer has decided on a return and will not look at it again."""
        key = (settlement.settlement_id, nth)
        kept = self._kept(before, replace(after, decided=after.decided | {key}))
        needs = self.bits.handed_over(slot, packs) | self.bits.taken_back(slot, nth)
        return Move(f"payer decides on return {nth} of {key[0]}", needs=needs, payer=kept)

    def _kept(self, before: Payer, after: Payer) -> int:
        back = {each.settlement_id: each.reversed for each in after.settlements}
        nothing_back = all(each == NOTHING for each in back.values())
        check_nothing_lost(PERSON, after.person, after.settlements, None if nothing_back else back)
        states = {each.settlement_id: each.state for each in before.settlements}
        for settlement in after.settlements:
            check_settled_once(states.get(settlement.settlement_id), settlement.state)
        return self._payers.number(after)

    def _handovers_covered(self, home: int, payer: int) -> int:
        """The handovers that home has on its books or will book, and that the payer will pay."""
        voided = {
            each.settlement_id
            for each in self._payers.values[payer].settlements
            if each.state is SettlementState.VOIDED
        }
        return sum(
            self.bits.handed_over(_slot(attempt), attempt.lines[0].quantity)
            for attempt in self._homes.values[home].attempts
            if attempt.state in (AttemptState.COMMITTED, AttemptState.DISPENSED)
            and attempt.settlement_id not in voided
        )

    def _state(self, home: int, payer: int, clock: int, bits: int) -> int:
        return home << self._home_at | payer << self._payer_at | clock << self._clock_at | bits


def _revoke(prescription: Prescription, now: datetime) -> Change:
    return transitions.revoke(prescription, now=now)[0]


def _timeless(attempt: Attempt) -> Attempt:
    return replace(attempt, create_time=START, update_time=START)


def _slot(attempt: Attempt) -> int:
    return int(attempt.attempt_id.removeprefix("attempt-")) - 1


def _letter(attempt: Attempt) -> str:
    return next(each for each in PHARMACIES if pharmacy_code(each) == attempt.pharmacy_code)


def _settlement_id(slot: int, packs: int) -> str:
    return f"settlement-{slot + 1}-{packs}"


def _hold_for(slot: int, packs: int) -> Settlement:
    share = LineShare(12 * packs, packs, 10 * packs, packs, (packs, 0), 0)
    return replace(
        HELD,
        settlement_id=_settlement_id(slot, packs),
        attempt_id=f"attempt-{slot + 1}",
        amounts=Amounts.of_lines([share]),
        family_accounts_fen=share.family_accounts_fen,
        lines=(SettledLine(1, packs, share),),
    )


def _check_given_back(settlement: Settlement, decided: frozenset[tuple[str, int]]) -> None:
    """I6: what was decided was given back, once each, a pack's share at a time."""
    returns = sum(each == settlement.settlement_id for each, _ in decided)
    packs, rest = divmod(settlement.reversed.pool_fen, 10)
    if packs != returns or rest:
        words = f"{settlement.settlement_id}: {returns} returns, {packs} packs given back"
        raise Violation("I6", words)


def _told_of_end(payer: Payer, attempt: Attempt) -> Payer:
    """The payer's rule: free every hold of an ended attempt but the one that its dispense pays."""
    after = replace(payer, ended=payer.ended | {attempt.attempt_id})
    for settlement in payer.settlements:
        pays = (
            attempt.state is AttemptState.DISPENSED
            and settlement.settlement_id == attempt.settlement_id
        )
        ours = settlement.attempt_id == attempt.attempt_id
        if ours and settlement.state is SettlementState.HELD and not pays:
            freed = replace(after, person=give_back(after.person, settlement))
            after = _with(freed, void(settlement, cause_sha256=b"ended", now=START))
    return after


def _with(payer: Payer, settlement: Settlement) -> Payer:
    others = [each for each in payer.settlements if each.settlement_id != settlement.settlement_id]
    return replace(payer, settlements=_ordered((*others, settlement)))


def _ordered(settlements: tuple[Settlement, ...]) -> tuple[Settlement, ...]:
    timeless = [replace(each, create_time=START, update_time=START) for each in settlements]
    return tuple(sorted(timeless, key=lambda each: each.settlement_id))


# --- the search -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Search:
    """What a search found: how many states, and how the first violation came about."""

    states: int
    seconds: float
    violation: Violation | None = None
    story: tuple[str, ...] = ()

    def __str__(self) -> str:
        pace = self.states / self.seconds
        return f"{self.states:,} states in {self.seconds:.1f} s ({pace:,.0f} a second)"


def search(world: World) -> Search:
    """Visit every reachable state, nearest first, until an invariant breaks."""
    began = perf_counter()
    start = world.start()
    parents = {start: start}
    frontier, state = [start], start
    try:
        while frontier:
            following = []
            for state in frontier:
                for _, after in world.successors(state):
                    if after not in parents:
                        parents[after] = state
                        following.append(after)
            frontier = following
            for state in frontier:
                world.check(state)
    except Violation as violation:
        story = _story(world, parents, state)
        return Search(len(parents), perf_counter() - began, violation, story)
    return Search(len(parents), perf_counter() - began)


def _story(world: World, parents: dict[int, int], state: int) -> tuple[str, ...]:
    steps: list[str] = []
    while parents[state] != state:
        before = parents[state]
        steps.append(next(what for what, after in world.successors(before) if after == state))
        state = before
    return tuple(reversed(steps))
