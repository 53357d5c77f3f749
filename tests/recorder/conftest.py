"""Real namespaces, a real recorder, and a small reader of ring blocks that shares no code with ours."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from tests.processes import ended_with_us
from tripshark.errors import Transient
from tripshark.formats.wire import Frozen, RingCopy
from tripshark.model.target import Target
from tripshark.recorder.client import RecorderClient
from tripshark.recorder.config import RecorderConfig

T = TypeVar("T")

NUMBERED = """
import socket, struct, sys, time
peer, port, count, rate = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
size = int(sys.argv[5]) if len(sys.argv) > 5 else 40
held = sys.argv[6:] == ['held']
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
if held:
    print('up', flush=True); sys.stdin.readline()
start = time.monotonic()
for n in range(count):
    s.sendto(b'NUMB' + struct.pack('!I', n) + b'.' * (size - 8), (peer, port))
    wait = start + (n + 1) / rate - time.monotonic()
    if wait > 0:
        time.sleep(wait)
print('sent', flush=True)
"""


def sh(command: str, *, check: bool = True) -> str:
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    if check and done.returncode:
        raise AssertionError(f"{command}: {done.stderr}{done.stdout}")
    return done.stdout


def until(condition: Callable[[], object], seconds: float = 60.0) -> object:
    """Wait for a condition; its first true value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)
    return value


async def until_async(ask: Callable[[], Awaitable[T]], seconds: float = 60.0) -> T:
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(Transient):
            if value := await ask():
                return value
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.01)


class Nets:
    """Namespaces of one test, all with its own prefix."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.names: list[str] = []
        self.children: list[subprocess.Popen[str]] = []

    def add(self, name: str) -> str:
        full = f"{self.prefix}{name}"
        sh(f"ip netns add {full}")
        self.names.append(full)
        sh(f"ip -n {full} link set lo up")
        return full

    def pair(self, a: str, b: str, number: int = 1, dev: str = "eth0", peer: str = "eth0") -> None:
        """A veth pair between two namespaces, 10.77.number.1 in `a` and .2 in `b`."""
        for net in (a, b):
            sh(f"ip netns exec {net} sysctl -q -w net.ipv6.conf.default.disable_ipv6=1")
        sh(f"ip link add {dev} netns {a} type veth peer name {peer} netns {b}")
        for net, name, host in ((b, peer, 2), (a, dev, 1)):
            sh(f"ip -n {net} addr add 10.77.{number}.{host}/24 dev {name}")
            sh(f"ip -n {net} link set {name} up")

    def pod(self, name: str = "pod") -> tuple[str, str]:
        """A pod's namespace with eth0 and one that plays the rest of the world."""
        pod, world = self.add(name), self.add(f"{name}-w")
        self.pair(pod, world)
        return pod, world

    def start(self, net: str, code: str, *arguments: object) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            ["ip", "netns", "exec", net, sys.executable, "-c", code, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.children.append(child)
        return child

    def send(
        self,
        net: str,
        count: int,
        rate: float = 100_000,
        *,
        peer: str = "10.77.1.2",
        size: int = 40,
    ) -> subprocess.Popen[str]:
        return self.start(net, NUMBERED, peer, 9, count, rate, size)

    def sender(
        self, net: str, count: int, rate: float, *, size: int = 40
    ) -> Callable[[], subprocess.Popen[str]]:
        """Numbered packets that begin when the answer is called: what starting a program takes is over by then."""
        child = self.start(net, NUMBERED, "10.77.1.2", 9, count, rate, size, "held")
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "up\n"

        def begin() -> subprocess.Popen[str]:
            assert child.stdin is not None
            child.stdin.write("\n")
            child.stdin.flush()
            return child

        return begin

    def delete(self, name: str) -> None:
        sh(f"ip netns del {name}")
        self.names.remove(name)

    def close(self) -> None:
        for child in self.children:
            if child.poll() is None:
                child.kill()
            child.wait()
            for stream in (child.stdin, child.stdout):
                if stream is not None:
                    stream.close()
        for name in self.names:
            sh(f"ip netns del {name}", check=False)


class Process:
    """A recorder as a user starts it."""

    def __init__(self, config: RecorderConfig) -> None:
        self.config = config
        self.child = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-m",
                "tripshark.programs.recorder",
                "--json-config",
                config.to_json(),
            ],
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=ended_with_us,
        )
        assert self.child.stdout is not None
        readable, _, _ = select.select([self.child.stdout], [], [], 60)
        assert readable, "the recorder did not say that it is ready"
        self.ready = json.loads(self.child.stdout.readline())
        assert self.ready["ready"], self.ready

    @property
    def worker(self) -> int:
        """The recorder proper: the holder's only child."""
        path = Path(f"/proc/{self.child.pid}/task/{self.child.pid}/children")
        return int(
            str(until(lambda: path.read_text().split()[:1] and path.read_text().split()[0]))
        )

    def kill_worker(self) -> None:
        """kill -9, and wait until another one answers."""
        old = self.worker
        os.kill(old, signal.SIGKILL)
        until(lambda: self.worker != old)

    def stop(self) -> int:
        if self.child.poll() is None:
            self.child.terminate()
        try:
            return self.child.wait(60)
        finally:
            if self.child.poll() is None:
                self.child.kill()
            if self.child.stdout is not None:
                self.child.stdout.close()


