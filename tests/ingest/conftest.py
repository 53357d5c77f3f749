"""A door over a small real intake, and a real server in front of it."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from tripshark.ingest.auth import Gate
from tripshark.ingest.door import Door
from tripshark.ingest.heartbeat import Heartbeats
from tripshark.ingest.rate import ClientRate
from tripshark.ingest.webhook import Webhook
from tripshark.ingest.witness import Witnesses
from tripshark.model.alert import Alert, AlertId
from tripshark.ports import Receipt
from tripshark.web.app import App
from tripshark.web.serve import Tls, bind, serving


class SystemClock:
    def now_ns(self) -> int:
        return time.time_ns()


class MemoryIntake:
    """`ports.Intake` that keeps everything in a list; `refuse_with` makes it unable to."""

    def __init__(self) -> None:
        self.taken: list[tuple[Alert, bytes, str]] = []
        self.refuse_with: Exception | None = None
        self.before: Callable[[], Awaitable[object]] | None = None
        self._bodies: dict[bytes, int] = {}

    async def accept(self, alert: Alert, body: bytes, via: str) -> Receipt:
        if self.before is not None:
            await self.before()
        if self.refuse_with is not None:
            raise self.refuse_with
        self.taken.append((alert, body, via))
        first = self._bodies.setdefault(body, len(self.taken))
        return Receipt(
            alert=AlertId(f"a{first}"), duplicate=first != len(self.taken), incident=None
        )

    @property
    def numbers(self) -> list[int]:
        """The `n` of the events taken, in order."""
        return [int(str(alert.fields["proc.n"])) for alert, _, _ in self.taken]


class CountingMeter:
    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], int] = {}

    def alert(self, via: str, outcome: str, seconds: float) -> None:
        assert seconds >= 0
        self.counts[via, outcome] = self.counts.get((via, outcome), 0) + 1


@pytest.fixture
def event() -> Callable[..., bytes]:
    def make(n: int = 0, **changes: object) -> bytes:
        fields = {
            "proc.n": n,
            "evt.time": 1795439846000000000 + n,
            "container.id": "0123456789ab",
            "fd.name": "10.0.0.7:40000->203.0.113.66:4444",
            "fd.l4proto": "tcp",
        }
        whole: dict[str, object] = {
            "hostname": "vm",
            "output": f"13:17:26.{542265835 + n} Warning event {n}",
            "output_fields": fields,
            "priority": "Warning",
            "rule": "Outbound Connection to C2 Servers",
            "source": "syscall",
            "tags": ["network"],
            "time": f"2026-11-23T13:17:26.{n:09d}Z",
        }
        return json.dumps({**whole, **changes}, sort_keys=True).encode()

    return make


@pytest.fixture
def intake() -> MemoryIntake:
    return MemoryIntake()


@pytest.fixture
def meter() -> CountingMeter:
    return CountingMeter()


@pytest.fixture
def heartbeats() -> Heartbeats:
    return Heartbeats()


@pytest.fixture
def door(intake: MemoryIntake, heartbeats: Heartbeats) -> Door:
    return Door(intake, SystemClock(), heartbeats)


@pytest.fixture
def witnessing(intake: MemoryIntake, heartbeats: Heartbeats, tmp_path: Path) -> Door:
    """A door that knows events by their meaning, for more than one way of hearing Falco."""
    return Door(intake, SystemClock(), heartbeats, Witnesses(tmp_path / "witnesses"))


Serve = Callable[..., AbstractAsyncContextManager[int]]


@pytest.fixture
def serve(door: Door, meter: CountingMeter) -> Serve:
    """Serve the webhook on a free port of loopback; yields the port."""

    @asynccontextmanager
    async def run(
        gate: Gate | None = None,
        *,
        tls: Tls | None = None,
        max_body: int = 1 << 20,
        in_flight: int = 1024,
        rate: ClientRate | None = None,
        through: Door | None = None,
    ) -> AsyncIterator[int]:
        webhook = Webhook(
            through or door,
            gate or Gate(),
            meter,
            max_body=max_body,
            in_flight=in_flight,
            rate=rate,
        )
        async with serving(App(None, webhook), bind("127.0.0.1", 0), tls) as port:
            yield port

    return run
