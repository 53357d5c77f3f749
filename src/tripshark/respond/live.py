"""History, then live: what one target's rings hold, then packets as they come, as one endless pcapng file.

Alerts stand in it as rows of their own, those of the past where they belong, those that come meanwhile as they come;
so do names, and a filter may be changed while it runs.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, Protocol, cast

import numpy as np

from tripshark.errors import NotFound, Refused, TripsharkError
from tripshark.formats import bpf, pcapng
from tripshark.formats.ends import ends
from tripshark.formats.packets import Packets, concat
from tripshark.formats.ring import Seam, decode, linktype
from tripshark.formats.wire import Chunk, Frozen, RingCopy
from tripshark.model.evidence import IncidentId, incident_id
from tripshark.model.incident import Incident, State
from tripshark.model.recording import HEADERS_BYTES, Mode
from tripshark.model.target import Target
from tripshark.ports import AlertRow, Clock, Query, Recorder, Targets
from tripshark.respond.names import Book, named, names
from tripshark.respond.rows import alert_fields

FOREVER_NS: Final = 1 << 62
SNAPLEN: Final = 262_144
_SECOND: Final = 1_000_000_000
_LOOK_BACK_NS: Final = 3600 * _SECOND  # an incident that was open already may get new alerts
_NAMES_NS: Final = 2 * _SECOND  # between two looks at who came and went
_AT_ONCE: Final = 8192  # packets in one piece of the stream
_INCIDENTS: Final = 50

Row = tuple[int, Mapping[str, str | bytes]]  # when, and the fields of the journal entry


class Known(Protocol):
    """What is asked of the catalogue."""

    async def incidents(self, query: Query) -> Sequence[Incident]: ...
    async def incident(self, id: IncidentId) -> Incident | None: ...
    async def alerts(self, incident: IncidentId) -> Sequence[AlertRow]: ...
    async def refusals(self, *, since_ns: int = 0, limit: int = 50) -> Sequence[AlertRow]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What somebody wants to see. One of `target` and `incident`."""

    target: str = ""  # as `Targets.find` takes it
    incident: str = (
        ""  # an open one: its target, from where its history begins, until it is sealed
    )
    filter: str = ""  # pcap-filter(7)
    since_ns: int = 0  # nothing older than this
    until_ns: int = FOREVER_NS


class Live:
    """Begins views of what is recorded here."""

    def __init__(
        self,
        *,
        recorder: Recorder,
        targets: Targets,
        known: Known,
        clock: Clock,
        book: Book | None = None,
    ) -> None:
        self.recorder = recorder
        self.targets = targets
        self.known = known
        self.clock = clock
        self.book = book

    async def begin(self, asked: Asked) -> Stream:
        """Find out whom it is about. Raises `NotFound`, `Refused`, `BadInput` (the filter), `Transient`."""
        bpf.compile(asked.filter, 1)
        if asked.incident:
            incident, target = await self._of_incident(asked.incident)
            began_ns = min(incident.opened_ns, incident.t0_ns or incident.opened_ns)
            since_ns = asked.since_ns or max(0, began_ns - _before_ns(incident))
            return Stream(self, target, asked, since_ns=since_ns, incident=incident)
        resolution = await self.targets.find(asked.target)
        if resolution.target is None:
            raise NotFound(resolution.reason, hint=resolution.hint)
        note = ""
        if resolution.members is not None and len(resolution.members.targets) > 1:
            note = f"{resolution.reason}: this is {resolution.target.title} alone"
        _require_recorded(resolution.target)
        return Stream(self, resolution.target, asked, since_ns=asked.since_ns, note=note)

    async def _of_incident(self, id: str) -> tuple[Incident, Target]:
        incident = await self.known.incident(incident_id(id))
        if incident is None:
            raise NotFound(f"there is no incident {id}", hint="`tripshark incidents` lists them")
        if incident.state not in (State.OPEN, State.SEALING):
            raise Refused(
                f"{id} is {incident.state}: nothing more comes",
                hint=f"tripshark open {id} shows its evidence",
            )
        for target in await self.targets.all():
            if target.key == incident.target:
                _require_recorded(target)
                return incident, target
        raise NotFound(f"{incident.title} is no longer recorded", where=id)


