"""Memory that was copied out of rings: sealed, counted, and given back oldest first."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable

from tripshark.formats.wire import HEADER, BlockRef

_PAGE = 4096


class Copy:
    """One sealed memfd of raw blocks. Lives as long as somebody holds it."""

    __slots__ = ("_budget", "_holders", "blocks", "fd", "size")

    def __init__(self, fd: int, size: int, blocks: tuple[BlockRef, ...], budget: Budget) -> None:
        self.fd = fd  # -1 for an empty copy, which needs no memory
        self.size = size
        self.blocks = blocks
        self._budget = budget
        self._holders = 1
        budget.used += charge(size)

    @property
    def alone(self) -> bool:
        """Whether dropping it once gives the memory back."""
        return self._holders == 1

    def hold(self) -> Copy:
        """One more who needs it."""
        self._holders += 1
        return self

    def drop(self) -> None:
        """One fewer; the last one gives the memory back."""
        self._holders -= 1
        if self._holders == 0:
            self._budget.used -= charge(self.size)
            if self.fd >= 0:
                os.close(self.fd)


class Budget:
    """How many bytes of copies there may be. `evict` gives up one old tombstone, or says that there is none."""

    __slots__ = ("evict", "limit", "used")

    def __init__(self, limit: int, evict: Callable[[], bool]) -> None:
        self.limit = limit
        self.used = 0
        self.evict = evict

    def make_room(self, size: int) -> bool:
        """Let old tombstones go until `size` more bytes fit; False if they cannot."""
        if charge(size) > self.limit:
            return False
        while self.used + charge(size) > self.limit:
            if not self.evict():
                return False
        return True


def charge(size: int) -> int:
    """What `size` bytes cost: whole pages."""
    return -(-size // _PAGE) * _PAGE


def walk(fd: int, size: int) -> tuple[BlockRef, ...]:
    """The blocks of a copy, read from their own headers: how a restarted recorder finds them again."""
    blocks: list[BlockRef] = []
    at = 0
    while at + HEADER <= size:
        _, _, _, packets, _, length, seq = struct.unpack("=IIIIIIQ", os.pread(fd, 32, at))
        if not HEADER <= length <= size - at:
            break
        if seq and packets:  # a block that was overwritten while it was copied has neither
            blocks.append(BlockRef(seq=seq, offset=at, length=length, open=False))
        at += length + -length % 8
    return tuple(blocks)
