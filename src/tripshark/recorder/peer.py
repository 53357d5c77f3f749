"""One client of the recorder: what it may, what it holds, and what still has to be sent to it."""

from __future__ import annotations

import array
import collections
import select
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tripshark.errors import TripsharkError
from tripshark.formats.wire import MAX_MESSAGE, Json, pack
from tripshark.recorder import kernel
from tripshark.recorder.copies import Copy
from tripshark.recorder.loop import Loop

STUCK_S = 30.0  # a client that takes nothing for so long is let go, and what it held with it


def may_connect(sock: socket.socket, *, uids: Sequence[int], gid: int) -> bool:
    """Whether the kernel says that the other side is somebody we serve."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    _, uid, primary = struct.unpack("=iII", raw)
    if uid in uids:
        return True
    if gid < 0:
        return False
    try:
        groups = sock.getsockopt(socket.SOL_SOCKET, kernel.SO_PEERGROUPS, 1024)
    except OSError:  # more than 256 of them
        groups = b""
    return gid == primary or gid in array.array("I", groups)


@dataclass(slots=True, kw_only=True)
class Held:
    """A frozen history that a client has not given back."""

    copies: list[Copy]

    def drop(self) -> None:
        for each in self.copies:
            each.drop()
        self.copies.clear()


@dataclass(slots=True)
class _Packet:
    data: bytes
    copies: list[Copy] = field(default_factory=list)


class Peer:
    """A connection. Nothing here ever waits for the other side."""

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        *,
        request: Callable[[Peer, bytes], None],
        closed: Callable[[Peer], None],
    ) -> None:
        self.refusal: TripsharkError | None = None  # why it is not served at all
        self.greeted = False
        self.open = True
        self.held: dict[int, Held] = {}
        self._loop = loop
        self._sock = sock
        self._request = request
        self._closed = closed
        self._out: collections.deque[_Packet] = collections.deque()
        self._progress = 0
        sock.setblocking(False)
        loop.watch(sock.fileno(), self._ready)

    def send(self, message: Json, copies: Sequence[Copy] = ()) -> None:
        """Send a message with the descriptors of the copies that are not empty."""
        packets = [_Packet(each) for each in pack(message)]
        packets[0].copies = [each.hold() for each in copies if each.fd >= 0]
        if not self.open:
            _let_go(packets)
            return
        idle = not self._out
        self._out.extend(packets)
        if idle:
            self._flush()

    def refuse(self, id: int, problem: TripsharkError) -> None:
        self.send({"t": "error", "id": id, **problem.as_json()["error"]})

    @property
    def listening(self) -> bool:
        """Whether it has taken everything sent so far."""
        return not self._out

    def _ready(self, events: int) -> None:
        if events & (select.EPOLLHUP | select.EPOLLERR):  # nobody is there to read an answer
            self.close()
            return
        if events & select.EPOLLOUT:
            self._flush()
        if events & select.EPOLLIN and self.open:
            self._read()

    def _read(self) -> None:
        """One request at a time, and none while an answer is not taken: a pushing client only waits for itself."""
        if self._out:
            return
        try:
            data, _, flags, _ = self._sock.recvmsg(MAX_MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if not data or flags & socket.MSG_TRUNC:
            self.close()
            return
        self._request(self, data)

    def _flush(self) -> None:
        while self._out and self.open:
            packet = self._out[0]
            fds = array.array("i", [each.fd for each in packet.copies])
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)] if fds else []
            try:
                self._sock.sendmsg([packet.data], rights, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                self._wait()
                return
            except OSError:
                self.close()
                return
            self._progress += 1
            self._out.popleft()
            _let_go([packet])
        if self.open:
            self._loop.watch(self._sock.fileno(), self._ready)

    def _wait(self) -> None:
        """Go on when it reads; give up if it does not."""
        before = self._progress
        self._loop.watch(self._sock.fileno(), self._ready, select.EPOLLOUT)

        def check() -> None:
            if self.open and self._out and self._progress == before:
                self.close()

        self._loop.later(STUCK_S, check)

    def close(self) -> None:
        """Let the client go, and everything it held."""
        if not self.open:
            return
        self.open = False
        self._loop.unwatch(self._sock.fileno())
        self._sock.close()
        _let_go(self._out)
        self._out.clear()
        for each in self.held.values():
            each.drop()
        self.held.clear()
        self._closed(self)


def _let_go(packets: collections.deque[_Packet] | list[_Packet]) -> None:
    for packet in packets:
        for each in packet.copies:
            each.drop()
        packet.copies.clear()
