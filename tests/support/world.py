"""Several regions in one process: real commands, real statements, real SQL, no network.

    world = World.create("350200", "350500", "320600")
    number, code = await world.issue(home="350200", payer="320600")
    attempt = await world.claim("350500", code)
    ...
    await world.settle()          # brings every event to its region

Time stands still unless a test moves it (``world.clock.now``). A region can be cut off
(``world.unreachable``): then whoever asks it hears Unavailable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from hashlib import sha256
from operator import attrgetter
from random import Random
from typing import Any, TypeVar

from google.protobuf.message import Message
from google.rpc import error_details_pb2

from rxoutflow.identity import CallerName
from rxoutflow.numbers import PrescriptionNumber, new_id
from rxoutflow.statements import Verifier, new_statement
from rxoutflow.statements.payloads import RULES
from rxoutflow.trust import TrustStore
from rxoutflow.v1 import (
    attempt_pb2,
    dispense_pb2,
    hospital_service_pb2,
    peer_service_pb2,
    pharmacy_service_pb2,
    prescription_pb2,
    prescription_status_pb2,
    settlement_pb2,
)
from rxoutflow.v1.statement_pb2 import SIGNER_ROLE_PLATFORM, SignedStatement
from rxoutflow.v1.trust_pb2 import Agreement
from rxoutflow_server.application.dispensing import (
    claims,
    corrections,
    records,
    returns,
    settling,
)
from rxoutflow_server.application.dispensing.exchange import Exchange
from rxoutflow_server.application.exchange import outbox
from rxoutflow_server.application.home import attempts, registration
from rxoutflow_server.application.log.region_log import RegionLog
from rxoutflow_server.application.ports import PeerGateway, Transaction
from rxoutflow_server.application.region import Region
from rxoutflow_server.credential_codes import CredentialCodes
from rxoutflow_server.domain.benefit import Category
from rxoutflow_server.domain.catalogue import Catalogue, Drug, DrugFlag
from rxoutflow_server.domain.errors import Reason, Refusal, Unavailable
from rxoutflow_server.domain.settlement import InsuredPerson
from rxoutflow_server.domain.tariff import (
    AnnualDeductible,
    AreaStatus,
    ByAreaStatus,
    ByPerson,
    ByTier,
    PersonType,
    Tariff,
    Tariffs,
)
from rxoutflow_server.platform.desk import Desk, LocalPeer, RolesHere
from rxoutflow_server.platform.service import pickup_hasher
from rxoutflow_server.storage.memory import MemoryStore
from rxoutflow_server.storage.tables.transaction import PlatformTables
from support.pki import NOW, trust_store
from support.sheets import Cast, signed

T = TypeVar("T")
M = TypeVar("M", bound=Message)
PERSON = "TEST0001"
DRUGS = tuple(f"SYNTEST{index:016}" for index in range(1, 4))
HERBS = tuple(f"SYNHERB{index:016}" for index in range(1, 4))
PRICE = 1_500_000
"""1.50 yuan a tablet."""


@dataclass
class Clock:
    """A time that a test sets."""

    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Platform:
    """One region with its store and its desk."""

    cast: Cast
    region: Region
    store: MemoryStore[Transaction]
    desk: Desk
    exchange: Exchange = field(init=False)

    @property
    def hospital(self) -> CallerName:
        return self.cast.hospital

    @property
    def pharmacy(self) -> CallerName:
        return self.cast.pharmacy


@dataclass
class World:
    """Regions that know and trust each other."""

    platforms: dict[str, Platform]
    clock: Clock
    random: Random
    unreachable: set[str] = field(default_factory=set)
    lost_answers: int = 0
    losing: set[str] = field(default_factory=set)
    """Calls between regions whose next answer is lost, by name."""
    _digits: set[str] = field(default_factory=set)

    @classmethod
    def create(cls, *codes: str, seed: int = 1, registrars: tuple[str, ...] = ()) -> World:
        """Regions that know each other; each keeps its own trace codes, or the registrars all."""
        clock, random = Clock(), Random(seed)
        casts = {code: Cast.create(code) for code in codes}
        for cast in casts.values():
            _designate(cast)
        trust = trust_store(*(cast.region for cast in casts.values()))
        platforms = {
            code: _platform(casts[code], trust, clock, random, registrars) for code in codes
        }
        world = cls(platforms, clock, random)
        for code, platform in platforms.items():
            platform.exchange = Exchange(
                platform.region, platform.store, _Peers(world, code), RolesHere(platform.region)
            )
            platform.store.connection.execute("BEGIN")
            PlatformTables(platform.store.connection).payer.add_person(person())
            platform.store.connection.execute("COMMIT")
        return world

    def limit_scope(
        self, region: str, holder: str, *bases: prescription_pb2.Prescription.OutflowBasis.ValueType
    ) -> None:
        """Let an agreement of a region's hospital or pharmacy cover these bases only."""
        cast = self.platforms[region].cast
        entry = cast.region.entry(cast.hospital if holder == "hospital" else cast.pharmacy)
        entry.scope[:] = bases
        self._publish_trust(cast)

    def agree(self, region: str, holder: str, agreement: Agreement) -> None:
        """Give a region's hospital or pharmacy an agreement with a quota."""
        cast = self.platforms[region].cast
        entry = cast.region.entry(cast.hospital if holder == "hospital" else cast.pharmacy)
        entry.agreement.CopyFrom(agreement)
        self._publish_trust(cast)

    def _publish_trust(self, cast: Cast) -> None:
        cast.region.trust_list.sequence += 1
        for platform in self.platforms.values():
            platform.region.trust.offer(cast.region.signed_list(), self.clock.now)

    def request_id(self) -> str:
        return new_id(self.clock.now, self.random.randbytes)

    def trace_code(self) -> str:
        return f"{self.random.randrange(10**20):020}"

    def prescription(
        self, home: str, payer: str, *, lines: int = 1, quantity: int = 20
    ) -> prescription_pb2.Prescription:
        """A prescription of the home region's hospital for a person insured at the payer."""
        cast = self.platforms[home].cast
        content = cast.prescription()
        milliseconds = int(self.clock.now.timestamp() * 1000)
        serial = cast.hospital.institution_code[-5:]
        digits = self._fresh_digits()
        content.prescription_number = str(PrescriptionNumber(home, milliseconds, serial, digits))
        content.hospital_prescription_number = f"RX-{self.random.randrange(10**12)}"
        content.issue_time.FromDatetime(self.clock.now)
        content.expire_time.FromDatetime(self.clock.now + timedelta(hours=5))
        content.patient.insured_person_id, content.patient.payer_region_code = PERSON, payer
        content.patient.weight_grams = 0
        birth = content.patient.birth_date
        birth.year, birth.month, birth.day = 1970, 1, 2
        content.encounter.kind = prescription_pb2.Encounter.KIND_VISIT
        content.encounter.encounter_number = "V1"
        del content.lines[:]
        for index in range(lines):
            content.lines.add(
                line_id=index + 1,
                drug_code=DRUGS[index],
                generic_name=f"试验药{index + 1}",
                quantity=quantity,
                unit="片",
                supply_days=7,
            )
        return content

    def _fresh_digits(self) -> str:
        """Time may stand still for many prescriptions: their numbers differ in these digits."""
        while (digits := f"{self.random.randrange(10**5):05}") in self._digits:
            """Draw again."""
        self._digits.add(digits)
        return digits

    async def issue(
        self, home: str, payer: str, *, lines: int = 1, quantity: int = 20
    ) -> tuple[str, str]:
        """Register a prescription; its number and pickup code."""
        content = self.prescription(home, payer, lines=lines, quantity=quantity)
        return content.prescription_number, await self.register(home, content)

    async def register(self, home: str, content: prescription_pb2.Prescription) -> str:
        """Register a prescription; its pickup code."""
        secret = "".join(self.random.choices("0123456789ABCDEFGHJKMNPQRSTVWXYZ", k=16))
        platform = self.platforms[home]
        request = hospital_service_pb2.RegisterPrescriptionRequest(
            request_id=self.request_id(),
            prescription=self.signed(home, content),
            pickup_secret=secret,
        )
        await platform.store.transact(
            lambda tx: registration.register(tx, platform.region, platform.hospital, request)
        )
        return f"{content.prescription_number}.{secret}"

    def signed(self, region: str, content: Message) -> SignedStatement:
        """The content signed by the people of a region whose task it is."""
        sheet = self.platforms[region].cast.sheet(type(content))
        return signed(content, sheet, at=self.clock.now)

    def claim_request(
        self, dispensing: str, code: str, **changes: Any
    ) -> pharmacy_service_pb2.ClaimPrescriptionRequest:
        pharmacy = self.platforms[dispensing].pharmacy
        content = attempt_pb2.Claim(
            prescription_number=code.partition(".")[0], pharmacy_code=pharmacy.institution_code
        )
        content.collector.kind = attempt_pb2.Collector.KIND_PATIENT
        return pharmacy_service_pb2.ClaimPrescriptionRequest(
            **{
                "request_id": self.request_id(),
                "claim": self.signed(dispensing, content),
                "pickup_code": code,
                **changes,
            }
        )

    async def claim(self, dispensing: str, code: str) -> attempt_pb2.Attempt:
        """Claim by pickup code at the region's pharmacy."""
        platform = self.platforms[dispensing]
        response = await claims.claim(
            platform.exchange, platform.pharmacy, self.claim_request(dispensing, code)
        )
        return content_of(response.attempt, attempt_pb2.Attempt)

    async def release(self, dispensing: str, attempt: attempt_pb2.Attempt) -> attempt_pb2.Attempt:
        """Let go of an attempt."""
        platform = self.platforms[dispensing]
        content = attempt_pb2.ClaimRelease(
            prescription_number=attempt.prescription_number,
            attempt_id=attempt.attempt_id,
            fence=attempt.fence,
            pharmacy_code=attempt.pharmacy_code,
            reason="the patient went away",
        )
        request = pharmacy_service_pb2.ReleaseClaimRequest(
            request_id=self.request_id(), release=self.signed(dispensing, content)
        )
        response = await claims.release(platform.exchange, platform.pharmacy, request)
        return content_of(response.attempt, attempt_pb2.Attempt)

    def correction_request(
        self, dispensing: str, number: str, corrected_request_id: str
    ) -> pharmacy_service_pb2.CorrectCallRequest:
        """A correction of a call of the region's pharmacy."""
        content = attempt_pb2.Correction(
            prescription_number=number,
            corrected_request_id=corrected_request_id,
            pharmacy_code=self.platforms[dispensing].pharmacy.institution_code,
            reason="the answer was lost",
        )
        return pharmacy_service_pb2.CorrectCallRequest(
            request_id=self.request_id(), correction=self.signed(dispensing, content)
        )

    async def correct(
        self, dispensing: str, request: pharmacy_service_pb2.CorrectCallRequest
    ) -> pharmacy_service_pb2.CorrectCallResponse:
        platform = self.platforms[dispensing]
        return await corrections.correct(platform.exchange, platform.pharmacy, request)

    async def quote(self, dispensing: str, attempt: attempt_pb2.Attempt) -> settlement_pb2.Amounts:
        """Quote everything that the attempt holds."""
        platform = self.platforms[dispensing]
        request = pharmacy_service_pb2.QuoteSettlementRequest(
            prescription_number=attempt.prescription_number,
            attempt_id=attempt.attempt_id,
            lines=priced(attempt.lines),
        )
        response = await settling.quote(platform.exchange, platform.pharmacy, request)
        return content_of(response.quote, settlement_pb2.Quote).amounts

    def commit_request(
        self,
        dispensing: str,
        attempt: attempt_pb2.Attempt,
        amounts: settlement_pb2.Amounts | None,
        **changes: Any,
    ) -> pharmacy_service_pb2.CommitClaimRequest:
        """A commitment; without amounts the patient pays alone."""
        insured = amounts is not None
        content = attempt_pb2.Commitment(
            **{
                "prescription_number": attempt.prescription_number,
                "attempt_id": attempt.attempt_id,
                "fence": attempt.fence,
                "pharmacy_code": attempt.pharmacy_code,
                "settlement_id": self.request_id(),
                "mode": (
                    settlement_pb2.SETTLEMENT_MODE_INSURANCE
                    if insured
                    else settlement_pb2.SETTLEMENT_MODE_SELF_PAY
                ),
                "lines": priced(attempt.lines),
                "accepted_amounts": amounts,
                **changes,
            }
        )
        return pharmacy_service_pb2.CommitClaimRequest(
            request_id=self.request_id(), commitment=self.signed(dispensing, content)
        )

    async def commit(
        self, dispensing: str, request: pharmacy_service_pb2.CommitClaimRequest
    ) -> pharmacy_service_pb2.CommitClaimResponse:
        platform = self.platforms[dispensing]
        return await settling.commit(platform.exchange, platform.pharmacy, request)

    def record_request(
        self, dispensing: str, commitment: SignedStatement, **changes: Any
    ) -> pharmacy_service_pb2.RecordDispenseRequest:
        """The record of the handover of a commitment."""
        promised = content_of(commitment, attempt_pb2.Commitment)
        content = dispense_pb2.DispenseRecord(
            **{
                "prescription_number": promised.prescription_number,
                "attempt_id": promised.attempt_id,
                "fence": promised.fence,
                "pharmacy_code": promised.pharmacy_code,
                "settlement_id": promised.settlement_id,
                "lines": [
                    dispense_pb2.DispensedLine(
                        line_id=line.line_id,
                        drug_code=line.drug_code,
                        quantity=line.quantity,
                        batch_numbers=["B1"],
                        trace_codes=[dispense_pb2.TraceCode(code=self.trace_code())],
                    )
                    for line in promised.lines
                ],
                **changes,
            }
        )
        content.dispense_time.FromDatetime(self.clock.now)
        return pharmacy_service_pb2.RecordDispenseRequest(
            request_id=self.request_id(), dispense_record=self.signed(dispensing, content)
        )

    async def record(
        self, dispensing: str, request: pharmacy_service_pb2.RecordDispenseRequest
    ) -> dispense_pb2.DispenseProgress:
        platform = self.platforms[dispensing]
        response = await records.record_dispense(platform.exchange, platform.pharmacy, request)
        return response.progress

    def return_request(
        self,
        dispensing: str,
        record: SignedStatement,
        quantities: dict[int, int] | None = None,
        *,
        cause: dispense_pb2.DispenseReturn.Cause.ValueType = (
            dispense_pb2.DispenseReturn.CAUSE_DISPENSING_ERROR
        ),
        **changes: Any,
    ) -> pharmacy_service_pb2.ReturnDispenseRequest:
        """A return of what was recorded: all of it with its boxes, or quantities by line."""
        sold = content_of(record, dispense_pb2.DispenseRecord)
        content = dispense_pb2.DispenseReturn(
            **{
                "reversal_id": self.request_id(),
                "prescription_number": sold.prescription_number,
                "attempt_id": sold.attempt_id,
                "pharmacy_code": sold.pharmacy_code,
                "settlement_id": sold.settlement_id,
                "cause": cause,
                "reason": "the wrong strength",
                "lines": [
                    dispense_pb2.ReturnedLine(
                        line_id=line.line_id,
                        quantity=line.quantity if quantities is None else quantities[line.line_id],
                        trace_codes=[] if quantities else [each.code for each in line.trace_codes],
                    )
                    for line in sold.lines
                    if quantities is None or line.line_id in quantities
                ],
                **changes,
            }
        )
        content.return_time.FromDatetime(self.clock.now)
        return pharmacy_service_pb2.ReturnDispenseRequest(
            request_id=self.request_id(), dispense_return=self.signed(dispensing, content)
        )

    async def take_back(
        self, dispensing: str, request: pharmacy_service_pb2.ReturnDispenseRequest
    ) -> dispense_pb2.ReturnProgress:
        platform = self.platforms[dispensing]
        response = await platform.store.transact(
            lambda tx: returns.take_back(tx, platform.region, platform.pharmacy, request)
        )
        return response.progress

    async def dispense(self, dispensing: str, code: str) -> str:
        """The whole way of a pharmacy from the pickup code to the record; the settlement's id."""
        attempt = await self.claim(dispensing, code)
        request = self.commit_request(dispensing, attempt, await self.quote(dispensing, attempt))
        await self.commit(dispensing, request)
        await self.record(dispensing, self.record_request(dispensing, request.commitment))
        return content_of(request.commitment, attempt_pb2.Commitment).settlement_id

    async def progress(
        self, dispensing: str, attempt: attempt_pb2.Attempt
    ) -> pharmacy_service_pb2.GetDispenseResponse:
        platform = self.platforms[dispensing]
        request = pharmacy_service_pb2.GetDispenseRequest(
            prescription_number=attempt.prescription_number, attempt_id=attempt.attempt_id
        )
        return await platform.store.read(lambda tx: records.get(tx, platform.pharmacy, request))

    async def status(self, number: str) -> prescription_status_pb2.PrescriptionStatus:
        """Where a prescription stands, as its home region states it."""
        platform = self.platforms[number[:6]]
        request = hospital_service_pb2.GetPrescriptionRequest(prescription_number=number)
        response = await platform.store.read(
            lambda tx: registration.get(tx, platform.region, platform.hospital, request)
        )
        return content_of(response.status, prescription_status_pb2.PrescriptionStatus)

    async def person(self, payer: str) -> InsuredPerson:
        found = await self.platforms[payer].store.read(lambda tx: tx.payer.person(PERSON))
        assert found is not None
        return found

    async def revoke(self, number: str) -> hospital_service_pb2.RevokePrescriptionResponse:
        """Take a prescription back."""
        platform = self.platforms[number[:6]]
        content = prescription_status_pb2.Revocation(
            prescription_number=number,
            institution_code=platform.hospital.institution_code,
            reason="wrong dose",
        )
        request = hospital_service_pb2.RevokePrescriptionRequest(
            request_id=self.request_id(), revocation=self.signed(number[:6], content)
        )
        return await platform.store.transact(
            lambda tx: registration.revoke(tx, platform.region, platform.hospital, request)
        )

    async def change_person(self, payer: str, **changes: Any) -> None:
        """Change what the payer region knows of the insured person."""
        changed = replace(await self.person(payer), **changes)
        await self.platforms[payer].store.transact(lambda tx: tx.payer.save_person(changed))

    async def expire_leases(self, home: str) -> int:
        platform = self.platforms[home]
        return await platform.store.transact(
            lambda tx: attempts.expire_leases(tx, platform.region, 100)
        )

    async def settle(self, rounds: int = 20) -> None:
        """Bring every event to its region, as far as regions can be reached."""
        for _ in range(rounds):
            sent = 0
            for platform in self.platforms.values():
                sent += await self._deliver(platform)
            if not sent:
                return
        raise AssertionError("events go round in circles")

    async def tell(
        self,
        origin: str,
        peer: str,
        statement: SignedStatement,
        *,
        insured_person_id: str | None = None,
        receipts: Sequence[SignedStatement] = (),
    ) -> str:
        """Bring one event from a region to another by hand; the reason if it is refused.

        It is for the home region, or else for the payer, unless said otherwise.
        """
        caller = self.platforms[origin].cast.region.platform
        number = number_in(statement)
        to_payer = "" if number.startswith(peer) else PERSON
        event = peer_service_pb2.PeerEvent(
            event_id=self.request_id(),
            prescription_number=number,
            insured_person_id=to_payer if insured_person_id is None else insured_person_id,
            statement=statement,
            trace_code_sales=receipts,
        )
        request = peer_service_pb2.DeliverEventsRequest(events=[event])
        response = await self.platforms[peer].desk.deliver_events(caller, request)
        (acknowledgement,) = response.acknowledgements
        info = error_details_pb2.ErrorInfo()
        for detail in acknowledgement.error.details:
            detail.Unpack(info)
        return str(info.reason)

    async def deliver_from(self, region: str) -> None:
        """Bring the events of one region to where they belong."""
        await self._deliver(self.platforms[region])

    async def _deliver(self, platform: Platform) -> int:
        region, store, peers = platform.region, platform.store, platform.exchange.peers
        due = await outbox.peers_with_events(region, store)
        return sum([await outbox.deliver(region, store, peers, peer, lambda: 0.0) for peer in due])

    async def dead_events(self, region: str) -> list[tuple[str, str]]:
        """Events that were refused for good: peer and reason."""
        rows = self.platforms[region].store.connection.execute(
            "SELECT peer_region_code, error FROM outbox WHERE state = 'dead'"
        )
        return list(rows)


