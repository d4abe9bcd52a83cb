"""The switch of a running sandbox: stops and starts regions for ``rxoutflow.sandbox_switch``.

Whoever runs the sandbox gives the switch a moment again and again; it answers a request at a time
and does nothing in between. The socket is in a folder of its own that only its user can enter,
with a short path, as sockets need; the sandbox's folder says where it is for as long as it works.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from rxoutflow.sandbox_switch import OK, SWITCH_FILE
from rxoutflow_server.sandbox.running import Running
from rxoutflow_server.sandbox.supervisor import ProcessError, Supervisor
from rxoutflow_server.sandbox.wiring import platform_service

_REQUEST_SECONDS = 2.0
"""How long a caller may take to say what it wants."""


class Switch:
    """Answers requests to stop and start regions."""

    def __init__(
        self, listener: socket.socket, supervisor: Supervisor, platforms: Mapping[str, str]
    ) -> None:
        """``platforms`` are the names of the platforms' processes by region."""
        self._listener = listener
        self._supervisor = supervisor
        self._platforms = platforms

    def serve(self, seconds: float) -> None:
        """Wait that long for a request, and answer it if one comes."""
        self._listener.settimeout(seconds)
        try:
            connection, _ = self._listener.accept()
        except TimeoutError:
            return
        with connection:
            connection.settimeout(_REQUEST_SECONDS)
            try:
                with connection.makefile(encoding="utf-8") as requests:
                    answer = self._answer(requests.readline().split())
                connection.sendall(f"{answer}\n".encode())
            except (OSError, UnicodeDecodeError):
                return  # the caller went away, or is none of ours

    def _answer(self, request: list[str]) -> str:
        verb, region = request if len(request) == 2 else ("", "")
        name = self._platforms.get(region)
        if verb not in ("stop", "start") or name is None:
            return f"say stop or start, and one of the regions {', '.join(self._platforms)}"
        up = name in self._supervisor.pids()
        if up == (verb == "start"):
            return f"region {region} is {'up' if up else 'down'} already"
        try:
            (self._supervisor.kill if up else self._supervisor.restart)([name])
        except ProcessError as error:
            return f"region {region} does not start: see {error.log}"
        return OK


@contextmanager
def switch_of(up: Running) -> Iterator[Switch]:
    """The switch of a running sandbox, for as long as the context lasts."""
    names = {region.code: platform_service(region) for region in up.wiring.constellation.regions}
    place = up.layout.directory / SWITCH_FILE
    with TemporaryDirectory(prefix="rxoutflow-") as folder, socket.socket(socket.AF_UNIX) as own:
        path = str(Path(folder) / SWITCH_FILE)
        own.bind(path)
        own.listen()
        place.write_text(path, "utf-8")
        try:
            yield Switch(own, up.supervisor, names)
        finally:
            place.unlink(missing_ok=True)
