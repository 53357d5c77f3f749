"""Foreign text made safe to look at: nothing in it can move a cursor, fake a line, or show itself in another order."""

from __future__ import annotations

import re
import unicodedata

MAX_TEXT = 400  # characters of any one text in a list of findings
INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""General categories of Unicode: controls, formats (bidirectional marks, zero widths), surrogates, private and
unassigned characters, line and paragraph separators."""

_SPACES = re.compile(
    "[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]"
)  # every space but the ordinary one


def visible(text: str) -> str:
    """The text with every invisible character spelled out: `\\x1b`, `\\u202e`, `\\U000e0001`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        _spelled(ord(each)) if unicodedata.category(each) in INVISIBLE else each for each in text
    )


def printable(text: str, limit: int = MAX_TEXT) -> str:
    """`text` as one line that no terminal or reader can be fooled by, at most `limit` characters.

    Control, format (bidirectional marks, zero widths), unassigned, private and surrogate characters and line
    separators become `\\x1b` or `\\u202e`; every other space becomes an ordinary one.
    """
    safe = visible(_SPACES.sub(" ", text[:limit]))
    if len(text) > limit:
        return safe[: limit - 1] + "…"
    return safe if len(safe) <= limit else safe[: limit - 1] + "…"


def _spelled(code: int) -> str:
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
