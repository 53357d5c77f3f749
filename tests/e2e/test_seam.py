"""Nothing lost, nothing doubled: what is sealed equals what dumpcap saw beside it, across the freeze/follow seam."""

from __future__ import annotations

import struct
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import requires_root
from tests.e2e.machine import (
    Machine,
    Network,
    evidence_files,
    falco_event,
    manifest,
    run,
    tshark,
    wait_for,
)
from tripshark.formats import pcapng

pytestmark = [pytest.mark.root, requires_root, pytest.mark.timeout(120)]

POD = {"namespace": "payments", "pod": "checkout-7d9f"}

RULE = """
- rule: everything of the pod
  match: {rules: ["Seam"]}
  capture: {scope: pod, before: 2s, after: 2s, max: {bytes: 500MB, packets: 2M}}
- rule: one flow
  match: {rules: ["Flow seam"]}
  capture: {before: 2s, after: 2s, max: {bytes: 500MB, packets: 2M}}
"""

# UDP to [host] at 1 kHz, the payload begins with a number; an absolute schedule, so that load does not slow it
SENDER = """
import socket, struct, sys, time
host, port, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
family = socket.AF_INET6 if ":" in host else socket.AF_INET
s = socket.socket(family, socket.SOCK_DGRAM)
s.connect((host, port))
print("up", s.getsockname()[1], flush=True)
start = time.perf_counter()
n = 0
while n < int(sys.argv[4]):
    s.send(struct.pack("!QI", 0x5452495053484152, n) + b"x" * size)
    n += 1
    ahead = start + n / 1000 - time.perf_counter()
    if ahead > 0: time.sleep(ahead)
"""

SINK = """
import socket, sys
host, port = sys.argv[1], int(sys.argv[2])
family = socket.AF_INET6 if ":" in host else socket.AF_INET
s = socket.socket(family, socket.SOCK_DGRAM); s.bind((host, port)); print("up", flush=True)
while True: s.recv(65536)
"""

# the same from the other side in frames with an 802.1Q tag, which the kernel strips on arrival (VLAN 7)
TAGGED = """
import socket, struct, sys, time
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(("eth0", 0))
head = bytes.fromhex(sys.argv[1]) + b"\\2" * 6 + struct.pack("!HHH", 0x8100, 7, 0x0800)
print("up", flush=True)
start = time.perf_counter()
for n in range(int(sys.argv[2])):
    data = struct.pack("!QI", 0x5452495053484152, n) + b"x" * 40
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28 + len(data), 0, 0, 64, 17, 0,
                     socket.inet_aton("10.68.0.2"), socket.inet_aton("10.68.0.1"))
    s.send(head + ip + struct.pack("!HHHH", 5000, 5000, 8 + len(data), 0) + data)
    ahead = start + n / 1000 - time.perf_counter()
    if ahead > 0: time.sleep(ahead)
"""

MAGIC = struct.pack("!Q", 0x5452495053484152)


def rules(folder: Path) -> str:
    path = folder / "rules.yaml"
    path.write_text(RULE)
    return str(path)  # read before root is given up


def numbers(path: Path, since_ns: int, until_ns: int) -> Counter[int]:
    """Numbers of the stream within a stretch of time, by how often each is there."""
    packets = pcapng.read(path.read_bytes()).packets
    found: Counter[int] = Counter()
    for index in range(len(packets)):
        if since_ns <= packets.time_ns[index] <= until_ns:
            at = (data := packets.bytes_of(index)).find(MAGIC)
            if at >= 0:
                found[struct.unpack_from("!I", data, at + 8)[0]] += 1
    return found


def dumpcap(network: Network, where: str, interface: str, path: Path) -> Callable[[], None]:
    """dumpcap beside us; the returned function ends it."""
    process = network.spawn(where, "dumpcap", "-q", "-B", "64", "-i", interface, "-w", str(path))
    wait_for(lambda: path.exists() and path.stat().st_size > 0, "dumpcap to begin")

    def end() -> None:
        process.terminate()
        process.wait(60)

    return end


