"""What the kernel's ring blocks say: TPACKET_V3 blocks (linux/if_packet.h) to packets.

Everything the kernel wrote is checked before it is followed: a block decodes to packets that lie wholly
within it, or to one `BadInput` with the block and the offset.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from tripshark.errors import BadInput
from tripshark.formats.packets import IN, OUT, Packets
from tripshark.formats.spans import windows
from tripshark.formats.wire import BlockRef, RingCopy

ETHERNET = 1
RAW_IP = 101

_LINKTYPES = {
    1: ETHERNET,  # ARPHRD_ETHER
    772: ETHERNET,  # ARPHRD_LOOPBACK: with an all-zero Ethernet header
    65534: RAW_IP,  # ARPHRD_NONE: tun, WireGuard
    768: RAW_IP,  # ARPHRD_TUNNEL: IP in IP
    776: RAW_IP,  # ARPHRD_SIT
    778: RAW_IP,  # ARPHRD_IPGRE
    823: RAW_IP,  # ARPHRD_IP6GRE
}

_BLOCK = struct.Struct("=8xIIIIQ")  # block_status, num_pkts, offset_to_first_pkt, blk_len, seq_num
_BLOCK_BYTES = 48
_HEADER_BYTES = 60  # struct tpacket3_hdr (48) and sockaddr_ll up to the packet type
_HEADER = np.dtype(
    {
        "names": [
            "next",
            "sec",
            "nsec",
            "caplen",
            "length",
            "status",
            "mac",
            "tci",
            "tpid",
            "type",
        ],
        "formats": ["=u4", "=u4", "=u4", "=u4", "=u4", "=u4", "=u2", "=u4", "=u2", "u1"],
        "offsets": [0, 4, 8, 12, 16, 20, 24, 32, 36, 58],
        "itemsize": _HEADER_BYTES,
    }
)
_FIRST_BYTE = 68  # the least tp_mac: header and sockaddr_ll come first
_USER = 0x1
_VLAN_VALID = 0x10
_VLAN_TPID_VALID = 0x40
_PACKET_OUTGOING = 4
_TPID = 0x8100
_LONGEST = np.uint32(0xFFFF_FFFF - 4)
_MACS = 12  # the tag stands behind both addresses
_PARALLEL = 16  # blocks from which walking all of them at once is quicker than one by one


def linktype(hardware_type: int) -> int | None:
    """The pcapng link type of an interface's ARPHRD_* number, None for links we cannot write."""
    return _LINKTYPES.get(hardware_type)


def decode(copy: RingCopy, source: int = 0) -> Packets:
    """The packets of a copy, in the order of its blocks, over the copy's own memory.

    VLAN tags, which the kernel keeps beside the packet, stand in the bytes again (then the memory is a copy).
    Of a block that was still open come the packets that were complete. Raises `BadInput`.
    """
    if sum(ref.length for ref in copy.blocks) > len(copy.data):
        raise _corrupt(copy, 0, 0, "there are more blocks than bytes")
    blocks = [block for block in (_Block.read(copy, ref) for ref in copy.blocks) if block.count]
    if not blocks:
        return Packets.empty()
    data = np.frombuffer(copy.data, np.uint8)
    walks = _walk(copy.data, data, blocks)
    for i, block in enumerate(blocks):
        if block.open:
            walks[i] = _complete(data, walks[i], block)
    counts = np.array([len(walk) for walk in walks])
    owner = np.repeat(np.arange(len(blocks)), counts)
    offsets = np.concatenate(walks)
    ends = np.array([block.end for block in blocks])[owner]
    sound = (offsets >= 0) & (offsets + _HEADER_BYTES <= ends) & (offsets % 8 == 0)
    _require(sound, copy, blocks, owner, offsets, "a packet's header leaves its block")
    head = _headers(data, offsets)
    mac, caplen, status = (
        head["mac"].astype(np.int64),
        head["caplen"].copy(),
        head["status"].copy(),
    )
    limits = ends.copy()
    limits[:-1] = np.where(owner[1:] == owner[:-1], offsets[1:], ends[:-1])
    sound = (mac >= _FIRST_BYTE) & (offsets + mac + caplen <= limits)
    _require(sound, copy, blocks, owner, offsets, "a packet's bytes leave their place")
    packets = Packets(
        data=data,
        start=offsets + mac,
        caplen=caplen,
        length=np.maximum(head["length"], caplen),
        time_ns=head["sec"].astype(np.int64) * 1_000_000_000 + head["nsec"],
        direction=np.where(head["type"] == _PACKET_OUTGOING, np.uint8(OUT), np.uint8(IN)),
        source=np.full(len(offsets), source, np.uint16),
        seq=np.array([block.seq for block in blocks], np.uint64)[owner],
        pos=(np.arange(len(offsets)) - (np.cumsum(counts) - counts)[owner]).astype(np.uint32),
        status=status,
    )
    if linktype(copy.interface.hardware_type) == ETHERNET:
        tagged = np.flatnonzero(((status & _VLAN_VALID) != 0) & (caplen >= _MACS))
        if len(tagged):
            return _with_tags(packets, tagged, head[tagged])
    return packets


@dataclass(slots=True)
class Seam:
    """Which packets of a ring were seen before: a block may come several times, open and then retired."""

    _last: dict[str, tuple[int, int]] = field(default_factory=dict)

    def fresh(self, ring: str, packets: Packets) -> Packets:
        """Only what comes after everything accepted from this ring so far."""
        if not len(packets):
            return packets
        if ring in self._last:
            seq, pos = self._last[ring]
            packets = packets.take(
                (packets.seq > seq) | ((packets.seq == seq) & (packets.pos > pos))
            )
            if not len(packets):
                return packets
        newest = packets.seq.max()
        self._last[ring] = int(newest), int(packets.pos[packets.seq == newest].max())
        return packets


