"""What this node asks of others, kept until the API server has it: nothing is lost, nothing arrives twice."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Never, Protocol

import msgspec

from tripshark.cluster.api import KubeApi
from tripshark.cluster.problems import Exists
from tripshark.errors import (
    BadInput,
    Denied,
    NotFound,
    Permanent,
    TooMany,
    Transient,
    TripsharkError,
)
from tripshark.formats.capture_resource import carries, collection, resource
from tripshark.formats.capture_schema import CAPTURE, CLUSTER_CAPTURE
from tripshark.model.fleet import FleetRequest, resource_name
from tripshark.ports import Clock

log = logging.getLogger(__name__)

MAX_ASKS: Final = 10_000
MAX_BYTES: Final = 64 << 20  # of them together: an alert may be long
SLOW_S: Final = 30.0  # between tries of what somebody has to mend first
PER_MINUTE: Final = (
    120  # asks of this node: alerts can be a flood, and each would be an object of the API server
)
PER_TARGET: Final = 20  # of them about one pod, workload, service or node
_MINUTE_NS: Final = 60 * 10**9
# Made at import: two threads that have msgspec learn a class at the same moment crash Python.
_REQUEST: Final = msgspec.json.Decoder(FleetRequest)


class Asks(Protocol):
    """Where asks wait. Every method raises `Transient` when the disk refuses."""

    async def append(self, name: str, request: FleetRequest) -> None:
        """Durable when it returns; the same name again changes nothing."""

    async def pending(self) -> Sequence[tuple[str, FleetRequest]]:
        """What is not done yet, oldest first."""

    async def done(self, name: str) -> None:
        """The API server has it (or never will): forget it."""


class FolderAsks:
    """`Asks` as one small file each, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def append(self, name: str, request: FleetRequest) -> None:
        await asyncio.to_thread(self._append, name, request)

    async def pending(self) -> Sequence[tuple[str, FleetRequest]]:
        return await asyncio.to_thread(self._pending)

    async def done(self, name: str) -> None:
        await asyncio.to_thread(self._done, name)

    def _append(self, name: str, request: FleetRequest) -> None:
        path = self._folder / f"{name}.json"
        fresh = self._folder / f".{name}.{secrets.token_hex(4)}"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if path.exists():
                return
            sizes = []
            with os.scandir(self._folder) as entries:
                for each in entries:
                    with contextlib.suppress(FileNotFoundError):  # sent just now
                        sizes.append(each.stat(follow_symlinks=False).st_size)
            if len(sizes) >= MAX_ASKS or sum(sizes) >= MAX_BYTES:
                raise TooMany(
                    f"{len(sizes)} requests wait for the API server already",
                    where=str(self._folder),
                    hint="they are sent as soon as it is there",
                )
            try:
                with fresh.open("wb") as file:
                    file.write(msgspec.json.encode(request))
                    file.flush()
                    os.fsync(file.fileno())
                fresh.rename(path)
                self._sync()
            except OSError:
                fresh.unlink(missing_ok=True)
                raise
        except OSError as problem:
            raise Transient(
                f"cannot keep a request: {problem.strerror}", where=str(path)
            ) from problem

    def _pending(self) -> list[tuple[str, FleetRequest]]:
        found: list[tuple[str, FleetRequest]] = []
        try:
            with os.scandir(self._folder) as entries:
                files = [
                    (e.stat().st_mtime_ns, e.name) for e in entries if e.name.endswith(".json")
                ]
        except FileNotFoundError:
            return []
        except OSError as problem:
            raise Transient(
                f"cannot be read: {problem.strerror}", where=str(self._folder)
            ) from problem
        for _, name in sorted(files):
            path = self._folder / name
            try:
                found.append((name.removesuffix(".json"), _REQUEST.decode(path.read_bytes())))
            except FileNotFoundError:
                continue
            except (OSError, msgspec.MsgspecError) as problem:  # of a newer version, or spoiled
                log.warning("%s cannot be read and is set aside: %s", path, problem)
                with contextlib.suppress(OSError):
                    path.rename(path.with_suffix(".unreadable"))
        return found

    def _done(self, name: str) -> None:
        try:
            (self._folder / f"{name}.json").unlink(missing_ok=True)
            self._sync()
        except OSError as problem:
            raise Transient(f"cannot be removed: {problem.strerror}", where=name) from problem

    def _sync(self) -> None:
        fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


