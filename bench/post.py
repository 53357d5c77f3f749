"""Posts alerts: at a steady rate whatever the answers do (open loop), or as fast as they are answered (closed)."""

from __future__ import annotations

import asyncio
import collections
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import uvloop


@dataclass
class Posted:
    """What became of all of them."""

    answers: Counter[int] = field(default_factory=Counter)  # status → how often
    latency_s: list[float] = field(default_factory=list)  # open loop: since it was due
    late_s: list[float] = field(default_factory=list)  # the client's own delay, connections aside
    seconds: float = 0.0


def at_rate(url: str, bodies: Sequence[bytes], *, per_second: float, connections: int) -> Posted:
    """One after the other is due at a fixed time; if it must wait for a free connection, that counts."""
    return uvloop.run(_post(url, bodies, connections, per_second))


def flat_out(url: str, bodies: Sequence[bytes], *, connections: int) -> Posted:
    """Each connection sends its next when its last is answered."""
    return uvloop.run(_post(url, bodies, connections, None))


async def _post(
    url: str, bodies: Sequence[bytes], connections: int, per_second: float | None
) -> Posted:
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    posted = Posted()
    over: asyncio.Future[None] = loop.create_future()
    head = f"POST / HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
    requests = [f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body for body in bodies]
    free: list[_Connection] = []
    waiting: collections.deque[tuple[bytes, float]] = collections.deque()

    def answered(connection: _Connection, status: int, due: float) -> None:
        now = time.perf_counter()
        posted.answers[status] += 1
        posted.latency_s.append(now - due)
        if len(posted.latency_s) == len(requests):
            over.set_result(None)
        elif waiting:
            request, due = waiting.popleft()
            connection.send(request, due if per_second else now)
        else:
            free.append(connection)

    def lost() -> None:
        if not over.done():
            over.set_exception(ConnectionError("the responder closed a connection"))

    for _ in range(connections):
        _, made = await loop.create_connection(
            lambda: _Connection(answered, lost), parts.hostname, parts.port
        )
        free.append(made)
    began = time.perf_counter()
    if per_second is None:
        waiting.extend((request, began) for request in requests)
        while free and waiting:
            free.pop().send(waiting.popleft()[0], time.perf_counter())
    else:
        for index, request in enumerate(requests):
            due = began + index / per_second
            if (ahead := due - time.perf_counter()) > 0:
                await asyncio.sleep(ahead)  # to the millisecond; spinning would take a core away
            posted.late_s.append(max(0.0, time.perf_counter() - due))
            if free:
                free.pop().send(request, due)
            else:
                waiting.append((request, due))
                await asyncio.sleep(0)
    async with asyncio.timeout(60):
        await over
    posted.seconds = time.perf_counter() - began
    return posted


class _Connection(asyncio.Protocol):
    """One request under way at a time."""

    def __init__(
        self,
        answered: Callable[[_Connection, int, float], None],
        lost: Callable[[], None],
    ) -> None:
        self._answered, self._lost = answered, lost
        self._got = b""
        self._due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def send(self, request: bytes, due: float) -> None:
        self._due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, end, body = self._got.partition(b"\r\n\r\n")
        if not end:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) >= length:
            self._got = b""
            self._answered(self, int(head[9:12]), self._due)

    def connection_lost(self, _problem: Exception | None) -> None:
        self._lost()
