"""Streams what comes after a freeze: copies blocks as they fill, as fast as the client takes them and no faster."""

from __future__ import annotations

import time
from collections.abc import Mapping

from tripshark.errors import Transient
from tripshark.formats.wire import BlockRef, Json
from tripshark.recorder.copies import Copy
from tripshark.recorder.loop import Loop, Timer
from tripshark.recorder.peer import Peer
from tripshark.recorder.recorded import Recorded, Tombstone, ring_copy
from tripshark.recorder.ring import Ring
from tripshark.recorder.roster import Roster

_POLL_S = 0.2  # a quiet ring retires no block: its open one is looked at
_SOON_S = 0.05  # retired blocks are gathered for so long
_IN_FLIGHT_NS = 5_000_000  # a packet is stamped before it is copied into its block
_BEAT_S = 1.0  # an empty chunk says that all is well
_URGENT = 0.25  # share of a ring that must not be outrun
_UNACKED = 4  # chunks a client may be behind; further packets wait in the ring
_CHUNK = 8 << 20  # bytes of a chunk and ring


class Follow:
    """One `follow` request under way."""

    def __init__(
        self,
        loop: Loop,
        roster: Roster,
        peer: Peer,
        target: Recorded,
        *,
        id: int,
        positions: Mapping[str, int],
        until_ns: int,
        max_bytes: int,
    ) -> None:
        self.peer = peer
        self.target = target
        self.id = id
        self.ended = ""
        self._loop = loop
        self._roster = roster
        self._next = dict(positions)  # ring → first seq not yet delivered whole
        self._seen: dict[
            str, tuple[int, int, int]
        ] = {}  # ring → seq, packets, bytes of the open block
        self._until_ns = until_ns
        self._max_bytes = max_bytes
        self._bytes = 0
        self._sent = self._acked = 0
        self._copies: dict[int, list[Copy]] = {}  # chunk → what is in flight
        self._sent_s = self._looked_s = 0.0
        self._reached_ns = 0  # all that was recorded up to here has been delivered
        self._timer: Timer | None = None
        self._due_s = 0.0
        self._wake(0.0)

    def stirred(self) -> None:
        """Blocks were retired, or a ring was opened or closed."""
        for ring in self.target.rings.values():
            behind = ring.newest()[0] - self._next.get(ring.id, 0)
            if behind > ring.shape.blocks * _URGENT:
                self._wake(0.0)
                return
        self._wake(_SOON_S)

    def acked(self, number: int) -> None:
        """The client is done with the chunks up to this one."""
        self._release(number)
        if self._acked < number <= self._sent:
            self._acked = number
            self._wake(0.0 if self._bytes_wait() else _SOON_S)

    def stop(self) -> None:
        """Send nothing more."""
        self.ended = self.ended or "stopped"
        if self._timer is not None:
            self._timer.cancel()
        self._release(self._sent)

    def _release(self, number: int) -> None:
        for each in [n for n in self._copies if n <= number]:
            for copy in self._copies.pop(each):
                copy.drop()

    def _bytes_wait(self) -> bool:
        return any(
            ring.newest()[0] > self._next.get(ring.id, 0) for ring in self.target.rings.values()
        )

    def _wake(self, seconds: float) -> None:
        due = time.monotonic() + seconds
        if self._timer is not None:
            if self._due_s <= due:
                return
            self._timer.cancel()
        self._due_s = due
        self._timer = self._loop.later(seconds, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self.ended or not self.peer.open:
            return
        try:
            self._deliver()
        except OSError as problem:  # no memory, no descriptors
            self.stop()
            self.peer.refuse(self.id, Transient(f"following cannot go on: {problem}", after=1.0))

    def _deliver(self) -> None:
        if self._sent - self._acked >= _UNACKED or not self.peer.listening:
            self._wake(_POLL_S)  # the ring is the queue; what is overwritten meanwhile is counted
            return
        if not self.target.still:  # a ring is being exchanged: some packets are in two of them
            self._wake(_SOON_S)
            return
        now_ns, now = time.time_ns(), time.monotonic()
        over = now_ns >= self._until_ns
        look = over or now - self._looked_s >= _POLL_S or not self.target.alive
        facts: list[Json] = []
        copies: list[Copy] = []
        more = False
        for grave in self.target.tombstones:
            if self._bytes < self._max_bytes:
                self._take_dead(grave, facts, copies)
        for ring in self.target.rings.values():
            if self._bytes < self._max_bytes:
                more |= self._take(ring, facts, copies, look)
        if look:
            self._looked_s = now
        if self._bytes >= self._max_bytes:
            self.ended = "bytes"
        elif not more and over:
            self.ended = "time"
        elif not more and self.target.settled and self.target.closed:
            self.ended = "gone"
        if look and not more:
            self._reached_ns = now_ns - _IN_FLIGHT_NS
        if facts or self.ended or now - self._sent_s >= _BEAT_S:
            self._send(facts, copies)
            self._sent_s = now
        if self.ended:
            self._release(self._sent)  # what is still to be sent the peer holds itself
            return
        left_s = max(0.0, (self._until_ns - time.time_ns()) / 1e9)
        self._wake(0.0 if more else min(_POLL_S, left_s))

    def _send(self, facts: list[Json], copies: list[Copy]) -> None:
        """What is said to be delivered ends at the last look into the open blocks, where all was taken."""
        self._sent += 1
        if copies:
            self._copies[self._sent] = copies
        chunk = {"copies": facts, "now_ns": self._reached_ns, "ended": self.ended}
        self.peer.send(
            {"t": "chunk", "id": self.id, "n": self._sent, "bytes": self._bytes, "chunk": chunk},
            copies,
        )

    def _take(self, ring: Ring, facts: list[Json], copies: list[Copy], look: bool) -> bool:
        """Copy what a ring has since last time; whether there is more right now."""
        first = self._next.get(ring.id, 0)
        seq, packets = ring.newest()
        if seq < first or (seq == first and not look):
            return False
        if seq == first and self._seen.get(ring.id, (0, 0, 0))[:2] == (seq, packets):
            return False
        limit = min(_CHUNK, self._max_bytes - self._bytes)
        if not self._roster.graves.budget.make_room(min(limit + ring.shape.block, ring.used())):
            return False  # others' frozen copies hold all the memory: wait
        taken = ring.copy(first, limit=limit, with_open=look, breathe=self._roster.sweeper.breathe)
        if not taken.blocks and not taken.overwritten:
            return False
        copies.append(Copy(taken.fd, taken.size, taken.blocks, self._roster.graves.budget))
        self._roster.count(ring, now=True)
        facts.append(ring_copy(ring, taken.blocks, taken.size, taken.overwritten))
        self._count(ring.id, taken.blocks)
        if taken.blocks and taken.blocks[-1].open:
            last = taken.blocks[-1]
            self._seen[ring.id] = (last.seq, packets if last.seq == seq else -1, last.length)
        return taken.more

    def _take_dead(self, grave: Tombstone, facts: list[Json], copies: list[Copy]) -> None:
        first = self._next.get(grave.id, 0)
        blocks = [each for each in grave.copy.blocks if each.seq >= first]
        if blocks:
            copies.append(grave.copy.hold())
            missing = max(0, blocks[0].seq - first) if first else 0
            facts.append(ring_copy(grave, blocks, grave.copy.size, missing))
            self._count(grave.id, blocks)

    def _count(self, ring: str, blocks: tuple[BlockRef, ...] | list[BlockRef]) -> None:
        """Move on; of a block that comes again only what was added counts."""
        seen, _, length = self._seen.get(ring, (0, 0, 0))
        for each in blocks:
            self._bytes += each.length - (length if each.seq == seen else 0)
        if blocks:
            last = blocks[-1]
            self._next[ring] = last.seq if last.open else last.seq + 1
