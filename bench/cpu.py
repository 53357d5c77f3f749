"""How much CPU a group of processes used: by its cgroup where there is one, else by the scheduler's own account."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from pathlib import Path
from typing import Protocol

_V1 = Path("/sys/fs/cgroup/cpuacct")
_V2 = Path("/sys/fs/cgroup")


class Meter(Protocol):
    """The CPU time of some processes and all their children, also of those that have ended."""

    how: str

    def wrap(self, argv: list[str]) -> list[str]:
        """The command that runs `argv` within the group, as the very same process."""

    def note(self, pid: int) -> None:
        """A process begun with `wrap`, leader of its own session."""

    def seconds(self) -> float: ...

    def close(self) -> None: ...


def meter(name: str, *, reaped: bool = False) -> Meter:
    """`reaped`: without cgroups, children that ended count here (so at most one meter may say so)."""
    if (_V1 / "cpuacct.usage").exists() and os.access(_V1, os.W_OK):
        return _Cgroup(_V1 / name, "cpuacct.usage", "cgroup v1, cpuacct.usage")
    if (_V2 / "cgroup.controllers").exists() and os.access(_V2, os.W_OK):
        return _Cgroup(_V2 / name, "cpu.stat", "cgroup v2, cpu.stat")
    return _Sessions(reaped=reaped)


class _Cgroup:
    def __init__(self, folder: Path, file: str, how: str) -> None:
        self.how = how
        self._folder, self._file = folder, folder / file
        with contextlib.suppress(FileExistsError):
            folder.mkdir()

    def wrap(self, argv: list[str]) -> list[str]:
        return ["sh", "-c", 'echo $$ > "$0"; exec "$@"', str(self._folder / "cgroup.procs"), *argv]

    def note(self, pid: int) -> None:
        pass

    def seconds(self) -> float:
        text = self._file.read_text()
        if self._file.name == "cpuacct.usage":
            return int(text) / 1e9
        return int(text.split("usage_usec ")[1].split()[0]) / 1e6

    def close(self) -> None:
        for _ in range(50):  # the last process may still be on its way out
            with contextlib.suppress(OSError):
                self._folder.rmdir()
            if not self._folder.exists():
                return
            time.sleep(0.02)


class _Sessions:
    """Living processes by /proc/<pid>/schedstat; those that ended meanwhile by our own account of children."""

    how = "/proc/<pid>/schedstat"

    def __init__(self, *, reaped: bool) -> None:
        self._reaped = reaped
        self._sessions: set[int] = set()

    def wrap(self, argv: list[str]) -> list[str]:
        return argv

    def note(self, pid: int) -> None:
        self._sessions.add(pid)

    def seconds(self) -> float:
        total = sum(scheduled(pid) for pid in _pids() if _session(pid) in self._sessions)
        if self._reaped:
            used = resource.getrusage(resource.RUSAGE_CHILDREN)
            total += used.ru_utime + used.ru_stime
        return total

    def close(self) -> None:
        pass


def _pids() -> list[int]:
    return [int(each) for each in os.listdir("/proc") if each.isdigit()]


def _session(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[3])
    except OSError:
        return -1


def scheduled(pid: int) -> float:
    """Seconds on a CPU of all threads of a process."""
    total = 0
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{pid}/task/{task}/schedstat").read_text()
                total += int(text.split()[0])
    return total / 1e9


def _kernel_threads(prefix: str) -> list[int]:
    found = []
    for pid in _pids():
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().startswith(prefix):
                found.append(pid)
    return found


_SOFTIRQ = _kernel_threads("ksoftirqd")


def softirq_seconds() -> float:
    """Of the kernel's threads that take over packets when a CPU has too many."""
    return sum(scheduled(pid) for pid in _SOFTIRQ)


def busy_seconds() -> float:
    """Of the whole machine, all CPUs."""
    fields = [int(each) for each in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def own_seconds() -> float:
    """Of this very process."""
    return time.process_time()
