"""Asks an HTTP API over a unix socket: one request per connection, each answer bounded in size and time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable

from tripshark.errors import BadInput, Transient
from tripshark.scout.connecting import connecting

MAX_ANSWER = 16 << 20
_MAX_HEADERS = 100
_MAX_LINE = 1 << 20


async def get(path: str, url: str, *, timeout_s: float = 5.0) -> tuple[int, bytes]:
    """Status and body. Raises `Transient`, `Denied`, `BadInput`."""
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s), _asked(path, url) as (status, pieces):
            async for piece in pieces:
                body += piece
                if len(body) > MAX_ANSWER:
                    raise BadInput("an answer that is too long", where=path)
    except TimeoutError as problem:
        raise Transient(f"no answer within {timeout_s:g} s", where=path) from problem
    return status, bytes(body)


async def listen(path: str, url: str, on_line: Callable[[bytes], None]) -> None:
    """Hand each line of an answer that does not end to `on_line`; returns when it does end."""
    async with _asked(path, url) as (status, pieces):
        if status != 200:
            raise Transient(f"HTTP {status}", where=path)
        rest = b""
        async for piece in pieces:
            *lines, rest = (rest + piece).split(b"\n")
            if len(rest) > _MAX_LINE:
                raise BadInput("a line that is too long", where=path)
            for line in lines:
                on_line(line)


@contextlib.asynccontextmanager
async def _asked(path: str, url: str) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
    async with connecting(path):
        reader, writer = await asyncio.open_unix_connection(path)
    try:
        request = f"GET {url} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: tripshark\r\nConnection: close\r\n\r\n"
        writer.write(request.encode("ascii"))
        await writer.drain()
        status, headers = await _head(reader)
        async with contextlib.aclosing(_body(reader, headers)) as pieces:
            yield status, pieces
    except (ValueError, asyncio.IncompleteReadError) as problem:  # a line or number that cannot be
        raise BadInput(f"no HTTP is spoken here: {problem}", where=path) from problem
    except OSError as problem:
        if isinstance(problem, TimeoutError):
            raise
        raise Transient(f"it hung up: {problem.strerror}", where=path) from problem
    finally:
        writer.transport.abort()


async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    version, _, rest = (await _line(reader)).partition(" ")
    if version not in ("HTTP/1.1", "HTTP/1.0") or not rest[:3].isdigit():
        raise ValueError("the first line is not one of HTTP")
    headers: dict[str, str] = {}
    for _ in range(_MAX_HEADERS):
        line = await _line(reader)
        if not line:
            return int(rest[:3]), headers
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    raise ValueError("too many headers")


async def _line(reader: asyncio.StreamReader) -> str:
    line = await reader.readline()  # bounded by the reader's own limit
    if not line.endswith(b"\n"):
        raise ValueError("it ends too early")
    return line.decode("latin-1").rstrip("\r\n")


async def _body(
    reader: asyncio.StreamReader, headers: dict[str, str]
) -> AsyncGenerator[bytes, None]:
    if headers.get("transfer-encoding", "").lower() == "chunked":
        while size := int((await _line(reader)).partition(";")[0].strip(), 16):
            if not 0 < size <= MAX_ANSWER:
                raise ValueError("a chunk that is too long")
            yield await reader.readexactly(size)
            await _line(reader)
        return
    length = headers.get("content-length")
    left = MAX_ANSWER + 1 if length is None else int(length)
    if left < 0:
        raise ValueError("a length below zero")
    while left > 0:
        if not (piece := await reader.read(min(left, 65_536))):
            if length is not None:
                raise ValueError("it ends too early")
            return
        left -= len(piece) if length is not None else 0
        yield piece
