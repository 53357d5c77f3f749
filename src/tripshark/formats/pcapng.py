"""How evidence is written for Wireshark, and read back: pcapng with names, alert rows and directions.

Order in a file: section, interfaces, names, packets and alert rows in time order, one statistics block per
interface. All interfaces have one link type, one snaplen and one time resolution: libpcap, and so tcpdump and
many more, stops at the first interface that differs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from tripshark.errors import BadInput
from tripshark.formats import blocks
from tripshark.formats.blocks import Interface, Section, Statistics, alert_row, names
from tripshark.formats.packets import Packets
from tripshark.formats.pcapng_read import File, read
from tripshark.formats.spans import copy_spans, windows

__all__ = [
    "File",
    "Interface",
    "Section",
    "Statistics",
    "alert_row",
    "names",
    "packets",
    "read",
    "write",
]

Row = tuple[int, Mapping[str, str | bytes]]
"""An alert's time in ns and its journal fields."""

_HEAD: Final = 28  # bytes of a packet block before the packet
_POSITION_BITS: Final = 20
_CHUNK_BYTES: Final = 8 << 20  # packet bytes turned into blocks at a time
_CHUNK_PACKETS: Final = 65_536


def packets(
    packets: Packets,
    interface_of: NDArray[np.integer] | None = None,
    comments: Mapping[int, Sequence[str]] | None = None,
    *,
    ids: bool = False,
) -> bytes | memoryview:
    """Packets as enhanced packet blocks, in their order.

    `interface_of` gives each packet's interface, else its `source` is it. `comments` are by the packet's
    index. With `ids` each carries seq << 20 | pos as its id, so that reading back tells which it was.
    """
    interfaces = packets.source if interface_of is None else interface_of
    extras = {b"": 0}  # options → which they are; few differ, however many packets have them
    which = np.zeros(len(packets), np.intp)
    for index, texts in (comments or {}).items():
        if 0 <= index < len(packets):
            options = b"".join(blocks.text(blocks.COMMENT, text) for text in texts)
            which[index] = extras.setdefault(options, len(extras))
    return _blocks(packets, interfaces, tuple(extras), which, ids=ids).data


def write(
    out: BinaryIO,
    *,
    section: Section,
    interfaces: Sequence[Interface],
    names: Mapping[str, str] | None = None,
    packets: Packets,
    rows: Sequence[Row] = (),
    statistics: Sequence[Statistics] = (),
    comments: Mapping[int, Sequence[str]] | None = None,
    ids: bool = False,
) -> None:
    """A whole file. `packets` and `rows` are in time order; `packets.source` is the index in `interfaces`.

    A row stands behind the packets of its very nanosecond. Only a chunk is held in memory beside `packets`.
    Raises `BadInput` for what libpcap would not read, and for anything out of order.
    """
    _require_readable(interfaces, packets, rows, statistics)
    out.write(section.block())
    for interface in interfaces:
        out.write(interface.block())
    out.write(blocks.names(names or {}))
    marks = comments or {}
    row_times = np.array([time_ns for time_ns, _ in rows], np.int64)
    before = np.searchsorted(packets.time_ns, row_times, side="right").tolist()
    done = 0
    for (time_ns, fields), here in zip(rows, before, strict=True):
        _write_packets(out, packets, slice(done, here), marks, ids=ids)
        out.write(alert_row(time_ns, fields))
        done = here
    _write_packets(out, packets, slice(done, len(packets)), marks, ids=ids)
    for counters in statistics:
        out.write(counters.block())


def _write_packets(
    out: BinaryIO, all_: Packets, which: slice, comments: Mapping[int, Sequence[str]], *, ids: bool
) -> None:
    for chunk in _chunks(all_.caplen[which], which.start):
        marks = {
            index - chunk.start: comments[index]
            for index in comments
            if chunk.start <= index < chunk.stop
        }
        out.write(packets(all_.take(chunk), comments=marks, ids=ids))


def _chunks(caplen: NDArray[np.uint32], first: int) -> Iterator[slice]:
    """Slices of about `_CHUNK_BYTES` of packets each."""
    total = np.cumsum(caplen, dtype=np.int64)
    done = 0
    while done < len(total):
        passed = int(total[done - 1]) if done else 0
        stop = int(np.searchsorted(total, passed + _CHUNK_BYTES, side="right"))
        stop = min(max(stop, done + 1), done + _CHUNK_PACKETS, len(total))
        yield slice(first + done, first + stop)
        done = stop


