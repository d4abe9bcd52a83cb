"""Paths from a leaf to an anchor: of one region, one PKI, one use, one instant."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from rxoutflow.certificates import CertificateUntrusted, TrustedPath, Usage, verify_chain
from support.pki import BEGIN, CLIENT, END, NOW, SERVER, Authority, Credential, ed

NAME = "spiffe://350200.rxoutflow/hospital/H35020000001"


@pytest.fixture(scope="module")
def root() -> Authority:
    return Authority.create("root")


def path(leaf: Credential, anchor: Authority, usage: Usage, at: datetime = NOW) -> TrustedPath:
    return verify_chain(leaf.certificate, leaf.intermediates, [anchor.certificate], at, usage)


@pytest.mark.parametrize(
    ("usages", "usage"),
    [(CLIENT, Usage.CLIENT), (SERVER, Usage.SERVER), ((*CLIENT, *SERVER), Usage.SERVER)],
)
def test_a_tls_certificate_serves_the_use_it_was_issued_for(
    root: Authority, usages: tuple[x509.ObjectIdentifier, ...], usage: Usage
) -> None:
    leaf = root.issue(NAME, usages=usages)
    assert path(leaf, root, usage).leaf == leaf.certificate


@pytest.mark.parametrize(
    ("usages", "usage"),
    [
        (CLIENT, Usage.SERVER),
        (SERVER, Usage.CLIENT),
        ((), Usage.CLIENT),
        ((), Usage.SERVER),
        (CLIENT, Usage.SIGNING),
        (SERVER, Usage.SIGNING),
        ((ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,), Usage.SIGNING),
    ],
)
def test_a_certificate_serves_no_other_use(
    root: Authority, usages: tuple[x509.ObjectIdentifier, ...], usage: Usage
) -> None:
    with pytest.raises(CertificateUntrusted, match="extended key usage"):
        path(root.issue(NAME, usages=usages), root, usage)


def test_a_signing_certificate_may_have_an_ed25519_key(root: Authority) -> None:
    leaf = root.issue(NAME, key=ed())
    assert path(leaf, root, Usage.SIGNING).leaf == leaf.certificate


def test_a_certificate_that_may_not_sign_is_refused(root: Authority) -> None:
    with pytest.raises(CertificateUntrusted, match="key usage"):
        path(root.issue(NAME, digital_signature=False), root, Usage.SIGNING)


def test_an_issuing_certificate_is_no_leaf(root: Authority) -> None:
    authority = root.subordinate("sub")
    with pytest.raises(CertificateUntrusted):
        path(Credential(authority.certificate, authority.key), root, Usage.SIGNING)


def test_a_certificate_with_the_constraints_of_an_issuer_is_no_leaf(root: Authority) -> None:
    with pytest.raises(CertificateUntrusted, match="basic constraints"):
        path(root.issue(NAME, ca=True), root, Usage.SIGNING)


def test_three_intermediates_are_accepted_and_four_are_not(root: Authority) -> None:
    third = root.subordinate("1").subordinate("2").subordinate("3")
    assert len(path(third.issue(NAME), root, Usage.SIGNING).certificates) == 5
    with pytest.raises(CertificateUntrusted, match="depth"):
        path(third.subordinate("4").issue(NAME), root, Usage.SIGNING)


def test_an_issuers_path_length_is_kept() -> None:
    root = Authority.create("root", path_length=0)
    with pytest.raises(CertificateUntrusted, match="path length"):
        path(root.subordinate("1").issue(NAME), root, Usage.SIGNING)


def test_a_leaf_issues_nothing(root: Authority) -> None:
    leaf = root.issue(NAME)
    rogue = Authority(leaf.certificate, leaf.key, (leaf.certificate,))  # type: ignore[arg-type] # P-256
    with pytest.raises(CertificateUntrusted):
        path(rogue.issue(NAME), root, Usage.SIGNING)


def test_a_certificate_of_another_authority_is_refused_even_under_its_name(root: Authority) -> None:
    namesake = Authority.create("root")
    with pytest.raises(CertificateUntrusted):
        path(namesake.issue(NAME), root, Usage.SIGNING)


def test_a_missing_intermediate_breaks_the_path(root: Authority) -> None:
    leaf = root.subordinate("sub").issue(NAME)
    with pytest.raises(CertificateUntrusted):
        path(Credential(leaf.certificate, leaf.key), root, Usage.SIGNING)


def test_without_anchors_nothing_is_trusted(root: Authority) -> None:
    with pytest.raises(CertificateUntrusted, match="no anchor"):
        verify_chain(root.issue(NAME).certificate, [], [], NOW, Usage.SIGNING)


@pytest.mark.parametrize("at", [BEGIN - timedelta(seconds=1), END + timedelta(seconds=1)])
def test_a_path_holds_only_while_the_leaf_is_valid(root: Authority, at: datetime) -> None:
    with pytest.raises(CertificateUntrusted):
        path(root.issue(NAME), root, Usage.SIGNING, at)


def test_a_path_holds_only_while_its_anchor_is_valid(root: Authority) -> None:
    leaf = root.issue(NAME, end=END + timedelta(days=9))
    with pytest.raises(CertificateUntrusted):
        path(leaf, root, Usage.SIGNING, END + timedelta(days=1))


def test_a_path_knows_when_all_of_it_is_valid(root: Authority) -> None:
    begin, end = NOW - timedelta(hours=1), END + timedelta(days=9)
    found = path(root.issue(NAME, begin=begin, end=end), root, Usage.SIGNING)
    assert (found.not_before, found.not_after) == (begin, END)
    assert found.valid_at(NOW)
    assert not found.valid_at(begin - timedelta(seconds=1))


def test_a_refusal_does_not_print_the_certificate(root: Authority) -> None:
    leaf = root.issue(NAME, common_name="Zhang San", digital_signature=False)
    with pytest.raises(CertificateUntrusted) as refused:
        path(leaf, root, Usage.SIGNING)
    assert "Zhang" not in str(refused.value)
