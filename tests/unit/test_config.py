"""Configuration: a usable one is read; of any other, every problem is told at once."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypedDict, Unpack

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ObjectIdentifier

from rxoutflow.identity import CallerName, KeyPurpose, SignerName
from rxoutflow.v1.annotations_pb2 import CALLER_KIND_REGULATOR
from rxoutflow_server.config import (
    ConfigError,
    PlatformConfig,
    ServerConfig,
    load_hospital,
    load_pharmacy,
    load_platform,
    read_pickup_key,
)
from rxoutflow_server.storage.platform_stores import Database
from rxoutflow_server.transport.channels import edge_server_name, platform_server_name
from support import pki
from support.live import write_pair
from support.pki import CLIENT, NOW, SERVER, Region

Tables = dict[str, Any]
Edit = Callable[[Tables], object]


class Office:
    """A folder with everything that a server's configuration names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.region = Region.create("350200")
        self.other = Region.create("350500")
        self.hospital = self.region.hospital()
        self.pharmacy = self.region.pharmacy()
        for name in ("trust", "tariffs"):
            (folder / name).mkdir()
        (folder / "catalogue.csv").write_text("")
        self.write_secret("pickup.key", "ab" * 32)
        self.place(self.region.platform, platform_server_name("350200"))

    def place(self, holder: CallerName, dns: str) -> None:
        """Write TLS and seal of this holder, and lists that know them."""
        self.tls(self.region.server(holder, dns))
        write_pair(self.folder, "seal", self.region.seal(holder))
        self.write_lists()

    def tls(self, credential: pki.Credential) -> None:
        write_pair(self.folder, "tls", credential)

    def write_lists(self) -> None:
        for region in (self.region, self.other):
            path = self.folder / "trust" / f"{region.code}.trustlist"
            path.write_bytes(region.signed_list().SerializeToString())

    def write_secret(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o600)
        return path

    def common(self) -> Tables:
        return {
            "region": "350200",
            "listen": "127.0.0.1:0",
            "tls": {"certificate": "tls.pem", "key": "tls.key"},
            "signing": {"certificate": "seal.pem", "key": "seal.key"},
            "trust": {
                "folder": "trust",
                "registry_roots": {
                    each.code: each.registry.sha256.hex() for each in (self.region, self.other)
                },
            },
            "store": {"path": "store.db"},
        }

    def platform(self) -> Tables:
        return {
            **self.common(),
            "pickup": {"hash_key_file": "pickup.key"},
            "reference": {"tariffs": "tariffs", "catalogue": "catalogue.csv"},
        }

    def edge(self, institution: CallerName) -> Tables:
        self.place(institution, edge_server_name("350200", institution.institution_code))
        return {
            "institution": institution.institution_code,
            **self.common(),
            "platform": {"target": "127.0.0.1:8443"},
        }

    def write(self, tables: Tables) -> Path:
        path = self.folder / "server.toml"
        path.write_text("\n".join(toml(tables)))
        return path

    def problems(
        self, tables: Tables, load: Callable[..., ServerConfig] = load_platform
    ) -> dict[str, str]:
        """What is wrong, by key."""
        with pytest.raises(ConfigError) as caught:
            load(self.write(tables), NOW)
        assert all(problem.file == self.folder / "server.toml" for problem in caught.value.problems)
        problems: dict[str, list[str]] = {}
        for each in caught.value.problems:
            problems.setdefault(each.key, []).append(each.problem)
        return {key: "\n".join(each) for key, each in problems.items()}


def toml(tables: Mapping[str, Any], path: str = "") -> list[str]:
    values = {key: value for key, value in tables.items() if not isinstance(value, dict)}
    lines = [f"[{path}]"] if path else []
    for key, value in values.items():
        lines.append(f"{key} = {str(value).lower() if isinstance(value, bool) else repr(value)}")
    for key, value in tables.items():
        if isinstance(value, dict):
            lines += toml(value, f"{path}.{key}".lstrip("."))
    return lines


def roots(tables: Tables) -> Tables:
    found: Tables = tables["trust"]["registry_roots"]
    return found


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


