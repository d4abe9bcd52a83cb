"""Where servers and clients keep signing keys: what configurations may say, and what works."""

from __future__ import annotations

import json
import shutil
import sys
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

import rxoutflow.statements
from rxoutflow.client import PharmacyClient
from rxoutflow.errors import InvalidInput
from rxoutflow.profile import load_profile
from rxoutflow.statements import CallbackSigner, FileSigner, Verifier, add_signature
from rxoutflow.trust import TrustStore
from rxoutflow.v1.attempt_pb2 import Claim
from rxoutflow.v1.statement_pb2 import SIGNATURE_ALGORITHM_SM2_SM3, SIGNER_ROLE_PHARMACY_SEAL
from rxoutflow_server.config import ConfigError, PharmacyConfig, load_pharmacy
from rxoutflow_server.sandbox.constellation import DATA
from rxoutflow_server.sandbox.layout import Prepared, SandboxError, prepare
from rxoutflow_server.sandbox.wiring import Wiring, edge_config_file, services, to_toml
from rxoutflow_server.signing_keys import ModuleKey, load_signer

NOW = datetime.now(UTC)
VARIABLE = "RXOUTFLOW_TEST_PHRASE"
PHARMACY = "nantong-pharmacy"
"""The only institution with an edge in its region, so that the region's keys are its keys."""


def make(directory: Path, data: Path = DATA) -> Prepared:
    prepared = prepare(directory, NOW, data=data)
    names = [each.name for each in services(prepared.layout, prepared.constellation)]
    ports = {name: 21_000 + index for index, name in enumerate(names)}
    Wiring(prepared.layout, prepared.constellation, ports).write(NOW)
    return prepared


def config_file(prepared: Prepared) -> Path:
    (pharmacy,) = (e for e in prepared.constellation.institutions if e.actor == PHARMACY)
    return edge_config_file(prepared.layout, pharmacy)


def profile_file(prepared: Prepared) -> Path:
    return prepared.layout.directory / "profiles" / f"{PHARMACY}.json"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return make(tmp_path_factory.mktemp("template") / "sandbox")


class Edge:
    """A pharmacy's edge that a test may change: its configuration and its seal's files."""

    def __init__(self, template: Prepared, folder: Path) -> None:
        shutil.copytree(template.layout.directory, folder / "sandbox")
        relative = config_file(template).relative_to(template.layout.directory)
        self.file = folder / "sandbox" / relative
        self.tables: dict[str, Any] = tomllib.loads(self.file.read_text("utf-8"))
        self.signing: dict[str, str] = self.tables["signing"]
        self.key = self.file.parent / self.signing["key"]
        self.certificate = self.file.parent / self.signing["certificate"]

    def load(self) -> PharmacyConfig:
        self.file.write_text(to_toml(self.tables), "utf-8")
        return load_pharmacy(self.file, NOW)

    def problems(self) -> dict[str, str]:
        with pytest.raises(ConfigError) as refused:
            self.load()
        return {each.key: each.problem for each in refused.value.problems}

    def encrypt(self, password: bytes) -> None:
        key = load_pem_private_key(self.key.read_bytes(), None)
        sealed = (Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password))
        self.key.write_bytes(key.private_bytes(*sealed))

    def secret(self, name: str, content: str) -> str:
        file = self.file.parent / name
        file.write_text(content)
        file.chmod(0o600)
        return name


@pytest.fixture
def edge(template: Prepared, tmp_path: Path) -> Edge:
    return Edge(template, tmp_path)


# servers: files


def test_a_seal_in_files_is_the_default(edge: Edge) -> None:
    plain = load_signer(edge.load().signing)
    edge.signing["provider"] = "file"
    assert load_signer(edge.load().signing).certificate_chain == plain.certificate_chain


def test_an_encrypted_seal_opens_with_a_password_from_a_file(edge: Edge) -> None:
    edge.encrypt(b"open sesame ")
    assert "password" in edge.problems()["signing.key"]
    edge.signing["key_password_file"] = edge.secret("password", "open sesame \n")
    load_signer(edge.load().signing).sign(b"data")


