"""A sandbox is announced while it works, and only then; the command ends as its script ends.

The servers here are stand-ins that read their configuration, bind their port and say that they are
ready.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rxoutflow.profile import load_sandbox
from rxoutflow_server.sandbox import command as sandbox_command
from rxoutflow_server.sandbox.layout import Prepared, SandboxError, prepare
from rxoutflow_server.sandbox.running import running, server_command
from rxoutflow_server.sandbox.supervisor import ProcessError
from rxoutflow_server.sandbox.wiring import Service

STAND_IN = """
import json, signal, socket, sys, tomllib
config = tomllib.load(open(sys.argv[1], "rb"))
host, port = config["listen"].split(":")
listener = socket.create_server((host, int(port)), reuse_port=False)
print(json.dumps({"event": "ready", "address": config["listen"]}), flush=True)
signal.pause()
"""


def stand_in(service: Service) -> Sequence[str]:
    return (sys.executable, "-c", STAND_IN, str(service.config))


def broken(service: Service) -> Sequence[str]:
    return (sys.executable, "-c", "raise SystemExit('store: not readable')")


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    return prepare(tmp_path / "box", now())


def port_of(target: str) -> int:
    return int(target.rpartition(":")[2])


def answers(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


def test_the_announcement_is_there_only_while_everything_works(prepared: Prepared) -> None:
    file = prepared.layout.announcement
    with running(prepared, now, tell=print, command=stand_in):
        sandbox = load_sandbox(file)
        ports = {port_of(sandbox.profile(actor).endpoint.target) for actor in sandbox.profiles}
        assert all(answers(port) for port in ports)
        assert sandbox.region_names == {"350200": "厦门", "350500": "泉州", "320600": "南通"}
    assert not file.exists()
    assert not any(answers(port) for port in ports)


def test_it_runs_twice_in_a_row_with_rising_trust_lists(prepared: Prepared) -> None:
    sequences = []
    for _ in range(2):
        with running(prepared, now, tell=print, command=stand_in):
            sequences.append(json.loads(prepared.layout.state.read_text())["trust_sequence"])
    assert sequences == [1, 2]


def test_a_sandbox_that_runs_is_not_started_twice(prepared: Prepared) -> None:
    with running(prepared, now, tell=print, command=stand_in):
        with (
            pytest.raises(SandboxError, match="is running: stop it first"),
            running(prepared, now, tell=print, command=stand_in),
        ):
            pass
        assert prepared.layout.announcement.exists()


def test_an_announcement_that_a_killed_sandbox_left_is_not_believed(prepared: Prepared) -> None:
    prepared.layout.announcement.write_text("{}")
    with pytest.raises(ProcessError), running(prepared, now, tell=print, command=broken):
        pass
    assert not prepared.layout.announcement.exists()


def test_a_server_that_does_not_start_is_named_with_its_reason(prepared: Prepared) -> None:
    with (
        pytest.raises(ProcessError, match="ended with exit status 1") as caught,
        running(prepared, now, tell=print, command=broken),
    ):
        pass
    assert "store: not readable" in str(caught.value)


def test_other_ports_are_tried_when_one_is_taken_in_between(prepared: Prepared) -> None:
    told: list[str] = []
    with ExitStack() as stack:

        def taken_once(service: Service) -> Sequence[str]:
            if service.name == "xiamen-hospital" and not told:
                port = port_of(tomllib.loads(service.config.read_text())["listen"])
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return stand_in(service)

        with running(prepared, now, tell=told.append, command=taken_once) as up:
            assert all(answers(port) for port in up.wiring.ports.values())
    assert len(told) == 1
    assert "xiamen-hospital tries another" in told[0]


def test_servers_are_run_by_this_interpreter_with_their_configuration() -> None:
    service = Service("platform-350200", "platform", Path("/box/platform.toml"))
    assert list(server_command(service)) == [
        sys.executable, "-m", "rxoutflow_server", "platform", "--config", "/box/platform.toml"
    ]  # fmt: skip


# --- the command ---------------------------------------------------------------------------------


@pytest.fixture
def with_stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_command, "running", partial(running, command=stand_in))


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(sandbox_command.sandbox, [str(each) for each in arguments])


def script(folder: Path, code: str) -> Path:
    file = folder / "script.py"
    file.write_text(code)
    return file


@pytest.mark.usefixtures("with_stand_ins")
@pytest.mark.parametrize("status", [0, 3])
def test_run_ends_with_the_status_of_the_script(tmp_path: Path, status: int) -> None:
    file = script(tmp_path, f"raise SystemExit({status})")
    assert invoke("--run", file).exit_code == status


@pytest.mark.usefixtures("with_stand_ins")
def test_run_gives_the_script_the_sandbox_and_its_arguments(tmp_path: Path) -> None:
    seen = tmp_path / "seen.json"
    file = script(
        tmp_path,
        "import json, sys, pathlib\n"
        "there = pathlib.Path(sys.argv[2]).exists()\n"
        f"pathlib.Path({str(seen)!r}).write_text(json.dumps([there, *sys.argv[1:]]))",
    )
    assert invoke("--run", file, "--report", "out.json").exit_code == 0
    there, option, sandbox, *rest = json.loads(seen.read_text())
    assert there
    assert (option, rest) == ("--sandbox", ["--report", "out.json"])
    assert not Path(sandbox).parent.exists(), "a temporary sandbox is removed"


@pytest.mark.usefixtures("with_stand_ins")
def test_run_with_a_directory_keeps_it(tmp_path: Path) -> None:
    file = script(tmp_path, "")
    for said in ("made a sandbox in", "using the sandbox in"):
        result = invoke("--dir", tmp_path / "box", "--run", file)
        assert result.exit_code == 0
        assert said in result.output
    assert (tmp_path / "box" / "logs" / "platform-350200.log").exists()


@pytest.mark.usefixtures("with_stand_ins")
def test_a_script_that_is_killed_counts_as_shells_count(tmp_path: Path) -> None:
    file = script(tmp_path, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert invoke("--run", file).exit_code == 128 + signal.SIGKILL


def test_a_foreign_directory_is_refused_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    result = invoke("--dir", tmp_path)
    assert result.exit_code == 2
    assert "name a new or empty directory" in result.output


@pytest.mark.parametrize("arguments", [["--frehs"], ["extra"]])
def test_misspelt_options_are_refused(arguments: list[str]) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert arguments[0] in result.output


MAIN = f"""
import sys
from functools import partial
from rxoutflow_server.sandbox import command
from rxoutflow_server.sandbox.running import running
def stand_in(service):
    return (sys.executable, "-c", {STAND_IN!r}, str(service.config))
command.running = partial(running, command=stand_in)
command.sandbox()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_everything_and_is_the_ordinary_end(
    tmp_path: Path, number: signal.Signals
) -> None:
    box = tmp_path / "box"
    with subprocess.Popen(
        [sys.executable, "-c", MAIN, "--dir", str(box)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    ) as process:
        assert process.stdout is not None
        shown = "".join(iter(process.stdout.readline, "Ctrl-C stops everything.\n"))
        actors = json.loads((box / "sandbox.json").read_text())["actors"]
        ports = [
            port_of(json.loads((box / actor["profile"]).read_text())["endpoint"]["target"])
            for actor in actors.values()
        ]
        assert all(answers(port) for port in ports)
        process.send_signal(number)
        assert process.wait(60) == 0
    assert all(actor in shown for actor in actors)
    assert not (box / "sandbox.json").exists()
    assert not any(answers(port) for port in ports)


def test_an_interrupted_script_is_stopped_and_the_status_says_so(tmp_path: Path) -> None:
    file = script(tmp_path, "import signal\nprint('began', flush=True)\nsignal.pause()")
    with subprocess.Popen(
        [sys.executable, "-c", MAIN, "--run", str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "began\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "", "the script holds the pipe until it is gone"
        assert process.wait(60) == 130
