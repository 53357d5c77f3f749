"""What a process is told when it is started: a flat dataclass, as one JSON object on its command line."""

from __future__ import annotations

import json
from dataclasses import MISSING, Field, asdict, fields
from typing import Any, ClassVar, Protocol, TypeVar

from tripshark.errors import BadInput


class Told(Protocol):
    """Any dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


_T = TypeVar("_T", bound=Told)


def from_json(kind: type[_T], text: str, *, where: str) -> _T:
    """What `to_json` wrote; names left out have their default. Raises `BadInput`.

    Fields are int, float, str, bool, tuple[int, ...] or tuple[str, ...], annotated as text.
    """
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise BadInput(f"no JSON: {problem}", where=where) from problem
    if not isinstance(given, dict):
        raise BadInput("not a JSON object", where=where)
    known = {each.name: each for each in fields(kind)}
    for name in given:
        if name not in known:
            raise BadInput(f"unknown name {name!r}", where=where)
    for name, each in known.items():
        if name not in given and _is_required(each):
            raise BadInput(f"{name} is missing", where=where)
    return kind(
        **{name: _value(known[name].type, name, told, where) for name, told in given.items()}
    )


def to_json(config: Told) -> str:
    return json.dumps(asdict(config))


def socket_problems(path: str) -> list[str]:
    """Why a unix socket cannot be made there, in words (sockaddr_un of unix(7))."""
    if 0 < len(path.encode()) < 108 and "\0" not in path:
        return []
    return ["socket must be a path of at most 107 bytes"]


def _is_required(field: Field[object]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _value(kind: object, name: str, told: object, where: str) -> object:
    match kind, told:
        case "int", int() if not isinstance(told, bool):
            return told
        case "float", (int() | float()) if not isinstance(told, bool):
            return float(told)
        case ("str", str()) | ("bool", bool()):
            return told
        case "tuple[int, ...]", list() if all(type(each) is int for each in told):
            return tuple(told)
        case "tuple[str, ...]", list() if all(type(each) is str for each in told):
            return tuple(told)
        case _:
            raise BadInput(f"{name} must be {kind}", where=where)
