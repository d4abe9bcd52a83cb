"""Generates the stubs from ``protos/`` and checks that the committed ones are up to date.

``generate`` writes ``clients/rxoutflow/v1``; ``check`` also lints the contract with buf and fails
on any difference. The generator's version is pinned in ``pyproject.toml``, because stubs refuse a
runtime that is older than the generator.
"""

from __future__ import annotations

import filecmp
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import google.rpc
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
STUBS = ROOT / "clients" / "rxoutflow" / "v1"
GOOGLE = Path(next(iter(google.rpc.__path__))).parent.parent
WELL_KNOWN = Path(protoc.__file__).parent / "_proto"
SCRIPTS = Path(sys.executable).parent
LINT_DEPENDENCIES = ROOT / ".venv" / "proto-deps"
IMPORTED = ["google/api/field_behavior.proto", "google/rpc/status.proto", "google/type/date.proto"]


def generate(target: Path) -> None:
    """Write the stubs below ``target``: messages of every file, clients and servers of services."""
    sources = sorted(PROTOS.rglob("*.proto"))
    compile_protos(["python", "mypy"], sources, target)
    services = [path for path in sources if path.name.endswith("_service.proto")]
    if services:
        compile_protos(["grpc_python", "mypy_grpc"], services, target)


def compile_protos(kinds: list[str], sources: list[Path], target: Path) -> None:
    """Run the compiler once for the given kinds of output."""
    arguments = [f"--proto_path={folder}" for folder in (PROTOS, GOOGLE, WELL_KNOWN)]
    plugins = [f"--plugin={SCRIPTS / name}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")]
    outputs = [f"--{kind}_out={target}" for kind in kinds if not kind.startswith("mypy")]
    outputs += [f"--{kind}_out=quiet:{target}" for kind in kinds if kind.startswith("mypy")]
    if protoc.main(["protoc", *arguments, *plugins, *outputs, *map(str, sources)]) != 0:
        sys.exit("the contract does not compile; see above")


def lint() -> None:
    """Lint and check the format of the contract with buf."""
    for name in IMPORTED:
        copy = LINT_DEPENDENCIES / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(GOOGLE / name, copy)
    for command in (["lint"], ["format", "--diff", "--exit-code", "protos"]):
        result = subprocess.run([SCRIPTS / "buf", *command], cwd=ROOT)  # noqa: S603 - our own arguments
        if result.returncode != 0:
            sys.exit("buf finds fault with the contract; see above")


def differences(fresh: Path) -> list[str]:
    """Names of stubs that are missing, superfluous or different from freshly generated ones."""
    names = {path.name for folder in (fresh, STUBS) for path in folder.glob("*_pb2*")}
    return sorted(
        name
        for name in names
        if not (fresh / name).exists()
        or not (STUBS / name).exists()
        or not filecmp.cmp(fresh / name, STUBS / name, shallow=False)
    )


def check() -> None:
    """Fail unless the contract is clean and the committed stubs are exactly what it generates."""
    lint()
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        stale = differences(Path(folder) / "rxoutflow" / "v1")
    if stale:
        sys.exit(f"stale stubs: {', '.join(stale)}; run `make generate` and commit the result")


def main() -> None:
    """Run the command that the first argument names."""
    commands = {"generate": lambda: generate(STUBS.parent.parent), "check": check}
    if len(sys.argv) != 2 or sys.argv[1] not in commands:
        sys.exit("usage: contract.py generate | check")
    commands[sys.argv[1]]()


if __name__ == "__main__":
    main()
