"""``rxoutflow-server`` as an operator meets it: checked configurations, and starts that fail.

Whatever is wrong is told by file and key with what to do, exit status 2, and never a traceback.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rxoutflow_server.sandbox.layout import prepare
from rxoutflow_server.sandbox.wiring import Wiring, choose_ports, services
from rxoutflow_server.storage.sqlite import SqliteStore
from support.sandbox import run_program


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sandbox's directory with every configuration, and nothing running."""
    now, directory = datetime.now(UTC), tmp_path_factory.mktemp("command") / "sandbox"
    prepared = prepare(directory, now)
    names = [each.name for each in services(prepared.layout, prepared.constellation)]
    Wiring(prepared.layout, prepared.constellation, choose_ports(names)).write(now)
    return directory


@pytest.fixture
def box(made: Path, tmp_path: Path) -> Path:
    """A copy of it, to spoil."""
    return shutil.copytree(made, tmp_path / "sandbox")


CONFIGURATIONS = [
    ("platform", "platforms/350200/platform.toml"),
    ("hospital", "edges/quanzhou-hospital/hospital.toml"),
    ("pharmacy", "edges/nantong-pharmacy/pharmacy.toml"),
]


@pytest.mark.parametrize(("role", "file"), CONFIGURATIONS)
def test_a_good_configuration_is_ok(made: Path, role: str, file: str) -> None:
    done = run_program("rxoutflow-server", role, "--config", made / file, "--check")
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")


@pytest.mark.parametrize(("role", "file"), CONFIGURATIONS)
def test_everything_that_is_wrong_is_told_at_once_by_file_and_key(
    box: Path, role: str, file: str
) -> None:
    config = box / file
    spoil(config, "listen", "lisen")
    spoil(config, 'level = "info"', 'level = "loud"')
    spoil(config, 'path = "', 'path = "gone/')
    done = run_program("rxoutflow-server", role, "--config", config, "--check")
    problems = told(done)
    for key, advice in [
        ("lisen", "did you mean listen?"),
        ("listen", "is missing"),
        ("log.level", "use one of debug, info, warning, error"),
        ("store.path", "does not exist; create it"),
    ]:
        (problem,) = [line for line in problems if line.startswith(f"{config}: {key}: ")]
        assert advice in problem
    assert len(problems) == 4


@pytest.mark.parametrize(
    ("spoilt", "words"),
    [
        ("platform.key", "platform.toml: tls.key: "),
        ("350500.trustlist", "platform.toml: trust.folder: "),
        ("catalogue", "350200.csv cannot be used:"),
    ],
)
def test_a_damaged_file_is_named(box: Path, spoilt: str, words: str) -> None:
    config = box / "platforms/350200/platform.toml"
    document = tomllib.loads(config.read_text())
    damaged = {
        "platform.key": config.parent / document["tls"]["key"],
        "350500.trustlist": config.parent / document["trust"]["folder"] / "350500.trustlist",
        "catalogue": config.parent / document["reference"]["catalogue"],
    }[spoilt]
    damaged.write_bytes(damaged.read_bytes()[:-130])
    done = run_program("rxoutflow-server", "platform", "--config", config, "--check")
    problems = told(done)
    assert words in problems[0], problems


@pytest.mark.parametrize("content", [None, "region = ", "\0"])
def test_what_is_no_configuration_is_told(tmp_path: Path, content: str | None) -> None:
    config = tmp_path / "platform.toml"
    if content is not None:
        config.write_text(content)
    done = run_program("rxoutflow-server", "platform", "--config", config)
    (problem,) = told(done)
    assert problem.startswith(f"{config}: ")


def test_a_configuration_of_another_role_is_told(made: Path) -> None:
    config = made / "edges/xiamen-hospital/hospital.toml"
    done = run_program("rxoutflow-server", "platform", "--config", config, "--check")
    assert any("pickup.hash_key_file: is missing" in line for line in told(done))


@pytest.mark.parametrize(("role", "file"), CONFIGURATIONS)
def test_a_port_that_is_taken_is_told(made: Path, role: str, file: str) -> None:
    config = made / file
    listen = str(tomllib.loads(config.read_text())["listen"])
    host, _, port = listen.rpartition(":")
    with socket.create_server((host, int(port))):
        done = run_program("rxoutflow-server", role, "--config", config)
    (problem,) = told(done)
    assert listen in problem
    assert "`listen`" in problem


async def test_a_store_that_another_process_has_is_told(box: Path) -> None:
    config = box / "edges/xiamen-hospital/hospital.toml"
    async with SqliteStore.open(config.with_name("edge.db"), "edge"):
        done = run_program("rxoutflow-server", "hospital", "--config", config)
    (problem,) = told(done)
    assert "edge.db is open in another process" in problem


def spoil(config: Path, before: str, after: str) -> None:
    text = config.read_text()
    assert text.count(before) == 1
    config.write_text(text.replace(before, after))


def told(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The problems that a command tells before it ends with status 2."""
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return [line for line in done.stderr.splitlines() if not line.startswith('{"')]
