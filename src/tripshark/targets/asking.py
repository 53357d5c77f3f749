"""How long others are waited for: briefly, because alerts are taken in order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from tripshark.errors import TripsharkError

T = TypeVar("T")

PATIENCE_S = 0.25  # for runtimes and the API, in all, when an alert is about nobody known
BRIEF_S = 0.003  # … when much of the time went that way already: who answers at once is heard
LATE_S = 2.0  # where nobody else has to wait
SHARE = 5


class Patience:
    """How long others are waited for, in all; what they do not answer in time is not known."""

    def __init__(self, seconds: float = PATIENCE_S, purse: Purse | None = None) -> None:
        self._until = asyncio.get_running_loop().time() + seconds
        self._purse = purse
        self.in_vain = False  # somebody did not answer in time, and might yet

    def left(self) -> float:
        return max(0.0, self._until - asyncio.get_running_loop().time())

    async def ask(self, question: Awaitable[T]) -> T | None:
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(self._until):
                return await question
        except TimeoutError:
            self.in_vain = True
            return None
        except TripsharkError:
            return None
        finally:
            self._spent(began)

    async def pause(self, seconds: float) -> None:
        """Wait for so long, or as long as there is patience."""
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(min(seconds, self.left()))
        self._spent(began)

    def _spent(self, began: float) -> None:
        if self._purse is not None:
            self._purse.spend(asyncio.get_running_loop().time() - began)


class Purse:
    """Waiting for others takes at most one part of `SHARE` of the time, however many strangers there are alerts about.

    Who comes when it is spent is asked for briefly, and again beside the others (`resolve_late`).
    """

    def __init__(self) -> None:
        self._full_at = 0.0

    def patience(self) -> Patience:
        is_full = asyncio.get_running_loop().time() >= self._full_at
        return Patience(PATIENCE_S if is_full else BRIEF_S, self)

    def spend(self, seconds: float) -> None:
        if seconds > BRIEF_S:
            now = asyncio.get_running_loop().time()
            self._full_at = max(self._full_at, now) + SHARE * seconds
