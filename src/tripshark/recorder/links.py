"""Which interfaces a network namespace has, and a doorbell that rings when that changes."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tripshark.model.target import Interface

_RTM_NEWLINK, _RTM_GETLINK, _RTM_NEWADDR, _RTM_GETADDR = 16, 18, 20, 22
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_DUMP, _NLM_F_REQUEST, _NLM_F_DUMP_INTR = 0x300, 1, 0x10
_GROUPS = 0x1 | 0x10 | 0x100  # RTMGRP_LINK, _IPV4_IFADDR, _IPV6_IFADDR
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_EXT_MASK, _IFLA_LINKINFO = 1, 3, 4, 29, 18
_IFLA_GSO_MAX, _IFLA_GRO_MAX, _IFLA_INFO_KIND = 41, 58, 1
_SKIP_STATS = 1 << 3
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_NESTED = 0x3FFF  # attribute types without their flag bits
_KEPT_ADDRESSES = 32  # whoever lives in the namespace may set thousands


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """An interface and what decides how to record it."""

    interface: Interface
    kind: str  # "veth", "tun", "bridge" …; "" for physical ones and loopback
    largest_frame: int


def doorbell() -> socket.socket:
    """A socket that becomes readable when interfaces or addresses of the calling thread's namespace change.

    It keeps the namespace alive: close it as soon as the namespace's name is gone.
    """
    bell = socket.socket(
        socket.AF_NETLINK,
        socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
        socket.NETLINK_ROUTE,
    )
    try:
        bell.bind((0, _GROUPS))
    except BaseException:
        bell.close()
        raise
    return bell


def hush(bell: socket.socket) -> None:
    """Forget what rang: whoever was woken looks for himself."""
    for _ in range(64):
        try:
            bell.recv(1)  # the rest of a message is thrown away by the kernel
        except BlockingIOError:
            return
        except OSError:  # ENOBUFS: it rang more often than fits; it rang
            continue


def survey() -> dict[int, Link]:
    """Every interface of the calling thread's namespace by index. Raises `OSError`."""
    with socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
    ) as sock:
        sock.bind((0, 0))
        sock.settimeout(10.0)
        links, steady = _dump(sock)
        for _ in range(2):  # a dump during which something changed is taken again
            if not steady:
                links, steady = _dump(sock)
        return links


def _dump(sock: socket.socket) -> tuple[dict[int, Link], bool]:
    links: dict[int, Link] = {}
    no_stats = struct.pack("=HHI", 8, _IFLA_EXT_MASK, _SKIP_STATS)
    steady = True
    for kind, body, whole in _ask(
        sock, _RTM_GETLINK, struct.pack("=BxHiII", 0, 0, 0, 0, 0) + no_stats
    ):
        steady &= whole
        if kind == _RTM_NEWLINK:
            _, hardware, index = struct.unpack_from("=BxHi", body)
            links[index] = _link(index, hardware, dict(_attributes(body[16:])))
    addresses: dict[int, list[str]] = {}
    for kind, body, whole in _ask(sock, _RTM_GETADDR, struct.pack("=BBBBI", 0, 0, 0, 0, 0)):
        steady &= whole
        if kind == _RTM_NEWADDR:
            family, prefix, _, _, index = struct.unpack_from("=BBBBI", body)
            given = dict(_attributes(body[8:]))
            raw = given.get(_IFA_LOCAL) or given.get(_IFA_ADDRESS) or b""
            known = addresses.setdefault(index, [])
            if len(known) < _KEPT_ADDRESSES and len(raw) == (4 if family == 2 else 16):
                known.append(f"{socket.inet_ntop(family, raw)}/{prefix}")
    for index, known in addresses.items():
        if (link := links.get(index)) is not None:
            interface = replace(link.interface, addresses=tuple(known))
            links[index] = replace(link, interface=interface)
    return links, steady


def _link(index: int, hardware: int, given: dict[int, bytes]) -> Link:
    info = dict(_attributes(given.get(_IFLA_LINKINFO, b"")))
    limits = [_u32(given.get(each, b"")) for each in (_IFLA_GSO_MAX, _IFLA_GRO_MAX)]
    mtu = _u32(given.get(_IFLA_MTU, b""))
    return Link(
        interface=Interface(
            name=_text(given.get(_IFLA_IFNAME, b"")),
            ifindex=index,
            hardware_type=hardware,
            mac=given.get(_IFLA_ADDRESS, b"").hex(":") if hardware in (1, 772) else "",
            mtu=mtu,
        ),
        kind=_text(info.get(_IFLA_INFO_KIND, b"")),
        largest_frame=max(*limits, mtu),
    )


def _ask(sock: socket.socket, what: int, body: bytes) -> Iterator[tuple[int, bytes, bool]]:
    """(type, payload, not interrupted) of every message of a dump."""
    header = struct.pack("=IHHII", 16 + len(body), what, _NLM_F_REQUEST | _NLM_F_DUMP, 1, 0)
    sock.send(header + body)
    while True:
        data = sock.recv(1 << 18)
        while len(data) >= 16:
            size, kind, flags, _, _ = struct.unpack_from("=IHHII", data)
            if kind == _NLMSG_ERROR:
                number = -struct.unpack_from("=i", data, 16)[0]
                raise OSError(number, os.strerror(number))
            yield kind, data[16:size], not flags & _NLM_F_DUMP_INTR
            if kind == _NLMSG_DONE:
                return
            data = data[size + -size % 4 :]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 4:
        size, kind = struct.unpack_from("=HH", data)
        if size < 4:
            return
        yield kind & _NESTED, data[4:size]
        data = data[size + -size % 4 :]


def _u32(raw: bytes) -> int:
    return int(struct.unpack("=I", raw)[0]) if len(raw) == 4 else 0


def _text(raw: bytes) -> str:
    """A kernel string as text that is safe to write anywhere: interface names may be any bytes."""
    return raw.rstrip(b"\0").decode("utf-8", "backslashreplace")
