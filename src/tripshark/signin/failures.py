"""How often an address tried and failed: beyond a bound it waits, and nothing is looked up for it any more."""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv6Address, ip_address
from typing import Final

_MOST: Final = 4096  # addresses remembered; the one that failed longest ago is forgotten first


class Failures:
    """A bucket per address: `allowed` at once, and one more after each part of a minute. IPv6 counts by /64."""

    def __init__(self, *, per_minute: int) -> None:
        self._allowed = per_minute
        self._refill_ns = round(60e9 / per_minute)
        self._known: OrderedDict[str, tuple[float, int]] = OrderedDict()  # (failures, at)

    def wait(self, address: str, now_ns: int) -> float:
        """Seconds until this address may fail again; 0: it may now."""
        level = self._level(_group(address), now_ns)
        over = level - self._allowed + 1
        return 0.0 if over <= 0 else over * self._refill_ns / 1e9

    def failed(self, address: str, now_ns: int) -> None:
        """It tried something that was wrong."""
        group = _group(address)
        level = self._level(group, now_ns)
        self._known[group] = (min(level + 1, self._allowed * 2.0), now_ns)
        self._known.move_to_end(group)
        while len(self._known) > _MOST:
            self._known.popitem(last=False)

    def _level(self, group: str, now_ns: int) -> float:
        level, at_ns = self._known.get(group, (0.0, now_ns))
        return max(0.0, level - max(0, now_ns - at_ns) / self._refill_ns)


def _group(address: str) -> str:
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(IPv6Address(int(parsed) >> 64 << 64)) + "/64"
    return str(parsed)
