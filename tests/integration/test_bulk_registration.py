"""Bulk registration as a hospital's own sealing service does it: a platform's process, mutual TLS.

The client library sends, the platform may be ended or killed meanwhile, and in the end every
prescription has been answered once and is stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import count
from random import SystemRandom

import grpc
import pytest

from rxoutflow.client import DirectHospitalClient, Patience, Registered
from rxoutflow.errors import SignatureRefused
from rxoutflow.profile import Endpoint, load_profile
from rxoutflow.v1 import hospital_service_pb2 as messages
from rxoutflow.v1 import hospital_service_pb2_grpc as stubs
from rxoutflow_server.sandbox.wiring import platform_service
from support.lone_platform import HOSPITAL, REGION, Platform, lone_platform, proper
from support.paperwork import Paperwork

Request = messages.RegisterPrescriptionRequest
MANY = 300
PATIENT = "LONE0000001"
PATIENCE = Patience(attempts=100, first_pause=0.05, longest_pause=0.3)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with lone_platform(tmp_path_factory.mktemp("bulk")) as platform:
        platform.start()
        yield platform


@pytest.fixture(scope="module")
def papers(platform: Platform) -> Paperwork:
    return platform.paperwork(SystemRandom(), count().__next__)


@pytest.fixture
def requests(papers: Paperwork) -> list[Request]:
    """Signed, sealed, never sent."""
    content = [papers.prescription(PATIENT, REGION) for _ in range(MANY)]
    return [papers.registration(each) for each in content]


@pytest.fixture
def hospital(platform: Platform) -> Iterator[DirectHospitalClient]:
    institution, region = platform.institution(HOSPITAL), platform.region
    target = platform.wiring.target(platform_service(region))
    profile = replace(
        load_profile(platform.layout.profile(institution)),
        endpoint=Endpoint(target, region.host_name),
    )
    with DirectHospitalClient(profile, patience=PATIENCE) as client:
        yield client


def stored(hospital: DirectHospitalClient) -> set[str]:
    """The numbers of all prescriptions that the platform has of the hospital."""
    stub, numbers, token = hospital.connection.stub(stubs.HospitalServiceStub), set(), ""
    while True:
        page = messages.ListPrescriptionsRequest(page_size=500, page_token=token)
        answer = hospital.connection.call(stub.ListPrescriptions, page)
        numbers |= {each.prescription_number for each in answer.prescriptions}
        if not (token := answer.next_page_token):
            return numbers


def number_of(each: Registered) -> str:
    assert each.status is not None, each.failure
    return each.status.content.prescription_number


def require_answered_once(
    hospital: DirectHospitalClient, requests: list[Request], results: list[Registered]
) -> None:
    """Every request has its answer, in order; each is stored, and says the same when sent again."""
    assert [each.request for each in results] == requests
    numbers = {number_of(each) for each in results}
    assert len(numbers) == len(requests)
    assert numbers <= stored(hospital)
    stub = hospital.connection.stub(stubs.HospitalServiceStub)
    for each in results[:: len(results) // 20]:
        again = hospital.connection.call(stub.RegisterPrescription, each.request)
        assert each.status is not None
        assert again.status == each.status.statement


def test_hundreds_of_registrations_over_one_stream_are_each_answered_and_stored(
    hospital: DirectHospitalClient, requests: list[Request]
) -> None:
    require_answered_once(hospital, requests, list(hospital.register_all(requests)))


def test_the_receipts_of_a_stream_verify(
    hospital: DirectHospitalClient, requests: list[Request]
) -> None:
    seen = 0
    for _ in hospital.register_all(requests[:50]):
        if hospital.receipts.last is not None:
            assert hospital.receipts.last.logged is not None, hospital.receipts.last.problem
            seen += 1
    assert seen > 0


def test_a_wrong_one_in_the_middle_is_refused_alone(
    hospital: DirectHospitalClient, requests: list[Request]
) -> None:
    wrong, middle = requests[MANY // 2], MANY // 2
    wrong.prescription.signatures[0].value = bytes(64)
    results = list(hospital.register_all(requests))
    assert isinstance(results[middle].failure, SignatureRefused)
    del requests[middle], results[middle]
    require_answered_once(hospital, requests, results)


def test_the_same_stream_once_more_says_the_same(
    hospital: DirectHospitalClient, requests: list[Request]
) -> None:
    first, second = (
        [proper(each.status.statement) for each in hospital.register_all(requests) if each.status]
        for _ in range(2)
    )
    assert len(first) == MANY
    assert first == second


def test_a_registration_twice_in_one_stream_is_one(
    hospital: DirectHospitalClient, requests: list[Request]
) -> None:
    before = stored(hospital)
    results = list(hospital.register_all([requests[0], requests[0], requests[1]]))
    assert len(stored(hospital) - before) == 2
    assert number_of(results[0]) == number_of(results[1]) != number_of(results[2])


def test_few_at_once_are_as_good(hospital: DirectHospitalClient, requests: list[Request]) -> None:
    some = requests[:20]
    require_answered_once(hospital, some, list(hospital.register_all(some, at_once=1)))


@pytest.mark.parametrize("cruel", [True, False], ids=["killed", "told to stop"])
def test_a_platform_that_ends_meanwhile_costs_a_pause_and_no_registration(
    platform: Platform, hospital: DirectHospitalClient, requests: list[Request], cruel: bool
) -> None:
    results = []
    for each in hospital.register_all(requests):
        results.append(each)
        if len(results) in (50, 200):
            platform.kill() if cruel else platform.stop()
            platform.start()
    require_answered_once(hospital, requests, results)


def test_what_was_sent_to_a_platform_that_was_killed_is_answered_as_the_first_time(
    platform: Platform, hospital: DirectHospitalClient, requests: list[Request]
) -> None:
    stub, first = hospital.connection.stub(stubs.HospitalServiceStub), []
    sent = [messages.StreamRegisterPrescriptionsRequest(registration=each) for each in requests]
    stream = stub.StreamRegisterPrescriptions(iter(sent), timeout=60)
    with suppress(grpc.RpcError):
        for answer in stream:
            first.append(answer.response.status)
            if len(first) == MANY // 3:
                platform.kill()
    assert len(first) < MANY, "all was answered before the platform was killed"
    platform.start()
    results = list(hospital.register_all(requests))
    require_answered_once(hospital, requests, results)
    assert [each.status.statement for each in results[: len(first)] if each.status] == first


def test_whoever_breaks_off_is_done_with_what_was_answered(
    platform: Platform, hospital: DirectHospitalClient, requests: list[Request]
) -> None:
    results = hospital.register_all(requests)
    first = [number_of(next(results)) for _ in range(10)]
    results.close()  # type: ignore[attr-defined] # it is a generator
    assert set(first) <= stored(hospital)
    require_answered_once(hospital, requests, list(hospital.register_all(requests)))


def test_what_the_source_raises_reaches_the_caller(
    hospital: DirectHospitalClient, requests: list[Request]
) -> None:
    def source() -> Iterator[Request]:
        yield from requests[:100]
        raise OSError("the table is gone")

    answered: list[Registered] = []
    with pytest.raises(OSError, match="the table is gone"):
        answered.extend(hospital.register_all(source()))
    require_answered_once(hospital, requests, list(hospital.register_all(requests)))
