"""Small conversations as an analyst wants to see them: a look-up, then a page or a TLS session; each has a number.

talk.py serve ADDRESS                  until it is killed; prints "up" when it listens
talk.py call ADDRESS RATE SECONDS      prints {"done": …, "failed": …} at the end
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import sys
from collections.abc import Callable

DNS, HTTP, TLS = 53, 80, 443
PAGE, FLIGHT, SECRETS = 3_000, 4_000, 20_000  # bytes: of a page, of a server's handshake, after it
AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130 n{}"


def name(number: int) -> str:
    return f"n{number}.svc.example.com"


def hello(number: int) -> bytes:
    """A real ClientHello."""
    outgoing = ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name(number)).do_handshake()
    return outgoing.read()


def question(number: int) -> bytes:
    labels = b"".join(bytes([len(each)]) + each.encode() for each in name(number).split("."))
    return struct.pack("!6H", number & 0xFFFF, 0x0100, 1, 0, 0, 0) + labels + b"\0\0\1\0\1"


def answer(asked: bytes) -> bytes:
    """Four addresses."""
    head = asked[:2] + struct.pack("!5H", 0x8180, 1, 4, 0, 0)
    records = [struct.pack("!HHHIH4B", 0xC00C, 1, 1, 60, 4, 198, 51, 100, n) for n in range(4)]
    return head + asked[12:] + b"".join(records)


def record(kind: int, size: int) -> bytes:
    """TLS records of so many bytes, as far as one can see from outside."""
    return struct.pack("!BHH", kind, 0x0303, size) + b"\x5a" * size


# ---- those who answer -----------------------------------------------------------------------------------


class _Names(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.DatagramTransport = transport  # type: ignore[assignment]

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._transport.sendto(answer(data), addr)


async def _page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    number = head.split(" ", 2)[1].removeprefix("/n")
    writer.write(
        "\r\n".join(
            [
                "HTTP/1.1 200 OK",
                "Content-Type: text/html; charset=utf-8",
                "Cache-Control: private, no-store, max-age=0, must-revalidate",
                "Strict-Transport-Security: max-age=31536000; includeSubDomains",
                f"Content-Length: {PAGE}",
                f"Server: n{number}",
                "",
                "x" * PAGE,
            ]
        ).encode()
    )
    await writer.drain()
    writer.close()


async def _secret(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readexactly(5)
    await reader.readexactly(int.from_bytes(head[3:5], "big"))
    writer.write(record(22, 100) + record(23, FLIGHT))
    await reader.readexactly(5 + 60)
    writer.write(record(23, SECRETS // 2) * 2)
    await writer.drain()
    writer.close()


async def serve(address: str) -> None:
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(_Names, local_addr=(address, DNS))
    await asyncio.start_server(_page, address, HTTP)
    await asyncio.start_server(_secret, address, TLS)
    print("up", flush=True)
    await asyncio.Event().wait()


# ---- those who ask --------------------------------------------------------------------------------------


class _Answered(asyncio.DatagramProtocol):
    def __init__(self, future: asyncio.Future[None]) -> None:
        self._future = future

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if not self._future.done():
            self._future.set_result(None)


async def _talk(address: str, number: int, greeting: bytes) -> None:
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[None] = loop.create_future()
    transport, _ = await loop.create_datagram_endpoint(
        lambda: _Answered(answered), remote_addr=(address, DNS)
    )
    transport.sendto(question(number))
    await answered
    transport.close()
    reader, writer = await asyncio.open_connection(address, TLS if number % 2 else HTTP)
    if number % 2:
        writer.write(greeting)
        await reader.readexactly(10 + 100 + FLIGHT)
        writer.write(record(23, 60))
    else:
        head = [
            "GET /n{} HTTP/1.1",
            f"Host: {name(number)}",
            "Accept: text/html",
            f"User-Agent: {AGENT}",
        ]
        writer.write("\r\n".join([*head, "", ""]).format(number, number).encode())
    await reader.read()
    while await reader.read(65_536):
        pass
    writer.close()
    await writer.wait_closed()


async def call(address: str, rate: float, seconds: float) -> None:
    counts = {"done": 0, "failed": 0}

    async def one(number: int, greeting: bytes) -> None:
        try:
            async with asyncio.timeout(20):
                await _talk(address, number, greeting)
            counts["done"] += 1
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            counts["failed"] += 1

    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.TaskGroup() as group:
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, began + number / rate - loop.time()))
            group.create_task(one(number, hello(number) if number % 2 else b""))
    print(json.dumps(counts), flush=True)


if __name__ == "__main__":
    socket.setdefaulttimeout(20)
    runs: dict[str, Callable[[], None]] = {
        "serve": lambda: asyncio.run(serve(sys.argv[2])),
        "call": lambda: asyncio.run(call(sys.argv[2], float(sys.argv[3]), float(sys.argv[4]))),
    }
    runs[sys.argv[1]]()