class _Peers:
    """The way to every region of the world, as seen from one of them."""

    def __init__(self, world: World, origin: str) -> None:
        self._world = world
        self._origin = origin

    def region(self, region_code: str) -> PeerGateway:
        if region_code not in self._world.platforms:
            raise Refusal(Reason.REGION_UNKNOWN, "no such region", region=region_code)
        caller = self._world.platforms[self._origin].cast.region.platform
        peer = LocalPeer(self._world.platforms[region_code].desk, caller)
        return _Line(self._world, region_code, peer)


class _Line:
    """A line to a region that a test can cut, or that loses answers."""

    def __init__(self, world: World, region_code: str, peer: LocalPeer) -> None:
        self._world = world
        self._region_code = region_code
        self._peer = peer

    def __getattr__(self, name: str) -> Callable[[Message], Any]:
        async def call(request: Message) -> Any:
            if self._region_code in self._world.unreachable:
                raise self._cut()
            response = await getattr(self._peer, name)(request)
            if self._world.lost_answers:
                self._world.lost_answers -= 1
                raise self._cut()
            if name in self._world.losing:
                self._world.losing.remove(name)
                raise self._cut()
            return response

        return call

    def _cut(self) -> Unavailable:
        return Unavailable(Reason.PEER_UNAVAILABLE, "the line is cut", region=self._region_code)


