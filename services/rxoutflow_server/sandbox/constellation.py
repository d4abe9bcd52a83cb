"""Who takes part: regions, institutions and people, read from TOML files.

A constellation is taken whole or refused: every key is required, unknown ones are refused, codes
must fit their region and kind, every institution has the people whose signatures its work needs,
every region has one regulator and one operator, and no two actors or people share a name or code.
It says nothing about keys on disk, addresses or processes.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from rxoutflow.identity import (
    PERSON_CODE,
    REGION_CODE,
    CallerKind,
    CallerName,
    IdentityError,
    KeyPurpose,
    SignerName,
)
from rxoutflow_server.devpki import KeyAlgorithm
from rxoutflow_server.reference import ReferenceDataError
from rxoutflow_server.reference.fields import FieldError, Fields

DATA = Path(__file__).parent / "data"
"""The sandbox's own constellation and reference data, all synthetic."""

CONSTELLATION_FILE = "constellation.toml"
"""Name of the constellation's file within a folder of sandbox data: regions that fill."""

PAYERS_FILE = "payers.toml"
"""Beside it, the regions that only pay, each a platform more: for demonstrations."""

_E = TypeVar("_E", bound=StrEnum)

_ACTOR = re.compile(r"[a-z][a-z0-9-]{0,39}")


class Capacity(StrEnum):
    """In which capacity a person signs; the names of people in client profiles."""

    PRESCRIBER = "prescriber"
    REVIEWING_PHARMACIST = "reviewing_pharmacist"
    DISPENSER = "dispenser"
    CHECKER = "checker"
    FIRST_ADJUDICATOR = "first_adjudicator"
    SECOND_ADJUDICATOR = "second_adjudicator"


STAFF = {
    CallerKind.HOSPITAL: (Capacity.PRESCRIBER, Capacity.REVIEWING_PHARMACIST),
    CallerKind.PHARMACY: (
        Capacity.REVIEWING_PHARMACIST,
        Capacity.DISPENSER,
        Capacity.CHECKER,
    ),
    CallerKind.REGULATOR: (),
    CallerKind.OPERATOR: (Capacity.FIRST_ADJUDICATOR, Capacity.SECOND_ADJUDICATOR),
}
"""The kinds of institutions a constellation has, and the people each of them needs."""


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who signs for an institution."""

    capacity: Capacity
    code: str
    name: str
    title: str


@dataclass(frozen=True, slots=True)
class Institution:
    """Who takes part beside the platforms; ``actor`` is its short name for people."""

    region_code: str
    actor: str
    kind: CallerKind
    code: str
    name: str
    phone: str
    tier: int
    people: tuple[Person, ...]

    @property
    def caller(self) -> CallerName:
        """The name on its TLS certificates."""
        return CallerName(self.region_code, self.kind, self.code)

    @property
    def has_edge(self) -> bool:
        """Whether it runs an edge service of its own; regulators and operators only call."""
        return self.kind in (CallerKind.HOSPITAL, CallerKind.PHARMACY)

    @property
    def signs_as(self) -> CallerName:
        """For whom its people sign: those of an operator for the region's platform."""
        if self.kind is CallerKind.OPERATOR:
            return CallerName(self.region_code, CallerKind.PLATFORM, self.region_code)
        return self.caller

    @property
    def host_name(self) -> str:
        """The host name on its edge's TLS certificate."""
        return f"{self.code.lower()}.{self.region_code}.rxoutflow"

    def signer(self, person: Person) -> SignerName:
        """The name on a person's signing certificate."""
        return SignerName(self.signs_as, KeyPurpose.PERSON, person.code)


@dataclass(frozen=True, slots=True)
class Region:
    """A pooling region with its platform."""

    code: str
    name: str
    platform_keys: KeyAlgorithm
    institution_keys: KeyAlgorithm
    institutions: tuple[Institution, ...]

    @property
    def key_algorithms(self) -> frozenset[KeyAlgorithm]:
        """The kinds of signing keys that the region has."""
        return frozenset((self.platform_keys, self.institution_keys))

    @property
    def caller(self) -> CallerName:
        """The name on the platform's TLS certificate."""
        return CallerName(self.code, CallerKind.PLATFORM, self.code)

    @property
    def host_name(self) -> str:
        """The host name on the platform's TLS certificate."""
        return f"platform.{self.code}.rxoutflow"


