"""Refusals of statements and trust lists.

Each class stands for one reason of the contract's error catalogue, under the catalogue's name, so
that a server can pass it on unchanged. ``detail`` holds what a program can branch on: the role of
the signature, the path of the field, the type that was expected. Messages name roles, fields,
regions and institutions; they never repeat the content of a statement.
"""

from __future__ import annotations

from typing import ClassVar


class StatementError(Exception):
    """A statement was refused: it proves nothing, and none of its content was handed out."""

    reason: ClassVar[str]

    def __init__(self, message: str, **detail: str) -> None:
        """Keep the message for people and the detail for programs."""
        super().__init__(message)
        self.message = message
        self.detail = detail


class StatementMalformed(StatementError):
    """Payload, header or envelope are not in plain wire form, or beyond a bound."""

    reason = "STATEMENT_MALFORMED"


class StatementTypeUnexpected(StatementError):
    """Another kind of statement belongs here."""

    reason = "STATEMENT_TYPE_UNEXPECTED"


class SignatureMissing(StatementError):
    """The signatures are not those that this statement needs, in their order."""

    reason = "SIGNATURE_MISSING"


class SignatureInvalid(StatementError):
    """A signature does not verify: the bytes were changed, or another key signed."""

    reason = "SIGNATURE_INVALID"


class SignerUntrusted(StatementError):
    """The signer's region does not vouch for this certificate in this role and institution."""

    reason = "SIGNER_UNTRUSTED"


class SignersNotDistinct(StatementError):
    """One person signed in two roles that the law keeps apart."""

    reason = "SIGNERS_NOT_DISTINCT"


class SignedContentMismatch(StatementError):
    """What is signed contradicts the signers or the audience."""

    reason = "SIGNED_CONTENT_MISMATCH"


class RegionNotTrusted(LookupError):
    """There is no trust list of this region here, or the one that is here has lapsed."""

    def __init__(self, region_code: str, problem: str) -> None:
        """Keep the region's code; the problem reads after "region 350200 ..."."""
        super().__init__(f"region {region_code} {problem}; fetch its trust list")
        self.region_code = region_code


class TrustListRefused(ValueError):
    """A trust list was not accepted; the one that was held before stays in force."""


class TrustListRollback(TrustListRefused):
    """A trust list is older than the one held: an attack, or a backup that was restored."""

    def __init__(self, region_code: str, sequence: int, held_sequence: int) -> None:
        """Keep the region and both sequences."""
        super().__init__(
            f"region {region_code}: list {sequence} is older than list {held_sequence}, "
            "which is held here"
        )
        self.region_code = region_code
        self.sequence = sequence
        self.held_sequence = held_sequence
