"""Names in certificates: one URI of one exact form, and nothing else counts."""

from __future__ import annotations

import pytest

from rxoutflow.identity import (
    CallerKind,
    CallerName,
    IdentityError,
    KeyPurpose,
    SignerName,
    caller_name,
    signer_name,
    uri_names,
)
from support.pki import Authority

HOSPITAL = "spiffe://350200.rxoutflow/hospital/H35020000001"

CALLERS = [
    HOSPITAL,
    "spiffe://350200.rxoutflow/pharmacy/P35020012345",
    "spiffe://350200.rxoutflow/platform/350200",
    "spiffe://350200.rxoutflow/regulator/NHSA1",
    "spiffe://350200.rxoutflow/operator/A",
]

NOT_CALLERS = {
    "another scheme": HOSPITAL.replace("spiffe", "https"),
    "an upper-case scheme": HOSPITAL.replace("spiffe", "SPIFFE"),
    "another trust domain": HOSPITAL.replace("rxoutflow", "example"),
    "a longer trust domain": HOSPITAL.replace("rxoutflow", "rxoutflow.example"),
    "a dot that is any character": HOSPITAL.replace("200.rx", "200xrx"),
    "a port": HOSPITAL.replace("rxoutflow/", "rxoutflow:443/"),
    "user information": HOSPITAL.replace("//", "//user@"),
    "a region of five digits": HOSPITAL.replace("350200.", "35020."),
    "a region in full-width digits": HOSPITAL.replace("350200.", "３５０２００."),
    "an unknown kind": HOSPITAL.replace("hospital", "clinic"),
    "a kind in capitals": HOSPITAL.replace("hospital", "Hospital"),
    "a code of another region": HOSPITAL.replace("H350200", "H350300"),
    "a hospital with a pharmacy's code": HOSPITAL.replace("H3", "P3"),
    "a pharmacy with a hospital's code": HOSPITAL.replace("hospital", "pharmacy"),
    "a code that is too short": HOSPITAL[:-1],
    "a code that is too long": HOSPITAL + "1",
    "a code in small letters": HOSPITAL.replace("H3", "h3"),
    "a code in Arabic digits": HOSPITAL.replace("00001", "0000١"),
    "a platform of another region": "spiffe://350200.rxoutflow/platform/350300",
    "an operator with an endless code": "spiffe://350200.rxoutflow/operator/" + "A" * 21,
    "an operator without a code": "spiffe://350200.rxoutflow/operator/",
    "a trailing slash": HOSPITAL + "/",
    "a further part": HOSPITAL + "/seal",
    "a query": HOSPITAL + "?a=1",
    "a fragment": HOSPITAL + "#a",
    "percent-encoding": HOSPITAL.replace("H3", "%483"),
    "a newline at the end": HOSPITAL + "\n",
    "a space before": " " + HOSPITAL,
    "an empty string": "",
}


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create("any")


@pytest.mark.parametrize("uri", CALLERS)
def test_a_proper_name_is_read_and_written_back_unchanged(uri: str) -> None:
    assert str(CallerName.parse(uri)) == uri


def test_the_parts_of_a_name_are_region_kind_and_code() -> None:
    assert CallerName.parse(HOSPITAL) == CallerName("350200", CallerKind.HOSPITAL, "H35020000001")


@pytest.mark.parametrize("uri", NOT_CALLERS.values(), ids=NOT_CALLERS.keys())
def test_anything_else_is_not_a_callers_name(uri: str) -> None:
    with pytest.raises(IdentityError) as refused:
        CallerName.parse(uri)
    assert not uri or uri not in str(refused.value)


def test_a_name_cannot_be_made_of_parts_that_do_not_fit() -> None:
    with pytest.raises(IdentityError):
        CallerName("350200", CallerKind.PLATFORM, "350300")
    with pytest.raises(IdentityError):
        CallerName("35020", CallerKind.OPERATOR, "A")


@pytest.mark.parametrize(
    "uri",
    [
        f"{HOSPITAL}/seal",
        f"{HOSPITAL}/person/D350200000001",
        "spiffe://350200.rxoutflow/platform/350200/seal",
        "spiffe://350200.rxoutflow/platform/350200/registry",
    ],
)
def test_a_signers_name_is_read_and_written_back_unchanged(uri: str) -> None:
    assert str(SignerName.parse(uri)) == uri


@pytest.mark.parametrize(
    "uri",
    [
        HOSPITAL,
        f"{HOSPITAL}/registry",
        f"{HOSPITAL}/person",
        f"{HOSPITAL}/person/",
        f"{HOSPITAL}/person/d001",
        f"{HOSPITAL}/person/D001/seal",
        f"{HOSPITAL}/seal/",
        f"{HOSPITAL}/seal/D001",
        f"{HOSPITAL}/Seal",
        "spiffe://350200.rxoutflow/hospital/H35030000001/seal",
    ],
)
def test_anything_else_is_not_a_signers_name(uri: str) -> None:
    with pytest.raises(IdentityError):
        SignerName.parse(uri)


def test_a_tls_certificate_names_its_caller(authority: Authority) -> None:
    certificate = authority.issue(HOSPITAL, dns=["hospital.example"]).certificate
    assert caller_name(certificate).institution_code == "H35020000001"


def test_a_signing_certificate_names_its_signer(authority: Authority) -> None:
    name = signer_name(authority.issue(f"{HOSPITAL}/person/D001").certificate)
    assert (name.purpose, name.person_code) == (KeyPurpose.PERSON, "D001")


def test_a_tls_certificate_names_no_signer_and_a_signing_certificate_no_caller(
    authority: Authority,
) -> None:
    with pytest.raises(IdentityError):
        signer_name(authority.issue(HOSPITAL).certificate)
    with pytest.raises(IdentityError):
        caller_name(authority.issue(f"{HOSPITAL}/seal").certificate)


def test_common_names_and_dns_names_grant_nothing(authority: Authority) -> None:
    certificate = authority.issue(dns=["350200.rxoutflow"], common_name=HOSPITAL).certificate
    assert uri_names(certificate) == ()
    with pytest.raises(IdentityError, match="0 URI names"):
        caller_name(certificate)


def test_a_certificate_without_alternative_names_has_no_name(authority: Authority) -> None:
    with pytest.raises(IdentityError, match="0 URI names"):
        caller_name(authority.issue(common_name=HOSPITAL).certificate)


def test_two_names_are_no_name_even_if_both_are_proper(authority: Authority) -> None:
    certificate = authority.issue(*CALLERS[:2]).certificate
    assert uri_names(certificate) == tuple(CALLERS[:2])
    with pytest.raises(IdentityError, match="2 URI names"):
        caller_name(certificate)
