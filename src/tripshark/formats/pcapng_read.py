"""What a pcapng file holds: our own spools and evidence read back, and what other tools wrote.

A file that was cut off, or that turns to garbage, gives everything before that place and says where it is.
"""

from __future__ import annotations

import ipaddress
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tripshark.errors import BadInput
from tripshark.formats import blocks
from tripshark.formats.blocks import Interface, Section, Statistics
from tripshark.formats.packets import OUT, Packets, concat
from tripshark.formats.spans import windows
from tripshark.formats.ticks import nanoseconds

_HEAD: Final = 28
_SECTION_MARK: Final = blocks.SECTION.to_bytes(4, "big")  # the same in either byte order
_LEAST: Final = 12  # bytes of a block
_POSITION_BITS: Final = np.uint64(20)
_MOST_OPTIONS: Final = 1000  # per packet
_MOST_INTERFACES: Final = 65_535
_MICROSECONDS: Final = 6
_MOST_OFFSET_S: Final = 1 << 33


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """The contents. `packets.source` is the index in `interfaces`; `comments` are by the packet's index."""

    section: Section
    interfaces: tuple[Interface, ...]
    names: Mapping[str, str]
    packets: Packets
    rows: tuple[tuple[int, Mapping[str, str | bytes]], ...]
    comments: Mapping[int, tuple[str, ...]]
    statistics: tuple[Statistics, ...]
    skipped: Mapping[int, int]  # how many blocks of which type were passed over
    truncated_at: int | None  # offset of the first block that is incomplete or garbage


def read(buffer: bytes | bytearray | memoryview) -> File:
    """Read a whole file; packets lie in `buffer` itself. Raises `BadInput` when it is no pcapng file at all."""
    view = memoryview(buffer).cast("B")
    reader = _Reader(view)
    truncated_at = reader.walk()
    data = np.frombuffer(view, np.uint8)
    for part in reader.parts:
        bad = part.decode(data)
        if bad is not None:
            return replace(read(view[:bad]), truncated_at=bad)
    comments: dict[int, tuple[str, ...]] = {}
    before = 0
    for part in reader.parts:
        comments |= {before + index: tuple(said) for index, said in part.comments.items()}
        before += len(part.offsets)
    return File(
        section=reader.section,
        interfaces=tuple(each for part in reader.parts for each in part.interfaces),
        names=reader.names,
        packets=concat([part.packets for part in reader.parts]),
        rows=tuple(reader.rows),
        comments=comments,
        statistics=tuple(reader.statistics),
        skipped=reader.skipped,
        truncated_at=truncated_at,
    )


class _Garbage(Exception):
    """Bytes that are not the block they claim to be."""


