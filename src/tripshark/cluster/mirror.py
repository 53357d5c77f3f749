"""Keeps a copy of the facts of some objects of the API, whatever happens to the server, the connection or our rights.

List, then watch from the list's version; after anything unclear list again. A watch that ends in good order, or breaks
between two events, goes on from the last version seen. Lists are asked of the server's own cache first, which costs it
next to nothing, and in pages from etcd when the answer would be too long or the cache is of no use.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Generic, Never, TypeVar

from tripshark.cluster.api import KubeApi, Page, Params, WatchEvent
from tripshark.cluster.problems import Gone, NotPermitted
from tripshark.errors import BadInput, Denied, NotFound, TooLarge, Transient, TripsharkError
from tripshark.formats import kube

log = logging.getLogger(__name__)

T = TypeVar("T")

WATCH_S = 300.0  # how long one watch lasts
FIRST_PATIENCE_S = 0.3
MOST_PATIENCE_S = 30.0
DENIED_PATIENCE_S = 60.0  # between tries when we may not, or nobody serves it
QUIET_S = 60.0  # a watch that lived so long was a good one
_AT_ONCE = 200  # objects taken in before others have their turn


def by_uid(meta: kube.Meta) -> str:
    """The usual key: an object that is deleted and made again is another one."""
    return meta.uid


class Mirror(Generic[T]):
    """The objects at `path`, as `decode` sees them: facts, None for what is of no interest, `BadInput` for the unreadable.

    `run` never ends by itself. `on_change(old, new)` is called for every change of facts, None for "not there". It
    must not raise. `items` are at most as old as the connection is broken; `synced` says that they were complete once.
    """

    def __init__(
        self,
        api: KubeApi,
        path: str,
        *,
        decode: Callable[[bytes], T | None],
        params: Params | None = None,
        key: Callable[[kube.Meta], str] = by_uid,
        on_change: Callable[[T | None, T | None], None] | None = None,
        watch_s: float = WATCH_S,
        denied_s: float = DENIED_PATIENCE_S,
        patience_s: float = FIRST_PATIENCE_S,
        tells_missing: bool = False,
    ) -> None:
        self.path = path
        self.decode = decode
        self.items: dict[str, T] = {}
        self.relists = 0
        self.watches = 0
        self.events = 0
        self.unreadable = 0
        self.failures = 0
        self.problem: TripsharkError | None = None  # why it is not up to date now
        self._api = api
        self._params = dict(params or {})
        self._key = key
        self._on_change = on_change
        self._watch_s = watch_s
        self._denied_s = denied_s
        self._patience_s = patience_s
        self._tells_missing = tells_missing
        self._synced = asyncio.Event()
        self._version = ""  # watch from here; "": list first
        self._known = "0"  # a list must not be older; "": the very latest, from etcd
        self._paged = False
        self._said = ""
        self._in_a_row = 0  # failures
        self._heard_s = 0.0  # loop time of the last word from the server
        self._synced_s = 0.0

    @property
    def synced(self) -> bool:
        """Whether `items` have been complete."""
        return self._synced.is_set()

    async def wait_synced(self) -> None:
        """Until `items` are complete for the first time."""
        await self._synced.wait()

    def state(self) -> dict[str, object]:
        """For those who watch us: ages in seconds, None for never."""
        now = asyncio.get_running_loop().time()
        return {
            "path": self.path,
            "items": len(self.items),
            "synced": self.synced,
            "synced_age_s": round(now - self._synced_s, 1) if self._synced_s else None,
            "heard_age_s": round(now - self._heard_s, 1) if self._heard_s else None,
            "lists": self.relists,
            "watches": self.watches,
            "events": self.events,
            "unreadable": self.unreadable,
            "failures": self.failures,
            "problem": str(self.problem) if self.problem else "",
            "denied": isinstance(self.problem, NotPermitted),
        }

    async def run(self) -> Never:
        """List and watch for ever. With `tells_missing` raises `NotFound` when nobody serves the path."""
        while True:
            try:
                if not self._version:
                    await self._list()
                await self._watch()
            except Gone as problem:
                self._failed(problem)
                self._version, self._known = "", "0" if self._in_a_row < 2 else ""
                wait = self._patience()
            except (NotPermitted, NotFound) as problem:
                if self._tells_missing and isinstance(problem, NotFound):
                    self._version = ""
                    raise
                self._failed(problem)
                self._version = ""
                wait = self._denied_s * (0.75 + 0.5 * _chance())
            except TooLarge as problem:
                self._failed(problem)
                self._version, self._paged = "", True
                wait = 0.0 if self._in_a_row < 2 else self._patience()
            except Transient as problem:
                self._failed(problem)
                if self._in_a_row >= 3:  # perhaps the version is what it cannot serve
                    self._version = self._known = ""
                wait = max(self._patience(), problem.after or 0.0)
            except TripsharkError as problem:
                self._failed(problem)
                self._version = ""
                patience = self._patience()
                wait = max(5.0, patience) if isinstance(problem, Denied) else patience
            else:
                continue
            await asyncio.sleep(wait)

    def _patience(self) -> float:
        """Seconds: doubling with each failure in a row, and anything between half and all of it."""
        most = min(MOST_PATIENCE_S, self._patience_s * 2.0 ** min(self._in_a_row, 10))
        return most * (0.5 + 0.5 * _chance())

    # ---------------------------------------------------------------------------- list

    async def _list(self) -> None:
        """Take in everything that is there, then drop what is not."""
        self.relists += 1
        seen: set[str] = set()
        version = ""
        async with aclosing(self._pages()) as pages:
            async for page in pages:
                version = page.version
                for number, body in enumerate(page.items):
                    if (meta := self._meta(body)) is not None:
                        key = self._key(meta)
                        seen.add(key)
                        self._take(key, body)
                    if number % _AT_ONCE == _AT_ONCE - 1:
                        await asyncio.sleep(0)
                del page
        for key in [each for each in self.items if each not in seen]:
            self._drop(key)
        self._version = self._known = version
        self._heard_s = self._synced_s = asyncio.get_running_loop().time()
        self._synced.set()

    def _pages(self) -> AsyncGenerator[Page, None]:
        params = dict(self._params)
        if self._paged or not self._known:
            return self._api.pages(self.path, params=params, repeat=False)
        params["resourceVersion"] = self._known
        return self._api.pages(self.path, params=params, page=0, repeat=False)

    # ---------------------------------------------------------------------------- watch

    async def _watch(self) -> None:
        """Follow until the server ends it."""
        loop = asyncio.get_running_loop()
        self.watches += 1
        began, heard = loop.time(), 0
        # not all nodes of a cluster at the same moment
        seconds = self._watch_s * (0.9 + 0.2 * _chance())
        events = self._api.watch(
            self.path,
            self._version,
            params=self._params,
            seconds=seconds,
            on_open=self._well,
        )
        try:
            async with aclosing(events) as stream:
                async for event in stream:
                    heard += 1
                    self._heard_s = loop.time()
                    self._in_a_row = 0
                    self._event(event)
        finally:
            if loop.time() - began > QUIET_S:
                self._in_a_row = 0
        if not heard and loop.time() - began < 1.0 < seconds:
            raise Transient("the watch ended as soon as it began", where=self.path)
        self._well()

    def _event(self, event: WatchEvent) -> None:
        meta = self._meta(event.object)
        if meta is None:
            return
        if event.type in ("ADDED", "MODIFIED"):
            self.events += 1
            self._take(self._key(meta), event.object)
        elif event.type == "DELETED":
            self.events += 1
            self._drop(self._key(meta))
        if meta.version:
            self._version = self._known = meta.version
        self._well()

    # ---------------------------------------------------------------------------- items

    def _meta(self, body: bytes) -> kube.Meta | None:
        try:
            return kube.meta(body)
        except BadInput:
            self.unreadable += 1
            return None

    def _take(self, key: str, body: bytes) -> None:
        if not key:  # neither name nor uid: no object
            self.unreadable += 1
            return
        try:
            new = self.decode(body)
        except BadInput as problem:
            if not self.unreadable:
                log.warning("%s: an object cannot be read: %s", self.path, problem)
            self.unreadable += 1
            return  # what was known of it before is better than nothing
        if new is None:
            self._drop(key)
            return
        old = self.items.get(key)
        if old == new:
            return
        self.items[key] = new
        if self._on_change is not None:
            self._on_change(old, new)

    def _drop(self, key: str) -> None:
        old = self.items.pop(key, None)
        if old is not None and self._on_change is not None:
            self._on_change(old, None)

    # ---------------------------------------------------------------------------- state

    def _failed(self, problem: TripsharkError) -> None:
        self._in_a_row += 1
        self.failures += 1
        self.problem = problem
        words = str(problem)
        if words != self._said:  # once, however often it is tried
            self._said = words
            log.warning("%s: %s", self.path, words)

    def _well(self) -> None:
        self._heard_s = asyncio.get_running_loop().time()
        if self.problem is not None:
            log.info("%s: followed again", self.path)
            self.problem = None
            self._said = ""


def _chance() -> float:
    return random.random()  # noqa: S311 (spreads nodes, guards nothing)
