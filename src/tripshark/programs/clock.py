"""What time it is, and what the kernel says of its clock."""

from __future__ import annotations

import ctypes
import os
import time
from pathlib import Path

from tripshark.model.alert import Json

_CLOCK_SOURCE = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
_STA_NANO = 0x2000  # linux/timex.h
_STA_UNSYNC = 0x40  # linux/timex.h


class SystemClock:
    """`ports.Clock` over CLOCK_REALTIME, the clock of packet time stamps and of Falco's evt.time."""

    def now_ns(self) -> int:
        return time.time_ns()


class _Timex(ctypes.Structure):
    """The head of struct timex (linux/timex.h) as adjtimex(2) fills it on 64-bit machines."""

    _fields_ = [  # type: ignore[mutable-override]
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 256),
    ]


def clock_source() -> str:
    """The kernel's clock source: `tsc`, `kvm-clock`, …"""
    try:
        return Path(_CLOCK_SOURCE).read_text(encoding="ascii").strip()
    except OSError:
        return "unknown"


def clock_facts() -> dict[str, Json]:
    """Whether the clock is disciplined and how wrong it may be, in microseconds (adjtimex(2))."""
    timex = _Timex()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.adjtimex(ctypes.byref(timex)) < 0:
        return {"synchronised": None, "problem": os.strerror(ctypes.get_errno())}
    return {
        "synchronised": not timex.status & _STA_UNSYNC,
        # in nanoseconds where the kernel was told so: adjtimex(2), STA_NANO
        "offset_us": int(timex.offset) // (1000 if timex.status & _STA_NANO else 1),
        "estimated_error_us": int(timex.esterror),
        "maximum_error_us": int(timex.maxerror),
    }
