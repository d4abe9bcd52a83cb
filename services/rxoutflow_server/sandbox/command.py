"""``sandbox``: five regions with their platforms, hospitals and pharmacies, on this machine.

Two of the regions only pay.

Without ``--run`` it stays up until Ctrl-C and shows whom to call where. With ``--run`` it runs a
Python script against the constellation and ends with the script's exit status. Either way nothing
is left running. Everything in it is synthetic, and its servers listen on the loopback interface
only. An error that the user can mend ends with exit status 2, a failed server with 1.

``sandbox-region`` stops a region of a running sandbox, as a power cut does, and starts it again.
"""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import click
from rich import box
from rich.console import Console
from rich.table import Table

from rxoutflow.errors import InvalidInput
from rxoutflow.sandbox_switch import start_region, stop_region
from rxoutflow_server.reference import ReferenceDataError
from rxoutflow_server.sandbox.constellation import CONSTELLATION_FILE, PAYERS_FILE
from rxoutflow_server.sandbox.layout import Outcome, Prepared, SandboxError, prepare
from rxoutflow_server.sandbox.running import Running, running
from rxoutflow_server.sandbox.supervisor import GRACE_SECONDS, ProcessError, leash
from rxoutflow_server.sandbox.switch import Switch, switch_of
from rxoutflow_server.sandbox.wiring import platform_service

DEFAULT_DIRECTORY = Path("sandbox")

_INTERRUPTED = 130
_WATCH_SECONDS = 0.5
_SCRIPT_SECONDS = 0.05
_OUTCOMES = {
    Outcome.MADE: "made a sandbox in",
    Outcome.REUSED: "using the sandbox in",
    Outcome.RENEWED: "certificates were about to lapse: made anew, without data, the sandbox in",
}


class BadInput(click.ClickException):
    """The directory or the script cannot be used."""

    exit_code = 2


@click.command("sandbox", context_settings={"ignore_unknown_options": True})
@click.option(
    "--dir",
    "directory",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where to keep the sandbox: ./sandbox by default, with --run a temporary directory.",
)
@click.option(
    "--keep-data/--fresh",
    "keep_data",
    default=True,
    help="Go on with the data that is there (default), or throw it away.",
)
@click.option(
    "--run",
    "script",
    metavar="SCRIPT",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Run this Python script with --sandbox DIR/sandbox.json, and end as it ends.",
)
@click.argument("arguments", metavar="[ARGS]...", nargs=-1, type=click.UNPROCESSED)
def sandbox(
    directory: Path | None, keep_data: bool, script: Path | None, arguments: tuple[str, ...]
) -> None:
    """Run a synthetic constellation of five regions; ARGS go to SCRIPT."""
    if arguments and script is None:
        raise click.UsageError(f"unexpected {shlex.join(arguments)}: arguments go to --run SCRIPT")
    try:
        with _signals_as_interrupts(), ExitStack() as stack:
            place = directory or _default_directory(stack, temporary=script is not None)
            status = _run(place, fresh=not keep_data, script=script, arguments=arguments)
            if status and directory is None:
                _tell(f"{script} ended with exit status {status}; --dir DIR keeps the logs")
    except (SandboxError, ReferenceDataError) as error:
        raise BadInput(str(error)) from error
    except ProcessError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        status = _INTERRUPTED
    sys.exit(status)


@click.command("sandbox-region")
@click.argument("verb", type=click.Choice(["stop", "start"]))
@click.argument("code")
@click.option(
    "--dir",
    "directory",
    metavar="DIR",
    default=DEFAULT_DIRECTORY,
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder of a sandbox that runs.",
)
def sandbox_region(verb: str, code: str, directory: Path) -> None:
    """Stop or start the platform of region CODE in a sandbox, to see what the others do."""
    turn = stop_region if verb == "stop" else start_region
    try:
        turn(directory, code)
    except InvalidInput as error:
        raise BadInput(str(error)) from error


