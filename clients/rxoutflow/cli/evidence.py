"""Commands for evidence: receipts, and bundles that are exported and verified offline.

``receipt verify`` and ``verify-bundle`` ask nobody. They trust the lists in a folder behind pinned
registries: those of the chosen profile, or ``--trust`` with one ``--root`` for each region.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.table import Table

from rxoutflow.bundle import BundleRefused, VerifiedBundle, read_bundle, verify_bundle
from rxoutflow.cli.desk import REFUSED, Desk
from rxoutflow.cli.options import answers_json
from rxoutflow.client.receipts import read_kept
from rxoutflow.errors import InvalidInput
from rxoutflow.log import LoggedAt, ReceiptWrong, verify_receipt
from rxoutflow.numbers import PrescriptionNumber
from rxoutflow.plain import Plain, plain
from rxoutflow.statements import Verifier
from rxoutflow.statements.payloads import role_name
from rxoutflow.trust import TrustListRefused, TrustStore

_FILE = click.Path(path_type=Path, dir_okay=False)
_FOLDER = click.Path(path_type=Path, file_okay=False)

Command = Callable[..., None]


def _trusting(command: Command) -> Command:
    """Give a command whom to trust without a profile."""
    trust = click.option("--trust", "folder", type=_FOLDER, help="Folder of trust lists ...")
    root = click.option(
        "--root",
        "roots",
        multiple=True,
        metavar="REGION=SHA256",
        help="... and the registry's certificate of each region; both instead of a profile.",
    )
    return trust(root(command))


@click.group()
def receipt() -> None:
    """Receipts: that a region's log keeps what was sent."""


@receipt.command()
@click.argument("files", nargs=-1, required=True, type=_FILE)
@_trusting
@answers_json
def verify(
    desk: Desk, files: tuple[Path, ...], folder: Path | None, roots: tuple[str, ...]
) -> None:
    """Verify kept receipts (*.rxreceipt), offline. Exit status 1 if one is wrong."""
    now = datetime.now(UTC)
    verifier = Verifier(_trust(desk, folder, roots, now))
    checked = [(file, _checked(file, verifier, now)) for file in files]

    def tell() -> None:
        for file, result in checked:
            desk.console.print(f"{file}: {_receipt_line(result)}", markup=False)

    desk.say([_described(file, result) for file, result in checked], tell)
    if any(isinstance(result, ReceiptWrong) for _, result in checked):
        raise click.exceptions.Exit(REFUSED)


@click.command()
@click.argument("number")
@click.option("-o", "--output", required=True, type=_FILE, help="The file (*.rxevidence).")
@answers_json
def export(desk: Desk, number: str, output: Path) -> None:
    """Write everything that this regulator's region keeps about prescription NUMBER to a file."""
    bundle = desk.regulator.export(PrescriptionNumber.parse(number))
    try:
        output.write_bytes(bundle.SerializeToString())
    except OSError as error:
        raise InvalidInput(f"{output}: cannot be written: {error.strerror}") from None
    count = len(bundle.statements)
    desk.say(
        {"file": str(output), "statements": count},
        lambda: desk.console.print(f"{count} statements written to {output}", markup=False),
    )


@click.command("verify-bundle")
@click.argument("file", type=_FILE)
@_trusting
@answers_json
def verify_file(desk: Desk, file: Path, folder: Path | None, roots: tuple[str, ...]) -> None:
    """Verify the evidence bundle in FILE, offline. Exit status 1 if it is refused."""
    now = datetime.now(UTC)
    trust = _trust(desk, folder, roots, now)
    try:
        verified = verify_bundle(read_bundle(_read(file)), trust, now)
    except BundleRefused as refused:
        reason, message = str(refused.reason), refused.message
        desk.say(
            {"verified": False, "reason": reason, "message": message},
            lambda: click.echo(f"refused: {reason}: {message}", err=True),
        )
        raise click.exceptions.Exit(REFUSED) from None
    desk.say(
        {"verified": True, "statements": [plain(each.content) for each in verified.statements]},
        lambda: _show(desk, verified),
    )


def _show(desk: Desk, verified: VerifiedBundle) -> None:
    head = verified.head
    table = Table(
        "leaf", "kept since", "statement", "says", "signed by",
        title=f"{verified.prescription_number} · log of {head.region_code}, {head.size} leaves",
        title_justify="left",
    )  # fmt: skip
    for each in verified.statements:
        table.add_row(
            str(each.leaf_index),
            each.keep_time.strftime("%Y-%m-%d %H:%M:%S"),
            each.name,
            str(plain(each.content).get("state", "")),
            ", ".join(f"{role_name(by.role).lower()} {by.display_name}" for by in each.signers),
        )
    desk.console.print(table)
    desk.console.print("verified: signatures, log, chain, quantities and amounts")


def _checked(file: Path, verifier: Verifier, now: datetime) -> LoggedAt | ReceiptWrong:
    kept = read_kept(file)
    try:
        return verify_receipt(kept.receipt, kept.statement, verifier, now)
    except ReceiptWrong as wrong:
        return wrong


def _receipt_line(result: LoggedAt | ReceiptWrong) -> str:
    if isinstance(result, ReceiptWrong):
        return f"WRONG: {result}"
    since, head = result.keep_time.isoformat(), result.head
    return f"in the log of {head.region_code} as leaf {result.leaf_index} since {since}"


def _described(file: Path, result: LoggedAt | ReceiptWrong) -> dict[str, Plain]:
    if isinstance(result, ReceiptWrong):
        return {"file": str(file), "verified": False, "message": str(result)}
    return {
        "file": str(file),
        "verified": True,
        "region_code": result.head.region_code,
        "leaf_index": result.leaf_index,
        "keep_time": result.keep_time.isoformat(),
    }


def _trust(desk: Desk, folder: Path | None, roots: tuple[str, ...], now: datetime) -> TrustStore:
    """The trust lists to judge by.

    Raises:
        InvalidInput: saying what is missing or not acceptable.
    """
    if bool(folder) != bool(roots):
        raise InvalidInput("--trust and --root: give both, or neither and a profile")
    if folder is None:
        folder, pins = desk.profile.trust.folder, dict(desk.profile.trust.registry_roots)
    else:
        pins = dict(_root(text) for text in roots)
    try:
        return TrustStore.load(folder, pins, now)
    except (TrustListRefused, ValueError) as error:
        raise InvalidInput(f"--trust: {error}") from None


def _root(text: str) -> tuple[str, str]:
    region, equals, digest = text.partition("=")
    if not equals:
        raise InvalidInput("--root: must be REGION=SHA256")
    return region, digest


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{file}: cannot be read: {error.strerror}") from None
