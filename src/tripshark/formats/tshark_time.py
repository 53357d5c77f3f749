"""When a packet came, as tshark writes it."""

from __future__ import annotations

import re
from datetime import datetime

_EPOCH = re.compile(r"(\d{1,10})(?:\.(\d{1,9})\d*)?")
_ISO = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?Z")


def time_ns(text: str) -> int:
    """Nanoseconds since 1970 from `1790000000.000340563`, or from ISO 8601 as versions after 4.2 may write it.

    Raises ValueError.
    """
    if match := _EPOCH.fullmatch(text):
        seconds = int(match[1])
    elif match := _ISO.fullmatch(text):
        seconds = int(datetime.fromisoformat(match[1] + "+00:00").timestamp())
    else:
        raise ValueError("not a time after 1970")
    moment = seconds * 1_000_000_000 + int((match[2] or "").ljust(9, "0"))
    if not 0 <= moment < 1 << 63:
        raise ValueError("a time that 64 bits cannot hold")
    return moment
