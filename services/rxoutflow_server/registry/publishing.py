"""Publishing: putting a signed list into the folder from which a platform takes it.

A list goes into the folder only if the registry that is pinned for the region signed it, if it is
in force, and if its sequence is higher than that of the list that is there. It is copied as a
whole; the platform takes it within seconds, and never a half of it.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from pathlib import Path

from rxoutflow.trust import SUFFIX
from rxoutflow_server.registry.lists import ListError, SignedList, read_list
from rxoutflow_server.trust_folder import alone_in, write_whole


class Published(StrEnum):
    """What came of publishing."""

    NEW = "new"
    ALREADY_THERE = "already there"


def publish(path: Path, folder: Path, root: str, now: datetime) -> tuple[SignedList, Published]:
    """Put a list into a platform's trust folder.

    Args:
        path: the signed list.
        folder: the folder that the platform's configuration names under ``trust.folder``.
        root: SHA-256 of the certificate of the region's registry, in hexadecimal, as it is pinned.
        now: the time, aware.

    Raises:
        ListError: it is not published, and why.
    """
    offered = read_list(path, now, root)
    if now > offered.lapse_time:
        lapsed = f"lapsed on {offered.lapse_time:%Y-%m-%d %H:%M} UTC; sign a new one"
        raise ListError(f"{path}: {lapsed}")
    try:
        with alone_in(folder):
            return offered, _replace(folder / f"{offered.region_code}{SUFFIX}", offered, now)
    except OSError as error:
        raise ListError(f"{folder}: cannot be written ({error.strerror})") from None


def _replace(there: Path, offered: SignedList, now: datetime) -> Published:
    present = read_list(there, now) if there.exists() else None
    if present is not None and present.region_code != offered.region_code:
        raise ListError(f"{there}: is the list of region {present.region_code}; move it away")
    if present is not None and present.sequence >= offered.sequence:
        if present.content == offered.content:
            return Published.ALREADY_THERE
        raise ListError(
            f"{there}: is list {present.sequence}, and the new one is list {offered.sequence}; "
            f"sign it again with --sequence {present.sequence + 1}"
        )
    write_whole(there, offered.data)
    return Published.NEW
