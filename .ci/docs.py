"""Generates the pages of ``docs/`` that say what the code does, and checks that they still do.

``generate`` writes ``docs/error-catalogue.md`` from the comments of ``error_reason.proto``,
``docs/rules.md`` from the rule list, ``docs/state-tables.md`` from the transition functions of
the domain and ``docs/distribution.sql`` from the tables. ``check`` writes nothing and
fails if a page differs from what the code says now.
"""

from __future__ import annotations

import sys
from pathlib import Path

import error_catalogue
import rule_list
import state_tables

from rxoutflow_server.storage.tables import distribution

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
REASONS = ROOT / "protos" / "rxoutflow" / "v1" / "error_reason.proto"


def pages() -> dict[Path, str]:
    """Every generated page and what it must say."""
    return {
        DOCS / "distribution.sql": distribution.script(),
        DOCS / "error-catalogue.md": error_catalogue.page(REASONS.read_text("utf-8")),
        DOCS / "rules.md": rule_list.page(),
        DOCS / "state-tables.md": state_tables.page(),
    }


def generate() -> None:
    """Write the pages."""
    for path, text in pages().items():
        path.write_text(text, "utf-8")


def check() -> None:
    """Fail unless every page is what ``generate`` would write."""
    stale = [path.name for path, text in pages().items() if _read(path) != text]
    if stale:
        sys.exit(f"stale pages: {', '.join(stale)}; run `.ci/docs.py generate`, read, commit")


def _read(path: Path) -> str:
    return path.read_text("utf-8") if path.exists() else ""


def main() -> None:
    """Run the command that the first argument names."""
    commands = {"generate": generate, "check": check}
    if len(sys.argv) != 2 or sys.argv[1] not in commands:
        sys.exit("usage: docs.py generate | check")
    try:
        commands[sys.argv[1]]()
    except error_catalogue.CommentUnreadable as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
