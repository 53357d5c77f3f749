"""The first kilobytes of every flow in full, of the rest the headers: so that a flood does not flush the evidence.

A socket filter says how many bytes of a packet the ring keeps. This one is an eBPF program with a table of flows,
made here instruction by instruction. Per flow and direction it keeps a time (the generic cell rate algorithm): each
byte kept moves it `REFILL_S / cut` seconds ahead, and when it is `REFILL_S` ahead of now the allowance is spent. So
a flow has `cut` bytes at first and again after that much silence, and a trickle always has enough.

Nothing is ever rejected: what is not understood is kept in full, and when the table overflows the flow that was
silent longest begins anew. In full are also ICMP, DNS, and all packets that are not longer than `HEADERS`.
"""

from __future__ import annotations

import errno
import functools
import os
import socket
import threading
from dataclasses import dataclass
from enum import IntEnum

from tripshark.recorder import ebpf
from tripshark.recorder.ebpf import (
    ADD,
    AND,
    BYTE,
    DIV,
    DOUBLE,
    EQ,
    FRAME,
    GE,
    GT,
    HALF,
    HELPER_CLOCK,
    HELPER_COARSE_CLOCK,
    HELPER_LOAD,
    HELPER_LOOKUP,
    HELPER_UPDATE,
    LE,
    LSH,
    LT,
    MUL,
    NE,
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    RSH,
    SUB,
    WORD,
    Assembler,
    Refused,
)
from tripshark.recorder.translated import MEMORY, Untranslatable, translate

HEADERS = (
    128  # bytes kept of a packet in a flow's tail: link, tags, a tunnel, IPv6, TCP with options
)
REFILL_S = 60
KEY_BYTES, VALUE_BYTES = 44, 16
ENTRY_BYTES = (
    136  # of kernel memory per flow: the kernel's own 64, key, value, its share of the buckets
)
LEAST_FLOWS, MOST_FLOWS = 256, 16_384
_SHARE = 16  # of a target's ring memory, at most one part in so many is for its table of flows

_TAGS = 2  # VLAN tags that may stand in the bytes
_EXTENSIONS = 6  # IPv6 headers before the transport's
_ICMP, _IPIP, _TCP, _UDP, _IPV6, _GRE, _ICMPV6 = 1, 4, 6, 17, 41, 47, 58
_WITH_PORTS = (_TCP, _UDP, 33, 132, 136)  # DCCP, SCTP, UDP-Lite
_DNS = 53
_SYN, _ACK = 0x02, 0x10

# the frame, downwards: IP header with the Ethernet header before it, transport header, flow, allowance, memory
_IP = -64
_LINK = _IP - 14
_L4 = -96
_KEY = -144
_PORTS, _IFINDEX, _PROTOCOL, _FAMILY = _KEY + 32, _KEY + 36, _KEY + 40, _KEY + 41
_VALUE = -160
_MEMORY = _VALUE - MEMORY

# struct __sk_buff
_SKB_LEN, _SKB_IFINDEX = 0, 40


class Link(IntEnum):
    """What a packet begins with."""

    ETHERNET = 1
    RAW_IP = 101


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """What the program is to do. `operator` is the classic filter before it, b"" for none."""

    link: Link
    limit: int  # bytes in full per flow and direction
    snaplen: int
    operator: bytes = b""