def _blocks(
    packets: Packets,
    interfaces: NDArray[np.integer],
    extras: Sequence[bytes],
    which: NDArray[np.intp],
    *,
    ids: bool,
) -> NDArray[np.uint8]:
    """Enhanced packet blocks. Each has the options `extras[which]`, then direction and id."""
    count = len(packets)
    caplen = packets.caplen.astype(np.int64)
    order = np.argsort(which, kind="stable")
    alike = [
        rows
        for rows in np.split(order, np.cumsum(np.bincount(which, minlength=len(extras)))[:-1])
        if len(rows)
    ]
    tails = [_tails(packets.take(rows), extras[which[rows[0]]], ids=ids) for rows in alike]
    tail = np.zeros(count, np.int64)
    for rows, some in zip(alike, tails, strict=True):
        tail[rows] = some.shape[1]
    lengths = _HEAD + (caplen + 3 & ~3) + tail
    ends = np.cumsum(lengths)
    at = ends - lengths
    heads = np.empty((count, _HEAD // 4), "<u4")
    heads[:, 0] = blocks.PACKET
    heads[:, 1] = lengths
    heads[:, 2] = interfaces
    heads[:, 3] = packets.time_ns >> 32
    heads[:, 4] = packets.time_ns & 0xFFFF_FFFF
    heads[:, 5] = packets.caplen
    heads[:, 6] = packets.length
    out = np.empty(int(lengths.sum()), np.uint8)
    if count:
        windows(out, 4)[ends - tail - 4] = np.zeros(1, "V4")  # padding; the rest is overwritten
        windows(out, _HEAD)[at] = heads.view(f"V{_HEAD}")[:, 0]
        copy_spans(packets.data, packets.start, caplen, out, at + _HEAD)
    for rows, some in zip(alike, tails, strict=True):
        size = some.shape[1]
        some[:, -4:] = heads[rows, 1:2].copy().view(np.uint8)
        windows(out, size)[ends[rows] - size] = some.view(f"V{size}")[:, 0]
    return out


def _tails(packets: Packets, extra: bytes, *, ids: bool) -> NDArray[np.uint8]:
    """What follows each packet: options, and room for the total length."""
    options = extra
    flags_at = len(options) + 4
    directed = bool(packets.direction.any())
    if directed:
        options += blocks.option(blocks.PACKET_FLAGS, bytes(4))
    id_at = len(options) + 4
    if ids:
        options += blocks.option(blocks.PACKET_ID, bytes(8))
    same = np.frombuffer(blocks.ended([options]) + bytes(4), np.uint8)
    tails = np.tile(same, (len(packets), 1))
    if directed:
        tails[:, flags_at] = packets.direction
    if ids:
        if bool(
            (packets.pos >> _POSITION_BITS).any() or (packets.seq >> (64 - _POSITION_BITS)).any()
        ):
            raise BadInput("a packet's place in its ring does not fit in an id")
        numbers = (packets.seq << np.uint64(_POSITION_BITS)) | packets.pos
        tails[:, id_at : id_at + 8] = numbers.astype("<u8")[:, None].view(np.uint8)
    return tails


def _require_readable(
    interfaces: Sequence[Interface],
    packets: Packets,
    rows: Sequence[Row],
    statistics: Sequence[Statistics],
) -> None:
    if len({(each.linktype, each.snaplen) for each in interfaces}) != 1:
        raise BadInput(
            "a capture file needs interfaces of one link type and one snaplen",
            where=", ".join(
                f"{each.name}: {each.linktype}, {each.snaplen}" for each in interfaces
            ),
            hint="write one file per link type: libpcap stops at the first interface that differs",
        )
    if len(packets):
        if int(packets.source.max()) >= len(interfaces):
            raise BadInput("a packet belongs to an interface that is not in the file")
        if int(packets.caplen.max()) > interfaces[0].snaplen:
            raise BadInput("a packet is longer than the file's snaplen", hint="cut it first")
    if not _is_ascending(packets.time_ns) or not _is_ascending([time_ns for time_ns, _ in rows]):
        raise BadInput("packets or alert rows are not in time order", hint="sort them first")
    counted = [each.interface for each in statistics]
    if len(set(counted)) != len(counted) or not set(counted) <= set(range(len(interfaces))):
        raise BadInput("statistics must be one block per interface of the file")


def _is_ascending(times: NDArray[np.int64] | Sequence[int]) -> bool:
    column = np.asarray(times, np.int64)
    return bool((column[1:] >= column[:-1]).all())
