"""A part of a large pcapng file that can be read by itself: where such parts lie, and one of them as a file of its own.

Windows follow each other and cover the file; one of them lies around a moment. A window's file has the section's head,
interfaces and names, then as many empty frames as the file has before it, then its own blocks as they are. So every
frame keeps the number that it has in the whole file, and times count from the same first packet.

The file is read through once, in pieces; of its frames only landmarks are held.
"""

from __future__ import annotations

import re
import struct
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tripshark.errors import BadInput, Refused
from tripshark.formats import blocks
from tripshark.formats.copying import ROWS, SECRETS

MAX_BEFORE: Final = 4_000_000
"""Frames that stand empty before a window: each costs 32 bytes, and 2 to 3 µs whenever all are read through."""

Read = Callable[[int, int], bytes]
"""At most so many bytes from there on, fewer only at the end: offset and size."""

_PIECE: Final = 4 << 20
_HEAD: Final = 28  # of a block, as much as is looked at
_STRIDE: Final = 64 << 10  # bytes between landmarks…
_STRIDE_FRAMES: Final = 512  # … or frames
_HEADERS: Final = frozenset({blocks.INTERFACE, blocks.NAMES, SECRETS})
_MAX_HEADERS: Final = 16 << 20  # bytes of them in one file
_NO_DISSECTOR: Final = 271  # link type of empty frames: VSOCK says nothing at all of no bytes
_EMPTY_AT_ONCE: Final = 1 << 16
_JOURNAL_TIME: Final = re.compile(rb"__REALTIME_TIMESTAMP=([0-9]{1,18})\n")
_LONGEST_TIME: Final = 64
_SECTION_MARK: Final = blocks.SECTION.to_bytes(4, "big")  # the same in either byte order
_LEAST: Final = {blocks.SECTION: 28, blocks.PACKET: 32, blocks.INTERFACE: 20}
_MAX_NS: Final = (1 << 63) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Frames that follow each other: `first` is the first one's number."""

    first: int
    frames: int
    start: int  # bytes of the file
    stop: int
    section: int
    first_ns: int
    last_ns: int
    before_ns: int  # of the frame before it; the file's first where there is none


@dataclass(frozen=True, slots=True)
class Header:
    """A block that frames of its section need: an interface, names, secrets; or the section's own."""

    kind: int
    section: int
    at: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """What a file holds, as far as windows need it."""

    frames: int
    first_ns: int
    last_ns: int
    windows: tuple[Window, ...]
    around: int  # index of the window that holds the moment
    headers: tuple[Header, ...]
    orders: tuple[str, ...]  # byte order of each section: "<" or ">"

    def holding(self, *, frame: int = 0, time_ns: int = 0) -> Window:
        """The window with that frame, or with that moment; without either the one around the moment."""
        if frame:
            return self.windows[
                max(0, bisect_right([each.first for each in self.windows], frame) - 1)
            ]
        if time_ns:
            return next(
                (each for each in self.windows if each.last_ns >= time_ns), self.windows[-1]
            )
        return self.windows[self.around]


@dataclass(slots=True)
class _Mark:
    """Where frames begin that are kept together."""

    number: int  # of its first frame
    at: int
    section: int
    frames: int = 0
    stop: int = 0
    first_ns: int = 0
    last_ns: int = 0

    @property
    def bytes(self) -> int:
        return self.stop - self.at


def outline(
    read: Read, size: int, *, around_ns: int, most_bytes: int, most_frames: int
) -> Outline:
    """Read a file through. A window has at most `most_bytes` and `most_frames`, or is a single landmark's.

    A torn or garbled rest of the file is no part of it. Raises `BadInput` for what is no pcapng file or has no frame.
    """
    walk = _Walk(read, size)
    walk.through()
    marks = walk.marks
    if not marks:
        raise BadInput("this capture file holds no packet", where="its first bytes")
    first_ns = marks[0].first_ns
    middle = next(
        (at for at, each in enumerate(marks) if each.last_ns >= around_ns), len(marks) - 1
    )
    spans = _spans(marks, middle if around_ns else 0, most_bytes, most_frames)
    windows = [
        Window(
            first=marks[a].number,
            frames=sum(each.frames for each in marks[a:b]),
            start=marks[a].at,
            stop=marks[b - 1].stop,
            section=marks[a].section,
            first_ns=marks[a].first_ns,
            last_ns=marks[b - 1].last_ns,
            before_ns=marks[a - 1].last_ns if a else first_ns,
        )
        for a, b in spans
    ]
    return Outline(
        frames=sum(each.frames for each in marks),
        first_ns=first_ns,
        last_ns=marks[-1].last_ns,
        windows=tuple(windows),
        around=next(
            at for at, (a, b) in enumerate(spans) if a <= (middle if around_ns else 0) < b
        ),
        headers=tuple(walk.headers),
        orders=tuple(walk.orders),
    )


