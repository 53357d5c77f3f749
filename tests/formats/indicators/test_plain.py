"""Plain lists are read as analysts write them, and what is none of it is told with its line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripshark.errors import BadInput
from tripshark.formats.indicators.loaded import MAX_NAMED, Loaded, Why
from tripshark.formats.indicators.plain import MAX_LINE, read_plain
from tripshark.formats.indicators.reading import MAX_LIST, read_list
from tripshark.formats.indicators.values import patterns_of, term_of
from tripshark.model import indicator
from tripshark.model.indicator import Pattern, Sought, Term
from tripshark.model.observable import Role


def _terms(text: str) -> list[tuple[Term, ...]]:
    return [terms for pattern in patterns_of(text) for terms in pattern.observations]


def _read(text: str) -> Loaded:
    into = Loaded()
    read_list(text.encode(), "list.txt", into)
    return into


@pytest.mark.parametrize(
    ("text", "sought", "value"),
    [
        ("203.0.113.66", Sought.ADDRESS, "203.0.113.66"),
        ("203[.]0[.]113[.]66", Sought.ADDRESS, "203.0.113.66"),
        ("::ffff:203.0.113.66", Sought.ADDRESS, "203.0.113.66"),
        ("2001:DB8:0::1", Sought.ADDRESS, "2001:db8::1"),
        ("203.0.113.9/24", Sought.NETWORK, "203.0.113.0/24"),
        ("Evil[.]Example.", Sought.DOMAIN, "evil.example"),
        ("*.evil(dot)example", Sought.DOMAIN, "evil.example"),
        ("bücher.example", Sought.DOMAIN, "xn--bcher-kva.example"),
        ("hxxps://evil[.]example:8443/A/b?c=d#e", Sought.URL, "evil.example:8443/A/b"),
        ("http://u:p@evil.example:80", Sought.URL, "evil.example/"),
        ("https://[2001:db8::1]:443/x", Sought.URL, "[2001:db8::1]/x"),
        ("evil.example/a/b", Sought.URL, "evil.example/a/b"),
        ("A" * 64, Sought.SHA256, "a" * 64),
        ("t13d1516h2_8daaf6152771_02713d6af862", Sought.JA4, "t13d1516h2_8daaf6152771_02713d6af862"),
        ("1:hO+sN4H+MG5MY/8hIrXPqc4ZQz4=", Sought.COMMUNITY_ID, "1:hO+sN4H+MG5MY/8hIrXPqc4ZQz4="),
        ("ja3:" + "0" * 32, Sought.JA3, "0" * 32),
        ("md5: " + "B" * 32, Sought.MD5, "b" * 32),
        ("hostname:www.evil.example", Sought.HOSTNAME, "www.evil.example"),
        ("user_agent: curl/8 (evil, x)", Sought.USER_AGENT, "curl/8 (evil, x)"),
        ("file:invoice.exe", Sought.FILE, "invoice.exe"),
        ("community_id:1:hO+sN4H+MG5MY/8hIrXPqc4ZQz4=", Sought.COMMUNITY_ID, "1:hO+sN4H+MG5MY/8hIrXPqc4ZQz4="),
    ],
)  # fmt: skip
def test_a_value_is_what_it_looks_like(text: str, sought: Sought, value: str) -> None:
    """Kinds are told by looks or by the word before them, defanged or not, and spelled one way."""
    assert _terms(text) == [(Term(sought, value),)]


def test_thirty_two_digits_are_a_file_or_a_fingerprint() -> None:
    """Nothing tells an MD5 from a JA3, so either is enough."""
    assert _terms("c" * 32) == [(Term(Sought.MD5, "c" * 32),), (Term(Sought.JA3, "c" * 32),)]


def test_a_port_goes_with_its_address() -> None:
    """An address with a port means both at once."""
    port = Term(Sought.PORT, "4444", Role.SERVER)
    assert _terms("203.0.113.66:4444") == [(Term(Sought.ADDRESS, "203.0.113.66"), port)]
    assert _terms("[2001:db8::1]:4444") == [(Term(Sought.ADDRESS, "2001:db8::1"), port)]
    assert _terms("evil.example:4444") == [(Term(Sought.DOMAIN, "evil.example"), port)]
    assert _terms("a b:4444") == []


@pytest.mark.parametrize(
    "text",
    ["", "foo bar", "@", "ja3:xyz", "ja4:t13", "url:", "ip:evil.example", "sha256:" + "a" * 32, "a" * 40,
     "1.2.3.4/99", "hostname:com", "community_id:2:x", "md5:" + "a" * 64, "a..b", "x" * 300, "-x.com", "a.1",
     "\u0130" * 70 + ".example", "user_agent:" + "x" * 500, "http://", "network:1.2.3.4", "cidr:x/y"],
)  # fmt: skip
def test_what_is_no_indicator_means_nothing(text: str) -> None:
    """No guess is made."""
    assert _terms(text) == []


def test_ports_and_protocols_have_bounds() -> None:
    """65536 is no port, and a protocol is a word."""
    assert term_of(Sought.PORT, "65536") is None
    assert term_of(Sought.PORT, "0") is None
    assert term_of(Sought.PROTO, "TCP") == Term(Sought.PROTO, "tcp")
    assert term_of(Sought.PROTO, "t/p") is None


def test_a_list_is_read_as_people_keep_it() -> None:
    """Comments, headings, CSV, hosts files; each indicator knows its line and what was said of it."""
    loaded = _read(
        '\ufeff# a feed\nindicator,type\nevil.example,c2,"seen, twice" # first\n'
        "; another comment\n// and one\n\n0.0.0.0 ads.example # hosts\n203.0.113.66;x\n"
        '198.51.100.7\tz\n"quoted.example"\nuser_agent: a, b # c\n127.0.0.1 10.0.0.1\n'
    )
    assert [(each.name, each.source, each.note) for each in loaded.indicators] == [
        ("evil.example", "list.txt:3", "c2, seen, twice; first"),
        ("ads.example", "list.txt:7", "hosts"),
        ("203.0.113.66", "list.txt:8", "x"),
        ("198.51.100.7", "list.txt:9", "z"),
        ("quoted.example", "list.txt:10", ""),
        ("user_agent: a, b", "list.txt:11", "c"),
    ]
    assert [(each.where, each.what) for each in loaded.told] == [
        ("list.txt:12", "127.0.0.1 10.0.0.1")
    ]


def test_what_is_not_looked_for_is_told_with_its_reason() -> None:
    """Unreadable, refused, remarked upon: each with its line; nothing is dropped unsaid."""
    loaded = _read(
        "foo bar\n"
        + "a" * 40
        + "\nme@evil.example\n0.0.0.0/0\n::/8\ncom\ncluster.local\nd41d8cd98f00b204e9800998ecf8427e\n"
        "127.0.0.1\n224.0.0.1\n10.1.2.3\n8.8.8.8\n"
        + "x" * (MAX_LINE + 1)
        + "\n"
        + '"'
        + "y" * 5
        + '\x00"\n'
    )
    assert loaded.counts == {Why.UNREADABLE: 5, Why.REFUSED: 7, Why.REMARK: 2}
    assert [each.name for each in loaded.indicators] == [
        "d41d8cd98f00b204e9800998ecf8427e", "10.1.2.3", "8.8.8.8"
    ]  # fmt: skip
    said = {each.where: str(each) for each in loaded.told}
    assert "SHA-1 is not computed" in said["list.txt:2"]
    assert "mail addresses" in said["list.txt:3"]
    assert "part of the Internet" in said["list.txt:4"]
    assert "top-level domain" in said["list.txt:6"]
    assert "every machine" in said["list.txt:7"]
    assert "empty file" in said["list.txt:8"]
    assert loaded.indicators[0].patterns == (
        Pattern(((Term(Sought.JA3, "d41d8cd98f00b204e9800998ecf8427e"),),)),
    )
    assert "somebody else" in said["list.txt:11"]
    assert "resolver" in said["list.txt:12"]


def test_columns_are_read_as_csv_writes_them() -> None:
    """Quotes hold delimiters and quotes; a quote that does not end is text like any other."""
    loaded = _read('"evil.example","a, ""b""" , c\n203.0.113.66,"open, x\n"203.0.113.67"x,y\n')
    assert [(each.name, each.note) for each in loaded.indicators] == [
        ("evil.example", 'a, "b", c'), ("203.0.113.66", '"open, x'),
    ]  # fmt: skip
    assert [each.what for each in loaded.told] == ['"203.0.113.67"x']


