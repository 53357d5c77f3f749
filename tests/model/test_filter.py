"""Filters print themselves as libpcap reads them, and the ladder keeps the flow whatever Falco swapped."""

from __future__ import annotations

import json
import struct
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tripshark.formats import bpf, falco
from tripshark.model.alert import Address, Alert, Connection, Endpoint, Priority, Proto
from tripshark.model.filter import (
    MAX_ALSO,
    And,
    Bytes,
    EtherType,
    Host,
    Net,
    Not,
    Or,
    Port,
    Scope,
    Transport,
    icmp_errors,
    kinds,
    ladder,
)

CAPTURES = Path(__file__).parents[1] / "captures"
LINKS = (1, 101, 113, 276)  # Ethernet, raw IP, and the two of `any`


def alert(
    client: tuple[str | None, int | None] = (None, None),
    server: tuple[str | None, int | None] = (None, None),
    proto: Proto | None = None,
    *,
    listening: bool = False,
    hints: tuple[str, ...] = (),
    silent: bool = False,
) -> Alert:
    ends = [Endpoint(ip_address(a) if a else None, p) for a, p in (client, server)]
    return Alert(
        rule="R",
        priority=Priority.NOTICE,
        time_ns=1,
        connection=None
        if silent
        else Connection(client=ends[0], server=ends[1], proto=proto, listening=listening),
        hints=tuple(Endpoint(ip_address(each), 1) for each in hints),
    )


def rungs(*args: Any, **kwargs: Any) -> list[tuple[str, str]]:
    return [(str(rung.scope), rung.core) for rung in ladder(*args, **kwargs)]


# ------------------------------------------------------------------------------- the nodes


def test_nodes_print_as_pcap_filters_with_their_parentheses() -> None:
    """`and` and `or` bind equally in pcap-filter(7): every join is in parentheses."""
    host, port = Host(ip_address("10.0.0.1")), Port(80, Proto.TCP)
    assert (
        str(And((host, Or((port, Port(53)))))) == "(ip host 10.0.0.1 and (tcp port 80 or port 53))"
    )
    assert str(Not(Host(ip_address("fd00::1")))) == "not (ip6 host fd00::1)"
    assert str(Net(ip_network("10.0.0.0/8"))) == "ip net 10.0.0.0/8"
    assert str(Net(ip_network("fd00::/8"))) == "ip6 net fd00::/8"
    assert str(Transport(Proto.ICMP)) == "(icmp or icmp6)"
    assert str(Transport(Proto.SCTP)) == "sctp"
    assert str(And((port,))) == "tcp port 80"
    assert str(EtherType(0x8847)) == "ether proto 0x8847"
    assert str(Bytes("ip", 6, 2, 0, 0x1FFF, "!=")) == "ip[6:2] & 0x1fff != 0x0"


@pytest.mark.parametrize("linktype", LINKS)
def test_every_kind_compiles_on_every_link(linktype: int) -> None:
    """The ledger counts them wherever packets come from."""
    for text in kinds().values():
        bpf.compile(text, linktype)
    assert set(kinds(ethernet=True)) - set(kinds()) == {"mpls", "pppoe"}
    for text in kinds(ethernet=True).values():
        bpf.compile(text, 1)


