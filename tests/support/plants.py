"""Bugs to plant, one at a time, to see whether the gate notices.

Loaded as a plugin (``pytest -p support.plants``) it plants the bug that the environment names in
``RXOUTFLOW_PLANT``, before any test is imported. Each bug breaks one defence of trust, in the place
where production code has it; :data:`PLANTS` says which existing check must then turn red.

Nothing is planted unless the variable is set, and nothing but the tests of the tests sets it.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID

VARIABLE = "RXOUTFLOW_PLANT"

_CERTIFICATES = (
    "tests/security/test_certificate_abuse.py::test_a_certificate_lets_in_only_whom_it_should"
)
_CHANGES = (
    "tests/security/test_certificate_abuse.py"
    "::test_what_happens_to_a_caller_counts_on_its_next_call"
)
_STRANGERS = (
    "tests/security/test_not_a_party.py"
    "::test_a_stranger_hears_what_would_be_said_if_there_were_nothing"
)
_LIES = "tests/security/test_lying_platforms.py"
_MATRIX = "tests/security/test_authority_matrix.py"
_STATEMENTS = "tests/unit/test_statements.py"
_ADJUDICATION = "tests/unit/test_adjudication.py"


@dataclass(frozen=True)
class Plant:
    """A bug, and the check of the gate that has to catch it."""

    put: Callable[[], None]
    caught_by: str


def _set(path: str, value: Any) -> None:
    """Put a value in the place of ``module:attribute``, or of ``module:Class.attribute``."""
    module, _, attribute = path.partition(":")
    target: Any = importlib.import_module(module)
    *classes, name = attribute.split(".")
    for each in classes:
        target = getattr(target, each)
    assert hasattr(target, name), f"{path} is not there any more: plant the bug elsewhere"
    setattr(target, name, value)


def _get(path: str) -> Any:
    module, _, attribute = path.partition(":")
    target: Any = importlib.import_module(module)
    for each in attribute.split("."):
        target = getattr(target, each)
    return target


def _nothing(*_args: object, **_kwargs: object) -> None:
    """A check that checks nothing."""


def _skip(*paths: str) -> Callable[[], None]:
    """Checks that are skipped."""

    def put() -> None:
        for path in paths:
            _set(path, _nothing)

    return put


# who is calling

_IDENTITY = "rxoutflow_server.transport.identity"


def _common_name_fallback() -> None:
    def only_uri(certificate: x509.Certificate) -> str:
        from rxoutflow.identity import uri_names

        names = uri_names(certificate)
        if names:
            return names[0] if len(names) == 1 else ""
        common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(common[0].value) if common else ""

    _set("rxoutflow.identity:_only_uri", only_uri)


def _first_of_two_names() -> None:
    def only_uri(certificate: x509.Certificate) -> str:
        from rxoutflow.identity import uri_names

        return next(iter(uri_names(certificate)), "")

    _set("rxoutflow.identity:_only_uri", only_uri)


def _merged_trust_bundles() -> None:
    honest = _get("rxoutflow.trust:TrustStore.region")

    def region(self: Any, region_code: str, now: datetime) -> Any:
        anchors = [
            anchor for code in self.regions() for anchor in self.held(code).transport_anchors
        ]
        return dataclasses.replace(honest(self, region_code, now), transport_anchors=tuple(anchors))

    _set("rxoutflow.trust:TrustStore.region", region)


def _any_tls() -> None:
    honest = _get(f"{_IDENTITY}:_only")

    def only(connection: Mapping[str, Iterable[bytes]], key: str) -> bytes:
        return b"TLSv1.3" if key == "ssl_tls_version" else bytes(honest(connection, key))

    _set(f"{_IDENTITY}:_only", only)


def _deny_list_ignored() -> None:
    _set("rxoutflow.trust:RegionTrust.is_denied", lambda _self, _digest: False)


def _withdrawn_may_call() -> None:
    from rxoutflow.v1.trust_pb2 import Institution

    _set(f"{_IDENTITY}:_MAY_CALL", frozenset(Institution.Status.values()))


def _listed_kind_ignored() -> None:
    def check(caller: Any, region: Any) -> None:
        from rxoutflow_server.domain.errors import Reason, Refusal

        known = caller.kind == "platform" or region.institution(caller.institution_code)
        if not known:
            raise Refusal(Reason.INSTITUTION_NOT_ACTIVE, "is not listed")

    _set(f"{_IDENTITY}:_check_institution", check)


def _remembered_for_ever() -> None:
    """What was verified once is not verified again under a newer list."""
    honest = _get(f"{_IDENTITY}:Authenticator._region")
    seen: dict[str, Any] = {}

    def region(self: Any, name: Any, now: datetime) -> Any:
        return seen.setdefault(name.region_code, honest(self, name, now))

    _set(f"{_IDENTITY}:Authenticator._region", region)


def _stale_list_accepted() -> None:
    _set("rxoutflow.trust:_supersedes", lambda *_: True)


# what a caller may do

_POLICY = "rxoutflow_server.transport.policy:Gate.check"


def _method_without_policy_allowed() -> None:
    honest = _get(_POLICY)

    def check(self: Any, method: str, caller: Any) -> None:
        if method in self._policies:
            honest(self, method, caller)

    _set(_POLICY, check)


def _other_regions_let_in() -> None:
    honest = _get("rxoutflow_server.transport.policy:_policy_of")

    def policy_of(method: Any) -> Any:
        return dataclasses.replace(honest(method), own_region=False)

    _set("rxoutflow_server.transport.policy:_policy_of", policy_of)


def _region_from_the_payload() -> None:
    """The region of whoever forwards is taken from what it forwards."""

    def forwarded(tx: Any, _caller: Any, content: Any) -> Any:
        from rxoutflow_server.domain.prescription import unknown_attempt

        prescription = tx.home.prescription(content.prescription_number)
        attempt = tx.home.attempt(content.prescription_number, content.attempt_id)
        if prescription is None or attempt is None:
            raise unknown_attempt()
        if content.pharmacy_code[1:7] != attempt.dispensing_region_code:
            raise unknown_attempt()
        return prescription, attempt

    _set("rxoutflow_server.application.home.attempts:_forwarded_attempt", forwarded)


def _strangers_told_the_truth() -> None:
    def own(tx: Any, caller: Any, number: str) -> Any:
        from rxoutflow_server.application.home import facts
        from rxoutflow_server.domain.errors import Reason, Refusal

        prescription = tx.home.prescription(number)
        if prescription is None:
            raise facts.not_found()
        if prescription.issuer_code != caller.institution_code:
            raise Refusal(Reason.PRESCRIPTION_NOT_FOUND, "it is another hospital's")
        return prescription

    _set("rxoutflow_server.application.home.registration:_own_prescription", own)


def _anothers_history_shown() -> None:
    """A pharmacy reads whatever its region knows of a prescription."""
    _set(
        "rxoutflow_server.application.dispensing.history:_concerns",
        lambda *_: True,
    )


def _revoked_numbers_registered() -> None:
    """Nobody looks whether a number was taken back before it arrived."""
    _skip("rxoutflow_server.application.home.registration:_require_not_barred")()
    _set("rxoutflow_server.storage.tables.home:HomeTables.bar", lambda *_: True)


def _pickup_code_by_prefix() -> None:
    honest = _get("rxoutflow_server.platform.service:pickup_hasher")

    def hasher(key: bytes) -> Callable[[str, str], bytes]:
        hashed: Callable[[str, str], bytes] = honest(key)
        return lambda number, secret: hashed(number, secret[:12])

    _set("rxoutflow_server.platform.service:pickup_hasher", hasher)


def _attempts_of_others_ended() -> None:
    """A payer believes any region about any attempt."""
    honest = _get("rxoutflow_server.application.payer.events:note_attempt_end")

    def note(tx: Any, region: Any, caller: Any, event: Any, verified: Any, now: datetime) -> None:
        content = verified.content
        for each in tx.payer.settlements_of_attempt(event.insured_person_id, content.attempt_id):
            own = each.prescription_number == content.prescription_number
            if each.state == "held" and not own:
                _void(tx, region, each, each.cause_sha256, now)
        honest(tx, region, caller, event, verified, now)

    _void = _get("rxoutflow_server.application.payer.events:_void")
    handlers = _get("rxoutflow_server.application.exchange.inbox:_TO_PAYER")
    for kind, handler in handlers.items():
        if handler is honest:
            handlers[kind] = note


def _idempotency_without_digest() -> None:
    def replayed(stored: Any, _key: Any, _digest: bytes, response_type: Any) -> Any:
        return response_type.FromString(stored.response)

    _set("rxoutflow_server.application.exchange.idempotency:_replayed", replayed)


# what is signed

_VERIFICATION = "rxoutflow.statements.verification"
_ENVELOPE = "rxoutflow.statements.envelope"


def _found_once_for_ever() -> None:
    """What was found of a statement counts whatever has happened since."""
    _set(f"{_VERIFICATION}:Verifier._still_holds", lambda *_: True)


def _inclusive_expiry() -> None:
    def validity_at(self: Any, now: datetime) -> Any:
        from rxoutflow_server.domain.prescription import Validity

        if self.validity is Validity.ACTIVE and now > self.expire_time:
            return Validity.EXPIRED
        return self.validity

    _set("rxoutflow_server.domain.prescription:Prescription.validity_at", validity_at)


# what two people decide


def _one_person_adjudicates() -> None:
    from rxoutflow.statements.payloads import rule_for
    from rxoutflow.v1.attempt_pb2 import Adjudication

    object.__setattr__(rule_for(Adjudication), "different_people", ())


def _paid_by_adjudication_alone() -> None:
    """A payer pays for what two people found, though home never ended the attempt by it."""
    honest = _get("rxoutflow_server.application.payer.events:_with_finding")

    def with_finding(tx: Any, settlement: Any) -> Any:
        if settlement.booked_sha256:
            return honest(tx, settlement)
        return dataclasses.replace(settlement, record_sha256=b"x" * 32, booked_sha256=b"x" * 32)

    _set("rxoutflow_server.application.payer.events:_with_finding", with_finding)


# what is said when something goes wrong

_ERRORS = "rxoutflow_server.transport.errors"


def _personal_data_in_errors() -> None:
    def incident_status(error: Exception) -> Any:
        from rxoutflow_server.domain.errors import Reason

        return _get(f"{_ERRORS}:_status")(Reason.INTERNAL, str(error), {"incident": "0"})

    _set(f"{_ERRORS}:_incident_status", incident_status)


def _errors_swallowed() -> None:
    """Errors are logged, and the call is answered as if there had been none."""

    async def end(_self: Any, _error: BaseException) -> None:
        return None

    async def serve(self: Any, method: str, handler: Any, read: Any, context: Any) -> Any:
        with suppress(Exception):
            return await honest(self, method, handler, read, context)

    interceptor = "rxoutflow_server.transport.interceptor"
    honest = _get(f"{interceptor}:CallInterceptor._serve_unary")
    _set(f"{interceptor}:_Call._end", end)
    _set(f"{interceptor}:CallInterceptor._serve_unary", serve)


def _read_before_known() -> None:
    """gRPC parses what anybody sends, before it is known who that is."""
    honest = _get("rxoutflow_server.transport.interceptor:CallInterceptor._wrap")

    def wrap(self: Any, method: str, handler: Any) -> Any:
        wrapped = honest(self, method, handler)
        return wrapped._replace(request_deserializer=handler.request_deserializer)

    _set("rxoutflow_server.transport.interceptor:CallInterceptor._wrap", wrap)
    _set("rxoutflow_server.transport.interceptor:_read", lambda _deserialize, request: request)


PLANTS: Mapping[str, Plant] = {
    "CN fallback": Plant(_common_name_fallback, f"{_CERTIFICATES}[a common name only]"),
    "the first URI taken when there are two": Plant(
        _first_of_two_names, f"{_CERTIFICATES}[two URIs, the own first]"
    ),
    "merged trust bundles": Plant(
        _merged_trust_bundles, f"{_CERTIFICATES}[this region's name by another's authority]"
    ),
    "any version of TLS": Plant(
        _any_tls,
        "tests/security/test_certificate_abuse.py"
        "::test_a_client_of_tls_1_2_is_refused_on_each_call",
    ),
    "deny list ignored": Plant(_deny_list_ignored, f"{_CHANGES}[denied]"),
    "withdrawn institutions may call": Plant(_withdrawn_may_call, f"{_CHANGES}[withdrawn]"),
    "the listed kind ignored": Plant(
        _listed_kind_ignored, f"{_CERTIFICATES}[an institution listed as another kind]"
    ),
    "a verified certificate remembered for ever": Plant(
        _remembered_for_ever, f"{_CHANGES}[struck out]"
    ),
    "stale trust list accepted": Plant(
        _stale_list_accepted,
        "tests/unit/test_trust_store.py::test_a_lower_sequence_is_refused_and_the_list_held_stays",
    ),
    "method without policy allowed": Plant(
        _method_without_policy_allowed,
        "tests/unit/test_policy.py::test_a_platform_lets_through_whom_the_contract_names",
    ),
    "callers of other regions let in": Plant(
        _other_regions_let_in, f"{_MATRIX}::test_every_cell_is_decided_as_the_table_says"
    ),
    "region taken from the payload": Plant(
        _region_from_the_payload,
        f"{_STRANGERS}[HomeService/ReleaseAttempt: released with the claimants own words]",
    ),
    "strangers told that it exists": Plant(
        _strangers_told_the_truth,
        f"{_STRANGERS}[HospitalService/GetPrescription: anothers prescription]",
    ),
    "another pharmacy's history shown": Plant(
        _anothers_history_shown,
        f"{_STRANGERS}[PharmacyService/ListStatements: the history of anothers attempt]",
    ),
    "revoked numbers registered": Plant(
        _revoked_numbers_registered,
        "tests/unit/test_revoking.py::test_what_was_revoked_before_it_arrived_is_never_registered",
    ),
    "pickup code compared by prefix": Plant(
        _pickup_code_by_prefix,
        "tests/security/test_not_a_party.py::test_every_character_of_a_pickup_code_counts",
    ),
    "attempts of others ended": Plant(
        _attempts_of_others_ended,
        f"{_LIES}::test_a_region_ends_no_attempt_on_a_prescription_of_another_one",
    ),
    "facts filed under another prescription": Plant(
        _skip("rxoutflow_server.application.exchange.inbox:_check_content"),
        f"{_LIES}::test_a_fact_is_filed_under_its_own_prescription",
    ),
    "a commitment not checked before money is held": Plant(
        _skip(
            "rxoutflow_server.application.dispensing.settling:_require_of_attempt",
            "rxoutflow_server.application.payer.benefits:_require_commitment_of",
        ),
        f"{_LIES}::test_a_commitment_that_home_would_refuse_takes_no_money_at_the_payer",
    ),
    "idempotency without digest": Plant(
        _idempotency_without_digest,
        "tests/unit/test_three_regions.py::test_the_same_request_id_for_another_claim_is_refused",
    ),
    "unknown fields accepted": Plant(
        _skip(f"{_VERIFICATION}:check_payload"),
        f"{_STATEMENTS}::test_a_signed_payload_in_ambiguous_form_is_still_refused",
    ),
    "algorithm taken from the message": Plant(
        _skip(f"{_VERIFICATION}:_check_algorithm"),
        f"{_STATEMENTS}::test_a_signer_cannot_say_something_else_in_the_header",
    ),
    "prior signatures not covered": Plant(
        _skip(f"{_ENVELOPE}:_check_priors"), "tests/security/test_statement_surgery.py"
    ),
    "roles not checked": Plant(
        _skip(f"{_ENVELOPE}:_check_roles"), f"{_STATEMENTS}::test_no_signature_can_be_stripped"
    ),
    "one person in two roles": Plant(
        _skip(f"{_VERIFICATION}:_check_distinct"),
        f"{_STATEMENTS}::test_one_person_does_not_sign_in_two_roles_that_the_law_keeps_apart",
    ),
    "adjudication by one person": Plant(
        _one_person_adjudicates, f"{_ADJUDICATION}::test_one_person_does_not_decide_alone"
    ),
    "adjudication before the attempt is overdue": Plant(
        _skip("rxoutflow_server.domain.prescription:_require_overdue"),
        f"{_ADJUDICATION}::test_nobody_decides_before_the_attempt_is_overdue",
    ),
    "paid by an adjudication alone": Plant(
        _paid_by_adjudication_alone, f"{_ADJUDICATION}::test_a_stray_adjudication_pays_nothing"
    ),
    "audience not checked": Plant(
        _skip(f"{_VERIFICATION}:_check_audience"),
        f"{_STATEMENTS}::test_a_statement_is_acted_on_only_by_the_region_it_is_meant_for",
    ),
    "a verified statement believed for ever": Plant(
        _found_once_for_ever,
        "tests/unit/test_verifier_memory.py::test_what_a_newer_list_takes_away_is_gone_at_once",
    ),
    "a signature's second form accepted": Plant(
        _skip("rxoutflow.statements.algorithms:require_form"),
        "tests/security/test_statement_surgery.py",
    ),
    "inclusive expiry": Plant(_inclusive_expiry, "tests/unit/test_prescription_transitions.py"),
    "personal data in an error": Plant(
        _personal_data_in_errors,
        "tests/integration/test_transport.py"
        "::test_a_defect_is_reported_by_incident_and_never_by_what_it_says",
    ),
    "an error swallowed in the interceptor": Plant(
        _errors_swallowed,
        "tests/integration/test_transport.py::test_a_refusal_arrives_with_its_reason_and_facts",
    ),
    "requests read before their sender is known": Plant(
        _read_before_known,
        f"{_LIES}::test_nobody_unknown_gets_so_far_as_to_have_a_request_read",
    ),
}
"""Every bug, by what it does."""

if os.environ.get(VARIABLE):
    PLANTS[os.environ[VARIABLE]].put()
