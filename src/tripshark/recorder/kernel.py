"""System calls and constants of Linux that the standard library has no name for."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct

SOL_PACKET = 263
PACKET_RX_RING = 5
PACKET_STATISTICS = 6
PACKET_VERSION = 10
PACKET_TIMESTAMP = 17
PACKET_IGNORE_OUTGOING = 23
TPACKET_V3 = 2
SO_ATTACH_FILTER = 26
SO_TIMESTAMPNS = 35
SO_PEERGROUPS = 59
ETH_P_ALL = 3
ETH_P_LOOP = 0x60
SOF_TIMESTAMPING_SOFTWARE = 1 << 4
TP_STATUS_TS_SOFTWARE = 1 << 29
CLONE_NEWNET = 0x4000_0000
MADV_DONTFORK = 10

IN_CREATE, IN_DELETE, IN_MOVED, IN_GONE, IN_OVERFLOW, IN_IGNORED = (
    0x100,
    0x200,
    0x40 | 0x80,
    0x400 | 0x800,
    0x4000,
    0x8000,
)

_MFD_NOEXEC_SEAL = 0x8
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE

_libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str = "") -> int:
    """The result of a C call, or the `OSError` it means."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what or None)
    return result


def libc() -> ctypes.CDLL:
    return _libc


def enter_netns(fd: int) -> None:
    """Move the calling thread into a network namespace."""
    check(_libc.setns(fd, CLONE_NEWNET), "setns")


def set_rx_ring(fd: int, block: int, count: int, retire_ms: int) -> None:
    """Give a packet socket its ring. By ctypes, because `socket.setsockopt` would hold the GIL for 25 ms."""
    frame = 2048  # means nothing to version 3, but must divide the block
    want = struct.pack("=7I", block, count, frame, block // frame * count, retire_ms, 0, 0)
    check(_libc.setsockopt(fd, SOL_PACKET, PACKET_RX_RING, want, len(want)), "PACKET_RX_RING")


def bind_packet(fd: int, ifindex: int, protocol: int = ETH_P_ALL) -> None:
    """Tap one interface by index, which needs no name and also works while the interface is down.

    When a tap changes its protocol, no packet is on its way into the ring any more once this returns.
    """
    address = struct.pack(
        "=HHiHBB8s", socket.AF_PACKET, socket.htons(protocol), ifindex, 0, 0, 0, b""
    )
    check(_libc.bind(fd, address, len(address)), "bind")


def stamp_early(sock: socket.socket, on: bool) -> None:
    """Have a ring take the time a packet was stamped with before any tap saw it: the same in all rings."""
    sock.setsockopt(SOL_PACKET, PACKET_TIMESTAMP, SOF_TIMESTAMPING_SOFTWARE if on else 0)


def have_packets_stamped(sock: socket.socket, on: bool) -> None:
    """Ask the kernel to stamp every packet early, as long as this socket is open or until it is taken back."""
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, int(on))


def tapped_ifindex(fd: int) -> int:
    """Which interface a packet socket taps; -1 once that interface is gone."""
    address = ctypes.create_string_buffer(20)
    size = ctypes.c_uint(20)
    check(_libc.getsockname(fd, address, ctypes.byref(size)), "getsockname")
    return int(struct.unpack_from("=i", address, 4)[0])


def attach_filter(sock: socket.socket, program: bytes) -> None:
    """Swap a socket's cBPF atomically. Raises `OSError` when the kernel does not take the program."""
    code = ctypes.create_string_buffer(program, len(program))
    want = struct.pack("HL", len(program) // 8, ctypes.addressof(code))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, want)


def returning(snaplen: int) -> bytes:
    """The cBPF program that keeps `snaplen` bytes of every packet."""
    return struct.pack("=HBBI", 0x06, 0, 0, snaplen)


def take_short_turns() -> None:
    """Have the calling thread run soon after it is woken, at the price of shorter turns (0.1 ms instead of 3).

    Without privilege and for an ordinary process: since Linux 6.12 whoever asks for a shorter slice is let in
    before the running one has used up its own. Fails silently, and earlier kernels take no notice.
    """
    number = {"x86_64": 314, "aarch64": 274}.get(os.uname().machine)
    if number is not None:
        nice = os.getpriority(os.PRIO_PROCESS, 0)
        policy, flags, priority, slice_ns = 0, 0, 0, 100_000
        given = struct.pack("=IIQiIQQQ", 48, policy, flags, nice, priority, slice_ns, 0, 0)
        _libc.syscall(number, 0, given, 0)


def inotify() -> int:
    return check(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "inotify_init1")


def watch(fd: int, path: str, mask: int) -> int:
    return check(_libc.inotify_add_watch(fd, os.fsencode(path), mask), path)


def unwatch(fd: int, watch: int) -> None:
    """Fails silently: the kernel may have ended the watch by itself."""
    _libc.inotify_rm_watch(fd, watch)


def memfd(name: str) -> int:
    """Anonymous memory that can be sealed; never executable where the kernel can promise it (6.3)."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create(name, flags | _MFD_NOEXEC_SEAL)
    except OSError:
        return os.memfd_create(name, flags)


def seal(fd: int) -> None:
    """From here on nobody can change the memory, neither we nor whoever gets it."""
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
