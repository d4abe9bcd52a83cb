"""The right to collect: proven by the pickup code, or by the insured's e-credential.

The pickup code carries the number of its prescription. The e-credential (医保电子凭证) is a code on
the patient's app; presented, it becomes a token that opens this patient's prescriptions to this
pharmacy for some minutes, and the patient chooses one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from rxoutflow.client.evidence import Evidence
from rxoutflow.numbers import PickupCode, PrescriptionNumber
from rxoutflow.v1.credential_pb2 import ECredential, ECredentialProof
from rxoutflow.v1.pos_service_pb2 import (
    PosServiceClaimPrescriptionRequest,
    PosServiceFindPrescriptionRequest,
    PosServiceQuoteSettlementRequest,
)
from rxoutflow.v1.prescription_status_pb2 import PrescriptionStatus

Proof: TypeAlias = PickupCode | ECredentialProof
"""A pickup code, or an e-credential's token with the number that the patient chose."""

_Request: TypeAlias = (
    PosServiceClaimPrescriptionRequest
    | PosServiceFindPrescriptionRequest
    | PosServiceQuoteSettlementRequest
)


@dataclass(frozen=True, slots=True)
class Presented:
    """An e-credential that was accepted, and the patient's prescriptions, newest first."""

    token: Evidence[ECredential]
    prescriptions: tuple[Evidence[PrescriptionStatus], ...]

    def proof(self, number: PrescriptionNumber) -> ECredentialProof:
        """The proof for the prescription that the patient chose."""
        return ECredentialProof(prescription_number=str(number), token=self.token.statement)


def number_of(proof: Proof) -> str:
    """The prescription that a proof opens."""
    if isinstance(proof, PickupCode):
        return str(proof.number)
    return proof.prescription_number


def put(request: _Request, proof: Proof) -> None:
    """Put the proof into a request."""
    if isinstance(proof, PickupCode):
        request.pickup_code = str(proof)
    else:
        request.e_credential.CopyFrom(proof)
