"""Posts many alerts as fast as they are taken: several connections, requests pipelined, every answer counted."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from urllib.parse import urlsplit

DEPTH = 8  # requests under way on one connection


def post_all(url: str, bodies: Sequence[bytes], *, connections: int) -> dict[int, int]:
    """Status codes by how often each was answered."""
    answers, _ = asyncio.run(_post(url, bodies, connections, DEPTH))
    return dict(answers)


def timed(
    url: str, bodies: Sequence[bytes], *, connections: int, depth: int = 1
) -> tuple[dict[int, int], list[float]]:
    """The same, and the seconds that each answer took."""
    answers, seconds = asyncio.run(_post(url, bodies, connections, depth))
    return dict(answers), seconds


async def _post(
    url: str, bodies: Sequence[bytes], connections: int, depth: int
) -> tuple[Counter[int], list[float]]:
    parts = urlsplit(url)
    answers: Counter[int] = Counter()
    seconds: list[float] = []
    waiting = iter(bodies)

    async def one() -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        sent: asyncio.Queue[float | None] = asyncio.Queue(depth)

        async def send() -> None:
            for body in waiting:
                head = (
                    f"POST / HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
                    f"Content-Length: {len(body)}\r\n\r\n"
                )
                await sent.put(time.perf_counter())
                writer.write(head.encode() + body)
                await writer.drain()
            await sent.put(None)

        async def receive() -> None:
            while (began := await sent.get()) is not None:
                head = await reader.readuntil(b"\r\n\r\n")
                answers[int(head[9:12])] += 1
                length = next(
                    int(line.split(b":")[1])
                    for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length")
                )
                await reader.readexactly(length)
                seconds.append(time.perf_counter() - began)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(send())
            tasks.create_task(receive())
        writer.close()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(connections):
            tasks.create_task(one())
    return answers, seconds
