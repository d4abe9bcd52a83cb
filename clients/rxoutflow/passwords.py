"""Passwords of private keys: read when they are needed, from a file or from the environment.

A configuration names where the password is and never holds it. A file's password ends before its
line break and is otherwise taken byte for byte. No message repeats a password.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


class PasswordUnusable(ValueError):
    """A password is not where the configuration says; the message names file or variable."""

    def __init__(self, problem: str, path: Path | None = None) -> None:
        """Keep the problem and the file, if it is one."""
        super().__init__(f"{path}: {problem}" if path else problem)
        self.problem = problem
        self.path = path


@dataclass(frozen=True, slots=True)
class PasswordSource:
    """Where a key's password is: in a file, in an environment variable, or nowhere (no password).

    Raises:
        PasswordUnusable: if both are named.
    """

    file: Path | None = None
    variable: str | None = None

    def __post_init__(self) -> None:
        if self.file is not None and self.variable is not None:
            raise PasswordUnusable("name a file or an environment variable, not both")

    def read(self) -> bytes | None:
        """The password; nothing for a key without one.

        Raises:
            PasswordUnusable: if the file cannot be read, the variable is not set, or it is empty.
        """
        if self.file is not None:
            return _from_file(self.file)
        if self.variable is not None:
            return _from_environment(self.variable)
        return None


def _from_file(path: Path) -> bytes:
    try:
        password = path.read_bytes().rstrip(b"\r\n")
    except OSError as error:
        raise PasswordUnusable(f"cannot be read: {error.strerror}", path) from None
    if not password:
        raise PasswordUnusable("holds no password: write it on the first line", path)
    return password


def _from_environment(name: str) -> bytes:
    password = os.environ.get(name, "")
    if not password:
        raise PasswordUnusable(
            f"the environment variable {name} is not set: set it to the password"
        )
    return password.encode()
