"""Who is calling, decided anew on every call.

gRPC admits a connection whose certificate leads to the anchor of *some* region. That is all it can
check, so everything that matters is checked here, per call: TLS 1.3; exactly one URI name; a path
to an anchor of the region that the name says, and of no other; validity now; the deny list; the
region's list of institutions. Common names, DNS names and ``peer_identities()`` are never looked
at.

Paths are verified once for a certificate and a trust list, and remembered. Time and denial are
checked on every call all the same, so a connection that lives long is no way around either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509

from rxoutflow.certificates import (
    CertificateUntrusted,
    TrustedPath,
    Usage,
    certificate_sha256,
    verify_chain,
)
from rxoutflow.identity import CallerKind, CallerName, IdentityError, caller_name
from rxoutflow.trust import RegionNotTrusted, RegionTrust, TrustStore
from rxoutflow.v1 import annotations_pb2 as contract
from rxoutflow.v1.trust_pb2 import Institution
from rxoutflow_server.domain.errors import Reason, Refusal

AuthContext = Mapping[str, Iterable[bytes]]
"""What gRPC knows about a connection."""

Clock = Callable[[], datetime]
"""Gives the present time, aware."""

TLS_VERSION: Final = b"TLSv1.3"

MAX_REMEMBERED: Final = 10_000
"""Verified certificates that are remembered at most."""

KINDS: Final[Mapping[contract.CallerKind.ValueType, CallerKind]] = {
    contract.CALLER_KIND_HOSPITAL: CallerKind.HOSPITAL,
    contract.CALLER_KIND_PHARMACY: CallerKind.PHARMACY,
    contract.CALLER_KIND_PLATFORM: CallerKind.PLATFORM,
    contract.CALLER_KIND_REGULATOR: CallerKind.REGULATOR,
    contract.CALLER_KIND_OPERATOR: CallerKind.OPERATOR,
}
"""What the contract's numbers for kinds of callers stand for."""

_MAY_CALL = frozenset({Institution.STATUS_ACTIVE, Institution.STATUS_SUSPENDED})
"""A suspended institution may read and finish what it began; the application refuses new work."""


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller."""

    region_code: str
    kind: CallerKind
    institution_code: str
    certificate_sha256: bytes


@dataclass(frozen=True, slots=True)
class _Verified:
    caller: Caller
    region: RegionTrust
    path: TrustedPath
    digests: tuple[bytes, ...]


class Authenticator:
    """Turns what gRPC knows about a connection into a caller, or refuses."""

    def __init__(self, trust: TrustStore, clock: Clock) -> None:
        self._trust = trust
        self._clock = clock
        self._verified: dict[bytes, _Verified] = {}

    def authenticate(self, connection: AuthContext) -> Caller:
        """Return who is at the other end, as of now.

        Raises:
            Refusal: CALLER_IDENTITY_INVALID, CALLER_CERTIFICATE_UNTRUSTED,
                CALLER_CERTIFICATE_EXPIRED, CALLER_CERTIFICATE_REVOKED or INSTITUTION_NOT_ACTIVE.
        """
        now = self._clock()
        if _only(connection, "ssl_tls_version") != TLS_VERSION:
            raise _invalid("the connection is not TLS 1.3: allow TLS 1.3 at the client")
        pem = _only(connection, "x509_pem_cert")
        verified = self._verified.get(pem) or self._verify(pem, connection, now)
        if verified.region is not self._region(verified.caller, now):
            verified = self._verify(pem, connection, now)
        _check_validity(verified.path.not_before, verified.path.not_after, now)
        if any(map(verified.region.is_denied, verified.digests)):
            raise Refusal(
                Reason.CALLER_CERTIFICATE_REVOKED,
                "the certificate is on its region's deny list: get a new one",
            )
        return verified.caller

    def _verify(self, pem: bytes, connection: AuthContext, now: datetime) -> _Verified:
        """Verify a certificate that was not seen under its region's present trust list."""
        leaf = _load(pem)
        name = _name(leaf)
        _check_validity(leaf.not_valid_before_utc, leaf.not_valid_after_utc, now)
        region = self._region(name, now)
        path = _path(leaf, connection, region, now)
        caller = Caller(
            name.region_code, name.kind, name.institution_code, certificate_sha256(leaf)
        )
        _check_institution(caller, region)
        digests = tuple(map(certificate_sha256, path.certificates))
        verified = _Verified(caller, region, path, digests)
        if len(self._verified) >= MAX_REMEMBERED:
            self._verified.clear()
        self._verified[pem] = verified
        return verified

    def _region(self, name: Caller | CallerName, now: datetime) -> RegionTrust:
        try:
            return self._trust.region(name.region_code, now)
        except RegionNotTrusted as error:
            raise _untrusted(name.region_code, str(error)) from None


def _only(connection: AuthContext, key: str) -> bytes:
    """The one value of a property of the connection, empty if it has none or several."""
    values = tuple(connection.get(key, ()))
    return values[0] if len(values) == 1 else b""


def _load(pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise _invalid("the connection has no certificate that can be read") from None


def _name(leaf: x509.Certificate) -> CallerName:
    try:
        return caller_name(leaf)
    except IdentityError as error:
        raise _invalid(str(error)) from None


def _path(
    leaf: x509.Certificate, connection: AuthContext, region: RegionTrust, now: datetime
) -> TrustedPath:
    try:
        chain = x509.load_pem_x509_certificates(_only(connection, "x509_pem_cert_chain"))
    except ValueError:
        chain = []
    intermediates = [certificate for certificate in chain if certificate != leaf]
    try:
        return verify_chain(leaf, intermediates, region.transport_anchors, now, Usage.CLIENT)
    except CertificateUntrusted as error:
        raise _untrusted(region.region_code, str(error)) from None


def _check_validity(not_before: datetime, not_after: datetime, now: datetime) -> None:
    if not not_before <= now <= not_after:
        raise Refusal(
            Reason.CALLER_CERTIFICATE_EXPIRED,
            f"the certificate is valid from {not_before:%Y-%m-%d} to {not_after:%Y-%m-%d}: "
            "renew it and reconnect",
        )


def _check_institution(caller: Caller, region: RegionTrust) -> None:
    if caller.kind is CallerKind.PLATFORM:
        return  # its name is the region's, and the region is known
    code = caller.institution_code
    institution = region.institution(code)
    if institution is None or KINDS.get(institution.kind) is not caller.kind:
        raise _not_active(code, f"is not on the trust list of its region as a {caller.kind}")
    if institution.status not in _MAY_CALL:
        raise _not_active(code, "has withdrawn from the exchange")


def _invalid(problem: str) -> Refusal:
    return Refusal(Reason.CALLER_IDENTITY_INVALID, problem)


def _untrusted(region_code: str, problem: str) -> Refusal:
    return Refusal(Reason.CALLER_CERTIFICATE_UNTRUSTED, problem, region=region_code)


def _not_active(code: str, problem: str) -> Refusal:
    return Refusal(
        Reason.INSTITUTION_NOT_ACTIVE,
        f"{code} {problem}: ask the region's operator",
        institution=code,
    )