def content_of(statement: SignedStatement, kind: type[M]) -> M:
    """The content of a statement that a test trusts."""
    return kind.FromString(statement.payload)


def number_in(statement: SignedStatement) -> str:
    """The prescription that a statement of any kind is about."""
    (kind,) = [rule.message for rule in RULES if rule.payload_type == statement.payload_type]
    return str(attrgetter("prescription_number")(content_of(statement, kind)))


def priced(
    lines: Iterable[attempt_pb2.LineQuantity], drugs: Sequence[str] = DRUGS
) -> list[settlement_pb2.PricedLine]:
    """Lines at the ceiling price."""
    return [
        settlement_pb2.PricedLine(
            line_id=line.line_id,
            drug_code=drugs[line.line_id - 1],
            quantity=line.quantity,
            unit_price_micro_yuan=PRICE,
        )
        for line in lines
    ]


def person() -> InsuredPerson:
    """An insured person with some money on the account and a part of the deductible used."""
    return InsuredPerson(
        insured_person_id=PERSON,
        person_type=PersonType.ACTIVE,
        area_status=AreaStatus.FILED,
        own_account_fen=500,
        family_accounts_fen=(300,),
        year=NOW.year,
        used_deductible_fen=9_000,
        used_cap_fen=0,
    )


def _designate(cast: Cast) -> None:
    for institution in cast.region.trust_list.institutions:
        institution.designated = True
        institution.name = f"示范{institution.institution_code}"
        institution.phone = "000-0000000"
        if institution.institution_code.startswith("H"):
            institution.tier = 3


