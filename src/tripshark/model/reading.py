"""Reads one JSON object of somebody who may have been hijacked: believes no type, no length and no depth.

A missing field reads as empty, a wrong type is refused (`BadInput` says where), text becomes printable, numbers
such that every reader of JSON can hold them.
"""

from __future__ import annotations

import math
from typing import cast

from tripshark.errors import BadInput
from tripshark.model.alert import Json
from tripshark.model.text import MAX_TEXT, printable

MAX_ROWS = 500  # entries in any one list of the findings
_MAX_DEPTH = 4
_MAX_NUMBER = (1 << 63) - 1


class Reader:
    """One JSON object, read field by field."""

    def __init__(self, document: Json, where: str) -> None:
        if not isinstance(document, dict):
            raise BadInput("expected an object", where=where)
        self._document = document
        self._where = where

    def value(self, name: str) -> Json:
        return self._document.get(name)

    def _typed(self, name: str, kind: type, empty: Json) -> Json:
        value = self._document.get(name, empty)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise BadInput(f"expected {kind.__name__}", where=f"{self._where}.{name}")
        return value

    def text(self, name: str, limit: int = MAX_TEXT) -> str:
        return printable(cast(str, self._typed(name, str, "")), limit)

    def number(self, name: str) -> int:
        return max(-_MAX_NUMBER, min(cast(int, self._typed(name, int, 0)), _MAX_NUMBER))

    def seconds(self, name: str) -> float:
        value = self._document.get(name, 0.0)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadInput("expected a number", where=f"{self._where}.{name}")
        return float(value) if abs(value) < _MAX_NUMBER else 0.0  # also false for not-a-number

    def flag(self, name: str) -> bool:
        return cast(bool, self._typed(name, bool, False))

    def rows(self, name: str) -> list[Json]:
        return cast(list[Json], self._typed(name, list, []))[:MAX_ROWS]

    def numbers(self, name: str, limit: int = MAX_ROWS) -> tuple[int, ...]:
        rows = cast(list[Json], self._typed(name, list, []))[:limit]
        if not all(type(each) is int and 0 <= each <= _MAX_NUMBER for each in rows):
            raise BadInput("expected whole numbers", where=f"{self._where}.{name}")
        return tuple(cast(list[int], rows))

    def texts(self, name: str) -> tuple[str, ...]:
        rows = self.rows(name)
        if not all(isinstance(each, str) for each in rows):
            raise BadInput("expected a list of texts", where=f"{self._where}.{name}")
        return tuple(printable(str(each)) for each in rows)

    def pairs(self, name: str, limit: int) -> dict[str, str]:
        value = cast(dict[str, Json], self._typed(name, dict, {}))
        if not all(isinstance(each, str) for each in value.values()):
            raise BadInput("expected texts", where=f"{self._where}.{name}")
        return {printable(key): printable(str(each)) for key, each in list(value.items())[:limit]}


def tidy_row(document: Json) -> dict[str, Json]:
    row = _tidy(document)
    if not isinstance(row, dict):
        raise BadInput("expected an object", where="findings")
    return row


def _tidy(value: Json, depth: int = 0) -> Json:
    """Printable text, bounded lists and depth, numbers that JSON can carry everywhere."""
    if depth > _MAX_DEPTH:
        return None
    if isinstance(value, str):
        return printable(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return max(-_MAX_NUMBER, min(value, _MAX_NUMBER))
    if isinstance(value, float):
        return value if math.isfinite(value) else 0.0
    if isinstance(value, list):
        return [_tidy(each, depth + 1) for each in value[:MAX_ROWS]]
    first = list(value.items())[:MAX_ROWS]
    return {printable(str(key)): _tidy(each, depth + 1) for key, each in first}
