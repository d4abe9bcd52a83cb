"""Profiles and sandboxes: what loads, and that whatever is wrong is named by file and key."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rxoutflow.errors import InvalidInput
from rxoutflow.identity import CallerKind
from rxoutflow.profile import load_profile, load_sandbox

Values = dict[str, Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("tls.pem", "tls.key", "roots.pem", "person.pem", "person.key"):
        (tmp_path / name).write_text("not read here", encoding="utf-8")
    (tmp_path / "trust").mkdir()
    (tmp_path / "prices.json").write_text('{"SYNW1": 391400}', encoding="utf-8")
    return tmp_path


def person() -> Values:
    return {
        "person_code": "A350500101",
        "name": "合成药师",
        "title": "",
        "certificate": "person.pem",
        "key": "person.key",
    }


def pharmacy() -> Values:
    return {
        "actor": "quanzhou-pharmacy",
        "kind": "pharmacy",
        "region_code": "350500",
        "institution_code": "P35050000001",
        "institution_name": "泉州示范药店（合成）",
        "endpoint": {"target": "127.0.0.1:1", "server_name": "p35050000001.350500.rxoutflow"},
        "tls": {"certificate": "tls.pem", "key": "tls.key", "roots": "roots.pem"},
        "people": {
            "reviewing_pharmacist": person(),
            "dispenser": person(),
            "checker": person(),
        },
        "trust": {"folder": "trust", "registry_roots": {"350500": "ab" * 32}},
        "price_list": "prices.json",
    }


def write(folder: Path, values: object) -> Path:
    path = folder / "profile.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


def test_a_profile_loads_with_paths_relative_to_its_file(folder: Path) -> None:
    profile = load_profile(write(folder, pharmacy()))
    assert str(profile.name) == "spiffe://350500.rxoutflow/pharmacy/P35050000001"
    assert profile.tls.roots == folder / "roots.pem"
    assert profile.people["checker"].key == folder / "person.key"
    assert profile.prices == {"SYNW1": 391_400}


@pytest.mark.parametrize(
    "people",
    [
        set(),
        {"first_adjudicator"},
        {"second_adjudicator"},
        {"first_adjudicator", "second_adjudicator"},
    ],
)
def test_adjudicators_may_share_a_profile_or_have_one_each(folder: Path, people: set[str]) -> None:
    values = pharmacy() | {"kind": "operator", "institution_code": "O350500"}
    del values["price_list"]
    values["people"] = dict.fromkeys(people, values["people"]["checker"])
    assert set(load_profile(write(folder, values)).people) == people


def test_a_regulator_needs_no_people_and_no_prices(folder: Path) -> None:
    values = pharmacy() | {"kind": "regulator", "institution_code": "R350500", "people": {}}
    del values["price_list"]
    profile = load_profile(write(folder, values))
    assert (profile.people, profile.prices) == ({}, {})


def edit(*keys: str, to: object) -> Callable[[Values], None]:
    def apply(values: Values) -> None:
        for key in keys[:-1]:
            values = values[key]
        values[keys[-1]] = to

    return apply


def remove(*keys: str) -> Callable[[Values], None]:
    def apply(values: Values) -> None:
        for key in keys[:-1]:
            values = values[key]
        del values[keys[-1]]

    return apply


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (remove("actor"), "actor: is missing"),
        (
            edit("kind", to="platform"),
            "kind: must be one of hospital, pharmacy, regulator, operator",
        ),
        (edit("institution_code", to="H35050000001"), "institution_code: "),
        (edit("region_code", to="350200"), "institution_code: "),
        (edit("endpoint", to="127.0.0.1:1"), "endpoint: must be an object"),
        (remove("endpoint", "server_name"), "endpoint.server_name: is missing"),
        (edit("endpoint", "insecure", to=True), "endpoint.insecure: unknown key"),
        (edit("tls", "key", to="gone.key"), "tls.key: there is no "),
        (remove("people", "dispenser"), "people.dispenser: is missing"),
        (edit("people", "prescriber", to=person()), "people.prescriber: unknown key"),
        (edit("people", "checker", "nmae", to="x"), "people.checker.nmae: unknown key; did you"),
        (edit("trust", "folder", to="gone"), "trust.folder: there is no "),
        (edit("trust", "registry_roots", "350500", to="ab"), "trust.registry_roots.350500: "),
        (edit("trust", "registry_roots", "x", to="ab" * 32), "trust.registry_roots.x: "),
        (edit("institution_name", to=7), "institution_name: must be a text"),
        (edit("price_lists", to="x"), "price_lists: unknown key; did you mean price_list?"),
    ],
)
def test_what_is_wrong_is_named_by_file_and_key(
    folder: Path, change: Callable[[Values], None], words: str
) -> None:
    values = pharmacy()
    change(values)
    path = write(folder, values)
    with pytest.raises(InvalidInput) as caught:
        load_profile(path)
    assert str(caught.value).startswith(f"{path}: {words}")


def test_a_price_that_is_no_integer_is_named_in_the_price_list(folder: Path) -> None:
    (folder / "prices.json").write_text('{"SYNW1": 0.39}', encoding="utf-8")
    with pytest.raises(InvalidInput, match=r"prices\.json: SYNW1: must be an integer"):
        load_profile(write(folder, pharmacy()))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "line 1 column 1: not valid JSON"),
        (b'{"a": 1,\n  "b": }', "line 2 column 8: not valid JSON"),
        (b"[]", "must hold one JSON object"),
        (b'{"a": 1, "a": 2}', "key 'a' is there twice"),
        (b'{"a": NaN}', "NaN is not a JSON value"),
        (b'{"a": "\xff"}', "not UTF-8 text"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    ],
)
def test_a_file_that_is_no_plain_json_object_is_refused_with_the_place(
    folder: Path, content: bytes, words: str
) -> None:
    path = folder / "profile.json"
    path.write_bytes(content)
    with pytest.raises(InvalidInput) as caught:
        load_profile(path)
    assert str(caught.value).startswith(f"{path}: {words}")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"gone\.json: cannot be read: No such file"):
        load_profile(tmp_path / "gone.json")


def test_a_profile_of_another_kind_is_refused(folder: Path) -> None:
    profile = load_profile(write(folder, pharmacy()))
    profile.expect_kind(CallerKind.PHARMACY)
    with pytest.raises(InvalidInput, match="needs a hospital, not a pharmacy"):
        profile.expect_kind(CallerKind.HOSPITAL)


def write_sandbox(folder: Path) -> Path:
    write(folder, pharmacy())
    sandbox = {
        "directory": str(folder),
        "platforms": {"350500": {"name": "泉州", "target": "127.0.0.1:2", "server_name": "x"}},
        "actors": {"quanzhou-pharmacy": {"kind": "pharmacy", "profile": "profile.json"}},
    }
    path = folder / "sandbox.json"
    path.write_text(json.dumps(sandbox), encoding="utf-8")
    return path


def test_a_sandbox_loads_from_its_folder_or_its_file(folder: Path) -> None:
    path = write_sandbox(folder)
    for given in (folder, path):
        sandbox = load_sandbox(given)
        assert sandbox.region_names == {"350500": "泉州"}
        assert sandbox.profile("quanzhou-pharmacy").actor == "quanzhou-pharmacy"


def test_an_actor_that_a_sandbox_does_not_have_is_refused_with_those_it_has(folder: Path) -> None:
    sandbox = load_sandbox(write_sandbox(folder))
    with pytest.raises(InvalidInput, match="no actor 'quanzhou'; choose one of quanzhou-pharmacy"):
        sandbox.profile("quanzhou")
