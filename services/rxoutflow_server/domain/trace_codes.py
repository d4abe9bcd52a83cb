"""Drug trace codes (药品追溯码): their form, and who keeps the register of a code (R17).

A box is sold once in the federation, so there is one writer for each code. Which region that is
follows from the code and the list of registrars alone: the registrar with the highest hash of
itself and the code (rendezvous hashing). The order of the list does not matter, and when a
registrar joins, only the codes that become its own move.
"""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import sha256

TRACE_CODE = re.compile(r"[0-9]{20}")
"""Twenty ASCII digits. Anything else is refused wherever a code comes in, so that one box has one
spelling: blanks, full-width digits and the like are for the scanner's software to put right."""


@lru_cache(maxsize=4096)
def registrar_of(code: str, registrars: tuple[str, ...]) -> str:
    """The region that keeps the register of a code, out of at least one.

    Remembered for the boxes that are being sold: each is asked about at every step of its sale.
    """
    return max(
        registrars, key=lambda region: (sha256(f"{region}/{code}".encode()).digest(), region)
    )
