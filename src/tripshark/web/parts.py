"""What the web needs of the rest: ports, and a few functions that a program hands in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tripshark.errors import Denied, TripsharkError
from tripshark.model.alert import Json
from tripshark.model.evidence import IncidentId, SealedFile
from tripshark.model.indicator import Indicators
from tripshark.model.note import Note
from tripshark.model.part import Part
from tripshark.model.search import Hit, Hunted, Search
from tripshark.ports import Captures, Catalogue, Clock, Recorder, Targets, Vault
from tripshark.web.access import Access, SignIn
from tripshark.web.looks import Looks
from tripshark.web.metrics import HarvestView, Metrics, OutboxView, Surroundings
from tripshark.web.views import Views
from tripshark.web.watch import Watch


class Gate(Protocol):
    """Who may read. `ingest.auth.Gate` is one."""

    @property
    def is_open(self) -> bool:
        """Nobody is asked: only on loopback."""

    @property
    def challenge(self) -> str:
        """The value of WWW-Authenticate."""

    def refuse(self, headers: Iterable[tuple[bytes, bytes]]) -> Denied | None:
        """None lets the caller in."""


class FalcoView(Protocol):
    """One Falco that sends to us; `ingest.heartbeat.Falco` is one."""

    @property
    def hostname(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def last_ns(self) -> int: ...
    @property
    def heartbeat_ns(self) -> int: ...
    @property
    def every_s(self) -> float: ...
    @property
    def heartbeats(self) -> int: ...
    @property
    def restarts(self) -> int: ...
    @property
    def kernel_drops(self) -> int: ...
    @property
    def queue_drops(self) -> int: ...
    @property
    def unheard(self) -> int: ...
    @property
    def gaps_total(self) -> int: ...
    @property
    def is_late(self) -> bool: ...


class UpstreamView(Protocol):
    """What is known of the Falcos that send to us; `ingest.heartbeat.Upstream` is one."""

    @property
    def falcos(self) -> Sequence[FalcoView]: ...
    def problems(self) -> Sequence[str]: ...


class SourceView(Protocol):
    """A file or standard input from which alerts come; `ingest.follow.Followed` is one."""

    @property
    def name(self) -> str: ...
    @property
    def lines(self) -> int: ...
    def problems(self) -> Sequence[str]: ...


class Shelf(Protocol):
    """Where evidence is read from: this machine's folder, or the object store; `store.remote` has them.

    `node` is "" where an incident has one part. All raise `NotFound`, `NotVerified`, `Transient`.
    """

    async def manifest(self, incident: IncidentId, node: str) -> bytes:
        """`manifest.json` of one part."""

    async def open(
        self, incident: IncidentId, node: str, name: str, sealed: SealedFile | None
    ) -> int:
        """A descriptor of a file, to be closed by whoever asked; `sealed` None: a companion, as it is now."""

    async def address(self, incident: IncidentId, node: str, name: str) -> str | None:
        """Where the store itself hands out a sealed file, for a while; None: it passes through us."""


class Merging(Protocol):
    """Makes one file of several parts."""

    async def open(self, parts: Sequence[Part], name: str) -> int:
        """A descriptor of `merged.pcapng` (and `merged-*.pcapng`) or `merged.json`. Raises `NotFound`, `NotVerified`, `Transient`."""


class Dissected(Protocol):
    """An answer about packets; `analysis.sessions.Told` is one."""

    @property
    def answer(self) -> Mapping[str, Json]: ...
    @property
    def window(self) -> Mapping[str, Json] | None:
        """Which part of a large file the answer is about; None: all of it."""


class Dissection(Protocol):
    """Looks at packets; `analysis.sessions.Sessions` does."""

    async def ask(
        self,
        key: tuple[str, str, str],
        open: Callable[[], Awaitable[int]],
        asked: Mapping[str, Json],
        *,
        t0_ns: int = 0,
        at_ns: int = 0,
        at_frame: int = 0,
    ) -> Dissected:
        """One request about a file. `key` is incident, file and a tag that changes with it; `open` gives a descriptor
        of it. Raises `BadInput`, `NotFound`, `Permanent`, `Transient`.
        """


class Index(Protocol):
    """What is searched for over all evidence; `store.search.SearchIndex` is one."""

    async def find(self, search: Search) -> tuple[Hit, ...]:
        """Newest incidents first."""

    async def hunt(
        self,
        indicators: Indicators,
        *,
        since_ns: int = 0,
        visible: Sequence[str] | None = None,
        limit: int = 500,
    ) -> tuple[tuple[Hunted, ...], bool]:
        """Newest incidents first, and whether there is more."""


class Notes(Protocol):
    """Where analysts' notes are kept; `store.notes` is one."""

    async def add(self, note: Note) -> None: ...
    async def of(self, incident: IncidentId) -> Sequence[Note]: ...
    async def remove(self, incident: IncidentId, id: str) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """The documents of one part, as exports are made of them."""

    manifest: bytes
    findings: bytes = b""
    custody: bytes = b""
    node: str = ""  # where an incident has several parts
    problem: str = ""  # why there are no findings


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """One form of an incident, and what the file is called."""

    content: bytes
    suffix: str
    media: str


