"""Enters network namespaces, and notices when names below a directory come and go."""

from __future__ import annotations

import functools
import os
import struct
import threading
from collections.abc import Callable
from typing import TypeVar

from tripshark.recorder import kernel

T = TypeVar("T")

_NAMES = kernel.IN_CREATE | kernel.IN_DELETE | kernel.IN_MOVED | kernel.IN_GONE
_local = threading.local()


class Gone(Exception):
    """The namespace is not there any more."""


def inode(path: str) -> int:
    """The inode of the namespace at a path, 0 when there is no namespace there (yet)."""
    try:
        found = os.stat(path)
    except OSError:
        return 0
    return found.st_ino if found.st_dev == _nsfs() else 0


@functools.cache
def _nsfs() -> int:
    return os.stat("/proc/self/ns/net").st_dev


def inside(path: str, expected: int, work: Callable[[], T]) -> T:
    """Do `work` in a namespace, in the calling thread, which must not be the main one.

    The thread returns to where it was: a thread that stays keeps a dead namespace alive. Raises `Gone` when
    another namespace, or none, is at `path` by now, and `OSError`.
    """
    if threading.current_thread() is threading.main_thread():
        raise RuntimeError("the main thread never moves")
    home = getattr(_local, "home", -1)
    if home < 0:
        home = _local.home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as problem:
        raise Gone(path) from problem
    try:
        if os.fstat(there).st_ino != expected:
            raise Gone(path)
        kernel.enter_netns(there)
    finally:
        os.close(there)
    try:
        return work()
    finally:
        kernel.enter_netns(home)


class Watch:
    """Which names below a directory may have changed. Works before the directory, or what it is in, exists."""

    def __init__(self, directory: str) -> None:
        self.directory = "/" + directory.strip("/")
        self.fd = kernel.inotify()
        self._here = self._above = -1
        self._awaited = ""  # the name that is to appear in the directory above
        self._arm()

    def _arm(self) -> None:
        """Watch the directory; while there is none, the nearest one above in which it will appear."""
        above = self._above
        self._here = self._try(self.directory, _NAMES)
        if self._here < 0:
            self._above, self._awaited = self._nearest()
            self._here = self._try(self.directory, _NAMES)  # it may have appeared just now
        if self._here >= 0:
            kernel.unwatch(self.fd, self._above)
            self._above = -1
        if above not in (-1, self._above):
            kernel.unwatch(self.fd, above)

    def _nearest(self) -> tuple[int, str]:
        """The watch of the nearest directory that exists, and the name that is missing in it."""
        missing = self.directory
        while True:
            above = os.path.dirname(missing)
            watch = self._try(above, kernel.IN_CREATE | kernel.IN_MOVED | kernel.IN_GONE)
            if watch >= 0 and missing != self.directory and os.path.isdir(missing):
                missing = self.directory  # it appeared while we looked
            elif watch >= 0 or above == "/":
                return watch, os.path.basename(missing)
            else:
                missing = above

    def _try(self, path: str, mask: int) -> int:
        try:
            return kernel.watch(self.fd, path, mask)
        except OSError:
            return -1

    def paths(self) -> set[str]:
        """Every name there is now, with the directory."""
        try:
            return {f"{self.directory}/{name}" for name in os.listdir(self.directory)}
        except OSError:
            return set()

    def changed(self) -> set[str] | None:
        """Names that appeared or vanished since the last call; None when everything must be looked at again."""
        names: set[str] = set()
        everything = False
        try:
            data = os.read(self.fd, 1 << 16)
        except BlockingIOError:
            return names
        while len(data) >= 16:
            where, mask, _, size = struct.unpack_from("=iIII", data)
            name = os.fsdecode(data[16 : 16 + size].rstrip(b"\0"))
            data = data[16 + size :]
            if where == self._here and name:
                names.add(name)
            else:
                everything |= (
                    (where == self._above and name == self._awaited)
                    or (where in (self._here, self._above) and bool(mask & kernel.IN_GONE))
                    or bool(mask & kernel.IN_OVERFLOW)
                )
        if everything:
            self._arm()
            return None
        return names

    def close(self) -> None:
        os.close(self.fd)