def test_a_complete_configuration_is_read_with_paths_from_its_own_folder(office: Office) -> None:
    tables = office.platform()
    tables["reference"]["insured"] = "catalogue.csv"
    tables["claim"] = {"lease_seconds": 60}
    tables["log"] = {"level": "debug"}
    config = load_platform(office.write(tables), NOW)
    assert isinstance(config, PlatformConfig)
    assert config.tls.certificate == office.folder / "tls.pem"
    assert config.records == office.folder / "store.db"
    assert config.reference.insured == office.folder / "catalogue.csv"
    assert (config.region_code, config.listen, config.lease_seconds, config.log_level) == (
        "350200",
        "127.0.0.1:0",
        60,
        "debug",
    )
    assert (config.place.region_code, config.place.institution_code) == ("350200", "")


def test_what_may_be_left_out_has_a_default(office: Office) -> None:
    config = load_platform(office.write(office.platform()), NOW)
    assert (config.lease_seconds, config.log_level, config.reference.insured) == (
        1800,
        "info",
        None,
    )


def test_a_platform_may_keep_its_records_in_a_database(office: Office) -> None:
    tables = office.platform()
    tables["store"] = {"postgres": "host=/run/postgresql dbname=rx passfile=/etc/rx/pgpass"}

    config = load_platform(office.write(tables), NOW)

    assert config.records == Database(tables["store"]["postgres"], "rxoutflow", 1)


@pytest.mark.parametrize(
    ("store", "key"),
    [
        ({"postgres": "host=db password=CANARY"}, "store.postgres"),
        ({"postgres": "postgresql://user:CANARY@db/rx"}, "store.postgres"),
        ({"postgres": "host=db", "schema": "Rx;"}, "store.schema"),
        ({"postgres": "host=db", "connections": 0}, "store.connections"),
        ({"postgres": "host=db", "path": "store.db"}, "store.path"),
        ({}, "store.path"),
    ],
)
def test_a_store_is_named_once_and_without_a_password(
    office: Office, store: dict[str, object], key: str
) -> None:
    tables = office.platform()
    tables["store"] = store

    with pytest.raises(ConfigError) as refused:
        load_platform(office.write(tables), NOW)

    assert key in [problem.key for problem in refused.value.problems]
    assert "CANARY" not in str(refused.value)


def test_how_often_an_institution_may_call_is_configured(office: Office) -> None:
    tables = office.platform()
    assert load_platform(office.write(tables), NOW).calls_per_second == 500
    tables["limits"] = {"calls_per_second": 2000}
    assert load_platform(office.write(tables), NOW).calls_per_second == 2000


def test_the_registrars_of_trace_codes_are_regions_that_are_trusted_here(office: Office) -> None:
    tables = office.platform()
    assert load_platform(office.write(tables), NOW).trace_code_registrars == ()
    tables["trace_codes"] = {"registrars": ["350200"]}
    assert load_platform(office.write(tables), NOW).trace_code_registrars == ("350200",)
    tables["trace_codes"] = {"registrars": ["350200", "999999"]}
    problem = office.problems(tables)["trace_codes.registrars"]
    assert problem == "names 999999, which trust.registry_roots lacks; add it there"


def test_an_edge_is_configured_for_its_institution(office: Office) -> None:
    hospital = load_hospital(office.write(office.edge(office.hospital)), NOW)
    assert hospital.place.institution_code == office.hospital.institution_code
    assert hospital.platform_target == "127.0.0.1:8443"
    pharmacy = load_pharmacy(office.write(office.edge(office.pharmacy)), NOW)
    assert pharmacy.institution_code == office.pharmacy.institution_code


def test_a_pharmacy_does_not_run_a_hospital_edge(office: Office) -> None:
    problems = office.problems(office.edge(office.pharmacy), load_hospital)
    assert "use the hospital's code: H, the region and five digits" in problems["institution"]


def test_an_institution_of_another_region_does_not_run_here(office: Office) -> None:
    tables = office.edge(office.hospital)
    tables["institution"] = "H35050000001"
    assert "institution" in office.problems(tables, load_hospital)


