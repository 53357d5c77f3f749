"""Catches the first packets of a namespace that was just born, until its first ring is open.

A ring takes some 15 ms to open, and can be opened no sooner than its interface appears. A plain socket is there within
a millisecond, for all interfaces to come. What it caught becomes an earlier ring of the interface, without what the ring
has as well: both take the time that the packet itself was stamped with.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tripshark.formats.wire import BlockRef
from tripshark.recorder import kernel
from tripshark.recorder.cut import Stamp

LIFE_S = 5.0  # a namespace in which no interface appears by then is not waited for
_BUFFER = 1 << 20  # asked for; the kernel gives up to twice net.core.rmem_max
_ROOM = 1 << 17  # bytes of the longest packet that is looked for
_MOST = 4096  # packets
_AUXDATA = 8
_USER = 1
_FIRST_BYTE = 68  # header, and the address behind it
_BLOCK = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Early:
    """One packet that came before the ring."""

    stamp: Stamp
    status: int
    tci: int
    tpid: int
    link: tuple[int, int, int]  # protocol, hardware type, kind (sent, received …)
    address: bytes
    data: bytes


class Cradle:
    """To be opened in the namespace, and closed soon: it keeps it alive."""

    def __init__(self, attach: Callable[[socket.socket], int]) -> None:
        """Raises `OSError`."""
        self.opened_ns = time.time_ns()
        self.drops = 0
        self._sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        try:
            self._sock.setblocking(False)
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            self._sock.setsockopt(kernel.SOL_PACKET, _AUXDATA, 1)
            kernel.have_packets_stamped(self._sock, True)
            attach(self._sock)
            kernel.bind_packet(self._sock.fileno(), 0)
        except BaseException:
            self._sock.close()
            raise

    def take(self, interface: str) -> list[Early]:
        """What came at an interface up to now; what came at others is thrown away."""
        found: list[Early] = []
        with contextlib.suppress(BlockingIOError):
            for _ in range(_MOST):
                try:
                    data, told, _, source = self._sock.recvmsg(_ROOM, 256)
                except BlockingIOError:
                    raise
                except OSError:  # ENETDOWN: an interface went; what came before is still there
                    continue
                if source[0] == interface and (early := _early(data, told, source)) is not None:
                    found.append(early)
        raw = self._sock.getsockopt(kernel.SOL_PACKET, kernel.PACKET_STATISTICS, 8)
        self.drops += struct.unpack("=II", raw)[1]
        return found

    def close(self) -> None:
        self._sock.close()


def _early(
    data: bytes, told: Sequence[tuple[int, int, bytes]], source: tuple[str, int, int, int, bytes]
) -> Early | None:
    time_ns = status = length = tci = tpid = 0
    for level, kind, value in told:
        if level == socket.SOL_SOCKET and kind == kernel.SO_TIMESTAMPNS and len(value) == 16:
            sec, nsec = struct.unpack("=qq", value)
            time_ns = sec * 1_000_000_000 + nsec
        elif level == kernel.SOL_PACKET and kind == _AUXDATA:
            status, length, _, _, _, tci, tpid = struct.unpack_from("=IIIHHHH", value)
    if not time_ns:
        return None
    _, protocol, sent, hardware, address = source
    return Early(
        stamp=Stamp(time_ns, length or len(data)),
        status=status,
        tci=tci,
        tpid=tpid,
        link=(protocol, hardware, sent),
        address=address,
        data=data,
    )


def block(packets: Sequence[Early], ifindex: int) -> tuple[int, int, tuple[BlockRef, ...]]:
    """The packets as the kernel would have written them into a ring: a sealed memfd, its size and its only block."""
    parts: list[bytes] = []
    for n, each in enumerate(packets):
        body = each.data + b"\0" * (-(_FIRST_BYTE + len(each.data)) % 8)
        step = _FIRST_BYTE + len(body) if n + 1 < len(packets) else 0
        sec, nsec = divmod(each.stamp.time_ns, 1_000_000_000)
        status = each.status | _USER | kernel.TP_STATUS_TS_SOFTWARE
        protocol, hardware, sent = each.link
        parts.append(
            struct.pack(
                "=IIIIIIHHIIHH8x",
                *(step, sec, nsec, len(each.data), each.stamp.length, status),
                *(_FIRST_BYTE, _FIRST_BYTE, 0, each.tci, each.tpid, 0),
            )
            + struct.pack(
                "=HHiHBB8s",
                *(socket.AF_PACKET, socket.htons(protocol), ifindex, hardware, sent),
                *(len(each.address), each.address[:8]),
            )
            + body
        )
    size = _BLOCK + sum(map(len, parts))
    times = [divmod(each.stamp.time_ns, 1_000_000_000) for each in (packets[0], packets[-1])]
    head = struct.pack("=IIIIIIQ", 1, _BLOCK, _USER, len(packets), _BLOCK, size, 1)
    head += struct.pack("=IIII", *times[0], *times[1])
    fd = kernel.memfd("tripshark-cradle")
    try:
        os.pwrite(fd, head + b"".join(parts), 0)
        kernel.seal(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd, size, (BlockRef(seq=1, offset=0, length=size, open=False),)


def without(packets: Sequence[Early], twice: Mapping[Stamp, int]) -> list[Early]:
    """Those that the ring does not have."""
    left = dict(twice)
    kept: list[Early] = []
    for each in packets:
        if left.get(each.stamp, 0):
            left[each.stamp] -= 1
        else:
            kept.append(each)
    return kept
