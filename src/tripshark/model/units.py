"""How many bytes or seconds a person means by `16MB` or `1m30s`: the one reader for settings, rules and the API."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

SIZES = {
    "": 1,
    "b": 1,
    "k": 10**3,
    "kb": 10**3,
    "m": 10**6,
    "mb": 10**6,
    "g": 10**9,
    "gb": 10**9,
    "t": 10**12,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
SECONDS = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86_400.0,
    "w": 604_800.0,
}
_NUMBER_UNIT = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-zµ]*)")


def _parts(value: object, units: Mapping[str, float], what: str, example: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"a {what} such as {example} is expected")  # noqa: TRY004  # pydantic collects ValueError
    if isinstance(value, (int, float)):
        if not math.isfinite(value):
            raise ValueError(f"{value} is not a {what}; write it like {example}")
        return float(value)
    text = value.strip().lower().replace("_", "")
    total, at = 0.0, 0
    while match := _NUMBER_UNIT.match(text, at):
        if match[2] not in units:
            raise ValueError(f"{value!r} is not a {what}; write it like {example}")
        total += float(match[1]) * units[match[2]]
        at = match.end()
    if not text or at != len(text) or not math.isfinite(total):
        raise ValueError(f"{value!r} is not a {what}; write it like {example}")
    return total


def bytes_of(value: object) -> int:
    """`16MB` (10⁶), `16MiB` (2²⁰), `16777216` as bytes. Raises `ValueError`."""
    return round(_parts(value, SIZES, "size", "16MB"))


def seconds_of(value: object) -> float:
    """`30s`, `1m30s`, `10m`, `7d`, `250ms`, or plain seconds. Raises `ValueError`."""
    return _parts(value, {"": 1.0, **SECONDS}, "duration", "30s")


def count_of(value: object) -> int:
    """`200k`, `1m` or a plain number as a count. Raises `ValueError`."""
    return round(_parts(value, {"": 1, "k": 10**3, "m": 10**6}, "count", "200k"))


def ns_of(value: object) -> int:
    """A duration as nanoseconds; plain numbers are seconds. Raises `ValueError`."""
    return round(seconds_of(value) * 1_000_000_000)
