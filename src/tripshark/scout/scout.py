"""Everything the runtimes of this machine know, kept up to date, and asked again when somebody is looked for."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Sequence

from tripshark.model.pod import Sandbox
from tripshark.scout.book import Book
from tripshark.scout.config import USUAL, ScoutConfig
from tripshark.scout.facts import container_id
from tripshark.scout.follow import Follower
from tripshark.scout.netns import Namespaces, Watch


class Scout:
    """Follows all sockets at once. `now` is CLOCK_REALTIME in nanoseconds."""

    def __init__(self, config: ScoutConfig, *, now: Callable[[], int]) -> None:
        self._config = config
        self._here = Namespaces()
        self.book = Book(tombstone_ns=config.tombstone_s * 1_000_000_000, now=now)
        paths = dict.fromkeys(os.path.realpath(each) for each in config.sockets or USUAL)
        self._followers = [
            Follower(each, self.book, self._here, now, config.every_s) for each in paths
        ]
        self._watch: Watch | None = None

    async def run(self) -> None:
        """For ever."""
        watch = self._watch = Watch(self._config.netns_dirs, self._stirred)
        try:
            async with asyncio.TaskGroup() as tasks:
                for each in self._followers:
                    tasks.create_task(each.run())
                while True:
                    await asyncio.sleep(self._config.every_s)
                    watch.again()
        finally:
            watch.close()

    async def wait_until_tried(self, seconds: float) -> None:
        """Until every socket was looked at once, or for so long: one may hang."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                for each in self._followers:
                    await each.tried.wait()

    async def find(self, text: str) -> Sandbox | None:
        """By a container's or sandbox's id: what is known of it, living or dead, else what a runtime says now.

        Raises `BadInput` for what is no id, or begins several.
        """
        id = container_id(text)
        known = self.book.find(id)
        if known is not None:
            return known
        async with asyncio.TaskGroup() as tasks:
            questions = [tasks.create_task(each.find(id)) for each in self._followers]
            found = await _first(questions)
            for each in questions:  # one that hangs is not waited for
                each.cancel()
        return None if found is None else self.book.find(found.id) or found

    def state(self) -> dict[str, object]:
        """For people: who is followed, how well, and how much is known."""
        living, gone = self.book.counts()
        runtimes = [each.describe() for each in self._followers]
        return {
            "runtimes": [
                each for each in runtimes if each["state"] != "absent" or self._config.sockets
            ],
            "looked_for": [str(each["socket"]) for each in runtimes],
            "sandboxes": living,
            "gone": gone,
            "forgotten": self.book.forgotten,
            "stirs": self._watch.seen if self._watch else 0,
            "host_inode": self._here.host,
        }

    def _stirred(self) -> None:
        for each in self._followers:
            each.hint()


async def _first(questions: Sequence[asyncio.Task[Sandbox | None]]) -> Sandbox | None:
    """The first answer that is one."""
    for answer in asyncio.as_completed(questions):
        if (found := await answer) is not None:
            return found
    return None
