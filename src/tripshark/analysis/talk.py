"""What client and analyst say to each other: one question and one descriptor there, one document back.

Transport: a `SOCK_STREAM` unix socket, one connection per question. The client sends one line of JSON,
`{"version": 1, "question": {…}}`, the evidence file (opened read-only) beside its first byte (SCM_RIGHTS), and
reads one JSON document until the end: findings, or the one error shape. Whoever closes early ends the analysis.
"""

from __future__ import annotations

import asyncio
import socket

VERSION = 1
MAX_QUESTION = 4 << 20
MAX_ANSWER = 16 << 20


async def ready(connection: socket.socket, *, write: bool = False) -> None:
    """Wait until the non-blocking `connection` can be read from (or written to)."""
    loop, event = asyncio.get_running_loop(), asyncio.Event()
    watch, forget = (
        (loop.add_writer, loop.remove_writer) if write else (loop.add_reader, loop.remove_reader)
    )
    watch(connection, event.set)
    try:
        await event.wait()
    finally:
        forget(connection)
