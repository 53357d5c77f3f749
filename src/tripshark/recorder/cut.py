"""Takes packets out of copied blocks, or shortens them: the copy is ours, the ring is the kernel's."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from tripshark.formats.wire import HEADER, BlockRef
from tripshark.recorder import kernel

# struct tpacket3_hdr, and struct tpacket_block_desc with its struct tpacket_hdr_v1
_PACKET = struct.Struct("=IIIIIIHH")  # next, sec, nsec, snaplen, len, status, mac, net
_BLOCK = struct.Struct("=8xIIIIQ")  # status, packets, first, bytes, seq
_LAST = 40  # when the block's last packet came
_FIRST_BYTE = 68
_USER = 1


class Stamp(NamedTuple):
    """What tells a packet from all others, as long as both rings took the time from the packet itself."""

    time_ns: int
    length: int


def stamps(fd: int, blocks: Sequence[BlockRef], until_ns: int) -> dict[Stamp, int]:
    """The packets of a copy up to some time, and how often each is there; only those with the packet's own time."""
    found: dict[Stamp, int] = {}
    for ref in blocks:
        data = os.pread(fd, ref.length, ref.offset)
        if ref.seq > blocks[0].seq and _time(data, 32) > until_ns:
            break
        for _, stamp, status, _, _ in _packets(data):
            if status & kernel.TP_STATUS_TS_SOFTWARE and stamp.time_ns <= until_ns:
                found[stamp] = found.get(stamp, 0) + 1
    return found


def rewritten(
    fd: int, blocks: Sequence[BlockRef], *, without: Mapping[Stamp, int], most: int = 0
) -> tuple[int, int, tuple[BlockRef, ...]]:
    """The copy without these packets, and with no more than `most` bytes of each (0: all there is).

    Returns a new sealed memfd (-1 when nothing is left), its size and its blocks. Block numbers stay, and so does the
    order in each. Does not close `fd`. Raises `OSError`.
    """
    left = dict(without)
    earliest_ns = min((each.time_ns for each in left), default=0)
    made = kernel.memfd("tripshark-cut")
    try:
        kept: list[BlockRef] = []
        size = 0
        for ref in blocks:
            data = os.pread(fd, ref.length, ref.offset)
            if most or (
                left and (ref.open or _time(data, _LAST) >= earliest_ns or ref is blocks[-1])
            ):
                data = _cut(data, left, most)
            if len(data) < HEADER:
                continue
            os.pwrite(made, data, size)
            kept.append(BlockRef(seq=ref.seq, offset=size, length=len(data), open=ref.open))
            size += len(data)
        if not kept:
            os.close(made)
            return -1, 0, ()
        kernel.seal(made)
    except BaseException:
        os.close(made)
        raise
    return made, size, tuple(kept)


def _time(data: bytes, at: int) -> int:
    sec, nsec = struct.unpack_from("=II", data, at)
    return int(sec) * 1_000_000_000 + int(nsec)


def _packets(data: bytes) -> Iterator[tuple[int, Stamp, int, int, int]]:
    """(offset, stamp, status, where its bytes begin, how many they are) of every whole packet of a block."""
    if len(data) < HEADER:
        return
    _, count, at, _, _ = _BLOCK.unpack_from(data)
    for _ in range(count):
        if at + HEADER > len(data):
            return
        step, sec, nsec, caplen, length, status, mac, _ = _PACKET.unpack_from(data, at)
        if not status & _USER or mac < _FIRST_BYTE or at + mac + caplen > len(data):
            return
        yield at, Stamp(sec * 1_000_000_000 + nsec, length), status, mac, caplen
        if not step:
            return
        at += step


def _cut(data: bytes, left: dict[Stamp, int], most: int) -> bytes:
    """One block anew; b"" when no packet is left."""
    first = _BLOCK.unpack_from(data)[2]
    parts: list[bytes] = [data[:first]]
    before: bytearray | None = None  # the packet before, whose next one is not known yet
    count, size = 0, first
    for at, stamp, _, mac, kept in _packets(data):
        if left.get(stamp, 0):
            left[stamp] -= 1
            continue
        caplen = min(kept, most) if most else kept
        packet = bytearray(data[at : at + mac + caplen])
        packet += b"\0" * (-len(packet) % 8)
        struct.pack_into("=I", packet, 12, caplen)
        struct.pack_into("=I", packet, 0, 0)
        if before is not None:
            struct.pack_into("=I", before, 0, len(before))
            parts.append(bytes(before))
        before = packet
        count += 1
        size += len(packet)
    if before is None:
        return b""
    parts.append(bytes(before))
    block = bytearray(b"".join(parts))
    struct.pack_into("=I", block, 12, count)
    struct.pack_into("=I", block, 20, size)
    return bytes(block)
