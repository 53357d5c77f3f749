"""Pods' namespaces made as a runtime makes them, at the rate of a busy node: no process is started for any of them.

A file below /run/netns, the namespace mounted on it, then a veth pair with eth0 inside, then addresses, then up.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import threading
import time
import uuid
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

DIRECTORY = "/run/netns"
PORT = 9
_LIBC = ctypes.CDLL(None, use_errno=True)
_NEWNET = 0x4000_0000
_MS_BIND, _MNT_DETACH = 4096, 2
_SIOCSIFADDR, _SIOCSIFNETMASK, _SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8916, 0x891C, 0x8913, 0x8914
_IFF_UP = 1
_RTM_NEWLINK, _REQUEST, _ACK, _CREATE = 16, 1, 4, 0x600
_IFLA_IFNAME, _IFLA_LINKINFO, _IFLA_NET_NS_FD = 3, 18, 28
_INFO_KIND, _INFO_DATA, _VETH_PEER = 1, 2, 1


def _check(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def in_thread(work: Callable[[], T]) -> T:
    """Do it in a thread of its own, which may move to another namespace and ends with it."""
    found: list[T] = []
    wrong: list[BaseException] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as problem:  # noqa: BLE001 — raised again where it is waited for
            wrong.append(problem)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if wrong:
        raise wrong[0]
    return found[0]


def inside(path: str, work: Callable[[], T]) -> T:
    """Do it within a namespace."""

    def enter() -> T:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _check(_LIBC.setns(fd, _NEWNET), path)
        finally:
            os.close(fd)
        return work()

    return in_thread(enter)


class Sandbox:
    """One pod's namespace; `world` is the path of the namespace that gets the other end of its veth."""

    def __init__(self, world: str, number: int, *, prefix: str = "cni-") -> None:
        self.name = f"{prefix}{uuid.uuid4()}"
        self.path = f"{DIRECTORY}/{self.name}"
        self.address = (
            f"10.{128 + number // 62_500 % 100}.{number // 250 % 250}.{number % 250 + 1}"
        )
        self._world = world
        self._number = number
        self.made_ns = 0  # when the file appeared

    def make(self) -> None:
        """The file and the namespace on it, with lo up."""

        def work() -> None:
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDONLY, 0o444))
            self.made_ns = time.time_ns()
            _check(_LIBC.unshare(_NEWNET), "unshare")
            source = f"/proc/self/task/{threading.get_native_id()}/ns/net".encode()
            target = self.path.encode()
            _check(_LIBC.mount(source, target, b"none", _MS_BIND, None), "mount")
            _up("lo")

        in_thread(work)

    def plug(self, count: int = 0, *, pause_s: float = 0.0) -> None:
        """eth0: made, given its address, set up; then at once `count` numbered broadcasts to port 9."""
        world = os.open(self._world, os.O_RDONLY | os.O_CLOEXEC)
        pod = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)

        def work() -> None:
            _veth("eth0", f"v{self._number}", world)
            _check(_LIBC.setns(world, _NEWNET), self._world)
            _up(f"v{self._number}")
            _check(_LIBC.setns(pod, _NEWNET), self.path)
            if pause_s:
                time.sleep(pause_s)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                _set(sock, "eth0", _SIOCSIFADDR, self.address)
                _set(sock, "eth0", _SIOCSIFNETMASK, "255.0.0.0")
                _up("eth0")
                self.send(sock, range(count))

        try:
            inside(self.path, work)
        finally:
            os.close(world)
            os.close(pod)

    @staticmethod
    def send(sock: socket.socket, numbers: range, size: int = 40) -> None:
        """Numbered datagrams that nobody has to be asked about before."""
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        for n in numbers:
            sock.sendto(
                b"NUMB" + struct.pack("!I", n) + b"." * (size - 8), ("10.255.255.255", PORT)
            )

    def speak(self, numbers: range) -> None:
        """Numbered datagrams from within."""

        def work() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                self.send(sock, numbers)

        inside(self.path, work)

    def remove(self) -> None:
        """As the runtime does it: the mount, then the file."""
        _LIBC.umount2(self.path.encode(), _MNT_DETACH)
        os.unlink(self.path)


def _set(sock: socket.socket, dev: str, what: int, address: str) -> None:
    given = struct.pack("16sHH4s8x", dev.encode(), socket.AF_INET, 0, socket.inet_aton(address))
    fcntl.ioctl(sock, what, given)


def _up(dev: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        given = struct.pack("16sH22x", dev.encode(), 0)
        (flags,) = struct.unpack_from("H", fcntl.ioctl(sock, _SIOCGIFFLAGS, given), 16)
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sH22x", dev.encode(), flags | _IFF_UP))


def _veth(name: str, peer: str, world: int) -> None:
    """A veth pair: `name` here, `peer` in the other namespace; both are down."""

    def attribute(kind: int, data: bytes) -> bytes:
        size = 4 + len(data)
        return struct.pack("=HH", size, kind) + data + b"\0" * (-size % 4)

    other = (
        struct.pack("=BxHiII", 0, 0, 0, 0, 0)
        + attribute(_IFLA_IFNAME, peer.encode() + b"\0")
        + attribute(_IFLA_NET_NS_FD, struct.pack("=I", world))
    )
    info = attribute(_INFO_KIND, b"veth") + attribute(_INFO_DATA, attribute(_VETH_PEER, other))
    body = (
        struct.pack("=BxHiII", 0, 0, 0, 0, 0)
        + attribute(_IFLA_IFNAME, name.encode() + b"\0")
        + attribute(_IFLA_LINKINFO, info)
    )
    header = struct.pack("=IHHII", 16 + len(body), _RTM_NEWLINK, _REQUEST | _ACK | _CREATE, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        sock.send(header + body)
        answer = sock.recv(4096)
        number = -struct.unpack_from("=i", answer, 16)[0]
        if number:
            raise OSError(number, os.strerror(number), name)
