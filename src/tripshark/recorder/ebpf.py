"""Small eBPF programs without a compiler: an assembler with labels, and bpf(2) for maps, programs and test runs.

Instructions are those of the kernel's Documentation/bpf/standardization/instruction-set.rst. Jumps go forward only,
which every kernel's verifier can follow to the end.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
import struct
import sys
from dataclasses import dataclass, field

from tripshark.recorder import kernel

SO_ATTACH_BPF = 50
LRU_HASH = 9
HELPER_LOOKUP, HELPER_UPDATE, HELPER_CLOCK, HELPER_LOAD, HELPER_COARSE_CLOCK = 1, 2, 5, 26, 160

_MAP_CREATE, _PROG_LOAD, _TEST_RUN = 0, 5, 10
_SOCKET_FILTER = 1
_LOG_BYTES = 1 << 20
_NUMBERS = {
    "x86_64": 321,
    "aarch64": 280,
    "riscv64": 280,
    "loongarch64": 280,
    "ppc64le": 361,
    "s390x": 351,
    "armv7l": 386,
}

# ---- instructions ---------------------------------------------------------------------------------------

BYTE, HALF, WORD, DOUBLE = 0x10, 0x08, 0x00, 0x18
ADD, SUB, MUL, DIV, OR, AND, LSH, RSH, NEG, MOD, XOR, MOV = range(0x00, 0xC0, 0x10)
EQ, GT, GE, SET, NE, LT, LE = 0x10, 0x20, 0x30, 0x40, 0x50, 0xA0, 0xB0
_LD, _LDX, _ST, _STX, _ALU32, _JMP, _ALU64 = 0, 1, 2, 3, 4, 5, 7
_IMM, _ABS, _IND, _MEM = 0x00, 0x20, 0x40, 0x60
_X = 0x08
_ALWAYS, _CALL, _EXIT = 0x00, 0x80, 0x90
_MAP_FD = 1

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, FRAME = range(11)


@dataclass(slots=True)
class Assembler:
    """Instructions in the order in which they are written; `label` says where a jump ends."""

    _code: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    _jumps: list[tuple[int, str]] = field(default_factory=list)
    _labels: dict[str, int] = field(default_factory=dict)
    _fresh: int = 0

    def _emit(self, code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> None:
        self._code.append((code, dst, src, off, imm))

    def name(self, hint: str) -> str:
        """A label that nobody else uses."""
        self._fresh += 1
        return f"{hint}.{self._fresh}"

    def label(self, name: str) -> None:
        if name in self._labels:
            raise ValueError(f"two places are called {name}")
        self._labels[name] = len(self._code)

    # registers and constants; `wide`: 64 bits, otherwise the upper half becomes zero

    def alu(self, operation: int, dst: int, value: int, *, wide: bool = True) -> None:
        self._emit((_ALU64 if wide else _ALU32) | operation, dst, imm=value)

    def alu_reg(self, operation: int, dst: int, src: int, *, wide: bool = True) -> None:
        self._emit((_ALU64 if wide else _ALU32) | operation | _X, dst, src)

    def mov(self, dst: int, value: int) -> None:
        """Any unsigned number of 32 bits."""
        self.alu(MOV, dst, value, wide=False)

    def mov_reg(self, dst: int, src: int) -> None:
        self.alu_reg(MOV, dst, src)

    def constant(self, dst: int, value: int) -> None:
        """Any unsigned number of 64 bits."""
        self._emit(_LD | _IMM | DOUBLE, dst, imm=value & 0xFFFF_FFFF)
        self._emit(0, imm=value >> 32)

    def map(self, dst: int) -> None:
        """The one map of the program, whose descriptor `with_map` writes here."""
        self._emit(_LD | _IMM | DOUBLE, dst, _MAP_FD)
        self._emit(0)

    # memory

    def load(self, size: int, dst: int, base: int, offset: int) -> None:
        self._emit(_LDX | _MEM | size, dst, base, offset)

    def store(self, size: int, base: int, offset: int, value: int) -> None:
        self._emit(_ST | _MEM | size, base, 0, offset, value)

    def store_reg(self, size: int, base: int, offset: int, src: int) -> None:
        self._emit(_STX | _MEM | size, base, src, offset)

    def packet(self, size: int, offset: int, index: int | None = None) -> None:
        """R0 = what cBPF loads: host order, and the program ends with 0 when the packet is too short.

        Needs the context in R6; R1 to R5 are lost.
        """
        mode = _ABS if index is None else _IND
        self._emit(_LD | mode | size, 0, index or 0, 0, offset)

    # flow

    def jump(self, label: str) -> None:
        self._jumps.append((len(self._code), label))
        self._emit(_JMP | _ALWAYS)

    def jump_if(self, test: int, dst: int, value: int, label: str) -> None:
        """`value` is sign-extended: only numbers below 2**31."""
        self._jumps.append((len(self._code), label))
        self._emit(_JMP | test, dst, imm=value)

    def jump_if_reg(self, test: int, dst: int, src: int, label: str) -> None:
        self._jumps.append((len(self._code), label))
        self._emit(_JMP | test | _X, dst, src)

    def call(self, helper: int) -> None:
        self._emit(_JMP | _CALL, imm=helper)

    def exit(self) -> None:
        self._emit(_JMP | _EXIT)

    def encode(self) -> bytes:
        """The instructions, 8 bytes each. Raises `ValueError` for a jump that goes nowhere or too far."""
        code = list(self._code)
        for at, label in self._jumps:
            distance = self._labels.get(label, at) - at - 1
            if not 0 <= distance < 1 << 15:
                raise ValueError(f"no way from {at} to {label}")
            what, dst, src, _, imm = code[at]
            code[at] = what, dst, src, distance, imm
        little = sys.byteorder == "little"
        return b"".join(
            struct.pack(
                "=BBhI",
                what,
                dst | src << 4 if little else dst << 4 | src,
                off,
                imm & 0xFFFF_FFFF,
            )
            for what, dst, src, off, imm in code
        )


def with_map(code: bytes, fd: int) -> bytes:
    """The same instructions with the descriptor of a map wherever they load it."""
    little = sys.byteorder == "little"
    placed = bytearray(code)
    for at in range(0, len(code), 8):
        source = code[at + 1] >> 4 if little else code[at + 1] & 0x0F
        if code[at] == _LD | _IMM | DOUBLE and source == _MAP_FD:
            struct.pack_into("=I", placed, at + 4, fd)
    return bytes(placed)


# ---- bpf(2) ---------------------------------------------------------------------------------------------


class Refused(OSError):
    """The kernel does not let us, or does not understand: with its verifier's last words, if it had any."""


