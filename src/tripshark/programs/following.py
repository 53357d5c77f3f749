"""How a node keeps up with who comes and goes, and how well it hears those who tell it."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

import structlog

from tripshark.errors import TripsharkError
from tripshark.model.addresses import AddressBook
from tripshark.ports import Clock
from tripshark.programs.cluster import Cluster
from tripshark.scout.client import ScoutClient
from tripshark.targets.local import LocalTargets
from tripshark.web.metrics import Surroundings

log = structlog.get_logger("tripshark.node")

LOOK_EVERY = 5.0  # seconds between two looks at who is recorded how, without news
ADDRESSES_EVERY = 60.0  # seconds between looks for old addresses
ADDRESSES_NS = 24 * 3600 * 10**9  # who held an address is known for so long after it was left
SCOUT_SECONDS = 1.0  # that it may take to say how it is
CROWD = 0.2  # seconds: pods come in crowds


async def follow_pods(scout: ScoutClient, targets: LocalTargets) -> None:
    """Whenever a pod comes or goes: have it recorded as the policy says. News never come faster than they are used."""
    while True:
        try:
            await targets.reconcile()
            # the recorder may see a namespace after its pod was told
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY):
                    await scout.changed()
        except TripsharkError as away:  # told by /readyz and the metrics
            log.debug("pods are not followed", problem=str(away))
            await asyncio.sleep(1)


async def follow_cluster(
    cluster: Cluster, targets: LocalTargets, book: AddressBook, clock: Clock
) -> None:
    """What the API says of pods may change what is recorded of them; old addresses are forgotten."""
    while True:
        try:
            async with asyncio.timeout(ADDRESSES_EVERY):
                await cluster.stirred.wait()
        except TimeoutError:
            book.forget(clock.now_ns() - ADDRESSES_NS)
            continue
        cluster.stirred.clear()
        with contextlib.suppress(TripsharkError):  # the recorder's absence is told by /readyz
            await targets.reconcile()
        await asyncio.sleep(CROWD)


async def surroundings(scout: ScoutClient | None, cluster: Cluster | None) -> Surroundings:
    """How well the runtimes and the Kubernetes API are heard, for metrics and warnings."""
    heard = Surroundings() if scout is None else await _of_runtimes(scout)
    if cluster is None:
        return heard
    captures = cluster.captures
    asks = captures.outbox if captures is not None else None
    return replace(
        heard,
        problems=(*heard.problems, *cluster.problems()),
        kubernetes_up=cluster.is_heard,
        kubernetes_failures=cluster.api.failures,
        asks_waiting=asks.waiting if asks else 0,
        asks_sent=asks.sent if asks else 0,
        asks_dropped=asks.dropped if asks else 0,
        asked_too_often=captures.refused if captures else 0,
    )


async def _of_runtimes(scout: ScoutClient) -> Surroundings:
    try:
        async with asyncio.timeout(SCOUT_SECONDS):
            told = await scout.state()
    except (TripsharkError, TimeoutError) as away:
        problem = f"new pods are recorded without names: {str(away) or 'the scout is silent'}"
        return Surroundings(runtimes=0, problems=(problem,))
    known, sandboxes = told.get("runtimes"), told.get("sandboxes")
    runtimes = known if isinstance(known, list) else []
    return Surroundings(
        runtimes=sum(each.get("state") == "followed" for each in runtimes),
        sandboxes=sandboxes if isinstance(sandboxes, int) else 0,
        problems=tuple(
            f"no pods are heard of: {each.get('error') or each.get('state')}"
            f" ({each.get('socket')})"
            for each in runtimes
            if each.get("state") != "followed"
        ),
    )
