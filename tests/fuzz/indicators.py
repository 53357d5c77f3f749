"""Fuzz target: lists of indicators, and what they are compared with."""

from __future__ import annotations

import contextlib

from tripshark.errors import BadInput
from tripshark.formats.indicators.loaded import Loaded
from tripshark.formats.indicators.pattern import understand
from tripshark.formats.indicators.reading import read_list
from tripshark.model.indicator import Indicators
from tripshark.model.observable import Kind, Observable, Place, Sighting
from tripshark.model.search import clauses_of_term

_ROW = Sighting(
    place=Place.DNS,
    observables=(Observable(Kind.DOMAIN, "www.evil.example"), Observable(Kind.ADDRESS, "203.0.113.66")),
    frame=1,
    filter="dns",
    first_ns=1,
)  # fmt: skip


def target(data: bytes) -> None:
    """A list is read or refused; whatever it holds can be compared, looked up and told."""
    into = Loaded()
    with contextlib.suppress(BadInput):
        read_list(data, "fuzz", into)
    with contextlib.suppress(BadInput):
        understand(data.decode("utf-8", "replace"))
    indicators = Indicators(into.indicators)
    indicators.match([_ROW])
    for term in indicators.keys:
        assert list(clauses_of_term(term))
    for told in into.told:
        assert str(told).isprintable()


def seeds() -> list[bytes]:
    return [
        b"evil[.]example # C2\n203.0.113.0/24,x\nhxxp://evil.example/a\n" + b"a" * 64 + b"\n203.0.113.66:4444\n",
        (b"[network-traffic:dst_ref.value = '203.0.113.66' AND network-traffic:dst_port = 443] FOLLOWEDBY "
        b"[domain-name:value IN ('a.b', 'c.d') OR file:hashes.MD5 = 'x'] WITHIN 5 SECONDS"),
        (b'{"type": "bundle", "objects": [{"type": "indicator", "id": "indicator--1", '
        b'"pattern": "[domain-name:value = \'evil.example\']"}]}'),
        b'{"Event": {"info": "x", "Attribute": [{"type": "ip-dst|port", "value": "203.0.113.66|4444", "to_ids": true}]}}',
    ]  # fmt: skip
