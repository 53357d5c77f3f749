"""The hub: one catalogue, page and API for the evidence of many nodes, which it reads from the object store.

It records nothing, holds no capability and is needed by nobody: nodes seal and send without it, and whatever came into
the store while it was away is there when it looks again. Several hubs may serve one PostgreSQL catalogue.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import gc
import json
import os
import platform
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import structlog
import uvloop

from tripshark import __version__
from tripshark.cluster.api import KubeApi
from tripshark.cluster.captures_asks import FolderAsks, Outbox
from tripshark.errors import BadInput, TripsharkError
from tripshark.ingest.auth import Gate
from tripshark.ingest.heartbeat import Heartbeats
from tripshark.model.alert import Json
from tripshark.model.evidence import IncidentId
from tripshark.ports import Clock, Fleet
from tripshark.programs import parts
from tripshark.programs.classic import to_pcap
from tripshark.programs.clock import SystemClock
from tripshark.programs.cluster import access_of, api_of
from tripshark.programs.dissection import sessions_of
from tripshark.programs.fleet_captures import FleetCaptures, NoTargets
from tripshark.programs.listening import credentials_of, tls_of, url_of
from tripshark.programs.logs import log_to_stderr
from tripshark.programs.node import Config
from tripshark.programs.privilege import give_up
from tripshark.programs.reach import keep_reach
from tripshark.programs.reporting import Reports
from tripshark.programs.retaining import forget
from tripshark.programs.signing_in import desk_of
from tripshark.settings import Settings, load
from tripshark.store.catalogue import SqlCatalogue
from tripshark.store.fleet import FleetParts
from tripshark.store.harvest import Harvest
from tripshark.store.indexing import FleetIndexing
from tripshark.store.merged import MergedFiles
from tripshark.store.notes import SqlNotes
from tripshark.store.objects import Objects
from tripshark.store.remote import Cache, HubShelf, Remote
from tripshark.store.vault import FolderVault
from tripshark.web.access import Access
from tripshark.web.app import App
from tripshark.web.metrics import Metrics
from tripshark.web.parts import Check, Parts
from tripshark.web.serve import bind, serving

log = structlog.get_logger("tripshark.hub")

_LONGEST = 60.0  # seconds between looks while the store is away
_FORGET_EVERY = 3600.0
_DEED_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What a hub has of a Kubernetes cluster, where it runs in one."""

    access: Access | None = None  # who may read
    fleet: Fleet | None = None  # how nodes are asked to capture


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="tripshark-hub", description=__doc__)
    parser.add_argument("--json-config", required=True, metavar="JSON")
    faulthandler.enable()  # a crash in a library says where
    log_to_stderr()
    hub: Hub | None = None
    try:
        config = Config.from_json(parser.parse_args(argv).json_config)
        settings = load(Path(config.config) if config.config else None, config.overrides)
        hub = Hub(settings)
        hub.prepare()
        keep_reach()
        give_up(uid=config.uid, gid=config.gid, groups=config.groups)
        gc.freeze()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(hub.run())
    except TripsharkError as problem:
        told = problem.as_json()
        if hub is None or not hub.ready:
            print(json.dumps({"ready": False, **told}), flush=True)  # noqa: T201 (the supervisor waits for it)
        else:
            print(json.dumps(told), file=sys.stderr)  # noqa: T201 (a program's own voice)
        return problem.exit_code
    return 0


