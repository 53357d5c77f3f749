"""Where in a frame its headers lie: enough to replace addresses and to know where the payload begins."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

TCP, UDP, ICMP, ICMPV6, SCTP = 6, 17, 1, 58, 132
_VLAN: Final = frozenset({0x8100, 0x88A8, 0x9100})
_ARP, _IPV4, _IPV6 = 0x0806, 0x0800, 0x86DD
_EXTENSIONS: Final = frozenset({0, 60, 135, 139, 140})  # that begin with next header and length
_ROUTING, _FRAGMENT = 43, 44


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """Offsets in a frame; 0 where there is no such thing, and a payload that begins at its end is none."""

    macs: tuple[int, ...] = ()
    arp: int = 0
    ip: int = -1
    version: int = 0  # 4, 6
    proto: int = -1  # -1: none that could be found
    transport: int = 0
    first: bool = True  # not a later fragment
    extended: bool = False  # IPv6 extension headers with contents of their own stand between
    payload: int = 0  # the first byte that is no header


def layers(frame: bytes | bytearray, linktype: int) -> Layers:
    """Of one frame. What is not understood is payload from where it begins."""
    match linktype:
        case 1:
            if len(frame) < 14:
                return Layers()
            at, (kind,) = 14, struct.unpack_from(">H", frame, 12)
            macs: tuple[int, ...] = (0, 6)
            while kind in _VLAN and at + 4 <= len(frame):
                (kind,) = struct.unpack_from(">H", frame, at + 2)
                at += 4
        case 113:
            if len(frame) < 16:
                return Layers()
            at, (kind,) = 16, struct.unpack_from(">H", frame, 14)
            macs = (6,) if frame[4:6] == b"\0\6" else ()
        case 276:
            if len(frame) < 20:
                return Layers()
            at, (kind,) = 20, struct.unpack_from(">H", frame, 0)
            macs = (12,) if frame[11] == 6 else ()
        case 101 | 228 | 229:
            at, macs = 0, ()
            kind = {4: _IPV4, 6: _IPV6}.get(frame[0] >> 4 if frame else 0, 0)
        case _:
            return Layers()
    if kind == _IPV4 and at + 20 <= len(frame) and frame[at] >> 4 == 4:
        return _four(frame, at, macs)
    if kind == _IPV6 and at + 40 <= len(frame) and frame[at] >> 4 == 6:
        return _six(frame, at, macs)
    if kind == _ARP and at + 28 <= len(frame) and frame[at + 4 : at + 6] == b"\6\4":
        return Layers(macs=macs, arp=at, payload=at + 28)
    return Layers(macs=macs, payload=at)


def _four(frame: bytes | bytearray, at: int, macs: tuple[int, ...]) -> Layers:
    after = at + max(20, (frame[at] & 15) * 4)
    (fragment,) = struct.unpack_from(">H", frame, at + 6)
    first = not fragment & 0x1FFF
    return _transport(frame, macs, at, 4, frame[at + 9], after, first=first)


def _six(frame: bytes | bytearray, at: int, macs: tuple[int, ...]) -> Layers:
    proto, after, first, extended = frame[at + 6], at + 40, True, False
    while (proto in _EXTENSIONS or proto == _FRAGMENT) and after + 8 <= len(frame):
        if proto == _FRAGMENT:
            first = first and not struct.unpack_from(">H", frame, after + 2)[0] & 0xFFF8
            proto, after = frame[after], after + 8
        else:
            proto, after, extended = frame[after], after + 8 + frame[after + 1] * 8, True
    if proto == _ROUTING:  # has addresses of its own: what follows is not looked at
        proto = -1
    return _transport(frame, macs, at, 6, proto, after, first=first, extended=extended)


def _transport(
    frame: bytes | bytearray,
    macs: tuple[int, ...],
    ip: int,
    version: int,
    proto: int,
    after: int,
    *,
    first: bool,
    extended: bool = False,
) -> Layers:
    length = 0
    if first:
        match proto:
            case 6 if after + 20 <= len(frame):
                length = max(20, (frame[after + 12] >> 4) * 4)
            case 17 | 1 | 58:
                length = 8
            case 132:
                length = 12
            case _:
                pass
    return Layers(
        macs=macs,
        ip=ip,
        version=version,
        proto=proto,
        transport=min(after, len(frame)),
        first=first,
        extended=extended,
        payload=min(after + length, len(frame)),
    )
