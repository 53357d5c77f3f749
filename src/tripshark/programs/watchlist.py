"""The operator's lists of indicators: read from files and folders, and again whenever those change."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import structlog

from tripshark.errors import BadInput, TripsharkError
from tripshark.formats.indicators.loaded import Loaded, Why
from tripshark.formats.indicators.reading import MAX_LIST, read_list
from tripshark.model.indicator import Indicators

log = structlog.get_logger("tripshark.indicators")

_EVERY = 10.0  # seconds
_SHOWN = 20  # entries that the log names
_Stamp = tuple[tuple[str, int, int, int], ...]


def list_files(paths: Iterable[Path]) -> Iterator[Path]:
    """Every list that is named: files as they are, of folders whatever lies in them, in order. Raises `BadInput`."""
    for path in paths:
        if path.is_dir():
            yield from sorted(
                each for each in path.iterdir() if each.is_file() and each.name[0] != "."
            )
        elif path.exists():
            yield path
        else:
            raise BadInput("no such list of indicators", where=str(path))


def load_lists(paths: Iterable[Path]) -> tuple[Loaded, tuple[TripsharkError, ...]]:
    """Everything that can be read, and why the other files cannot."""
    into, problems = Loaded(), []
    for path in paths:
        try:
            for file in list_files([path]):
                try:
                    with file.open("rb") as opened:
                        read_list(opened.read(MAX_LIST + 1), str(file), into)
                except OSError as error:
                    raise BadInput(f"cannot be read: {error.strerror}", where=str(file)) from error
                except TripsharkError as problem:
                    problems.append(problem)
        except TripsharkError as problem:
            problems.append(problem)
        except OSError as error:
            problems.append(BadInput(f"cannot be read: {error.strerror}", where=str(path)))
    return into, tuple(problems)


class Watchlist:
    """Called for the indicators in force; files are looked at each time, and read when they changed.

    A list that cannot be read is told in the log and in `problems`, and the others stay in force.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = tuple(paths)
        self._stamp: _Stamp | None = None
        self._indicators = Indicators()
        self._reading = asyncio.Lock()
        self.problems: tuple[str, ...] = ()

    async def __call__(self) -> Indicators:
        async with self._reading:
            stamp = await asyncio.to_thread(self._look)
            if stamp != self._stamp:
                self._stamp = stamp
                await asyncio.to_thread(self._read)
            return self._indicators

    async def watch(self) -> None:
        """Read at once what changes, so that what is wrong with it is told before it is needed."""
        while True:
            await self()
            await asyncio.sleep(_EVERY)

    def _look(self) -> _Stamp:
        found = []
        for path in self._paths:
            try:
                for file in list_files([path]):
                    status = file.stat()
                    found.append((str(file), status.st_ino, status.st_size, status.st_mtime_ns))
            except (OSError, BadInput):
                found.append((str(path), 0, 0, 0))
        return tuple(found)

    def _read(self) -> None:
        loaded, problems = load_lists(self._paths)
        self._indicators = Indicators(loaded.indicators)
        self.problems = tuple(map(str, problems))
        for problem in self.problems:
            log.error("a list of indicators cannot be read", problem=problem)
        if not self._paths:
            return
        counts = {why.value: loaded.counts[why] for why in Why if loaded.counts[why]}
        log.info("indicators read", indicators=len(self._indicators), **counts)
        told = [each for each in loaded.told if each.why is not Why.REMARK]
        for each in told[:_SHOWN]:
            log.warning("not looked for", entry=str(each))
