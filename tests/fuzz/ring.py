"""Fuzz target: ring blocks. The first byte says how the rest is cut into blocks and which are open."""

from __future__ import annotations

import struct

from tests.formats.making import Block, Record, copy_of
from tripshark.errors import BadInput
from tripshark.formats.ring import decode
from tripshark.formats.wire import BlockRef


def target(data: bytes) -> None:
    """Packets that lie within their blocks, or `BadInput`."""
    if len(data) < 2:
        return
    how, data = data[0], data[1:]
    many = 1 + how % 40
    each = max(len(data) // many // 8 * 8, 8)
    refs = [
        BlockRef(
            seq=struct.unpack_from("=Q", data, i * each + 24)[0],
            offset=i * each,
            length=min(each, len(data) - i * each),
            open=bool(how & 0x80),
        )
        for i in range(many)
        if i * each + 32 <= len(data)
    ]
    try:
        packets = decode(copy_of(data, refs, hardware_type=1 if how & 0x40 else 65534))
    except BadInput:
        return
    end = len(data)
    assert (packets.start >= 0).all()
    assert (packets.start + packets.caplen <= end).all()
    assert (packets.caplen <= packets.length).all()
    for i in range(min(len(packets), 3)):
        assert len(packets.bytes_of(i)) == packets.caplen[i]


def seeds() -> list[bytes]:
    records = [
        Record(data=bytes(range(60))),
        Record(data=bytes(40), status=0x51, tci=5, tpid=0x88A8, type=4),
        Record(data=b"", status=0),
    ]
    raw = Block(seq=1, records=records).encode()
    return [bytes([how]) + raw * (1 + how % 40) for how in (0, 0x40, 0xC0, 0x40 + 19)]
