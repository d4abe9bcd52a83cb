"""Configuration of the three servers, read from TOML and checked as a whole.

A configuration is either complete and usable or refused with *all* of its problems at once, each
with file, key and what to do. Checked are spelling and types, files and their permissions, and
what the files hold: keys fit certificates, certificates name exactly the configured region and
institution and are in force, the trust folder verifies and vouches for this server.

Relative paths are relative to the file. Secrets are read by whoever needs them, are never part of
a configuration object, and no message repeats a value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, TypedDict, TypeVar

from cryptography import x509

from rxoutflow.certificates import CertificateUntrusted, Usage, certificate_sha256, verify_chain
from rxoutflow.identity import (
    CallerKind,
    CallerName,
    IdentityError,
    KeyPurpose,
    SignerName,
    caller_name,
    signer_name,
)
from rxoutflow.statements import SignerUnusable
from rxoutflow.trust import RegionNotTrusted, RegionTrust, TrustListRefused, TrustStore
from rxoutflow_server.config_table import ConfigError as ConfigError
from rxoutflow_server.config_table import Table, reading
from rxoutflow_server.signing_keys import ModuleKey, SigningKey, load_signer
from rxoutflow_server.storage.platform_stores import Database, StorePlace
from rxoutflow_server.telemetry import LEVELS
from rxoutflow_server.transport.channels import edge_server_name, platform_server_name
from rxoutflow_server.transport.identity import KINDS
from rxoutflow_server.transport.policy import Place
from rxoutflow_server.transport.tls import KeyFileError, KeyFiles, KeyPair, load_key_pair

LEASE_SECONDS: Final = (60, 86_400)
"""Shortest and longest time for which a claim may be reserved."""

DEFAULT_LEASE_SECONDS: Final = 1800

OVERDUE_HOURS: Final = (0, 8760)
"""How long a commitment waits for its pharmacy before two people may decide; 0 means at once."""

DEFAULT_OVERDUE_HOURS: Final = 48

GIVE_UP_HOURS: Final = (1, 8760)
"""For how long an event is sent to another region before it is set aside for an operator."""

DEFAULT_GIVE_UP_HOURS: Final = 72

WORKERS: Final = (1, 64)
"""Processes of a platform on one port."""

DEFAULT_SCHEMA: Final = "rxoutflow"

CONNECTIONS: Final = (1, 64)
"""Connections to a database for commands, and as many for queries."""

DEFAULT_CONNECTIONS: Final = 1

_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_ADDRESS = re.compile(r"(?!.*(password\s*=|://[^/@]*:[^/@]*@)).+")
_ADDRESS_ADVICE = "use a libpq connection string without a password; name a passfile instead"

CALLS_PER_SECOND: Final = (1, 100_000)
"""What one institution may ask a platform for; whoever asks for more is told to wait."""

DEFAULT_CALLS_PER_SECOND: Final = 500

FETCH_SECONDS: Final = (1, 3600)
DEFAULT_FETCH_SECONDS: Final = 20
"""A revocation passes two fetches, a peer's and an edge's, and must arrive within a minute."""

ALARM_DAYS: Final = (1, 365)
DEFAULT_ALARM_DAYS: Final = 14

GRACE_HOURS: Final = (0, 72)
DEFAULT_GRACE_HOURS: Final = 24
"""Long enough to find the person who signs lists, short enough that nobody counts on it."""

PICKUP_KEY: Final = re.compile(r"(?:[0-9a-fA-F]{2}){32,128}")
"""The key under which pickup codes are hashed: at least 32 random bytes, in hexadecimal."""

_REGION = re.compile(r"[0-9]{6}")
ADDRESS: Final = re.compile(
    r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)"
    r":(?:[0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
)
"""A gRPC target: host and port."""

ADDRESS_ADVICE: Final = 'use host:port, for instance "127.0.0.1:8443"'

PROVIDERS: Final = ("file", "pkcs11")
"""Where the key of a seal may be."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LABEL = re.compile(r"[^\x00-\x1f]{1,128}")
_DIGESTS = re.compile(r"[0-9a-fA-F]{64}(?: [0-9a-fA-F]{64})?")

_Edge = TypeVar("_Edge", bound="EdgeConfig")


@dataclass(frozen=True, slots=True)
class TrustConfig:
    """Where trust lists are, and which registries may sign them."""

    folder: Path
    registry_roots: Mapping[str, str]
    """Region code to SHA-256 of the registry's certificate, in hexadecimal; two of them, separated
    by a space, while the registry changes its key."""
    fetch_seconds: int = DEFAULT_FETCH_SECONDS
    """Longest pause between two fetches of a region's list."""
    alarm_days: int = DEFAULT_ALARM_DAYS
    """How many days before a list lapses the alarm begins."""
    grace_hours: int = DEFAULT_GRACE_HOURS
    """For how many hours a list that has lapsed is still used."""

    @property
    def grace(self) -> timedelta:
        """For how long a list that has lapsed is still used."""
        return timedelta(hours=self.grace_hours)


