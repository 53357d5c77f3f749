"""What a YAML file says and where in it: plain values, and the line and column of each.

Scalars stay text as written, so that a rule called `1.10` or `yes` keeps its name; below `parameters`
they get YAML's types. Empty values count as not given. Bounded against bombs: text, nesting, and every
use of an alias counts like what it stands for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from tripshark.errors import BadInput

MAX_TEXT = 262_144  # characters; a thousand rules fit
MAX_VALUES = 50_000
MAX_DEPTH = 20

Path = tuple[str | int, ...]
_NULL, _MERGE = "tag:yaml.org,2002:null", "tag:yaml.org,2002:merge"
_SAFE = yaml.constructor.SafeConstructor()
_CONSTRUCTORS = {
    "tag:yaml.org,2002:bool": _SAFE.construct_yaml_bool,
    "tag:yaml.org,2002:int": _SAFE.construct_yaml_int,
    "tag:yaml.org,2002:float": _SAFE.construct_yaml_float,
}


@dataclass(frozen=True, slots=True, order=True)
class Place:
    file: str
    line: int  # from 1
    column: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One item of the file's list, or what stands in its place."""

    value: Any
    places: dict[Path, Place] = field(repr=False)
    doubled: tuple[tuple[Place, str], ...] = ()  # keys given twice

    def at(self, path: Path) -> Place:
        """Where a value stands; what is missing stands where its surroundings begin."""
        while path not in self.places:
            path = path[:-1]
        return self.places[path]


def entries(file: str, text: str) -> Iterator[Entry]:
    """The items of the list in each YAML document of `text`.

    Raises `BadInput` for what is no YAML, no list, or too much; `where` is `line:column`.
    """
    if len(text) > MAX_TEXT:
        raise BadInput(f"the file has more than {MAX_TEXT} characters", hint="split it")
    count = [0]
    try:
        for root in yaml.compose_all(text, Loader=yaml.SafeLoader):
            if isinstance(root, yaml.ScalarNode) and root.tag == _NULL:
                continue  # nothing but comments
            if not isinstance(root, yaml.SequenceNode):
                raise BadInput(
                    "a list of rules and actions is expected",
                    where=f"{root.start_mark.line + 1}:{root.start_mark.column + 1}",
                    hint="begin each with `- rule:` or `- action:`",
                )
            for node in root.value:
                yield _Reader(file, count).entry(node)
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark
        raise BadInput(
            f"this is not YAML: {problem.problem}",
            where=f"{mark.line + 1}:{mark.column + 1}" if mark is not None else "",
        ) from problem
    except (yaml.YAMLError, ValueError) as problem:  # a character or an escape YAML does not allow
        raise BadInput(f"this is not YAML: {problem}") from problem
    except RecursionError as problem:
        raise _too_deep() from problem


def _too_deep() -> BadInput:
    return BadInput(f"the file nests more than {MAX_DEPTH} levels", hint="rules need five")


class _Reader:
    """Turns one node into an entry."""

    def __init__(self, file: str, count: list[int]) -> None:
        self._file = file
        self._count = count  # shared over the file
        self._places: dict[Path, Place] = {}
        self._doubled: list[tuple[Place, str]] = []

    def entry(self, node: yaml.Node) -> Entry:
        value = self._value(node, (), typed=False)
        return Entry(value, self._places, tuple(self._doubled))

    def _place(self, node: yaml.Node) -> Place:
        return Place(self._file, node.start_mark.line + 1, node.start_mark.column + 1)

    def _value(self, node: yaml.Node, path: Path, *, typed: bool) -> Any:  # noqa: ANN401 - any YAML
        self._count[0] += 1
        if self._count[0] > MAX_VALUES:
            raise BadInput(
                f"the file has more than {MAX_VALUES} values", hint="every use of an alias counts"
            )
        if len(path) > MAX_DEPTH:
            raise _too_deep()
        self._places.setdefault(path, self._place(node))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, typed=typed)
        if isinstance(node, yaml.SequenceNode):
            return [
                self._value(item, (*path, index), typed=typed)
                for index, item in enumerate(node.value)
            ]
        return _scalar(node, typed=typed)

    def _mapping(self, node: yaml.MappingNode, path: Path, *, typed: bool) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, item in node.value:
            if key_node.tag == _MERGE:
                for base in item.value if isinstance(item, yaml.SequenceNode) else [item]:
                    # One level deeper, so that a mapping that merges itself comes to an end.
                    more = self._value(base, (*path, "<<"), typed=typed)
                    merged = (more if isinstance(more, dict) else {}) | merged
                continue
            key = str(key_node.value)
            if key in own:
                self._doubled.append((self._place(key_node), key))
            self._places[(*path, key)] = self._place(key_node)
            value = self._value(item, (*path, key), typed=typed or key == "parameters")
            if value is not None or typed:
                own[key] = value
        return merged | own


def _scalar(node: Any, *, typed: bool) -> Any:  # noqa: ANN401 - any YAML
    if node.tag == _NULL:
        return None
    if not typed:
        return node.value
    constructor = _CONSTRUCTORS.get(node.tag)
    if constructor is None:
        return node.value
    try:
        return constructor(node)
    except (ValueError, KeyError):  # `!!int x`, or thousands of digits: then it is text
        return node.value
