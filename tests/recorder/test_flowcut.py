"""The filter that keeps the first kilobytes of every flow, against real traffic, a second opinion, and made packets."""

from __future__ import annotations

import functools
import json
import socket
import struct
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.recorder.conftest import Nets, Process, connected, sh, target, until, until_async
from tripshark.formats import bpf, pcap, ring
from tripshark.formats.packets import Packets
from tripshark.formats.wire import RingCopy
from tripshark.recorder import ebpf, flowcut
from tripshark.recorder.client import RecorderClient
from tripshark.recorder.flowcut import HEADERS, REFILL_S, Cut, Flows, Link

Start = Callable[..., Process]

LIMIT = 16_384
SNAPLEN = 262_144
ACK, SYN = 0x10, 0x02


# ---- a second opinion -----------------------------------------------------------------------------------


@dataclass
class Model:
    """What is to be kept, by plain bookkeeping: `spent` bytes per flow and direction, of which time gives back."""

    limit: int
    spent: dict[object, tuple[float, float]] = field(default_factory=dict)  # bytes, at second

    def expect(self, flow: object, length: int, at_s: float, *, syn: bool = False) -> range:
        """The numbers of bytes that are right for this packet; `flow` is (ends, direction), None: in full."""
        if flow is None or (length <= HEADERS and not syn):
            return range(length, length + 1)
        ends, direction = flow  # type: ignore[misc]
        if syn:
            self.spent.pop((ends, 0), None)
            self.spent.pop((ends, 1), None)
        if length <= HEADERS:
            return range(length, length + 1)
        spent, since_s = self.spent.get((ends, direction), (0.0, at_s))
        spent = max(0.0, spent - (at_s - since_s) * self.limit / REFILL_S)
        self.spent[ends, direction] = spent, at_s
        left = self.limit - spent
        slack = (
            24 + self.limit * 0.05 / REFILL_S
        )  # a coarse clock, and when the packet was stamped
        least = min(length, max(HEADERS, int(left - slack)))
        return range(least, max(least, min(length, int(max(HEADERS, left + slack)))) + 1)

    def kept(self, flow: object, length: int, kept: int, at_s: float) -> None:
        """What was kept counts, but for the headers of the tail."""
        if flow is not None and length > HEADERS and kept > HEADERS:
            spent, _ = self.spent[flow]  # type: ignore[index]
            self.spent[flow] = spent + kept, at_s  # type: ignore[index]


def identified(
    source: str, destination: str, protocol: int, ports: tuple[int, int] | None
) -> tuple[object, int] | None:
    """The flow and the direction in it; None for what is kept in full."""
    if protocol in (1, 58) or (ports and 53 in ports and protocol in (6, 17, 33, 132, 136)):
        return None
    one, other = (source, ports and ports[0]), (destination, ports and ports[1])
    first, second = sorted((one, other), key=str)
    return (first, second, protocol), 0 if first == one else 1


# ---- real traffic ---------------------------------------------------------------------------------------

TALK = r"""
import socket, sys, threading
where, family = sys.argv[2], socket.AF_INET6 if ':' in sys.argv[2] else socket.AF_INET
def tcp_server(port, size):
    s = socket.socket(family); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((where, port)); s.listen()
    def serve():
        while True:
            c, _ = s.accept()
            while c.recv(65536): pass
            c.sendall(b'a' * size); c.close()
    threading.Thread(target=serve, daemon=True).start()
def udp_server(port):
    s = socket.socket(family, socket.SOCK_DGRAM); s.bind((where, port))
    def serve():
        while True:
            data, peer = s.recvfrom(65536)
            s.sendto(data[:600], peer)
    threading.Thread(target=serve, daemon=True).start()
if sys.argv[1] == 'serve':
    tcp_server(8080, 400_000); tcp_server(53, 90_000); udp_server(9000); udp_server(53)
    print('ready', flush=True); sys.stdin.read()
elif sys.argv[1] == 'talk':
    for port, size, times in ((8080, 300_000, 3), (53, 80_000, 1)):
        for _ in range(times):
            c = socket.socket(family); c.connect((where, port)); c.sendall(b'q' * size)
            c.shutdown(socket.SHUT_WR)
            while c.recv(65536): pass
            c.close()
    for port, size, times in ((9000, 1200, 40), (9000, 100, 30), (9000, 5000, 12), (53, 1100, 30)):
        s = socket.socket(family, socket.SOCK_DGRAM); s.settimeout(60); s.connect((where, port))
        for _ in range(times):
            s.send(b'd' * size); s.recv(65536)
    print('done', flush=True)
"""


