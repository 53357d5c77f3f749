"""What client and analyst say to each other: a question and its one answer, or a file that is looked at for a while.

Transport: a `SOCK_STREAM` unix socket, one connection for either. The client's first line is JSON with the evidence
file (opened read-only) beside its first byte (SCM_RIGHTS).

Version 1, `{"version": 1, "question": {…}}`: one JSON document until the end, findings or the one error shape. With
`claims` (findings that hold claims alone) in the place of `question` the same claims come back, checked.
Whoever closes early ends the analysis.

Version 2, `{"version": 2, "open": {…}}` (`Opening`): one line back, `{"opened": {…}}` or the error shape and the end.
Then a line of JSON for each request (`sharkd.Request`) and one for its answer, `{"answer": {…}}` or the error shape,
one at a time, until the client closes, asks nothing for `idle_s`, or the dissector is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import msgspec

from tripshark.errors import Transient

VERSION = 1
SESSION = 2
MAX_QUESTION = 4 << 20
MAX_ANSWER = 64 << 20
MAX_ASKED = 64 << 10  # one request of a session
MAX_SAID = 64 << 20  # one answer of a session
MIB = 1 << 20


class Opening(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """How a file is opened to be looked at."""

    at_ns: int = 0  # a window of a large file is around this moment…
    at_frame: int = 0  # … or the one that holds this frame
    around_ns: int = 0  # T0: where the windows are counted from; 0: the file's beginning
    whole_bytes: int = 50_000_000  # a larger file is cut
    window_bytes: int = 20_000_000
    idle_s: float = 300.0
    memory_bytes: int = 2048 * MIB


_OPENING = msgspec.json.Decoder(Opening)


def read_opening(document: object) -> Opening:
    """Raises `msgspec.MsgspecError`."""
    return _OPENING.decode(msgspec.json.encode(document))


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


@contextlib.asynccontextmanager
async def while_there(connection: socket.socket) -> AsyncIterator[None]:
    """Give up as soon as whoever asked closes (or says more, which they may not)."""
    loop = asyncio.get_running_loop()

    def gone() -> None:
        loop.remove_reader(connection)
        scope.reschedule(loop.time())

    try:
        async with asyncio.timeout(None) as scope:
            loop.add_reader(connection, gone)
            try:
                yield
            finally:
                loop.remove_reader(connection)
    except TimeoutError as problem:
        raise Transient("whoever asked has gone", where="analyst") from problem