class Exports(Protocol):
    """Writes an incident in other tools' formats; `programs.reporting` has one. May take a while: call it in a thread."""

    @property
    def names(self) -> Sequence[str]: ...
    def write(self, name: str, parts: Sequence[Told]) -> Exported:
        """Raises `BadInput` for a format that is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalState:
    """How the journal is doing."""

    waiting: int = 0  # alerts that are durable and not yet in the catalogue
    bytes: int = 0
    problem: str = ""  # why nothing can be made durable now


Check = Callable[[], Awaitable[str]]  # "" when all is well, else what is wrong, in words


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Everything the handlers use."""

    clock: Clock
    catalogue: Catalogue
    targets: Targets
    vault: Vault
    captures: Captures
    gate: Gate
    metrics: Metrics
    rules: Callable[[], Sequence[Mapping[str, Json]]]  # the merged rules, as documents
    upstream: Callable[[int], UpstreamView]  # at this time in nanoseconds
    checks: Mapping[str, Check]  # what /readyz asks: "recorder", "disk", …
    journal: Callable[[], JournalState] = JournalState
    sources: Callable[[], Sequence[SourceView]] = tuple
    custody: Callable[[IncidentId, str, str], None] | None = (
        None  # (incident, file, who) viewed it
    )
    deed: Callable[[IncidentId, str, str, Mapping[str, Json]], None] | None = (
        None  # (incident, what, who, details): any other line of its custody, durable when it returns
    )
    unread_lists: Callable[[], Sequence[str]] = tuple  # of indicators, and why
    index: Index | None = None  # what is searched for over all evidence
    notes: Notes | None = None  # what analysts write at packets
    exports: Exports | None = None  # report, timeline, and other tools' formats
    to_pcap: Callable[[Path, Path], None] | None = None  # pcapng → classic pcap
    scratch: Path | None = None  # where converted files live for the length of an answer
    hosts: frozenset[str] = field(default_factory=frozenset)  # names by which we may be called
    metrics_open: bool = True
    around: Callable[[], Awaitable[Surroundings]] | None = None  # what a node learns from others
    access: Access | None = None  # Kubernetes rights decide, and the gate is not asked
    signin: SignIn | None = None  # people sign in, and the gate is not asked
    origin: str = ""  # how browsers reach us, where that was told
    shelf: Shelf | None = None  # None: the vault's own folders
    parts_of: Callable[[IncidentId], Awaitable[Sequence[Part]]] | None = None  # of a fleet
    merging: Merging | None = None
    outbox: Callable[[], OutboxView] | None = None  # where evidence is sent to a store
    harvest: Callable[[], HarvestView] | None = None  # where it is read from one
    kind: str = "node"  # or "hub"
    views: Views | None = None  # what is watched live; a hub has nothing to watch
    node: str = ""  # this node's name in /v1/incidents/ID/parts/NODE
    attempt: Callable[[bytes], Awaitable[Mapping[str, Json]]] | None = (
        None  # an event of Falco, as it would be taken by the rules in force; nothing is done
    )
    watch: Watch = field(default_factory=Watch)  # what pages that are open are told
    dissection: Dissection | None = None  # looks at packets
    looks: Looks = field(default_factory=Looks)  # what custody knows of that


def recorder_check(recorder: Recorder) -> Check:
    """The recorder answers."""

    async def check() -> str:
        try:
            await recorder.targets()
        except TripsharkError as error:
            return str(error)
        return ""

    return check


def disk_check(vault: Vault, reserve_bytes: int) -> Check:
    """There is room for evidence."""

    async def check() -> str:
        try:
            free = vault.free_bytes()
        except OSError as error:
            return f"the evidence folder cannot be used: {error.strerror}"
        if free < reserve_bytes:
            return f"{free} bytes are free, bounds.reserve is {reserve_bytes}"
        return ""

    return check


def journal_check(state: Callable[[], JournalState]) -> Check:
    """Alerts can be made durable."""

    async def check() -> str:
        return state().problem

    return check
