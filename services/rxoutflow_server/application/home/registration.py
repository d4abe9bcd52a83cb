"""Hospitals: pre-check, register, revoke, and look at their own prescriptions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime

from rxoutflow.identity import CallerName
from rxoutflow.numbers import (
    SECRET_ALPHABET,
    SECRET_LENGTH,
    NumberInvalid,
    PrescriptionNumber,
)
from rxoutflow.statements import Verified
from rxoutflow.statements.verification import MAX_CLOCK_AHEAD
from rxoutflow.v1 import prescription_pb2, prescription_status_pb2
from rxoutflow.v1.hospital_service_pb2 import (
    GetPrescriptionRequest,
    GetPrescriptionResponse,
    HospitalServiceGetOutcomeRequest,
    HospitalServiceGetOutcomeResponse,
    ListPrescriptionsRequest,
    ListPrescriptionsResponse,
    PrecheckPrescriptionRequest,
    PrecheckPrescriptionResponse,
    RegisterPrescriptionRequest,
    RegisterPrescriptionResponse,
    RevokePrescriptionRequest,
    RevokePrescriptionResponse,
)
from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow_server.application.exchange.evidence import keep, step, tell_institution
from rxoutflow_server.application.exchange.idempotency import (
    RequestKey,
    find_outcome,
    once,
    unverified_number,
)
from rxoutflow_server.application.home import facts
from rxoutflow_server.application.messages import (
    REVOCATION_OUTCOMES,
    VALIDITIES,
    barred_message,
    finding_message,
    instant,
    plan_of,
    prescription_facts,
    timestamp,
)
from rxoutflow_server.application.paging import page_size
from rxoutflow_server.application.ports import BarredNumber, Flow, RegionRole, Transaction
from rxoutflow_server.application.region import LOCAL_TIME, Region, require_in_scope, routed
from rxoutflow_server.application.validation import check_prescription, check_required, mismatch
from rxoutflow_server.domain import prescription as transitions
from rxoutflow_server.domain.errors import Reason, Refusal
from rxoutflow_server.domain.prescription import LineUse, Prescription
from rxoutflow_server.domain.prescription_rules import Finding, Severity, findings
from rxoutflow_server.domain.rule_book import rule_source

_REGISTER = "/rxoutflow.v1.HospitalService/RegisterPrescription"
_REVOKE = "/rxoutflow.v1.HospitalService/RevokePrescription"
_SECRET = re.compile(rf"[{SECRET_ALPHABET}]{{{SECRET_LENGTH}}}")


def precheck(region: Region, request: PrecheckPrescriptionRequest) -> PrecheckPrescriptionResponse:
    """Everything that the rules have to say about a prescription, without registering it.

    Raises:
        Refusal: FIELD_INVALID if a field that the rules need is missing or out of range.
    """
    content = request.prescription
    check_prescription(content)
    found = [*_rule_findings(region, content), *_standing_findings(region, content)]
    return PrecheckPrescriptionResponse(findings=map(finding_message, found))


def register(
    tx: Transaction, region: Region, caller: CallerName, request: RegisterPrescriptionRequest
) -> RegisterPrescriptionResponse:
    """Register a sealed prescription. From the answer on, pharmacies can find it.

    Raises:
        StatementError: the statement does not verify.
        Refusal: see HospitalService.RegisterPrescription.
    """
    now = region.now()
    number = unverified_number(request.prescription, prescription_pb2.Prescription)
    key = RequestKey(number, str(caller), request.request_id, _REGISTER)
    return once(
        tx.journal,
        key,
        request,
        RegisterPrescriptionResponse,
        now,
        lambda: _register(tx, region, caller, request, now),
    )


def _register(
    tx: Transaction,
    region: Region,
    caller: CallerName,
    request: RegisterPrescriptionRequest,
    now: datetime,
) -> RegisterPrescriptionResponse:
    verified = region.verified(request.prescription, prescription_pb2.Prescription, now)
    content = verified.content
    _require_issuer(region, caller, content)
    _require_not_barred(tx, content.prescription_number)
    _require_secret(request.pickup_secret)
    check_prescription(content)
    _require_rules(region, content)
    _require_in_time(content, now)
    prescription = _new_prescription(region, verified, request.pickup_secret, now)
    if not tx.home.add_prescription(prescription):
        return _registered_before(tx, region, prescription, now)
    keep(tx, prescription.number, request.prescription, now, verified)
    status = _state_registration(tx, region, prescription, now)
    return RegisterPrescriptionResponse(status=status)


def revoke(
    tx: Transaction, region: Region, caller: CallerName, request: RevokePrescriptionRequest
) -> RevokePrescriptionResponse:
    """Take a prescription back, as far as that is still possible; the answer says how far.

    One that is not registered is barred for good: it may be on its way, or half registered by a
    call whose answer was lost, and must not become valid behind its issuer's back.

    Raises:
        StatementError: the statement does not verify.
        Refusal: PRESCRIPTION_NOT_FOUND unless the caller issued it.
    """
    now = region.now()
    number = unverified_number(request.revocation, prescription_status_pb2.Revocation)
    key = RequestKey(number, str(caller), request.request_id, _REVOKE)
    return once(
        tx.journal,
        key,
        request,
        RevokePrescriptionResponse,
        now,
        lambda: _revoke(tx, region, caller, request, now),
    )


def _revoke(
    tx: Transaction,
    region: Region,
    caller: CallerName,
    request: RevokePrescriptionRequest,
    now: datetime,
) -> RevokePrescriptionResponse:
    content = region.verified(request.revocation, prescription_status_pb2.Revocation, now).content
    check_required(content)
    number = content.prescription_number
    if content.institution_code != caller.institution_code:
        raise facts.not_found()
    if tx.home.prescription(number) is None and _may_issue(region, caller, number):
        barred = _bar(tx, region, caller, request, number, now)
        if barred is not None:
            return barred
    prescription = _own_prescription(tx, caller, number)
    change, outcome = transitions.revoke(prescription, now=now)
    facts.save(tx, region, change, now)
    digest = keep(tx, prescription.number, request.revocation, now)
    if change.prescription.validity is not prescription.validity:
        _state_revocation(tx, region, change.prescription, outcome, digest, now)
    return RevokePrescriptionResponse(
        outcome=REVOCATION_OUTCOMES[outcome],
        status=facts.signed_status(region, change.prescription, now),
    )


def _may_issue(region: Region, caller: CallerName, number: str) -> bool:
    """Whether this is a number that the caller makes: of this region, with its own serial."""
    try:
        parts = PrescriptionNumber.parse(number)
    except NumberInvalid:
        return False
    code = f"H{parts.region_code}{parts.institution_serial}"
    own = (parts.region_code, code) == (region.code, caller.institution_code)
    return own and str(parts) == number


def _bar(
    tx: Transaction,
    region: Region,
    caller: CallerName,
    request: RevokePrescriptionRequest,
    number: str,
    now: datetime,
) -> RevokePrescriptionResponse | None:
    """See that a number is never registered; none if it is registered at this very moment."""
    known = tx.home.barred(number)
    digest = keep(tx, number, request.revocation, now)
    barred = known or BarredNumber(number, caller.institution_code, digest, now)
    if not tx.home.bar(barred):
        return None
    if known is None:
        _state_bar(tx, barred, now)
    return RevokePrescriptionResponse(
        outcome=REVOCATION_OUTCOMES[transitions.RevocationOutcome.NEVER_REGISTERED],
        status=region.seal(barred_message(barred), now=now),
    )


def _state_bar(tx: Transaction, barred: BarredNumber, now: datetime) -> None:
    number, issuer, digest = (
        barred.prescription_number,
        barred.issuer_code,
        barred.revocation_sha256,
    )
    action = "revoked unregistered"
    step(tx, number, RegionRole.HOME, Flow.INFORMATION, action, issuer, digest, now)
    summary = "it was never registered, and will not be"
    tell_institution(tx, issuer, "REVOKED", number, "", digest, summary, now)


def get(
    tx: Transaction, region: Region, caller: CallerName, request: GetPrescriptionRequest
) -> GetPrescriptionResponse:
    """A prescription of the caller's and where it stands.

    Raises:
        Refusal: PRESCRIPTION_NOT_FOUND unless the caller issued it.
    """
    prescription = _own_prescription(tx, caller, request.prescription_number)
    return GetPrescriptionResponse(
        prescription=tx.journal.statement(prescription.number, prescription.statement_sha256),
        status=facts.signed_status(region, prescription, region.now()),
    )


def list_own(
    tx: Transaction, region: Region, caller: CallerName, request: ListPrescriptionsRequest
) -> ListPrescriptionsResponse:
    """The caller's prescriptions, newest first, a page at a time."""
    size = page_size(request.page_size)
    found = tx.home.prescriptions_of(caller.institution_code, request.page_token, size)
    now = region.now()
    return ListPrescriptionsResponse(
        prescriptions=[
            ListPrescriptionsResponse.Entry(
                prescription_number=prescription.number,
                validity=VALIDITIES[prescription.validity_at(now)],
                register_time=timestamp(prescription.register_time),
            )
            for prescription in found
        ],
        next_page_token=found[-1].number if len(found) == size else "",
    )


