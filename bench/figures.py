"""Medians, percentiles, and numbers as people read them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence


def median(values: Iterable[float]) -> float:
    found = list(values)
    return statistics.median(found) if found else float("nan")


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of all values does not exceed."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


def number(value: float, digits: int = 3) -> str:
    """So many significant digits, thousands separated."""
    if math.isnan(value):
        return "–"
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    text = f"{value:.{digits}g}"
    return f"{float(text):.0f}" if "e" in text and abs(value) >= 1 else text


def ms(seconds: float) -> str:
    return f"{number(seconds * 1e3)} ms"


def spread(values: Sequence[float]) -> str:
    """Lowest and highest as a share of the median: what a difference must exceed to mean anything."""
    middle = median(values)
    return f"×{min(values) / middle:.2f}…{max(values) / middle:.2f}" if middle else "–"
