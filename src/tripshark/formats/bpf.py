"""Which packets a filter matches: libpcap's filter language, run over all packets at once.

libpcap compiles (it is the definition of the language), NumPy runs: each instruction once over every packet
that comes to it. On Ethernet an expression also matches inside one or two VLAN tags.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tripshark.errors import BadInput
from tripshark.formats import cbpf, libpcap, pcapfilter
from tripshark.formats.packets import Packets

HEADERS: Final = 256
"""Bytes that hold the headers of almost every packet: link, tags, a tunnel, IPv6 with options, TCP."""

_KERNEL_MOST: Final = 4096  # BPF_MAXINSNS
_ETHERNET: Final = 1
_TYPE: Final = 12  # offset of the EtherType
_TAG_BYTES: Final = 4
_TPIDS: Final = (0x8100, 0x88A8, 0x9100)  # what libpcap's `vlan` takes for a tag


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A compiled filter that was found to be safe to run: it ends, and touches only what it may.

    `instructions` are `struct sock_filter`, 8 bytes each. Raises `BadInput` for any other bytes.
    """

    instructions: bytes
    linktype: int = _ETHERNET
    expression: str = ""

    def __post_init__(self) -> None:
        cbpf.decode(self.instructions)

    def accepting(self, snaplen: int) -> bytes:
        """The same program for a socket, which then keeps `snaplen` bytes of what it accepts.

        Raises `BadInput` when the kernel would not take it for its length.
        """
        if len(self.instructions) > 8 * _KERNEL_MOST:
            raise BadInput(
                f"filter is too long for the kernel: {len(self.instructions) // 8} instructions",
                where=self.expression,
                hint=f"at most {_KERNEL_MOST} instructions",
            )
        return b"".join(
            ret(snaplen) if each.code == cbpf.RET_K and each.k else each.encode()
            for each in cbpf.decode(self.instructions).instructions
        )


def ret(snaplen: int) -> bytes:
    """The one-instruction program that keeps `snaplen` bytes of every packet; 0 keeps none."""
    return cbpf.Instruction(cbpf.RET_K, 0, 0, snaplen).encode()


@functools.lru_cache(maxsize=256)
def compile(
    expression: str, linktype: int, snaplen: int = 262_144, *, optimised: int = libpcap.OPTIMISED
) -> Program:
    """The program for an expression of pcap-filter(7); "" accepts everything.

    Up to `optimised` characters it is made small, in a time that grows with the cube of its length: more than the
    default is for an operator's own words alone.

    Raises `BadInput` with the compiler's words, or for words that it would look up (see `pcapfilter`).
    """
    tokens = pcapfilter.check(expression)

    def compiled(text: str) -> bytes:
        return libpcap.compile_filter(text, linktype, snaplen, optimised=optimised)

    instructions = compiled(expression)
    if linktype == _ETHERNET and tokens and not pcapfilter.speaks_of_tags(tokens):
        once = compiled(f"vlan and ({expression})")
        twice = compiled(f"vlan and vlan and ({expression})")
        inside = _if_tagged(_TYPE + _TAG_BYTES, twice, once)
        instructions = _if_tagged(_TYPE, inside, instructions)
    return Program(instructions=instructions, linktype=linktype, expression=expression)


def _if_tagged(offset: int, tagged: bytes, plain: bytes) -> bytes:
    """The one program where the EtherType at `offset` is a VLAN tag's, the other where it is not.

    Joined here and not as text: `vlan` in an expression moves the offsets of everything behind it, even of the
    other side of an `or`; and "not port 80" must ask a tagged packet for the port behind its tag.
    """
    count = len(_TPIDS)
    tests = [
        cbpf.Instruction(cbpf.JUMP_EQUAL, count - at, 0, kind) for at, kind in enumerate(_TPIDS)
    ]
    return b"".join(
        (
            cbpf.Instruction(cbpf.LOAD_HALF, 0, 0, offset).encode(),
            *(test.encode() for test in tests),
            cbpf.Instruction(cbpf.JUMP, 0, 0, len(tagged) // 8).encode(),
            tagged,
            plain,
        )
    )


def run(program: Program, packets: Packets) -> NDArray[np.bool_]:
    """For each packet whether the program accepts it: exactly what libpcap's `bpf_filter` says of it."""
    return cbpf.run(cbpf.decode(program.instructions), packets)


def oracle(program: Program, data: bytes, length: int) -> int:
    """What libpcap itself returns for one packet of `length` bytes of which `data` is there."""
    return libpcap.run_filter(program.instructions, data, length)
