"""Regions that go away in the middle of a settlement, and what is left to do when they come back.

The payer's platform is killed between the quote and the commit, the home region's between commit
and handover. Nobody is told anything that is not so, and nothing has to be repaired by hand. While
the payer is down, somebody changes a figure in its books: the daily comparison names it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from demonstration import desk
from demonstration.cases import HOME_AWAY, PAYER_AWAY
from demonstration.filling import claimed, completed, hand_over, priced, progress_of, quoted
from demonstration.report import Filled, Scene
from demonstration.stage import CITIES, Stage, until
from rxoutflow.client import Patience, PharmacyClient
from rxoutflow.errors import Indefinite
from rxoutflow.sandbox_switch import start_region, stop_region
from rxoutflow.v1.dispense_pb2 import DispenseProgress
from rxoutflow.v1.pos_service_pb2 import PosServiceCommitClaimRequest

HASTY = Patience(attempts=1, call_timeout=15.0)
"""Asks once, so that the first answer shows."""


@contextmanager
def down(stage: Stage, city: str) -> Iterator[None]:
    """A region whose platform is dead for as long as the context lasts."""
    folder, code = stage.sandbox.directory, CITIES[city]
    stop_region(folder, code)
    try:
        yield
    finally:
        start_region(folder, code)


def payer_away(stage: Stage) -> None:
    """The payer goes away between quote and commit: hold nothing, hand nothing over, then do."""
    scene, case = (
        stage.report.scene("南通, the payer, goes away between quote and commit"),
        PAYER_AWAY,
    )
    client, issued = stage.pharmacies[case.pharmacy], stage.issue(case.file, case.hospital)
    attempt = claimed(stage, case, issued)
    lines = priced(client, case, issued, attempt)
    request = client.commit_request(attempt, lines, quoted(stage, case, attempt, lines))
    scene.note("claimed and quoted", "the patient accepts")
    with down(stage, "nantong"):
        told = _told(client, request)
        scene.note("its platform is killed; the pharmacy commits", told)
        stage.report.check("the pharmacy is told that the payer is not reached", bool(told), told)
        state = client.progress(attempt).progress.state
        stage.report.check(
            "no permission to hand over without the payer's hold",
            state == DispenseProgress.STATE_COMMITTING,
            DispenseProgress.State.Name(state),
        )
        desk.plant_and_find(stage, stage.report.filled[0])
    committed = client.send_commit(request)
    scene.note("it is started; the same request again", "held and committed: hand over")
    filled, _ = hand_over(stage, case, issued, committed)
    _converge(stage, scene, filled)
    _check_steps(stage, filled, "held", "committed", "handed over", "posted")


def home_away(stage: Stage) -> None:
    """Home goes away after its commit: the handover is recorded, and booked and paid later."""
    scene, case = stage.report.scene("厦门, the home region, goes away after the commit"), HOME_AWAY
    client, issued = stage.pharmacies[case.pharmacy], stage.issue(case.file, case.hospital)
    attempt = claimed(stage, case, issued)
    lines = priced(client, case, issued, attempt)
    committed = client.commit(attempt, lines, quoted(stage, case, attempt, lines))
    scene.note("held and committed", "hand over")
    with down(stage, "xiamen"):
        filled, recorded = hand_over(stage, case, issued, committed)
        scene.note("its platform is killed; the handover is recorded", "accepted by 泉州")
        accepted = recorded is not None and recorded.state == DispenseProgress.STATE_DISPENSED
        stage.report.check("the record is accepted while home is away", accepted, str(recorded))
        waiting = desk.undelivered(stage)
        stage.report.check("what home has to hear waits", waiting > 0, str(waiting))
        progress = progress_of(stage, filled)
        unpaid = not (progress.booked_by_home or progress.posted_by_payer)
        scene.note("meanwhile", "what it has to hear waits; not booked, and so not paid")
        stage.report.check("the payer does not pay before home has booked", unpaid)
    scene.note("it is started", "it hears what has waited")
    _converge(stage, scene, filled)
    _check_steps(stage, filled, "committed", "handed over", "dispense booked", "posted")


def _told(client: PharmacyClient, request: PosServiceCommitClaimRequest) -> str:
    """What the pharmacy hears when it commits; nothing if it were given permission."""
    with PharmacyClient(client.profile, patience=HASTY) as hasty:
        try:
            hasty.send_commit(request)
        except Indefinite as error:
            return error.reason
    return ""


def _converge(stage: Stage, scene: Scene, filled: Filled) -> None:
    done = until(lambda: completed(stage, filled))
    stage.report.check("back again: booked by home, posted by the payer", done, filled.state)
    empty = until(lambda: not desk.undelivered(stage))
    stage.report.check("all outboxes are empty", empty, str(desk.undelivered(stage)))
    scene.note("booked by home, posted by the payer", "all outboxes empty")


def _check_steps(stage: Stage, filled: Filled, *steps: str) -> None:
    """Each step once, one after another, as three regions stored them."""
    until(lambda: set(steps) <= stage.actions(filled.issued.number))
    actions = [event.action for event in stage.trace(filled.issued.number)]
    in_order = [action for action in actions if action in steps] == list(steps)
    stage.report.check(f"exactly once and in order: {', '.join(steps)}", in_order, str(actions))