def get_outcome(
    tx: Transaction, caller: CallerName, request: HospitalServiceGetOutcomeRequest
) -> HospitalServiceGetOutcomeResponse:
    """What became of a request of the caller's.

    Raises:
        Refusal: OUTCOME_NOT_FOUND.
    """
    return HospitalServiceGetOutcomeResponse(
        outcome=find_outcome(
            tx.journal, request.prescription_number, str(caller), request.request_id
        )
    )


def _own_prescription(tx: Transaction, caller: CallerName, number: str) -> Prescription:
    prescription = tx.home.prescription(number)
    if prescription is None or prescription.issuer_code != caller.institution_code:
        raise facts.not_found()
    return prescription


def _require_issuer(
    region: Region, caller: CallerName, content: prescription_pb2.Prescription
) -> None:
    """The caller speaks for itself, in its own region, and may issue at present."""
    number = routed(content.prescription_number)
    if str(number) != content.prescription_number:
        raise mismatch("prescription_number", "it must have no blanks around it")
    if content.issuer.institution_code != caller.institution_code:
        raise mismatch("issuer.institution_code", "a hospital registers only what it issued")
    if number.region_code != region.code:
        raise mismatch("prescription_number", f"it must begin with {region.code}")
    if number.institution_serial != caller.institution_code[-5:]:
        raise mismatch("prescription_number", "it must carry the serial of the issuing hospital")
    hospital = region.require_active(region.code, caller.institution_code)
    require_in_scope(hospital, content.outflow_basis)