@dataclass(frozen=True, slots=True)
class ReferenceConfig:
    """A region's reference data."""

    tariffs: Path
    """A folder."""
    catalogue: Path
    insured: Path | None
    """Nothing for a region of which no insured persons are kept here."""
    rules: Path | None = None
    """Nothing for a region that has set nothing beside the national measures."""
    family: Path | None = None
    """Nothing for a region where every allotment may be drawn, in the order of the insured file."""


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """What every server needs."""

    file: Path
    region_code: str
    listen: str
    tls: KeyFiles
    signing: SigningKey
    trust: TrustConfig
    log_level: str


@dataclass(frozen=True, slots=True)
class PlatformConfig(ServerConfig):
    """The platform of a region."""

    records: StorePlace
    """A file, or a schema of a PostgreSQL database."""
    pickup_key_file: Path
    reference: ReferenceConfig
    lease_seconds: int
    overdue_hours: int
    give_up_hours: int
    calls_per_second: int
    """What one hospital, pharmacy or regulator may ask for in the long run."""
    workers: int
    """Processes on the port; more than one only with a database."""
    trace_code_registrars: tuple[str, ...]
    """The regions that keep the register of trace codes together; none: this region alone."""

    @property
    def place(self) -> Place:
        """For whom the server stands."""
        return Place(self.region_code)


@dataclass(frozen=True, slots=True)
class EdgeConfig(ServerConfig):
    """The edge service of an institution."""

    store: Path
    institution_code: str
    platform_target: str

    @property
    def place(self) -> Place:
        """For whom the server stands."""
        return Place(self.region_code, self.institution_code)


class HospitalConfig(EdgeConfig):
    """The edge service of a hospital."""

    __slots__ = ()


class PharmacyConfig(EdgeConfig):
    """The edge service of a pharmacy."""

    __slots__ = ()


def load_platform(file: Path, now: datetime) -> PlatformConfig:
    """Read and check the configuration of a platform. ``now`` is aware.

    Raises:
        ConfigError: with everything that is wrong.
    """
    with reading(file) as root:
        common = _common(root, file)
        pickup, reference, claim = map(root.table, ("pickup", "reference", "claim"))
        adjudication, outbox = map(root.table, ("adjudication", "outbox"))
        config = PlatformConfig(
            **common,
            records=_platform_store(root.table("store")),
            pickup_key_file=pickup.secret_file("hash_key_file"),
            reference=ReferenceConfig(
                reference.folder("tariffs"),
                reference.file("catalogue"),
                reference.optional_file("insured"),
                reference.optional_file("rules"),
                reference.optional_file("family"),
            ),
            lease_seconds=claim.integer("lease_seconds", *LEASE_SECONDS, DEFAULT_LEASE_SECONDS),
            overdue_hours=adjudication.integer(
                "overdue_hours", *OVERDUE_HOURS, DEFAULT_OVERDUE_HOURS
            ),
            give_up_hours=outbox.integer("give_up_hours", *GIVE_UP_HOURS, DEFAULT_GIVE_UP_HOURS),
            calls_per_second=root.table("limits").integer(
                "calls_per_second", *CALLS_PER_SECOND, DEFAULT_CALLS_PER_SECOND
            ),
            workers=_workers(root),
            trace_code_registrars=_registrars(root.table("trace_codes"), common),
        )
        _check_pickup_key(config.pickup_key_file, pickup)
        if code := config.region_code:
            holder = CallerName(code, CallerKind.PLATFORM, code)
            _Vouching(root, config, holder, platform_server_name(code), now).check()
    return config


def load_hospital(file: Path, now: datetime) -> HospitalConfig:
    """Read and check the configuration of a hospital's edge. ``now`` is aware.

    Raises:
        ConfigError: with everything that is wrong.
    """
    return _load_edge(file, now, HospitalConfig, CallerKind.HOSPITAL)


def load_pharmacy(file: Path, now: datetime) -> PharmacyConfig:
    """Read and check the configuration of a pharmacy's edge. ``now`` is aware.

    Raises:
        ConfigError: with everything that is wrong.
    """
    return _load_edge(file, now, PharmacyConfig, CallerKind.PHARMACY)


def read_pickup_key(file: Path) -> bytes:
    """The key under which pickup codes are hashed.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds no such key.
    """
    text = file.read_text("ascii").strip()
    if not PICKUP_KEY.fullmatch(text):
        raise ValueError(f"{file}: must hold 32 to 128 random bytes in hexadecimal")
    return bytes.fromhex(text)