class Hub:
    """`prepare`, then `run` once."""

    def __init__(self, settings: Settings, *, cluster: Cluster | None = None) -> None:
        self.settings = settings
        self.clock: Clock = SystemClock()
        self.stopping = asyncio.Event()
        self.ready = False
        self._cluster = cluster or Cluster()
        self._objects: Objects
        self._api: KubeApi | None = None

    def prepare(self) -> None:
        """Everything that can be wrong is found here: store, address, certificates, credentials. Raises `TripsharkError`."""
        settings = self.settings
        store = parts.objects(settings)
        if store is None:
            raise BadInput(
                "a hub reads an object store, and none is given",
                where="store.url",
                hint="set store.url to what the nodes send to: s3://BUCKET/PREFIX, file:///VOLUME, …",
            )
        self._api = api_of(settings)
        if self._cluster.access is None:
            self._cluster = replace(self._cluster, access=access_of(settings, self._api))
        self._desk = desk_of(settings, kubernetes=self._cluster.access is not None)
        self._objects = store
        self._bound = bind(settings.listen.host, settings.listen.port)
        tls = tls_of(settings.tls)
        self._tls = tls.context() if tls else None
        self._gate = Gate(
            replace(credentials_of(settings), secret_path=""),  # no alerts come in here
            tls_clients=settings.tls.client_ca is not None,
        )
        if self._gate.is_open and not settings.listen.is_loopback and self._desk is None:
            raise BadInput(
                f"everybody who reaches {settings.listen} could read all evidence",
                where="listen",
                hint="set signin.tokens, signin.oidc, kubernetes.access or tls.client_ca, or listen on 127.0.0.1",
            )

    async def run(self) -> None:
        """Until SIGTERM or SIGINT; answers under way are finished first."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stopping.set)
        settings, data = self.settings, self.settings.data
        database = settings.hub.database
        async with AsyncExitStack() as stack:
            catalogue = await SqlCatalogue.open(
                database.get_secret_value() if database else data / "hub.sqlite"
            )
            stack.push_async_callback(catalogue.close)
            if self._api is not None:
                stack.push_async_callback(self._api.close)
            if self._desk is not None:
                stack.push_async_callback(self._desk.close)
            cache = Cache(data / "cache", most=settings.store.cache)
            await asyncio.to_thread(cache.prepare)
            (data / "scratch").mkdir(exist_ok=True)
            asks = self._asks()
            fleet, remote = FleetParts(catalogue), Remote(self._objects, cache)
            indexing = FleetIndexing(
                objects=self._objects,
                fleet=fleet,
                catalogue=catalogue,
                clock=self.clock,
                tell=_log,
            )
            harvest = Harvest(
                self._objects,
                fleet,
                clock=self.clock,
                every=settings.hub.every,
                indexing=indexing,
                tell=_log,
            )
            heartbeats = Heartbeats()
            deed = _custody(catalogue, fleet, self.clock, loop)
            dissection = sessions_of(settings)
            stack.callback(dissection.close)
            api = Parts(
                clock=self.clock,
                catalogue=catalogue,
                targets=NoTargets(),
                vault=FolderVault(data, clock=self.clock),
                captures=FleetCaptures(self._cluster.fleet or asks, self.clock),
                gate=self._gate,
                metrics=Metrics(),
                rules=list,
                upstream=heartbeats.upstream,
                checks={"catalogue": _catalogue_check(catalogue)},
                custody=lambda id, name, who: deed(id, "viewed", who, {"file": name}),
                deed=deed,
                index=indexing.index,
                notes=SqlNotes(catalogue),
                exports=Reports(),
                to_pcap=to_pcap,
                scratch=data / "scratch",
                hosts=frozenset({settings.listen.host, platform.node()}),
                metrics_open=settings.web.metrics_open,
                access=self._cluster.access,
                signin=self._desk,
                origin=settings.signin.url,
                shelf=HubShelf(fleet, remote, presigned=settings.hub.presigned),
                parts_of=fleet.parts,
                merging=MergedFiles(remote, cache, tool=f"Tripshark {__version__}"),
                harvest=lambda: harvest.state,
                kind="hub",
                dissection=dissection,
            )
            async with asyncio.TaskGroup() as tasks:
                helpers = [
                    tasks.create_task(self._look(harvest)),
                    tasks.create_task(self._forget(catalogue)),
                    *([tasks.create_task(asks.run())] if asks is not None else []),
                ]
                async with serving(App(api, None), self._bound, self._tls) as port:
                    self._say_ready(port)
                    await self.stopping.wait()
                for helper in helpers:
                    helper.cancel()

    def _asks(self) -> Outbox | None:
        """How nodes are asked to capture, where there is a cluster to ask them through."""
        if self._api is None or not self.settings.kubernetes.captures:
            return None
        folder = self.settings.data / "asks"
        folder.mkdir(exist_ok=True)
        return Outbox(self._api, FolderAsks(folder), self.clock)

    async def _look(self, harvest: Harvest) -> None:
        tries = 0
        while True:
            try:
                await harvest.look()
                tries = 0
            except TripsharkError:
                tries += 1  # told and shown by the harvest itself
            pause = self.settings.hub.every * 2 ** min(tries, 10)
            await asyncio.sleep(min(_LONGEST, pause) if tries else pause)

    async def _forget(self, catalogue: SqlCatalogue) -> None:
        while True:
            with contextlib.suppress(TripsharkError):  # the catalogue's absence is told by /readyz
                while await forget(self.settings, catalogue, self.clock.now_ns()):
                    log.info("forgot records without evidence")
            await asyncio.sleep(_FORGET_EVERY)

    def _say_ready(self, port: int) -> None:
        url = url_of(self.settings.listen, port, tls=self._tls is not None)
        self.ready = True
        print(json.dumps({"ready": True, "url": url, "pid": os.getpid()}), flush=True)  # noqa: T201 (as above)


def _log(event: str, details: Mapping[str, object]) -> None:
    log.warning(event, **details)


def _catalogue_check(catalogue: SqlCatalogue) -> Check:
    """The catalogue can be read. That the store is away makes no hub unready: what is known can still be shown."""

    async def check() -> str:
        try:
            await catalogue.position()
        except TripsharkError as error:
            return str(error)
        return ""

    return check


def _custody(
    catalogue: SqlCatalogue, fleet: FleetParts, clock: Clock, loop: asyncio.AbstractEventLoop
) -> Callable[[IncidentId, str, str, Mapping[str, Json]], None]:
    """Notes who did what, durably, before anything else happens; called in a thread."""

    async def note(id: IncidentId, what: str, who: str, details: Mapping[str, Json]) -> None:
        known = await catalogue.incident(id)
        await fleet.deed(
            id,
            what,
            who,
            details,
            now_ns=clock.now_ns(),
            manifest_sha256=known.manifest_sha256 if known else "",
        )

    def deed(id: IncidentId, what: str, who: str, details: Mapping[str, Json]) -> None:
        asyncio.run_coroutine_threadsafe(note(id, what, who, details), loop).result(_DEED_SECONDS)

    return deed


if __name__ == "__main__":
    sys.exit(main())
