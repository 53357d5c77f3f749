"""Looks at packets through the analyst: a warm session for each file that is being read, opened again when it is lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from tripshark.analysis.client import raised
from tripshark.analysis.talk import MAX_SAID, SESSION, Opening, ready
from tripshark.errors import Permanent, TooMany, Transient
from tripshark.model.alert import Json

Key = tuple[str, str, str]  # incident, file, and a tag that is another one when the file is
Open = Callable[[], Awaitable[int]]

_OPEN_S: Final = 180.0
_ANSWER_S: Final = 60.0
_READ: Final = 1 << 18
_QUEUE: Final = 32  # requests about one file that wait for each other
_SHAPES: Final = 64  # files whose windows are remembered


@dataclass(frozen=True, slots=True)
class Told:
    """What an answer says, and what is known of the file it is about."""

    answer: Mapping[str, Json]
    frames: int
    first_ns: int
    last_ns: int
    window: Mapping[str, Json] | None


@dataclass(slots=True)
class _Kept:
    """One session, opened by whoever needs it first."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    connection: socket.socket | None = None
    facts: Mapping[str, Json] = field(default_factory=dict)
    used: float = 0.0
    waiting: int = 0

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None


@dataclass(frozen=True, slots=True)
class _Shape:
    """Where the windows of a file are; none for a file that is read as a whole."""

    windows: tuple[tuple[int, int], ...]  # first frame and last moment of each
    around: int

    @classmethod
    def of(cls, facts: Mapping[str, Json]) -> _Shape:
        windows: list[tuple[int, int]] = []
        told = facts.get("windows")
        for each in told if isinstance(told, list) else ():
            match each:
                case [int(first), int(), int(), int(last_ns)]:
                    windows.append((first, last_ns))
                case _:
                    pass
        around = facts.get("around")
        return cls(tuple(windows), around if isinstance(around, int) else 0)

    def holding(self, at_ns: int, at_frame: int) -> int:
        """The first frame of the window with that frame or moment; as `formats.pcapng_window` has it."""
        if not self.windows:
            return 1
        if at_frame:
            before = [first for first, _ in self.windows if first <= at_frame]
            return before[-1] if before else self.windows[0][0]
        if at_ns:
            found = (first for first, last_ns in self.windows if last_ns >= at_ns)
            return next(found, self.windows[-1][0])
        return self.windows[min(self.around, len(self.windows) - 1)][0]


