"""A sandbox's directory is made whole, used again, and never at the cost of anything else."""

from __future__ import annotations

import json
import shutil
import socket
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rxoutflow.identity import CallerKind
from rxoutflow.profile import load_profile
from rxoutflow.trust import TrustStore
from rxoutflow.v1.trust_pb2 import Institution
from rxoutflow_server.reference import ReferenceDataError
from rxoutflow_server.reference.catalogues import load_catalogue
from rxoutflow_server.reference.tariffs import load_tariffs
from rxoutflow_server.sandbox.constellation import CONSTELLATION_FILE, DATA, load_constellation
from rxoutflow_server.sandbox.layout import (
    Outcome,
    Prepared,
    SandboxError,
    locked,
    prepare,
)
from rxoutflow_server.sandbox.wiring import Table, Wiring, choose_ports, is_free, services, to_toml

NOW = datetime(2031, 3, 1, 12, tzinfo=UTC)
SERVICES = [
    "platform-350200",
    "platform-350500",
    "platform-320600",
    "xiamen-hospital",
    "xiamen-pharmacy",
    "quanzhou-hospital",
    "quanzhou-pharmacy",
    "nantong-pharmacy",
]
PORTS = {name: 21_000 + index for index, name in enumerate(SERVICES)}


def wire(prepared: Prepared, now: datetime = NOW) -> Wiring:
    wiring = Wiring(prepared.layout, prepared.constellation, PORTS)
    wiring.write(now)
    return wiring


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    prepared = prepare(tmp_path_factory.mktemp("made") / "sandbox", NOW)
    wire(prepared)
    return prepared


def contents(directory: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in directory.rglob("*") if file.is_file()}


def load_trust(sandbox: Prepared, now: datetime = NOW) -> TrustStore:
    pins = {
        region.code: sandbox.layout.pki(region).registry_sha256()
        for region in sandbox.constellation.regions
    }
    return TrustStore.load(sandbox.layout.trust, pins, now)


# --- making, using again, refusing ---------------------------------------------------------------


def test_a_sandbox_is_used_again_with_its_data(tmp_path: Path) -> None:
    made = prepare(tmp_path / "box", NOW)
    store = made.layout.platform(made.constellation.regions[0]) / "platform.db"
    store.write_bytes(b"data")
    before = contents(tmp_path)
    again = prepare(tmp_path / "box", NOW + timedelta(days=300))
    assert (made.outcome, again.outcome) == (Outcome.MADE, Outcome.REUSED)
    assert contents(tmp_path) == before


def test_fresh_throws_the_data_away_and_makes_new_keys(tmp_path: Path) -> None:
    region = (made := prepare(tmp_path / "box", NOW)).constellation.regions[0]
    pin = made.layout.pki(region).registry_sha256()
    store = made.layout.platform(region) / "platform.db"
    store.write_bytes(b"data")
    fresh = prepare(tmp_path / "box", NOW, fresh=True)
    assert fresh.outcome is Outcome.MADE
    assert not store.exists()
    assert fresh.layout.pki(region).registry_sha256() != pin


def test_a_sandbox_whose_certificates_are_about_to_lapse_is_made_anew(tmp_path: Path) -> None:
    prepare(tmp_path / "box", NOW)
    later = NOW + timedelta(days=340)
    renewed = prepare(tmp_path / "box", later)
    assert renewed.outcome is Outcome.RENEWED
    registry = renewed.layout.pki(renewed.constellation.regions[0]).registry.load()
    assert registry.not_valid_after_utc > later + timedelta(days=300)


def test_an_empty_directory_is_taken(tmp_path: Path) -> None:
    (tmp_path / "box").mkdir()
    assert prepare(tmp_path / "box", NOW).outcome is Outcome.MADE


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("thesis.txt", "years of work"),
        ("state.json", "{}"),
        ("state.json", "not JSON"),
        ("state.json", '{"format": 99, "source_sha256": "", "certificates_lapse": "2031-01-01"}'),
    ],
)
def test_a_directory_that_holds_something_else_is_refused_and_left_alone(
    tmp_path: Path, name: str, content: str, fresh: bool
) -> None:
    (tmp_path / "box").mkdir()
    (tmp_path / "box" / name).write_text(content)
    before = contents(tmp_path)
    with pytest.raises(SandboxError, match="name a new or empty directory"):
        prepare(tmp_path / "box", NOW, fresh=fresh)
    assert contents(tmp_path) == before


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "box").write_text("a file")
    with pytest.raises(SandboxError, match="not a directory"):
        prepare(tmp_path / "box", NOW)


def test_a_running_sandbox_is_not_thrown_away(tmp_path: Path) -> None:
    made = prepare(tmp_path / "box", NOW)
    before = contents(tmp_path)
    with locked(made.layout.directory), pytest.raises(SandboxError, match="is running"):
        prepare(tmp_path / "box", NOW, fresh=True)
    assert contents(tmp_path) == before


