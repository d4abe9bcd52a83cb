"""For hospitals that seal by themselves: registering in bulk at the region's platform.

Speaks HospitalService, so the profile's endpoint is the platform and not an edge service. Requests
are complete when they come here: signed, sealed, with a ``request_id`` and a pickup secret, and
stored by whoever made them. This client sends them over one stream, opens it again after any
interruption, sends what was not answered again, and hands out what verified.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Protocol

import grpc

from rxoutflow.client.base import Client
from rxoutflow.client.evidence import Evidence, require
from rxoutflow.client.failures import from_rpc_error, from_status
from rxoutflow.errors import Indefinite, InvalidInput, Overloaded, Refused
from rxoutflow.identity import CallerKind
from rxoutflow.v1.hospital_service_pb2 import (
    RegisterPrescriptionRequest,
    RegisterPrescriptionResponse,
    StreamRegisterPrescriptionsRequest,
    StreamRegisterPrescriptionsResponse,
)
from rxoutflow.v1.hospital_service_pb2_grpc import HospitalServiceStub
from rxoutflow.v1.prescription_pb2 import Prescription
from rxoutflow.v1.prescription_status_pb2 import PrescriptionStatus

AT_ONCE = 64
"""Registrations without an answer: as many as a platform works on in one stream."""

ID_LENGTH = 36
"""What answers repeat of a request's id, which is all of it unless it is none."""


@dataclass(frozen=True, slots=True)
class Registered:
    """What became of one registration: a status, or why there is none.

    ``failure`` is a ``Refused``: it had no effect; or an ``Indefinite``: it may have taken effect,
    and has been repeated as often as the client's patience allows. Send the same request again.
    """

    request: RegisterPrescriptionRequest
    status: Evidence[PrescriptionStatus] | None
    failure: Refused | Indefinite | None = None


class Responses(Protocol):
    """A running stream."""

    def __next__(self) -> StreamRegisterPrescriptionsResponse: ...

    def cancel(self) -> bool:
        """End it."""
        ...


class DirectHospitalClient(Client):
    """A hospital's own sealing and queueing service, at the platform of its region."""

    kind = CallerKind.HOSPITAL

    def register_all(
        self, requests: Iterable[RegisterPrescriptionRequest], at_once: int = AT_ONCE
    ) -> Iterator[Registered]:
        """Register prescriptions over a stream; what became of each, in their order.

        ``requests`` are taken one by one, in the caller's thread, and ``at_once`` of them may be
        without an answer. So results lag that far behind while there are more requests.

        Raises:
            InvalidInput: ``at_once`` is less than 1.
            Refused: the platform does not take the stream any longer. Like the next two, it may
                come after some results; whatever had none may be registered, so send it again.
            Indefinite: no answer at all within the patience.
            AnswerUntrusted: an answer does not verify.
        """
        if at_once < 1:
            raise InvalidInput("at_once: must be 1 or more")
        source, unanswered = iter(requests), deque[RegisterPrescriptionRequest]()
        failures = 0
        while True:
            try:
                for response in self._stream(source, unanswered, at_once):
                    failures = 0
                    yield self._registered(unanswered.popleft(), response)
            except (Indefinite, Overloaded) as failure:
                failures += 1
                if failures >= self.connection.patience.attempts:
                    raise
                self.connection.pause(failures - 1, failure)
            else:
                return

    def _stream(
        self,
        source: Iterator[RegisterPrescriptionRequest],
        unanswered: deque[RegisterPrescriptionRequest],
        at_once: int,
    ) -> Iterator[StreamRegisterPrescriptionsResponse]:
        """One stream: what is not answered yet, then what the source has, until all is answered."""
        sending: SimpleQueue[StreamRegisterPrescriptionsRequest | None] = SimpleQueue()
        call = self._stub.StreamRegisterPrescriptions(
            iter(sending.get, None), timeout=self.connection.patience.stream_timeout
        )
        try:
            for each in unanswered:
                sending.put(_message(each))
            while True:
                while len(unanswered) < at_once and (request := next(source, None)) is not None:
                    unanswered.append(request)
                    sending.put(_message(request))
                if not unanswered:
                    break
                yield self._answer(call)
            sending.put(None)
            with suppress(grpc.RpcError, StopIteration):
                next(call)  # all is answered: however it ends now
        finally:
            sending.put(None)
            call.cancel()

    def _answer(self, call: Responses) -> StreamRegisterPrescriptionsResponse:
        try:
            return next(call)
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.connection.target) from error
        except StopIteration:
            message = f"{self.connection.target} ended the stream before it had answered all"
            raise Indefinite("UNKNOWN", message) from None

    def _registered(
        self, request: RegisterPrescriptionRequest, answer: StreamRegisterPrescriptionsResponse
    ) -> Registered:
        require(
            answer.request_id == request.request_id[:ID_LENGTH],
            "the answer is to another registration than was to be answered",
        )
        if not answer.HasField("error"):
            return self._verified(request, answer.response)
        failure = from_status(answer.error, self.connection.target)
        if isinstance(failure, Indefinite | Overloaded):
            return self._repeated(request)
        return Registered(request, None, failure)

    def _repeated(self, request: RegisterPrescriptionRequest) -> Registered:
        """Register by itself what the stream did not decide."""
        try:
            response = self.connection.call(self._stub.RegisterPrescription, request)
        except (Refused, Indefinite) as failure:
            return Registered(request, None, failure)
        return self._verified(request, response)

    def _verified(
        self, request: RegisterPrescriptionRequest, response: RegisterPrescriptionResponse
    ) -> Registered:
        status = self.evidence.read(response.status, PrescriptionStatus)
        number = Prescription.FromString(request.prescription.payload).prescription_number
        require(
            status.content.prescription_number == number,
            "the status is about another prescription than was registered",
        )
        sealed = request.prescription
        self.receipts.take(response, sealed, sealed, self.profile.region_code)
        return Registered(request, status)

    @property
    def _stub(self) -> HospitalServiceStub:
        return self.connection.stub(HospitalServiceStub)


def _message(request: RegisterPrescriptionRequest) -> StreamRegisterPrescriptionsRequest:
    return StreamRegisterPrescriptionsRequest(registration=request)
