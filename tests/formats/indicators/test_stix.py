"""STIX bundles: patterns mean what the standard says, and what cannot be answered is told, not skipped."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripshark.errors import BadInput
from tripshark.formats.indicators.loaded import Loaded, Why
from tripshark.formats.indicators.pattern import MAX_ALTERNATIVES, MAX_PATTERN, understand
from tripshark.formats.indicators.reading import read_list
from tripshark.formats.indicators.stix import read_stix
from tripshark.model.claim import Severity
from tripshark.model.indicator import Sought
from tripshark.model.observable import Role

SHA256 = "a" * 64
MD5 = "b" * 32


def _said(pattern: str) -> list[list[list[str]]]:
    """The alternatives: observations of terms, as `sought=value`."""
    return [
        [[f"{term.sought}={term.value}" for term in terms] for terms in each.observations]
        for each in understand(pattern).patterns
    ]


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("[ipv4-addr:value = '203.0.113.66']", [[["address=203.0.113.66"]]]),
        ("[ipv4-addr:value == '203.0.113.0/24']", [[["network=203.0.113.0/24"]]]),
        ("[ipv6-addr:value ISSUBSET '2001:db8::/32']", [[["network=2001:db8::/32"]]]),
        ("[ipv6-addr:value ISSUBSET '2001:db8::1']", [[["address=2001:db8::1"]]]),
        ("[domain-name:value = 'Evil.Example']", [[["hostname=evil.example"]]]),
        ("[domain-name:resolves_to_refs[*].value = '203.0.113.66' AND domain-name:value='a.b']",
         [[["address=203.0.113.66", "hostname=a.b"]]]),
        ("[url:value = 'https://evil.example/a?b']", [[["url=evil.example/a"]]]),
        (f"[file:hashes.'SHA-256' = '{SHA256}' OR file:hashes.MD5 = '{MD5}']",
         [[[f"sha256={SHA256}"]], [[f"md5={MD5}"]]]),
        (f"[artifact:hashes.'MD5' = '{MD5}']", [[[f"md5={MD5}"]]]),
        ("[file:name = 'it\\'s.exe']", [[["file=it's.exe"]]]),
        (("[network-traffic:dst_ref.type = 'ipv4-addr' AND network-traffic:dst_ref.value = '203.0.113.66' "
         "AND network-traffic:dst_port = 4444 AND network-traffic:protocols[*] = 'tcp' AND network-traffic:protocols[0] = 'ipv4']"),
         [[["address=203.0.113.66", "port=4444", "proto=tcp"]]]),
        ("[network-traffic:src_ref.value = 'evil.example' AND network-traffic:src_port = 1]",
         [[["hostname=evil.example", "port=1"]]]),
        (f"[network-traffic:extensions.'tls-ext'.ja3_hash = '{MD5}']", [[[f"ja3={MD5}"]]]),
        ("[network-traffic:x_ja4 = 't13d1516h2_8daaf6152771_02713d6af862']",
         [[["ja4=t13d1516h2_8daaf6152771_02713d6af862"]]]),
        ("[network-traffic:x_community_id = '1:hO+sN4H+MG5MY/8hIrXPqc4ZQz4=']",
         [[["community_id=1:hO+sN4H+MG5MY/8hIrXPqc4ZQz4="]]]),
        (("[network-traffic:extensions.'http-request-ext'.request_header.'User-Agent' = 'evil/1' AND "
         "network-traffic:extensions.'http-request-ext'.request_header.Host = 'a.b']"),
         [[["user_agent=evil/1", "hostname=a.b"]]]),
        ("[domain-name:value IN ('a.b', 'c.d')] AND [ipv4-addr:value = '203.0.113.66']",
         [[["hostname=a.b"], ["address=203.0.113.66"]], [["hostname=c.d"], ["address=203.0.113.66"]]]),
        ("([domain-name:value = 'a.b'] OR [domain-name:value = 'c.d']) FOLLOWEDBY [url:value = 'http://a.b']",
         [[["hostname=a.b"], ["url=a.b/"]], [["hostname=c.d"], ["url=a.b/"]]]),
        ("[(domain-name:value = 'a.b' OR domain-name:value = 'c.d') AND domain-name:value = 'a.b']",
         [[["hostname=a.b"]], [["hostname=c.d", "hostname=a.b"]]]),
    ],
)  # fmt: skip
def test_a_pattern_means_what_the_standard_says(pattern: str, said: list[list[list[str]]]) -> None:
    """Equality, IN and ISSUBSET on what packets show; AND, OR, FOLLOWEDBY and brackets."""
    assert _said(pattern) == said


def test_sides_and_order_are_kept() -> None:
    """`src_ref` is who began, `dst_ref` who was called, and FOLLOWEDBY is an order."""
    (pattern,) = understand(
        "[network-traffic:src_ref.value = '203.0.113.66'] FOLLOWEDBY [network-traffic:dst_ref.value = '203.0.113.67']"
    ).patterns
    assert [each[0].role for each in pattern.observations] == [Role.CLIENT, Role.SERVER]
    assert pattern.ordered
    assert not understand("[file:name='a'] AND [file:name='b']").patterns[0].ordered


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("[domain-name:value LIKE '%evil%']", "domain-name:value LIKE"),
        ("[domain-name:value != 'a.b']", "domain-name:value !="),
        ("[domain-name:value NOT = 'a.b']", "domain-name:value NOT ="),
        ("[domain-name:value MATCHES '^a']", "MATCHES"),
        ("[EXISTS url:value]", "EXISTS url:value"),
        ("[file:size > 10]", "file:size >"),
        ("[process:name = 'sh']", "process:name = sh"),
        ("[x509-certificate:issuer = 'CN=x']", "x509-certificate:issuer"),
        ("[file:hashes.'SHA-1' = 'x']", "file:hashes.'SHA-1'"),
        ("[network-traffic:protocols[*] = 'http']", "network-traffic:protocols"),
        ("[network-traffic:x_ja3s_hash = 'x']", "x_ja3s_hash"),
        ("[url:value ISSUBSET '10.0.0.0/8']", "url:value ISSUBSET"),
        ("[ipv4-addr:value = 'evil']", "is no address"),
        ("[file:hashes.MD5 = 'xyz']", "is no md5"),
        ("[file:name = h'00ff']", "is no file"),
        ("[domain-name:value = 'a.b'] WITHIN 5 SECONDS", "WITHIN"),
        ("[domain-name:value = 'a.b'] REPEATS 5 TIMES", "REPEATS"),
        ("[domain-name:value = 'a.b'] START t'2026-01-01T00:00:00Z' STOP t'2027-01-01T00:00:00Z'", "START"),
        ("[file:name='a'] AND [file:name='b'] FOLLOWEDBY [file:name='c']", "AND and FOLLOWEDBY"),
        ("[file:is_x = true]", "file:is_x"),
    ],
)  # fmt: skip
def test_what_packets_cannot_answer_is_named(pattern: str, why: str) -> None:
    """The pattern is understood, is not looked for, and its reason names the part."""
    understood = understand(pattern)
    assert understood.patterns == ()
    assert why in understood.unanswerable[0]


def test_other_alternatives_are_used() -> None:
    """One branch that cannot be answered does not take the others along."""
    understood = understand("[file:name = 'a' OR file:size = 3]")
    assert len(understood.patterns) == 1
    assert understood.unanswerable == ("file:size = 3",)


@pytest.mark.parametrize(
    "pattern",
    ["", "x", "[", "[]", "[a:b]", "[a:b =]", "[a:b = ']", "[a:b = 'c'", "[a:b = 'c'] AND", "[a:b = 'c'] x",
     "[a:b 'c' 'd']", "[a:b FOO 'd']", "[a:b IN 'c']", "[a:b = (", "[a:b IN ('c']", "[= 'c']", "[a:b = c:d]",
     "[a:b = 'c'] WITHIN x SECONDS", "[a:b = 'c'] WITHIN 5 TIMES", "[a:b = 'c'] REPEATS 5", "(" * 60 + "[a:b='c']",
     "[" + "(" * 60 + "a:b='c'", "[a:b = 'c'] START 'x' NOT", "\u00e9", "[a:b = foo]", "[a:b ( 'c']",
     " OR ".join(["[file:name = 'a']"] * (MAX_ALTERNATIVES + 1)),
     " AND ".join(["([file:name='a'] OR [file:name='b'])"] * 11),
     "[" + " AND ".join(["(file:name='a' OR file:name='b')"] * 11) + "]",
     "[a:b = '" + "x" * MAX_PATTERN + "']"],
)  # fmt: skip
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    """Also what would cost too much: depth, length and alternatives are bounded."""
    with pytest.raises(BadInput):
        understand(pattern)


@given(st.text(alphabet="[]()'=:ab.ANDORNT *\\-<>!0", max_size=80))
def test_no_text_breaks_the_parser(text: str) -> None:
    """Anything is a pattern or refused."""
    with contextlib.suppress(BadInput):
        understand(text)


def _bundle(*objects: object) -> bytes:
    return json.dumps({"type": "bundle", "id": "bundle--1", "objects": list(objects)}).encode()


def _indicator(
    pattern: object = "[domain-name:value = 'a.b']", **more: object
) -> dict[str, object]:
    return {
        "type": "indicator", "id": "indicator--1", "pattern": pattern, "pattern_type": "stix", **more,
    }  # fmt: skip


def _load(content: bytes) -> Loaded:
    into = Loaded()
    read_list(content, "b.json", into)
    return into


def test_a_bundle_gives_indicators_with_their_techniques() -> None:
    """Name, place, confidence and what `indicates` relationships lead to."""
    loaded = _load(
        _bundle(
            _indicator(name="C2", description="of Evil", confidence=50),
            {"type": "attack-pattern", "id": "attack-pattern--1", "external_references": [
                {"source_name": "mitre-attack", "external_id": "T1071.004"}, {"external_id": "CAPEC-1"}, "x", {},
            ]},
            {"type": "relationship", "relationship_type": "indicates", "source_ref": "indicator--1",
             "target_ref": "attack-pattern--1"},
            {"type": "relationship", "relationship_type": "uses", "source_ref": "x", "target_ref": "y"},
            {"type": "malware", "id": "malware--1"},
        )
    )  # fmt: skip
    (found,) = loaded.indicators
    assert found.name == "[domain-name:value = 'a.b']"
    assert found.source == "b.json: objects[0]"
    assert found.note == "C2; of Evil"
    assert found.severity is Severity.MEDIUM
    assert found.techniques == ("T1071.004",)
    assert loaded.told == []


def test_an_object_alone_and_taxiis_envelope_are_read_too() -> None:
    """A single indicator, or `objects` without a bundle around them."""
    assert len(_load(json.dumps(_indicator(confidence=10)).encode()).indicators) == 1
    envelope = {"more": False, "objects": [_indicator(confidence=90)]}
    (found,) = _load(json.dumps(envelope).encode()).indicators
    assert found.severity is Severity.HIGH


def test_every_indicator_that_is_not_looked_for_is_told() -> None:
    """Revoked, in another language, broken, partly or not answerable: by place and reason."""
    loaded = _load(
        _bundle(
            "nothing",
            _indicator(7),
            _indicator(revoked=True, name="old"),
            _indicator("rule x {}", pattern_type="yara"),
            _indicator("[domain-name:value ="),
            _indicator("[file:name = 'a' OR file:size = 3]"),
            _indicator("[file:size = 3]"),
            _indicator("[network-traffic:dst_port = 443]"),
            _indicator("[ipv4-addr:value = '0.0.0.0/0' AND ipv4-addr:value = '203.0.113.66']"),
        )
    )
    assert [(each.why, each.where) for each in loaded.told] == [
        (Why.UNREADABLE, "b.json: objects[0]"),
        (Why.UNREADABLE, "b.json: objects[1].pattern"),
        (Why.NOT_EVALUATED, "b.json: objects[2]"),
        (Why.NOT_EVALUATED, "b.json: objects[3].pattern_type"),
        (Why.UNREADABLE, "b.json: objects[4].pattern"),
        (Why.NOT_EVALUATED, "b.json: objects[5].pattern"),
        (Why.NOT_EVALUATED, "b.json: objects[6].pattern"),
        (Why.REFUSED, "b.json: objects[7]"),
        (Why.REMARK, "b.json: objects[8]"),
    ]
    assert "this part of it needs file:size = 3" in loaded.told[5].message
    assert [each.source for each in loaded.indicators] == [
        "b.json: objects[5]",
        "b.json: objects[8]",
    ]
    assert loaded.indicators[1].patterns[0].observations[0][0].sought is Sought.NETWORK


def test_a_bundle_of_something_else_is_an_error() -> None:
    """`objects` that is no list, and a document that is no object."""
    with pytest.raises(BadInput, match="expected a list"):
        _load(b'{"type": "bundle", "objects": 3}')
    with pytest.raises(BadInput, match="expected a bundle"):
        read_stix([], "x", Loaded())
