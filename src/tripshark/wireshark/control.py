"""What the toolbar in Wireshark's window and a capture say to each other while it runs."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import BinaryIO, Final

_HEAD: Final = struct.Struct(">sBHBB")  # 'T', length of what follows (24 bits), control, command
_MOST: Final = 0xFF_FFFD  # bytes of a payload


class Command(IntEnum):
    INITIALIZED = 0  # all values that are not the default were set
    SET = 1
    ADD = 2
    REMOVE = 3
    ENABLE = 4
    DISABLE = 5
    STATUS = 6
    INFO = 7
    WARNING = 8
    ERROR = 9


@dataclass(frozen=True, slots=True)
class Told:
    """One message of the toolbar."""

    control: int
    command: int
    text: str


def packed(control: int, command: Command, text: str = "") -> bytes:
    """A message to the toolbar."""
    payload = text.encode(errors="replace")[:_MOST]
    length = len(payload) + 2
    return _HEAD.pack(b"T", length >> 16, length & 0xFFFF, control, command) + payload


def told(pipe: BinaryIO) -> Iterator[Told]:
    """Messages of the toolbar until it closes the pipe, or says something that is none."""
    while len(head := pipe.read(_HEAD.size)) == _HEAD.size:
        mark, high, low, control, command = _HEAD.unpack(head)
        length = (high << 16 | low) - 2
        if mark != b"T" or length < 0:
            return
        payload = pipe.read(length)
        if len(payload) < length:
            return
        yield Told(control, command, payload.decode(errors="replace"))
