"""Copies many spans of different lengths from one buffer to another without a loop over the spans.

A span of n bytes is copied as its first and its last C bytes, where C is the largest of a few fixed sizes
that is at most n. The two overlap, so nothing outside the span is touched, and all spans with the same C go
in one NumPy operation however many different lengths there are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536)
_LONG = 2048
"""From here on one slice per span is quicker: the copy itself costs more than the loop."""
_SIZE_CLASS: NDArray[np.uint8] = np.searchsorted(
    np.array(_SIZES), np.arange(_LONG + 1), side="right"
).astype(np.uint8)  # length → 1 + index of its size, 0: nothing to copy
_SIZE_CLASS[_LONG] = len(_SIZES) + 1


def copy_spans(
    source: NDArray[np.uint8],
    at: NDArray[np.int64],
    lengths: NDArray[np.int64],
    target: NDArray[np.uint8],
    to: NDArray[np.int64],
) -> None:
    """Copy `source[at[i]:at[i]+lengths[i]]` to `target[to[i]:to[i]+lengths[i]]` for every i.

    Every span must lie within its buffer, and the two buffers must not share memory.
    """
    classes = _SIZE_CLASS[np.minimum(lengths, _LONG)]
    for which in np.flatnonzero(np.bincount(classes, minlength=1)).tolist():
        if which == 0:
            continue
        chosen = np.flatnonzero(classes == which)
        here, there = at[chosen], to[chosen]
        if which > len(_SIZES):
            for a, b, n in zip(
                here.tolist(), there.tolist(), lengths[chosen].tolist(), strict=True
            ):
                target[b : b + n] = source[a : a + n]
            continue
        size = _SIZES[which - 1]
        items, places = windows(source, size), windows(target, size)
        places[there] = items[here]
        rest = lengths[chosen] - size
        if rest.any():
            places[there + rest] = items[here + rest]


def windows(buffer: NDArray[np.uint8], size: int) -> NDArray[np.void]:
    """Every run of `size` bytes of the buffer as one item, by the offset it starts at."""
    return np.ndarray((len(buffer) - size + 1,), f"V{size}", buffer=buffer, strides=(1,))