@dataclass(frozen=True, slots=True)
class Constellation:
    """All regions that take part."""

    regions: tuple[Region, ...]

    @property
    def institutions(self) -> tuple[Institution, ...]:
        """Every institution of every region."""
        return tuple(each for region in self.regions for each in region.institutions)

    def region(self, region_code: str) -> Region:
        """The region with this code."""
        return next(region for region in self.regions if region.code == region_code)


def load_constellation(*files: Path) -> Constellation:
    """The constellation in these TOML files.

    Raises:
        ReferenceDataError: a file cannot be read or is wrong; it names the place.
    """
    regions: tuple[Region, ...] = ()
    for file in files:
        try:
            regions += _read_regions(file)
            _require_distinct(regions)
        except FieldError as fault:
            raise ReferenceDataError(file, fault.where, fault.problem) from fault
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ReferenceDataError(file, "file", f"not readable as TOML: {error}") from error
    return Constellation(regions)


def _read_regions(file: Path) -> tuple[Region, ...]:
    with file.open("rb") as stream:
        document = Fields(tomllib.load(stream))
    regions = tuple(_region(fields) for fields in document.tables("region"))
    document.close()
    return regions


def _region(fields: Fields) -> Region:
    code = _matching(fields, "code", REGION_CODE, "six digits")
    region = Region(
        code=code,
        name=fields.text("name"),
        platform_keys=_choice(fields, "platform_keys", KeyAlgorithm),
        institution_keys=_choice(fields, "institution_keys", KeyAlgorithm),
        institutions=tuple(_institution(each, code) for each in fields.tables("institution")),
    )
    fields.close()
    for kind in (CallerKind.REGULATOR, CallerKind.OPERATOR):
        count = sum(each.kind is kind for each in region.institutions)
        if count != 1:
            raise FieldError(fields.path("institution"), f"needs one {kind}, not {count}")
    return region


def _institution(fields: Fields, region_code: str) -> Institution:
    kind = _choice(fields, "kind", CallerKind)
    if kind not in STAFF:
        raise FieldError(fields.path("kind"), f"must be one of {', '.join(STAFF)}")
    institution = Institution(
        region_code=region_code,
        actor=_matching(fields, "actor", _ACTOR, "small letters, digits and hyphens"),
        kind=kind,
        code=fields.text("code"),
        name=fields.text("name"),
        phone=fields.text("phone"),
        tier=fields.integer("tier") if kind is CallerKind.HOSPITAL else 0,
        people=tuple(_people(fields)) if STAFF[kind] else (),
    )
    fields.close()
    _require_fitting(fields, institution)
    return institution


def _people(fields: Fields) -> Iterator[Person]:
    for each in fields.tables("person"):
        yield Person(
            capacity=_choice(each, "capacity", Capacity),
            code=_matching(each, "code", PERSON_CODE, "capital letters and digits"),
            name=each.text("name"),
            title=each.text("title"),
        )
        each.close()


def _require_fitting(fields: Fields, institution: Institution) -> None:
    try:
        _ = institution.caller
    except IdentityError as error:
        raise FieldError(fields.path("code"), str(error)) from error
    if institution.kind is CallerKind.HOSPITAL and institution.tier not in (1, 2, 3):
        raise FieldError(fields.path("tier"), "must be 1, 2 or 3")
    required = STAFF[institution.kind]
    if sorted(person.capacity for person in institution.people) != sorted(required):
        raise FieldError(fields.path("person"), f"needs one each of {', '.join(required)}")


def _require_distinct(regions: Iterable[Region]) -> None:
    regions = tuple(regions)
    _refuse_repeated("code", (region.code for region in regions))
    institutions = [each for region in regions for each in region.institutions]
    _refuse_repeated("actor", (each.actor for each in institutions))
    _refuse_repeated("code", (each.code for each in institutions))
    _refuse_repeated(
        "person code", (person.code for each in institutions for person in each.people)
    )


def _refuse_repeated(what: str, values: Iterable[str]) -> None:
    repeated = [value for value, count in Counter(values).items() if count > 1]
    if repeated:
        raise FieldError("region", f"{what} {', '.join(repeated)} is used twice: give each its own")


def _matching(fields: Fields, key: str, form: re.Pattern[str], described: str) -> str:
    text = fields.text(key)
    if not form.fullmatch(text):
        raise FieldError(fields.path(key), f"must be {described}")
    return text


def _choice(fields: Fields, key: str, choices: type[_E]) -> _E:
    text = fields.text(key)
    if text not in set(choices):
        raise FieldError(fields.path(key), f"must be one of {', '.join(choices)}")
    return choices(text)
