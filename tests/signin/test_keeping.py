"""Tokens, sessions, attempts, failures and a proxy's word: what each believes, and for how long."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripshark.errors import BadInput
from tripshark.model.role import Assignment, Grant, Right, Role
from tripshark.signin import attempt
from tripshark.signin.failures import Failures
from tripshark.signin.proxy import Proxy
from tripshark.signin.sessions import Sessions
from tripshark.signin.tokens import Token, Tokens

S = 1_000_000_000
NOW = 1_800_000_000 * S
ALICE = Grant(name="oidc:alice", rights=(Right(role=Role.VIEWER),))


# ----------------------------------------------------------------------------------------------- tokens


def test_a_token_is_whose_it_is_and_stands_nowhere() -> None:
    """Neither the list nor one of its lines prints a token."""
    token = Token(grant=ALICE, value="0123456789abcdefghij")
    tokens = Tokens([token])
    assert tokens.of("0123456789abcdefghij") is ALICE
    for wrong in ("", "0123456789abcdefghi", "0123456789abcdefghijk", "\udcff", "0" * 10_000):
        assert tokens.of(wrong) is None
    assert "0123456789" not in repr(token) + repr(vars(tokens))


# --------------------------------------------------------------------------------------------- sessions


def sessions(**changes: float) -> Sessions:
    return Sessions(**{"idle_s": 60, "absolute_s": 3600, "most": 100, **changes})


def test_a_session_ends_by_rest_by_age_and_by_signing_out() -> None:
    """Whatever comes first; being seen moves the first and not the second."""
    kept = sessions()
    id, begun = kept.begin("alice", NOW, grant=ALICE)
    assert len(id) >= 43
    assert id not in repr(begun) + repr(vars(kept))
    at = NOW
    while at < NOW + 3540 * S:
        at += 59 * S
        seen = kept.of(id, at)
        assert seen is not None
        assert seen.csrf == begun.csrf
    assert kept.of(id, NOW + 3600 * S) is None
    id, _ = kept.begin("alice", NOW, grant=ALICE)
    assert kept.of(id, NOW + 60 * S) is None
    assert kept.of(id, NOW) is None  # over is over
    id, _ = kept.begin("alice", NOW, grant=ALICE)
    assert kept.end(id) is not None
    assert kept.of(id, NOW) is None
    assert kept.end(id) is None


def test_ids_are_our_own_and_differ() -> None:
    """A hundred of them, and none that somebody might bring along."""
    kept = sessions(most=1000)
    ids = {kept.begin(f"p{number}", NOW, grant=ALICE)[0] for number in range(100)}
    assert len(ids) == 100
    for planted in ("", "x", "a" * 43, "\0", "é" * 40, "a" * 100_000):
        assert kept.of(planted, NOW) is None


def test_there_are_never_more_than_may_be() -> None:
    """The one that rests longest gives way; one person with a thousand browsers pushes out their own first."""
    kept = sessions(most=10)
    first, _ = kept.begin("p0", NOW, grant=ALICE)
    second, _ = kept.begin("p1", NOW, grant=ALICE)
    for number in range(2, 10):
        kept.begin(f"p{number}", NOW + number, grant=ALICE)
    assert kept.of(first, NOW + 20) is not None
    kept.begin("p11", NOW + 30, grant=ALICE)
    assert len(kept) == 10
    assert kept.of(second, NOW + 40) is None
    assert kept.of(first, NOW + 40) is not None
    many = sessions(most=100)
    mine, _ = many.begin("me", NOW, grant=ALICE)
    for number in range(1000):
        many.begin("mallory", NOW + number, grant=ALICE)
    assert many.of(mine, NOW + 1000) is not None
    assert len(many) <= 21


# --------------------------------------------------------------------------------------------- attempts


def test_an_attempt_counts_in_its_browser_for_ten_minutes() -> None:
    """Not changed, not under another key, not later."""
    begun = attempt.begin("/incidents/x", NOW)
    cookie = attempt.sealed(begun, b"k" * 32)
    assert attempt.opened(cookie, b"k" * 32, NOW + 599 * S) == begun
    assert attempt.opened(cookie, b"k" * 32, NOW + 600 * S) is None
    assert attempt.opened(cookie, b"x" * 32, NOW) is None
    assert begun.verifier not in repr(begun)
    other = attempt.sealed(replace(begun, next="/elsewhere"), b"x" * 32)
    forged = other.partition(".")[0] + "." + cookie.partition(".")[2]
    assert attempt.opened(forged, b"k" * 32, NOW) is None
    assert len({attempt.begin("/", NOW).state for _ in range(100)}) == 100


@given(st.text(max_size=200))
def test_whatever_else_stands_in_the_cookie_is_none(value: str) -> None:
    """No error, and nothing that is believed."""
    assert attempt.opened(value, b"k" * 32, NOW) is None


# --------------------------------------------------------------------------------------------- failures


def test_who_fails_too_often_waits_and_nobody_else() -> None:
    """Ten at once, then one every six seconds; other addresses are not meant."""
    failures = Failures(per_minute=10)
    for _ in range(10):
        assert failures.wait("192.0.2.1", NOW) == 0
        failures.failed("192.0.2.1", NOW)
    assert 0 < failures.wait("192.0.2.1", NOW) <= 6
    assert failures.wait("192.0.2.2", NOW) == 0
    assert failures.wait("192.0.2.1", NOW + 6 * S) == 0
    for _ in range(1000):
        failures.failed("192.0.2.1", NOW)
    assert (
        failures.wait("192.0.2.1", NOW) <= 70
    )  # however long somebody tries, it is over in a minute


def test_addresses_of_one_network_are_one_in_ipv6() -> None:
    """Everybody has 2^64 of them; an IPv4 address is the same however it is written."""
    failures = Failures(per_minute=1)
    failures.failed("2001:db8::1", NOW)
    assert failures.wait("2001:db8::ffff:1", NOW) > 0
    assert failures.wait("2001:db8:0:1::1", NOW) == 0
    failures.failed("::ffff:192.0.2.7", NOW)
    assert failures.wait("192.0.2.7", NOW) > 0


def test_a_million_addresses_fill_no_memory() -> None:
    """The one that failed longest ago is forgotten."""
    failures = Failures(per_minute=1)
    for number in range(10_000):
        failures.failed(f"host-{number}", NOW)
    assert len(failures._known) <= 4096


# ------------------------------------------------------------------------------------------------ proxy

PROXY = Proxy(
    trusted=(ip_network("10.1.0.0/16"), ip_network("::1/128")),
    user_header="X-Forwarded-User",
    groups_header="X-Forwarded-Groups",
    assignments=(Assignment(right=Right(role=Role.RESPONDER), group="secops"),),
)


@pytest.mark.parametrize(
    ("peer", "trusted"),
    [("10.1.2.3", True), ("::1", True), ("::ffff:10.1.2.3", True), ("10.2.0.1", False), ("", False),
     ("10.1.2.3, 10.1.2.3", False), ("fe80::1%eth0", False), ("::1%lo", True), ("localhost", False)],
)  # fmt: skip
def test_only_its_addresses_are_the_proxy(peer: str, trusted: bool) -> None:
    """By the connection's other end and nothing that somebody wrote."""
    assert PROXY.trusts(peer) is trusted