class Stream:
    """One view of one target. `blocks` may be run once."""

    def __init__(
        self,
        live: Live,
        target: Target,
        asked: Asked,
        *,
        since_ns: int,
        incident: Incident | None = None,
        note: str = "",
    ) -> None:
        self.target = target
        self.incident = incident
        self.is_following = False  # the past is written
        self.heard: deque[str] = deque(maxlen=_INCIDENTS)  # alerts' messages, for who drains it
        self.note = note  # what whoever asked should know beforehand
        self._live = live
        self._until_ns = asked.until_ns
        self._since_ns = since_ns
        self._filter = asked.filter
        self._seam = Seam()
        self._index: dict[str, int] = {}
        self._linktype = 1
        self._program = bpf.compile(asked.filter, 1)
        self._names: dict[str, str] = {}
        self._seen: set[str] = set()  # addresses that were looked up already
        self._named_ns = 0
        self._told: set[str] = set()  # alerts
        self._looked_ns = 0
        self._stopped = False

    def filter(self, text: str) -> None:
        """Keep only what this matches from now on. Raises `BadInput`, and then nothing changes."""
        self._program = bpf.compile(text, self._linktype)
        self._filter = text

    def stop(self) -> None:
        """End at the next look, within about a second."""
        self._stopped = True

    async def blocks(self) -> AsyncGenerator[bytes | memoryview]:
        """The file, piece by piece, each piece whole blocks; at least one piece a second, empty when nothing came.

        Ends with the target, at `until_ns`, with its incident, or by `stop`. Raises `NotFound` and `Transient`
        before the first piece; what is lost of the recorder later ends it with `Transient`.
        """
        live = self._live
        frozen = (await live.recorder.freeze([self.target.key]))[0]
        try:
            head = await self._head(frozen)
            packets = await asyncio.to_thread(self._fresh, frozen.copies)
        finally:  # before anything is sent: a slow reader must not hold the recorder's memory
            await live.recorder.release(frozen)
        for block in head:
            yield block
        reaches_ns = min((each.reaches_ns for each in frozen.copies), default=frozen.at_ns)
        rows = await self._rows(frozen.at_ns, max(self._since_ns, reaches_ns))
        yield await asyncio.to_thread(self._from_book, packets)
        for piece in self._history(packets, rows):
            yield piece
        del packets
        self.is_following = True
        yield b""
        if not any(copy.live for copy in frozen.copies):
            return
        chunks = cast(
            "AsyncGenerator[Chunk]",
            live.recorder.follow(frozen, until_ns=self._until_ns, max_bytes=1 << 60),
        )
        del frozen
        async with aclosing(chunks):
            async for chunk in chunks:  # at least one a second
                packets = await asyncio.to_thread(self._fresh, chunk.copies)
                new = self._interfaces(chunk.copies)
                yield b"".join((*new, await self._news(chunk.now_ns, packets)))
                for piece in _pieces(packets):
                    yield piece
                for row in await self._rows(chunk.now_ns):
                    yield pcapng.alert_row(*row)
                if self._stopped or chunk.ended or await self._is_closed():
                    return

    async def _head(self, frozen: Frozen) -> Sequence[bytes]:
        kinds = [linktype(copy.interface.hardware_type) for copy in frozen.copies]
        self._linktype = 1 if 1 in kinds or not kinds else (kinds[0] or 1)
        self._program = bpf.compile(self._filter, self._linktype)
        about = f"incident {self.incident.id}, " if self.incident is not None else ""
        section = pcapng.Section(
            comments=(f"{about}live from {self.target.title}",), application="Tripshark live"
        )
        first = self._interfaces(frozen.copies)
        everybody = await self._live.targets.all()
        self._named_ns = frozen.at_ns
        return (section.block(), *first, self._new_names(names_now(self.target, everybody)))

    def _interfaces(self, copies: Sequence[RingCopy]) -> list[bytes]:
        """Blocks of the interfaces that are new."""
        made: list[bytes] = []
        for copy in copies:
            if linktype(copy.interface.hardware_type) != self._linktype:
                continue  # libpcap reads one link type per file
            if copy.ring not in self._index:
                self._index[copy.ring] = len(self._index)
                made.append(interface_of(self.target, copy, self._linktype, self._filter).block())
        return made

    def _fresh(self, copies: Sequence[RingCopy]) -> Packets:
        """Packets that were not sent yet, in time order; a new interface has its number from here on."""
        numbers = dict(self._index)
        found: list[Packets] = []
        for copy in copies:
            if linktype(copy.interface.hardware_type) != self._linktype:
                continue
            number = numbers.setdefault(copy.ring, len(numbers))
            packets = self._seam.fresh(copy.ring, decode(copy, number))
            wanted = bpf.run(self._program, packets)
            wanted &= packets.time_ns >= np.int64(self._since_ns)
            found.append(packets.take(wanted))
        packets = concat(found).sorted_by_time()
        if self.target.mode == Mode.HEADERS:  # also of what was recorded before that was known
            packets = packets.cut(HEADERS_BYTES)
        return packets

    def _history(self, packets: Packets, rows: Sequence[Row]) -> Iterator[bytes | memoryview]:
        """The past with its alerts, in the order in which it happened."""
        done = 0
        for time_ns, fields in sorted(rows, key=lambda row: row[0]):
            here = int(np.searchsorted(packets.time_ns, time_ns, side="right"))
            yield from _pieces(packets.take(slice(done, here)))
            yield pcapng.alert_row(time_ns, fields)
            done = here
        yield from _pieces(packets.take(slice(done, len(packets))))

    async def _news(self, now_ns: int, packets: Packets) -> bytes:
        """Names that became known, before the packets that need them."""
        found = await asyncio.to_thread(self._from_book, packets)
        if now_ns - self._named_ns < _NAMES_NS:
            return found
        self._named_ns = now_ns
        try:
            everybody = await self._live.targets.all()
        except TripsharkError:  # a recorder that is being restarted: the packets go on
            return found
        return found + self._new_names(names_now(self.target, everybody))

    def _from_book(self, packets: Packets) -> bytes:
        """Names of the other ends, as far as the cluster knows them."""
        book = self._live.book
        if book is None or not len(packets):
            return b""
        kinds = [self._linktype] * (int(packets.source.max()) + 1)
        both = ends(packets, kinds)
        if self._seen.issuperset(both.addresses()):
            return b""
        self._seen.update(both.addresses())
        found = named(
            [self.target],
            book,
            packets=packets,
            ends=both,
            rings=[self.target] * len(kinds),
            since_ns=int(packets.time_ns[0]),
            until_ns=int(packets.time_ns[-1]),
        )
        return self._new_names({address: each.name for address, each in found.items()})

    def _new_names(self, found: Mapping[str, str]) -> bytes:
        new = {
            address: name for address, name in found.items() if self._names.get(address) != name
        }
        self._names |= new
        return pcapng.names(new)

    async def _rows(self, now_ns: int, since_ns: int = 0) -> Sequence[Row]:
        """Alerts about the target that were not told yet; looked for once a second at most."""
        if now_ns - self._looked_ns < _SECOND:
            return ()
        self._looked_ns = now_ns
        found: list[Row] = []
        try:
            async for row, incident in self._alerts(now_ns):
                if row.accepted.id in self._told:
                    continue
                self._told.add(row.accepted.id)
                alert = row.accepted.alert
                if alert.time_ns >= since_ns or (incident and incident == self.incident):
                    fields = alert_fields(row, incident, self.target)
                    self.heard.append(str(fields["MESSAGE"]))
                    found.append((alert.time_ns, fields))
        except TripsharkError:  # the catalogue's trouble is no reason to hold packets back
            return found
        return found

    async def _alerts(self, now_ns: int) -> AsyncIterator[tuple[AlertRow, Incident | None]]:
        """Whatever was said of the target lately: what is captured for it, and what is not."""
        known = self._live.known
        since_ns = max(self._since_ns, self.target.since_ns, now_ns - _LOOK_BACK_NS)
        query = Query(since_ns=since_ns - _LOOK_BACK_NS, limit=_INCIDENTS)
        for incident in await known.incidents(query):
            if incident.target == self.target.key:
                for row in await known.alerts(incident.id):
                    yield row, incident
        if self.target.identity.pod:
            for row in await known.refusals(since_ns=since_ns, limit=_INCIDENTS):
                alert, identity = row.accepted.alert, self.target.identity
                if (alert.namespace, alert.pod) == (identity.namespace, identity.pod):
                    yield row, None

    async def _is_closed(self) -> bool:
        """The incident that is followed takes no more packets."""
        if self.incident is None:
            return False
        try:
            found = await self._live.known.incident(self.incident.id)
        except TripsharkError:
            return False
        return found is None or found.state is not State.OPEN


def interface_of(target: Target, copy: RingCopy, linktype: int, filter: str) -> pcapng.Interface:
    """An interface as evidence describes it too; profiles of Wireshark know it by its description."""
    kind = "pod" if target.identity.pod else "netns"
    return pcapng.Interface(
        name=f"{target.title}:{copy.interface.name}",
        description=f"{kind} {target.title} {copy.interface.name}",
        linktype=linktype,
        snaplen=SNAPLEN,
        filter=filter,
    )


def names_now(target: Target, everybody: Sequence[Target]) -> Mapping[str, str]:
    """Address → who has or had it lately."""
    return names([target, *everybody], since_ns=0, until_ns=FOREVER_NS)


def _pieces(packets: Packets) -> Iterator[bytes | memoryview]:
    for done in range(0, len(packets), _AT_ONCE):
        yield pcapng.packets(packets.take(slice(done, done + _AT_ONCE)))


def _before_ns(incident: Incident) -> int:
    before = incident.plan.get("before_ns", 0)
    return before if isinstance(before, int) else 0


def _require_recorded(target: Target) -> None:
    if target.mode == Mode.OFF:
        raise Refused(f"{target.title} is not recorded", hint="the policy says so")
