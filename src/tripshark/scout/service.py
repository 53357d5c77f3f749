"""Answers the scout's clients. One that is hostile or slow hurts nobody but itself."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator

from tripshark.errors import BadInput, Denied, Permanent, Transient, TripsharkError
from tripshark.formats.wire import MAX_MESSAGE, Json, field, pack, to_json, unpack
from tripshark.model.pod import Sandbox
from tripshark.scout.language import PAGE, VERSION, WAIT_S
from tripshark.scout.scout import Scout

log = logging.getLogger(__name__)

_CLIENTS = 32
_GREETING_S = 10.0  # a connection that does not say hello by then is closed
_STUCK_S = 30.0  # a client that takes nothing for so long is let go


class Service:
    """The socket and everybody connected to it. `admit` says whom the kernel vouches for."""

    def __init__(
        self,
        scout: Scout,
        listener: socket.socket,
        *,
        admit: Callable[[socket.socket], bool],
        started_ns: int,
    ) -> None:
        self._scout = scout
        self._listener = listener
        self._admit = admit
        self._started_ns = started_ns
        self._clients = 0
        listener.setblocking(False)

    async def run(self) -> None:
        """For ever."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            while True:
                try:
                    sock, _ = await loop.sock_accept(self._listener)
                except OSError as problem:  # it left again, or there are no descriptors left
                    log.warning("a client could not be let in: %s", problem)
                    await asyncio.sleep(0.1)
                    continue
                if self._clients >= 2 * _CLIENTS:
                    sock.close()
                    continue
                self._clients += 1
                tasks.create_task(self._serve(sock))

    async def _serve(self, sock: socket.socket) -> None:
        refusal: TripsharkError | None = None
        if not self._admit(sock):
            hint = "run as the scout's user or in the socket's group"
            refusal = Denied("the scout does not serve this user", hint=hint)
        elif self._clients > _CLIENTS:
            refusal = Transient("the scout serves too many clients")
        try:
            with sock:
                await self._converse(sock, refusal)
        except (OSError, TimeoutError):
            return  # it left, or takes nothing
        except Exception:  # a bug met at one client must not end the others
            log.exception("a client was let go")
        finally:
            self._clients -= 1

    async def _converse(self, sock: socket.socket, refusal: TripsharkError | None) -> None:
        loop = asyncio.get_running_loop()
        greeted = False
        while True:
            async with asyncio.timeout(None if greeted else _GREETING_S):
                data = await loop.sock_recv(sock, MAX_MESSAGE + 1)
            if not data:
                return
            id = 0
            try:
                if (
                    refusal is not None
                ):  # only now: closing with a request unread would take it away
                    raise refusal
                request = unpack(data)
                id = field(request, "id", int)
                what = field(request, "t", str)
                if not greeted and what != "hello":
                    raise BadInput("say hello first")
                async for answer in self._answers(sock, what, request):
                    await _send(sock, {"t": what, "id": id, **answer})
                greeted = True
            except TripsharkError as problem:
                error = problem.as_json()["error"]
                await _send(sock, {"t": "error", "id": id, **error})
                if not greeted:
                    return

    async def _answers(self, sock: socket.socket, what: str, request: Json) -> AsyncIterator[Json]:
        match what:
            case "hello":
                version = field(request, "version", int)
                if version != VERSION:
                    raise Permanent(
                        f"the scout speaks version {VERSION}, the client {version}",
                        hint="after an upgrade restart both",
                    )
                yield {"version": VERSION, "pid": os.getpid(), "started_ns": self._started_ns}
            case "sandboxes":
                sandboxes = self._scout.book.sandboxes()
                edition = self._scout.book.edition
                for page, more in _pages(sandboxes):
                    yield {"edition": edition, "sandboxes": page, "more": more}
            case "find":
                found = await self._scout.find(field(request, "container", str))
                yield {"sandbox": None if found is None else to_json(found)}
            case "changed":
                edition = field(request, "edition", int)
                await self._wait(sock, edition)
                yield {"edition": self._scout.book.edition}
            case "state":
                yield {
                    "state": self._scout.state() | {"clients": self._clients, "pid": os.getpid()}
                }
            case _:
                raise BadInput(f"no request is called {what[:40]!r}")

    async def _wait(self, sock: socket.socket, edition: int) -> None:
        """For another edition, as long as the client is there and says nothing."""
        loop = asyncio.get_running_loop()
        left = loop.create_future()

        def readable() -> None:
            loop.remove_reader(sock.fileno())
            if not left.done():
                left.set_result(None)

        loop.add_reader(sock.fileno(), readable)
        try:
            async with asyncio.TaskGroup() as tasks:
                news = tasks.create_task(self._scout.book.wait(edition, WAIT_S))
                await asyncio.wait({news, left}, return_when=asyncio.FIRST_COMPLETED)
                news.cancel()
        finally:
            loop.remove_reader(sock.fileno())


def _pages(sandboxes: tuple[Sandbox, ...]) -> Iterator[tuple[list[Json], bool]]:
    """Sandboxes as JSON in portions that a message can hold, and whether more follow."""
    page: list[Json] = []
    size = 0
    for each in sandboxes:
        said = to_json(each)
        length = len(json.dumps(said))
        if page and size + length > PAGE:
            yield page, True
            page, size = [], 0
        page.append(said)
        size += length
    yield page, False


async def _send(sock: socket.socket, message: Json) -> None:
    loop = asyncio.get_running_loop()
    for packet in pack(message):
        async with asyncio.timeout(_STUCK_S):
            await loop.sock_sendall(sock, packet)
