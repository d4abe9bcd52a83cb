"""Who may call what, as the contract says it.

Every method of the contract carries the option ``policy``: the kinds of callers and what must tie
the caller to the object of the call. :func:`policies_of` reads the options of all services that a
server offers and refuses to go on when one is missing, so that contract and enforcement cannot
drift apart.

:class:`Gate` decides what needs no object: kind, region, institution. Whether a caller is the
issuer, the claimant or a party of *this* prescription is for the application to decide once it has
the prescription in hand; who is not a party is told NOT_FOUND there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from rxoutflow.identity import CallerKind
from rxoutflow.v1 import annotations_pb2 as contract
from rxoutflow_server.domain.errors import Reason, Refusal
from rxoutflow_server.transport.identity import KINDS, Caller

HEALTH_PREFIX = "/grpc.health.v1.Health/"
"""Health checks are for every authenticated caller; their contract is not ours to annotate."""

_OWN_REGION = frozenset(
    {
        contract.RELATION_SAME_REGION,
        contract.RELATION_ISSUER,
        contract.RELATION_COLLECTOR,
        contract.RELATION_CLAIMANT,
        contract.RELATION_SAME_INSTITUTION,
    }
)
"""Relations that only a caller of the server's own region can have."""


class PolicyError(Exception):
    """The contract does not say who may call a method, or the server cannot check it."""


@dataclass(frozen=True, slots=True)
class MethodPolicy:
    """The rule of one method: the contract's ``MethodPolicy``."""

    callers: frozenset[CallerKind]
    own_region: bool
    own_institution: bool


@dataclass(frozen=True, slots=True)
class Place:
    """For whom a server stands: a region's platform, or the edge of one institution."""

    region_code: str
    institution_code: str = ""
    """Empty for a platform."""


def policies_of(services: Iterable[ServiceDescriptor]) -> dict[str, MethodPolicy]:
    """The policy of every method, by full gRPC name such as ``/rxoutflow.v1.PeerService/X``.

    Raises:
        PolicyError: a method has no policy, or one that names nobody or no relation.
    """
    return {
        f"/{service.full_name}/{method.name}": _policy_of(method)
        for service in services
        for method in service.methods
    }


class Gate:
    """Lets callers through to methods, for one server.

    Raises:
        PolicyError: a method is for one institution's edge, and this server is a platform.
    """

    def __init__(self, place: Place, policies: Mapping[str, MethodPolicy]) -> None:
        for method, policy in policies.items():
            if policy.own_institution and not place.institution_code:
                raise PolicyError(f"{method} belongs at an institution's edge, not at a platform")
        self._place = place
        self._policies = policies

    def check(self, method: str, caller: Caller) -> None:
        """Return if the caller may call the method.

        Raises:
            Refusal: CALLER_KIND_NOT_ALLOWED or CALLER_REGION_NOT_ALLOWED.
        """
        if method.startswith(HEALTH_PREFIX):
            return
        policy = self._policies.get(method)
        if policy is None or caller.kind not in policy.callers:
            raise _other_kinds(method, caller, policy)
        if policy.own_region and caller.region_code != self._place.region_code:
            raise self._elsewhere(f"serves region {self._place.region_code}")
        if policy.own_institution and caller.institution_code != self._place.institution_code:
            raise self._elsewhere(f"serves institution {self._place.institution_code}")

    def _elsewhere(self, serves: str) -> Refusal:
        return Refusal(
            Reason.CALLER_REGION_NOT_ALLOWED,
            f"this server {serves}: connect to your own",
            region=self._place.region_code,
        )


def _policy_of(method: MethodDescriptor) -> MethodPolicy:
    options = method.GetOptions()
    if not options.HasExtension(contract.policy):
        raise PolicyError(f"{method.full_name} has no policy: write `option (policy)` to it")
    policy = options.Extensions[contract.policy]
    if not policy.callers or policy.relation == contract.RELATION_UNSPECIFIED:
        raise PolicyError(f"the policy of {method.full_name} must name callers and a relation")
    if not all(kind in KINDS for kind in policy.callers):
        raise PolicyError(f"the policy of {method.full_name} names an unknown kind of caller")
    return MethodPolicy(
        callers=frozenset(KINDS[kind] for kind in policy.callers),
        own_region=policy.relation in _OWN_REGION,
        own_institution=policy.relation == contract.RELATION_SAME_INSTITUTION,
    )


def _other_kinds(method: str, caller: Caller, policy: MethodPolicy | None) -> Refusal:
    allowed = ", ".join(sorted(policy.callers)) if policy else "nobody"
    return Refusal(
        Reason.CALLER_KIND_NOT_ALLOWED,
        f"{method} is for {allowed}, not for a {caller.kind}",
        kind=caller.kind.value,
        method=method,
    )
