"""Talks to the flight recorder over its unix socket: what the flow knows as `ports.Recorder`."""

from __future__ import annotations

import array
import asyncio
import mmap
import os
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from tripshark.errors import BadInput, Denied, NotFound, Permanent, Transient, TripsharkError
from tripshark.formats.wire import (
    MAX_MESSAGE,
    VERSION,
    Chunk,
    Frozen,
    Joiner,
    Json,
    field,
    from_json,
    next_seq,
    pack,
)
from tripshark.model.recording import Recording
from tripshark.model.target import Target, TargetKey

_FDS = 253  # the kernel's SCM_MAX_FD
_ASSIGNED, _REASON = (
    50,
    160,
)  # targets in a request, characters of each reason: it must fit into one packet
_ERRORS: dict[str, type[TripsharkError]] = {
    each.code: each for each in (BadInput, Denied, NotFound, Permanent, Transient)
}


class _Answer(NamedTuple):
    message: Json
    copies: list[memoryview]


def _mapped(fd: int) -> memoryview:
    """A sealed copy, mapped read-only; unmapped when nobody looks at it any more. Closes `fd`."""
    try:
        size = os.fstat(fd).st_size
        # private: kernels before 6.7 refuse a shared mapping of a write-sealed memfd
        return memoryview(mmap.mmap(fd, size, mmap.MAP_PRIVATE, mmap.PROT_READ))
    finally:
        os.close(fd)


