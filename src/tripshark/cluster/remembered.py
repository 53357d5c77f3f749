"""Answers that are good for a while, and never more of them than so many."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")


class Remembered(Generic[T]):
    """By key, each with its own time; who was put in longest ago goes first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[object, tuple[float, T]] = OrderedDict()

    def get(self, key: object) -> T | None:
        """None when there is none, or none that is still good."""
        found = self._kept.get(key)
        if found is None or found[0] < asyncio.get_running_loop().time():
            return None
        return found[1]

    def put(self, key: object, value: T, seconds: float) -> None:
        self._kept[key] = (asyncio.get_running_loop().time() + seconds, value)
        self._kept.move_to_end(key)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)

    def __len__(self) -> int:
        return len(self._kept)
