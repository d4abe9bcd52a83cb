"""Profiles: who this client is, where its server is, whom it trusts, and who signs.

A profile is a JSON file; relative paths in it are relative to the file. A sandbox is a folder with
``sandbox.json``, which names the actors and their profiles. Loading checks form and that the files
exist, and reports what is wrong by file and key. Nothing is fetched, no key is read here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rxoutflow.errors import InvalidInput
from rxoutflow.identity import CallerKind, CallerName, IdentityError
from rxoutflow.json_files import Fields, read_object
from rxoutflow.passwords import PasswordSource, PasswordUnusable

SANDBOX_FILE = "sandbox.json"

_SHA256 = re.compile(r"[0-9a-f]{64}")
_REGION = re.compile(r"[0-9]{6}")
_KINDS = (CallerKind.HOSPITAL, CallerKind.PHARMACY, CallerKind.REGULATOR, CallerKind.OPERATOR)
_PEOPLE: Mapping[CallerKind, tuple[str, ...]] = {
    CallerKind.HOSPITAL: ("prescriber", "reviewing_pharmacist"),
    CallerKind.PHARMACY: ("reviewing_pharmacist", "dispenser", "checker"),
    CallerKind.REGULATOR: (),
    CallerKind.OPERATOR: (),
}
_OTHER_PEOPLE: Mapping[CallerKind, tuple[str, ...]] = {
    CallerKind.OPERATOR: ("first_adjudicator", "second_adjudicator"),
}
"""People who need not all be in one profile: adjudicators may each have a desk of their own."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the server is (a gRPC target) and the name that its certificate has to carry."""

    target: str
    server_name: str


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The institution's TLS certificate and key, and the anchors of the server's region only."""

    certificate: Path
    key: Path
    roots: Path


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who signs: code and name as registered, signing certificate and key.

    There is no ``key`` for somebody whose key is in no file; the client is given a signer then.
    """

    person_code: str
    name: str
    title: str
    certificate: Path
    key: Path | None
    key_password: PasswordSource = field(default_factory=PasswordSource)


