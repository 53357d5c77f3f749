"""What the sandbox really denies: probes run in tshark's place and try everything a hijacked tshark would."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from pathlib import Path

import pytest

from tests.analysis.asking import BOUNDS, NOBODY, probe
from tripshark.analysis import sandbox
from tripshark.analysis.child import run
from tripshark.analysis.sandbox import Policy
from tripshark.analysis.syscalls import DENIED
from tripshark.errors import Permanent

PYTHON = "/usr/bin/python3"

needs_python = pytest.mark.skipif(
    not Path(PYTHON).exists(), reason="the probe needs a Python below /usr/lib to run"
)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="changing user needs root")

ATTEMPTS = """
import ctypes, errno, json, os, resource, socket, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
parent, other, tmp, abstract = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
def call(number, *arguments):
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "")
def abstract_socket():
    socket.socket(socket.AF_UNIX).connect("\\0" + abstract)
attempts = {
    "read /etc/passwd": lambda: open("/etc/passwd").read(),
    "read another evidence file": lambda: open(other).read(),
    "list a folder": lambda: os.listdir("/tmp"),
    "read our environment": lambda: open(f"/proc/{parent}/environ").read(),
    "read own status": lambda: open("/proc/self/status").read(),
    "write a file": lambda: open(tmp + "/written", "w"),
    "make a folder": lambda: os.mkdir(tmp + "/made"),
    "delete a file": lambda: os.unlink(other),
    "reopen the evidence for writing": lambda: open("/proc/self/fd/0", "r+b"),
    "change the evidence's mode": lambda: os.fchmod(0, 0o777),
    "change the evidence's times": lambda: os.utime(0),
    "truncate the evidence": lambda: os.ftruncate(0, 0),
    "TCP socket": lambda: socket.socket(socket.AF_INET),
    "UDP socket": lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM),
    "packet socket": lambda: socket.socket(17, 3, 0x300),
    "netlink socket": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "unix socket": abstract_socket,
    "socket pair": lambda: socket.socketpair(),
    "fork": lambda: os.fork(),
    "spawn": lambda: os.posix_spawn("/bin/sh", ["sh"], {}),
    "exec a shell": lambda: os.execv("/bin/sh", ["sh", "-c", "exit 0"]),
    "exec a setuid program": lambda: os.execv("/bin/su", ["su"]),
    "signal our parent": lambda: os.kill(parent, 0),
    "signal everybody": lambda: os.kill(-1, 0),
    "queue a signal": lambda: call(129, parent, 0, ctypes.create_string_buffer(128)),
    "ptrace our parent": lambda: call(101, 16, parent, 0, 0),
    "read our parent's memory": lambda: call(310, parent, 0, 0, 0, 0, 0),
    "limit our parent": lambda: resource.prlimit(parent, resource.RLIMIT_NOFILE, (3, 3)),
    "raise a limit": lambda: resource.setrlimit(resource.RLIMIT_CORE, (1 << 20, 1 << 20)),
    "become root": lambda: os.setuid(0),
    "user namespace": lambda: call(272, 0x10000000),
    "mount": lambda: call(165, b"none", b"/tmp", b"tmpfs", 0, None),
    "chroot": lambda: os.chroot("/usr/lib"),
    "bpf": lambda: call(321, 0, 0, 0),
    "io_uring": lambda: call(425, 8, ctypes.create_string_buffer(256)),
    "keys": lambda: call(250, 0, -3, 1),
    "userfaultfd": lambda: call(323, 0),
    "perf": lambda: call(298, ctypes.create_string_buffer(128), 0, -1, -1, 0),
    "memfd": lambda: os.memfd_create("x"),
    "shared memory": lambda: call(29, 0, 4096, 0o1600),
    "open by handle": lambda: call(304, -1, ctypes.create_string_buffer(32), 0),
}
outcome = {}
for name, attempt in attempts.items():
    try:
        attempt()
        outcome[name] = "done"
    except OSError as problem:
        outcome[name] = errno.errorcode.get(problem.errno, str(problem.errno))
    except Exception as problem:
        outcome[name] = type(problem).__name__
