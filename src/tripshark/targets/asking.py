"""How long others are waited for: briefly, because alerts are taken in order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from tripshark.errors import TripsharkError

T = TypeVar("T")

PATIENCE_S = 0.25  # for runtimes and the API, in all, when an alert is about nobody known
LATE_S = 2.0  # where nobody else has to wait


class Patience:
    """How long others are waited for, in all; what they do not answer in time is not known."""

    def __init__(self, seconds: float = PATIENCE_S) -> None:
        self._until = asyncio.get_running_loop().time() + seconds

    def left(self) -> float:
        return max(0.0, self._until - asyncio.get_running_loop().time())

    async def ask(self, question: Awaitable[T]) -> T | None:
        try:
            async with asyncio.timeout_at(self._until):
                return await question
        except (TripsharkError, TimeoutError):
            return None
