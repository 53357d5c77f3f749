"""Hands a pcapng file on while it arrives, block by block, so that a row can be put between two packets."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from threading import Lock
from typing import Final

from tripshark.errors import Permanent
from tripshark.formats.blocks import PACKET, SECTION, alert_row
from tripshark.model.text import printable

_LONGEST: Final = 64 << 20  # bytes of one block
_COMMENT: Final = 400  # characters


class Splitter:
    """Whole blocks out of pieces of any length."""

    def __init__(self) -> None:
        self._kept = b""

    def feed(self, piece: bytes) -> Iterator[tuple[int, bytes]]:
        """(type, block) of each block that is complete. Raises `Permanent` for what is no pcapng file of ours."""
        kept = self._kept + piece
        at = 0
        while len(kept) - at >= 12:
            kind, length = struct.unpack_from("<II", kept, at)
            if length < 12 or length % 4 or length > _LONGEST:
                raise Permanent("what the service sends is no pcapng file")
            if len(kept) - at < length:
                break
            yield kind, kept[at : at + length]
            at += length
        self._kept = kept[at:]


class Relay:
    """Writes blocks, whoever has some: packets as they come, marks of whoever watches."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._splitter = Splitter()
        self._lock = Lock()
        self._begun = False
        self._waiting = b""  # marks made before the file had begun
        self._paused = False
        self._left_out = 0

    def feed(self, piece: bytes) -> None:
        """Hand on what is complete."""
        with self._lock:
            out = bytearray()
            for kind, block in self._splitter.feed(piece):
                if self._paused and kind == PACKET:
                    self._left_out += 1
                    continue
                out += block
                if kind == SECTION and not self._begun:
                    self._begun = True
                    out += self._waiting
            if out:
                self._write(bytes(out))

    def mark(self, time_ns: int, comment: str, by: str) -> None:
        """A row of the packet list that says so."""
        words = printable(comment, _COMMENT)
        self._row(
            time_ns,
            f"MARK {words}".rstrip(),
            {"TRIPSHARK_MARK": words or "mark", "TRIPSHARK_BY": printable(by)},
        )

    def pause(self, time_ns: int, *, paused: bool) -> int:
        """Leave packets out, or stop leaving them out and say how many it were; returns that number."""
        with self._lock:
            count, self._left_out, self._paused = self._left_out, 0, paused
        if count:
            self._row(time_ns, f"PAUSE {count} packets were left out", {"TRIPSHARK_MARK": "pause"})
        return count

    def _row(self, time_ns: int, message: str, fields: dict[str, str]) -> None:
        row = alert_row(
            time_ns,
            {
                "MESSAGE": message,
                "PRIORITY": "5",
                "SYSLOG_IDENTIFIER": "tripshark",
                **{name: value for name, value in fields.items() if value},
            },
        )
        with self._lock:
            if self._begun:
                self._write(row)
            else:
                self._waiting += row
