"""The words by which registry files and listings name what the contract numbers.

They are the contract's own names in small letters: ``reviewing_pharmacist`` stands for
``SIGNER_ROLE_REVIEWING_PHARMACIST``. What a registry may never list has no word here.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from rxoutflow.identity import CallerKind
from rxoutflow.statements.payloads import PURPOSES
from rxoutflow.v1 import annotations_pb2
from rxoutflow.v1.prescription_pb2 import Prescription
from rxoutflow.v1.statement_pb2 import SIGNER_ROLE_REGISTRY, SignatureAlgorithm, SignerRole
from rxoutflow.v1.trust_pb2 import Agreement, Institution

ROLES: Final[Mapping[str, SignerRole.ValueType]] = MappingProxyType(
    {
        SignerRole.Name(role).removeprefix("SIGNER_ROLE_").lower(): role
        for role in PURPOSES
        if role != SIGNER_ROLE_REGISTRY
    }
)
"""Capacities in which somebody signs."""

ALGORITHMS: Final[Mapping[str, SignatureAlgorithm.ValueType]] = MappingProxyType(
    {
        name.removeprefix("SIGNATURE_ALGORITHM_").lower(): number
        for name, number in SignatureAlgorithm.items()
        if number
    }
)
"""Signature algorithms."""

SCOPES: Final[Mapping[str, Prescription.OutflowBasis.ValueType]] = MappingProxyType(
    {
        name.removeprefix("OUTFLOW_BASIS_").lower(): number
        for name, number in Prescription.OutflowBasis.items()
        if number
    }
)
"""On what bases an institution may issue or fill prescriptions."""

STATUSES: Final[Mapping[str, Institution.Status.ValueType]] = MappingProxyType(
    {
        name.removeprefix("STATUS_").lower(): number
        for name, number in Institution.Status.items()
        if number
    }
)
"""What an institution may do at present."""

QUOTA_PERIODS: Final[Mapping[str, Agreement.Period.ValueType]] = MappingProxyType(
    {
        name.removeprefix("PERIOD_").lower(): number
        for name, number in Agreement.Period.items()
        if number
    }
)
"""How often the quota of an agreement begins anew."""

KINDS: Final[Mapping[str, annotations_pb2.CallerKind.ValueType]] = MappingProxyType(
    {
        kind.value: annotations_pb2.CallerKind.Value(f"CALLER_KIND_{kind.upper()}")
        for kind in CallerKind
        if kind is not CallerKind.PLATFORM
    }
)
"""Kinds of institutions; the platform is the region itself and is not listed."""


def word_of(words: Mapping[str, int], number: int) -> str:
    """The word for a number of the contract; the number itself if there is none."""
    return next((word for word, each in words.items() if each == number), str(number))
