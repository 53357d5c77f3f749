"""One interface's flight recorder: a TPACKET_V3 ring that the kernel fills and nobody empties.

The policy is *lazy*: a retired block is handed back at once and read later, out of memory that the kernel has not
come round to yet. A block's sequence number changes before its bytes do, so a copy is good if the number is the
same before and after. The work here is per block; no packet is ever looked into.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from tripshark.formats.wire import HEADER, BlockRef
from tripshark.model.target import Interface, TargetKey
from tripshark.recorder import kernel

KIB = 1 << 10
MIN_BLOCKS = 3
ENOUGH_BLOCKS = 20  # minutes of history that a trickle keeps at least, if there is memory for it
LARGEST_BLOCK = 1024 * KIB
HEADER_BLOCK = 32 * KIB  # at least, where only headers are kept
RETIRE_MS = (
    60_000  # never short: each idle packet would use up a block. 65 536 is 0 before Linux 6.18
)
LOOPBACK = 772
ETHERNET = (1, LOOPBACK)
RAW_IP = (65534, 768, 776, 778, 823)  # none (tun), ipip, sit, gre, ip6gre: packets begin with IP

_USER = 1
_BATCH = 4 << 20  # bytes copied between two looks at the other rings
_KEPT_LOSSES = 256


class Shape(NamedTuple):
    """How ring memory is cut into blocks."""

    block: int
    blocks: int

    @property
    def bytes(self) -> int:
        return self.block * self.blocks


def shape(budget: int, *, largest_frame: int, snaplen: int, headers: bool = False) -> Shape | None:
    """The best ring for so many bytes, None when they are too few.

    A block must hold the largest frame, or the kernel truncates it: 128 KiB, 256 KiB for BIG TCP. Bigger rings
    have bigger blocks: each costs a wake-up when little happens and a cold cache line when much does. Enough of
    them are left for a trickle, which uses up one a minute, and for what the kernel overwrites first. A ring of
    `headers` alone may be very small.
    """
    block = 256 * KIB if largest_frame > 65_536 and snaplen > 128 * KIB else 128 * KIB
    if headers:
        block = HEADER_BLOCK
    while block < LARGEST_BLOCK and budget // (2 * block) >= ENOUGH_BLOCKS:
        block *= 2
    count = budget // block
    return Shape(block, min(count, 65_535)) if count >= MIN_BLOCKS else None


@dataclass(slots=True)
class Counters:
    """What happened to a ring's packets since it was opened."""

    packets: int = 0  # drops included
    drops: int = 0
    blocks: int = 0  # retired
    losses: list[tuple[int, int, int]] = field(default_factory=list)  # (from_ns, to_ns, packets)
    gaps: list[tuple[int, int]] = field(default_factory=list)

    def lost(self, from_ns: int, to_ns: int, packets: int) -> None:
        """Note where in time the kernel dropped packets; neighbours within a second are one."""
        losses = self.losses
        from_ns = min(from_ns, to_ns)
        if losses and from_ns - losses[-1][1] < 1_000_000_000:
            from_ns, packets = losses[-1][0], losses[-1][2] + packets
            losses.pop()
        losses.append((from_ns, to_ns, packets))
        if len(losses) > _KEPT_LOSSES:
            first, second = losses[:2]
            losses[:2] = [(first[0], second[1], first[2] + second[2])]


class Taken(NamedTuple):
    """What `Ring.copy` took out."""

    fd: int  # a sealed memfd, -1 if there was nothing
    size: int
    blocks: tuple[BlockRef, ...]
    overwritten: int  # blocks wanted that the kernel had overwritten
    more: bool  # the limit was reached before the newest block


