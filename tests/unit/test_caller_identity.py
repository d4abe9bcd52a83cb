"""Who is calling, from what gRPC says about the connection: the cases that no client can stage.

The others are in ``tests/integration/test_transport.py``, over real connections.
"""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from rxoutflow.identity import CallerKind, CallerName
from rxoutflow.v1.trust_pb2 import Institution
from rxoutflow_server.domain.errors import Reason, Refusal
from rxoutflow_server.transport.identity import AuthContext, Authenticator
from support import pki
from support.pki import CLIENT, NOW, Region, trust_store


@pytest.fixture(scope="module")
def region() -> Region:
    return Region.create("350200")


def connection(credential: pki.Credential, **more: tuple[bytes, ...]) -> AuthContext:
    """What gRPC says about a connection with this certificate."""
    return {
        "ssl_tls_version": (b"TLSv1.3",),
        "x509_pem_cert": (credential.certificate.public_bytes(Encoding.PEM),),
        **more,
    }


def refusal_for(region: Region, seen: AuthContext) -> Reason:
    with pytest.raises(Refusal) as caught:
        Authenticator(trust_store(region), lambda: NOW).authenticate(seen)
    return caught.value.reason


@pytest.mark.parametrize("version", [(b"TLSv1.2",), (), (b"TLSv1.3", b"TLSv1.2")])
def test_only_tls_1_3_will_do(region: Region, version: tuple[bytes, ...]) -> None:
    seen = connection(region.client(region.hospital()), ssl_tls_version=version)
    assert refusal_for(region, seen) is Reason.CALLER_IDENTITY_INVALID


@pytest.mark.parametrize("pem", [(), (b"",), (b"no certificate",)])
def test_a_connection_without_readable_certificate_is_nobody(
    region: Region, pem: tuple[bytes, ...]
) -> None:
    seen = {**connection(region.client(region.hospital())), "x509_pem_cert": pem}
    assert refusal_for(region, seen) is Reason.CALLER_IDENTITY_INVALID


def test_what_grpc_read_from_the_certificate_is_not_believed(region: Region) -> None:
    hospital, other = region.hospital(), region.hospital()
    named = (str(other).encode(),)
    seen = connection(
        region.client(hospital), peer_uri=named, x509_common_name=named, peer_spiffe_id=named
    )
    caller = Authenticator(trust_store(region), lambda: NOW).authenticate(seen)
    assert caller.institution_code == hospital.institution_code


def test_a_chain_that_cannot_be_read_is_as_good_as_none(region: Region) -> None:
    seen = connection(region.client(region.hospital()), x509_pem_cert_chain=(b"garbage",))
    authenticator = Authenticator(trust_store(region), lambda: NOW)
    assert authenticator.authenticate(seen).kind is CallerKind.HOSPITAL


def test_a_region_without_trust_list_vouches_for_nobody(region: Region) -> None:
    elsewhere = Region.create("320600")
    seen = connection(elsewhere.client(elsewhere.hospital()))
    assert refusal_for(region, seen) is Reason.CALLER_CERTIFICATE_UNTRUSTED


def test_a_platform_needs_no_entry_among_the_institutions(region: Region) -> None:
    seen = connection(region.client(region.platform))
    caller = Authenticator(trust_store(region), lambda: NOW).authenticate(seen)
    assert (caller.kind, caller.institution_code) == (CallerKind.PLATFORM, "350200")


@pytest.mark.parametrize("kind", [CallerKind.REGULATOR, CallerKind.OPERATOR])
def test_regulators_and_operators_need_an_entry(region: Region, kind: CallerKind) -> None:
    seen = connection(region.client(CallerName("350200", kind, "R350200")))
    assert refusal_for(region, seen) is Reason.INSTITUTION_NOT_ACTIVE


def test_a_signing_certificate_is_no_caller(region: Region) -> None:
    seen = connection(region.seal(region.hospital()))
    assert refusal_for(region, seen) is Reason.CALLER_IDENTITY_INVALID


def test_the_signing_authority_does_not_vouch_for_callers(region: Region) -> None:
    seen = connection(region.signing.issue(str(region.hospital()), usages=CLIENT))
    assert refusal_for(region, seen) is Reason.CALLER_CERTIFICATE_UNTRUSTED


def test_a_denied_intermediate_denies_those_below_it() -> None:
    region = Region.create("350200")
    branch = region.transport.subordinate("branch")
    leaf = branch.issue(str(region.hospital()), usages=CLIENT)
    chain = b"".join(each.public_bytes(Encoding.PEM) for each in leaf.intermediates)
    seen = connection(leaf, x509_pem_cert_chain=(chain,))
    Authenticator(trust_store(region), lambda: NOW).authenticate(seen)
    region.deny(branch.certificate)
    assert refusal_for(region, seen) is Reason.CALLER_CERTIFICATE_REVOKED


def test_what_was_verified_once_is_judged_again_by_every_newer_list() -> None:
    region = Region.create("350200")
    hospital = region.hospital()
    trust = trust_store(region)
    authenticator = Authenticator(trust, lambda: NOW)
    seen = connection(region.client(hospital))
    authenticator.authenticate(seen)
    region.entry(hospital).status = Institution.STATUS_WITHDRAWN
    trust.offer(region.signed_list(sequence=2), NOW)
    with pytest.raises(Refusal) as caught:
        authenticator.authenticate(seen)
    assert caught.value.reason is Reason.INSTITUTION_NOT_ACTIVE
    region.entry(hospital).status = Institution.STATUS_ACTIVE
    trust.offer(region.signed_list(sequence=3), NOW)
    assert authenticator.authenticate(seen).institution_code == hospital.institution_code


def test_what_was_verified_once_is_judged_again_as_time_passes() -> None:
    region = Region.create("350200")
    now = [NOW]
    end = NOW + timedelta(hours=1)
    leaf = region.transport.issue(str(region.hospital()), usages=CLIENT, end=end)
    authenticator = Authenticator(trust_store(region), lambda: now[0])
    seen = connection(leaf)
    authenticator.authenticate(seen)
    now[0] = NOW + timedelta(hours=1, seconds=1)
    with pytest.raises(Refusal, match="valid from 2026-03-01 to 2026-03-02") as caught:
        authenticator.authenticate(seen)
    assert caught.value.reason is Reason.CALLER_CERTIFICATE_EXPIRED
