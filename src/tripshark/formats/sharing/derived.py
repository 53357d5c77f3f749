"""A file that may be handed on, made of sealed evidence: what was cut, blanked and renamed stands at its head.

It names the SHA-256 of the file it was made of, so that whoever has that can tell what it came from; nothing in it
leads back without the key of its pseudonyms, which nobody keeps unless they brought it.
"""

from __future__ import annotations

import io
import struct
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import numpy as np

from tripshark.errors import BadInput
from tripshark.formats import pcapng
from tripshark.formats.blocks import Interface, Section
from tripshark.formats.packets import Packets
from tripshark.formats.pcapng import File, Row
from tripshark.formats.sharing.blanking import Span, Stream, in_datagram, is_understood, secrets
from tripshark.formats.sharing.layers import ICMP, ICMPV6, TCP, UDP, Layers, layers
from tripshark.formats.sharing.pseudonyms import Pseudonyms

BLANK: Final = 0x78  # "x": text stays text
_DNS: Final = frozenset({53, 5353, 5355})
_PLAIN_TCP_OPTIONS: Final = frozenset({0, 1, 2, 3, 4, 5, 8})  # MSS, window scale, SACK, times
_ALERT: Final = ("PRIORITY", "SYSLOG_IDENTIFIER", "FALCO_RULE", "FALCO_SOURCE", "FALCO_TAGS")
_WHOSE: Final = (
    "K8S_NAMESPACE", "K8S_POD", "CONTAINER_ID", "TRIPSHARK_INCIDENT", "TRIPSHARK_ALERT",
)  # fmt: skip
_LINKTYPES: Final = frozenset({1, 101, 113, 228, 229, 276})


