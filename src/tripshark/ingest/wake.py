"""Wakes a reader when a file or its folder changed: inotify by ctypes, or a look every 250 ms without it.

The kernel's inotify needs three C functions, which the standard library does not have and no maintained package is
worth a dependency for. It watches the folder (renames, new files) and what the path resolves to (writes). It is only ever
a hint: whoever waits looks anyway once a second, so a network file system or a swapped parent folder costs delay, not lines.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Iterable
from pathlib import Path

WITH_INOTIFY_SECONDS = 1.0
WITHOUT_SECONDS = 0.25

_IN_MODIFY, _IN_MOVED_TO, _IN_CREATE, _IN_MOVE_SELF = 0x2, 0x80, 0x100, 0x800
_IN_ATTRIB = 0x4  # truncation by another name
_MASK = _IN_MODIFY | _IN_MOVED_TO | _IN_CREATE | _IN_MOVE_SELF | _IN_ATTRIB
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC  # IN_NONBLOCK and IN_CLOEXEC are these


class Wake:
    """Waits for changes of some paths. Use as an async context manager's inside: open, wait, close."""

    def __init__(self, paths: Iterable[Path], *, inotify: bool = True) -> None:
        self._paths = tuple(paths)
        self._event = asyncio.Event()
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._libc.inotify_init1(_FLAGS) if inotify else -1
        if self._descriptor >= 0:
            asyncio.get_running_loop().add_reader(self._descriptor, self._changed)
            self._watch()

    @property
    def has_inotify(self) -> bool:
        return self._descriptor >= 0

    def _watch(self) -> None:
        """Adding a watch that exists already changes nothing, so this is done again at every wake-up."""
        for path in self._paths:
            for each in {path.parent, path.resolve(), path.resolve().parent}:
                self._libc.inotify_add_watch(self._descriptor, os.fsencode(each), _MASK)

    def _changed(self) -> None:
        try:
            while os.read(self._descriptor, 65_536):
                pass
        except BlockingIOError:
            pass
        self._event.set()

    async def wait(self) -> None:
        """Until something changed, but never long."""
        seconds = WITH_INOTIFY_SECONDS if self.has_inotify else WITHOUT_SECONDS
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            if self.has_inotify:
                self._watch()  # a folder or link may have been replaced
        self._event.clear()

    def close(self) -> None:
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
