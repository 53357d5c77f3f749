"""The kernel filter of all rings: what is recorded at all, and how much of each packet."""

from __future__ import annotations

from tripshark.recorder import kernel
from tripshark.recorder.ring import ETHERNET


class Filters:
    """The kernel filter in force, by what a packet begins with."""

    def __init__(self, ethernet: bytes, raw: bytes, snaplen: int) -> None:
        self.snaplen = snaplen
        self.ethernet = ethernet
        self.raw = raw

    def program(self, hardware_type: int) -> bytes:
        own = self.ethernet if hardware_type in ETHERNET else self.raw
        return own or kernel.returning(self.snaplen)
