"""Adding a denial to a registry file, which is what has to go quickly when a key was stolen.

The entry is appended, so that everything that people wrote in the file stays as it is. The file is
replaced as a whole, and only by one that can still be read and denies exactly one certificate more.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

from cryptography import x509

from rxoutflow.certificates import certificate_sha256
from rxoutflow.identity import IdentityError, uri_names
from rxoutflow_server.registry.document import NAME
from rxoutflow_server.trust_folder import write_whole

_SHOWN = re.compile(r"[ -~]{1,300}")
"""Names are chosen by others: only what cannot end the comment gets into the file."""


class DenialRefused(Exception):
    """The denial was not added; the message says why and what to do."""


def deny(file: Path, certificate: x509.Certificate, reason: str) -> bool:
    """Append a ``[[denied]]`` entry to a registry file; false if it is there already.

    Raises:
        DenialRefused: the certificate is another region's, or the file cannot be changed like this.
    """
    if not NAME.fullmatch(reason):
        raise DenialRefused("the reason must be one line of at most 100 characters")
    digest = certificate_sha256(certificate).hex()
    try:
        text = file.read_text("utf-8")
        before = tomllib.loads(text)
    except (OSError, ValueError):
        raise DenialRefused(f"{file}: cannot be read as TOML; run check on it first") from None
    if digest in _digests(before):
        return False
    names = _names(certificate)
    region = before.get("region")
    if names and not all(name.startswith(f"spiffe://{region}.") for name in names):
        raise DenialRefused(
            "the certificate is of another region; only that region's registry can deny it"
        )
    entry = _entry(digest, " ".join(names) or "an authority's certificate", reason)
    _write(file, text.rstrip("\n") + "\n\n" + entry, [*_digests(before), digest])
    return True


def _entry(digest: str, name: str, reason: str) -> str:
    shown = name if _SHOWN.fullmatch(name) else "a certificate with unusual names"
    return (
        f"[[denied]] # {shown}\n"
        f'sha256 = "{digest}"\n'
        f"reason = {json.dumps(reason, ensure_ascii=False)}\n"
    )


def _write(file: Path, text: str, expected: list[str]) -> None:
    try:
        fits = _digests(tomllib.loads(text)) == expected
    except tomllib.TOMLDecodeError:
        fits = False
    if not fits:
        raise DenialRefused(
            f"{file}: no entry can be appended to it; write `denied` as [[denied]] tables"
        )
    try:
        write_whole(file, text.encode())
    except OSError as error:
        raise DenialRefused(f"{file}: cannot be written ({error.strerror})") from None


def _digests(document: Mapping[str, object]) -> list[str]:
    denied = document.get("denied")
    entries = denied if isinstance(denied, list) else []
    return [str(each["sha256"]) for each in entries if isinstance(each, dict) and "sha256" in each]


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        return uri_names(certificate)
    except IdentityError:
        return ()
