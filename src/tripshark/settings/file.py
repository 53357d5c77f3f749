"""What the YAML file says, and in which line."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import yaml

from tripshark.errors import BadInput
from tripshark.settings.merging import Sources
from tripshark.settings.tree import reason_of


def read_file(path: Path, sources: Sources, problems: list[str]) -> dict[str, object]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            f"cannot read the configuration: {reason_of(error)}",
            where=str(path),
            hint="name another file with --config or TRIPSHARK_CONFIG",
        ) from error
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise BadInput(f"not YAML: {reason}", where=where) from error
    if root is None:
        return {}
    value = _build(root, (), path, sources, problems, frozenset())
    if not isinstance(value, dict):
        raise BadInput("the configuration is not a map of settings", where=f"{path}:1")
    return value


def _build(
    node: yaml.Node,
    keys: tuple[str, ...],
    path: Path,
    sources: Sources,
    problems: list[str],
    above: frozenset[int],
) -> object:
    """A YAML node as plain values, remembering the line of every value."""
    where = f"{path}:{node.start_mark.line + 1}"
    if keys:
        sources[keys] = where
    if id(node) in above:  # `&a [*a]`: an alias inside itself has no end
        problems.append(f"{where}: an alias refers to itself")
        return None
    above |= {id(node)}
    if isinstance(node, yaml.MappingNode):
        result: dict[str, object] = {}
        for key, child in node.value:
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else "?"
            if name in result:
                problems.append(f"{path}:{key.start_mark.line + 1}: {name} is given twice")
            result[name] = _build(child, (*keys, name), path, sources, problems, above)
            sources[*keys, name] = f"{path}:{key.start_mark.line + 1}"
        return result
    if isinstance(node, yaml.SequenceNode):
        return [
            _build(child, (*keys, str(index)), path, sources, problems, above)
            for index, child in enumerate(node.value)
        ]
    try:
        return cast(object, yaml.SafeLoader("").construct_object(node))
    except (yaml.YAMLError, ValueError, OverflowError):
        problems.append(f"{where}: {str(node.value)[:80]!r} is not a value that can be read")
        return None