class Outbox:
    """Takes asks in, and brings them to the API server whenever it is there."""

    def __init__(self, api: KubeApi, asks: Asks, clock: Clock, *, slow_s: float = SLOW_S) -> None:
        self._api = api
        self._asks = asks
        self._clock = clock
        self._slow_s = slow_s
        self._asked = asyncio.Event()
        self._lately: deque[tuple[int, str, str]] = deque()  # when, about whom, as which resource
        self.sent = 0
        self.refused = 0  # more of them within a minute than may be
        self.dropped = 0  # the API server will never take them; each is in the log
        self.waiting = 0
        self.problem = ""  # why something waits

    async def ask(self, request: FleetRequest) -> str:
        """Durable when it returns; the resource's name. Raises `BadInput` for what no resource can say,
        `TooMany` for more within a minute than nodes ask of each other."""
        if not carries(request.alert) and request.rule:
            # the plan is made already, and this node's own part holds the alert
            request = replace(request, alert="")
        name = resource_name(request)
        resource(request, name)
        self._admit(name, ", ".join(map(str, request.aims)))
        await self._asks.append(name, request)
        self._asked.set()
        return name

    def _admit(self, name: str, whom: str) -> None:
        """The same ask again is free: it is the same resource."""
        now_ns = self._clock.now_ns()
        while self._lately and now_ns - self._lately[0][0] > _MINUTE_NS:
            self._lately.popleft()
        if any(name == known for _, _, known in self._lately):
            return
        about_it = sum(whom == known for _, known, _ in self._lately)
        if len(self._lately) >= PER_MINUTE or about_it >= PER_TARGET:
            self.refused += 1
            told = f"{PER_TARGET} about {whom}" if about_it >= PER_TARGET else str(PER_MINUTE)
            raise TooMany(
                f"other nodes were asked {told} within a minute already",
                hint="deliver alerts to the node they are about: internalTrafficPolicy: Local",
                after=60.0,
            )
        self._lately.append((now_ns, whom, name))

    async def run(self) -> Never:
        """Send what waits, for ever."""
        in_a_row = 0
        while True:
            self._asked.clear()
            after = 0.0
            try:
                left = await self._round()
            except Transient as problem:
                self.problem = str(problem)
                left, after = 1, problem.after or 0.0
            # a server that has just come back denies what it will allow in a moment
            in_a_row = in_a_row + 1 if left else 0
            wait = max(min(0.25 * 2.0 ** min(in_a_row, 10), self._slow_s), after)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), wait if left else None)

    async def _round(self) -> int:
        """Try everything once; what stays because somebody has to mend something first."""
        pending = await self._asks.pending()
        self.waiting = len(pending)
        left = 0
        for name, request in pending:
            try:
                done = await self._send(name, request)
            except (Denied, NotFound) as problem:  # no right, or no definition, yet
                self.problem = str(problem)
                done = self._clock.now_ns() - request.t0_ns > request.ttl_ns
                if done:
                    self._drop(name, problem)
            if done:
                await self._asks.done(name)
                self.waiting -= 1
            else:
                left += 1
        if not left:
            self.problem = ""
        return left

    async def _send(self, name: str, request: FleetRequest) -> bool:
        kind = CAPTURE if request.namespace else CLUSTER_CAPTURE
        try:
            await self._api.create(collection(kind, request.namespace), resource(request, name))
            self.sent += 1
        except Exists:
            log.debug("%s was asked already", name)
        except (BadInput, Permanent) as problem:
            self._drop(name, problem)
        return True

    def _drop(self, name: str, problem: TripsharkError) -> None:
        self.dropped += 1
        log.error("the request %s is given up: %s", name, problem)
