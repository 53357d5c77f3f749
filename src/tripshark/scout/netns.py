"""Which network namespace a path or a process stands for, and when names of namespaces come and go."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import stat
from collections.abc import Callable, Sequence

_CREATE, _DELETE, _MOVED, _ONLYDIR = 0x100, 0x200, 0xC0, 0x0100_0000  # linux/inotify.h


class Namespaces:
    """Inodes of network namespaces, 0 where there is none or we may not look.

    `host` is the machine's own. The paths that runtimes name are those of the machine; where the scout lives in a
    container, they are looked for where it is mounted, then in the first process's own files.
    """

    def __init__(self) -> None:
        self._device = os.stat("/proc/self/ns/net").st_dev
        self.host = self.at("/proc/1/ns/net") or self.at("/proc/self/ns/net")

    def of(self, pid: int, path: str) -> int:
        """Of a file, or of a process where there is no such file."""
        return (self.named(path) if path else 0) or (self.at(f"/proc/{pid}/ns/net") if pid else 0)

    def named(self, path: str) -> int:
        """Of a namespace's file as a runtime names it."""
        if not path.startswith("/") or "\0" in path:
            return 0
        plain = path.removeprefix("/var") if path.startswith("/var/run/") else path
        return self.at(path) or self.at(plain) or self.at(f"/proc/1/root{plain}")

    def at(self, path: str) -> int:
        try:
            found = os.stat(path)
        except (OSError, ValueError):
            return 0
        # the file is there a moment before the namespace is mounted on it
        return found.st_ino if found.st_dev == self._device else 0


class Watch:
    """Calls `stirred` when a name appears or disappears in one of the folders. They may come later than we do."""

    def __init__(self, folders: Sequence[str], stirred: Callable[[], None]) -> None:
        self.seen = 0
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._folders = folders
        self._stirred = stirred
        self._fd: int = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._inodes: dict[str, tuple[int, int]] = {}  # what is watched, by folder
        if self._fd >= 0:
            asyncio.get_running_loop().add_reader(self._fd, self._readable)
        self.again()

    def again(self) -> None:
        """Watch the folders that have come, or were made anew, since the last time."""
        if self._fd < 0:  # no instances left for this user: looking from time to time has to do
            return
        for folder in self._folders:
            try:
                found = os.stat(folder)
            except OSError:
                self._inodes.pop(folder, None)
                continue
            here = (found.st_dev, found.st_ino)
            if stat.S_ISDIR(found.st_mode) and self._inodes.get(folder) != here:
                mask = _CREATE | _DELETE | _MOVED | _ONLYDIR
                if self._libc.inotify_add_watch(self._fd, os.fsencode(folder), mask) >= 0:
                    self._inodes[folder] = here

    def _readable(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, 65_536)
        self.seen += 1
        self._stirred()

    def close(self) -> None:
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
