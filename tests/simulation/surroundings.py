"""What is put in the place of production code's surroundings while a run lasts.

Time in the interceptor is virtual; logs go nowhere; maps are written in one order. A defect, that
is an exception that the error map does not know, ends the run as a violation instead of becoming an
incident number. And two things are remembered that depend on nothing but their arguments, because
they are what a run would spend most of its time on: whether a raw signature verifies, and whether
bytes are in plain wire form. Both were found out by the real functions before, but for signatures
made here: that Ed25519 verifies what it has just signed is no question of this simulation.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import structlog
from google.protobuf.descriptor import Descriptor
from google.rpc import error_details_pb2, status_pb2

from rxoutflow.statements import algorithms, envelope, wire
from rxoutflow.statements.signers import FileSigner
from rxoutflow_server.domain.errors import Reason
from rxoutflow_server.transport import errors, interceptor

if TYPE_CHECKING:
    from simulation.world import World

_QUIET = 50

_status = errors._status
_sign = FileSigner.sign
_verify = algorithms._Ed25519Key.verify
_check_wire = wire.check_wire

_signatures: set[bytes] = set()
"""Digests of key, value and data of the signatures that are right, in every run."""


@contextmanager
def surroundings(world: World) -> Iterator[None]:
    """Put everything in place, and take it away again."""
    with ExitStack() as stack:
        before = structlog.get_config()
        stack.callback(lambda: structlog.configure(**before))
        structlog.configure(
            wrapper_class=structlog.make_filtering_bound_logger(_QUIET),
            cache_logger_on_first_use=False,
        )
        clock = SimpleNamespace(monotonic=world.loop.time, perf_counter=world.loop.time)
        for target, name, value in (
            (interceptor, "time", clock),
            (errors, "_incident_status", _defects(world)),
            (errors, "_status", _in_one_order),
            (algorithms._Ed25519Key, "verify", _verify_once),
            (FileSigner, "sign", _sign_and_remember),
            (envelope, "check_wire", _remembering_check()),
        ):
            stack.enter_context(patch.object(target, name, value))
        yield


def _defects(world: World) -> Any:
    def incident_status(error: Exception) -> status_pb2.Status:
        world.fail(error)
        return errors._status(Reason.INTERNAL, "a defect", {"incident": "0"})

    return incident_status


def _in_one_order(*args: Any) -> status_pb2.Status:
    """A status whose details are the same bytes in every process: a map has no order of its own."""
    status = _status(*args)
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        if detail.Unpack(info):
            detail.Pack(info, deterministic=True)
    return status


def _verify_once(key: algorithms._Ed25519Key, value: bytes, data: bytes) -> None:
    seen = _signature(key, value, data)
    if seen not in _signatures:
        _verify(key, value, data)
        _signatures.add(seen)


def _sign_and_remember(signer: FileSigner, data: bytes) -> bytes:
    value = _sign(signer, data)
    if isinstance(signer._key, algorithms._Ed25519Key):
        _signatures.add(_signature(signer._key, value, data))
    return value


def _signature(key: algorithms._Ed25519Key, value: bytes, data: bytes) -> bytes:
    """Digest of a signature; key and value have a fixed length each."""
    return sha256(key._key.public_bytes_raw() + value + data).digest()


def _remembering_check() -> Any:
    known: set[tuple[str, bytes]] = set()

    def check_wire(
        data: bytes, descriptor: Descriptor, bounds: wire.Bounds = wire.DEFAULT_BOUNDS
    ) -> None:
        seen = (descriptor.full_name, data)
        if seen not in known:
            _check_wire(data, descriptor, bounds)
            known.add(seen)

    return check_wire
