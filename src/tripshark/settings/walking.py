"""Which settings the tree holds, under which names, in which units."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, cast, get_args, get_origin

from tripshark.settings.group import Group
from tripshark.settings.words import Unit

PREFIX = "TRIPSHARK_"


@dataclass(frozen=True, slots=True)
class Setting:
    keys: tuple[str, ...]
    meaning: str
    unit: str
    default: object
    is_list: bool
    is_map: bool
    inner: type[Group] | None


def bare(annotation: object) -> tuple[object, tuple[object, ...]]:
    """The type without `| None` and `Annotated`, and what `Annotated` said."""
    said: tuple[object, ...] = ()
    while True:
        if get_origin(annotation) is Annotated:
            annotation, *more = get_args(annotation)
            said += tuple(more)
        elif get_origin(annotation) in (Union, UnionType):
            annotation = next(each for each in get_args(annotation) if each is not NoneType)
        else:
            return annotation, said


def walk(
    model: type[Group], above: tuple[str, ...] = (), *, groups: bool = False
) -> Iterator[Setting]:
    for name, field in model.model_fields.items():
        kind, said = bare(field.annotation)
        keys = (*above, name)
        unit = next((each.name for each in (*said, *field.metadata) if isinstance(each, Unit)), "")
        is_list, is_map = get_origin(kind) is tuple, get_origin(kind) is dict
        inner = get_args(kind)[0] if is_list else kind
        inner = inner if isinstance(inner, type) and issubclass(inner, Group) else None
        if inner is None or is_list or groups:
            yield Setting(
                keys=keys,
                meaning=field.description or "",
                unit=unit or _plain_unit(kind, is_list=is_list, is_map=is_map),
                default=field.get_default(call_default_factory=True)
                if not field.is_required()
                else "required",
                is_list=is_list,
                is_map=is_map,
                inner=inner,
            )
        if inner is not None and (not is_list or groups):
            below = (*above, name + "[]") if is_list else keys
            yield from walk(inner, below, groups=groups)


def _plain_unit(kind: object, *, is_list: bool, is_map: bool) -> str:
    if is_list:
        return "list"
    if is_map:
        return "map"
    return {bool: "yes or no", Path: "path", int: "number", float: "number"}.get(
        cast("type[Any]", kind), "text"
    )


def variable(keys: Sequence[str]) -> str:
    """The environment variable of a setting: `TRIPSHARK_RECORDER__PER_TARGET`."""
    return PREFIX + "__".join(keys).upper()
