"""Which transitions were tried in which states: what a run reached of all that can be reached.

Every function of the domain that moves an attempt, a prescription, a dispense or a settlement is
counted with the state in which it was called, wherever production code calls it. What there is to
be reached is computed: each function is asked about each state, and a pair that the domain calls a
defect (``InvariantBroken``) is none. :data:`KEPT_AWAY` are the pairs that no run can reach, because
something in front of the domain keeps them away from it, each with what that is.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from types import FunctionType, ModuleType
from typing import Any
from unittest.mock import patch

from rxoutflow_server.domain import dispense as dispenses
from rxoutflow_server.domain import prescription as home
from rxoutflow_server.domain import reversal as reversals
from rxoutflow_server.domain import settlement as settlements
from rxoutflow_server.domain.attempt import Attempt, AttemptState
from rxoutflow_server.domain.dispense import Dispense, DispenseState
from rxoutflow_server.domain.prescription import Prescription, Validity
from rxoutflow_server.domain.settlement import Settlement, SettlementState

Pair = tuple[str, str, str]
"""What it is about, its state, and the event."""

ATTEMPT, PRESCRIPTION = "attempt", "prescription"
DISPENSE, SETTLEMENT = "dispense", "settlement"
LEASE_OVER = "reserved, lease over"


class Recorder:
    """Counts pairs while it is in place."""

    def __init__(self) -> None:
        self.pairs: Counter[Pair] = Counter()

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Stand between production code and its transitions."""
        with ExitStack() as stack:
            for original, describe in _WATCHED.items():
                for module, name in _places(original):
                    # Whatever stands there now, which a planted bug may have changed.
                    between = self._between(getattr(module, name), describe)
                    stack.enter_context(patch.object(module, name, between))
            yield

    def _between(self, original: Callable[..., Any], describe: Describe) -> Callable[..., Any]:
        pairs = self.pairs

        def watched(*args: Any, **kwargs: Any) -> Any:
            pairs[describe(*args, **kwargs)] += 1
            return original(*args, **kwargs)

        return watched


def attempt_state(attempt: Attempt, now: Any) -> str:
    """The state of an attempt, as its table has it."""
    return LEASE_OVER if attempt.lease_is_over(now) else str(attempt.state)


def prescription_state(prescription: Prescription, now: Any) -> str:
    """Validity and use, as the table of prescriptions has them."""
    validity = str(prescription.validity_at(now))
    live = prescription.live_attempt
    if live is not None:
        return f"{validity}, {attempt_state(live, now)}"
    if prescription.validity is Validity.REVOKED:
        return validity
    return f"{validity}, {'free' if prescription.available else 'used up'}"


def settlement_state(settlement: Settlement) -> str:
    """The state of a settlement, and for a hold who has shown the handover."""
    if settlement.state is not SettlementState.HELD:
        return str(settlement.state)
    shown = [
        name
        for name, sha256 in (
            ("record", settlement.record_sha256),
            ("booking", settlement.booked_sha256),
        )
        if sha256
    ]
    return ", ".join((str(settlement.state), *shown))


Describe = Callable[..., Pair]


def _of_attempt(event: str) -> Describe:
    def describe(prescription: Prescription, attempt: Attempt, *_: Any, **kwargs: Any) -> Pair:
        return ATTEMPT, attempt_state(attempt, kwargs["now"]), event

    return describe


def _of_prescription(event: str) -> Describe:
    def describe(prescription: Prescription, *_: Any, **kwargs: Any) -> Pair:
        return PRESCRIPTION, prescription_state(prescription, kwargs["now"]), event

    return describe


def _claimed(prescription: Prescription, terms: Any, **kwargs: Any) -> Pair:
    live = prescription.live_attempt
    own = live is not None and live.pharmacy_code == terms.pharmacy_code
    event = "claim by its holder" if own else "claim by another"
    return PRESCRIPTION, prescription_state(prescription, kwargs["now"]), event


