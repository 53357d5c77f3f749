"""Which names of network namespaces there are below several directories: told as they come and go."""

from __future__ import annotations

import fnmatch
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from tripshark.recorder import namespaces
from tripshark.recorder.loop import Loop

_SWEEP_S = 5.0  # a slow look at all names, for what the kernel may have failed to tell …
_ROUND = 12  # … and at what is behind each of them in one of so many of these looks
_WAIT_NSFS_S = 5.0  # a name may appear so long before the namespace is mounted there


class Names:
    """Paths and the namespaces behind them. A name that is given to another namespace vanishes first."""

    def __init__(
        self,
        loop: Loop,
        directories: Sequence[str],
        *,
        include: Sequence[str],
        exclude: Sequence[str],
        appeared: Callable[[str, int], None],
        vanished: Callable[[str, int], None],
    ) -> None:
        self._loop = loop
        self._watches = [namespaces.Watch(each) for each in dict.fromkeys(directories)]
        self._include = tuple(include)
        self._exclude = tuple(exclude)
        self._appeared = appeared
        self._vanished = vanished
        self._behind: dict[str, int] = {}  # path → inode of what was told
        self._waiting: dict[str, float] = {}  # no namespace yet → until when to look
        self._listed: set[str] = set()  # the paths at the last slow look
        self._looks = 0

    def start(self, known: Mapping[str, int]) -> None:
        """Tell of everything there is; `known` has been told before, maybe by an earlier recorder."""
        self._behind = {path: inode for path, inode in known.items() if self.covers(path)}
        for each in self._watches:
            self._loop.watch(each.fd, lambda _, watch=each: self._changed(watch))  # type: ignore[misc]
            self._everything(each)
        self._listed = self._names()
        self._loop.later(_SWEEP_S, self._check)

    def covers(self, path: str) -> bool:
        """Whether the path is one that is watched."""
        return any(os.path.dirname(path) == each.directory for each in self._watches)

    def _names(self) -> set[str]:
        return {path for each in self._watches for path in each.paths()}

    def _changed(self, watch: namespaces.Watch) -> None:
        names = watch.changed()
        if names is None:
            self._everything(watch)
        else:
            self._look_at(f"{watch.directory}/{name}" for name in names)

    def _everything(self, watch: namespaces.Watch) -> None:
        known = {path for path in self._behind if os.path.dirname(path) == watch.directory}
        self._look_at(watch.paths() | known)

    def _look_at(self, paths: Iterable[str]) -> None:
        for path in sorted(filter(self._wanted, paths)):
            self._look(path)

    def _look(self, path: str) -> None:
        """What is at a path now, and what was there before."""
        inode, before = namespaces.inode(path), self._behind.get(path, 0)
        if inode or not os.path.lexists(path):
            self._waiting.pop(path, None)
        else:
            self._wait_for(path)
        if inode == before:
            return
        if before:
            del self._behind[path]
            self._vanished(path, before)
        if inode:
            self._behind[path] = inode
            self._appeared(path, inode)

    def _wait_for(self, path: str) -> None:
        """The file is there, the namespace is not yet mounted on it."""
        now = time.monotonic()
        until = self._waiting.setdefault(path, now + _WAIT_NSFS_S)
        if now < until:
            pause_s = min(0.05, 0.001 + (now - until + _WAIT_NSFS_S) / 4)
            self._loop.later(pause_s, lambda: self._again(path))

    def _again(self, path: str) -> None:
        if path in self._waiting:
            self._look(path)

    def _wanted(self, path: str) -> bool:
        name = os.path.basename(path)

        def any_of(globs: tuple[str, ...]) -> bool:
            return any(
                fnmatch.fnmatchcase(each, glob)
                for glob in globs
                for each in (name, f"netns:{name}")
            )

        return any_of(self._include) and not any_of(self._exclude)

    def _check(self) -> None:
        """The slow look: one listing for all names, a closer look at a few of them in turn."""
        self._loop.later(_SWEEP_S, self._check)
        before, self._listed = self._listed, self._names()
        self._looks += 1
        in_turn = sorted(self._listed)[self._looks % _ROUND :: _ROUND]
        self._look_at({*(before ^ self._listed), *self._waiting, *in_turn})