def _bpf(command: int, given: bytes | ctypes.Array[ctypes.c_char]) -> int:
    number = _NUMBERS.get(platform.machine())
    if number is None:
        raise Refused(errno.ENOSYS, f"bpf(2) has no number here for {platform.machine()}")
    attributes = (
        given
        if isinstance(given, ctypes.Array)
        else ctypes.create_string_buffer(given, len(given))
    )
    result = kernel.libc().syscall(
        ctypes.c_long(number),
        ctypes.c_long(command),
        ctypes.byref(attributes),
        ctypes.c_ulong(len(attributes)),
    )
    if result < 0:
        code = ctypes.get_errno()
        raise Refused(code, os.strerror(code))
    return int(result)


def create_map(kind: int, *, key: int, value: int, entries: int, name: str) -> int:
    """A descriptor of a new map. Raises `Refused`."""
    given = struct.pack("=7I16s", kind, key, value, entries, 0, 0, 0, name.encode()[:15])
    try:
        return _bpf(_MAP_CREATE, given)
    except Refused as problem:
        if problem.errno not in (errno.EINVAL, errno.E2BIG):
            raise
        return _bpf(_MAP_CREATE, given[:20])  # before Linux 4.15 maps have no names


def load_program(code: bytes, *, name: str) -> int:
    """A descriptor of the program, verified and compiled by the kernel. Raises `Refused`."""
    instructions = ctypes.create_string_buffer(code, len(code))
    license = ctypes.create_string_buffer(b"GPL")
    try:
        return _load(instructions, license, name, None)
    except Refused as problem:
        if problem.errno not in (errno.EINVAL, errno.EACCES, errno.E2BIG):
            raise
        log = ctypes.create_string_buffer(_LOG_BYTES)
        try:
            return _load(instructions, license, name, log)
        except Refused as again:
            said = log.value.decode(errors="replace").strip().splitlines()
            words = "; ".join(
                line for line in said[-3:] if line and not line.startswith(("processed", "R"))
            )
            text = f"{again.strerror}: {words[-200:]}" if words else again.strerror
            raise Refused(again.errno, text) from problem


def _load(
    code: ctypes.Array[ctypes.c_char],
    license: ctypes.Array[ctypes.c_char],
    name: str,
    log: ctypes.Array[ctypes.c_char] | None,
) -> int:
    told = (1, len(log), ctypes.addressof(log)) if log is not None else (0, 0, 0)
    given = struct.pack(
        "=IIQQIIQII16s",
        _SOCKET_FILTER,
        len(code) // 8,
        ctypes.addressof(code),
        ctypes.addressof(license),
        *told,
        0,
        0,
        name.encode()[:15],
    )
    try:
        return _bpf(_PROG_LOAD, given)
    except Refused as problem:
        if problem.errno != errno.E2BIG:
            raise
        return _bpf(_PROG_LOAD, given[:48])  # before Linux 4.15 programs have no names


def attach(sock: socket.socket, program: int) -> None:
    """Swap a socket's filter atomically. Raises `OSError`, ENOMEM where net.core.optmem_max is too small."""
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_BPF, program)


def try_out(program: int, packet: bytes, *, repeat: int = 1) -> tuple[int, float]:
    """What a program returns for a packet whose first byte it is to see at offset 0, and nanoseconds per run.

    The kernel takes away an Ethernet header before a socket filter is run: we put one in front. Raises `Refused`.
    """
    framed = bytes(12) + b"\x88\xb5" + packet  # a type that the kernel has no opinion of
    data = ctypes.create_string_buffer(framed, len(framed))
    room = ctypes.create_string_buffer(len(framed) + 256)
    given = struct.pack(
        "=IIIIQQII",
        program,
        0,
        len(framed),
        len(room),
        ctypes.addressof(data),
        ctypes.addressof(room),
        repeat,
        0,
    )
    attributes = ctypes.create_string_buffer(given, len(given))
    _bpf(_TEST_RUN, attributes)
    result, duration = struct.unpack_from("=I28xI", attributes, 4)
    return result, float(duration)
