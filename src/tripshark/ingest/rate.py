"""How many alerts one client may send: a token bucket per address, for a bounded number of addresses."""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv6Address, ip_address

MAX_CLIENTS = 4096


class ClientRate:
    """`burst` at once, then `per_second`. Time is an argument, in seconds of any steady clock."""

    def __init__(self, *, per_second: float, burst: int) -> None:
        self._per_second = per_second
        self._burst = float(burst)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, at

    def wait(self, client: str, now: float) -> float:
        """Take one token: 0.0, or the seconds until there is one (and none is taken)."""
        if not self._per_second:
            return 0.0
        key = _network(client)
        tokens, at = self._buckets.pop(key, (self._burst, now))
        tokens = min(self._burst, tokens + (now - at) * self._per_second)
        missing = max(0.0, 1.0 - tokens)
        self._buckets[key] = (tokens if missing else tokens - 1.0, now)
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)  # the longest silent one has the fullest bucket
        return missing / self._per_second


def _network(client: str) -> str:
    """An IPv6 host owns a /64: one bucket for all of it."""
    if ":" not in client:
        return client
    try:
        address = ip_address(client.partition("%")[0])
    except ValueError:
        return client
    return str(int(address) >> 64) if isinstance(address, IPv6Address) else client
