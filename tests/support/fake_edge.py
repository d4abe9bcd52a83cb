"""An edge service that answers what a test says, over real mutual TLS, and clients that call it.

The transport certificates are valid by the machine's clock, because OpenSSL looks at it; statements
are signed and verified at :data:`support.pki.NOW`, the time that the clients are given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import grpc
from cryptography.hazmat.primitives.serialization import Encoding
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from rxoutflow.client import (
    DirectHospitalClient,
    HospitalClient,
    Patience,
    PharmacyClient,
    RegulatorClient,
    Surroundings,
)
from rxoutflow.errors import DOMAIN
from rxoutflow.identity import CallerKind, CallerName
from rxoutflow.profile import Endpoint, Person, Profile, TlsFiles, Trust
from rxoutflow.statements import new_statement
from rxoutflow.v1 import (
    his_service_pb2_grpc,
    hospital_service_pb2_grpc,
    pos_service_pb2_grpc,
    supervision_service_pb2_grpc,
)
from rxoutflow.v1.statement_pb2 import SIGNER_ROLE_PLATFORM, SignedStatement
from support import live, pki
from support.pki import NOW, Credential
from support.sheets import Cast

Untyped: TypeAlias = Any
"""Requests, responses and contexts: gRPC hands them to servicers without types."""

Answer = Callable[[Untyped], Untyped]
"""What a method answers: a response, an iterator of responses, or a :class:`Refusal` raised."""

SERVER_NAME = "edge.350200.rxoutflow"


class Refusal(Exception):
    """Raised by an answer to fail the call."""

    def __init__(self, code: grpc.StatusCode, reason: str = "", **metadata: str) -> None:
        super().__init__(reason)
        self.status = Status(code=code.value[0], message=f"words about {reason}")
        if reason:
            info = ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata)
            self.status.details.add().Pack(info)


LOST = Refusal(grpc.StatusCode.UNAVAILABLE)
"""The answer was lost, or the call never came."""


@dataclass
class FakeEdge:
    """A region with a hospital and a pharmacy, and one server that plays all of its services."""

    folder: Path
    cast: Cast = field(default_factory=Cast.create)
    answers: dict[str, Answer] = field(default_factory=dict)
    requests: list[Message] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    shown: list[bytes] = field(default_factory=list)
    """The certificates that callers showed, call by call."""
    target: str = ""

    def __post_init__(self) -> None:
        region = self.cast.region
        region.transport = live.lasting_authority("350200 transport")
        region.trust_list.transport_anchors[:] = [_der(region.transport)]
        self.trust = self.folder / "trust"
        self.trust.mkdir()
        signed = region.signed_list().SerializeToString()
        (self.trust / f"{region.code}.trustlist").write_bytes(signed)
        (self.folder / "roots.pem").write_bytes(
            region.transport.certificate.public_bytes(Encoding.PEM)
        )

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Serve on a free port of the loopback interface."""
        certificate = live.issue(
            self.cast.region.transport, self.cast.hospital, usages=pki.SERVER, dns=(SERVER_NAME,)
        )
        pair = live.key_pair(certificate)
        roots = (self.folder / "roots.pem").read_bytes()
        credentials = grpc.ssl_server_credentials(
            [(pair.key_pem, pair.certificate_pem)], roots, require_client_auth=True
        )
        with ThreadPoolExecutor(4) as workers:
            server = grpc.server(workers)
            self._add_services(server)
            port = server.add_secure_port("127.0.0.1:0", credentials)
            self.target = f"127.0.0.1:{port}"
            server.start()
            try:
                yield
            finally:
                server.stop(0).wait()

    def stated(self, content: Message, audience: str | None = None) -> SignedStatement:
        """A statement of the region's platform."""
        signer = self.cast.platform_seal.signer
        return new_statement(content, signer, SIGNER_ROLE_PLATFORM, NOW, audience)

    def hospital(self, profile: Profile | None = None) -> HospitalClient:
        return HospitalClient(profile or self.hospital_profile(), *self._edges())

    def direct(self) -> DirectHospitalClient:
        """A hospital that seals by itself; the server plays the platform."""
        return DirectHospitalClient(self.hospital_profile(), *self._edges())

    def hospital_profile(self) -> Profile:
        people = {
            "prescriber": self._person("D001", self.cast.prescriber),
            "reviewing_pharmacist": self._person("R001", self.cast.hospital_pharmacist),
        }
        return self._profile(self.cast.hospital, people)

    def pharmacy(self) -> PharmacyClient:
        people = {
            "reviewing_pharmacist": self._person("R002", self.cast.pharmacist),
            "dispenser": self._person("R003", self.cast.dispenser),
            "checker": self._person("R004", self.cast.checker),
        }
        return PharmacyClient(self._profile(self.cast.pharmacy, people), *self._edges())

    def regulator(self) -> RegulatorClient:
        name = CallerName(self.cast.region.code, CallerKind.REGULATOR, "R350200")
        return RegulatorClient(self._profile(name, {}), *self._edges())

    def tls(self, credential: Credential, name: str) -> TlsFiles:
        """TLS files with this certificate."""
        files = live.write_pair(self.folder, name, credential)
        return TlsFiles(files.certificate, files.key, self.folder / "roots.pem")

    def _edges(self) -> tuple[Surroundings, Patience]:
        surroundings = Surroundings(now=lambda: NOW, sleep=self.pauses.append, fraction=lambda: 1.0)
        return surroundings, Patience(attempts=4, first_pause=1.0, longest_pause=3.0)

    def _profile(self, name: CallerName, people: dict[str, Person]) -> Profile:
        region = self.cast.region
        return Profile(
            path=self.folder / "profile.json",
            actor="actor",
            name=name,
            institution_name="示范机构（合成）",
            endpoint=Endpoint(self.target, SERVER_NAME),
            tls=self.tls(live.issue(region.transport, name), name.institution_code),
            people=people,
            trust=Trust(self.trust, {region.code: region.registry.sha256.hex()}),
            prices={"SYNW1": 400_000},
        )

    def _person(self, code: str, credential: Credential) -> Person:
        files = live.write_pair(self.folder, code, credential)
        return Person(code, f"合成{code}", "", files.certificate, files.key)

    def _add_services(self, server: grpc.Server) -> None:
        player: Untyped = _Player(self)
        his_service_pb2_grpc.add_HisServiceServicer_to_server(player, server)
        pos_service_pb2_grpc.add_PosServiceServicer_to_server(player, server)
        hospital_service_pb2_grpc.add_HospitalServiceServicer_to_server(player, server)
        supervision_service_pb2_grpc.add_SupervisionServiceServicer_to_server(player, server)


