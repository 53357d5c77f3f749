"""An indicator matches the rows that show it and no others, and what is then claimed was proved before."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.model.test_observable import FLOW, _findings
from tripshark.model.claim import MAX_FINDINGS, Finding, Severity
from tripshark.model.finding import Findings
from tripshark.model.indicator import (
    MAX_MATCHES,
    Indicator,
    Indicators,
    Pattern,
    Sought,
    Term,
    cited,
    claims_of,
    refusal,
    remark,
    with_claims,
)
from tripshark.model.observable import Kind, Observable, Place, Role, Sighting, sightings

ROWS = sightings(
    _findings(
        conversations=(FLOW,),
        dns=({"name": "www.evil.example", "answers": ["198.51.100.9"], "asked_ns": 3, "frame": 1,
              "filter": "dns"},),
        tls=({"name": "evil.example", "ja3": "c" * 32, "server": "203.0.113.66", "port": 443, "frame": 6,
              "filter": "tls", "first_ns": 6},),
        endpoints=({"address": "203.0.113.66", "name": "", "packets_out": 2, "packets_in": 3, "frame": 4,
                    "filter": "ip.addr == 203.0.113.66", "first_ns": 5},),
    )
)  # fmt: skip


def _indicator(
    *observations: tuple[Term, ...], ordered: bool = False, **more: object
) -> Indicator:
    return Indicator(
        name="x", source="list:1", patterns=(Pattern(observations, ordered=ordered),), **more  # type: ignore[arg-type]
    )  # fmt: skip


def _matches(*observations: tuple[Term, ...], ordered: bool = False) -> bool:
    return bool(Indicators([_indicator(*observations, ordered=ordered)]).match(ROWS))


@pytest.mark.parametrize(
    ("sought", "value", "found"),
    [
        (Sought.DOMAIN, "evil.example", True),
        (Sought.DOMAIN, "example", True),
        (Sought.DOMAIN, "vil.example", False),
        (Sought.DOMAIN, "a.www.evil.example", False),
        (Sought.HOSTNAME, "www.evil.example", True),
        (Sought.HOSTNAME, "example", False),
        (Sought.ADDRESS, "203.0.113.66", True),
        (Sought.ADDRESS, "198.51.100.9", True),
        (Sought.ADDRESS, "203.0.113.67", False),
        (Sought.NETWORK, "203.0.113.0/24", True),
        (Sought.NETWORK, "203.0.112.0/24", False),
        (Sought.NETWORK, "2001:db8::/32", False),
        (Sought.JA3, "c" * 32, True),
        (Sought.MD5, "c" * 32, False),
        (Sought.COMMUNITY_ID, FLOW.community_id, True),
    ],
)
def test_a_term_is_found_where_it_stands(sought: Sought, value: str, found: bool) -> None:
    """Domains mean what is below them, hostnames themselves, networks their addresses."""
    assert _matches((Term(sought, value),)) is found


def test_terms_of_one_observation_hold_for_one_row() -> None:
    """An address and a port are both of the same conversation, on the side that is meant."""
    address = Term(Sought.ADDRESS, "203.0.113.66")
    assert _matches((address, Term(Sought.PORT, "443", Role.SERVER)))
    assert not _matches((address, Term(Sought.PORT, "443", Role.CLIENT)))
    assert _matches((Term(Sought.ADDRESS, "203.0.113.66"), Term(Sought.PROTO, "tcp")))
    assert not _matches((Term(Sought.ADDRESS, "198.51.100.9"), Term(Sought.PROTO, "tcp")))
    assert _matches((Term(Sought.DOMAIN, "evil.example"), Term(Sought.NETWORK, "203.0.113.0/24")))


def test_observations_are_all_seen_and_in_order_where_that_is_asked() -> None:
    """One of two is not enough; FOLLOWEDBY goes by the time of the rows."""
    name, shake = (Term(Sought.HOSTNAME, "www.evil.example"),), (Term(Sought.JA3, "c" * 32),)
    assert _matches(name, shake)
    assert not _matches(name, (Term(Sought.JA3, "d" * 32),))
    assert _matches(name, shake, ordered=True)
    assert not _matches(shake, name, ordered=True)


def test_an_indicator_matches_once_and_shows_the_row_that_says_most() -> None:
    """Several alternatives are one match; of an address the endpoint's filter shows all of it."""
    both = Indicator.of(
        [(Term(Sought.JA3, "c" * 32),), (Term(Sought.ADDRESS, "203.0.113.66"),)],
        name="n",
        source="s",
    )
    late = Indicator.of([(Term(Sought.ADDRESS, "203.0.113.66"),)], name="m\x1b", source="s")
    first, second = Indicators([both, late]).match(ROWS)
    assert [row.place for row in first.rows] == [Place.TLS]
    assert [row.place for row in second.rows] == [Place.ENDPOINT]
    assert second.indicator.name == "m\\x1b"
    assert [str(term) for term in second.terms] == ["the address 203.0.113.66"]