def _default_directory(stack: ExitStack, *, temporary: bool) -> Path:
    if not temporary:
        return DEFAULT_DIRECTORY
    folder = stack.enter_context(TemporaryDirectory(prefix="rxoutflow-"))
    return Path(folder) / "sandbox"


def _run(directory: Path, *, fresh: bool, script: Path | None, arguments: tuple[str, ...]) -> int:
    prepared = prepare(directory, _now(), fresh=fresh, files=(CONSTELLATION_FILE, PAYERS_FILE))
    _tell(f"{_OUTCOMES[prepared.outcome]} {prepared.layout.directory}")
    _tell(f"starting {_described(prepared)} ...")
    with running(prepared, _now, tell=_tell) as up, switch_of(up) as switch:
        if script is not None:
            return _run_script(up, switch, script, arguments)
        return _stay(up, switch)


def _stay(up: Running, switch: Switch) -> int:
    """Stay until somebody interrupts, which is the ordinary end."""
    try:
        show(up, Console())
        while True:
            switch.serve(_WATCH_SECONDS)
            up.supervisor.check()
    except KeyboardInterrupt:
        _tell("stopping ...")
        return 0


def _run_script(up: Running, switch: Switch, script: Path, arguments: tuple[str, ...]) -> int:
    command = (sys.executable, str(script), "--sandbox", str(up.layout.announcement), *arguments)
    process = subprocess.Popen(command, preexec_fn=leash())  # noqa: S603 - the user's own script
    try:
        while process.poll() is None:
            switch.serve(_SCRIPT_SECONDS)
        return _exit_status(process.returncode)
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Leave the script time to clean up after an interrupt, but not for ever."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _exit_status(code: int) -> int:
    """As shells count: a script that was ended by a signal is 128 and the signal."""
    return code if code >= 0 else 128 - code


@contextmanager
def _signals_as_interrupts() -> Iterator[None]:
    """Let a request to end, or a lost terminal, clean up as Ctrl-C does."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # also where a shell ignores some
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def show(up: Running, console: Console) -> None:
    """Tell people whom they can call where, and what to try first."""
    constellation = up.wiring.constellation
    table = Table(box=box.SIMPLE)
    for heading in ("actor", "region", "endpoint"):
        table.add_column(heading, no_wrap=True)
    table.add_column("name", overflow="fold")
    for region in constellation.regions:
        target = up.wiring.target(platform_service(region))
        table.add_row("platform", region.code, target, f"{region.name}平台（合成）")
        for each in region.institutions:
            service = each.actor if each.has_edge else platform_service(region)
            table.add_row(each.actor, region.code, up.wiring.target(service), each.name)
    console.print(table)
    console.print("Try, in another terminal:")
    for command in _first_commands(up):
        console.print(f"  {command}", soft_wrap=True, highlight=False, markup=False)
    console.print("Ctrl-C stops everything.")


def _first_commands(up: Running) -> list[str]:
    directory = shlex.quote(str(up.layout.directory))
    client = f"rxoutflow --sandbox {directory} --as"
    return [
        f"{client} xiamen-hospital issue clients/prescriptions/diabetes.json",
        f"{client} xiamen-pharmacy claim CODE     then quote, commit, dispense",
        f"{client} xiamen-regulator trace NUMBER",
        f"python clients/demo.py --sandbox {shlex.quote(str(up.layout.announcement))}",
        f"rxoutflow-server sandbox-region stop 320600 --dir {directory}     and start it again",
        f"tail -f {directory}/logs/*.log",
    ]


def _described(prepared: Prepared) -> str:
    regions = prepared.constellation.regions
    edges = sum(each.has_edge for each in prepared.constellation.institutions)
    return f"{len(regions)} platforms and {edges} edge services"


def _tell(line: str) -> None:
    click.echo(line, err=True)


def _now() -> datetime:
    return datetime.now(UTC)