def test_a_sandbox_that_was_made_from_other_data_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(DATA, data)
    prepare(tmp_path / "box", NOW, data=data)
    with (data / "catalogues" / "350200.csv").open("a") as catalogue:
        catalogue.write("\n")
    with pytest.raises(SandboxError, match="--fresh"):
        prepare(tmp_path / "box", NOW, data=data)
    assert prepare(tmp_path / "box", NOW, data=data, fresh=True).outcome is Outcome.MADE


def test_missing_reference_data_is_named_and_nothing_is_made(tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(DATA, data)
    (data / "catalogues" / "320600.csv").unlink()
    with pytest.raises(SandboxError, match=r"lacks catalogues/320600\.csv"):
        prepare(tmp_path / "box", NOW, data=data)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_what_fails_half_way_leaves_nothing_behind(tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(DATA, data)
    (data / "catalogues" / "320600.csv").write_text("drug_code\n")
    with pytest.raises(ReferenceDataError, match="missing columns"):
        prepare(tmp_path / "box", NOW, data=data)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


# --- what is in it -------------------------------------------------------------------------------


def test_every_service_has_a_configuration_whose_files_exist(sandbox: Prepared) -> None:
    listed = services(sandbox.layout, sandbox.constellation)
    assert [each.name for each in listed] == SERVICES
    for service in listed:
        config = tomllib.loads(service.config.read_text(encoding="utf-8"))
        folder = service.config.parent
        paths = [*config["tls"].values(), *config["signing"].values(), config["trust"]["folder"]]
        paths += config.get("reference", {}).values()
        assert [path for path in paths if not (folder / path).exists()] == []
        assert config["listen"] == f"127.0.0.1:{PORTS[service.name]}"
        assert (folder / config["store"]["path"]).parent.is_dir()
        assert set(config["trust"]["registry_roots"]) == {"350200", "350500", "320600"}


def test_a_platform_configuration_says_what_the_platform_needs(sandbox: Prepared) -> None:
    region = sandbox.constellation.region("350500")
    folder = sandbox.layout.platform(region)
    config = tomllib.loads((folder / "platform.toml").read_text(encoding="utf-8"))
    assert config["region"] == "350500"
    assert config["claim"] == {"lease_seconds": 1800}
    assert len(bytes.fromhex((folder / config["pickup"]["hash_key_file"]).read_text())) == 32
    assert len(load_catalogue(folder / config["reference"]["catalogue"])) > 0
    assert load_tariffs(folder / config["reference"]["tariffs"])


def test_an_edge_configuration_names_its_institution_and_platform(sandbox: Prepared) -> None:
    file = next(
        each.config
        for each in services(sandbox.layout, sandbox.constellation)
        if each.name == "nantong-pharmacy"
    )
    config = tomllib.loads(file.read_text(encoding="utf-8"))
    assert file.name == "pharmacy.toml"
    assert (config["institution"], config["region"]) == ("P32060000001", "320600")
    assert config["platform"] == {"target": f"127.0.0.1:{PORTS['platform-320600']}"}


def test_pickup_keys_differ_between_regions_and_only_the_owner_reads_them(
    sandbox: Prepared,
) -> None:
    files = [sandbox.layout.pickup_key(region) for region in sandbox.constellation.regions]
    assert len({file.read_bytes() for file in files}) == 3
    assert {file.stat().st_mode & 0o077 for file in files} == {0}


def test_the_trust_lists_load_and_vouch_for_everybody(sandbox: Prepared) -> None:
    trust = load_trust(sandbox)
    for region in sandbox.constellation.regions:
        held = trust.region(region.code, NOW)
        assert held.endpoints == (f"127.0.0.1:{PORTS[f'platform-{region.code}']}",)
        assert set(held.institutions) == {each.code for each in region.institutions}
        for each in region.institutions:
            entry = held.institutions[each.code]
            assert entry.status == Institution.STATUS_ACTIVE
            assert entry.designated is (each.kind in (CallerKind.HOSPITAL, CallerKind.PHARMACY))


def test_the_trust_lists_lapse_after_ninety_days_and_rise_with_every_start(tmp_path: Path) -> None:
    prepared = prepare(tmp_path / "box", NOW)
    wire(prepared)
    first = load_trust(prepared).region("350200", NOW)
    assert first.lapse_time == NOW + timedelta(days=90)
    later = NOW + timedelta(days=100)
    wire(prepare(tmp_path / "box", later), later)
    second = load_trust(prepared, later).region("350200", later)
    assert second.sequence == first.sequence + 1


@pytest.mark.parametrize(
    ("actor", "service", "people"),
    [
        ("xiamen-hospital", "xiamen-hospital", {"prescriber", "reviewing_pharmacist"}),
        ("quanzhou-hospital", "quanzhou-hospital", {"prescriber", "reviewing_pharmacist"}),
        ("xiamen-pharmacy", "xiamen-pharmacy", {"reviewing_pharmacist", "dispenser", "checker"}),
        ("nantong-pharmacy", "nantong-pharmacy", {"reviewing_pharmacist", "dispenser", "checker"}),
        ("quanzhou-regulator", "platform-350500", set()),
        ("xiamen-operator", "platform-350200", {"first_adjudicator", "second_adjudicator"}),
    ],
)
def test_a_profile_names_the_endpoint_and_people_of_its_actor(
    sandbox: Prepared, actor: str, service: str, people: set[str]
) -> None:
    profile = load_profile(sandbox.layout.directory / "profiles" / f"{actor}.json")
    assert profile.endpoint.target == f"127.0.0.1:{PORTS[service]}"
    assert set(profile.people) == people
    files: list[Path | None] = [profile.tls.certificate, profile.tls.key, profile.tls.roots]
    for person in profile.people.values():
        files += [person.certificate, person.key]
    assert [file for file in files if file is None or not file.is_file()] == []


def test_pharmacies_sell_everything_in_their_catalogue_a_little_below_the_ceiling(
    sandbox: Prepared,
) -> None:
    for each in sandbox.constellation.institutions:
        if each.kind is not CallerKind.PHARMACY:
            continue
        region = sandbox.constellation.region(each.region_code)
        prices = load_profile(sandbox.layout.profile(each)).prices
        drugs = list(load_catalogue(sandbox.layout.catalogue(region)))
        assert set(prices) == {drug.drug_code for drug in drugs}
        for drug in drugs:
            price = prices[drug.drug_code]
            assert 0 < price <= drug.price_micro_yuan
            assert price >= drug.price_micro_yuan * 97 // 100
            assert price < 10_000 or price % 100 == 0


def test_the_sandbox_names_itself_synthetic(sandbox: Prepared) -> None:
    for each in sandbox.constellation.institutions:
        assert "（合成）" in each.name
        assert all("（合成）" in person.name for person in each.people)


# --- the constellation's file --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ('code = "350200"', 'code = "35020"', r"region\[0\]\.code"),
        ('code = "H35020000001"', 'code = "H35050000009"', r"institution\[0\]\.code"),
        ('kind = "hospital"', 'kind = "platform"', r"institution\[0\]\.kind"),
        ('capacity = "prescriber"', 'capacity = "checker"', r"institution\[0\]\.person"),
        ("tier = 3", "tier = 4", r"institution\[0\]\.tier"),
        ("tier = 3", "tier = 3\nbeds = 9", r"institution\[0\]\.beds"),
        ('platform_keys = "p256"', 'platform_keys = "rsa"', r"region\[0\]\.platform_keys"),
        ('actor = "xiamen-pharmacy"', 'actor = "xiamen-hospital"', "used twice"),
        ('code = "A350200101"', 'code = "A350200001"', "used twice"),
        ('actor = "xiamen-hospital"', 'actor = "../../etc"', r"institution\[0\]\.actor"),
    ],
)
def test_a_faulty_constellation_is_refused_by_place(
    tmp_path: Path, old: str, new: str, where: str
) -> None:
    text = (DATA / CONSTELLATION_FILE).read_text(encoding="utf-8")
    assert old in text
    file = tmp_path / "constellation.toml"
    file.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ReferenceDataError, match=where):
        load_constellation(file)


