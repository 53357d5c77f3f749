"""Values that a request gives, in its query or in its body: one line of text, a length of time."""

from __future__ import annotations

from typing import Final

from tripshark.errors import BadInput
from tripshark.model.units import ns_of

MAX_LINE: Final = 1024  # characters
MAX_NS: Final = 24 * 3600 * 1_000_000_000


def line(value: str, name: str) -> str:
    """A text that fits into one line. Raises `BadInput`."""
    if len(value) > MAX_LINE or any(ord(each) < 32 for each in value):
        raise BadInput(f"{name} is too long or has control characters", where=name)
    return value


def duration(value: str | float, name: str) -> int:
    """`30s`, or a number of seconds, as nanoseconds; a day at the most. Raises `BadInput`."""
    try:
        ns = ns_of(value)
    except (ValueError, OverflowError) as error:
        raise BadInput(str(error), where=name) from error
    if not 0 <= ns <= MAX_NS:
        raise BadInput(f"{name} is 0 s to 24 h", where=name)
    return ns
