"""The way to one server: a mutual-TLS channel, and calls that repeat what is safe to repeat.

The channel trusts the transport anchors of the server's region only and checks the server's
certificate against the profile's ``server_name``, whatever address is dialled. There is no way to
turn this off.

When certificate or key are renewed in their files, the next call takes a new channel with them; the
old one stays open beside it until the calls on it have had their time.

Every call has a time limit. What fails indefinitely is sent again, the very same request with its
``request_id``, at most ``attempts`` times in all, with growing pauses of random length; so is what
the server was too busy for, after the pause it asked for. What is refused is raised at once.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Self, TypeVar

import grpc

from rxoutflow.client.failures import from_rpc_error
from rxoutflow.errors import Indefinite, InvalidInput, Overloaded, RxoutflowError
from rxoutflow.numbers import RandomBytes
from rxoutflow.profile import Profile, TlsFiles

MAX_MESSAGE_BYTES = 4 << 20

Stamp = tuple[tuple[int, int, int], ...]

_Stub = TypeVar("_Stub")
_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Clock, randomness and sleep: what tests replace. ``now`` is aware; pauses are seconds."""

    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    random_bytes: RandomBytes = secrets.token_bytes
    sleep: Callable[[float], None] = time.sleep
    fraction: Callable[[], float] = random.random
    """A number from 0 to 1 by which a pause is shortened, so that clients do not move in step."""


REAL = Surroundings()


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to try, in seconds."""

    attempts: int = 5
    call_timeout: float = 15.0
    stream_timeout: float = 300.0
    first_pause: float = 0.2
    longest_pause: float = 5.0

    def pause(self, failures: int, fraction: float) -> float:
        """How long to wait after that many failures in a row."""
        longest: float = min(self.longest_pause, self.first_pause * 2.0 ** min(failures, 32))
        return longest * (0.5 + fraction / 2)


PATIENT = Patience()


class Connection:
    """The channels to a profile's server. Close it, or use it as a context."""

    def __init__(
        self,
        profile: Profile,
        surroundings: Surroundings = REAL,
        patience: Patience = PATIENT,
    ) -> None:
        """Read the TLS files; the connection is made by the first call.

        Raises:
            InvalidInput: a TLS file cannot be read.
        """
        self.target = profile.endpoint.target
        self.surroundings = surroundings
        self.patience = patience
        self._profile = profile
        self._stamp = _stamp(profile.tls)
        self._channel = _secure_channel(profile)
        self._retired: list[tuple[datetime, grpc.Channel]] = []
        self._renewing = Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the calls that run and let go of the connection."""
        for _, channel in self._retired:
            channel.close()
        self._channel.close()

    @property
    def channel(self) -> grpc.Channel:
        """The channel for the next call: a new one if the TLS files were replaced."""
        with self._renewing:
            stamp = _stamp(self._profile.tls)
            if stamp is not None and stamp != self._stamp:
                self._renew(stamp)
            return self._channel

    def stub(self, make: Callable[[grpc.Channel], _Stub]) -> _Stub:
        """A service's stub for the next call."""
        return make(self.channel)

    def _renew(self, stamp: Stamp) -> None:
        """Put a new channel beside the old one; files that are half replaced change nothing."""
        try:
            channel = _secure_channel(self._profile)
        except InvalidInput:
            return
        now = self.surroundings.now()
        longest = timedelta(seconds=max(self.patience.call_timeout, self.patience.stream_timeout))
        for retired_at, old in self._retired:
            if now - retired_at > longest:
                old.close()
        self._retired = [each for each in self._retired if now - each[0] <= longest]
        self._retired.append((now, self._channel))
        self._channel, self._stamp = channel, stamp

    def call(
        self, method: grpc.UnaryUnaryMultiCallable[_Request, _Response], request: _Request
    ) -> _Response:
        """Call, repeating what is safe to repeat.

        Raises:
            Refused: the server refused; nothing happened.
            Indefinite: no definite answer within the patience; it may have happened.
        """
        failures = 0
        while True:
            try:
                return method(request, timeout=self.patience.call_timeout)
            except grpc.RpcError as error:
                failure = from_rpc_error(error, self.target)
            failures += 1
            if failures >= self.patience.attempts or not _may_repeat(failure):
                raise failure
            self.pause(failures - 1, failure)

    def pause(self, failures: int, failure: RxoutflowError | None = None) -> None:
        """Wait after a failure: as long as the server asks, or a growing, random time."""
        asked = failure.retry_after if isinstance(failure, Overloaded) else None
        wait = self.patience.pause(failures, self.surroundings.fraction())
        self.surroundings.sleep(max(wait, min(asked or 0.0, self.patience.longest_pause)))


def _may_repeat(failure: RxoutflowError) -> bool:
    return isinstance(failure, Indefinite | Overloaded)


def _stamp(tls: TlsFiles) -> Stamp | None:
    """Something that differs when the files were replaced; none while one of them is missing."""
    try:
        states = [path.stat() for path in (tls.roots, tls.key, tls.certificate)]
    except OSError:
        return None
    return tuple((state.st_ino, state.st_mtime_ns, state.st_size) for state in states)


def _secure_channel(profile: Profile) -> grpc.Channel:
    try:
        roots, key, certificate = (
            path.read_bytes()
            for path in (profile.tls.roots, profile.tls.key, profile.tls.certificate)
        )
    except OSError as error:
        raise InvalidInput(f"{error.filename}: cannot be read: {error.strerror}") from error
    return grpc.secure_channel(
        profile.endpoint.target,
        grpc.ssl_channel_credentials(roots, key, certificate),
        options=(
            ("grpc.ssl_target_name_override", profile.endpoint.server_name),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.enable_retries", 0),  # repeating is decided here, where request_id is known
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.keepalive_timeout_ms", 20_000),
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.min_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 2_000),
        ),
    )
