"""Children start together, tell when they are ready, and never outlive their parent.

A child here holds a named pipe open for writing; reading the pipe to its end is how a test knows
that the child is gone, without waiting for a time.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rxoutflow_server.sandbox.supervisor import ProcessError, Program, Supervisor

READY = 'print(\'{"event": "ready", "address": "127.0.0.1:1"}\', flush=True)'
STAY = "import signal; signal.pause()"


def program(name: str, code: str) -> Program:
    return Program(name, (sys.executable, "-c", code))


class Pulse:
    """A named pipe that a child holds open for as long as it lives."""

    def __init__(self, folder: Path, name: str = "pulse") -> None:
        self._path = folder / name
        os.mkfifo(self._path)
        self._beat = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def code(self) -> str:
        return (
            f"import os; pulse = os.open({str(self._path)!r}, os.O_WRONLY); os.write(pulse, b'1')"
        )

    def ended(self) -> bool:
        """Wait for the end of a child that began."""
        self._reader.join(30)
        return not self._reader.is_alive() and self._beat == b"1"

    def _read(self) -> None:
        self._beat = self._path.read_bytes()


def test_programs_are_started_together_and_stopped_in_the_end(tmp_path: Path) -> None:
    pulses = [Pulse(tmp_path, name) for name in ("one", "two")]
    codes = [f"{pulse.code}\n{READY}\n{STAY}" for pulse in pulses]
    with Supervisor(tmp_path) as supervisor:
        supervisor.start([program("first", codes[0]), program("second", codes[1])])
        supervisor.check()
    assert all(pulse.ended() for pulse in pulses)


def test_a_ready_line_is_found_among_other_output(tmp_path: Path) -> None:
    noise = "print('not ready'); print('[\"ready\"]'); print('{\"event\": \"starting\"}')"
    with Supervisor(tmp_path) as supervisor:
        supervisor.start([program("noisy", f"{noise}\n{READY}\nprint('later')\n{STAY}")])


@pytest.mark.parametrize(
    "output",
    ["not ready", '[\\"ready\\"]', '{\\"event\\": \\"almost ready\\"}', '{\\"ready\\": true'],
)
def test_a_program_that_never_gets_ready_is_reported_with_the_end_of_its_log(
    tmp_path: Path, output: str
) -> None:
    lines = f'print("first words"); print("{output}", flush=True)'
    with (
        Supervisor(tmp_path, ready_seconds=0.5) as supervisor,
        pytest.raises(ProcessError, match="slow was not ready after") as caught,
    ):
        supervisor.start([program("slow", f"{lines}\n{STAY}")])
    assert "first words" in str(caught.value)
    assert str(tmp_path / "slow.log") in str(caught.value)


def test_a_program_that_ends_early_is_reported_at_once_with_its_reason(tmp_path: Path) -> None:
    fails = "import sys; print('store: no such folder', file=sys.stderr); sys.exit(2)"
    with (
        Supervisor(tmp_path) as supervisor,
        pytest.raises(ProcessError, match="broken ended with exit status 2") as caught,
    ):
        supervisor.start([program("well", STAY), program("broken", fails)])
    assert "store: no such folder" in str(caught.value)


def test_a_program_that_dies_later_is_noticed(tmp_path: Path) -> None:
    pulse = Pulse(tmp_path)
    dies = f"{pulse.code}\n{READY}\nimport os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    with Supervisor(tmp_path) as supervisor:
        try:
            supervisor.start([program("victim", dies)])
            assert pulse.ended()
            while True:  # the end of the pipe comes a moment before the end of the process
                supervisor.check()
        except ProcessError as error:
            assert "victim ended by SIGKILL" in str(error)  # noqa: PT017 - raised by either call


def test_an_error_in_the_context_stops_the_children_and_passes_through(tmp_path: Path) -> None:
    pulse = Pulse(tmp_path)

    def fail_while_it_runs() -> None:
        with Supervisor(tmp_path) as supervisor:
            supervisor.start([program("child", f"{pulse.code}\n{READY}\n{STAY}")])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_while_it_runs()
    assert pulse.ended()


def test_one_failure_stops_the_others_too(tmp_path: Path) -> None:
    pulse = Pulse(tmp_path)
    with Supervisor(tmp_path) as supervisor:
        supervisor.start([program("well", f"{pulse.code}\n{READY}\n{STAY}")])
        with pytest.raises(ProcessError):
            supervisor.start([program("broken", "raise SystemExit(1)")])
    assert pulse.ended()


def test_children_are_asked_to_stop_before_they_are_killed(tmp_path: Path) -> None:
    polite = (
        "import signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('goodbye', flush=True), sys.exit(0)))\n"
        f"{READY}\nwhile True: signal.pause()"
    )
    with Supervisor(tmp_path) as supervisor:
        supervisor.start([program("polite", polite)])
    assert (tmp_path / "polite.log").read_text().endswith("goodbye\n")


def test_a_child_that_does_not_want_to_stop_is_killed(tmp_path: Path) -> None:
    pulse = Pulse(tmp_path)
    deaf = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{pulse.code}\n{READY}\n"
    with Supervisor(tmp_path, grace_seconds=0.1) as supervisor:
        supervisor.start([program("deaf", deaf + "while True: signal.pause()")])
    assert pulse.ended()


def test_a_command_that_does_not_exist_stops_those_started_before(tmp_path: Path) -> None:
    pulse = Pulse(tmp_path)
    with Supervisor(tmp_path) as supervisor:
        supervisor.start([program("well", f"{pulse.code}\n{READY}\n{STAY}")])
        with pytest.raises(FileNotFoundError):
            supervisor.start([Program("missing", (str(tmp_path / "nothing"),))])
    assert pulse.ended()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can kill children with a parent")
def test_children_die_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    pulse = Pulse(tmp_path)
    parent = f"""
import os, signal, sys
from pathlib import Path
from rxoutflow_server.sandbox.supervisor import Program, Supervisor
code = {pulse.code + chr(10) + READY + chr(10) + STAY!r}
with Supervisor(Path({str(tmp_path)!r})) as supervisor:
    supervisor.start([Program("child", (sys.executable, "-c", code))])
    os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", parent], check=False, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    assert pulse.ended()