@dataclass(slots=True)
class _Part:
    """One section: its byte order, its interfaces, and where its packet blocks begin."""

    order: str  # "<" or ">"
    base: int  # interfaces in the sections before
    interfaces: list[Interface] = field(default_factory=list)
    declared: list[int] = field(default_factory=list)  # where each interface's block begins
    resolutions: list[int] = field(default_factory=list)
    shifts_s: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    packets: Packets = field(default_factory=Packets.empty)
    comments: dict[int, list[str]] = field(default_factory=dict)

    def times(
        self, interface: NDArray[np.integer], high: NDArray[np.integer], low: NDArray[np.integer]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Times in ns, and whether each can be said in ns since 1970 at all."""
        ticks = high.astype(np.uint64) << np.uint64(32) | low.astype(np.uint64)
        resolution = np.array(self.resolutions, np.uint8)[interface]
        shift_s = np.array(self.shifts_s, np.int64)[interface]
        ns, fits = nanoseconds(ticks, resolution)
        about = ns.astype(np.float64) + shift_s * 1e9
        fits &= (about >= 0) & (about < 9.2e18)
        return np.where(fits, ns + np.where(fits, shift_s, 0) * 1_000_000_000, 0), fits

    def decode(self, data: NDArray[np.uint8]) -> int | None:
        """Fill `packets` and `comments`, or say where the first bad packet block is."""
        if not self.offsets:
            return None
        if not self.interfaces:
            return self.offsets[0]
        at = np.array(self.offsets, np.int64)
        head = windows(data, _HEAD)[at].view(self.order + "u4").reshape(-1, _HEAD // 4)
        length, interface, caplen = (head[:, i].astype(np.int64) for i in (1, 2, 5))
        stop = at + length - 4
        options = at + _HEAD + (caplen + 3 & ~3)
        sound = (options <= stop) & (interface < len(self.interfaces))
        sound &= windows(data, 4)[stop].view(self.order + "u4") == length
        interface = np.where(sound, interface, 0)
        sound &= np.array(self.declared, np.int64)[interface] < at
        time_ns, fits = self.times(interface, head[:, 3], head[:, 4])
        sound &= fits
        found = _Options(data, self.order, np.where(sound, options, stop), stop)
        sound &= found.sound
        if not bool(sound.all()):
            return int(at[np.argmin(sound)])
        self.comments = found.comments
        self.packets = Packets(
            data=data,
            start=at + _HEAD,
            caplen=caplen.astype(np.uint32),
            length=head[:, 6].astype(np.uint32),
            time_ns=time_ns,
            direction=found.direction,
            source=(interface + self.base).astype(np.uint16),
            seq=found.id >> _POSITION_BITS,
            pos=(found.id & ((np.uint64(1) << _POSITION_BITS) - np.uint64(1))).astype(np.uint32),
            status=np.zeros(len(at), np.uint32),
        )
        return None


class _Options:
    """The options of many packets, read one per packet and round."""

    def __init__(
        self, data: NDArray[np.uint8], order: str, at: NDArray[np.int64], stop: NDArray[np.int64]
    ) -> None:
        self.direction = np.zeros(len(at), np.uint8)
        self.id = np.zeros(len(at), np.uint64)
        self.comments: dict[int, list[str]] = {}
        self.sound = np.ones(len(at), np.bool_)
        at = at.copy()
        open_ = np.flatnonzero(at + 4 <= stop)
        for _ in range(_MOST_OPTIONS):
            if not len(open_):
                return
            here = at[open_]
            words = windows(data, 4)[here].view(order + "u2").reshape(-1, 2)
            code, size = words[:, 0], words[:, 1].astype(np.int64)
            whole = here + 4 + size <= stop[open_]
            self.sound[open_[~whole]] = False
            going = whole & (code != blocks.END)
            open_, here, code, size = open_[going], here[going] + 4, code[going], size[going]
            self._note(data, order, open_, here, code, size)
            at[open_] = here + (size + 3 & ~3)
            open_ = open_[at[open_] + 4 <= stop[open_]]
        self.sound[open_] = False

    def _note(
        self,
        data: NDArray[np.uint8],
        order: str,
        which: NDArray[np.intp],
        at: NDArray[np.int64],
        code: NDArray[np.integer],
        size: NDArray[np.int64],
    ) -> None:
        is_flags = (code == blocks.PACKET_FLAGS) & (size == 4)
        low = at[is_flags] + (0 if order == "<" else 3)
        direction = data[low] & 3
        self.direction[which[is_flags]] = np.where(direction <= OUT, direction, 0)
        is_id = (code == blocks.PACKET_ID) & (size == 8)
        if is_id.any():
            self.id[which[is_id]] = windows(data, 8)[at[is_id]].view(order + "u8")
        for i in np.flatnonzero(code == blocks.COMMENT).tolist():
            said = data[int(at[i]) : int(at[i] + size[i])].tobytes().decode(errors="replace")
            self.comments.setdefault(int(which[i]), []).append(said)


class _Reader:
    """Walks over the blocks; packets are only located, everything else is read at once."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self.section = Section()
        self.parts: list[_Part] = []
        self.names: dict[str, str] = {}
        self.rows: list[tuple[int, Mapping[str, str | bytes]]] = []
        self.statistics: list[Statistics] = []
        self.skipped: Counter[int] = Counter()

    def walk(self) -> int | None:
        """Read everything, and say where it turns to garbage. Raises `BadInput`."""
        at = 0
        try:
            while at < len(self._view):
                at = self._packets(at)
                if at < len(self._view):
                    at += self._block(at)
        except _Garbage:
            if at:
                return at
        if not at:
            raise BadInput(
                "not a pcapng file", where="its first bytes", hint="classic pcap is read by `pcap`"
            )
        return None

    def _packets(self, at: int) -> int:
        """Locate the packet blocks that follow each other from here, and say where something else comes."""
        if not self.parts:
            return at
        end = len(self._view)
        unpack = struct.Struct(self.parts[-1].order + "II").unpack_from
        add = self.parts[-1].offsets.append
        while at + _HEAD + 4 <= end:
            kind, length = unpack(self._view, at)
            if kind != blocks.PACKET or length < _HEAD + 4 or length % 4 or at + length > end:
                break
            add(at)
            at += length
        return at

    def _block(self, at: int) -> int:
        """Read one block that is no packet, and say how long it is."""
        if at + _LEAST > len(self._view):
            raise _Garbage
        if self._view[at : at + 4] == _SECTION_MARK:
            self._section(at)
        if not self.parts:
            raise _Garbage
        order = self.parts[-1].order
        kind, length = struct.unpack_from(order + "II", self._view, at)
        if length < _LEAST or length % 4 or at + length > len(self._view):
            raise _Garbage
        if struct.unpack_from(order + "I", self._view, at + length - 4)[0] != length:
            raise _Garbage
        body = self._view[at + 8 : at + length - 4]
        match kind:
            case blocks.SECTION:
                self._describe(body[16:])
            case blocks.INTERFACE:
                self._interface(at, body)
            case blocks.NAMES:
                self._names(body)
            case blocks.STATISTICS:
                self._counters(body)
            case blocks.JOURNAL:
                self._row(bytes(body))
            case blocks.PACKET:
                raise _Garbage  # one too short to be one
            case blocks.OLD_PACKET | blocks.SIMPLE_PACKET:
                raise BadInput(
                    "the file has packets in blocks of a kind that is not read",
                    where=f"byte {at}, block type {kind}",
                    hint="rewrite it: tshark -r FILE -w NEW",
                )
            case _:
                self.skipped[kind] += 1
        return int(length)

    def _section(self, at: int) -> None:
        if at + 28 > len(self._view):
            raise _Garbage
        for order in "<>":
            if struct.unpack_from(order + "I", self._view, at + 8)[0] == blocks.BYTE_ORDER:
                base = sum(len(part.interfaces) for part in self.parts)
                self.parts.append(_Part(order=order, base=base))
                return
        raise _Garbage

    def _describe(self, options: memoryview) -> None:
        """The first section speaks for the file."""
        if len(self.parts) > 1:
            return
        found: dict[int, list[str]] = {}
        for code, value in _options(options, self.parts[-1].order):
            found.setdefault(code, []).append(_words(value))
        self.section = Section(
            comments=tuple(found.get(blocks.COMMENT, ())),
            hardware="".join(found.get(blocks.SECTION_HARDWARE, ())),
            os="".join(found.get(blocks.SECTION_OS, ())),
            application="".join(found.get(blocks.SECTION_APPLICATION, ())),
        )

    def _interface(self, at: int, body: memoryview) -> None:
        part = self.parts[-1]
        if len(body) < 8 or part.base + len(part.interfaces) >= _MOST_INTERFACES:
            raise _Garbage
        linktype, _, snaplen = struct.unpack_from(part.order + "HHI", body)
        interface = Interface(name="", linktype=linktype, snaplen=snaplen)
        resolution, shift_s = _MICROSECONDS, 0
        for code, value in _options(body[8:], part.order):
            if code == blocks.IF_TSRESOL and len(value) == 1:
                resolution = value[0]
            elif code == blocks.IF_TSOFFSET and len(value) == 8:
                (shift_s,) = struct.unpack(part.order + "q", value)
            else:
                interface = _described(interface, code, value, part.order)
        if abs(shift_s) > _MOST_OFFSET_S:
            raise _Garbage
        part.interfaces.append(interface)
        part.declared.append(at)
        part.resolutions.append(resolution)
        part.shifts_s.append(shift_s)

    def _names(self, body: memoryview) -> None:
        for kind, value in _options(body, self.parts[-1].order):
            size = {blocks.NAME_IPV4: 4, blocks.NAME_IPV6: 16}.get(kind, 0)
            if size and len(value) > size:
                address = str(ipaddress.ip_address(value[:size]))
                self.names.setdefault(address, _words(value[size:].split(b"\0")[0]))

    def _counters(self, body: memoryview) -> None:
        part = self.parts[-1]
        if len(body) < 12:
            raise _Garbage
        interface, high, low = struct.unpack_from(part.order + "III", body)
        if interface >= len(part.interfaces):
            raise _Garbage
        times = {blocks.STAT_END: (high, low)}
        counts: dict[int, int] = {}
        comments: list[str] = []
        for code, value in _options(body[12:], part.order):
            if code == blocks.COMMENT:
                comments.append(_words(value))
            elif code in (blocks.STAT_START, blocks.STAT_END) and len(value) == 8:
                times[code] = struct.unpack(part.order + "II", value)
            elif code in (blocks.STAT_RECEIVED, blocks.STAT_DROPPED) and len(value) == 8:
                (counts[code],) = struct.unpack(part.order + "Q", value)
        pairs = np.array([times.get(blocks.STAT_START, (0, 0)), times[blocks.STAT_END]], np.uint64)
        at, _ = part.times(np.full(2, interface), pairs[:, 0], pairs[:, 1])
        self.statistics.append(
            Statistics(
                interface=part.base + interface,
                start_ns=int(at[0]),
                end_ns=int(at[1]),
                received=counts.get(blocks.STAT_RECEIVED),
                dropped=counts.get(blocks.STAT_DROPPED),
                comments=tuple(comments),
            )
        )

    def _row(self, entry: bytes) -> None:
        fields = _journal(entry.rstrip(b"\0"))
        time_us = fields.pop(blocks.TIME_FIELD, "")
        if isinstance(time_us, str) and time_us.isascii() and time_us.isdecimal():
            self.rows.append((int(time_us) * 1000, fields))
        else:
            self.skipped[blocks.JOURNAL] += 1  # an entry without a time has no place in the list


def _described(interface: Interface, code: int, value: bytes, order: str) -> Interface:
    """The interface with what one option says of it."""
    match code:
        case blocks.COMMENT:
            return replace(interface, comments=(*interface.comments, _words(value)))
        case blocks.IF_NAME:
            return replace(interface, name=_words(value))
        case blocks.IF_DESCRIPTION:
            return replace(interface, description=_words(value))
        case blocks.IF_OS:
            return replace(interface, os=_words(value))
        case blocks.IF_FILTER if value[:1] == b"\0":
            return replace(interface, filter=_words(value[1:]))
        case blocks.IF_MAC:
            return replace(interface, mac=value.hex(":"))
        case blocks.IF_SPEED if len(value) == 8:
            return replace(interface, speed=struct.unpack(order + "Q", value)[0])
        case blocks.IF_IPV4 | blocks.IF_IPV6:
            address = _address(value)
            return replace(interface, addresses=(*interface.addresses, *address))
        case _:
            return interface


def _address(value: bytes) -> tuple[str, ...]:
    """`10.0.0.7/24` of an interface's address option, nothing for one that makes no sense."""
    try:
        if len(value) == 8:
            return (
                str(
                    ipaddress.ip_interface(
                        f"{ipaddress.ip_address(value[:4])}/{ipaddress.ip_address(value[4:])}"
                    )
                ),
            )
        return (str(ipaddress.IPv6Interface((value[:16], value[16]))),)
    except (ValueError, IndexError):
        return ()


def _options(body: memoryview, order: str) -> Iterator[tuple[int, bytes]]:
    at = 0
    head = struct.Struct(order + "HH")
    while at + 4 <= len(body):
        code, size = head.unpack_from(body, at)
        if code == blocks.END:
            return
        if at + 4 + size > len(body):
            raise _Garbage
        yield code, bytes(body[at + 4 : at + 4 + size])
        at += 4 + (size + 3 & ~3)


def _journal(entry: bytes) -> dict[str, str | bytes]:
    """The fields of a journal entry: NAME=value, or NAME, the value's length and the value."""
    fields: dict[str, str | bytes] = {}
    at = 0
    while at < len(entry):
        line, newline, _ = entry[at:].partition(b"\n")
        name, equals, value = line.partition(b"=")
        if equals:
            at += len(line) + 1
        else:
            at += len(line) + 9
            if not newline or at > len(entry):
                raise _Garbage
            (size,) = struct.unpack_from("<Q", entry, at - 8)
            value = entry[at : at + size]
            at += size + 1
            if len(value) != size:
                raise _Garbage
        try:
            fields[_words(name)] = value.decode()
        except UnicodeDecodeError:
            fields[_words(name)] = value
    return fields


def _words(value: bytes) -> str:
    return value.decode(errors="replace")
