"""The development PKI makes certificates of the form that the exchange asks of real ones."""

from __future__ import annotations

import stat
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID

from rxoutflow.certificates import CertificateUntrusted, Usage, certificate_sha256, verify_chain
from rxoutflow.identity import caller_name, signer_name, uri_names
from rxoutflow_server.devpki import KeyPair
from rxoutflow_server.sandbox.constellation import (
    CONSTELLATION_FILE,
    DATA,
    Constellation,
    load_constellation,
)
from rxoutflow_server.sandbox.pki import issue_pki

NOW = datetime(2031, 3, 1, 12, tzinfo=UTC)
XIAMEN, QUANZHOU = "350200", "350500"
GENERATE = Path(__file__).parents[2] / "certs" / "generate.py"
SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH


@pytest.fixture(scope="module")
def constellation() -> Constellation:
    return load_constellation(DATA / CONSTELLATION_FILE)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory, constellation: Constellation) -> Path:
    folder = tmp_path_factory.mktemp("pki") / "all"
    issue_pki(constellation, folder, NOW)
    return folder


def load(pki: Path, name: str) -> x509.Certificate:
    file = pki / f"{name}.pem"
    return KeyPair.at(file.parent, file.stem).load()


def certificates(pki: Path, kind: str) -> Iterator[x509.Certificate]:
    files = [file for file in pki.glob(f"*/{kind}/*.pem") if file.stem != "ca"]
    assert files
    return (x509.load_pem_x509_certificate(file.read_bytes()) for file in files)


def usages(certificate: x509.Certificate) -> set[x509.ObjectIdentifier]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    except x509.ExtensionNotFound:
        return set()
    return set(extension.value)


@pytest.mark.parametrize(
    ("name", "uri"),
    [
        ("350200/transport/platform", "spiffe://350200.rxoutflow/platform/350200"),
        ("350200/transport/H35020000001", "spiffe://350200.rxoutflow/hospital/H35020000001"),
        ("350200/transport/H35020000001-client", "spiffe://350200.rxoutflow/hospital/H35020000001"),
        ("320600/transport/P32060000001", "spiffe://320600.rxoutflow/pharmacy/P32060000001"),
        ("350500/transport/R350500-client", "spiffe://350500.rxoutflow/regulator/R350500"),
        ("350500/transport/O350500-client", "spiffe://350500.rxoutflow/operator/O350500"),
        (
            "350500/signing/J350500001",
            "spiffe://350500.rxoutflow/platform/350500/person/J350500001",
        ),
        ("350200/signing/registry", "spiffe://350200.rxoutflow/platform/350200/registry"),
        ("350200/signing/platform", "spiffe://350200.rxoutflow/platform/350200/seal"),
        ("350500/signing/P35050000001", "spiffe://350500.rxoutflow/pharmacy/P35050000001/seal"),
        (
            "350200/signing/D350200001",
            "spiffe://350200.rxoutflow/hospital/H35020000001/person/D350200001",
        ),
    ],
)
def test_each_leaf_has_exactly_the_one_uri_name_of_its_holder(
    pki: Path, name: str, uri: str
) -> None:
    assert uri_names(load(pki, name)) == (uri,)


def test_the_library_reads_every_name(pki: Path) -> None:
    assert len({str(caller_name(each)) for each in certificates(pki, "transport")}) == 14
    assert len({str(signer_name(each)) for each in certificates(pki, "signing")}) == 30


@pytest.mark.parametrize(
    ("name", "dns", "expected"),
    [
        ("350200/transport/platform", ["platform.350200.rxoutflow"], {SERVER, CLIENT}),
        (
            "350500/transport/H35050000001",
            ["h35050000001.350500.rxoutflow"],
            {SERVER, CLIENT},
        ),
        ("350200/transport/P35020000001-client", [], {CLIENT}),
        ("320600/transport/R320600-client", [], {CLIENT}),
        ("350200/signing/H35020000001", [], set()),
    ],
)
def test_host_names_and_tls_usages_are_for_those_who_need_them(
    pki: Path, name: str, dns: list[str], expected: set[x509.ObjectIdentifier]
) -> None:
    certificate = load(pki, name)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == dns
    assert usages(certificate) == expected


def test_leaves_sign_and_issue_nothing(pki: Path) -> None:
    for kind in ("transport", "signing"):
        for leaf in certificates(pki, kind):
            usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
            constraints = leaf.extensions.get_extension_for_class(x509.BasicConstraints).value
            assert usage.digital_signature
            assert not usage.key_cert_sign
            assert not constraints.ca


def test_authorities_issue_leaves_only(pki: Path) -> None:
    for file in pki.glob("*/*/ca.pem"):
        extensions = x509.load_pem_x509_certificate(file.read_bytes()).extensions
        constraints = extensions.get_extension_for_class(x509.BasicConstraints)
        assert constraints.critical
        assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)
        assert extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign


def test_keys_are_of_the_algorithm_that_the_constellation_says(pki: Path) -> None:
    assert isinstance(
        load(pki, f"{QUANZHOU}/signing/A350500101").public_key(), ed25519.Ed25519PublicKey
    )
    for name in (f"{QUANZHOU}/signing/platform", f"{XIAMEN}/signing/D350200001"):
        assert isinstance(load(pki, name).public_key(), ec.EllipticCurvePublicKey)
    for certificate in certificates(pki, "transport"):
        key = certificate.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert isinstance(key.curve, ec.SECP256R1)


def test_only_the_owner_can_read_keys_and_enter_their_folders(pki: Path) -> None:
    for key in pki.rglob("*.key"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    assert len(list(pki.rglob("*.key"))) == len(list(pki.rglob("*.pem")))


def test_serial_numbers_never_repeat(pki: Path) -> None:
    files = list(pki.rglob("*.pem"))
    serials = {x509.load_pem_x509_certificate(file.read_bytes()).serial_number for file in files}
    assert len(serials) == len(files)


def test_the_times_follow_from_the_time_that_was_passed_in(pki: Path) -> None:
    leaf, authority = load(pki, f"{XIAMEN}/signing/platform"), load(pki, f"{XIAMEN}/signing/ca")
    assert leaf.not_valid_before_utc == NOW - timedelta(minutes=5)
    assert leaf.not_valid_after_utc == NOW + timedelta(days=365)
    assert authority.not_valid_after_utc == NOW + timedelta(days=3650)


@pytest.mark.parametrize(
    ("leaf", "usage"),
    [
        ("transport/platform", Usage.SERVER),
        ("transport/platform", Usage.CLIENT),
        ("transport/H35050000001", Usage.SERVER),
        ("transport/R350500-client", Usage.CLIENT),
        ("signing/registry", Usage.SIGNING),
        ("signing/P35050000001", Usage.SIGNING),
        ("signing/C350500101", Usage.SIGNING),
    ],
)
def test_a_leaf_leads_to_the_anchor_of_its_own_pki_and_region(
    pki: Path, leaf: str, usage: Usage
) -> None:
    anchor = load(pki, f"{QUANZHOU}/{leaf.partition('/')[0]}/ca")
    path = verify_chain(load(pki, f"{QUANZHOU}/{leaf}"), [], [anchor], NOW, usage)
    assert path.certificates[-1] == anchor


@pytest.mark.parametrize(
    ("leaf", "anchor", "usage"),
    [
        ("350500/signing/P35050000001", "350500/transport/ca", Usage.SIGNING),
        ("350500/transport/platform", "350500/signing/ca", Usage.SERVER),
        ("350500/transport/platform", "350200/transport/ca", Usage.SERVER),
        ("350500/signing/P35050000001", "350200/signing/ca", Usage.SIGNING),
        ("350500/signing/P35050000001", "350500/signing/ca", Usage.CLIENT),
        ("350500/transport/platform", "350500/transport/ca", Usage.SIGNING),
        ("350500/transport/R350500-client", "350500/transport/ca", Usage.SERVER),
    ],
)
def test_pkis_regions_and_usages_are_never_mixed(
    pki: Path, leaf: str, anchor: str, usage: Usage
) -> None:
    with pytest.raises(CertificateUntrusted):
        verify_chain(load(pki, leaf), [], [load(pki, anchor)], NOW, usage)


def test_keys_are_never_overwritten(pki: Path, constellation: Constellation) -> None:
    before = {file: file.read_bytes() for file in pki.rglob("*.key")}
    with pytest.raises(FileExistsError):
        issue_pki(constellation, pki, NOW)
    assert {file: file.read_bytes() for file in pki.rglob("*.key")} == before


def generate(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(GENERATE), *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_the_script_makes_the_pkis_and_prints_the_pins(tmp_path: Path) -> None:
    done = generate("--dir", tmp_path / "pki")
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["350200", "350500", "320600"]
    for line in done.stdout.splitlines():
        region, pin = line.split()[0], line.split()[-1]
        registry = load(tmp_path / "pki", f"{region}/signing/registry")
        assert certificate_sha256(registry).hex() == pin


def test_the_script_refuses_a_directory_that_holds_anything(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    refused = generate("--dir", tmp_path)
    assert refused.returncode == 2
    assert "is not empty: name a new directory" in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_script_names_what_is_wrong_with_a_constellation(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[[region]]\ncode = "35"\n')
    refused = generate("--dir", tmp_path / "pki", "--constellation", file)
    assert refused.returncode == 2
    assert "region[0].code: must be six digits" in refused.stderr
    assert not (tmp_path / "pki").exists()