@dataclass(frozen=True, slots=True)
class _Block:
    """One block's header, found to be plausible. Offsets are within the copy's data."""

    seq: int
    count: int
    first: int
    end: int
    open: bool

    @classmethod
    def read(cls, copy: RingCopy, ref: BlockRef) -> _Block:
        if (
            ref.offset < 0
            or ref.offset % 8
            or ref.length < _BLOCK_BYTES
            or ref.offset + ref.length > len(copy.data)
        ):
            raise _corrupt(copy, ref.seq, ref.offset, "a block lies outside the copy")
        _, count, first, _, seq = _BLOCK.unpack_from(copy.data, ref.offset)
        if seq != ref.seq:
            raise _corrupt(copy, ref.seq, ref.offset, f"a block says it is number {seq}")
        room = ref.length - first
        if not count or (ref.open and room < _HEADER_BYTES):
            return cls(seq, 0, ref.offset, ref.offset, ref.open)
        if first < _BLOCK_BYTES or first % 8 or room < _HEADER_BYTES:
            raise _corrupt(copy, ref.seq, ref.offset, "a block's first packet lies outside it")
        most = room // _FIRST_BYTE + 1
        if count > most:
            if not ref.open:
                raise _corrupt(copy, ref.seq, ref.offset, f"a block claims {count} packets")
            count = (
                most  # counted after its length was read; what is beyond comes with the next copy
            )
        return cls(seq, count, ref.offset + first, ref.offset + ref.length, ref.open)


def _walk(
    view: memoryview, data: NDArray[np.uint8], blocks: Sequence[_Block]
) -> list[NDArray[np.int64]]:
    """For each block the offsets of its packet headers, by following tp_next_offset.

    Nothing outside the block is followed for long: what leaves it is found by the caller's checks.
    """
    most = max(block.count for block in blocks)
    if len(blocks) < _PARALLEL or most * len(blocks) > 4 * sum(block.count for block in blocks):
        return [_walk_one(view, block) for block in blocks]
    words = np.require(data[: len(data) // 4 * 4].view("=u4"), requirements="A")
    current = np.array([block.first for block in blocks])
    hop = np.empty(len(blocks), np.uint32)
    steps = np.empty((most, len(blocks)), np.int64)
    for step in steps:
        step[:] = current
        words.take(current >> 2, out=hop, mode="clip")
        current += hop
    return [steps[: block.count, i] for i, block in enumerate(blocks)]


def _walk_one(view: memoryview, block: _Block) -> NDArray[np.int64]:
    words = view[block.first : block.end - (block.end - block.first) % 4].cast("I")
    at = 0
    found: list[int] = []
    add = found.append
    try:
        for _ in range(block.count):
            add(at)
            at += words[at >> 2]
    except IndexError:
        pass  # the last one found lies outside: for the caller to see
    finally:
        words.release()
    return np.array(found, np.int64) + block.first


def _complete(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], block: _Block
) -> NDArray[np.int64]:
    """The packets of an open block before the first that the kernel was still writing."""
    offsets = offsets[: _first_false(offsets + _HEADER_BYTES <= block.end)]
    head = _headers(data, offsets)
    whole = offsets + head["mac"] + head["caplen"] <= block.end
    return offsets[: _first_false(whole & ((head["status"] & _USER) != 0))]


def _headers(data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> NDArray[np.void]:
    shape = (len(data) - _HEADER_BYTES + 1, _HEADER_BYTES)
    rows = np.lib.stride_tricks.as_strided(data, shape, (1, 1), writeable=False)[offsets]
    return rows.view(_HEADER)[:, 0]


def _with_tags(packets: Packets, tagged: NDArray[np.intp], head: NDArray[np.void]) -> Packets:
    """Put the tags back: both addresses move 4 bytes to the front, where only the header was."""
    data = packets.data.copy()
    start, caplen, length = packets.start.copy(), packets.caplen.copy(), packets.length.copy()
    start[tagged] -= 4
    caplen[tagged] += np.uint32(4)
    length[tagged] = np.minimum(length[tagged], _LONGEST) + np.uint32(4)
    at = start[tagged]
    known = ((head["status"] & _VLAN_TPID_VALID) != 0) & (head["tpid"] != 0)
    tags = np.empty((len(tagged), 2), ">u2")
    tags[:, 0] = np.where(known, head["tpid"], _TPID)
    tags[:, 1] = head["tci"]
    macs = windows(data, _MACS)
    macs[at] = macs[at + 4]
    windows(data, 4)[at + _MACS] = tags.view("V4")[:, 0]
    return replace(packets, data=data, start=start, caplen=caplen, length=length)


def _first_false(flags: NDArray[np.bool_]) -> int:
    return len(flags) if bool(flags.all()) else int(np.argmin(flags))


def _require(
    sound: NDArray[np.bool_],
    copy: RingCopy,
    blocks: Sequence[_Block],
    owner: NDArray[np.intp],
    offsets: NDArray[np.int64],
    what: str,
) -> None:
    if not bool(sound.all()):
        bad = int(np.argmin(sound))
        raise _corrupt(copy, blocks[int(owner[bad])].seq, int(offsets[bad]), what)


def _corrupt(copy: RingCopy, seq: int, offset: int, what: str) -> BadInput:
    return BadInput(
        f"ring copy cannot be read: {what}",
        where=f"ring {copy.ring}, block {seq}, byte {offset}",
        hint="the recorder and this program may be of different versions",
    )