class Payloads(StrEnum):
    CUT = "cut"  # nothing behind the transport header
    BLANKED = "blanked"  # credentials and cookies overwritten; what is not understood is cut
    FULL = "full"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """How much is handed on."""

    payloads: Payloads = Payloads.CUT
    pseudonyms: bytes | None = None  # key of 32 bytes; None: addresses and names stay

    def __post_init__(self) -> None:
        if self.pseudonyms is not None and self.payloads is not Payloads.CUT:
            raise BadInput(
                "payloads name addresses too: with pseudonyms they are cut",
                where="payloads",
                hint="share payloads without pseudonyms, or pseudonyms without payloads",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """The derived file, and what was done, in numbers."""

    content: bytes
    packets: int
    cut: int  # packets that lost payload
    blanked: int  # packets in which something was overwritten
    addresses: int  # that have pseudonyms


def shared(data: bytes | memoryview, wish: Wish, *, origin: str, sha256: str) -> Shared:
    """Derive. `origin` and `sha256` name what it is made of.

    Decryption secrets never come along. Raises `BadInput` for what is no pcapng file.
    """
    file = pcapng.read(data)
    maker = _Maker(file, wish)
    packets = maker.packets()
    out = io.BytesIO()
    told = (
        f"Derived from {origin}, SHA-256 {sha256}",
        _done(wish),
        f"{len(packets)} packets, {maker.cut} cut, {maker.blanked} blanked",
    )
    hides = maker.pseudonyms is not None
    is_full = wish.payloads is Payloads.FULL
    pcapng.write(
        out,
        section=Section(
            comments=(*told, *file.section.comments) if is_full else told,
            os="" if hides else file.section.os,
            application=file.section.application,
        ),
        interfaces=[maker.interface(each, at) for at, each in enumerate(file.interfaces)],
        names={} if hides else file.names,
        packets=packets,
        rows=[maker.row(each) for each in file.rows],
        statistics=[replace(each, comments=()) if hides else each for each in file.statistics],
        comments=file.comments if is_full else {},
    )
    return Shared(
        content=out.getvalue(),
        packets=len(packets),
        cut=maker.cut,
        blanked=maker.blanked,
        addresses=maker.addresses,
    )


def _done(wish: Wish) -> str:
    words = {
        Payloads.CUT: "Payloads were cut",
        Payloads.BLANKED: "Credentials and cookies were blanked, payloads that are not understood were cut",
        Payloads.FULL: "Payloads are whole",
    }[wish.payloads]
    if wish.pseudonyms is None:
        return words
    return (
        f"{words}; addresses are pseudonyms that keep prefixes (Crypto-PAn); names were left out"
    )


class _Maker:
    """One file on its way."""

    def __init__(self, file: File, wish: Wish) -> None:
        self._file = file
        self._wish = wish
        self._linktype = file.interfaces[0].linktype if file.interfaces else 1
        self.pseudonyms = None if wish.pseudonyms is None else Pseudonyms(wish.pseudonyms)
        self.cut = 0
        self.blanked = 0

    @property
    def addresses(self) -> int:
        return 0 if self.pseudonyms is None else len(self.pseudonyms)

    def packets(self) -> Packets:
        """Rewritten over a buffer of their own."""
        all_ = self._file.packets.compact()
        if self._wish.payloads is Payloads.FULL or not len(all_):
            return all_
        data = all_.data
        found = [
            layers(data[at : at + size].tobytes(), self._linktype)
            for at, size in zip(all_.start.tolist(), all_.caplen.tolist(), strict=True)
        ]
        keep = all_.caplen.astype(np.int64)
        if self._wish.payloads is Payloads.BLANKED:
            whole = self._blank(all_, found)
        else:
            whole = set()
        for index, at in enumerate(found):
            if index not in whole:
                ends = at.ip + 40 if at.extended and self.pseudonyms is not None else at.payload
                if ends < keep[index]:
                    keep[index] = ends
                    self.cut += 1
            if self.pseudonyms is not None:
                start = int(all_.start[index])
                frame = bytearray(data[start : start + int(keep[index])].tobytes())
                _rename(frame, at, self.pseudonyms)
                data[start : start + len(frame)] = np.frombuffer(frame, np.uint8)
        return replace(all_, caplen=keep.astype(np.uint32))

    def _blank(self, all_: Packets, found: Sequence[Layers]) -> set[int]:
        """Overwrite secrets in place; the packets whose payload may stay."""
        streams: dict[bytes, Stream] = defaultdict(Stream)
        whole: set[int] = set()
        blanks: dict[int, list[Span]] = defaultdict(list)
        members: dict[bytes, list[int]] = defaultdict(list)
        for index, at in enumerate(found):
            frame = all_.bytes_of(index)
            if at.payload >= len(frame):
                whole.add(index)  # nothing to be cut
            elif at.proto == TCP and at.first:
                flow = _flow(frame, at)
                (sequence,) = struct.unpack_from(">I", frame, at.transport + 4)
                payload = frame[at.payload : _ip_end(frame, at)]
                if payload:  # and not what a short frame is padded with
                    streams[flow].add(sequence, index, payload)
                    members[flow].append(index)
            elif at.proto == UDP and at.first and _DNS & set(_ports(frame, at)):
                whole.add(index)
                blanks[index] += in_datagram(frame[at.payload :])
        for flow, stream in streams.items():
            if is_understood(stream, streams.get(_turned(flow))):
                whole.update(members[flow])
                for index, span in secrets(stream):
                    blanks[index].append(span)
        for index, spans in blanks.items():
            start = int(all_.start[index]) + found[index].payload
            for begin, end in spans:
                all_.data[start + begin : start + end] = BLANK
            self.blanked += bool(spans)
        return whole

    def interface(self, it: Interface, at: int) -> Interface:
        """Its name, filter and addresses tell of somebody: with pseudonyms it has a number."""
        if self._linktype not in _LINKTYPES:
            it = replace(it, comments=(*it.comments, "Frames of this kind are not understood"))
        if self.pseudonyms is None:
            return it
        return Interface(
            name=f"interface {at}",
            description=f"pod {at}",
            linktype=it.linktype,
            snaplen=it.snaplen,
        )

    def row(self, row: Row) -> Row:
        """An alert's row. Its text and its process's arguments may hold a password: they go with the payloads."""
        time_ns, fields = row
        if self._wish.payloads is Payloads.FULL:
            return row
        names = _ALERT if self.pseudonyms is not None else (*_ALERT, *_WHOSE)
        kept = {name: fields[name] for name in names if name in fields}
        return time_ns, {"MESSAGE": kept.get("FALCO_RULE", "alert"), **kept}


def _rename(frame: bytearray, at: Layers, names: Pseudonyms) -> None:
    """Addresses in place, checksums with them."""
    for offset in at.macs:
        frame[offset : offset + 6] = names.mac(bytes(frame[offset : offset + 6]))
    if at.arp:
        for offset, size in ((8, 6), (14, 4), (18, 6), (24, 4)):
            here = slice(at.arp + offset, at.arp + offset + size)
            frame[here] = (names.mac if size == 6 else names.ip)(bytes(frame[here]))
    if at.ip < 0:
        return
    size = 4 if at.version == 4 else 16
    first = at.ip + (12 if size == 4 else 8)
    here = slice(first, first + 2 * size)
    before = bytes(frame[here])
    frame[here] = names.ip(before[:size]) + names.ip(before[size:])
    after = bytes(frame[here])
    if size == 4:
        options = slice(at.ip + 20, max(at.ip + 20, min(at.transport, len(frame))))
        routed = bytes(frame[options])
        frame[options] = b"\1" * len(routed)  # a source route has addresses
        _adjust(frame, at.ip + 10, before + routed, after + bytes(frame[options]))
    place = {TCP: 16, UDP: 6, ICMPV6: 2}.get(at.proto)
    if place is not None and at.first and at.transport + place + 2 <= len(frame):
        _adjust(frame, at.transport + place, before, after, may_be_none=at.proto == UDP)
    if at.proto == TCP and at.first and at.transport + 20 <= len(frame):
        _plain_options(frame, at)
    if at.proto == ICMP and at.first and frame[at.transport : at.transport + 1] == b"\5":
        gateway = slice(at.transport + 4, at.transport + 8)  # of a redirect
        old = bytes(frame[gateway])
        if len(old) == 4:
            frame[gateway] = names.ip(old)
            _adjust(frame, at.transport + 2, old, bytes(frame[gateway]))


def _plain_options(frame: bytearray, at: Layers) -> None:
    """TCP options that are not plain (Multipath TCP tells addresses) become no-operations."""
    options = slice(at.transport + 20, at.payload)
    before = bytes(frame[options])
    made = bytearray(before)
    here = 0
    while here < len(made) and made[here]:
        size = 1 if made[here] == 1 else max(2, made[here + 1] if here + 1 < len(made) else 2)
        if made[here] not in _PLAIN_TCP_OPTIONS:
            made[here : here + size] = b"\1" * len(made[here : here + size])
        here += size
    frame[options] = made
    _adjust(frame, at.transport + 16, before, bytes(made))


def _adjust(
    frame: bytearray, place: int, before: bytes, after: bytes, *, may_be_none: bool = False
) -> None:
    """The checksum there as `before` became `after` (RFC 1624): a wrong one stays wrong."""
    (old,) = struct.unpack_from(">H", frame, place)
    if may_be_none and not old:
        return
    total = (~old & 0xFFFF) + (~_sum(before) & 0xFFFF) + _sum(after)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    made = ~total & 0xFFFF
    struct.pack_into(">H", frame, place, made or (0xFFFF if may_be_none else 0))


def _sum(data: bytes) -> int:
    """The ones' complement sum of 16-bit words."""
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data[: len(data) & ~1]))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def _flow(frame: bytes, at: Layers) -> bytes:
    """Source, destination and ports as they stand."""
    size = 8 if at.version == 4 else 32
    first = at.ip + (12 if at.version == 4 else 8)
    return frame[first : first + size] + frame[at.transport : at.transport + 4]


def _turned(flow: bytes) -> bytes:
    half = (len(flow) - 4) // 2
    return flow[half : 2 * half] + flow[:half] + flow[-2:] + flow[-4:-2]


def _ports(frame: bytes, at: Layers) -> tuple[int, int]:
    source, destination = struct.unpack_from(">HH", frame, at.transport)
    return source, destination


def _ip_end(frame: bytes, at: Layers) -> int:
    """Where the packet ends by its own word: a short frame is padded. 0 is said where the kernel had not cut it yet."""
    place, before = (at.ip + 2, 0) if at.version == 4 else (at.ip + 4, 40)
    (length,) = struct.unpack_from(">H", frame, place)
    return min(len(frame), at.ip + before + int(length)) if length else len(frame)
