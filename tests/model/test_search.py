"""What somebody types becomes ranges of the index that hold exactly what is meant."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.model.test_indicator import ROWS
from tripshark.errors import BadInput
from tripshark.model.indicator import Sought, Term
from tripshark.model.observable import Kind, Observable, Place, Sighting
from tripshark.model.search import (
    Clause,
    Filed,
    Hit,
    How,
    Shelf,
    clauses_of_term,
    filed,
    key_of,
    understood,
)


def _fits(clause: Clause, each: Filed) -> bool:
    if each.shelf is not clause.shelf:
        return False
    if clause.how is How.IS:
        return each.key == clause.key
    if clause.how is How.BETWEEN:
        return clause.key <= each.key < clause.to
    if clause.how is How.ENDS:
        return each.key.endswith(clause.key)
    return clause.key in each.key


def _filed(**values: str) -> list[Filed]:
    return [
        Filed(
            shelf=Shelf(name),
            key=key_of(Shelf(name), value),
            value=value,
            frame=1,
            filter="",
            first_ns=0,
        )
        for name, value in values.items()
    ]


THERE = _filed(
    address="10.1.2.3", dns="www.evil.example", sni="evil.example", host="notevil.example", name="evil.internal",
    url="evil.example/Pay", user_agent="Pay/1", ja3="a" * 32, ja4="t13d1516h2_8daaf6152771_02713d6af862",
    sha256="b" * 64, md5="a" * 32, file="payload.exe", community_id="1:hO+sN4H+MG5MY/8hIrXPqc4ZQz4=",
    pod="payments/checkout-7d9f",
)  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "kind", "found"),
    [
        ("10.1.2.3", "", "address"),
        ("10[.]1.2.3", "", "address"),
        ("10.1.2.3", "dns", ""),
        ("10.0.0.0/8", "", "address"),
        ("10.0.0.0/8", "url", ""),
        ("10.1.*", "", "address"),
        ("10.2.", "", ""),
        ("*.evil.example", "", "dns sni"),
        (".evil.example", "domain", "dns sni"),
        ("evil", "domain", "dns sni host name"),
        ("*evil.example", "", "dns sni host"),
        ("evil.*", "sni", "sni"),
        ("*vil.*", "domain", "dns sni host name"),
        ("*.exe", "file", "file"),
        ("*d", "pod", ""),
        ("*f", "pod", "pod"),
        ("not*", "", "host"),
        ("EVIL.example/pay", "", "url"),
        ("http://evil.example/Pay", "", "url"),
        ("http://evil.example/*", "url", "url"),
        ("pay*", "", "user_agent file pod"),
        ("pay", "", "url user_agent file pod"),
        ("payments/checkout-7d9f", "pod", "pod"),
        ("a" * 32, "", "ja3 md5"),
        ("a" * 32, "hash", "md5"),
        ("b" * 64, "", "sha256"),
        ("b" * 64, "ja3", ""),
        ("aaaa", "ja3", "ja3"),
        ("t13d1516h2*", "", "ja4"),
        ("t13d1516h2_", "ja4", "ja4"),
        ("1:hO+sN4H+MG5MY/8hIrXPqc4ZQz4=", "", "community_id"),
        ("hO+sN4H", "community_id", "community_id"),
        ("bücher", "", ""),
        ("10.1.2.3/99", "", ""),
    ],
)  # fmt: skip
def test_what_is_typed_finds_what_is_meant(asked: str, kind: str, found: str) -> None:
    """Addresses, networks, domains with all below, parts of names, hashes, fingerprints; by kind or over all."""
    try:
        clauses = understood(asked, kind)
    except BadInput:
        clauses = ()
    hits = [each.shelf.value for each in THERE if any(_fits(clause, each) for clause in clauses)]
    assert " ".join(hits) == found


@pytest.mark.parametrize(
    ("asked", "kind"),
    [("", ""), ("*", ""), (" . ", ""), ("x" * 300, ""), ("x", "address"), ("x", "y")],
)
def test_what_cannot_be_asked_is_refused(asked: str, kind: str) -> None:
    """Nothing, everything, too much, a name as address, a kind nobody knows."""
    with pytest.raises(BadInput):
        understood(asked, kind)


@pytest.mark.parametrize("version", [4, 6])
@given(data=st.data())
def test_a_network_is_a_range_of_keys(version: int, data: st.DataObject) -> None:
    """An address is in the range exactly when it is in the network, and IPv4 is never IPv6."""
    from ipaddress import ip_network

    bits = 32 if version == 4 else 128
    number = data.draw(st.integers(0, 2**bits - 1))
    length = data.draw(st.integers(0, bits))
    address = data.draw(st.ip_addresses())
    network = (
        ip_network((number >> (bits - length) << (bits - length), length))
        if length
        else ip_network("0.0.0.0/0" if version == 4 else "::/0")
    )
    (clause,) = clauses_of_term(Term(Sought.NETWORK, str(network)))
    (each,) = _filed(address=str(address))
    assert _fits(clause, each) == (address.version == network.version and address in network)


def test_the_index_holds_whatever_a_term_can_match() -> None:
    """For every way of comparing there are questions that find the files it matches."""
    index = filed(ROWS)
    for term in (
        Term(Sought.DOMAIN, "evil.example"),
        Term(Sought.DOMAIN, "example"),
        Term(Sought.HOSTNAME, "www.evil.example"),
        Term(Sought.ADDRESS, "203.0.113.66"),
        Term(Sought.NETWORK, "203.0.113.0/24"),
        Term(Sought.JA3, "c" * 32),
    ):
        assert any(term.holds(row) for row in ROWS)
        clauses = tuple(clauses_of_term(term))
        assert any(_fits(clause, each) for clause in clauses for each in index), term


def test_each_value_is_filed_once_with_the_row_that_shows_it_best() -> None:
    """Names by where they were seen; ports and protocols not at all; an address with its endpoint's filter."""
    index = filed(ROWS)
    assert len({(each.shelf, each.key) for each in index}) == len(index)
    (address,) = [each for each in index if each.value == "203.0.113.66"]
    assert address.filter == "ip.addr == 203.0.113.66"
    shelves = {each.value: each.shelf for each in index}
    assert shelves["www.evil.example"] is Shelf.DNS
    assert shelves["evil.example"] is Shelf.SNI
    row = Sighting(
        place=Place.ENDPOINT,
        observables=(Observable(Kind.DOMAIN, "x.y"),),
        frame=1,
        filter="",
        first_ns=0,
    )
    assert [each.shelf for each in filed([row, replace(row, place=Place.HTTP)])] == [
        Shelf.NAME,
        Shelf.HOST,
    ]


def test_a_hit_says_where_the_next_page_begins() -> None:
    """By incident, node, shelf and key."""
    hit = Hit(
        incident="i-1", node="n", shelf=Shelf.DNS, value="a.b", frame=1, filter="", first_ns=0, file="", title="",  # type: ignore[arg-type]
        t0_ns=0, key="b.a",
    )  # fmt: skip
    assert hit.cursor == ("i-1", "n", "dns", "b.a")
