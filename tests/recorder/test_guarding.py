"""What the recorder may, who may use it, and what a hostile client achieves."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.recorder.conftest import (
    Nets,
    Process,
    connect_raw,
    connected,
    number,
    numbers,
    packets,
    sh,
    target,
    until_async,
)
from tests.recorder.test_recording import frozen_with
from tripshark.errors import BadInput, NotFound
from tripshark.recorder.config import RecorderConfig

pytestmark = pytest.mark.root

Start = Callable[..., Process]
KEPT = 1 << 13 | 1 << 19 | 1 << 21 | 1 << 2


def status(pid: int, tid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/task/{tid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (each.partition(":") for each in lines)}


async def test_only_the_named_capabilities_are_left(start: Start, nets: Nets) -> None:
    """Every thread of holder and worker has four capabilities, in three sets, and no way to get more."""
    nets.pod()
    process = start()
    for pid in (process.child.pid, process.worker):
        for tid in map(int, os.listdir(f"/proc/{pid}/task")):
            found = status(pid, tid)
            for kind in ("CapPrm", "CapEff", "CapBnd"):
                assert int(found[kind], 16) == KEPT, (pid, tid, kind)
            for kind in ("CapInh", "CapAmb"):
                assert int(found[kind], 16) == 0, (pid, tid, kind)
            assert found["NoNewPrivs"] == "1"


def test_without_capabilities_it_says_what_is_missing(nets: Nets, tmp_path: Path) -> None:
    """An unprivileged start ends with the names of what it lacks."""
    config = RecorderConfig(socket=str(tmp_path / "r.sock"))
    python = [sys.executable, "-P", "-m", "tripshark.programs.recorder"]
    done = subprocess.run(
        [
            *("setpriv", "--inh-caps=-all", "--bounding-set=-all", "--ambient-caps=-all"),
            *(*python, "--json-config", config.to_json()),
        ],
        capture_output=True,
        text=True,
    )
    error = json.loads(done.stdout)["error"]
    assert done.returncode == 1
    assert "CAP_NET_RAW" in error["message"]
    assert "CAP_SYS_ADMIN" in error["message"]


def test_it_records_in_a_user_namespace(nets: Nets, tmp_path: Path) -> None:
    """Fake root is enough for one's own namespaces."""
    script = f"""
set -e
mount -t tmpfs none /run
ip link set lo up
ip netns add inner
ip -n inner link set lo up
exec {sys.executable} -P -m tripshark.programs.recorder --json-config '{
        json.dumps({"socket": str(tmp_path / "r.sock"), "per_target": 4 << 20})
    }'
"""
    child = subprocess.Popen(
        ["unshare", "--user", "--map-root-user", "--net", "--mount", "sh", "-c", script],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    with child.stdout:
        try:
            ready = json.loads(child.stdout.readline())
            assert ready["ready"], ready
            assert (ready["targets"], ready["rings"]) == (2, 2)
        finally:
            child.terminate()
            assert child.wait(15) == 0


async def test_strangers_are_refused(start: Start, nets: Nets) -> None:
    """Another user is told so and closed, whatever the file's mode; the group's members are served."""
    nets.pod()
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        process = start(group=54_321, socket=f"{folder}/r.sock")
        info = os.stat(process.config.socket)
        assert (info.st_mode & 0o777, info.st_gid) == (0o660, 54_321)
        os.chmod(process.config.socket, 0o666)
        assert greeted_as(process, groups=[], gid=65_534)["code"] == "denied"
        assert greeted_as(process, groups=[54_321], gid=65_534)["t"] == "hello"
        assert greeted_as(process, groups=[], gid=54_321)["t"] == "hello"


def greeted_as(process: Process, *, groups: list[int], gid: int) -> dict[str, object]:
    """What the recorder says to user 65534 of these groups: a thread's own identity is what the kernel tells."""
    libc = ctypes.CDLL(None, use_errno=True)
    setgroups, setresgid, setresuid = 116, 119, 117  # x86-64; glibc would change the whole process
    answers: list[bytes] = []

    def work() -> None:
        listed = (ctypes.c_uint * len(groups))(*groups)
        assert libc.syscall(setgroups, len(groups), listed) == 0
        assert libc.syscall(setresgid, gid, gid, gid) == 0
        assert libc.syscall(setresuid, 65_534, 65_534, 65_534) == 0
        with connect_raw(process.config.socket) as sock:
            sock.send(b'{"t":"hello","id":1,"version":1}')
            answers.append(sock.recv(65_536))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    answer: dict[str, object] = json.loads(answers[0])
    return answer


async def test_hostile_clients_hurt_only_themselves(start: Start, nets: Nets) -> None:
    """Garbage, wrong types, floods and silence are answered or cut off, and recording goes on."""
    pod, _ = nets.pod()
    process = start()
    hello = b'{"t":"hello","id":1,"version":1}'
    garbage = [
        b"\x00\xff" * 100,
        b"[" * 60_000,
        b"{}",
        b'{"t":"hello","id":1,"version":2}',
        b'{"t":"targets","id":1}',
        b'{"t":"hello","id":true,"version":1}',
    ]
    for each in garbage:
        with connect_raw(process.config.socket) as sock:
            sock.send(each)
            assert json.loads(sock.recv(65_536))["t"] == "error"
            assert sock.recv(65_536) == b"", "closed before it said hello"
    with connect_raw(process.config.socket) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        sock.send(hello)
        assert json.loads(sock.recv(65_536))["t"] == "hello"
        for request in [
            {"t": "freeze", "keys": 7},
            {"t": "freeze", "keys": [7]},
            {"t": "freeze", "keys": ["x"] * 65},
            {"t": "follow", "key": "nobody", "positions": {}, "until_ns": 1, "max_bytes": 1},
            {
                "t": "follow",
                "key": "nobody",
                "positions": {"a": "b"},
                "until_ns": 1,
                "max_bytes": 1,
            },
            {"t": "inode", "pid": -1},
            {"t": "attach", "pid": 1 << 61},
            {"t": "filter", "ethernet": "zz", "raw": "", "snaplen": 1},
            {"t": "filter", "ethernet": "00" * 8, "raw": "", "snaplen": 1},
            {"t": "filter", "ethernet": "", "raw": "", "snaplen": 1 << 30},
            {"t": "nonsense" * 100},
            {"t": "ack", "follow": "x", "n": 1},
        ]:
            sock.send(json.dumps({"id": 5, **request}).encode())
            answer = json.loads(sock.recv(65_536))
            assert (answer["t"], answer["id"]) == ("error", 5), request
        sock.send(b"x" * 70_000)
        assert sock.recv(65_536) == b"", "closed after a packet beyond the limit"
    async with connected(process) as client:
        found = await target(client, pod, rings=2)
        with connect_raw(process.config.socket) as greedy, contextlib.ExitStack() as silent:
            for _ in range(20):
                silent.enter_context(connect_raw(process.config.socket))
            greedy.send(hello)
            greedy.setblocking(False)
            flood = json.dumps({"t": "freeze", "id": 2, "keys": [found.key]}).encode()
            with contextlib.suppress(BlockingIOError):
                for _ in range(5000):
                    greedy.send(flood)
            nets.send(pod, 200).wait()
            frozen = await frozen_with(client, pod, 200)
            assert numbers(frozen) == list(range(200))
        assert int(str((await client.stats())["pid"])) == process.worker, "nothing crashed"


def accept(snaplen: int) -> bytes:
    return struct.pack("=HBBI", 6, 0, 0, snaplen)


async def test_the_filter_is_swapped_for_all_rings_at_once(start: Start, nets: Nets) -> None:
    """A new filter and snap length hold from one packet to the next; one the kernel refuses changes nothing."""
    pod, world = nets.pod()
    process = start()
    async with connected(process) as client:
        found = await target(client, pod, rings=2)
        nets.send(pod, 20, size=400).wait()
        await frozen_with(client, pod, 20)
        assert await client.set_filter(ethernet=accept(100), raw=b"", snaplen=100) == 4
        nets.send(pod, 20, size=400).wait()
        frozen = await frozen_with(client, pod, 40)
        sizes = [
            len(data)
            for each in frozen.copies
            for *_, data in packets(each)
            if number(data) is not None
        ]
        assert sizes == [442] * 20 + [100] * 20
        assert {each.snaplen for each in frozen.copies} == {100}
        with pytest.raises(BadInput, match="does not take"):
            await client.set_filter(ethernet=struct.pack("=HBBI", 0, 0, 0, 0), raw=b"", snaplen=1)
        process.kill_worker()
        nets.pair(pod, world, 2, "net1", "w1")

        async def still() -> bool:
            return any(
                each.interface.name == "net1" and each.snaplen == 100
                for each in (await target(client, pod)).rings
            )

        await until_async(still)
        await client.set_filter(ethernet=accept(0), raw=b"", snaplen=100)
        nets.send(pod, 20).wait()
        (frozen,) = await client.freeze([found.key])
        assert len(numbers(frozen)) == 40


async def test_raw_ip_interfaces_are_recorded(start: Start, nets: Nets) -> None:
    """A tun device has no Ethernet header; its packets begin with IP."""
    pod, _ = nets.pod()
    process = start()
    async with connected(process) as client:
        sh(f"ip -n {pod} tuntap add dev tun0 mode tun")
        sh(f"ip -n {pod} addr add 10.78.0.1/24 dev tun0; ip -n {pod} link set tun0 up")
        await target(client, pod, rings=3)
        # a tun needs somebody who has it open
        holder = nets.start(
            pod,
            "import fcntl,os,struct,sys\nf=os.open('/dev/net/tun',os.O_RDWR)\n"
            "fcntl.ioctl(f,0x400454ca,struct.pack('16sH22x',b'tun0',0x1001))\n"
            "print('up',flush=True)\nsys.stdin.read()",
        )
        assert holder.stdout is not None
        holder.stdout.readline()
        nets.send(pod, 30, peer="10.78.0.2").wait()

        async def recorded() -> list[int] | None:
            (frozen,) = await client.freeze([(await target(client, pod, rings=3)).key])
            (tun,) = [each for each in frozen.copies if each.interface.name == "tun0"]
            assert tun.interface.hardware_type == 65534
            found = [n for *_, data in packets(tun) if (n := number(data)) is not None]
            await client.release(frozen)
            return found if len(found) == 30 else None

        assert await until_async(recorded) == list(range(30))


async def test_thirty_namespaces_at_once(start: Start, nets: Nets) -> None:
    """A burst of new namespaces is recorded within moments, every one with its rings."""
    process = start()
    async with connected(process) as client:
        names = [f"{nets.prefix}b{each}" for each in range(30)]
        nets.names.extend(names)
        batch = "\n".join(f"netns add {each}" for each in names)
        subprocess.run(["ip", "-batch", "-"], input=batch, text=True, check=True)

        async def all_of_them() -> bool:
            found = {each.name for each in await client.targets() if each.rings}
            return found >= {f"netns:{each}" for each in names}

        await until_async(all_of_them)


async def test_a_process_names_a_namespace(start: Start, nets: Nets) -> None:
    """By pid: the known target of its namespace, or a new one that lasts as long as the process."""
    pod, _ = nets.pod()
    process = start()
    sleeper = "print('up',flush=True)\nimport sys,time\ntime.sleep(60)"
    async with connected(process) as client:
        found = await target(client, pod, rings=2)
        inside = nets.start(pod, sleeper)
        assert inside.stdout is not None
        inside.stdout.readline()
        assert await client.inode_of(inside.pid) == found.inode
        assert await client.attach(inside.pid) == found.key
        alone = subprocess.Popen(
            ["unshare", "--net", sys.executable, "-c", sleeper], stdout=subprocess.PIPE, text=True
        )
        nets.children.append(alone)
        assert alone.stdout is not None
        alone.stdout.readline()
        key = await client.attach(alone.pid)
        assert key != found.key
        assert [e.name for e in await client.targets() if e.key == key] == [f"pid:{alone.pid}"]
        alone.kill()

        async def gone() -> bool:
            return any(each.key == key and each.gone_ns for each in await client.targets())

        await until_async(gone)
        assert await client.inode_of(1 << 22) is None
        with pytest.raises(NotFound):
            await client.attach(1 << 22)
