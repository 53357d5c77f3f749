"""Follows one runtime through its comings and goings; a runtime that hangs or lies holds up nobody but itself."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field

from tripshark.errors import Permanent, Transient, TripsharkError
from tripshark.model.pod import Sandbox
from tripshark.scout.book import Book
from tripshark.scout.cri import Cri
from tripshark.scout.docker import Docker
from tripshark.scout.grpc import Channel
from tripshark.scout.netns import Namespaces
from tripshark.scout.runtime import Runtime

log = logging.getLogger(__name__)

_BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_ABSENT_S = 1.0  # how often is looked whether a socket has come
_LOOK_S = (
    15.0  # a look at a thousand pods takes about that on a machine that has better things to do
)
_FIND_S = 3.0
_HOT_S = (0.03, 0.06, 0.12, 0.25, 0.5, 1.0)  # looks after something stirred: runtimes tell early
_SHARE = 2  # a look that took long is followed by a pause so many times as long


@dataclass(slots=True)
class Facts:
    """How it goes with one socket, for people."""

    state: str = "absent"  # "absent", "followed", "failing"
    error: str = ""
    looks: int = 0
    failures: int = 0
    met: int = 0  # how often it was found anew
    hints: int = 0
    unreadable: int = 0
    left_out: int = 0
    look_ms: float = 0.0
    events: str = ""  # "yes" while it tells of changes by itself


@dataclass(slots=True)
class Follower:
    """One socket and who is behind it."""

    path: str
    book: Book
    here: Namespaces
    now: Callable[[], int]
    every_s: float
    facts: Facts = field(default_factory=Facts)
    tried: asyncio.Event = field(
        default_factory=asyncio.Event
    )  # it was looked at once, or is absent
    _runtime: Runtime | None = None
    _stirred: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """For ever."""
        failures = 0
        while True:
            if not self._is_there():
                self.facts.state, failures = "absent", 0
                self._runtime = None
                self._keep()
                self.tried.set()
                await asyncio.sleep(_ABSENT_S)
                continue
            looks = self.facts.looks
            try:
                self._runtime = await meet(self.path, here=self.here, now=self.now)
                self.facts.met += 1
                if isinstance(self._runtime, Cri):
                    self.book.tells_pods(self.path)
                await self._follow(self._runtime)
            except TripsharkError as problem:
                self._failed(problem)
            except (
                Exception
            ) as problem:  # a bug met at one runtime must not blind us to the others
                log.exception("%s cannot be followed", self.path)
                self._failed(Permanent(f"an error of ours: {problem}", where=self.path))
            finally:
                if self._runtime is not None:
                    self._runtime.close()
                self._runtime = None
            self.tried.set()
            failures = 0 if self.facts.looks > looks else failures + 1
            await asyncio.sleep(_BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)])

    def hint(self) -> None:
        """Something may have changed: look soon, and a few times more."""
        self._stirred.set()

    async def find(self, id: str) -> Sandbox | None:
        """Ask the runtime itself; None also when it is away, hangs, or cannot be understood."""
        runtime = self._runtime
        if runtime is None:
            return None
        try:
            async with asyncio.timeout(_FIND_S):
                found = await runtime.find(id)
        except (TripsharkError, TimeoutError) as problem:
            self.facts.failures += 1
            self.facts.error = str(problem) or f"no answer within {_FIND_S:g} s"
            return None
        if found is not None and self._runtime is runtime:
            self.book.put(self.path, found)
        return found

    def describe(self) -> dict[str, object]:
        facts = self.facts
        runtime = self._runtime
        return {
            "socket": self.path,
            "runtime": runtime.name if runtime else "",
            "version": runtime.version if runtime else "",
            "protocol": runtime.protocol if runtime else "",
            "state": facts.state,
            "error": facts.error,
            "looks": facts.looks,
            "failures": facts.failures,
            "met": facts.met,
            "hints": facts.hints,
            "events": facts.events == "yes",
            "unreadable": facts.unreadable,
            "left_out": facts.left_out,
            "look_ms": round(facts.look_ms, 1),
        }

    # ---- while it is there ----------------------------------------------------------------------------------

    async def _follow(self, runtime: Runtime) -> None:
        """Look, and look again, until that does not work any more. Raises why."""
        async with asyncio.TaskGroup() as tasks:
            listener = tasks.create_task(self._listen(runtime))
            problem = await self._look_until_lost(runtime)
            listener.cancel()
        raise problem

    async def _look_until_lost(self, runtime: Runtime) -> TripsharkError:
        hot = 0
        while True:
            self._stirred.clear()
            try:
                took = await self._look(runtime)
            except TripsharkError as problem:
                return problem
            pause = _HOT_S[hot] if hot < len(_HOT_S) else self.every_s
            hot += 1
            await asyncio.sleep(took * _SHARE)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(
                    pause
                ):  # wait_for may swallow our own end (Python 3.11)
                    await self._stirred.wait()
                    hot = 0

    async def _look(self, runtime: Runtime) -> float:
        """One look; how long it took, in seconds."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            async with asyncio.timeout(_LOOK_S):
                look = await runtime.look()
        except TimeoutError as problem:
            raise Transient(f"no answer within {_LOOK_S:g} s", where=self.path) from problem
        took = loop.time() - begun
        self.book.take(self.path, look.sandboxes)
        facts = self.facts
        if facts.state != "followed":
            log.info("%s %s follows %s", runtime.name, runtime.version, self.path)
        facts.state, facts.error = "followed", ""
        facts.looks += 1
        facts.look_ms = took * 1000
        facts.unreadable, facts.left_out = look.unreadable, look.left_out
        self.tried.set()
        return took

    async def _listen(self, runtime: Runtime) -> None:
        """Let the runtime tell of changes; where it does not, looking from time to time has to do."""
        wait = 0
        while True:
            self.facts.events = "yes"
            try:
                await runtime.hints(self._told)
            except TripsharkError as problem:
                log.debug("%s tells of no changes: %s", self.path, problem)
            else:
                if not isinstance(runtime, Docker):
                    self.facts.events = ""
                    return  # it knows no such thing
            self.facts.events = ""
            await asyncio.sleep(_BACKOFF_S[min(wait, len(_BACKOFF_S) - 1)])
            wait += 1

    def _told(self) -> None:
        self.facts.hints += 1
        self.hint()

    # ---- while it is not ------------------------------------------------------------------------------------

    def _is_there(self) -> bool:
        try:
            return stat.S_ISSOCK(os.stat(self.path).st_mode)
        except OSError:
            return False

    def _failed(self, problem: TripsharkError) -> None:
        if self.facts.state != "failing":
            log.warning("%s: %s", self.path, problem)
        self.facts.state, self.facts.error = "failing", str(problem)
        self.facts.failures += 1
        self._keep()

    def _keep(self) -> None:
        """Pods outlive their runtime's restart; those that end meanwhile are missed by their namespaces."""
        self.book.keep(self.path, self._lives)

    def _lives(self, sandbox: Sandbox) -> bool:
        if not sandbox.inode or sandbox.host_network:
            return not sandbox.pid or os.path.exists(f"/proc/{sandbox.pid}")
        return self.here.of(sandbox.pid, sandbox.netns) == sandbox.inode


async def meet(path: str, *, here: Namespaces, now: Callable[[], int]) -> Runtime:
    """Who listens on a socket, found out by asking. Raises `Permanent` when it is no runtime, and as its client does."""
    channel = await Channel.open(path)
    try:
        found = await Cri.meet(channel, here=here, now=now)
    except TripsharkError as no_grpc:
        channel.close()
        engine = await _engine(path, here=here, now=now, otherwise=no_grpc)
    else:
        if found is not None:
            return found
        channel.close()
        nobody = Permanent("gRPC without CRI is spoken here", where=path, hint="is CRI disabled?")
        engine = await _engine(path, here=here, now=now, otherwise=nobody)
    return engine


async def _engine(
    path: str, *, here: Namespaces, now: Callable[[], int], otherwise: TripsharkError
) -> Runtime:
    try:
        engine = await Docker.meet(path, here=here, now=now)
    except TripsharkError as problem:
        raise otherwise from problem
    if engine is None:
        raise otherwise
    return engine
