"""The product's recorder as a user runs it, with a client beside it."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

from bench import cpu
from bench.stage import Failed, Stage, first_line, until
from tripshark.model.target import RingState, Target
from tripshark.recorder.client import RecorderClient
from tripshark.recorder.config import MIB, RecorderConfig

T = TypeVar("T")

_NUMBERS = itertools.count()


class Recorder:
    """Both its processes (the holder and the recorder proper), in one meter."""

    def __init__(
        self, stage: Stage, *, include: str, meter: cpu.Meter | None = None, **changes: int
    ) -> None:
        self._stage = stage
        self.path = str(stage.folder / f"recorder{next(_NUMBERS)}.sock")
        config = RecorderConfig(
            socket=self.path, host=False, include=(include,), **changes  # type: ignore[arg-type]
        )  # fmt: skip
        module = ["-P", "-m", "tripshark.programs.recorder", "--json-config", config.to_json()]
        self._process = stage.spawn([sys.executable, *module], meter=meter)
        said = json.loads(first_line(self._process))
        if not said.get("ready"):
            raise Failed(f"the recorder: {said}")

    @property
    def pids(self) -> list[int]:
        """The holder and the recorder proper."""
        path = f"/proc/{self._process.pid}/task/{self._process.pid}/children"
        with open(path) as file:
            return [self._process.pid, *map(int, file.read().split())]

    def ask(self, question: Callable[[RecorderClient], Awaitable[T]]) -> T:
        """One question on a connection of its own."""

        async def answer() -> T:
            client = RecorderClient(self.path)
            try:
                return await question(client)
            finally:
                client.close()

        return asyncio.run(answer())

    def targets(self) -> tuple[Target, ...]:
        return self.ask(lambda client: client.targets())

    def wait_for(self, *names: str, interface: str = "eth0") -> dict[str, RingState]:
        """The rings of that interface, once every one of these namespaces has one; by namespace."""

        def found() -> dict[str, RingState]:
            rings = self.rings(interface)
            return rings if all(name in rings for name in names) else {}

        return until(found, f"the rings of {len(names)} namespaces", 30)

    def rings(self, interface: str = "eth0") -> dict[str, RingState]:
        return {
            target.name.removeprefix("netns:"): ring
            for target in self.targets()
            for ring in target.rings
            if ring.live and ring.interface.name == interface
        }

    def stop(self) -> None:
        self._stage.end(self._process, signal.SIGTERM)


def budget_for(ring_mib: int) -> int:
    """`per_target` that gives eth0 a ring of so many MiB: the first interface gets five eighths."""
    return -(-ring_mib * MIB * 8 // 5)
