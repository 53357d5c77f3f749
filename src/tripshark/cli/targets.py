"""`tripshark targets`: what is being recorded, since when, how far back, and what was lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from tripshark.cli import table
from tripshark.cli.common import (
    AsJson,
    Config,
    Data,
    command,
    emit,
    err,
    plain,
    printable,
    settings_of,
    size,
    span,
)
from tripshark.cli.table import Column
from tripshark.errors import TripsharkError
from tripshark.model.target import Identity, RingState, Target
from tripshark.programs.clock import SystemClock
from tripshark.programs.here import local_targets
from tripshark.programs.service import Service
from tripshark.settings import Settings


@command
def targets(config: Config = None, data: Data = None, as_json: AsJson = False) -> None:
    """What is being recorded: seconds of history, packets, drops, memory.

    Example: tripshark targets
    """
    settings = settings_of(config, data)
    found = asyncio.run(_targets(settings))
    now_ns = SystemClock().now_ns()
    if as_json:
        for each in found:
            emit(as_line(each, now_ns))
        return
    found = tuple(sorted(found, key=lambda t: (not t.alive, t.title, t.name)))
    table.show(COLUMNS, [_row(each, now_ns) for each in found])
    if not found:
        err.print("nothing is recorded; `tripshark doctor` tells why")
    if any(each.drops for each in _rings(found)):
        err.print("[dim]drops: packets that came while a ring was full; `tripshark doctor`[/]")


COLUMNS = (
    Column("target"),
    Column("name", least=16, rank=3),
    Column("owner", least=12, rank=7),
    Column("interfaces", least=10, rank=2),
    Column("history", right=True),
    Column("packets", right=True, rank=1),
    Column("drops", right=True),
    Column("memory", right=True, rank=4),
    Column("recorded for", right=True, rank=5),
    Column("mode", rank=6),
    Column("state", least=12),
)


def _row(each: Target, now_ns: int) -> tuple[str, ...]:
    line = as_line(each, now_ns)
    drops = sum(ring.drops for ring in each.rings)
    state = "recorded" if each.alive else f"[dim]gone {span((now_ns - each.gone_ns) / 1e9)} ago[/]"
    if each.note:
        state = f"[yellow]{printable(each.note)}[/]"
    names = dict.fromkeys(ring.interface.name for ring in each.rings)
    return (
        printable(each.title),
        printable(each.name),
        printable(each.identity.owner),
        printable(", ".join(names)),
        span(float(str(line["history_seconds"]))),
        str(sum(ring.packets for ring in each.rings)),
        f"[red]{drops}[/]" if drops else "0",
        size(sum(ring.bytes for ring in each.rings)),
        span(((now_ns if each.alive else each.gone_ns) - each.since_ns) / 1e9),
        each.mode if each.weight == 1 else f"{each.mode} ×{each.weight}",
        state,
    )


def _rings(found: Iterable[Target]) -> Iterator[RingState]:
    for each in found:
        yield from each.rings


def as_line(target: Target, now_ns: int) -> dict[str, object]:
    """One target for scripts."""
    told = plain(target)
    assert isinstance(told, dict)  # noqa: S101 (a dataclass becomes a dict)
    oldest = min((ring.oldest_ns for ring in target.rings if ring.oldest_ns), default=0)
    newest = now_ns if target.alive else target.gone_ns
    told["title"] = target.title
    told["alive"] = target.alive
    told["history_seconds"] = round((newest - oldest) / 1e9, 3) if oldest else 0.0
    told["drops"] = sum(ring.drops for ring in target.rings)
    return told


async def _targets(settings: Settings) -> tuple[Target, ...]:
    """As recorder and scout tell of them, under the names that the service knows where it runs."""
    with local_targets(settings) as (_, targets):
        found = await targets.all()
    known = await asyncio.to_thread(_identities, settings)
    return tuple(
        replace(each, identity=known[each.key]) if each.key in known else each for each in found
    )


def _identities(settings: Settings) -> dict[str, Identity]:
    """Only the service asks the cluster: for owners, service accounts, and what a runtime has forgotten."""
    import msgspec

    if not settings.api_socket.exists():
        return {}
    try:
        told = Service(settings).call("/v1/targets")
        return {
            each["key"]: msgspec.convert(each["identity"], Identity)
            for each in msgspec.convert(told.get("targets", []), list[dict[str, Any]])
        }
    except (TripsharkError, KeyError, msgspec.MsgspecError):
        return {}  # it is just starting, or of another version: who they are is told less well
