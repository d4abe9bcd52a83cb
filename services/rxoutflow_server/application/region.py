"""A region at work: everything that its commands need besides records.

One value, built by the composition root and passed to every command. It holds no state of its own
but caches of trust; time, ids and randomness come in through it, so a test or a simulation decides
them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from rxoutflow.identity import CallerName
from rxoutflow.numbers import NumberInvalid, PickupCode, PrescriptionNumber
from rxoutflow.statements import Verified, Verifier
from rxoutflow.statements.verification import M
from rxoutflow.trust import RegionNotTrusted, TrustStore
from rxoutflow.v1.prescription_pb2 import Prescription
from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow.v1.trust_pb2 import Institution, Signer
from rxoutflow_server.application.log.region_log import R, RegionLog
from rxoutflow_server.application.ports import Seal, Store
from rxoutflow_server.domain import local_time
from rxoutflow_server.domain.catalogue import Catalogue
from rxoutflow_server.domain.errors import Reason, Refusal
from rxoutflow_server.domain.family import Authorisations
from rxoutflow_server.domain.rule_book import RuleBook
from rxoutflow_server.domain.tariff import Tariffs
from rxoutflow_server.domain.trace_codes import registrar_of

LOCAL_TIME = local_time.LOCAL_TIME
"""All pooling regions keep one civil time: that of the days of issue and of dispensing."""


@dataclass(frozen=True)
class Region:
    """What the commands of a region's platform need: who we are, whom we trust, by what rules."""

    code: str
    trust: TrustStore
    verifier: Verifier
    seal: Seal
    now: Callable[[], datetime]
    new_id: Callable[[datetime], str]
    hash_pickup_secret: Callable[[str, str], bytes]
    holder_of_credential: Callable[[str, datetime], str | None]
    lease: timedelta
    tariffs: Tariffs
    catalogue: Catalogue
    rules: RuleBook = field(default=RuleBook())
    family: Authorisations | None = None
    """Which family allotments may be drawn; none: all of them, in their own order."""
    overdue: timedelta = timedelta(hours=48)
    """How long a committed attempt of this home region waits for its pharmacy."""
    give_up: timedelta = timedelta(hours=72)
    """For how long an event is sent to another region again and again."""
    registrars: tuple[str, ...] = ()
    """The regions that keep the register of trace codes together; none: this region alone."""
    log: RegionLog | None = None
    """Makes receipts. Without it answers carry none; statements are leaves of the log anyway."""

    def verified(
        self, statement: SignedStatement, expected: type[M], now: datetime, *, decides: bool = True
    ) -> Verified[M]:
        """The verified content of a statement.

        ``decides`` tells whether this region acts on the statement itself, so that it must be meant
        for us, or only forwards and keeps it.

        Raises:
            StatementError: see ``rxoutflow.statements``.
        """
        return self.verifier.verify(statement, expected, now, self.code if decides else None)

    def registrar_of(self, trace_code: str) -> str:
        """The region that keeps the register of a trace code."""
        return registrar_of(trace_code, self.registrars or (self.code,))

    def institution(self, region_code: str, institution_code: str) -> Institution | None:
        """An institution as its own region's trust list has it, if it is there."""
        try:
            return self.trust.region(region_code, self.now()).institution(institution_code)
        except RegionNotTrusted:
            return None

    def listed_signer(self, region_code: str, certificate_sha256: bytes) -> Signer | None:
        """A signer as its own region's trust list has it now, if it is there."""
        try:
            return self.trust.region(region_code, self.now()).signer(certificate_sha256)
        except RegionNotTrusted:
            return None

    def name_of(self, region_code: str, institution_code: str) -> str:
        """Name of an institution for people; its code if the trust list does not have it."""
        institution = self.institution(region_code, institution_code)
        return institution.name if institution is not None else institution_code

    def require_active(self, region_code: str, institution_code: str) -> Institution:
        """An institution that may begin something new: designated and not suspended (R19).

        Raises:
            Refusal: INSTITUTION_NOT_ACTIVE.
        """
        institution = self.institution(region_code, institution_code)
        active = institution is not None and institution.status == Institution.STATUS_ACTIVE
        if institution is None or not active or not institution.designated:
            raise Refusal(
                Reason.INSTITUTION_NOT_ACTIVE,
                f"{institution_code} may not begin anything new: its region lists it as suspended,"
                " not designated, or not at all; ask the region's operator",
                institution=institution_code,
            )
        return institution


def require_in_scope(institution: Institution, basis: Prescription.OutflowBasis.ValueType) -> None:
    """The institution's agreement covers prescriptions on this basis.

    Raises:
        Refusal: INSTITUTION_OUT_OF_SCOPE.
    """
    if institution.scope and basis not in institution.scope:
        name = Prescription.OutflowBasis.Name(basis).removeprefix("OUTFLOW_BASIS_").lower()
        raise Refusal(
            Reason.INSTITUTION_OUT_OF_SCOPE,
            f"the agreement of {institution.name} does not cover {name} prescriptions",
            institution=institution.institution_code,
            basis=name,
        )


def routed(number: str) -> PrescriptionNumber:
    """The parts of a prescription number, by which anybody can route.

    Raises:
        Refusal: PRESCRIPTION_NUMBER_INVALID.
    """
    try:
        return PrescriptionNumber.parse(number)
    except NumberInvalid as error:
        raise Refusal(Reason.PRESCRIPTION_NUMBER_INVALID, str(error)) from None


def opened(pickup_code: str) -> PickupCode:
    """The parts of a pickup code.

    Raises:
        Refusal: PICKUP_CODE_INVALID.
    """
    try:
        return PickupCode.parse(pickup_code)
    except NumberInvalid as error:
        raise Refusal(Reason.PICKUP_CODE_INVALID, f"the pickup code is mistyped: {error}") from None


def require_own_region(caller: CallerName, region_code: str) -> None:
    """A platform may forward only for institutions of its own region.

    Raises:
        Refusal: CALLER_REGION_NOT_ALLOWED.
    """
    if caller.region_code != region_code:
        raise Refusal(
            Reason.CALLER_REGION_NOT_ALLOWED,
            "a platform forwards only for institutions of its own region",
            region=region_code,
        )


async def receipted(region: Region, store: Store, response: R, statement: SignedStatement) -> R:
    """The answer, with a receipt of the statement that it answers if the log gives one."""
    if region.log is None:
        return response
    return await region.log.attach(store, response, statement)
