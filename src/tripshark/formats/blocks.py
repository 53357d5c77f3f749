"""What a pcapng file is made of besides packets: blocks and options, and the values that print themselves so.

Layouts: draft-ietf-opsawg-pcapng. We write little-endian with nanosecond times.
"""

from __future__ import annotations

import ipaddress
import re
import struct
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tripshark.errors import BadInput
from tripshark.model.text import INVISIBLE, visible

SECTION, INTERFACE, OLD_PACKET, SIMPLE_PACKET, NAMES, STATISTICS, PACKET = (
    0x0A0D0D0A,
    1,
    2,
    3,
    4,
    5,
    6,
)
JOURNAL: Final = 9  # systemd Journal Export Block: an alert as a row of the packet list
BYTE_ORDER: Final = 0x1A2B3C4D

END, COMMENT = 0, 1
SECTION_HARDWARE, SECTION_OS, SECTION_APPLICATION = 2, 3, 4
IF_NAME, IF_DESCRIPTION, IF_IPV4, IF_IPV6, IF_MAC, IF_SPEED, IF_TSRESOL, IF_FILTER, IF_OS = (
    2,
    3,
    4,
    5,
    6,
    8,
    9,
    11,
    12,
)
IF_TSOFFSET: Final = 14
PACKET_FLAGS, PACKET_ID = 2, 5
STAT_START, STAT_END, STAT_RECEIVED, STAT_DROPPED = 2, 3, 4, 5
NAME_END, NAME_IPV4, NAME_IPV6 = 0, 1, 2