def test_counts_stay_exact_when_names_are_too_many() -> None:
    """A list of rubbish costs a bounded space."""
    loaded = _read("?\n" * (MAX_NAMED + 5))
    assert loaded.counts[Why.UNREADABLE] == MAX_NAMED + 5
    assert len(loaded.told) == MAX_NAMED


def test_indicators_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is beyond it is counted as refused."""
    monkeypatch.setattr("tripshark.formats.indicators.loaded.MAX_INDICATORS", 2)
    loaded = _read("a.example\nb.example\nc.example\n")
    assert (len(loaded.indicators), loaded.counts[Why.REFUSED]) == (2, 1)
    assert indicator.MAX_INDICATORS > 2


def test_a_list_that_cannot_be_read_at_all_is_an_error_with_its_place() -> None:
    """Too long, not text, not JSON, JSON of another kind."""
    with pytest.raises(BadInput, match="more than 64 MiB"):
        read_list(b" " * (MAX_LIST + 1), "x", Loaded())
    for content, message in (
        (b"\xff\xfe", "not UTF-8 text: byte 0"),
        (b'{"a":\n\n oops}', "x:3"),
        (b"[" * 100_000, "nested too deep|not JSON"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "number too long"),
        (b'{"a": 1}', "neither a STIX 2.1 bundle nor a MISP event"),
    ):
        with pytest.raises(BadInput, match=message):
            read_list(content, "x", Loaded())


@given(st.text(max_size=300))
def test_no_text_breaks_the_reading(text: str) -> None:
    """Whatever a line holds, it is an indicator or it is told; and what is told is printable."""
    into = Loaded()
    read_plain(text, "x", into)
    for told in into.told:
        assert str(told).isprintable()
    for each in into.indicators:
        assert (each.name + each.note).isprintable()