def test_the_rarest_term_of_each_observation_is_what_is_looked_up() -> None:
    """A name before an address, an address before a port."""
    port = Term(Sought.PORT, "443")
    name, address = Term(Sought.DOMAIN, "a.b"), Term(Sought.ADDRESS, "1.2.3.4")
    indicators = Indicators([_indicator((port, address, name), (port, address))])
    assert list(indicators.keys) == [name, address]


def test_no_indicators_claim_nothing() -> None:
    """Findings without a list are as they were."""
    findings = _findings(conversations=(FLOW,))
    assert claims_of(findings, Indicators()) == ((), 0)
    assert with_claims(findings, ()) == findings


def _seen(**more: object) -> Findings:
    return _findings(
        tls=tuple(
            {"name": f"n{number}.evil.example", "ja4": "t13", "frame": number + 1, "filter": f"tls.x == {number}", "first_ns": number}
            for number in range(30)
        ),
        endpoints=({"address": "203.0.113.66", "name": "", "packets_out": 2, "packets_in": 3, "frame": 4,
                    "filter": "ip.addr == 203.0.113.66", "first_ns": 5},),
        **more,
    )  # fmt: skip


def test_a_match_becomes_a_claim_that_cites_frames() -> None:
    """Frames and filter are the rows' own; severity, techniques and words are the list's; only what was checked is joined."""
    old = Finding(
        id="F7", kind="beacon", severity=Severity.MEDIUM, title="t", text="x", frames=(1,), filter="tcp"
    )  # fmt: skip
    address = _indicator(
        (Term(Sought.ADDRESS, "203.0.113.66"),), severity=Severity.CRITICAL, note="C2", techniques=("T1071",)
    )  # fmt: skip
    domain = Indicator.of(
        [(Term(Sought.DOMAIN, "evil.example"),)], name="evil.example", source="l:2", severity=Severity.LOW
    )  # fmt: skip
    before = _seen(findings=(old,))
    (first, second), left = claims_of(before, Indicators([domain, address]))
    assert left == 0
    assert (first.id, first.kind, first.severity, first.frames) == (
        "F8", "indicator", Severity.CRITICAL, (4,),
    )  # fmt: skip
    assert first.filter == "ip.addr == 203.0.113.66"
    assert (
        first.text == "list:1 names the address 203.0.113.66 (C2); seen as an endpoint in frame 4."
    )
    assert first.about == {
        "indicator": "x", "list": "list:1", "note": "C2", "sought": "the address 203.0.113.66", "seen": "203.0.113.66",
    }  # fmt: skip
    assert first.techniques == ("T1071",)
    assert (second.id, len(second.frames), second.checked) == ("F9", 20, False)
    assert second.filter.startswith("(tls.x == 0) or (tls.x == 1)")
    assert "and 27 more" in second.text
    assert second.about["seen"].startswith("n0.evil.example, n1.evil.example")
    for each in (first, second):
        assert Finding.from_json(each.as_json()) == each
    joined = with_claims(before, [replace(first, checked=True), second], "a note")
    assert [each.id for each in joined.findings] == ["F8", "F7"]
    assert joined.notes == ("a note",)


def test_matches_beyond_the_bound_are_counted() -> None:
    """A list that matches everything adds a bounded number of claims."""
    many = [
        Indicator.of([(Term(Sought.DOMAIN, "evil.example"),)], name=f"i{number}", source="l")
        for number in range(MAX_MATCHES + 3)
    ]
    claims, left = claims_of(_seen(), Indicators(many))
    assert (len(claims), left) == (MAX_MATCHES, 3)
    claim = Finding(
        id="F1", kind="beacon", severity=Severity.LOW, title="", text="", frames=(1,), filter="x"
    )
    full = _seen(findings=(claim,) * MAX_FINDINGS)
    assert claims_of(full, Indicators(many)) == ((), MAX_MATCHES + 3)