def _of_dispense(event: str) -> Describe:
    return lambda dispense, *_, **__: (DISPENSE, str(dispense.state), event)


def _advanced(dispense: Dispense, state: DispenseState, **_: Any) -> Pair:
    return DISPENSE, str(dispense.state), f"becomes {state}"


def _acknowledged(
    dispense: Dispense, *, booked: bool = False, posted: bool = False, **_: Any
) -> Pair:
    event = "home books" if booked else "payer posts" if posted else "payer voids"
    return DISPENSE, str(dispense.state), event


def _of_settlement(event: str) -> Describe:
    return lambda settlement, *_, **__: (SETTLEMENT, settlement_state(settlement), event)


def _function(module: ModuleType, name: str) -> FunctionType:
    found = getattr(module, name)
    assert isinstance(found, FunctionType)
    return found


_WATCHED: dict[FunctionType, Describe] = {
    _function(home, "claim"): _claimed,
    _function(home, "commit"): _of_attempt("commit"),
    _function(home, "dispense"): _of_attempt("dispense record"),
    _function(home, "release"): _of_attempt("release"),
    _function(home, "adjudicate"): _of_attempt("adjudication"),
    _function(home, "take_back"): _of_attempt("return"),
    _function(home, "revoke"): _of_prescription("revocation"),
    _function(dispenses, "advanced"): _advanced,
    _function(dispenses, "let_go"): _of_dispense("released"),
    _function(dispenses, "found"): _of_dispense("found"),
    _function(dispenses, "corrected"): _of_dispense("corrected"),
    _function(dispenses, "recorded"): _of_dispense("dispense record"),
    _function(dispenses, "acknowledged"): _acknowledged,
    _function(settlements, "post"): _of_settlement("post"),
    _function(settlements, "void"): _of_settlement("void"),
    _function(reversals, "reverse"): _of_settlement("reversal"),
}


@cache
def _places(original: FunctionType) -> tuple[tuple[ModuleType, str], ...]:
    """Where production code calls a function by: other modules' names for it, or else its own."""
    places = tuple(
        (module, name)
        for path, module in sorted(sys.modules.items())
        if path.startswith("rxoutflow_server.") and module is not None
        for name, value in sorted(vars(module).items())
        if value is original
    )
    others = tuple(each for each in places if each[0].__name__ != original.__module__)
    return others or places


@cache
def possible() -> frozenset[Pair]:
    """Every pair of a state and an event, but those that the domain itself calls a defect."""
    return frozenset((*_attempt_pairs(), *_prescription_pairs(), *_dispense_pairs(), *_money()))


@cache
def reachable() -> frozenset[Pair]:
    """The pairs that a run can reach."""
    kept_away = {pair for pairs in KEPT_AWAY.values() for pair in pairs}
    unknown = kept_away - possible()
    assert not unknown, f"there is no such pair any more: {sorted(unknown)}"
    return possible() - kept_away


def table(reached: Counter[Pair]) -> str:
    """How often each pair was reached that can be, for people."""
    lines = [
        f"{reached[pair]:9,}  {about}: {event}, when {state}"
        for pair in sorted(reachable())
        for about, state, event in [pair]
    ]
    surprises = sorted(pair for pair in reached if pair not in reachable())
    lines += [f"{reached[pair]:9,}  {pair}: was thought out of reach" for pair in surprises]
    return "\n".join(lines)


def _attempt_pairs() -> Iterator[Pair]:
    for state in (*map(str, AttemptState), LEASE_OVER):
        for event in ("commit", "dispense record", "release", "adjudication", "return"):
            yield ATTEMPT, state, event


