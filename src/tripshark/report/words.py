"""Numbers, times and sizes as people read them; every one the same wherever it is written."""

from __future__ import annotations

from tripshark.model.evidence import rfc3339

_SIZES = ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB"))


def count(number: int, one: str, many: str = "") -> str:
    """`1 packet`, `1,204 packets`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def size(number: int) -> str:
    """`737 B`, `4.3 kB`; powers of ten."""
    for unit, name in _SIZES:
        if number >= unit:
            return f"{number / unit:.1f} {name}"
    return f"{number} B"


def span(ns: int) -> str:
    """How long: `3.87 ms`, `9.2 s`, `2 min 15 s`, `3 h 2 min`."""
    ns = abs(ns)
    if ns < 1_000_000:
        return f"{ns / 1e6:.3f} ms"
    if ns < 1_000_000_000:
        return f"{ns / 1e6:.3g} ms"
    seconds = ns / 1e9
    if seconds < 120:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 120:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 72:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} d {hours % 24} h"


def relative(ns: int, t0_ns: int, of: str = "the alert") -> str:
    """`3.87 ms before the alert`."""
    if ns == t0_ns:
        return f"at the moment of {of}"
    return f"{span(ns - t0_ns)} {'before' if ns < t0_ns else 'after'} {of}"


def offset(ns: int, t0_ns: int) -> str:
    """`−3.87 ms`, `+9.2 s`, `0`: for columns and axes."""
    if ns == t0_ns:
        return "0"
    return f"{'−' if ns < t0_ns else '+'}{span(ns - t0_ns)}"


def moment(ns: int, digits: int = 3) -> str:
    """`2026-11-25 03:00:37.628 UTC`; "" for 0."""
    if not ns:
        return ""
    at = rfc3339(ns)
    if "T" not in at:
        return at
    return at.replace("T", " ")[: 20 + digits] + " UTC"


def day(ns: int) -> str:
    """`2026-11-25`."""
    return rfc3339(ns)[:10]


def clock(ns: int) -> str:
    """`03:00:37.628`."""
    at = rfc3339(ns)
    return at[11:23] if "T" in at else at


def listed(texts: list[str], most: int = 5) -> str:
    """`a, b and 3 more`."""
    if len(texts) > most:
        return f"{', '.join(texts[:most])} and {len(texts) - most} more"
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"
