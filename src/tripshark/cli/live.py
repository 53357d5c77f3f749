"""`tripshark live`: the ring's past first, then packets as they come, as pcapng on standard output."""

from __future__ import annotations

import asyncio
import select
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Annotated

import numpy as np
import typer

from tripshark.cli.common import (
    Config,
    Data,
    command,
    duration_ns,
    err,
    printable,
    settings_of,
)
from tripshark.errors import BadInput, NotFound, Refused, TripsharkError
from tripshark.formats import bpf, pcapng
from tripshark.formats.packets import Packets, concat
from tripshark.formats.ring import Seam, decode, linktype
from tripshark.formats.wire import Chunk, Frozen, RingCopy
from tripshark.model.recording import HEADERS_BYTES, Mode
from tripshark.model.target import Target
from tripshark.ports import Query
from tripshark.programs.clock import SystemClock
from tripshark.programs.here import local_targets
from tripshark.programs.reading import reading
from tripshark.recorder.client import RecorderClient
from tripshark.respond.names import names
from tripshark.respond.rows import alert_fields
from tripshark.settings import Settings

FOREVER_NS = 1 << 62
SECOND = 1_000_000_000
LOOK_BACK_NS = 3600 * SECOND  # an incident that was open already may get new alerts

Row = tuple[int, Mapping[str, str | bytes]]  # when, and the fields of the journal entry
SNAPLEN = 262_144


@command
def live(
    target: Annotated[
        str, typer.Argument(help="ns/pod, netns:NAME, pid:N, container:ID or host.")
    ],
    filter: Annotated[
        str, typer.Option("--filter", help="pcap-filter(7) expression.", show_default=False)
    ] = "",
    before: Annotated[
        str, typer.Option("--before", help="How much history at most: 30s.", show_default=False)
    ] = "",
    duration: Annotated[
        str, typer.Option("--duration", help="End after this long: 10s.", show_default=False)
    ] = "",
    config: Config = None,
    data: Data = None,
) -> None:
    """History, then live, as pcapng on standard output.

    Example: tripshark live payments/checkout | wireshark -k -i -
    """
    if sys.stdout.isatty():
        raise BadInput(
            "standard output is a terminal, and pcapng is not for reading",
            hint=f"tripshark live {target} | wireshark -k -i -",
        )
    settings = settings_of(config, data)
    bpf.compile(filter, 1)
    now_ns = SystemClock().now_ns()
    since_ns = now_ns - duration_ns(before) if before else 0
    until_ns = now_ns + duration_ns(duration) if duration else FOREVER_NS
    try:
        asyncio.run(_live(settings, target, filter, since_ns, until_ns))
    except KeyboardInterrupt:
        return


async def _live(settings: Settings, name: str, filter: str, since_ns: int, until_ns: int) -> None:
    with local_targets(settings) as (client, targets):
        resolution = await targets.find(name)
        if resolution.target is None:
            raise NotFound(resolution.reason, hint=resolution.hint)
        if resolution.target.mode == Mode.OFF:
            raise Refused(f"{resolution.target.title} is not recorded", hint="the policy says so")
        if resolution.members is not None and len(resolution.members.targets) > 1:
            one = printable(resolution.target.title)
            err.print(f"[yellow]{printable(resolution.reason)}: this is {one} alone[/]")
        frozen = (await client.freeze([resolution.target.key]))[0]
        stream = _Stream(resolution.target, await targets.all(), filter, since_ns)
        stream.begin(frozen)
        stream.write(frozen.copies)
        err.print(f"[dim]history written; following {printable(resolution.target.title)}[/]")
        await client.release(frozen)
        alerts = _NewAlerts(settings, resolution.target, frozen.at_ns)
        async with aclosing(_chunks(client, frozen, until_ns)) as chunks:
            async for chunk in chunks:  # at least one a second
                stream.write(chunk.copies)
                stream.rows([each async for each in alerts.found(chunk.now_ns)])
                if _reader_left():
                    break
        err.print("[dim]ended[/]")


async def _chunks(client: RecorderClient, frozen: Frozen, until_ns: int) -> AsyncGenerator[Chunk]:
    async for chunk in client.follow(frozen, until_ns=until_ns, max_bytes=1 << 60):
        yield chunk