def _require_not_barred(tx: Transaction, number: str) -> None:
    """What was taken back before it was registered never becomes valid."""
    if tx.home.barred(number) is not None:
        raise Refusal(
            Reason.PRESCRIPTION_REVOKED,
            "the hospital took this prescription back before it was registered; a new one needs a"
            " new number",
        )


def _require_secret(secret: str) -> None:
    if not _SECRET.fullmatch(secret):
        raise Refusal(
            Reason.FIELD_INVALID,
            f"pickup_secret: must be {SECRET_LENGTH} random characters of {SECRET_ALPHABET}",
            field="pickup_secret",
        )


def _standing_findings(region: Region, content: prescription_pb2.Prescription) -> Iterator[Finding]:
    """What registration would refuse for the hospital's standing: R19, and the scope of R18."""
    field = "issuer.institution_code"
    try:
        hospital = region.require_active(region.code, content.issuer.institution_code)
    except Refusal as refusal:
        yield Finding("R19", Severity.REFUSE, field, refusal.message, rule_source("R19"))
        return
    try:
        require_in_scope(hospital, content.outflow_basis)
    except Refusal as refusal:
        yield Finding("R18", Severity.REFUSE, "outflow_basis", refusal.message, rule_source("R18"))


def _rule_findings(region: Region, content: prescription_pb2.Prescription) -> tuple[Finding, ...]:
    issue_day = instant(content.issue_time).astimezone(LOCAL_TIME).date()
    codes = {line.drug_code for line in content.lines}
    return findings(
        prescription_facts(content, issue_day),
        region.rules.parameters_on(issue_day),
        {code: region.catalogue.flags_of(code) for code in codes},
        frozenset(filter(region.catalogue.is_limited, codes)),
    )