def start(
    machine: Callable[..., Machine], network: Network, tmp_path: Path
) -> tuple[Machine, str, str]:
    """Tripshark runs before the pod is born."""
    pod_name = f"ts-{network.prefix}-pod"
    made = machine(
        rules=[rules(tmp_path)],
        recorder={
            "include": [f"ts-{network.prefix}-*"],
            "per_target": "64MB",
            "flow_cut": 0,  # what is compared is every byte
        },
        targets={"static": [{"netns": pod_name, **POD}]},
    )
    return made, network.namespace("pod"), network.namespace("far")


@pytest.mark.parametrize(
    ("host", "size", "mtu"),
    [("10.66.0.2", 40, 1500), ("2001:db8:66::2", 40, 1500), ("10.66.0.2", 8000, 9000)],
    ids=["ipv4", "ipv6", "jumbo"],
)
def test_every_number_is_there_once(
    machine: Callable[..., Machine],
    network: Network,
    tmp_path: Path,
    host: str,
    size: int,
    mtu: int,
) -> None:
    """1 kHz of numbered datagrams, an alert in the middle: the window holds each number exactly once."""
    tripshark, pod, far = start(machine, network, tmp_path)
    network.veth(pod, far, net6="2001:db8:66", mtu=mtu)
    tripshark.wait_recorded(pod)
    network.python(far, SINK, host, "5000").stdout.readline()  # type: ignore[union-attr]
    beside = tmp_path / "dumpcap.pcapng"
    end = dumpcap(network, pod, "eth0", beside)
    sender = network.python(pod, SENDER, host, "5000", str(size), "7000")
    assert sender.stdout is not None
    sender.stdout.readline()
    time.sleep(3)  # the stream itself is the clock: the alert comes in its middle
    t0_ns = time.time_ns()
    tripshark.post(falco_event(rule="Seam", time_ns=t0_ns))
    (incident,) = tripshark.wait_sealed()
    sender.wait(60)
    end()
    (path,) = evidence_files(incident)
    since_ns, until_ns = t0_ns - 2_000_000_000, t0_ns + 2_000_000_000
    ours, theirs = numbers(path, since_ns, until_ns), numbers(beside, since_ns, until_ns)
    assert set(ours.values()) == {1}
    assert ours == theirs
    assert len(ours) > 3000  # a busy machine delays the sender, which then catches up
    assert manifest(incident)["ledger"] == {"word": "complete", "entries": []}


def test_two_interfaces_and_vlan(
    machine: Callable[..., Machine], network: Network, tmp_path: Path
) -> None:
    """Each interface is recorded; tags that the kernel strips are put back, and the flow filter finds tagged packets."""
    tripshark, pod, far = start(machine, network, tmp_path)
    network.veth(pod, far)
    network.veth(pod, far, name="net1", net="10.67.0")
    for interface in ("eth0", "net1"):
        tripshark.wait_recorded(pod, interface)
    for host in ("10.66.0.2", "10.67.0.2"):
        network.python(far, SINK, host, "5000").stdout.readline()  # type: ignore[union-attr]
    ends = [dumpcap(network, pod, name, tmp_path / f"{name}.pcapng") for name in ("eth0", "net1")]
    senders = [
        network.python(pod, SENDER, host, "5000", "40", "4500")
        for host in ("10.66.0.2", "10.67.0.2")
    ]
    mac = run("ip", "-n", pod, "-o", "link", "show", "eth0").split("link/ether ")[1].split()[0]
    senders.append(network.python(far, TAGGED, mac.replace(":", ""), "4500"))
    for sender in senders:
        sender.stdout.readline()  # type: ignore[union-attr]
    time.sleep(2.2)
    t0_ns = time.time_ns()
    tripshark.post(falco_event(rule="Seam", time_ns=t0_ns))
    (incident,) = tripshark.wait_sealed()
    for sender in senders:
        sender.wait(60)
    for end in ends:
        end()
    (path,) = evidence_files(incident)
    packets = pcapng.read(path.read_bytes())
    since_ns, until_ns = t0_ns - 2_000_000_000, t0_ns + 2_000_000_000
    names = {each.name.rpartition(":")[2]: n for n, each in enumerate(packets.interfaces)}
    for interface in ("eth0", "net1"):
        part = packets.packets.take(packets.packets.source == names[interface])
        ours: Counter[tuple[bool, int]] = Counter()
        for index in range(len(part)):
            data = part.bytes_of(index)
            at = data.find(MAGIC)
            if at >= 0 and since_ns <= part.time_ns[index] <= until_ns:
                ours[data[12:14] == b"\x81\x00", struct.unpack_from("!I", data, at + 8)[0]] += 1
        theirs = pcapng.read((tmp_path / f"{interface}.pcapng").read_bytes()).packets
        seen: Counter[tuple[bool, int]] = Counter()
        for index in range(len(theirs)):
            data = theirs.bytes_of(index)
            at = data.find(MAGIC)
            if at >= 0 and since_ns <= theirs.time_ns[index] <= until_ns:
                seen[data[12:14] == b"\x81\x00", struct.unpack_from("!I", data, at + 8)[0]] += 1
        assert set(ours.values()) == {1}
        assert ours == seen
    assert tshark(path, "-Y", "vlan.id == 7 && udp", "-T", "fields", "-e", "frame.number")
    assert manifest(incident)["ledger"]["word"] == "complete"  # type: ignore[index]


