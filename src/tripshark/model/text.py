"""Foreign text made safe to look at: nothing in it can move a cursor, fake a line, or show itself in another order."""

from __future__ import annotations

import unicodedata

INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""General categories of Unicode: controls, formats (bidirectional marks, zero widths), surrogates, private and
unassigned characters, line and paragraph separators."""


def visible(text: str) -> str:
    """The text with every invisible character spelled out: `\\x1b`, `\\u202e`, `\\U000e0001`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        _spelled(ord(each)) if unicodedata.category(each) in INVISIBLE else each for each in text
    )


def _spelled(code: int) -> str:
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
