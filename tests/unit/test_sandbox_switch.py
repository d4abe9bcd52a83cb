"""A region of a running sandbox can be stopped, as by a power cut, and started again."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

from rxoutflow.errors import InvalidInput
from rxoutflow.sandbox_switch import SWITCH_FILE, start_region, stop_region
from rxoutflow_server.cli import main
from rxoutflow_server.sandbox import command as sandbox_command
from rxoutflow_server.sandbox.constellation import CONSTELLATION_FILE, PAYERS_FILE
from rxoutflow_server.sandbox.layout import SandboxError, prepare
from rxoutflow_server.sandbox.running import Running, running
from rxoutflow_server.sandbox.switch import Switch, switch_of
from rxoutflow_server.sandbox.wiring import Service

FIVE = (CONSTELLATION_FILE, PAYERS_FILE)
STAND_IN = """
import json, signal, socket, sys, tomllib
config = tomllib.load(open(sys.argv[1], "rb"))
host, port = config["listen"].split(":")
listener = socket.create_server((host, int(port)))
print(json.dumps({"event": "ready"}), flush=True)
signal.pause()
"""


def stand_in(service: Service) -> Sequence[str]:
    return (sys.executable, "-c", STAND_IN, str(service.config))


def now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Box:
    """A sandbox that runs, and whoever turns its switch."""

    up: Running
    switch: Switch
    callers: ThreadPoolExecutor

    @property
    def folder(self) -> Path:
        return self.up.layout.directory

    def turn(self, call: Callable[[Path, str], None], region: str) -> None:
        """Call from elsewhere, while the sandbox serves."""
        caller = self.callers.submit(call, self.folder, region)
        while not caller.done():
            self.switch.serve(0.02)
        caller.result()

    def answers(self, service: str) -> bool:
        with socket.socket() as caller:
            return caller.connect_ex(("127.0.0.1", self.up.wiring.ports[service])) == 0


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    prepared = prepare(tmp_path / "box", now())
    with (
        running(prepared, now, tell=print, command=stand_in) as up,
        switch_of(up) as switch,
        ThreadPoolExecutor(1) as callers,
    ):
        yield Box(up, switch, callers)


def test_a_region_goes_away_and_comes_back_at_the_same_address(box: Box) -> None:
    assert box.answers("platform-320600")
    box.turn(stop_region, "320600")
    assert not box.answers("platform-320600")
    assert box.answers("platform-350200")
    assert box.answers("nantong-pharmacy"), "edge services are not the region's"
    box.up.supervisor.check()
    box.turn(start_region, "320600")
    assert box.answers("platform-320600")
    logs = sorted(path.name for path in box.up.layout.logs.glob("platform-320600*"))
    assert logs == ["platform-320600.1.log", "platform-320600.log"]


@pytest.mark.parametrize(
    ("call", "region", "words"),
    [
        (stop_region, "999999", "one of the regions 350200, 350500, 320600"),
        (stop_region, "", "one of the regions"),
        (start_region, "320600", "region 320600 is up already"),
    ],
)
def test_what_cannot_be_switched_says_so(
    box: Box, call: Callable[[Path, str], None], region: str, words: str
) -> None:
    with pytest.raises(InvalidInput, match=words):
        box.turn(call, region)
    assert box.answers("platform-320600")


def test_a_region_is_not_stopped_twice(box: Box) -> None:
    box.turn(stop_region, "320600")
    with pytest.raises(InvalidInput, match="is down already"):
        box.turn(stop_region, "320600")


def test_nonsense_and_silence_do_not_stop_the_switch(box: Box) -> None:
    path = (box.folder / SWITCH_FILE).read_text()
    for nonsense in (b"\xff\xfe\n", b""):
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(path)
            caller.sendall(nonsense)
            caller.shutdown(socket.SHUT_WR)
            box.switch.serve(1.0)
    box.turn(stop_region, "350500")
    assert not box.answers("platform-350500")


def test_the_switch_is_gone_with_the_sandbox(tmp_path: Path) -> None:
    prepared = prepare(tmp_path / "box", now())
    with running(prepared, now, tell=print, command=stand_in) as up, switch_of(up):
        path = Path((up.layout.directory / SWITCH_FILE).read_text())
        assert path.is_socket()
        assert path.parent.stat().st_mode & 0o077 == 0, "only its user reaches it"
    assert not path.parent.exists()
    with pytest.raises(InvalidInput, match="no sandbox"):
        stop_region(prepared.layout.directory, "320600")


def test_without_a_sandbox_the_command_says_so(tmp_path: Path) -> None:
    command = ["sandbox-region", "stop", "320600", "--dir", str(tmp_path)]
    result = CliRunner().invoke(main, command)
    assert (result.exit_code, "no sandbox" in result.output) == (2, True)


def test_a_script_of_the_command_can_switch_all_five_regions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox_command, "running", partial(running, command=stand_in))
    script = tmp_path / "script.py"
    script.write_text(
        "import json, pathlib, sys\n"
        "from rxoutflow.sandbox_switch import start_region, stop_region\n"
        "file = pathlib.Path(sys.argv[2])\n"
        "regions = list(json.loads(file.read_text())['platforms'])\n"
        "for region in regions:\n"
        "    stop_region(file.parent, region)\n"
        "    start_region(file.parent, region)\n"
        "raise SystemExit(len(regions))\n"
    )
    result = CliRunner().invoke(sandbox_command.sandbox, ["--run", str(script)])
    assert result.exit_code == 5, result.output


def test_regions_that_only_pay_have_no_institutions_that_fill(tmp_path: Path) -> None:
    made = prepare(tmp_path / "box", now(), files=FIVE)
    codes = [region.code for region in made.constellation.regions]
    assert codes == ["350200", "350500", "320600", "430400", "610900"]
    fills = {each.region_code for each in made.constellation.institutions if each.has_edge}
    assert fills == {"350200", "350500", "320600"}
    with pytest.raises(SandboxError, match="made from other sandbox data"):
        prepare(tmp_path / "box", now())
