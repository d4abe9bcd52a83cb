"""Whether what clients saw can have come from one prescription that did one thing after another.

Clients are recorded from outside: when they asked, when they were answered, and with what. Here the
answers on each prescription are checked for strict serialisability: some order of all operations
must exist that gives exactly these answers, in which each operation takes effect once, at a moment
between question and answer. What was never answered may have taken effect at any moment since, or
never. The search is that of Wing and Gong, with Lowe's memory of what was tried.

The model is a prescription as a patient understands it: one pharmacy at a time holds it, only what
was committed is handed over, nothing is handed over twice. It shares no code with the exchange.

Three things happen without an answer to anybody: a lease runs out, the home region books a handover
that the pharmacy's region has accepted, and it books a return. They are operations of their own
that may take effect at any moment after what leads to them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from threading import Lock

from support.invariants import Violation

Quantities = tuple[tuple[int, int], ...]
"""Quantity by line id, in the order of the ids, without zeros."""

_OF_STANDING = ("INSTITUTION_NOT_ACTIVE", "SIGNER_UNTRUSTED")
UNKNOWN_ATTEMPT = "?"
"""Begins the name of an attempt whose grant was never answered."""


class Kind(StrEnum):
    """What a client can ask for; the last three are asked for by nobody.

    A correction counts where it released something, or may have; adjudications are an operator's.
    """

    CLAIM = "claim"
    COMMIT = "commit"
    RELEASE = "release"
    DISPENSE = "dispense"
    RETURN = "return"
    REVOKE = "revoke"
    READ = "read"
    CORRECT = "correct"
    ADJUDICATE = "adjudicate"
    LEASE_END = "lease end"
    BOOKING = "booking"
    RETURN_BOOKING = "return booking"


class Revocation(StrEnum):
    """What a revocation came to."""

    REVOKED = "revoked"
    REST_REVOKED = "rest revoked"
    MARKED = "marked"
    ALREADY_DISPENSED = "already dispensed"
    ALREADY_REVOKED = "already revoked"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Status:
    """What a read said: who holds how much of it, what was handed over, whether it is revoked."""

    live_attempt: str = ""
    committed: bool = False
    held: Quantities = ()
    dispensed: Quantities = ()
    revoked: bool = False


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that a client asked for, and what it heard. Times are of one clock.

    ``returned`` is None where no answer told what became of it. ``refused`` is the reason of a
    definite refusal, which had no effect. ``attempt`` is the one named, or for a claim the one that
    was granted; ``lines`` are what was granted, committed, handed over or brought back. ``until``
    is when a granted lease ends, if that is known. ``again`` tells of a return whether what came
    back can be filled again. ``handed_over`` is what an adjudication found.
    """

    kind: Kind
    prescription: str
    client: str
    request_id: str
    invoked: float
    returned: float | None = None
    refused: str = ""
    attempt: str = ""
    fence: int = 0
    lines: Quantities = ()
    settlement: str = ""
    until: float | None = None
    again: bool = False
    handed_over: bool = False
    revocation: Revocation | None = None
    status: Status | None = None

    def __str__(self) -> str:
        ends = "no answer" if self.returned is None else f"{self.returned:.3f}"
        heard = self.refused or self.revocation or self.status or self.attempt
        return f"{self.invoked:.3f} to {ends}: {self.client} {self.kind} {heard}"


class NotSerialisable(Violation):
    """No order of the operations on a prescription explains what its clients heard."""

    def __init__(self, prescription: str, explained: int, stuck: Iterable[Operation]) -> None:
        listed = "".join(f"\n  {each}" for each in stuck)
        super().__init__(
            "L11",
            f"{prescription}: after {explained} operations none of these can be next:{listed}",
        )


# --- recording --------------------------------------------------------------------------------


