"""The keys and certificates of a constellation, and where each of them is on disk.

One folder a region, in it one folder for each of its two PKIs::

    <region>/transport/  ca, platform, <institution code> (edge), <institution code>-client
    <region>/signing/    ca, registry, platform, <institution code> (seal), <person code>

An institution's software (HIS, POS, the desk of a regulator or operator) has a TLS certificate of
its own, so that it never needs the key of the edge service. Nothing here decides what a certificate
may be used for: that is the trust list's part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rxoutflow.certificates import certificate_sha256
from rxoutflow.identity import KeyPurpose, SignerName
from rxoutflow_server.devpki import Authority, Credential, KeyPair
from rxoutflow_server.sandbox.constellation import Constellation, Institution, Person, Region


@dataclass(frozen=True, slots=True)
class RegionPki:
    """The files of one region's two PKIs."""

    folder: Path

    @property
    def transport_authority(self) -> KeyPair:
        """The anchor of the region's TLS certificates."""
        return KeyPair.at(self._transport, "ca")

    @property
    def signing_authority(self) -> KeyPair:
        """The anchor of the region's signing certificates."""
        return KeyPair.at(self._signing, "ca")

    @property
    def registry(self) -> KeyPair:
        """What signs the region's trust list; others pin its digest."""
        return KeyPair.at(self._signing, "registry")

    @property
    def platform_tls(self) -> KeyPair:
        """The platform's TLS certificate."""
        return KeyPair.at(self._transport, "platform")

    @property
    def platform_seal(self) -> KeyPair:
        """What the platform signs statements with."""
        return KeyPair.at(self._signing, "platform")

    def edge_tls(self, institution: Institution) -> KeyPair:
        """The TLS certificate of an institution's edge service."""
        return KeyPair.at(self._transport, institution.code)

    def client_tls(self, institution: Institution) -> KeyPair:
        """The TLS certificate of an institution's own software."""
        return KeyPair.at(self._transport, f"{institution.code}-client")

    def seal(self, institution: Institution) -> KeyPair:
        """An institution's seal."""
        return KeyPair.at(self._signing, institution.code)

    def person(self, person: Person) -> KeyPair:
        """A person's signing key."""
        return KeyPair.at(self._signing, person.code)

    def registry_sha256(self) -> str:
        """The digest by which configurations pin the registry, in hexadecimal."""
        return certificate_sha256(self.registry.load()).hex()

    @property
    def _transport(self) -> Path:
        return self.folder / "transport"

    @property
    def _signing(self) -> Path:
        return self.folder / "signing"


def region_pki(folder: Path, region: Region) -> RegionPki:
    """Where a region's PKIs are, under the folder of all regions' PKIs."""
    return RegionPki(folder / region.code)


def issue_pki(constellation: Constellation, folder: Path, now: datetime) -> None:
    """Make the PKIs of all regions under a folder, valid from shortly before ``now`` (aware).

    Raises:
        FileExistsError: keys are there already; they are never overwritten.
    """
    for region in constellation.regions:
        for files, credential in _credentials(region, region_pki(folder, region), now):
            credential.write(files)


def _credentials(
    region: Region, pki: RegionPki, now: datetime
) -> Iterator[tuple[KeyPair, Credential]]:
    transport = Authority.create(region.code, "transport", now)
    signing = Authority.create(region.code, "signing", now)
    yield pki.transport_authority, transport.credential
    yield pki.signing_authority, signing.credential
    yield from _transport_leaves(region, pki, transport)
    yield from _signing_leaves(region, pki, signing)


def _transport_leaves(
    region: Region, pki: RegionPki, authority: Authority
) -> Iterator[tuple[KeyPair, Credential]]:
    yield pki.platform_tls, authority.issue_server(region.caller, region.host_name)
    for each in region.institutions:
        yield pki.client_tls(each), authority.issue_client(each.caller)
        if each.has_edge:
            yield pki.edge_tls(each), authority.issue_server(each.caller, each.host_name)


def _signing_leaves(
    region: Region, pki: RegionPki, authority: Authority
) -> Iterator[tuple[KeyPair, Credential]]:
    registry = SignerName(region.caller, KeyPurpose.REGISTRY)
    yield pki.registry, authority.issue_signer(registry, region.platform_keys)
    seal = SignerName(region.caller, KeyPurpose.SEAL)
    yield pki.platform_seal, authority.issue_signer(seal, region.platform_keys)
    for each in region.institutions:
        if each.has_edge:
            seal = SignerName(each.caller, KeyPurpose.SEAL)
            yield pki.seal(each), authority.issue_signer(seal, region.institution_keys)
        for person in each.people:
            signer = authority.issue_signer(each.signer(person), region.institution_keys)
            yield pki.person(person), signer