def _load_edge(file: Path, now: datetime, make: type[_Edge], kind: CallerKind) -> _Edge:
    letter = kind.value[0].upper()
    with reading(file) as root:
        common = _common(root, file)
        code = root.text(
            "institution",
            re.compile(rf"{letter}{common['region_code'] or '[0-9]{6}'}[0-9]{{5}}"),
            f"use the {kind}'s code: {letter}, the region and five digits",
        )
        target = root.table("platform").text("target", ADDRESS, ADDRESS_ADVICE)
        store = root.table("store").writable_file("path")
        config = make(**common, store=store, institution_code=code, platform_target=target)
        if code and config.region_code:
            holder = CallerName(config.region_code, kind, code)
            name = edge_server_name(config.region_code, code)
            _Vouching(root, config, holder, name, now).check()
    return config


class _Common(TypedDict):
    file: Path
    region_code: str
    listen: str
    tls: KeyFiles
    signing: SigningKey
    trust: TrustConfig
    log_level: str


def _common(root: Table, file: Path) -> _Common:
    return _Common(
        file=file,
        region_code=root.text("region", _REGION, 'use the six-digit code, for instance "350200"'),
        listen=root.text("listen", ADDRESS, ADDRESS_ADVICE),
        tls=_key_files(root.table("tls")),
        signing=_signing_key(root.table("signing")),
        trust=_trust(root.table("trust")),
        log_level=root.table("log").choice("level", LEVELS, "info"),
    )


def _platform_store(table: Table) -> StorePlace:
    """A file, or a database where one is named."""
    if not table.has("postgres"):
        return table.writable_file("path")
    if table.has("path"):
        table.note("path", "stands beside postgres; name one of the two")
    return Database(
        table.text("postgres", _ADDRESS, _ADDRESS_ADVICE),
        table.optional_text("schema", _SCHEMA, "use lower-case letters, digits and _")
        or DEFAULT_SCHEMA,
        table.integer("connections", *CONNECTIONS, DEFAULT_CONNECTIONS),
        table.boolean("distributed", False),
    )


def _workers(root: Table) -> int:
    """Processes; a file has one writer, so there is one process."""
    workers = root.integer("workers", *WORKERS, 1)
    if workers > 1 and not root.table("store").has("postgres"):
        root.note("workers", "is for a database: a file has one writer; leave it out, or name one")
    return workers


def _registrars(table: Table, common: _Common) -> tuple[str, ...]:
    """The regions that keep the register of trace codes; each of them must be reachable."""
    if not table.has("registrars"):
        return ()
    advice = "list the six-digit codes on which the regions have agreed, the same everywhere"
    codes = table.text_list("registrars", _REGION, advice)
    if len(set(codes)) < len(codes):
        table.note("registrars", f"names a region twice; {advice}")
    known = {common["region_code"], *common["trust"].registry_roots}
    if unknown := sorted(set(codes) - known):
        names = ", ".join(unknown)
        table.note("registrars", f"names {names}, which trust.registry_roots lacks; add it there")
    return tuple(codes)


def _trust(table: Table) -> TrustConfig:
    return TrustConfig(
        table.writable_folder("folder"),
        table.texts(
            "registry_roots",
            _REGION,
            _DIGESTS,
            'write "region code" = "SHA-256 of its registry\'s certificate in hexadecimal"',
        ),
        table.integer("fetch_seconds", *FETCH_SECONDS, DEFAULT_FETCH_SECONDS),
        table.integer("alarm_days", *ALARM_DAYS, DEFAULT_ALARM_DAYS),
        table.integer("grace_hours", *GRACE_HOURS, DEFAULT_GRACE_HOURS),
    )


def _key_files(table: Table) -> KeyFiles:
    return KeyFiles(
        table.file("certificate"),
        table.secret_file("key"),
        table.optional_secret_file("key_password_file"),
        _password_variable(table),
    )


def _password_variable(table: Table) -> str | None:
    name = table.optional_text("key_password_env", _VARIABLE, "name an environment variable")
    if name and table.has("key_password_file"):
        table.note("key_password_env", "is given beside key_password_file; remove one of them")
        return None
    return name or None


def _signing_key(table: Table) -> SigningKey:
    if table.choice("provider", PROVIDERS, PROVIDERS[0]) == "file":
        return _key_files(table)
    return ModuleKey(
        table.file("certificate"),
        table.file("module"),
        table.text("token_label", _LABEL, "give the label of the token"),
        table.text("key_label", _LABEL, "give the label of the private key"),
        table.secret_file("pin_file"),
    )


def _check_pickup_key(file: Path, pickup: Table) -> None:
    if not file.is_file():
        return
    try:
        read_pickup_key(file)
    except (OSError, ValueError):
        pickup.note(
            "hash_key_file",
            f"{file} does not hold 32 to 128 bytes in hexadecimal; "
            "make one with: openssl rand -hex 32",
        )


