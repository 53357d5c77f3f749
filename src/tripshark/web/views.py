"""Which live views are open on this machine, and whose they are."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final, Protocol

from tripshark.errors import NotFound, TooMany
from tripshark.model.target import Target
from tripshark.respond.live import Live

MOST: Final = 8  # views at once: each decodes whatever its target sends
VIEW: Final = "x-tripshark-live"  # names the view, for whoever wants to change its filter


class View(Protocol):
    """One view under way; `respond.live.Stream` is one."""

    @property
    def target(self) -> Target: ...
    def filter(self, text: str) -> None: ...
    def stop(self) -> None: ...
    def blocks(self) -> AsyncGenerator[bytes | memoryview]: ...


@dataclass(frozen=True, slots=True)
class _Running:
    view: View
    by: str


class Views:
    """What is being watched on this machine, and by whom."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self._running: dict[str, _Running] = {}

    def add(self, view: View, by: str) -> str:
        """Its name, which nobody can guess. Raises `TooMany`."""
        if len(self._running) >= MOST:
            raise TooMany(
                f"{MOST} live views are open", hint="close one of them, or come back", after=10.0
            )
        name = secrets.token_hex(16)
        self._running[name] = _Running(view, by)
        return name

    def remove(self, name: str) -> None:
        self._running.pop(name, None)

    def of(self, name: str, by: str) -> View:
        """Only whoever opened it finds it. Raises `NotFound`."""
        found = self._running.get(name)
        if found is None or found.by != by:
            raise NotFound("no such live view", hint=f"its name is the answer's header {VIEW}")
        return found.view

    def stop(self) -> None:
        """All of them end within about a second: the program does."""
        for each in self._running.values():
            each.view.stop()
