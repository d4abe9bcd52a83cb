"""The codes that a payer region's e-credential app shows: made and read with one key.

A code is `<region>.<insured person>.<Unix seconds>.<16 characters>`; the last part is a keyed hash
of the rest, in Crockford's base 32. It is good for five minutes from the time that it carries, and
needs no record: whoever has the key can tell whose it is. In production the region's own credential
system makes the codes; the operator command ``credential show`` stands in for it in a sandbox.
"""

from __future__ import annotations

import hmac
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from rxoutflow.numbers import SECRET_ALPHABET, SECRET_LENGTH

CODE_LIFE = timedelta(minutes=5)
MAX_CLOCK_AHEAD = timedelta(minutes=1)
_PARTS = 4


class CredentialCodes:
    """Makes and reads the codes of one payer region."""

    def __init__(self, region_code: str, key: bytes) -> None:
        self._region_code = region_code
        self._key = key

    def show(self, insured_person_id: str, now: datetime) -> str:
        """A fresh code for a person."""
        body = f"{self._region_code}.{insured_person_id}.{int(now.timestamp())}"
        return f"{body}.{self._seal(body)}"

    def holder(self, code: str, now: datetime) -> str | None:
        """The person whose code it is; nobody if it is wrong, of another region, or too old."""
        body, _, seal = code.rpartition(".")
        parts = code.split(".")
        if len(parts) != _PARTS or not code.isascii():
            return None
        if parts[0] != self._region_code or not hmac.compare_digest(seal, self._seal(body)):
            return None
        made = datetime.fromtimestamp(int(parts[2]), UTC)
        if not made - MAX_CLOCK_AHEAD <= now < made + CODE_LIFE:
            return None
        return parts[1]

    def _seal(self, body: str) -> str:
        digest = hmac.new(self._key, f"e-credential:{body}".encode(), sha256).digest()
        return "".join(SECRET_ALPHABET[byte % 32] for byte in digest[:SECRET_LENGTH])
