"""`tripshark live`: the ring's past first, then packets as they come, as pcapng on standard output."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import numpy as np
import typer

from tripshark.cli.common import Config, Data, command, err, printable, settings_of
from tripshark.errors import BadInput, NotFound
from tripshark.formats import bpf, pcapng
from tripshark.formats.packets import Packets, concat
from tripshark.formats.ring import Seam, decode, linktype
from tripshark.formats.wire import Frozen, RingCopy
from tripshark.model.target import Target
from tripshark.programs.clock import SystemClock
from tripshark.programs.parts import residents
from tripshark.recorder.client import RecorderClient
from tripshark.respond.names import names
from tripshark.settings import Settings
from tripshark.targets.local import LocalTargets

FOREVER_NS = 1 << 62
SNAPLEN = 262_144


@command
def live(
    target: Annotated[str, typer.Argument(help="ns/pod, netns:NAME, host, pid:N.")],
    filter: Annotated[str, typer.Option("--filter", help="pcap-filter(7) expression.")] = "",
    before: Annotated[str, typer.Option("--before", help="How much history at most: 30s.")] = "",
    duration: Annotated[str, typer.Option("--duration", help="End after this long: 10s.")] = "",
    config: Config = None,
    data: Data = None,
) -> None:
    """History, then live, as pcapng on standard output.

    Example: tripshark live payments/checkout | wireshark -k -i -
    """
    from tripshark.cli.common import duration_ns

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
    client = RecorderClient(str(settings.recorder_socket))
    try:
        targets = LocalTargets(client, residents(settings), SystemClock(), node="")
        resolution = await targets.find(name)
        if resolution.target is None:
            raise NotFound(resolution.reason, hint=resolution.hint)
        frozen = (await client.freeze([resolution.target.key]))[0]
        stream = _Stream(resolution.target, await targets.all(), filter, since_ns)
        stream.begin(frozen)
        stream.write(frozen.copies)
        err.print(f"[dim]history written; following {printable(resolution.target.title)}[/]")
        await client.release(frozen)
        async for chunk in client.follow(frozen, until_ns=until_ns, max_bytes=1 << 60):
            stream.write(chunk.copies)
        err.print("[dim]ended[/]")
    finally:
        client.close()


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
        if len(packets):
            self._out.write(pcapng.packets(packets))
        self._out.flush()