# --- small parts ---------------------------------------------------------------------------------


def test_what_is_written_as_toml_is_read_back_the_same() -> None:
    table: Table = {
        "a": 'quotes " and \\ and 药店',
        "n": 5,
        "t": {"k": "v", "350200": {"x y": "z"}},
    }
    assert tomllib.loads(to_toml(table)) == table


def test_chosen_ports_are_distinct_and_not_those_of_outgoing_connections() -> None:
    ports = choose_ports(SERVICES)
    assert list(ports) == SERVICES
    assert len(set(ports.values())) == len(SERVICES)
    assert all(20_000 <= port < 32_768 for port in ports.values())


def test_a_port_that_somebody_listens_on_is_not_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert not is_free(port)
    assert is_free(port)


def test_the_announcement_names_platforms_and_actors(sandbox: Prepared) -> None:
    announcement = json.loads(json.dumps(wire(sandbox).announcement()))
    assert set(announcement) == {"directory", "platforms", "actors"}
    assert announcement["platforms"]["350200"] == {
        "name": "厦门",
        "target": f"127.0.0.1:{PORTS['platform-350200']}",
        "server_name": "platform.350200.rxoutflow",
    }
    assert announcement["actors"]["xiamen-regulator"] == {
        "kind": "regulator",
        "region_code": "350200",
        "institution_code": "R350200",
        "institution_name": "厦门医保监管（合成）",
        "profile": "profiles/xiamen-regulator.json",
    }
    assert len(announcement["actors"]) == 11
