"""What a child process may still do before it dissects hostile packets: nothing but compute and write to its pipe.

`confine` is called in a child that has just been forked by a single-threaded process, and changes that child
for ever. Each layer stands alone, so that one missing (an old kernel has no Landlock) leaves the others; the
names of those that held are returned, never those that were hoped for.

| layer | denies |
|---|---|
| `uid` | the files and processes of whoever asked (only where the service was started as root) |
| `capabilities` | all of them, for ever: empty bounding set, empty sets |
| `no_new_privs` | gaining any through a setuid file |
| `rlimits` | memory, CPU, written files, descriptors, core dumps beyond the bound |
| `netns` | every network interface, also those of other processes' abstract sockets |
| `landlock` | every file but system libraries and the program's own data (read-only), and `/dev/null` |
| `seccomp` | sockets, new processes, signals, ptrace, mounts, keys, bpf, io_uring, changing file metadata |

The prctl, capset and Landlock calls are made by number through ctypes: see `capabilities(7)`, `landlock(7)`,
`seccomp(2)`.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import struct
from dataclasses import dataclass
from pathlib import Path

from tripshark.analysis.syscalls import AUDIT_ARCH, CLONE, CLONE3, DENIED, PRLIMIT, TGKILL

_libc = ctypes.CDLL(None, use_errno=True)

_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_CAPBSET_DROP = 1, 22, 24
_PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 38, 47
_SYS_CAPSET = {"x86_64": 126, "aarch64": 91}
_CLONE_NEWUTS, _CLONE_NEWIPC, _CLONE_NEWUSER, _CLONE_NEWNET = (
    0x04000000,
    0x08000000,
    0x10000000,
    0x40000000,
)
_CLONE_THREAD = 0x00010000

_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446  # the same everywhere
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8

_NICE = 10  # the recorder and the workload come first

SYSTEM_READ = (
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/lib",
    "/lib64",
    "/etc/ld.so.cache",
    "/usr/share/wireshark",
)
PROGRAMS = ("/usr/local/bin", "/usr/bin", "/bin")
ENVIRONMENT = {
    "HOME": "/nonexistent",
    "PATH": "/nonexistent",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    # Nobody's preferences, profiles, Lua scripts, plug-ins or extcaps.
    "WIRESHARK_CONFIG_DIR": "/nonexistent",
    "WIRESHARK_PLUGIN_DIR": "/nonexistent",
    "WIRESHARK_EXTCAP_DIR": "/nonexistent",
    "XDG_CONFIG_HOME": "/nonexistent",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How tightly to hold one child."""

    uid: int | None = None  # become this user, where we are root; None: stay who we are
    gid: int | None = None
    read: tuple[str, ...] = SYSTEM_READ
    memory_bytes: int = 2 << 30
    cpu_s: int = 120
    descriptors: int = 64
    written_bytes: int = 0  # of a file that it is handed to write to


class _Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]  # type: ignore[mutable-override]  # ctypes' own way


class SandboxError(Exception):
    """A layer that this machine offers could not be put on: the child must not run."""


def confine(policy: Policy, program: str, parent: int) -> tuple[str, ...]:
    """Give up everything `program` does not need. Returns the layers that held, outermost first.

    `parent` is the pid that must still be our parent: if it died meanwhile, so do we. Raises `SandboxError`.
    """
    os.setsid()
    os.nice(_NICE)
    held = []
    root = os.geteuid() == 0
    if _isolate(root=root):
        held.append("netns")
    _drop_bounding_set()
    if root and policy.uid is not None:
        gid = policy.uid if policy.gid is None else policy.gid
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(policy.uid, policy.uid, policy.uid)
    _drop_capabilities()
    held.append("capabilities")
    # The kernel forgets this on every change of user or capabilities, hence here.
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "PDEATHSIG")
    if os.getppid() != parent:
        raise SandboxError("the analyst has gone")
    no_new_privileges()
    held.append("no_new_privs")
    if landlock(
        read=(*policy.read, *_data_of(program)), execute=(program, *_interpreter_of(program))
    ):
        held.append("landlock")
    _limit(policy)
    held.append("rlimits")
    if seccomp():
        held.append("seccomp")
    if not {"landlock", "seccomp"} & {*held}:
        raise SandboxError("this kernel offers neither Landlock nor seccomp on this architecture")
    return tuple(held)


