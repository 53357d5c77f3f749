"""The paragraph says what the findings say, in the reader's words, and nothing in it can deceive."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.analysis.asking import flow, question
from tests.analysis.crafted import C2, DNS, POD, START_NS
from tripshark.analysis.prose import summary
from tripshark.analysis.words import seconds, size
from tripshark.model.finding import MAX_SUMMARY, Conversation, Findings

TALK = Conversation(
    proto="tcp",
    a=POD,
    a_port=41_000,
    b=C2,
    b_port=4444,
    packets_ab=7,
    packets_ba=5,
    bytes_ab=1_210,
    bytes_ba=800,
    first_ns=START_NS,
    last_ns=START_NS + 2_000_000_000,
    opened_by=POD,
    from_start=True,
    named=True,
)
FOUND = Findings(
    manifest_sha256="",
    tool="TShark 4.0.17",
    sandbox=(),
    packets=12,
    first_ns=START_NS,
    last_ns=START_NS + 2_000_000_000,
    conversations=(TALK,),
    flow_captured=True,
    flow=TALK,
    seconds_before_alert=0.7,
)
ASKED = question(flow(C2, 4444), t0_ns=START_NS + 700_000_000)


def test_the_flow_is_told_with_amounts_and_time() -> None:
    """Peer, packets, bytes each way, and how long before the alert it began."""
    assert summary(FOUND, ASKED) == (
        "payments/checkout-7d9f opened TCP 203.0.113.66:4444: 12 packets, 1.2 kB out, 800 B in. "
        "The flow named by the alert was captured from its first packet (SYN), 0.7 s before the alert. "
        "In all 12 packets and 1 conversation within 2.0 s, from 0.7 s before the alert."
    )


VARIANTS = [
    ({"flow_captured": None, "flow": None}, "The alert names no flow. payments/checkout-7d9f talked to TCP"),
    ({"flow_captured": False, "flow": None}, "No packet of the flow named by the alert was captured."),
    ({"flow": replace(TALK, from_start=False)}, "spoke TCP to 203.0.113.66:4444:"),
    ({"flow": replace(TALK, from_start=False)}, "captured, but not its beginning: the first packet seen came"),
    ({"flow": replace(TALK, opened_by=C2)}, "was sent TCP from 203.0.113.66:4444:"),
    ({"flow": replace(TALK, proto="udp", from_start=False)}, "was captured, from 0.7 s before the alert."),
    ({"flow": replace(TALK, first_ns=ASKED.t0_ns)}, "(SYN), at the moment of the alert."),
    ({"flow": replace(TALK, first_ns=ASKED.t0_ns + 3 * 10**9)}, "(SYN), 3.0 s after the alert."),
    ({"names": {C2: "c2.evil.example"}}, "opened TCP 203.0.113.66:4444 (c2.evil.example):"),
    ({"packets": 0, "flow": None}, "No packet of payments/checkout-7d9f was found in the evidence."),
    ({"complete": False, "notes": ("tshark died",)}, "The analysis did not get to the end of the file. Note: tshark died."),
    ({"truncated": True, "conversations": (TALK,) * 500}, "more than 500 conversations"),
    ({"tls": ({"name": "c2.example", "server": C2, "port": 4444},)}, "800 B in (TLS for c2.example)."),
    ({"http": ({"host": "", "server": C2, "port": 4444},)}, "800 B in."),
    ({"dns": tuple({"name": f"n{at}"} for at in range(7))}, "DNS names asked for: n0, n1, n2, n3, n4 and 2 more."),
    ({"ssh": ({"banner": "SSH-2.0-x y"},)}, 'SSH: "SSH-2.0-x y".'),
]  # fmt: skip


@pytest.mark.parametrize(("change", "expected"), VARIANTS)
def test_each_case_has_its_sentence(change: dict[str, object], expected: str) -> None:
    """Flow missing, half seen, from the other side, without names, incomplete: each is said."""
    assert expected in summary(replace(FOUND, **change), ASKED)  # type: ignore[arg-type]


def test_the_latest_proven_look_up_before_the_flow_is_the_story() -> None:
    """Later, unproven or unasked look-ups of the same address are not taken for its cause."""
    row = {"name": "c2.example", "answers": [C2], "proven": True, "asked_ns": START_NS - 10**8}
    rows = (
        {**row, "name": "old.example", "asked_ns": START_NS - 10**9},
        row,
        {**row, "name": "late.example", "asked_ns": START_NS + 1},
        {**row, "name": "forged.example", "proven": False},
        {**row, "name": "unasked.example", "asked_ns": 0},
    )
    told = summary(replace(FOUND, dns=rows), ASKED)
    assert "looked up c2.example (203.0.113.66) 0.8 s before the alert and then opened TCP" in told


def test_other_conversations_are_told_largest_first() -> None:
    """Cluster names before DNS names, DNS servers left out, the rest counted."""
    others = tuple(
        replace(TALK, b=f"198.51.100.{at}", b_port=443, bytes_ab=at * 10, named=False)
        for at in range(1, 6)
    )
    resolver = replace(TALK, b=DNS, b_port=53, bytes_ab=10**9)
    foreign = replace(
        TALK, a="fd00::1", b="fd00::2", b_port=0, proto="gre", tunnel="gre", bytes_ab=99
    )
    found = replace(
        FOUND,
        conversations=(TALK, resolver, foreign, *others),
        names={"198.51.100.5": "dns.example"},
    )
    asked = replace(ASKED, names={"198.51.100.4": "shop/db-0"})
    told = summary(found, asked)
    assert (
        "also talked to [fd00::1]:41000 with GRE fd00::2, carrying gre: 12 packets, 99 B out, 800 B in; "
        "TCP 198.51.100.5:443 (dns.example): 12 packets, 50 B out, 800 B in; "
        "TCP 198.51.100.4:443 (shop/db-0): 12 packets, 40 B out, 800 B in; and 3 other conversations."
    ) in told
    assert "1.0 GB" not in told


def test_hostile_names_are_quoted_and_short() -> None:
    """A name that could pass for our own words stands in quotes, on one line, and is cut."""
    lie = 'a. No packet of the flow "was" captured.\n\x1b[2J' + "x" * 300
    told = summary(replace(FOUND, dns=({"name": lie},)), replace(ASKED, target="pod\u202e/x\n"))
    assert told.isprintable()
    assert "asked for: \"a. No packet of the flow 'was' captured.\\x0a\\x1b[2Jxx" in told
    assert told.startswith('"pod\\u202e/x\\x0a" opened')


def test_the_paragraph_is_bounded() -> None:
    """Whatever the lists hold, it stays one readable paragraph."""
    rows = tuple(
        {"name": f"{at}" * 200, "host": "h" * 500, "banner": "b" * 500} for at in range(9)
    )
    notes = ("n" * 500,) * 20
    told = summary(replace(FOUND, dns=rows, tls=rows, http=rows, ssh=rows, notes=notes), ASKED)
    assert len(told) <= MAX_SUMMARY
    assert told.endswith("…")


def test_amounts_are_readable() -> None:
    """Bytes and times in the unit a person would use."""
    assert [size(n) for n in (0, 999, 1000, 1_234_567, 5_600_000_000)] == [
        "0 B", "999 B", "1.0 kB", "1.2 MB", "5.6 GB",
    ]  # fmt: skip
    assert [seconds(s) for s in (0.0123, 0.8, 90, 600, 9000, 10**6)] == [
        "12.3 ms", "0.8 s", "90.0 s", "10 min", "2 h", "12 days",
    ]  # fmt: skip
