"""`tripshark live`: the ring's past first, then packets as they come, as pcapng on standard output."""

from __future__ import annotations

import asyncio
import contextlib
import select
import sys
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Annotated

import typer

from tripshark.cli.common import (
    CaFile,
    Config,
    Data,
    TokenFile,
    command,
    duration_ns,
    err,
    printable,
    settings_of,
)
from tripshark.errors import BadInput, NotFound
from tripshark.model.evidence import IncidentId
from tripshark.model.incident import Incident
from tripshark.ports import AlertRow, Query
from tripshark.programs.clock import SystemClock
from tripshark.programs.here import local_targets
from tripshark.programs.reading import reading
from tripshark.respond.live import FOREVER_NS, Asked, Live, Stream
from tripshark.settings import Settings
from tripshark.wireshark.asking import Service

BEGIN_SECONDS = 30.0  # until the first bytes


@command
def live(
    target: Annotated[
        str,
        typer.Argument(
            help="ns/pod, netns:NAME, pid:N, container:ID or host.", show_default=False
        ),
    ] = "",
    incident: Annotated[
        str,
        typer.Option(
            "--incident",
            help="Follow an open incident instead: its history, and on until it is sealed.",
            show_default=False,
        ),
    ] = "",
    filter: Annotated[
        str, typer.Option("--filter", help="pcap-filter(7) expression.", show_default=False)
    ] = "",
    before: Annotated[
        str, typer.Option("--before", help="How much history at most: 30s.", show_default=False)
    ] = "",
    duration: Annotated[
        str, typer.Option("--duration", help="End after this long: 10s.", show_default=False)
    ] = "",
    url: Annotated[
        str,
        typer.Option(
            "--url",
            help="Ask this node instead of this machine: https://node.example:2803.",
            show_default=False,
        ),
    ] = "",
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    config: Config = None,
    data: Data = None,
) -> None:
    """History, then live, as pcapng on standard output.

    Example: tripshark live payments/checkout | wireshark -k -i -
    """
    if bool(target) == bool(incident):
        raise BadInput(
            "name a target or an incident, not both" if target else "name a target",
            hint="tripshark live payments/checkout, or tripshark live --incident ID",
        )
    if sys.stdout.isatty():
        asked = target or f"--incident {incident}"
        raise BadInput(
            "standard output is a terminal, and pcapng is not for reading",
            hint=f"tripshark live {asked} | wireshark -k -i -",
        )
    if url:
        service = Service(url=url, token_file=token_file, ca_file=ca_file)
        words = {"target": target, "incident": incident, "filter": filter}
        with contextlib.suppress(KeyboardInterrupt):
            _far(service, {**words, "before": before, "duration": duration})
        return
    settings = settings_of(config, data)
    now_ns = SystemClock().now_ns()
    wanted = Asked(
        target=target,
        incident=incident,
        filter=filter,
        since_ns=now_ns - duration_ns(before) if before else 0,
        until_ns=now_ns + duration_ns(duration) if duration else FOREVER_NS,
    )
    try:
        asyncio.run(_live(settings, wanted))
    except KeyboardInterrupt:
        return


def _far(service: Service, asked: Mapping[str, str]) -> None:
    """Whatever that node sends, as it comes."""
    if asked["incident"] == "last":
        raise BadInput("`last` is known on the machine itself", hint="name the incident")
    out = sys.stdout.buffer
    with service.stream("/v1/live", seconds=BEGIN_SECONDS, **asked) as (_, pieces):
        err.print(f"[dim]from {printable(service.where)}[/]")
        for piece in pieces:
            out.write(piece)
            out.flush()


async def _live(settings: Settings, asked: Asked) -> None:
    known = _Known(settings)
    if asked.incident:  # its beginning, or `last`, will do
        async with reading(settings) as store:
            asked = Asked(
                incident=(await store.find(asked.incident)).id,
                filter=asked.filter,
                since_ns=asked.since_ns,
                until_ns=asked.until_ns,
            )
    with local_targets(settings) as (client, targets):
        view = Live(recorder=client, targets=targets, known=known, clock=SystemClock())
        stream = await view.begin(asked)
        if stream.note:
            err.print(f"[yellow]{printable(stream.note)}[/]")
        await _write(stream)
        err.print("[dim]ended[/]")


async def _write(stream: Stream) -> None:
    out = sys.stdout.buffer
    is_following = False
    async with aclosing(stream.blocks()) as pieces:
        async for piece in pieces:
            out.write(piece)
            while is_following and stream.heard:
                err.print(f"[bold red]alert[/] {printable(stream.heard.popleft())}")
            if stream.is_following:
                out.flush()
                if not is_following:
                    is_following = True
                    stream.heard.clear()
                    title = printable(stream.target.title)
                    err.print(f"[dim]history written; following {title}[/]")
                elif _reader_left():
                    break
    out.flush()


def _reader_left() -> bool:
    """Whoever read our output closed it; without packets no write would tell."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & (select.POLLERR | select.POLLNVAL) for _, event in poll.poll(0))


class _Known:
    """`respond.live.Known` of a data folder that a service may be writing, or that may not be there yet."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def incidents(self, query: Query) -> Sequence[Incident]:
        try:
            async with reading(self._settings) as store:
                return await store.catalogue.incidents(query)
        except NotFound:
            return ()

    async def incident(self, id: IncidentId) -> Incident | None:
        async with reading(self._settings) as store:
            return await store.catalogue.incident(id)

    async def alerts(self, incident: IncidentId) -> Sequence[AlertRow]:
        async with reading(self._settings) as store:
            return await store.catalogue.alerts(incident)

    async def refusals(self, *, since_ns: int = 0, limit: int = 50) -> Sequence[AlertRow]:
        async with reading(self._settings) as store:
            return await store.catalogue.refusals(since_ns=since_ns, limit=limit)
