"""A gRPC call by hand over a TLS connection of one's own, for what gRPC's client does not do.

gRPC's client always offers TLS 1.3 and says nothing of sessions. Here a test sets up the connection
with Python's ``ssl`` and sends the few HTTP/2 frames (RFC 9113) that make one unary call, with
headers in their plainest form (RFC 7541, literals that are not indexed).
"""

from __future__ import annotations

import re
import socket
import ssl
import struct
from dataclasses import dataclass
from pathlib import Path

from support.live import key_pair
from support.pki import Credential

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING, GOAWAY, CONTINUATION = 0, 1, 4, 6, 7, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4


class Refused(Exception):
    """The connection did not come about, or ended without an answer."""


@dataclass(frozen=True)
class Reply:
    """What came back on a call."""

    status: int
    message: str
    session: ssl.SSLSession | None
    resumed: bool
    tls: str


def client_context(roots_pem: bytes, credential: Credential | None, folder: Path) -> ssl.SSLContext:
    """A TLS client with this certificate, if any."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=roots_pem.decode())
    context.set_alpn_protocols(["h2"])
    if credential is not None:
        pair, file = key_pair(credential), folder / "raw-client.pem"
        file.write_bytes(pair.key_pem + pair.certificate_pem)
        context.load_cert_chain(file)
    return context


def call(
    address: str,
    server_name: str,
    context: ssl.SSLContext,
    method: str,
    session: ssl.SSLSession | None = None,
) -> Reply:
    """Make one call with an empty request; blocks.

    Raises:
        Refused: there is no connection, or it was closed.
    """
    host, _, port = address.rpartition(":")
    try:
        with (
            socket.create_connection((host, int(port)), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=server_name, session=session) as secure,
        ):
            secure.sendall(PREFACE + _frame(SETTINGS, 0, 0, b"") + _request(method, server_name))
            headers = _response_headers(secure)
            return Reply(
                int(_literal(headers, b"grpc-status") or b"-1"),
                (_literal(headers, b"grpc-message") or b"").decode(),
                secure.session,
                bool(secure.session_reused),
                secure.version() or "",
            )
    except (OSError, EOFError) as error:
        raise Refused(str(error)) from None


def _request(method: str, authority: str) -> bytes:
    headers = b"".join(
        b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value
        for name, value in (
            (b":method", b"POST"),
            (b":scheme", b"https"),
            (b":path", method.encode()),
            (b":authority", authority.encode()),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
        )
    )
    empty_message = b"\0" + struct.pack(">I", 0)
    return _frame(HEADERS, END_HEADERS, 1, headers) + _frame(DATA, END_STREAM, 1, empty_message)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _response_headers(secure: ssl.SSLSocket) -> bytes:
    """All header blocks of the answer, up to the end of the stream."""
    collected = b""
    while True:
        head = _exactly(secure, 9)
        length = int.from_bytes(head[:3])
        kind, flags, stream = struct.unpack(">BBI", head[3:])
        payload = _exactly(secure, length)
        if kind == SETTINGS and not flags & ACK:
            secure.sendall(_frame(SETTINGS, ACK, 0, b""))
        if kind == PING and not flags & ACK:
            secure.sendall(_frame(PING, ACK, 0, payload))
        if kind == GOAWAY and not collected:
            raise EOFError("the server said goodbye")
        if kind in (HEADERS, CONTINUATION) and stream == 1:
            collected += payload
        if kind in (HEADERS, DATA) and stream == 1 and flags & END_STREAM:
            return collected


def _exactly(secure: ssl.SSLSocket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        part = secure.recv(length - len(data))
        if not part:
            raise EOFError("the server closed the connection")
        data += part
    return data


def _literal(headers: bytes, name: bytes) -> bytes | None:
    """The value of a header that stands there as a literal: so gRPC's server writes it."""
    match = re.search(re.escape(bytes([len(name)]) + name) + b"(.)", headers, re.DOTALL)
    if match is None:
        return None
    length = match.group(1)[0]
    return headers[match.end() : match.end() + length] if length < 0x7F else headers[match.end() :]
