"""The API over a real catalogue and a real vault, with one sealed incident in them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import pytest

from tripshark.errors import NotFound, Transient
from tripshark.ingest.auth import Gate
from tripshark.ingest.heartbeat import Heartbeats
from tripshark.model.alert import Accepted, Alert, AlertId, Priority
from tripshark.model.evidence import IncidentId, Ledger, Manifest
from tripshark.model.incident import Incident, State
from tripshark.model.plan import Reason, Refusal
from tripshark.model.target import (
    Identity,
    Interface,
    Resolution,
    RingState,
    Target,
    TargetKey,
    TargetKind,
)
from tripshark.ports import AlertRow, CaptureRequest
from tripshark.programs.reporting import Reports
from tripshark.store.catalogue import SqlCatalogue
from tripshark.store.notes import SqlNotes
from tripshark.store.vault import FolderVault
from tripshark.web.app import App
from tripshark.web.metrics import Metrics
from tripshark.web.parts import Parts
from tripshark.web.serve import bind, serving

EVIDENCE = bytes(range(256)) * 1000
S = 1_000_000_000


class SystemClock:
    def now_ns(self) -> int:
        return time.time_ns()


class StillTargets:
    """`ports.Targets` of a list; raises what `away` says."""

    def __init__(self) -> None:
        self.all_of_them: tuple[Target, ...] = ()
        self.away: Exception | None = None

    async def all(self) -> tuple[Target, ...]:
        if self.away is not None:
            raise self.away
        return self.all_of_them

    async def resolve(self, alert: Alert) -> Resolution:
        return Resolution(target=None, reason="none")

    async def find(self, name: str) -> Resolution:
        return Resolution(target=None, reason="none")


class RecordedCaptures:
    """`ports.Captures` that opens the given incident for any target but one."""

    def __init__(self, opens: Incident) -> None:
        self.opens = opens
        self.asked: list[CaptureRequest] = []

    async def capture(self, request: CaptureRequest) -> Incident:
        if request.target == "nobody":
            raise NotFound("no such target", where=request.target)
        if request.target == "payments/nobody":
            raise NotFound("no such target", hint="recorded are: shop/cart")
        self.asked.append(request)
        return self.opens


class AwayDissection:
    """`parts.Dissection` of an analyst that cannot be reached."""

    async def ask(self, *_: object, **__: object) -> NoReturn:
        raise Transient("the analyst does not answer", after=1.0)


@dataclass(slots=True)
class World:
    """Everything behind the API of one test."""

    parts: Parts
    catalogue: SqlCatalogue
    vault: FolderVault
    targets: StillTargets
    captures: RecordedCaptures
    heartbeats: Heartbeats
    incident: Incident
    viewed: list[tuple[IncidentId, str, str]]

    @asynccontextmanager
    async def served(self, **changes: object) -> AsyncIterator[int]:
        """Serve on a free port of loopback; yields the port."""
        app = App(replace(self.parts, **changes), None)
        async with serving(app, bind("127.0.0.1", 0)) as port:
            yield port


def make_target(name: str = "shop0", **changes: object) -> Target:
    return replace(
        Target(
            key=TargetKey(f"k-{name}"),
            kind=TargetKind.NETNS,
            name=f"netns:{name}",
            inode=42,
            since_ns=S,
            identity=Identity(namespace="payments", pod=name, labels={"app": "checkout"}),
            rings=(
                RingState(
                    ring=f"r-{name}",
                    interface=Interface(
                        name="eth0", ifindex=2, hardware_type=1, addresses=("10.0.0.7/24",)
                    ),
                    live=True,
                    bytes=16_000_000,
                    snaplen=262_144,
                    packets=100,
                    drops=3,
                    oldest_ns=2 * S,
                    newest_ns=3 * S,
                    opened_ns=S,
                ),
            ),
        ),
        **changes,
    )


def make_incident(number: int = 1, **changes: object) -> Incident:
    return replace(
        Incident(
            id=IncidentId(f"20261124-{number:04d}"),
            state=State.SEALED,
            target=TargetKey("k-shop0"),
            title="payments/checkout",
            namespace="payments",
            pod="checkout",
            rule="Beacon",
            falco_rule="Outbound Connection to C2 Servers",
            priority="Warning",
            t0_ns=(1000 + number) * S,
            opened_ns=(1000 + number) * S,
            sealed_ns=(1010 + number) * S,
            packets=7,
            bytes=700,
        ),
        **changes,
    )


def make_alert(number: int = 1, **changes: object) -> AlertRow:
    alert = Alert(
        rule=str(changes.pop("rule", "Some rule")),
        priority=Priority.WARNING,
        time_ns=1000 * S,
        output=str(changes.pop("output", "output")),
        namespace=str(changes.pop("namespace", "payments")),
        pod=str(changes.pop("pod", "checkout")),
    )
    return AlertRow(
        accepted=Accepted(
            id=AlertId(f"alert-{number}"),
            seq=number,
            received_ns=1000 * S,
            alert=alert,
            body=b"{}",
            via="webhook",
        ),
        incident=changes.pop("incident", None),
        refusal=changes.pop(
            "refusal",
            Refusal(reason=Reason.NO_TARGET, message="not known", hint="add it", rule="Beacon"),
        ),
    )


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with made_world(tmp_path) as made:
        yield made


@asynccontextmanager
async def made_world(tmp_path: Path) -> AsyncIterator[World]:
    """The world of one test, closed with the block."""
    clock = SystemClock()
    catalogue = await SqlCatalogue.open(tmp_path / "catalogue.sqlite")
    vault = FolderVault(tmp_path, clock=clock)
    incident = make_incident()
    draft = vault.begin(incident.id, incident.opened_ns)
    with draft.create("evidence.pcapng") as file:
        file.write(EVIDENCE)
    with draft.create("evidence-2.pcapng") as file:
        file.write(b"second")
    draft.seal(
        Manifest(
            incident=incident.id,
            created_ns=incident.sealed_ns,
            ledger=Ledger(),
            files=(),
            details={"what": {"packets": 7}, "who": {"namespace": "payments"}},
        ),
        ["evidence.pcapng", "evidence-2.pcapng"],
    )
    vault.beside(incident.id, "findings.json", b'{"found": 1}')
    await catalogue.put(
        position=1,
        incidents=[incident],
        alerts=[
            make_alert(1, incident=incident.id, refusal=None),
            make_alert(2),
        ],
    )
    targets, heartbeats = StillTargets(), Heartbeats()
    targets.all_of_them = (make_target(),)
    captures = RecordedCaptures(make_incident(9, state=State.OPEN, sealed_ns=0))
    viewed: list[tuple[IncidentId, str, str]] = []

    async def fine() -> str:
        return ""

    parts = Parts(
        clock=clock,
        catalogue=catalogue,
        targets=targets,
        vault=vault,
        captures=captures,
        gate=Gate(),
        metrics=Metrics(),
        rules=lambda: [{"rule": "Beacon"}],
        upstream=heartbeats.upstream,
        checks={"recorder": fine, "disk": fine},
        custody=lambda id, name, who: viewed.append((id, name, who)),
        hosts=frozenset({"Node-1"}),
        notes=SqlNotes(catalogue),
        exports=Reports(),
        dissection=AwayDissection(),
        node="node-1",
    )
    yield World(
        parts=parts,
        catalogue=catalogue,
        vault=vault,
        targets=targets,
        captures=captures,
        heartbeats=heartbeats,
        incident=incident,
        viewed=viewed,
    )
    await catalogue.close()


@pytest.fixture
def evidence() -> bytes:
    return EVIDENCE


@pytest.fixture
def make() -> dict[str, Callable[..., object]]:
    return {"target": make_target, "incident": make_incident, "alert": make_alert}


Served = Callable[..., AbstractAsyncContextManager[int]]
