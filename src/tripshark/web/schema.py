"""How the shape of JSON is said: JSON Schema 2020-12 out of a few words, as OpenAPI 3.1 has it.

    INCIDENT = named("Incident", obj({"id": TEXT, "packets": WHOLE, "sealed": maybe(TEXT)}))
    PAGE = obj({"incidents": rows(INCIDENT), "next": maybe(TEXT)})

An object has exactly the keys that are named, all of them unless `optional` says otherwise: an answer with a key that
nobody described is an error of ours, and `tests/web/test_openapi_true.py` finds it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, TypeAlias

from tripshark.model.alert import Json

Schema: TypeAlias = Mapping[str, Json]

_NAME: Final = "$name"  # of a schema that stands under components; taken out when it is written

TEXT: Final[Schema] = {"type": "string"}
WHOLE: Final[Schema] = {"type": "integer"}
NUMBER: Final[Schema] = {"type": "number"}
FLAG: Final[Schema] = {"type": "boolean"}
BASE64: Final[Schema] = {"type": "string", "contentEncoding": "base64"}
TIME: Final[Schema] = {"type": "string", "format": "date-time"}
ANYTHING: Final[Schema] = {}  # whatever JSON there is: foreign documents


def obj(fields: Mapping[str, Schema], *, optional: Collection[str] = ()) -> Schema:
    """An object of these keys and no others."""
    required: list[Json] = [name for name in fields if name not in optional]
    return {
        "type": "object",
        "properties": {name: dict(each) for name, each in fields.items()},
        "required": required,
        "additionalProperties": False,
    }


def mapping(of: Schema = ANYTHING) -> Schema:
    """An object of any keys, whose values are all like this."""
    return {"type": "object", "additionalProperties": dict(of)}


def rows(of: Schema, *, most: int = 0) -> Schema:
    """A list of these, of at most `most` where there is a bound."""
    return {"type": "array", "items": dict(of), **({"maxItems": most} if most else {})}


def maybe(of: Schema) -> Schema:
    """This, or null."""
    return {"anyOf": [dict(of), {"type": "null"}]}


def either(*of: Schema) -> Schema:
    """One of these."""
    return {"anyOf": [dict(each) for each in of]}


def one_of(*words: str) -> Schema:
    """One of these words."""
    return {"type": "string", "enum": list(words)}


def whole(least: int, most: int, *, default: int | None = None) -> Schema:
    """A whole number within bounds."""
    given: dict[str, Json] = {} if default is None else {"default": default}
    return {"type": "integer", "minimum": least, "maximum": most, **given}


def text(*, most: int = 0, pattern: str = "", least: int = 0) -> Schema:
    """Text of bounded length, and like the pattern."""
    return {
        "type": "string",
        **({"minLength": least} if least else {}),
        **({"maxLength": most} if most else {}),
        **({"pattern": pattern} if pattern else {}),
    }


def named(name: str, of: Schema) -> Schema:
    """The same, written once under `components.schemas` and referred to wherever it is used."""
    return {_NAME: name, **of}


def written(of: Schema, components: dict[str, Json]) -> dict[str, Json]:
    """As it stands in the document; schemas with a name go to `components`."""
    name = of.get(_NAME)
    if not isinstance(name, str):
        return {key: _written(value, components) for key, value in of.items()}
    if name not in components:
        components[name] = None  # a schema may mean itself
        inner = {key: value for key, value in of.items() if key != _NAME}
        components[name] = written(inner, components)
    return {"$ref": f"#/components/schemas/{name}"}


def ref(name: str) -> Schema:
    """A schema that has this name elsewhere: how a tree's nodes mean the tree."""
    return {"$ref": f"#/components/schemas/{name}"}


def _written(value: Json, components: dict[str, Json]) -> Json:
    if isinstance(value, dict):
        return written(value, components)
    if isinstance(value, list):
        return [_written(each, components) for each in value]
    return value