ADDRESSES = st.none() | st.ip_addresses()
PORTS = st.none() | st.integers(1, 65535)
ENDS = st.builds(Endpoint, ADDRESSES, PORTS)
CONNECTIONS = st.none() | st.builds(
    Connection,
    client=ENDS,
    server=ENDS,
    proto=st.none() | st.sampled_from(Proto),
    listening=st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(
    CONNECTIONS,
    st.lists(st.builds(Endpoint, st.none() | st.ip_addresses(), PORTS), max_size=3).map(tuple),
    st.none() | st.sampled_from(Scope),
    st.sampled_from(LINKS),
    st.lists(st.ip_addresses(), max_size=4),
)
def test_every_ladder_compiles_and_ends_with_everything(
    connection: Connection | None,
    hints: tuple[Endpoint, ...],
    scope: Scope | None,
    linktype: int,
    also: list[Address],
) -> None:
    """Whatever an alert holds, its filters are filters, widening from rung to rung."""
    said = Alert(
        rule="R", priority=Priority.INFORMATIONAL, time_ns=1, connection=connection, hints=hints
    )
    steps = ladder(said, scope, ("10.0.0.7",), also=also)
    order = [list(Scope).index(step.scope) for step in steps]
    assert order == sorted(set(order))
    assert steps[-1].core == ""
    assert all(step.reason for step in steps)
    for step in steps:
        for text in (step.core, step.also):
            if text:
                bpf.compile(text, linktype)


@pytest.mark.parametrize("proto", [Proto.TCP, Proto.ICMP])
def test_addresses_of_two_families_name_no_flow(proto: Proto) -> None:
    """A hostile or broken alert: the peer is still a peer."""
    said = Alert(
        rule="R",
        priority=Priority.INFORMATIONAL,
        time_ns=1,
        connection=Connection(
            client=Endpoint(ip_address("10.0.0.7"), 40_000),
            server=Endpoint(ip_address("2001:db8::66"), 443),
            proto=proto,
        ),
    )
    assert [step.scope for step in ladder(said, None, ("10.0.0.7",))] == [Scope.PEER, Scope.POD]


# ------------------------------------------------------------------------------- the ladder


A, B = ("10.0.0.7", 40000), ("203.0.113.66", 4444)


def test_a_tcp_connection_gives_flow_peer_and_pod() -> None:
    """Both endpoints, no direction."""
    assert rungs(alert(A, B, Proto.TCP), None, ["10.0.0.7"]) == [
        (
            "flow",
            "(ip host 203.0.113.66 and ip host 10.0.0.7 and tcp port 40000 and tcp port 4444)",
        ),
        ("peer", "ip host 203.0.113.66"),
        ("pod", ""),
    ]


BEHIND = tuple(map(ip_address, ("10.0.9.1", "10.0.9.2", "10.0.0.7", "2001:db8::9")))


def test_what_is_behind_a_service_stands_in_the_peers_place() -> None:
    """On whatever port it listens, told by the target's end; never the target itself, never another family."""
    flow, peer, pod = ladder(alert(A, B, Proto.TCP), None, ["10.0.0.7"], also=BEHIND)
    assert flow.core == (
        "((ip host 203.0.113.66 and ip host 10.0.0.7 and tcp port 40000 and tcp port 4444)"
        " or ((ip host 10.0.9.1 or ip host 10.0.9.2) and ip host 10.0.0.7 and tcp port 40000))"
    )
    assert "with 2 more addresses of the same service" in flow.reason
    assert "0xa000901" in flow.also  # ICMP errors about what is behind it
    assert peer.core == (
        "(ip host 203.0.113.66 or ip host 10.0.9.1 or ip host 10.0.9.2 or ip6 host 2001:db8::9)"
    )
    assert pod.core == ""


def test_a_flipped_flow_to_a_service_is_told_by_the_targets_own_port() -> None:
    """Falco took the target for the server: its port is the one that stays."""
    flow = ladder(alert(B, A, Proto.UDP), None, ["10.0.0.7"], also=BEHIND[:1])[0]
    assert flow.core == (
        "((ip host 10.0.0.7 and udp port 4444 and udp port 40000)"
        " or (ip host 10.0.9.1 and udp port 40000))"
    )
    assert "1 more address of the same service" in flow.reason


def test_an_icmp_exchange_with_a_service_takes_in_what_is_behind_it() -> None:
    """Without ports the addresses alone tell it."""
    flow = ladder(alert((None, None), B, Proto.ICMP), None, ["10.0.0.7"], also=BEHIND[:1])[0]
    assert flow.core == (
        "(((icmp or icmp6) and ip host 203.0.113.66) or ((icmp or icmp6) and ip host 10.0.9.1))"
    )


@pytest.mark.parametrize("linktype", LINKS)
@pytest.mark.parametrize("family", [4, 6])
def test_as_many_addresses_as_may_stand_behind_a_service_still_compile(
    linktype: int, family: int
) -> None:
    """And more of them narrow nothing: the ladder is as without."""
    base = "10.1.0.{}" if family == 4 else "2001:db8:1::{:x}"
    server = B if family == 4 else ("2001:db8::66", 443)
    client = A if family == 4 else ("2001:db8::7", 40000)
    said = alert(client, server, Proto.TCP)
    many = tuple(ip_address(base.format(each)) for each in range(1, MAX_ALSO + 2))
    for step in ladder(said, None, [client[0]], also=many[:MAX_ALSO]):
        for text in (step.core, step.also):
            if text:
                bpf.compile(text, linktype)
    assert ladder(said, None, [client[0]], also=many) == ladder(said, None, [client[0]])


@pytest.mark.parametrize(("proto", "word"), [(Proto.UDP, "udp port"), (None, "port")])
def test_the_client_address_of_udp_is_a_wildcard(proto: Proto | None, word: str) -> None:
    """Falco reports the host's address for `sendto`; also where it does not say that it was UDP."""
    assert rungs(alert(A, B, proto))[0] == (
        "flow",
        f"(ip host 203.0.113.66 and {word} 40000 and {word} 4444)",
    )


def test_unspecified_addresses_leave_what_is_known() -> None:
    """A server of 0.0.0.0 is a bound socket; then the client is the peer."""
    assert rungs(alert(B, (None, 53), Proto.UDP)) == [
        ("flow", "(ip host 203.0.113.66 and udp port 4444 and udp port 53)"),
        ("peer", "ip host 203.0.113.66"),
        ("pod", ""),
    ]
    assert rungs(alert((None, 5), (None, 53), Proto.UDP)) == [("pod", "")]
    assert rungs(alert((None, None), B)) == [
        ("peer", "(ip host 203.0.113.66 and port 4444)"),
        ("pod", ""),
    ]


def test_a_listening_socket_gives_its_port() -> None:
    """There is no peer yet: everybody who comes to that port is."""
    assert rungs(alert(server=(None, 8080), proto=Proto.TCP, listening=True)) == [
        ("flow", "tcp port 8080"),
        ("pod", ""),
    ]
    assert rungs(alert(server=("10.0.0.7", None), listening=True)) == [("pod", "")]


def test_icmp_has_no_ports() -> None:
    """An ICMP exchange is told by its two ends."""
    assert rungs(alert(A, B, Proto.ICMP))[:2] == [
        ("flow", "((icmp or icmp6) and ip host 203.0.113.66 and ip host 10.0.0.7)"),
        ("peer", "ip host 203.0.113.66"),
    ]
    assert rungs(alert(A, (None, None), Proto.ICMP))[0] == ("peer", "ip host 10.0.0.7")


@pytest.mark.parametrize(
    ("client", "server", "own", "expected"),
    [
        (B, A, ["10.0.0.7"], "ip host 203.0.113.66"),  # accepted, or flipped
        (A, ("10.0.0.7", 80), ["10.0.0.7"], "(ip host 10.0.0.7 and tcp port 80)"),
        ((None, 5), A, ["10.0.0.7"], "(ip host 10.0.0.7 and tcp port 40000)"),
        (("127.0.0.1", 5), ("127.0.0.1", 80), [], "(ip host 127.0.0.1 and tcp port 80)"),
        (("::1", 5), ("::1", 80), [], "(ip6 host ::1 and tcp port 80)"),
    ],
)
def test_the_peer_is_the_end_that_is_not_the_target(
    client: tuple[str, int], server: tuple[str, int], own: list[str], expected: str
) -> None:
    """Where both ends are the target's own, its port keeps the filter from meaning everything."""
    assert rungs(alert(client, server, Proto.TCP), Scope.PEER, own)[0] == ("peer", expected)


def test_hints_make_a_peer_by_address_alone_and_widen_a_named_one() -> None:
    """Their ports are guesses; our own address among them means nothing."""
    assert rungs(alert(silent=True, hints=("203.0.113.1", "203.0.113.2"))) == [
        ("peer", "(ip host 203.0.113.1 or ip host 203.0.113.2)"),
        ("pod", ""),
    ]
    assert rungs(alert(silent=True, hints=("10.0.0.7",)), None, ["10.0.0.7"]) == [("pod", "")]
    named = alert(A, B, Proto.TCP, hints=("203.0.113.66", "203.0.113.2"))
    assert rungs(named, Scope.PEER)[0] == (
        "peer",
        "(ip host 203.0.113.66 or ip host 203.0.113.2)",
    )


def test_a_scope_the_alert_cannot_support_becomes_the_next_wider_with_a_reason() -> None:
    """And the reason names what was asked for."""
    shell = alert(silent=True)
    for scope, why in ((Scope.FLOW, "flow"), (Scope.PEER, "peer")):
        (only,) = ladder(shell, scope)
        assert only.scope is Scope.POD
        assert f"{scope} was asked for" in only.reason
        assert why in only.reason
    first = ladder(alert(silent=True, hints=("203.0.113.1",)), Scope.FLOW)[0]
    assert first.scope is Scope.PEER
    assert "flow was asked for" in first.reason


@pytest.mark.parametrize("scope", [Scope.POD, Scope.WORKLOAD, Scope.SERVICE])
def test_a_pods_scope_keeps_everything(scope: Scope) -> None:
    """Which pods a workload or service means is decided elsewhere."""
    (only,) = ladder(alert(A, B, Proto.TCP), scope)
    assert (only.scope, only.core, only.also) == (Scope.POD, "", "")
    assert str(scope) in only.reason


def test_a_nodes_scope_is_one_rung() -> None:
    """Everything on the host's interfaces."""
    (only,) = ladder(alert(A, B, Proto.TCP), Scope.NODE)
    assert (only.scope, only.core) == (Scope.NODE, "")


# ------------------------------------------------------------------------------- real packets


def packets(path: Path) -> Iterator[bytes]:
    """Ethernet frames of a classic pcap file."""
    data = path.read_bytes()
    order = "<" if data[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1") else ">"
    at = 24
    while at + 16 <= len(data):
        length = struct.unpack_from(f"{order}I", data, at + 8)[0]
        yield data[at + 16 : at + 16 + length]
        at += 16 + length


def matching(path: Path, text: str) -> int:
    """Packets of a file that libpcap says a filter matches."""
    run = ["tcpdump", "-n", "--count", "-r", str(path), text]
    output = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    return int(output.split()[0])


def first_tcp(path: Path) -> tuple[str, int, str, int]:
    frame = next(f for f in packets(path) if f[12:14] == b"\x08\x00" and f[23] == 6)
    source, destination = ip_address(frame[26:30]), ip_address(frame[30:34])
    sport, dport = struct.unpack_from("!HH", frame, 14 + (frame[14] & 15) * 4)
    return str(source), sport, str(destination), dport


@pytest.mark.parametrize("name", ["http-301-get.pcap", "smtp-data-250.pcap", "ssh2.pcap"])
@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("proto", ["tcp", "fd.l4proto"])
def test_swapped_and_flipped_tuples_still_catch_the_flow(
    name: str, flipped: bool, proto: str
) -> None:
    """Real packets: lport and rport swapped as in every alert seen, client and server either way round."""
    path = CAPTURES / name
    source, sport, destination, dport = first_tcp(path)
    ends = [f"{source}:{sport}", f"{destination}:{dport}"]
    fields = {
        "fd.name": "->".join(reversed(ends) if flipped else ends),
        "fd.lport": dport,
        "fd.rport": sport,
        "fd.l4proto": proto,
    }
    body = {
        "rule": "R",
        "priority": "Notice",
        "time": "2026-01-01T00:00:00Z",
        "output_fields": fields,
    }
    steps = ladder(falco.decode(json.dumps(body).encode()))
    truth = matching(
        path, f"tcp and host {source} and host {destination} and port {sport} and port {dport}"
    )
    assert truth > 0
    assert matching(path, steps[0].core) == truth
    assert matching(path, steps[1].core) >= truth


@pytest.mark.parametrize(
    ("name", "kind"),
    [("vxlan.pcap", "vxlan"), ("gre-erspan.pcap", "gre"), ("ipv6-in-ipv4.pcap", "6in4")],
)
def test_tunnels_are_kept_beside_and_named(name: str, kind: str) -> None:
    """A flow filter cannot look into them, so all of them stay, and the ledger can say which."""
    inside = matching(CAPTURES / name, kinds()[kind])
    also = ladder(alert(A, B, Proto.TCP))[0].also
    assert inside > 0
    assert matching(CAPTURES / name, f"({kinds()[kind]}) and ({also})") == inside


def quoted4(kind: int, source: str, destination: str) -> bytes:
    """An ICMPv4 error about a packet from `source` to `destination`, on raw IP."""
    inner = struct.pack(
        "!BBHHHBBH4s4sHH", 0x45, 0, 60, 0, 0, 64, 6, 0,
        ip_address(source).packed, ip_address(destination).packed, 40000, 4444,
    )  # fmt: skip
    outer = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 28 + len(inner), 0, 0, 64, 1, 0,
        ip_address("192.0.2.1").packed, ip_address(source).packed,
    )  # fmt: skip
    return outer + struct.pack("!BBHI", kind, 1, 0, 0) + inner


def quoted6(kind: int, source: str, destination: str) -> bytes:
    inner = struct.pack(
        "!IHBB16s16sHH", 6 << 28, 4, 6, 64,
        ip_address(source).packed, ip_address(destination).packed, 40000, 4444,
    )  # fmt: skip
    body = struct.pack("!BBHI", kind, 0, 0, 0) + inner
    return struct.pack(
        "!IHBB16s16s", 6 << 28, len(body), 58, 64,
        ip_address("2001:db8::99").packed, ip_address(source).packed,
    ) + body  # fmt: skip


def keeps(tmp_path: Path, text: str, packet: bytes) -> bool:
    """Whether libpcap's own filter takes one packet of raw IP."""
    file = tmp_path / "one.pcap"
    head = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)
    file.write_bytes(head + struct.pack("<IIII", 1, 0, len(packet), len(packet)) + packet)
    return matching(file, text) == 1