thread = threading.Thread(target=lambda: outcome.update(thread="done"))
thread.start()
thread.join()
with open("/dev/null", "w") as null:
    null.write("x")
outcome["may"] = [os.read(0, 100).decode(), sorted(os.environ)]
print(json.dumps(outcome))
"""


@needs_python
@pytest.mark.root
@needs_root
async def test_nothing_that_a_hijacked_tshark_would_try_succeeds(tmp_path: Path) -> None:
    """Every attempt on files, network, processes and the kernel is denied; reading the evidence is not."""
    tmp_path.chmod(0o777)
    for folder in tmp_path.parents[:3]:
        if folder != Path("/tmp"):
            folder.chmod(0o755)
    evidence, other = tmp_path / "evidence", tmp_path / "other"
    evidence.write_text("the evidence")
    other.write_text("somebody else's")
    other.chmod(0o666)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"\0ts-probe-{os.getpid()}")
        listening.listen()
        ended, said = await probe(
            [
                PYTHON,
                "-I",
                "-S",
                "-c",
                ATTEMPTS,
                str(os.getpid()),
                str(other),
                str(tmp_path),
                f"ts-probe-{os.getpid()}",
            ],
            evidence,
        )
    assert ended.code == 0, ended.stderr.decode()
    outcome = json.loads(said)
    assert outcome.pop("may") == ["the evidence", sorted(sandbox.ENVIRONMENT)]
    assert outcome.pop("thread") == "done"
    got_through = {name: how for name, how in outcome.items() if how == "done"}
    assert not got_through
    assert other.read_text() == "somebody else's"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evidence", "other"]
    assert {"capabilities", "no_new_privs", "rlimits", "seccomp"} <= set(ended.layers)


@needs_python
@pytest.mark.root
@needs_root
async def test_the_kernel_confirms_what_was_given_up() -> None:
    """/proc/PID/status of the child: another user, no capability anywhere, no new privileges, a filter."""
    seen: dict[str, str] = {}
    limits: dict[str, list[str]] = {}
    namespaces: dict[str, str] = {}

    def look(chunk: bytes) -> None:
        pid = int(chunk)
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            seen[name] = value.strip()
        for line in Path(f"/proc/{pid}/limits").read_text().splitlines():
            limits[line[:26].strip()] = line[26:].split()[:2]
        for name in ("net", "ipc"):
            namespaces[name] = os.readlink(f"/proc/{pid}/ns/{name}")
        os.kill(pid, signal.SIGKILL)

    code = "import os,time; print(os.getpid(), flush=True); time.sleep(60)"
    null = os.open("/dev/null", os.O_RDONLY)
    ended = await run(
        [PYTHON, "-I", "-S", "-c", code],
        evidence=null,
        policy=BOUNDS.policy,
        wall_s=30,
        max_output=1000,
        take=look,
    )
    os.close(null)
    assert ended.code == -signal.SIGKILL
    assert set(seen["Uid"].split()) == set(seen["Gid"].split()) == {str(NOBODY)}
    assert seen["Groups"] == ""
    assert {seen[f"Cap{each}"] for each in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert seen["NoNewPrivs"] == "1"
    assert seen["Seccomp"] == "2"
    assert limits["Max core file size"] == limits["Max file size"] == ["0", "0"]
    assert limits["Max open files"] == ["64", "64"]
    assert limits["Max address space"] == [str(2 << 30)] * 2
    for name, inode in namespaces.items():
        assert inode != os.readlink(f"/proc/self/ns/{name}")


@pytest.mark.parametrize("layer", ["landlock", "seccomp"])
@needs_python
async def test_files_stay_shut_by_landlock_and_sockets_by_seccomp_alone(layer: str) -> None:
    """Each of the two strong layers does its part without the help of another user or namespace."""
    attempt = {
        "landlock": "open('/etc/hostname')",
        "seccomp": "__import__('socket').socket()",
    }[layer]
    ended, _ = await probe([PYTHON, "-I", "-S", "-c", attempt], policy=Policy())
    if layer not in ended.layers:
        pytest.skip(f"this kernel has no {layer}")
    assert ended.code == 1
    assert b"PermissionError" in ended.stderr


async def test_time_is_bounded() -> None:
    """A child that neither reads, writes nor ends is killed at the limit, and is gone afterwards."""
    began = asyncio.get_running_loop().time()
    ended, _ = await probe(["/usr/bin/sleep", "60"], wall_s=0.3)
    assert (ended.stopped, ended.code) == ("time", -signal.SIGKILL)
    assert asyncio.get_running_loop().time() - began < 50


async def test_output_is_bounded() -> None:
    """Endless output is cut at the bound, and the child killed; what came before is kept."""
    ended, said = await probe(["/usr/bin/yes"], max_output=5_000_000)
    assert (ended.stopped, ended.code) == ("output", -signal.SIGKILL)
    assert 0 < len(said) <= 5_000_000


@needs_python
async def test_complaints_are_bounded() -> None:
    """Megabytes on stderr neither fill memory nor block the child."""
    code = "import sys; [sys.stderr.write('x' * 65536) for _ in range(200)]"
    ended, _ = await probe([PYTHON, "-I", "-S", "-c", code])
    assert ended.code == 0
    assert len(ended.stderr) == 64 << 10


@needs_python
async def test_memory_and_cpu_are_bounded() -> None:
    """An allocation beyond RLIMIT_AS fails in the child; a busy loop dies of RLIMIT_CPU."""
    ended, _ = await probe(
        [PYTHON, "-I", "-S", "-c", "bytearray(1 << 30)"],
        policy=Policy(uid=NOBODY, memory_bytes=300 << 20),
    )
    assert b"MemoryError" in ended.stderr
    ended, _ = await probe(
        [PYTHON, "-I", "-S", "-c", "while True: pass"], policy=Policy(uid=NOBODY, cpu_s=1)
    )
    assert ended.code in (-signal.SIGXCPU, -signal.SIGKILL)


async def test_a_program_that_cannot_be_started_says_so() -> None:
    """The reason comes back as an error, not as an empty answer."""
    with pytest.raises(Permanent, match="sandbox could not start nothing: FileNotFoundError"):
        await probe(["/usr/bin/nothing"])


async def test_a_cancelled_run_leaves_no_child() -> None:
    """Whoever stops waiting also ends the child."""
    task = asyncio.ensure_future(probe(["/usr/bin/sleep", "61"]))
    deadline = asyncio.get_running_loop().time() + 10
    while not (pids := _children_named("sleep")):
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not pids & _children_named("sleep")


def test_without_landlock_and_seccomp_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that offers neither is refused, loudly: there is no silent fallback to no sandbox."""
    monkeypatch.setattr(sandbox, "landlock", lambda **_: 0)
    monkeypatch.setattr(sandbox, "seccomp", lambda: False)
    with pytest.raises(Permanent, match="neither Landlock nor seccomp"):
        asyncio.run(probe(["/usr/bin/true"], policy=Policy()))


def test_the_filter_fits_the_kernel_on_both_architectures() -> None:
    """Jumps stay within a byte and the program within BPF_MAXINSNS; no call is denied twice."""
    for machine, calls in DENIED.items():
        program = sandbox._filter(machine, 4711)
        assert len(program) < 4096
        assert len(set(calls)) == len(calls)


def _children_named(name: str) -> set[int]:
    found = set()
    for folder in Path("/proc").iterdir():
        try:
            stat = (folder / "stat").read_text()
        except OSError:
            continue
        inside, _, rest = stat.partition("(")[2].rpartition(")")
        if inside == name and int(rest.split()[1]) == os.getpid():
            found.add(int(folder.name))
    return found
