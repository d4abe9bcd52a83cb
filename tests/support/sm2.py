"""SM2 keys and certificates for tests. Needs the extra ``sm2``."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from rxoutflow.identity import CallerName, KeyPurpose, SignerName
from rxoutflow.statements.payloads import Role
from rxoutflow.statements.sm2 import Sm2PrivateKey
from rxoutflow_server.devpki_sm2 import issue_for
from rxoutflow_server.sandbox.constellation import CONSTELLATION_FILE, DATA
from support.pki import Authority, Credential, Region

_INSTITUTION_KEYS = re.compile('institution_keys = "[a-z0-9]+"')


def sm2_data(folder: Path, *regions: str) -> Path:
    """The sandbox's data with SM2 keys for the seals and people of these regions' institutions."""
    data = folder / "data"
    shutil.copytree(DATA, data)
    file = data / CONSTELLATION_FILE
    before, *tables = file.read_text("utf-8").split("[[region]]")
    for index, table in enumerate(tables):
        if any(f'code = "{code}"' in table for code in regions):
            tables[index] = _INSTITUTION_KEYS.sub('institution_keys = "sm2"', table, count=1)
    file.write_text("[[region]]".join([before, *tables]), "utf-8")
    return data


def sm2_leaf(
    authority: Authority, name: SignerName, key: Sm2PrivateKey | None = None
) -> Credential:
    """A signing certificate for an SM2 key, from an authority with a P-256 key."""
    key = key or Sm2PrivateKey.generate()
    stand_in = authority.issue(str(name))
    certificate = issue_for(stand_in.certificate, key.public, authority.key)
    return Credential(certificate, key, stand_in.intermediates)  # type: ignore[arg-type] # signs too


def sm2_person(region: Region, institution: CallerName, code: str, *roles: Role) -> Credential:
    """A person with an SM2 key, listed for these roles."""
    name = SignerName(institution, KeyPurpose.PERSON, code)
    return region.list_signer(sm2_leaf(region.signing, name), name, *roles)


def sm2_seal(region: Region, institution: CallerName, role: Role) -> Credential:
    """A seal with an SM2 key, listed for the role."""
    name = SignerName(institution, KeyPurpose.SEAL)
    return region.list_signer(sm2_leaf(region.signing, name), name, role)