class _Vouching:
    """Checks that certificates and trust lists say of this server what its configuration says."""

    def __init__(
        self, root: Table, config: ServerConfig, holder: CallerName, dns: str, now: datetime
    ) -> None:
        self._root = root
        self._config = config
        self._holder = holder
        self._dns = dns
        self._now = now

    def check(self) -> None:
        """Note everything that does not fit."""
        region = self._region()
        self._check_tls(region)
        self._check_signing(region)
        if region is not None and self._holder.kind is not CallerKind.PLATFORM:
            listed = region.institution(self._holder.institution_code)
            if listed is None or KINDS.get(listed.kind) is not self._holder.kind:
                self._root.note(
                    "institution",
                    f"is not on the region's trust list as a {self._holder.kind}; "
                    "have the registry list it",
                )

    def _region(self) -> RegionTrust | None:
        """The trust list of the own region, if there is one."""
        trust = self._config.trust
        table = self._root.table("trust")
        if not trust.registry_roots:
            return None  # which is noted already
        try:
            store = TrustStore.load(trust.folder, trust.registry_roots, self._now, trust.grace)
            return store.region(self._config.region_code, self._now)
        except (TrustListRefused, RegionNotTrusted) as error:
            if trust.folder.is_dir():
                table.note("folder", f"{error}; get the lists from the regions' registries")
        except ValueError:
            pass  # a root of the wrong form, which is noted already
        return None

    def _check_tls(self, region: RegionTrust | None) -> None:
        table = self._root.table("tls")
        pair = self._pair(self._config.tls, table)
        if pair is None:
            return
        chain = x509.load_pem_x509_certificates(pair.certificate_pem)
        _check_holder(table, pair.certificate, caller_name, self._holder)
        if self._dns not in _dns_names(pair.certificate):
            table.note("certificate", f"lacks the DNS name {self._dns}; have it issued with it")
        self._check_trusted(table, chain, region, Usage.SERVER, Usage.CLIENT)

    def _check_signing(self, region: RegionTrust | None) -> None:
        table = self._root.table("signing")
        chain = self._signing_chain(table)
        if not chain:
            return
        name = SignerName(self._holder, KeyPurpose.SEAL)
        _check_holder(table, chain[0], signer_name, name)
        self._check_trusted(table, chain, region, Usage.SIGNING)
        if region is not None and not region.signer(certificate_sha256(chain[0])):
            table.note(
                "certificate", "is not on the region's trust list; have the registry list it"
            )

    def _signing_chain(self, table: Table) -> Sequence[x509.Certificate]:
        """The seal's chain; empty if its key cannot be used, which is noted."""
        key = self._config.signing
        if not key.complete:
            return ()
        try:
            chain = load_signer(key).certificate_chain
        except SignerUnusable as error:
            table.note(key.name_of(error.path), error.problem)
            return ()
        return [x509.load_der_x509_certificate(each) for each in chain]

    def _pair(self, files: KeyFiles, table: Table) -> KeyPair | None:
        """Certificate and key; nothing if they cannot be used, which is noted."""
        if not files.complete:
            return None
        try:
            return load_key_pair(files)
        except KeyFileError as error:
            table.note(files.name_of(error.path), error.problem)
            return None

    def _check_trusted(
        self,
        table: Table,
        chain: Sequence[x509.Certificate],
        region: RegionTrust | None,
        *usages: Usage,
    ) -> None:
        """The certificate is valid, leads to the region's anchors for these uses, is not denied."""
        leaf, *intermediates = chain
        begin, end = leaf.not_valid_before_utc, leaf.not_valid_after_utc
        if not begin <= self._now <= end:
            valid = f"is valid from {begin:%Y-%m-%d} to {end:%Y-%m-%d}"
            table.note("certificate", f"{valid}; renew it, or set the clock")
            return
        if region is None:
            return
        if region.is_denied(certificate_sha256(leaf)):
            table.note("certificate", "is on the region's deny list; have a new one issued")
        for usage in usages:
            signing = usage is Usage.SIGNING
            anchors = region.signing_anchors if signing else region.transport_anchors
            try:
                verify_chain(leaf, intermediates, anchors, self._now, usage)
            except CertificateUntrusted as error:
                table.note("certificate", f"{error}; have one issued by the region")


def _check_holder(
    table: Table,
    certificate: x509.Certificate,
    read: Callable[[x509.Certificate], object],
    expected: CallerName | SignerName,
) -> None:
    try:
        named = read(certificate)
    except IdentityError as error:
        table.note("certificate", f"{error}; have one issued for {expected}")
        return
    if named != expected:
        table.note("certificate", f"names another holder; have one issued for {expected}")


def _dns_names(certificate: x509.Certificate) -> Sequence[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, ValueError):
        return ()
    return names.value.get_values_for_type(x509.DNSName)
