"""The directory of a sandbox: where everything is, and making what does not change between starts.

A sandbox is made in a temporary directory beside its place and moved there when it is complete, so
a directory with a state file is a whole sandbox. It is used again as long as its certificates hold;
one whose certificates are about to lapse is made anew, data and all. A directory that holds
anything else is refused and left as it is, and so is a sandbox that was made from other data or
that is running.

Nothing here knows addresses: see ``wiring``.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from enum import Enum, auto
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

from rxoutflow.identity import CallerKind
from rxoutflow.statements.algorithms import KeyUnsupported, sm2_support
from rxoutflow_server.devpki import (
    LEAF_LIFETIME,
    KeyAlgorithm,
    make_private_folder,
    write_private_file,
)
from rxoutflow_server.domain.catalogue import Drug
from rxoutflow_server.reference.catalogues import load_catalogue
from rxoutflow_server.sandbox.constellation import (
    CONSTELLATION_FILE,
    DATA,
    Constellation,
    Institution,
    Region,
    load_constellation,
)
from rxoutflow_server.sandbox.pki import RegionPki, issue_pki, region_pki

RENEWAL_MARGIN = timedelta(days=30)
"""How long before its certificates lapse a sandbox is made anew instead of used again."""

_FORMAT = 1
_PICKUP_KEY_BYTES = 32
_PRICE_PERCENT, _PRICE_STEP_MICRO_YUAN = 98, 100
_FEN_MICRO_YUAN = 10_000


class SandboxError(Exception):
    """The sandbox cannot be made or used; the message says what to do."""


class Outcome(Enum):
    """What became of a directory."""

    MADE = auto()
    REUSED = auto()
    RENEWED = auto()


@dataclass(frozen=True, slots=True)
class State:
    """What a sandbox remembers: its form, what it was made from, and its latest trust lists."""

    format: int
    source_sha256: str
    certificates_lapse: str
    trust_sequence: int = 0

    @classmethod
    def read(cls, file: Path) -> Self | None:
        """The state in this file, or none if it is not the state of such a sandbox."""
        try:
            state = cls(**json.loads(file.read_text(encoding="utf-8")))
            datetime.fromisoformat(state.certificates_lapse)
        except (OSError, ValueError, TypeError):
            return None
        return state if state.format == _FORMAT else None

    def write(self, file: Path) -> None:
        """Keep it."""
        write_atomically(file, json.dumps(asdict(self), indent=2).encode())

    def lapses_soon(self, now: datetime) -> bool:
        """Whether the certificates lapse within the margin."""
        return datetime.fromisoformat(self.certificates_lapse) - now < RENEWAL_MARGIN

    def next_sequence(self) -> Self:
        """The state after the trust lists were issued once more."""
        return replace(self, trust_sequence=self.trust_sequence + 1)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything of one sandbox is."""

    directory: Path

    @property
    def state(self) -> Path:
        """What marks the directory as a complete sandbox."""
        return self.directory / "state.json"

    @property
    def announcement(self) -> Path:
        """``sandbox.json``, which is there only while the sandbox runs."""
        return self.directory / "sandbox.json"

    @property
    def trust(self) -> Path:
        """The folder of all regions' trust lists."""
        return self.directory / "trust"

    @property
    def logs(self) -> Path:
        """One log file a process."""
        return self.directory / "logs"

    @property
    def pki_folder(self) -> Path:
        """The PKIs of all regions."""
        return self.directory / "pki"

    @property
    def tariffs(self) -> Path:
        """The folder of all regions' tariffs."""
        return self.directory / "reference" / "tariffs"

    def pki(self, region: Region) -> RegionPki:
        """A region's PKIs."""
        return region_pki(self.pki_folder, region)

    def catalogue(self, region: Region) -> Path:
        """A region's drug catalogue."""
        return self.directory / "reference" / "catalogues" / f"{region.code}.csv"

    def insured(self, region: Region) -> Path:
        """The persons that a region insures."""
        return self.directory / "reference" / "insured" / f"{region.code}.csv"

    def platform(self, region: Region) -> Path:
        """The folder of a platform: configuration, pickup key, store."""
        return self.directory / "platforms" / region.code

    def pickup_key(self, region: Region) -> Path:
        """The key under which a platform keeps pickup codes."""
        return self.platform(region) / "pickup.key"

    def edge(self, institution: Institution) -> Path:
        """The folder of an institution's edge service: configuration, store."""
        return self.directory / "edges" / institution.actor

    def profile(self, institution: Institution) -> Path:
        """The client profile of an actor."""
        return self.directory / "profiles" / f"{institution.actor}.json"

    def prices(self, institution: Institution) -> Path:
        """What a pharmacy sells, and for how much."""
        return self.directory / "profiles" / f"{institution.actor}-prices.json"


@dataclass(frozen=True, slots=True)
class Prepared:
    """A complete sandbox, ready to be wired and started."""

    layout: Layout
    constellation: Constellation
    outcome: Outcome


