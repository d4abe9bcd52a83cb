"""Notices as they come: a stream that goes on after interruptions and misses nothing.

The server pushes; nothing is polled. After any interruption the stream is opened again after the
last notice handed out, with growing pauses, for as long as the caller listens. Evidence that a
notice carries is verified before the notice is handed out. A notice may come twice, never out of
order; store its ``resume_token`` with what you did about it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, Self

import grpc

from rxoutflow.client.channel import Connection
from rxoutflow.client.evidence import EvidenceReader
from rxoutflow.client.failures import from_rpc_error
from rxoutflow.errors import Indefinite, Overloaded
from rxoutflow.v1.notice_pb2 import Notice


class Response(Protocol):
    """What the services' WatchNotices methods stream."""

    @property
    def notice(self) -> Notice:
        """The notice."""
        ...


class Responses(Protocol):
    """A running stream."""

    def __iter__(self) -> Iterator[Response]: ...

    def cancel(self) -> bool:
        """End it."""
        ...


class NoticeStream:
    """Iterate over it to get notices. ``close``, also from another thread, ends the iteration.

    Args:
        open_stream: opens the server's stream after a resume token.
        connection: says how long to pause after a failure.
        evidence: verifies what the notices carry.
        resume_token: of the last notice that was dealt with; empty for the oldest kept.
    """

    def __init__(
        self,
        open_stream: Callable[[str], Responses],
        connection: Connection,
        evidence: EvidenceReader,
        resume_token: str = "",
    ) -> None:
        self._open = open_stream
        self._connection = connection
        self._evidence = evidence
        self.resume_token = resume_token
        self._stream: Responses | None = None
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the iteration."""
        self._closed = True
        if self._stream is not None:
            self._stream.cancel()

    def __iter__(self) -> Iterator[Notice]:
        """Hand out notices until closed.

        Raises:
            Refused: the server does not let this caller listen.
            AnswerUntrusted: a notice's evidence does not verify.
        """
        failures = 0
        while not self._closed:
            try:
                for notice in self._read():
                    failures = 0
                    yield notice
            except (Indefinite, Overloaded) as failure:
                if self._closed:
                    return
                self._connection.pause(failures, failure)
                failures += 1

    def _read(self) -> Iterator[Notice]:
        try:
            self._stream = self._open(self.resume_token)
            for response in self._stream:
                notice = response.notice
                if notice.HasField("evidence"):
                    self._evidence.read_any(notice.evidence)
                self.resume_token = notice.resume_token
                yield notice
        except grpc.RpcError as error:
            raise from_rpc_error(error, self._connection.target) from error
