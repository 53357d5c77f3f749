"""How the journal's records lie in a segment file, and which of them can still be believed.

A segment is a header of 32 bytes and frames behind one another, all little-endian:

    header   "TSJRNL1\\n" · salt u64 · first seq u64 · zero u32 · crc32 of the 28 bytes before
    frame    "rec:" · length u32 · crc32 of the body u32 · crc32 of the 12 bytes before u32 · body
    body     seq u64 · received_ns i64 · repeat_of u64 · length of via u16 · via · the alert, verbatim

Both checksums begin with the segment's random salt, so that no alert can carry bytes that pass for a frame; the
first is cheap, so that an alert full of marks cannot make reading a damaged segment slow.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from tripshark.errors import BadInput
from tripshark.ports import Record

MAX_BODY = 16 << 20  # bytes of one alert
MAX_VIA = 4096

HEADER = 32
_MAGIC = b"TSJRNL1\n"
_HEADER = struct.Struct("<8sQQI")
_CRC = struct.Struct("<I")
_MARK = b"rec:"
_FRAME = struct.Struct("<4sII")
_PREFIX = _FRAME.size + _CRC.size
_BODY = struct.Struct("<QqQH")
_MAX_FRAME = _BODY.size + MAX_VIA + MAX_BODY


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a segment says of itself."""

    salt: int
    first_seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One record and where its frame ends."""

    record: Record
    end: int  # offset from the start of what was scanned
    damaged: (
        int  # bytes passed over since the record before, because no frame in them can be believed
    )


def header(salt: int, first_seq: int) -> bytes:
    """The first 32 bytes of a segment."""
    start = _HEADER.pack(_MAGIC, salt, first_seq, 0)
    return start + _CRC.pack(zlib.crc32(start))


def read_header(data: bytes) -> Header:
    """What `header` wrote. Raises `BadInput`."""
    start = data[: _HEADER.size]
    if len(data) < HEADER or data[_HEADER.size : HEADER] != _CRC.pack(zlib.crc32(start)):
        raise BadInput("not a segment of a journal, or its header is damaged")
    magic, salt, first_seq, _ = _HEADER.unpack(start)
    if magic != _MAGIC:
        raise BadInput("not a segment of this version of the journal")
    return Header(salt=salt, first_seq=first_seq)


def frame(salt: int, record: Record) -> bytes:
    """One record as it lies on disk."""
    via = record.via.encode("utf-8", "replace")[:MAX_VIA]
    body = _BODY.pack(record.seq, record.received_ns, record.repeat_of, len(via))
    body = b"".join((body, via, record.body))
    start = _FRAME.pack(_MARK, len(body), _checksum(salt, body))
    return b"".join((start, _CRC.pack(_checksum(salt, start)), body))


def scan(data: bytes | memoryview, salt: int, after: int = 0) -> Iterator[Found]:
    """Every record with seq > `after` that can be believed, in order; what is damaged is passed over and counted.

    `data` begins at a frame. What lies behind the last record found is a torn tail, or damaged to the end.
    """
    view = memoryview(data)
    at = damaged = 0
    while True:
        record, end = _read_frame(view, at, salt)
        if record is None:
            following = _next_mark(view, at + 1)
            if following < 0:
                return
            damaged += following - at
            at = following
            continue
        if record.seq > after:
            yield Found(record=record, end=end, damaged=damaged)
            after, damaged = record.seq, 0
        at = end


def _read_frame(view: memoryview, at: int, salt: int) -> tuple[Record | None, int]:
    begin = at + _PREFIX
    if begin > len(view):
        return None, at
    start = view[at : at + _FRAME.size]
    mark, length, checksum = _FRAME.unpack(start)
    end = begin + length
    if (
        mark != _MARK
        or _CRC.unpack_from(view, at + _FRAME.size)[0] != _checksum(salt, start)
        or not _BODY.size <= length <= _MAX_FRAME
        or end > len(view)
    ):
        return None, at
    body = view[begin:end]
    if _checksum(salt, body) != checksum:
        return None, at
    seq, received_ns, repeat_of, via_length = _BODY.unpack_from(body)
    content = _BODY.size + via_length
    return (
        Record(
            seq=seq,
            received_ns=received_ns,
            via=bytes(body[_BODY.size : content]).decode("utf-8", "replace"),
            body=bytes(body[content:]),
            repeat_of=repeat_of,
        ),
        end,
    )


def _next_mark(view: memoryview, at: int) -> int:
    """Where the next frame may begin, −1 where none can. Reads on in pieces: the view may be large."""
    piece = 1 << 16
    while at < len(view):
        found = bytes(view[at : at + piece + len(_MARK) - 1]).find(_MARK)
        if found >= 0:
            return at + found
        at += piece
    return -1


def _checksum(salt: int, body: bytes | memoryview) -> int:
    return zlib.crc32(body, zlib.crc32(salt.to_bytes(8, "little")))
