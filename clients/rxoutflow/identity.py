"""Names: who holds a certificate.

A TLS certificate names its holder by exactly one URI in its subject alternative name,
``spiffe://<region code>.rxoutflow/<kind>/<institution code>``. A signing certificate adds what the
key is for: ``/seal``, ``/registry`` or ``/person/<person code>``. These forms are exact: ASCII, no
query, no trailing slash, no percent-encoding, no other case.

Common names, DNS names, e-mail and IP addresses never grant anything here. A name says who somebody
claims to be; whether that is true takes :mod:`rxoutflow.certificates`, and what they may do takes
:mod:`rxoutflow.trust`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from cryptography import x509

REGION_CODE = re.compile(r"[0-9]{6}")
"""A pooling region: six digits (GB/T 2260)."""

PERSON_CODE = re.compile(r"[A-Z0-9]{1,20}")
"""A person's code within the region that registers them."""

_DESIGNATED_CODE = re.compile(r"[HP][0-9]{11}")


class IdentityError(ValueError):
    """A certificate or name is not of the required form. The message never repeats the name."""


class CallerKind(StrEnum):
    """The kind of a caller, as the second part of its URI; the contract's ``CallerKind``."""

    HOSPITAL = "hospital"
    PHARMACY = "pharmacy"
    PLATFORM = "platform"
    REGULATOR = "regulator"
    OPERATOR = "operator"


class KeyPurpose(StrEnum):
    """What a signing certificate's key is for."""

    SEAL = "seal"
    REGISTRY = "registry"
    PERSON = "person"


_CALLER = re.compile(
    rf"spiffe://({REGION_CODE.pattern})\.rxoutflow/({'|'.join(CallerKind)})/([A-Z0-9]{{1,20}})"
)
_SIGNER = re.compile(rf"({_CALLER.pattern})/({'|'.join(KeyPurpose)})(?:/({PERSON_CODE.pattern}))?")


@dataclass(frozen=True, slots=True)
class CallerName:
    """The holder of a TLS certificate: an institution of a pooling region.

    Raises:
        IdentityError: if the institution code does not fit the region or the kind.
    """

    region_code: str
    kind: CallerKind
    institution_code: str

    def __post_init__(self) -> None:
        if not REGION_CODE.fullmatch(self.region_code):
            raise IdentityError("the region code must be six digits")
        if not _code_fits(self):
            raise IdentityError(f"the institution code does not fit a {self.kind} of this region")

    def __str__(self) -> str:
        return f"spiffe://{self.region_code}.rxoutflow/{self.kind}/{self.institution_code}"

    @classmethod
    def parse(cls, uri: str) -> Self:
        """Read ``spiffe://<region code>.rxoutflow/<kind>/<institution code>``.

        Raises:
            IdentityError: if the URI is not exactly of this form.
        """
        match = _CALLER.fullmatch(uri)
        if match is None:
            raise IdentityError(
                "the URI is not spiffe://<region>.rxoutflow/<kind>/<code> with a known kind"
            )
        region_code, kind, institution_code = match.groups()
        return cls(region_code, CallerKind(kind), institution_code)


@dataclass(frozen=True, slots=True)
class SignerName:
    """The holder of a signing certificate: a seal, a registry, or a person at an institution.

    Raises:
        IdentityError: if only one of "for a person" and "has a person code" holds, or if a registry
            is not the platform's.
    """

    institution: CallerName
    purpose: KeyPurpose
    person_code: str = ""

    def __post_init__(self) -> None:
        if (self.purpose is KeyPurpose.PERSON) != bool(PERSON_CODE.fullmatch(self.person_code)):
            raise IdentityError("a person's key has a person code, and no other key has one")
        if self.purpose is KeyPurpose.REGISTRY and self.institution.kind is not CallerKind.PLATFORM:
            raise IdentityError("only a platform has a registry")

    def __str__(self) -> str:
        person = f"/{self.person_code}" if self.person_code else ""
        return f"{self.institution}/{self.purpose}{person}"

    @classmethod
    def parse(cls, uri: str) -> Self:
        """Read a caller's URI followed by ``/seal``, ``/registry`` or ``/person/<person code>``.

        Raises:
            IdentityError: if the URI is not exactly of this form.
        """
        match = _SIGNER.fullmatch(uri)
        if match is None:
            raise IdentityError("the URI does not name a seal, a registry or a person")
        institution, _, _, _, purpose, person_code = match.groups(default="")
        return cls(CallerName.parse(institution), KeyPurpose(purpose), person_code)


def uri_names(certificate: x509.Certificate) -> tuple[str, ...]:
    """Return every URI of the certificate's subject alternative name, in order.

    Raises:
        IdentityError: if the extension cannot be read.
    """
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    except ValueError as error:
        raise IdentityError("the certificate's extensions cannot be read") from error
    return tuple(extension.value.get_values_for_type(x509.UniformResourceIdentifier))


def caller_name(certificate: x509.Certificate) -> CallerName:
    """Return the one name of a TLS certificate.

    Raises:
        IdentityError: if the certificate has no URI, more than one, or one of another form.
    """
    return CallerName.parse(_only_uri(certificate))


def signer_name(certificate: x509.Certificate) -> SignerName:
    """Return the one name of a signing certificate.

    Raises:
        IdentityError: if the certificate has no URI, more than one, or one of another form.
    """
    return SignerName.parse(_only_uri(certificate))


def _only_uri(certificate: x509.Certificate) -> str:
    names = uri_names(certificate)
    if len(names) != 1:
        raise IdentityError(f"the certificate has {len(names)} URI names; it must have exactly one")
    return names[0]


def _code_fits(name: CallerName) -> bool:
    code = name.institution_code
    match name.kind:
        case CallerKind.HOSPITAL | CallerKind.PHARMACY:
            return (
                _DESIGNATED_CODE.fullmatch(code) is not None
                and code[0] == name.kind[0].upper()
                and code[1:7] == name.region_code
            )
        case CallerKind.PLATFORM:
            return code == name.region_code
        case _:
            return re.fullmatch(r"[A-Z0-9]{1,20}", code) is not None
