"""The responder: takes alerts in, decides, asks the recorder, seals evidence, and answers over HTTP.

Started as `python -m tripshark.programs.node --json-config '{…}'` with `{"config": PATH or "", "overrides": {…},
"uid": N, "gid": N, "groups": [N]}`; prints one line of JSON when it listens. It holds no capability: what needs root (reading
its own code, binding a low port) is done first, then all of it is given up.
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
import secrets
import signal
import sys
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import structlog
import uvloop

from tripshark.analysis.client import AnalystClient
from tripshark.errors import BadInput, TripsharkError
from tripshark.ingest.auth import Gate
from tripshark.ingest.door import Door
from tripshark.ingest.follow import FileSource, StandardInput
from tripshark.ingest.heartbeat import Heartbeats
from tripshark.ingest.rate import ClientRate
from tripshark.ingest.webhook import Webhook
from tripshark.ingest.witness import Witnesses
from tripshark.model.addresses import AddressBook
from tripshark.model.alert import Json
from tripshark.model.incident import Incident
from tripshark.model.part import node_of
from tripshark.model.rule import RuleSet
from tripshark.model.target import Identity, TargetKey
from tripshark.programs import parts, provenance
from tripshark.programs.classic import to_pcap
from tripshark.programs.clock import SystemClock
from tripshark.programs.cluster import Cluster, access_of, api_of, events_of, take_part
from tripshark.programs.dissection import sessions_of
from tripshark.programs.following import follow_cluster, follow_pods, surroundings
from tripshark.programs.listening import credentials_of, tls_of, url_of
from tripshark.programs.logs import log_to_stderr
from tripshark.programs.privilege import give_up
from tripshark.programs.reach import keep_reach
from tripshark.programs.reload import RulesInForce
from tripshark.programs.reporting import Reports
from tripshark.programs.retaining import retain
from tripshark.programs.signing_in import desk_of
from tripshark.programs.watchlist import Watchlist
from tripshark.recorder.client import RecorderClient
from tripshark.respond import trial
from tripshark.respond.budget import Budget
from tripshark.respond.intake import Intake, Recent
from tripshark.respond.live import Live
from tripshark.respond.pipeline import Pipeline
from tripshark.respond.runner import Runner
from tripshark.respond.wishes import Wishes
from tripshark.respond.world import World
from tripshark.scout.client import ScoutClient
from tripshark.settings import Settings, load
from tripshark.store.catalogue import SqlCatalogue
from tripshark.store.indexing import Indexing
from tripshark.store.journal import FileJournal
from tripshark.store.notes import SqlNotes
from tripshark.store.vault import FolderVault
from tripshark.targets.local import LocalTargets
from tripshark.web.app import App
from tripshark.web.metrics import Metrics
from tripshark.web.parts import JournalState, Parts, disk_check, journal_check, recorder_check
from tripshark.web.serve import bind, bind_here, serving
from tripshark.web.views import Views

log = structlog.get_logger("tripshark.node")

ALIVE_EVERY = (
    5.0  # seconds between notes that we are running, by which an outage is measured afterwards
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What the supervisor says."""

    config: str = ""
    overrides: dict[str, object] = field(default_factory=dict)
    uid: int = -1  # -1: stay who we are
    gid: int = -1
    groups: tuple[int, ...] = ()

    @classmethod
    def from_json(cls, text: str) -> Config:
        """Raises `BadInput`."""
        try:
            return _CONFIG.decode(text)
        except msgspec.MsgspecError as problem:
            raise BadInput(f"not a configuration: {problem}", where="--json-config") from problem


