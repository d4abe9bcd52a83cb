"""The documentation says what is: links lead somewhere, examples run, keys are the real ones."""

from __future__ import annotations

import importlib
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import FunctionType
from typing import TypeAlias, TypeVar

import click
import pytest
from cryptography import x509

from rxoutflow.cli import cli
from rxoutflow.numbers import PickupCode, PrescriptionNumber
from rxoutflow.statements import check_wire, pae, signature_sha256
from rxoutflow.statements.algorithms import SignatureWrong, verification_key
from rxoutflow.statements.payloads import rule_for
from rxoutflow.v1.error_reason_pb2 import ErrorReason
from rxoutflow.v1.prescription_status_pb2 import Revocation, RevocationOutcome
from rxoutflow.v1.statement_pb2 import (
    SIGNATURE_ALGORITHM_ECDSA_P256_SHA256,
    SIGNER_ROLE_PRESCRIBER,
    ProtectedHeader,
    Signature,
)
from rxoutflow_server.cli import main as server
from rxoutflow_server.config import (
    PROVIDERS,
    ConfigError,
    load_hospital,
    load_pharmacy,
    load_platform,
)
from rxoutflow_server.config_table import Table
from rxoutflow_server.domain.settlement import Amounts

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), ROOT / "certs/README.md"])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
READERS = {
    name
    for name, member in vars(Table).items()
    if isinstance(member, FunctionType)
    and not name.startswith("_")
    and name not in ("note", "table", "tables", "close")
}
"""The methods by which a configuration's keys are read."""

Names: TypeAlias = dict[str, object]
T = TypeVar("T")


def text_of(page: str) -> str:
    return (DOCS / page).read_text("utf-8")


def fences(text: str, language: str) -> list[str]:
    return [body for found, body in FENCE.findall(text) if found == language]


def section(text: str, title: str) -> str:
    _, _, rest = text.partition(f"\n## {title}\n")
    assert rest, f"no section {title}"
    return rest.partition("\n## ")[0]


