"""SM2 keys and certificates for tests. Needs the extra ``sm2``."""

from __future__ import annotations

from rxoutflow.identity import CallerName, KeyPurpose, SignerName
from rxoutflow.statements.payloads import Role
from rxoutflow.statements.sm2 import Sm2PrivateKey
from rxoutflow_server.devpki_sm2 import issue_for
from support.pki import Authority, Credential, Region


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
