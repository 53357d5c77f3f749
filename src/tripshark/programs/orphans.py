"""No process outlives the one that started it, also after it became somebody else."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

_SET, _GET = 1, 2  # PR_SET_PDEATHSIG, PR_GET_PDEATHSIG: linux/prctl.h
_LIBC = ctypes.CDLL(None, use_errno=True)


@contextmanager
def still_mortal() -> Iterator[None]:
    """Around a change of user: with it the kernel forgets which signal our parent's death was to send (prctl(2))."""
    number = ctypes.c_int(0)
    _LIBC.prctl(_GET, ctypes.byref(number), 0, 0, 0)
    parent = os.getppid()
    yield
    if number.value:
        _LIBC.prctl(_SET, number.value, 0, 0, 0)
        if os.getppid() != parent:  # it ended meanwhile
            os.kill(os.getpid(), number.value)
