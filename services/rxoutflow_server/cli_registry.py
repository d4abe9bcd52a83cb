"""``registry``: keep, sign, compare and spread a region's trust list.

Every command either does all of what it says or changes nothing. Problems go to standard error, one
a line, as ``FILE: key: problem; what to do``, and end with exit status 2. What was asked for goes
to standard output.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

import click
from cryptography import x509
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rxoutflow.statements import FileSigner, SignerUnusable
from rxoutflow.v1.trust_pb2 import TrustList
from rxoutflow_server.config_table import OTHERS, ConfigError
from rxoutflow_server.registry.changes import (
    changes,
    describe_anchor,
    describe_institution,
    describe_signer,
)
from rxoutflow_server.registry.denying import DenialRefused
from rxoutflow_server.registry.denying import deny as add_denial
from rxoutflow_server.registry.document import Draft, read_registry
from rxoutflow_server.registry.issuing import issue, next_sequence
from rxoutflow_server.registry.lists import ListError, SignedList, read_list
from rxoutflow_server.registry.publishing import Published
from rxoutflow_server.registry.publishing import publish as put
from rxoutflow_server.registry.words import ALGORITHMS, word_of
from rxoutflow_server.trust_folder import alone_in, write_whole

_file = click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
_readable = click.Path(path_type=Path, exists=True, dir_okay=False)
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")


class Unusable(click.ClickException):
    """Something cannot be used; the message says what, why and what to do."""

    exit_code = 2

    def show(self, file: object = None) -> None:
        """Print the message as it is, since each of its lines names a file."""
        click.echo(self.message, err=True)


@click.group()
def registry() -> None:
    """Keep, sign and spread what a region vouches for."""


@registry.command()
@_file
def init(file: Path) -> None:
    """Write a commented registry file to fill in."""
    if file.exists():
        raise Unusable(f"{file}: is there already; name a new file")
    with _writing(file):
        write_whole(file, (files("rxoutflow_server.registry") / "template.toml").read_bytes())
    click.echo(f"wrote {file}; fill it in, then run: rxoutflow-server registry check {file}")


@registry.command()
@_file
def check(file: Path) -> None:
    """Find everything that is wrong with a registry file."""
    draft = _checked(file)
    content = draft.content
    click.echo(
        f"ok: region {content.region_code}, {len(content.institutions)} institutions, "
        f"{len(content.signers)} signers, {len(content.denied_certificate_sha256)} denied"
    )


@registry.command()
@_file
@click.option("--key", required=True, type=_readable, help="Private key of the registry, PEM.")
@click.option("--certificate", required=True, type=_readable, help="Its certificate, PEM.")
@click.option("--key-password-file", type=_readable, help="Holds the key's password, if any.")
@click.option("--sequence", default="auto", show_default=True, help="Sequence of the new list.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The list to replace.")
def sign(
    file: Path,
    key: Path,
    certificate: Path,
    key_password_file: Path | None,
    sequence: str,
    out: Path,
) -> None:
    """Sign the next trust list from a registry file."""
    now = _now()
    wanted = _sequence(sequence)
    draft = _checked(file)
    with _explained(), _writing(out), alone_in(out.parent):
        signer = _registry_signer(certificate, key, key_password_file)
        previous = read_list(out, now) if out.exists() else None
        with _about(out):
            number = next_sequence(wanted, previous, draft.content.region_code)
        issued = issue(draft, signer, number, now)
        write_whole(out, issued.data)
    _tell_issued(out, issued, previous)


@registry.command()
@click.argument("path", metavar="LIST", type=_readable)
@click.option(
    "--to",
    "folder",
    required=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="The trust folder of a platform.",
)
@click.option(
    "--root", required=True, help="SHA-256 of the registry's certificate, as it is pinned."
)
def publish(path: Path, folder: Path, root: str) -> None:
    """Put a signed list where a platform takes it from."""
    _check_root(root)
    with _explained():
        published, outcome = put(path, folder, root, _now())
    name = f"list {published.sequence} of region {published.region_code}"
    if outcome is Published.ALREADY_THERE:
        click.echo(f"{name} is there already")
    else:
        click.echo(f"published {name} to {folder}; its platform takes it within seconds")


@registry.command()
@click.argument("path", metavar="LIST", type=_readable)
@click.option("--root", help="SHA-256 of the registry's certificate to verify with.")
@click.option("--institution", help="Also list who signs for the institution of this code.")
@_as_json
def show(path: Path, root: str | None, institution: str | None, as_json: bool) -> None:
    """Show what a signed list vouches for."""
    _check_root(root)
    with _explained():
        shown = read_list(path, _now(), root)
    if as_json:
        click.echo(json.dumps(_as_object(shown), ensure_ascii=False, indent=2))
        return
    console = Console()
    _show_head(shown, verified=root is not None)
    _show_institutions(console, shown.content)
    if institution is not None:
        _show_signers(console, shown.content, institution)


@registry.command()
@click.argument("old", metavar="OLD", type=_readable)
@click.argument("new", metavar="NEW", type=_readable)
@_as_json
def diff(old: Path, new: Path, as_json: bool) -> None:
    """Tell what changed from one signed list to another."""
    with _explained():
        before, after = (read_list(path, _now()) for path in (old, new))
    lines = changes(before.content, after.content)
    if as_json:
        click.echo(json.dumps(lines, ensure_ascii=False, indent=2))
        return
    _tell(lines)


@registry.command()
@_file
@click.option("--certificate", required=True, type=_readable, help="The certificate, PEM.")
@click.option("--reason", required=True, help="Why, for those who come after you.")
def deny(file: Path, certificate: Path, reason: str) -> None:
    """Add a certificate to the denied ones of a registry file."""
    try:
        added = add_denial(file, _certificate(certificate), reason)
    except DenialRefused as refused:
        raise Unusable(str(refused)) from None
    what = f"denied {certificate} in {file}" if added else f"{file} denies {certificate} already"
    click.echo(f"{what}; it takes effect when the list is signed and published")


def _now() -> datetime:
    return datetime.now(UTC)


def _checked(file: Path) -> Draft:
    """The file's content; its notes and problems go to standard error."""
    try:
        draft = read_registry(file, _now())
    except ConfigError as error:
        raise Unusable(str(error)) from None
    for note in draft.notes:
        click.echo(f"note: {note}", err=True)
    return draft


