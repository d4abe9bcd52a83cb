"""The bare minimum of a call: gRPC over mTLS that gives back what it got, on the same stack.

    python echo.py CERTIFICATE KEY ROOTS     prints its port

The same server library, event loop and TLS settings as a platform, and nothing else: no policy, no
verification, no store.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import grpc
import uvloop

METHOD = "/rxoutflow.benchmark.Echo/Echo"


class Echo(grpc.GenericRpcHandler):
    """Gives back the bytes of a call."""

    def service(self, details: Any) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        """The one method there is."""
        if details.method != METHOD:
            return None
        return grpc.unary_unary_rpc_method_handler(_echo)


async def _echo(request: bytes, context: Any) -> bytes:
    return request


async def main(certificate: str, key: str, roots: str) -> None:
    """Serve until killed."""
    pair = (Path(key).read_bytes(), Path(certificate).read_bytes())
    credentials = grpc.ssl_server_credentials(
        [pair], Path(roots).read_bytes(), require_client_auth=True
    )
    server = grpc.aio.server(handlers=[Echo()], options=[("grpc.so_reuseport", 0)])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    print(port, flush=True)  # noqa: T201 - read by the load
    await server.wait_for_termination()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(*sys.argv[1:]))
