"""Reads a list of indicators, whatever its format: JSON is STIX or MISP, everything else is a plain list."""

from __future__ import annotations

import json

from tripshark.errors import BadInput, TooLarge
from tripshark.formats.indicators.loaded import Loaded
from tripshark.formats.indicators.misp import is_misp, read_misp
from tripshark.formats.indicators.plain import read_plain
from tripshark.formats.indicators.stix import is_stix, read_stix
from tripshark.model.alert import Json

MAX_LIST = 64 << 20  # bytes of one list


def read_list(content: bytes, name: str, into: Loaded) -> None:
    """One list, by the name that its places are told with. Raises `BadInput`, with the line where JSON ends to be JSON."""
    if len(content) > MAX_LIST:
        raise TooLarge(f"a list of more than {MAX_LIST >> 20} MiB", where=name)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise BadInput(
            f"not UTF-8 text: byte {problem.start}",
            where=name,
            hint="a list is text, STIX or MISP",
        ) from problem
    if text.lstrip()[:1] not in ("{", "["):
        read_plain(text, name, into)
        return
    document = _json(text, name)
    if is_stix(document):
        read_stix(document, name, into)
    elif is_misp(document):
        read_misp(document, name, into)
    else:
        raise BadInput(
            "JSON that is neither a STIX 2.1 bundle nor a MISP event",
            where=name,
            hint='a bundle has "type": "bundle", an event has "Event"',
        )


def _json(text: str, name: str) -> Json:
    try:
        document: Json = json.loads(text)
    except json.JSONDecodeError as problem:
        raise BadInput(f"not JSON: {problem.msg}", where=f"{name}:{problem.lineno}") from problem
    except (
        RecursionError,
        ValueError,
    ) as problem:  # nested without end; a number of a million digits
        raise BadInput(
            "not JSON that can be read: nested too deep, or a number too long", where=name
        ) from problem
    return document
