"""The kernel filter of all rings: what is recorded at all, and how much of each packet."""

from __future__ import annotations

import socket
import struct

from tripshark.recorder import kernel
from tripshark.recorder.flowcut import HEADERS, Cut, Flows, Link, refusal
from tripshark.recorder.ring import ETHERNET
from tripshark.recorder.translated import Untranslatable

_RETURN_K, _RETURN_A = 0x06, 0x16
_SHARE = 16  # of a ring: what one flow may fill with whole packets, in one direction
_LEAST = 16_384  # handshakes and heads, however small the ring


class Filters:
    """The kernel filter in force, by what a packet begins with."""

    def __init__(self, ethernet: bytes, raw: bytes, snaplen: int, flow_cut: int = 0) -> None:
        self.snaplen = snaplen
        self.ethernet = ethernet
        self.raw = raw
        self.flow_cut = flow_cut  # bytes in full per flow and direction, 0: all of them

    @property
    def wants_flows(self) -> bool:
        """Whether rings are to have a table of flows, and the kernel lets them."""
        return self.flow_cut > 0 and self.snaplen > HEADERS and not refusal()

    def program(self, hardware_type: int, *, headers: bool = False) -> bytes:
        """The classic program, which every kernel takes."""
        own = self.ethernet if hardware_type in ETHERNET else self.raw
        program = own or kernel.returning(self.snaplen)
        return clipped(program, HEADERS) if headers else program

    def keeps(self, *, headers: bool) -> int:
        """Bytes of a packet that are recorded at most."""
        return min(self.snaplen, HEADERS) if headers else self.snaplen

    def attach(
        self,
        sock: socket.socket,
        hardware_type: int,
        flows: Flows | None,
        *,
        headers: bool = False,
        ring_bytes: int = 0,
    ) -> int:
        """Swap a socket's filter atomically; the bytes in full per flow, 0 where flows are not cut.

        One flow gets no more than its share of a ring of `ring_bytes`: in a small one a few flows would fill it. Without `flows`, and where the kernel refuses them, the classic program. Raises `OSError`.
        """
        if flows is not None and self.wants_flows and not headers:
            in_ethernet = hardware_type in ETHERNET
            limit = self.flow_cut
            if ring_bytes:
                limit = min(limit, max(_LEAST, ring_bytes // _SHARE))
            cut = Cut(
                link=Link.ETHERNET if in_ethernet else Link.RAW_IP,
                limit=limit,
                snaplen=self.snaplen,
                operator=self.ethernet if in_ethernet else self.raw,
            )
            try:
                flows.attach(sock, cut)
            except (OSError, Untranslatable) as problem:
                flows.problem = f"flows are recorded uncut: {problem}"
            else:
                flows.problem = ""
                return limit
        kernel.attach_filter(sock, self.program(hardware_type, headers=headers))
        return 0


def clipped(program: bytes, most: int) -> bytes:
    """The same cBPF program, but never returning more than `most` bytes."""
    instructions = []
    for code, yes, no, k in struct.iter_unpack("=HBBI", program):
        if code == _RETURN_A:  # what is in A nobody knows; compiled filters have no such thing
            instructions.append(struct.pack("=HBBI", _RETURN_K, 0, 0, most))
        else:
            value = min(k, most) if code == _RETURN_K else k
            instructions.append(struct.pack("=HBBI", code, yes, no, value))
    return b"".join(instructions)