def test_everything_that_is_wrong_is_told_at_once(office: Office) -> None:
    tables = office.platform()
    tables["regoin"] = tables.pop("region")
    tables["listen"] = 8443
    tables["tls"] = {"certificate": "nowhere.pem"}
    tables["claim"] = {"lease_seconds": 5, "lease": 5}
    tables["log"] = {"level": "loud"}
    tables["store"] = "store.db"
    problems = office.problems(tables)
    assert set(problems) == {
        "region",
        "regoin",
        "listen",
        "tls.certificate",
        "tls.key",
        "claim.lease_seconds",
        "claim.lease",
        "log.level",
        "store",
        "store.path",
    }
    assert problems["regoin"] == "is not a known key; did you mean region?"
    assert problems["claim.lease"] == "is not a known key; did you mean lease_seconds?"
    assert problems["region"].startswith("is missing; use the six-digit code")
    assert problems["claim.lease_seconds"].endswith("use a whole number from 60 to 86400")


@pytest.mark.parametrize(
    ("table", "key", "least", "most", "default"),
    [("adjudication", "overdue_hours", 0, 8760, 48), ("outbox", "give_up_hours", 1, 8760, 72)],
)
def test_people_wait_as_long_as_the_region_says(
    office: Office, table: str, key: str, least: int, most: int, default: int
) -> None:
    tables = office.platform()
    assert getattr(load_platform(office.write(tables), NOW), key) == default
    for hours in (least, most):
        tables[table] = {key: hours}
        assert getattr(load_platform(office.write(tables), NOW), key) == hours
    for hours in (least - 1, most + 1):
        tables[table] = {key: hours}
        problem = office.problems(tables)[f"{table}.{key}"]
        assert problem.endswith(f"use a whole number from {least} to {most}")


def test_a_problem_reads_as_file_key_problem_and_advice(office: Office) -> None:
    tables = office.platform()
    tables["listen"] = "localhost"
    with pytest.raises(ConfigError) as caught:
        load_platform(office.write(tables), NOW)
    assert re.fullmatch(r"\S+/server\.toml: listen: .+; use host:port.+", str(caught.value))


