"""Conversations, proven names and the alert's flow, from frames alone; every table has its bound."""

from __future__ import annotations

import json

import pytest

from tests.analysis.asking import flow, question
from tests.analysis.crafted import C2, DNS, POD, START_NS
from tripshark.analysis import resolved, talks
from tripshark.analysis.gather import Gatherer
from tripshark.analysis.talk import MAX_ANSWER
from tripshark.formats.tshark import (
    Chosen,
    DnsMessage,
    Expert,
    Frame,
    Hello,
    Login,
    Request,
    Response,
)
from tripshark.model.alert import Connection, Endpoint, Proto
from tripshark.model.finding import MAX_ROWS, Findings


def frame(number: int = 1, src: str = POD, dst: str = C2, **more: object) -> Frame:
    values: dict[str, object] = {
        "number": number,
        "time_ns": START_NS + number * 1_000_000,
        "length": 100,
        "is_packet": True,
        "src": src,
        "dst": dst,
        "transport": "tcp",
        "sport": 1000,
        "dport": 4444,
        "stream": 0,
    }
    return Frame(**{**values, **more})  # type: ignore[arg-type]


def gathered(*frames: Frame, about: tuple[Connection, ...] = (), t0_ns: int = 0) -> Findings:
    asked = question(*about, t0_ns=t0_ns or START_NS + 10_000_000)
    gatherer = Gatherer(asked)
    for each in frames:
        gatherer.add(each)
    return gatherer.findings(tool="", sandbox=())


NAMED = [
    (flow(C2, 4444), True),
    (flow(C2, 4444, POD, 1000), True),
    (flow(POD, 1000, C2, 4444), True),  # flipped, as accept and bound UDP report it
    (flow(C2, None), True),
    (flow(None, 4444), True),
    (flow(f"::ffff:{C2}", 4444), True),
    (flow(C2, 4444, "0.0.0.0", 0), True),
    (flow(C2, 4444, "::", None), True),
    (flow(C2, 4444, proto=None), True),
    (flow(C2, 4445), False),
    (flow("203.0.113.67", 4444), False),
    (flow(C2, 4444, POD, 1001), False),
    (flow(C2, 4444, proto=Proto.UDP), False),
    (flow(C2, None, proto=Proto.ICMP), False),
    (flow(POD, 1000, POD, 1000), False),
]


@pytest.mark.parametrize(("connection", "captured"), NAMED)
def test_the_alerts_flow_is_recognised_either_way_round(
    connection: Connection, captured: bool
) -> None:
    """Addresses and ports in either direction; what the alert does not say matches anything."""
    out = gathered(frame(), about=(connection,))
    back = gathered(frame(src=C2, dst=POD, sport=4444, dport=1000), about=(connection,))
    assert out.flow_captured is captured
    assert back.flow_captured is captured
    assert (out.flow is not None) is captured
    assert out.conversations[0].named is captured


def test_a_wildcard_udp_client_is_recognised() -> None:
    """A UDP socket bound to no address: only the server's side says anything."""
    connection = Connection(
        client=Endpoint(None, None), server=Endpoint(None, 53), proto=Proto.UDP
    )
    assert gathered(frame(transport="udp", dport=53), about=(connection,)).flow_captured
    assert not gathered(frame(transport="tcp", dport=53), about=(connection,)).flow_captured


def test_icmp_has_no_ports_to_compare() -> None:
    """A raw ICMP socket is recognised by its addresses, whatever stands in the port fields."""
    connection = flow(C2, 8, proto=Proto.ICMP)
    echo = frame(transport="icmp", sport=0, dport=0)
    assert gathered(echo, about=(connection,)).flow_captured
    assert not gathered(
        frame(transport="icmpv6", dst="2001:db8::1"), about=(connection,)
    ).flow_captured


def test_an_alert_that_names_nothing_is_not_answered() -> None:
    """No flow, or one without any address or port: neither captured nor missing."""
    assert gathered(frame()).flow_captured is None
    assert gathered(frame(), about=(flow(None, None),)).flow_captured is None


def test_of_several_named_flows_the_one_before_the_alert_is_told() -> None:
    """A beacon repeats: the last connection begun before T0, or else the first after it."""
    frames = [frame(number, sport=number, stream=number) for number in (1, 2, 3, 2000, 3000)]
    about = (flow(C2, 4444),)
    told = gathered(*frames, about=about, t0_ns=START_NS + 5_000_000).flow
    assert told is not None
    assert told.a_port == 3
    late = gathered(*frames[3:], about=about, t0_ns=START_NS + 5_000_000).flow
    assert late is not None
    assert late.a_port == 2000


def test_a_port_pair_used_twice_is_two_conversations() -> None:
    """tshark's stream number tells them apart, as `-z conv` does."""
    assert len(gathered(frame(1), frame(2, stream=1)).conversations) == 2


