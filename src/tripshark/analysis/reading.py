"""Files that are being looked at: the analyst's side of version 2 of `talk`."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from dataclasses import replace
from typing import Final

import msgspec

from tripshark.analysis import memory
from tripshark.analysis.sandbox import Policy
from tripshark.analysis.session import Session
from tripshark.analysis.sharkd import read_request
from tripshark.analysis.talk import MAX_ASKED, Opening, read_opening, while_there
from tripshark.errors import BadInput, Permanent, TooMany, Transient, TripsharkError
from tripshark.model.alert import Json

_MOST: Final = 16  # files at once, whatever clients are told
_CPU_S: Final = 3600  # of one sharkd, over all its requests; each has a limit of its own
_LONGEST_IDLE_S: Final = 3600.0
_SEND_S: Final = 30.0


class Reading:
    """Opens files in sandboxes and answers about them until their clients leave."""

    def __init__(self, policy: Policy) -> None:
        self._policy = replace(policy, cpu_s=max(policy.cpu_s, _CPU_S))
        self._open = 0
        self._loading = asyncio.Semaphore(2)

    async def attend(self, connection: socket.socket, said: object, evidence: int) -> None:
        """One client. Raises what is to be told instead of an opening, and what ended the session."""
        try:
            opening = read_opening(said)
        except (msgspec.MsgspecError, TypeError) as problem:
            raise BadInput(f"this opens nothing: {problem}", where="analyst") from problem
        if self._open >= _MOST:
            raise TooMany("too many files are being looked at", where="analyst", after=10.0)
        self._open += 1
        try:
            await self._attend(connection, opening, evidence)
        finally:
            self._open -= 1

    async def _attend(self, connection: socket.socket, opening: Opening, evidence: int) -> None:
        async with while_there(connection), self._loading:
            session = await self._load(opening, evidence)
        lines = _Lines(connection)
        try:
            await _say(connection, {"opened": session.facts.as_json()})
            idle_s = min(max(opening.idle_s, 1.0), _LONGEST_IDLE_S)
            while (line := await lines.next(idle_s, session.output)) is not None:
                if session.is_gone:  # it ended in between: the client opens it anew
                    return
                await self._answer(connection, session, line)
        finally:
            session.close()

    async def _load(self, opening: Opening, evidence: int) -> Session:
        size = os.fstat(evidence).st_size
        if not size:
            raise Permanent("the file is empty", where="analyst")
        policy = replace(
            self._policy, memory_bytes=min(self._policy.memory_bytes, opening.memory_bytes)
        )
        facts = None
        if size > opening.whole_bytes:
            held, facts = await memory.window(evidence, size, opening, policy)
        else:
            held = await memory.copied(evidence, size)
        try:
            return await Session.load(held, facts, policy=policy)
        finally:
            os.close(held)

    async def _answer(self, connection: socket.socket, session: Session, line: bytes) -> None:
        """Raises when there is no more to expect of this session."""
        try:
            asked = read_request(line)
            async with while_there(connection):  # a request that nobody waits for ends the session
                answer = await session.answer(asked)
        except TripsharkError as problem:
            if session.is_gone:
                raise
            await _say(connection, {"error": {**problem.as_json()["error"]}})
            return
        await _say(connection, {"answer": answer})


class _Lines:
    """What a client says, line by line."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._rest = bytearray()

    async def next(self, idle_s: float, output: int) -> bytes | None:
        """None when they have left or said nothing for so long, or when the dissector has ended: nobody asked it,
        so there is nothing else that its `output` could say. Raises `BadInput` for an endless line.
        """
        loop = asyncio.get_running_loop()

        def ended() -> None:
            loop.remove_reader(output)
            scope.reschedule(loop.time())

        try:
            async with asyncio.timeout(idle_s) as scope:
                loop.add_reader(output, ended)
                try:
                    while b"\n" not in self._rest:
                        piece = await loop.sock_recv(self._connection, MAX_ASKED)
                        if not piece:
                            return None
                        self._rest += piece
                        if len(self._rest) > MAX_ASKED:
                            raise BadInput("this is no request", where="analyst")
                finally:
                    loop.remove_reader(output)
        except (TimeoutError, OSError):
            return None
        line, _, rest = bytes(self._rest).partition(b"\n")
        self._rest = bytearray(rest)
        return line


async def _say(connection: socket.socket, document: dict[str, Json]) -> None:
    line = json.dumps(document, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
    try:
        async with asyncio.timeout(_SEND_S):
            await asyncio.get_running_loop().sock_sendall(connection, line)
    except TimeoutError as problem:
        raise Transient("the answer was not taken in time", where="analyst") from problem