async def captured(client: RecorderClient, name: str) -> dict[str, Packets]:
    """What each interface's ring holds."""
    found = await target(client, name)
    (frozen,) = await client.freeze([found.key])
    copies: dict[str, Packets] = {c.interface.name: decoded(c) for c in frozen.copies}
    await client.release(frozen)
    return copies


def decoded(copy: RingCopy) -> Packets:
    packets = ring.decode(copy)
    return packets.take(slice(0, len(packets)))


def each(packets: Packets) -> Iterator[tuple[bytes, int, int, float]]:
    """(bytes that are there, how many the kernel kept, length, seconds): a tag that was put back is not the kernel's."""
    for i in range(len(packets)):
        start, size = int(packets.start[i]), int(packets.caplen[i])
        tag = 4 if packets.status[i] & 0x10 else 0
        yield (
            packets.data[start : start + size].tobytes(),
            size - tag,
            int(packets.length[i]) - tag,
            int(packets.time_ns[i]) / 1e9,
        )


FIELDS = [
    "frame.len",
    "ip.src",
    "ip.dst",
    "ip.proto",
    "ip.frag_offset",
    "ipv6.src",
    "ipv6.dst",
    "ipv6.fraghdr.offset",
    "tcp.srcport",
    "tcp.dstport",
    "tcp.flags",
    "udp.srcport",
    "udp.dstport",
    "icmp.type",
    "icmpv6.type",
]


def dissected(packets: Packets, linktype: int, folder: Path) -> list[dict[str, str]]:
    """What tshark says of each packet."""
    file = folder / "all.pcap"
    file.write_bytes(pcap.write(packets, linktype, SNAPLEN))
    preferences = ["-o", "ip.defragment:FALSE", "-o", "ipv6.defragment:FALSE"]
    columns = [part for name in FIELDS for part in ("-e", name)]
    done = subprocess.run(
        ["tshark", "-n", "-r", str(file), *preferences, "-T", "fields", "-E", "occurrence=f", *columns],
        capture_output=True,
        text=True,
        check=True,
    )  # fmt: skip
    return [dict(zip(FIELDS, line.split("\t"), strict=True)) for line in done.stdout.splitlines()]


def flow_of(facts: dict[str, str]) -> tuple[tuple[object, int] | None, bool]:
    """The flow of a packet as tshark saw it, and whether it opens one."""
    source, destination = (
        facts["ip.src"] or facts["ipv6.src"],
        facts["ip.dst"] or facts["ipv6.dst"],
    )
    if not source or facts["icmp.type"] or facts["icmpv6.type"]:
        return None, False
    offset = facts["ip.frag_offset"] or facts["ipv6.fraghdr.offset"] or "0"
    if facts["tcp.srcport"]:
        ports = int(facts["tcp.srcport"]), int(facts["tcp.dstport"])
        flags = int(facts["tcp.flags"], 16)
        return identified(source, destination, 6, ports), flags & (SYN | ACK) == SYN
    if facts["udp.srcport"] and int(offset) == 0:
        ports = int(facts["udp.srcport"]), int(facts["udp.dstport"])
        return identified(source, destination, 17, ports), False
    return identified(source, destination, 17, None), False


