"""Streams of requests: worked on side by side, answered in their order.

So many are under way at a time, and no more are read before an answer was taken; so neither a
caller who sends fast nor one who never listens makes a server keep more than that. When the
requests end, however they do, whatever came before is answered first.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine
from typing import Any, TypeVar

Request = TypeVar("Request")
Response = TypeVar("Response")


async def in_order(
    requests: AsyncIterable[Request],
    answer: Callable[[Request], Coroutine[Any, Any, Response]],
    most: int,
) -> AsyncGenerator[Response, None]:
    """Answer requests, ``most`` at a time; one more is read ahead.

    ``answer`` raises nothing: what goes wrong with one request is an answer. What the requests
    raise is raised here, once all before it is answered. Close the generator: what is under way
    then is cancelled.
    """
    room = asyncio.Semaphore(most)
    begun: asyncio.Queue[asyncio.Task[Response] | None] = asyncio.Queue()

    async def begin() -> Exception | None:
        try:
            async for request in requests:
                await room.acquire()
                begun.put_nowait(asyncio.create_task(answer(request)))
        except Exception as error:
            return error
        finally:
            begun.put_nowait(None)
        return None

    beginning = asyncio.create_task(begin())
    try:
        while (task := await begun.get()) is not None:
            yield await task
            room.release()
        if (error := await beginning) is not None:
            raise error
    finally:
        beginning.cancel()
        while not begun.empty():
            if (task := begun.get_nowait()) is not None:
                task.cancel()
