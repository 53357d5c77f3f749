"""Packets and ring blocks made by hand, as the kernel lays them out."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tripshark.formats.packets import Packets
from tripshark.formats.wire import BlockRef, RingCopy
from tripshark.model.target import Interface, TargetKey

MAC = 82


def make_packets(datas: Sequence[bytes], **columns: Sequence[int]) -> Packets:
    """Packets one behind the other in a buffer; every other column is 0, `length` is what is there."""
    caplen = [len(data) for data in datas]
    zeros = [0] * len(datas)
    return Packets(
        data=np.frombuffer(b"".join(datas), np.uint8),
        start=np.cumsum(caplen, dtype=np.int64) - np.array(caplen, np.int64),
        caplen=np.array(caplen, np.uint32),
        length=np.array(columns.get("length", caplen), np.uint32),
        time_ns=np.array(columns.get("time_ns", zeros), np.int64),
        direction=np.array(columns.get("direction", zeros), np.uint8),
        source=np.array(columns.get("source", zeros), np.uint16),
        seq=np.array(columns.get("seq", zeros), np.uint64),
        pos=np.array(columns.get("pos", zeros), np.uint32),
        status=np.array(columns.get("status", zeros), np.uint32),
    )


@dataclass(kw_only=True)
class Record:
    """One packet of a block."""

    data: bytes
    time_ns: int = 1_700_000_000_123_456_789
    length: int | None = None
    caplen: int | None = None
    status: int = 1
    mac: int = MAC
    tci: int = 0
    tpid: int = 0
    type: int = 0
    next: int | None = None  # None: as the kernel would

    def encode(self, *, last: bool) -> bytes:
        size = (self.mac + len(self.data) + 7) & ~7
        following = (0 if last else size) if self.next is None else self.next
        caplen = len(self.data) if self.caplen is None else self.caplen
        head = struct.pack(
            "=IIIIIIHHIIHH8x",
            following,
            self.time_ns // 10**9,
            self.time_ns % 10**9,
            caplen,
            caplen if self.length is None else self.length,
            self.status,
            self.mac,
            96,
            0,
            self.tci,
            self.tpid,
            0,
        )
        head += struct.pack("=H2sIHBB8s", 17, b"\0\3", 2, 1, self.type, 6, b"")
        return (head.ljust(self.mac, b"\xee") + self.data).ljust(size, b"\xdd")


@dataclass(kw_only=True)
class Block:
    """One block; the fields that say otherwise than the records are for hostile ones."""

    seq: int
    records: Sequence[Record] = field(default_factory=tuple)
    open: bool = False
    count: int | None = None
    first: int = 48
    length: int | None = None  # bytes that were copied
    says: int | None = None  # the number in its header

    def encode(self) -> bytes:
        closed = len(self.records) - 1 if not self.open else -1
        body = b"".join(each.encode(last=i == closed) for i, each in enumerate(self.records))
        return (
            struct.pack(
                "=IIIIIIQIIII",
                2,
                48,
                0 if self.open else 1,
                len(self.records) if self.count is None else self.count,
                self.first,
                48 + len(body),
                self.seq if self.says is None else self.says,
                *(0, 0, 0, 0),
            )
            + body
        )


def make_copy(blocks: Sequence[Block], *, hardware_type: int = 1, ring: str = "r1") -> RingCopy:
    data, refs = b"", []
    for block in blocks:
        raw = block.encode()
        raw = raw if block.length is None else raw[: block.length]
        refs.append(BlockRef(seq=block.seq, offset=len(data), length=len(raw), open=block.open))
        data += raw + bytes(-len(raw) % 8)
    return copy_of(data, refs, hardware_type=hardware_type, ring=ring)


def copy_of(
    data: bytes, refs: Sequence[BlockRef], *, hardware_type: int = 1, ring: str = "r1"
) -> RingCopy:
    return RingCopy(
        ring=ring,
        target=TargetKey("t1"),
        interface=Interface(name="eth0", ifindex=2, hardware_type=hardware_type),
        snaplen=262_144,
        live=True,
        opened_ns=0,
        closed_ns=0,
        packets=0,
        drops=0,
        overwritten=0,
        gaps=(),
        losses=(),
        blocks=tuple(refs),
        data=memoryview(data),
    )