def hold_service(*, uid: int, gid: int, read: tuple[str, ...]) -> tuple[str, ...]:
    """The weaker hold on the service that forks such children: its own user, no capability, no file to write.

    It keeps sockets and processes, which it needs. Returns the layers that held.
    """
    held = []
    _drop_bounding_set()
    if os.geteuid() == 0 and uid:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        held.append("uid")
    _drop_capabilities()
    no_new_privileges()
    held += ["capabilities", "no_new_privs"]
    if landlock(read=read, execute=(*SYSTEM_READ, *PROGRAMS)):
        held.append("landlock")
    return tuple(held)


def no_new_privileges() -> None:
    """From here on no setuid file and no file capability gives anything."""
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")


def landlock(*, read: tuple[str, ...], execute: tuple[str, ...] = ()) -> int:
    """Let this process open `read` for reading, `execute` for running, `/dev/null`, and nothing else.

    Also no TCP (kernel 6.7), no signal and no abstract socket out of the sandbox (6.12). Paths that do not
    exist are skipped. Returns the kernel's Landlock version, 0 where there is none.
    """
    version = int(_libc.syscall(_LANDLOCK_CREATE, None, 0, 1))
    if version <= 0:
        return 0
    files = (1 << 13) - 1
    files |= (version >= 2) << 13 | (version >= 3) << 14 | (version >= 5) << 15
    attributes = struct.pack(
        "<QQQ", files, 3 if version >= 4 else 0, 3 if version >= 6 else 0
    )  # files, TCP, scopes
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    rules = _libc.syscall(_LANDLOCK_CREATE, attributes, size, 0)
    _check(rules, "landlock_create_ruleset")
    try:
        for path in read:
            _allow(rules, path, _READ_FILE | _READ_DIR)
        for path in execute:
            _allow(rules, path, _READ_FILE | _READ_DIR | _EXECUTE)
        _allow(rules, "/dev/null", _READ_FILE | _WRITE_FILE)
        _check(_libc.syscall(_LANDLOCK_RESTRICT, rules, 0), "landlock_restrict_self")
    finally:
        os.close(rules)
    return version


