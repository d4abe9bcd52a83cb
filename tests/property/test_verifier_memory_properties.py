"""A verifier that remembers says, of anything and at any time, what one without memory says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache

from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from rxoutflow.statements import StatementError, Verified, Verifier
from rxoutflow.statements.payloads import rule_for
from rxoutflow.trust import TrustStore
from rxoutflow.v1.attempt_pb2 import Attempt, Claim
from rxoutflow.v1.prescription_pb2 import Prescription
from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow.v1.trust_pb2 import Institution, TrustList
from support.pki import BEGIN, END, NOW
from support.sheets import Cast, signed

KINDS = (Prescription, Claim, Attempt)
SIGN_TIMES = (BEGIN, NOW)
NEAR = st.sampled_from([timedelta(0), timedelta(minutes=10), timedelta(days=7)])
INSTANTS = st.builds(
    lambda base, away, sign, little: base + sign * away + little,
    st.sampled_from([BEGIN, NOW, END]),
    NEAR,
    st.sampled_from([-1, 0, 1]),
    st.sampled_from([timedelta(seconds=-1), timedelta(0), timedelta(seconds=1)]),
)
AUDIENCES = st.sampled_from([None, "350200", "440300"])


@cache
def cast() -> Cast:
    return Cast.create("350200")


@cache
def statements() -> tuple[tuple[SignedStatement, type[Message]], ...]:
    return tuple(
        (signed(cast().message(kind), cast().sheet(kind), at=at), kind)
        for kind in KINDS
        for at in SIGN_TIMES
    )


def withdraw(content: TrustList) -> None:
    for each in content.institutions:
        each.status = Institution.STATUS_WITHDRAWN


def strike_off(content: TrustList) -> None:
    del content.signers[::2]


def deny(content: TrustList) -> None:
    content.denied_certificate_sha256.append(cast().platform_seal.sha256)


def last_longer(content: TrustList) -> None:
    content.expire_time.FromDatetime(END)


CHANGES: tuple[Callable[[TrustList], None], ...] = (
    withdraw,
    strike_off,
    deny,
    last_longer,
    lambda _content: None,
)


@cache
def lists() -> tuple[SignedStatement, ...]:
    """A list as it was, and each change of it as a newer one."""
    region = cast().region
    honest = TrustList()
    honest.CopyFrom(region.trust_list)
    made = [region.signed_list(sequence=1)]
    for sequence, change in enumerate(CHANGES, start=2):
        region.trust_list.CopyFrom(honest)
        change(region.trust_list)
        made.append(region.signed_list(sequence=sequence))
    region.trust_list.CopyFrom(honest)
    return tuple(made)


@dataclass(frozen=True)
class Question:
    """Something that a verifier is asked."""

    statement: int
    kind: int
    now: datetime
    at: datetime | None
    audience: str | None
    signatures: int | None


@dataclass(frozen=True)
class News:
    """A trust list that is offered, perhaps an older one."""

    sequence: int


QUESTIONS = st.builds(
    Question,
    st.integers(0, len(KINDS) * len(SIGN_TIMES) - 1),
    st.just(-1) | st.integers(0, len(KINDS) - 1),
    INSTANTS,
    st.none() | INSTANTS,
    AUDIENCES,
    st.none() | st.integers(1, 3),
)
STEPS = st.lists(QUESTIONS | st.builds(News, st.integers(0, len(CHANGES))), min_size=4, max_size=16)


def answer(verifier: Verifier, question: Question) -> Verified[Message] | tuple[object, ...]:
    statement, kind = statements()[question.statement]
    if question.kind >= 0:
        kind = KINDS[question.kind]
    roles = None
    if question.signatures is not None:
        roles = [place[0] for place in rule_for(kind).roles[: question.signatures]]
    try:
        return verifier.verify(
            statement, kind, question.now, question.audience, roles=roles, at=question.at
        )
    except StatementError as error:
        return type(error), str(error), error.detail


@settings(deadline=None, max_examples=60)
@given(STEPS)
def test_memory_never_changes_an_answer(steps: list[Question | News]) -> None:
    store = TrustStore({"350200": cast().region.registry.sha256.hex()})
    store.offer(lists()[0], NOW)
    remembering = Verifier(store)
    for step in steps:
        if isinstance(step, News):
            _offer(store, lists()[step.sequence])
        else:
            assert answer(remembering, step) == answer(Verifier(store), step)


def _offer(store: TrustStore, offered: SignedStatement) -> None:
    held = store.held("350200")
    assert held is not None
    if TrustList.FromString(offered.payload).sequence >= held.sequence:
        store.offer(offered, NOW)
