"""Whether one more capture may start: token buckets, cooldowns, and the machine's bounds. Pure; time is an argument."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from tripshark.model.plan import Reason, Refusal

REMEMBERED = 10_000  # rules × targets whose buckets are kept; an evicted one starts full again


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What all captures together may cost."""

    concurrent: int = 16
    parts_per_target: int = 4
    burst: int = 10
    refill_ns: int = 60_000_000_000  # 0: no rate limit
    cooldown_ns: int = 60_000_000_000


@dataclass(slots=True)
class Budget:
    """Keeps count; answers with a refusal or None."""

    bounds: Bounds
    _buckets: OrderedDict[tuple[str, str], tuple[float, int]] = field(default_factory=OrderedDict)

    def may_start(
        self, *, rule: str, target: str, running: int, on_target: int, now_ns: int
    ) -> Refusal | None:
        """Takes a token when the answer is None."""
        bounds = self.bounds
        if running >= bounds.concurrent:
            return Refusal(
                reason=Reason.BUSY,
                message=f"{running} captures are running, as many as this machine may",
                hint="raise bounds.concurrent, or let rules be narrower",
                rule=rule,
            )
        if on_target >= bounds.parts_per_target:
            return Refusal(
                reason=Reason.BUSY,
                message=f"{on_target} captures are running on this target already",
                hint="raise bounds.parts_per_target",
                rule=rule,
            )
        if not self._take_token((rule, target), now_ns):
            return Refusal(
                reason=Reason.RATE,
                message=f"rule {rule!r} has used up its captures on this target",
                hint=f"one more every {bounds.refill_ns / 1e9:g} s; see bounds.rate",
                rule=rule,
            )
        return None

    def _take_token(self, key: tuple[str, str], now_ns: int) -> bool:
        bounds = self.bounds
        if not bounds.refill_ns:
            return True
        tokens, at_ns = self._buckets.pop(key, (float(bounds.burst), now_ns))
        tokens = min(bounds.burst, tokens + max(0, now_ns - at_ns) / bounds.refill_ns)
        granted = tokens >= 1
        self._buckets[key] = (tokens - 1 if granted else tokens, now_ns)
        while len(self._buckets) > REMEMBERED:
            self._buckets.popitem(last=False)
        return granted
