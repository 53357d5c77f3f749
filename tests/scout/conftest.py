"""A scout as the product starts it, and sockets that play runtimes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from tests.processes import ended_with_us
from tripshark.errors import Transient
from tripshark.model.pod import Sandbox
from tripshark.scout.client import ScoutClient
from tripshark.scout.config import ScoutConfig

T = TypeVar("T")
DEADLINE_S = 60.0


class Process:
    """`programs.scout` and what it said first."""

    def __init__(self, config: ScoutConfig) -> None:
        self.config = config
        self.start()

    def start(self) -> None:
        module = ["-m", "tripshark.programs.scout", "--json-config", self.config.to_json()]
        self.child = subprocess.Popen(
            [sys.executable, "-P", *module],
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=ended_with_us,
        )
        assert self.child.stdout is not None
        readable, _, _ = select.select([self.child.stdout], [], [], DEADLINE_S)
        assert readable, "the scout did not say that it is ready"
        self.ready = json.loads(self.child.stdout.readline())

    def stop(self) -> int:
        if self.child.poll() is None:
            self.child.terminate()
        try:
            return self.child.wait(60)
        finally:
            if self.child.poll() is None:
                self.child.kill()
                self.child.wait()
            if self.child.stdout is not None:
                self.child.stdout.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts scouts that ask the given sockets only."""
    running: list[Process] = []

    def begin(*sockets: str, **changes: object) -> Process:
        settings: dict[str, object] = {
            "socket": str(tmp_path / f"s{len(running)}.sock"),
            "sockets": sockets,
            "every_s": 0.5,
        }
        process = Process(ScoutConfig(**(settings | changes)))  # type: ignore[arg-type]
        running.append(process)
        assert process.ready["ready"], process.ready
        return process

    yield begin
    assert [process.stop() for process in running] == [0] * len(running), "an end that was none"


@contextlib.asynccontextmanager
async def connected(process: Process) -> AsyncIterator[ScoutClient]:
    client = ScoutClient(process.config.socket)
    try:
        yield client
    finally:
        client.close()


async def until(ask: Callable[[], Awaitable[T | None]]) -> T:
    """The first answer that is one; an absent scout is asked again."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        with contextlib.suppress(Transient):
            if value := await ask():
                return value
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.02)


async def sandbox(
    client: ScoutClient,
    name: str,
    fits: Callable[[Sandbox], object] = lambda each: not each.gone_ns,
) -> Sandbox:
    """The one of that name for which `fits` comes true."""

    async def ask() -> Sandbox | None:
        return next((s for s in await client.sandboxes() if s.pod == name and fits(s)), None)

    return await until(ask)


async def runtime(
    client: ScoutClient, path: str, fits: Callable[[dict[str, object]], object]
) -> dict[str, object]:
    """What the scout says of a socket, once `fits` comes true."""

    async def ask() -> dict[str, object] | None:
        told = (await client.state())["runtimes"]
        assert isinstance(told, list)
        path_ = os.path.realpath(path)
        return next((each for each in told if each["socket"] == path_ and fits(each)), None)

    return await until(ask)


@pytest.fixture
def deaf(tmp_path: Path) -> Iterator[str]:
    """A socket where somebody takes connections and never says a word."""
    path = str(tmp_path / "deaf.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(64)
        yield path
