"""Rows under a key, in the order they were first seen, bounded."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import cast

from tripshark.model.alert import Json
from tripshark.model.reading import MAX_ROWS

Row = dict[str, Json]


class Table:
    """At most `MAX_ROWS` rows; `full` says that something did not fit."""

    def __init__(self) -> None:
        self._rows: dict[Hashable, Row] = {}
        self.full = False

    @property
    def rows(self) -> tuple[Mapping[str, Json], ...]:
        """As they were first seen."""
        return tuple(self._rows.values())

    def order(self) -> None:
        """By their frames."""
        self._rows = dict(sorted(self._rows.items(), key=lambda each: whole(each[1], "frame")))

    def get(self, key: Hashable) -> Row | None:
        """The row under `key`."""
        return self._rows.get(key)

    def row(self, key: Hashable, new: Row) -> Row | None:
        """The row under `key`, or `new` put there; None when the table is full."""
        known = self._rows.get(key)
        if known is None and len(self._rows) >= MAX_ROWS:
            self.full = True
            return None
        return self._rows.setdefault(key, new)

    def count(self, key: Hashable, new: Row) -> Row | None:
        """One more of the same."""
        row = self.row(key, new)
        if row is not None:
            row["count"] = whole(row, "count") + 1
        return row

    def tell_apart(self, old: Hashable, new: Hashable, where: Row, changes: Row) -> None:
        """One of those counted under `old` turned out to be one of `new`, the same but for `changes`.

        `where` is the place at which that one was seen.
        """
        row = self._rows.get(old)
        if row is None:
            return
        if new in self._rows:
            self.count(new, {})
        elif whole(row, "count") == 1:
            # Keeps its place in the order.
            self._rows = {new if key == old else key: each for key, each in self._rows.items()}
            row.update(changes)
            return
        elif self.count(new, {**row, **where, **changes, "count": 0}) is None:
            return  # no room: it stays where it was counted
        row["count"] = whole(row, "count") - 1
        if not row["count"]:
            del self._rows[old]


def whole(row: Mapping[str, Json], name: str) -> int:
    """A number that we put there."""
    return cast(int, row[name])