@pytest.mark.parametrize(
    ("key", "edit"),
    [
        ("region", lambda t: t.update(region="35020")),
        ("region", lambda t: t.update(region=350200)),
        ("listen", lambda t: t.update(listen="127.0.0.1")),
        ("listen", lambda t: t.update(listen="127.0.0.1:70000")),
        ("listen", lambda t: t.update(listen=":8443")),
        ("claim.lease_seconds", lambda t: t.update(claim={"lease_seconds": 59})),
        ("claim.lease_seconds", lambda t: t.update(claim={"lease_seconds": 86_401})),
        ("claim.lease_seconds", lambda t: t.update(claim={"lease_seconds": True})),
        ("claim.lease_seconds", lambda t: t.update(claim={"lease_seconds": "1800"})),
        ("log.level", lambda t: t.update(log={"level": "verbose"})),
        ("trace_codes.registrars", lambda t: t.update(trace_codes={"registrars": []})),
        ("trace_codes.registrars", lambda t: t.update(trace_codes={"registrars": "350200"})),
        ("trace_codes.registrars", lambda t: t.update(trace_codes={"registrars": ["35"]})),
        ("trace_codes.registrars", lambda t: t.update(trace_codes={"registrars": ["350200"] * 2})),
        ("trust.folder", lambda t: t["trust"].update(folder="nowhere")),
        ("trust.registry_roots", lambda t: t["trust"].pop("registry_roots")),
        ("trust.registry_roots.350200", lambda t: roots(t).update({"350200": "ab"})),
        ("trust.registry_roots.x", lambda t: roots(t).update(x="ab" * 32)),
        ("trust.folder", lambda t: roots(t).update({"350500": "ab" * 32})),
        ("trust.fetch_seconds", lambda t: t["trust"].update(fetch_seconds=0)),
        ("trust.alarm_days", lambda t: t["trust"].update(alarm_days=366)),
        ("trust.grace_hours", lambda t: t["trust"].update(grace_hours=73)),
        ("store.path", lambda t: t["store"].update(path="nowhere/store.db")),
        ("store.path", lambda t: t["store"].update(path="tariffs")),
        ("reference.tariffs", lambda t: t["reference"].update(tariffs="catalogue.csv")),
        ("reference.catalogue", lambda t: t["reference"].update(catalogue="nowhere.csv")),
        ("reference.insured", lambda t: t["reference"].update(insured="nowhere.csv")),
        ("pickup.hash_key_file", lambda t: t["pickup"].update(hash_key_file="nowhere.key")),
        ("tls.key_password_file", lambda t: t["tls"].update({"key_password_file": "x"})),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named_by_its_key_and_nothing_else_is(
    office: Office, key: str, edit: Edit
) -> None:
    tables = office.platform()
    edit(tables)
    assert set(office.problems(tables)) == {key}


def test_keys_that_others_may_read_are_refused(office: Office) -> None:
    for name in ("tls.key", "seal.key", "pickup.key"):
        (office.folder / name).chmod(0o604)
    problems = office.problems(office.platform())
    assert set(problems) == {"tls.key", "signing.key", "pickup.hash_key_file"}
    assert all(problem.endswith("run chmod 600 on it") for problem in problems.values())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_store_in_a_folder_that_cannot_be_written_is_refused(office: Office) -> None:
    (office.folder / "tariffs").chmod(0o500)
    tables = office.platform()
    tables["store"]["path"] = "tariffs/store.db"
    assert set(office.problems(tables)) == {"store.path"}


@pytest.mark.parametrize("content", ["", "ab" * 31, "zz" * 32, "秘密"])
def test_a_pickup_key_that_is_short_or_no_hexadecimal_is_refused(
    office: Office, content: str
) -> None:
    path = office.write_secret("pickup.key", content)
    problems = office.problems(office.platform())
    assert set(problems) == {"pickup.hash_key_file"}
    assert "openssl rand -hex 32" in problems["pickup.hash_key_file"]
    with pytest.raises(ValueError, match=r"pickup\.key|ascii"):
        read_pickup_key(path)


def test_a_pickup_key_is_read_as_bytes(office: Office) -> None:
    path = office.write_secret("pickup.key", "AB" * 32 + "\n")
    assert read_pickup_key(path) == b"\xab" * 32


class Validity(TypedDict, total=False):
    begin: datetime
    end: datetime


def server(
    office: Office,
    *names: CallerName,
    usages: Sequence[ObjectIdentifier] = (*SERVER, *CLIENT),
    dns: Sequence[str] = (platform_server_name("350200"),),
    authority: pki.Authority | None = None,
    **validity: Unpack[Validity],
) -> pki.Credential:
    """A TLS certificate that is right for the platform but for what a test says."""
    authority = authority or office.region.transport
    return authority.issue(*map(str, names), usages=usages, dns=dns, **validity)


BEFORE = NOW - timedelta(hours=1)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda o: server(o, o.hospital), "names another holder"),
        (lambda o: server(o, o.other.platform), "names another holder"),
        (lambda o: server(o, o.region.platform, dns=()), "lacks the DNS name platform.350200"),
        (lambda o: server(o, o.region.platform, usages=SERVER), "client"),
        (lambda o: server(o, o.region.platform, usages=CLIENT), "server"),
        (lambda o: server(o, o.region.platform, end=BEFORE), "renew it"),
        (lambda o: server(o, o.region.platform, begin=NOW + timedelta(hours=1)), "renew it"),
        (lambda o: server(o, o.region.platform, o.hospital), "2 URI names"),
        (
            lambda o: server(o, o.region.platform, authority=o.other.transport),
            "does not lead to an anchor",
        ),
    ],
)
def test_a_tls_certificate_that_callers_would_refuse_stops_the_start(
    office: Office, make: Callable[[Office], pki.Credential], complaint: str
) -> None:
    office.tls(make(office))
    problems = office.problems(office.platform())
    assert set(problems) == {"tls.certificate"}
    assert complaint in problems["tls.certificate"]


