"""The analyst: a service that is handed evidence files, and answers with findings or to whoever looks at packets.

It runs under its own user where it was started as root, opens no file by name that a request could choose, and
outlives whatever tshark does. Single-threaded on purpose, because it forks (see `child`).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import socket
import stat
import struct
from collections.abc import AsyncIterator, Collection, Mapping

from tripshark.analysis.check import prove
from tripshark.analysis.dissect import Bounds, dissect, find_tshark, version
from tripshark.analysis.reading import Reading
from tripshark.analysis.talk import MAX_QUESTION, SESSION, VERSION, ready, while_there
from tripshark.errors import BadInput, Denied, Permanent, Transient, TripsharkError
from tripshark.model.alert import Json
from tripshark.model.finding import Findings, Question

_ASK_S = 10.0  # for the whole question to arrive, and for the answer to be taken
_MAX_WAITING = 64  # connections at once; the next is told to come back


class Analyst:
    """Answers on one listening socket until cancelled."""

    def __init__(
        self, *, allowed_uids: Collection[int], bounds: Bounds | None = None, parallel: int = 1
    ) -> None:
        self._allowed = frozenset(allowed_uids)
        self._bounds = bounds or Bounds()
        self._turn = asyncio.Semaphore(parallel)
        self._reading = Reading(self._bounds.policy)
        self._open = 0
        self._tool: dict[tuple[str, int], str] = {}  # program and its mtime → its version

    async def tool(self) -> tuple[str, str]:
        """Path and version of tshark; looked for each time, so that it may be installed later.

        Raises `Permanent` when it is missing or does not run inside the sandbox.
        """
        program = find_tshark()
        key = (program, os.stat(program).st_mtime_ns)  # noqa: PTH116 - ns, in one call
        if key not in self._tool:
            empty = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
            try:
                name, _ = await version(program, empty, self._bounds)
            finally:
                os.close(empty)
            self._tool = {key: name}
        return program, self._tool[key]

    async def serve(self, listening: socket.socket) -> None:
        """Take connections until cancelled; no request can end it."""
        listening.setblocking(False)
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as connections:
            while True:
                try:
                    connection, _ = await loop.sock_accept(listening)
                except OSError:  # no descriptor left, or the peer is gone already
                    await asyncio.sleep(0.1)
                    continue
                connections.create_task(self._attend(connection))

    async def _attend(self, connection: socket.socket) -> None:
        self._open += 1
        try:
            with connection:
                answer = await self._answer(connection)
                with contextlib.suppress(OSError, TimeoutError):  # they left: nobody is owed it
                    async with asyncio.timeout(_ASK_S):
                        await _reply(connection, answer)
        finally:
            self._open -= 1

    async def _answer(self, connection: socket.socket) -> bytes:
        """The last that is said on this connection."""
        try:
            findings = await self._attempt(connection)
            return b"" if findings is None else json.dumps(findings.as_json()).encode()
        except TripsharkError as problem:
            return json.dumps(problem.as_json()).encode()
        except Exception as problem:  # noqa: BLE001 - one request must never end the service
            wrong = Permanent(f"the analysis failed: {problem!r:.300}", where="analyst")
            return json.dumps(wrong.as_json()).encode()

    async def _attempt(self, connection: socket.socket) -> Findings | None:
        peer = _peer_uid(connection)
        if peer not in self._allowed:
            raise Denied(f"user {peer} may not ask the analyst", where="analyst")
        if self._open > _MAX_WAITING:
            raise Transient("too many analyses are waiting", where="analyst", after=5.0)
        async with _first(connection) as (document, evidence):
            if document.get("version") == SESSION:
                await self._reading.attend(connection, document.get("open"), evidence)
                return None
            return await self._analysis(connection, document, evidence, peer)

    async def _analysis(
        self, connection: socket.socket, document: Mapping[str, Json], evidence: int, peer: int
    ) -> Findings:
        if document.get("version") != VERSION:
            raise BadInput(
                f"expected version {VERSION} or {SESSION}",
                where="analyst",
                hint="restart tripshark",
            )
        if "claims" in document:
            claims = Findings.from_json(document.get("claims"))
            async with while_there(connection), self._turn:
                program, _ = await self.tool()
                return await prove(
                    evidence,
                    claims,
                    program=program,
                    policy=self._bounds.policy,
                    wall_s=self._bounds.wall_s,
                )
        question = Question.from_json(document.get("question"))
        async with while_there(connection), self._turn:
            program, tool = await self.tool()
            return await dissect(
                evidence,
                question,
                program=program,
                tool=tool,
                bounds=self._bounds,
                apart=peer != os.geteuid(),
            )


async def _reply(connection: socket.socket, answer: bytes) -> None:
    """Send, say that this was all, and wait for them to close.

    What they still had to say is read away: a unix socket closed over unread bytes takes the answer with it.
    """
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(connection, answer)
    connection.shutdown(socket.SHUT_WR)
    while await loop.sock_recv(connection, 256 << 10):
        pass


def _peer_uid(connection: socket.socket) -> int:
    """Who is at the other end, by the kernel's word (`struct ucred`)."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int(struct.unpack("3i", credentials)[1])


@contextlib.asynccontextmanager
async def _first(connection: socket.socket) -> AsyncIterator[tuple[Mapping[str, Json], int]]:
    """The first line and the evidence's descriptor, which is closed afterwards. Raises `BadInput`."""
    descriptors: list[int] = []
    try:
        try:
            async with asyncio.timeout(_ASK_S):
                line = await _line(connection, descriptors)
        except TimeoutError as problem:
            raise BadInput("the question did not arrive in time", where="analyst") from problem
        if len(descriptors) != 1:
            raise BadInput("a question comes with exactly one descriptor", where="analyst")
        _check_evidence(descriptors[0])
        yield _decode(line), descriptors[0]
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


async def _line(connection: socket.socket, descriptors: list[int]) -> bytes:
    """Up to the first newline; descriptors are added to the list as they come, so that none leaks."""
    line = bytearray()
    while not line.endswith(b"\n"):
        try:
            piece, beside, flags, _ = connection.recvmsg(
                256 << 10, socket.CMSG_SPACE(16), socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            await ready(connection)
            continue
        except OSError as problem:
            raise BadInput("the connection broke", where="analyst") from problem
        for level, kind, data in beside:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                whole = len(data) - len(data) % 4
                descriptors += struct.unpack(f"{whole // 4}i", data[:whole])
        line += piece
        if not piece or flags & socket.MSG_CTRUNC or len(line) > MAX_QUESTION:
            raise BadInput("this is no question", where="analyst")
    return bytes(line)


def _decode(line: bytes) -> Mapping[str, Json]:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError) as problem:
        raise BadInput("the question is not JSON", where="analyst") from problem
    if not isinstance(document, dict):
        raise BadInput("the question is no object", where="analyst")
    return document


def _check_evidence(descriptor: int) -> None:
    """A plain file, open for reading only: what dissects it must not be able to change it."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise BadInput("the evidence is not a file", where="analyst")
    if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY:
        raise BadInput("the evidence must be opened read-only", where="analyst")
