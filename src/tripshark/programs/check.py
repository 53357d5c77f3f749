"""One thing that was looked at, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Check:
    """Good, limited (a remark) or bad (must be mended), in words, with the remedy."""

    name: str
    state: Literal["good", "limited", "bad"]
    words: str
    remedy: str = ""