def test_the_targets_side_comes_first() -> None:
    """`a` is the pod even where the other side spoke first, and bytes keep their direction."""
    (talk,) = gathered(
        frame(1, src=C2, dst=POD, sport=4444, dport=1000, length=7, tcp_flags=2),
        frame(2, length=50, protocol="TLSv1.3"),
        frame(3, protocol="TCP", tunnel="vxlan"),
    ).conversations
    assert (talk.a, talk.a_port, talk.b, talk.opened_by) == (POD, 1000, C2, C2)
    assert (talk.bytes_ab, talk.bytes_ba, talk.packets_ab, talk.packets_ba) == (150, 7, 2, 1)
    assert (talk.app, talk.tunnel, talk.from_start) == ("TLSv1.3", "vxlan", True)


FILTERS = [
    (frame(), "tcp.stream == 0"),
    (frame(stream=-1), f"ip.addr == {POD} && ip.addr == {C2} && tcp"),
    (
        frame(transport="sctp", stream=-1),
        f"ip.addr == {POD} && ip.addr == {C2} && sctp.port == 1000 && sctp.port == 4444",
    ),
    (frame(transport="udp fragment"), f"ip.addr == {POD} && ip.addr == {C2}"),
    (frame(transport="gre"), f"ip.addr == {POD} && ip.addr == {C2} && gre"),
    (
        frame(src="fd00::1", dst="fd00::2", transport="icmpv6"),
        "ipv6.addr == fd00::1 && ipv6.addr == fd00::2 && icmpv6",
    ),
]


@pytest.mark.parametrize(("first", "expected"), FILTERS)
def test_conversations_have_a_display_filter(first: Frame, expected: str) -> None:
    """By stream number where there is one, else by addresses and protocol."""
    assert gathered(first).conversations[0].filter == expected


def dns(number: int, *messages: DnsMessage, answer: bool = False, sport: int = 1000) -> Frame:
    sides = {"src": DNS, "dst": POD, "sport": 53, "dport": sport}
    if not answer:
        sides = {"src": POD, "dst": DNS, "sport": sport, "dport": 53}
    return frame(number, **{**sides, "transport": "udp", "dns": messages})  # type: ignore[arg-type]


def ask(name: str, id: int = 1, kind: int = 1) -> DnsMessage:
    return DnsMessage(id, False, 0, ((name, kind),), ())


def reply(name: str, *answers: tuple[str, int, str], id: int = 1, rcode: int = 0) -> DnsMessage:
    return DnsMessage(id, True, rcode, ((name, 1),), answers)


def test_an_answer_to_a_question_of_this_capture_proves_a_name() -> None:
    """Through its aliases, whatever the letters' case, and with the asker's own name for it."""
    found = gathered(
        dns(1, ask("WWW.example")),
        dns(
            2,
            reply("www.EXAMPLE", ("www.example", 5, "cdn.example"), ("CDN.example", 1, C2)),
            answer=True,
        ),
    )
    assert found.names == {C2: "www.EXAMPLE"}
    (row,) = found.dns
    assert row["proven"]
    assert row["answers"] == ["cdn.example", C2]
    assert (row["asked"], row["answered"], row["rcode"], row["type"]) == (1, 1, "NOERROR", "A")
    assert row["asked_ns"] == START_NS + 1_000_000


UNPROVEN = [
    dns(2, reply("c2.example", ("c2.example", 1, C2), id=2), answer=True),  # another id
    dns(2, reply("c2.example", ("c2.example", 1, C2)), answer=True, sport=1001),  # another port
    dns(2, reply("other.example", ("other.example", 1, C2)), answer=True),  # another name
    dns(2, reply("c2.example", ("bank.example", 1, C2)), answer=True),  # glue for somebody else
    frame(2, src=C2, dst=POD, sport=53, dport=1000, transport="udp",
          dns=(reply("c2.example", ("c2.example", 1, C2)),)),  # from somebody who was not asked
]  # fmt: skip


@pytest.mark.parametrize("answer", UNPROVEN)
def test_an_answer_nobody_asked_for_proves_nothing(answer: Frame) -> None:
    """A forged answer cannot give an address a name."""
    found = gathered(dns(1, ask("c2.example")), answer)
    assert found.names == {}


def test_an_unasked_answer_is_still_told() -> None:
    """It is in the list, marked as not proven, with its code in words or as a number."""
    (row,) = gathered(dns(2, reply("x.example", id=9, rcode=23), answer=True)).dns
    assert (row["proven"], row["asked_ns"], row["rcode"]) == (False, 0, "23")


def test_rows_that_are_no_packets_are_passed_over() -> None:
    """An alert's row counts for nothing; a frame without IP is counted apart."""
    found = gathered(frame(1, is_packet=False), frame(2, src="", dst=""))
    assert (found.packets, found.other_packets, found.conversations) == (1, 1, ())