def relative(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    links = LINK.findall(FENCE.sub("", page.read_text("utf-8")))
    files = [link.partition("#")[0] for link in links if "://" not in link]
    assert [link for link in files if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_a_page_stands_alone(page: Path) -> None:
    assert re.findall(r"/root/|/home/|/tmp/", page.read_text("utf-8")) == []


@pytest.mark.parametrize(
    ("page", "longest"),
    [("README.md", 150), ("docs/integrators.md", 250), ("docs/operators.md", 250)],
)
def test_a_page_is_short(page: str, longest: int) -> None:
    assert len((ROOT / page).read_text("utf-8").splitlines()) <= longest


def test_a_decision_record_is_short_complete_and_listed() -> None:
    records = sorted((DOCS / "adr").glob("0*.md"))
    listed = LINK.findall((DOCS / "adr/README.md").read_text("utf-8"))
    assert [record.name for record in records] == listed
    for record in records:
        lines = record.read_text("utf-8").splitlines()
        assert len(lines) <= 40, record.name
        assert lines[0].startswith(f"# {record.name[:4]} ")
        heads = [line for line in lines if line.startswith("## ")]
        assert heads == ["## Context", "## Decision", "## Consequences"], record.name


def test_the_generated_pages_are_what_the_code_says_now() -> None:
    command = [sys.executable, str(ROOT / ".ci/docs.py"), "check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_error_catalogue_has_every_reason_of_the_contract_once() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \|", text_of("error-catalogue.md"), re.MULTILINE)
    names = [name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()]  # noqa: SIM118 - an enum wrapper is no mapping
    assert rows == names[1:]


def test_reasons_that_the_guides_name_are_reasons_of_the_contract() -> None:
    known = {name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()}  # noqa: SIM118 - an enum wrapper is no mapping
    statuses = {"UNAVAILABLE", "CAPITALS"}
    outcomes = {name.removeprefix("REVOCATION_OUTCOME_") for name in RevocationOutcome.keys()}  # noqa: SIM118 - as above
    for page in ("integrators.md", "operators.md", "configuration.md", "state-tables.md"):
        named = re.findall(r"`([A-Z]{3,}(?:_[A-Z]+)*)`", text_of(page))
        other = {name for name in named if name.startswith(("KIND_", "REGISTRATION_"))}
        assert set(named) - other - known - statuses <= outcomes, page


def keys_read(
    load: Callable[[Path, datetime], object],
    file: Path,
    content: str,
    monkeypatch: pytest.MonkeyPatch,
) -> set[str]:
    """The paths of all keys that a reader asks for in an incomplete configuration."""
    keys: set[str] = set()

    def noting(read: Callable[..., T]) -> Callable[..., T]:
        def read_and_note(table: Table, key: str, *rest: object) -> T:
            keys.add(f"{table._path}.{key}".lstrip("."))
            return read(table, key, *rest)

        return read_and_note

    with monkeypatch.context() as patch:
        for name in READERS:
            patch.setattr(Table, name, noting(getattr(Table, name)))
        file.write_text(content)
        with pytest.raises(ConfigError):
            load(file, datetime.now(UTC))
    return keys


def test_every_configuration_key_is_documented_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = {
        key
        for load in (load_platform, load_hospital, load_pharmacy)
        for provider in PROVIDERS
        for store in ("", '[store]\npostgres = "host=db"')
        for key in keys_read(
            load, tmp_path / "x.toml", f'[signing]\nprovider = "{provider}"\n{store}', monkeypatch
        )
    }
    documented = re.findall(r"^\| `([a-z_.]+)` \|", text_of("configuration.md"), re.MULTILINE)
    assert sorted(documented) == sorted(real)


def test_the_configuration_example_has_known_keys_and_all_that_are_required(
    tmp_path: Path,
) -> None:
    (example,) = fences(text_of("configuration.md"), "toml")
    file = tmp_path / "platform.toml"
    file.write_text(example)
    with pytest.raises(ConfigError) as caught:
        load_platform(file, datetime.now(UTC))
    problems = [str(problem) for problem in caught.value.problems]
    assert [each for each in problems if "not a known key" in each or "is missing" in each] == []


def test_the_tariff_example_can_be_loaded(tmp_path: Path) -> None:
    from rxoutflow_server.reference.tariffs import load_tariffs

    (tariff,) = fences(text_of("operators.md"), "toml")
    (tmp_path / "350500.toml").write_text(tariff, "utf-8")
    (loaded,) = load_tariffs(tmp_path)
    assert loaded.version_id == "350500-2023"


@pytest.mark.parametrize(
    "module", ["catalogues", "insured"], ids=["the catalogue", "the insured persons"]
)
def test_every_column_of_the_reference_data_is_documented(module: str) -> None:
    columns = importlib.import_module(f"rxoutflow_server.reference.{module}").COLUMNS
    data = section(text_of("operators.md"), "Reference data")
    assert [column for column in columns if f"`{column}`" not in data] == []


def example(name: str) -> str:
    (code,) = (
        code
        for code in fences(text_of("integrators.md"), "python")
        if code.startswith(f"# {name}\n")
    )
    return code


def run_example(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Names:
    monkeypatch.chdir(folder)
    script = folder / "example.py"
    script.write_text(example(name), "utf-8")
    return runpy.run_path(str(script))


@pytest.fixture
def signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Names:
    return run_example("pae-example", tmp_path, monkeypatch)


def octets(names: Names, name: str) -> bytes:
    value = names[name]
    assert isinstance(value, bytes)
    return value


def test_the_example_signs_the_bytes_that_the_library_would_verify(signed: Names) -> None:
    kind, protected = octets(signed, "payload_type").decode(), octets(signed, "protected")
    payload, value = octets(signed, "payload"), octets(signed, "value")
    certificate = signed["certificate"]
    assert isinstance(certificate, x509.Certificate)
    data = pae(kind, protected, payload)
    assert octets(signed, "to_sign") == data
    verification_key(certificate).verify(value, data)
    with pytest.raises(SignatureWrong):
        verification_key(certificate).verify(value, data + b" ")
    assert octets(signed, "prior") == signature_sha256(Signature(protected=protected, value=value))


def test_the_example_writes_a_revocation_in_plain_wire_form(signed: Names) -> None:
    payload, protected = octets(signed, "payload"), octets(signed, "protected")
    check_wire(payload, Revocation.DESCRIPTOR)
    check_wire(protected, ProtectedHeader.DESCRIPTOR)
    assert octets(signed, "payload_type").decode() == rule_for(Revocation).payload_type
    content, header = Revocation.FromString(payload), ProtectedHeader.FromString(protected)
    assert str(PrescriptionNumber.parse(content.prescription_number)) == content.prescription_number
    assert header.algorithm == SIGNATURE_ALGORITHM_ECDSA_P256_SHA256
    assert header.role == SIGNER_ROLE_PRESCRIBER
    assert header.institution_code == content.institution_code
    assert header.audience == content.prescription_number[:6]
    assert abs(header.sign_time.ToDatetime(UTC) - datetime.now(UTC)).total_seconds() < 60


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_verifies_the_example_as_the_guide_says(signed: Names, tmp_path: Path) -> None:
    (commands,) = (
        body for body in fences(text_of("integrators.md"), "sh") if "to-sign.bin" in body
    )
    done = subprocess.run(
        ["sh", "-ec", commands], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "Verified OK\n"), done.stderr
    (tmp_path / "to-sign.bin").write_bytes(octets(signed, "to_sign") + b" ")
    assert subprocess.run(["sh", "-ec", commands], cwd=tmp_path, capture_output=True).returncode


def test_the_example_makes_numbers_and_codes_that_the_library_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = run_example("number-example", tmp_path, monkeypatch)
    code = PickupCode.parse(str(names["pickup_code"]))
    assert str(code) == names["pickup_code"]
    assert (code.number.region_code, code.number.institution_serial) == ("350200", "00001")
    assert abs(code.number.time - datetime.now(UTC)).total_seconds() < 60


def test_national_names_that_the_guide_maps_are_those_of_the_contract() -> None:
    protos = (ROOT / "protos").rglob("*.proto")
    contract = "".join(path.read_text("utf-8") for path in protos)
    table = section(text_of("integrators.md"), "Names of the national interface")
    cells = re.findall(r"\| `(\w+)` \| `(?:(\w+)\.)?(\w+)`", table)
    assert len(cells) >= 25
    for national, message, name in cells:
        assert re.search(rf"\b{national}\b", contract), national
        if name[0].isupper():
            assert f"rpc {name}(" in contract, name
        else:
            assert name in fields_of(message or "Prescription"), name


def fields_of(message: str) -> set[str]:
    from google.protobuf.descriptor_pool import Default

    import rxoutflow.client  # noqa: F401 - registers the contract's messages

    return set(Default().FindMessageTypeByName(f"rxoutflow.v1.{message}").fields_by_name)


def test_all_amounts_have_their_national_name_where_there_is_one() -> None:
    table = section(text_of("integrators.md"), "Names of the national interface")
    unnamed = [name for name in Amounts.__slots__ if f"`Amounts.{name}`" not in table]
    assert unnamed == ["ratio_self_fen"]


def test_python_in_the_readme_uses_the_public_library() -> None:
    (code,) = fences((ROOT / "README.md").read_text("utf-8"), "python")
    imports = "\n".join(line for line in code.splitlines() if line.startswith(("from", "import")))
    compile(code, "README.md", "exec")
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-c", imports], check=True, env=environment)


def test_the_readme_names_commands_and_files_that_exist() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in re.findall(r"^make ([a-z]+)$", readme, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for file in re.findall(r"clients/[a-z/-]+\.json", readme):
        assert (ROOT / file).is_file(), file
    called = re.findall(r"^(?:\.venv/bin/)?rxoutflow (?:--\w+ [\w-]+ )*(\w+)", readme, re.MULTILINE)
    assert len(called) >= 6
    assert [name for name in called if name not in cli.commands] == []


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_server_commands_that_a_page_names_exist(page: Path) -> None:
    called = re.findall(r"rxoutflow-server ([a-z]+)(?: ([a-z]+))?", page.read_text("utf-8"))
    for name, inner in called:
        command = server.commands[name]
        if inner and isinstance(command, click.Group):
            assert inner in command.commands, f"{name} {inner}"
