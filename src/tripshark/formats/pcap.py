"""Packets as classic pcap, for tools that read nothing else: written in nanoseconds, read in either unit."""

from __future__ import annotations

import struct
from typing import Final

import numpy as np

from tripshark.errors import BadInput
from tripshark.formats.packets import Packets
from tripshark.formats.spans import copy_spans, windows

_MICROSECONDS: Final = 0xA1B2C3D4
_NANOSECONDS: Final = 0xA1B23C4D
_FILE_HEAD: Final = 24
_HEAD: Final = 16
_LINKTYPE_MASK: Final = 0xFFFF  # above it: whether frames carry a checksum
_BILLION: Final = 1_000_000_000


def write(packets: Packets, linktype: int, snaplen: int) -> bytes:
    """A whole file. Raises `BadInput` for a packet longer than `snaplen`, or a time after 2106."""
    head = struct.pack("<IHHiIII", _NANOSECONDS, 2, 4, 0, 0, snaplen, linktype)
    if not len(packets):
        return head
    if int(packets.caplen.max()) > snaplen:
        raise BadInput("a packet is longer than the file's snaplen", hint="cut it first")
    seconds, ns = np.divmod(packets.time_ns, _BILLION)
    if int(seconds.min()) < 0 or int(seconds.max()) >> 32:
        raise BadInput("a packet's time cannot be written as classic pcap", hint="write pcapng")
    caplen = packets.caplen.astype(np.int64)
    ends = _FILE_HEAD + np.cumsum(caplen + _HEAD)
    at = ends - caplen - _HEAD
    heads = np.stack([seconds, ns, packets.caplen, packets.length], axis=1).astype("<u4")
    out = np.empty(int(ends[-1]), np.uint8)
    out[:_FILE_HEAD] = np.frombuffer(head, np.uint8)
    windows(out, _HEAD)[at] = heads.view(f"V{_HEAD}")[:, 0]
    copy_spans(packets.data, packets.start, caplen, out, at + _HEAD)
    return out.tobytes()


def read(buffer: bytes | bytearray | memoryview) -> tuple[Packets, int]:
    """The packets, lying in `buffer` itself, and their link type. Raises `BadInput`."""
    view = memoryview(buffer).cast("B")
    order, unit_ns = _format(view)
    (linktype,) = struct.unpack_from(order + "I", view, 20)
    at, end = _FILE_HEAD, len(view)
    caplen_of = struct.Struct(order + "8xI").unpack_from
    offsets: list[int] = []
    add = offsets.append
    while at < end:
        if at + _HEAD > end:
            raise _cut_off(at)
        (caplen,) = caplen_of(view, at)
        if at + _HEAD + caplen > end:
            raise _cut_off(at)
        add(at)
        at += _HEAD + caplen
    if not offsets:
        return Packets.empty(), linktype & _LINKTYPE_MASK
    data = np.frombuffer(view, np.uint8)
    starts = np.array(offsets, np.int64)
    heads = windows(data, _HEAD)[starts].view(order + "u4").reshape(-1, _HEAD // 4)
    count = len(starts)
    packets = Packets(
        data=data,
        start=starts + _HEAD,
        caplen=heads[:, 2].astype(np.uint32),
        length=heads[:, 3].astype(np.uint32),
        time_ns=heads[:, 0].astype(np.int64) * _BILLION + heads[:, 1].astype(np.int64) * unit_ns,
        direction=np.zeros(count, np.uint8),
        source=np.zeros(count, np.uint16),
        seq=np.zeros(count, np.uint64),
        pos=np.zeros(count, np.uint32),
        status=np.zeros(count, np.uint32),
    )
    return packets, linktype & _LINKTYPE_MASK


def _format(view: memoryview) -> tuple[str, int]:
    """Byte order, and how many ns the second half of a time counts."""
    if len(view) >= _FILE_HEAD:
        for order in "<>":
            (magic,) = struct.unpack_from(order + "I", view)
            if magic in (_MICROSECONDS, _NANOSECONDS):
                return order, 1000 if magic == _MICROSECONDS else 1
    raise BadInput("not a pcap file", where="its first bytes")


def _cut_off(at: int) -> BadInput:
    return BadInput(
        "the pcap file is cut off", where=f"byte {at}", hint="editcap FILE NEW mends it"
    )