def _reader_left() -> bool:
    """Whoever read our output closed it; without packets no write would tell."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & (select.POLLERR | select.POLLNVAL) for _, event in poll.poll(0))


class _NewAlerts:
    """Alerts about the target since it is watched, as rows of a packet list; each once."""

    def __init__(self, settings: Settings, target: Target, since_ns: int) -> None:
        self._settings = settings
        self._target = target
        self._since_ns = since_ns
        self._looked_ns = since_ns
        self._told: set[str] = set()

    async def found(self, now_ns: int) -> AsyncIterator[Row]:
        """Looks at the catalogue once a second; where there is none, or none for us, there are no alerts."""
        if now_ns - self._looked_ns < SECOND:
            return
        self._looked_ns = now_ns
        try:
            async with reading(self._settings) as store:
                query = Query(since_ns=self._since_ns - LOOK_BACK_NS, limit=50)
                for incident in await store.catalogue.incidents(query):
                    if incident.target != self._target.key:
                        continue
                    for row in await store.catalogue.alerts(incident.id):
                        fresh = row.accepted.received_ns >= self._since_ns
                        if fresh and row.accepted.id not in self._told:
                            self._told.add(row.accepted.id)
                            yield (
                                row.accepted.alert.time_ns,
                                alert_fields(row, incident, self._target),
                            )
        except TripsharkError:
            return


class _Stream:
    """Writes one link type; interfaces appear in the stream when they appear in the namespace."""

    def __init__(
        self, target: Target, neighbours: tuple[Target, ...], filter: str, since_ns: int
    ) -> None:
        self._target = target
        self._neighbours = neighbours
        self._filter = filter
        self._since_ns = since_ns
        self._seam = Seam()
        self._index: dict[str, int] = {}
        self._linktype = 1
        self._program = bpf.compile(filter, 1)
        self._out = sys.stdout.buffer

    def begin(self, frozen: Frozen) -> None:
        kinds = [linktype(copy.interface.hardware_type) for copy in frozen.copies]
        self._linktype = 1 if 1 in kinds or not kinds else (kinds[0] or 1)
        self._program = bpf.compile(self._filter, self._linktype)
        self._out.write(
            pcapng.Section(
                comments=(f"live from {self._target.title}",), application="Tripshark live"
            ).block()
        )
        for copy in frozen.copies:
            self._interface(copy)
        named = names([self._target, *self._neighbours], since_ns=0, until_ns=1 << 62)
        if named:
            self._out.write(pcapng.names(named))

    def _interface(self, copy: RingCopy) -> int | None:
        if linktype(copy.interface.hardware_type) != self._linktype:
            return None  # libpcap reads one link type per file
        if copy.ring not in self._index:
            self._index[copy.ring] = len(self._index)
            title = self._target.title
            kind = "pod" if self._target.identity.pod else "netns"
            self._out.write(
                pcapng.Interface(
                    name=f"{title}:{copy.interface.name}",
                    description=f"{kind} {title} {copy.interface.name}",
                    linktype=self._linktype,
                    snaplen=SNAPLEN,
                    filter=self._filter,
                ).block()
            )
        return self._index[copy.ring]

    def rows(self, found: Sequence[Row]) -> None:
        """Alerts, inline, as they become known."""
        for time_ns, fields in found:
            self._out.write(pcapng.alert_row(time_ns, fields))
            err.print(f"[bold red]alert[/] {printable(fields.get('MESSAGE', ''))}")
        self._out.flush()

    def write(self, copies: tuple[RingCopy, ...]) -> None:
        fresh: list[Packets] = []
        for copy in copies:
            index = self._interface(copy)
            if index is None:
                continue
            packets = self._seam.fresh(copy.ring, decode(copy, index))
            wanted = bpf.run(self._program, packets) & (
                packets.time_ns >= np.int64(self._since_ns)
            )
            fresh.append(packets.take(wanted))
        packets = concat(fresh).sorted_by_time()
        if self._target.mode == Mode.HEADERS:  # also of what was recorded before that was known
            packets = packets.cut(HEADERS_BYTES)
        if len(packets):
            self._out.write(pcapng.packets(packets))
        self._out.flush()
