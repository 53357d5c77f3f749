"""Compares lists of indicators with all evidence of a data folder, beside a running service or without one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from tripshark.errors import Denied, NotFound, TripsharkError
from tripshark.model.incident import Incident, State
from tripshark.model.indicator import Indicators
from tripshark.model.search import Hunted
from tripshark.ports import Query
from tripshark.programs.again import analyse_again
from tripshark.programs.clock import SystemClock
from tripshark.programs.reading import Reading, reading
from tripshark.settings import Settings
from tripshark.store.indexing import FINDINGS, MAX_FINDINGS, Indexing

_PAGE: Final = 500
_NEWEST: Final = ("findings", "tls", "files")  # what the findings of an older version lack
_DOCUMENT = msgspec.json.Decoder()


@dataclass(frozen=True, slots=True, kw_only=True)
class Hunt:
    """What was found, and how well was looked."""

    hits: tuple[Hunted, ...]
    more: bool  # there are hits beyond the limit
    analysed: int = 0  # anew, for this hunt
    problems: tuple[str, ...] = ()  # what could not be looked through


async def hunt(
    settings: Settings,
    indicators: Indicators,
    *,
    since_ns: int = 0,
    limit: int = 500,
    deep: bool = False,
    progress: Callable[[str], None] = lambda said: None,
) -> Hunt:
    """The index is brought in step first, where this user may. Raises `NotFound`, `Denied`, `Transient`."""
    problems: list[str] = []
    analysed = 0
    async with reading(settings) as store:
        if deep:
            analysed = await _analyse(settings, store, since_ns, problems, progress)
        indexing = Indexing(
            vault=store.vault,
            catalogue=store.catalogue,
            clock=SystemClock(),
            tell=lambda event, details: problems.append(
                f"{details['incident']}: {details['why']}"
            ),
        )
        progress("the index is brought in step")
        try:
            await indexing.look()
        except Denied as problem:
            problems.append(f"the index is as the service left it: {problem.message}")
        except TripsharkError as problem:
            problems.append(f"the index may be behind: {problem}")
        progress("evidence is looked through")
        hits, more = await indexing.index.hunt(indicators, since_ns=since_ns, limit=limit)
    return Hunt(hits=hits, more=more, analysed=analysed, problems=tuple(problems))


async def _analyse(
    settings: Settings,
    store: Reading,
    since_ns: int,
    problems: list[str],
    progress: Callable[[str], None],
) -> int:
    """Findings that are missing or of an older version, made anew; how many."""
    waiting = [
        each
        for each in await _sealed(store, since_ns)
        if await asyncio.to_thread(_is_behind, store, each)
    ]
    done = 0
    for number, incident in enumerate(waiting, 1):
        progress(f"tshark reads {incident.id} ({number} of {len(waiting)})")
        try:
            await analyse_again(settings, incident.id)
            done += 1
        except TripsharkError as problem:
            problems.append(f"{incident.id}: not analysed: {problem}")
    return done


async def _sealed(store: Reading, since_ns: int) -> list[Incident]:
    found: list[Incident] = []
    before = None
    while True:
        page = await store.catalogue.incidents(
            Query(since_ns=since_ns, state=State.SEALED.value, before=before, limit=_PAGE)
        )
        found += page
        if len(page) < _PAGE:
            return found
        before = page[-1].id


def _is_behind(store: Reading, incident: Incident) -> bool:
    """There are packets here, and no findings as today's analysis makes them."""
    try:
        folder = Path(store.vault.folder(incident.id))
    except NotFound:  # moved to the object store: it is read there
        return False
    try:
        with (folder / FINDINGS).open("rb") as file:
            document = _DOCUMENT.decode(file.read(MAX_FINDINGS))
    except (OSError, msgspec.MsgspecError, RecursionError):
        return True
    return not isinstance(document, dict) or any(name not in document for name in _NEWEST)
