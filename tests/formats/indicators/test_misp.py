"""MISP events: attributes meant for detection are looked for, the others are told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tripshark.formats.indicators.loaded import Loaded, Why
from tripshark.formats.indicators.misp import read_misp
from tripshark.formats.indicators.reading import read_list
from tripshark.model.claim import Severity

SHA256, MD5 = "a" * 64, "b" * 32


def _load(document: object) -> Loaded:
    into = Loaded()
    read_list(json.dumps(document).encode(), "e.json", into)
    return into


def _attribute(kind: object, value: object, **more: object) -> dict[str, object]:
    return {"type": kind, "value": value, "to_ids": True, **more}


def _event(*attributes: object, **more: object) -> dict[str, Any]:
    return {
        "Event": {"info": "Evil", "threat_level_id": "1", "Attribute": list(attributes), **more}
    }


@pytest.mark.parametrize(
    ("kind", "value", "terms"),
    [
        ("ip-src", "203.0.113.66", [["address=203.0.113.66"]]),
        ("ip-dst", "203.0.113.0/24", [["network=203.0.113.0/24"]]),
        ("ip-dst|port", "203.0.113.66|4444", [["address=203.0.113.66", "port=4444"]]),
        ("ip-src|port", "203.0.113.66:4444", [["address=203.0.113.66", "port=4444"]]),
        ("hostname|port", "evil.example|4444", [["hostname=evil.example", "port=4444"]]),
        ("domain", "evil[.]example", [["domain=evil.example"]]),
        ("hostname", "www.evil.example", [["hostname=www.evil.example"]]),
        ("domain|ip", "evil.example|203.0.113.66", [["domain=evil.example"], ["address=203.0.113.66"]]),
        ("url", "hxxp://evil.example/a", [["url=evil.example/a"]]),
        ("link", "http://evil.example", [["url=evil.example/"]]),
        ("sha256", SHA256, [[f"sha256={SHA256}"]]),
        ("md5", MD5, [[f"md5={MD5}"]]),
        ("filename", "a.exe", [["file=a.exe"]]),
        ("filename|sha256", f"a.exe|{SHA256}", [[f"sha256={SHA256}"]]),
        ("filename|md5", f"a.exe|{MD5}", [[f"md5={MD5}"]]),
        ("ja3-fingerprint-md5", MD5, [[f"ja3={MD5}"]]),
        ("ja4-fingerprint", "t13d1516h2_8daaf6152771_02713d6af862", [["ja4=t13d1516h2_8daaf6152771_02713d6af862"]]),
        ("community-id", "1:hO+sN4H+MG5MY/8hIrXPqc4ZQz4=", [["community_id=1:hO+sN4H+MG5MY/8hIrXPqc4ZQz4="]]),
        ("user-agent", "evil/1", [["user_agent=evil/1"]]),
    ],
)  # fmt: skip
def test_an_attribute_means_its_type(kind: str, value: str, terms: list[list[str]]) -> None:
    """Every type that packets can show."""
    (found,) = _load(_event(_attribute(kind, value))).indicators
    assert [
        [f"{term.sought}={term.value}" for term in terms]
        for pattern in found.patterns
        for terms in pattern.observations
    ] == terms
    assert found.severity is Severity.CRITICAL


@pytest.mark.parametrize(
    ("attribute", "why", "message"),
    [
        ({"type": "domain", "value": "a.b", "to_ids": False}, Why.NOT_EVALUATED, "to_ids"),
        ({"type": "domain", "value": "a.b"}, Why.NOT_EVALUATED, "to_ids"),
        (_attribute("btc", "1x"), Why.NOT_EVALUATED, "do not show that type"),
        (_attribute("filename|sha1", "x|y"), Why.NOT_EVALUATED, "do not show that type"),
        (_attribute(7, "x"), Why.UNREADABLE, "type and a value"),
        (_attribute("domain", None), Why.UNREADABLE, "type and a value"),
        ("nothing", Why.UNREADABLE, "type and a value"),
        (_attribute("ip-src", "x"), Why.UNREADABLE, "not of its type"),
        (_attribute("ip-dst|port", "203.0.113.66|x"), Why.UNREADABLE, "not of its type"),
        (_attribute("domain|ip", "evil.example"), Why.UNREADABLE, "not of its type"),
        (_attribute("uri", "/a/b"), Why.UNREADABLE, "not of its type"),
        (_attribute("filename|md5", "x"), Why.UNREADABLE, "not of its type"),
        (_attribute("ip-dst", "127.0.0.1"), Why.REFUSED, "no host"),
    ],
)  # fmt: skip
def test_an_attribute_that_is_not_looked_for_is_told(
    attribute: object, why: Why, message: str
) -> None:
    """With the path at which it stands."""
    loaded = _load(_event(attribute))
    (told,) = loaded.told
    assert (told.why, told.where) == (why, "e.json: Event.Attribute[0]")
    assert message in told.message
    assert loaded.indicators == []


def test_objects_lists_of_events_and_answers_are_read() -> None:
    """However an event is wrapped, its attributes are found, and tags tell techniques."""
    tagged = {
        "Tag": [
            {"name": 'misp-galaxy:mitre-attack-pattern="DNS - T1071.004"'},
            {"name": "tlp:red T1000"},
            "x",
        ]
    }
    whole = _event(
        _attribute(
            "domain", "a.example", comment="first", Tag=[{"name": 'x:attack-pattern="T1568"'}]
        ),
        Object=[{"Attribute": [_attribute("domain", "b.example", to_ids="1")]}, "x"],
        **tagged,
    )
    for document in (whole, [whole, {"Event": {}}, 3], {"response": [whole]}, {"response": whole}):
        found = _load(document).indicators
        assert [each.name for each in found] == ["a.example", "b.example"]
        assert found[0].techniques == ("T1071.004", "T1568")
        assert found[0].note == "Evil; first"
    assert _load([whole]).indicators[1].source == "e.json: [0].Event.Object[0].Attribute[0]"
    alone = _load({"Attribute": [_attribute("domain", "a.example")], "info": 3})
    assert alone.indicators[0].source == "e.json: Attribute[0]"
    assert alone.indicators[0].severity is Severity.HIGH
    into = Loaded()
    read_misp({"Attribute": 3}, "x", into)
    assert into.indicators == []


def test_what_is_named_again_is_one_indicator() -> None:
    """With the highest severity and every technique; another list's entry stays another's."""
    into = Loaded()
    for name in ("a.json", "b.json"):
        for level in ("3", "1", "2"):
            event = _event(_attribute("ip-dst", "203.0.113.66"), threat_level_id=level)
            read_list(json.dumps(event).encode(), name, into)
    assert [each.severity for each in into.indicators] == [Severity.CRITICAL] * 2
    assert [each.source.partition(":")[0] for each in into.indicators] == ["a.json", "b.json"]
