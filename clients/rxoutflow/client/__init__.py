"""Clients of the exchange: for hospital systems, pharmacy systems, supervision and operators.

Synchronous and typed. Each signs with the people of its profile, calls over mutual TLS with a time
limit, repeats what is safe to repeat, and hands out only answers that verified. Clients may be
shared by threads.
"""

from rxoutflow.client.channel import Patience, Surroundings
from rxoutflow.client.collecting import Presented, Proof
from rxoutflow.client.direct import DirectHospitalClient, Registered
from rxoutflow.client.evidence import Evidence
from rxoutflow.client.hospital import (
    HospitalClient,
    IssuedPrescription,
    KnownPrescription,
    Revoked,
)
from rxoutflow.client.notices import NoticeStream
from rxoutflow.client.operator import OperatorClient, Overdue
from rxoutflow.client.pharmacy import (
    Committed,
    Corrected,
    FoundPrescription,
    PharmacyClient,
    Progress,
    returned_sale,
    sale,
)
from rxoutflow.client.reconciling import Reconciled
from rxoutflow.client.regulator import RegulatorClient

__all__ = [
    "Committed",
    "Corrected",
    "DirectHospitalClient",
    "Evidence",
    "FoundPrescription",
    "HospitalClient",
    "IssuedPrescription",
    "KnownPrescription",
    "NoticeStream",
    "OperatorClient",
    "Overdue",
    "Patience",
    "PharmacyClient",
    "Presented",
    "Progress",
    "Proof",
    "Reconciled",
    "Registered",
    "RegulatorClient",
    "Revoked",
    "Surroundings",
    "returned_sale",
    "sale",
]
