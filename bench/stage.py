"""Where a table plays: namespaces, processes, meters and files that vanish with it, whatever happens."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from bench import cpu

T = TypeVar("T")

PREFIX = "ts-bench-"
POD, WORLD = "10.98.0.1", "10.98.0.2"
_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


class Failed(Exception):
    """Something that a table needs did not happen."""


def until(condition: Callable[[], T], what: str, seconds: float = 20) -> T:
    """The first true answer."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise Failed(f"waited {seconds:g} s in vain for {what}")
        time.sleep(0.005)
    return value


def ip(*argv: str, lines: Iterable[str] = (), check: bool = True) -> None:
    """`ip` with these arguments, or with a batch of lines."""
    text = "".join(f"{line}\n" for line in lines)
    full = ["ip", *argv, "-batch", "-"] if text else ["ip", *argv]
    done = subprocess.run(full, input=text, capture_output=True, text=True, timeout=60)
    if check and done.returncode:
        raise Failed(f"{' '.join(full)}: {done.stderr.strip()}")


def inside(netns: str, call: Callable[[], T]) -> T:
    """Do something within a namespace, in a thread that ends afterwards."""

    def enter() -> T:
        fd = os.open(f"/run/netns/{netns}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if _LIBC.setns(fd, _NEWNET):
                raise OSError(ctypes.get_errno(), f"cannot enter {netns}")
        finally:
            os.close(fd)
        return call()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(enter).result()


def sweep() -> None:
    """Namespaces and cgroups that an earlier bench was killed too hard to remove."""
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir("/run/netns"):
            if name.startswith(PREFIX):
                ip("netns", "del", name, check=False)
    for root in (Path("/sys/fs/cgroup/cpuacct"), Path("/sys/fs/cgroup")):
        for folder in root.glob(f"{PREFIX}*"):
            with contextlib.suppress(OSError):
                folder.rmdir()


class Stage:
    """Made for one table."""

    def __init__(self, *, quick: bool, tools: Path) -> None:
        self.quick = quick
        self.tools = tools  # where the load makers are
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        self.memory = Path(tempfile.mkdtemp(prefix=PREFIX, dir="/dev/shm"))
        self._undo = contextlib.ExitStack()
        self._names: list[str] = []
        self._processes: list[subprocess.Popen[str]] = []
        self._meters: list[cpu.Meter] = []

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.ExitStack() as last:  # the latest first, each even if another fails
            last.callback(shutil.rmtree, self.folder, ignore_errors=True)
            last.callback(shutil.rmtree, self.memory, ignore_errors=True)
            last.callback(self._close_meters)
            last.callback(self._delete_namespaces)
            last.callback(self._end_processes)
            last.callback(self._undo.close)

    def callback(self, call: Callable[..., object], *arguments: Any) -> None:
        """Called at the end, the latest first."""
        self._undo.callback(call, *arguments)

    def say(self, text: str) -> None:
        """Progress, for who waits."""
        print(f"  … {text}", file=sys.stderr, flush=True)

    # ---- processes --------------------------------------------------------------------------------------

    def meter(self, name: str, *, reaped: bool = False) -> cpu.Meter:
        """CPU of what is spawned with it; see `cpu.meter`."""
        made = cpu.meter(f"{PREFIX}{name}", reaped=reaped)
        self._meters.append(made)
        return made

    def spawn(
        self, argv: Sequence[str], *, netns: str = "", meter: cpu.Meter | None = None
    ) -> subprocess.Popen[str]:
        """Leader of its own session; ended with the stage, with all its children."""
        full = ["nsenter", f"--net=/run/netns/{netns}", *argv] if netns else list(argv)
        process = subprocess.Popen(
            meter.wrap(full) if meter else full,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        if meter:
            meter.note(process.pid)
        self._processes.append(process)
        return process

    def run(
        self,
        argv: Sequence[str],
        *,
        netns: str = "",
        meter: cpu.Meter | None = None,
        seconds: float = 60,
    ) -> str:
        """What it printed."""
        process = self.spawn(argv, netns=netns, meter=meter)
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.end(process)
            raise Failed(f"{argv[0]} did not end within {seconds:g} s") from None
        self._processes.remove(process)
        if process.returncode:
            raise Failed(f"{' '.join(argv)}: {(err or out).strip()[-500:]}")
        return out

    def end(self, process: subprocess.Popen[str], number: int = signal.SIGKILL) -> tuple[str, str]:
        """Signal it, wait for it, make sure that none of its children is left; what it printed."""
        if process.poll() is None:
            process.send_signal(number)
        try:
            out, err = process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            out = err = ""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process in self._processes:
            self._processes.remove(process)
        return out, err

    def _close_meters(self) -> None:
        for each in self._meters:
            each.close()

    def _end_processes(self) -> None:
        for process in list(self._processes):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            self.end(process)

    # ---- networks ---------------------------------------------------------------------------------------

    def pair(self, pod: str = "pod", world: str = "world") -> tuple[str, str]:
        """A pod (10.98.0.1) and the rest of the world (10.98.0.2), each with an eth0."""
        names = PREFIX + pod, PREFIX + world
        for name in names:
            self._add(name)
        ip("link", "add", "eth0", "netns", names[0], "type", "veth", "peer", "name", "eth0",
           "netns", names[1])  # fmt: skip
        for name, address in zip(names, (POD, WORLD), strict=True):
            ip("-n", name, lines=_up("eth0", address))
        return names

    def pods(self, count: int) -> tuple[str, list[tuple[str, str]]]:
        """A hub, and so many pods connected to it: the hub's name, and the name and address of each pod."""
        hub = PREFIX + "hub"
        self._add(hub)
        pods = [(f"{PREFIX}p{i}", f"10.{100 + i // 250}.{i % 250}.1") for i in range(count)]
        ip(lines=[f"netns add {name}" for name, _ in pods])
        self._names += [name for name, _ in pods]
        ip("-n", hub, lines=[f"link add v{i} type veth peer name eth0 netns {name}"
                             for i, (name, _) in enumerate(pods)])  # fmt: skip

        def finish(pod: tuple[str, str]) -> None:
            inside(pod[0], _without_ipv6)
            ip("-n", pod[0], lines=_up("eth0", pod[1]))

        with ThreadPoolExecutor(4) as crew:
            list(crew.map(finish, pods))
        ip("-n", hub, lines=[
            line for i, (_, address) in enumerate(pods)
            for line in _up(f"v{i}", address.removesuffix("1") + "2")
        ])  # fmt: skip
        return hub, pods

    def sink(self, netns: str, port: int = 9) -> None:
        """Takes datagrams, so that nobody answers them with an ICMP error."""

        def listen() -> socket.socket:
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.bind(("0.0.0.0", port))
            return sock

        self.callback(inside(netns, listen).close)

    def _add(self, name: str) -> None:
        ip("netns", "add", name)
        self._names.append(name)
        inside(name, _without_ipv6)

    def _delete_namespaces(self) -> None:
        if self._names:
            ip("-force", lines=[f"netns del {name}" for name in self._names], check=False)
        self._names.clear()


def _without_ipv6() -> None:
    """Neighbour discovery and the like would be packets that nobody counted on."""
    for kind in ("all", "default"):
        with contextlib.suppress(OSError):
            Path(f"/proc/sys/net/ipv6/conf/{kind}/disable_ipv6").write_text("1")


def _up(dev: str, address: str) -> list[str]:
    return ["link set lo up", f"addr add {address}/24 dev {dev}", f"link set {dev} up"]


def counted(netns: str, dev: str = "eth0") -> int:
    """Packets that went in and out at an interface: what a tap on it is shown."""

    def read() -> int:
        for line in Path("/proc/thread-self/net/dev").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name.strip() == dev:
                fields = rest.split()
                return int(fields[1]) + int(fields[9])
        return 0

    return inside(netns, read)


def compiled(folder: Path) -> None:
    """Make the load makers."""
    for source in sorted((Path(__file__).parent / "load").glob("*.c")):
        subprocess.run(
            ["gcc", "-O2", "-Wall", "-o", str(folder / source.stem), str(source)], check=True
        )


def read_json(text: str) -> dict[str, Any]:
    return dict(json.loads(text))


def first_line(process: subprocess.Popen[str], seconds: float = 30) -> str:
    """The first line a process prints."""
    said: list[str] = []
    assert process.stdout is not None
    reader = threading.Thread(target=lambda: said.append(process.stdout.readline()), daemon=True)
    reader.start()
    reader.join(seconds)
    if not said or not said[0]:
        raise Failed(f"{process.args} said nothing within {seconds:g} s")
    return said[0]
