"""A classic BPF program as the first part of an eBPF one: what an operator's filter lets through goes on behind it.

The kernel does the same with every classic program; here it is done so that something of ours can follow. Both
load packet bytes with the same instructions, so a packet that is too short is rejected by both.
"""

from __future__ import annotations

import struct

from tripshark.recorder.ebpf import (
    AND,
    BYTE,
    EQ,
    FRAME,
    GE,
    GT,
    HALF,
    LSH,
    MOV,
    NE,
    NEG,
    R0,
    R1,
    R6,
    R7,
    R8,
    SET,
    WORD,
    Assembler,
)

MEMORY = 64  # bytes of stack for the program's scratch memory
_A, _X = R7, R8  # survive a packet load
_LD, _LDX, _ST, _STX, _ALU, _JMP, _RET, _MISC = range(8)
_IMM, _ABS, _IND, _MEM, _LEN, _MSH = range(0x00, 0xC0, 0x20)
_SIZES = (WORD, HALF, BYTE)
_TESTS = (EQ, GT, GE, SET)
_DIV, _MOD, _LSH, _RSH = 0x30, 0x90, 0x60, 0x70
_OPERATIONS = (*range(0x00, 0x80, 0x10), _MOD, 0xA0)
_SKB_LEN = 0
_NEGATIVE = 1 << 31


class Untranslatable(ValueError):
    """A program with something that we do not know, such as one of the kernel's ancillary loads."""


def translate(to: Assembler, program: bytes, *, memory: int, accept: str) -> None:
    """Write `program` so that it goes on at `accept` with R7 = bytes to keep, or ends with 0.

    Needs the context in R6; `memory` is where its scratch memory begins, relative to the frame.
    Raises `Untranslatable`.
    """
    prefix = to.name("cbpf")
    instructions = list(struct.iter_unpack("=HBBI", program))

    def place(number: int) -> str:
        if number >= len(instructions):
            raise Untranslatable("it runs off its end")
        return f"{prefix}:{number}"

    to.mov(_A, 0)
    to.mov(_X, 0)
    for at, (code, jt, jf, k) in enumerate(instructions):
        to.label(f"{prefix}:{at}")
        kind, signed = code & 7, k - (1 << 32) if k & _NEGATIVE else k
        if kind == _RET:
            if code == _RET | 0x10:
                to.jump_if(NE, _A, 0, accept)
            elif code == _RET and k:
                to.mov(R7, signed)
                to.jump(accept)
                continue
            elif code != _RET:
                raise Untranslatable(f"instruction {at}")
            to.mov(R0, 0)
            to.exit()
        elif kind == _JMP:
            if code == _JMP:
                to.jump(place(at + 1 + k))
                continue
            if code & 0xF0 not in _TESTS:
                raise Untranslatable(f"instruction {at}")
            if code & 0x08:
                to.jump_if_reg(code & 0xF0, _A, _X, place(at + 1 + jt))
            elif k & _NEGATIVE:
                to.mov(R1, signed)
                to.jump_if_reg(code & 0xF0, _A, R1, place(at + 1 + jt))
            else:
                to.jump_if(code & 0xF0, _A, k, place(at + 1 + jt))
            if jf:
                to.jump(place(at + 1 + jf))
            else:
                place(at + 1)
        elif kind == _ALU:
            _arithmetic(to, code, k, signed, at)
        elif kind in (_ST, _STX) and code == kind and k < 16:
            to.store_reg(WORD, FRAME, memory + 4 * k, _A if kind == _ST else _X)
        elif code == _MISC:
            to.alu_reg(MOV, _X, _A, wide=False)
        elif code == _MISC | 0x80:
            to.alu_reg(MOV, _A, _X, wide=False)
        elif kind in (_LD, _LDX):
            _load(to, code, k, signed, memory, at)
        else:
            raise Untranslatable(f"instruction {at}")


def _arithmetic(to: Assembler, code: int, k: int, signed: int, at: int) -> None:
    operation = code & 0xF0
    if code == _ALU | NEG:
        to.alu(NEG, _A, 0, wide=False)
        return
    if operation not in _OPERATIONS:
        raise Untranslatable(f"instruction {at}")
    if not code & 0x08:
        if (operation in (_DIV, _MOD) and not k) or (operation in (_LSH, _RSH) and k > 31):
            raise Untranslatable(f"instruction {at}")
        to.alu(operation, _A, signed, wide=False)
        return
    if operation in (_DIV, _MOD):
        fine = to.name("divisor")
        to.jump_if(NE, _X, 0, fine)
        to.mov(R0, 0)
        to.exit()
        to.label(fine)
    to.alu_reg(operation, _A, _X, wide=False)


def _load(to: Assembler, code: int, k: int, signed: int, memory: int, at: int) -> None:
    kind, mode, size = code & 7, code & 0xE0, code & 0x18
    register = _A if kind == _LD else _X
    if mode == _IMM and size == WORD:
        to.mov(register, signed)
    elif mode == _MEM and size == WORD and k < 16:
        to.load(WORD, register, FRAME, memory + 4 * k)
    elif mode == _LEN and size == WORD:
        to.load(WORD, register, R6, _SKB_LEN)
    elif kind == _LDX and mode == _MSH and size == BYTE and not k & _NEGATIVE:
        to.packet(BYTE, k)
        to.alu(AND, R0, 0x0F, wide=False)
        to.alu(LSH, R0, 2, wide=False)
        to.alu_reg(MOV, _X, R0, wide=False)
    elif kind == _LD and mode in (_ABS, _IND) and size in _SIZES and not k & _NEGATIVE:
        to.packet(size, k, _X if mode == _IND else None)
        to.alu_reg(MOV, _A, R0, wide=False)
    else:
        raise Untranslatable(f"instruction {at}")