def test_a_row_without_a_frame_proves_nothing() -> None:
    """Only rows that packets show become claims."""
    rows = _findings(tls=({"name": "evil.example", "frame": 0, "filter": ""},))
    named = Indicators([_indicator((Term(Sought.DOMAIN, "evil.example"),))])
    assert claims_of(rows, named) == ((), 0)


def test_a_filter_stays_within_its_bound() -> None:
    """What one filter cannot show is not cited; the same filter stands once."""
    its = (Observable(Kind.DOMAIN, "x"),)
    row = Sighting(place=Place.DNS, observables=its, frame=1, filter="a" * 1_500, first_ns=0)
    shown, filter = cited([row, replace(row, frame=2), replace(row, filter="b" * 1_500)])
    assert (len(shown), filter) == (2, "a" * 1_500)


@pytest.mark.parametrize(
    ("sought", "value", "why"),
    [
        (Sought.NETWORK, "8.0.0.0/7", "/7"),
        (Sought.NETWORK, "2000::/3", "/3"),
        (Sought.NETWORK, "9.0.0.0/8", ""),
        (Sought.ADDRESS, "0.0.0.0", "no host"),
        (Sought.NETWORK, "127.0.0.0/8", "no host"),
        (Sought.ADDRESS, "ff02::1", "no host"),
        (Sought.ADDRESS, "203.0.113.66", ""),
        (Sought.DOMAIN, "com", "top-level"),
        (Sought.DOMAIN, "cluster.local", "every machine"),
        (Sought.DOMAIN, "evil.example", ""),
        (Sought.SHA256, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "empty"),
        (Sought.MD5, "a" * 32, ""),
    ],
)  # fmt: skip
def test_what_everybody_does_is_no_indicator(sought: Sought, value: str, why: str) -> None:
    """Refused with a reason."""
    said = refusal(Term(sought, value))
    assert why in said
    assert bool(said) == bool(why)


def test_private_and_shared_addresses_are_remarked_upon() -> None:
    """Used, and said."""
    assert "private" in remark(Term(Sought.NETWORK, "10.0.0.0/8"))
    assert "private" in remark(Term(Sought.ADDRESS, "fd00::1"))
    assert "resolver" in remark(Term(Sought.ADDRESS, "8.8.8.8"))
    assert remark(Term(Sought.ADDRESS, "203.0.113.66")) == ""
    assert remark(Term(Sought.DOMAIN, "a.b")) == ""


_TERMS = st.builds(
    Term,
    st.sampled_from([Sought.DOMAIN, Sought.HOSTNAME, Sought.ADDRESS, Sought.PORT]),
    st.sampled_from(["a.b", "x.a.b", "b", "1.2.3.4", "443"]),
)
_OBSERVABLES = st.builds(
    Observable,
    st.sampled_from([Kind.DOMAIN, Kind.ADDRESS, Kind.PORT]),
    st.sampled_from(["a.b", "x.a.b", "b", "1.2.3.4", "443"]),
)


@given(
    st.lists(
        st.lists(_TERMS, min_size=1, max_size=3).filter(
            lambda each: any(t.is_selective for t in each)
        ),
        max_size=5,
    ),
    st.lists(st.lists(_OBSERVABLES, max_size=4), max_size=6),
)
def test_many_at_once_is_the_same_as_one_by_one(
    observations: list[list[Term]], rows: list[list[Observable]]
) -> None:
    """The look-up by value finds exactly what comparing each row with each term finds."""
    seen = [
        Sighting(place=Place.DNS, observables=tuple(each), frame=1, filter="x", first_ns=0)
        for each in rows
    ]
    indicators = [
        Indicator.of([tuple(terms)], name=str(number), source="")
        for number, terms in enumerate(observations)
    ]
    slowly = [
        each.name
        for each in indicators
        if any(all(term.holds(row) for term in each.patterns[0].observations[0]) for row in seen)
    ]
    assert [match.indicator.name for match in Indicators(indicators).match(seen)] == slowly
