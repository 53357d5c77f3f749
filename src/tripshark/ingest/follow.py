"""Takes alerts in from files of JSON lines and from standard input, in order, each line once.

The position is remembered only after the lines before it are durable; a line read again after a crash is known at the
door by its event and set aside. When alerts cannot be made durable the reader waits and tries again: nothing is lost
while the file keeps it.
"""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tripshark.errors import BadInput, Permanent, Transient
from tripshark.formats import falco
from tripshark.ingest.door import AlertMeter, Door, Taken
from tripshark.ingest.tail import Tail
from tripshark.ingest.wake import Wake
from tripshark.model.alert import Alert

BATCH = 64  # lines made durable together: one flush of the journal serves them all
RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """How one source is doing; every number counts lines since it was opened."""

    name: str  # "file:/var/log/falco.json", "stdin"
    is_open: bool
    lines: int
    accepted: int
    witnessed: int  # known already by another way
    invalid: int
    first_invalid: str  # why, and the line's beginning in a spelling safe to print
    overlong: int
    lost_total: int
    lost: tuple[str, ...]
    problem: str  # what it is waiting for; "" when all is well

    def problems(self) -> tuple[str, ...]:
        """What should worry the operator, in words."""
        return tuple(self._problems())

    def _problems(self) -> Iterator[str]:
        if self.problem:
            yield f"{self.name}: {self.problem}"
        if self.invalid:
            yield f"{self.name}: {self.invalid} lines are no Falco events, the first: {self.first_invalid}"
        if self.overlong:
            yield f"{self.name}: {self.overlong} lines are longer than events.max_line"
        for each in self.lost[-1:]:
            yield f"{self.name}: {self.lost_total} times content was lost by rotation, last: {each}"


class _Lines:
    """Counts and hands on the lines of one source."""

    def __init__(self, name: str, door: Door, meter: AlertMeter) -> None:
        self.name = name
        self._door = door
        self._meter = meter
        self._via = name.partition(":")[0]
        self.lines = self.accepted = self.witnessed = self.invalid = 0
        self.first_invalid = ""
        self.problem = ""

    async def take_all(self, lines: Sequence[bytes]) -> None:
        """Returns once every line is durable, set aside or counted as invalid."""
        for start in range(0, len(lines), BATCH):
            async with asyncio.TaskGroup() as tasks:
                for line in lines[start : start + BATCH]:
                    tasks.create_task(self._take(line))

    async def _take(self, line: bytes) -> None:
        began = time.perf_counter()
        self.lines += 1
        try:
            alert = falco.decode(line)
            taken = await self._until_durable(alert, line)
        except (BadInput, Permanent) as error:
            self.invalid += 1
            self.first_invalid = self.first_invalid or f"{error.message}: {line[:120]!a}"
            outcome = "invalid" if isinstance(error, BadInput) else "failed"
        else:
            outcome = taken.outcome
            if taken.witnessed:
                self.witnessed += 1
            else:
                self.accepted += 1
        self._meter.alert(self._via, outcome, time.perf_counter() - began)

    async def _until_durable(self, alert: Alert, line: bytes) -> Taken:
        while True:
            try:
                taken = await self._door.take(alert, line, self.name)
            except Transient as error:
                self.problem = f"waiting, alerts cannot be made durable: {error.message}"
                self._meter.alert(self._via, "unavailable", 0.0)
                await asyncio.sleep(error.after or RETRY_SECONDS)
                continue
            self.problem = ""
            return taken


class FileSource:
    """Follows one file until cancelled. `state` is where its position is remembered."""

    def __init__(
        self,
        path: Path,
        state: Path,
        door: Door,
        meter: AlertMeter,
        *,
        from_start: bool = False,
        max_line: int = 1 << 20,
        inotify: bool = True,
    ) -> None:
        self._path = path
        self._inotify = inotify
        self._tail = Tail(path, state, from_start=from_start, max_line=max_line)
        self._lines = _Lines(f"file:{path}", door, meter)
        self._problem = ""

    @property
    def followed(self) -> Followed:
        return _followed(self._lines, self._tail, self._problem)

    async def run(self) -> None:
        """Until cancelled. A file that cannot be read is waited for and shown as a problem."""
        wake = Wake((self._path,), inotify=self._inotify)
        try:
            while True:
                try:
                    lines = self._tail.read(time.monotonic())
                    self._problem = "" if self._tail.is_open else "the file is not there yet"
                    if lines:
                        await self._lines.take_all(lines)
                    self._tail.commit()
                except OSError as error:
                    self._problem = f"{error.strerror}: {error.filename or self._path}"
                    lines = []
                if not lines:
                    await wake.wait()
        finally:
            wake.close()
            self._tail.close()


class StandardInput:
    """Reads JSON lines from a descriptor until its end: `falco … | tripshark run`."""

    def __init__(
        self, descriptor: int, door: Door, meter: AlertMeter, *, max_line: int = 1 << 20
    ) -> None:
        self._descriptor = descriptor
        self._max_line = max_line
        self._lines = _Lines("stdin", door, meter)
        self._overlong = 0
        self._open = True

    @property
    def followed(self) -> Followed:
        return _followed(self._lines, None, "", overlong=self._overlong, is_open=self._open)

    async def run(self) -> None:
        """Until the end of input, or cancelled."""
        pending, skipping = b"", False
        while True:
            await self._wait_readable()
            data = os.read(self._descriptor, 1 << 16)
            pieces = (pending + data).split(b"\n")
            pending = pieces.pop() if data else b""
            if skipping and pieces:
                pieces.pop(0)
                skipping = False
            if skipping:
                pending = b""
            elif len(pending) > self._max_line:
                self._overlong += 1
                pending, skipping = b"", True
            self._overlong += sum(len(each) > self._max_line for each in pieces)
            await self._lines.take_all(
                [each for each in pieces if each.strip() and len(each) <= self._max_line]
            )
            if not data:
                self._open = False
                return

    async def _wait_readable(self) -> None:
        kind = os.fstat(self._descriptor).st_mode
        if not (stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind) or os.isatty(self._descriptor)):
            await asyncio.sleep(
                0
            )  # a plain file or /dev/null: no loop can watch it, and it never waits
            return
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._descriptor, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self._descriptor)


def _followed(
    lines: _Lines, tail: Tail | None, problem: str, *, overlong: int = 0, is_open: bool = False
) -> Followed:
    counts = tail.counts if tail else None
    return Followed(
        name=lines.name,
        is_open=tail.is_open if tail else is_open,
        lines=lines.lines,
        accepted=lines.accepted,
        witnessed=lines.witnessed,
        invalid=lines.invalid,
        first_invalid=lines.first_invalid,
        overlong=counts.overlong if counts else overlong,
        lost_total=counts.lost_total if counts else 0,
        lost=counts.lost if counts else (),
        problem=lines.problem or problem,
    )