def cut(read: Read, whole: Outline, window: Window) -> Iterator[bytes]:
    """The window as a file, in pieces. Raises `Refused` when it lies too deep in its file."""
    before = window.first - 1
    if before > MAX_BEFORE:
        raise Refused(
            f"{before:,} packets lie before this window, more than can be counted in front of it",
            hint="download the file and open it in Wireshark",
        )
    order = whole.orders[window.section]
    its = [each for each in whole.headers if each.section == window.section]
    interfaces = 0
    for each in its:
        if each.kind == blocks.INTERFACE and each.at >= window.stop:
            continue
        raw = read(each.at, each.length)
        interfaces += each.kind == blocks.INTERFACE
        if each.kind == blocks.SECTION:  # it has another length now: "not specified"
            raw = raw[:16] + b"\xff" * 8 + raw[24:]
        yield raw
    yield from _empty(before, interfaces, order, whole.first_ns, window.before_ns)
    moved = [each for each in its if window.start <= each.at < window.stop]
    at = window.start
    for each in moved:
        yield from _pieces(read, at, each.at)
        at = each.at + each.length
    yield from _pieces(read, at, window.stop)


def _pieces(read: Read, at: int, stop: int) -> Iterator[bytes]:
    while at < stop:
        piece = read(at, min(_PIECE, stop - at))
        if not piece:
            raise BadInput("the capture file became shorter while it was read")
        yield piece
        at += len(piece)


def _empty(count: int, interface: int, order: str, first_ns: int, last_ns: int) -> Iterator[bytes]:
    """So many frames of no bytes, on an interface of their own behind all others."""
    if not count:
        return
    resolution = struct.pack(order + "HHBxxx", blocks.IF_TSRESOL, 1, 9)
    body = struct.pack(order + "HHI", _NO_DISSECTOR, 0, 0) + resolution + bytes(4)
    yield _block(order, blocks.INTERFACE, body)

    def frame(ns: int) -> bytes:
        return _block(
            order,
            blocks.PACKET,
            struct.pack(order + "IIIII", interface, ns >> 32, ns & 0xFFFF_FFFF, 0, 0),
        )

    yield frame(first_ns)
    left, one = count - 1, frame(last_ns)
    while left:
        some = min(left, _EMPTY_AT_ONCE)
        yield one * some
        left -= some


def _block(order: str, kind: int, body: bytes) -> bytes:
    length = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + length + body + length


def _spans(
    marks: Sequence[_Mark], middle: int, most_bytes: int, most_frames: int
) -> list[tuple[int, int]]:
    """Windows as half-open ranges of landmarks, in order; the one around `middle` reaches as far back as forward."""

    def fits(a: int, b: int, share: int = 1) -> bool:
        some = marks[a:b]
        return (
            marks[a].section == marks[b - 1].section
            and sum(each.bytes for each in some) * share <= most_bytes
            and sum(each.frames for each in some) * share <= most_frames
        )

    a, b = middle, middle + 1
    while a and fits(a - 1, middle + 1, 2):
        a -= 1
    while b < len(marks) and fits(a, b + 1):
        b += 1
    while a and fits(a - 1, b):
        a -= 1
    spans = [(a, b)]
    while a:
        stop = a
        a -= 1
        while a and fits(a - 1, stop):
            a -= 1
        spans.insert(0, (a, stop))
    while b < len(marks):
        start = b
        b += 1
        while b < len(marks) and fits(start, b + 1):
            b += 1
        spans.append((start, b))
    return spans