def prepare(
    directory: Path,
    now: datetime,
    *,
    fresh: bool = False,
    data: Path = DATA,
    files: Sequence[str] = (CONSTELLATION_FILE,),
) -> Prepared:
    """Make the sandbox in this directory, or use the one that is there.

    Args:
        directory: a new or empty directory, or that of a sandbox.
        now: the time (aware).
        fresh: throw away the sandbox that is there, with its data.
        data: the constellation and its reference data.
        files: those of the data that name the regions.

    Raises:
        SandboxError: the directory holds something else, is in use, or was made from other data.
        ReferenceDataError: the constellation or a catalogue cannot be used.
    """
    layout = Layout(directory.resolve())
    constellation = load_constellation(*(data / file for file in files))
    _require_data(constellation, data)
    _require_algorithms(constellation)
    source, state = _source_sha256(data, files), State.read(layout.state)
    if state is None:
        _require_empty(layout.directory)
    elif not fresh and not state.lapses_soon(now):
        if state.source_sha256 != source:
            raise SandboxError(
                f"{layout.directory} was made from other sandbox data: "
                "add --fresh to make it anew, which throws its data away, or name another directory"
            )
        return Prepared(layout, constellation, Outcome.REUSED)
    _replace(layout.directory, lambda new: _make(Layout(new), constellation, data, source, now))
    outcome = Outcome.MADE if state is None or fresh else Outcome.RENEWED
    return Prepared(layout, constellation, outcome)


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep the sandbox for this process, until it ends in whatever way.

    Raises:
        SandboxError: another process has it.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SandboxError(
                f"the sandbox in {directory} is running: stop it first, or name another directory"
            ) from error
        yield
    finally:
        os.close(descriptor)


def write_atomically(file: Path, content: bytes) -> None:
    """Replace a file as a whole: readers see the old content or the new one."""
    temporary = file.with_name(f".{file.name}.new")
    temporary.write_bytes(content)
    temporary.replace(file)


def _require_empty(directory: Path) -> None:
    if not directory.exists():
        return
    if not directory.is_dir():
        raise SandboxError(f"{directory} is not a directory: name another place")
    if any(directory.iterdir()):
        raise SandboxError(
            f"{directory} holds something else than a sandbox of this version: "
            "name a new or empty directory"
        )


def _require_data(constellation: Constellation, data: Path) -> None:
    needed = [data / "tariffs"]
    for region in constellation.regions:
        needed += [data / kind / f"{region.code}.csv" for kind in ("catalogues", "insured")]
    missing = [str(path.relative_to(data)) for path in needed if not path.exists()]
    if missing:
        raise SandboxError(
            f"{data} lacks {', '.join(missing)}: every region needs them; "
            "add them, or install rxoutflow again"
        )


def _require_algorithms(constellation: Constellation) -> None:
    keys = {each for region in constellation.regions for each in region.key_algorithms}
    if KeyAlgorithm.SM2 in keys:
        try:
            sm2_support()
        except KeyUnsupported as error:
            raise SandboxError(f"the constellation asks for SM2 keys: {error}") from error


def _source_sha256(data: Path, files: Sequence[str]) -> str:
    digest = sha256(f"{' '.join(files)}\n".encode())
    for file in sorted(data.rglob("*")):
        if file.suffix in (".toml", ".csv"):
            content = file.read_bytes()
            digest.update(f"{file.relative_to(data).as_posix()} {len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()


def _replace(directory: Path, make: Callable[[Path], None]) -> None:
    """Make a new directory beside the old one and let it take its place."""
    try:
        make_private_folder(directory.parent)
        with TemporaryDirectory(prefix=f".{directory.name}-", dir=directory.parent) as beside:
            make(Path(beside) / "new")
            if directory.exists():
                with locked(directory):
                    directory.rename(Path(beside) / "old")
            (Path(beside) / "new").rename(directory)
    except OSError as error:
        raise SandboxError(
            f"{directory} cannot be made: {error.strerror or error}; name another directory"
        ) from error


def _make(
    layout: Layout, constellation: Constellation, data: Path, source: str, now: datetime
) -> None:
    make_private_folder(layout.directory)
    issue_pki(constellation, layout.pki_folder, now)
    _copy_reference_data(layout, constellation, data)
    for folder in (layout.trust, layout.logs, layout.directory / "profiles"):
        make_private_folder(folder)
    for region in constellation.regions:
        make_private_folder(layout.platform(region))
        key = secrets.token_hex(_PICKUP_KEY_BYTES)
        write_private_file(layout.pickup_key(region), key.encode())
        _make_institutions(layout, region)
    lapse = (now + LEAF_LIFETIME).isoformat()
    State(_FORMAT, source, lapse).write(layout.state)


def _copy_reference_data(layout: Layout, constellation: Constellation, data: Path) -> None:
    shutil.copytree(data / "tariffs", layout.tariffs)
    for region in constellation.regions:
        for copy in (layout.catalogue(region), layout.insured(region)):
            make_private_folder(copy.parent)
            shutil.copyfile(data / copy.parent.name / copy.name, copy)


def _make_institutions(layout: Layout, region: Region) -> None:
    for each in region.institutions:
        if each.has_edge:
            make_private_folder(layout.edge(each))
        if each.kind is CallerKind.PHARMACY:
            drugs = load_catalogue(layout.catalogue(region))
            prices = {drug.drug_code: _price_micro_yuan(drug) for drug in drugs}
            write_atomically(layout.prices(each), json.dumps(prices, indent=2).encode())


def _price_micro_yuan(drug: Drug) -> int:
    """A little below the ceiling; in round steps, save where a milligram costs less than a fen."""
    price = drug.price_micro_yuan * _PRICE_PERCENT // 100
    if price < _FEN_MICRO_YUAN:
        return max(price, 1)
    return price - price % _PRICE_STEP_MICRO_YUAN
