"""Let a region of a sandbox go away and come back, to see what the others make of it.

Whoever started the sandbox listens on a Unix socket, whose path is in the file ``switch`` of the
sandbox's folder. A request is one line, ``stop 320600`` or ``start 320600``; the answer is ``ok``,
or what is wrong. Stopping is a power cut: the platform's process is killed, and what it stored is
all that is left of it. Real regions have no such switch.
"""

from __future__ import annotations

import socket
from pathlib import Path

from rxoutflow.errors import InvalidInput

SWITCH_FILE = "switch"
OK = "ok"

_SECONDS = 90.0
"""Longer than the sandbox gives a server to get ready."""


def stop_region(folder: Path, region_code: str) -> None:
    """Kill the region's platform; its institutions' edge services stay.

    Raises:
        InvalidInput: no such sandbox runs, or it has no such region, or the region is down already.
    """
    _turn(folder, f"stop {region_code}")


def start_region(folder: Path, region_code: str) -> None:
    """Start the region's platform again, with what it had stored, and wait until it is ready.

    Raises:
        InvalidInput: no such sandbox runs, or it has no such region, or the region is not down.
    """
    _turn(folder, f"start {region_code}")


def _turn(folder: Path, request: str) -> None:
    try:
        answer = _asked((folder / SWITCH_FILE).read_text("utf-8"), request)
    except OSError as error:
        raise InvalidInput(
            f"{folder}: no sandbox that `rxoutflow-server sandbox` runs answers there: "
            f"{error.strerror or error}"
        ) from error
    if answer != OK:
        raise InvalidInput(answer or "the sandbox ended")


def _asked(path: str, request: str) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_SECONDS)
        connection.connect(path)
        connection.sendall(f"{request}\n".encode())
        with connection.makefile(encoding="utf-8") as answers:
            return answers.readline().rstrip("\n")