class Sessions:
    """`web.parts.Dissection`: sessions by file, shared by all who read it, the longest unused making room."""

    def __init__(
        self,
        socket_path: str,
        *,
        most: int = 4,
        idle_s: float = 300.0,
        whole_bytes: int = 50_000_000,
        window_bytes: int = 20_000_000,
        memory_bytes: int = 2 << 30,
    ) -> None:
        self._socket_path = socket_path
        self._most = most
        self._opening = Opening(
            idle_s=idle_s,
            whole_bytes=whole_bytes,
            window_bytes=window_bytes,
            memory_bytes=memory_bytes,
        )
        self._kept: dict[tuple[Key, int], _Kept] = {}  # by file and the first frame of its window
        self._shapes: OrderedDict[Key, _Shape] = OrderedDict()

    async def ask(
        self,
        key: Key,
        open: Open,
        asked: Mapping[str, Json],
        *,
        t0_ns: int = 0,
        at_ns: int = 0,
        at_frame: int = 0,
    ) -> Told:
        """The answer to one request (`sharkd.Request`) about the file that `open` gives a descriptor of.

        A session that was lost since the last request is opened again; one that is lost by this request is told as
        `Transient`. Raises also `BadInput`, `NotFound`, `Permanent`, `TooMany`, and what `open` raises.
        """
        while True:
            place = (key, self._window(key, at_ns, at_frame))
            kept = self._kept.get(place)
            if kept is None:
                self._make_room()
                kept = self._kept[place] = _Kept()
            if kept.waiting >= _QUEUE:
                raise TooMany("too many requests wait for this file", after=2.0)
            kept.waiting += 1
            try:
                async with kept.turn:
                    if place[1] == self._window(key, at_ns, at_frame):
                        opening = msgspec.structs.replace(
                            self._opening, around_ns=t0_ns, at_ns=at_ns, at_frame=at_frame
                        )
                        return await self._ask(kept, open, asked, opening, place)
            finally:
                kept.waiting -= 1
                kept.used = asyncio.get_running_loop().time()
                if kept.connection is None and not kept.waiting:
                    self._kept = {at: each for at, each in self._kept.items() if each is not kept}
            # whoever was first learnt where the windows of this file are: look again for the right one

    def _window(self, key: Key, at_ns: int, at_frame: int) -> int:
        """The first frame of the window that is meant; 0 as long as nobody knows where windows are."""
        shape = self._shapes.get(key)
        return 0 if shape is None else shape.holding(at_ns, at_frame)

    def close(self) -> None:
        """End every session."""
        for each in self._kept.values():
            each.close()
        self._kept.clear()

    def _make_room(self) -> None:
        """Raises `TooMany` when every session is in use."""
        for place, kept in sorted(self._kept.items(), key=lambda each: each[1].used):
            if len(self._kept) < self._most:
                return
            if not kept.waiting:
                kept.close()
                del self._kept[place]
        if len(self._kept) >= self._most:
            raise TooMany(
                "too many files are being read at once",
                hint="reading.sessions bounds how many",
                after=5.0,
            )

    async def _ask(
        self,
        kept: _Kept,
        open: Open,
        asked: Mapping[str, Json],
        opening: Opening,
        place: tuple[Key, int],
    ) -> Told:
        try:
            document = None
            if kept.connection is not None:  # it may have ended meanwhile: idle, or killed
                with contextlib.suppress(_Lost):
                    document = await self._exchange(kept, asked)
            if document is None:
                kept.close()
                await self._open(kept, open, opening)
                self._learn(kept, place)
                document = await self._exchange(kept, asked)
        except _Lost as problem:
            kept.close()
            raise Transient(
                "the packets are not at hand any more",
                where=self._socket_path,
                hint="ask again: the file is opened anew",
                after=1.0,
            ) from problem
        except BaseException:  # half an answer would be taken for the next one's
            kept.close()
            raise
        try:
            raised(dict(document))
        except Transient as problem:
            kept.close()
            problem.after = problem.after or 1.0
            raise
        answer = document.get("answer")
        if not isinstance(answer, dict):
            kept.close()
            raise Permanent("the analyst's answer cannot be read", where=self._socket_path)
        return _told(answer, kept.facts)

    def _learn(self, kept: _Kept, place: tuple[Key, int]) -> None:
        """Where the windows of a file are, and which of them this session is."""
        key, first = place
        self._shapes[key] = _Shape.of(kept.facts)
        self._shapes.move_to_end(key)
        while len(self._shapes) > _SHAPES:
            self._shapes.popitem(last=False)
        window = kept.facts.get("window")
        now = window.get("first") if isinstance(window, dict) else 1
        if first == 0 and isinstance(now, int):
            self._kept.pop(place, None)
            self._kept[key, now] = kept

    async def _open(self, kept: _Kept, open: Open, opening: Opening) -> None:
        evidence = await open()
        try:
            kept.connection = connection = await self._connect()
            first = {"version": SESSION, "open": msgspec.to_builtins(opening)}
            line = json.dumps(first).encode() + b"\n"
            await ready(connection, write=True)
            sent = socket.send_fds(connection, [line[:1]], [evidence])
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused unread
                await asyncio.get_running_loop().sock_sendall(connection, line[sent:])
            document = await self._line(connection, _OPEN_S)
        finally:
            os.close(evidence)
        raised(dict(document))
        facts = document.get("opened")
        if not isinstance(facts, dict):
            raise Permanent("the analyst's answer cannot be read", where=self._socket_path)
        kept.facts = facts

    async def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            await _connected(connection, self._socket_path)
        except OSError as problem:
            connection.close()
            raise Transient(
                f"the analyst cannot be reached: {problem.strerror}",
                where=self._socket_path,
                hint="see whether tripshark run (or its analyst) is running",
                after=5.0,
            ) from problem
        except BaseException:
            connection.close()
            raise
        return connection

    async def _exchange(self, kept: _Kept, asked: Mapping[str, Json]) -> Mapping[str, Json]:
        connection = kept.connection
        if connection is None:
            raise _Lost
        try:
            async with asyncio.timeout(_ANSWER_S):
                line = json.dumps(asked).encode() + b"\n"
                await asyncio.get_running_loop().sock_sendall(connection, line)
        except OSError as problem:  # also a time-out
            raise _Lost from problem
        return await self._line(connection, _ANSWER_S)

    async def _line(self, connection: socket.socket, wall_s: float) -> Mapping[str, Json]:
        """Raises `_Lost` where there is none, `Transient` where it takes too long."""
        loop, said = asyncio.get_running_loop(), bytearray()
        try:
            async with asyncio.timeout(wall_s):
                while not said.endswith(b"\n"):
                    piece = await loop.sock_recv(connection, _READ)
                    if not piece:
                        break
                    said += piece
                    if len(said) > MAX_SAID:
                        raise Permanent(
                            "the analyst's answer is too long", where=self._socket_path
                        )
        except TimeoutError as problem:
            raise Transient(
                f"no answer within {wall_s:g} s", where=self._socket_path, after=5.0
            ) from problem
        except OSError as problem:
            raise _Lost from problem
        if not said:
            raise _Lost
        try:
            document = json.loads(said)
        except (ValueError, RecursionError) as problem:
            raise _Lost from problem
        if not isinstance(document, dict):
            raise _Lost
        return document


async def _connected(connection: socket.socket, path: str) -> None:
    while True:
        try:
            return connection.connect(path)
        except BlockingIOError:  # its queue is full
            await asyncio.sleep(0.05)


class _Lost(Exception):
    """The session has ended."""


def _told(answer: Mapping[str, Json], facts: Mapping[str, Json]) -> Told:
    def whole(name: str) -> int:
        value = facts.get(name)
        return value if isinstance(value, int) and value >= 0 else 0

    window = facts.get("window")
    return Told(
        answer=answer,
        frames=whole("frames"),
        first_ns=whole("first_ns"),
        last_ns=whole("last_ns"),
        window=window if isinstance(window, dict) else None,
    )
