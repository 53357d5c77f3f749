"""Real packets from within namespaces, made by sockets of this very process: no program to start, no wait."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tests.e2e.machine import Machine, Network, falco_event, manifest, run, wait_for

T = TypeVar("T")

NAMESPACE = "flows"
_CLONE_NEWNET = 0x4000_0000  # linux/sched.h
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x4004_54CA, 0x0001, 0x1000  # linux/if_tun.h
_LIBC = ctypes.CDLL(None, use_errno=True)


def within(namespace: str, act: Callable[[], T]) -> T:
    """What `act` returns when it runs in a namespace: sockets made there stay there."""
    answer: list[T] = []
    failure: list[Exception] = []

    def enter() -> None:
        try:
            entry = os.open(f"/run/netns/{namespace}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                if _LIBC.setns(entry, _CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
            finally:
                os.close(entry)
            answer.append(act())
        except Exception as problem:  # noqa: BLE001 - handed on to whoever called
            failure.append(problem)

    thread = threading.Thread(target=enter)  # a thread's namespace is its own and ends with it
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return answer[0]


@dataclass(slots=True)
class Pod:
    """A namespace with an address of each family, and a far end that nobody records."""

    name: str
    netns: str
    far: str
    number: int
    sockets: list[socket.socket] = field(default_factory=list)

    @property
    def ip(self) -> str:
        return f"10.67.{self.number}.1"

    @property
    def peer(self) -> str:
        return f"10.67.{self.number}.2"

    @property
    def ip6(self) -> str:
        return f"2001:db8:67:{self.number:x}::1"

    @property
    def peer6(self) -> str:
        return f"2001:db8:67:{self.number:x}::2"

    def socket(
        self,
        where: str,
        family: int = socket.AF_INET,
        kind: int = socket.SOCK_STREAM,
        proto: int = 0,
    ) -> socket.socket:
        made = within(where, lambda: socket.socket(family, kind, proto))
        made.settimeout(60)
        self.sockets.append(made)
        return made

    def tcp(
        self, client: str, server: str, address: str, port: int, *, at: float = 0
    ) -> tuple[int, int]:
        """One exchange `ping`/`pong` over a fresh connection; the client's port, and a time within it.

        The time lies between the handshake and the first data.
        """
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listening, connecting = self.socket(server, family), self.socket(client, family)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((address, port))
        listening.listen()
        connecting.connect((address, port))
        accepted, _ = listening.accept()
        accepted.settimeout(60)
        time.sleep(0.002)
        t0_ns = time.time_ns()
        time.sleep(max(0.002, at))
        connecting.sendall(b"ping")
        assert accepted.recv(100) == b"ping"
        accepted.sendall(b"pong")
        assert connecting.recv(100) == b"pong"
        own = int(connecting.getsockname()[1])
        for each in (connecting, accepted, listening):
            each.close()
        return own, t0_ns

    def udp(
        self, client: str, server: str, address: str, port: int, data: bytes = b"ping"
    ) -> tuple[int, int]:
        """A datagram and its answer `pong`; the client's port, and a time between the two."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listening = self.socket(server, family, socket.SOCK_DGRAM)
        listening.bind((address, port))
        asking = self.socket(client, family, socket.SOCK_DGRAM)
        asking.sendto(data, (address, port))
        said, whom = listening.recvfrom(65536)
        assert said == data
        time.sleep(0.002)
        t0_ns = time.time_ns()
        time.sleep(0.002)
        listening.sendto(b"pong", whom)
        assert asking.recv(100) == b"pong"
        own = int(asking.getsockname()[1])
        asking.close()
        listening.close()
        return own, t0_ns

    def noise(self) -> None:
        """Traffic that no flow and no peer filter of these tests is about: another address of the far end."""
        self.tcp(self.netns, self.far, f"10.67.{self.number}.99", 9999)
        self.udp(self.netns, self.far, f"10.67.{self.number}.99", 9998, b"noise")

    def raw(self, protocol: int, data: bytes) -> None:
        """One IPv4 packet of any protocol to the far end."""
        self.socket(self.netns, kind=socket.SOCK_RAW, proto=protocol).sendto(data, (self.peer, 0))

    def tun(self, name: str, address: str) -> int:
        """A tun interface, up; the descriptor at which its packets come out and go in."""

        def make() -> int:
            end = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
            fcntl.ioctl(
                end, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI)
            )
            return end

        end = within(self.netns, make)
        run("ip", "-n", self.netns, "addr", "add", address, "dev", name)
        run("ip", "-n", self.netns, "link", "set", name, "up")
        return end

    def close(self) -> None:
        for each in self.sockets:
            each.close()
        self.sockets.clear()