def _allow(rules: int, path: str, access: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # not on this machine, or not for this user: then it cannot be needed
        return
    try:
        if not Path(path).is_dir():
            access &= ~_READ_DIR
        _check(_libc.syscall(_LANDLOCK_ADD, rules, 1, struct.pack("<Qi", access, place), 0), path)
    finally:
        os.close(place)


def seccomp() -> bool:
    """Deny what no dissector needs. False on an architecture whose numbers we do not know."""
    machine = platform.machine()
    if machine not in DENIED:
        return False
    program = _filter(machine, os.getpid())
    code = ctypes.create_string_buffer(b"".join(program))

    whole = _Program(len(program), ctypes.addressof(code))
    _check(_libc.prctl(_PR_SET_SECCOMP, 2, ctypes.byref(whole), 0, 0), "seccomp")
    return True


def _filter(machine: str, pid: int) -> list[bytes]:
    """The classic BPF program, one instruction an element; `struct seccomp_data` is what it reads."""

    def step(code: int, k: int, jt: int = 0, jf: int = 0) -> bytes:
        return struct.pack("<HBBI", code, jt, jf, k)

    load, equal, at_least, any_of, answer = 0x20, 0x15, 0x35, 0x45, 0x06
    number, architecture, first_argument = 0, 4, 16
    allow, kill, denied, absent = 0x7FFF0000, 0x80000000, 0x00050000 | 13, 0x00050000 | 38
    program = [
        step(load, architecture),
        step(equal, AUDIT_ARCH[machine], 1, 0),
        step(answer, kill),
        step(load, number),
    ]
    if machine == "x86_64":  # the x32 ABI has numbers of its own
        program += [step(at_least, 0x40000000, 0, 1), step(answer, kill)]
    for call in DENIED[machine]:
        program += [step(equal, call, 0, 1), step(answer, denied)]
    # clone3 hides its flags from us; told that it is absent, libc takes clone.
    program += [step(equal, CLONE3, 0, 1), step(answer, absent)]
    program += [
        step(equal, CLONE[machine], 0, 4),
        step(load, first_argument),
        step(any_of, _CLONE_THREAD, 0, 1),
        step(answer, allow),
        step(answer, denied),
    ]
    program += [  # abort() signals itself
        step(equal, TGKILL[machine], 0, 4),
        step(load, first_argument),
        step(equal, pid, 0, 1),
        step(answer, allow),
        step(answer, denied),
    ]
    program += [  # its own limits: 0 or its pid
        step(equal, PRLIMIT[machine], 0, 5),
        step(load, first_argument),
        step(equal, 0, 1, 0),
        step(equal, pid, 0, 1),
        step(answer, allow),
        step(answer, denied),
    ]
    program.append(step(answer, allow))
    return program


def _isolate(*, root: bool) -> bool:
    """An empty network of our own; an ordinary user gets it through a user namespace, where allowed."""
    flags = _CLONE_NEWNET | _CLONE_NEWIPC | _CLONE_NEWUTS
    return bool(_libc.unshare(flags if root else flags | _CLONE_NEWUSER) == 0)


def _drop_bounding_set() -> None:
    """Needs CAP_SETPCAP: an ordinary user without a user namespace has nothing to drop."""
    for capability in range(64):
        if _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0):
            break


def _drop_capabilities() -> None:
    _libc.prctl(_PR_CAP_AMBIENT, 4, 0, 0, 0)  # clear all; absent before 4.3
    header, nothing = struct.pack("<Ii", 0x20080522, 0), bytes(24)
    if (call := _SYS_CAPSET.get(platform.machine())) is not None:
        _check(_libc.syscall(call, header, nothing), "capset")
    elif os.geteuid() == 0:
        raise SandboxError("capabilities cannot be dropped on this architecture")


def _limit(policy: Policy) -> None:
    for what, limit in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, policy.written_bytes),
        (resource.RLIMIT_NOFILE, policy.descriptors),
        (resource.RLIMIT_CPU, policy.cpu_s),
        (resource.RLIMIT_AS, policy.memory_bytes),
    ):
        _, most = resource.getrlimit(what)
        bound = limit if most == resource.RLIM_INFINITY else min(limit, most)
        resource.setrlimit(what, (bound, bound))


def _data_of(program: str) -> tuple[str, ...]:
    """Libraries and data of a program that was installed under a prefix of its own."""
    prefix = Path(program).parent.parent
    return tuple(str(prefix / part) for part in ("lib", "lib64", "share/wireshark"))


def _interpreter_of(program: str) -> tuple[str, ...]:
    """The dynamic loader that an ELF file names (PT_INTERP): the kernel runs it as well."""
    try:
        with Path(program).open("rb") as file:
            head = file.read(4096)
    except OSError:
        return ()
    if head[:6] != b"\x7fELF\x02\x01":  # 64 bit, little-endian
        return ()
    (table,) = struct.unpack_from("<Q", head, 32)
    size, count = struct.unpack_from("<HH", head, 54)
    for at in range(table, min(table + size * count, len(head) - 56), size):
        kind, _, offset, _, _, length = struct.unpack_from("<IIQQQQ", head, at)
        if kind == 3:
            name = head[offset : offset + length].rstrip(b"\0").decode("utf-8", "replace")
            return (name, str(Path(name).resolve()))
    return ()


def _check(result: int, what: str) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise SandboxError(f"{what}: {os.strerror(code)}")