@pytest.fixture
def nets(request: pytest.FixtureRequest) -> Iterator[Nets]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    made = Nets(f"ts-rec{os.getpid() % 10_000}-")
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def start(nets: Nets, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts recorders that see only this test's namespaces."""
    running: list[Process] = []

    def begin(**changes: object) -> Process:
        settings: dict[str, object] = {
            "socket": str(tmp_path / f"r{len(running)}.sock"),
            "include": (f"{nets.prefix}*",),
            "host": False,
            "per_target": 4 << 20,
        }
        process = Process(RecorderConfig(**(settings | changes)))  # type: ignore[arg-type]
        running.append(process)
        return process

    yield begin
    for process in running:
        process.stop()


@contextlib.asynccontextmanager
async def connected(process: Process) -> AsyncIterator[RecorderClient]:
    client = RecorderClient(process.config.socket)
    try:
        yield client
    finally:
        client.close()


async def target(client: RecorderClient, name: str, *, rings: int = 1) -> Target:
    """The living target of that name, once it has so many rings."""

    async def ask() -> Target | None:
        for each in await client.targets():
            if each.name == f"netns:{name}" and sum(r.live for r in each.rings) >= rings:
                return each
        return None

    found = await until_async(ask)
    assert found is not None
    return found


def packets(copy: RingCopy) -> Iterator[tuple[int, int, int, bytes]]:
    """(seq, position, time_ns, bytes) of every whole packet of a copy."""
    for block in copy.blocks:
        count, first, length, seq = struct.unpack_from("=IIIQ", copy.data, block.offset + 12)
        assert (seq, length) == (block.seq, block.length)
        at = block.offset + first
        for position in range(count):
            step, sec, nsec, size, _, status, mac = struct.unpack_from("=IIIIIIH", copy.data, at)
            if not status & 1:
                assert block.open, "a retired block holds only whole packets"
                break
            yield seq, position, sec * 10**9 + nsec, bytes(copy.data[at + mac : at + mac + size])
            at += step


def number(packet: bytes) -> int | None:
    """The number a test gave a packet."""
    for at in (
        42,
        28,
    ):  # behind Ethernet, IP and UDP, or IP and UDP; an ICMP error quotes it further on
        if packet[at : at + 4] == b"NUMB":
            return int(struct.unpack_from("!I", packet, at + 4)[0])
    return None


def numbers(frozen: Frozen, interface: str = "eth0") -> list[int]:
    """The numbers in a frozen history, in order."""
    return [
        n
        for copy in frozen.copies
        if copy.interface.name == interface
        for *_, data in packets(copy)
        if (n := number(data)) is not None
    ]


def has_link(net: str, name: str) -> bool:
    done = subprocess.run(["ip", "-n", net, "link", "show", name], capture_output=True)
    return done.returncode == 0


def connect_raw(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.settimeout(60)
    sock.connect(path)
    return sock