_LONGEST_OPTION: Final = 0xFFFF
_LONGEST_NAME: Final = 63  # what Wireshark 4.0 and 4.4 show; they cut the rest without a word
_LONGEST_FIELD: Final = 1 << 20
_ELLIPSIS: Final = "…"
_NANOSECONDS: Final = 9
TIME_FIELD: Final = "__REALTIME_TIMESTAMP"
_FIELD_NAME: Final = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """What stands at the head of a file."""

    comments: Sequence[str] = ()
    hardware: str = ""
    os: str = ""
    application: str = ""

    def block(self) -> bytes:
        options = [
            *(text(COMMENT, comment) for comment in self.comments),
            text(SECTION_HARDWARE, self.hardware),
            text(SECTION_OS, self.os),
            text(SECTION_APPLICATION, self.application),
        ]
        return block(SECTION, struct.pack("<IHHq", BYTE_ORDER, 1, 0, -1) + ended(options))


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """Where packets were recorded. Wireshark shows the description in place of the name where it has room for one."""

    name: str
    description: str = ""
    linktype: int = 1
    snaplen: int = 262_144
    filter: str = ""
    mac: str = ""
    addresses: Sequence[str] = ()  # "10.0.0.7/24"
    comments: Sequence[str] = ()
    os: str = ""
    speed: int = 0  # bits per second, 0: unknown

    def block(self) -> bytes:
        """Raises `BadInput` for an address that is none."""
        options = [
            *(text(COMMENT, comment) for comment in self.comments),
            text(IF_NAME, self.name),
            text(IF_DESCRIPTION, self.description),
            *(_address_option(address) for address in self.addresses),
            option(IF_MAC, _mac(self.mac)) if self.mac else b"",
            option(IF_SPEED, struct.pack("<Q", self.speed)) if self.speed else b"",
            option(IF_TSRESOL, bytes([_NANOSECONDS])),
            text(IF_FILTER, self.filter, before=b"\0") if self.filter else b"",
            text(IF_OS, self.os),
        ]
        return block(
            INTERFACE, struct.pack("<HHI", self.linktype, 0, self.snaplen) + ended(options)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """An interface's counters at the end. Wireshark shows the drops only where there is one block per interface."""

    interface: int
    start_ns: int
    end_ns: int
    received: int | None = None
    dropped: int | None = None
    comments: Sequence[str] = ()

    def block(self) -> bytes:
        options = [
            *(text(COMMENT, comment) for comment in self.comments),
            option(STAT_START, _time(self.start_ns)),
            option(STAT_END, _time(self.end_ns)),
            *(
                option(code, struct.pack("<Q", count))
                for code, count in ((STAT_RECEIVED, self.received), (STAT_DROPPED, self.dropped))
                if count is not None
            ),
        ]
        return block(
            STATISTICS, struct.pack("<I", self.interface) + _time(self.end_ns) + ended(options)
        )


def names(mapping: Mapping[str, str]) -> bytes:
    """The block that gives addresses their names, one per address; b"" where there is none to give.

    Names are made visible and at most 63 bytes long. Raises `BadInput` for an address that is none.
    """
    records: dict[bytes, bytes] = {}
    for address, name in mapping.items():
        shown = short_name(name)
        if shown:
            packed = _ip(address).packed
            value = packed + shown.encode() + b"\0"
            kind = NAME_IPV4 if len(packed) == 4 else NAME_IPV6
            records.setdefault(packed, struct.pack("<HH", kind, len(value)) + padded(value))
    return block(NAMES, b"".join(records.values()) + bytes(4)) if records else b""


def short_name(name: str) -> str:
    """A name as it can be shown: nothing invisible, and of a long one the head and the tail."""
    shown = "".join(letter for letter in name if unicodedata.category(letter) not in INVISIBLE)
    raw = shown.encode()
    if len(raw) <= _LONGEST_NAME:
        return shown
    half = (_LONGEST_NAME - len(_ELLIPSIS.encode())) // 2
    return raw[:half].decode(errors="ignore") + _ELLIPSIS + raw[-half:].decode(errors="ignore")


def alert_row(time_ns: int, fields: Mapping[str, str | bytes]) -> bytes:
    """One alert as a systemd journal entry, which Wireshark shows as a row of its own (in whole microseconds).

    The time comes first: the reader searches for it, and what stood before could say another. A value that
    holds anything but plain text is written with its length, so that it cannot add fields of its own.
    Raises `BadInput` for a field's name that is none.
    """
    parts = [f"{TIME_FIELD}={time_ns // 1000}\n".encode()]
    for name, value in fields.items():
        if not _FIELD_NAME.fullmatch(name) or name == TIME_FIELD:
            raise BadInput(
                "alert row has a field that cannot be written",
                where=repr(name),
                hint="capital letters, digits and underscores, not the time",
            )
        raw = _cut(
            value.encode(errors="replace") if isinstance(value, str) else value, _LONGEST_FIELD
        )
        if _is_plain(raw):
            parts.append(name.encode() + b"=" + raw + b"\n")
        else:
            parts.append(name.encode() + b"\n" + struct.pack("<Q", len(raw)) + raw + b"\n")
    return block(JOURNAL, b"".join(parts))


def block(kind: int, body: bytes) -> bytes:
    """One block: type, total length, body padded to 4 bytes, total length again."""
    body = padded(body)
    length = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + length + body + length


def option(code: int, value: bytes) -> bytes:
    """One option, at most 65,535 bytes of it."""
    return struct.pack("<HH", code, len(value)) + padded(value)


def text(code: int, words: str, before: bytes = b"") -> bytes:
    """An option of text, cut where it is too long; b"" where it says nothing. A NUL would end it for some readers.

    What cannot be seen is spelled out: capinfos prints options as they are, and rules and names come from alerts.
    """
    if not words:
        return b""
    raw = before + visible(words.replace("\0", "")).encode()
    return option(code, _cut(raw, _LONGEST_OPTION))


def ended(options: Iterable[bytes]) -> bytes:
    """Options with their end mark, or b"" where there are none."""
    joined = b"".join(options)
    return joined and joined + bytes(4)


def padded(raw: bytes) -> bytes:
    return raw + bytes(-len(raw) % 4)


def _cut(raw: bytes, most: int) -> bytes:
    """At most so many bytes, no character of UTF-8 split."""
    if len(raw) <= most:
        return raw
    while most and raw[most] & 0xC0 == 0x80:
        most -= 1
    return raw[:most]


def _is_plain(raw: bytes) -> bool:
    try:
        words = raw.decode()
    except UnicodeDecodeError:
        return False
    return all(unicodedata.category(letter) != "Cc" for letter in words)


def _time(ns: int) -> bytes:
    return struct.pack("<II", ns >> 32 & 0xFFFF_FFFF, ns & 0xFFFF_FFFF)


def _ip(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(address)
    except ValueError as error:
        raise BadInput("not an IP address", where=repr(address)) from error


def _address_option(address: str) -> bytes:
    try:
        interface = ipaddress.ip_interface(address)
    except ValueError as error:
        raise BadInput("not an interface's IP address", where=repr(address)) from error
    if interface.version == 4:
        return option(IF_IPV4, interface.ip.packed + interface.netmask.packed)
    return option(IF_IPV6, interface.ip.packed + bytes([interface.network.prefixlen]))


def _mac(address: str) -> bytes:
    try:
        raw = bytes.fromhex(address.replace(":", ""))
    except ValueError:
        raw = b""
    if len(raw) != 6:
        raise BadInput("not a hardware address", where=repr(address))
    return raw