def test_a_denied_certificate_stops_the_start(office: Office) -> None:
    denied = server(office, office.region.platform)
    office.tls(denied)
    office.region.deny(denied.certificate)
    office.write_lists()
    assert "deny list" in office.problems(office.platform())["tls.certificate"]


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda o: o.region.seal(o.hospital), "names another holder"),
        (lambda o: o.region.registry, "names another holder"),
        (lambda o: o.region.signing.issue(seal_of(o)), "is not on the region's trust list"),
        (lambda o: o.region.transport.issue(seal_of(o)), "does not lead to an anchor"),
        (lambda o: o.region.signing.issue(seal_of(o), end=BEFORE), "renew it"),
        (lambda o: o.region.signing.issue(seal_of(o), usages=CLIENT), "must not allow TLS"),
    ],
)
def test_a_seal_that_nobody_would_accept_stops_the_start(
    office: Office, make: Callable[[Office], pki.Credential], complaint: str
) -> None:
    write_pair(office.folder, "seal", make(office))
    office.write_lists()
    problems = office.problems(office.platform())
    assert set(problems) == {"signing.certificate"}
    assert complaint in problems["signing.certificate"]


def seal_of(office: Office) -> str:
    return str(SignerName(office.region.platform, KeyPurpose.SEAL))


def test_an_institution_that_is_not_listed_stops_the_start(office: Office) -> None:
    tables = office.edge(office.hospital)
    office.region.entry(office.hospital).kind = CALLER_KIND_REGULATOR
    office.region.entry(office.hospital).institution_code = "R350200"
    del office.region.trust_list.signers[:]
    office.write_lists()
    problems = office.problems(tables, load_hospital)
    assert set(problems) == {"institution", "signing.certificate"}
    assert "have the registry list it" in problems["institution"]


def test_a_missing_list_of_the_own_region_stops_the_start(office: Office) -> None:
    (office.folder / "trust" / "350200.trustlist").unlink()
    problems = office.problems(office.platform())
    assert "region 350200" in problems["trust.folder"]


def test_a_list_that_was_tampered_with_stops_the_start(office: Office) -> None:
    path = office.folder / "trust" / "350500.trustlist"
    content = bytearray(path.read_bytes())
    content[content.index(b"350500", 20)] ^= 1
    path.write_bytes(content)
    problems = office.problems(office.platform())
    assert set(problems) == {"trust.folder"}
    assert "350500.trustlist" in problems["trust.folder"]


def test_a_list_that_lapsed_is_used_for_its_grace_which_may_be_none(office: Office) -> None:
    tables, later = office.platform(), NOW + timedelta(days=7, hours=1)
    assert load_platform(office.write(tables), later).trust.grace_hours == 24
    tables["trust"]["grace_hours"] = 0
    with pytest.raises(ConfigError, match="has lapsed"):
        load_platform(office.write(tables), later)


def test_two_registry_roots_of_a_region_are_taken_while_its_key_changes(office: Office) -> None:
    tables = office.platform()
    both = f"{'ab' * 32} {roots(tables)['350200']}"
    roots(tables)["350200"] = both
    assert load_platform(office.write(tables), NOW).trust.registry_roots["350200"] == both


def test_a_lapsed_list_of_the_own_region_stops_the_start(office: Office) -> None:
    path = office.write(office.platform())
    with pytest.raises(ConfigError, match="has lapsed"):
        load_platform(path, NOW + timedelta(days=8, seconds=1))


def test_an_encrypted_key_is_read_with_its_password_file(office: Office) -> None:
    key = load_pem_private_key((office.folder / "tls.key").read_bytes(), None)
    encrypted = key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"open sesame")
    )
    office.write_secret("tls.key", encrypted.decode())
    office.write_secret("password", "open sesame\n")
    tables = office.platform()
    assert "give key_password_file" in office.problems(tables)["tls.key"]
    tables["tls"].update({"key_password_file": "password"})
    assert load_platform(office.write(tables), NOW).tls.key_password_file
    office.write_secret("password", "open barley\n")
    problems = office.problems(tables)
    assert "this password opens" in problems["tls.key"]
    assert "barley" not in str(problems)


def test_a_key_that_is_not_the_certificates_stops_the_start(office: Office) -> None:
    office.write_secret("seal.key", (office.folder / "tls.key").read_text())
    problems = office.problems(office.platform())
    assert problems == {"signing.key": "is not the key of seal.pem; configure the pair together"}


@pytest.mark.parametrize("content", [b"-----BEGIN", b"\xff\xfe\x00", b"listen = 's3cret"])
def test_a_file_that_is_no_toml_is_told_without_its_content(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "server.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_platform(path, NOW)
    assert str(path) in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_platform(tmp_path / "nowhere.toml", NOW)