def judge(
    whole: Packets, cut: Packets, linktype: int, folder: Path, since_s: float
) -> dict[str, int]:
    """Every packet of the whole recording is in the other, with as many bytes as the model says."""
    waiting: dict[tuple[int, bytes], list[tuple[bytes, int]]] = defaultdict(list)
    for data, kept, length, _ in each(cut):
        waiting[length, data[:HEADERS]].append((data, kept))
    model, told = Model(LIMIT), {"cut": 0, "full": 0}
    facts = dissected(whole, linktype, folder)
    assert len(facts) == len(whole)
    for (data, there, length, at_s), fact in zip(each(whole), facts, strict=True):
        assert there == length, "the whole recording is whole"
        if at_s < since_s:
            continue
        same = waiting[length, data[:HEADERS]]
        assert same, f"a packet of {length} bytes is missing: {fact}"
        begin, kept = same.pop(0)
        assert data.startswith(begin)
        flow, syn = flow_of(fact)
        expected = model.expect(flow, length, at_s, syn=syn)
        assert kept in expected, (fact, length, kept, expected)
        model.kept(flow, length, kept, at_s)
        told["cut" if kept < length else "full"] += 1
    return told


@pytest.mark.root
@pytest.mark.parametrize("family", ["ipv4", "ipv6", "mtu"])
async def test_every_packet_is_kept_as_the_model_says(
    start: Start, nets: Nets, tmp_path: Path, family: str
) -> None:
    """Beside a recorder that keeps everything: the same packets, each as long as its flow's allowance permits."""
    pod, world = nets.add("pod"), nets.add("world")
    sh(f"ip link add eth0 netns {pod} type veth peer name eth0 netns {world}")
    for number, net in enumerate((pod, world), 1):
        if family == "mtu":
            sh(f"ip netns exec {net} ethtool -K eth0 tso off gso off gro off")
        sh(f"ip -n {net} link set eth0 up")
        sh(f"ip -n {net} addr add 10.78.1.{number}/24 dev eth0")
        sh(f"ip -n {net} addr add fd78::{number}/64 dev eth0 nodad")
    here = "fd78::1" if family == "ipv6" else "10.78.1.1"
    server = subprocess.Popen(
        ["ip", "netns", "exec", pod, sys.executable, "-c", TALK, "serve", here],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    nets.children.append(server)
    assert server.stdout is not None
    assert server.stdin is not None
    include = {"include": (pod,), "per_target": 40 << 20}
    plain, cutting = start(**include), start(**include, flow_cut=LIMIT)
    with server.stdin:
        assert server.stdout.readline() == "ready\n"
        async with connected(plain) as one, connected(cutting) as other:
            for client in (one, other):
                await target(client, pod, rings=2)
            since_s = time.time()
            talk = nets.start(world, TALK, "talk", here)
            assert talk.wait(60) == 0
            whole, cut = await captured(one, pod), await captured(other, pod)
            states = (await target(other, pod)).rings
        assert {each.flow_cut for each in states} == {LIMIT}
        told = judge(whole["eth0"], cut["eth0"], 1, tmp_path, since_s)
        assert told["cut"] > 30
        assert told["full"] > 100


@pytest.mark.root
async def test_tagged_packets_are_cut_too(start: Start, nets: Nets, tmp_path: Path) -> None:
    """One VLAN tag or two, in the bytes (sent) or beside them (received): the flow inside is found."""
    pod, world = nets.pod()
    plain, cutting = start(include=(pod,)), start(include=(pod,), flow_cut=LIMIT)
    code = r"""
import socket, struct, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(('eth0', 0))
for tags in (b'\x81\0\0\7', b'\x88\xa8\0\5\x81\0\0\7'):
    for n in range(40):
        for port in (9, 53):
            body = struct.pack('!HHHH', 7000 + len(tags), port, 1008, 0) + b'x' * 1000
            head = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 20 + len(body), n, 0, 9, 17, 0, *addresses)
            s.send(b'\xff' * 6 + b'\2' * 6 + tags + b'\x08\0' + head + body)
"""
    async with connected(plain) as one, connected(cutting) as other:
        for client in (one, other):
            await target(client, pod, rings=2)
        since_s = time.time()
        ends = b"\x0a\x4d\1\1", b"\x0a\x4d\1\2"
        for net, addresses in ((pod, ends), (world, ends[::-1])):
            assert nets.start(net, f"addresses = {addresses!r}\n{code}").wait(20) == 0
        whole, cut = await captured(one, pod), await captured(other, pod)
    told = judge(whole["eth0"], cut["eth0"], 1, tmp_path, since_s)
    assert told["cut"] > 80
    assert told["full"] >= 160 + 4 * 15


@pytest.mark.root
async def test_packets_without_a_link_header_are_cut_too(
    start: Start, nets: Nets, tmp_path: Path
) -> None:
    """On a tun, and on loopback where each packet passes twice, the same allowance holds."""
    pod = nets.add("pod")
    sh(f"ip -n {pod} tuntap add dev tun0 mode tun")
    sh(f"ip -n {pod} addr add 10.79.1.1/24 dev tun0")
    sh(f"ip -n {pod} link set tun0 up")
    plain, cutting = start(include=(pod,)), start(include=(pod,), flow_cut=LIMIT)
    code = """
import fcntl, os, socket, struct, sys
tun = os.open('/dev/net/tun', os.O_RDWR)
fcntl.ioctl(tun, 0x400454ca, struct.pack('16sH22x', b'tun0', 0x1001))
print('open', flush=True); sys.stdin.readline()
def send(port, size, proto=17):
    body = struct.pack('!HHHH', 7000, port, 8 + size, 0) + b'x' * size
    head = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 20 + len(body), port, 0, 9, proto, 0,
                       socket.inet_aton('10.79.1.2'), socket.inet_aton('10.79.1.1'))
    os.write(tun, head + body)
for n in range(60):
    send(9, 1000); send(53, 1000); send(9, 20)
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(('10.79.1.2', 9))
for n in range(40): s.send(b'y' * 1100)
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(('127.0.0.1', 9))
for n in range(60):
    try: s.send(b'z' * 1300)
    except ConnectionRefusedError: pass
print('done', flush=True)
"""
    child = subprocess.Popen(
        ["ip", "netns", "exec", pod, sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    nets.children.append(child)
    assert child.stdout is not None
    assert child.stdin is not None
    with child.stdin:
        assert child.stdout.readline() == "open\n"
        async with connected(plain) as one, connected(cutting) as other:
            for client in (one, other):
                await target(client, pod, rings=2)
            since_s = time.time()
            child.stdin.write("go\n")
            child.stdin.flush()
            assert child.stdout.readline() == "done\n"
            whole, cut = await captured(one, pod), await captured(other, pod)
    assert judge(whole["tun0"], cut["tun0"], 101, tmp_path, since_s)["cut"] > 40
    assert judge(whole["lo"], cut["lo"], 1, tmp_path, since_s)["cut"] > 10


@pytest.mark.root
async def test_where_the_kernel_refuses_everything_is_kept(nets: Nets, tmp_path: Path) -> None:
    """In a user namespace, where bpf(2) is not for us: whole packets, and the recorder says why."""
    script = f"""
import json, subprocess, sys
from tripshark.recorder.config import RecorderConfig
config = RecorderConfig(socket={str(tmp_path / "r.sock")!r}, include=(), flow_cut={LIMIT}, per_target=4 << 20)
subprocess.run(['ip', 'link', 'set', 'lo', 'up'], check=True)
subprocess.run(['mount', '-t', 'tmpfs', 'none', '/run'], check=True)
subprocess.run(['mkdir', '/run/netns'], check=True)
p = subprocess.Popen([sys.executable, '-P', '-m', 'tripshark.programs.recorder', '--json-config', config.to_json()],
                     stdout=subprocess.PIPE, text=True)
said = json.loads(p.stdout.readline())
print(json.dumps(said), flush=True)
p.terminate(); p.wait()
"""
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--net", "--mount", sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
    )
    said = json.loads(done.stdout)
    assert said["ready"], (said, done.stderr)
    assert said["flow_cut"] == 0
    assert "Operation not permitted" in said["flow_cut_refused"]


@pytest.mark.root
async def test_flows_are_cut_again_by_the_next_worker(start: Start, nets: Nets) -> None:
    """A restarted recorder takes the rings over and cuts flows as before; a filter swapped in meanwhile holds."""
    pod, _ = nets.pod()
    process = start(flow_cut=LIMIT)
    async with connected(process) as client:
        await target(client, pod, rings=2)
        program = bpf.compile("not port 9", 1).accepting(SNAPLEN)
        raw = bpf.compile("not port 9", 101).accepting(SNAPLEN)
        await client.set_filter(ethernet=program, raw=raw, snaplen=SNAPLEN)
    process.kill_worker()
    async with connected(process) as client:
        found = await until_async(lambda: target(client, pod, rings=2))
        assert {each.flow_cut for each in found.rings if each.live} == {LIMIT}
        code = (
            "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
            "for port in (9, 10):\n for n in range(40): s.sendto(b'x' * 1000, ('10.77.1.2', port))"
        )
        assert nets.start(pod, code).wait(20) == 0
        packets = (await captured(client, pod))["eth0"]
    sent = [(data, kept) for data, kept, length, _ in each(packets) if length == 1042]
    assert len(sent) == 40
    assert {data[36:38] for data, _ in sent} == {b"\0\x0a"}
    assert [kept for _, kept in sent[:15]] == [1042] * 15
    assert {kept for _, kept in sent[20:]} == {HEADERS}


# ---- made packets ---------------------------------------------------------------------------------------


class Kernel:
    """Programs as the kernel runs them, without a network."""

    def __init__(
        self, link: Link, *, limit: int = LIMIT, entries: int = 256, **more: bytes
    ) -> None:
        if why := flowcut.refusal():
            pytest.skip(f"no eBPF here: {why}")
        self.flows = Flows(entries)
        self.program = self.flows.program(Cut(link=link, limit=limit, snaplen=SNAPLEN, **more))

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, *_: object) -> None:
        self.flows.close()

    def __call__(self, packet: bytes) -> int:
        """How much of it would be kept."""
        result, _ = ebpf.try_out(self.program, packet)
        return min(result, len(packet))


@dataclass(frozen=True)
class Made:
    """A packet, and what it is."""

    data: bytes
    flow: tuple[object, int] | None
    syn: bool = False


NAMES4 = ["10.0.0.1", "10.0.0.2", "10.0.0.200"]
NAMES6 = ["fd00::1", "fd00::2", "fd01::1"]
PORTS = [53, 80, 443, 40_000]


@st.composite
def made(draw: st.DrawFn, link: Link = Link.ETHERNET) -> Made:
    """Any packet that a machine might send, whole."""
    six = draw(st.booleans())
    protocol = draw(st.sampled_from([6, 17, 1, 58, 132, 50, 47, 89]))
    ports = draw(st.sampled_from(PORTS)), draw(st.sampled_from(PORTS))
    flags = draw(st.sampled_from([SYN, SYN | ACK, ACK, ACK | 8, 4, 1 | ACK]))
    size = draw(st.one_of(st.integers(0, 140), st.integers(140, 1400)))
    if protocol == 6:
        head = struct.pack("!HHIIBBHHH", *ports, 1, 1, 0x50, flags, 0, 0, 0)
    else:
        head = struct.pack("!HHHH", *ports, 8 + size, 0)
    body = head + draw(st.binary(min_size=1, max_size=1)) * size
    known = protocol in (6, 17, 132)
    later = False
    source, destination = draw(st.permutations(NAMES6 if six else NAMES4))[:2]
    if six:
        chain, first = b"", protocol
        for kind in reversed(
            draw(st.lists(st.sampled_from([0, 43, 60, 51, 44, 135]), max_size=4))
        ):
            if kind == 44:
                offset = draw(st.sampled_from([0, 0, 1, 184]))
                chain = struct.pack("!BBHI", first, 0, offset << 3 | 1, 7) + chain
                later = later or offset > 0
            elif kind == 51:
                chain = bytes([first, 4]) + b"\1" * 22 + chain
            else:
                more = draw(st.integers(0, 3))
                chain = bytes([first, more]) + b"\0" * (6 + 8 * more) + chain
            first = kind
        if later:
            # what is behind the first later fragment's header nobody can know: only `first` of it is right
            protocol, known = _behind_fragment(chain, first), False
        addresses = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(
            socket.AF_INET6, destination
        )
        packet = struct.pack("!IHBB", 6 << 28, len(chain) + len(body), first, 9) + addresses
        packet += chain + body
        ethertype = 0x86DD
    else:
        options = b"\1" * 4 * draw(st.integers(0, 10))
        offset = draw(st.sampled_from([0, 0, 0, 1, 185]))
        later = offset > 0
        known = known and not later
        packet = struct.pack(
            "!BBHHHBBH4s4s",
            0x45 + len(options) // 4,
            0,
            20 + len(options) + len(body),
            1,
            offset,
            9,
            protocol,
            0,
            socket.inet_aton(source),
            socket.inet_aton(destination),
        )
        packet += options + body
        ethertype = 0x0800
    if link is Link.ETHERNET:
        tags = draw(st.lists(st.sampled_from([0x8100, 0x88A8]), max_size=2))
        inside = b"".join(struct.pack("!HH", tpid, 7) for tpid in tags)
        packet = b"\2" * 12 + inside + struct.pack("!H", ethertype) + packet
    flow = identified(source, destination, protocol, ports if known else None)
    return Made(packet, flow, protocol == 6 and known and flags & (SYN | ACK) == SYN)


def _behind_fragment(chain: bytes, first: int) -> int:
    """The kind of what follows the first fragment header that is not the first fragment's."""
    at, kind = 0, first
    while True:
        following, size = chain[at], chain[at + 1]
        if kind == 44:
            if int.from_bytes(chain[at + 2 : at + 4]) >> 3:
                return following
            at += 8
        elif kind == 51:
            at += 4 * (size + 2)
        else:
            at += 8 * (size + 1)
        kind = following


@pytest.mark.root
@pytest.mark.parametrize("link", list(Link))
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_made_packets_are_kept_as_the_model_says(link: Link, data: st.DataObject) -> None:
    """Tags, options, extension headers, fragments, all protocols: kernel and model agree on a sequence of packets."""
    limit = 2048
    packets = data.draw(st.lists(made(link), min_size=1, max_size=24))
    with Kernel(link, limit=limit) as kernel:
        model = Model(limit)
        for packet in packets * 2:
            length, now = len(packet.data), time.monotonic()
            kept = kernel(packet.data)
            expected = model.expect(packet.flow, length, now, syn=packet.syn)
            assert kept in expected, (packet, kept, expected)
            model.kept(packet.flow, length, kept, now)


@functools.cache
def _kernels() -> dict[Link, Kernel]:
    return {link: Kernel(link, limit=200) for link in Link}


@pytest.mark.root
@settings(max_examples=400, deadline=None)
@given(
    link=st.sampled_from(list(Link)),
    packet=st.one_of(
        st.binary(min_size=1, max_size=300),
        st.tuples(made(), st.integers(1, 1500)).map(lambda each: each[0].data[: each[1]]),
    ),
)
@example(link=Link.RAW_IP, packet=b"\x45" * 20)
def test_nothing_is_ever_rejected(link: Link, packet: bytes) -> None:
    """Whatever the bytes are, headers are kept at least; of a short packet all."""
    assert _kernels()[link](packet) >= min(len(packet), HEADERS)


OPERATORS = [
    "tcp port 80 or udp",
    "not port 443",
    "ip6 and not icmp6",
    "net 10.0.0.0/24 and (tcp[13] & 2 != 0 or greater 200)",
    "vlan",
    "ether[100] > 3 and len <= 700",
    "ip[0] & 0xf > 5 and tcp[((tcp[12] & 0xf0) >> 2):2] != 0",
    "ip[2:2] - ip[6:2] * 3 / 2 % 7 < 400",
]


@pytest.mark.root
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(expression=st.sampled_from(OPERATORS), packet=made(), most=st.integers(1, 1500))
def test_an_operators_filter_still_holds(expression: str, packet: Made, most: int) -> None:
    """In front of the flows' table a filter lets through what libpcap says, nothing else."""
    program = bpf.compile(expression, 1)
    data = packet.data[:most]
    wanted = bpf.oracle(program, data, len(data)) != 0
    with Kernel(Link.ETHERNET, operator=program.accepting(SNAPLEN)) as kernel:
        assert (kernel(data) > 0) == wanted


def frame(protocol: int, source: int, destination: int, size: int, flags: int = ACK) -> bytes:
    """A packet from 10.0.0.1 to .2, or back where it comes from port 80."""
    head = (
        struct.pack("!HHIIBBHHH", source, destination, 1, 1, 0x50, flags, 0, 0, 0)
        if protocol == 6
        else struct.pack("!HHHH", source, destination, 8 + size, 0)
    )
    body = head + b"x" * size
    ip = struct.pack(
        "!BBHHHBBH4s4s",
        0x45,
        0,
        20 + len(body),
        0,
        0,
        9,
        protocol,
        0,
        *((b"\x0a\0\0\2", b"\x0a\0\0\1") if source == 80 else (b"\x0a\0\0\1", b"\x0a\0\0\2")),
    )
    return b"\2" * 12 + b"\x08\0" + ip + body


@pytest.mark.root
def test_a_syn_begins_anew() -> None:
    """The same ports used again: both directions have their whole allowance; a SYN|ACK gives none."""
    there, back = frame(6, 4000, 80, 1400), frame(6, 80, 4000, 1400)
    with Kernel(Link.ETHERNET, limit=3000) as kernel:
        for packet in (there, back):
            assert [kernel(packet) for _ in range(4)][0::3] == [len(packet), HEADERS]
        kernel(frame(6, 80, 4000, 0, SYN | ACK))
        assert kernel(there) == HEADERS
        kernel(frame(6, 4000, 80, 0, SYN))
        assert (kernel(there), kernel(back)) == (len(there), len(back))


@pytest.mark.root
def test_more_flows_than_the_table_holds_lose_detail_only() -> None:
    """Five thousand flows in a table of 256: all packets are there, and a busy flow is not forgotten for them."""
    with Kernel(Link.ETHERNET, limit=3000, entries=256) as kernel:
        busy = frame(6, 4000, 80, 1400)
        for _ in range(3):
            kernel(busy)
        again = 0
        for number in range(5000):
            packet = frame(17, 1024 + number, 80, 600)
            assert kernel(packet) == len(packet)
            if number % 20 == 0:
                again += kernel(busy) > HEADERS
        assert again < 100


@pytest.mark.root
def test_small_packets_fill_no_table() -> None:
    """A flood of connection attempts leaves what is known of other flows alone."""
    with Kernel(Link.ETHERNET, limit=3000, entries=256) as kernel:
        busy = frame(6, 4000, 80, 1400)
        for _ in range(3):
            kernel(busy)
        for number in range(5000):
            kernel(frame(6, 1024 + number, 81, 0, SYN))
        assert kernel(busy) == HEADERS


@pytest.mark.root
def test_a_table_takes_no_more_memory_than_is_budgeted() -> None:
    """What the kernel says a table takes is within what a target is charged for it."""
    if why := flowcut.refusal():
        pytest.skip(f"no eBPF here: {why}")
    for entries in (flowcut.LEAST_FLOWS, 4096, flowcut.MOST_FLOWS):
        flows = Flows(entries)
        told = Path(f"/proc/self/fdinfo/{flows.fd}").read_text()
        flows.close()
        assert int(told.split("memlock:")[1].split()[0]) <= flows.bytes + 4096


@pytest.mark.root
def test_the_clock_gives_back() -> None:
    """A flow that is silent has its allowance back: after a second a sixtieth of it."""
    with Kernel(Link.ETHERNET, limit=60_000) as kernel:
        packet = frame(17, 4000, 80, 1400)
        until(lambda: kernel(packet) == HEADERS)
        silent_since = time.monotonic()
        until(lambda: time.monotonic() > silent_since + 0.7)
        assert kernel(packet) >= 500
