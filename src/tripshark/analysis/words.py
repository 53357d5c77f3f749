"""Numbers, places and foreign names as they stand within a sentence."""

from __future__ import annotations

import re

from tripshark.model.conversation import Conversation
from tripshark.model.text import printable

_PLAIN = re.compile(r"[\w./:@*-]+…?")
_WORDS = 64  # characters of one hostile name within a sentence


def short(text: str) -> str:
    """Hostile text within a sentence: short, and in quotes where it could pass for words of ours."""
    safe = printable(text, _WORDS)
    if not safe or _PLAIN.fullmatch(safe):
        return safe
    inner = safe.replace('"', "'")
    return f'"{inner}"'


def amount(talk: Conversation) -> str:
    """`5 packets, 167 B out, 120 B in`."""
    packets = count(talk.packets, "packet")
    return f"{packets}, {size(talk.bytes_ab)} out, {size(talk.bytes_ba)} in"


def endpoint(address: str, port: int) -> str:
    """`203.0.113.66:4444`, `[fd00::1]:443`, or the address alone."""
    if not port:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def relative(before_ns: int) -> str:
    """`8 ms before the alert`."""
    if before_ns == 0:
        return "at the moment of the alert"
    return f"{seconds(abs(before_ns) / 1e9)} {'before' if before_ns > 0 else 'after'} the alert"


def seconds(duration: float) -> str:
    """`8 ms`, `5.0 s`, `12 min`."""
    if duration < 0.0995:
        return f"{duration * 1000:.3g} ms"
    for unit, length, most in (("s", 1, 120), ("min", 60, 120 * 60), ("h", 3600, 48 * 3600)):
        if duration < most:
            return f"{duration / length:.{int(unit == 's')}f} {unit}"
    return f"{duration / 86400:.0f} days"


def size(octets: int) -> str:
    """`167 B`, `1.2 MB`."""
    if octets < 1000:
        return f"{octets} B"
    rest = float(octets)
    for unit in ("kB", "MB"):
        rest /= 1000
        if rest < 999.95:
            return f"{rest:.1f} {unit}"
    return f"{rest / 1000:.1f} GB"


def count(number: int, noun: str) -> str:
    """`1,240 packets`, `1 packet`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
