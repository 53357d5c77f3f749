"""How sources come together, and which of them said what stands in the end."""

from __future__ import annotations

from collections.abc import Mapping

Sources = dict[tuple[str, ...], str]
"""Where each value came from, by its path in the tree."""


def own(sources: Sources, keys: tuple[str, ...], source: str) -> None:
    """This source now says all there is at and below `keys`."""
    for known in [each for each in sources if each[: len(keys)] == keys]:
        del sources[known]
    sources[keys] = source


def put(tree: dict[str, object], keys: tuple[str, ...], value: object) -> None:
    for key in keys[:-1]:
        below = tree.get(key)
        if not isinstance(below, dict):
            below = tree[key] = {}
        tree = below
    tree[keys[-1]] = value


def merge(into: dict[str, object], other: Mapping[str, object]) -> None:
    for key, value in other.items():
        mine = into.get(key)
        if isinstance(value, dict):
            if not isinstance(mine, dict):
                mine = into[key] = {}
            merge(mine, value)
        elif value is None:
            continue  # `recorder:` with everything below it commented out
        else:
            into[key] = value