def test_an_encrypted_seal_opens_with_a_password_from_the_environment(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    edge.encrypt(b"open sesame")
    edge.signing["key_password_env"] = VARIABLE
    monkeypatch.delenv(VARIABLE, raising=False)
    assert f"{VARIABLE} is not set" in edge.problems()["signing.key_password_env"]
    monkeypatch.setenv(VARIABLE, "open barley")
    problems = edge.problems()
    assert "password" in problems["signing.key"]
    assert "barley" not in str(problems)
    monkeypatch.setenv(VARIABLE, "open sesame")
    load_signer(edge.load().signing).sign(b"data")


def test_a_tls_key_may_be_encrypted_too(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    edge.key = edge.file.parent / edge.tables["tls"]["key"]
    edge.encrypt(b"open sesame")
    edge.tables["tls"]["key_password_env"] = VARIABLE
    monkeypatch.delenv(VARIABLE, raising=False)
    assert f"{VARIABLE} is not set" in edge.problems()["tls.key"]
    monkeypatch.setenv(VARIABLE, "open sesame")
    assert edge.load().tls.key_password_env == VARIABLE


@pytest.mark.parametrize(
    ("key", "values", "complaint"),
    [
        ("provider", {"provider": "cloud"}, "use one of file, pkcs11"),
        ("key_password_env", {"key_password_env": "not a name"}, "name an environment variable"),
        ("pin_file", {"pin_file": "pin"}, "is not a known key"),
        ("key", {"provider": "pkcs11"}, "is not a known key"),
        ("module", {"provider": "pkcs11"}, "is missing"),
        ("token_label", {"provider": "pkcs11"}, "is missing"),
        ("key_label", {"provider": "pkcs11"}, "is missing"),
        ("pin_file", {"provider": "pkcs11"}, "is missing"),
    ],
)
def test_a_wrong_key_of_the_configuration_is_named(
    key: str, values: dict[str, str], complaint: str, edge: Edge
) -> None:
    edge.signing.update(values)
    assert complaint in edge.problems()[f"signing.{key}"]


def test_a_password_in_two_places_is_refused(edge: Edge) -> None:
    edge.signing["key_password_file"] = edge.secret("password", "open sesame")
    edge.signing["key_password_env"] = VARIABLE
    assert "remove one" in edge.problems()["signing.key_password_env"]


# servers: a hardware module


@pytest.fixture
def module_edge(edge: Edge, tmp_path_factory: pytest.TempPathFactory) -> Edge:
    """The edge of a pharmacy whose seal has been moved into a module."""
    pytest.importorskip("pkcs11", reason="python-pkcs11 is missing: pip install 'rxoutflow[hsm]'")
    from support.hsm import PIN, SoftHsm

    softhsm = SoftHsm.start(tmp_path_factory.mktemp("hsm"), "pharmacy")
    key = load_pem_private_key(edge.key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    softhsm.put(key, "pharmacy", "seal")
    edge.key.unlink()
    del edge.signing["key"]
    edge.signing |= {
        "provider": "pkcs11",
        "module": str(softhsm.module),
        "token_label": "pharmacy",
        "key_label": "seal",
        "pin_file": edge.secret("pin", f"{PIN}\n"),
    }
    return edge


@pytest.mark.hsm
def test_a_seal_in_a_module_is_configured_checked_and_signs(module_edge: Edge) -> None:
    signing = module_edge.load().signing
    assert isinstance(signing, ModuleKey)
    assert load_signer(signing).sign(b"data")


@pytest.mark.hsm
@pytest.mark.parametrize(
    ("change", "key", "complaint"),
    [
        (
            lambda e: e.signing.update({"token_label": "other"}),
            "key_label",
            "no token of this label",
        ),
        (lambda e: e.signing.update(key_label="other"), "key_label", "no private key of this"),
        (lambda e: e.signing.update(module="other.so"), "module", "is no file"),
        (lambda e: (e.file.parent / "pin").chmod(0o644), "pin_file", "is open to everybody"),
        (lambda e: (e.file.parent / "pin").write_bytes(b"\xff\n"), "pin_file", "is no text"),
        (lambda e: (e.file.parent / "pin").write_bytes(b"\n"), "pin_file", "holds no password"),
        (lambda e: e.certificate.write_text("nothing"), "certificate", "must hold PEM"),
    ],
)
def test_a_module_that_cannot_be_used_is_found_by_the_check(
    change: Callable[[Edge], object], key: str, complaint: str, module_edge: Edge
) -> None:
    change(module_edge)
    assert complaint in module_edge.problems()[f"signing.{key}"]


# clients


@pytest.fixture
def claim() -> Claim:
    return Claim(prescription_number=f"320600{'0' * 24}", pharmacy_code="P32060000001")


def verify(prepared: Prepared, claim: Claim, client: PharmacyClient) -> None:
    """The claim with the dispenser's signature from the client, and the seal of the edge."""
    statement = client.sign(claim, "dispenser")
    seal = load_signer(load_pharmacy(config_file(prepared), NOW).signing)
    sealed = add_signature(statement, seal, SIGNER_ROLE_PHARMACY_SEAL, NOW)
    regions = prepared.constellation.regions
    pins = {each.code: prepared.layout.pki(each).registry_sha256() for each in regions}
    store = TrustStore.load(prepared.layout.trust, pins, NOW)
    verified = Verifier(store).verify(sealed, Claim, datetime.now(UTC))
    assert verified.signers[0].person_code == client.profile.people["dispenser"].person_code


def test_a_clients_key_may_be_encrypted(
    template: Prepared, claim: Claim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = changed_profile(template, tmp_path, key_password_env=VARIABLE)
    edge_key = load_profile(file).people["dispenser"].key
    assert edge_key is not None
    sealed = BestAvailableEncryption(b"open sesame")
    key = load_pem_private_key(edge_key.read_bytes(), None)
    own = tmp_path / "dispenser.key"
    own.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, sealed))
    file = changed_profile(template, tmp_path, key=str(own), key_password_env=VARIABLE)
    monkeypatch.delenv(VARIABLE, raising=False)
    with (
        PharmacyClient(load_profile(file)) as client,
        pytest.raises(InvalidInput, match=rf"people\.dispenser: .*{VARIABLE} is not set"),
    ):
        client.sign(claim, "dispenser")
    monkeypatch.setenv(VARIABLE, "open sesame")
    with PharmacyClient(load_profile(file)) as client:
        verify(template, claim, client)


def test_a_client_signs_with_a_key_that_is_in_no_file(
    template: Prepared, claim: Claim, tmp_path: Path
) -> None:
    person = load_profile(profile_file(template)).people["dispenser"]
    assert person.key is not None
    usb_key = FileSigner.load(person.certificate, person.key)
    profile = load_profile(changed_profile(template, tmp_path, key=None))
    with (
        PharmacyClient(profile) as client,
        pytest.raises(InvalidInput, match=r"people\.dispenser\.key: is missing"),
    ):
        client.sign(claim, "dispenser")
    chain = x509.load_pem_x509_certificates(person.certificate.read_bytes())
    signer = CallbackSigner(chain, usb_key.sign)
    with PharmacyClient(profile, signers={"dispenser": signer}) as client:
        verify(template, claim, client)


def changed_profile(template: Prepared, folder: Path, **changes: str | None) -> Path:
    """The pharmacy's profile with another dispenser, beside the original so that paths hold."""
    original = profile_file(template)
    values = json.loads(original.read_text("utf-8"))
    dispenser = values["people"]["dispenser"] | changes
    values["people"]["dispenser"] = {key: value for key, value in dispenser.items() if value}
    file = original.with_name(f"{folder.name}.json")
    file.write_text(json.dumps(values), "utf-8")
    return file


# a pharmacy with SM2 keys


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sandbox's data, with SM2 keys for the seal and the people of one pharmacy."""
    pytest.importorskip("gmssl_pyx", reason="SM2 is missing: pip install 'rxoutflow[sm2]'")
    from support.sm2 import sm2_data

    return sm2_data(tmp_path_factory.mktemp("data"), "320600")


def test_a_pharmacy_of_a_sandbox_may_have_sm2_keys(
    data: Path, tmp_path: Path, claim: Claim
) -> None:
    prepared = make(tmp_path / "sandbox", data)
    seal = load_signer(load_pharmacy(config_file(prepared), NOW).signing)
    assert seal.algorithm == SIGNATURE_ALGORITHM_SM2_SM3
    with PharmacyClient(load_profile(profile_file(prepared))) as client:
        verify(prepared, claim, client)


def test_a_sandbox_with_sm2_keys_says_what_to_install(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(rxoutflow.statements, "sm2", raising=False)
    monkeypatch.delitem(sys.modules, "rxoutflow.statements.sm2", raising=False)
    monkeypatch.setitem(sys.modules, "gmssl_pyx", None)
    with pytest.raises(SandboxError, match=r"pip install 'rxoutflow\[sm2\]'"):
        prepare(tmp_path / "sandbox", NOW, data=data)
    assert not (tmp_path / "sandbox").exists()