@dataclass(frozen=True, slots=True)
class Trust:
    """The folder of trust lists, and the pinned SHA-256 of each region's registry certificate."""

    folder: Path
    registry_roots: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Profile:
    """Everything that a client needs to act for one institution.

    ``people`` are by role: ``prescriber``, ``reviewing_pharmacist``, ``dispenser``, ``checker``;
    in an operator's profile ``first_adjudicator``, ``second_adjudicator``, or one of them.
    ``prices`` are a pharmacy's, in 10⁻⁶ yuan for one unit, by drug code.
    """

    path: Path
    actor: str
    name: CallerName
    institution_name: str
    endpoint: Endpoint
    tls: TlsFiles
    people: Mapping[str, Person]
    trust: Trust
    prices: Mapping[str, int] = field(default_factory=dict)

    @property
    def region_code(self) -> str:
        """The institution's pooling region."""
        return self.name.region_code

    @property
    def institution_code(self) -> str:
        """The institution."""
        return self.name.institution_code

    def expect_kind(self, kind: CallerKind) -> None:
        """Refuse a profile of another kind of institution.

        Raises:
            InvalidInput: it is of another kind.
        """
        if self.name.kind is not kind:
            needed, given = (
                f"{'an' if each is CallerKind.OPERATOR else 'a'} {each}"
                for each in (kind, self.name.kind)
            )
            raise InvalidInput(f"{self.path}: kind: this needs {needed}, not {given}")


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A sandbox on this machine: region names by code, and profile files by actor."""

    directory: Path
    region_names: Mapping[str, str]
    profiles: Mapping[str, Path]

    def profile(self, actor: str) -> Profile:
        """The profile of an actor.

        Raises:
            InvalidInput: there is no such actor, or its profile is wrong.
        """
        if actor not in self.profiles:
            raise InvalidInput(
                f"{self.directory / SANDBOX_FILE}: no actor {actor!r}; "
                f"choose one of {', '.join(sorted(self.profiles))}"
            )
        return load_profile(self.profiles[actor])


def load_profile(path: Path) -> Profile:
    """The profile in this file.

    Raises:
        InvalidInput: file and key of what is wrong.
    """
    top = Fields(str(path), read_object(path))
    folder = path.parent
    actor, kind = top.text("actor"), _kind(top)
    profile = Profile(
        path=path,
        actor=actor,
        name=_name(top, kind),
        institution_name=top.text("institution_name"),
        endpoint=_endpoint(top.fields("endpoint")),
        tls=_tls(top.fields("tls"), folder),
        people=_people(top.fields("people", optional=True), kind, folder),
        trust=_trust(top.fields("trust"), folder),
        prices=_prices(top, folder) if "price_list" in top.names() else {},
    )
    top.finish()
    return profile


def load_sandbox(path: Path) -> Sandbox:
    """The sandbox in this folder, or of this ``sandbox.json``.

    Raises:
        InvalidInput: file and key of what is wrong.
    """
    file = path / SANDBOX_FILE if path.is_dir() else path
    top = Fields(str(file), read_object(file))
    platforms, actors = top.fields("platforms"), top.fields("actors")
    return Sandbox(
        file.parent,
        {code: platforms.fields(code).text("name") for code in platforms.names()},
        {name: file.parent / actors.fields(name).text("profile") for name in actors.names()},
    )


def _kind(top: Fields) -> CallerKind:
    kind = top.text("kind")
    if kind not in _KINDS:
        raise top.problem("kind", f"must be one of {', '.join(_KINDS)}")
    return CallerKind(kind)


def _name(top: Fields, kind: CallerKind) -> CallerName:
    try:
        return CallerName(top.text("region_code"), kind, top.text("institution_code"))
    except IdentityError as error:
        raise top.problem("institution_code", str(error)) from error


def _endpoint(fields: Fields) -> Endpoint:
    endpoint = Endpoint(fields.text("target"), fields.text("server_name"))
    fields.finish()
    return endpoint


def _tls(fields: Fields, folder: Path) -> TlsFiles:
    certificate, key, roots = (
        _existing(fields, name, folder) for name in ("certificate", "key", "roots")
    )
    fields.finish()
    return TlsFiles(certificate, key, roots)


def _people(fields: Fields, kind: CallerKind, folder: Path) -> dict[str, Person]:
    others = [each for each in _OTHER_PEOPLE.get(kind, ()) if each in fields.names()]
    people = {role: _person(fields.fields(role), folder) for role in (*_PEOPLE[kind], *others)}
    fields.finish()
    return people


def _person(fields: Fields, folder: Path) -> Person:
    person = Person(
        fields.text("person_code"),
        fields.text("name"),
        fields.text("title", ""),
        _existing(fields, "certificate", folder),
        _optional(fields, "key", folder),
        _key_password(fields, folder),
    )
    fields.finish()
    return person


def _key_password(fields: Fields, folder: Path) -> PasswordSource:
    file = _optional(fields, "key_password_file", folder)
    try:
        return PasswordSource(file, fields.text("key_password_env", "") or None)
    except PasswordUnusable as error:
        raise fields.problem("key_password_env", str(error)) from error


def _trust(fields: Fields, folder: Path) -> Trust:
    roots = fields.fields("registry_roots")
    pins = {region: roots.text(region) for region in roots.names()}
    for region, pin in pins.items():
        if not _REGION.fullmatch(region):
            raise roots.problem(region, "the key must be a region code of six digits")
        if not _SHA256.fullmatch(pin):
            raise roots.problem(region, "must be a SHA-256 in 64 small hexadecimal digits")
    trust = Trust(_existing(fields, "folder", folder), pins)
    fields.finish()
    return trust


def _prices(top: Fields, folder: Path) -> dict[str, int]:
    path = _existing(top, "price_list", folder)
    prices = Fields(str(path), read_object(path))
    return {code: prices.integer(code) for code in prices.names()}


def _optional(fields: Fields, key: str, folder: Path) -> Path | None:
    return _existing(fields, key, folder) if fields.text(key, "") else None


def _existing(fields: Fields, key: str, folder: Path) -> Path:
    path = folder / fields.text(key)
    if not path.exists():
        raise fields.problem(key, f"there is no {path}")
    return path