@contextmanager
def _explained() -> Iterator[None]:
    """Tell people what a list, a key or a file is wrong with."""
    try:
        yield
    except (ListError, SignerUnusable) as error:
        raise Unusable(str(error)) from None


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Tell people that a file cannot be written."""
    try:
        yield
    except OSError as error:
        raise Unusable(f"{path}: cannot be written ({error.strerror})") from None


@contextmanager
def _about(path: Path) -> Iterator[None]:
    """Name the file that an error is about."""
    try:
        yield
    except ListError as error:
        raise ListError(f"{path}: {error}") from None


def _sequence(text: str) -> int | None:
    if text == "auto":
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,17}", text):
        raise Unusable('--sequence: must be "auto" or a whole number from 1')
    return int(text)


def _check_root(root: str | None) -> None:
    if root is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", root):
        raise Unusable("--root: must be a SHA-256, 64 hexadecimal digits, as servers pin it")


def _registry_signer(certificate: Path, key: Path, password_file: Path | None) -> FileSigner:
    for path in filter(None, (key, password_file)):
        if path.stat().st_mode & OTHERS:
            raise Unusable(f"{path}: is open to everybody; run chmod 600 on it")
    password = password_file.read_bytes().strip() if password_file is not None else None
    return FileSigner.load(certificate, key, password)


def _certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())[0]
    except (OSError, ValueError):
        raise Unusable(f"{path}: holds no certificate in PEM; export it as PEM") from None


def _tell_issued(out: Path, issued: SignedList, previous: SignedList | None) -> None:
    click.echo(
        f"wrote {out}: list {issued.sequence} of region {issued.region_code}, "
        f"in force until {_time(issued.lapse_time)}"
    )
    click.echo(f"registry {issued.registry_sha256}")
    if issued.lapse_time < issued.content.expire_time.ToDatetime(UTC):
        click.echo(
            "note: it lapses early, with the registry's certificate; have a new one issued",
            err=True,
        )
    if previous is None:
        click.echo(f"note: there was no list before at {out}", err=True)
        return
    if previous.registry_sha256 != issued.registry_sha256:
        click.echo("note: list before was signed by another registry certificate", err=True)
    _tell(changes(previous.content, issued.content))


def _tell(lines: Sequence[str]) -> None:
    for line in lines or ["nothing changed but sequence and times"]:
        _echo(line)


def _echo(line: str) -> None:
    """Print a line with names that others chose: nothing in them may act on a terminal."""
    click.echo("".join(each if each.isprintable() else "?" for each in line))


def _time(value: datetime) -> str:
    return f"{value:%Y-%m-%d %H:%M} UTC"


def _show_head(shown: SignedList, *, verified: bool) -> None:
    content, now = shown.content, _now()
    state = "has lapsed" if now > shown.lapse_time else f"{(shown.lapse_time - now).days} days left"
    pin = "as pinned" if verified else "not compared with a pin; use --root"
    for key, values in {
        "region": [f"{content.region_code} {content.region_name}"],
        "list": [str(content.sequence)],
        "issued": [_time(content.issue_time.ToDatetime(UTC))],
        "lapses": [f"{_time(shown.lapse_time)} ({state})"],
        "registry": [shown.registry_sha256, pin],
        "algorithms": [", ".join(word_of(ALGORITHMS, each) for each in content.algorithms)],
        "endpoints": [each.target for each in content.endpoints],
        "transport anchors": [describe_anchor(each) for each in content.transport_anchors],
        "signing anchors": [describe_anchor(each) for each in content.signing_anchors],
        "denied": [each.hex() for each in content.denied_certificate_sha256],
    }.items():
        for number, value in enumerate(values or ["none"]):
            _echo(f"{'' if number else key:18} {value}")


def _show_institutions(console: Console, content: TrustList) -> None:
    signers = Counter(signer.institution_code for signer in content.signers)
    columns = ("kind", "name", "designated", "tier", "status")
    table = _table("institutions", "code", *columns, "signers")
    for entry in content.institutions:
        words, code = describe_institution(entry), entry.institution_code
        _add_row(table, code, *(words[column] for column in columns), str(signers[code]))
    console.print(table)


def _show_signers(console: Console, content: TrustList, institution_code: str) -> None:
    columns = ("roles", "person_code", "display_name")
    table = _table(f"signers of {institution_code}", "certificate", *columns)
    for entry in content.signers:
        if entry.institution_code == institution_code:
            _, *words = describe_signer(entry).values()
            _add_row(table, f"{entry.certificate_sha256.hex()[:16]}…", *words)
    console.print(table)


def _table(title: str, key: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(key, no_wrap=True)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _add_row(table: Table, *cells: str) -> None:
    """Add cells as they are, and not as markup."""
    table.add_row(*map(Text, cells))


def _as_object(shown: SignedList) -> Mapping[str, object]:
    content = shown.content
    return {
        "region": content.region_code,
        "name": content.region_name,
        "sequence": content.sequence,
        "issue_time": content.issue_time.ToJsonString(),
        "expire_time": content.expire_time.ToJsonString(),
        "lapse_time": shown.lapse_time.isoformat(),
        "registry_sha256": shown.registry_sha256,
        "algorithms": [word_of(ALGORITHMS, each) for each in content.algorithms],
        "endpoints": [each.target for each in content.endpoints],
        "transport_anchors": [describe_anchor(each) for each in content.transport_anchors],
        "signing_anchors": [describe_anchor(each) for each in content.signing_anchors],
        "institutions": [
            {"code": each.institution_code, **describe_institution(each)}
            for each in content.institutions
        ],
        "signers": [
            {"certificate_sha256": each.certificate_sha256.hex(), **describe_signer(each)}
            for each in content.signers
        ],
        "denied": [each.hex() for each in content.denied_certificate_sha256],
    }