@pytest.mark.parametrize("kind", [3, 4, 5, 11, 12])
def test_icmp_errors_about_the_peer_are_found_in_ipv4(tmp_path: Path, kind: int) -> None:
    """Whoever sent them: they quote the packet they are about, in either direction."""
    text = str(icmp_errors(ip_address("203.0.113.66")))
    assert keeps(tmp_path, text, quoted4(kind, "10.0.0.7", "203.0.113.66"))
    assert keeps(tmp_path, text, quoted4(kind, "203.0.113.66", "10.0.0.7"))
    assert not keeps(tmp_path, text, quoted4(kind, "10.0.0.7", "203.0.113.67"))
    assert not keeps(tmp_path, text, quoted4(8, "10.0.0.7", "203.0.113.66"))


@pytest.mark.parametrize("kind", [1, 2, 3, 4])
def test_icmp_errors_about_the_peer_are_found_in_ipv6(tmp_path: Path, kind: int) -> None:
    """Four words of each quoted address are compared."""
    peer: Address = ip_address("2001:db8:66::66")
    text = str(icmp_errors(peer))
    assert keeps(tmp_path, text, quoted6(kind, "fd00::7", str(peer)))
    assert keeps(tmp_path, text, quoted6(kind, str(peer), "fd00::7"))
    assert not keeps(tmp_path, text, quoted6(kind, "fd00::7", "2001:db8:66::67"))
    assert not keeps(tmp_path, text, quoted6(128, "fd00::7", str(peer)))
