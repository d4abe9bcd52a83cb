"""What must not work, and what the refusals say: sheets, signatures, codes, callers, holders."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta

from demonstration.report import Filled
from demonstration.stage import Stage, draft
from rxoutflow.client import HospitalClient, IssuedPrescription, PharmacyClient, RegulatorClient
from rxoutflow.documents import CHINA
from rxoutflow.errors import PrescriptionHeld
from rxoutflow.numbers import PickupCode, PrescriptionNumber, new_pickup_secret

SHORT_LIFE = timedelta(seconds=5)


def wrong_sheets(stage: Stage) -> None:
    """Against the rules of prescribing, too old, not signed by all."""
    refused, xiamen = stage.report.refused, stage.hospitals["xiamen"]
    refused(
        "six drugs on one sheet",
        "PRESCRIPTION_RULE_VIOLATED",
        lambda: stage.issue("six-drugs", "xiamen"),
    )
    refused(
        "issued five days ago, valid for one",
        "PRESCRIPTION_EXPIRED",
        lambda: stage.issue("expired", "xiamen"),
    )
    request = xiamen.issue_request(xiamen.complete(draft("one-region")))
    del request.prescription.signatures[1:]
    refused(
        "without the reviewing pharmacist's signature",
        "SIGNATURE_MISSING",
        lambda: xiamen.send_issue(request),
    )


def wrong_claims(stage: Stage) -> None:
    """Revoked before the claim; a wrong pickup code."""
    refused, pharmacy = stage.report.refused, stage.pharmacies["xiamen"]
    issued = stage.issue("to-be-revoked", "xiamen")
    stage.hospitals["xiamen"].revoke(issued.number, "开错药，撤销（演示）")
    refused(
        "claimed after the hospital revoked it",
        "PRESCRIPTION_REVOKED",
        lambda: pharmacy.claim(issued.pickup_code),
    )
    secret = new_pickup_secret(pharmacy.surroundings.random_bytes)
    wrong = PickupCode(issued.number, secret)
    refused("a wrong pickup code", "PICKUP_CODE_INVALID", lambda: pharmacy.find(wrong))


def wrong_callers(stage: Stage, number: PrescriptionNumber) -> None:
    """A pharmacy's certificate at a hospital's service; another region's at a platform."""
    profile, refused = stage.sandbox.profile, stage.report.refused
    tls = profile("xiamen-pharmacy").tls
    with HospitalClient(replace(profile("xiamen-hospital"), tls=tls)) as pharmacy:
        refused(
            "a pharmacy calls the hospital's service",
            "CALLER_KIND_NOT_ALLOWED",
            lambda: pharmacy.get(number),
        )
    own = profile("xiamen-regulator")
    tls = replace(profile("quanzhou-regulator").tls, roots=own.tls.roots)
    with RegulatorClient(replace(own, tls=tls)) as stranger:
        refused(
            "another region's regulator asks for a trace",
            "CALLER_REGION_NOT_ALLOWED",
            lambda: stranger.trace(number),
        )


def claimed_by_another(stage: Stage, issued: IssuedPrescription, holder: PharmacyClient) -> None:
    """Another pharmacy claims what one holds, and is told by whom it is held."""
    other, name = stage.pharmacies["nantong"], holder.profile.institution_name
    error = stage.report.refused(
        "a second pharmacy claims what another holds",
        "PRESCRIPTION_HELD",
        lambda: other.claim(issued.pickup_code),
    )
    told = isinstance(error, PrescriptionHeld) and error.holder_name == name
    stage.report.check("the second pharmacy is told who holds it", told, name)


def next_fill_too_early(stage: Stage, filled: Filled) -> None:
    """The second fill of a repeat prescription, on the day of the first."""
    plan, quanzhou = filled.issued.prescription.content, stage.pharmacies["quanzhou"]
    error = stage.report.refused(
        "the second fill, on the day of the first, at another pharmacy",
        "FILL_TOO_EARLY",
        lambda: quanzhou.claim(filled.issued.pickup_code),
    )
    days = timedelta(days=plan.long_prescription.fill_interval_days)
    handed_over = filled.committed.attempt.content.update_time.ToDatetime(CHINA)
    opens = (handed_over + days).date().isoformat()
    told = error.metadata.get("open_day", "") if error else ""
    name = "the pharmacy is told on which day the next fill opens"
    stage.report.check(name, told == opens, f"{told}, not {opens}")


def short_lived(stage: Stage) -> IssuedPrescription:
    """Issue one that will have expired when it is claimed."""
    client = stage.hospitals["quanzhou"]
    prescription = client.complete(draft("acute-infection"))
    prescription.expire_time.FromDatetime(client.surroundings.now() + SHORT_LIFE)
    stage.report.issued += 1
    return client.issue(prescription)


def claimed_too_late(stage: Stage, issued: IssuedPrescription) -> None:
    """Claim it once its time is over."""
    client, end = stage.pharmacies["quanzhou"], issued.prescription.content.expire_time
    rest = end.ToMilliseconds() / 1000 - client.surroundings.now().timestamp()
    time.sleep(max(0.0, rest + 0.2))
    stage.report.refused(
        "claimed after it expired",
        "PRESCRIPTION_EXPIRED",
        lambda: client.claim(issued.pickup_code),
    )
