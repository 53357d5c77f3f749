"""What can be looked for is spelled one way, wherever in the findings it stands."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripshark.model.finding import Conversation, Findings
from tripshark.model.observable import (
    MAX_SIGHTINGS,
    Kind,
    Place,
    Role,
    Sighting,
    address_of,
    domain_of,
    refanged,
    sightings,
    text_of,
    url_of,
)

FLOW = Conversation(
    proto="tcp", a="10.0.0.7", a_port=40000, b="203.0.113.66", b_port=443, packets_ab=3, packets_ba=2, bytes_ab=1,
    bytes_ba=1, first_ns=5, last_ns=9, frame=4, opened_by="10.0.0.7", filter="tcp.stream == 0",
    community_id="1:hO+sN4H+MG5MY/8hIrXPqc4ZQz4=",
)  # fmt: skip


def _findings(**more: object) -> Findings:
    return Findings(
        manifest_sha256="", tool="", sandbox=(), packets=1, first_ns=1, last_ns=2, **more  # type: ignore[arg-type]
    )  # fmt: skip


def _said(row: Sighting) -> list[tuple[str, ...]]:
    return [
        (each.kind.value, each.value, *([each.role.value] if each.role else []))
        for each in row.observables
    ]


def _one(**more: object) -> Sighting:
    (row,) = sightings(_findings(**more))
    return row


def test_a_conversation_knows_who_called_whom() -> None:
    """Roles follow who sent the first packet; where nobody knows, either end is meant."""
    row = _one(conversations=(FLOW,))
    assert (row.place, row.frame, row.filter, row.first_ns, row.packets) == (
        Place.FLOW, 4, "tcp.stream == 0", 5, 5,
    )  # fmt: skip
    assert _said(row) == [
        ("community_id", "1:hO+sN4H+MG5MY/8hIrXPqc4ZQz4="),
        ("address", "10.0.0.7", "client"), ("address", "203.0.113.66", "server"),
        ("port", "40000", "client"), ("port", "443", "server"), ("proto", "tcp"),
    ]  # fmt: skip
    from dataclasses import replace

    other = _one(
        conversations=(replace(FLOW, opened_by="203.0.113.66", a_port=0, community_id=""),)
    )
    assert _said(other)[:3] == [
        ("address", "10.0.0.7", "server"), ("address", "203.0.113.66", "client"), ("port", "443", "client"),
    ]  # fmt: skip
    nobody = _one(conversations=(replace(FLOW, opened_by=""),))
    assert {each.role for each in nobody.observables} == {None}


def test_every_table_says_what_it_shows() -> None:
    """Names, addresses, fingerprints, hashes; each row with its own frame and filter."""
    rows = sightings(
        _findings(
            files=({"name": "a.exe", "sha256": "A" * 64, "md5": "b" * 32, "client": "10.0.0.7",
                    "server": "203.0.113.66", "frame": 9, "filter": "http", "first_ns": 3},),
            http=({"host": "Evil.Example:8080", "method": "GET", "uri": "/a", "user_agent": "x\x1b", "port": 80,
                   "frame": 8, "filter": "http"},
                  {"host": "", "uri": "/b", "server": "2001:db8::1", "port": 8080, "frame": 7, "filter": "http"},
                  {"host": "a:b:c", "uri": "", "port": 80, "frame": 7, "filter": "http"},
                  {"host": "x.example:bad", "uri": "/", "port": 80, "frame": 7, "filter": "http"}),
            tls=({"name": "www.evil.example", "ja3": "c" * 32, "ja4": "T13D", "server": "203.0.113.66", "port": 443,
                  "frame": 6, "filter": "tls"},),
            dns=({"name": "evil.example.", "answers": ["203.0.113.66", "cdn.example", 3], "asked_ns": 4, "frame": 5,
                  "filter": "dns"}, {"name": "x.example", "answers": None, "frame": 5, "filter": "dns"}),
            ssh=({"banner": "SSH-2.0-x", "address": "10.0.0.9", "frame": 2, "filter": "ssh"},),
            endpoints=({"address": "10.0.0.7", "name": "payments/checkout", "packets_out": 2, "packets_in": 1,
                        "frame": 1, "filter": "ip.addr == 10.0.0.7"},
                       {"address": "10.0.0.8", "name": "db.example", "frame": -1, "filter": 3}),
        ),
        target="payments/checkout",
    )  # fmt: skip
    assert [(row.place.value, _said(row)) for row in rows] == [
        ("target", [("pod", "payments/checkout")]),
        ("file", [("sha256", "a" * 64), ("md5", "b" * 32), ("file", "a.exe"), ("address", "10.0.0.7", "client"),
                  ("address", "203.0.113.66", "server")]),
        ("http", [("domain", "evil.example"), ("url", "evil.example:8080/a"), ("user_agent", "x\\x1b"),
                  ("port", "80", "server")]),
        ("http", [("url", "[2001:db8::1]:8080/b"), ("address", "2001:db8::1", "server"), ("port", "8080", "server")]),
        ("http", [("domain", "a:b:c"), ("url", "a:b:c:80/"), ("port", "80", "server")]),
        ("http", [("domain", "x.example"), ("url", "x.example/"), ("port", "80", "server")]),
        ("tls", [("domain", "www.evil.example"), ("ja3", "c" * 32), ("ja4", "t13d"),
                 ("address", "203.0.113.66", "server"), ("port", "443", "server")]),
        ("dns", [("domain", "evil.example"), ("address", "203.0.113.66"), ("domain", "cdn.example")]),
        ("dns", [("domain", "x.example")]),
        ("ssh", [("address", "10.0.0.9")]),
        ("endpoint", [("address", "10.0.0.7"), ("pod", "payments/checkout")]),
        ("endpoint", [("address", "10.0.0.8"), ("domain", "db.example")]),
    ]  # fmt: skip
    assert rows[7].first_ns == 4
    assert (rows[-1].frame, rows[-1].filter, rows[-2].packets) == (0, "", 3)


def test_rows_with_nothing_to_look_for_are_left_out_and_all_are_bounded() -> None:
    """A row without a value is none; a flood of rows ends at the bound."""
    assert sightings(_findings(tls=({"frame": 1, "filter": "tls"},))) == ()
    many = tuple({"name": f"n{number}.example"} for number in range(MAX_SIGHTINGS + 1))
    assert len(sightings(_findings(dns=many))) == MAX_SIGHTINGS


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("HTTP://Evil.Example/A?x#y", "evil.example/A"),
        ("https://evil.example:443", "evil.example/"),
        ("https://evil.example:80/", "evil.example:80/"),
        ("ftp://evil.example:21/x", "evil.example:21/x"),
        ("evil.example:/x", "evil.example/x"),
        ("u@p@evil.example/x", "evil.example/x"),
        ("http://[::1]/x", "[::1]/x"),
        ("http://1.2.3.4:8080/x", "1.2.3.4:8080/x"),
        ("http:///x", ""),
        ("", ""),
    ],
)
def test_a_url_has_one_spelling(text: str, url: str) -> None:
    """Scheme, user, query, fragment and the scheme's own port do not count."""
    assert url_of(text) == url


def test_addresses_and_names_have_one_spelling() -> None:
    """Brackets, zones, IPv4 in IPv6's clothes; final dots and capitals; names that DNS would refuse are kept."""
    assert address_of("[FE80::1%eth0]") == "fe80::1"
    assert address_of("::ffff:1.2.3.4") == "1.2.3.4"
    assert address_of("1.2.3") == ""
    assert domain_of("ExAmple.") == "example"
    assert domain_of("1.2.3.4") == ""
    assert domain_of("bücher.example") == "xn--bcher-kva.example"
    assert domain_of("ü" * 300) == "ü" * 300
    assert domain_of("a\x00b") == "a\\x00b"
    assert refanged("hxxps[:]//evil[.]example(dot)x[/]y") == "https://evil.example.x/y"


@given(st.text(max_size=600))
def test_whatever_is_seen_is_printable_and_bounded(text: str) -> None:
    """Packets choose the text: it becomes no control character and no book."""
    for each in (text_of(text), domain_of(text), url_of(text), address_of(text)):
        assert each.isprintable()
        assert len(each) <= 400
    row = sightings(_findings(tls=({"name": text, "ja4": text, "server": text},)))
    assert all(
        each.kind in Kind and each.role in (None, *Role) for one in row for each in one.observables
    )