def test_tcp_bulk_with_offload(
    machine: Callable[..., Machine], network: Network, tmp_path: Path
) -> None:
    """Super-packets beyond 64 kB of TCP segmentation offload: the flow's bytes are all there, in order, once."""
    tripshark, pod, far = start(machine, network, tmp_path)
    network.veth(pod, far)
    tripshark.wait_recorded(pod)
    server = network.python(
        far,
        "import socket\n"
        "l = socket.create_server(('10.66.0.2', 5001)); print('up', flush=True)\n"
        "c, _ = l.accept()\n"
        "while c.recv(1 << 20): pass\n",
    )
    server.stdout.readline()  # type: ignore[union-attr]
    beside = tmp_path / "dumpcap.pcapng"
    end = dumpcap(network, pod, "eth0", beside)
    client = network.python(
        pod,
        "import socket, time\n"
        "s = socket.create_connection(('10.66.0.2', 5001)); print(s.getsockname()[1], flush=True)\n"
        "start = time.perf_counter()\n"
        "for n in range(160):\n"  # 10 MB/s in bursts of 256 kB
        "    s.sendall(n.to_bytes(4, 'big') * 65536)\n"
        "    time.sleep(max(0, start + n * 0.025 - time.perf_counter()))\n",
    )
    port = int(client.stdout.readline())  # type: ignore[union-attr]
    time.sleep(1.5)
    t0_ns = time.time_ns()
    tripshark.post(
        falco_event(
            rule="Flow seam", time_ns=t0_ns, connection=f"10.66.0.1:{port}->10.66.0.2:5001"
        )
    )
    (incident,) = tripshark.wait_sealed()
    client.wait(60)
    end()
    (path,) = evidence_files(incident)
    ours, theirs = pcapng.read(path.read_bytes()).packets, pcapng.read(beside.read_bytes()).packets
    assert int(ours.length.max()) > 9000  # offload was on
    until_ns = t0_ns + 2_000_000_000
    first_ns = int(ours.time_ns.min())

    def frames(packets: object) -> Counter[tuple[int, bytes]]:
        found: Counter[tuple[int, bytes]] = Counter()
        for index in range(len(packets)):  # type: ignore[arg-type]
            at_ns = int(packets.time_ns[index])  # type: ignore[attr-defined]
            data = packets.bytes_of(index)  # type: ignore[attr-defined]
            if first_ns <= at_ns <= until_ns and data[12:14] == b"\x08\x00":
                found[len(data), data[34:54]] += 1
        return found

    assert frames(ours) == frames(theirs)
    syn = tshark(
        path,
        "-Y",
        "tcp.flags.syn == 1 && tcp.flags.ack == 0",
        "-T",
        "fields",
        "-e",
        "frame.number",
    )
    assert syn == ["1"] or syn  # the flow was captured from its first packet
    assert manifest(incident)["ledger"]["word"] == "complete"  # type: ignore[index]
