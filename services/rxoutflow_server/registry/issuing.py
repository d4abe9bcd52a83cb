"""Signing: from a checked registry file to the next trust list of the region.

A list is issued only by the registry's own certificate while that is valid, with a sequence higher
than that of the list before, and only if servers will accept and can fetch it: what was signed is
verified before anybody sees it. Nothing here writes files.
"""

from __future__ import annotations

from datetime import datetime
from hashlib import sha256

from cryptography import x509

from rxoutflow.identity import CallerKind, CallerName, IdentityError, KeyPurpose, SignerName
from rxoutflow.identity import signer_name as name_of
from rxoutflow.statements import Signer, new_statement
from rxoutflow.v1.statement_pb2 import SIGNER_ROLE_REGISTRY
from rxoutflow.v1.trust_pb2 import TrustList
from rxoutflow_server.registry.document import Draft
from rxoutflow_server.registry.lists import MAX_LIST_BYTES, ListError, SignedList, verified_list


def next_sequence(wanted: int | None, previous: SignedList | None, region_code: str) -> int:
    """The sequence of the next list.

    Args:
        wanted: the sequence asked for; the next one if ``None``.
        previous: the list before, if there is one.
        region_code: the region whose list it will be.

    Raises:
        ListError: the list before is another region's or has no lower sequence.
    """
    if previous is None:
        return wanted or 1
    if previous.region_code != region_code:
        raise ListError(f"holds the list of region {previous.region_code}; name another file")
    if wanted is not None and wanted <= previous.sequence:
        raise ListError(
            f"holds list {previous.sequence}, so that nobody would accept list {wanted}; "
            f"use --sequence auto, or {previous.sequence + 1} or more"
        )
    return wanted or previous.sequence + 1


def issue(draft: Draft, registry: Signer, sequence: int, now: datetime) -> SignedList:
    """Sign what a registry file says.

    Args:
        draft: the checked file.
        registry: the registry's certificate and key.
        sequence: higher than that of every list before.
        now: when it is issued, aware.

    Raises:
        ListError: the certificate is not the region's registry, is not valid now, or the list is
            too large to be fetched.
    """
    _check_registry(registry, draft.content.region_code, now)
    content = TrustList()
    content.CopyFrom(draft.content)
    content.sequence = sequence
    content.issue_time.FromDatetime(now)
    content.expire_time.FromDatetime(now + draft.validity)
    statement = new_statement(content, registry, SIGNER_ROLE_REGISTRY, now)
    data = statement.SerializeToString()
    if len(data) > MAX_LIST_BYTES:
        raise ListError(
            f"the list has {len(data)} bytes, and servers fetch at most {MAX_LIST_BYTES}; remove "
            "signers whose certificates expired so long ago that nobody has to verify them"
        )
    return verified_list(data, now, sha256(registry.certificate_chain[0]).hexdigest())


def _check_registry(registry: Signer, region_code: str, now: datetime) -> None:
    certificate = x509.load_der_x509_certificate(registry.certificate_chain[0])
    platform = CallerName(region_code, CallerKind.PLATFORM, region_code)
    expected = SignerName(platform, KeyPurpose.REGISTRY)
    try:
        named = name_of(certificate)
    except IdentityError as error:
        raise ListError(f"the certificate to sign with: {error}; use that of {expected}") from None
    if named != expected:
        raise ListError(f"the certificate to sign with is for {named}; use that of {expected}")
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not begin <= now <= end:
        raise ListError(
            f"the registry's certificate is valid from {begin:%Y-%m-%d} to {end:%Y-%m-%d}; "
            "have a new one issued and pinned by all who trust the region"
        )
