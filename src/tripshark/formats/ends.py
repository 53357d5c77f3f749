"""Which addresses packets go from and to: of IPv4, IPv6 and ARP, outermost header, in columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

import numpy as np
from numpy.typing import NDArray

from tripshark.formats.packets import Packets
from tripshark.formats.spans import windows

_ETHERNET, _RAW_IP = 1, 101  # link types
_IPV4, _ARP, _IPV6 = 0x0800, 0x0806, 0x86DD
_VLANS = (0x8100, 0x88A8)  # tags before the type, up to two of them
Rows = NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Ends:
    """Both ends of the packets that have any: row of the packet, address from, address to."""

    rows4: Rows
    ends4: NDArray[np.uint32]  # (n, 2)
    rows6: Rows
    ends6: NDArray[np.uint64]  # (n, 2, 2): high and low half of each

    def addresses(self) -> tuple[str, ...]:
        """Every address that occurs, each once."""
        return (
            *(str(IPv4Address(each)) for each in np.unique(self.ends4).tolist()),
            *(
                str(IPv6Address(high << 64 | low))
                for high, low in np.unique(self.ends6.reshape(-1, 2), axis=0).tolist()
            ),
        )

    def of(self, address: str) -> Rows:
        """Rows of the packets that go from or to it, ascending."""
        wanted = ip_address(address)
        if isinstance(wanted, IPv4Address):
            hits: NDArray[np.bool_] = (self.ends4 == np.uint32(int(wanted))).any(axis=1)
            return self.rows4[hits]
        halves = np.array([int(wanted) >> 64, int(wanted) & (1 << 64) - 1], np.uint64)
        hits = (self.ends6 == halves).all(axis=2).any(axis=1)
        return self.rows6[hits]


def ends(packets: Packets, linktypes: Sequence[int]) -> Ends:
    """The ends of each packet; `linktypes` are by the packets' `source`. Other links have none that we read."""
    kinds = np.zeros(len(packets), np.int64)
    if len(packets):
        kinds = np.asarray(linktypes, np.int64)[packets.source]
    types, offsets = _types(packets, kinds)
    four = (types == _IPV4) & _has(packets, offsets + 20)
    asks = (types == _ARP) & _has(packets, offsets + 28)
    six = (types == _IPV6) & _has(packets, offsets + 40)
    rows4 = np.flatnonzero(four | asks)
    at = packets.start[rows4] + offsets[rows4]
    arp = asks[rows4]
    from4 = _numbers(packets, at + np.where(arp, 14, 12), ">u4")
    to4 = _numbers(packets, at + np.where(arp, 24, 16), ">u4")
    rows6 = np.flatnonzero(six)
    at = packets.start[rows6] + offsets[rows6]
    halves = [_numbers(packets, at + where, ">u8") for where in (8, 16, 24, 32)]
    return Ends(
        rows4=rows4,
        ends4=np.stack([from4, to4], axis=1).astype(np.uint32),
        rows6=rows6,
        ends6=np.stack(halves, axis=1).reshape(-1, 2, 2).astype(np.uint64),
    )


def _types(
    packets: Packets, kinds: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The EtherType of each packet, and where what it announces begins; 0 for what cannot be told."""
    types = np.zeros(len(packets), np.int64)
    offsets = np.zeros(len(packets), np.int64)
    raw = np.flatnonzero((kinds == _RAW_IP) & _has(packets, offsets + 1))
    version = packets.data[packets.start[raw]] >> 4
    types[raw] = np.where(version == 4, _IPV4, np.where(version == 6, _IPV6, 0))
    rest = np.flatnonzero(kinds == _ETHERNET)
    offsets[rest] = 14
    for _ in range(len(_VLANS) + 1):
        rest = rest[_has(packets, offsets)[rest]]
        types[rest] = _numbers(packets, packets.start[rest] + offsets[rest] - 2, ">u2")
        rest = rest[np.isin(types[rest], _VLANS)]
        offsets[rest] += 4
    return types, offsets


def _has(packets: Packets, size: NDArray[np.int64]) -> NDArray[np.bool_]:
    return packets.caplen >= size


def _numbers(packets: Packets, at: NDArray[np.int64], kind: str) -> NDArray[np.integer]:
    """Big-endian numbers at these places of the buffer."""
    size = np.dtype(kind).itemsize
    if not len(at):
        return np.zeros(0, kind)
    found: NDArray[np.integer] = windows(packets.data, size)[at].view(kind)
    return found
