"""What outlives the recorder: descriptors and facts in the hands of a process that does nothing else.

Worker and holder talk over a socket pair, one JSON object per packet: `put {id, meta}` with a descriptor or
none, `tally {facts}` for numbers that change all the time, `drop {id}`, `ready {…}`, `failed {…}`; when a worker
starts, the holder puts everything and says `end`.
"""

from __future__ import annotations

import array
import json
import os
import socket
from typing import Any, NamedTuple

Json = dict[str, Any]

_MAX = 1 << 17  # bytes of one fact
_TALLIES = 256  # in one packet


class Item(NamedTuple):
    """One thing kept: facts about it, and its descriptor or -1."""

    id: str
    meta: Json
    fd: int


def send(sock: socket.socket, message: Json, fd: int = -1) -> None:
    """One packet. Raises `OSError` when the other side is gone."""
    data = json.dumps(message, separators=(",", ":")).encode()
    if len(data) > _MAX:
        raise OSError(f"{message.get('id')} is too long to keep")
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))] if fd >= 0 else []
    sock.sendmsg([data], rights)


def receive(sock: socket.socket) -> tuple[Json, int] | None:
    """The next packet and its descriptor or -1; None when the other side is gone."""
    try:
        data, ancillary, _, _ = sock.recvmsg(_MAX, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
    except ConnectionError:
        return None
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[:4])
    if not data:
        return None
    return json.loads(data), fds[0] if fds else -1


class Keeper:
    """The worker's side: what it wants to find again."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._told: dict[str, str] = {}

    def restore(self) -> list[Item]:
        """Everything the worker before us left, in the order it was put. Raises `OSError` without a holder."""
        items: list[Item] = []
        while (got := receive(self.sock)) is not None:
            message, fd = got
            if message.get("op") == "end":
                return items
            self._told[message["id"]] = json.dumps(message["meta"])
            items.append(Item(message["id"], message["meta"], fd))
        raise OSError("the holder is gone")

    def put(self, id: str, meta: Json, fd: int = -1) -> None:
        """Keep it, or keep newer facts about it (then without its descriptor). Costs nothing if nothing changed."""
        text = json.dumps(meta)
        if fd < 0 and self._told.get(id) == text:
            return
        self._told[id] = text
        send(self.sock, {"op": "put", "id": id, "meta": meta}, fd)

    def tally(self, facts: dict[str, Json]) -> None:
        """Newer numbers for some of the facts about each of these: what `put` would do at ten times the cost."""
        ids = list(facts)
        for n in range(0, len(ids), _TALLIES):
            some = {id: facts[id] for id in ids[n : n + _TALLIES]}
            send(self.sock, {"op": "tally", "facts": some})

    def drop(self, id: str) -> None:
        if self._told.pop(id, None) is not None:
            send(self.sock, {"op": "drop", "id": id})

    def tell(self, op: str, **facts: object) -> None:
        send(self.sock, {"op": op, **facts})


class Shelf:
    """The holder's side."""

    def __init__(self) -> None:
        self._items: dict[str, Item] = {}

    def put(self, id: str, meta: Json, fd: int) -> None:
        old = self._items.get(id)
        if old is not None and fd < 0:
            fd = old.fd
        elif old is not None and old.fd >= 0:
            os.close(old.fd)
        self._items[id] = Item(id, meta, fd)

    def tally(self, facts: dict[str, Json]) -> None:
        for id, newer in facts.items():
            if (item := self._items.get(id)) is not None:
                item.meta.update(newer)

    def drop(self, id: str) -> None:
        item = self._items.pop(id, None)
        if item is not None and item.fd >= 0:
            os.close(item.fd)

    def drop_all(self, prefix: str = "") -> int:
        """Let go of everything of a kind, so that nothing dead is kept alive. Returns how many."""
        ids = [id for id in self._items if id.startswith(prefix)]
        for id in ids:
            self.drop(id)
        return len(ids)

    def hand_over(self, sock: socket.socket) -> None:
        """Give everything to a new worker; it is kept here too."""
        for id, meta, fd in self._items.values():
            send(sock, {"op": "put", "id": id, "meta": meta}, fd)
        send(sock, {"op": "end"})