def make_pods(network: Network, names: Sequence[str]) -> dict[str, Pod]:
    """One pod per name, all linked to one far end; made in two batches, since each `ip` costs time."""
    far = network.namespace("far")
    pods = {
        name: Pod(name=name, netns=f"ts-{network.prefix}-{name}", far=far, number=number)
        for number, name in enumerate(names, 1)
    }
    for pod in pods.values():
        network.adopt(pod.netns)
    _batch([], [f"netns add {pod.netns}" for pod in pods.values()])
    _batch(
        ["-n", far],
        [
            line
            for pod in pods.values()
            for line in (
                f"link add e{pod.number} type veth peer name eth0 netns {pod.netns}",
                f"addr add {pod.peer}/24 dev e{pod.number}",
                f"addr add 10.67.{pod.number}.99/24 dev e{pod.number}",
                f"addr add {pod.peer6}/64 dev e{pod.number} nodad",
                f"link set e{pod.number} up",
            )
        ],
    )
    for pod in pods.values():
        _batch(
            ["-n", pod.netns],
            [
                "link set lo up",
                f"addr add {pod.ip}/24 dev eth0",
                f"addr add {pod.ip6}/64 dev eth0 nodad",
                "link set eth0 up",
            ],
        )
    return pods


def _batch(options: Sequence[str], lines: Sequence[str]) -> None:
    done = subprocess.run(
        ["ip", *options, "-batch", "-"],
        input="\n".join(lines) + "\n",
        text=True,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def wait_all_recorded(
    machine: Machine, pods: Mapping[str, Pod], *, interface: str = "eth0"
) -> None:
    """Until every pod has a ring on the interface and on lo, and its addresses are known."""

    def ready() -> bool:
        known = {t["name"]: t for t in machine.get("/v1/targets")["targets"]}  # type: ignore[attr-defined]
        for pod in pods.values():
            target = known.get(f"netns:{pod.netns}")
            if target is None or not {pod.ip, pod.ip6} <= set(target["addresses"]):
                return False
            if not {interface, "lo"} <= {r["interface"] for r in target["rings"] if r["live"]}:
                return False
        return True

    wait_for(ready, "every pod to be recorded", seconds=60)


# ---------------------------------------------------------------------------------- what was sealed

FIELDS = (
    "frame.number",
    "frame.time_epoch",
    "frame.protocols",
    "frame.packet_flags_direction",
    "frame.comment",
    "frame.interface_description",
    "ip.src",
    "ip.dst",
    "ipv6.src",
    "ipv6.dst",
    "tcp.srcport",
    "tcp.dstport",
    "udp.srcport",
    "udp.dstport",
    "tcp.flags.str",
    "icmp.type",
    "icmpv6.type",
    "frame.cap_len",
    "systemd_journal.message",
    "systemd_journal.priority",
)

Row = dict[str, str]


@dataclass(frozen=True, slots=True)
class Evidence:
    """One sealed incident as the usual readers see it."""

    incident: Mapping[str, object]
    manifest: Mapping[str, object]
    paths: Sequence[Path]
    rows: Sequence[Row]  # of the first file, in its order
    capinfos: str

    @property
    def path(self) -> Path:
        return self.paths[0]

    @property
    def packets(self) -> list[Row]:
        return [row for row in self.rows if not is_alert(row)]

    @property
    def ledger(self) -> dict[str, str]:
        """What the ledger says, by kind."""
        entries = self.manifest["ledger"]["entries"]  # type: ignore[index]
        return {entry["kind"]: entry["message"] for entry in entries}

    @property
    def count(self) -> dict[str, int]:
        entries = self.manifest["ledger"]["entries"]  # type: ignore[index]
        return {entry["kind"]: entry.get("count", 0) for entry in entries}

    @property
    def part(self) -> Mapping[str, object]:
        (part,) = self.manifest["details"]["what"]["captures"]  # type: ignore[index]
        return dict(part)

    def ports(self, proto: str = "tcp") -> set[frozenset[int]]:
        """Pairs of ports of one protocol, quoted ones of ICMP left out."""
        return {
            frozenset((int(row[f"{proto}.srcport"]), int(row[f"{proto}.dstport"])))
            for row in self.packets
            if row[f"{proto}.srcport"] and "icmp" not in row["frame.protocols"]
        }

    @property
    def is_silent_about_noise(self) -> bool:
        return not any(
            port in (9998, 9999) for p in ("tcp", "udp") for pair in self.ports(p) for port in pair
        )


def is_alert(row: Row) -> bool:
    return "systemd_journal" in row["frame.protocols"]


def read(path: Path, *options: str, fields: Sequence[str] = FIELDS) -> list[Row]:
    """Every row of a file as tshark prints it; fails when tshark complains about anything."""
    arguments = [part for name in fields for part in ("-e", name)]
    done = subprocess.run(
        ["tshark", "-r", str(path), *options, "-T", "fields", "-E", "occurrence=f", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    complaints = [line for line in done.stderr.splitlines() if "Running as user" not in line]
    assert (done.returncode, complaints) == (0, [])
    return [
        dict(zip(fields, line.split("\t"), strict=True)) for line in done.stdout.split("\n")[:-1]
    ]


def readable(path: Path) -> str:
    """What capinfos says, after tcpdump and capinfos have read the file without complaint."""
    seen = subprocess.run(
        ["tcpdump", "-nn", "-r", str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert seen.returncode == 0, seen.stderr
    assert all(line.startswith(("reading from file", "Warning: interface names"))
               for line in seen.stderr.splitlines()), seen.stderr  # fmt: skip
    told = subprocess.run(
        ["capinfos", str(path)], capture_output=True, text=True, check=False, timeout=60
    )
    assert (told.returncode, told.stderr) == (0, "")
    return told.stdout


class Flows:
    """A running Tripshark, its pods, and the way from an alert about one of them to its evidence."""

    def __init__(self, machine: Machine, pods: dict[str, Pod]) -> None:
        self.machine = machine
        self.pods = pods
        self.early: tuple[Pod, int, int] | None = (
            None  # a flow of the beginning: its pod, port, T0
        )

    def alert(self, pod: Pod, t0_ns: int, **event: object) -> Evidence:
        """Post one alert, wait for its incident, and read every file of it with every reader."""
        return self.sealed(
            pod, falco_event(time_ns=t0_ns, namespace=NAMESPACE, pod=pod.name, **event)
        )  # type: ignore[arg-type]

    def sealed(self, pod: Pod, *events: Mapping[str, object]) -> Evidence:
        for event in events:
            self.machine.post(event)

        def done() -> list[dict[str, object]]:
            found = self.machine.get(f"/v1/incidents?namespace={NAMESPACE}&pod={pod.name}")
            incidents = list(found["incidents"])  # type: ignore[call-overload]
            ended = [each for each in incidents if each["state"] not in ("open", "sealing")]
            return ended if len(ended) == len(incidents) else []

        (incident,) = wait_for(done, f"the incident of {pod.name}", seconds=60)
        folder = Path(str(incident["folder"]))
        paths = sorted(folder.glob("evidence*.pcapng"), key=lambda path: len(path.name))
        told = [readable(path) for path in paths]
        for path in paths[1:]:
            read(path)
        return Evidence(incident, manifest(incident), paths, read(paths[0]), told[0])