class Ring:
    """An open ring. Closing it needs both `close` and nobody else holding its descriptor."""

    def __init__(
        self,
        sock: socket.socket,
        form: Shape,
        *,
        id: str,
        target: TargetKey,
        interface: Interface,
        snaplen: int,
        opened_ns: int,
        flow_cut: int = 0,
    ) -> None:
        self.id = id
        self.target = target
        self.interface = interface
        self.snaplen = snaplen
        self.flow_cut = flow_cut  # bytes in full per flow and direction, 0: all of them
        self.opened_ns = opened_ns
        self.shape = form
        self.sock = sock
        self.fd = sock.fileno()
        self.counters = Counters()
        self.counted_ns = opened_ns  # when the kernel's counters were last read
        self.stirred = False  # blocks were retired since then
        self.unsaved = False  # counters have changed since the holder was told
        self.exposed = False  # it holds more of packets than may be read by now
        self.left_ns = 0  # since when it is being exchanged for another one
        self._mapped = mmap.mmap(self.fd, form.bytes)
        with contextlib.suppress(OSError):
            self._mapped.madvise(kernel.MADV_DONTFORK)  # a child's mapping would pin the namespace
        self._bytes = memoryview(self._mapped)
        self._u32 = self._bytes.cast("I")
        self._u64 = self._bytes.cast("Q")
        self._step = form.block // 4
        self._walked = (
            0,
            0,
            HEADER,
            0,
        )  # seq, packets, offset, time: how far `newest_ns` has come
        self.head = self._find_head()

    # ---- recording --------------------------------------------------------------------------------------

    def hand_back(self) -> int:
        """Give every retired block back to the kernel, and say how many there were: the whole steady work."""
        words, step, head = self._u32, self._step, self.head
        if not words[head * step + 2] & _USER:
            return 0
        done, count = 0, self.shape.blocks
        while words[at := head * step + 2] & _USER and done < count:
            words[at] = 0
            head += 1
            if head == count:
                head = 0
            done += 1
        self.head = head
        self.counters.blocks += done
        self.stirred = True
        return done

    def count(self, now_ns: int, since_ns: int = 0) -> int:
        """Read the kernel's counters; drops found now happened after `since_ns`. Returns the drops."""
        raw = self.sock.getsockopt(kernel.SOL_PACKET, kernel.PACKET_STATISTICS, 12)
        packets, drops, _ = struct.unpack("=III", raw)
        self.counters.packets += packets
        self.counters.drops += drops
        if drops:
            self.counters.lost(max(since_ns, self.counted_ns), now_ns, drops)
        self.unsaved |= packets > 0
        self.counted_ns = now_ns
        self.stirred = False
        return int(drops)

    def _find_head(self) -> int:
        """Which block the kernel retires next; after a restart it stands anywhere."""
        newest, seq = 0, 0
        for i in range(self.shape.blocks):
            if (number := self._seq(i)) > seq:
                newest, seq = i, number
        head, count = newest, self.shape.blocks
        while (before := (head - 1) % count) != newest and self._u32[
            before * self._step + 2
        ] & _USER:
            head = before
        return head

    # ---- reading ----------------------------------------------------------------------------------------

    def _seq(self, i: int) -> int:
        return self._u64[(i * self.shape.block + 24) >> 3]

    def _time(self, i: int, offset: int) -> int:
        at = i * self._step + (offset >> 2)
        return self._u32[at] * 1_000_000_000 + self._u32[at + 1]

    def index(self, first: int = 0) -> list[tuple[int, int]]:
        """(seq, position) of every block with a seq from `first` on, oldest first; the last is the open one."""
        found = [(self._seq(i), i) for i in range(self.shape.blocks)]
        return sorted(each for each in found if each[0] >= max(first, 1))

    def newest(self) -> tuple[int, int]:
        """(seq, packets) of the block the kernel is filling: changes whenever a packet was recorded."""
        i = self.head
        return self._seq(i), self._u32[i * self._step + 3]

    def span_ns(self) -> tuple[int, int]:
        """How far back and how far forward the recorded history reaches; zeros when there is none."""
        index = [each for each in self.index() if self._u32[each[1] * self._step + 3]]
        if not index:
            return 0, 0
        (first, oldest), (last, newest) = index[0], index[-1]
        if (last, newest) != (self._seq(self.head), self.head):
            until = self._time(newest, 40)
        else:
            until = self._walk(last, newest)
        return self.opened_ns if first == 1 else self._time(oldest, 32), until

    def stopped_ns(self) -> int:
        """When the newest retired block was closed: where a full ring's loss begins."""
        return max(self._time(i, 40) for i in range(self.shape.blocks))

    def clear_error(self) -> None:
        """Take note of ENETDOWN, or the kernel goes on waking us for it."""
        self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def _walk(self, seq: int, i: int) -> int:
        """The time of the open block's last packet; the kernel notes it only when it retires the block."""
        walked, packets, offset, time = self._walked
        if walked != seq:
            packets, offset, time = 0, HEADER, self._time(i, 32)
        base, total = i * self.shape.block, self._u32[i * self._step + 3]
        while packets < total and offset + HEADER <= self.shape.block:
            if not self._u32[(base + offset + 20) >> 2] & _USER:
                break
            time = self._time(i, offset + 4)
            packets += 1
            step = self._u32[(base + offset) >> 2]
            if step == 0 or step % 4:
                break
            offset += step
        self._walked = (seq, packets, offset, time)
        return time

    def used(self, first: int = 0) -> int:
        """Bytes that a copy of everything from seq `first` on would take at most."""
        lengths = (self._u32[i * self._step + 5] for _, i in self.index(first))
        return sum(min(each + 8, self.shape.block) for each in lengths)

    def first_within(self, most: int) -> int:
        """The seq from which on a copy takes no more than so many bytes; 0: all of it does."""
        left = most
        for seq, i in reversed(self.index()):
            left -= min(self._u32[i * self._step + 5] + 8, self.shape.block)
            if left < 0:
                return seq + 1
        return 0

    def begun_ns(self, seq: int) -> int:
        """When a block was begun; 0 if it is not there any more."""
        return next((self._time(i, 32) for found, i in self.index(seq) if found == seq), 0)

    def copy(
        self,
        first: int = 0,
        *,
        limit: int = 1 << 62,
        with_open: bool = True,
        breathe: Callable[[], None] = lambda: None,
    ) -> Taken:
        """Copy the used bytes of every block from seq `first` on into a sealed memfd.

        The open block's packets are counted first and it is copied last, so all of the counted ones are complete
        but for rare ones that the kernel was still writing: those have no TP_STATUS_USER, and readers stop there.
        `breathe` is called every few megabytes: it hands back the blocks of all rings.
        """
        index = self.index(first)
        wanted: list[tuple[int, int, int, int, bool]] = []  # seq, block, packets, bytes, open
        size, more = 0, False
        for n, (seq, i) in enumerate(index):
            at = i * self._step
            is_open = n + 1 == len(index) and not self._u32[at + 2] & _USER
            packets, length = self._u32[at + 3], self._u32[at + 5]
            length = min(length + -length % 8, self.shape.block)
            if packets == 0 or length < HEADER or (is_open and not with_open):
                continue
            if wanted and size + length > limit:
                more = True
                break
            wanted.append((seq, i, packets, length, is_open))
            size += length
        missing = index[0][0] - first if index and first else 0
        if not wanted:
            return Taken(-1, 0, (), missing, False)
        fd = kernel.memfd(f"tripshark-{self.id}")
        try:
            blocks = self._write(fd, wanted, breathe)
            kernel.seal(fd)
        except BaseException:
            os.close(fd)
            raise
        return Taken(fd, size, blocks, missing + len(wanted) - len(blocks), more)

    def _write(
        self,
        fd: int,
        wanted: list[tuple[int, int, int, int, bool]],
        breathe: Callable[[], None],
    ) -> tuple[BlockRef, ...]:
        blocks: list[BlockRef] = []
        pieces: list[memoryview] = []
        batch: list[tuple[int, int, int, int, bool]] = []
        done = 0
        for n, each in enumerate(wanted):
            _, i, _, length, _ = each
            start = i * self.shape.block
            pieces.append(self._bytes[start : start + length])
            batch.append(each)
            if n + 1 < len(wanted) and sum(map(len, pieces)) < _BATCH and len(pieces) < 512:
                continue
            _write_all(fd, pieces, done)
            for piece in pieces:
                piece.release()
            for seq, block, packets, used, is_open in batch:
                if self._seq(block) == seq:
                    os.pwrite(fd, struct.pack("=I", packets), done + 12)
                    os.pwrite(fd, struct.pack("=I", used), done + 20)
                    blocks.append(BlockRef(seq=seq, offset=done, length=used, open=is_open))
                else:  # the kernel came round while we were copying: nobody must read this
                    os.pwrite(fd, struct.pack("=IIIQ", 0, 0, used, 0), done + 12)
                done += used
            pieces, batch = [], []
            breathe()
        return tuple(blocks)

    @property
    def most(self) -> int:
        """Bytes of each packet that may be read, 0: all of them."""
        return self.snaplen if self.exposed else 0

    # ---- end --------------------------------------------------------------------------------------------

    @property
    def detached(self) -> bool:
        """Whether the interface is gone for good, not only down."""
        return kernel.tapped_ifindex(self.fd) != self.interface.ifindex

    def close(self) -> None:
        """Give socket and mapping back. Takes 20 ms; until then the namespace cannot die."""
        for view in (self._u32, self._u64, self._bytes):
            view.release()
        self._mapped.close()
        self.sock.close()