def _platform(
    cast: Cast, trust: TrustStore, clock: Clock, random: Random, registrars: tuple[str, ...] = ()
) -> Platform:
    code = cast.region.code
    key, log = _key(code), RegionLog(code, cast.platform_seal.signer, clock)
    region = Region(
        code=code,
        trust=trust,
        verifier=Verifier(trust),
        seal=_seal(cast),
        now=clock,
        new_id=lambda now: new_id(now, random.randbytes),
        hash_pickup_secret=pickup_hasher(key),
        holder_of_credential=credential_codes(code).holder,
        lease=timedelta(minutes=30),
        tariffs=Tariffs([_tariff(code)]),
        catalogue=_catalogue(code),
        registrars=registrars,
        log=log,
    )
    store = MemoryStore.open("platform", before_commit=log.grow_now)
    return Platform(cast, region, store, Desk(region, store))


def _key(code: str) -> bytes:
    return sha256(code.encode()).digest()


def credential_codes(code: str) -> CredentialCodes:
    """What the e-credential app of a region's insured shows."""
    return CredentialCodes(code, _key(code))


def _seal(cast: Cast) -> Callable[..., SignedStatement]:
    signer = cast.platform_seal.signer

    def seal(message: Message, *, now: datetime, audience: str | None = None) -> SignedStatement:
        return new_statement(message, signer, SIGNER_ROLE_PLATFORM, now, audience)

    return seal


def _tariff(code: str) -> Tariff:
    return Tariff(
        version_id=f"{code}-test",
        region_code=code,
        document="none: a test's",
        unverified=True,
        valid_from=date(2026, 1, 1),
        valid_until=None,
        deductible=AnnualDeductible(ByPerson(active=10_000, retired=10_000)),
        ratio_bp=ByTier(8_000, 7_000, 6_000),
        retired_bonus_bp=500,
        cap_fen=ByPerson(active=100_000, retired=100_000),
        area_factor_bp=ByAreaStatus(unfiled=7_000),
    )


def _catalogue(code: str) -> Catalogue:
    return Catalogue(
        code,
        f"{code}-test",
        [
            Drug(
                drug_code=drug,
                generic_name=f"试验药{index}",
                generic_group=f"G{index}",
                dosage_form="片剂",
                specification="1mg",
                unit="片",
                price_micro_yuan=PRICE,
                category=Category.A,
                flags=frozenset({DrugFlag.HERBAL}) if drug in HERBS else frozenset[DrugFlag](),
            )
            for index, drug in enumerate(DRUGS + HERBS, 1)
        ],
    )