class Recorder:
    """Keeps what clients ask and hear; any number of threads may use it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._operations: list[Operation] = []
        self._authorised: dict[str, Quantities] = {}

    def registered(self, prescription: str, authorised: Mapping[int, int]) -> None:
        """A prescription is there, and this is what it authorises."""
        with self._lock:
            self._authorised[prescription] = quantities(authorised)

    def begin(
        self,
        kind: Kind,
        prescription: str,
        client: str,
        request_id: str,
        *,
        attempt: str = "",
        lines: Mapping[int, int] | None = None,
        settlement: str = "",
        again: bool = False,
        handed_over: bool = False,
    ) -> Call:
        """A client asks. Until its call says more, nobody knows what became of it."""
        operation = Operation(
            kind,
            prescription,
            client,
            request_id,
            self._clock(),
            attempt=attempt,
            lines=quantities(lines or {}),
            settlement=settlement,
            again=again,
            handed_over=handed_over,
        )
        with self._lock:
            self._operations.append(operation)
            return Call(self, len(self._operations) - 1)

    def check(self) -> int:
        """Check every prescription that was recorded; the number of operations.

        Raises:
            NotSerialisable: a prescription's clients cannot have heard this.
            Violation: I8, one request was answered in two ways.
        """
        with self._lock:
            operations, authorised = list(self._operations), dict(self._authorised)
        for prescription, lines in authorised.items():
            mine = [each for each in operations if each.prescription == prescription]
            check_history(mine, dict(lines))
        return sum(each.prescription in authorised for each in operations)

    def prescriptions(self) -> list[str]:
        """Those that were registered, in the order in which they were."""
        return list(self._authorised)

    def prescription_of(self, call: Call) -> str:
        """What a call is about."""
        return self._operations[call.index].prescription

    def answered(self, index: int, heard: Callable[[Operation], Operation]) -> None:
        """Keep what a call heard."""
        with self._lock:
            self._operations[index] = replace(
                heard(self._operations[index]), returned=self._clock()
            )


@dataclass(frozen=True, slots=True)
class Call:
    """A call under way. A call of which nothing more is heard has no known outcome."""

    recorder: Recorder
    index: int

    def ok(
        self,
        *,
        attempt: str = "",
        fence: int = 0,
        lines: Mapping[int, int] | None = None,
        until: float | None = None,
        revocation: Revocation | None = None,
        status: Status | None = None,
    ) -> None:
        """It was answered OK, with this."""
        self.recorder.answered(
            self.index,
            lambda asked: replace(
                asked,
                attempt=attempt or asked.attempt,
                fence=fence,
                lines=asked.lines if lines is None else quantities(lines),
                until=until,
                revocation=revocation,
                status=status,
            ),
        )

    def refused(self, reason: str) -> None:
        """It was refused for good: it has no effect and will have none.

        Unless it was refused for what became of the sender, or of trust in it: an earlier sending
        of the same request may have taken effect before.
        """
        if reason not in _OF_STANDING:
            self.recorder.answered(self.index, lambda asked: replace(asked, refused=reason))


def quantities(lines: Mapping[int, int]) -> Quantities:
    """Quantities by line id in their one form."""
    return tuple(sorted((line_id, n) for line_id, n in lines.items() if n))


# --- the model --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Goods:
    """What was handed over for an attempt: booked by home or not yet, and how much came back.

    ``found`` tells that two people found it, so that its record may still come.
    """

    attempt: str
    lines: Quantities
    booked: bool = False
    found: bool = False
    returned: Quantities = ()


@dataclass(frozen=True, slots=True)
class _Prescription:
    """A prescription, all of it. ``used`` are the names of the attempts that were ever made."""

    available: Quantities
    live: str = ""
    holder: str = ""
    held: Quantities = ()
    committed: bool = False
    settlement: str = ""
    fence: int = 0
    validity: str = "active"
    used: frozenset[str] = frozenset()
    goods: tuple[_Goods, ...] = ()

    def goods_of(self, attempt: str) -> _Goods | None:
        return next((each for each in self.goods if each.attempt == attempt), None)

    def with_goods(self, goods: _Goods) -> _Prescription:
        others = tuple(each for each in self.goods if each.attempt != goods.attempt)
        return replace(self, goods=(*others, goods))

    def free(self) -> _Prescription:
        """Nobody holds it any more. What its issuer wanted back is revoked, if anything is left."""
        validity = self.validity
        if validity == "marked":
            validity = "revoked" if self.available else "active"
        free = replace(self, live="", holder="", held=(), committed=False, settlement="")
        return replace(free, validity=validity)

    @property
    def dispensed(self) -> Quantities:
        booked: Quantities = ()
        for each in self.goods:
            if each.booked:
                booked = _plus(booked, each.lines)
        return booked


def _claim(state: _Prescription, claim: Operation) -> _Prescription | None:
    name = _name_of(claim)
    if state.live:
        known = _named(state, name) if claim.returned is not None else state
        mine = state.holder == claim.client
        return known if mine and (not claim.lines or claim.lines == state.held) else None
    fresh = name not in state.used and (not claim.fence or claim.fence > state.fence)
    granted = claim.lines or state.available
    rest = _minus(state.available, granted)
    if state.validity != "active" or not fresh or not granted or rest is None:
        return None
    return replace(
        state,
        available=rest,
        live=name,
        holder=claim.client,
        held=granted,
        fence=claim.fence or state.fence,
        used=state.used | ({name} if claim.attempt else set()),
    )


def _name_of(claim: Operation) -> str:
    """The attempt that was granted; one of nobody knows which id goes by its claimant."""
    return claim.attempt or f"{UNKNOWN_ATTEMPT}{claim.client}"


def _commit(state: _Prescription, commit: Operation) -> _Prescription | None:
    known = _named(state, commit.attempt)
    if known is None or known.holder != commit.client or known.goods_of(known.live):
        return None
    if known.committed:
        same = (known.settlement, known.held) == (commit.settlement, commit.lines)
        return known if same else None
    rest = _minus(known.held, commit.lines)
    if rest is None:
        return None
    return replace(
        known,
        available=_plus(known.available, rest),
        held=commit.lines,
        committed=True,
        settlement=commit.settlement,
    )


def _release(state: _Prescription, release: Operation) -> _Prescription | None:
    known = _named(state, release.attempt)
    if known is None or known.holder != release.client or known.goods_of(known.live):
        return None
    return replace(known, available=_plus(known.available, known.held)).free()


def _correct(state: _Prescription, correct: Operation) -> _Prescription | None:
    """What the client holds is released; without an answer it may be whatever it holds."""
    known = _named(state, correct.attempt) if correct.attempt else state
    if known is None or known.holder != correct.client or known.goods_of(known.live):
        return None
    return replace(known, available=_plus(known.available, known.held)).free()


def _adjudicate(state: _Prescription, decision: Operation) -> _Prescription | None:
    known = _named(state, decision.attempt)
    if known is None or not known.committed:
        return None
    if not decision.handed_over:
        if known.goods_of(known.live):
            return None
        return replace(known, available=_plus(known.available, known.held)).free()
    goods = known.goods_of(known.live) or _Goods(known.live, known.held)
    return known.with_goods(replace(goods, booked=True, found=True)).free()


def _dispense(state: _Prescription, dispense: Operation) -> _Prescription | None:
    known = state.goods_of(dispense.attempt)
    if known is not None and known.found:
        return state.with_goods(replace(known, found=False))
    right = state.live == dispense.attempt and state.holder == dispense.client
    if not right or not state.committed or state.goods_of(state.live):
        return None
    if dispense.lines not in ((), state.held):
        return None
    return state.with_goods(_Goods(state.live, state.held))


def _return(state: _Prescription, returned: Operation) -> _Prescription | None:
    goods = state.goods_of(returned.attempt)
    if goods is None:
        return None
    back = _plus(goods.returned, returned.lines)
    whole = dict(goods.lines)
    if any(n > whole.get(line_id, 0) for line_id, n in back):
        return None
    return state.with_goods(replace(goods, returned=back))


def _revoke(state: _Prescription, revoke: Operation) -> _Prescription | None:
    outcome = revoke.revocation or _revocation(state)
    if outcome is Revocation.EXPIRED:
        return state if not state.live else None
    if outcome is not _revocation(state):
        return None
    if outcome in (Revocation.REVOKED, Revocation.REST_REVOKED):
        return replace(state, validity="revoked")
    return replace(state, validity="marked") if outcome is Revocation.MARKED else state


def _revocation(state: _Prescription) -> Revocation:
    if state.validity == "revoked":
        return Revocation.ALREADY_REVOKED
    if state.live:
        return Revocation.MARKED
    if not state.available:
        return Revocation.ALREADY_DISPENSED
    return Revocation.REST_REVOKED if state.dispensed else Revocation.REVOKED


def _read(state: _Prescription, read: Operation) -> _Prescription | None:
    seen = read.status
    if seen is None:
        return state
    known = _named(state, seen.live_attempt) if seen.live_attempt else state
    if known is None or (not seen.live_attempt and known.live):
        return None
    is_so = Status(
        known.live, known.committed, known.held, known.dispensed, known.validity == "revoked"
    )
    return known if is_so == seen else None


def _lease_end(state: _Prescription, end: Operation) -> _Prescription | None:
    if state.live != end.attempt or state.committed:
        return None
    return replace(state, available=_plus(state.available, state.held)).free()


def _booking(state: _Prescription, booking: Operation) -> _Prescription | None:
    goods = state.goods_of(booking.attempt)
    if goods is None or goods.booked:
        return None
    return state.with_goods(replace(goods, booked=True)).free()


def _return_booking(state: _Prescription, booking: Operation) -> _Prescription | None:
    goods = state.goods_of(booking.attempt)
    if goods is None or not goods.booked or _minus(goods.returned, booking.lines) is None:
        return None
    return replace(state, available=_plus(state.available, booking.lines))


_STEPS: dict[Kind, Callable[[_Prescription, Operation], _Prescription | None]] = {
    Kind.CLAIM: _claim,
    Kind.COMMIT: _commit,
    Kind.RELEASE: _release,
    Kind.DISPENSE: _dispense,
    Kind.RETURN: _return,
    Kind.REVOKE: _revoke,
    Kind.READ: _read,
    Kind.CORRECT: _correct,
    Kind.ADJUDICATE: _adjudicate,
    Kind.LEASE_END: _lease_end,
    Kind.BOOKING: _booking,
    Kind.RETURN_BOOKING: _return_booking,
}

_REFUSALS: dict[str, Callable[[_Prescription, Operation], bool]] = {
    "PRESCRIPTION_HELD": lambda state, claim: bool(state.live) and state.holder != claim.client,
    "PRESCRIPTION_REVOKED": lambda state, _: state.validity != "active",
    "PRESCRIPTION_USED_UP": lambda state, _: not state.available,
}
"""Refusals that say how a prescription stands, as its home region alone can: they are reads."""


def _step(state: _Prescription, operation: Operation) -> _Prescription | None:
    """The prescription after an operation; None if it cannot have gone like that."""
    if operation.refused:
        return state if _REFUSALS[operation.refused](state, operation) else None
    return _STEPS[operation.kind](state, operation)


def _named(state: _Prescription, name: str) -> _Prescription | None:
    """The state if this is the live attempt; one whose grant got lost takes the name."""
    if state.live == name and name:
        return state
    if not state.live.startswith(UNKNOWN_ATTEMPT) or name in state.used:
        return None
    return replace(state, live=name, used=state.used | {name})


def _plus(one: Quantities, other: Quantities | None) -> Quantities:
    sums = dict(one)
    for line_id, n in other or ():
        sums[line_id] = sums.get(line_id, 0) + n
    return quantities(sums)


def _minus(one: Quantities, other: Quantities) -> Quantities | None:
    """What is left; None if there is not that much."""
    rest = dict(one)
    for line_id, n in other:
        rest[line_id] = rest.get(line_id, 0) - n
    return quantities(rest) if min(rest.values(), default=0) >= 0 else None


# --- the search -------------------------------------------------------------------------------


def check_history(operations: Iterable[Operation], authorised: Mapping[int, int]) -> None:
    """Check the operations on one prescription.

    Raises:
        NotSerialisable: no order explains them.
        Violation: I8, one request was answered in two ways.
    """
    asked = [each for each in _merged(operations) if _says_something(each)]
    everything = sorted([*asked, *_unasked(asked)], key=lambda each: each.invoked)
    _Search(everything).require_order(_Prescription(quantities(authorised)))


def _merged(operations: Iterable[Operation]) -> Iterator[Operation]:
    """Each request once, however often it was sent: since it was first asked, until it was heard.

    Reads have no ids and are never the same.

    Raises:
        Violation: I8, two answers differ.
    """
    requests: dict[tuple[str, str, str], Operation] = {}
    for each in sorted(operations, key=lambda operation: operation.invoked):
        if each.kind is Kind.READ:
            yield each
            continue
        key = (each.kind, each.client, each.request_id)
        before = requests.setdefault(key, each)
        if before is not each:
            requests[key] = _both(before, each)
    yield from requests.values()


def _both(first: Operation, again: Operation) -> Operation:
    """One request that was sent twice. A refusal had no effect, so a later OK counts."""
    if again.returned is None or (again.refused and first.returned is not None):
        return first
    if first.returned is None or first.refused:
        return replace(again, invoked=first.invoked)
    same = replace(again, invoked=first.invoked, returned=first.returned, until=first.until)
    if same != first:
        raise Violation("I8", f"one request was answered in two ways: {first}; {again}")
    return first


def _says_something(operation: Operation) -> bool:
    """Whether an answer tells how the prescription stood, or an effect is possible."""
    if operation.kind is Kind.READ:
        return operation.returned is not None and not operation.refused
    home_says = operation.kind is Kind.CLAIM and operation.refused in _REFUSALS
    return not operation.refused or home_says


def _unasked(operations: Iterable[Operation]) -> Iterator[Operation]:
    """What may happen by itself after each operation."""
    ended: set[str] = set()
    for each in operations:
        if each.refused:
            continue
        if each.kind is Kind.CLAIM:
            if not each.attempt or each.attempt not in ended:
                yield _later(Kind.LEASE_END, each, _name_of(each), each.until or each.invoked)
            ended.add(each.attempt)
        elif each.kind is Kind.DISPENSE:
            yield _later(Kind.BOOKING, each, each.attempt, each.invoked)
        elif each.kind is Kind.RETURN and each.again:
            yield _later(Kind.RETURN_BOOKING, each, each.attempt, each.invoked)


def _later(kind: Kind, cause: Operation, attempt: str, since: float) -> Operation:
    return Operation(
        kind,
        cause.prescription,
        "home",
        f"{kind} {cause.request_id}",
        since,
        attempt=attempt,
        lines=cause.lines,
    )


class _Search:
    """Looks for an order. A configuration is which operations are done, and the state after them.

    An operation may be next if none that is left was answered before it was asked. What has no
    answer may be left out.
    """

    def __init__(self, operations: list[Operation]) -> None:
        self._operations = operations
        self._answered = [each.returned is not None for each in operations]
        self._needed = sum(1 << index for index, must in enumerate(self._answered) if must)
        self._before = list(self._equals_before())

    def _equals_before(self) -> Iterator[int]:
        """For each operation those that were asked before it and do the same, unanswered all.

        Nobody can tell them apart, so they are only ever tried in the order in which they came.
        """
        newest: dict[Operation, int] = {}
        for index, each in enumerate(self._operations):
            same = replace(each, request_id="", invoked=0.0, until=None)
            yield newest.get(same, 0) if each.returned is None else 0
            newest[same] = newest.get(same, 0) | 1 << index

    def require_order(self, start: _Prescription) -> None:
        tried: set[tuple[int, _Prescription]] = {(0, start)}
        waiting = [(0, start)]
        best = 0
        while waiting:
            done, state = waiting.pop()
            if done & self._needed == self._needed:
                return
            if (done & self._needed).bit_count() > (best & self._needed).bit_count():
                best = done
            for index in self._possible(done):
                after = _step(state, self._operations[index])
                if after is None:
                    continue
                following = (done | 1 << index, after)
                if following not in tried:
                    tried.add(following)
                    waiting.append(following)
        stuck = [self._operations[index] for index in self._possible(best)]
        raise NotSerialisable(stuck[0].prescription, best.bit_count(), stuck)

    def _possible(self, done: int) -> Iterator[int]:
        """Operations that may be next, unanswered ones first: the stack takes them last."""
        horizon = min(
            (
                each.returned
                for index, each in enumerate(self._operations)
                if each.returned is not None and not done >> index & 1
            ),
            default=float("inf"),
        )
        able = [
            index
            for index, each in enumerate(self._operations)
            if not done >> index & 1
            and each.invoked <= horizon
            and self._before[index] & ~done == 0
        ]
        yield from sorted(able, key=lambda index: self._answered[index])
