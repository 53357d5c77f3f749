"""What a classic BPF program does: its instructions checked, then run over all packets at once.

Jumps only go forward, so one pass from the first instruction to the last suffices: at each one all packets
that ever reach it are there together. The semantics are those of libpcap's userland machine (bpf_filter.c):
a load beyond the captured bytes and a division by zero reject the packet.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tripshark.errors import BadInput
from tripshark.formats.packets import Packets

Lanes = NDArray[np.uint32]
Index = NDArray[np.intp]

_INSTRUCTION = struct.Struct("=HBBI")
_MOST: Final = 65_536
_CHUNK: Final = (
    16_384  # packets per pass: what one instruction reads and writes stays in the cache
)
_HEAD: Final = 64  # bytes of every packet gathered beforehand: most loads are there

# linux/bpf_common.h
_LD, _LDX, _ST, _STX, _ALU, _JMP, _RET, _MISC = range(8)
_IMM, _ABS, _IND, _MEM, _LEN, _MSH = range(0x00, 0xC0, 0x20)
_WORD, _HALF, _BYTE = 0x00, 0x08, 0x10
_SIZE: Final = {_WORD: 4, _HALF: 2, _BYTE: 1}
_K, _X, _A_SOURCE = 0x00, 0x08, 0x10
_ADD, _SUB, _MUL, _DIV, _OR, _AND, _LSH, _RSH, _NEG, _MOD, _XOR = range(0x00, 0xB0, 0x10)
_JA, _JEQ, _JGT, _JGE, _JSET = range(0x00, 0x50, 0x10)
RET_K: Final = _RET | _K
JUMP: Final = _JMP | _JA
JUMP_EQUAL: Final = _JMP | _JEQ | _K
LOAD_HALF: Final = _LD | _ABS | _HALF
_RET_A: Final = _RET | _A_SOURCE
_TAX, _TXA = _MISC, _MISC | 0x80
_LD_IMM, _LD_MEM, _LD_LEN = _LD | _IMM, _LD | _MEM, _LD | _LEN
_LDX_IMM, _LDX_MEM, _LDX_LEN = _LDX | _IMM, _LDX | _MEM, _LDX | _LEN
_LDX_MSH: Final = _LDX | _MSH | _BYTE
_NEG_A: Final = _ALU | _NEG

_BITS: Final = np.uint32(32)
_ARITHMETIC: Final[dict[int, Callable[[Lanes, Lanes | np.uint32], Lanes]]] = {
    _ADD: lambda a, b: a + b,
    _SUB: lambda a, b: a - b,
    _MUL: lambda a, b: a * b,
    _DIV: lambda a, b: a // b,
    _OR: lambda a, b: a | b,
    _AND: lambda a, b: a & b,
    _LSH: lambda a, b: np.where(b < _BITS, a << (b % _BITS), np.uint32(0)),
    _RSH: lambda a, b: np.where(b < _BITS, a >> (b % _BITS), np.uint32(0)),
    _MOD: lambda a, b: a % b,
    _XOR: lambda a, b: a ^ b,
}
_TESTS: Final[dict[int, Callable[[Lanes, Lanes | np.uint32], NDArray[np.bool_]]]] = {
    _JEQ: lambda a, b: a == b,
    _JGT: lambda a, b: a > b,
    _JGE: lambda a, b: a >= b,
    _JSET: lambda a, b: (a & b) != 0,
}
_KNOWN: Final = frozenset(
    [
        *(_LD | mode | size for mode in (_ABS, _IND) for size in _SIZE),
        *(_LD_IMM, _LD_MEM, _LD_LEN, _LDX_IMM, _LDX_MEM, _LDX_LEN, _LDX_MSH, _ST, _STX),
        *(_ALU | operation | source for operation in _ARITHMETIC for source in (_K, _X)),
        *(_JMP | test | source for test in _TESTS for source in (_K, _X)),
        *(_NEG_A, JUMP, RET_K, _RET_A, _TAX, _TXA),
    ]
)

# Registers, as numbers of bits: the accumulator, the index register, 16 words of scratch memory.
A, X, MEMORY = 0, 1, 2
_WORDS: Final = 16
_WRITTEN_AT_START: Final = 1 << A | 1 << X  # both are zero


class Instruction(NamedTuple):
    """struct sock_filter."""

    code: int
    jt: int
    jf: int
    k: int

    def encode(self) -> bytes:
        return _INSTRUCTION.pack(*self)

    @property
    def reads(self) -> int:
        """The registers whose value matters, as bits."""
        code, kind = self.code, self.code & 7
        if code in (_LD_MEM, _LDX_MEM):
            return 1 << MEMORY + self.k
        if kind == _LD:
            return 1 << X if code & 0xE0 == _IND else 0
        if kind in (_ALU, _JMP):
            if code == JUMP:
                return 0
            return 1 << A | (1 << X if code & _X else 0)
        if kind in (_STX,) or code == _TXA:
            return 1 << X
        return 1 << A if code in (_ST, _RET_A, _TAX) else 0

    @property
    def writes(self) -> int:
        """The register that gets a new value, as bits."""
        kind = self.code & 7
        if kind in (_ST, _STX):
            return 1 << MEMORY + self.k
        if kind in (_LD, _ALU) or self.code == _TXA:
            return 1 << A
        return 1 << X if kind == _LDX or self.code == _TAX else 0

    def follow(self, at: int) -> tuple[int, ...]:
        """Where it may go from `at`."""
        if self.code & 7 == _RET:
            return ()
        if self.code == JUMP:
            return (at + 1 + self.k,)
        if self.code & 7 == _JMP:
            return (at + 1 + self.jt, at + 1 + self.jf)
        return (at + 1,)


@dataclass(frozen=True, slots=True)
class Decoded:
    """A program found safe, and for each instruction the registers still needed when it begins, as bits."""

    instructions: tuple[Instruction, ...]
    needed: tuple[int, ...]


@functools.lru_cache(maxsize=256)
def decode(code: bytes) -> Decoded:
    """Check a program as the kernel would. Raises `BadInput`."""
    count = len(code) // 8
    if not count or len(code) % 8 or count > _MOST:
        raise BadInput(f"filter program has {len(code)} bytes", hint="8 bytes per instruction")
    instructions = tuple(Instruction(*fields) for fields in _INSTRUCTION.iter_unpack(code))
    written = [_WRITTEN_AT_START] + [-1] * (count - 1)  # on every way to here; -1: no way seen yet
    for at, each in enumerate(instructions):
        problem = _problem(each, at, count) or (
            "reads memory before writing it" if each.reads & ~written[at] else ""
        )
        if problem:
            raise BadInput(f"filter program {problem}", where=f"instruction {at}")
        for target in each.follow(at):
            written[target] &= written[at] | each.writes
    needed = [0] * count
    for at in range(count - 1, -1, -1):
        each = instructions[at]
        later = 0
        for target in each.follow(at):
            later |= needed[target]
        needed[at] = later & ~each.writes | each.reads
    return Decoded(instructions, tuple(needed))


def _problem(each: Instruction, at: int, count: int) -> str:
    """What is wrong with one instruction, or ""."""
    kind, operation = each.code & 7, each.code & 0xF0
    if each.code not in _KNOWN:
        return f"has an unknown operation {each.code:#x}"
    if any(target >= count for target in each.follow(at)):
        return "runs off its end"
    if kind in (_ST, _STX) or each.code in (_LD_MEM, _LDX_MEM):
        return "" if each.k < _WORDS else "has no such memory"
    if kind == _ALU and not each.code & _X:
        if operation in (_DIV, _MOD) and each.k == 0:
            return "divides by zero"
        if operation in (_LSH, _RSH) and each.k > 31:
            return "shifts by more than a word"
    return ""


def run(program: Decoded, packets: Packets) -> NDArray[np.bool_]:
    """For each packet whether the program returns anything but 0."""
    accepted = np.zeros(len(packets), np.bool_)
    for first in range(0, len(packets), _CHUNK):
        chunk = slice(first, first + _CHUNK)
        _Pass(program, packets.take(chunk), accepted[chunk]).run()
    return accepted


class _Lot(NamedTuple):
    """Packets that stand at one instruction, and the registers they brought."""

    which: Index
    registers: dict[int, Lanes]

    def choose(self, chosen: NDArray[np.bool_], needed: int = -1) -> _Lot:
        return _Lot(
            self.which[chosen],
            {at: lanes[chosen] for at, lanes in self.registers.items() if needed >> at & 1},
        )

    def put(self, register: int, lanes: Lanes) -> _Lot:
        return _Lot(self.which, {**self.registers, register: lanes})


class _Pass:
    """One chunk of packets on its way through the program. Lanes are never changed, only replaced."""

    def __init__(self, program: Decoded, packets: Packets, accepted: NDArray[np.bool_]) -> None:
        self._program = program
        self._accepted = accepted
        self._data = packets.data
        self._start = packets.start
        self._caplen = packets.caplen.astype(np.int64)
        self._length = packets.length
        self._least = int(self._caplen.min())
        self._head = _heads(packets)
        self._columns: dict[tuple[int, int], Lanes] = {}
        zeros = np.zeros(len(packets), np.uint32)
        self._waiting: list[list[_Lot]] = [[] for _ in program.instructions]
        self._waiting[0].append(_Lot(np.arange(len(packets)), {A: zeros, X: zeros}))

    def run(self) -> None:
        for at, each in enumerate(self._program.instructions):
            lots, self._waiting[at] = self._waiting[at], []
            if lots:
                self._step(at, each, _merge(lots, self._program.needed[at]))

    def _step(self, at: int, each: Instruction, lot: _Lot) -> None:
        kind = each.code & 7
        if kind == _RET:
            if each.code == _RET_A:
                self._accepted[lot.which] = lot.registers[A] != 0
            else:
                self._accepted[lot.which] = each.k != 0
        elif kind == _JMP:
            self._jump(at, each, lot)
        else:
            if kind == _ALU:
                lot = _arithmetic(each, lot)
            elif kind in (_ST, _STX):
                lot = lot.put(MEMORY + each.k, lot.registers[A if kind == _ST else X])
            elif kind == _MISC:
                to, of = (X, A) if each.code == _TAX else (A, X)
                lot = lot.put(to, lot.registers[of])
            else:
                lot = self._load(each, lot)
            if len(lot.which):
                self._waiting[at + 1].append(lot)

    def _jump(self, at: int, each: Instruction, lot: _Lot) -> None:
        if each.code == JUMP:
            self._waiting[at + 1 + each.k].append(lot)
            return
        a = lot.registers[A]
        b = lot.registers[X] if each.code & _X else np.uint32(each.k)
        holds = _TESTS[each.code & 0xF0](a, b)
        count = np.count_nonzero(holds)
        for target, taken in ((at + 1 + each.jt, count), (at + 1 + each.jf, len(holds) - count)):
            if taken == len(holds):
                self._waiting[target].append(lot)
            elif taken:
                self._waiting[target].append(lot.choose(holds, self._program.needed[target]))
            holds = ~holds

    def _load(self, each: Instruction, lot: _Lot) -> _Lot:
        code, k = each.code, each.k
        to = A if code & 7 == _LD else X
        if code in (_LD_MEM, _LDX_MEM):
            return lot.put(to, lot.registers[MEMORY + k])
        if code in (_LD_IMM, _LDX_IMM):
            return lot.put(to, np.full(len(lot.which), k, np.uint32))
        if code in (_LD_LEN, _LDX_LEN):
            return lot.put(to, self._length[lot.which])
        size = _SIZE[code & 0x18]
        if code & 0xE0 == _IND:
            lot = self._holding(lot, lot.registers[X].astype(np.int64) + (k + size))
            at = self._start[lot.which] + lot.registers[X] + k
            return lot.put(A, _gather(self._data, at, size))
        if k + size > self._least:
            lot = self._holding(lot, np.int64(k + size))
        if k + size <= _HEAD:
            lanes = self._column(k, size)[lot.which]
        else:
            lanes = _gather(self._data, self._start[lot.which] + k, size)
        if code == _LDX_MSH:
            lanes = (lanes & np.uint32(0xF)) << np.uint32(2)
        return lot.put(to, lanes)

    def _holding(self, lot: _Lot, ends: NDArray[np.int64] | np.int64) -> _Lot:
        """The packets that were captured up to these bytes; the others are rejected here."""
        held = ends <= self._caplen[lot.which]
        return lot if bool(held.all()) else lot.choose(held)

    def _column(self, k: int, size: int) -> Lanes:
        """The bytes k … k+size of every packet of the chunk; garbage where a packet is shorter."""
        lanes = self._columns.get((k, size))
        if lanes is None:
            count = len(self._start)
            column = np.ndarray((count,), f">u{size}", self._head, offset=k, strides=(_HEAD,))
            lanes = self._columns[k, size] = column.astype(np.uint32)
        return lanes


def _merge(lots: Sequence[_Lot], needed: int) -> _Lot:
    if len(lots) == 1:
        return lots[0]
    registers = [at for at in lots[0].registers if needed >> at & 1]
    return _Lot(
        np.concatenate([lot.which for lot in lots]),
        {at: np.concatenate([lot.registers[at] for lot in lots]) for at in registers},
    )


def _arithmetic(each: Instruction, lot: _Lot) -> _Lot:
    operation = each.code & 0xF0
    if each.code == _NEG_A:
        return lot.put(A, np.uint32(0) - lot.registers[A])
    if each.code & _X and operation in (_DIV, _MOD):
        lot = lot.choose(lot.registers[X] != 0)
    a = lot.registers[A]
    b = lot.registers[X] if each.code & _X else np.uint32(each.k)
    return lot.put(A, _ARITHMETIC[operation](a, b))


def _heads(packets: Packets) -> NDArray[np.uint8]:
    """The first bytes of every packet side by side; garbage, or zeros at the buffer's end, behind short ones."""
    data, start = packets.data, packets.start
    heads = np.zeros((len(packets), _HEAD), np.uint8)
    inside = start + _HEAD <= len(data)
    if len(data) >= _HEAD:
        shape = (len(data) - _HEAD + 1, _HEAD)
        every = np.lib.stride_tricks.as_strided(data, shape, (1, 1), writeable=False)
        if bool(inside.all()):
            return every[start]
        heads[inside] = every[start[inside]]
    for i in np.flatnonzero(~inside).tolist():
        rest = data[int(start[i]) :]
        heads[i, : len(rest)] = rest
    return heads


def _gather(data: NDArray[np.uint8], at: NDArray[np.int64], size: int) -> Lanes:
    lanes = data[at].astype(np.uint32)
    for i in range(1, size):
        lanes = (lanes << np.uint32(8)) | data[at + i]
    return lanes