def flows_for(ring_bytes: int) -> int:
    """How many flows a target's table has, a power of two: they take a 16th of its ring memory at most."""
    wanted = max(LEAST_FLOWS, min(MOST_FLOWS, ring_bytes // (_SHARE * ENTRY_BYTES)))
    return 1 << wanted.bit_length() - 1


class Flows:
    """A target's table of flows: all its rings count in it, each for itself."""

    def __init__(self, entries: int) -> None:
        """Raises `Refused`."""
        self.entries = entries
        self.problem = ""  # why the program is not in force, although it should be
        self.fd = ebpf.create_map(
            ebpf.LRU_HASH, key=KEY_BYTES, value=VALUE_BYTES, entries=entries, name="ts_flows"
        )
        self._programs: dict[Link, tuple[Cut, int]] = {}
        self._lock = threading.Lock()  # rings of one target are opened by several threads

    @property
    def bytes(self) -> int:
        return self.entries * ENTRY_BYTES

    def attach(self, sock: socket.socket, cut: Cut) -> None:
        """Swap a socket's filter for this program. Raises `Refused`, `OSError`, `Untranslatable`."""
        with self._lock:
            ebpf.attach(sock, self.program(cut))

    def program(self, cut: Cut) -> int:
        """The program's descriptor, which is ours; the kernel needs 3 ms to verify it. Raises as `attach`."""
        if self.fd < 0:
            raise Refused(errno.EBADF, "the target is gone")
        known, program = self._programs.get(cut.link, (None, -1))
        if known != cut:
            self._programs.pop(cut.link, None)
            if program >= 0:
                os.close(program)
            program = self._load(cut)
            self._programs[cut.link] = cut, program
        return program

    def _load(self, cut: Cut) -> int:
        try:
            code = ebpf.with_map(assemble(cut, HELPER_COARSE_CLOCK), self.fd)
            return ebpf.load_program(code, name="ts_flow_cut")
        except Refused:  # before Linux 5.11 there is only the other one
            code = ebpf.with_map(assemble(cut, HELPER_CLOCK), self.fd)
            return ebpf.load_program(code, name="ts_flow_cut")

    def close(self) -> None:
        """Programs that are attached keep the table, and themselves, for as long as they are."""
        with self._lock:
            os.close(self.fd)
            self.fd = -1
            for _, program in self._programs.values():
                os.close(program)
            self._programs.clear()


@functools.cache
def refusal() -> str:
    """Why this kernel does not run such programs for us, "" when it does. Asked once per process."""
    try:
        flows = Flows(LEAST_FLOWS)
    except OSError as problem:
        return f"bpf(2): {problem.strerror}"
    try:
        flows.program(Cut(link=Link.ETHERNET, limit=1 << 14, snaplen=1 << 18))
    except OSError as problem:
        return f"bpf(2): {problem.strerror}"
    finally:
        flows.close()
    return ""


# ---- the program ----------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=64)
def assemble(cut: Cut, clock: int) -> bytes:
    """The instructions, for any table. Raises `Untranslatable`, when the operator's filter is something special."""
    to = Assembler()
    to.mov_reg(R6, R1)
    if cut.operator:
        translate(to, cut.operator, memory=_MEMORY, accept="accepted")
        to.label("accepted")
    else:
        to.mov(R7, cut.snaplen)
    _clear(to)
    if cut.link is Link.ETHERNET:
        _ethernet(to)
    else:
        to.mov(R8, 0)
        _bytes(to, _IP, 0, 20)
        to.load(BYTE, R1, FRAME, _IP)
        to.alu(RSH, R1, 4)
        to.jump_if(EQ, R1, 4, "ipv4")
        to.jump_if(EQ, R1, 6, "ipv6")
        to.jump("full")
    _ipv4(to)
    _ipv6(to)
    _transport(to)
    _ordered(to)
    _counted(to, cut, clock)
    to.label("full")
    to.mov_reg(R0, R7)
    to.exit()
    return to.encode()


def _clear(to: Assembler) -> None:
    """The flow, and the transport header, of which less may come than is looked at."""
    for offset in range(_KEY, _KEY + 40, 8):
        to.store(DOUBLE, FRAME, offset, 0)
    to.store(WORD, FRAME, _PROTOCOL, 0)
    to.store(DOUBLE, FRAME, _L4, 0)
    to.store(DOUBLE, FRAME, _L4 + 8, 0)


def _bytes(to: Assembler, where: int, offset: int, count: int, *, at: int | None = None) -> None:
    """Copy packet bytes into the frame; a packet that ends before is kept in full."""
    to.mov_reg(R1, R6)
    if at is None:
        to.mov(R2, offset)
    else:
        to.mov_reg(R2, at)
        if offset:
            to.alu(ADD, R2, offset)
    to.mov_reg(R3, FRAME)
    to.alu(ADD, R3, where)
    to.mov(R4, count)
    to.call(HELPER_LOAD)
    to.jump_if(NE, R0, 0, "full")


def _network(number: int) -> int:
    """A 16-bit number as it looks when it is loaded from a packet."""
    return socket.htons(number)


def _ethernet(to: Assembler) -> None:
    """Find the IP header, also behind tags: with each one skipped the frame looks as if it had begun later."""
    for tags in range(_TAGS + 1):
        _bytes(to, _LINK, 4 * tags, 34)
        to.mov(R8, 4 * tags + 14)
        to.load(HALF, R1, FRAME, _LINK + 12)
        to.jump_if(EQ, R1, _network(0x0800), "ipv4")
        to.jump_if(EQ, R1, _network(0x86DD), "ipv6")
        if tags < _TAGS:
            inside = to.name("tag")
            for tpid in (0x8100, 0x88A8):
                to.jump_if(EQ, R1, _network(tpid), inside)
            to.jump("full")
            to.label(inside)
    to.jump("full")


def _ipv4(to: Assembler) -> None:
    """R8 is the offset of the IP header, whose first 20 bytes are there; then that of the next header, R9 its kind."""
    to.label("ipv4")
    to.load(BYTE, R1, FRAME, _IP)
    to.alu(AND, R1, 0x0F)
    to.jump_if(LT, R1, 5, "full")
    to.alu(LSH, R1, 2)
    to.alu_reg(ADD, R8, R1)
    to.load(BYTE, R9, FRAME, _IP + 9)
    for source, key in ((12, 0), (16, 16)):
        to.load(WORD, R1, FRAME, _IP + source)
        to.store_reg(WORD, FRAME, _KEY + key, R1)
    to.store(BYTE, FRAME, _FAMILY, 4)
    to.load(HALF, R1, FRAME, _IP + 6)
    to.alu(AND, R1, _network(0x1FFF))
    to.jump_if(NE, R1, 0, "portless")
    to.jump("transport")


def _ipv6(to: Assembler) -> None:
    """The same for the other family, past the extension headers."""
    to.label("ipv6")
    _bytes(to, _IP, 0, 40, at=R8)
    to.alu(ADD, R8, 40)
    to.load(BYTE, R9, FRAME, _IP + 6)
    for part in range(0, 32, 8):
        to.load(DOUBLE, R1, FRAME, _IP + 8 + part)
        to.store_reg(DOUBLE, FRAME, _KEY + part, R1)
    to.store(BYTE, FRAME, _FAMILY, 6)
    for _ in range(_EXTENSIONS):
        plain, fragment, last = to.name("plain"), to.name("fragment"), to.name("last")
        for number in (0, 43, 60, 135, 139, 140):  # options, routing, mobility, HIP, shim
            to.jump_if(EQ, R9, number, plain)
        to.jump_if(EQ, R9, 44, fragment)
        to.jump_if(NE, R9, 51, "transport")
        _bytes(to, _L4, 0, 2, at=R8)  # authentication, counted in words
        to.load(BYTE, R9, FRAME, _L4)
        to.load(BYTE, R1, FRAME, _L4 + 1)
        to.alu(ADD, R1, 2)
        to.alu(LSH, R1, 2)
        to.alu_reg(ADD, R8, R1)
        to.jump(last)
        to.label(fragment)
        _bytes(to, _L4, 0, 4, at=R8)
        to.alu(ADD, R8, 8)
        to.load(BYTE, R9, FRAME, _L4)
        to.load(HALF, R1, FRAME, _L4 + 2)
        to.alu(AND, R1, _network(0xFFF8))
        to.jump_if(NE, R1, 0, "portless")
        to.jump(last)
        to.label(plain)
        _bytes(to, _L4, 0, 2, at=R8)
        to.load(BYTE, R9, FRAME, _L4)
        to.load(BYTE, R1, FRAME, _L4 + 1)
        to.alu(ADD, R1, 1)
        to.alu(LSH, R1, 3)
        to.alu_reg(ADD, R8, R1)
        to.label(last)
    to.jump("transport")


def _transport(to: Assembler) -> None:
    """Ports, and what is done with as soon as it is known to be in full. Leaves TCP's flags in the frame."""
    to.label("transport")
    to.jump_if(EQ, R9, _TCP, "tcp")
    _done_if_short(to)
    for number in _WITH_PORTS:
        if number != _TCP:
            to.jump_if(EQ, R9, number, "ports")
    to.jump("portless")
    to.label("ports")
    _bytes(to, _L4, 0, 4, at=R8)
    to.store(BYTE, FRAME, _L4 + 13, 0)  # an IPv6 header may have left something there
    to.jump("ported")
    to.label("tcp")
    _bytes(to, _L4, 0, 14, at=R8)
    _jump_if_syn(to, "ported")
    _done_if_short(to)
    to.label("ported")
    for offset in (0, 2):
        to.load(HALF, R1, FRAME, _L4 + offset)
        to.jump_if(EQ, R1, _network(_DNS), "full")
    to.jump("identified")
    to.label("portless")  # also later fragments: those between two hosts are one flow
    to.jump_if(EQ, R9, _ICMP, "full")
    to.jump_if(EQ, R9, _ICMPV6, "full")
    _done_if_short(to)
    to.store(DOUBLE, FRAME, _L4, 0)
    to.store(DOUBLE, FRAME, _L4 + 8, 0)
    to.label("identified")
    to.store_reg(BYTE, FRAME, _PROTOCOL, R9)
    to.load(WORD, R1, R6, _SKB_IFINDEX)
    to.store_reg(WORD, FRAME, _IFINDEX, R1)


def _done_if_short(to: Assembler) -> None:
    to.load(WORD, R1, R6, _SKB_LEN)
    to.jump_if(LE, R1, HEADERS, "full")


def _jump_if_syn(to: Assembler, label: str) -> None:
    to.load(BYTE, R1, FRAME, _L4 + 13)
    to.alu(AND, R1, _SYN | _ACK)
    to.jump_if(EQ, R1, _SYN, label)


def _ordered(to: Assembler) -> None:
    """Write both directions of a flow alike, the lesser end first; R8 = 0 when that is how it was, else 8."""
    for part in (0, 8):
        to.load(DOUBLE, R1, FRAME, _KEY + part)
        to.load(DOUBLE, R2, FRAME, _KEY + 16 + part)
        to.jump_if_reg(LT, R1, R2, "forward")
        to.jump_if_reg(GT, R1, R2, "backward")
    to.load(HALF, R3, FRAME, _L4)
    to.load(HALF, R4, FRAME, _L4 + 2)
    to.jump_if_reg(GT, R3, R4, "backward")
    to.label("forward")
    to.load(HALF, R3, FRAME, _L4)
    to.load(HALF, R4, FRAME, _L4 + 2)
    to.mov(R8, 0)
    to.jump("ordered")
    to.label("backward")
    for part in (0, 8):
        to.load(DOUBLE, R1, FRAME, _KEY + part)
        to.load(DOUBLE, R2, FRAME, _KEY + 16 + part)
        to.store_reg(DOUBLE, FRAME, _KEY + part, R2)
        to.store_reg(DOUBLE, FRAME, _KEY + 16 + part, R1)
    to.load(HALF, R4, FRAME, _L4)
    to.load(HALF, R3, FRAME, _L4 + 2)
    to.mov(R8, 8)
    to.label("ordered")
    to.store_reg(HALF, FRAME, _PORTS, R3)
    to.store_reg(HALF, FRAME, _PORTS + 2, R4)


def _counted(to: Assembler, cut: Cut, clock: int) -> None:
    """How much of this packet is kept, by what its flow and direction had so far."""
    byte_ns = max(1, REFILL_S * 1_000_000_000 // cut.limit)
    whole_ns = byte_ns * cut.limit
    least = min(HEADERS, cut.limit)

    to.map(R1)
    to.mov_reg(R2, FRAME)
    to.alu(ADD, R2, _KEY)
    to.call(HELPER_LOOKUP)
    to.jump_if(EQ, R0, 0, "unknown")
    to.mov_reg(R9, R0)
    _jump_if_syn(to, "anew")
    to.jump("known")
    to.label("anew")
    to.store(DOUBLE, R9, 0, 0)
    to.store(DOUBLE, R9, 8, 0)
    _done_if_short(to)
    to.label("known")
    to.alu_reg(ADD, R9, R8)
    to.call(clock)
    to.load(DOUBLE, R1, R9, 0)
    to.jump_if_reg(GE, R1, R0, "ahead")
    to.mov_reg(R1, R0)
    to.label("ahead")
    to.load(WORD, R2, R6, _SKB_LEN)
    to.constant(R5, byte_ns)
    to.alu_reg(MUL, R2, R5)
    to.alu_reg(ADD, R2, R1)  # where it would be with this packet
    to.constant(R3, whole_ns)
    to.alu_reg(ADD, R3, R0)  # and how far it may be
    to.jump_if_reg(GT, R2, R3, "partly")
    to.store_reg(DOUBLE, R9, 0, R2)
    to.jump("full")
    to.label("partly")
    to.constant(R4, least * byte_ns)
    to.mov(R0, HEADERS)
    to.mov_reg(R2, R3)
    to.jump_if_reg(LE, R2, R1, "least")
    to.alu_reg(SUB, R2, R1)
    to.jump_if_reg(LE, R2, R4, "least")
    to.store_reg(DOUBLE, R9, 0, R3)
    to.alu_reg(DIV, R2, R5)
    to.mov_reg(R0, R2)
    to.jump("least")

    to.label("unknown")
    _done_if_short(to)  # a SYN: its flow is entered when it has something to count
    to.call(clock)
    to.store(DOUBLE, FRAME, _VALUE, 0)
    to.store(DOUBLE, FRAME, _VALUE + 8, 0)
    to.load(WORD, R9, R6, _SKB_LEN)
    to.jump_if(LE, R9, cut.limit, "fits")
    to.mov(R9, cut.limit)
    to.label("fits")
    to.mov_reg(R2, R9)
    to.constant(R5, byte_ns)
    to.alu_reg(MUL, R2, R5)
    to.alu_reg(ADD, R2, R0)
    to.mov_reg(R1, FRAME)
    to.alu_reg(ADD, R1, R8)
    to.store_reg(DOUBLE, R1, _VALUE, R2)
    to.map(R1)
    to.mov_reg(R2, FRAME)
    to.alu(ADD, R2, _KEY)
    to.mov_reg(R3, FRAME)
    to.alu(ADD, R3, _VALUE)
    to.mov(R4, 0)
    to.call(HELPER_UPDATE)
    to.jump_if(NE, R0, 0, "full")
    to.mov_reg(R0, R9)
    to.label("least")
    to.jump_if_reg(LE, R0, R7, "kept")
    to.mov_reg(R0, R7)
    to.label("kept")
    to.exit()


__all__ = ["HEADERS", "Cut", "Flows", "Link", "Untranslatable", "assemble", "flows_for", "refusal"]