_CONFIG = msgspec.json.Decoder(Config)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="tripshark-node", description=__doc__)
    parser.add_argument("--json-config", required=True, metavar="JSON")
    faulthandler.enable()  # a crash in a library says where
    log_to_stderr()
    node: Node | None = None
    try:
        config = Config.from_json(parser.parse_args(argv).json_config)
        settings = load(Path(config.config) if config.config else None, config.overrides)
        node = Node(settings)
        node.prepare(group=config.groups[0] if config.groups else -1)
        keep_reach()
        give_up(uid=config.uid, gid=config.gid, groups=config.groups)
        gc.freeze()  # modules and routes never become garbage
        gc.set_threshold(50_000, 20, 50)  # alerts and rows make no cycles to speak of
        sys.setswitchinterval(
            0.0002
        )  # the journal's writer needs the interpreter briefly and often
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(node.run())
    except TripsharkError as problem:
        told = problem.as_json()
        if node is None or not node.ready:
            print(json.dumps({"ready": False, **told}), flush=True)  # noqa: T201 (the supervisor waits for it)
        else:
            print(json.dumps(told), file=sys.stderr)  # noqa: T201 (a program's own voice)
        return problem.exit_code
    return 0


class Node:
    """Every part of the responder, screwed together in the order in which alerts pass through them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.clock = SystemClock()
        self.metrics = Metrics()
        self.heartbeats: Heartbeats
        self.sources: list[FileSource | StandardInput] = []
        self.stopping = asyncio.Event()
        self.ready = False

    def prepare(self, *, group: int) -> None:
        """What needs the rights we start with: bind, read secrets and rules. Raises `TripsharkError`."""
        settings = self.settings
        self.bound_here = bind_here(settings.api_socket, group=group)
        self.bound = bind(settings.listen.host, settings.listen.port)
        self.alerts_bound = (
            bind(settings.ingest.listen.host, settings.ingest.listen.port)
            if settings.ingest.listen
            else None
        )
        credentials = credentials_of(settings)
        self.alert_gate = Gate(credentials, tls_clients=settings.alert_tls.client_ca is not None)
        self.read_gate = Gate(credentials, tls_clients=settings.tls.client_ca is not None)
        tls = tls_of(settings.tls)
        self.tls = tls.context() if tls else None
        alerts_tls = tls_of(settings.ingest.tls) if settings.ingest.listen else None
        self.alerts_tls = alerts_tls.context() if alerts_tls else None
        self.api = api_of(settings)
        self.access = access_of(settings, self.api)
        self.desk = desk_of(settings, kubernetes=self.access is not None)
        self.rules = RulesInForce(settings, use=self._use_rules)
        self._pipeline: Pipeline | None = None
        self.rules.start()

    def _use_rules(self, rules: RuleSet) -> None:
        if self._pipeline is not None:
            self._pipeline.rules = rules

    async def run(self) -> None:
        """Until SIGTERM or SIGINT: captures under way are sealed, then everything is closed in order."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stopping.set)
        async with AsyncExitStack() as stack:
            await self._run(stack)

    async def _run(self, stack: AsyncExitStack) -> None:
        settings, clock = self.settings, self.clock
        data = settings.data
        catalogue = await SqlCatalogue.open(data / "catalogue.sqlite")
        stack.push_async_callback(catalogue.close)
        journal = await FileJournal.open(
            data / "journal", max_bytes=settings.journal.max, at_least=await catalogue.position()
        )
        stack.push_async_callback(journal.close)
        vault = FolderVault(data, clock=clock)
        self.heartbeats = Heartbeats(
            every_s=settings.heartbeat.every,
            grace_s=settings.heartbeat.grace,
            path=data / "heartbeat.json",
            started_ns=clock.now_ns(),
        )
        recorder = RecorderClient(str(settings.recorder_socket))
        stack.callback(recorder.close)
        scout = None
        if settings.containers.enabled != "off":
            scout = ScoutClient(str(settings.scout_socket))
            stack.callback(scout.close)
        book = AddressBook()
        node = parts.node_name(settings, platform.node())
        cluster = None
        if self.desk is not None:
            stack.push_async_callback(self.desk.close)
        if self.api is not None:
            stack.push_async_callback(self.api.close)
            cluster = Cluster.of(self.api, clock, book, node=node)
        targets = LocalTargets(
            recorder,
            parts.residents(settings),
            clock,
            node=node,
            runtime=scout,
            cluster=cluster.metadata if cluster else None,
            policy=parts.policy(settings),
            book=book,
            tombstone_ns=round(settings.recorder.tombstone * parts.SECOND),
        )
        recent = Recent()
        wishes = Wishes(journal, clock)
        defaults = parts.defaults(settings)
        self._pipeline = Pipeline(
            rules=self.rules.rules,
            targets=targets,
            recorder=recorder,
            defaults=defaults,
            own_pids=(os.getpid(), os.getppid()),
            neighbours=targets,
            both_ends=settings.capture.both_ends,
            fleet=cluster is not None and settings.kubernetes.captures,
        )
        if cluster is not None:
            cluster.events = events_of(cluster, settings, clock=clock, node=node)

            async def who(key: TargetKey) -> Identity | None:
                found = (each for each in await targets.all() if each.key == key)
                return next((each.identity for each in found), None)

            cluster.who = who
        if cluster is not None and settings.kubernetes.captures:
            first = journal.state().last_seq
            take_part(
                cluster,
                settings,
                node=node,
                clock=clock,
                targets=targets,
                catalogue=catalogue,
                wishes=wishes,
                caught_up=lambda: runner.position >= first,
            )
        outbox = parts.outbox(
            settings,
            vault=vault,
            catalogue=catalogue,
            clock=clock,
            node=node,
            tell=lambda event, details: log.info(event, **details),
        )

        def told(incident: Incident) -> None:
            if outbox is not None:
                outbox.wake()
            if cluster is not None:
                cluster.told(incident)

        indexing = Indexing(
            vault=vault,
            catalogue=catalogue,
            clock=clock,
            tell=lambda event, details: log.warning(event, **details),
        )
        watchlist = Watchlist(settings.indicators)

        def analysed() -> None:
            indexing.wake()
            if outbox is not None:
                outbox.wake()

        reports = Reports()
        runner = Runner(
            World(
                journal=journal,
                catalogue=catalogue,
                vault=vault,
                recorder=recorder,
                targets=targets,
                analyst=AnalystClient(str(settings.analyst_socket)),
                clock=clock,
                meter=self.metrics,
                entropy=secrets.token_bytes,
                addresses=book,
                fleet=cluster.captures if cluster else None,
                told=told,
                reporter=reports,
                watchlist=watchlist,
                analysed=analysed,
            ),
            self._pipeline,
            Budget(parts.bounds(settings)),
            parts.disk_budget(settings),
            defaults=defaults,
            recent=recent,
            wishes=wishes,
            host=provenance.host(node),
            retention=lambda: retain(settings, catalogue, vault, clock, outbox),
        )
        witnesses = None
        if settings.events.files or settings.events.stdin:
            witnesses = Witnesses(data / "witnesses")
            stack.callback(witnesses.close)
        door = Door(Intake(journal, clock, recent), clock, self.heartbeats, witnesses)
        webhook = Webhook(
            door,
            self.alert_gate,
            self.metrics,
            max_body=settings.ingest.max_body,
            in_flight=settings.ingest.in_flight,
            rate=_rate(settings),
        )
        self._add_sources(door)

        def journal_state() -> JournalState:
            state = journal.state()
            return JournalState(
                waiting=max(0, state.last_seq - runner.position), bytes=state.bytes
            )

        views = Views(
            Live(recorder=recorder, targets=targets, known=catalogue, clock=clock, book=book)
        )

        async def attempt(body: bytes) -> dict[str, Json]:
            now_ns = clock.now_ns()
            rules = self.rules.rules
            return trial.as_json(
                await trial.attempt(
                    body, rules=rules, targets=targets, now_ns=now_ns, defaults=defaults
                )
            )

        dissection = sessions_of(settings)
        stack.callback(dissection.close)
        api = Parts(
            around=lambda: surroundings(scout, cluster),
            clock=clock,
            catalogue=catalogue,
            targets=targets,
            vault=vault,
            captures=wishes,
            gate=self.read_gate,
            metrics=self.metrics,
            rules=lambda: [dict(rule.document) for rule in self.rules.rules],
            upstream=self.heartbeats.upstream,
            checks={
                "recorder": recorder_check(recorder),
                "disk": disk_check(vault, settings.bounds.reserve),
                "journal": journal_check(journal_state),
                "rules": self._rules_check,
            },
            journal=journal_state,
            sources=lambda: [source.followed for source in self.sources],
            custody=lambda id, name, who: vault.custody(id, "viewed", who, {"file": name}),
            deed=vault.custody,
            index=indexing.index,
            unread_lists=lambda: watchlist.problems,
            notes=SqlNotes(catalogue),
            exports=reports,
            to_pcap=to_pcap,
            scratch=data / "scratch",
            hosts=frozenset({settings.listen.host, platform.node()}),
            metrics_open=settings.web.metrics_open,
            node=node_of(node),
            shelf=parts.shelf(settings, vault=vault, catalogue=catalogue, node=node),
            outbox=None if outbox is None else lambda: outbox.state,
            access=self.access,
            signin=self.desk,
            origin=settings.signin.url,
            views=views,
            attempt=attempt,
            dissection=dissection,
        )
        (data / "scratch").mkdir(exist_ok=True)
        background = [self.rules.watch(), self._keep_alive(targets), indexing.run()]
        if settings.indicators:
            background.append(watchlist.watch())
        if scout is not None:
            background.append(follow_pods(scout, targets))
        if cluster is not None:
            background += [cluster.run(), follow_cluster(cluster, targets, book, clock)]
        if outbox is not None:
            background.append(outbox.run())
        await self._serve(stack, api, webhook, runner, background)

    async def _serve(
        self,
        stack: AsyncExitStack,
        api: Parts,
        webhook: Webhook,
        runner: Runner,
        background: Sequence[Coroutine[None, None, None]],
    ) -> None:
        """Everything that runs at once; the listeners close first, so that nothing is accepted and then lost."""
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(runner.run())
            helpers = [
                *(tasks.create_task(each) for each in background),
                *(tasks.create_task(source.run()) for source in self.sources),
            ]
            async with AsyncExitStack() as listening:
                app = App(api, None if self.alerts_bound else webhook)
                port = await listening.enter_async_context(serving(app, self.bound, self.tls))
                if self.alerts_bound:
                    alerts = App(None, webhook)
                    await listening.enter_async_context(
                        serving(alerts, self.alerts_bound, self.alerts_tls)
                    )
                # whoever may open this socket needs no credentials: commands on this machine
                here = App(replace(api, gate=Gate(), access=None, signin=None), None)
                await listening.enter_async_context(serving(here, self.bound_here))
                self._say_ready(port)
                await self.stopping.wait()
                if api.views is not None:
                    api.views.stop()
            for helper in helpers:
                helper.cancel()
            runner.stop()
            await running

    def _say_ready(self, port: int) -> None:
        url = url_of(self.settings.listen, port, tls=self.tls is not None)
        (self.settings.data / "listening").write_text(url + "\n", encoding="ascii")
        said = {"ready": True, "url": url, "pid": os.getpid()}
        self.ready = True
        print(json.dumps(said), flush=True)  # noqa: T201 (the supervisor waits for this line)

    def _add_sources(self, door: Door) -> None:
        events = self.settings.events
        state = self.settings.data / "followed"
        state.mkdir(exist_ok=True)
        for number, each in enumerate(events.files):
            self.sources.append(
                FileSource(
                    each.path,
                    state / f"{number}.json",
                    door,
                    self.metrics,
                    from_start=each.from_start,
                    max_line=events.max_line,
                )
            )
        if events.stdin:
            self.sources.append(
                StandardInput(sys.stdin.fileno(), door, self.metrics, max_line=events.max_line)
            )

    async def _keep_alive(self, targets: LocalTargets) -> None:
        while True:
            with contextlib.suppress(OSError):
                await asyncio.to_thread(self.heartbeats.alive, self.clock.now_ns())
            with contextlib.suppress(TripsharkError):  # the recorder's absence is told by /readyz
                await targets.attach_residents()
            await asyncio.sleep(ALIVE_EVERY)

    async def _rules_check(self) -> str:
        return self.rules.trouble


def _rate(settings: Settings) -> ClientRate | None:
    rate = settings.ingest.rate
    if not rate.per_second:
        return None
    return ClientRate(per_second=rate.per_second, burst=rate.burst)


if __name__ == "__main__":
    sys.exit(main())