def _prescription_pairs() -> Iterator[Pair]:
    held = (str(AttemptState.RESERVED), LEASE_OVER, str(AttemptState.COMMITTED))
    for validity in (Validity.ACTIVE, Validity.EXPIRED, Validity.MARKED_FOR_REVOCATION):
        for use in held:
            for event in ("claim by its holder", "claim by another", "revocation"):
                yield PRESCRIPTION, f"{validity}, {use}", event
    free = [f"{each}, {use}" for each in ("active", "expired") for use in ("free", "used up")]
    for state in (*free, str(Validity.REVOKED)):
        for event in ("claim by another", "revocation"):
            yield PRESCRIPTION, state, event


def _dispense_pairs() -> Iterator[Pair]:
    for state in DispenseState:
        for event in (
            "released", "found", "corrected", "dispense record",
            "home books", "payer posts", "payer voids",
        ):  # fmt: skip
            yield DISPENSE, str(state), event
        for after in dispenses._NEXT.get(state, ()):
            if after not in (DispenseState.DISPENSED, DispenseState.RELEASED):  # by other events
                yield DISPENSE, str(state), f"becomes {after}"


def _money() -> Iterator[Pair]:
    held = ("held", "held, record", "held, booking", "held, record, booking")
    for state in (*held, *(str(each) for each in SettlementState if each != "held")):
        yield SETTLEMENT, state, "post"
        yield SETTLEMENT, state, "reversal"
        if state.startswith("held"):
            yield SETTLEMENT, state, "void"


def _pairs(about: str, events: str | Sequence[str], *states: str) -> frozenset[Pair]:
    chosen = [events] if isinstance(events, str) else events
    return frozenset((about, state, event) for state in states for event in chosen)


_RESERVED = ("reserved", LEASE_OVER)
_BEFORE, _ENDED = ("committing", "held"), ("refused", "released")
_RECORDED = ("dispensed", "completed")

KEPT_AWAY: dict[str, frozenset[Pair]] = {
    "a commit that comes again is answered from what is stored": _pairs(
        ATTEMPT, "commit", "committed", "dispensed"
    ),
    "the dispensing region takes a record only for what home has committed, and once": (
        _pairs(ATTEMPT, "dispense record", *_RESERVED, "dispensed", "released", "expired")
        | _pairs(
            DISPENSE, "home books", *["committing", "held", "committed", "refused", "released"]
        )
        | _pairs(DISPENSE, "home books", "completed")
    ),
    "who has recorded a handover cannot release, correct, or have it ended": (
        _pairs(ATTEMPT, "release", "dispensed")
        | _pairs(DISPENSE, ("released", "corrected", "payer voids"), "dispensed", "completed")
    ),
    "an honest pharmacy records after the OK to its commit, unless it has let go": _pairs(
        DISPENSE,
        "dispense record",
        *["committing", "held", "refused", "dispensed", "completed", "released"],
    ),
    "only committed attempts are listed, and what was decided is not decided again": _pairs(
        ATTEMPT, "adjudication", *_RESERVED, "released", "expired"
    ),
    "people find a handover only where there was one, which needs an OK": (
        _pairs(DISPENSE, "found", "committing", "held", "refused", "released", "completed")
        | _pairs(DISPENSE, "payer posts", "committing", "held", "refused", "released")
    ),
    "the payer posts once": _pairs(DISPENSE, "payer posts", "completed"),
    "a return is behind its record in every outbox": (
        _pairs(ATTEMPT, "return", *_RESERVED, "committed", "released", "expired")
        | _pairs(SETTLEMENT, "reversal", "held", "held, record, booking")
    ),
    "no more is taken back than was handed over": _pairs(
        SETTLEMENT, "reversal", "reversed", "voided"
    ),
    "a settlement is posted when both have shown the handover, and then stays": (
        _pairs(SETTLEMENT, "post", "held", "held, record", "held, booking", "voided", "reversed")
        | _pairs(SETTLEMENT, "void", "held, record", "held, booking", "held, record, booking")
    ),
}
"""Pairs that no honest federation brings about, by what keeps them away."""
