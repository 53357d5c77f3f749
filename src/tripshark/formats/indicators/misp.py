"""MISP events: attributes by type, also those within objects; `to_ids` decides, tags tell techniques."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from tripshark.formats.indicators.loaded import Loaded, Why, alone
from tripshark.formats.indicators.values import term_of
from tripshark.model.alert import Json
from tripshark.model.claim import Severity
from tripshark.model.indicator import Pattern, Sought, Term
from tripshark.model.observable import refanged

_TECHNIQUE = re.compile(r"\bT\d{4}(?:\.\d{3})?\b", re.ASCII)
_SEVERITY: Final = {"1": Severity.CRITICAL, "2": Severity.HIGH, "3": Severity.MEDIUM, "4": Severity.LOW}  # fmt: skip
_ADDRESSES: Final = frozenset(
    {"ip-src", "ip-dst"}
)  # either side: lists do not agree on which is meant
_PAIRS: Final = frozenset(
    {"ip-src|port", "ip-dst|port", "domain|ip", "hostname|port", "filename|sha256", "filename|md5"}
)
_TYPES: Final = {
    "domain": Sought.DOMAIN,
    "hostname": Sought.HOSTNAME,
    "url": Sought.URL,
    "uri": Sought.URL,
    "link": Sought.URL,
    "sha256": Sought.SHA256,
    "md5": Sought.MD5,
    "filename": Sought.FILE,
    "ja3-fingerprint-md5": Sought.JA3,
    "ja3-fingerprint": Sought.JA3,
    "ja4-fingerprint": Sought.JA4,
    "ja4": Sought.JA4,
    "community-id": Sought.COMMUNITY_ID,
    "user-agent": Sought.USER_AGENT,
}


def is_misp(document: Json) -> bool:
    """An event, a search's answer (`response`), or a list of events."""
    match document:
        case {"Event": dict()} | {"response": list() | dict()}:
            return True
        case [{"Event": dict()}, *_]:
            return True
        case {"Attribute": list()}:
            return True
        case _:
            return False


def read_misp(document: Json, name: str, into: Loaded) -> None:
    """Read every attribute that is meant for detection; the others are told as not evaluated."""
    for path, event in _events(document, ""):
        level = _SEVERITY.get(str(event.get("threat_level_id")), Severity.HIGH)
        info = event.get("info")
        told = info if isinstance(info, str) else ""
        whole = _techniques(event)
        for at, attribute in _attributes(event, path):
            _attribute(attribute, f"{name}: {at}", told, level, whole, into)


def _events(document: Json, path: str) -> Iterator[tuple[str, Mapping[str, Json]]]:
    match document:
        case list():
            for number, each in enumerate(document):
                yield from _events(each, f"{path}[{number}]")
        case {"Event": dict(event)}:
            yield f"{path}.Event".lstrip("."), event
        case {"response": list() | dict() as response}:
            yield from _events(response, f"{path}.response".lstrip("."))
        case dict() if "Attribute" in document:
            yield path, document
        case _:
            return


def _attributes(event: Mapping[str, Json], path: str) -> Iterator[tuple[str, Mapping[str, Json]]]:
    for group in ("Attribute", "Object"):
        members = event.get(group)
        for number, each in enumerate(members if isinstance(members, list) else []):
            at = f"{path}.{group}[{number}]".lstrip(".")
            if not isinstance(each, dict):
                yield at, {}
            elif group == "Object":
                yield from _attributes({"Attribute": each.get("Attribute")}, at)
            else:
                yield at, each


def _attribute(
    attribute: Mapping[str, Json],
    where: str,
    info: str,
    severity: Severity,
    techniques: tuple[str, ...],
    into: Loaded,
) -> None:
    kind, value = attribute.get("type"), attribute.get("value")
    if not isinstance(kind, str) or not isinstance(value, str):
        into.tell(Why.UNREADABLE, where, str(kind), "an attribute has a type and a value")
        return
    if attribute.get("to_ids") not in (True, 1, "1", "true"):
        into.tell(Why.NOT_EVALUATED, where, f"{kind} {value}", "it is not for detection (to_ids)")
        return
    if not _is_known(kind):
        into.tell(
            Why.NOT_EVALUATED, where, f"{kind} {value}", "packets here do not show that type"
        )
        return
    patterns = _patterns(kind, value)
    if not patterns:
        into.tell(Why.UNREADABLE, where, f"{kind} {value}", "the value is not of its type")
        return
    comment = attribute.get("comment")
    note = "; ".join(each for each in (info, comment) if isinstance(each, str) and each)
    into.add(
        patterns,
        name=value,
        source=where,
        note=note,
        severity=severity,
        techniques=(*techniques, *_techniques(attribute)),
    )


def _is_known(kind: str) -> bool:
    return kind in _TYPES or kind in _ADDRESSES or kind in _PAIRS


def _patterns(kind: str, value: str) -> tuple[Pattern, ...]:
    base, bar, other = kind.partition("|")
    if bar:
        return _pair(base, other, value)
    if base in ("link", "uri") and "://" not in refanged(value):
        return ()
    term = _address(value) if base in _ADDRESSES else term_of(_TYPES[base], value)
    return () if term is None else alone(term)


def _pair(base: str, other: str, value: str) -> tuple[Pattern, ...]:
    first, _, second = value.partition("|") if "|" in value else value.rpartition(":")
    if base == "filename":  # a name alone says little: the hash decides
        digest = term_of(_TYPES[other], second)
        return () if digest is None else alone(digest)
    if other == "port":
        at = _address(first) if base in _ADDRESSES else term_of(Sought.HOSTNAME, first)
        port = term_of(Sought.PORT, second)
        return (Pattern(((at, port),)),) if at and port else ()
    name, address = term_of(Sought.DOMAIN, first), _address(second)
    return alone(name, address) if name and address else ()


def _address(value: str) -> Term | None:
    return term_of(Sought.NETWORK if "/" in value else Sought.ADDRESS, value)


def _techniques(tagged: Mapping[str, Json]) -> tuple[str, ...]:
    tags = tagged.get("Tag")
    names = [each.get("name") for each in tags if isinstance(each, dict)] if isinstance(tags, list) else []  # fmt: skip
    told = [each for each in names if isinstance(each, str) and "attack-pattern" in each]
    return tuple(dict.fromkeys(found for each in told for found in _TECHNIQUE.findall(each)))