def test_its_word_makes_a_person_with_groups() -> None:
    """Once: a header that is there twice was there before the proxy, too."""
    said = PROXY.grant(
        [(b"x-forwarded-user", "Jürgen".encode()), (b"x-forwarded-groups", b"a, secops")]
    )
    assert said is not None
    assert said.name == "proxy:Jürgen"
    assert said.role is Role.RESPONDER
    assert PROXY.grant([(b"x-forwarded-groups", b"secops")]) is None
    assert PROXY.grant([(b"x-forwarded-user", b"")]) is None
    assert PROXY.grant([(b"x_forwarded_user", b"alice")]) is None
    with pytest.raises(BadInput, match="more than one user"):
        PROXY.grant([(b"x-forwarded-user", b"a"), (b"x-forwarded-user", b"b")])
    twice = PROXY.grant(
        [(b"x-forwarded-user", b"a"), (b"x-forwarded-groups", b"secops"), (b"x-forwarded-groups", b"b")]
    )  # fmt: skip
    assert twice is not None
    assert twice.rights == ()
    silent = replace(PROXY, user_header="")
    assert silent.grant([(b"", b"alice"), (b"x-forwarded-user", b"alice")]) is None


def test_failures_behind_a_proxy_are_the_clients() -> None:
    """The nearest address that is no proxy of ours; what others write is not read."""
    chain = [(b"x-forwarded-for", b"203.0.113.9, 198.51.100.1, 10.1.0.9")]
    assert PROXY.client("10.1.2.3", chain) == "198.51.100.1"
    assert PROXY.client("198.51.100.7", chain) == "198.51.100.7"
    assert PROXY.client("10.1.2.3", []) == "10.1.2.3"
