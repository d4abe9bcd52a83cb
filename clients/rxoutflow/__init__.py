"""What integrators use: issue, collect and trace outflow prescriptions (外配处方).

    profile = load_profile(Path("hospital.json"))
    with HospitalClient(profile) as hospital:
        issued = hospital.issue(hospital.complete(read_draft(Path("prescription.json"))))
    print(issued.pickup_code)

Everything named here is public; so are the messages in :mod:`rxoutflow.v1` and the statements in
:mod:`rxoutflow.statements`. Whatever is raised on purpose is a :class:`RxoutflowError`, but for a
mistyped number or code, which is a :class:`NumberInvalid`.
"""

from rxoutflow.client import (
    Committed,
    DirectHospitalClient,
    Evidence,
    FoundPrescription,
    HospitalClient,
    IssuedPrescription,
    KnownPrescription,
    NoticeStream,
    Patience,
    PharmacyClient,
    Presented,
    Progress,
    Proof,
    Registered,
    RegulatorClient,
    Revoked,
    Surroundings,
)
from rxoutflow.documents import Draft, parse_draft, read_draft
from rxoutflow.errors import (
    AnswerUntrusted,
    FillTooEarly,
    Indefinite,
    InvalidInput,
    PrescriptionHeld,
    QuoteChanged,
    Refused,
    RuleViolated,
    RxoutflowError,
    Unavailable,
)
from rxoutflow.numbers import NumberInvalid, PickupCode, PrescriptionNumber
from rxoutflow.profile import Profile, Sandbox, load_profile, load_sandbox

__all__ = [
    "AnswerUntrusted",
    "Committed",
    "DirectHospitalClient",
    "Draft",
    "Evidence",
    "FillTooEarly",
    "FoundPrescription",
    "HospitalClient",
    "Indefinite",
    "InvalidInput",
    "IssuedPrescription",
    "KnownPrescription",
    "NoticeStream",
    "NumberInvalid",
    "Patience",
    "PharmacyClient",
    "PickupCode",
    "PrescriptionHeld",
    "PrescriptionNumber",
    "Presented",
    "Profile",
    "Progress",
    "Proof",
    "QuoteChanged",
    "Refused",
    "Registered",
    "RegulatorClient",
    "Revoked",
    "RuleViolated",
    "RxoutflowError",
    "Sandbox",
    "Surroundings",
    "Unavailable",
    "load_profile",
    "load_sandbox",
    "parse_draft",
    "read_draft",
]