class _Player:
    """Has every method of every service."""

    def __init__(self, edge: FakeEdge) -> None:
        self._edge = edge

    def __getattr__(self, method: str) -> Callable[[Untyped, Untyped], Untyped]:
        if method == "StreamRegisterPrescriptions":
            return self._registering
        return self._stream if method == "WatchNotices" else self._unary(method)

    def _unary(self, method: str) -> Callable[[Untyped, Untyped], Untyped]:
        def answer(request: Message, context: Untyped) -> Untyped:
            self._edge.requests.append(request)
            self._edge.shown += context.auth_context()["x509_pem_cert"]
            try:
                return self._edge.answers[method](request)
            except Refusal as refusal:
                context.abort_with_status(rpc_status.to_status(refusal.status))

        return answer

    def _stream(self, request: Message, context: Untyped) -> Iterator[Untyped]:
        self._edge.requests.append(request)
        try:
            yield from self._edge.answers["WatchNotices"](request)
        except Refusal as refusal:
            context.abort_with_status(rpc_status.to_status(refusal.status))

    def _registering(self, requests: Iterator[Message], context: Untyped) -> Iterator[Untyped]:
        try:
            for request in requests:
                self._edge.requests.append(request)
                if (answer := self._edge.answers["StreamRegisterPrescriptions"](request)) is None:
                    return
                yield answer
        except Refusal as refusal:
            context.abort_with_status(rpc_status.to_status(refusal.status))


def in_turn(*answers: Untyped) -> Answer:
    """Answer each call by the next of these: a response, a function, or a refusal."""
    left = list(answers)

    def answer(request: Untyped) -> Untyped:
        next_one = left.pop(0)
        if isinstance(next_one, Exception):
            raise next_one
        return next_one(request) if callable(next_one) else next_one

    return answer


def _der(authority: pki.Authority) -> bytes:
    return authority.certificate.public_bytes(Encoding.DER)


def texts(values: Sequence[Message]) -> list[bytes]:
    """The bytes of messages, to compare them exactly."""
    return [value.SerializeToString(deterministic=True) for value in values]
