"""Processes that tests start end with the tests, however those end."""

from __future__ import annotations

import ctypes
import signal

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def killed_with_us() -> None:
    """As `preexec_fn`: SIGKILL when the *thread* that started the process has ended."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def ended_with_us() -> None:
    """As `preexec_fn`: SIGTERM when the *thread* that started the process has ended."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
