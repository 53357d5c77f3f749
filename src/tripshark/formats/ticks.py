"""What a capture file's time stamps mean: ticks of any resolution to nanoseconds."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

_NANO: Final = 9
_BINARY: Final = 0x80  # if_tsresol: the exponent is of 2, not of 10
_MOST: Final = (1 << 63) - 1
_FRACTION_BITS: Final = 34  # as many as times 10^9 still fit in 64 bits


def nanoseconds(
    ticks: NDArray[np.uint64], resolution: NDArray[np.uint8]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Ticks in ns, rounded down, given each one's if_tsresol; and whether it fits in 63 bits (else 0)."""
    ns = np.zeros(len(ticks), np.uint64)
    fits = np.ones(len(ticks), np.bool_)
    for each in np.unique(resolution).tolist():
        where = resolution == each
        some = ticks[where]
        if each & _BINARY:
            ns[where], fits[where] = _binary(some, each & ~_BINARY)
        elif each <= _NANO:
            factor = 10 ** (_NANO - each)
            fits[where] = some <= np.uint64(_MOST // factor)
            ns[where] = some * np.uint64(factor)
        elif each - _NANO < 20:  # 10^20 is more than 64 bits hold
            ns[where] = some // np.uint64(10 ** (each - _NANO))
    fits &= ns <= np.uint64(_MOST)
    return np.where(fits, ns, np.uint64(0)).astype(np.int64), fits


def _binary(ticks: NDArray[np.uint64], bits: int) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    seconds = ticks >> np.uint64(bits) if bits < 64 else np.zeros_like(ticks)
    part = ticks & np.uint64((1 << min(bits, 64)) - 1)
    drop = bits - _FRACTION_BITS
    if drop > 0:
        part = part >> np.uint64(drop) if drop < 64 else np.zeros_like(ticks)
    billionths = part * np.uint64(10**_NANO) >> np.uint64(min(bits, _FRACTION_BITS))
    fits = seconds <= np.uint64(_MOST // 10**_NANO - 1)
    return seconds * np.uint64(10**_NANO) + billionths, fits