class _Link:
    """One connection and the requests under way on it."""

    def __init__(self, path: str) -> None:
        self.loop = asyncio.get_running_loop()
        self.lost: Transient | None = None
        self._path = path
        self._asked = 0
        self._answers: dict[int, asyncio.Queue[_Answer | None]] = {}
        self._joiner = Joiner()
        self._copies: list[memoryview] = []
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            self._sock.connect(path)
        except OSError as problem:
            self._sock.close()
            raise Transient(
                f"the recorder is away: {problem.strerror}",
                where=path,
                hint="is `tripshark run` or `tripshark recorder` running?",
                after=1.0,
            ) from problem
        self.loop.add_reader(self._sock.fileno(), self._readable)

    def ask(self, what: str, **fields: object) -> tuple[int, asyncio.Queue[_Answer | None]]:
        """Send a request; its answers arrive in the queue, None when the connection is lost."""
        self._asked += 1
        id = self._asked
        queue: asyncio.Queue[_Answer | None] = asyncio.Queue()
        packets = pack({"t": what, "id": id, **fields})
        if len(packets) > 1:
            raise BadInput("a request longer than one packet", hint="ask for fewer at a time")
        self._answers[id] = queue
        self.tell(packets[0])
        return id, queue

    def tell(self, packet: bytes) -> None:
        """Send one packet. Requests are small and few: a full socket means the recorder hangs."""
        try:
            self._sock.send(packet)
        except OSError as problem:
            self.close(f"the recorder does not listen: {problem.strerror}")

    def forget(self, id: int) -> None:
        """Nobody waits for further answers to this request."""
        self._answers.pop(id, None)

    def close(self, why: str) -> None:
        if self.lost is not None:
            return
        self.lost = Transient(why, where=self._path, after=1.0)
        if not self.loop.is_closed():
            self.loop.remove_reader(self._sock.fileno())
        self._sock.close()
        for queue in self._answers.values():
            queue.put_nowait(None)

    def _readable(self) -> None:
        for _ in range(64):  # then others have their turn
            try:
                data, ancillary, flags, _ = self._sock.recvmsg(
                    MAX_MESSAGE, socket.CMSG_SPACE(_FDS * 4), socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                break
            except OSError as problem:
                self.close(f"the recorder went away: {problem.strerror}")
                break
            fds = array.array("i")
            for level, kind, payload in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
            self._copies.extend(_mapped(fd) for fd in fds)
            if not data:
                self.close("the recorder went away")
                break
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                self.close("the recorder cannot be understood: a packet that does not fit")
                break
            self._hand_out(data)

    def _hand_out(self, data: bytes) -> None:
        try:
            if (message := self._joiner.feed(data)) is None:
                return
            id = field(message, "id", int)
        except BadInput as problem:
            self.close(f"the recorder cannot be understood: {problem.message}")
            return
        copies, self._copies = self._copies, []
        if id == 0:  # not about one request: we are refused altogether
            for waiting in self._answers.values():
                waiting.put_nowait(_Answer(message, copies))
        elif (queue := self._answers.get(id)) is not None:  # else: nobody waits any more
            queue.put_nowait(_Answer(message, copies))


class RecorderClient:
    """The flight recorder behind `path`. Connects when first needed, and again when it was lost.

    Frozen histories belong to the connection: `close` gives all of them back. A `follow` survives a restart of
    the recorder; whatever it missed meanwhile stands in the `gaps` and `drops` of the copies that come after.
    """

    def __init__(self, path: str, *, timeout_s: float = 10.0) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._link: _Link | None = None
        self._connecting = asyncio.Lock()

    async def targets(self) -> tuple[Target, ...]:
        """Everything recorded now, and tombstones; identities are empty."""
        answer = await self._call("targets")
        return from_json(tuple[Target, ...], answer.message.get("targets"))

    async def inode_of(self, pid: int) -> int | None:
        """The network namespace's inode of a host pid, None when there is no such process."""
        answer = await self._call("inode", pid=pid)
        return field(answer.message, "inode", int) if answer.message.get("inode") else None

    async def attach(self, pid: int) -> TargetKey:
        """Record the namespace of a process until it ends; the key of the target it already is, if it is one."""
        answer = await self._call("attach", pid=pid)
        return TargetKey(field(answer.message, "key", str))

    async def record(self, assign: Mapping[TargetKey, Recording]) -> None:
        """From now on record these so, also after a restart of the recorder. Keys that are gone are skipped.

        `off` closes a target's rings and forgets its history; `headers` cuts the payloads out of it.
        """
        keys = list(assign)
        for n in range(0, len(keys), _ASSIGNED):
            told = {
                key: {
                    "mode": assign[key].mode.value,
                    "weight": assign[key].weight,
                    "reason": assign[key].reason[:_REASON],
                }
                for key in keys[n : n + _ASSIGNED]
            }
            await self._call("record", assign=told)

    async def stats(self) -> dict[str, object]:
        """Memory, wake-ups, losses of the recorder as a whole (see `programs.recorder`)."""
        return (await self._call("stats")).message

    async def set_filter(self, *, ethernet: bytes, raw: bytes, snaplen: int) -> int:
        """Swap the kernel filter of every ring: cBPF for frames that begin with Ethernet or with IP. All or none.

        The programs return `snaplen` for what is to be recorded; empty ones record everything. Returns how many
        rings have it. Raises `BadInput` when the kernel does not take it.
        """
        answer = await self._call(
            "filter", ethernet=ethernet.hex(), raw=raw.hex(), snaplen=snaplen
        )
        return field(answer.message, "rings", int)

    async def freeze(self, keys: Sequence[TargetKey]) -> tuple[Frozen, ...]:
        """Copy the history of these targets out. Raises `NotFound` for a target that is gone."""
        link = await self._connected()
        id, queue = link.ask("freeze", keys=list(keys))
        try:
            answers = [await self._answer(link, queue) for _ in keys]
        finally:
            link.forget(id)
        return tuple(
            from_json(Frozen, each.message.get("frozen"), each.copies) for each in answers
        )

    async def follow(
        self, frozen: Frozen, *, until_ns: int, max_bytes: int
    ) -> AsyncIterator[Chunk]:
        """What comes after `frozen`, seamlessly. Ends by itself; closing the iterator ends it early.

        At least once a second a chunk comes, if only to say that there was nothing (`copies` is empty then).
        """
        positions = {each.ring: next_seq(each) for each in frozen.copies}
        key = frozen.target.key
        del frozen  # its copies may be large, and are needed no more
        left = max_bytes
        first: _Link | None = None
        while True:
            link = await self._connected_again()
            restarted, first = first not in (None, link), link
            id, queue = link.ask(
                "follow",
                key=key,
                positions=positions,
                until_ns=until_ns,
                max_bytes=left,
            )
            done = 0
            try:
                while (answer := await self._answer_or_lost(queue)) is not None:
                    chunk = from_json(Chunk, answer.message.get("chunk"), answer.copies)
                    number = field(answer.message, "n", int)
                    done = field(answer.message, "bytes", int)
                    del answer  # the copies live as long as whoever takes the chunk wants
                    positions |= {
                        each.ring: next_seq(each) for each in chunk.copies if each.blocks
                    }
                    ended = bool(chunk.ended)
                    if restarted:
                        chunk, restarted = replace(chunk, restarted=True), False
                    yield chunk
                    del chunk
                    link.tell(pack({"t": "ack", "id": 0, "follow": id, "n": number})[0])
                    if ended:
                        return
            finally:
                link.forget(id)
                if link.lost is None:
                    link.tell(pack({"t": "stop", "id": 0, "follow": id})[0])
            left = max(1, left - done)

    async def release(self, frozen: Frozen) -> None:
        """Give the copy's memory back. The mappings vanish when the last reference to `frozen` does."""
        if self._link is not None and self._link.lost is None:
            await self._call("release", handle=frozen.handle)

    def close(self) -> None:
        """Leave the recorder; it takes back everything this client had frozen."""
        if self._link is not None:
            self._link.close("closed")
            self._link = None

    async def _connected(self) -> _Link:
        """The connection, after both sides have said which language they speak."""
        async with self._connecting:
            link = self._link
            if link is not None and link.lost is None:
                if link.loop is asyncio.get_running_loop():
                    return link
                link.close("another event loop")
            link = _Link(self._path)
            try:
                _, queue = link.ask("hello", version=VERSION)
                await self._answer(link, queue)  # another version is refused by the recorder
            except BaseException:
                link.close("no greeting")
                raise
            self._link = link
            return link

    async def _connected_again(self) -> _Link:
        """The connection; for a while a recorder that is being restarted is waited for."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout_s
        while True:
            try:
                return await self._connected()
            except Transient:
                if loop.time() > deadline:
                    raise
            await asyncio.sleep(0.05)

    async def _call(self, what: str, **fields: object) -> _Answer:
        link = await self._connected()
        id, queue = link.ask(what, **fields)
        try:
            return await self._answer(link, queue)
        finally:
            link.forget(id)

    async def _answer(self, link: _Link, queue: asyncio.Queue[_Answer | None]) -> _Answer:
        answer = await self._answer_or_lost(queue)
        if answer is None:
            raise link.lost or Transient("the recorder went away", where=self._path)
        return answer

    async def _answer_or_lost(self, queue: asyncio.Queue[_Answer | None]) -> _Answer | None:
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await queue.get()
        except TimeoutError as problem:
            raise Transient(
                f"the recorder did not answer within {self._timeout_s:g} s", where=self._path
            ) from problem
        if answer is not None and answer.message.get("t") == "error":
            kind = _ERRORS.get(str(answer.message.get("code")), Permanent)
            raise kind(
                str(answer.message.get("message", "")),
                where=str(answer.message.get("where", "")),
                hint=str(answer.message.get("hint", "")),
            )
        return answer