def test_lists_are_bounded_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """More names, requests and conversations than fit: cut, *truncated*, and the alert's own is kept."""
    monkeypatch.setattr(talks, "MAX_CONVERSATIONS", 600)
    monkeypatch.setattr(resolved, "MAX_PENDING", 100)
    gatherer = Gatherer(question(flow(C2, 4444)))
    for at in range(700):
        ip = f"198.51.{at // 250}.{at % 250}"
        name = f"n{at}.example"
        gatherer.add(dns(at, ask(name)))
        gatherer.add(dns(at, reply(name, (name, 1, ip)), answer=True))
        gatherer.add(
            frame(
                at,
                dst=ip,
                stream=at,
                hello=Hello((name,), ("h2",)),
                requests=(Request(name, "GET", "/"),),
                ssh=f"SSH-2.0-{at}",
            )
        )
    gatherer.add(frame(999, length=1, stream=999))
    found = gatherer.findings(tool="", sandbox=())
    assert found.truncated
    assert found.flow_captured
    assert found.flow is not None
    for rows in (found.dns, found.tls, found.http, found.ssh, found.names, found.conversations):
        assert len(rows) == MAX_ROWS
    assert any(each.named for each in found.conversations)
    assert "beyond the first 600" in found.notes[0]
    assert gatherer.resolved.pending <= 100
    assert gatherer.packets == 2101


def test_repeats_are_counted_not_listed() -> None:
    """The same greeting or request again raises a count."""
    again = {"hello": Hello(("a.example",), ()), "requests": (Request("h", "GET", "/?x=1"),)}
    found = gathered(frame(1, **again), frame(2, **again))
    assert [row["count"] for row in (*found.tls, *found.http)] == [2, 2]
    assert found.http[0]["uri"] == "/?…"


def test_an_answer_filled_with_hostile_text_fits_the_line() -> None:
    """Every table full of the longest names that need the most room: what is sent back stays within the bound."""
    evil = "\U0001f988" * 500
    gatherer = Gatherer(question())
    for at in range(MAX_ROWS + 1):
        name = f"{at}{evil}"
        answers = tuple((name, 5, f"{at}-{each}{evil}") for each in range(20))
        gatherer.add(dns(at, ask(name)))
        gatherer.add(dns(at, reply(name, *answers), answer=True))
        gatherer.add(
            frame(
                at,
                stream=at,
                protocol=evil,
                hello=Hello((name,), (evil,) * 9),
                requests=(Request(name, evil, f"/{name}", name),),
                ssh=name,
                logins=(Login(evil, name, 7),),
                experts=(Expert("error", "Malformed", name),),
            )
        )
    found = gatherer.findings(tool="", sandbox=())
    assert len(found.dns) == len(found.http) == len(found.credentials) == MAX_ROWS
    assert len(json.dumps(found.as_json())) < MAX_ANSWER


def test_what_a_server_says_is_told_apart() -> None:
    """Versions, suites and statuses make rows of their own, each with the place of its first greeting or request."""
    hello = Hello(("a.example",), ())
    back = {"src": C2, "dst": POD, "sport": 4444, "dport": 1000}
    found = gathered(
        frame(1, hello=hello),
        frame(2, **back, chosen=Chosen("TLS 1.3", "X")),
        frame(3, hello=hello, stream=1),
        frame(4, **back, stream=1, chosen=Chosen("TLS 1.2", "Y")),
        frame(5, hello=hello, stream=2),
        frame(6, **back, stream=2, chosen=Chosen("TLS 1.2", "Y")),
        frame(7, **back, stream=3, chosen=Chosen("TLS 1.2", "Y")),
        frame(8, stream=4, requests=(Request("h", "GET", "/"),)),
        frame(9, **back, stream=4, responses=(Response(404, 8),)),
        frame(10, stream=4, requests=(Request("h", "GET", "/"),)),
    )
    assert [(row["version"], row["count"], row["frame"]) for row in found.tls] == [
        ("TLS 1.3", 1, 1),
        ("TLS 1.2", 2, 3),
    ]
    assert [(row["status"], row["count"], row["frame"]) for row in found.http] == [
        (404, 1, 8),
        (0, 1, 10),
    ]


def test_activity_covers_everything_in_few_steps() -> None:
    """Packets out of order and years apart still make at most 600 steps, and none is lost."""
    frames = [frame(at) for at in range(50)]
    frames += [frame(60, time_ns=START_NS - 10**18), frame(61, src=C2, dst=POD)]
    activity = gathered(*frames).activity
    assert len(activity.packets_out) <= 600
    assert (sum(activity.packets_out), sum(activity.packets_in)) == (51, 1)
    assert sum(activity.bytes_out) == 5100
