"""Passing on trust lists: a platform's own, and those that it holds of other regions.

A list is passed on as its registry signed it, lapsed or not; who receives it judges by the
signature. Nobody is sent a list that they hold already, because lists are large and asked for
often; and whoever asks for the platform's own is told what else there is.
"""

from __future__ import annotations

from collections.abc import Iterator

from rxoutflow.identity import REGION_CODE
from rxoutflow.trust import TrustStore
from rxoutflow.v1.peer_service_pb2 import GetTrustListRequest, GetTrustListResponse
from rxoutflow_server.application.validation import invalid
from rxoutflow_server.domain.errors import Reason, Refusal


def answer(
    trust: TrustStore, own_region: str, request: GetTrustListRequest
) -> GetTrustListResponse:
    """The list asked for, if it is newer than the one that the caller holds.

    Args:
        trust: the lists held here.
        own_region: the region whose list is meant if the request names none.
        request: what is asked for.

    Raises:
        Refusal: FIELD_INVALID, or REGION_UNKNOWN if no list of the region is here.
    """
    wanted = request.region_code or own_region
    if not REGION_CODE.fullmatch(wanted):
        raise invalid("region_code", "must be six digits, or empty for this platform's region")
    held = trust.held(wanted)
    if held is None:
        raise Refusal(
            Reason.REGION_UNKNOWN,
            f"this platform has no trust list of region {wanted}; tell its operator",
            region=wanted,
        )
    newer = held.sequence > request.held_sequence
    return GetTrustListResponse(
        trust_list=trust.statement(wanted) if newer else None,
        sequence=held.sequence,
        other_lists=_others(trust, own_region) if wanted == own_region else (),
    )


def _others(trust: TrustStore, own_region: str) -> Iterator[GetTrustListResponse.OtherList]:
    for code in trust.regions():
        held = trust.held(code)
        if held is not None and code != own_region:
            yield GetTrustListResponse.OtherList(region_code=code, sequence=held.sequence)
