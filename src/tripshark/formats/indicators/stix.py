"""STIX 2.1 bundles: their indicators, with the techniques that relationships tie them to."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping

from tripshark.errors import BadInput
from tripshark.formats.indicators.loaded import Loaded, Why
from tripshark.formats.indicators.pattern import understand
from tripshark.model.alert import Json
from tripshark.model.claim import Severity

_TECHNIQUE = re.compile(r"T\d{4}(?:\.\d{3})?", re.ASCII)


def is_stix(document: Json) -> bool:
    """A bundle, or one object of it."""
    match document:
        case {"type": "bundle"} | {"type": "indicator", "pattern": str()}:
            return True
        case {"objects": [{"type": str(), "id": str()}, *_]}:  # TAXII's envelope
            return True
        case _:
            return False


def read_stix(document: Json, name: str, into: Loaded) -> None:
    """Read every indicator; other objects are no indicators."""
    if not isinstance(document, dict):
        raise BadInput("expected a bundle", where=name)
    alone: list[Json] = [document]
    objects = alone if document.get("type") == "indicator" else document.get("objects", [])
    if not isinstance(objects, list):
        raise BadInput("expected a list", where=f"{name}: objects")
    techniques = _techniques(objects)
    for number, each in enumerate(objects):
        if not isinstance(each, dict):
            into.tell(
                Why.UNREADABLE, f"{name}: objects[{number}]", str(each), "expected an object"
            )
        elif each.get("type") == "indicator":
            _indicator(each, f"{name}: objects[{number}]", techniques, into)


def _indicator(
    told: Mapping[str, Json], where: str, techniques: Mapping[str, list[str]], into: Loaded
) -> None:
    pattern, language = told.get("pattern"), told.get("pattern_type", "stix")
    title = told.get("name") if isinstance(told.get("name"), str) else ""
    if not isinstance(pattern, str):
        into.tell(Why.UNREADABLE, f"{where}.pattern", str(title), "expected a text")
        return
    what = str(title or pattern)
    if told.get("revoked") is True:
        into.tell(Why.NOT_EVALUATED, where, what, "its author has revoked it")
        return
    if language != "stix":
        into.tell(
            Why.NOT_EVALUATED, f"{where}.pattern_type", what, f"{str(language)[:40]} patterns"
        )
        return
    try:
        understood = understand(pattern)
    except BadInput as problem:
        into.tell(Why.UNREADABLE, f"{where}.pattern", what, problem.message)
        return
    for each in understood.unanswerable:
        some = "this part of it" if understood.patterns else "it"
        into.tell(Why.NOT_EVALUATED, f"{where}.pattern", what, f"{some} needs {each}")
    description = told.get("description")
    into.add(
        understood.patterns,
        name=pattern,
        source=where,
        note="; ".join(each for each in (title, description) if isinstance(each, str) and each),
        severity=_severity(told.get("confidence")),
        techniques=techniques.get(str(told.get("id")), []),
    )


def _severity(confidence: Json) -> Severity:
    """How sure the author is; who says nothing is believed."""
    if type(confidence) is not int or confidence >= 60:
        return Severity.HIGH
    return Severity.MEDIUM if confidence >= 30 else Severity.LOW


def _techniques(objects: list[Json]) -> Mapping[str, list[str]]:
    """ATT&CK's numbers by the indicators that a relationship says indicate them."""
    numbers: dict[str, list[str]] = {}
    for each in objects:
        match each:
            case {
                "type": "attack-pattern",
                "id": str(id),
                "external_references": list(references),
            }:
                numbers[id] = [
                    found
                    for reference in references
                    if isinstance(reference, dict)
                    and isinstance(found := reference.get("external_id"), str)
                    and _TECHNIQUE.fullmatch(found)
                ]
            case _:
                continue
    tied: dict[str, list[str]] = defaultdict(list)
    for each in objects:
        match each:
            case {"type": "relationship", "relationship_type": "indicates",
                  "source_ref": str(source), "target_ref": str(target)}:  # fmt: skip
                tied[source] += numbers.get(target, [])
            case _:
                continue
    return tied