def _require_rules(region: Region, content: prescription_pb2.Prescription) -> None:
    broken = [
        finding
        for finding in _rule_findings(region, content)
        if finding.severity is Severity.REFUSE
    ]
    if broken:
        raise Refusal(
            Reason.PRESCRIPTION_RULE_VIOLATED,
            "; ".join(f"{finding.rule_id}: {finding.message}" for finding in broken),
            rule=broken[0].rule_id,
            rules=",".join(finding.rule_id for finding in broken),
        )


def _require_in_time(content: prescription_pb2.Prescription, now: datetime) -> None:
    expire_time = instant(content.expire_time)
    if instant(content.issue_time) > now + MAX_CLOCK_AHEAD:
        raise Refusal(
            Reason.FIELD_INVALID,
            "issue_time: must not be ahead; a prescription is written when it is signed",
            field="issue_time",
        )
    if now >= expire_time:
        raise Refusal(
            Reason.PRESCRIPTION_EXPIRED,
            "the prescription has expired before it was registered; issue a new one",
            expire_time=expire_time.isoformat(),
        )


def _new_prescription(
    region: Region,
    verified: Verified[prescription_pb2.Prescription],
    pickup_secret: str,
    now: datetime,
) -> Prescription:
    number = verified.content.prescription_number
    pickup_hash = region.hash_pickup_secret(number, pickup_secret)
    return prescribed(verified.content, verified.sha256, pickup_hash, now)


def prescribed(
    content: prescription_pb2.Prescription, sha256: bytes, pickup_hash: bytes, now: datetime
) -> Prescription:
    """A prescription as it is when it has just been registered."""
    return Prescription(
        number=content.prescription_number,
        issuer_code=content.issuer.institution_code,
        hospital_prescription_number=content.hospital_prescription_number,
        payer_region_code=content.patient.payer_region_code,
        insured_person_id=content.patient.insured_person_id,
        issue_time=instant(content.issue_time),
        expire_time=instant(content.expire_time),
        register_time=now,
        update_time=now,
        statement_sha256=sha256,
        pickup_hash=pickup_hash,
        lines=tuple(LineUse(line.line_id, line.quantity) for line in content.lines),
        plan=plan_of(content),
    )


def _registered_before(
    tx: Transaction, region: Region, again: Prescription, now: datetime
) -> RegisterPrescriptionResponse:
    """The same sheet again under a new request id is welcome; another sheet is not."""
    _require_not_barred(tx, again.number)
    stored = tx.home.prescription(again.number)
    if stored is None or (stored.statement_sha256, stored.pickup_hash) != (
        again.statement_sha256,
        again.pickup_hash,
    ):
        raise Refusal(
            Reason.PRESCRIPTION_ALREADY_REGISTERED,
            "this number, or the hospital's own number, is registered with other content;"
            " use new numbers for a new prescription",
            prescription_number=again.number,
        )
    return RegisterPrescriptionResponse(status=facts.signed_status(region, stored, now))


def _state_registration(
    tx: Transaction,
    region: Region,
    prescription: Prescription,
    now: datetime,
) -> SignedStatement:
    number, issuer = prescription.number, prescription.issuer_code
    digest = prescription.statement_sha256
    step(tx, number, RegionRole.HOME, Flow.INFORMATION, "registered", issuer, digest, now)
    tell_institution(
        tx, issuer, "REGISTERED", number, "", digest, "registered; pharmacies can find it", now
    )
    return facts.index(tx, region, prescription, now)


def _state_revocation(
    tx: Transaction,
    region: Region,
    prescription: Prescription,
    outcome: transitions.RevocationOutcome,
    digest: bytes,
    now: datetime,
) -> None:
    number, issuer = prescription.number, prescription.issuer_code
    marked = outcome is transitions.RevocationOutcome.MARKED
    action = "marked for revocation" if marked else "revoked"
    kind = "MARKED_FOR_REVOCATION" if marked else "REVOKED"
    step(tx, number, RegionRole.HOME, Flow.INFORMATION, action, issuer, digest, now)
    tell_institution(tx, issuer, kind, number, "", digest, f"the prescription is {action}", now)
    facts.warn_holder(tx, region, prescription, now)
    facts.index(tx, region, prescription, now)