def _write_all(fd: int, pieces: list[memoryview], at: int) -> None:
    """Write straight from the mapping, which releases the GIL."""
    left = sum(map(len, pieces))
    done = os.pwritev(fd, pieces, at)
    while done < left:  # rare: a signal, or less memory than asked for
        flat = memoryview(b"".join(pieces))
        done += os.pwrite(fd, flat[done:], at + done)


def open_ring(
    form: Shape,
    attach: Callable[[socket.socket], int],
    *,
    id: str,
    target: TargetKey,
    interface: Interface,
    snaplen: int,
    now_ns: Callable[[], int],
    stamped: bool = False,
) -> Ring:
    """A new ring on an interface of the calling thread's namespace. Takes 11 ms. Raises `OSError`.

    `attach` gives the socket its filter; see `Filters.attach`. With `stamped` packets have the time that they were
    stamped with before, if they were.
    """
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    try:
        sock.setblocking(False)
        sock.setsockopt(kernel.SOL_PACKET, kernel.PACKET_VERSION, kernel.TPACKET_V3)
        if interface.hardware_type == LOOPBACK:  # each packet passes there twice
            sock.setsockopt(kernel.SOL_PACKET, kernel.PACKET_IGNORE_OUTGOING, 1)
        if stamped:
            kernel.stamp_early(sock, True)
        flow_cut = attach(sock)  # before bind: nothing unwanted gets in
        kernel.set_rx_ring(sock.fileno(), form.block, form.blocks, RETIRE_MS)
        ring = Ring(
            sock,
            form,
            id=id,
            target=target,
            interface=interface,
            snaplen=snaplen,
            opened_ns=now_ns(),
            flow_cut=flow_cut,
        )
    except BaseException:
        sock.close()
        raise
    try:
        kernel.bind_packet(ring.fd, interface.ifindex)
    except BaseException:
        ring.close()
        raise
    return ring