class _Walk:
    """Over all blocks of a file, in pieces."""

    def __init__(self, read: Read, size: int) -> None:
        self._read = read
        self._size = size
        self.marks: list[_Mark] = []
        self.headers: list[Header] = []
        self.orders: list[str] = []
        self._clocks: list[Callable[[int], int]] = []  # of the section's interfaces
        self._header_bytes = 0
        self._frames = 0

    def through(self) -> None:
        """Raises `BadInput` when it does not begin as a pcapng file does."""
        at = 0
        while at + 12 <= self._size:
            piece = self._read(at, _PIECE)
            passed = self._through(piece, at)
            if not passed:
                break
            at += passed
        if not self.orders:
            raise BadInput("not a pcapng file", where="its first bytes")

    def _through(self, piece: bytes, base: int) -> int:
        """How far the blocks of this piece reach; 0 where the file turns to garbage."""
        at, end = 0, len(piece)
        is_last = base + end >= self._size
        stop = end - 12 if is_last else end - _HEAD - _LONGEST_TIME
        while at <= stop:
            if self.orders:
                at = self._packets(piece, at, stop, base)
                if at > stop:
                    break
            if piece[at : at + 4] == _SECTION_MARK:
                self._section(piece[at + 8 : at + 12])
            if not self.orders:
                return 0
            order = self.orders[-1]
            kind, length = struct.unpack_from(order + "II", piece, at)
            least = _LEAST.get(kind, 12)
            if length < least or length % 4 or base + at + length > self._size:
                return 0
            if kind in ROWS:
                self._frame(piece, at, base, kind, length, order)
            elif kind in _HEADERS or kind == blocks.SECTION:
                self._header(base + at, kind, length, order)
            at += length
        return at

    def _packets(self, piece: bytes, at: int, stop: int, base: int) -> int:
        """Pass over packets that belong to the last landmark, and say where something else comes."""
        mark = self.marks[-1] if self.marks else None
        if mark is None or mark.section != len(self.orders) - 1 or not self._clocks:
            return at
        unpack = struct.Struct(self.orders[-1] + "IIIII").unpack_from
        frames, full = mark.frames, min(self._size, mark.at + _STRIDE) - base
        seen: tuple[int, int, int] | None = None
        whole = min(stop, len(piece) - _LEAST[blocks.PACKET])
        while at <= whole and frames < _STRIDE_FRAMES:
            kind, length, interface, high, low = unpack(piece, at)
            if kind != blocks.PACKET or length < 32 or length % 4 or at + length > full:
                break
            seen = interface, high, low
            frames += 1
            at += length
        if seen is not None:
            mark.last_ns = self._stamp(*seen) or mark.last_ns
            mark.stop = base + at
            self._frames += frames - mark.frames
            mark.frames = frames
        return at

    def _section(self, magic: bytes) -> None:
        order = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}.get(magic)
        if order is not None:
            self.orders.append(order)
            self._clocks = []

    def _header(self, at: int, kind: int, length: int, order: str) -> None:
        self._header_bytes += length
        if self._header_bytes > _MAX_HEADERS:
            raise BadInput(
                "the capture file has too many interfaces and names", where=f"byte {at}"
            )
        self.headers.append(Header(kind, len(self.orders) - 1, at, length))
        if kind == blocks.INTERFACE:
            self._clocks.append(_clock(self._read(at, length), order))

    def _frame(self, piece: bytes, at: int, base: int, kind: int, length: int, order: str) -> None:
        mark = self.marks[-1] if self.marks else None
        section = len(self.orders) - 1
        if (
            mark is None
            or mark.section != section
            or mark.frames >= _STRIDE_FRAMES
            or mark.bytes >= _STRIDE
        ):
            before_ns = mark.last_ns if mark else 0
            mark = _Mark(self._frames + 1, base + at, section, last_ns=before_ns)
            self.marks.append(mark)
        ns = self._time(piece, at, kind, order)
        if ns:
            mark.last_ns = ns
        mark.first_ns = mark.first_ns or mark.last_ns
        mark.frames += 1
        mark.stop = base + at + length
        self._frames += 1

    def _time(self, piece: bytes, at: int, kind: int, order: str) -> int:
        """When the frame was seen; 0 for one that does not say."""
        if kind == blocks.PACKET:
            return self._stamp(*struct.unpack_from(order + "III", piece, at + 8))
        if kind == blocks.JOURNAL:
            found = _JOURNAL_TIME.match(piece, at + 8)
            if found:
                return min(int(found[1]) * 1000, _MAX_NS)
        return 0

    def _stamp(self, interface: int, high: int, low: int) -> int:
        if interface >= len(self._clocks):
            return 0
        return min(self._clocks[interface](high << 32 | low), _MAX_NS)


def _clock(raw: bytes, order: str) -> Callable[[int], int]:
    """Ticks of an interface as nanoseconds since 1970."""
    resolution, shift_s, at = 6, 0, 16
    while at + 4 <= len(raw) - 4:
        code, size = struct.unpack_from(order + "HH", raw, at)
        value = raw[at + 4 : at + 4 + size]
        if code == blocks.END or at + 4 + size > len(raw) - 4:
            break
        if code == blocks.IF_TSRESOL and size == 1:
            resolution = value[0]
        elif code == blocks.IF_TSOFFSET and size == 8:
            (shift_s,) = struct.unpack(order + "q", value)
        at += 4 + (size + 3 & ~3)
    units: int = 1 << (resolution & 0x7F) if resolution & 0x80 else 10**resolution
    shift = shift_s * 1_000_000_000
    return lambda ticks: max(0, ticks * 1_000_000_000 // units + shift)
